//! Whether two offers name the same entries, without keeping either.
//!
//! An offer that is broken off comes again, perhaps of a source that has changed. What was planned of the first is
//! passed over in the second, so what the two do not have in common would show nowhere: a name that only the second
//! has would look extraneous. Each sum is of the hashes of all paths, in any order and in any parts. XXH3 will do:
//! who could choose names at the source whose sums are equal could as well remove the files there.

use fastcp_model::{EntryKind, Listing};
use xxhash_rust::xxh3::xxh3_128;

/// The entries of an offer, as far as it has come.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OfferSum(u128);

impl OfferSum {
    /// Adds what a listing, or a part of one, names.
    pub(crate) fn add(&mut self, listing: &Listing) {
        let mut path = listing.dir.as_bytes().to_vec();
        path.push(b'/');
        let dir_bytes = path.len();
        for entry in &listing.entries {
            path.truncate(dir_bytes);
            path.extend_from_slice(entry.name.as_bytes());
            if entry.kind == EntryKind::Dir {
                path.push(b'/');
            }
            self.0 = self.0.wrapping_add(xxh3_128(&path));
        }
    }
}
