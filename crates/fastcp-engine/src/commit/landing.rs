//! Where a file's bytes land, and the end of the file: committed or given up.
//!
//! One for each connection. It makes part files and carries finished ones through seal, verify and
//! metadata to the commit: at once, or by a group's one sync.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Instant;

use fastcp_model::Capabilities;
use fastcp_sys::{Dir, Stat};

use crate::commit::group::{Landed, commit_one};
use crate::commit::transfer::Transfer;
use crate::content::content_hash::ContentHash;
use crate::error::RunError;
use crate::manifest::{Record, Recorder};
use crate::report::Cause;
use crate::schedule::answered::Proof;
use crate::schedule::job::FileJob;
use crate::schedule::stop_watch::StopWatch;
use crate::schedule::want::Want;
use crate::settings::{Durability, Placement};
use crate::target::destination::Mount;
use crate::target::dirs::DirState;
use crate::target::naming::PartPlace;
use crate::target::part::{PartFile, Verified};
use crate::target::read_back::look_at;

/// Smaller files are not worth reserving room for.
const ALLOCATE_BYTES_MIN: u64 = 4 << 20;

/// Whether a part file has a name from the start. An unnamed one cannot be resumed, nor replace.
#[derive(Clone, Copy)]
enum Naming {
    /// It has, and a journal too.
    Journaled,
    Named,
    Unnamed,
    /// It is the target.
    Target,
}

/// What a new part file has in common with the first file of its basis, the old target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharing {
    Nothing,
    /// Its bytes, until either is written to.
    Clone,
    /// Everything: it is that file.
    SameFile,
}

/// The file that one range is written to.
#[derive(Debug)]
pub(crate) enum Writing {
    /// The range is all of it, and nobody else has it.
    Whole(PartFile),
    /// Other connections write other ranges.
    Shared(Arc<PartFile>),
}

impl Deref for Writing {
    type Target = PartFile;

    fn deref(&self) -> &PartFile {
        match self {
            Self::Whole(part) => part,
            Self::Shared(part) => part,
        }
    }
}

/// A directory that files land in.
#[derive(Clone)]
struct LandingDir {
    dir: Arc<Dir>,
    mount: Arc<Mount>,
}

pub(crate) struct Landing<'a> {
    transfer: &'a Transfer<'a>,
    /// The directory of the last file: files come directory by directory.
    last_dir: Option<(Arc<DirState>, LandingDir)>,
}

impl<'a> Landing<'a> {
    pub(crate) fn new(transfer: &'a Transfer<'a>) -> Self {
        Self { transfer, last_dir: None }
    }

