//! The names of one directory, in order, in as few pieces of memory as that takes.
//!
//! They are gathered one by one. Where there is no room for all of them, the first ones in their order are kept, and the
//! rest is to be read again once those have been listed.

use rayon::prelude::*;

use crate::sender::offer_memory::{FREE_BYTES, Held, Kind, OfferMemory, Parked};

/// Where a name lies, and its length.
type Span = (u32, u16);

/// What a name takes beside its bytes.
const SPAN_BYTES: usize = size_of::<Span>();

/// Names, ascending, each once.
#[derive(Debug, Default)]
pub(crate) struct Names {
    bytes: Vec<u8>,
    spans: Vec<Span>,
    /// How many have been listed.
    listed: usize,
    /// Whether the directory has more than these.
    is_cut: bool,
}

/// Names being examined, which count as held.
#[derive(Debug)]
pub(crate) struct NamesInUse<'a> {
    memory: &'a OfferMemory,
    held: Held<'a>,
    names: Names,
}

/// Names being read.
#[derive(Debug)]
pub(crate) struct Gathering<'a, 'n> {
    names: NamesInUse<'a>,
    /// Names up to this one were listed before.
    after: Option<&'n [u8]>,
    /// Of names behind this one some were left out.
    last: Option<Vec<u8>>,
}

impl Names {
    /// What they take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len() + self.spans.len() * SPAN_BYTES
    }

    fn name(&self, (start, len): Span) -> &[u8] {
        &self.bytes[start as usize..][..usize::from(len)]
    }

    fn push(&mut self, name: &[u8]) {
        // No file system has names of 64 KiB, and `Gathering` keeps these short of 4 GiB.
        self.spans.push((self.bytes.len() as u32, name.len() as u16));
        self.bytes.extend_from_slice(name);
    }

    /// Brings them in order. A directory that changes while it is read may give a name twice, and so do several parts
    /// of a tree.
    fn sort(&mut self) {
        let mut spans = std::mem::take(&mut self.spans);
        spans.par_sort_unstable_by(|one, other| self.name(*one).cmp(self.name(*other)));
        spans.dedup_by(|one, other| self.name(*one) == self.name(*other));
        self.spans = spans;
    }

    /// Keeps the first half. Answers the last of that.
    fn cut(&mut self) -> Vec<u8> {
        self.sort();
        self.spans.truncate((self.spans.len() / 2).max(1));
        self.is_cut = true;
        self.keep_left(usize::MAX);
        self.spans.last().map(|&span| self.name(span).to_vec()).unwrap_or_default()
    }

    /// Forgets those that were listed, and of the others those for which this is too little room.
    fn keep_left(&mut self, bytes_max: usize) {
        let mut kept = Self { is_cut: self.is_cut, ..Self::default() };
        for &span in &self.spans[self.listed..] {
            if kept.bytes() + SPAN_BYTES + usize::from(span.1) > bytes_max {
                kept.is_cut = true;
                break;
            }
            kept.push(self.name(span));
        }
        *self = kept;
    }
}

impl<'a, 'n> Gathering<'a, 'n> {
    /// Names behind `after`, if there is such a one.
    pub(crate) fn new(memory: &'a OfferMemory, after: Option<&'n [u8]>) -> Self {
        let names = NamesInUse { memory, held: memory.hold(Kind::Names), names: Names::default() };
        Self { names, after, last: None }
    }

    pub(crate) fn add(&mut self, name: &[u8]) {
        let is_left_out = |last: &Option<Vec<u8>>| last.as_deref().is_some_and(|last| name > last);
        if self.after.is_some_and(|after| name <= after) || is_left_out(&self.last) {
            return;
        }
        if !self.names.grow(name.len()) {
            self.last = Some(self.names.cut());
            if is_left_out(&self.last) {
                return;
            }
        }
        self.names.names.push(name);
    }

    pub(crate) fn finish(mut self) -> NamesInUse<'a> {
        self.names.names.sort();
        self.names
    }
}

impl<'a> NamesInUse<'a> {
    /// Names that were parked, if they are still there.
    pub(crate) fn unparked(memory: &'a OfferMemory, parked: Parked<'a>) -> Option<Self> {
        parked.take().map(|(names, held)| Self { memory, held, names })
    }

    fn grow(&self, name_bytes: usize) -> bool {
        let cost = name_bytes + SPAN_BYTES;
        let is_small = self.names.bytes() + cost <= FREE_BYTES;
        is_small || (u32::try_from(self.names.bytes.len() + name_bytes).is_ok() && self.held.grow(cost))
    }

