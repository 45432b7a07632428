//! Ends long work on one file when the run is stopped.

use std::io;

use crate::schedule::Schedule;

/// The stop is looked at once in so many bytes: looking takes the schedule's lock.
const LOOK_BYTES: u64 = 4 << 20;

/// Told of all bytes that are worked on, in whatever steps.
pub(crate) struct StopWatch<'a> {
    schedule: &'a Schedule,
    since_look: u64,
}

impl<'a> StopWatch<'a> {
    pub(crate) fn new(schedule: &'a Schedule) -> Self {
        Self { schedule, since_look: 0 }
    }

    /// # Errors
    /// `Interrupted` where the run is stopped.
    pub(crate) fn passed(&mut self, bytes: u64) -> io::Result<()> {
        self.since_look = self.since_look.saturating_add(bytes);
        if self.since_look < LOOK_BYTES {
            return Ok(());
        }
        self.since_look = 0;
        if self.schedule.is_stopped() { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::{LOOK_BYTES, StopWatch};
    use crate::schedule::{Bounds, Bundling, Cut, HoldBack, Schedule};

    #[test]
    fn zeros_without_end_end_with_the_run() {
        let schedule = Schedule::new(1, HoldBack::No, Cut::AtChunks, Bundling::No, Bounds::default());
        let mut stop = StopWatch::new(&schedule);
        let mut put_bytes = 0;
        let ended = crate::content::zeros::put_zeros(u64::MAX, |zeros| {
            put_bytes += zeros.len() as u64;
            if put_bytes > 10 * LOOK_BYTES {
                schedule.stop();
            }
            stop.passed(zeros.len() as u64)
        });
        assert_eq!(ended.expect_err("stopped").kind(), std::io::ErrorKind::Interrupted);
        assert!(put_bytes <= 12 * LOOK_BYTES);
    }
}
