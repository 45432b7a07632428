//! Locks, the order in which they are taken, and waiting for news under them.
//!
//! Each lock has a [`Rank`]. Whoever holds one takes only locks of later ranks, so nobody waits in a circle, and under
//! those that all connections need nobody touches a file, which may take long. Debug builds check both.
//!
//! A condition variable that several kinds of waiter share wakes all of them for what concerns one, and a call
//! to wake nobody costs as much as one that wakes somebody. So each kind of waiter has [`News`] of its own, told
//! only while somebody waits for it. Who may wait for whom is written down where the news are kept
//! (`schedule.rs`); in tests, a scheduler of our own decides who runs (`model.rs`), and finds those who would
//! wait for ever.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Instant;

use fastcp_sys::counts;

#[cfg(test)]
pub(crate) mod model;

/// When a lock is taken: under those before it in this list, and not under those after it, nor under one of its own
/// rank.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// One file's part file is being made.
    Making,
    /// The group of files that gathers.
    Group,
    /// The schedule.
    Schedule,
    /// The queue of files to compare.
    Checks,
    /// What has come of one file.
    Job,
    /// A file or directory is being written or looked at by one thread at a time.
    Files,
    /// Nothing is taken under it.
    #[default]
    Leaf,
}

impl Rank {
    /// Whether files may be touched under it. Under the others all connections would wait for a disk.
    #[cfg(debug_assertions)]
    fn allows_files(self) -> bool {
        matches!(self, Self::Making | Self::Files | Self::Leaf)
    }
}

/// A mutex whose holders may wait for news. A panic of one holder is no reason for others to panic as well.
#[derive(Debug, Default)]
pub(crate) struct Lock<T> {
    value: Mutex<T>,
    rank: Rank,
}