    fn cut(&mut self) -> Vec<u8> {
        let before = self.names.bytes();
        let last = self.names.cut();
        self.held.shrink(before - self.names.bytes());
        last
    }

    /// The next ones, at most so many, which count as listed then.
    pub(crate) fn next_part(&mut self, count_max: usize) -> impl IndexedParallelIterator<Item = &[u8]> {
        let names = &mut self.names;
        let start = names.listed;
        names.listed = names.spans.len().min(start + count_max);
        let names = &*names;
        names.spans[start..names.listed].par_iter().map(|&span| names.name(span))
    }

    /// Whether nothing is left of the directory.
    pub(crate) fn is_at_end(&self) -> bool {
        self.names.listed == self.names.spans.len() && !self.names.is_cut
    }

    /// The one that was listed last.
    pub(crate) fn last_listed(&self) -> Option<&[u8]> {
        let at = self.names.listed.checked_sub(1)?;
        Some(self.names.name(self.names.spans[at]))
    }

    /// Lets go of them for a while; perhaps for good.
    pub(crate) fn park(self) -> Option<Parked<'a>> {
        let Self { memory, held, mut names } = self;
        let room = memory.room_to_park(&held);
        if names.bytes() > room {
            // They would be read again for each part.
            names.keep_left(room);
        }
        if names.listed == names.spans.len() { None } else { memory.park(names, held) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fastcp_net::{Bound, Bounds};
    use rayon::prelude::*;

    use super::{Gathering, NamesInUse};
    use crate::sender::offer_memory::{FREE_BYTES, Kind, OfferMemory};

    fn name(nth: usize) -> Vec<u8> {
        format!("{nth:0>240}").into_bytes()
    }

    /// Reads a directory of so many names, which come in no order and some of them twice.
    fn read<'a>(memory: &'a OfferMemory, after: Option<&[u8]>, count: usize) -> NamesInUse<'a> {
        let mut gathering = Gathering::new(memory, after);
        (0..count).map(|nth| nth * 7919 % count).for_each(|nth| gathering.add(&name(nth)));
        (0..count).step_by(10).for_each(|nth| gathering.add(&name(nth)));
        gathering.finish()
    }

    fn part(names: &mut NamesInUse<'_>, count: usize) -> Vec<Vec<u8>> {
        names.next_part(count).map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn names_come_in_order_and_once_however_little_room_there_is() {
        for max_bytes in [0, 400 << 10, 1 << 20, 100 << 20] {
            let memory = OfferMemory::new(max_bytes, Arc::default());
            let count = 10_007;
            let mut after: Option<Vec<u8>> = None;
            let (mut listed, mut reads) = (0, 0);
            loop {
                let mut names = read(&memory, after.as_deref(), count);
                reads += 1;
                loop {
                    let names = part(&mut names, 300);
                    if names.is_empty() {
                        break;
                    }
                    names.iter().for_each(|found| {
                        assert!(*found == name(listed));
                        listed += 1;
                    });
                }
                let last = names.last_listed().map(<[u8]>::to_vec);
                if names.is_at_end() {
                    break;
                }
                drop(names);
                after = last;
            }
            assert_eq!(listed, count);
            assert_eq!(reads > 1, max_bytes < 100 << 20, "{max_bytes}");
            assert!(memory.hold(Kind::Names).grow(max_bytes / (64 << 10) * (64 << 10)), "all of it is given back");
        }
    }

    #[test]
    fn those_parked_first_make_room_and_those_in_use_do_not() {
        let bounds = Arc::<Bounds>::default();
        let memory = OfferMemory::new(4 << 20, Arc::clone(&bounds));
        let parked = |count| read(&memory, None, count).park().expect("room");
        let (first, second) = (parked(6000), parked(6000));
        let mut in_use = NamesInUse::unparked(&memory, second).expect("room for both");
        assert_eq!(part(&mut in_use, 1), [name(0)]);
        let third = parked(6000);
        assert!(NamesInUse::unparked(&memory, first).is_none(), "it was parked first");
        assert_eq!(bounds.count(Bound::OfferMemory), 1);
        let all = read(&memory, None, 60_000);
        assert!(!all.is_at_end() && all.names.bytes() < (4 << 20) + FREE_BYTES);
        assert!(NamesInUse::unparked(&memory, third).is_none());
        assert!(memory.is_tight());
        assert!(in_use.park().is_some());
        drop(all);
        assert!(!memory.is_tight());
    }
}
