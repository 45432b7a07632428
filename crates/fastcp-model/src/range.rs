//! Spans of bytes that cannot overflow, and the grid of chunks over one file.

use std::num::NonZeroU64;

/// The smallest chunk that `--chunk-kb` takes, in KiB.
pub const CHUNK_KB_MIN: u32 = 4;
/// The largest chunk that `--chunk-kb` takes, in KiB.
pub const CHUNK_KB_MAX: u32 = 65_536;
/// The chunk size where neither side names one, in KiB.
pub const CHUNK_KB_DEFAULT: u32 = 1024;

/// Why two numbers are not a range or a grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// `start + len` does not fit.
    #[error("range ends past 2^63")]
    Overflow,
    /// A chunk size outside [`CHUNK_KB_MIN`]..=[`CHUNK_KB_MAX`].
    #[error("chunk size {0} KiB is not within {CHUNK_KB_MIN}-{CHUNK_KB_MAX}")]
    ChunkSize(u32),
}

/// A span of bytes of one file. Its end fits an `off_t`, checked at birth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteRange {
    start: u64,
    len: u64,
}

impl ByteRange {
    /// The `len` bytes from `start`.
    ///
    /// # Errors
    /// [`RangeError::Overflow`] where the end is past what a file offset can hold.
    pub fn new(start: u64, len: u64) -> Result<Self, RangeError> {
        match start.checked_add(len) {
            Some(end) if i64::try_from(end).is_ok() => Ok(Self { start, len }),
            _ => Err(RangeError::Overflow),
        }
    }

    /// The first byte's offset.
    pub fn start(self) -> u64 {
        self.start
    }

    /// How many bytes.
    pub fn len(self) -> u64 {
        self.len
    }

    /// The offset after the last byte.
    pub fn end(self) -> u64 {
        self.start + self.len
    }

    /// Whether the range holds no byte.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }
}

/// The number of a chunk within its file. Only a [`ChunkGrid`] makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkIndex(u64);

impl ChunkIndex {
    /// The chunk's position, from 0.
    pub fn position(self) -> u64 {
        self.0
    }
}

/// One file cut into chunks of equal size, the last one shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkGrid {
    file_bytes: u64,
    chunk_bytes: NonZeroU64,
}

impl ChunkGrid {
    /// The grid of chunks of `chunk_kb` KiB over a file of `file_bytes`.
    ///
    /// # Errors
    /// A chunk size or a file size out of bounds.
    pub fn new(file_bytes: u64, chunk_kb: u32) -> Result<Self, RangeError> {
        if !(CHUNK_KB_MIN..=CHUNK_KB_MAX).contains(&chunk_kb) {
            return Err(RangeError::ChunkSize(chunk_kb));
        }
        ByteRange::new(0, file_bytes)?;
        let chunk_bytes = NonZeroU64::new(u64::from(chunk_kb) * 1024).ok_or(RangeError::ChunkSize(chunk_kb))?;
        Ok(Self { file_bytes, chunk_bytes })
    }

    /// The file's size in bytes.
    pub fn file_bytes(self) -> u64 {
        self.file_bytes
    }

    /// How many chunks; 0 for an empty file.
    pub fn chunk_count(self) -> u64 {
        self.file_bytes.div_ceil(self.chunk_bytes.get())
    }

    /// The chunk at `position`, if the grid has one.
    pub fn chunk(self, position: u64) -> Option<ChunkIndex> {
        (position < self.chunk_count()).then_some(ChunkIndex(position))
    }

    /// The chunk that holds the byte at `offset`, if the file has one.
    pub fn chunk_at(self, offset: u64) -> Option<ChunkIndex> {
        self.chunk(offset / self.chunk_bytes.get())
    }

    /// The size of every chunk but the last, in KiB.
    pub fn chunk_kb(self) -> u32 {
        // It was made of as many.
        (self.chunk_bytes.get() / 1024) as u32
    }

    /// The size in bytes of every chunk but the last.
    pub fn chunk_bytes(self) -> u64 {
        self.chunk_bytes.get()
    }

    /// The bytes that a chunk covers.
    pub fn range(self, chunk: ChunkIndex) -> ByteRange {
        let start = chunk.0 * self.chunk_bytes.get();
        assert!(start < self.file_bytes, "chunk {chunk:?} is of another grid");
        ByteRange { start, len: self.chunk_bytes.get().min(self.file_bytes - start) }
    }
}

#[cfg(test)]
mod tests {
    use super::{ByteRange, ChunkGrid, RangeError};

    #[test]
    fn a_range_cannot_overflow() {
        assert_eq!(ByteRange::new(u64::MAX, 1), Err(RangeError::Overflow));
        assert_eq!(ByteRange::new(i64::MAX as u64, 1), Err(RangeError::Overflow));
        assert_eq!(ByteRange::new(i64::MAX as u64 - 1, 1).map(ByteRange::end), Ok(i64::MAX as u64));
    }

    #[test]
    fn chunks_cover_a_file_exactly() {
        for file_bytes in [0, 1, 4095, 4096, 4097, 12_288, 100_000] {
            let grid = ChunkGrid::new(file_bytes, 4).expect("lawful");
            let mut end = 0;
            for position in 0..grid.chunk_count() {
                let range = grid.range(grid.chunk(position).expect("within"));
                assert_eq!(range.start(), end);
                assert!(!range.is_empty() && range.len() <= 4096);
                end = range.end();
            }
            assert_eq!(end, file_bytes);
            assert_eq!(grid.chunk(grid.chunk_count()), None);
        }
    }

    #[test]
    fn chunk_sizes_have_bounds() {
        assert_eq!(ChunkGrid::new(1, 3), Err(RangeError::ChunkSize(3)));
        assert_eq!(ChunkGrid::new(1, 65_537), Err(RangeError::ChunkSize(65_537)));
        assert!(ChunkGrid::new(u64::MAX, 4).is_err());
    }
}
