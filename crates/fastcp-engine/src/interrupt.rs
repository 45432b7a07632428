//! Ending a transfer from outside: what has arrived is kept, what is complete gets its name.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A way to end a transfer from another thread, such as one that waits for signals.
#[derive(Debug, Default)]
pub struct Interrupt {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_asked: bool,
    /// A transfer is under way that will notice.
    is_heard: bool,
    /// It has come to its end by itself.
    is_over: bool,
}

impl Interrupt {
    /// Asks the transfer to end. `false` where there is none that could: then there is nothing to keep either.
    pub fn ask(&self) -> bool {
        let mut state = self.lock();
        state.is_asked = true;
        self.changed.notify_all();
        state.is_heard
    }

    /// From here on somebody listens, until what is answered is dropped.
    pub(crate) fn listen(&self) -> Listening<'_> {
        self.lock().is_heard = true;
        Listening(self)
    }

    /// Waits until the transfer is asked to end, or has ended; answers whether it was asked.
    pub(crate) fn wait(&self) -> bool {
        let mut state = self.lock();
        while !state.is_asked && !state.is_over {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.is_asked && !state.is_over
    }

    /// The transfer has ended: whoever waits for the question need not wait any more.
    pub(crate) fn over(&self) {
        self.lock().is_over = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A transfer that can be interrupted.
#[derive(Debug)]
pub(crate) struct Listening<'a>(&'a Interrupt);

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        self.0.lock().is_heard = false;
    }
}

#[cfg(test)]
mod tests {
    use super::Interrupt;

    #[test]
    fn only_a_transfer_under_way_hears_it() {
        let interrupt = Interrupt::default();
        let listening = interrupt.listen();
        std::thread::scope(|threads| {
            let waiting = threads.spawn(|| interrupt.wait());
            assert!(interrupt.ask());
            assert!(waiting.join().expect("join"));
        });
        drop(listening);
        assert!(!interrupt.ask());
    }

    #[test]
    fn the_end_of_a_transfer_ends_the_wait() {
        let interrupt = Interrupt::default();
        let listening = interrupt.listen();
        std::thread::scope(|threads| {
            let waiting = threads.spawn(|| interrupt.wait());
            interrupt.over();
            assert!(!waiting.join().expect("join"));
        });
        drop(listening);
    }
}
