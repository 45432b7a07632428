//! One data connection after another, until nothing is left to fetch: dialling, resting, giving up.

use super::{End, Fetcher};
use crate::commit::transfer::Transfer;
use crate::error::RunError;
use crate::link::line::Ending;
use crate::schedule::Turn;

/// A connection for which there is no room so often in a row is done without.
const SHORTAGES_MAX: u32 = 3;

impl Transfer<'_> {
    /// Fetches until nothing is left, over as many connections, one after another, as it takes.
    /// `connection` is a number that tells those that work at a time apart.
    pub(crate) fn run_connection(&self, connection: usize) -> Result<(), RunError> {
        let mut patience = self.line.patience();
        let (mut is_first, mut shortages) = (true, 0);
        while let Some(turn) = self.schedule.wait_for_turn(connection) {
            if turn == Turn::AfterRest {
                patience.renew();
            }
            let error = match patience.attempt(|deadline| self.line.data(deadline)) {
                Err(error) => error,
                Ok(dialled) => {
                    self.report.counters.reconnects.add(u64::from(!is_first));
                    is_first = false;
                    match Fetcher::new(self, &dialled, connection).run() {
                        End::Done => {
                            // Those that are still trying to get through need not.
                            self.line.hang_up(Ending::Data);
                            return Ok(());
                        }
                        End::Rest => {
                            is_first = true;
                            continue;
                        }
                        End::Fatal(error) => return Err(error),
                        End::Broken(error) => error,
                    }
                }
            };
            if self.schedule.is_finished() {
                return Ok(());
            }
            shortages = if error.is_shortage() { shortages + 1 } else { 0 };
            if connection > 0 && shortages >= SHORTAGES_MAX {
                // What it holds may be what the others lack. The first connection stays, whatever comes.
                tracing::debug!(connection, %error, "going on with one connection less");
                return Ok(());
            }
            match patience.failed(error) {
                Err(_) if self.schedule.is_finished() => return Ok(()),
                Err(error) => return Err(self.line.gave_up("fetching", error)),
                Ok(()) => {}
            }
        }
        Ok(())
    }
}
