//! Which range is fetched next, and by whom.
//!
//! One queue for all connections. A file stays at its head until its last range is taken, so that all
//! connections work on it together. A connection keeps several wants in flight, but never more than
//! its share of all that is left (`share.rs`): so none sits idle at the end while another has a queue.
//! Towards the end large files are cut finer than their chunks, for the same reason. What a broken
//! connection owed goes back to the front.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fastcp_model::ByteRange;
use fastcp_wire::bundle::BundleRequest;
use fastcp_wire::limits::BUNDLE_LIST_BYTES_MAX;

use crate::job::{FileJob, Start};
use crate::share::Shares;
use crate::want::{Purpose, WANT_COST, Want, cut_short, gap_cost, next_range};

/// The most files that wait; the planner pauses there.
pub(crate) const QUEUED_FILES_MAX: usize = 16_384;
/// Files up to this size are bundled.
const BUNDLED_FILE_BYTES_MAX: u64 = 64 << 10;
/// The most files of one bundle, and the most bytes: enough to spare calls and to compress well, little
/// enough that the bytes are still in cache when they are written.
const BUNDLE_FILES: usize = 64;
const BUNDLE_BYTES: u64 = 192 << 10;
/// The most files that wait with a part file that is open.
const PREPARED_MAX: usize = 64;
/// In how many wants a connection takes its share, at least.
const WANTS_IN_SHARE: u64 = 4;

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

#[derive(Debug, Default)]
struct State {
    /// Wants that exist already: those handed back, and confirmations.
    urgent: VecDeque<Want>,
    files: VecDeque<Queued>,
    /// Files of which something may be here already.
    to_reuse: VecDeque<Arc<FileJob>>,
    /// How many of `files` have been looked at for that: each holds its part file open.
    prepared: usize,
    /// Files that changed at the source, to be offered anew.
    moved: Vec<Arc<FileJob>>,
    cost_left: u64,
    wants_done: u64,
    /// Wants that are being answered, and files that somebody has in hand: more wants may come of them.
    in_flight: usize,
    /// Connections below this number work; the others rest.
    active: usize,
    shares: Shares,
    held_back: bool,
    planner_waits: bool,
    closed: bool,
    stopped: bool,
}

#[derive(Debug)]
struct Queued {
    job: Arc<FileJob>,
    /// What of the file is being handed out, and from where on.
    gap: ByteRange,
    next_offset: u64,
    /// What comes after it.
    gaps: std::vec::IntoIter<ByteRange>,
    /// What was reckoned for it and not handed out yet.
    cost_left: u64,
}

impl Queued {
    /// `None` where nothing is missing of the file.
    fn new(job: Arc<FileJob>) -> Option<Self> {
        let gaps = job.gaps();
        let cost_left = gaps.iter().fold(0, |cost: u64, gap| cost.saturating_add(gap_cost(&job, *gap)));
        let mut gaps = gaps.into_iter();
        let gap = gaps.next()?;
        Some(Self { job, gap, next_offset: gap.start(), gaps, cost_left })
    }

    /// Everything before `offset` has been handed out. `false` where that was all.
    fn advance(&mut self, offset: u64) -> bool {
        self.next_offset = offset;
        if offset >= self.gap.end() {
            let Some(gap) = self.gaps.next() else { return false };
            (self.gap, self.next_offset) = (gap, gap.start());
        }
        true
    }
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
        let mut state = self.lock();
        while state.queued() >= self.files_max && !state.stopped {
            state.planner_waits = true;
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
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
        let before = state.files.len();
        state.add_gaps(Arc::clone(job));
        state.prepared += state.files.len() - before;
        self.tell_of_room(&mut state);
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
            self.room.notify_one();
        }
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

impl State {
    /// How many files wait.
    fn queued(&self) -> usize {
        self.files.len() + self.to_reuse.len()
    }

    /// Takes a file on.
    fn add(&mut self, job: Arc<FileJob>) {
        let is_basis = job.start() == Start::Basis;
        if is_basis || job.is_doubtful() {
            self.in_flight += 1;
            self.to_reuse.push_back(Arc::clone(&job));
        }
        if !is_basis {
            self.add_gaps(job);
        }
    }

