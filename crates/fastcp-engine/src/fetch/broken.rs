//! What a broken connection says of the range that it was to bring.
//!
//! Connections break for many reasons, and whatever is owed is asked for again. But a range that breaks them again
//! and again, while others get through, is at fault itself: a request that ends the sender's thread, a body that
//! something on the way does not let pass. Such a range fails its file, or it would be dialled for without end. To
//! tell which range it is, one that may be to blame is asked for by itself, with nothing behind it: an answer before
//! it could be lost with it.

use std::collections::VecDeque;

use fastcp_net::NetError;

use super::{End, Fetcher, Owed};
use crate::error::RunError;
use crate::report::Cause;

/// A range fails its file when it has broken this many connections. One may be chance, two a server that was
/// restarted twice.
pub(crate) const BREAKS_MAX: u32 = 3;

/// Who may be to blame for a broken connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Suspect {
    Nobody,
    /// The first range that it owed.
    First,
}

/// Prepares what a broken connection owed for the next one.
fn leave(owed: &mut VecDeque<Owed>, error: &NetError) -> Suspect {
    for owed in owed {
        // Unproven bytes may stand there, however it ended; and it is not asked for in a bundle again.
        owed.want.attempt = owed.want.attempt.max(1);
    }
    // A shortage is an answer, though not the one that was hoped for.
    if error.is_shortage() { Suspect::Nobody } else { Suspect::First }
}

impl Fetcher<'_> {
    /// How the connection ends that broke with `error`. What it owes is told apart from what was never asked for.
    pub(super) fn end_broken(&mut self, error: NetError) -> End {
        let blamed = match leave(&mut self.owed, &error) {
            Suspect::Nobody => Ok(()),
            Suspect::First => self.blame_first(),
        };
        match blamed {
            Ok(()) => End::Broken(error),
            Err(error) => End::Fatal(error),
        }
    }

    /// Whether nothing more is to be asked for until the last request has its answer.
    pub(super) fn asks_alone(&self) -> bool {
        self.owed.back().is_some_and(|owed| owed.want.breaks.count > 0)
    }

    fn blame_first(&mut self) -> Result<(), RunError> {
        // Where nothing got through since it was dialled it is the sender, or the way to it: patience is for that.
        let others_got_through = self.transfer.report.counters.bytes_fetched.now() > self.fetched_before;
        let was_to_blame = self.owed.front().is_some_and(|owed| owed.want.breaks.count > 0);
        let is_to_blame = self.is_begun || others_got_through || was_to_blame;
        if let Some(first) = self.owed.front_mut().filter(|_| is_to_blame) {
            first.want.breaks.add(self.dialled);
        }
        let Some(first) = self.owed.front().filter(|owed| owed.want.breaks.count >= BREAKS_MAX) else { return Ok(()) };
        self.transfer.give_up(&first.want.job, Cause::Broken { connections: BREAKS_MAX })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use fastcp_model::{ByteRange, Status};
    use fastcp_net::NetError;

    use super::{Owed, Suspect, leave};
    use crate::schedule::job::tests::job;
    use crate::schedule::want::Want;

    fn owed(attempt: u32) -> Owed {
        let want = Want::fetch(job(5000), ByteRange::new(0, 5000).expect("lawful"));
        Owed { id: 0, request_bytes: 0, want: Want { attempt, ..want } }
    }

    #[test]
    fn unproven_bytes_may_stand_wherever_a_connection_ended() {
        let ends = [(NetError::Closed, Suspect::First), (NetError::Refused(Status::Busy), Suspect::Nobody)];
        for (error, suspect) in ends {
            let mut all: VecDeque<Owed> = [0, 2, 0].into_iter().map(owed).collect();
            assert_eq!(leave(&mut all, &error), suspect, "{error}");
            let attempts: Vec<u32> = all.iter().map(|owed| owed.want.attempt).collect();
            assert_eq!(attempts, [1, 2, 1], "{error}");
        }
    }
}
