//! The search for fine chunks, in what the coarse search missed.
//!
//! They too are tried where they are expected first. A list of which something is there is of a place that was
//! rewritten, and what is not there is new. Lists of which nothing is there are kept: they are of what was moved, or of
//! what is new altogether. When there is much of that, what the new file did not use of the basis is cut finely, and
//! they are looked up in the index of it.

use std::io;
use std::thread;

use fastcp_model::ByteRange;
use fastcp_wire::signature::{Level, SignedChunk};

use super::asker::Search;
use super::coarse::Coarse;
use super::effort::Effort;
use super::expected::{Expected, Sought, try_there, with_ranges};
use super::waiting::{Early, Made};
use super::{DeltaFile, Reach, Stop, Take, asked, in_list, listed, range};
use crate::reuse::index::Index;

/// Lists of so many bytes are gone through together: more than one processor can be at it.
const TOGETHER_BYTES: u64 = 8 << 20;
/// The basis is cut for this part of its length, and for no less than so many bytes: cutting it would take longer than
/// fetching them.
const WORTH_CUTTING_PART: u64 = 256;
const WORTH_CUTTING_BYTES: std::ops::RangeInclusive<u64> = 256 << 10..=256 << 20;

/// A list and where its chunks are expected.
struct FineList {
    start: u64,
    chunks: Vec<SignedChunk>,
    /// One way and, where it is not there, the other.
    expected: [Expected; 2],
}

/// Lists that have not been gone through yet.
#[derive(Default)]
struct Together {
    lists: Vec<FineList>,
    bytes: u64,
}

/// Looks for fine chunks in the ranges that the coarse search missed.
pub(super) fn find_fine<'p>(
    search: &mut Search<'_, '_, 'p>,
    file: &DeltaFile<'p>,
    coarse: &Coarse<'_>,
    take: Take<'_>,
) -> Result<(), Stop> {
    let make = || fine_index(file, coarse);
    thread::scope(|threads| {
        let has_much = coarse.found.is_some() && !coarse.missed.is_empty();
        let mut index = if has_much { Some(Made::by(threads, make)?) } else { None };
        let (mut together, mut early, mut effort) = (Together::default(), Early::default(), Effort::default());
        let mut to_ask = coarse.missed.iter();
        loop {
            while search.has_room()
                && let Some(range) = to_ask.find(|_| effort.may_ask())
            {
                search.ask(asked(file, *range, Level::Fine));
            }
            let answer = search.answer()?;
            let is_last = answer.is_none();
            if let Some((asked, outcome)) = answer {
                let start = asked.range.start();
                together.push(FineList { start, chunks: listed(outcome)?, expected: coarse.expected_of(start) });
            }
            if is_last || together.bytes >= TOGETHER_BYTES {
                let may_wait = index.is_some() || may_cut(file, coarse);
                for FineList { start, chunks, .. } in together.go_through(file, &mut effort, take) {
                    match may_wait {
                        true => drop(early.push(start, chunks)),
                        false => settle(start, &chunks, &mut effort, take),
                    }
                }
                if index.is_none() && early.bytes() >= worth_cutting_bytes(file) {
                    index = Some(Made::by(threads, make)?);
                }
            }
            if let Some(index) = &mut index
                && (is_last || early.may_go(index))
            {
                look_up_all(index.wait()?, &mut early, &mut effort, take);
            }
            if is_last {
                early.take().for_each(|(start, chunks)| settle(start, &chunks, &mut effort, take));
                return Ok(());
            }
        }
    })
}

impl Together {
    fn push(&mut self, list: FineList) {
        self.bytes += range_of(list.start, &list.chunks).len();
        self.lists.push(list);
    }

    /// Tries all chunks where they are expected; answers the lists of which nothing is there. The others are settled.
    fn go_through(&mut self, file: &DeltaFile<'_>, effort: &mut Effort, take: Take<'_>) -> Vec<FineList> {
        let mut lists = std::mem::take(self).lists;
        // A list that had to be asked for again comes late.
        lists.sort_unstable_by_key(|list| list.start);
        let sought = lists.iter().flat_map(|list| {
            with_ranges(list.start, &list.chunks).map(|(range, chunk)| Sought { range, chunk, expected: list.expected })
        });
        let tried = try_there(&file.basis, &sought.collect::<Vec<_>>(), take);
        let mut rest = &tried[..];
        lists.retain(|list| {
            let (of_list, behind) = rest.split_at(list.chunks.len());
            rest = behind;
            let has_some = of_list.iter().any(|tried| tried.is_found);
            if has_some {
                of_list.iter().for_each(|tried| effort.looked_up(tried.range, tried.is_found));
                take(&[], Some(range_of(list.start, &list.chunks)));
            }
            !has_some
        });
        lists
    }
}

fn look_up_all(index: &Index, early: &mut Early, effort: &mut Effort, take: Take<'_>) {
    for (start, chunks) in early.take() {
        take(&in_list(index, start, &chunks, effort), Some(range_of(start, &chunks)));
    }
}

/// Nothing of a list is looked for any more.
fn settle(start: u64, chunks: &[SignedChunk], effort: &mut Effort, take: Take<'_>) {
    let range = range_of(start, chunks);
    effort.looked_up(range, false);
    take(&[], Some(range));
}

fn range_of(start: u64, chunks: &[SignedChunk]) -> ByteRange {
    range(start, chunks.iter().map(|chunk| u64::from(chunk.len)).sum())
}

fn may_cut(file: &DeltaFile<'_>, coarse: &Coarse<'_>) -> bool {
    file.reach == Reach::Anywhere && file.basis.has_more(&coarse.used)
}

fn worth_cutting_bytes(file: &DeltaFile<'_>) -> u64 {
    (file.basis.bytes() / WORTH_CUTTING_PART).clamp(*WORTH_CUTTING_BYTES.start(), *WORTH_CUTTING_BYTES.end())
}

/// The fine chunks of what the new file did not use of the basis.
fn fine_index(file: &DeltaFile<'_>, coarse: &Coarse<'_>) -> io::Result<Index> {
    let index = file.basis.coarse()?;
    let none;
    let found = match &coarse.found {
        Some(found) => found,
        None => {
            none = index.no_kinds();
            &none
        }
    };
    file.basis.fine(index, found, &coarse.used)
}
