//! Lists that come before the basis is cut.
//!
//! A thread of its own cuts the basis while the sender cuts the new file. Lists gather until it is done; when
//! there are many the search waits for it, so that memory is bounded.

use std::io;
use std::thread::{Scope, ScopedJoinHandle};

use fastcp_wire::signature::SignedChunk;

use crate::threads::spawn;

/// The most chunks that wait for the basis: 4 MiB of memory.
const EARLY_CHUNKS_MAX: usize = 128 << 10;
/// What another thread is making.
pub(super) struct Made<'scope, T> {
    thread: Option<ScopedJoinHandle<'scope, io::Result<T>>>,
    made: Option<T>,
}

impl<'scope, T> Made<'scope, T> {
    pub(super) fn by(
        threads: &'scope Scope<'scope, '_>,
        make: impl Fn() -> io::Result<T> + Copy + Send + 'scope,
    ) -> io::Result<Self>
    where
        T: Send + 'scope,
    {
        Ok(match spawn(threads, "cut", make) {
            Ok(thread) => Self { thread: Some(thread), made: None },
            // Without a thread it is made here and now: the sender waits meanwhile.
            Err(_) => Self { thread: None, made: Some(make()?) },
        })
    }

    /// Whether it is there, or will never be.
    pub(super) fn is_ready(&self) -> bool {
        self.thread.as_ref().is_none_or(ScopedJoinHandle::is_finished)
    }

    /// What was made, as soon as it is. Where making it failed there is no second time.
    pub(super) fn wait(&mut self) -> io::Result<&mut T> {
        if let Some(thread) = self.thread.take() {
            self.made = Some(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(self.made.as_mut().expect("a search ends where this fails"))
    }
}

/// Lists that came before the basis was cut.
#[derive(Default)]
pub(super) struct Early {
    lists: Vec<(u64, Vec<SignedChunk>)>,
    chunks: usize,
}

impl Early {
    /// Adds a list that begins at `start`.
    pub(super) fn push(&mut self, start: u64, chunks: Vec<SignedChunk>) {
        self.chunks += chunks.len();
        self.lists.push((start, chunks));
    }

    /// Whether it is time to look them up: it can be done without waiting, or there are too many.
    pub(super) fn may_go<T>(&self, index: &Made<'_, T>) -> bool {
        index.is_ready() || self.chunks >= EARLY_CHUNKS_MAX
    }

    /// All lists, in the order in which they came.
    pub(super) fn take(&mut self) -> impl Iterator<Item = (u64, Vec<SignedChunk>)> + use<> {
        self.chunks = 0;
        std::mem::take(&mut self.lists).into_iter()
    }
}
