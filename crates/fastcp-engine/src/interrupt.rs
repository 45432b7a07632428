//! Ending a transfer from outside: what has arrived is kept, what is complete gets its name.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use fastcp_net::Live;

use crate::error::RunError;

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
    /// The connections of a transfer that is still looking for its sender, which nobody else would end.
    opening: Option<Arc<Live>>,
}

impl Interrupt {
    /// Asks the transfer to end. `false` where there is none that could: then there is nothing to keep either.
    pub fn ask(&self) -> bool {
        let mut state = self.lock();
        state.is_asked = true;
        state.opening.iter().for_each(|live| live.end_all_but(None));
        self.changed.notify_all();
        state.is_heard
    }

    /// From here on somebody listens, until what is answered is dropped.
    pub(crate) fn listen(&self) -> Listening<'_> {
        self.lock().is_heard = true;
        Listening(self)
    }

    /// Opens what these connections are for. They end as soon as the transfer is asked to end.
    ///
    /// # Errors
    /// [`RunError::Interrupted`], or that of `open`.
    pub(crate) fn while_opening<T>(
        &self,
        live: &Arc<Live>,
        open: impl FnOnce() -> Result<T, RunError>,
    ) -> Result<T, RunError> {
        let mut state = self.lock();
        if state.is_asked {
            return Err(RunError::Interrupted);
        }
        state.opening = Some(Arc::clone(live));
        drop(state);
        let opened = open();
        let mut state = self.lock();
        state.opening = None;
        if state.is_asked { Err(RunError::Interrupted) } else { opened }
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
    use std::sync::Arc;
    use std::time::Duration;

    use super::Interrupt;
    use crate::error::RunError;

    #[test]
    fn a_transfer_that_is_being_opened_ends() {
        let (interrupt, live) = (Interrupt::default(), Arc::default());
        let _listening = interrupt.listen();
        let opened = std::thread::scope(|threads| {
            interrupt.while_opening(&live, || {
                threads.spawn(|| assert!(interrupt.ask()));
                assert!(!live.pause(Duration::from_secs(600)), "ended at once");
                Ok(())
            })
        });
        assert!(matches!(opened, Err(RunError::Interrupted)));
        let again = interrupt.while_opening(&live, || unreachable!("it is not begun"));
        assert!(matches!(again, Err::<(), _>(RunError::Interrupted)));
    }

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
