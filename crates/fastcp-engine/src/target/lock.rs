//! The lock of a destination, and a destination as it was before: what a run made that did not come to its end.
//!
//! Making our own directory changes the time of the destination, which is set back: a tree that is equal is equal
//! after the run, too. A run that fails removes the directory again, and the destination, where it made them and
//! they are empty but for the lock. The lock is removed while it is held; so that nobody works under one that has
//! no name any more, a lock counts only if the name still leads to it.

use std::fs::{File, TryLockError};
use std::io;

use fastcp_model::{RelPath, STATE_DIR, STATE_LOCK, STATE_PARTS, Timestamp};
use fastcp_sys::{Dir, Stat, metadata, process};

use crate::target::destination::{Destination, lawful_name_of};
use crate::target::destination_path::DestinationPath;
use crate::target::dirs::Age;

/// Locks that were removed while they were waited for; then somebody plays with the directory.
const ATTEMPTS_MAX: u32 = 100;

/// The right to work in a destination.
#[derive(Debug)]
pub(crate) struct Lock {
    /// When it was taken, by the clock of the destination's file system; `None` where that is not known.
    pub(crate) since: Option<Timestamp>,
    /// Whether this run made our own directory.
    state: Age,
    _file: File,
}

/// Another receiver is at work.
#[derive(Debug)]
pub(crate) struct Locked;

impl Destination {
    /// Keeps other receivers out for as long as what is answered lives. Where no lock can be made, as in a
    /// directory that is not ours to write, there is none: the entries will tell.
    pub(crate) fn lock(&self) -> Result<Option<Lock>, Locked> {
        let mut state = Age::Old;
        for _ in 0..ATTEMPTS_MAX {
            let file = self.own_lock(&mut state).or_else(|error| {
                tracing::info!(%error, "cannot use .fastcp in the destination");
                self.lock_of_others()
            });
            match file.map(|file| file.try_lock().map(|()| file)) {
                Ok(Err(TryLockError::WouldBlock)) => return Err(Locked),
                Ok(Ok(file)) if self.has_its_name(&file) => {
                    return Ok(Some(Lock { since: begun(&file), state, _file: file }));
                }
                Ok(Ok(_)) => {}
                Ok(Err(TryLockError::Error(error))) | Err(error) => {
                    tracing::debug!(%error, "the destination is not locked");
                    return Ok(None);
                }
            }
        }
        tracing::debug!("the destination is not locked: its lock is removed repeatedly");
        Ok(None)
    }

    /// The lock in our own state directory, both made where they are missing.
    fn own_lock(&self, state: &mut Age) -> io::Result<File> {
        if self.state_dir_if_there().is_err() {
            let root = self.root.dir(&RelPath::root())?;
            let before = root.stat()?;
            self.state_dir()?;
            *state = Age::New;
            set_time_back(&root, &before);
        }
        let (dir, name) = (self.state_dir()?, lawful_name_of(STATE_LOCK));
        match dir.create_file(&name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => dir.open_own_file(&name),
            result => result,
        }
    }

    /// The lock of another user, to be looked at and not written to. Only root's counts and that of the
    /// destination's owner: they need no lock to stop us.
    fn lock_of_others(&self) -> io::Result<File> {
        let root = self.root.dir(&RelPath::root())?;
        let state = root.dir(&lawful_name_of(STATE_DIR))?;
        let owner = state.stat()?.metadata.uid;
        if owner != 0 && owner != root.stat()?.metadata.uid {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        state.open_file(&lawful_name_of(STATE_LOCK))
    }

    fn has_its_name(&self, lock: &File) -> bool {
        let dir = self.root.dir(&RelPath::root()).and_then(|root| root.dir(&lawful_name_of(STATE_DIR)));
        let named = dir.and_then(|dir| dir.stat_name(&lawful_name_of(STATE_LOCK)));
        let id = |stat: Stat| (stat.identity.device, stat.identity.inode);
        matches!((named, Stat::of_fd(lock)), (Ok(named), Ok(held)) if id(named) == id(held))
    }

    /// Removes what a run that failed has made at `into`, where nothing else is in it.
    pub(crate) fn leave_as_found(&self, lock: Option<Lock>, into: &DestinationPath<'_>) {
        if let Some(lock) = lock.filter(|lock| lock.state == Age::New)
            && let Err(error) = self.remove_state_dir()
        {
            tracing::debug!(%error, "cannot remove .fastcp from the destination");
            drop(lock);
            return;
        }
        into.unmake(self.made);
    }

    fn remove_state_dir(&self) -> io::Result<()> {
        let (root, state) = (self.root.dir(&RelPath::root())?, self.state_dir_if_there()?);
        // Not empty where a file was begun.
        match state.remove_dir(&lawful_name_of(STATE_PARTS)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let lock = lawful_name_of(STATE_LOCK);
        let is_lock = |name: io::Result<Vec<u8>>| name.is_ok_and(|name| name == STATE_LOCK);
        if !state.names()?.all(is_lock) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let before = root.stat()?;
        state.remove_file(&lock)?;
        root.remove_dir(&lawful_name_of(STATE_DIR))?;
        set_time_back(&root, &before);
        Ok(())
    }
}

/// Whoever may not set it has not made the directory in his own.
fn set_time_back(dir: &Dir, before: &Stat) {
    if let Err(error) = metadata::set_handle_mtime(dir, before.metadata.mtime) {
        tracing::debug!(%error, "cannot restore the time of the destination");
    }
}

/// Touches a lock of ours, which says when the run began.
fn begun(lock: &File) -> Option<Timestamp> {
    let is_own = Stat::of_fd(lock).is_ok_and(|stat| stat.metadata.uid == process::user());
    if !is_own {
        return None;
    }
    metadata::touch(lock).and_then(|()| Stat::of_fd(lock)).map(|stat| stat.metadata.mtime).ok()
}
