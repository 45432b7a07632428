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

/// A listed chunk and where it is expected: one way and, where it is not there, the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sought<'c> {
    pub(super) range: ByteRange,
    pub(super) chunk: &'c SignedChunk,
    pub(super) expected: [Expected; 2],
}

/// What became of a chunk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tried {
    pub(super) range: ByteRange,
    pub(super) is_found: bool,
}

impl Expected {
    /// Where what follows a chunk is expected, when that was found.
    pub(super) fn behind(found: &Found) -> Self {
        // No file is so long that this would be another number.
        Self { file: found.file, shift: found.offset.wrapping_sub(found.range.start()) as i64 }
    }

    pub(super) fn file(self) -> usize {
        self.file
    }

    /// Where a position of the new file is expected; `None` before the start of the basis.
    pub(super) fn offset(self, at: u64) -> Option<u64> {
        at.checked_add_signed(self.shift)
    }

    /// The chunk at its place, if the basis reaches that far.
    fn place(self, range: ByteRange, chunk: &SignedChunk, basis: &Basis<'_>) -> Option<Found> {
        let offset = self.offset(range.start())?;
        let end = offset.checked_add(range.len())?;
        let found = Found { range, file: self.file, offset, hash: chunk.hash };
        (end <= basis.file_bytes(self.file)).then_some(found)
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
    let mut tried: Vec<Tried> = sought.iter().map(|sought| Tried { range: sought.range, is_found: false }).collect();
    for way in 0..2 {
        let is_new = |sought: &Sought<'_>| way == 0 || sought.expected[0] != sought.expected[1];
        let left = tried.iter_mut().zip(sought).filter(|(tried, sought)| !tried.is_found && is_new(sought));
        let place = |sought: &Sought<'_>| sought.expected[way].place(sought.range, sought.chunk, basis);
        let (mut tried, found): (Vec<&mut Tried>, Vec<Found>) =
            left.filter_map(|(tried, sought)| Some((tried, place(sought)?))).unzip();
        let wrong = give(&found, take);
        tried.iter_mut().for_each(|tried| tried.is_found = wrong.binary_search(&tried.range).is_err());
    }
    tried
}
