//! How hard to compress, learnt from how fast answers leave.
//!
//! What counts is the time that this connection is busy for each byte of file it answers, be it with
//! reading, compressing or waiting for the socket. Where bytes leave at once, compressing only adds to
//! it; where they queue, fewer bytes make it smaller, and a higher level smaller still, up to the level
//! at which the processor is slower than the link. But when the machine has no idle processor
//! (`processor.rs`), a wait for the socket may be a wait for a processor in disguise, and counts for
//! little: only a link that is very slow still makes it worth while to work more.
//!
//! Both figures are kept for each step of a ladder of levels. Now and then a neighbour of the best step
//! is tried for a window; how often depends on how much worse it was, so that trying costs at most a
//! twentieth of the time.

use std::time::Duration;

/// The steps: nothing, then zstd levels that differ by about a tenth in size and half in speed.
const LADDER: [Option<i32>; 5] = [None, Some(1), Some(3), Some(6), Some(9)];
/// File bytes after which a step is judged.
const WINDOW_BYTES: u64 = 1 << 20;
/// The same for a step that was never tried: enough to tell, little enough not to hurt a short transfer.
const FIRST_WINDOW_BYTES: u64 = 128 << 10;
/// Where the other end is near, nothing is tried before a connection has been busy this long: by then it is
/// known whether the processors are, and a short transfer is over.
const TRY_AFTER: Duration = Duration::from_millis(200);
/// The share of the time that trying may cost.
const TRY_SHARE: f64 = 0.05;
/// The weight of a new window against what was known.
const NEW_WEIGHT: f64 = 0.4;
/// What a wait for the socket counts while no processor is idle: on one machine, two processors and eight
/// connections, such waits were up to ten times what reading took.
const BUSY_WEIGHT: f64 = 0.125;
/// The least work of compressing, in nanoseconds for each byte (`docs/performance.md` has zstd's rates), for a
/// connection that has a processor to itself: to save less by it is not worth a try.
const WORK_MIN: f64 = 1.5;
/// How much of what is known of the other steps is forgotten with each window: links change.
const FORGOTTEN_SHARE: f64 = 0.05;

#[derive(Debug)]
pub(crate) struct Adaptive {
    step: usize,
    best: usize,
    /// What each step costs; `None` where it was never tried.
    costs: [Option<Cost>; LADDER.len()],
    window_bytes: u64,
    window: Spent,
    processors_busy: bool,
    /// What a try must promise to save, in nanoseconds for each byte.
    work_min: f64,
    /// How long to be busy yet before anything is tried.
    try_after: Duration,
    /// Nanoseconds that may be lost by trying.
    allowance: f64,
    try_upwards: bool,
}

/// Time spent on answers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Spent {
    /// Reading and compressing.
    pub(crate) work: Duration,
    /// Waiting for the socket.
    pub(crate) blocked: Duration,
}

/// Nanoseconds for each byte.
#[derive(Debug, Clone, Copy)]
struct Cost {
    work: f64,
    blocked: f64,
}

impl Cost {
    fn of(spent: Spent, bytes: u64) -> Self {
        let for_each = |time: Duration| time.as_nanos() as f64 / bytes as f64;
        Self { work: for_each(spent.work), blocked: for_each(spent.blocked) }
    }

    /// Goes a part of the way from here to `other`.
    fn towards(self, other: Self, share: f64) -> Self {
        let between = |from: f64, to: f64| from + share * (to - from);
        Self { work: between(self.work, other.work), blocked: between(self.blocked, other.blocked) }
    }

    fn counted(self, processors_busy: bool) -> f64 {
        self.work + self.blocked * if processors_busy { BUSY_WEIGHT } else { 1.0 }
    }
}

impl Adaptive {
    /// Starts with a guess that the next windows mend: where the other end is far, a short transfer
    /// likely gains by compression.
    /// `connections_for_each_processor` is by how many a processor is shared.
    pub(crate) fn new(is_far: bool, connections_for_each_processor: f64) -> Self {
        let first = usize::from(is_far);
        Self {
            step: first,
            best: first,
            costs: [None; LADDER.len()],
            window_bytes: 0,
            window: Spent::default(),
            processors_busy: false,
            work_min: WORK_MIN * connections_for_each_processor.max(1.0),
            try_after: if is_far { Duration::ZERO } else { TRY_AFTER },
            allowance: 0.0,
            // Turned before each try: the first goes to the other of the two likeliest steps.
            try_upwards: is_far,
        }
    }

    /// The zstd level to use now; `None` for no compression.
    pub(crate) fn level(&self) -> Option<i32> {
        LADDER[self.step]
    }

