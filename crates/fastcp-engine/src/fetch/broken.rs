//! What a broken connection says of the range that it was to bring.

use fastcp_net::NetError;

use super::{End, Fetcher};
use crate::breaks::BREAKS_MAX;
use crate::error::RunError;
use crate::link::pipeline::Pipeline;
use crate::report::Cause;
use crate::schedule::want::Want;

/// Who may be to blame for a broken connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Suspect {
    Nobody,
    /// The first range that it owed.
    First,
}

/// Prepares what a broken connection owed for the next one.
fn leave(owed: &mut Pipeline<Want>, error: &NetError) -> Suspect {
    for want in owed.iter_mut() {
        // Unproven bytes may stand there, however it ended; and it is not asked for in a bundle again.
        want.attempt = want.attempt.max(1);
    }
    // A shortage is an answer, though not the one that was hoped for.
    if error.is_shortage() { Suspect::Nobody } else { Suspect::First }
}

impl Fetcher<'_> {
    /// How the connection ends that broke with `error`. What it owes is told apart from what was never asked for.
    pub(super) fn end_broken(&mut self, error: NetError) -> End {
        let blamed = match leave(&mut self.owed, &error) {
            Suspect::First => self.blame_first(),
            Suspect::Nobody => Ok(()),
        };
        match blamed {
            Ok(()) => End::Broken(error),
            Err(error) => End::Fatal(error),
        }
    }

    /// Whether nothing more is to be asked for until the last request has its answer.
    pub(super) fn asks_alone(&self) -> bool {
        self.owed.last().is_some_and(|want| want.breaks.is_suspect())
    }

    fn blame_first(&mut self) -> Result<(), RunError> {
        // Where nothing got through since it was dialled it is the sender, or the way to it: patience is for that.
        let others_got_through = self.transfer.report.run.proven() > self.proven_before;
        let was_to_blame = self.owed.first().is_some_and(|want| want.breaks.is_suspect());
        let is_to_blame = self.is_begun || others_got_through || was_to_blame;
        if let Some(first) = self.owed.first_mut().filter(|_| is_to_blame) {
            first.breaks.add(self.dialled);
        }
        let Some(first) = self.owed.first().filter(|want| want.breaks.are_too_many()) else { return Ok(()) };
        self.transfer.give_up(&first.job, Cause::Broken { connections: BREAKS_MAX })
    }
}

#[cfg(test)]
mod tests {
    use fastcp_model::{ByteRange, Status};
    use fastcp_net::NetError;

    use super::{Suspect, leave};
    use crate::link::pipeline::Pipeline;
    use crate::schedule::job::tests::job;
    use crate::schedule::want::Want;

    fn want(attempt: u32) -> Want {
        Want { attempt, ..Want::fetch(job(5000), ByteRange::new(0, 5000).expect("lawful")) }
    }

    #[test]
    fn unproven_bytes_may_stand_wherever_a_connection_ended() {
        let ends = [(NetError::Closed, Suspect::First), (NetError::Refused(Status::Busy), Suspect::Nobody)];
        for (error, suspect) in ends {
            let mut owed = Pipeline::default();
            owed.put_together([0, 2, 0].map(want), |_| {});
            assert_eq!(leave(&mut owed, &error), suspect, "{error}");
            let attempts: Vec<u32> = owed.into_owed().map(|want| want.attempt).collect();
            assert_eq!(attempts, [1, 2, 1], "{error}");
        }
    }
}
