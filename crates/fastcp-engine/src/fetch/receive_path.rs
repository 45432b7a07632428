//! How bytes get from the socket into a file, chosen by what each way costs.
//!
//! Copying is `recv`, CRC, `pwrite`; splicing moves pages and reads them back for the CRC. Which is
//! cheaper depends on the kernel and the file system, so both are timed, by the processor time of the
//! thread: waiting for the network counts for nothing. The dearer way is tried again now and then.

use std::time::Duration;

use crate::settings::ReceivePath;

/// Bytes between two tries of the way that was dearer.
const TRY_EVERY_BYTES: u64 = 256 << 20;
/// Bytes that are received by the usual way before the other is tried first.
const FIRST_TRY_BYTES: u64 = 16 << 20;
/// How much cheaper splicing must be to be chosen: its pipe is a descriptor and a buffer more.
const GAIN: f64 = 0.9;
/// The weight of a new body against what was known.
const NEW_WEIGHT: f64 = 0.3;

/// One of the two ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Copy,
    Splice,
}

/// Chooses for each body.
#[derive(Debug)]
pub(crate) struct WayChoice {
    path: ReceivePath,
    /// Nanoseconds of processor time for each byte.
    copy: Option<f64>,
    splice: Option<f64>,
    until_try: u64,
}

impl WayChoice {
    pub(crate) fn new(path: ReceivePath) -> Self {
        Self { path, copy: None, splice: None, until_try: FIRST_TRY_BYTES }
    }

    /// How the next body is received.
    pub(crate) fn next(&self) -> Way {
        match (self.path, self.cheaper(), self.until_try) {
            (ReceivePath::Copy, ..) | (ReceivePath::Auto, Way::Copy, 1..) | (ReceivePath::Auto, Way::Splice, 0) => {
                Way::Copy
            }
            (ReceivePath::Splice, ..) | (ReceivePath::Auto, Way::Splice, 1..) | (ReceivePath::Auto, Way::Copy, 0) => {
                Way::Splice
            }
        }
    }

    /// Whether what bodies cost is of interest.
    pub(crate) fn is_open(&self) -> bool {
        self.path == ReceivePath::Auto
    }

    /// A body was received.
    pub(crate) fn took(&mut self, way: Way, bytes: u64, spent: Duration) {
        let seen = spent.as_nanos() as f64 / bytes.max(1) as f64;
        let known = match way {
            Way::Copy => &mut self.copy,
            Way::Splice => &mut self.splice,
        };
        *known = Some(known.map_or(seen, |known| known + NEW_WEIGHT * (seen - known)));
        self.until_try = match self.until_try {
            0 => TRY_EVERY_BYTES,
            left => left.saturating_sub(bytes),
        };
    }

    /// Splicing cannot be done here.
    pub(crate) fn rule_out_splice(&mut self) {
        self.path = ReceivePath::Copy;
    }

    fn cheaper(&self) -> Way {
        match (self.copy, self.splice) {
            (Some(copy), Some(splice)) if splice < copy * GAIN => Way::Splice,
            _ => Way::Copy,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Way, WayChoice};
    use crate::settings::ReceivePath;

    /// Receives a GiB, a MiB at a time; answers how many bodies were spliced.
    fn spliced(choice: &mut WayChoice, copy_micros: u64, splice_micros: u64) -> usize {
        (0..1024)
            .filter(|_| {
                let way = choice.next();
                let micros = if way == Way::Copy { copy_micros } else { splice_micros };
                choice.took(way, 1 << 20, Duration::from_micros(micros));
                way == Way::Splice
            })
            .count()
    }

    #[test]
    fn the_cheaper_way_is_found_and_a_change_is_noticed() {
        let mut choice = WayChoice::new(ReceivePath::Auto);
        assert!((1..10).contains(&spliced(&mut choice, 200, 300)));
        spliced(&mut choice, 200, 100);
        assert!(spliced(&mut choice, 200, 100) > 1000);
        spliced(&mut choice, 200, 400);
        assert!(spliced(&mut choice, 200, 400) < 10);
    }

    #[test]
    fn what_was_ordered_is_done() {
        assert_eq!(spliced(&mut WayChoice::new(ReceivePath::Copy), 200, 100), 0);
        assert_eq!(spliced(&mut WayChoice::new(ReceivePath::Splice), 100, 200), 1024);
        let mut choice = WayChoice::new(ReceivePath::Auto);
        choice.rule_out_splice();
        assert_eq!(spliced(&mut choice, 200, 100), 0);
    }
}