    /// Takes note of file bytes answered, and of the time that it took.
    pub(crate) fn answered(&mut self, bytes: u64, spent: Spent, processors_busy: impl FnOnce() -> bool) {
        self.window_bytes += bytes;
        self.window.work += spent.work;
        self.window.blocked += spent.blocked;
        self.try_after = self.try_after.saturating_sub(spent.work + spent.blocked);
        let window_bytes = if self.costs[self.step].is_some() { WINDOW_BYTES } else { FIRST_WINDOW_BYTES };
        if self.window_bytes >= window_bytes {
            self.processors_busy = processors_busy();
            self.close_window();
        }
    }

    fn close_window(&mut self) {
        let cost = Cost::of(self.window, self.window_bytes);
        let counted = cost.counted(self.processors_busy);
        let busy = counted * self.window_bytes as f64;
        (self.window_bytes, self.window) = (0, Spent::default());
        let known = &mut self.costs[self.step];
        *known = Some(known.map_or(cost, |known| known.towards(cost, NEW_WEIGHT)));
        if self.step == self.best {
            self.allowance += busy * TRY_SHARE;
        } else if let Some(best) = self.counted(self.best) {
            self.allowance -= (busy - busy * best / counted).max(0.0);
        }
        self.best = self.cheapest();
        self.forget();
        self.step = self.next_step();
    }

    /// What a step costs as things are.
    fn counted(&self, step: usize) -> Option<f64> {
        Some((*self.costs.get(step)?)?.counted(self.processors_busy))
    }

    /// What more compression could save at most.
    fn to_gain(&self) -> f64 {
        self.costs[self.best].map_or(0.0, |cost| cost.counted(self.processors_busy) - cost.work)
    }

    /// Brings the other steps nearer to the best: the longer ago one was tried, the less speaks against it.
    fn forget(&mut self) {
        let Some(best) = self.costs[self.best] else { return };
        for cost in self.costs.iter_mut().flatten() {
            *cost = cost.towards(best, FORGOTTEN_SHARE);
        }
    }

    fn cheapest(&self) -> usize {
        let known = (0..LADDER.len()).filter_map(|step| Some((step, self.counted(step)?)));
        known.min_by(|one, other| one.1.total_cmp(&other.1)).map_or(self.step, |(step, _)| step)
    }

    /// The best step, or a neighbour where the allowance covers what it is expected to lose.
    fn next_step(&mut self) -> usize {
        self.try_upwards = !self.try_upwards;
        let neighbour = if self.try_upwards { self.best + 1 } else { self.best.wrapping_sub(1) };
        if !self.try_after.is_zero()
            || neighbour >= LADDER.len()
            || (self.try_upwards && self.to_gain() < self.work_min)
        {
            return self.best;
        }
        let known = self.counted(neighbour);
        let best = self.counted(self.best).unwrap_or(0.0);
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

    use super::{Adaptive, Spent};

    /// Answers `windows` of a MiB that takes the link `send` microseconds as it is; answers how many
    /// microseconds all of it took.
    fn run(adaptive: &mut Adaptive, windows: u32, send: u64, processors_busy: bool) -> u64 {
        let mut total = 0;
        for _ in 0..windows {
            let (work, blocked) = match adaptive.level() {
                None => (200, send),
                Some(1) => (2000, send / 4),
                Some(3) => (2500, send / 5),
                Some(level) => (3000 * u64::from(level.unsigned_abs()), send / 6),
            };
            let spent = Spent { work: Duration::from_micros(work), blocked: Duration::from_micros(blocked) };
            adaptive.answered(1 << 20, spent, || processors_busy);
            total += work + blocked;
        }
        total
    }

    #[test]
    fn a_fast_link_gets_none_and_trying_costs_little() {
        let total = run(&mut Adaptive::new(false, 1.0), 4000, 0, false);
        assert!(total < 4000 * 200 * 107 / 100, "{total}");
    }

    #[test]
    fn a_slow_link_gets_more() {
        let total = run(&mut Adaptive::new(true, 1.0), 400, 80_000, false);
        assert!(total < 400 * 21_000, "{total}");
    }

    #[test]
    fn a_link_that_changes_is_followed() {
        let mut adaptive = Adaptive::new(false, 1.0);
        run(&mut adaptive, 200, 80_000, false);
        let fast = run(&mut adaptive, 2000, 0, false);
        assert!(fast < 2000 * 500, "{fast}");
        let slow = run(&mut adaptive, 200, 80_000, false);
        assert!(slow < 200 * 35_000, "{slow}");
    }

    #[test]
    fn a_wait_for_a_processor_is_not_taken_for_a_slow_link() {
        let mut adaptive = Adaptive::new(false, 1.0);
        run(&mut adaptive, 10, 10_000, true);
        let total = run(&mut adaptive, 1000, 10_000, true);
        assert!(total > 1000 * 10_200 * 9 / 10, "{total}");
        let total = run(&mut adaptive, 200, 80_000, false);
        assert!(total < 200 * 25_000, "as soon as there is an idle processor: {total}");
        let total = run(&mut Adaptive::new(true, 1.0), 200, 400_000, true);
        assert!(total < 200 * 110_000, "a very slow link is known all the same: {total}");
    }
}