    /// The file that a range is written to; `None` where it cannot be made, which fails the file.
    pub(crate) fn part_for(&mut self, want: &Want) -> Result<Option<Writing>, RunError> {
        let job = &want.job;
        let made = self.place_of(job).and_then(|LandingDir { dir, mount }| {
            if want.is_whole_file() {
                self.make_part(job, &dir, self.naming_of_short(job, &mount)).map(Writing::Whole)
            } else {
                job.part(|| self.make_part(job, &dir, self.naming_of_long())).map(Writing::Shared)
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

    /// The part file of a job for which something may be copied from `target`, its old version. One that is
    /// made now is made a clone of that, where the file system can.
    pub(crate) fn part_with_basis(
        &mut self,
        job: &FileJob,
        target: Option<&File>,
    ) -> io::Result<(Arc<PartFile>, Sharing)> {
        let dir = self.place_of(job)?.dir;
        let mut sharing = match self.transfer.settings.placement {
            Placement::PartFile => Sharing::Nothing,
            Placement::InPlace => Sharing::SameFile,
        };
        let part = job.part(|| {
            let part = self.make_named(job, &dir, self.naming_of_long())?;
            if sharing == Sharing::Nothing
                && let Some(target) = target
                && fastcp_sys::file::clone_from(part.file(), target)?
            {
                sharing = Sharing::Clone;
                part.file().set_len(job.grid.file_bytes())?;
            }
            make_room(job, part.file())?;
            Ok(part)
        })?;
        Ok((part, sharing))
    }

    fn make_part(&self, job: &FileJob, dir: &Dir, naming: Naming) -> io::Result<PartFile> {
        let part = self.make_named(job, dir, naming)?;
        make_room(job, part.file())?;
        Ok(part)
    }

    fn make_named(&self, job: &FileJob, dir: &Dir, naming: Naming) -> io::Result<PartFile> {
        Ok(match naming {
            Naming::Target => PartFile::in_place(dir, &job.name, job.grid.file_bytes())?,
            Naming::Journaled => PartFile::journaled(self.part_place(job, dir)?, &job.binding())?,
            Naming::Named => PartFile::named(self.part_place(job, dir)?)?,
            Naming::Unnamed => match PartFile::unnamed(dir, job.metadata.mode) {
                Err(error) if cannot_be_unnamed(&error) => PartFile::named(self.part_place(job, dir)?)?,
                result => result?,
            },
        })
    }

    fn naming_of_short(&self, job: &FileJob, mount: &Mount) -> Naming {
        match self.transfer.settings.placement {
            Placement::InPlace => Naming::Target,
            Placement::PartFile if job.replaces || !mount.names_unnamed => Naming::Named,
            Placement::PartFile => Naming::Unnamed,
        }
    }

    /// Files that come in several ranges are worth resuming.
    fn naming_of_long(&self) -> Naming {
        match self.transfer.settings.placement {
            Placement::InPlace => Naming::Target,
            Placement::PartFile if self.transfer.agrees(Capabilities::CHUNK_RESUME) => Naming::Journaled,
            Placement::PartFile => Naming::Named,
        }
    }

    fn part_place(&self, job: &FileJob, dir: &Dir) -> io::Result<PartPlace> {
        self.transfer.destination.part_place(&job.dir, dir, &job.name)
    }

    fn place_of(&mut self, job: &FileJob) -> io::Result<LandingDir> {
        match &self.last_dir {
            Some((state, place)) if Arc::ptr_eq(state, &job.dir) => Ok(place.clone()),
            _ => {
                let dir = Arc::new(self.transfer.destination.root.dir(&job.dir.path)?);
                let mount = self.transfer.destination.mount_of(&dir)?;
                let place = LandingDir { dir, mount };
                self.last_dir = Some((Arc::clone(&job.dir), place.clone()));
                Ok(place)
            }
        }
    }

    /// Seals and verifies, then commits as durably as was asked: the end of every file that ends well.
    /// `written` is the CRC-32 of what was written.
    pub(crate) fn land(&mut self, part: PartFile, written: u32, proof: Proof<'_>) -> Result<(), RunError> {
        let job = proof.job;
        let start = Instant::now();
        let settings = self.transfer.settings;
        let hash = self.transfer.manifest.map(Recorder::hash);
        let mut stop = StopWatch::new(self.transfer.schedule);
        let read = |bytes| {
            self.transfer.report.counters.bytes_verified.add(bytes);
            stop.passed(bytes)
        };
        let seen = look_at(part.file(), job.grid.file_bytes(), written, settings.verify, hash, read);
        self.transfer.report.counters.waited_destination.add_since(start);
        let seen = match seen {
            Ok(seen) => seen,
            // The part file stays for the next run.
            Err(_) if self.transfer.schedule.is_stopped() => return Ok(()),
            Err(source) => {
                return self.transfer.give_up(job, Cause::Destination { operation: "cannot read back", source });
            }
        };
        let verified = match part.seal(seen.crc).verify(proof.whole) {
            Ok(verified) => verified,
            Err(mismatch) => {
                return self.transfer.mismatched(job, mismatch);
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
        self.transfer.manifest.iter().try_for_each(|manifest| manifest.flush())?;
        dir.sync_handle().and_then(|handle| handle.sync_dir()).map_err(|source| RunError::Destination {
            operation: "sync",
            path: job.dir.path.to_string(),
            source,
        })
    }
}

/// Gives a part file its length, and, unless holes are to stay, its room on the disk.
pub(crate) fn make_room(job: &FileJob, part: &File) -> io::Result<()> {
    let file_bytes = job.grid.file_bytes();
    if job.sparse {
        part.set_len(file_bytes)?;
    } else if file_bytes >= ALLOCATE_BYTES_MIN && Stat::of_fd(part)?.allocated_bytes < file_bytes {
        // To ask for room that is there already costs a walk over all of it.
        fastcp_sys::file::allocate(part, file_bytes)?;
    }
    Ok(())
}

/// The file system has no unnamed files: `EOPNOTSUPP`, or `EISDIR` and `EINVAL` from those that never heard.
fn cannot_be_unnamed(error: &io::Error) -> bool {
    use nix::libc::{EINVAL, EISDIR, EOPNOTSUPP};
    matches!(error.raw_os_error(), Some(EOPNOTSUPP | EISDIR | EINVAL))
}