    /// What is missing of a file is to be fetched; where nothing is, it is to be confirmed.
    fn add_gaps(&mut self, job: Arc<FileJob>) {
        match Queued::new(Arc::clone(&job)) {
            Some(queued) => {
                self.cost_left = self.cost_left.saturating_add(queued.cost_left);
                self.files.push_back(queued);
            }
            None if job.is_whole() => self.urgent.extend(Want::confirmations(&job)),
            None => {}
        }
    }

    /// Whether nothing is in hand but files that changed at the source.
    fn is_settled(&self) -> bool {
        let is_idle = self.urgent.is_empty() && self.files.is_empty() && self.to_reuse.is_empty();
        is_idle && self.in_flight == self.moved.len()
    }

    /// After a small file that was just taken, those of its directory that come next.
    fn take_bundle(&mut self, wants: &mut Vec<Want>, cost_max: u64) {
        let Some(first) = wants.last().filter(|want| want.is_whole_file() && want.attempt == 0) else { return };
        let dir = Arc::clone(&first.job.dir);
        let (mut bytes, mut cost) = (first.range.len(), first.cost());
        let mut list_bytes = BundleRequest::listed_bytes(first.job.name.as_bytes());
        if !is_bundled(bytes) || first.purpose != Purpose::Fetch {
            return;
        }
        for _ in 1..BUNDLE_FILES {
            let Some(next) = self.files.front() else { return };
            let file_bytes = next.job.grid.file_bytes();
            bytes += file_bytes;
            cost += file_bytes + WANT_COST;
            list_bytes += BundleRequest::listed_bytes(next.job.name.as_bytes());
            let fits = bytes <= BUNDLE_BYTES && cost <= cost_max && list_bytes <= BUNDLE_LIST_BYTES_MAX;
            let is_untouched = next.next_offset == 0 && next.job.start() == Start::Afresh;
            if !fits || !is_bundled(file_bytes) || !is_untouched || !Arc::ptr_eq(&next.job.dir, &dir) {
                return;
            }
            let Some(queued) = self.files.pop_front() else { return };
            let range = ByteRange::new(0, file_bytes).expect("within the grid's file");
            let want = Want::fetch(queued.job, range);
            self.cost_left = self.cost_left.saturating_sub(queued.cost_left.saturating_sub(want.cost()));
            wants.push(want);
        }
    }

    fn is_finished(&self) -> bool {
        self.stopped || (self.closed && self.is_settled())
    }

