//! Where chunks are in a basis, by their hash.
//!
//! A sorted list: no room is lost, which counts with millions of entries, and equal chunks lie together, in the
//! order of their offsets. Of several equal ones that at the wanted offset is best: it need not be moved, and
//! reading goes on where it was. The list is bounded; what does not fit is not found, and is fetched instead.

use fastcp_wire::signature::{SignedChunk, StrongHash};

/// The most chunks in an index: 240 MiB of memory, for 1 TB of coarse chunks or 30 GB of fine ones.
pub(crate) const ENTRIES_MAX: usize = 6 << 20;

/// A chunk of a basis. The order of the fields is the order of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) hash: StrongHash,
    /// Which file of the basis.
    pub(crate) file: u32,
    /// Its length in bytes.
    pub(crate) len: u32,
    pub(crate) offset: u64,
}

/// The chunks of a basis.
#[derive(Debug, Default)]
pub(crate) struct Index {
    places: Vec<Place>,
}

/// A number for all chunks of an index that are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind(usize);

impl Index {
    pub(crate) fn new(mut places: Vec<Place>) -> Self {
        places.truncate(ENTRIES_MAX);
        places.sort_unstable();
        Self { places }
    }

    /// A chunk of these bytes, at this offset of the first file if there is one.
    pub(crate) fn find(&self, chunk: &SignedChunk, offset: u64) -> Option<(Kind, Place)> {
        let kind = self.places.partition_point(|place| place.hash < chunk.hash);
        let first = *self.places.get(kind)?;
        // The length is part of what is hashed. One that differs was made up.
        if first.hash != chunk.hash || first.len != chunk.len {
            return None;
        }
        let best = Place { offset, ..first };
        let place = self.places[kind..].binary_search(&best).map_or(first, |_| best);
        Some((Kind(kind), place))
    }

    /// One place for each kind of chunk that is not in `kinds`, in the order of the files.
    pub(crate) fn others(&self, kinds: &Kinds) -> Vec<Place> {
        let mut others = Vec::new();
        let mut at = 0;
        for equal in self.places.chunk_by(|one, other| one.hash == other.hash) {
            if !kinds.0[at] {
                others.push(equal[0]);
            }
            at += equal.len();
        }
        others.sort_unstable_by_key(|place| (place.file, place.offset));
        others
    }

    /// None of the kinds of chunks that are here.
    pub(crate) fn no_kinds(&self) -> Kinds {
        Kinds(vec![false; self.places.len()])
    }
}

/// Some kinds of chunks of one index.
#[derive(Debug)]
pub(crate) struct Kinds(Vec<bool>);

impl Kinds {
    pub(crate) fn insert(&mut self, kind: Kind) {
        self.0[kind.0] = true;
    }
}

#[cfg(test)]
mod tests {
    use fastcp_wire::signature::{STRONG_HASH_BYTES, SignedChunk, StrongHash};

    use super::{Index, Place};

    fn hash(first: u8) -> StrongHash {
        StrongHash([first; STRONG_HASH_BYTES])
    }

    fn place(first: u8, file: u32, offset: u64) -> Place {
        Place { hash: hash(first), file, len: 10, offset }
    }

    fn chunk(first: u8) -> SignedChunk {
        SignedChunk { len: 10, hash: hash(first) }
    }

    fn index() -> Index {
        Index::new(vec![place(9, 0, 0), place(5, 1, 10), place(5, 0, 40), place(7, 0, 30), place(5, 0, 20)])
    }

    #[test]
    fn of_equal_chunks_the_one_at_the_offset_is_found() {
        let found = |hash, offset| index().find(&chunk(hash), offset).map(|(_, place)| (place.file, place.offset));
        assert_eq!(found(5, 40), Some((0, 40)));
        assert_eq!(found(5, 20), Some((0, 20)));
        assert_eq!(found(5, 10), Some((0, 20)));
        assert_eq!(found(7, 99), Some((0, 30)));
        assert_eq!(found(6, 0), None);
        assert_eq!(found(10, 0), None);
    }

    #[test]
    fn a_hash_with_another_length_is_nothing() {
        assert!(index().find(&SignedChunk { len: 11, ..chunk(5) }, 20).is_none());
    }

    #[test]
    fn what_was_not_found_is_listed_once_and_in_order() {
        let index = index();
        let mut kinds = index.no_kinds();
        assert_eq!(index.others(&kinds), [place(9, 0, 0), place(5, 0, 20), place(7, 0, 30)]);
        let (kind, _) = index.find(&chunk(5), 40).expect("there");
        kinds.insert(kind);
        assert_eq!(index.others(&kinds), [place(9, 0, 0), place(7, 0, 30)]);
    }
}
