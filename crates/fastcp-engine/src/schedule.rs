//! Which range is fetched next, and by whom.
//!
//! One queue for all connections. A file stays at its head until its last range is taken, so that all
//! connections work on it together. A connection keeps several wants in flight, but never more than
//! its share of all that is left (`share.rs`): so none sits idle at the end while another has a queue.
//! Towards the end large files are cut finer than their chunks, for the same reason. What a broken
//! connection owed goes back to the front.
//!
//! # Who may wait for whom
//!
//! | waits | for | which is brought about by |
//! |---|---|---|
//! | a connection that owes nothing | wants | the planner, the reuse thread, other connections |
//! | a connection that rests | its turn | the tuner |
//! | the planner | room in the queue | connections, the reuse thread |
//! | the reuse thread | files to search | the planner |
//! | the reuse thread | fewer files that it has prepared | connections |
//! | the planner, when the offer has ended | nothing left but changed files | connections, the reuse thread |
//! | a connection, the reuse thread | a part file that another of them is making (`job.rs`) | that one: it waits only for a descriptor, and not for ever |
//! | a connection with a complete file | room in its group (`group/gathering.rs`) | the committing thread |
//! | the committing thread | complete files | connections |
//! | tuner, pauses | time, or the end | whoever ends the run |
//!
//! Nobody waits for what only he can bring about: the planner waits only while files are queued, connections only
//! while none are, the reuse thread never for the queue as a whole, and the committing thread for nobody when it has
//! work. A file's own lock is taken under the schedule's ([`Rank`] has the order of all of them), and no file is touched
//! under either. Each has news of its own ([`News`]) and is woken by nothing else; the end of the run is news to all.
//!
//! May import: target, content.
//! Never makes a call about a socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fastcp_model::ByteRange;

use crate::lock::{Guard, Lock, Rank};
use crate::schedule::job::{Arrival, FileJob};
use crate::schedule::want::Want;

pub(crate) mod answered;
pub(crate) mod job;
mod news;
pub(crate) mod share;
mod state;
pub(crate) mod stop_watch;
mod terms;
pub(crate) mod tune;
pub(crate) mod want;

use news::AllNews;
use state::{Asking, State};
pub(crate) use terms::{Bounds, Bundling, Cut, Held, HoldBack, Next, Turn};

#[derive(Debug)]
pub(crate) struct Schedule {
    state: Lock<State>,
    /// The number of the source that leads, of several: it alone confirms. Changed under the lock.
    lead: AtomicUsize,
    news: AllNews,
    cut: Cut,
    bundling: Bundling,
    bounds: Bounds,
}

/// What whoever watches sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Watched {
    /// How many wants were answered so far.
    pub(crate) wants_done: u64,
    /// The cost of what is to come yet; `None` while old versions are looked through, for nobody knows what that leaves.
    pub(crate) left: Option<u64>,
}

impl Schedule {
    /// A schedule for this many connections to begin with. With `held_back`, nothing is handed out
    /// before [`Schedule::close`], and the queue has no bound.
    pub(crate) fn new(active: u16, held_back: HoldBack, cut: Cut, bundling: Bundling, bounds: Bounds) -> Self {
        let held_back = held_back == HoldBack::UntilClosed;
        let queued_max = if held_back { usize::MAX } else { bounds.queued_max };
        Self {
            state: Lock::new(Rank::Schedule, State { held_back, active: active.into(), ..State::default() }),
            lead: AtomicUsize::new(0),
            news: AllNews::default(),
            cut,
            bundling,
            bounds: Bounds { queued_max, ..bounds },
        }
    }

    /// Adds files, waiting while there are too many. `false` where the run was stopped meanwhile.
    pub(crate) fn add(&self, jobs: Vec<Arc<FileJob>>) -> bool {
        let mut state = self.lock();
        while !jobs.is_empty() && state.queued() >= self.bounds.queued_max && !state.stopped {
            state = self.state.wait(&self.news.room, state);
        }
        for job in jobs {
            state.add(job);
        }
        self.tell_of_files(&state);
        !state.stopped
    }

    /// The offer has ended. Only files that are offered anew may still be added.
    pub(crate) fn release(&self) {
        let mut state = self.lock();
        state.held_back = false;
        self.tell_of_files(&state);
    }

