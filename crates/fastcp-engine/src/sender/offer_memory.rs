//! What the scans of all clients hold in memory, within one bound.
//!
//! A receiver may stop reading its offer for as long as it likes, so whatever its scan holds may be held for long. Two
//! kinds are told apart:
//!
//! - Names of large directories that are still to be examined are *parked* between two parts of a listing. They can be
//!   read again, so those that were parked first make room for whatever else is wanted: those who read keep theirs.
//! - Listings on their way to a receiver, directories still to be listed, and names being examined are *held*. Listings and
//!   directories have half of the room: where that is taken, a scan lists little at a time, and finds its names parked.
//!
//! Nobody ever waits for room, so nobody can wait for a receiver that does not read. Beyond the bound each scan may have
//! what it cannot do without: a few small listings, few directories of each level of a tree, and [`FREE_BYTES`] of names for
//! each thread that lists. Directories count beyond the bound, too: what one scan has of them another has not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fastcp_net::{Bound, Bounds};

use crate::lock::Lock;
use crate::sender::names::Names;
use crate::settings::OFFER_BYTES_DEFAULT;

/// Names of a directory that are held without asking, while they are examined.
pub(crate) const FREE_BYTES: usize = 256 << 10;
/// Room is taken in multiples of this, so that small directories cost no lock each.
const GRANULE_BYTES: usize = 64 << 10;
/// With less room than this a scan lists little at a time.
const STEP_BYTES: usize = 1 << 20;

/// What is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Listings and directories, which may be held for long.
    Listings,
    /// Names, which are parked soon.
    Names,
}

/// The bound, and what is held and parked.
#[derive(Debug)]
pub(crate) struct OfferMemory {
    max_bytes: usize,
    bounds: Arc<Bounds>,
    state: Lock<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Held and parked.
    taken_bytes: usize,
    parked_bytes: usize,
    /// The names that were parked first have the smallest key.
    parked: BTreeMap<u64, (Names, usize)>,
    next_key: u64,
}

/// Room that is given back when dropped.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    memory: &'a OfferMemory,
    kind: Kind,
    used_bytes: AtomicUsize,
    taken_bytes: AtomicUsize,
}

/// Names that may have to be read again; forgotten when dropped.
#[derive(Debug)]
pub(crate) struct Parked<'a> {
    memory: &'a OfferMemory,
    key: u64,
}

impl Default for OfferMemory {
    fn default() -> Self {
        Self::new(OFFER_BYTES_DEFAULT, Arc::default())
    }
}

impl OfferMemory {
    /// At most so much; what has to be read again is counted.
    pub(crate) fn new(max_bytes: usize, bounds: Arc<Bounds>) -> Self {
        Self { max_bytes, bounds, state: Lock::default() }
    }

    /// Room for nothing yet.
    pub(crate) fn hold(&self, kind: Kind) -> Held<'_> {
        Held { memory: self, kind, used_bytes: AtomicUsize::new(0), taken_bytes: AtomicUsize::new(0) }
    }

    /// Whether so little is left that scans had better list little at a time.
    pub(crate) fn is_tight(&self) -> bool {
        Self::is_tight_with(self.room())
    }

    /// The same where so much is known to be left.
    pub(crate) fn is_tight_with(room: usize) -> bool {
        room < STEP_BYTES
    }

    /// How much more may be held of listings and directories.
    pub(crate) fn room(&self) -> usize {
        let state = self.state.lock();
        self.held_max(Kind::Listings).saturating_sub(state.taken_bytes - state.parked_bytes)
    }

    /// How much may be held where more of this kind is wanted.
    fn held_max(&self, kind: Kind) -> usize {
        match kind {
            Kind::Listings => self.max_bytes / 2,
            Kind::Names => self.max_bytes,
        }
    }

    /// How much there is for names that are now held so.
    pub(crate) fn room_to_park(&self, held: &Held<'_>) -> usize {
        let own = held.taken_bytes.load(Ordering::Relaxed);
        let state = self.state.lock();
        (self.max_bytes + own).saturating_sub(state.taken_bytes - state.parked_bytes)
    }

    /// Keeps names until they are taken back or have to make room. `None` where there is no room for them at all.
    pub(crate) fn park<'a>(&'a self, names: Names, held: Held<'a>) -> Option<Parked<'a>> {
        let bytes = names.bytes();
        let taken = held.taken_bytes.load(Ordering::Relaxed);
        if bytes > taken && !self.try_take(bytes - taken, Kind::Names) {
            return None;
        }
        held.taken_bytes.store(0, Ordering::Relaxed);
        let bytes = bytes.max(taken);
        let mut state = self.state.lock();
        let key = state.next_key;
        state.next_key += 1;
        state.parked_bytes += bytes;
        state.parked.insert(key, (names, bytes));
        Some(Parked { memory: self, key })
    }

    /// Takes room, from parked names where it has to be.
    fn try_take(&self, bytes: usize, kind: Kind) -> bool {
        let mut state = self.state.lock();
        if state.taken_bytes - state.parked_bytes + bytes > self.held_max(kind) {
            return false;
        }
        let mut gone = Vec::new();
        while state.taken_bytes + bytes > self.max_bytes
            && let Some((_, (names, of_names))) = state.parked.pop_first()
        {
            state.taken_bytes -= of_names;
            state.parked_bytes -= of_names;
            gone.push(names);
        }
        state.taken_bytes += bytes;
        // They are large: freed without the lock.
        drop(state);
        gone.iter().for_each(|_| self.bounds.hit(Bound::OfferMemory, None));
        true
    }

    fn give_back(&self, bytes: usize) {
        if bytes > 0 {
            self.state.lock().taken_bytes -= bytes;
        }
    }
}

