//! Listings that several scans share.
//!
//! Many clients that start together walk the same tree at the same time. A directory that one of them
//! has just listed need not be read again for the others, as long as nobody is told of a state older
//! than its own beginning: a listing is shared only with scans that began before it was made. So whoever
//! changes a file and then starts a client gets the change, whatever others are doing.
//!
//! Nothing is kept while only one scan runs. No scan ever waits for another.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use fastcp_model::{Listing, RelPath};

use crate::lock::{Guard, Lock};
use crate::settings::OFFER_BYTES_DEFAULT;

/// What is kept of what scans may hold: one part in so many.
const SHARE: usize = 8;

#[derive(Debug)]
pub(crate) struct SharedListings {
    /// The most bytes of all listings together.
    max_bytes: usize,
    state: Lock<State>,
}

#[derive(Debug, Default)]
struct State {
    scans: usize,
    listings: HashMap<RelPath, Shared>,
    oldest_first: VecDeque<RelPath>,
    bytes: usize,
}

#[derive(Debug)]
struct Shared {
    begun: Instant,
    /// What it takes, with its path.
    bytes: usize,
    listing: Arc<Listing>,
}

/// A scan's part in the sharing; it ends when dropped.
pub(crate) struct Sharing<'a> {
    all: &'a SharedListings,
}

impl Default for SharedListings {
    fn default() -> Self {
        Self::of(OFFER_BYTES_DEFAULT)
    }
}

impl SharedListings {
    /// A share of what scans may hold.
    pub(crate) fn of(offer_bytes_max: usize) -> Self {
        Self { max_bytes: offer_bytes_max / SHARE, state: Lock::default() }
    }

    /// None yet, and as many of another tree.
    pub(crate) fn of_another_tree(&self) -> Self {
        Self { max_bytes: self.max_bytes, state: Lock::default() }
    }

    /// Takes part.
    pub(crate) fn join(&self) -> Sharing<'_> {
        self.lock().scans += 1;
        Sharing { all: self }
    }

    fn lock(&self) -> Guard<'_, State> {
        self.state.lock()
    }
}

impl Sharing<'_> {
    /// The listing of the directory at `path` below the root, if somebody began to make one after `since`.
    pub(crate) fn listed_since(&self, path: &RelPath, since: Instant) -> Option<Arc<Listing>> {
        let state = self.all.lock();
        state.listings.get(path).filter(|shared| shared.begun >= since).map(|shared| Arc::clone(&shared.listing))
    }

    /// A directory was listed, beginning at `begun`; its listing takes so many bytes.
    pub(crate) fn listed(&self, path: RelPath, begun: Instant, listing: &Arc<Listing>, bytes: usize) {
        let mut state = self.all.lock();
        if state.scans > 1 {
            // It stands here twice.
            let bytes = bytes + size_of::<Shared>() + 2 * (size_of::<RelPath>() + path.as_bytes().len());
            state.add(path, Shared { begun, bytes, listing: Arc::clone(listing) }, self.all.max_bytes);
        }
    }
}

impl Drop for Sharing<'_> {
    fn drop(&mut self) {
        let mut state = self.all.lock();
        state.scans -= 1;
        if state.scans <= 1 {
            *state = State { scans: state.scans, ..State::default() };
        }
    }
}

impl State {
    fn add(&mut self, path: RelPath, shared: Shared, max_bytes: usize) {
        self.bytes += shared.bytes;
        match self.listings.insert(path.clone(), shared) {
            Some(before) => self.bytes -= before.bytes,
            None => self.oldest_first.push_back(path),
        }
        while self.bytes > max_bytes {
            let Some(oldest) = self.oldest_first.pop_front() else { return };
            if let Some(gone) = self.listings.remove(&oldest) {
                self.bytes -= gone.bytes;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use fastcp_model::{Listing, ListingEnd, RelPath};

    use super::SharedListings;

    fn listing() -> Arc<Listing> {
        let (dir, end) = (RelPath::root(), ListingEnd::Complete);
        Arc::new(Listing { dir, root: None, entries: Vec::new(), failures: Vec::new(), end })
    }

    fn path(number: usize) -> RelPath {
        RelPath::new(number.to_string().as_bytes()).expect("lawful")
    }

    #[test]
    fn a_listing_is_shared_with_those_who_began_before_it() {
        let all = SharedListings::default();
        let early = Instant::now();
        let (one, _two) = (all.join(), all.join());
        let begun = Instant::now();
        one.listed(path(1), begun, &listing(), 100);
        assert!(one.listed_since(&path(1), early).is_some());
        assert!(one.listed_since(&path(1), begun).is_some());
        let late = begun + std::time::Duration::from_nanos(1);
        assert!(one.listed_since(&path(1), late).is_none());
        assert!(one.listed_since(&path(2), early).is_none());
    }

    #[test]
    fn one_scan_alone_keeps_nothing_and_the_last_leaves_nothing() {
        let all = SharedListings::default();
        let begun = Instant::now();
        let one = all.join();
        one.listed(path(1), begun, &listing(), 100);
        assert!(one.listed_since(&path(1), begun).is_none());
        let two = all.join();
        one.listed(path(1), begun, &listing(), 100);
        drop(one);
        assert!(two.listed_since(&path(1), begun).is_none());
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let all = SharedListings::of(8 << 20);
        let begun = Instant::now();
        let (one, _two) = (all.join(), all.join());
        for number in 0..1010 {
            one.listed(path(number), begun, &listing(), 10_000);
            one.listed(path(number), begun, &listing(), 1000);
        }
        assert!((800..all.max_bytes / 1000).contains(&all.lock().listings.len()), "{}", all.lock().listings.len());
        assert!(all.lock().bytes <= all.max_bytes);
        assert!(one.listed_since(&path(9), begun).is_none());
        assert!(one.listed_since(&path(1009), begun).is_some());
    }
}
