//! How long to go on trying: as long as there is progress, and for a while without.
//!
//! The while begins with the first attempt that fails: before it somebody may have waited for long and well, for a scan
//! or for what is looked up here.
//! Whatever moved the whole transfer on counts, not only what this connection did: while others work, one that
//! cannot get through does no harm by trying.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fastcp_net::Backoff;

use crate::report::Report;
use crate::schedule::Schedule;

/// So many bytes received are progress. Less may be greetings of a server that does nothing else.
const PROGRESS_BYTES: u64 = 64 << 10;

pub(crate) struct Patience<'a> {
    schedule: &'a Schedule,
    report: &'a Report,
    retry: Duration,
    backoff: Backoff,
    failing_since: Option<Instant>,
    seen: u64,
}

impl<'a> Patience<'a> {
    pub(crate) fn new(schedule: &'a Schedule, report: &'a Report, retry: Duration) -> Self {
        let mut patience = Self { schedule, report, retry, backoff: Backoff::default(), failing_since: None, seen: 0 };
        patience.seen = patience.progress();
        patience
    }

    /// Starts over: nothing was tried meanwhile, so nothing was in vain.
    pub(crate) fn renew(&mut self) {
        *self = Self::new(self.schedule, self.report, self.retry);
    }

    /// An attempt failed. How long to wait before the next; `None` where it has been too long.
    pub(crate) fn next_wait(&mut self) -> Option<Duration> {
        if self.progress() > self.seen {
            self.renew();
        }
        let wait = self.backoff.next_wait();
        let since = *self.failing_since.get_or_insert_with(Instant::now);
        (since.elapsed() + wait <= self.retry).then_some(wait)
    }

    fn progress(&self) -> u64 {
        self.schedule.wants_done() + self.report.wire.bytes_in.load(Ordering::Relaxed) / PROGRESS_BYTES
    }
}
