//! One data connection after another, until nothing is left to do over them: dialling, resting, giving up.

use std::time::Instant;

use fastcp_net::{Choice, DataConnection, NetError};

use crate::error::RunError;
use crate::link::line::{Ending, Line};
use crate::link::patience::Patience;

/// A connection for which there is no room so often in a row is done without.
const SHORTAGES_MAX: u32 = 3;

/// Why the work on a connection stopped.
pub(crate) enum End {
    /// Nothing is left to do.
    Done,
    /// It ends, and the next one, where there is to be one, leads to such a source.
    Rest(Choice),
    /// It broke; the rest may still work.
    Broken(NetError),
    /// It was never known to be a data connection. That costs nothing but its time: the next is known before it works.
    Unanswered(NetError),
    /// The run is over.
    Fatal(RunError),
}

/// What is done over data connections.
pub(crate) trait Work {
    /// What an error says it happened during.
    const DURING: &'static str;

    /// Which of several sources will do.
    const CHOICE: Choice;

    /// Waits until there is something to do; `false` where there will be nothing more. Time that was not spent on
    /// trying is no time in vain: whoever waits for something else than work renews the patience.
    fn wait(&self, patience: &mut Patience<'_>) -> bool;

    /// Works on a connection on which nothing was asked for.
    fn run(&self, data: DataConnection) -> End;

    /// Whether a connection that is not there is no longer needed.
    fn is_over(&self) -> bool;
}

/// Whether a run can do without a connection for which there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spare {
    Yes,
    /// It stays, whatever comes.
    No,
}

impl Spare {
    /// By the connection's number among those that work at a time. What another holds may be what the others lack; the
    /// first stays.
    pub(crate) fn of(number: usize) -> Self {
        if number > 0 { Self::Yes } else { Self::No }
    }
}

impl Line<'_> {
    /// Has the work done over as many connections, one after another, as it takes.
    pub(crate) fn keep_working<W: Work>(&self, work: &W, spare: Spare) -> Result<(), RunError> {
        let mut patience = self.patience();
        let (mut is_first, mut shortages) = (true, 0);
        let mut next_choice = W::CHOICE;
        while work.wait(&mut patience) {
            let choice = std::mem::replace(&mut next_choice, W::CHOICE);
            let error = match self.work_over_one(work, choice, &mut patience, &mut is_first) {
                End::Done => {
                    // Those that are still trying to get through need not.
                    self.hang_up(Ending::Data);
                    return Ok(());
                }
                End::Rest(choice) => {
                    (is_first, next_choice) = (true, choice);
                    continue;
                }
                End::Fatal(error) => return Err(error),
                End::Unanswered(error) => {
                    tracing::debug!(%error, "no answer to a greeting");
                    continue;
                }
                End::Broken(error) => error,
            };
            if work.is_over() {
                return Ok(());
            }
            shortages = if error.is_shortage() { shortages + 1 } else { 0 };
            if spare == Spare::Yes && shortages >= SHORTAGES_MAX {
                // What it holds may be what the others lack.
                tracing::debug!(%error, "going on with one connection less");
                return Ok(());
            }
            match patience.failed(error) {
                Err(_) if work.is_over() => return Ok(()),
                Err(error) => return Err(self.gave_up(W::DURING, error)),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// Works over the connection that is kept between works, or over a new one, until it succeeds: on `tries_max`
    /// connections at most, since a work that begins anew makes no progress.
    ///
    /// # Errors
    /// The last failure: of the last try, or one after which the patience is at its end.
    pub(crate) fn over_kept<C, T>(
        &self,
        kept: &mut Option<C>,
        tries_max: u32,
        open: impl Fn(Instant) -> Result<C, NetError>,
        mut work: impl FnMut(&mut C) -> Result<T, NetError>,
    ) -> Result<T, NetError> {
        let mut patience = self.patience();
        let mut tries = 0;
        loop {
            let opened = match kept.take() {
                Some(connection) => Ok(connection),
                None => patience.attempt(&open),
            };
            let error = match opened.and_then(|connection| work(kept.insert(connection))) {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            *kept = None;
            tries += 1;
            if tries == tries_max {
                return Err(error);
            }
            patience.failed(error)?;
        }
    }

    fn work_over_one<W: Work>(
        &self,
        work: &W,
        choice: Choice,
        patience: &mut Patience<'_>,
        is_first: &mut bool,
    ) -> End {
        match patience.attempt(|deadline| self.data(choice, deadline)) {
            Err(error) => {
                self.expect_breaks();
                End::Broken(error)
            }
            Ok(data) => {
                let is_another = !std::mem::replace(is_first, false);
                self.report.counters.reconnects.add(u64::from(is_another));
                work.run(data)
            }
        }
    }
}
