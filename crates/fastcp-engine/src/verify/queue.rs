//! Files whose contents are to be compared, between the thread that reads listings and those that ask.
//!
//! A file is handed out range by range, so that several connections share a large one, and cut only when
//! its turn comes, so that its size costs no memory. Whoever adds waits while much is queued. A range that
//! was handed out counts as out until it is done or given back: only when nothing is queued and nothing is
//! out is there nothing more to do.
//!
//! The thread that reads listings waits for room, which connections make; connections wait for files, which it adds,
//! and for ranges that others give back. Nobody waits for both.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use fastcp_model::{ByteRange, RelPath, Timestamp};

use crate::breaks::Breaks;
use crate::lock::{Guard, Lock, News, Rank};

/// Files queued at most.
const FILES_MAX: usize = 16_384;

/// A file whose size and kind are right.
#[derive(Debug)]
pub(super) struct FileCheck {
    pub(super) path: RelPath,
    pub(super) size_bytes: u64,
    /// As offered: another one in an answer means that the source has changed.
    pub(super) mtime: Timestamp,
    /// Whether it takes less room here than its length.
    pub(super) has_holes: bool,
    left_bytes: AtomicU64,
    settled: AtomicBool,
}

impl FileCheck {
    pub(super) fn new(path: RelPath, size_bytes: u64, mtime: Timestamp) -> Self {
        let (left_bytes, settled) = (AtomicU64::new(size_bytes), AtomicBool::new(false));
        Self { path, size_bytes, mtime, has_holes: false, left_bytes, settled }
    }

    /// The same, of a file with holes: ranges are cut where those begin and end.
    pub(super) fn with_holes(self) -> Self {
        Self { has_holes: true, ..self }
    }

    /// What is to be said of the file is said once: `true` for whoever comes first. The rest of it is of no
    /// interest then.
    pub(super) fn settle(&self) -> bool {
        !self.settled.swap(true, Ordering::Relaxed)
    }

    pub(super) fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Relaxed)
    }

    /// These bytes are equal. `true` where they were the last.
    pub(super) fn equal(&self, range: ByteRange) -> bool {
        self.left_bytes.fetch_sub(range.len(), Ordering::Relaxed) == range.len()
    }
}

/// A range to compare.
#[derive(Debug, Clone)]
pub(super) struct Check {
    pub(super) file: Arc<FileCheck>,
    pub(super) range: ByteRange,
    /// How often its answer could not be used.
    pub(super) attempt: u32,
    /// The connections that broke over it.
    pub(super) breaks: Breaks,
}

/// What to do where there is nothing to hand out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IfEmpty {
    Wait,
    /// Not beyond this.
    WaitUntil(Instant),
    Return,
}

/// The queue's answer.
#[derive(Debug)]
pub(super) enum NextCheck {
    Check(Check),
    /// Nothing now; there may be later.
    Later,
    /// There will be nothing more.
    Over,
}

#[derive(Debug)]
pub(super) struct CheckQueue {
    state: Lock<State>,
    /// Connections wait for this: there are ranges to compare.
    work: News,
    /// The thread that reads listings waits for this.
    room: News,
    files_max: usize,
    range_bytes_max: u64,
}

#[derive(Debug, Default)]
struct State {
    files: VecDeque<(Arc<FileCheck>, u64)>,
    returned: Vec<Check>,
    out: usize,
    done: u64,
    is_closed: bool,
    is_stopped: bool,
}

impl State {
    fn is_over(&self) -> bool {
        self.is_stopped || (self.is_closed && self.files.is_empty() && self.returned.is_empty() && self.out == 0)
    }

    fn has_work(&self) -> bool {
        !self.files.is_empty() || !self.returned.is_empty()
    }

    fn take(&mut self, range_bytes_max: u64) -> Option<Check> {
        if let Some(check) = self.returned.pop() {
            return Some(check);
        }
        while let Some((file, at)) = self.files.pop_front() {
            let Ok(range) = ByteRange::new(at, (file.size_bytes - at).min(range_bytes_max)) else { continue };
            if file.is_settled() || range.is_empty() {
                continue;
            }
            if range.end() < file.size_bytes {
                self.files.push_front((Arc::clone(&file), range.end()));
            }
            return Some(Check { file, range, attempt: 0, breaks: Breaks::default() });
        }
        None
    }
}

