//! Wants: what is asked of the sender, and how a file is cut into them.
//!
//! A want is a range of one file, or the confirmation of one. What it weighs is its cost, by which the
//! schedule shares work out; the cost of a file is reckoned before it is cut.

use std::sync::Arc;

use fastcp_model::ByteRange;
use fastcp_wire::limits::ZSTD_RANGE_BYTES_MAX;

use crate::breaks::Breaks;
use crate::content::crc_runs::{CONFIRM_BYTES, segments};
use crate::schedule::job::{FileJob, Start};

/// What a want costs beside its bytes, so that many small files weigh as much as they take.
pub(crate) const WANT_COST: u64 = 32 << 10;
/// No want is cut shorter than this, so that what each costs beside its bytes stays small.
pub(crate) const CUT_BYTES_MIN: u64 = 64 << 10;

/// Confirmations of one file that there are at a time: enough for every connection to have some.
const CONFIRMATIONS_MAX: usize = 256;

/// What is asked of the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The bytes.
    Fetch,
    /// Their CRC-32.
    Confirm,
    /// The same, read again: what the sender said before is not what is here.
    ConfirmAnew,
}

/// One request to make.
#[derive(Debug, Clone)]
pub(crate) struct Want {
    pub(crate) job: Arc<FileJob>,
    pub(crate) range: ByteRange,
    pub(crate) purpose: Purpose,
    /// How often it was begun in vain. After the first, unproven bytes may stand in its range.
    pub(crate) attempt: u32,
    /// The connections that broke over it.
    pub(crate) breaks: Breaks,
}

impl Want {
    /// What it weighs: bytes, and something for the request itself.
    pub(crate) fn cost(&self) -> u64 {
        match self.purpose {
            Purpose::Fetch => self.range.len() + WANT_COST,
            Purpose::Confirm | Purpose::ConfirmAnew => WANT_COST,
        }
    }

    /// Whether a source that does not lead may be asked: it confirms nothing.
    pub(crate) fn may_come_from(&self, source: usize) -> bool {
        self.purpose == Purpose::Fetch && self.job.may_come_from(source)
    }

    /// Whether the answer will be all of the file, and nothing of it was there before.
    pub(crate) fn is_whole_file(&self) -> bool {
        self.range.len() == self.job.grid.file_bytes() && self.job.start() == Start::Afresh
    }

    /// The first wants that have a file confirmed. Each leads to another ([`Want::next_confirmation`]), so that the size
    /// of a file costs no memory. An empty file has none: it is complete when it is there.
    pub(crate) fn confirmations(job: &Arc<FileJob>) -> Vec<Self> {
        let confirmation = |range| Self {
            job: Arc::clone(job),
            range,
            purpose: Purpose::Confirm,
            attempt: 0,
            breaks: Breaks::default(),
        };
        segments(job.grid.file_bytes()).take(CONFIRMATIONS_MAX).map(confirmation).collect()
    }

    /// What to have confirmed after this segment was.
    pub(crate) fn next_confirmation(&self) -> Option<Self> {
        let start = self.range.start().checked_add(CONFIRM_BYTES * CONFIRMATIONS_MAX as u64)?;
        let left = self.job.grid.file_bytes().checked_sub(start).filter(|&left| left > 0)?;
        let range = ByteRange::new(start, left.min(CONFIRM_BYTES)).ok()?;
        Some(Self { range, purpose: Purpose::Confirm, attempt: 0, breaks: Breaks::default(), ..self.clone() })
    }

    /// The first try to fetch a range.
    pub(crate) fn fetch(job: Arc<FileJob>, range: ByteRange) -> Self {
        let attempt = match job.start() {
            Start::Afresh => 0,
            Start::Resumed | Start::Basis => 1,
        };
        Self { job, range, purpose: Purpose::Fetch, attempt, breaks: Breaks::default() }
    }
}

/// The range to ask for at `offset` of a gap: to the end of its chunk or of the gap, but no longer than
/// compresses, and never across the border of what is confirmed at a time: the CRC of such a range could not
/// be split.
pub(crate) fn next_range(job: &FileJob, offset: u64, gap: ByteRange) -> ByteRange {
    let grid = job.grid;
    let end = match grid.chunk_at(offset) {
        Some(chunk) => {
            let segment_end = (offset / CONFIRM_BYTES + 1) * CONFIRM_BYTES;
            grid.range(chunk).end().min(offset + ZSTD_RANGE_BYTES_MAX).min(segment_end).min(gap.end())
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

/// What it costs to fetch a gap of a file, as far as can be reckoned before it is cut.
pub(crate) fn gap_cost(job: &FileJob, gap: ByteRange) -> u64 {
    let (gap_bytes, chunk_bytes) = (gap.len(), job.grid.chunk_bytes());
    let wants_of = |bytes: u64| bytes.div_ceil(ZSTD_RANGE_BYTES_MAX);
    let wants = gap_bytes / chunk_bytes * wants_of(chunk_bytes) + wants_of(gap_bytes % chunk_bytes);
    gap_bytes.saturating_add(wants.max(1).saturating_mul(WANT_COST))
}

#[cfg(test)]
mod tests {
    use super::{CONFIRMATIONS_MAX, Want};
    use crate::content::crc_runs::{CONFIRM_BYTES, segments};
    use crate::schedule::job::tests::job;

    #[test]
    fn every_segment_is_confirmed_once_and_few_at_a_time() {
        let many = CONFIRMATIONS_MAX as u64 * CONFIRM_BYTES;
        for file_bytes in [1, CONFIRM_BYTES, CONFIRM_BYTES + 1, many - 1, many, many + 1, 3 * many + CONFIRM_BYTES + 7]
        {
            let mut wants = Want::confirmations(&job(file_bytes));
            assert!(wants.len() <= CONFIRMATIONS_MAX);
            let mut confirmed = Vec::new();
            while let Some(want) = wants.pop() {
                wants.extend(want.next_confirmation());
                confirmed.push(want.range);
            }
            confirmed.sort_unstable();
            assert!(confirmed.into_iter().eq(segments(file_bytes)), "{file_bytes} bytes");
        }
        assert_eq!(Want::confirmations(&job(1 << 50)).len(), CONFIRMATIONS_MAX);
    }
}
