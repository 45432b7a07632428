//! How hard to compress, learnt from what the processor and the network each need.
//!
//! A connection is as fast as the slower of two: this end, which reads and compresses, and the network, which carries
//! what came of it. For each step of a ladder of levels both are estimated, in nanoseconds for each byte of file: the
//! work, and the share of the bytes that is left times what the network needs for a byte. A step that is being
//! used is measured, the others follow it in proportion. What the network needs the kernel says: how long it was
//! busy with how many bytes, less the time in which the receiver had no room. So a receiver that is slow, be it for
//! its disk or for want of a processor, is not taken for a slow network, and nothing has to be sent uncompressed to
//! learn how long that would take.

use std::time::Duration;

/// The steps: nothing, then zstd levels, with what is expected of each before it is known.
const LADDER: [Step; 5] = [
    Step { level: None, work: 0.3, left: 1.0 },
    Step { level: Some(1), work: 2.0, left: 0.5 },
    Step { level: Some(3), work: 3.0, left: 0.49 },
    Step { level: Some(5), work: 9.0, left: 0.46 },
    Step { level: Some(7), work: 15.0, left: 0.43 },
];
/// File bytes after which a step is judged.
const WINDOW_BYTES: u64 = 1 << 20;
/// The network is judged by no fewer bytes, and by as many as take it this long, unless they are very many: the
/// kernel's clock for it goes in steps of up to 10 ms.
const CARRIED_BYTES_MIN: u64 = 64 << 10;
const CARRIED_TIME_MIN: Duration = Duration::from_millis(20);
const CARRIED_BYTES_MANY: u64 = 4 << 20;
/// Where the other end is near, nothing is changed before a connection has been busy this long: by then it is known
/// who waits for whom, and a short transfer is over.
const WAIT_NEAR: Duration = Duration::from_millis(200);
/// The weight of a new window against what was known.
const NEW_WEIGHT: f64 = 0.4;
/// A window counts for no more than so many times the work that was known.
const HICCUP: f64 = 4.0;
/// How much of what is known of how bytes shrink is forgotten with each window: the next file may be of another kind.
const FORGOTTEN_SHARE: f64 = 0.02;
/// How much faster than it was seen to be the network may be with each window in which nothing waited for it.
const HOPE_SHARE: f64 = 0.02;
/// Another level must promise to be so much faster.
const GAIN_MIN: f64 = 0.03;
/// The same for compression at all: how much bytes shrink, and how much of a processor there is, is a guess before.
const GAIN_MIN_FIRST: f64 = 0.3;
/// What the faster of the two counts beside the slower one: of two steps that are held up alike by the network, the one
/// with less work is better.
const OTHER_WEIGHT: f64 = 0.03;

/// One step of the ladder.
#[derive(Debug, Clone, Copy)]
struct Step {
    level: Option<i32>,
    /// Nanoseconds of reading and compressing for each byte of file.
    work: f64,
    /// How many bytes are left of each.
    left: f64,
}

#[derive(Debug)]
pub(crate) struct Adaptive {
    steps: [Step; LADDER.len()],
    step: usize,
    /// What the network needs for each byte, in nanoseconds; `None` before it was seen.
    network: Option<f64>,
    window: Answered,
    /// What the kernel had said when the window began.
    before: Carried,
    /// How long to be busy yet before anything is changed.
    wait: Duration,
    /// By how many a processor is shared, at least one.
    sharing: f64,
}

/// Answers that were given.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Answered {
    /// Of files.
    pub(crate) file_bytes: u64,
    /// What they took on the wire.
    pub(crate) wire_bytes: u64,
    /// Reading and compressing.
    pub(crate) work: Duration,
    /// Waiting for the socket.
    pub(crate) blocked: Duration,
}

/// What the network has done for a connection since that was made.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Carried {
    /// Bytes that the other end has.
    pub(crate) bytes: u64,
    /// How long the network, and nothing else, held more of them up.
    pub(crate) time: Duration,
    /// Bytes that wait to be sent now.
    pub(crate) waiting_bytes: u64,
}

impl Step {
    /// Nanoseconds for each byte of file.
    fn cost(&self, network: f64) -> f64 {
        let (work, carried) = (self.work, self.left * network);
        work.max(carried) + OTHER_WEIGHT * work.min(carried)
    }
}

impl Adaptive {
    /// Starts with a guess: where the other end is far, a short transfer likely gains by compression.
    /// `connections_for_each_processor` is by how many a processor is shared.
    pub(crate) fn new(is_far: bool, connections_for_each_processor: f64) -> Self {
        let sharing = connections_for_each_processor.max(1.0);
        let shared = |step: Step| Step { work: step.work * sharing, ..step };
        Self {
            steps: LADDER.map(shared),
            step: usize::from(is_far),
            network: None,
            window: Answered::default(),
            before: Carried::default(),
            wait: if is_far { Duration::ZERO } else { WAIT_NEAR },
            sharing,
        }
    }

