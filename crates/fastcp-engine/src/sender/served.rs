//! CRCs of what was served, so that a file is not read a second time to confirm it.
//!
//! Bound to the exact state of the file (device, inode, size, mtime, ctime). A file that changed less
//! than two seconds before it was read is not remembered: within the grain of its clock it may change
//! again without showing, and then the confirmation has to read it. One whose pages are written through a mapping can
//! change without showing at any time: a receiver that finds a confirmation wrong has what is remembered forgotten.

use std::collections::{HashMap, VecDeque};
use std::time::{SystemTime, UNIX_EPOCH};

use fastcp_model::ByteRange;
use fastcp_sys::Identity;

use crate::content::crc_runs::CrcRuns;
use crate::lock::Lock;

/// The most files remembered.
const FILES_MAX: usize = 1024;
/// The most separate runs remembered of one file; one that is served more scattered is forgotten.
const RUNS_MAX: usize = 4096;
/// The coarsest grain of a file system's times (FAT's), in seconds.
const GRAIN_SECS: i64 = 2;

#[derive(Debug, Default)]
pub(crate) struct ServedCrcs {
    files: Lock<Files>,
}

#[derive(Debug, Default)]
struct Files {
    runs: HashMap<Identity, CrcRuns>,
    oldest_first: VecDeque<Identity>,
}

impl ServedCrcs {
    /// Remembers the CRC of a range that was read from a file in this state.
    pub(crate) fn remember(&self, identity: Identity, range: ByteRange, crc: u32) {
        if changed_recently(&identity) {
            return;
        }
        let mut files = self.files.lock();
        if !files.runs.contains_key(&identity) {
            files.make_room();
            files.oldest_first.push_back(identity);
        }
        let runs = files.runs.entry(identity).or_default();
        runs.insert(range, crc);
        if runs.len() > RUNS_MAX {
            *runs = CrcRuns::default();
        }
    }

    /// How much of a range is known from its start on, in bytes, and the CRC of that; `None` where nothing is.
    pub(crate) fn recall(&self, identity: Identity, range: ByteRange) -> Option<(u64, u32)> {
        let files = self.files.lock();
        files.runs.get(&identity)?.beginning_of(range)
    }

    /// What is remembered of a file may be wrong.
    pub(crate) fn forget(&self, identity: Identity) {
        let mut files = self.files.lock();
        if files.runs.remove(&identity).is_some() {
            files.oldest_first.retain(|one| *one != identity);
        }
    }
}

impl Files {
    fn make_room(&mut self) {
        while self.oldest_first.len() >= FILES_MAX {
            if let Some(oldest) = self.oldest_first.pop_front() {
                self.runs.remove(&oldest);
            }
        }
    }
}

/// Whether a file may have changed since it had this state, without the state showing it. By the time of the
/// last change alone: that of the last write can be set to anything, and every write is a change.
pub(crate) fn changed_recently(identity: &Identity) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed());
    identity.ctime.secs().saturating_add(GRAIN_SECS) >= now
}
