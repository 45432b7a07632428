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
//! Connections hand files over and go on; one thread syncs and names. A group closes when it is large,
//! or old, or when nothing more will come.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fastcp_sys::{Dir, WholeSync};
use rayon::prelude::*;

use crate::destination::Mount;
use crate::error::RunError;
use crate::job::FileJob;
use crate::manifest::Record;
use crate::part::Dressed;
use crate::report::Cause;
use crate::transfer::Transfer;

/// The most files in a group; each is an open descriptor until it has its name.
pub(crate) const GROUP_FILES_MAX: usize = 4096;
/// A group closes when its files hold this much.
const GROUP_BYTES_MAX: u64 = 32 << 20;
/// A group closes at this age.
const GROUP_AGE_MAX: Duration = Duration::from_secs(1);

/// A file that is complete but for its name.
pub(crate) struct Landed {
    pub(crate) part: Dressed,
    pub(crate) job: Arc<FileJob>,
    pub(crate) dir: Arc<Dir>,
    pub(crate) mount: Arc<Mount>,
    /// For the manifest, where one is wanted.
    pub(crate) record: Option<Record>,
}

/// The group that is open, and the thread's signals.
pub(crate) struct Groups {
    state: Mutex<State>,
    /// The committing thread waits here.
    filled: Condvar,
    /// Connections wait here while a full group waits for the one before.
    emptied: Condvar,
    files_max: usize,
}

#[derive(Default)]
struct State {
    files: Vec<Landed>,
    bytes: u64,
    opened: Option<Instant>,
    is_last: bool,
    /// The committing thread has ended: nothing is taken any more.
    is_over: bool,
}

impl Groups {
    /// No group yet. `files_max` is what the limit of open descriptors allows.
    pub(crate) fn new(files_max: usize) -> Self {
        Self {
            state: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            files_max: files_max.clamp(1, GROUP_FILES_MAX),
        }
    }

    /// Hands a file over, waiting while the open group is full.
    pub(crate) fn add(&self, landed: Landed) {
        let mut state = self.lock();
        while self.is_full(&state) && !state.is_over {
            state = self.emptied.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.opened.get_or_insert_with(Instant::now);
        state.bytes += landed.job.grid.file_bytes();
        state.files.push(landed);
        if state.files.len() == 1 || self.is_full(&state) {
            self.filled.notify_one();
        }
    }

    /// Nothing more will come: the open group closes.
    pub(crate) fn finish(&self) {
        self.lock().is_last = true;
        self.filled.notify_one();
    }

    /// Commits groups until [`Groups::finish`] and the last of them.
    pub(crate) fn run(&self, transfer: &Transfer<'_>) -> Result<(), RunError> {
        let _over = Over(self);
        self.commit_all(transfer)
    }

    fn commit_all(&self, transfer: &Transfer<'_>) -> Result<(), RunError> {
        let mut mounts: Vec<Arc<Mount>> = Vec::new();
        while let Some(files) = self.next_group() {
            let start = Instant::now();
            for landed in &files {
                if !mounts.iter().any(|mount| Arc::ptr_eq(mount, &landed.mount)) {
                    mounts.push(Arc::clone(&landed.mount));
                }
            }
            sync_data(&files, &mounts).map_err(cannot_sync)?;
            files.into_par_iter().try_for_each(|landed| commit_one(transfer, landed))?;
            transfer.settings.manifest.iter().try_for_each(|manifest| manifest.flush())?;
            transfer.report.counters.waited_destination.add_since(start);
        }
        mounts.iter().try_for_each(|mount| mount.sync.sync_file_system()).map_err(cannot_sync)
    }

    /// Waits for a group to close, and takes it; `None` after the last.
    fn next_group(&self) -> Option<Vec<Landed>> {
        let mut state = self.lock();
        loop {
            let age = state.opened.map(|opened| opened.elapsed());
            let is_old = age.is_some_and(|age| age >= GROUP_AGE_MAX);
            if !state.files.is_empty() && (state.is_last || is_old || self.is_full(&state)) {
                (state.bytes, state.opened) = (0, None);
                self.emptied.notify_all();
                return Some(std::mem::take(&mut state.files));
            }
            if state.is_last {
                return None;
            }
            let wait = age.map_or(GROUP_AGE_MAX, |age| GROUP_AGE_MAX.saturating_sub(age));
            state = self.filled.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn is_full(&self, state: &State) -> bool {
        state.files.len() >= self.files_max || state.bytes >= GROUP_BYTES_MAX
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// However the committing thread ends, nobody may wait for it any more.
struct Over<'a>(&'a Groups);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.lock().is_over = true;
        self.0.emptied.notify_all();
    }
}

/// One call for each file system that can be trusted with it, one for each file elsewhere.
fn sync_data(files: &[Landed], mounts: &[Arc<Mount>]) -> io::Result<()> {
    for mount in mounts.iter().filter(|mount| mount.sync.whole() == WholeSync::Trusted) {
        mount.sync.sync_file_system()?;
    }
    files
        .iter()
        .filter(|landed| landed.mount.sync.whole() == WholeSync::Unknown)
        .try_for_each(|landed| landed.part.sync())
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
            if let (Some(manifest), Some(record)) = (&transfer.settings.manifest, &record) {
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