    /// The zstd level to use now; `None` for no compression.
    pub(crate) fn level(&self) -> Option<i32> {
        LADDER[self.step].level
    }

    /// Takes note of answers at the present level. `carried` is asked when there is something to judge.
    pub(crate) fn answered(&mut self, answered: Answered, carried: impl FnOnce() -> Carried) {
        self.window.file_bytes += answered.file_bytes;
        self.window.wire_bytes += answered.wire_bytes;
        self.window.work += answered.work;
        self.window.blocked += answered.blocked;
        if self.window.file_bytes >= WINDOW_BYTES {
            self.close_window(carried());
        }
    }

    fn close_window(&mut self, carried: Carried) {
        let window = std::mem::take(&mut self.window);
        self.wait = self.wait.saturating_sub(window.work + window.blocked);
        self.learn_step(window);
        self.learn_network(carried);
        self.forget();
        if self.wait.is_zero()
            && let Some(network) = self.network
        {
            self.step = self.best(network);
        }
    }

    /// What holds for one level holds for the others in proportion: a processor that is shared with others, text that
    /// shrinks better.
    fn learn_step(&mut self, window: Answered) {
        let bytes = window.file_bytes as f64;
        let (work, left) = (window.work.as_nanos() as f64 / bytes, (window.wire_bytes as f64 / bytes).min(1.0));
        let towards = |known: f64, seen: f64| known + NEW_WEIGHT * (seen - known);
        let now = self.steps[self.step];
        // A disk that had to be waited for, or a processor, once is not what compressing takes.
        let work = work.min(now.work * HICCUP);
        let (work, left) = (towards(now.work, work).max(f64::MIN_POSITIVE), towards(now.left, left).max(1e-6));
        if now.level.is_none() {
            self.steps[self.step].work = work;
            return;
        }
        for step in self.steps.iter_mut().filter(|step| step.level.is_some()) {
            step.work *= work / now.work;
            step.left = (step.left * left / now.left).min(1.0);
        }
    }

    fn learn_network(&mut self, carried: Carried) {
        let bytes = carried.bytes.saturating_sub(self.before.bytes);
        let time = carried.time.saturating_sub(self.before.time);
        if bytes < CARRIED_BYTES_MIN || (bytes < CARRIED_BYTES_MANY && time < CARRIED_TIME_MIN) {
            return;
        }
        self.before = carried;
        let seen = time.as_nanos() as f64 / bytes as f64;
        self.network = Some(match self.network {
            None => seen,
            Some(known) if carried.waiting_bytes > 0 => known + NEW_WEIGHT * (seen - known),
            // It could have carried more.
            Some(known) => known.min(seen) * (1.0 - HOPE_SHARE),
        });
    }

    /// The bytes to come may shrink as bytes usually do, or, where some were compressed just now, as those did. Where none
    /// are, the processor may have become as free as it usually is.
    fn forget(&mut self) {
        let (now, usual_now) = (self.steps[self.step], LADDER[self.step]);
        let alike = if now.level.is_some() { now.left / usual_now.left } else { 1.0 };
        for (step, usual) in self.steps.iter_mut().zip(LADDER) {
            if usual.level.is_some() && usual.level != now.level {
                step.left += FORGOTTEN_SHARE * ((usual.left * alike).min(1.0) - step.left);
                if now.level.is_none() {
                    step.work += FORGOTTEN_SHARE * (usual.work * self.sharing - step.work);
                }
            }
        }
    }

    /// The best of all steps, if it is better than this one.
    fn best(&self, network: f64) -> usize {
        let gain_min = if self.level().is_some() { GAIN_MIN } else { GAIN_MIN_FIRST };
        let enough = self.steps[self.step].cost(network) * (1.0 - gain_min);
        let costs = self.steps.iter().map(|step| step.cost(network)).enumerate();
        let better = costs.filter(|(_, cost)| *cost < enough);
        better.min_by(|one, other| one.1.total_cmp(&other.1)).map_or(self.step, |(step, _)| step)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Adaptive, Answered, Carried};

    /// A connection over a network that needs `network` nanoseconds for a byte, and a processor of which the levels
    /// need as many as `work` says.
    struct Line {
        adaptive: Adaptive,
        network: f64,
        receiver: f64,
        work: fn(Option<i32>) -> f64,
        left: fn(Option<i32>) -> f64,
        carried: Carried,
        /// File bytes that went without compression, in MiB.
        raw: u32,
        /// What the next answer takes longer.
        hiccup: Duration,
    }

    const MIB: f64 = (1 << 20) as f64;

    fn work(level: Option<i32>) -> f64 {
        match level {
            None => 0.3,
            Some(1) => 2.0,
            Some(3) => 3.0,
            Some(5) => 8.0,
            Some(_) => 17.0,
        }
    }