/// A lock that is held.
#[derive(Debug)]
pub(crate) struct Guard<'a, T> {
    value: MutexGuard<'a, T>,
    /// Dropped after the value, and taken before it.
    held: Held,
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T> Lock<T> {
    pub(crate) fn new(rank: Rank, value: T) -> Self {
        Self { value: Mutex::new(value), rank }
    }

    /// One under which nothing else is taken.
    pub(crate) fn leaf(value: T) -> Self {
        Self::new(Rank::Leaf, value)
    }

    pub(crate) fn lock(&self) -> Guard<'_, T> {
        counts::lock_taken();
        let held = Held::take(self.rank);
        #[cfg(test)]
        if let Some(value) = model::lock(&self.value) {
            return Guard { value, held };
        }
        Guard { value: self.value.lock().unwrap_or_else(PoisonError::into_inner), held }
    }

    /// As [`Lock::lock`], where nobody holds it.
    pub(crate) fn try_lock(&self) -> Option<Guard<'_, T>> {
        counts::lock_taken();
        let held = Held::take(self.rank);
        match self.value.try_lock() {
            Ok(value) => Some(Guard { value, held }),
            Err(TryLockError::Poisoned(poisoned)) => Some(Guard { value: poisoned.into_inner(), held }),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// What it holds, for good.
    pub(crate) fn into_inner(self) -> T {
        self.value.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the news are told, or for no reason: the caller looks again. All waiters of the same news use
    /// the same lock.
    pub(crate) fn wait<'a>(&'a self, news: &News, guard: Guard<'a, T>) -> Guard<'a, T> {
        self.wait_at_most(news, guard, None)
    }

    /// As [`Lock::wait`], but not beyond `until`, where there is such a time.
    pub(crate) fn wait_at_most<'a>(&'a self, news: &News, guard: Guard<'a, T>, until: Option<Instant>) -> Guard<'a, T> {
        news.waiting.fetch_add(1, Ordering::Relaxed);
        #[cfg(test)]
        if model::is_on() {
            drop(guard);
            model::wait(news.address(), if until.is_some() { model::Limit::NewsOrTime } else { model::Limit::News });
            return self.lock();
        }
        let Guard { value, held } = guard;
        let value = match until.map(|until| until.saturating_duration_since(Instant::now())) {
            None => news.told.wait(value).unwrap_or_else(PoisonError::into_inner),
            Some(left) => news.told.wait_timeout(value, left).unwrap_or_else(PoisonError::into_inner).0,
        };
        Guard { value, held }
    }
}

/// The ranks that this thread holds, in debug builds: nothing in others.
#[derive(Debug)]
struct Held {
    #[cfg(debug_assertions)]
    rank: Rank,
}

#[cfg(debug_assertions)]
thread_local! {
    static HELD: std::cell::RefCell<Vec<Rank>> = const { std::cell::RefCell::new(Vec::new()) };
}

impl Held {
    #[cfg(debug_assertions)]
    fn take(rank: Rank) -> Self {
        HELD.with_borrow_mut(|held| {
            let is_in_order = held.iter().all(|&before| before < rank);
            assert!(is_in_order || std::thread::panicking(), "{rank:?} is taken under {held:?}");
            held.push(rank);
        });
        Self { rank }
    }

    #[cfg(not(debug_assertions))]
    fn take(_: Rank) -> Self {
        Self {}
    }
}

#[cfg(debug_assertions)]
impl Drop for Held {
    fn drop(&mut self) {
        HELD.with_borrow_mut(|held| {
            if let Some(at) = held.iter().rposition(|&rank| rank == self.rank) {
                held.remove(at);
            }
        });
    }
}

/// A file is about to be touched: in debug builds, fails where a lock is held under which none may be.
pub(crate) fn touches_files() {
    #[cfg(debug_assertions)]
    HELD.with_borrow(|held| {
        let may = held.iter().all(|rank| rank.allows_files());
        assert!(may || std::thread::panicking(), "a file is touched under {held:?}");
    });
}

/// One kind of news. It is told and waited for under the lock of what it is about.
#[derive(Debug, Default)]
pub(crate) struct News {
    told: Condvar,
    /// At least as many as wait and have not been told. Changed under the lock only.
    waiting: AtomicUsize,
}

impl News {
    /// Wakes as many as there is something for, and no more than wait.
    pub(crate) fn tell(&self, up_to: usize) {
        let waiting = self.waiting.load(Ordering::Relaxed);
        if up_to >= waiting {
            return self.tell_all();
        }
        self.waiting.store(waiting - up_to, Ordering::Relaxed);
        for _ in 0..up_to {
            #[cfg(test)]
            if model::tell_one(self.address()) {
                continue;
            }
            self.told.notify_one();
        }
    }

    /// Wakes all who wait.
    pub(crate) fn tell_all(&self) {
        if self.waiting.swap(0, Ordering::Relaxed) == 0 {
            return;
        }
        #[cfg(test)]
        if model::tell_all(self.address()) {
            return;
        }
        self.told.notify_all();
    }

    /// Whether anybody may be waiting.
    pub(crate) fn is_awaited(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    #[cfg(test)]
    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

#[cfg(test)]
mod tests {
    use super::{Lock, News, Rank, touches_files};

    #[test]
    #[should_panic(expected = "Schedule is taken under [Job]")]
    fn locks_out_of_order_are_found() {
        let (schedule, job) = (Lock::new(Rank::Schedule, ()), Lock::new(Rank::Job, ()));
        drop((schedule.lock(), job.lock()));
        let _job = job.lock();
        drop(schedule.lock());
    }

    #[test]
    #[should_panic(expected = "a file is touched under [Making, Schedule]")]
    fn a_file_under_a_lock_that_all_need_is_found() {
        touches_files();
        let making = Lock::new(Rank::Making, ());
        let _making = making.lock();
        touches_files();
        let schedule = Lock::new(Rank::Schedule, ());
        let _schedule = schedule.lock();
        touches_files();
    }

    #[test]
    fn whoever_waits_holds_the_lock_when_he_comes_back() {
        let (lock, news) = (Lock::new(Rank::Schedule, 0), News::default());
        std::thread::scope(|threads| {
            let mut guard = lock.lock();
            threads.spawn(|| {
                *lock.lock() += 1;
                news.tell_all();
            });
            while *guard == 0 {
                guard = lock.wait(&news, guard);
            }
            assert!(std::panic::catch_unwind(touches_files).is_err(), "it is held again");
            drop(guard);
            touches_files();
        });
    }
}
