//! What all threads of a transfer share, and how a file ends that does not get its name.

use std::sync::Arc;

use fastcp_model::{Capabilities, RelPath, Status};

use crate::budget::Budget;
use crate::commit::group::Groups;
use crate::content::cutter::Cutter;
use crate::error::RunError;
use crate::link::line::Line;
use crate::manifest::Recorder;
use crate::report::{Cause, Event, Report};
use crate::schedule::Schedule;
use crate::schedule::job::FileJob;
use crate::settings::{ReceivePath, ReceiverSettings};
use crate::target::destination::Destination;
use crate::target::dirs::Finisher;
use crate::target::owners::Owners;
use crate::target::part::Mismatch;
use crate::target::reach::ends_everything;

/// A file that changes while it is fetched is offered again this often.
const OFFERED_AGAIN_MAX: u32 = 3;

/// What all connections of a transfer share.
pub(crate) struct Transfer<'a> {
    pub(crate) line: &'a Line<'a>,
    pub(crate) base: RelPath,
    pub(crate) destination: &'a Destination,
    pub(crate) owners: &'a Owners,
    pub(crate) schedule: &'a Schedule,
    pub(crate) groups: &'a Groups,
    pub(crate) report: &'a Report,
    pub(crate) settings: &'a ReceiverSettings,
    /// How bodies are received.
    pub(crate) receive_path: ReceivePath,
    /// Where what was committed is recorded.
    pub(crate) manifest: Option<&'a Recorder<'a>>,
    /// Cuts old versions of files.
    pub(crate) cutter: &'a Cutter,
    /// What may be held open at a time.
    pub(crate) budget: Budget,
}

impl Transfer<'_> {
    /// What was agreed with the sender.
    pub(crate) fn agrees(&self, capability: Capabilities) -> bool {
        self.line.agreed.capabilities.contains(capability)
    }

    /// Where the sender has what is `path` here.
    pub(crate) fn path_at_sender(&self, path: &RelPath) -> RelPath {
        self.base.join_path(path)
    }

    /// Reports a file as failed, once; ends the run where the failure concerns every file.
    pub(crate) fn give_up(&self, job: &Arc<FileJob>, cause: Cause) -> Result<(), RunError> {
        // Whatever it means for others: nobody works on this one any more.
        let is_first = job.fail();
        let root = &self.destination.root;
        match cause {
            Cause::Destination { operation, source } if ends_everything(root, &job.dir.path, &source) => {
                let operation = operation.strip_prefix("cannot ").unwrap_or(operation);
                Err(RunError::Destination { operation, path: job.path().to_string(), source })
            }
            cause => {
                if is_first {
                    self.fail(job, cause);
                }
                Ok(())
            }
        }
    }

    /// Reports a file as failed that nobody works on any more.
    pub(crate) fn fail(&self, job: &FileJob, cause: Cause) {
        self.report.failed(job.path(), cause);
        self.finisher().release(&job.dir);
    }

    /// What was brought together of a file is not what the sender has. It is fetched once more, whole.
    pub(crate) fn mismatched(&self, job: &Arc<FileJob>, mismatch: Mismatch) -> Result<(), RunError> {
        if job.offered_before > 0 {
            return self.give_up(job, Cause::Checksum { want: mismatch.want, got: mismatch.got });
        }
        tracing::warn!(path = %job.path(), ?mismatch, "CRC-32 mismatch; fetching the file again");
        job.distrust();
        job.bar_all_but(self.line.lead()).for_each(|source| self.disagrees(job, source));
        if job.fail() {
            self.schedule.moved(Arc::clone(job));
        }
        Ok(())
    }

    /// One of several sources has, or may have, another version of a file than the one that leads.
    pub(crate) fn disagrees(&self, job: &FileJob, source: usize) {
        self.report.barred(source);
        self.report.tell(Event::Disagrees { path: job.path(), source: self.line.name_of(source) });
    }

    /// The source is not what was offered any more: it is offered again, unless that has been done too often.
    pub(crate) fn moved(&self, job: &Arc<FileJob>, status: Status) -> Result<(), RunError> {
        if job.offered_before >= OFFERED_AGAIN_MAX || !is_moving(status) {
            return self.give_up(job, Cause::Source(status));
        }
        if job.fail() {
            self.schedule.moved(Arc::clone(job));
        }
        Ok(())
    }

    /// What finishes directories.
    pub(crate) fn finisher(&self) -> Finisher<'_> {
        Finisher { destination: self.destination, owners: self.owners, report: self.report }
    }
}

/// Whether the source may be in good order when it is looked at again.
fn is_moving(status: Status) -> bool {
    matches!(status, Status::Changed | Status::BadRange | Status::InUse)
}

#[cfg(test)]
pub(crate) mod tests;