    fn left(level: Option<i32>) -> f64 {
        match level {
            None => 1.0,
            Some(1) => 0.13,
            Some(3) => 0.132,
            Some(5) => 0.118,
            Some(_) => 0.112,
        }
    }

    impl Line {
        fn new(is_far: bool, network: f64) -> Self {
            let adaptive = Adaptive::new(is_far, 1.0);
            Self {
                adaptive,
                network,
                receiver: 0.0,
                work,
                left,
                carried: Carried::default(),
                raw: 0,
                hiccup: Duration::ZERO,
            }
        }

        /// Answers so many MiB; answers how many nanoseconds each byte of file took.
        fn run(&mut self, windows: u32) -> f64 {
            let mut total = 0.0;
            for _ in 0..windows {
                let level = self.adaptive.level();
                self.raw += u32::from(level.is_none());
                let (work, wire) = ((self.work)(level), (self.left)(level));
                let (network, receiver) = (wire * self.network, self.receiver);
                total += work.max(network).max(receiver);
                self.carried.bytes += (wire * MIB) as u64;
                // What the receiver has no room for is not the network's fault.
                self.carried.time += Duration::from_nanos((network * MIB) as u64);
                self.carried.waiting_bytes = u64::from(network.max(receiver) > work) << 20;
                let work = Duration::from_nanos((work * MIB) as u64);
                let blocked =
                    Duration::from_nanos((((network.max(receiver) - (self.work)(level)).max(0.0)) * MIB) as u64);
                let work = work + std::mem::take(&mut self.hiccup);
                let answered = Answered { file_bytes: 1 << 20, wire_bytes: (wire * MIB) as u64, work, blocked };
                let carried = self.carried;
                self.adaptive.answered(answered, || carried);
            }
            total / f64::from(windows)
        }
    }

    #[test]
    fn a_fast_network_gets_none_and_trying_costs_little() {
        for is_far in [false, true] {
            let took = Line::new(is_far, 0.1).run(4000);
            assert!(took < 0.3 * 1.05, "{took}");
        }
    }

    #[test]
    fn a_slow_network_gets_as_much_as_the_processor_can_do_and_nothing_raw() {
        // 100 Mbit/s, and an eighth of that.
        for (network, best) in [(80.0, 9.44), (640.0, 71.7)] {
            let mut line = Line::new(true, network);
            let took = line.run(400);
            assert!(took < best * 1.03 && line.raw == 0, "{took} and {} MiB raw", line.raw);
        }
    }

    #[test]
    fn a_network_that_changes_is_followed() {
        let mut line = Line::new(false, 80.0);
        line.run(1000);
        line.network = 0.1;
        line.run(300);
        let fast = line.run(2000);
        assert!(fast < 0.3 * 1.05, "{fast}");
        line.network = 80.0;
        line.run(20);
        let slow = line.run(200);
        assert!(slow < 10.0, "{slow}");
    }

    #[test]
    fn a_receiver_that_is_slow_is_not_taken_for_a_slow_network() {
        let mut line = Line::new(false, 0.1);
        line.receiver = 20.0;
        line.run(2000);
        assert_eq!(line.raw, 2000);
    }

    #[test]
    fn bytes_that_do_not_shrink_go_as_they_are_until_others_come() {
        let mut line = Line::new(true, 80.0);
        line.left = |_| 1.0;
        line.work = |level| if level.is_some() { 0.4 } else { 0.3 };
        let took = line.run(500);
        assert!(took < 80.0 * 1.01, "{took}");
        (line.left, line.work) = (left, work);
        line.run(60);
        let took = line.run(300);
        assert!(took < 9.44 * 1.05, "{took}");
    }

    #[test]
    fn a_near_end_is_left_alone_at_first_and_no_longer() {
        // A MiB takes 84 ms as it is.
        let mut line = Line::new(false, 80.0);
        line.run(100);
        assert_eq!(line.raw, 3);
    }

    #[test]
    fn a_hiccup_is_forgotten() {
        for (network, best, hiccup_ms) in [(20.0, 2.6, 50), (80.0, 9.44, 1000), (80.0, 9.44, 100_000)] {
            let mut line = Line::new(true, network);
            line.run(100);
            line.hiccup = Duration::from_millis(hiccup_ms);
            line.run(200);
            let took = line.run(500);
            assert!(took < best * 1.05, "{took} for {best} after {hiccup_ms} ms");
        }
    }

    #[test]
    fn a_processor_that_was_busy_for_a_while_is_used_again() {
        let mut line = Line::new(true, 80.0);
        line.work = |level| work(level) * if level.is_some() { 50.0 } else { 1.0 };
        line.run(100);
        line.work = work;
        line.run(400);
        let took = line.run(500);
        assert!(took < 9.44 * 1.05, "{took}");
    }
}
