//! What the arrival of a range leads to: a commit, a question, another try, or the end of its file.

use std::io;

use fastcp_model::Status;
use fastcp_wire::WireError;
use fastcp_wire::reply::{Reply, Trailer};

use super::{End, Fetcher};
use crate::commit::landing::Writing;
use crate::report::Cause;
use crate::schedule::answered::SenderCrc;
use crate::schedule::job::{Arrival, Confirmation, FileJob};
use crate::schedule::want::{Purpose, Want};
use crate::settings::Durability;
use crate::target::proof::Heard;

/// A range whose checksum was wrong is fetched anew this often.
const REFETCH_MAX: u32 = 5;

impl Fetcher<'_> {
    /// A range was written, and `crc` of what was written is the sender's.
    pub(super) fn arrived(&mut self, part: Writing, crc: u32, sender: SenderCrc<'_>) -> Result<Vec<Want>, End> {
        let (job, range) = (sender.job(), sender.range());
        job.note_source(self.held.source);
        let arrival = match (part, sender.of_whole()) {
            // A source that does not lead proves nothing: it may have something else of the same size and time. Of no
            // bytes nothing is to be proven, and they begin every file that has grown from them.
            (Writing::Whole(part), Some(proof)) if range.is_empty() || (!job.has_grown() && self.is_of_lead()) => {
                self.landing.land(part, crc, proof).map_err(End::Fatal)?;
                return Ok(Vec::new());
            }
            (Writing::Whole(part), _) => {
                job.adopt(part);
                job.stands(range, crc)
            }
            (Writing::Shared(part), _) => {
                if self.transfer.settings.durability != Durability::None {
                    fastcp_sys::file::start_write_back(part.file(), range.start(), range.len());
                }
                drop(part);
                job.arrived(range, crc)
            }
        };
        match arrival {
            Arrival::Partial => Ok(Vec::new()),
            Arrival::Whole => Ok(Want::confirmations(job)),
        }
    }

    pub(super) fn take_confirmation(&mut self, want: &Want, header: &Heard) -> Result<Vec<Want>, End> {
        let job = &want.job;
        let reply = header.reply;
        if job.has_failed() {
            return Ok(Vec::new());
        }
        if !self.is_of_lead() {
            // Another one leads by now: its word is what counts.
            return Ok(vec![want.clone()]);
        }
        let state = state_of_source(job, &reply);
        let confirmed = header.confirms(want.range).map(|crc| SenderCrc::new(want, crc));
        let ended = match confirmed {
            None => self.transfer.moved(job, reply.status),
            Some(_) if state == SourceState::Changed => self.transfer.moved(job, Status::Changed),
            // What the sender remembers may be of bytes that were since written through a mapping.
            Some(sender)
                if want.purpose == Purpose::Confirm && state == SourceState::Offered && job.differs(&sender) =>
            {
                return Ok(vec![Want { purpose: Purpose::ConfirmAnew, ..want.clone() }]);
            }
            Some(sender) => return self.confirmed(want, state, FileJob::confirmed(sender, self.held.source)),
        };
        ended.map_err(End::Fatal)?;
        Ok(Vec::new())
    }

    /// What a confirmed segment leads to.
    fn confirmed(&mut self, want: &Want, state: SourceState, confirmation: Confirmation<'_>) -> Result<Vec<Want>, End> {
        let job = &want.job;
        let ended = match confirmation {
            Confirmation::Partial => return Ok(want.next_confirmation().into_iter().collect()),
            Confirmation::Anew => return Ok(Want::confirmations(job)),
            Confirmation::Settled => Ok(()),
            Confirmation::Whole { part, written, proof } => self.landing.land(part, written, proof),
            Confirmation::Busy => {
                let source = io::ErrorKind::ResourceBusy.into();
                self.transfer.give_up(job, Cause::Destination { operation: "cannot commit", source })
            }
            // What was there before it grew is not what is there now.
            Confirmation::Mismatch(_) if state == SourceState::Grown => self.transfer.moved(job, Status::Changed),
            Confirmation::Mismatch(mismatch) => self.transfer.mismatched(job, mismatch),
        };
        ended.map_err(End::Fatal)?;
        Ok(Vec::new())
    }

    pub(super) fn refetch(
        &mut self,
        want: &Want,
        got: u32,
        trailer: Result<Trailer, WireError>,
    ) -> Result<Vec<Want>, End> {
        let is_refused = !matches!(trailer, Ok(Trailer { status: Status::Ok, .. }) | Err(_));
        if (is_refused || want.attempt > 0)
            && let Some(elsewhere) = self.disagrees(want)
        {
            return Ok(elsewhere);
        }
        if want.attempt < REFETCH_MAX {
            self.transfer.report.counters.chunks_refetched.add(1);
            return Ok(vec![Want { attempt: want.attempt + 1, ..want.clone() }]);
        }
        let ended = match trailer {
            Ok(Trailer { crc32, status: Status::Ok }) => {
                self.transfer.give_up(&want.job, Cause::Checksum { want: crc32, got })
            }
            Ok(Trailer { status, .. }) => self.transfer.moved(&want.job, status),
            Err(_) => self.transfer.give_up(&want.job, Cause::Source(Status::InputOutput)),
        };
        ended.map_err(End::Fatal)?;
        Ok(Vec::new())
    }
}

/// The source beside what was offered of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SourceState {
    Offered,
    /// Longer. What was offered may still be its beginning: the confirmation will tell.
    Grown,
    Changed,
}

pub(super) fn state_of_source(job: &FileJob, reply: &Reply) -> SourceState {
    let offered_bytes = job.grid.file_bytes();
    if reply.file_bytes > offered_bytes {
        SourceState::Grown
    } else if reply.file_bytes == offered_bytes && reply.mtime_ns == job.metadata.mtime.wire_ns() {
        SourceState::Offered
    } else {
        SourceState::Changed
    }
}
