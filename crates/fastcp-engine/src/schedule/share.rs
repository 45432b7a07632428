//! How much each connection may have in flight.
//!
//! Two bounds. While much is left: what the connection brings in within a second, so that its pipeline
//! never runs dry on a long link, and a slow one does not sit on work that a fast one could do. Towards
//! the end: its share of what is left, by its speed, so that all finish together and nobody waits for
//! one that took too much.

use std::time::{Duration, Instant};

/// What a connection of unknown speed may hold, and what it is presumed to bring in a second.
const HELD_PRESUMED: u64 = 1 << 20;
/// The most that a connection may hold: the bandwidth-delay product that it can fill.
const HELD_MAX: u64 = 16 << 20;
/// How long what is held may last.
const HELD_TIME: Duration = Duration::from_secs(1);
/// A connection's speed is looked at this often.
const WINDOW: Duration = Duration::from_millis(50);

/// The speed of one connection, in cost ([`crate::schedule::want::Want::cost`]) for each second.
#[derive(Debug)]
pub(crate) struct Pace {
    since: Instant,
    brought: u64,
    rate: Option<u64>,
}

impl Pace {
    pub(crate) fn new(now: Instant) -> Self {
        Self { since: now, brought: 0, rate: None }
    }

    /// Begins a window: nothing was asked for until now, so nothing could come.
    pub(crate) fn resume(&mut self, now: Instant) {
        (self.since, self.brought) = (now, 0);
    }

    /// An answer came in.
    pub(crate) fn brought(&mut self, cost: u64, now: Instant) {
        self.brought += cost;
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed < WINDOW {
            return;
        }
        let seen = (self.brought as f64 / elapsed.as_secs_f64()) as u64;
        self.rate = Some(self.rate.map_or(seen, |rate| rate.midpoint(seen)));
        self.resume(now);
    }

    /// Cost for each second; a presumption until it is known.
    pub(crate) fn rate(&self) -> u64 {
        self.rate.unwrap_or(HELD_PRESUMED).max(1)
    }

    /// How much the connection may hold.
    pub(crate) fn held_max(&self) -> u64 {
        (self.rate().saturating_mul(HELD_TIME.as_secs())).clamp(HELD_PRESUMED, HELD_MAX)
    }
}

/// The speeds of all connections, and the share that each has of what is left.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    rates: Vec<u64>,
    total: u64,
}

impl Shares {
    /// Takes note of a connection's speed; 0 for one that takes no part.
    pub(crate) fn set(&mut self, connection: usize, rate: u64) {
        if connection >= self.rates.len() {
            self.rates.resize(connection + 1, 0);
        }
        self.total = self.total - self.rates[connection] + rate;
        self.rates[connection] = rate;
    }

    /// The part of `cost_left` that is the connection's.
    pub(crate) fn of(&self, connection: usize, cost_left: u64) -> u64 {
        let rate = self.rates.get(connection).copied().unwrap_or(0);
        let share = u128::from(cost_left) * u128::from(rate) / u128::from(self.total.max(1));
        u64::try_from(share).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{HELD_MAX, HELD_PRESUMED, Pace, Shares};

    #[test]
    fn a_fast_connection_may_hold_more_and_a_slow_one_no_less_than_presumed() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        assert_eq!(pace.held_max(), HELD_PRESUMED);
        pace.brought(1 << 20, start + Duration::from_millis(100));
        assert_eq!(pace.held_max(), 10 << 20);
        pace.brought(1 << 30, start + Duration::from_millis(200));
        assert_eq!(pace.held_max(), HELD_MAX);
        for window in 3..40 {
            pace.brought(1, start + Duration::from_millis(window * 100));
        }
        assert_eq!(pace.held_max(), HELD_PRESUMED);
    }

    #[test]
    fn time_without_requests_does_not_count() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        pace.resume(start + Duration::from_secs(9));
        pace.brought(4 << 20, start + Duration::from_secs(10));
        assert_eq!(pace.rate(), 4 << 20);
    }

    #[test]
    fn shares_follow_speed_and_those_who_take_no_part_have_none() {
        let mut shares = Shares::default();
        shares.set(0, 300);
        shares.set(2, 100);
        assert_eq!([shares.of(0, 1000), shares.of(1, 1000), shares.of(2, 1000)], [750, 0, 250]);
        shares.set(0, 0);
        assert_eq!([shares.of(0, 1000), shares.of(2, 1000)], [0, 1000]);
    }
}
