//! SIGINT and SIGTERM: the first ends the transfer in good order, the second the process at once.
//!
//! Both are blocked in every thread and taken by one that waits for them, so that nothing is ever done inside a
//! signal handler.

use std::io;
use std::sync::Arc;

use fastcp_engine::Interrupt;
use nix::sys::signal::{SigSet, Signal};

use crate::exit_code::INTERRUPTED;

/// Has signals ask `interrupt`. To be called before any other thread is started. Where no transfer is under way
/// that hears it, there is nothing to wait for.
pub(crate) fn end_on(interrupt: Arc<Interrupt>) -> io::Result<()> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
    signals.thread_block()?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut is_second = false;
        while signals.wait().is_ok() {
            let is_heard = interrupt.ask();
            if is_second || !is_heard {
                std::process::exit(INTERRUPTED.into());
            }
            is_second = true;
        }
    })?;
    Ok(())
}