    /// No more files will be added.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        (state.closed, state.held_back) = (true, false);
        self.news.tell_everybody();
    }

    /// The next file of which something may be here already; waits for one. `None` at the end.
    pub(crate) fn next_to_reuse(&self) -> Option<Arc<FileJob>> {
        let mut state = self.lock();
        loop {
            if state.is_finished() {
                return None;
            }
            if state.prepared < self.bounds.prepared_max
                && let Some(job) = self.pop_to_reuse(&mut state, |_| true)
            {
                return Some(job);
            }
            state = self.state.wait(&self.news.reuse, state);
        }
    }

    /// More such files, as long as `are_alike` says so of the next, without waiting.
    pub(crate) fn more_to_reuse(&self, are_alike: impl FnMut(&FileJob) -> bool) -> Option<Arc<FileJob>> {
        self.pop_to_reuse(&mut self.lock(), are_alike)
    }

    fn pop_to_reuse(&self, state: &mut State, mut are_alike: impl FnMut(&FileJob) -> bool) -> Option<Arc<FileJob>> {
        let job = state.to_reuse.pop_front_if(|job| are_alike(job));
        self.tell_of_room(state);
        job
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
        self.tell_of_wants(&state);
        self.tell_if_settled(&state);
    }

    /// These ranges of a file have not been found here; others are still being looked for. Waits while too much of
    /// what was prepared has not been asked for: that is up to connections alone.
    pub(crate) fn lacking(&self, job: &Arc<FileJob>, gaps: Vec<ByteRange>) {
        let mut state = self.lock();
        while state.prepared >= self.bounds.prepared_max && !state.stopped {
            state = self.state.wait(&self.news.reuse, state);
        }
        state.fetch_lacking(job, gaps);
        self.tell_of_wants(&state);
    }

    /// The claims about a file have been checked: these ranges are to be fetched after all, and these wants came of it.
    pub(crate) fn checked(&self, job: &Arc<FileJob>, lacking: Vec<ByteRange>, wants: Vec<Want>) {
        let mut state = self.lock();
        state.in_flight -= 1;
        state.cost_left = state.cost_left.saturating_add(wants.iter().map(Want::cost).sum());
        state.urgent.extend(wants);
        state.fetch(job, lacking);
        self.tell_of_wants(&state);
        self.tell_if_settled(&state);
    }

    /// A file changed at the source since it was offered. Somebody has it in hand still.
    pub(crate) fn moved(&self, job: Arc<FileJob>) {
        let mut state = self.lock();
        state.in_flight += 1;
        state.moved.push(job);
    }

    /// Waits until nothing is left to do but files that changed, and hands those out, for
    /// [`Schedule::offered_anew`]. `None` where there are none.
    pub(crate) fn wait_for_moved(&self) -> Option<Vec<Arc<FileJob>>> {
        let mut state = self.lock();
        while !state.is_settled() && !state.stopped {
            state = self.state.wait(&self.news.settled, state);
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
        self.tell_of_files(&state);
    }

    /// Ends the run: everybody is told that it is done.
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        self.news.tell_everybody();
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
        let mut state = self.lock();
        state.active = active.into();
        self.news.turn.tell_all();
        // Those that wait for wants may be among those who are to rest now.
        self.news.work.tell_all();
    }

    /// Waits until a connection is to work; `None` where there is nothing left to do.
    pub(crate) fn wait_for_turn(&self, connection: usize) -> Option<Turn> {
        let mut state = self.lock();
        let mut turn = Turn::AtOnce;
        while connection >= state.active && !state.is_finished() {
            turn = Turn::AfterRest;
            state = self.state.wait(&self.news.turn, state);
        }
        (!state.is_finished()).then_some(turn)
    }

    /// Waits for a while, or until the run is stopped.
    pub(crate) fn pause(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut state = self.lock();
        while !state.stopped && Instant::now() < until {
            state = self.state.wait_at_most(&self.news.end, state, Some(until));
        }
    }

    /// Waits for a while, or until all is done; `None` at the end.
    pub(crate) fn watch(&self, wait: Duration) -> Option<Watched> {
        let until = Instant::now() + wait;
        let mut state = self.lock();
        while !state.is_finished() && Instant::now() < until {
            state = self.state.wait_at_most(&self.news.end, state, Some(until));
        }
        let left = state.to_reuse.is_empty().then_some(state.cost_left);
        (!state.is_finished()).then_some(Watched { wants_done: state.wants_done, left })
    }

    /// As [`Schedule::next_until`], without an end.
    #[cfg(test)]
    pub(crate) fn next(&self, held: &Held, wants: &mut Vec<Want>) -> Next {
        self.next_until(held, wants, None)
    }

    /// Adds the next wants for a connection to `wants`; with none in flight it waits for one, and no longer than until
    /// the time given: [`Next::Enough`].
    pub(crate) fn next_until(&self, held: &Held, wants: &mut Vec<Want>, until: Option<Instant>) -> Next {
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
            if self.take(&mut state, held, share, wants) {
                return Next::Wants;
            }
            if held.wants > 0 {
                return Next::Enough;
            }
            if state.is_finished() {
                return Next::Done;
            }
            if state.lacks_lead(self.asking(held)) {
                return Next::Lead;
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                return Next::Enough;
            }
            state = self.state.wait_at_most(&self.news.work, state, until);
        }
    }

    /// Hands out what comes next, and tells those who have waited for it to go.
    fn take(&self, state: &mut State, held: &Held, share: u64, wants: &mut Vec<Want>) -> bool {
        let (before, prepared) = (wants.len(), state.prepared);
        if let Some(want) = state.take(self.cut, share, self.asking(held)) {
            wants.push(want);
            if self.bundling == Bundling::Yes {
                state.take_bundle(wants, share.saturating_sub(held.cost), self.asking(held));
            }
            state.in_flight += wants.len() - before;
        }
        // Also where nothing was taken: files that had failed are gone.
        self.tell_of_taken(state, prepared);
        self.tell_if_settled(state);
        wants.len() > before
    }

    /// The sender says that a file has a hole there, and one of its wants is in hand. What has not been handed out of
    /// it is the caller's, who brings it about before that want is done.
    pub(crate) fn take_hole(&self, job: &Arc<FileJob>, hole: ByteRange) -> Vec<ByteRange> {
        let mut state = self.lock();
        let prepared = state.prepared;
        let taken = state.take_hole(job, hole);
        self.tell_of_taken(&state, prepared);
        taken
    }

    /// A want was answered, for better or worse, and led to `more` wants.
    pub(crate) fn done(&self, want: &Want, more: Vec<Want>) {
        let mut state = self.lock();
        state.in_flight -= 1;
        state.cost_left = state.cost_left.saturating_sub(want.cost());
        state.wants_done += 1;
        state.cost_left = state.cost_left.saturating_add(more.iter().map(Want::cost).sum());
        if state.has_others {
            // Not everybody may take them.
            self.news.work.tell_all();
        } else {
            self.news.work.tell(more.len());
        }
        state.urgent.extend(more);
        self.tell_if_settled(&state);
    }

    /// This one of several sources leads.
    pub(crate) fn set_lead(&self, source: usize) {
        if !self.is_lead(source) {
            let mut state = self.lock();
            self.lead.store(source, Ordering::Relaxed);
            state.has_others = true;
            self.news.work.tell_all();
        }
    }

    /// Whether this one of several sources leads.
    pub(crate) fn is_lead(&self, source: usize) -> bool {
        self.lead.load(Ordering::Relaxed) == source
    }

    fn asking(&self, held: &Held) -> Asking {
        Asking { source: held.source, lead: self.lead.load(Ordering::Relaxed) }
    }

    /// A connection to this source begins to work.
    pub(crate) fn joined(&self, source: usize) {
        let mut state = self.lock();
        let count = state.connections.len().max(source + 1);
        state.connections.resize(count, 0);
        state.connections[source] += 1;
        state.has_others |= !self.is_lead(source);
    }

    /// Such a connection has ended.
    pub(crate) fn left(&self, source: usize) {
        let mut state = self.lock();
        state.connections[source] -= 1;
        if state.has_others && state.is_away(self.lead.load(Ordering::Relaxed)) {
            // One of those that wait has to be made anew, to the source that leads.
            self.news.work.tell_all();
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
        self.tell_of_wants(&state);
    }

    fn lock(&self) -> Guard<'_, State> {
        self.state.lock()
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
