//! Which range is fetched next, and by whom.
//!
//! One queue for all connections. A file stays at its head until its last range is taken, so that all
//! connections work on it together. A connection keeps several wants in flight, but never more than
//! its share of all that is left (`share.rs`): so none sits idle at the end while another has a queue.
//! Towards the end large files are cut finer than their chunks, for the same reason. What a broken
//! connection owed goes back to the front.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fastcp_model::ByteRange;

use crate::job::{Arrival, FileJob};
use crate::want::Want;

mod state;

use state::State;

/// The most files that wait; the planner pauses there.
pub(crate) const QUEUED_FILES_MAX: usize = 16_384;
/// The most files that wait with a part file that is open.
const PREPARED_MAX: usize = 64;

/// How a connection came to its turn to work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    AtOnce,
    AfterRest,
}

/// What to do next.
#[derive(Debug)]
pub(crate) enum Next {
    /// Ask for what was added to the wants: several at a time where they can be asked for as one.
    Wants,
    /// Ask for nothing more until some answers are in.
    Enough,
    /// This connection is not needed for now.
    Rest,
    /// Everything is done, or the run was stopped.
    Done,
}

#[derive(Debug)]
pub(crate) struct Schedule {
    state: Mutex<State>,
    /// Connections wait here.
    work: Condvar,
    /// The planner waits here.
    room: Condvar,
    cut: Cut,
    bundling: Bundling,
    files_max: usize,
}

impl Schedule {
    /// A schedule for this many connections to begin with. With `held_back`, nothing is handed out
    /// before [`Schedule::close`], and the queue has no bound.
    pub(crate) fn new(active: u16, held_back: HoldBack, cut: Cut, bundling: Bundling) -> Self {
        let held_back = held_back == HoldBack::UntilClosed;
        Self {
            state: Mutex::new(State { held_back, active: active.into(), ..State::default() }),
            work: Condvar::new(),
            room: Condvar::new(),
            cut,
            bundling,
            files_max: if held_back { usize::MAX } else { QUEUED_FILES_MAX },
        }
    }

    /// Adds files, waiting while there are too many. `false` where the run was stopped meanwhile.
    pub(crate) fn add(&self, jobs: Vec<Arc<FileJob>>) -> bool {
        let mut state = self.wait_for_room();
        for job in jobs {
            state.add(job);
        }
        self.work.notify_all();
        !state.stopped
    }

    /// The offer has ended. Only files that are offered anew may still be added.
    pub(crate) fn release(&self) {
        self.lock().held_back = false;
        self.work.notify_all();
    }

