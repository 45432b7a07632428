//! How fast bytes come: smoothed, so that it can be read.

use std::time::{Duration, Instant};

/// What is older than this counts for less than half.
const MEMORY: Duration = Duration::from_secs(3);

/// The speed of a count that grows.
#[derive(Debug)]
pub(super) struct Speed {
    last: Instant,
    bytes: u64,
    bytes_per_second: Option<f64>,
}

impl Speed {
    pub(super) fn new(now: Instant) -> Self {
        Self { last: now, bytes: 0, bytes_per_second: None }
    }

    /// The count is `bytes` now. Answers the speed in bytes per second.
    pub(super) fn update(&mut self, bytes: u64, now: Instant) -> u64 {
        let elapsed = now.duration_since(self.last).as_secs_f64();
        if elapsed > 0.0 {
            let latest = bytes.saturating_sub(self.bytes) as f64 / elapsed;
            let weight = 1.0 - (-elapsed / MEMORY.as_secs_f64()).exp();
            self.bytes_per_second = Some(match self.bytes_per_second {
                Some(before) => before + (latest - before) * weight,
                None => latest,
            });
            (self.last, self.bytes) = (now, bytes);
        }
        self.bytes_per_second.unwrap_or_default() as u64
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Speed;

    #[test]
    fn a_steady_speed_is_that_speed_and_a_stop_fades() {
        let start = Instant::now();
        let at = |tick: u32| start + Duration::from_millis(200) * tick;
        let mut speed = Speed::new(start);
        for tick in 1..=20 {
            let shown = speed.update(u64::from(tick) * 200, at(tick));
            assert!((999..=1001).contains(&shown), "{shown}");
        }
        for tick in 21..=220 {
            speed.update(4000, at(tick));
        }
        assert_eq!(speed.update(4000, at(221)), 0);
    }
}
