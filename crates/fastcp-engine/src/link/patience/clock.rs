//! Since when something fails, and how long it may go on: reckoned with times that are given, never with the clock.

use std::time::{Duration, Instant};

use super::{ATTEMPT_FIRST, ATTEMPT_LAST, ATTEMPT_MAX, SILENCE_MIN};

#[derive(Debug)]
pub(super) struct Clock {
    retry: Duration,
    attempts: u32,
    failing_since: Option<Instant>,
    /// When the attempt began that has just failed.
    attempt_start: Option<Instant>,
}

/// How long it has been failing, and for how long it is still tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failing {
    pub(super) since: Duration,
    pub(super) left: Duration,
}

/// What there was before this failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    /// Nothing that counts: the waits between attempts begin short again.
    Progress,
    Failures,
}

impl Clock {
    pub(super) fn new(retry: Duration) -> Self {
        Self { retry, attempts: 0, failing_since: None, attempt_start: None }
    }

    /// Nothing was tried meanwhile, so nothing was in vain.
    pub(super) fn renew(&mut self) {
        *self = Self::new(self.retry);
    }

    /// An attempt that began at `start` has ended.
    pub(super) fn attempted(&mut self, start: Instant, has_failed: bool) {
        self.attempt_start = has_failed.then_some(start);
    }

    /// Something failed by `now`, after a silence of `silence`; the run last got on at `progress`.
    pub(super) fn failed(&mut self, now: Instant, progress: Instant, silence: Duration) -> (Before, Failing) {
        let before = match self.failing_since {
            Some(since) if since < progress => {
                let start = self.attempt_start;
                self.renew();
                self.attempt_start = start;
                Before::Progress
            }
            _ => Before::Failures,
        };
        let began = self.attempt_start.take().or_else(|| now.checked_sub(silence)).unwrap_or(now);
        let since = (*self.failing_since.get_or_insert(began)).max(progress);
        let failing = now.saturating_duration_since(since);
        (before, Failing { since: failing, left: self.retry.saturating_sub(failing) })
    }

    /// One more attempt will be made.
    pub(super) fn goes_on(&mut self) {
        self.attempts += 1;
    }

    /// How long an attempt may take that begins `now`.
    pub(super) fn attempt_max(&self, now: Instant, progress: Instant) -> Duration {
        if self.failing_since.is_none() && self.retry < 2 * ATTEMPT_FIRST {
            return self.retry.max(SILENCE_MIN);
        }
        let usual = ATTEMPT_FIRST.saturating_mul(2u32.saturating_pow(self.attempts)).min(ATTEMPT_MAX);
        let left = self.failing_since.map(|since| {
            let failing = now.saturating_duration_since(since.max(progress));
            self.retry.saturating_sub(failing).max(ATTEMPT_LAST)
        });
        usual.min(left.unwrap_or(usual))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Duration = Duration::from_secs(30);

    /// Times of a run, in milliseconds from its start.
    struct Run(Instant);

    impl Run {
        fn at(&self, ms: u64) -> Instant {
            self.0 + Duration::from_millis(ms)
        }
    }

    fn failing(since_ms: u64, left_ms: u64) -> Failing {
        Failing { since: Duration::from_millis(since_ms), left: Duration::from_millis(left_ms) }
    }

    fn run() -> Run {
        Run(Instant::now())
    }

    #[test]
    fn it_fails_since_the_first_attempt_in_a_row_began() {
        let (run, mut clock) = (run(), Clock::new(RETRY));
        clock.attempted(run.at(1000), true);
        assert_eq!(clock.failed(run.at(3000), run.at(0), Duration::ZERO), (Before::Failures, failing(2000, 28_000)));
        clock.goes_on();
        clock.attempted(run.at(4000), true);
        assert_eq!(clock.failed(run.at(9000), run.at(0), Duration::ZERO), (Before::Failures, failing(8000, 22_000)));
        clock.attempted(run.at(30_000), true);
        assert_eq!(clock.failed(run.at(31_000), run.at(0), Duration::ZERO), (Before::Failures, failing(30_000, 0)));
    }

    #[test]
    fn a_silence_counts_from_its_beginning() {
        let (run, mut clock) = (run(), Clock::new(RETRY));
        let silence = Duration::from_secs(15);
        assert_eq!(clock.failed(run.at(40_000), run.at(0), silence), (Before::Failures, failing(15_000, 15_000)));
    }

    #[test]
    fn progress_of_others_renews_the_time_and_the_length_of_attempts() {
        let (run, mut clock) = (run(), Clock::new(RETRY));
        for ms in [1000, 5000, 9000] {
            clock.attempted(run.at(ms), true);
            clock.failed(run.at(ms + 1000), run.at(0), Duration::ZERO);
            clock.goes_on();
        }
        assert_eq!(clock.attempt_max(run.at(10_000), run.at(0)), ATTEMPT_MAX);
        clock.attempted(run.at(10_000), true);
        // Something arrived elsewhere while this attempt was being made.
        let (before, seen) = clock.failed(run.at(12_000), run.at(11_000), Duration::ZERO);
        assert_eq!((before, seen), (Before::Progress, failing(1000, 29_000)));
        clock.goes_on();
        assert_eq!(clock.attempt_max(run.at(12_000), run.at(11_000)), 2 * ATTEMPT_FIRST);
    }

    #[test]
    fn attempts_grow_and_the_last_ones_take_no_longer_than_is_left() {
        let (run, mut clock) = (run(), Clock::new(RETRY));
        clock.attempted(run.at(0), true);
        let mut lengths = Vec::new();
        for ms in [1000, 2000, 3000, 28_500, 29_900] {
            clock.failed(run.at(ms), run.at(0), Duration::ZERO);
            clock.goes_on();
            lengths.push(clock.attempt_max(run.at(ms), run.at(0)).as_millis());
        }
        assert_eq!(lengths, [4000, 8000, 10_000, 1500, 1000]);
    }

    #[test]
    fn a_short_time_to_try_leaves_room_for_one_attempt() {
        let (run, mut clock) = (run(), Clock::new(Duration::from_secs(1)));
        assert_eq!(clock.attempt_max(run.at(0), run.at(0)), SILENCE_MIN);
        clock.attempted(run.at(0), true);
        assert_eq!(clock.failed(run.at(3000), run.at(0), Duration::ZERO), (Before::Failures, failing(3000, 0)));
        assert_eq!(clock.attempt_max(run.at(3000), run.at(0)), ATTEMPT_LAST, "whoever asks all the same");
    }

    #[test]
    fn a_success_and_a_renewal_leave_no_trace() {
        let (run, mut clock) = (run(), Clock::new(RETRY));
        clock.attempted(run.at(0), true);
        clock.failed(run.at(5000), run.at(0), Duration::ZERO);
        clock.goes_on();
        clock.renew();
        assert_eq!(clock.attempt_max(run.at(6000), run.at(0)), ATTEMPT_FIRST);
        clock.attempted(run.at(6000), false);
        let seen = clock.failed(run.at(60_000), run.at(0), Duration::ZERO);
        assert_eq!(seen, (Before::Failures, failing(0, 30_000)), "a new failure begins when it is seen");
    }
}
