//! Long reads for checksums: a few at a time, and each for all who ask for the same.
//!
//! Asking for the CRC-32 of a terabyte costs nothing, and computing it costs minutes. So a long sum is computed in steps.
//! For each step whoever computes it waits for a turn, in the order of coming. Of those who want the same step of a file in the
//! same state one computes it, and the others find it remembered (`served.rs`).
//!
//! Who may wait for whom: for a turn, for those who have one; for a step, for the one that computes it. Whoever has
//! a turn waits for the disk alone, never for a peer (`answer/pulse.rs`), a lock, or another turn. Short sums take no turn.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastcp_net::{Bound, Bounds};
use fastcp_sys::Identity;

use crate::lock::{Guard, Lock, News};
use crate::settings::SUMS_MAX;

/// How often whoever waits looks whether anybody still wants what he waits for.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A step: the file in its state, and where the step begins.
pub(crate) type Step = (Identity, u64);

/// Who computes, and who waits.
#[derive(Debug)]
pub(crate) struct Sums {
    turns_max: usize,
    bounds: Arc<Bounds>,
    state: Lock<State>,
}

#[derive(Debug, Default)]
struct State {
    taken: usize,
    waiting: VecDeque<Arc<News>>,
    /// Steps being computed, each with the news of its end.
    steps: HashMap<Step, Arc<News>>,
}

/// What is to be done about a step.
#[derive(Debug)]
pub(crate) enum Begun<'a> {
    /// To compute it.
    Turn(Turn<'a>),
    /// To look again: somebody else has computed it.
    ByAnother,
}

/// The right to compute a step; given back when dropped.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    sums: &'a Sums,
    _computing: Computing<'a>,
}

/// A step that others wait for; they look again when it is dropped.
#[derive(Debug)]
struct Computing<'a> {
    sums: &'a Sums,
    step: Option<Step>,
}

/// A place among those who wait for a turn; given up when dropped.
struct Place<'a> {
    sums: &'a Sums,
    news: Arc<News>,
}

impl Default for Sums {
    fn default() -> Self {
        Self::new(SUMS_MAX, Arc::default())
    }
}

impl Sums {
    /// So many turns at a time; those who have to wait for one are counted.
    pub(crate) fn new(turns_max: usize, bounds: Arc<Bounds>) -> Self {
        Self { turns_max: turns_max.max(1), bounds, state: Lock::default() }
    }

    /// Waits for a turn, or for somebody else to compute the same step, where there is one that others may use.
    ///
    /// # Errors
    /// That of `wanted`, which is asked now and then.
    pub(crate) fn begin(
        &self,
        step: Option<Step>,
        wanted: &mut dyn FnMut() -> io::Result<()>,
    ) -> io::Result<Begun<'_>> {
        let mut state = self.state.lock();
        if let Some(step) = step {
            if let Some(end) = state.steps.get(&step).map(Arc::clone) {
                while state.steps.get(&step).is_some_and(|now| Arc::ptr_eq(now, &end)) {
                    state = self.wait(&end, state, wanted)?;
                }
                return Ok(Begun::ByAnother);
            }
            state.steps.insert(step, Arc::default());
        }
        let computing = Computing { sums: self, step };
        if state.taken < self.turns_max && state.waiting.is_empty() {
            state.taken += 1;
            drop(state);
            return Ok(Begun::Turn(Turn { sums: self, _computing: computing }));
        }
        let place = Place { sums: self, news: Arc::default() };
        state.waiting.push_back(Arc::clone(&place.news));
        drop(state);
        self.bounds.hit(Bound::Sums, None);
        state = self.state.lock();
        while state.taken >= self.turns_max || !state.is_next(&place.news) {
            state = self.wait(&place.news, state, wanted)?;
        }
        state.taken += 1;
        drop(state);
        Ok(Begun::Turn(Turn { sums: self, _computing: computing }))
    }

    /// Waits for news, or for a while, and asks whether it is still wanted without the lock.
    fn wait<'a>(
        &'a self,
        news: &News,
        state: Guard<'a, State>,
        wanted: &mut dyn FnMut() -> io::Result<()>,
    ) -> io::Result<Guard<'a, State>> {
        drop(self.state.wait_at_most(news, state, Some(Instant::now() + LOOK_EVERY)));
        wanted()?;
        Ok(self.state.lock())
    }
}

