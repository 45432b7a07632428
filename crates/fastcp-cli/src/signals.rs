//! SIGINT and SIGTERM: the first ends what is going on in good order, the second the process at once.
//!
//! Both are blocked in every thread and taken by one that waits for them, so that nothing is ever done inside a
//! signal handler.

use std::io;

use nix::sys::signal::{SigSet, Signal};

use crate::exit_code::INTERRUPTED;

/// Whether anything will end in good order because of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    Yes,
    /// There is nothing to wait for.
    No,
}

/// Has the first signal call `end`, and `at_once` before the process ends without waiting for anything. To be
/// called before any other thread is started.
pub(crate) fn on_signal(
    end: impl Fn() -> Heard + Send + 'static,
    at_once: impl Fn() + Send + 'static,
) -> io::Result<()> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
    signals.thread_block()?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut is_second = false;
        while signals.wait().is_ok() {
            if std::mem::replace(&mut is_second, true) || end() == Heard::No {
                at_once();
                #[cfg(feature = "counts")]
                crate::counts::write();
                std::process::exit(INTERRUPTED.into());
            }
        }
    })?;
    Ok(())
}
