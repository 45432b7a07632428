//! Where a file's bytes land, and the end of the file: committed or given up.
//!
//! One for each connection. It makes part files and carries finished ones through seal, verify and
//! metadata to the commit: at once, or by a group's one sync.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use fastcp_sys::Dir;

use crate::content_hash::ContentHash;
use crate::destination::Mount;
use crate::dirs::DirState;
use crate::error::RunError;
use crate::fetch::Transfer;
use crate::group::{Landed, commit_one};
use crate::job::FileJob;
use crate::manifest::Record;
use crate::part::{PartFile, SenderCrc, Verified};
use crate::read_back::look_at;
use crate::report::Cause;
use crate::settings::Durability;
use crate::want::Want;

/// Smaller files are not worth reserving room for.
const ALLOCATE_BYTES_MIN: u64 = 4 << 20;

/// Whether a part file has a name from the start. An unnamed one cannot be resumed, nor replace.
#[derive(Clone, Copy)]
enum Naming {
    Named,
    Unnamed,
}

/// A directory that files land in.
#[derive(Clone)]
struct Place {
    dir: Arc<Dir>,
    mount: Arc<Mount>,
}

pub(crate) struct Landing<'a> {
    transfer: &'a Transfer<'a>,
    /// The directory of the last file: files come directory by directory.
    last_dir: Option<(Arc<DirState>, Place)>,
}

impl<'a> Landing<'a> {
    pub(crate) fn new(transfer: &'a Transfer<'a>) -> Self {
        Self { transfer, last_dir: None }
    }

    /// The file that a range is written to; `None` where it cannot be made, which fails the file.
    pub(crate) fn part_for(&mut self, want: &Want) -> Result<Option<Arc<PartFile>>, RunError> {
        let job = &want.job;
        let made = self.place_of(job).and_then(|Place { dir, .. }| {
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
                self.transfer.give_up(job, Cause::Destination { operation: "cannot create", source })?;
                Ok(None)
            }
        }
    }

    fn make_part(&self, job: &FileJob, dir: &Dir, naming: Naming) -> io::Result<PartFile> {
        let part = match naming {
            Naming::Named => self.make_named_part(job, dir)?,
            Naming::Unnamed => match PartFile::unnamed(dir, job.metadata.mode) {
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

    fn place_of(&mut self, job: &FileJob) -> io::Result<Place> {
        match &self.last_dir {
            Some((state, place)) if Arc::ptr_eq(state, &job.dir) => Ok(place.clone()),
            _ => {
                let dir = Arc::new(self.transfer.destination.root.dir(&job.dir.path)?);
                let mount = self.transfer.destination.mount_of(&dir)?;
                let place = Place { dir, mount };
                self.last_dir = Some((Arc::clone(&job.dir), place.clone()));
                Ok(place)
            }
        }
    }

    /// Seals and verifies, then commits as durably as was asked: the end of every file that ends well.
    pub(crate) fn land(
        &mut self,
        job: &Arc<FileJob>,
        part: PartFile,
        written: u32,
        sender: SenderCrc,
    ) -> Result<(), RunError> {
        let start = Instant::now();
        let settings = self.transfer.settings;
        let hash = settings.manifest.as_ref().map(|manifest| manifest.hash());
        let seen = look_at(part.file(), job.grid.file_bytes(), written, settings.verify, hash);
        self.transfer.report.counters.waited_destination.add_since(start);
        let seen = match seen {
            Ok(seen) => seen,
            Err(source) => {
                return self.transfer.give_up(job, Cause::Destination { operation: "cannot read back", source });
            }
        };
        let verified = match part.seal(seen.crc).verify(sender) {
            Ok(verified) => verified,
            Err(mismatch) => {
                return self.transfer.give_up(job, Cause::Checksum { want: mismatch.want, got: mismatch.got });
            }
        };
        let start = Instant::now();
        let landed = self.dress(job, verified, seen.hash);
        let result = match landed {
            Ok(landed) => self.commit(landed),
            Err(source) => {
                self.transfer.give_up(job, Cause::Destination { operation: "cannot set attributes", source })
            }
        };
        self.transfer.report.counters.waited_destination.add_since(start);
        result
    }

    fn dress(&mut self, job: &Arc<FileJob>, verified: Verified, hash: Option<ContentHash>) -> io::Result<Landed> {
        let part = verified.set_metadata(&job.metadata, self.transfer.owners)?;
        let place = self.place_of(job)?;
        let record = match hash {
            Some(hash) => Some(Record {
                hash,
                size_bytes: job.grid.file_bytes(),
                mtime: part.stat()?.metadata.mtime,
                path: job.path(),
            }),
            None => None,
        };
        Ok(Landed { part, job: Arc::clone(job), dir: place.dir, mount: place.mount, record })
    }

    fn commit(&self, landed: Landed) -> Result<(), RunError> {
        match self.transfer.settings.durability {
            Durability::None => commit_one(self.transfer, landed),
            Durability::Batch => {
                self.transfer.groups.add(landed);
                Ok(())
            }
            Durability::File => self.commit_synced(landed),
        }
    }

    fn commit_synced(&self, landed: Landed) -> Result<(), RunError> {
        let (job, dir) = (Arc::clone(&landed.job), Arc::clone(&landed.dir));
        if let Err(source) = landed.part.sync() {
            return self.transfer.give_up(&job, Cause::Destination { operation: "cannot sync", source });
        }
        commit_one(self.transfer, landed)?;
        self.transfer.settings.manifest.iter().try_for_each(|manifest| manifest.flush())?;
        dir.sync_handle().and_then(|handle| handle.sync_dir()).map_err(|source| RunError::Destination {
            operation: "sync",
            path: job.dir.path.to_string(),
            source,
        })
    }
}

/// The file system has no unnamed files: `EOPNOTSUPP`, or `EISDIR` and `EINVAL` from those that never heard.
fn cannot_be_unnamed(error: &io::Error) -> bool {
    use nix::libc::{EINVAL, EISDIR, EOPNOTSUPP};
    matches!(error.raw_os_error(), Some(EOPNOTSUPP | EISDIR | EINVAL))
}
