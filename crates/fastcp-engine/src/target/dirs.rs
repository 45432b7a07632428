//! Directories on their way to completion.
//!
//! A directory's own mode and time can be set only when nothing more will be created in it or below
//! it: until then it is open to us. Each directory counts what it waits for (its own listing, its
//! files, its subdirectories); the last to finish sets its metadata and then releases the parent.
//! What is finished is forgotten, so memory follows the work in progress and not the tree.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fastcp_model::{Metadata, RelPath};
use fastcp_sys::Dir;
use fastcp_sys::scarce::persistently;

use crate::report::{Cause, Report};
use crate::target::attributes;
use crate::target::destination::Destination;
use crate::target::owners::Owners;

/// Whether a directory was there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Age {
    /// Made in this run: nothing in it needs to be looked at.
    New,
    /// There before.
    Old,
    /// Could not be made or entered; what is in it cannot be brought over.
    Blocked,
}

/// A directory of the destination that is not finished.
#[derive(Debug)]
pub(crate) struct DirState {
    pub(crate) path: RelPath,
    pub(crate) age: Age,
    parent: Option<Arc<Self>>,
    /// Set when all is done; `None` leaves the directory as it is.
    metadata: Option<Metadata>,
    waiting_for: AtomicU64,
}

impl DirState {
    /// A directory that waits for its own listing.
    pub(crate) fn new(path: RelPath, age: Age, parent: Option<Arc<Self>>, metadata: Option<Metadata>) -> Arc<Self> {
        Arc::new(Self { path, age, parent, metadata, waiting_for: AtomicU64::new(1) })
    }

    /// The directory above.
    pub(crate) fn parent(&self) -> Option<&Arc<Self>> {
        self.parent.as_ref()
    }

    /// More to wait for. Only while something is waited for already.
    pub(crate) fn expect(&self, more: u64) {
        let before = self.waiting_for.fetch_add(more, Ordering::Relaxed);
        assert!(before > 0, "a finished directory waits for nothing");
    }
}

/// Sets the metadata of directories as they finish.
#[derive(Debug)]
pub(crate) struct Finisher<'a> {
    pub(crate) destination: &'a Destination,
    pub(crate) owners: &'a Owners,
    pub(crate) report: &'a Report,
}

impl Finisher<'_> {
    /// One thing less to wait for; finishes the directory, and those above, where it was the last.
    pub(crate) fn release(&self, dir: &Arc<DirState>) {
        let mut dir = dir;
        loop {
            let before = dir.waiting_for.fetch_sub(1, Ordering::AcqRel);
            assert!(before > 0, "released once too often");
            if before > 1 {
                return;
            }
            self.finish(dir);
            match &dir.parent {
                Some(parent) => dir = parent,
                None => return self.report.run.set_root_finished(),
            }
        }
    }

    fn finish(&self, dir: &DirState) {
        let Some(metadata) = &dir.metadata else { return };
        if dir.age == Age::Blocked {
            return;
        }
        if let Err(source) = self.set_metadata(dir, metadata) {
            self.report.failed(dir.path.clone(), Cause::Destination { operation: "cannot set attributes", source });
        }
    }

    fn set_metadata(&self, state: &DirState, metadata: &Metadata) -> io::Result<()> {
        let dir: Dir = persistently(|| self.destination.root.dir(&state.path))?;
        let now = dir.stat()?;
        self.destination.expect_not_own(&now)?;
        let now = match state.age {
            Age::Old => self.destination.kept_times.as_wanted(&dir, now, metadata.mtime),
            _ => now,
        };
        attributes::mend(&dir, &now, metadata, self.owners).map(drop)
    }
}
