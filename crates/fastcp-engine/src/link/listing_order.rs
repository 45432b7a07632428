//! What must hold between the listings of one offer.
//!
//! The names of a directory ascend over all its parts, so that none comes twice, and the root names
//! nothing of ours. Whoever reads an offer asks this first: two files of one name would share a part
//! file, and a name that comes twice would be compared twice. It holds one name for each directory of
//! which another part is to come. Whoever reads an offer also holds each directory that is named until it is listed, so there
//! are bounds to that.

use std::collections::HashMap;

use fastcp_model::{Listing, ListingEnd, Name, RelPath, STATE_DIR};
use fastcp_net::NetError;
use fastcp_wire::offer::{OfferBatch, OfferEnd};
use fastcp_wire::unlisted::Unlisted;

use crate::error::RunError;

/// The last name of each directory that is not listed to its end.
#[derive(Debug, Default)]
pub(crate) struct ListingOrder {
    last_names: HashMap<RelPath, Name>,
    unlisted: Unlisted,
}

impl ListingOrder {
    /// The last name of a directory of which another part is to come.
    pub(crate) fn last_of(&self, dir: &RelPath) -> Option<&Name> {
        self.last_names.get(dir)
    }

    /// Checks the next listing of the offer.
    pub(crate) fn check(&mut self, listing: &Listing) -> Result<(), RunError> {
        self.unlisted.take(listing);
        if self.unlisted.is_too_much() {
            return Err(broken_offer("it names ever more directories and does not list them"));
        }
        let before = self.last_names.remove(&listing.dir);
        let names = || before.iter().chain(listing.entries.iter().map(|entry| &entry.name));
        if !names().is_sorted_by(|one, next| one < next) {
            return Err(broken_offer("its names are not in order"));
        }
        if listing.dir.is_root() && names().any(|name| name.as_bytes() == STATE_DIR) {
            return Err(broken_offer("it contains .fastcp"));
        }
        if listing.end == ListingEnd::More
            && let Some(last) = names().last()
        {
            self.last_names.insert(listing.dir.clone(), last.clone());
        }
        Ok(())
    }
}

/// What the listings of one offer add up to.
#[derive(Debug, Default)]
pub(crate) struct OfferCount {
    entries: u64,
    failures: u64,
}

impl OfferCount {
    /// Counts what a batch holds.
    pub(crate) fn add(&mut self, batch: &OfferBatch) {
        for listing in &batch.listings {
            self.entries += listing.entries.len() as u64 + u64::from(listing.root.is_some());
            let is_broken = matches!(listing.end, ListingEnd::Broken(_));
            self.failures += listing.failures.len() as u64 + u64::from(is_broken);
        }
    }

    /// Fails unless the end says the same: a sender that counts otherwise knows of something that is not known here.
    pub(crate) fn expect(&self, end: &OfferEnd) -> Result<(), RunError> {
        if (end.entries, end.failures) == (self.entries, self.failures) {
            Ok(())
        } else {
            Err(broken_offer("its end counts what was not listed"))
        }
    }
}

/// An offer that makes no sense as a whole.
pub(crate) fn broken_offer(what: &'static str) -> RunError {
    RunError::Net { during: "reading offers", source: NetError::Offer(what) }
}

#[cfg(test)]
mod tests {
    use fastcp_model::{Entry, EntryKind, Listing, ListingEnd, RelPath};
    use fastcp_wire::limits::{BATCH_ENTRIES_MAX, UNLISTED_BYTES_MAX};

    use super::ListingOrder;
    use crate::commit::transfer::tests::{metadata, name};

    #[test]
    fn directories_that_are_named_and_never_listed_end_the_run() {
        let mut order = ListingOrder::default();
        let deep = RelPath::new(vec!["d".repeat(250); 15].join("/").as_bytes()).expect("lawful");
        let mut more = |from: usize| {
            let names = (from..from + BATCH_ENTRIES_MAX).map(|nth| name(&format!("{nth:0>250}")));
            let entry = |name| Entry { name, kind: EntryKind::Dir, metadata: metadata(0o755, 1) };
            let entries: Vec<_> = names.map(entry).collect();
            let dir = deep.clone();
            order.check(&Listing { dir, root: None, entries, failures: Vec::new(), end: ListingEnd::More })
        };
        // Each path has 4,015 bytes.
        let lawful = UNLISTED_BYTES_MAX / (4015 + 64) / BATCH_ENTRIES_MAX;
        for nth in 0..=lawful {
            let is_lawful = more(nth * BATCH_ENTRIES_MAX).is_ok();
            assert_eq!(is_lawful, nth < lawful, "{nth}");
        }
    }
}
