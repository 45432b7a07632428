//! Durable commits, in groups.
//!
//! A name must not stand for bytes that a power cut can still take. Syncing each file by itself costs a
//! journal commit a file; so files that are complete but for their names gather in a group, one sync of
//! the file system makes all of them durable, and then they get their names. The names themselves are
//! made durable by the next group's sync, and by one more at the end.
//!
//! The order, for each file: data written, CRC proven, metadata set (`landing.rs`), group synced, name
//! given, name synced. At any moment a crash leaves the target old, or new and whole.
//!
//! Connections hand files over and go on; one thread syncs and names (`gathering.rs`).

use std::io;
use std::sync::Arc;
use std::time::Instant;

use fastcp_sys::{Dir, WholeSync};
use rayon::prelude::*;

use crate::commit::transfer::Transfer;
use crate::error::RunError;
use crate::manifest::Record;
use crate::report::{Cause, Event};
use crate::schedule::job::FileJob;
use crate::target::destination::Mount;
use crate::target::part::Dressed;
use crate::target::reach::is_on_own;

pub(crate) mod gathering;

use gathering::{Gathered, Gathering};

/// Fewer files get their names on the committing thread alone. Where descriptors are few, so are files, and threads
/// of the pool may be waiting for what a group holds.
const PARALLEL_FILES_MIN: usize = 64;

/// A file that is complete but for its name.
pub(crate) struct Landed {
    pub(crate) part: Dressed,
    pub(crate) job: Arc<FileJob>,
    pub(crate) dir: Arc<Dir>,
    pub(crate) mount: Arc<Mount>,
    /// For the manifest, where one is wanted.
    pub(crate) record: Option<Record>,
}

/// The groups of a transfer.
pub(crate) type Groups = Gathering<Landed>;

impl Gathered for Landed {
    fn file_bytes(&self) -> u64 {
        self.job.grid.file_bytes()
    }
}

/// Commits groups until the last of them.
pub(crate) fn commit_groups(transfer: &Transfer<'_>) -> Result<(), RunError> {
    let _over = transfer.groups.committing();
    let mut mounts: Vec<Arc<Mount>> = Vec::new();
    while let Some(files) = transfer.groups.next() {
        let start = Instant::now();
        for landed in &files {
            if !mounts.iter().any(|mount| Arc::ptr_eq(mount, &landed.mount)) {
                mounts.push(Arc::clone(&landed.mount));
            }
        }
        let files = sync_data(transfer, files, &mut mounts)?;
        if files.len() < PARALLEL_FILES_MIN {
            files.into_iter().try_for_each(|landed| commit_one(transfer, landed))?;
        } else {
            files.into_par_iter().try_for_each(|landed| commit_one(transfer, landed))?;
        }
        transfer.manifest.iter().try_for_each(|manifest| manifest.flush())?;
        transfer.report.counters.waited_destination.add_since(start);
    }
    mounts.iter().try_for_each(|mount| mount.sync.sync_file_system()).map_err(cannot_sync)
}

/// One call for each file system that can be trusted with it, one for each file elsewhere. Answers the files that may
/// have their names: where another file system than the destination's own cannot be synced, what is on it fails.
fn sync_data(
    transfer: &Transfer<'_>,
    files: Vec<Landed>,
    mounts: &mut Vec<Arc<Mount>>,
) -> Result<Vec<Landed>, RunError> {
    let root = &transfer.destination.root;
    let mut lost: Vec<(Arc<Mount>, i32)> = Vec::new();
    for mount in mounts.iter().filter(|mount| mount.sync.whole() == WholeSync::Trusted) {
        let Err(source) = mount.sync.sync_file_system() else { continue };
        let file = files.iter().find(|landed| Arc::ptr_eq(&landed.mount, mount));
        match (file, source.raw_os_error()) {
            (Some(landed), Some(errno)) if !is_on_own(root, &landed.job.dir.path) => {
                lost.push((Arc::clone(mount), errno));
            }
            _ => return Err(cannot_sync(source)),
        }
    }
    mounts.retain(|mount| !lost.iter().any(|(one, _)| Arc::ptr_eq(one, mount)));
    let mut synced = Vec::with_capacity(files.len());
    for landed in files {
        let is_lost = lost.iter().find(|(mount, _)| Arc::ptr_eq(mount, &landed.mount));
        let result = match (is_lost, landed.mount.sync.whole()) {
            (Some((_, errno)), _) => Err(io::Error::from_raw_os_error(*errno)),
            (None, WholeSync::Unknown) => landed.part.sync(),
            (None, WholeSync::Trusted) => Ok(()),
        };
        match result {
            Ok(()) => synced.push(landed),
            Err(source) => {
                transfer.give_up(&landed.job, Cause::Destination { operation: "cannot sync", source })?;
            }
        }
    }
    Ok(synced)
}

/// Gives one file its name. Its failure is that file's alone, unless it concerns all.
pub(crate) fn commit_one(transfer: &Transfer<'_>, landed: Landed) -> Result<(), RunError> {
    let Landed { part, job, dir, record, .. } = landed;
    let fallback = || transfer.destination.part_place(&job.dir, &dir, &job.name);
    let kept = match job.replaces {
        true => transfer.destination.keep_backup(&dir, &job.name, &job.dir.path),
        false => Ok(()),
    };
    match kept.and_then(|()| part.commit(&dir, &job.name, fallback)) {
        Ok(()) => {
            transfer.report.counters.files_committed.add(1);
            if transfer.settings.tell_committed {
                transfer.report.tell(Event::Committed { path: job.path(), bytes: job.grid.file_bytes() });
            }
            if let (Some(manifest), Some(record)) = (transfer.manifest, &record) {
                manifest.put(record)?;
            }
            transfer.finisher().release(&job.dir);
            Ok(())
        }
        Err(source) => transfer.give_up(&job, Cause::Destination { operation: "cannot commit", source }),
    }
}

fn cannot_sync(source: io::Error) -> RunError {
    RunError::Destination { operation: "sync", path: ".".to_owned(), source }
}

#[cfg(test)]
mod tests;
