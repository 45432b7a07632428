//! What is here already of a file that is to be fetched, found out beside the fetching.
//!
//! Claims of a journal that nobody vouches for: the bytes are read and compared with their CRC-32 before they
//! count. What does not stand is fetched like anything else. The rest of the file is being fetched meanwhile,
//! so that a rerun begins at once, however much there is to read.

use std::fs::File;
use std::sync::Arc;

use fastcp_sys::file::read_at;

use crate::error::RunError;
use crate::fetch::Transfer;
use crate::job::{Arrival, FileJob};
use crate::journal::Record;
use crate::source::SLICE_BYTES;
use crate::want::{Want, cut_into_wants};

pub(crate) struct Reuse<'a> {
    transfer: &'a Transfer<'a>,
    slice: Vec<u8>,
}

impl<'a> Reuse<'a> {
    pub(crate) fn new(transfer: &'a Transfer<'a>) -> Self {
        Self { transfer, slice: vec![0; SLICE_BYTES] }
    }

    /// Looks at files until there are no more.
    pub(crate) fn run(mut self) -> Result<(), RunError> {
        while let Some(job) = self.transfer.schedule.next_to_reuse() {
            self.check(&job);
        }
        Ok(())
    }

    fn check(&mut self, job: &Arc<FileJob>) {
        let mut wants = Vec::new();
        for record in job.take_doubtful() {
            if job.has_failed() || self.transfer.schedule.is_stopped() {
                break;
            }
            if !job.has_part(|part| stands(part.file(), record, &mut self.slice)) {
                wants.extend(cut_into_wants(job, record.range));
                continue;
            }
            self.transfer.report.counters.bytes_reused.add(record.range.len());
            if job.stands(record.range, record.crc) == Arrival::Whole {
                wants.extend(Want::confirmations(job));
            }
        }
        self.transfer.schedule.checked(wants);
    }
}

/// Whether the bytes of a claim are there. What cannot be read is fetched.
fn stands(file: &File, record: Record, slice: &mut [u8]) -> bool {
    let mut hasher = crc32fast::Hasher::new();
    let mut at = record.range.start();
    while at < record.range.end() {
        let want = slice.len().min(usize::try_from(record.range.end() - at).unwrap_or(usize::MAX));
        match read_at(file, &mut slice[..want], at) {
            Ok(got) if got == want => hasher.update(&slice[..want]),
            _ => return false,
        }
        at += want as u64;
    }
    hasher.finalize() == record.crc
}