impl CheckQueue {
    /// An empty queue that cuts files into ranges of this many bytes.
    pub(super) fn new(range_bytes_max: u64) -> Self {
        Self::with_files_max(range_bytes_max, FILES_MAX)
    }

    fn with_files_max(range_bytes_max: u64, files_max: usize) -> Self {
        let state = Lock::new(Rank::Checks, State::default());
        let (work, room) = (News::default(), News::default());
        Self { state, work, room, files_max, range_bytes_max }
    }

    /// Adds files, waiting while the queue is full. `false` where nobody wants them any more.
    pub(super) fn add(&self, files: impl IntoIterator<Item = FileCheck>) -> bool {
        let mut state = self.lock();
        while state.files.len() >= self.files_max && !state.is_stopped {
            state = self.state.wait(&self.room, state);
        }
        state.files.extend(files.into_iter().map(|file| (Arc::new(file), 0)));
        self.tell_of_work(&state);
        !state.is_stopped
    }

    /// No more files will come.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        self.tell_everybody();
    }

    /// The run is over, whatever is left.
    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.is_stopped = true;
        self.tell_everybody();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.lock().is_stopped
    }

    /// How many ranges are done.
    pub(super) fn done_count(&self) -> u64 {
        self.lock().done
    }

    /// Whether nothing is left to do, or nothing is to be done any more.
    pub(super) fn is_over(&self) -> bool {
        self.lock().is_over()
    }

    /// Waits until there is something to do; `false` where nothing will be.
    pub(super) fn wait_for_work(&self) -> bool {
        let mut state = self.lock();
        while !state.has_work() && !state.is_over() {
            state = self.state.wait(&self.work, state);
        }
        !state.is_over()
    }

    /// Hands out a range.
    pub(super) fn next(&self, if_empty: IfEmpty) -> NextCheck {
        let mut state = self.lock();
        loop {
            if state.is_over() {
                return NextCheck::Over;
            }
            let taken = state.take(self.range_bytes_max);
            if state.files.len() < self.files_max {
                self.room.tell_all();
            }
            // What was left may have been of files that are settled: then this may be the end for others, too.
            if taken.is_none() && state.is_over() {
                self.tell_everybody();
            }
            match taken {
                Some(check) => {
                    state.out += 1;
                    return NextCheck::Check(check);
                }
                None if state.is_over() => return NextCheck::Over,
                None => {
                    state = match if_empty {
                        IfEmpty::WaitUntil(until) if Instant::now() < until => {
                            self.state.wait_at_most(&self.work, state, Some(until))
                        }
                        IfEmpty::WaitUntil(_) | IfEmpty::Return => return NextCheck::Later,
                        IfEmpty::Wait => self.state.wait(&self.work, state),
                    }
                }
            }
        }
    }

    /// A range that was handed out is done with.
    pub(super) fn done(&self) {
        let mut state = self.lock();
        state.out -= 1;
        state.done += 1;
        if state.is_over() {
            self.tell_everybody();
        }
    }

    /// A part of a range that was handed out is for somebody else to do; the other part stays out.
    pub(super) fn split_off(&self, rest: Check) {
        let mut state = self.lock();
        state.returned.push(rest);
        self.tell_of_work(&state);
    }

    /// Ranges that were handed out and are for somebody else to do.
    pub(super) fn give_back(&self, checks: impl IntoIterator<Item = Check>) {
        let mut state = self.lock();
        for check in checks {
            state.out -= 1;
            state.returned.push(check);
        }
        self.tell_of_work(&state);
    }

    /// A file may make several ranges, so as many as wait may have something to do.
    fn tell_of_work(&self, state: &State) {
        if state.has_work() {
            self.work.tell_all();
        }
    }

    fn tell_everybody(&self) {
        self.work.tell_all();
        self.room.tell_all();
    }

    fn lock(&self) -> Guard<'_, State> {
        self.state.lock()
    }
}

#[cfg(test)]
mod tests {
    use fastcp_model::{RelPath, Timestamp};

    use std::sync::Mutex;

