//! `--retry N`: how long to keep trying. The one retry loop of all that dial.
//!
//! N are seconds without progress, of the whole run and not of one connection: while others work, one that cannot get
//! through does no harm by trying. They begin when something began to fail, and not before: a scan, or what is
//! looked up here, may rightly take long. A connection that was silent until it was given up began to fail when its
//! silence did, and an attempt when it began; so the waits of the kernel and of ours are part of the N seconds and
//! never come on top.
//!
//! How long one attempt may take, and how long a peer may be silent, follow from N too. Everything that is waited for
//! here ends at once when the run does ([`Live`]).

use std::time::{Duration, Instant};

use fastcp_net::{Backoff, Live, NetError};

use crate::link::patience::clock::{Before, Clock, Failing};
use crate::report::{Event, Report};

mod clock;

/// The first attempt is given so long, the next ones twice the last.
const ATTEMPT_FIRST: Duration = Duration::from_secs(2);
const ATTEMPT_MAX: Duration = Duration::from_secs(10);
/// The last attempt is given so long where less is left.
const ATTEMPT_LAST: Duration = Duration::from_secs(1);
/// A peer that is alive says so every second; a lost packet is sent again after one.
const SILENCE_MIN: Duration = Duration::from_secs(3);
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// How long a peer that owes an answer may be silent before its connection is given up: so that there is time left
/// to make another one.
pub(crate) fn silence_max(retry: Duration) -> Duration {
    (retry / 2).clamp(SILENCE_MIN, SILENCE_MAX)
}

/// How long a peer's kernel may acknowledge nothing.
pub(crate) fn absence_max(retry: Duration) -> Duration {
    retry.max(SILENCE_MIN)
}

/// How long the answer to a greeting may take where something was asked for behind it.
pub(crate) fn answer_max(retry: Duration) -> Duration {
    ATTEMPT_FIRST.min(silence_max(retry))
}

pub(crate) struct Patience<'a> {
    live: &'a Live,
    report: &'a Report,
    /// Who is waited for.
    address: String,
    backoff: Backoff,
    clock: Clock,
}

impl<'a> Patience<'a> {
    pub(crate) fn new(live: &'a Live, report: &'a Report, address: String, retry: Duration) -> Self {
        Self { live, report, address, backoff: Backoff::default(), clock: Clock::new(retry) }
    }

    /// Starts over: nothing was tried meanwhile, so nothing was in vain.
    pub(crate) fn renew(&mut self) {
        self.backoff.reset();
        self.clock.renew();
    }

    /// Tries until it succeeds, each time until the deadline that it is given.
    ///
    /// # Errors
    /// The last failure: one that no wait helps, or when it has been too long, or where the run has ended.
    pub(crate) fn persist<T>(
        &mut self,
        mut attempt: impl FnMut(Instant) -> Result<T, NetError>,
    ) -> Result<T, NetError> {
        loop {
            match self.attempt(&mut attempt) {
                Ok(value) => return Ok(value),
                Err(error) => self.failed(error)?,
            }
        }
    }

    /// Tries once, to make a connection and to be greeted on it. A failure is for [`Patience::failed`].
    pub(crate) fn attempt<T>(&mut self, attempt: impl FnOnce(Instant) -> Result<T, NetError>) -> Result<T, NetError> {
        let start = Instant::now();
        let result = attempt(start + self.clock.attempt_max(start, self.report.wire.last_progress()));
        self.clock.attempted(start, result.is_err());
        result
    }

    /// Something failed. Waits before the next attempt, and says so.
    ///
    /// # Errors
    /// The failure, where there is to be no next attempt.
    pub(crate) fn failed(&mut self, error: NetError) -> Result<(), NetError> {
        let (before, Failing { since: failing, left }) =
            self.clock.failed(Instant::now(), self.report.wire.last_progress(), silence(&error));
        if before == Before::Progress {
            self.backoff.reset();
        }
        let error = waited_in_all(error, failing);
        if !error.is_transient() || left.is_zero() || self.live.is_ended() {
            return Err(error);
        }
        self.clock.goes_on();
        let wait = self.backoff.next_wait().min(left);
        if self.report.may_tell_retry() {
            let (address, reason, error) = (self.address.clone(), error.reason(), error.to_string());
            self.report.tell(Event::Retrying { address, reason, error, wait, failing, left });
        }
        if self.live.pause(wait) { Ok(()) } else { Err(error) }
    }
}

/// How long nothing had come when this was noticed.
fn silence(error: &NetError) -> Duration {
    match error {
        NetError::TimedOut(silence) => *silence,
        _ => Duration::ZERO,
    }
}

/// A silence is as long as nothing has been of use: the last attempt, which says this, may have had a second of it.
fn waited_in_all(error: NetError, failing: Duration) -> NetError {
    match error {
        NetError::TimedOut(silence) => NetError::TimedOut(silence.max(failing)),
        other => other,
    }
}

#[cfg(test)]
mod tests;
