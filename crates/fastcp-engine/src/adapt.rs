//! How hard to compress, learnt from how fast answers leave.
//!
//! What counts is the time that this connection is busy for each byte of file it answers, be it with
//! reading, compressing or waiting for the socket. That one figure is right on every link: where bytes
//! leave at once, compressing only adds to it; where they queue, fewer bytes make it smaller, and a
//! higher level smaller still, up to the level at which the processor is slower than the link.
//!
//! The figure is kept for each step of a ladder of levels. Now and then a neighbour of the best step
//! is tried for a window; how often depends on how much worse it was, so that trying costs at most a
//! twentieth of the time.

use std::time::Duration;

/// The steps: nothing, then zstd levels that differ by about a tenth in size and half in speed.
const LADDER: [Option<i32>; 5] = [None, Some(1), Some(3), Some(6), Some(9)];
/// Where a connection starts: a short transfer over a slow link gains at once, and on a fast one the
/// next window mends it.
const FIRST_STEP: usize = 1;
/// File bytes after which a step is judged.
const WINDOW_BYTES: u64 = 1 << 20;
/// The same for a step that was never tried: enough to tell, little enough not to hurt a short transfer.
const FIRST_WINDOW_BYTES: u64 = 128 << 10;
/// The share of the time that trying may cost.
const TRY_SHARE: f64 = 0.05;
/// The weight of a new window against what was known.
const NEW_WEIGHT: f64 = 0.4;
/// How much of what is known of the other steps is forgotten with each window: links change.
const FORGOTTEN_SHARE: f64 = 0.05;

#[derive(Debug)]
pub(crate) struct Adaptive {
    step: usize,
    best: usize,
    /// Nanoseconds for each byte, by step; `None` where it was never tried.
    cost: [Option<f64>; LADDER.len()],
    window_bytes: u64,
    window_busy: Duration,
    /// Nanoseconds that may be lost by trying.
    allowance: f64,
    try_upwards: bool,
}

impl Adaptive {
    pub(crate) fn new() -> Self {
        Self {
            step: FIRST_STEP,
            best: FIRST_STEP,
            cost: [None; LADDER.len()],
            window_bytes: 0,
            window_busy: Duration::ZERO,
            allowance: 0.0,
            // Turned before each try: the first goes down.
            try_upwards: true,
        }
    }

    /// The zstd level to use now; `None` for no compression.
    pub(crate) fn level(&self) -> Option<i32> {
        LADDER[self.step]
    }

    /// Takes note of file bytes answered, and of the time that it took.
    pub(crate) fn answered(&mut self, bytes: u64, busy: Duration) {
        self.window_bytes += bytes;
        self.window_busy += busy;
        let window_bytes = if self.cost[self.step].is_some() { WINDOW_BYTES } else { FIRST_WINDOW_BYTES };
        if self.window_bytes >= window_bytes {
            self.close_window();
        }
    }

    fn close_window(&mut self) {
        let busy = self.window_busy.as_nanos() as f64;
        let cost = busy / self.window_bytes as f64;
        (self.window_bytes, self.window_busy) = (0, Duration::ZERO);
        let known = &mut self.cost[self.step];
        *known = Some(known.map_or(cost, |known| known + NEW_WEIGHT * (cost - known)));
        if self.step == self.best {
            self.allowance += busy * TRY_SHARE;
        } else if let Some(best) = self.cost[self.best] {
            self.allowance -= (busy - busy * best / cost).max(0.0);
        }
        self.best = self.cheapest();
        self.forget();
        self.step = self.next_step();
    }

    /// Brings the other steps nearer to the best: the longer ago one was tried, the less speaks against it.
    fn forget(&mut self) {
        let Some(best) = self.cost[self.best] else { return };
        for cost in self.cost.iter_mut().flatten() {
            *cost -= (*cost - best) * FORGOTTEN_SHARE;
        }
    }

    fn cheapest(&self) -> usize {
        let known = self.cost.iter().enumerate().filter_map(|(step, cost)| Some((step, (*cost)?)));
        known.min_by(|one, other| one.1.total_cmp(&other.1)).map_or(FIRST_STEP, |(step, _)| step)
    }

    /// The best step, or a neighbour where the allowance covers what it is expected to lose.
    fn next_step(&mut self) -> usize {
        self.try_upwards = !self.try_upwards;
        let neighbour = if self.try_upwards { self.best + 1 } else { self.best.wrapping_sub(1) };
        let Some(known) = self.cost.get(neighbour) else { return self.best };
        let best = self.cost[self.best].unwrap_or(0.0);
        let loss = known.map_or(0.0, |known| (known - best).max(0.0) * WINDOW_BYTES as f64);
        // A known neighbour is not tried again before the allowance has grown past its last loss.
        if known.is_none() || self.allowance > loss + best * WINDOW_BYTES as f64 * TRY_SHARE {
            neighbour
        } else {
            self.best
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Adaptive;

    /// Answers `windows` of a MiB; `cost` says how many microseconds each takes at a level.
    fn run(adaptive: &mut Adaptive, windows: u32, cost: impl Fn(Option<i32>) -> u64) -> u64 {
        let mut total = 0;
        for _ in 0..windows {
            let micros = cost(adaptive.level());
            adaptive.answered(1 << 20, Duration::from_micros(micros));
            total += micros;
        }
        total
    }

    fn level_cost(level: Option<i32>, send: u64) -> u64 {
        match level {
            None => 200 + send,
            Some(1) => 2000 + send / 4,
            Some(3) => 2500 + send / 5,
            Some(level) => 3000 * level.unsigned_abs() as u64 + send / 6,
        }
    }

    #[test]
    fn a_fast_link_gets_none_and_trying_costs_little() {
        let mut adaptive = Adaptive::new();
        let total = run(&mut adaptive, 4000, |level| level_cost(level, 0));
        assert!(total < 4000 * 200 * 107 / 100, "{total}");
    }

    #[test]
    fn a_slow_link_gets_more() {
        let mut adaptive = Adaptive::new();
        let total = run(&mut adaptive, 400, |level| level_cost(level, 80_000));
        assert!(total < 400 * 21_000, "{total}");
    }

    #[test]
    fn a_link_that_changes_is_followed() {
        let mut adaptive = Adaptive::new();
        run(&mut adaptive, 200, |level| level_cost(level, 80_000));
        let fast = run(&mut adaptive, 2000, |level| level_cost(level, 0));
        assert!(fast < 2000 * 500, "{fast}");
        let slow = run(&mut adaptive, 200, |level| level_cost(level, 80_000));
        assert!(slow < 200 * 35_000, "{slow}");
    }
}
