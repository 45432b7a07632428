//! Wants: what is asked of the sender, and how a file is cut into them.
//!
//! A want is a range of one file, or the confirmation of one. What it weighs is its cost, by which the
//! schedule shares work out; the cost of a file is reckoned before it is cut.

use std::sync::Arc;

use fastcp_model::ByteRange;
use fastcp_wire::limits::ZSTD_RANGE_BYTES_MAX;

use crate::crc_runs::CONFIRM_BYTES;
use crate::job::FileJob;

/// What a want costs beside its bytes, so that many small files weigh as much as they take.
pub(crate) const WANT_COST: u64 = 32 << 10;
/// No want is cut shorter than this, so that what each costs beside its bytes stays small.
pub(crate) const CUT_BYTES_MIN: u64 = 64 << 10;

/// What is asked of the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The bytes.
    Fetch,
    /// Their CRC-32.
    Confirm,
}

/// One request to make.
#[derive(Debug, Clone)]
pub(crate) struct Want {
    pub(crate) job: Arc<FileJob>,
    pub(crate) range: ByteRange,
    pub(crate) purpose: Purpose,
    /// How often it was begun in vain. After the first, unproven bytes may stand in its range.
    pub(crate) attempt: u32,
}

impl Want {
    /// What it weighs: bytes, and something for the request itself.
    pub(crate) fn cost(&self) -> u64 {
        match self.purpose {
            Purpose::Fetch => self.range.len() + WANT_COST,
            Purpose::Confirm => WANT_COST,
        }
    }

    /// Whether the answer will be all of the file.
    pub(crate) fn is_whole_file(&self) -> bool {
        self.range.len() == self.job.grid.file_bytes()
    }
}

/// The range to ask for at `offset`: to the end of its chunk, but no longer than compresses, and never
/// across the border of what is confirmed at a time: the CRC of such a range could not be split.
pub(crate) fn next_range(job: &FileJob, offset: u64) -> ByteRange {
    let grid = job.grid;
    let end = match grid.chunk_at(offset) {
        Some(chunk) => {
            let segment_end = (offset / CONFIRM_BYTES + 1) * CONFIRM_BYTES;
            grid.range(chunk).end().min(offset + ZSTD_RANGE_BYTES_MAX).min(segment_end)
        }
        None => grid.file_bytes(),
    };
    ByteRange::new(offset, end - offset).expect("within the grid's file")
}

/// The beginning of a range, where all of it would be too much.
pub(crate) fn cut_short(range: ByteRange, bytes_max: u64) -> ByteRange {
    let length = (bytes_max - bytes_max % CUT_BYTES_MIN).max(CUT_BYTES_MIN).min(range.len());
    ByteRange::new(range.start(), length).expect("within a lawful range")
}

pub(crate) fn file_cost(job: &FileJob) -> u64 {
    let (file_bytes, chunk_bytes) = (job.grid.file_bytes(), job.grid.chunk_bytes());
    let wants_of = |bytes: u64| bytes.div_ceil(ZSTD_RANGE_BYTES_MAX);
    let wants = file_bytes / chunk_bytes * wants_of(chunk_bytes) + wants_of(file_bytes % chunk_bytes);
    file_bytes.saturating_add(wants.max(1).saturating_mul(WANT_COST))
}
