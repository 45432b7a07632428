//! Files that gather until a group of them closes: between the connections that hand them over and the thread
//! that commits them.
//!
//! A group closes when it is large, or old, or when nothing more will come. Connections wait while a full group has
//! not been taken; the committing thread waits for files, and for nobody else. When it has ended, whatever ended it,
//! nobody waits for it any more.

use std::time::{Duration, Instant};

use fastcp_sys::scarce::is_short;

use crate::budget::GROUP_FILES_MAX;
use crate::lock::{Guard, Lock, News, Rank};

/// A group closes when its files hold this much.
const GROUP_BYTES_MAX: u64 = 32 << 20;
/// A group closes at this age.
const GROUP_AGE_MAX: Duration = Duration::from_secs(1);
/// Groups are smaller than this only where descriptors are few. Then somebody may be waiting for those of a group,
/// which nobody tells of: it is looked for so often.
const SCARCE_FILES_MAX: usize = 64;
const SHORT_LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a group is made of.
pub(crate) trait Gathered {
    /// What it adds to the group's size.
    fn file_bytes(&self) -> u64;
}

/// The group that is open.
#[derive(Debug)]
pub(crate) struct Gathering<T> {
    state: Lock<State<T>>,
    /// The committing thread waits for this: a group has begun, is full, or is the last.
    filled: News,
    /// Connections wait for this: the full group was taken.
    emptied: News,
    files_max: usize,
}

#[derive(Debug)]
struct State<T> {
    files: Vec<T>,
    bytes: u64,
    opened: Option<Instant>,
    is_last: bool,
    /// The committing thread has ended: nothing is taken any more.
    is_over: bool,
}

impl<T: Gathered> Gathering<T> {
    /// No group yet. `files_max` is what the limit of open descriptors allows.
    pub(crate) fn new(files_max: usize) -> Self {
        let state = State { files: Vec::new(), bytes: 0, opened: None, is_last: false, is_over: false };
        Self {
            state: Lock::new(Rank::Group, state),
            filled: News::default(),
            emptied: News::default(),
            files_max: files_max.clamp(1, GROUP_FILES_MAX),
        }
    }

    /// Hands a file over, waiting while the open group is full.
    pub(crate) fn add(&self, file: T) {
        let mut state = self.state.lock();
        while self.is_full(&state) && !state.is_over {
            state = self.state.wait(&self.emptied, state);
        }
        state.opened.get_or_insert_with(Instant::now);
        state.bytes += file.file_bytes();
        state.files.push(file);
        if state.files.len() == 1 || self.is_full(&state) {
            self.filled.tell_all();
        }
    }

    /// Nothing more will come: the open group closes.
    pub(crate) fn finish(&self) {
        let mut state = self.state.lock();
        state.is_last = true;
        self.filled.tell_all();
    }

    /// Waits for a group to close, and takes it; `None` after the last.
    pub(crate) fn next(&self) -> Option<Vec<T>> {
        let mut state = self.state.lock();
        loop {
            let is_old = state.opened.is_some_and(|opened| opened.elapsed() >= GROUP_AGE_MAX) || is_short();
            if !state.files.is_empty() && (state.is_last || is_old || self.is_full(&state)) {
                return Some(self.take(state));
            }
            if state.is_last {
                return None;
            }
            state = match state.opened {
                Some(_) if self.files_max < SCARCE_FILES_MAX => {
                    self.state.wait_at_most(&self.filled, state, Some(Instant::now() + SHORT_LOOK_EVERY))
                }
                Some(opened) => self.state.wait_at_most(&self.filled, state, Some(opened + GROUP_AGE_MAX)),
                None => self.state.wait(&self.filled, state),
            };
        }
    }

    fn take(&self, mut state: Guard<'_, State<T>>) -> Vec<T> {
        (state.bytes, state.opened) = (0, None);
        self.emptied.tell_all();
        std::mem::take(&mut state.files)
    }

    /// The caller takes groups until this is dropped; then nobody waits for that any more.
    pub(crate) fn committing(&self) -> Committing<'_, T> {
        Committing(self)
    }

    fn is_full(&self, state: &State<T>) -> bool {
        state.files.len() >= self.files_max || state.bytes >= GROUP_BYTES_MAX
    }
}

/// However the committing thread ends, nobody may wait for it any more.
pub(crate) struct Committing<'a, T>(&'a Gathering<T>);

impl<T> Drop for Committing<'_, T> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.is_over = true;
        self.0.emptied.tell_all();
    }
}

#[cfg(test)]
mod tests;