impl Held<'_> {
    /// Takes room for more; `false` where there is none.
    pub(crate) fn grow(&self, bytes: usize) -> bool {
        let used = self.used_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let short = used.saturating_sub(self.taken_bytes.load(Ordering::Relaxed));
        if short == 0 {
            return true;
        }
        // Of two threads that find it short both may take: it is given back with the rest.
        let more = short.next_multiple_of(GRANULE_BYTES);
        let is_taken = self.memory.try_take(more, self.kind);
        match is_taken {
            true => self.taken_bytes.fetch_add(more, Ordering::Relaxed),
            false => self.used_bytes.fetch_sub(bytes, Ordering::Relaxed),
        };
        is_taken
    }

    /// Takes room for what is held already, and cannot be done without: others have to do with less.
    pub(crate) fn add(&self, bytes: usize) {
        let used = self.used_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let short = used.saturating_sub(self.taken_bytes.load(Ordering::Relaxed)).next_multiple_of(GRANULE_BYTES);
        if short > 0 {
            self.memory.state.lock().taken_bytes += short;
            self.taken_bytes.fetch_add(short, Ordering::Relaxed);
        }
    }

    /// Needs less from now on; the room is kept for what comes next.
    pub(crate) fn shrink(&self, bytes: usize) {
        let used = self.used_bytes.load(Ordering::Relaxed);
        self.used_bytes.store(used.saturating_sub(bytes), Ordering::Relaxed);
    }

    /// Gives back what is not needed at the moment.
    pub(crate) fn trim(&self) {
        let used = self.used_bytes.load(Ordering::Relaxed).next_multiple_of(GRANULE_BYTES);
        let excess = self.taken_bytes.load(Ordering::Relaxed).saturating_sub(used);
        // Now and then is enough.
        if excess > 4 * GRANULE_BYTES {
            self.taken_bytes.fetch_sub(excess, Ordering::Relaxed);
            self.memory.give_back(excess);
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.memory.give_back(*self.taken_bytes.get_mut());
    }
}

impl<'a> Parked<'a> {
    /// The names, held now; `None` where they had to go.
    pub(crate) fn take(self) -> Option<(Names, Held<'a>)> {
        let mut state = self.memory.state.lock();
        let (names, bytes) = state.parked.remove(&self.key)?;
        state.parked_bytes -= bytes;
        drop(state);
        let held = self.memory.hold(Kind::Names);
        held.used_bytes.store(bytes, Ordering::Relaxed);
        held.taken_bytes.store(bytes, Ordering::Relaxed);
        Some((names, held))
    }
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        let mut state = self.memory.state.lock();
        let gone = state.parked.remove(&self.key);
        if let Some((_, bytes)) = &gone {
            state.taken_bytes -= bytes;
            state.parked_bytes -= bytes;
        }
        drop(state);
    }
}
