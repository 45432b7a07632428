//! The error that ends a run: the first one is kept, and all threads are told to stop.

use crate::error::RunError;
use crate::link::line::{Ending, Line};
use crate::lock::Lock;

/// The error that stopped a run. Others that follow from the stop are not kept.
pub(crate) struct FirstError<'a> {
    line: &'a Line<'a>,
    /// Tells all threads of the run to stop.
    stop: &'a (dyn Fn() + Sync),
    error: Lock<Option<RunError>>,
}

impl<'a> FirstError<'a> {
    pub(crate) fn new(line: &'a Line<'a>, stop: &'a (dyn Fn() + Sync)) -> Self {
        Self { line, stop, error: Lock::leaf(None) }
    }

    /// Keeps an error of a thread that others may be waiting with: all are told, and hung up on. Nobody need wait for
    /// a peer that says nothing.
    pub(crate) fn keep(&self, result: Result<(), RunError>) {
        self.keep_and_hang_up(result, Ending::All);
    }

    /// As [`FirstError::keep`], and hangs up on fewer.
    pub(crate) fn keep_and_hang_up(&self, result: Result<(), RunError>, ending: Ending) {
        if let Err(error) = result {
            self.error.lock().get_or_insert(error);
            (self.stop)();
            self.line.hang_up(ending);
        }
    }

    /// A thread that panics takes what it owed with it: the others must not wait for that.
    pub(crate) fn stop_on_panic(&self) -> StopOnPanic<'_> {
        StopOnPanic { stop: self.stop }
    }

    /// What was kept.
    pub(crate) fn result(&self) -> Result<(), RunError> {
        self.error.lock().take().map_or(Ok(()), Err)
    }
}

/// Stops the run when it is dropped by a panic.
pub(crate) struct StopOnPanic<'a> {
    stop: &'a (dyn Fn() + Sync),
}

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            (self.stop)();
        }
    }
}
