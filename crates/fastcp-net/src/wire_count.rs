//! What went over the wire in a run, and when it last was of use.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// So many bytes received are progress. Fewer may be greetings of a server that does nothing else.
const PROGRESS_BYTES: u64 = 64 << 10;

/// Bytes that went over the wire, of all connections that share the count, and when they last were of use.
#[derive(Debug)]
pub struct WireCount {
    /// Received.
    pub bytes_in: AtomicU64,
    /// Sent.
    pub bytes_out: AtomicU64,
    begun: Instant,
    /// In milliseconds since then.
    progress_ms: AtomicU64,
    /// Another count that has all of it, too.
    forward: OnceLock<Arc<WireCount>>,
}

impl Default for WireCount {
    fn default() -> Self {
        Self {
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            begun: Instant::now(),
            progress_ms: AtomicU64::new(0),
            forward: OnceLock::new(),
        }
    }
}

impl WireCount {
    /// Something that was asked for has arrived.
    pub fn progressed(&self) {
        let now_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.progress_ms.store(now_ms, Ordering::Relaxed);
    }

    /// When something last arrived that was of use, or, before that, when the count began.
    pub fn last_progress(&self) -> Instant {
        self.begun + Duration::from_millis(self.progress_ms.load(Ordering::Relaxed))
    }

    /// A count of its own for some of the connections that share one.
    pub fn part_of(count: &Arc<Self>) -> Arc<Self> {
        let part = Self::default();
        part.forward_to(count);
        Arc::new(part)
    }

    /// Adds to this count as well, from now on. Only the first is heeded.
    pub(crate) fn forward_to(&self, count: &Arc<Self>) {
        drop(self.forward.set(Arc::clone(count)));
    }

    pub(crate) fn add(&self, bytes_in: u64, bytes_out: u64) {
        if let Some(count) = self.forward.get() {
            count.add(bytes_in, bytes_out);
        }
        let before = self.bytes_in.fetch_add(bytes_in, Ordering::Relaxed);
        self.bytes_out.fetch_add(bytes_out, Ordering::Relaxed);
        if before / PROGRESS_BYTES != (before + bytes_in) / PROGRESS_BYTES {
            self.progressed();
        }
    }
}