    use super::{CheckQueue, FileCheck, IfEmpty, NextCheck};
    use crate::lock::model::{Actor, Random, run};

    fn file(size_bytes: u64) -> FileCheck {
        FileCheck::new(RelPath::new(b"file").expect("lawful"), size_bytes, Timestamp::default())
    }

    #[test]
    fn a_file_is_cut_into_ranges_that_cover_it() {
        for (size, cuts) in [(1, 1), (9, 1), (10, 1), (11, 2), (20, 2), (95, 10)] {
            let queue = CheckQueue::new(10);
            assert!(queue.add([file(size)]));
            queue.close();
            let (mut end, mut count) = (0, 0);
            while let NextCheck::Check(check) = queue.next(IfEmpty::Wait) {
                assert_eq!(check.range.start(), end);
                assert!((1..=10).contains(&check.range.len()));
                (end, count) = (check.range.end(), count + 1);
                assert_eq!(check.file.equal(check.range), end == size, "only the last range is the last");
                queue.done();
            }
            assert_eq!((end, count), (size, cuts));
        }
    }

    #[test]
    fn what_is_out_keeps_the_queue_from_its_end() {
        let queue = CheckQueue::new(10);
        queue.add([file(5)]);
        let NextCheck::Check(check) = queue.next(IfEmpty::Wait) else { panic!("a range") };
        queue.close();
        assert!(matches!(queue.next(IfEmpty::Return), NextCheck::Later));
        queue.give_back([check]);
        let NextCheck::Check(_) = queue.next(IfEmpty::Wait) else { panic!("the same again") };
        queue.done();
        assert!(matches!(queue.next(IfEmpty::Wait), NextCheck::Over));
        assert!(!queue.wait_for_work());
    }

    #[test]
    fn the_rest_of_a_settled_file_is_not_handed_out() {
        let queue = CheckQueue::new(10);
        queue.add([file(35), file(5)]);
        let NextCheck::Check(first) = queue.next(IfEmpty::Wait) else { panic!("a range") };
        assert!(first.file.settle() && !first.file.settle());
        let NextCheck::Check(other) = queue.next(IfEmpty::Wait) else { panic!("a range") };
        assert_eq!(other.file.size_bytes, 5);
        queue.stop();
        assert!(!queue.add([file(1)]));
        assert!(matches!(queue.next(IfEmpty::Wait), NextCheck::Over));
    }

    /// One connection of several: it takes some ranges, settles some files, breaks now and then.
    fn compare(queue: &CheckQueue, equal_bytes: &Mutex<u64>, random: &mut Random) {
        while queue.wait_for_work() {
            let mut owed = Vec::new();
            loop {
                let if_empty = if owed.is_empty() { IfEmpty::Wait } else { IfEmpty::Return };
                match queue.next(if_empty) {
                    NextCheck::Over => return,
                    NextCheck::Check(check) => owed.push(check),
                    NextCheck::Later => {}
                }
                if random.once_in(10) {
                    break;
                }
                if owed.len() > random.below(3)
                    && let Some(check) = owed.pop()
                {
                    *equal_bytes.lock().expect("lock") += check.range.len();
                    if random.once_in(8) {
                        check.file.settle();
                    }
                    queue.done();
                }
            }
            queue.give_back(owed);
        }
    }

    #[test]
    fn every_interleaving_comes_to_its_end() {
        for seed in 0..300 {
            let queue = CheckQueue::with_files_max(10, 2);
            let equal_bytes = Mutex::new(0);
            let add = || {
                for size in [1, 35, 10, 5, 20, 7] {
                    assert!(queue.add([file(size)]));
                }
                queue.close();
            };
            let mut actors: Vec<Actor<'_>> = vec![("lister", Box::new(add))];
            for number in 1..4 {
                let (queue, equal_bytes) = (&queue, &equal_bytes);
                let mut random = Random::new(seed ^ (number << 40));
                actors.push(("connection", Box::new(move || compare(queue, equal_bytes, &mut random))));
            }
            assert_eq!(run(seed, actors), Ok(()), "seed {seed}");
            assert!(*equal_bytes.lock().expect("lock") <= 78, "seed {seed}: a range was compared twice");
        }
    }
}
