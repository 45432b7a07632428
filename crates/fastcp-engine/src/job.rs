//! One file being brought over, shared by the connections that fetch its ranges.

use std::sync::{Arc, Mutex, PoisonError};

use fastcp_model::{ByteRange, ChunkGrid, Metadata, Name, RelPath};

use crate::crc_runs::{CrcRuns, segments};
use crate::dirs::DirState;
use crate::part::PartFile;

/// What is known of a file before its first byte, and what has become of it since.
#[derive(Debug)]
pub(crate) struct FileJob {
    pub(crate) dir: Arc<DirState>,
    pub(crate) name: Name,
    pub(crate) metadata: Metadata,
    pub(crate) grid: ChunkGrid,
    pub(crate) sparse: bool,
    /// Whether something has the target's name already.
    pub(crate) replaces: bool,
    progress: Mutex<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    failed: bool,
    part: Option<Arc<PartFile>>,
    runs: CrcRuns,
    confirmed_bytes: u64,
}

/// What the arrival of a range leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// More ranges are to come.
    Partial,
    /// Every byte is there: time to ask the sender to confirm.
    Whole,
}

/// What a confirmed segment leads to.
#[derive(Debug)]
pub(crate) enum Confirmation {
    /// More segments are to come.
    Partial,
    /// Every segment has the sender's CRC: the part file, and the CRC of the whole.
    Whole(PartFile, u32),
    /// The segment's bytes are not the sender's.
    Mismatch {
        /// CRC-32 of what was written.
        got: u32,
    },
}

impl FileJob {
    pub(crate) fn new(
        dir: Arc<DirState>,
        name: Name,
        metadata: Metadata,
        grid: ChunkGrid,
        sparse: bool,
        replaces: bool,
    ) -> Self {
        Self { dir, name, metadata, grid, sparse, replaces, progress: Mutex::default() }
    }

    /// The file's path below the destination. The planner made sure that it fits.
    pub(crate) fn path(&self) -> RelPath {
        self.dir.path.join(&self.name).unwrap_or_else(|_| self.dir.path.clone())
    }

    /// The part file that all ranges are written to, made by whoever asks first.
    pub(crate) fn part(&self, make: impl FnOnce() -> std::io::Result<PartFile>) -> std::io::Result<Arc<PartFile>> {
        let mut progress = self.lock();
        if let Some(part) = &progress.part {
            return Ok(Arc::clone(part));
        }
        let made = Arc::new(make()?);
        progress.part = Some(Arc::clone(&made));
        Ok(made)
    }

    /// A range was written and its CRC proven.
    pub(crate) fn arrived(&self, range: ByteRange, crc: u32) -> Arrival {
        let mut progress = self.lock();
        progress.runs.insert(range, crc);
        if !progress.failed && progress.runs.is_whole(self.grid.file_bytes()) {
            Arrival::Whole
        } else {
            Arrival::Partial
        }
    }

    /// The sender's CRC of a segment.
    pub(crate) fn confirmed(&self, segment: ByteRange, sender_crc: u32) -> Confirmation {
        let mut progress = self.lock();
        match progress.runs.crc_of(segment) {
            Some(crc) if crc == sender_crc => {}
            other => return Confirmation::Mismatch { got: other.unwrap_or(0) },
        }
        progress.confirmed_bytes += segment.len();
        if progress.confirmed_bytes < self.grid.file_bytes() || progress.failed {
            return Confirmation::Partial;
        }
        let crc = progress.runs.whole(self.grid.file_bytes());
        // Writers let go of the part file before they report their last range.
        let part = progress.part.take().and_then(Arc::into_inner);
        match (part, crc) {
            (Some(part), Some(crc)) => Confirmation::Whole(part, crc),
            _ => unreachable!("a confirmed file has all its ranges and no writer"),
        }
    }

    /// The segments to have confirmed.
    pub(crate) fn segments(&self) -> impl Iterator<Item = ByteRange> {
        segments(self.grid.file_bytes())
    }

    /// Gives the file up; `true` for whoever does so first. A named part file stays where it is.
    pub(crate) fn fail(&self) -> bool {
        let mut progress = self.lock();
        progress.part = None;
        !std::mem::replace(&mut progress.failed, true)
    }

    /// Whether it was given up.
    pub(crate) fn has_failed(&self) -> bool {
        self.lock().failed
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
