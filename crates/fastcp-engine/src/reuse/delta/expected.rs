//! Where in a basis the next chunks are expected.
//!
//! Most of a changed file stands where it stood, or as many bytes further on as were put in before it. So a chunk is
//! tried where the chunk before it makes it stand. Whoever takes it reads that place once, compares, and has copied
//! it. Nothing is cut for that.

use fastcp_model::ByteRange;
use fastcp_wire::signature::SignedChunk;

use super::{Found, Take, give, range};
use crate::reuse::basis::Basis;

/// A place in relation to that in the new file. At first that is the same place of the first file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Expected {
    file: usize,
    /// How far it is towards the end of the basis.
    shift: i64,
}

/// In how many places a chunk is tried.
pub(super) const WAYS: usize = 3;

/// A listed chunk and where it is expected: one way and, where it is not there, another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sought<'c> {
    pub(super) range: ByteRange,
    pub(super) chunk: &'c SignedChunk,
    pub(super) ways: [Option<Expected>; WAYS],
}

/// A chunk that was tried.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tried {
    pub(super) range: ByteRange,
    pub(super) fate: Fate,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Missed,
    Found(Expected),
    /// It was not looked at: the new file has some of it already.
    Had,
}

impl Expected {
    /// Where what follows a chunk is expected, when that was found.
    pub(super) fn behind(found: &Found) -> Self {
        // No file is so long that this would be another number.
        Self { file: found.file, shift: found.offset.wrapping_sub(found.range.start()) as i64 }
    }

    /// The same place of the other file, where the basis has two: an old version, and what of a newer one had arrived.
    pub(super) fn in_other_file(self, basis: &Basis<'_>) -> Option<Self> {
        (basis.files() > 1).then(|| Self { file: (self.file + 1) % basis.files(), shift: 0 })
    }

    pub(super) fn file(self) -> usize {
        self.file
    }

    /// Where a position of the new file is expected; `None` before the start of the basis.
    pub(super) fn offset(self, at: u64) -> Option<u64> {
        at.checked_add_signed(self.shift)
    }

    /// Where a range of the new file is expected.
    pub(super) fn range(self, new: ByteRange) -> Option<ByteRange> {
        ByteRange::new(self.offset(new.start())?, new.len()).ok()
    }

    /// The chunk at its place, if the basis reaches that far.
    fn place(self, range: ByteRange, chunk: &SignedChunk, basis: &Basis<'_>) -> Option<Found> {
        let there = self.range(range)?;
        let found = Found { range, file: self.file, offset: there.start(), hash: chunk.hash };
        (there.end() <= basis.file_bytes(self.file)).then_some(found)
    }
}

/// Chunks with their ranges, in a list that starts at `start`.
pub(super) fn with_ranges(start: u64, chunks: &[SignedChunk]) -> impl Iterator<Item = (ByteRange, &SignedChunk)> {
    let mut at = start;
    chunks.iter().map(move |chunk| {
        let range = range(at, chunk.len.into());
        at = range.end();
        (range, chunk)
    })
}

/// Tries chunks where they are expected, all at once: they are read in parallel.
pub(super) fn try_there(basis: &Basis<'_>, sought: &[Sought<'_>], take: Take<'_>) -> Vec<Tried> {
    let mut tried: Vec<Tried> = sought.iter().map(|sought| Tried { range: sought.range, fate: Fate::Missed }).collect();
    for way in 0..WAYS {
        let left = tried.iter_mut().zip(sought).filter(|(tried, _)| tried.fate == Fate::Missed);
        let placed = left.filter_map(|(tried, sought)| {
            let expected = sought.ways[way].filter(|expected| !sought.ways[..way].contains(&Some(*expected)))?;
            Some(((tried, expected), expected.place(sought.range, sought.chunk, basis)?))
        });
        let (left, found): (Vec<(&mut Tried, Expected)>, Vec<Found>) = placed.unzip();
        let outcome = give(&found, take);
        for (tried, expected) in left {
            let is_in = |ranges: &[ByteRange]| ranges.binary_search(&tried.range).is_ok();
            tried.fate = match () {
                () if is_in(&outcome.wrong) => Fate::Missed,
                () if is_in(&outcome.had) => Fate::Had,
                () => Fate::Found(expected),
            };
        }
    }
    tried
}
