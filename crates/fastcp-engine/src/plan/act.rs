//! What is done about a decision, at once: directories and links made, attributes mended, room made.
//!
//! The bytes of files are not here: of a file that differs this makes a job for the schedule. Nothing
//! that is not empty is ever removed here, and what is replaced goes to the backup directory first,
//! where there is one.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use fastcp_model::{ChunkGrid, Entry, EntryKind, Metadata, Name};
use fastcp_sys::{Dir, FileType, Stat, metadata};

use crate::commit::leftover;
use crate::commit::transfer::Transfer;
use crate::plan::decide::Decision;
use crate::schedule::job::FileJob;
use crate::target::across;
use crate::target::attributes;
use crate::target::dirs::{Age, DirState};
use crate::target::naming::{Shelter, expect_named, expect_same};
use crate::target::owners::Owners;

/// What a run has and a dry run lacks.
pub(crate) struct Actor<'a> {
    pub(crate) transfer: &'a Transfer<'a>,
    /// Which of several sources makes the offer that is coming.
    pub(crate) source: usize,
}

impl Actor<'_> {
    /// Carries out what was decided about a file or link. Answers what is to be fetched.
    pub(crate) fn act(
        &self,
        state: &Arc<DirState>,
        dir: &Dir,
        entry: &Entry,
        decision: Decision,
    ) -> io::Result<Option<FileJob>> {
        match (&entry.kind, decision) {
            (EntryKind::File { .. }, Decision::Mend(there)) => {
                let file = dir.handle(&entry.name)?;
                // Owner and mode are for what was looked at, and for nothing that has taken its name since.
                expect_same(&file, &there)?;
                attributes::mend(file, &there, &entry.metadata, self.transfer.owners)?;
            }
            (EntryKind::Symlink { .. }, Decision::Mend(_)) => {
                attributes::mend_link(dir, &entry.name, &entry.metadata, self.transfer.owners)?;
            }
            (EntryKind::File { size_bytes, sparse }, Decision::Make(there)) => {
                return self.job_of(state, dir, entry, *size_bytes, *sparse, there.as_ref()).map(Some);
            }
            (EntryKind::Symlink { target }, Decision::Make(there)) => {
                self.make_link(state, dir, entry, target, there.as_ref())?;
            }
            _ => {}
        }
        Ok(None)
    }

    fn job_of(
        &self,
        state: &Arc<DirState>,
        dir: &Dir,
        entry: &Entry,
        size_bytes: u64,
        sparse: bool,
        there: Option<&Stat>,
    ) -> io::Result<FileJob> {
        if let Some(stat) = there {
            clear_empty_dir(dir, &entry.name, stat)?;
        }
        let grid = ChunkGrid::new(size_bytes, self.transfer.line.agreed.chunk_kb).map_err(io::Error::other)?;
        let replaces = there.is_some_and(|stat| stat.file_type != FileType::Dir);
        let job = FileJob::new(Arc::clone(state), entry.name.clone(), entry.metadata, grid, sparse, replaces);
        let job = job.of_source(self.source);
        leftover::begin(job, self.transfer, dir, there)
    }

    fn make_link(
        &self,
        state: &Arc<DirState>,
        dir: &Dir,
        entry: &Entry,
        target: &[u8],
        there: Option<&Stat>,
    ) -> io::Result<()> {
        let name = &entry.name;
        match there {
            Some(stat) => {
                clear_empty_dir(dir, name, stat)?;
                self.replace_by_link(state, dir, entry, target, stat)?;
            }
            None => {
                dir.make_link(target, name)?;
                attributes::mend_link(dir, name, &entry.metadata, self.transfer.owners)?;
            }
        }
        self.transfer.report.counters.links_made.add(1);
        Ok(())
    }

    /// A link that has all its attributes takes the place of what is there.
    fn replace_by_link(
        &self,
        state: &Arc<DirState>,
        dir: &Dir,
        entry: &Entry,
        target: &[u8],
        there: &Stat,
    ) -> io::Result<()> {
        let place = self.transfer.destination.part_place(state, dir, &entry.name)?;
        let link = self.make_part_link(&place.dir, &place.name, entry, target)?;
        if there.file_type != FileType::Dir {
            self.transfer.destination.keep_backup(dir, &entry.name, &state.path)?;
        }
        match (place.dir.rename(&place.name, dir, &entry.name), place.shelter) {
            (Ok(()), Shelter::StateDir) => Ok(()),
            (Ok(()), Shelter::Beside) => expect_named(link, dir, &entry.name),
            (Err(error), _) if across::is_refused(&error) => {
                if let Err(error) = place.dir.remove_file(&place.name) {
                    tracing::debug!(%error, "cannot remove an unfinished link");
                }
                let beside = across::name_beside(&entry.name);
                let link = self.make_part_link(dir, &beside, entry, target)?;
                dir.rename(&beside, dir, &entry.name)?;
                expect_named(link, dir, &entry.name)
            }
            (result, _) => result,
        }
    }

    /// A link that has all but its name. Answers a hold on it.
    fn make_part_link(&self, dir: &Dir, name: &Name, entry: &Entry, target: &[u8]) -> io::Result<OwnedFd> {
        dir.remove_if_there(name)?;
        dir.make_link(target, name)?;
        attributes::mend_link(dir, name, &entry.metadata, self.transfer.owners)?;
        dir.handle(name)
    }

    /// Makes sure that `name` in `dir` is a directory that this process can work in. Answers its age.
    pub(crate) fn make_dir(&self, state: &DirState, dir: &Dir, entry: &Entry, there: Option<&Stat>) -> io::Result<Age> {
        let name = &entry.name;
        match there {
            None => {}
            Some(stat) if stat.file_type == FileType::Dir => {
                self.transfer.destination.expect_not_own(stat)?;
                prepare(|| dir.dir(name), stat, &entry.metadata, self.transfer.owners)?;
                return Ok(Age::Old);
            }
            Some(_) => self.transfer.destination.remove(dir, name, &state.path)?,
        }
        dir.make_dir(name)?;
        self.transfer.report.counters.dirs_made.add(1);
        Ok(Age::New)
    }
}

/// An empty directory gives way to a file or link of its name; one that is not empty never does.
fn clear_empty_dir(dir: &Dir, name: &Name, there: &Stat) -> io::Result<()> {
    if there.file_type == FileType::Dir { dir.remove_dir(name) } else { Ok(()) }
}

/// Makes an old directory ready to take what comes. The owner of a read-only one gets the right to work in it; its
/// own mode comes back when it is finished. Rights that it shall not give are taken away at once, and an owner that
/// it shall not have: what is put into it is protected from the first byte.
pub(crate) fn prepare(
    open: impl FnOnce() -> io::Result<Dir>,
    there: &Stat,
    wanted: &Metadata,
    owners: &Owners,
) -> io::Result<()> {
    let mode = there.metadata.mode;
    let workable = if owners.is_root() { mode } else { mode | 0o700 };
    let narrowed = workable & (wanted.mode | 0o7700);
    let new_owner = attributes::owner_to_set(there, wanted, owners);
    if narrowed == mode && new_owner.is_none() {
        return Ok(());
    }
    let dir = open()?;
    expect_same(&dir, there)?;
    if let Some((uid, gid)) = new_owner {
        // Whatever cannot be set is reported when the directory is finished.
        let _ = metadata::set_handle_owner(&dir, uid, gid);
    }
    match metadata::set_handle_mode(&dir, narrowed) {
        Err(error) if workable != mode => Err(error),
        _ => Ok(()),
    }
}
