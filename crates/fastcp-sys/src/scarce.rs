//! What a process can run out of: descriptors, memory, threads.
//!
//! Running out says nothing about a file. A call that finds no descriptor left waits here until one is closed,
//! which is what the rest of the process works towards, and fails only when that takes too long. The limit is the
//! process's, and so is the count of those that wait: whoever holds descriptors that he could let go of looks at
//! [`is_short`].

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;

/// How long a call waits before it fails. A peer gives up one that says nothing for 30 s.
const PATIENCE: Duration = Duration::from_secs(10);
/// Attempts of one that is in no hurry.
const PERSISTENT_ATTEMPTS: u32 = 6;
/// The first wait, and the longest.
const WAIT_MIN: Duration = Duration::from_millis(1);
const WAIT_MAX: Duration = Duration::from_millis(32);

static WAITING: AtomicUsize = AtomicUsize::new(0);

/// Whether an error says that the process or the system has run out of something.
pub fn is_exhaustion(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::OutOfMemory)
        || error.raw_os_error().is_some_and(|code| is_scarce(Errno::from_raw(code)))
}

/// `EMFILE`: the process's descriptors. `ENFILE`: the system's. `ENOMEM`, `ENOBUFS`: the kernel's memory.
fn is_scarce(errno: Errno) -> bool {
    matches!(errno, Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS)
}

/// Whether anybody waits for descriptors.
pub fn is_short() -> bool {
    WAITING.load(Ordering::Relaxed) > 0
}

/// Makes a call that needs a descriptor; where there is none left, again when some may have been closed.
///
/// # Errors
/// Those of the call.
pub fn patiently<T>(call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    repeat(call, is_exhaustion)
}

/// Does what takes descriptors where nobody waits for the outcome: again and again, for a minute.
///
/// # Errors
/// Those of the last attempt.
pub fn persistently<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 1..PERSISTENT_ATTEMPTS {
        match attempt() {
            // Each attempt has waited.
            Err(error) if is_exhaustion(&error) => {}
            result => return result,
        }
    }
    attempt()
}

/// The same for calls that answer an errno.
pub(crate) fn opened<T>(call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    repeat(call, |errno| is_scarce(*errno))
}

fn repeat<T, E>(mut call: impl FnMut() -> Result<T, E>, is_scarce: impl Fn(&E) -> bool) -> Result<T, E> {
    match call() {
        Err(error) if is_scarce(&error) => {}
        result => return result,
    }
    let _waiting = Waiting::new();
    let until = Instant::now() + PATIENCE;
    let mut wait = WAIT_MIN;
    loop {
        std::thread::sleep(wait);
        wait = (wait * 2).min(WAIT_MAX);
        match call() {
            Err(error) if is_scarce(&error) && Instant::now() < until => {}
            result => return result,
        }
    }
}

struct Waiting;

impl Waiting {
    fn new() -> Self {
        WAITING.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::{is_short, opened};

    #[test]
    fn what_ran_out_is_asked_for_again_and_what_failed_is_not() {
        let mut answers = vec![Ok(7), Err(Errno::ENFILE), Err(Errno::EMFILE)];
        let mut was_short = Vec::new();
        let answered = opened(|| {
            was_short.push(is_short());
            answers.pop().expect("an answer")
        });
        assert_eq!(answered, Ok(7));
        assert_eq!(was_short[1..], [true, true]);
        let mut calls = 0;
        let answered = opened(|| {
            calls += 1;
            Err::<(), _>(Errno::ENOENT)
        });
        assert_eq!((answered, calls), (Err(Errno::ENOENT), 1));
    }
}