    /// The next want, for a connection that has this share of what is left.
    fn take(&mut self, cut: Cut, share: u64) -> Option<Want> {
        if let Some(want) = self.urgent.pop_front() {
            return Some(want);
        }
        if self.held_back {
            return None;
        }
        while let Some(failed) = self.files.pop_front_if(|queued| queued.job.has_failed()) {
            self.cost_left = self.cost_left.saturating_sub(failed.cost_left);
            self.prepared -= usize::from(failed.job.start() == Start::Basis);
        }
        let queued = self.files.front_mut()?;
        let whole = next_range(&queued.job, queued.next_offset, queued.gap);
        let range = match cut {
            Cut::Evenly if queued.job.grid.chunk_count() > 1 => cut_short(whole, share / WANTS_IN_SHARE),
            Cut::Evenly | Cut::AtChunks => whole,
        };
        let want = Want::fetch(Arc::clone(&queued.job), range);
        // In how many wants a file is fetched shows only now.
        let reckoned = queued.cost_left;
        queued.cost_left = reckoned.saturating_sub(want.cost());
        let mut unused = 0;
        if !queued.advance(range.end()) {
            unused = queued.cost_left;
            self.prepared -= usize::from(want.job.start() == Start::Basis);
            self.files.pop_front();
        }
        let missing = want.cost().saturating_sub(reckoned);
        self.cost_left = self.cost_left.saturating_add(missing).saturating_sub(unused);
        Some(want)
    }
}

/// Whether a file may be part of a bundle.
fn is_bundled(file_bytes: u64) -> bool {
    file_bytes <= BUNDLED_FILE_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fastcp_model::{ChunkGrid, Metadata, Name, RelPath, Timestamp};

    use super::{BUNDLE_BYTES, BUNDLE_FILES, Bundling, Cut, Held, HoldBack, Next, PREPARED_MAX, Schedule, Turn};
    use crate::dirs::{Age, DirState};
    use crate::job::{Arrival, FileJob};
    use crate::want::{CUT_BYTES_MIN, Purpose, Want};

    fn job(file_bytes: u64, chunk_kb: u32) -> Arc<FileJob> {
        job_in(&DirState::new(RelPath::root(), Age::New, None, None), file_bytes, chunk_kb)
    }

    fn job_in(dir: &Arc<DirState>, file_bytes: u64, chunk_kb: u32) -> Arc<FileJob> {
        let metadata = Metadata { mode: 0o644, uid: 0, gid: 0, mtime: Timestamp::default() };
        let grid = ChunkGrid::new(file_bytes, chunk_kb).expect("lawful");
        Arc::new(FileJob::new(Arc::clone(dir), Name::new(b"file").expect("lawful"), metadata, grid, false, false))
    }

    fn with_basis(file_bytes: u64, chunk_kb: u32) -> Arc<FileJob> {
        let made = Arc::into_inner(job(file_bytes, chunk_kb)).expect("made just now");
        Arc::new(made.with_basis())
    }

    fn next(schedule: &Schedule, held: &Held) -> Option<Want> {
        let mut wants = Vec::new();
        let next = schedule.next(held, &mut wants);
        assert_eq!(matches!(next, Next::Wants), !wants.is_empty());
        assert!(wants.len() <= 1, "{wants:?}");
        wants.pop()
    }

    fn take(schedule: &Schedule) -> Want {
        next(schedule, &Held::default()).expect("a want")
    }

    #[test]
    fn wants_cover_each_file_once_and_the_cost_comes_out_even() {
        for (file_bytes, chunk_kb) in [(0, 4), (1, 4), (4096, 4), (20_000, 4), (30 << 20, 65_536), (23 << 20, 5000)] {
            let schedule = Schedule::new(1, HoldBack::No, Cut::AtChunks, Bundling::No);
            assert!(schedule.add(vec![job(file_bytes, chunk_kb)]));
            schedule.close();
            let mut end = 0;
            loop {
                let want = take(&schedule);
                assert_eq!((want.range.start(), want.purpose), (end, Purpose::Fetch));
                end = want.range.end();
                schedule.done(&want, Vec::new());
                if end == file_bytes {
                    break;
                }
            }
            assert!(matches!(schedule.next(&Held::default(), &mut Vec::new()), Next::Done));
            assert_eq!(schedule.lock().cost_left, 0, "{file_bytes} bytes in {chunk_kb} KiB");
        }
    }

    #[test]
    fn a_connection_holds_no_more_than_its_share() {
        let schedule = Schedule::new(4, HoldBack::No, Cut::AtChunks, Bundling::No);
        schedule.add((0..40).map(|_| job(1000, 4)).collect());
        schedule.close();
        for connection in 1..4 {
            schedule.lock().shares.set(connection, 100);
        }
        let mut held = Held { rate: 100, ..Held::default() };
        while let Some(want) = next(&schedule, &held) {
            held.add(&want);
        }
        assert_eq!(held.wants, 10);
    }

    #[test]
    fn what_a_broken_connection_owed_is_handed_out_again() {
        let schedule = Schedule::new(1, HoldBack::No, Cut::AtChunks, Bundling::No);
        schedule.add(vec![job(10_000, 4)]);
        schedule.close();
        let owed = take(&schedule);
        let other = take(&schedule);
        schedule.give_back(0, std::iter::once(owed.clone()));
        assert_eq!(take(&schedule).range, owed.range);
        schedule.done(&other, Vec::new());
        schedule.done(&owed, Vec::new());
        let last = take(&schedule);
        let confirm = Want { purpose: Purpose::Confirm, ..last.clone() };
        schedule.done(&last, vec![confirm]);
        let confirm = take(&schedule);
        assert_eq!(confirm.purpose, Purpose::Confirm);
        schedule.done(&confirm, Vec::new());
        assert!(matches!(schedule.next(&Held::default(), &mut Vec::new()), Next::Done));
    }

    #[test]
    fn towards_the_end_large_files_are_cut_finer() {
        let schedule = Schedule::new(2, HoldBack::No, Cut::Evenly, Bundling::No);
        schedule.add(vec![job(16 << 20, 1024)]);
        schedule.close();
        schedule.lock().shares.set(1, 100);
        let mut lengths = Vec::new();
        while let Some(want) = next(&schedule, &Held { rate: 100, ..Held::default() }) {
            lengths.push(want.range.len());
            schedule.done(&want, Vec::new());
        }
        assert_eq!(lengths.iter().sum::<u64>(), 16 << 20);
        assert_eq!((lengths[0], lengths.last()), (1 << 20, Some(&CUT_BYTES_MIN)));
        assert!(lengths[lengths.len() - 8..].iter().all(|&length| length <= 256 << 10), "{lengths:?}");
        assert_eq!(schedule.lock().cost_left, 0);
    }

    #[test]
    fn small_files_of_one_directory_are_handed_out_together() {
        let schedule = Schedule::new(1, HoldBack::No, Cut::Evenly, Bundling::Yes);
        let dir = DirState::new(RelPath::root(), Age::New, None, None);
        let mut sizes = vec![10_u64; 70];
        sizes.extend([60 << 10, 60 << 10, 60 << 10, 60 << 10, 65 << 10, 5]);
        schedule.add(sizes.iter().map(|&size| job_in(&dir, size, 1024)).collect());
        schedule.add(vec![job(5, 1024)]);
        schedule.close();
        let mut counts = Vec::new();
        let mut wants = Vec::new();
        while matches!(schedule.next(&Held { rate: 1, ..Held::default() }, &mut wants), Next::Wants) {
            assert!(wants.iter().map(|want| want.range.len()).sum::<u64>() <= BUNDLE_BYTES);
            counts.push(wants.len());
            for want in wants.drain(..) {
                schedule.done(&want, Vec::new());
            }
        }
        assert_eq!(counts, [BUNDLE_FILES, 9, 1, 1, 1, 1]);
        assert_eq!(schedule.lock().cost_left, 0);
    }

    /// Takes and answers everything as one connection of two.
    fn drain(schedule: &Schedule) {
        schedule.lock().shares.set(1, 100);
        let mut wants = Vec::new();
        while matches!(schedule.next(&Held { rate: 100, ..Held::default() }, &mut wants), Next::Wants) {
            for want in wants.drain(..) {
                schedule.done(&want, Vec::new());
            }
        }
    }

    #[test]
    fn the_cost_comes_out_even_however_files_are_cut_or_bundled() {
        let schedule = Schedule::new(2, HoldBack::No, Cut::Evenly, Bundling::Yes);
        let dir = DirState::new(RelPath::root(), Age::New, None, None);
        schedule.add((0..1000).map(|at| job_in(&dir, if at % 8 == 0 { 10 } else { 20 << 10 }, 4)).collect());
        schedule.add(vec![job(61 << 20, 6144), job((1 << 30) + 5, 5000), job(0, 4)]);
        schedule.close();
        drain(&schedule);
        assert_eq!(schedule.lock().cost_left, 0);
    }

    #[test]
    fn no_range_crosses_the_border_of_a_confirmed_segment() {
        for cut in [Cut::AtChunks, Cut::Evenly] {
            let schedule = Schedule::new(1, HoldBack::No, cut, Bundling::No);
            let large = job((1 << 30) + 4096, 5000);
            schedule.add(vec![Arc::clone(&large)]);
            schedule.close();
            let mut last = Arrival::Partial;
            while let Some(want) = next(&schedule, &Held { rate: 1, ..Held::default() }) {
                last = large.arrived(want.range, 0);
                schedule.done(&want, Vec::new());
            }
            assert_eq!(last, Arrival::Whole);
        }
    }

    #[test]
    fn sizes_beyond_all_measure_do_not_overflow() {
        let schedule = Schedule::new(1, HoldBack::No, Cut::Evenly, Bundling::Yes);
        schedule.add((0..3).map(|_| job(i64::MAX as u64, 4)).collect());
        assert!(!take(&schedule).range.is_empty());
    }

    #[test]
    fn a_connection_that_is_not_needed_rests() {
        let schedule = Schedule::new(1, HoldBack::No, Cut::AtChunks, Bundling::No);
        schedule.add(vec![job(10, 4), job(10, 4)]);
        let second = Held { connection: 1, ..Held::default() };
        assert!(matches!(schedule.next(&second, &mut Vec::new()), Next::Rest));
        schedule.set_active(2);
        assert_eq!(schedule.wait_for_turn(1), Some(Turn::AtOnce));
        assert!(matches!(schedule.next(&second, &mut Vec::new()), Next::Wants));
    }

    #[test]
    fn what_may_be_here_is_looked_for_first_and_not_too_far_ahead() {
        let schedule = Schedule::new(1, HoldBack::No, Cut::AtChunks, Bundling::No);
        let count = PREPARED_MAX + 1;
        schedule.add((0..count).map(|_| with_basis(10_000, 4)).collect());
        assert!(schedule.lock().take(Cut::AtChunks, u64::MAX).is_none());
        let first: Vec<_> = (0..PREPARED_MAX).map(|_| schedule.next_to_reuse().expect("a file")).collect();
        first.iter().for_each(|job| schedule.reused(job));
        std::thread::scope(|threads| {
            let last = threads.spawn(|| schedule.next_to_reuse());
            // All ranges of the first file: the last need not wait any longer.
            for _ in 0..3 {
                let want = take(&schedule);
                assert_eq!(want.attempt, 1, "unproven bytes may stand there");
                schedule.done(&want, Vec::new());
            }
            schedule.reused(&last.join().expect("join").expect("the last"));
        });
        schedule.close();
        while let Some(want) = next(&schedule, &Held { rate: 1, ..Held::default() }) {
            schedule.done(&want, Vec::new());
        }
        assert!(schedule.next_to_reuse().is_none());
    }

    #[test]
    fn files_that_changed_come_out_when_nothing_else_is_left() {
        let schedule = Schedule::new(1, HoldBack::No, Cut::AtChunks, Bundling::No);
        schedule.add(vec![job(1, 4), job(2, 4)]);
        let first = take(&schedule);
        first.job.fail();
        schedule.moved(Arc::clone(&first.job));
        schedule.done(&first, Vec::new());
        assert!(!schedule.lock().is_settled());
        let second = take(&schedule);
        schedule.done(&second, Vec::new());
        assert_eq!(schedule.wait_for_moved().expect("the first").len(), 1);
        assert!(!schedule.lock().is_settled(), "it is being offered anew");
        schedule.offered_anew(Some(job(3, 4)));
        schedule.done(&take(&schedule), Vec::new());
        assert!(schedule.wait_for_moved().is_none());
        schedule.close();
        assert!(schedule.is_finished());
    }

    #[test]
    fn held_back_means_until_the_last_offer() {
        let schedule = Schedule::new(1, HoldBack::UntilClosed, Cut::AtChunks, Bundling::No);
        schedule.add(vec![job(1, 4)]);
        assert!(schedule.lock().take(Cut::AtChunks, u64::MAX).is_none());
        schedule.close();
        take(&schedule);
    }

    #[test]
    fn the_planner_goes_on_when_all_files_that_waited_have_changed() {
        let schedule = Schedule::new(1, HoldBack::No, Cut::Evenly, Bundling::Yes);
        let jobs: Vec<_> = (0..super::QUEUED_FILES_MAX).map(|_| with_basis(100_000, 64)).collect();
        assert!(schedule.add(jobs));
        std::thread::scope(|threads| {
            let (told, is_added) = std::sync::mpsc::channel();
            let schedule = &schedule;
            threads.spawn(move || told.send(schedule.add(vec![with_basis(100_000, 64)])));
            while !schedule.lock().planner_waits {
                std::thread::yield_now();
            }
            threads.spawn(|| {
                while let Some(job) = schedule.next_to_reuse() {
                    assert!(job.fail());
                    schedule.moved(Arc::clone(&job));
                    schedule.reused(&job);
                }
            });
            threads.spawn(|| while matches!(schedule.next(&Held::default(), &mut Vec::new()), Next::Wants) {});
            let added = is_added.recv_timeout(std::time::Duration::from_secs(20));
            schedule.stop();
            assert_eq!(added, Ok(true));
        });
    }
}
