//! How far the listings of an offer may lag behind the directories that it names.
//!
//! A receiver makes a directory when it is named and holds it until it is listed, so its memory follows what is named and not
//! listed. Both ends count that alike: a sender so that it never asks for too much, a receiver so that nobody can.

use fastcp_model::{EntryKind, Listing, ListingEnd, NAME_BYTES_MAX, PATH_BYTES_MAX, RelPath};

use crate::limits::{UNLISTED_BYTES_MAX, UNLISTED_DIR_BYTES};

/// What a sender leaves of the limit for steps that name a single directory: one for each level that a path can have.
const UNLISTED_RESERVE_BYTES: usize = 16 << 20;

/// What the directories take that were named and are not listed to their end, at either end.
#[derive(Debug, Default)]
pub struct Unlisted {
    bytes: usize,
}

impl Unlisted {
    /// A listing was made, or heard: it names directories, and may be the end of its own.
    pub fn take(&mut self, listing: &Listing) {
        let dirs = listing.entries.iter().filter(|entry| entry.kind == EntryKind::Dir);
        let paths = dirs.map(|entry| listing.dir.joined_bytes(entry.name.as_bytes().len()));
        self.bytes += paths.map(|bytes| UNLISTED_DIR_BYTES + bytes).sum::<usize>();
        if listing.end != ListingEnd::More && !listing.dir.is_root() {
            self.bytes = self.bytes.saturating_sub(UNLISTED_DIR_BYTES + listing.dir.as_bytes().len());
        }
    }

    /// Whether it is more than any sender leaves unlisted.
    pub fn is_too_much(&self) -> bool {
        self.bytes > UNLISTED_BYTES_MAX
    }

    /// How many bytes of directories one step of a sender may name: ever fewer as what is unlisted nears the limit, so that no
    /// step goes beyond it.
    pub fn step_bytes_max(&self) -> usize {
        (UNLISTED_BYTES_MAX - UNLISTED_RESERVE_BYTES).saturating_sub(self.bytes) / 2
    }

    /// What one directory of a directory counts at most.
    pub fn bytes_of_one(dir: &RelPath) -> usize {
        UNLISTED_DIR_BYTES + dir.joined_bytes(NAME_BYTES_MAX).min(PATH_BYTES_MAX)
    }

    /// Whether a sender may name more before it has listed what it has named.
    pub fn has_room(&self) -> bool {
        self.bytes < UNLISTED_BYTES_MAX / 2
    }
}

#[cfg(test)]
mod tests {
    use fastcp_model::{Entry, EntryKind, Listing, ListingEnd, Metadata, Name, RelPath, Timestamp};

    use super::Unlisted;
    use crate::limits::{UNLISTED_BYTES_MAX, UNLISTED_DIR_BYTES};

    const NAME_BYTES: usize = 200;

    fn listing(dir: &str, names: std::ops::Range<usize>, end: ListingEnd) -> Listing {
        let dir = RelPath::new(dir.as_bytes()).expect("lawful");
        let metadata = Metadata { mode: 0o755, uid: 0, gid: 0, mtime: Timestamp::from_wire_ns(0) };
        let name = |nth| Name::new(format!("{nth:0>200}").as_bytes()).expect("lawful");
        let entry = |nth| Entry { name: name(nth), kind: EntryKind::Dir, metadata };
        Listing { dir, root: None, entries: names.map(entry).collect(), failures: Vec::new(), end }
    }

    #[test]
    fn what_is_listed_makes_room_for_what_is_named() {
        let mut unlisted = Unlisted::default();
        let dir_bytes = UNLISTED_DIR_BYTES + NAME_BYTES;
        let (half, all) = (UNLISTED_BYTES_MAX / 2 / dir_bytes, UNLISTED_BYTES_MAX / dir_bytes);
        unlisted.take(&listing("", 0..half, ListingEnd::More));
        assert!(unlisted.has_room());
        unlisted.take(&listing("", half..all, ListingEnd::More));
        assert!(!unlisted.has_room() && !unlisted.is_too_much());
        unlisted.take(&listing("", all..all + 1, ListingEnd::Complete));
        assert!(unlisted.is_too_much());
        for nth in 0..=all {
            unlisted.take(&listing(&format!("{nth:0>200}"), 0..0, ListingEnd::Complete));
        }
        assert_eq!(unlisted.bytes, 0);
    }
}
