//! Ctrl-C: what runs is killed, what was set up is taken down, and then it ends.
//!
//! SIGINT and SIGTERM are blocked in every thread and taken by one that waits for them. The first
//! sets a mark, which the runs look at; a second one ends the process where it is. What is started
//! runs in a process group of its own, so that a terminal's ctrl-C reaches the benchmark alone.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::{SigSet, Signal};

use crate::error::BenchError;

/// Whether somebody wants it to end.
#[derive(Debug, Clone)]
pub(crate) struct Interrupt {
    is_asked: Arc<AtomicBool>,
}

impl Interrupt {
    /// Takes the signals from here on. To be called before any thread is started.
    pub(crate) fn watch() -> Result<Self, BenchError> {
        let signals = signals();
        signals.thread_block().map_err(|errno| BenchError::system("block signals")(errno.into()))?;
        let is_asked = Arc::new(AtomicBool::new(false));
        let mark = Arc::clone(&is_asked);
        thread::spawn(move || {
            while signals.wait().is_ok() {
                if mark.swap(true, Ordering::Relaxed) {
                    process::exit(crate::EXIT_INTERRUPTED.into());
                }
            }
        });
        Ok(Self { is_asked })
    }

    /// Whether a signal came.
    pub(crate) fn is_asked(&self) -> bool {
        self.is_asked.load(Ordering::Relaxed)
    }

    /// An error where one did.
    pub(crate) fn check(&self) -> Result<(), BenchError> {
        if self.is_asked() { Err(BenchError::Interrupted) } else { Ok(()) }
    }
}

/// In a process that the benchmark started: signals work as usual again.
pub(crate) fn unblock() -> Result<(), BenchError> {
    signals().thread_unblock().map_err(|errno| BenchError::system("unblock signals")(errno.into()))
}

fn signals() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM].into_iter().collect()
}
