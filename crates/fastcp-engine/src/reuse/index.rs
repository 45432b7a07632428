//! Where chunks are in a basis, by their weak hash and length.
//!
//! A sorted list: no room is lost, which counts with millions of entries, and equal chunks lie together, in the
//! order of their offsets. Of several equal ones that at the wanted offset is best: it need not be moved, and
//! reading goes on where it was. The list is bounded; what does not fit is not found, and is fetched instead.

use fastcp_wire::signature::{SignedChunk, WeakHash};

/// The most chunks in an index: 144 MiB of memory, for 500 GB of coarse chunks or 30 GB of fine ones.
pub(crate) const ENTRIES_MAX: usize = 6 << 20;

/// A chunk of a basis. The order of the fields is the order of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BasisChunk {
    pub(crate) weak: WeakHash,
    /// Its length in bytes.
    pub(crate) len: u32,
    /// Which file of the basis.
    pub(crate) file: u32,
    pub(crate) offset: u64,
}

impl BasisChunk {
    /// What is the same of equal chunks.
    fn key(&self) -> (WeakHash, u32) {
        (self.weak, self.len)
    }
}

/// The chunks of a basis.
#[derive(Debug, Default)]
pub(crate) struct Index {
    places: Vec<BasisChunk>,
}

impl Index {
    pub(crate) fn new(mut places: Vec<BasisChunk>) -> Self {
        places.truncate(ENTRIES_MAX);
        places.sort_unstable();
        Self { places }
    }

    /// A chunk of these bytes, at this offset of the first file if there is one.
    pub(crate) fn find(&self, chunk: &SignedChunk, offset: u64) -> Option<BasisChunk> {
        let wanted = (chunk.weak, chunk.len);
        let at = self.first_at_least(wanted);
        let first = *self.places.get(at).filter(|place| place.key() == wanted)?;
        let best = BasisChunk { offset, ..first };
        Some(self.places[at..].binary_search(&best).map_or(first, |_| best))
    }

    /// The position of the first place whose key is not less. Weak hashes are spread evenly unless somebody saw to it
    /// that they are not, so it is near where it would be in proportion; from there in steps that double.
    fn first_at_least(&self, wanted: (WeakHash, u32)) -> usize {
        let places = &self.places[..];
        let is_less = |at: usize| places[at].key() < wanted;
        let guess = ((u64::from(wanted.0.0) * places.len() as u64) >> 32) as usize;
        let (mut low, mut high, mut step) = (guess, guess, 16);
        while high < places.len() && is_less(high) {
            low = high + 1;
            high = places.len().min(high + step);
            step *= 2;
        }
        while low > 0 && !is_less(low - 1) {
            high = low - 1;
            low = low.saturating_sub(step);
            step *= 2;
        }
        low + places[low..high].partition_point(|place| place.key() < wanted)
    }
}

#[cfg(test)]
mod tests {
    use fastcp_wire::signature::{STRONG_HASH_BYTES, SignedChunk, StrongHash, WeakHash};

    use super::{BasisChunk, Index};

    fn place(weak: u32, file: u32, offset: u64) -> BasisChunk {
        BasisChunk { weak: WeakHash(weak), len: 10, file, offset }
    }

    fn chunk(weak: u32) -> SignedChunk {
        SignedChunk { len: 10, weak: WeakHash(weak), hash: StrongHash([0; STRONG_HASH_BYTES]) }
    }

    fn index() -> Index {
        Index::new(vec![place(9, 0, 0), place(5, 1, 10), place(5, 0, 40), place(7, 0, 30), place(5, 0, 20)])
    }

    #[test]
    fn of_equal_chunks_the_one_at_the_offset_is_found() {
        let found = |hash, offset| index().find(&chunk(hash), offset).map(|place| (place.file, place.offset));
        assert_eq!(found(5, 40), Some((0, 40)));
        assert_eq!(found(5, 20), Some((0, 20)));
        assert_eq!(found(5, 10), Some((0, 20)));
        assert_eq!(found(7, 99), Some((0, 30)));
        assert_eq!(found(6, 0), None);
        assert_eq!(found(10, 0), None);
    }

    #[test]
    fn a_chunk_of_another_length_is_another_chunk() {
        assert!(index().find(&SignedChunk { len: 11, ..chunk(5) }, 20).is_none());
        let longer = BasisChunk { len: 11, ..place(5, 0, 70) };
        let index = Index::new(vec![place(5, 0, 20), longer]);
        let found = |len| index.find(&SignedChunk { len, ..chunk(5) }, 0);
        assert_eq!((found(10), found(11)), (Some(place(5, 0, 20)), Some(longer)));
    }

    #[test]
    fn each_chunk_is_found_however_its_hash_was_chosen() {
        let spread = |number: u32| number.wrapping_mul(0x9e37_79b9);
        let choices: [fn(u32) -> u32; 5] = [|n| n, |n| u32::MAX - n, |n| n << 20, |_| 7, |n| 0x8000_0000 + n % 3];
        for choose in choices.into_iter().chain([spread as fn(u32) -> u32]) {
            for count in [0, 1, 2, 15, 16, 17, 1000] {
                let places = |step: usize| (0..count).step_by(step).map(|n| place(choose(n), 0, n.into())).collect();
                let (index, all): (Index, Vec<BasisChunk>) = (Index::new(places(2)), places(1));
                for one in all.iter().map(BasisChunk::key).chain([(WeakHash(0), 0), (WeakHash(u32::MAX), u32::MAX)]) {
                    let expected = index.places.partition_point(|place| place.key() < one);
                    assert_eq!(index.first_at_least(one), expected, "{one:?} of {count}");
                }
            }
        }
    }
}
