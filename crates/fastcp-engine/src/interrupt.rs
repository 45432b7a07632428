//! Ending runs from outside.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use fastcp_net::Live;

use crate::error::RunError;

/// A way to end runs from another thread, such as one that waits for signals.
///
/// It ends those that are under way when it is asked to; runs that begin later are not concerned, and several may be
/// under way at a time.
#[derive(Debug, Default)]
pub struct Interrupt {
    runs: Mutex<Vec<Weak<Run>>>,
}

impl Interrupt {
    /// Asks all runs under way to end. `false` where there is none: then there is nothing to keep either.
    pub fn ask(&self) -> bool {
        let runs: Vec<_> = self.lock().iter().filter_map(Weak::upgrade).collect();
        runs.iter().for_each(|run| run.ask());
        !runs.is_empty()
    }

    /// From here on a run is under way, until what is answered is dropped.
    pub(crate) fn listen(&self) -> Listening {
        let run = Arc::new(Run::default());
        let mut runs = self.lock();
        runs.retain(|run| run.strong_count() > 0);
        runs.push(Arc::downgrade(&run));
        Listening(run)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Run>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A run that can be asked to end.
#[derive(Debug)]
pub(crate) struct Listening(Arc<Run>);

#[derive(Debug, Default)]
struct Run {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_asked: bool,
    is_over: bool,
    /// The connections of a run that is being opened: nobody else would end them.
    opening: Option<Arc<Live>>,
}

impl Run {
    fn ask(&self) {
        let mut state = self.lock();
        state.is_asked = true;
        state.opening.iter().for_each(|live| live.end_all_but(None));
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listening {
    /// Opens what these connections are for. They end as soon as the run is asked to end.
    ///
    /// # Errors
    /// [`RunError::Interrupted`], or that of `open`.
    pub(crate) fn while_opening<T>(
        &self,
        live: &Arc<Live>,
        open: impl FnOnce() -> Result<T, RunError>,
    ) -> Result<T, RunError> {
        let mut state = self.0.lock();
        if state.is_asked {
            return Err(RunError::Interrupted);
        }
        state.opening = Some(Arc::clone(live));
        drop(state);
        let opened = open();
        let mut state = self.0.lock();
        state.opening = None;
        if state.is_asked { Err(RunError::Interrupted) } else { opened }
    }

    /// Whether the run was asked to end.
    pub(crate) fn was_asked(&self) -> bool {
        self.0.lock().is_asked
    }

    /// Waits until the run is asked to end, or has ended; answers whether it was asked.
    pub(crate) fn wait(&self) -> bool {
        let mut state = self.0.lock();
        while !state.is_asked && !state.is_over {
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.is_asked && !state.is_over
    }

    /// The run has ended: whoever waits for the question need not wait any more.
    pub(crate) fn over(&self) {
        self.0.lock().is_over = true;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::Interrupt;
    use crate::error::RunError;

    #[test]
    fn a_run_that_is_being_opened_ends() {
        let (interrupt, live) = (Interrupt::default(), Arc::default());
        let listening = interrupt.listen();
        let opened = std::thread::scope(|threads| {
            listening.while_opening(&live, || {
                threads.spawn(|| assert!(interrupt.ask()));
                assert!(!live.pause(Duration::from_secs(600)), "ended at once");
                Ok(())
            })
        });
        assert!(matches!(opened, Err(RunError::Interrupted)));
        let again = listening.while_opening(&live, || unreachable!("it is not begun"));
        assert!(matches!(again, Err::<(), _>(RunError::Interrupted)));
    }

    #[test]
    fn only_runs_under_way_hear_it() {
        let interrupt = Interrupt::default();
        let (first, second) = (interrupt.listen(), interrupt.listen());
        std::thread::scope(|threads| {
            let waiting = [&first, &second].map(|listening| threads.spawn(|| listening.wait()));
            assert!(interrupt.ask());
            assert!(waiting.into_iter().all(|waiting| waiting.join().expect("join")));
        });
        drop((first, second));
        assert!(!interrupt.ask());
        let later = interrupt.listen();
        assert!(later.while_opening(&Arc::default(), || Ok(())).is_ok(), "it was asked before it began");
    }

    #[test]
    fn the_end_of_a_run_ends_the_wait() {
        let listening = Interrupt::default().listen();
        std::thread::scope(|threads| {
            let waiting = threads.spawn(|| listening.wait());
            listening.over();
            assert!(!waiting.join().expect("join"));
        });
    }
}
