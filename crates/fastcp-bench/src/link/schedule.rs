//! When a packet arrives at the other end, or why it never does.
//!
//! One [`Schedule`] is one direction of the link. It knows no clock and no packet, only times and sizes
//! that it is told, so that a test can go through an hour of traffic in a moment. The model is a router
//! in front of a long wire: a packet is lost at random, or else waits its turn at the line's rate, is
//! dropped if that wait is longer than the queue, and then travels for half the round trip.
//!
//! Turns follow a virtual clock, `departed_ns`, that advances by size over rate and not by when somebody
//! looked: whoever carries the packets may be late with one without being late with all that follow.
//! Arrival times never decrease, so packets stay in order.

use super::LinkSettings;

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It arrives at this time.
    Arrives {
        /// On the clock that the schedule was asked with.
        at_ns: u64,
    },
    /// Lost on the way, by chance.
    Lost,
    /// The queue before the line was full.
    Overflowed,
}

/// The state of one direction.
#[derive(Debug)]
pub struct Schedule {
    delay_ns: u64,
    rate_bits: u64,
    queue_ns: u64,
    loss_below: u64,
    departed_ns: u64,
    random: Random,
}

impl Schedule {
    /// An idle direction. The same seed loses the same packets, counted from the first.
    pub fn new(settings: &LinkSettings, seed: u64) -> Self {
        Self {
            delay_ns: nanos(settings.round_trip / 2),
            rate_bits: settings.rate_bits,
            queue_ns: nanos(settings.queue),
            loss_below: (settings.loss * RANDOM_RANGE) as u64,
            departed_ns: 0,
            random: Random(seed),
        }
    }

    /// Decides on a packet of `bytes` that comes at `now_ns`; times must not decrease.
    pub fn admit(&mut self, now_ns: u64, bytes: usize) -> Fate {
        if self.loss_below > 0 && self.random.next() < self.loss_below {
            return Fate::Lost;
        }
        let turn_ns = self.departed_ns.max(now_ns);
        if turn_ns - now_ns > self.queue_ns {
            return Fate::Overflowed;
        }
        self.departed_ns = turn_ns + self.line_ns(bytes);
        Fate::Arrives { at_ns: self.departed_ns + self.delay_ns }
    }

    /// How long the line is busy with this many bytes.
    fn line_ns(&self, bytes: usize) -> u64 {
        match self.rate_bits {
            0 => 0,
            rate => bytes as u64 * 8 * 1_000_000_000 / rate,
        }
    }
}

fn nanos(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// One more than the largest number of [`Random::next`]: as many bits as a share of 1 has.
const RANDOM_RANGE: f64 = (1_u64 << 53) as f64;

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) >> 11
    }
}

#[cfg(test)]
mod tests {
    use super::{Fate, Schedule};
    use crate::link::SEEDS;

    const MS: u64 = 1_000_000;

    fn schedule(settings: &str) -> Schedule {
        Schedule::new(&settings.parse().expect(settings), 1)
    }

    fn fates(schedule: &mut Schedule, now_ns: u64, bytes: usize, count: usize) -> Vec<Fate> {
        (0..count).map(|_| schedule.admit(now_ns, bytes)).collect()
    }

    #[test]
    fn a_lone_packet_takes_its_time_on_the_line_and_half_a_round_trip() {
        let mut link = schedule("50ms,12mbit,0");
        assert_eq!(link.admit(7, 1500), Fate::Arrives { at_ns: 7 + MS + 25 * MS });
        assert_eq!(link.admit(90 * MS, 1500), Fate::Arrives { at_ns: 116 * MS });
    }

    #[test]
    fn a_burst_leaves_at_the_rate_and_what_outwaits_the_queue_is_dropped() {
        let mut link = schedule("0ms,12mbit,0,3ms");
        let expected = [1, 2, 3, 4].map(|ms| Fate::Arrives { at_ns: ms * MS });
        assert_eq!(fates(&mut link, 0, 1500, 4), expected);
        assert_eq!(link.admit(0, 1500), Fate::Overflowed);
        assert_eq!(link.admit(MS, 1500), Fate::Arrives { at_ns: 5 * MS });
    }

    #[test]
    fn the_schedule_does_not_drift_when_it_is_asked_late() {
        let mut link = schedule("0ms,12mbit,0");
        fates(&mut link, 0, 1500, 10);
        assert_eq!(link.admit(9 * MS + 999_999, 1500), Fate::Arrives { at_ns: 11 * MS });
    }

    #[test]
    fn without_a_rate_there_is_no_queue() {
        let mut link = schedule("10ms,unlimited,0,0ms");
        assert!(fates(&mut link, 3, 1500, 1000).iter().all(|&fate| fate == Fate::Arrives { at_ns: 3 + 5 * MS }));
    }

    #[test]
    fn arrivals_never_go_backwards() {
        let mut link = schedule("3ms,100mbit,5%,10ms");
        let mut last_ns = 0;
        for step in 0..200_000_u64 {
            if let Fate::Arrives { at_ns } = link.admit(step * 90_000, 40 + (step as usize * 7919) % 1460) {
                assert!(at_ns >= last_ns);
                last_ns = at_ns;
            }
        }
    }

    #[test]
    fn loss_is_the_share_asked_for_and_the_same_every_time() {
        for (settings, share) in [("0ms,0,0.05%", 0.0005), ("0ms,0,1%", 0.01), ("0ms,0,30%", 0.3)] {
            let all = fates(&mut schedule(settings), 0, 1500, 1_000_000);
            assert_eq!(all, fates(&mut schedule(settings), 0, 1500, 1_000_000));
            let lost = all.iter().filter(|&&fate| fate == Fate::Lost).count() as f64;
            // Five standard deviations of the binomial distribution.
            let bound = 5.0 * f64::sqrt(1e6 * share * (1.0 - share));
            assert!((lost - 1e6 * share).abs() < bound, "{settings}: {lost} lost");
        }
    }

    #[test]
    fn other_seeds_lose_other_packets() {
        let settings = "0ms,0,1%".parse().expect("settings");
        let [mut one, mut two] = [1, 2].map(|seed| Schedule::new(&settings, seed));
        assert_ne!(fates(&mut one, 0, 1500, 10_000), fates(&mut two, 0, 1500, 10_000));
    }

    #[test]
    fn the_usual_seeds_lose_a_first_packet_neither_early_nor_late() {
        for seed in SEEDS {
            for percent in [0.01, 0.05, 0.1, 1.0] {
                let settings = format!("0ms,0,{percent}%").parse().expect("settings");
                let mut link = Schedule::new(&settings, seed);
                let before = (0..).take_while(|_| link.admit(0, 1500) != Fate::Lost).count() as f64;
                let median = f64::ln(2.0) / (percent / 100.0);
                assert!((median / 3.0..median * 3.0).contains(&before), "{seed}, {percent} %: after {before}");
            }
        }
    }

    #[test]
    fn all_or_nothing_can_be_lost() {
        assert!(fates(&mut schedule("0ms,0,100%"), 0, 99, 10_000).iter().all(|&fate| fate == Fate::Lost));
        assert!(fates(&mut schedule("0ms,0,0"), 0, 99, 10_000).iter().all(|&fate| fate != Fate::Lost));
    }
}
