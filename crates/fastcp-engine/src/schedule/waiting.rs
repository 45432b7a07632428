//! Waiting for news: a lock, and what those who hold it may wait for.
//!
//! A condition variable that several kinds of waiter share wakes all of them for what concerns one, and a call
//! to wake nobody costs as much as one that wakes somebody. So each kind of waiter has [`News`] of its own, told
//! only while somebody waits for it. Who may wait for whom is written down where the news are kept
//! (`schedule.rs`); in tests, a scheduler of our own decides who runs (`model.rs`), and finds those who would
//! wait for ever.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use fastcp_sys::counts;

#[cfg(test)]
pub(crate) mod model;

/// A mutex whose holders may wait for news. A panic of one holder is no reason for others to panic as well.
#[derive(Debug, Default)]
pub(crate) struct Lock<T>(Mutex<T>);

impl<T> Lock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        counts::lock_taken();
        #[cfg(test)]
        if let Some(guard) = model::lock(&self.0) {
            return guard;
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the news are told, or for no reason: the caller looks again. All waiters of the same news use
    /// the same lock.
    pub(crate) fn wait<'a>(&'a self, news: &News, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        news.waiting.fetch_add(1, Ordering::Relaxed);
        #[cfg(test)]
        if model::is_on() {
            drop(guard);
            model::wait(news.address(), model::Limit::News);
            return self.lock();
        }
        news.told.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`Lock::wait`], but not beyond `until`.
    pub(crate) fn wait_until<'a>(&'a self, news: &News, guard: MutexGuard<'a, T>, until: Instant) -> MutexGuard<'a, T> {
        news.waiting.fetch_add(1, Ordering::Relaxed);
        #[cfg(test)]
        if model::is_on() {
            drop(guard);
            model::wait(news.address(), model::Limit::NewsOrTime);
            return self.lock();
        }
        let left = until.saturating_duration_since(Instant::now());
        news.told.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0
    }
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