impl State {
    fn is_next(&self, news: &Arc<News>) -> bool {
        self.waiting.front().is_some_and(|first| Arc::ptr_eq(first, news))
    }

    fn tell_next(&self, turns_max: usize) {
        if self.taken < turns_max
            && let Some(next) = self.waiting.front()
        {
            next.tell_all();
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.sums.state.lock();
        state.taken -= 1;
        state.tell_next(self.sums.turns_max);
    }
}

impl Drop for Computing<'_> {
    fn drop(&mut self) {
        let Some(step) = self.step else { return };
        let mut state = self.sums.state.lock();
        if let Some(end) = state.steps.remove(&step) {
            end.tell_all();
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.sums.state.lock();
        state.waiting.retain(|waiting| !Arc::ptr_eq(waiting, &self.news));
        state.tell_next(self.sums.turns_max);
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;

    use fastcp_model::Timestamp;
    use fastcp_net::{Bound, Bounds};
    use fastcp_sys::Identity;

    use super::{Begun, Step, Sums};

    fn step(inode: u64) -> Option<Step> {
        let (mtime, ctime) = (Timestamp::default(), Timestamp::default());
        Some((Identity { device: 1, inode, size_bytes: 1, mtime, ctime }, 0))
    }

    fn wanted() -> io::Result<()> {
        Ok(())
    }

    fn is_gone() -> io::Result<()> {
        Err(io::ErrorKind::ConnectionAborted.into())
    }

    fn turn<'a>(sums: &'a Sums, step: Option<Step>) -> super::Turn<'a> {
        match sums.begin(step, &mut wanted).expect("wanted") {
            Begun::Turn(turn) => turn,
            Begun::ByAnother => panic!("nobody else does it"),
        }
    }

    #[test]
    fn a_step_is_computed_by_one_and_awaited_by_the_others() {
        let sums = Sums::default();
        let (asked, heard) = channel();
        let first = turn(&sums, step(1));
        std::thread::scope(|threads| {
            let others = [(); 9].map(|()| {
                let (sums, asked) = (&sums, asked.clone());
                threads.spawn(move || {
                    let mut wanted = || asked.send(()).map_err(io::Error::other);
                    matches!(sums.begin(step(1), &mut wanted).expect("wanted"), Begun::ByAnother)
                })
            });
            (0..9).for_each(|_| heard.recv().expect("each waits"));
            drop(turn(&sums, step(2)));
            drop(first);
            assert!(others.into_iter().all(|other| other.join().expect("join")));
        });
        drop(turn(&sums, step(1)));
    }

    #[test]
    fn few_have_a_turn_and_who_hangs_up_loses_his_place() {
        let bounds = Arc::<Bounds>::default();
        let sums = Sums::new(1, Arc::clone(&bounds));
        let first = turn(&sums, step(1));
        assert!(sums.begin(step(2), &mut is_gone).is_err());
        assert!(sums.begin(step(1), &mut is_gone).is_err());
        let at_once = AtomicUsize::new(0);
        std::thread::scope(|threads| {
            for nth in 2..20 {
                let (sums, at_once) = (&sums, &at_once);
                threads.spawn(move || {
                    let turn = turn(sums, step(nth));
                    assert_eq!(at_once.fetch_add(1, Ordering::AcqRel), 0);
                    at_once.fetch_sub(1, Ordering::AcqRel);
                    drop(turn);
                });
            }
            drop(first);
        });
        let state = sums.state.lock();
        assert_eq!((state.taken, state.waiting.len(), state.steps.len()), (0, 0, 0));
        assert!(bounds.count(Bound::Sums) >= 1);
    }
}
