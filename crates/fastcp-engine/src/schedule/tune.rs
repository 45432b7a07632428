//! How many connections work, for `--conns auto`.
//!
//! A hill climb on throughput. Connections are doubled as long as that brings a tenth more, and become four times as
//! many where each new one brought as much as those before; when it does
//! not, the new ones go again, and now and then a few of the others too, as long as nothing is lost by
//! it. A window passes unjudged after each change: new connections have to get up to speed. After a try
//! in vain the next one waits twice as long; a throughput that falls is news and ends the wait. A link that gives each connection little (losses, a congestion control that takes every
//! loss for a full link, a limit for each stream) ends up with many, a fast one with few.

use std::time::Duration;

/// Where it starts.
const START: u16 = 4;
/// What more connections must bring to be kept.
const GAIN: f64 = 1.10;
/// Where so much of what they would bring in proportion is there, it is the connections that are slow.
const IN_PROPORTION: f64 = 0.85;
/// What fewer connections must keep of it.
const KEPT: f64 = 0.97;
/// A fall to less than this is news.
const FALLEN: f64 = 0.85;
/// The weight of a new window against what was known.
const NEW_WEIGHT: f64 = 0.25;
/// Windows before the first try of more connections.
const MORE_WAIT: u32 = 1;
/// The same for fewer: that only saves threads, and costs throughput where it fails.
const FEWER_WAIT: u32 = 8;
/// The longest wait between tries, in windows.
const WAIT_MAX: u32 = 64;
/// A window is this many round trips, and at least [`WINDOW_MIN`].
const WINDOW_ROUND_TRIPS: u32 = 6;
const WINDOW_MIN: Duration = Duration::from_millis(100);

/// Decides, window by window.
#[derive(Debug)]
pub(crate) struct Tuner {
    active: u16,
    connections_max: u16,
    /// What was settled on, and its throughput.
    settled: u16,
    rate: f64,
    trial: Option<Direction>,
    /// The window after a change is not judged.
    settling: bool,
    more: Trial,
    fewer: Trial,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    More,
    Fewer,
}

/// When a direction is tried again.
#[derive(Debug)]
struct Trial {
    due: u32,
    next_wait: u32,
}

impl Trial {
    fn new(wait: u32) -> Self {
        Self { due: wait, next_wait: wait }
    }

    fn failed(&mut self) {
        self.next_wait = (self.next_wait * 2).min(WAIT_MAX);
        self.due = self.next_wait;
    }
}

impl Tuner {
    /// At most `connections_max` connections.
    pub(crate) fn new(connections_max: u16) -> Self {
        let start = START.min(connections_max).max(1);
        Self {
            active: start,
            connections_max,
            settled: start,
            rate: 0.0,
            trial: None,
            settling: false,
            more: Trial::new(MORE_WAIT),
            fewer: Trial::new(FEWER_WAIT),
        }
    }

    /// How many connections work now.
    pub(crate) fn active(&self) -> u16 {
        self.active
    }

    /// A window has passed with this throughput.
    pub(crate) fn window(&mut self, rate: f64) {
        if std::mem::take(&mut self.settling) {
            return;
        }
        match self.trial.take() {
            Some(direction) => self.judge(direction, rate),
            None => self.rest(rate),
        }
    }

    fn judge(&mut self, direction: Direction, rate: f64) {
        let share_wanted = match direction {
            Direction::More => GAIN,
            Direction::Fewer => KEPT,
        };
        if rate >= self.rate * share_wanted {
            let in_proportion = self.rate * f64::from(self.active) / f64::from(self.settled);
            let times = if rate >= in_proportion * IN_PROPORTION { 4 } else { 2 };
            (self.settled, self.rate) = (self.active, rate);
            self.try_out(direction, times);
            return;
        }
        (self.active, self.settling) = (self.settled, true);
        self.patience(direction).failed();
    }

    fn rest(&mut self, rate: f64) {
        if rate < self.rate * FALLEN {
            (self.rate, self.more, self.fewer) = (rate, Trial::new(MORE_WAIT), Trial::new(FEWER_WAIT));
            return self.try_out(Direction::More, 2);
        }
        self.rate = if self.rate == 0.0 { rate } else { self.rate + NEW_WEIGHT * (rate - self.rate) };
        for direction in [Direction::More, Direction::Fewer] {
            let patience = self.patience(direction);
            patience.due = patience.due.saturating_sub(1);
            if patience.due == 0 && self.trial.is_none() {
                self.try_out(direction, 2);
            }
        }
    }

    /// More connections are so many times as many.
    fn try_out(&mut self, direction: Direction, times: u16) {
        let tried = match direction {
            Direction::More => self.settled.saturating_mul(times).min(self.connections_max),
            Direction::Fewer => self.settled - self.settled.div_ceil(4).min(self.settled - 1),
        };
        self.active = tried;
        if tried == self.settled {
            self.patience(direction).failed();
        } else {
            (self.trial, self.settling) = (Some(direction), true);
        }
    }

    fn patience(&mut self, direction: Direction) -> &mut Trial {
        match direction {
            Direction::More => &mut self.more,
            Direction::Fewer => &mut self.fewer,
        }
    }
}

/// How long a window is.
pub(crate) fn window_for(round_trip: Duration) -> Duration {
    (round_trip * WINDOW_ROUND_TRIPS).max(WINDOW_MIN)
}

#[cfg(test)]
mod tests {
    use super::Tuner;

    /// Runs windows on a link, and answers how many connections each had.
    fn run(tuner: &mut Tuner, windows: usize, rate: impl Fn(u16) -> f64) -> Vec<u16> {
        (0..windows)
            .map(|_| {
                let active = tuner.active();
                tuner.window(rate(active));
                active
            })
            .collect()
    }

    fn mean(counts: &[u16]) -> f64 {
        counts.iter().copied().map(f64::from).sum::<f64>() / counts.len() as f64
    }

    #[test]
    fn a_link_that_gives_each_connection_little_gets_many() {
        let mut tuner = Tuner::new(64);
        let counts = run(&mut tuner, 60, |active| f64::from(active) * 10.0);
        assert_eq!(&counts[..6], [4, 8, 8, 32, 32, 64]);
        assert!(mean(&counts[6..]) > 59.0, "{counts:?}");
    }

    #[test]
    fn a_full_link_gets_no_more_than_it_needs() {
        let mut tuner = Tuner::new(64);
        let counts = run(&mut tuner, 90, |active| f64::from(active.min(6)) * 10.0);
        assert!(counts.iter().all(|&count| count <= 16), "{counts:?}");
        let late = mean(&counts[40..]);
        assert!((5.0..9.0).contains(&late), "{counts:?}");
    }

    #[test]
    fn where_one_is_enough_the_others_go() {
        let mut tuner = Tuner::new(64);
        let counts = run(&mut tuner, 120, |_| 100.0);
        assert!(counts.iter().all(|&count| count <= 8), "{counts:?}");
        assert_eq!(counts[119], 1, "{counts:?}");
    }

    #[test]
    fn a_fall_is_news() {
        let mut tuner = Tuner::new(64);
        run(&mut tuner, 120, |_| 100.0);
        let counts = run(&mut tuner, 30, f64::from);
        assert!(counts.contains(&64), "{counts:?}");
    }

    #[test]
    fn the_server_may_allow_only_one() {
        let mut tuner = Tuner::new(1);
        let counts = run(&mut tuner, 20, f64::from);
        assert!(counts.iter().all(|&count| count == 1));
    }
}