    /// No more files will be added.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        (state.closed, state.held_back) = (true, false);
        self.work.notify_all();
    }

    /// The next file of which something may be here already; waits for one. `None` at the end.
    pub(crate) fn next_to_reuse(&self) -> Option<Arc<FileJob>> {
        let mut state = self.lock();
        loop {
            if state.is_finished() {
                return None;
            }
            if state.prepared < PREPARED_MAX
                && let Some(job) = state.to_reuse.pop_front()
            {
                return Some(job);
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// More such files, as long as `are_alike` says so of the next, without waiting.
    pub(crate) fn more_to_reuse(&self, mut are_alike: impl FnMut(&FileJob) -> bool) -> Option<Arc<FileJob>> {
        self.lock().to_reuse.pop_front_if(|job| are_alike(job))
    }

    /// What is here of a file has been found: the rest is to be fetched.
    pub(crate) fn reused(&self, job: &Arc<FileJob>) {
        let mut state = self.lock();
        state.in_flight -= 1;
        let (gaps, arrival) = job.end_search();
        state.fetch_lacking(job, gaps);
        if arrival == Arrival::Whole {
            state.urgent.extend(Want::confirmations(job));
        }
        self.tell_of_room(&mut state);
        self.work.notify_all();
    }

    /// These ranges of a file have not been found here; others are still being looked for. Waits while too much
    /// waits already.
    pub(crate) fn lacking(&self, job: &Arc<FileJob>, gaps: Vec<ByteRange>) {
        self.wait_for_room().fetch_lacking(job, gaps);
        self.work.notify_all();
    }

    /// The claims about a file have been checked, with these wants as the outcome.
    pub(crate) fn checked(&self, wants: Vec<Want>) {
        let mut state = self.lock();
        state.in_flight -= 1;
        state.cost_left = state.cost_left.saturating_add(wants.iter().map(Want::cost).sum());
        state.urgent.extend(wants);
        self.work.notify_all();
    }

    /// A file changed at the source since it was offered.
    pub(crate) fn moved(&self, job: Arc<FileJob>) {
        let mut state = self.lock();
        state.in_flight += 1;
        state.moved.push(job);
        self.work.notify_all();
    }

    /// Waits until nothing is left to do but files that changed, and hands those out, for
    /// [`Schedule::offered_anew`]. `None` where there are none.
    pub(crate) fn wait_for_moved(&self) -> Option<Vec<Arc<FileJob>>> {
        let mut state = self.lock();
        while !state.is_settled() && !state.stopped {
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        (!state.stopped && !state.moved.is_empty()).then(|| std::mem::take(&mut state.moved))
    }

    /// A file that had changed was offered anew, as `job`, or has failed for good.
    pub(crate) fn offered_anew(&self, job: Option<Arc<FileJob>>) {
        let mut state = self.lock();
        state.in_flight -= 1;
        if let Some(job) = job {
            state.add(job);
        }
        self.work.notify_all();
    }

    /// Ends the run: everybody is told that it is done.
    pub(crate) fn stop(&self) {
        self.lock().stopped = true;
        self.work.notify_all();
        self.room.notify_all();
    }

    /// Whether the run was stopped.
    pub(crate) fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    /// Whether a connection that is not there is no longer needed.
    pub(crate) fn is_finished(&self) -> bool {
        self.lock().is_finished()
    }

    /// Changes how many connections work.
    pub(crate) fn set_active(&self, active: u16) {
        self.lock().active = active.into();
        self.work.notify_all();
    }

    /// Waits until a connection is to work; `None` where there is nothing left to do.
    pub(crate) fn wait_for_turn(&self, connection: usize) -> Option<Turn> {
        let mut state = self.lock();
        let mut turn = Turn::AtOnce;
        while connection >= state.active && !state.is_finished() {
            turn = Turn::AfterRest;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        (!state.is_finished()).then_some(turn)
    }

    /// How many wants were answered so far.
    pub(crate) fn wants_done(&self) -> u64 {
        self.lock().wants_done
    }

    /// Waits for a while, or until the run is stopped.
    pub(crate) fn pause(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut state = self.lock();
        while !state.stopped {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.work.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for a while, or until all is done; answers how many wants were answered so far, or `None` at
    /// the end.
    pub(crate) fn watch(&self, wait: Duration) -> Option<u64> {
        let until = Instant::now() + wait;
        let mut state = self.lock();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if state.is_finished() || left.is_zero() {
                return (!state.is_finished()).then_some(state.wants_done);
            }
            state = self.work.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Adds the next wants for a connection to `wants`; with none in flight it waits for one.
    pub(crate) fn next(&self, held: &Held, wants: &mut Vec<Want>) -> Next {
        let mut state = self.lock();
        state.shares.set(held.connection, held.rate);
        loop {
            if state.stopped {
                return Next::Done;
            }
            if held.connection >= state.active && !state.is_finished() {
                return if held.wants > 0 { Next::Enough } else { Next::Rest };
            }
            let share = state.shares.of(held.connection, state.cost_left);
            if held.wants > 0 && held.cost >= share {
                return Next::Enough;
            }
            let prepared = state.prepared;
            let taken = state.take(self.cut, share);
            if prepared >= PREPARED_MAX && state.prepared < PREPARED_MAX {
                self.work.notify_all();
            }
            // Also where nothing was taken: files that had failed have made room.
            self.tell_of_room(&mut state);
            if let Some(want) = taken {
                let before = wants.len();
                wants.push(want);
                if self.bundling == Bundling::Yes {
                    state.take_bundle(wants, share.saturating_sub(held.cost));
                }
                state.in_flight += wants.len() - before;
                return Next::Wants;
            }
            if held.wants > 0 {
                return Next::Enough;
            }
            if state.is_finished() {
                return Next::Done;
            }
            if state.is_settled() {
                // Files that had failed were all that was left: whoever waits for the end must learn of it.
                self.work.notify_all();
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A want was answered, for better or worse, and led to `more` wants.
    pub(crate) fn done(&self, want: &Want, more: Vec<Want>) {
        let mut state = self.lock();
        state.in_flight -= 1;
        state.cost_left = state.cost_left.saturating_sub(want.cost());
        state.wants_done += 1;
        state.cost_left = state.cost_left.saturating_add(more.iter().map(Want::cost).sum());
        let news = !more.is_empty() || state.is_settled();
        state.urgent.extend(more);
        if news {
            self.work.notify_all();
        }
    }

    /// A connection ends. Others will fetch the wants that it owed.
    pub(crate) fn give_back(&self, connection: usize, wants: impl DoubleEndedIterator<Item = Want>) {
        let mut state = self.lock();
        state.shares.set(connection, 0);
        for want in wants.rev() {
            state.in_flight -= 1;
            state.urgent.push_front(want);
        }
        self.work.notify_all();
    }

    /// Every call of notify is a system call, waiter or not. The planner comes back to some room, not to a single
    /// place.
    fn tell_of_room(&self, state: &mut State) {
        if state.planner_waits && state.queued() < self.files_max - self.files_max / 8 {
            state.planner_waits = false;
            self.room.notify_all();
        }
    }

    /// Waits while too many files wait already, unless the run was stopped.
    fn wait_for_room(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        while state.queued() >= self.files_max && !state.stopped {
            state.planner_waits = true;
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether fetching waits for the last offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HoldBack {
    /// Fetching starts with the first offer.
    No,
    /// Fetching starts after the last one.
    UntilClosed,
}

/// Where a large file may be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// So finely that connections finish together.
    Evenly,
    /// At its chunks.
    AtChunks,
}

/// Whether small files of one directory are handed out together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bundling {
    Yes,
    No,
}

/// What a connection has in flight, and how fast it gets it.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Held {
    pub(crate) connection: usize,
    pub(crate) wants: usize,
    pub(crate) cost: u64,
    /// Cost for each second.
    pub(crate) rate: u64,
}

impl Held {
    pub(crate) fn add(&mut self, want: &Want) {
        self.wants += 1;
        self.cost += want.cost();
    }

    pub(crate) fn remove(&mut self, want: &Want) {
        self.wants -= 1;
        self.cost -= want.cost();
    }
}

#[cfg(test)]
mod tests;
