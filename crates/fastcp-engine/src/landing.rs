//! Where a file's bytes land, and the end of the file: committed or given up.
//!
//! One for each connection. It makes part files, carries finished ones through seal, verify and
//! commit, and reports those that fail; a failure that concerns every file ends the run instead.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use fastcp_sys::Dir;

use crate::dirs::DirState;
use crate::error::{RunError, ends_everything};
use crate::fetch::Transfer;
use crate::job::FileJob;
use crate::part::{PartFile, SenderCrc};
use crate::report::Cause;
use crate::schedule::Want;

/// Smaller files are not worth reserving room for.
const ALLOCATE_BYTES_MIN: u64 = 4 << 20;

/// Whether a part file has a name from the start. An unnamed one cannot be resumed, nor replace.
#[derive(Clone, Copy)]
enum Naming {
    Named,
    Unnamed,
}

pub(crate) struct Landing<'a> {
    transfer: &'a Transfer<'a>,
    /// The directory of the last file: files come directory by directory.
    last_dir: Option<(Arc<DirState>, Arc<Dir>)>,
}

impl<'a> Landing<'a> {
    pub(crate) fn new(transfer: &'a Transfer<'a>) -> Self {
        Self { transfer, last_dir: None }
    }

    /// The file that a range is written to; `None` where it cannot be made, which fails the file.
    pub(crate) fn part_for(&mut self, want: &Want) -> Result<Option<Arc<PartFile>>, RunError> {
        let job = &want.job;
        let made = self.dir_of(job).and_then(|dir| {
            if want.is_whole_file() {
                let naming = if job.replaces { Naming::Named } else { Naming::Unnamed };
                self.make_part(job, &dir, naming).map(Arc::new)
            } else {
                job.part(|| self.make_part(job, &dir, Naming::Named))
            }
        });
        match made {
            Ok(part) => Ok(Some(part)),
            Err(source) => {
                self.give_up(job, Cause::Destination { operation: "cannot create", source })?;
                Ok(None)
            }
        }
    }

    fn make_part(&self, job: &FileJob, dir: &Dir, naming: Naming) -> io::Result<PartFile> {
        let part = match naming {
            Naming::Named => self.make_named_part(job, dir)?,
            Naming::Unnamed => match PartFile::unnamed(dir) {
                Err(error) if cannot_be_unnamed(&error) => self.make_named_part(job, dir)?,
                result => result?,
            },
        };
        let file_bytes = job.grid.file_bytes();
        if job.sparse {
            part.file().set_len(file_bytes)?;
        } else if file_bytes >= ALLOCATE_BYTES_MIN {
            fastcp_sys::file::allocate(part.file(), file_bytes)?;
        }
        Ok(part)
    }

    fn make_named_part(&self, job: &FileJob, dir: &Dir) -> io::Result<PartFile> {
        let (parts, name) = self.transfer.destination.part_place(&job.dir, dir, &job.name)?;
        PartFile::named(parts, name)
    }

    fn dir_of(&mut self, job: &FileJob) -> io::Result<Arc<Dir>> {
        match &self.last_dir {
            Some((state, dir)) if Arc::ptr_eq(state, &job.dir) => Ok(Arc::clone(dir)),
            _ => {
                let dir = Arc::new(self.transfer.destination.root.dir(&job.dir.path)?);
                self.last_dir = Some((Arc::clone(&job.dir), Arc::clone(&dir)));
                Ok(dir)
            }
        }
    }

    /// Seals, verifies and commits: the end of every file that ends well.
    pub(crate) fn commit(
        &mut self,
        job: &Arc<FileJob>,
        part: PartFile,
        written: u32,
        sender: SenderCrc,
    ) -> Result<(), RunError> {
        let verified = match part.seal(written).verify(sender) {
            Ok(verified) => verified,
            Err(mismatch) => return self.give_up(job, Cause::Checksum { want: mismatch.want, got: mismatch.got }),
        };
        let start = Instant::now();
        let transfer = self.transfer;
        let committed = self.dir_of(job).and_then(|dir| {
            let fallback = || transfer.destination.part_place(&job.dir, &dir, &job.name);
            verified.commit(&dir, &job.name, &job.metadata, transfer.owners, fallback)
        });
        transfer.report.counters.waited_destination.add_since(start);
        match committed {
            Ok(()) => {
                transfer.report.counters.files_committed.add(1);
                transfer.finisher().release(&job.dir);
                Ok(())
            }
            Err(source) => self.give_up(job, Cause::Destination { operation: "cannot commit", source }),
        }
    }

    /// Reports a file as failed, once; ends the run where the failure concerns every file.
    pub(crate) fn give_up(&mut self, job: &Arc<FileJob>, cause: Cause) -> Result<(), RunError> {
        let cause = match cause {
            Cause::Destination { operation, source } if ends_everything(&source) => {
                let operation = operation.strip_prefix("cannot ").unwrap_or(operation);
                let path = job.path().to_string();
                return Err(RunError::Destination { operation, path, source });
            }
            other => other,
        };
        if job.fail() {
            self.transfer.report.failed(job.path(), cause);
            self.transfer.finisher().release(&job.dir);
        }
        Ok(())
    }
}

/// The file system has no unnamed files: `EOPNOTSUPP`, or `EISDIR` and `EINVAL` from those that never heard.
fn cannot_be_unnamed(error: &io::Error) -> bool {
    use nix::libc::{EINVAL, EISDIR, EOPNOTSUPP};
    matches!(error.raw_os_error(), Some(EOPNOTSUPP | EISDIR | EINVAL))
}
