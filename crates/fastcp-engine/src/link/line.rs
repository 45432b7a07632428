//! The line to the sender: a session for as long as the transfer lasts.
//!
//! A session ends when its control connection does, or its server. Then whoever reads that connection opens it anew,
//! under the same terms; the plan is the receiver's and survives. The line knows every connection that was made over
//! it, so that the end of a run need not wait for a peer that says nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fastcp_net::{
    Agreed, Ahead, Attachment, Attempt, Choice, ConnectionSource, DataConnection, Live, NetError, Session, Terms,
};

use crate::budget::{Budget, Limits};
use crate::error::RunError;
use crate::link::patience::{Patience, absence_max, answer_max, silence_max};
use crate::lock::{Guard, Lock};
use crate::report::{Event, Report};
use crate::settings::LinkSettings;

pub(crate) struct Line<'a> {
    source: &'a dyn ConnectionSource,
    pub(super) report: &'a Report,
    retry: Duration,
    /// What there is to be had of descriptors, threads and memory.
    pub(crate) budget: Budget,
    /// What was agreed when the line was opened, and holds from then on.
    pub(crate) agreed: Agreed,
    session: Lock<Arc<Session>>,
    live: Arc<Live>,
    /// A connection has broken.
    has_broken: AtomicBool,
    /// The source that was last seen to lead.
    led_by: AtomicUsize,
}

/// Which connections end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// All but the control connection of the session.
    Data,
    All,
}

/// Which attempt it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nth {
    First,
    /// Some of what comes has come before.
    Again,
}

impl<'a> Line<'a> {
    /// Opens the first session, trying for as long as the settings say, or until `live` is ended. What is sent ahead is
    /// answered on its control connection.
    pub(crate) fn open(
        source: &'a dyn ConnectionSource,
        settings: &LinkSettings,
        limits: &Limits,
        report: &'a Report,
        live: Arc<Live>,
        ahead: Ahead<'_>,
    ) -> Result<Self, RunError> {
        let budget = Budget::of(settings.connections, limits, source.is_in_this_process());
        match budget.limited {
            Some(limited) if limited.connections == 0 => return Err(RunError::TooLittle(limited)),
            Some(limited) => report.tell(Event::Limited(limited)),
            None => {}
        }
        let terms =
            Terms { capabilities: settings.capabilities, connections: budget.connections, chunk_kb: settings.chunk_kb };
        let ahead = Ahead { connections: ahead.connections.min(budget.connections), ..ahead };
        let retry = settings.retry;
        let address = source.peer_name();
        let opened = Patience::new(&live, report, address.clone(), retry)
            .persist(|deadline| source.session(&terms, ahead, attempt(&live, retry, deadline)));
        let session = match opened {
            Ok(session) => session,
            Err(source) if source.is_transient() => {
                return Err(RunError::NoAnswer { address, seconds: retry.as_secs(), source });
            }
            Err(source) => return Err(RunError::Net { during: "opening the session", source }),
        };
        let agreed = session.agreed;
        let line = Self {
            source,
            report,
            retry,
            budget,
            agreed,
            session: Lock::leaf(Arc::new(session)),
            live,
            has_broken: AtomicBool::new(false),
            led_by: AtomicUsize::new(0),
        };
        line.lead();
        Ok(line)
    }

    /// Which of several sources leads now. Where it is another one than before, that is told, and what is offered from now
    /// on is offered by it.
    pub(crate) fn lead(&self) -> usize {
        let lead = self.source.lead();
        let before = self.led_by.swap(lead, Ordering::Relaxed);
        if before != lead {
            let (lost, lead) = (self.name_of(before), self.name_of(lead));
            self.report.tell(Event::SourceLost { lost, lead });
        }
        let session = self.session();
        if lead != session.source {
            // Whoever reads it opens another session.
            session.control.hang_up();
        }
        lead
    }

    /// Whether a connection to this one of several sources had better be made anew, to another.
    pub(crate) fn is_crowded(&self, source: usize) -> bool {
        self.source.is_crowded(source)
    }

    /// What people call one of several sources.
    pub(crate) fn name_of(&self, source: usize) -> String {
        self.source.name_of(source)
    }

    /// A retry loop for whoever uses the line.
    pub(crate) fn patience(&self) -> Patience<'_> {
        Patience::new(&self.live, self.report, self.source.peer_name(), self.retry)
    }

    /// How long the sender may be silent while it owes something.
    pub(crate) fn silence_max(&self) -> Duration {
        silence_max(self.retry)
    }

    /// The session as it is now.
    pub(crate) fn session(&self) -> Arc<Session> {
        Arc::clone(&self.lock())
    }

    /// Opens a session in place of one that is lost, `during` something and because of `error`.
    fn renew(
        &self,
        patience: &mut Patience<'_>,
        during: &'static str,
        error: NetError,
    ) -> Result<Arc<Session>, RunError> {
        let opened = patience.failed(error).and_then(|()| {
            patience.persist(|deadline| {
                let session = self.source.session(&self.agreed.terms(), Ahead::NONE, self.attempt(deadline))?;
                session.agreed.must_allow(&self.agreed)?;
                Ok(Arc::new(session))
            })
        });
        let session = opened.map_err(|error| self.gave_up(during, error))?;
        self.report.counters.reconnects.add(1);
        let lost = std::mem::replace(&mut *self.lock(), Arc::clone(&session));
        // A server that is still there need not wait to learn that nothing more will come.
        lost.control.hang_up();
        Ok(session)
    }

    /// Tries with the session as it is, and on a new one each time that its connection breaks, until it succeeds or
    /// nothing has got on for too long.
    pub(crate) fn on_session<T>(
        &self,
        patience: &mut Patience<'_>,
        mut attempt: impl FnMut(&Session, Nth) -> Result<T, RunError>,
    ) -> Result<T, RunError> {
        let mut result = attempt(&self.session(), Nth::First);
        loop {
            match result {
                Err(RunError::Net { during, source }) if source.is_transient() => {
                    let session = self.renew(patience, during, source)?;
                    result = attempt(&session, Nth::Again);
                }
                result => return result,
            }
        }
    }

    /// A data connection on which nothing was asked for. Where the way is long it need not have been answered, unless one
    /// has broken before: then it is known that something may go wrong, and the answer is part of the attempt.
    pub(crate) fn data(&self, choice: Choice, deadline: Instant) -> Result<DataConnection, NetError> {
        let mut data = self.source.data(&self.session(), choice, self.attempt(deadline))?;
        if self.has_broken.load(Ordering::Relaxed) || !data.connection.is_long() {
            data.answer(deadline).inspect_err(|error| self.source.broke(data.source, error))?;
        }
        self.set_silence_max(&data)?;
        Ok(data)
    }

    /// A connection to this one of several sources has broken. To be told before others are given what it owed.
    pub(crate) fn note_broken(&self, source: usize, error: &NetError) {
        self.expect_breaks();
        self.source.broke(source, error);
        self.report.broke(source);
    }

    /// Connections may break: from now on each is known to be one before it is asked for anything.
    pub(crate) fn expect_breaks(&self) {
        self.has_broken.store(true, Ordering::Relaxed);
    }

    /// Hears whether this is a data connection, before anything else is taken off it. It takes no longer than an attempt
    /// to connect: what was asked for is in hand meanwhile.
    pub(crate) fn hear_answer(&self, data: &mut DataConnection) -> Result<Attachment, NetError> {
        let answer = data.answer(Instant::now() + answer_max(self.retry))?;
        self.set_silence_max(data)?;
        Ok(answer)
    }

    /// Until when there is no use in hearing the answer: it is on its way. What is asked for until then goes along.
    pub(crate) fn answer_due(&self, data: &DataConnection) -> Instant {
        Instant::now() + data.connection.round_trip().min(self.silence_max())
    }

    /// A sender that has much to read for an answer says so meanwhile.
    fn set_silence_max(&self, data: &DataConnection) -> Result<(), NetError> {
        let silence_max = Some(self.silence_max());
        data.connection.set_timeouts(silence_max, silence_max)
    }

    fn attempt(&self, deadline: Instant) -> Attempt<'_> {
        attempt(&self.live, self.retry, deadline)
    }

    /// What ends a run that has tried for long enough.
    pub(crate) fn gave_up(&self, during: &'static str, error: NetError) -> RunError {
        match error {
            source @ (NetError::Connect { .. } | NetError::Lookup { .. }) if source.is_transient() => {
                let address = self.source.peer_name();
                RunError::NoAnswer { address, seconds: self.retry.as_secs(), source }
            }
            source => RunError::Net { during, source },
        }
    }

    /// Ends connections, those to come, and all waits between them.
    pub(crate) fn hang_up(&self, ending: Ending) {
        let session = self.session();
        self.live.end_all_but(match ending {
            Ending::Data => Some(&session.control),
            Ending::All => None,
        });
    }

    fn lock(&self) -> Guard<'_, Arc<Session>> {
        self.session.lock()
    }
}

fn attempt(live: &Live, retry: Duration, deadline: Instant) -> Attempt<'_> {
    Attempt { live, deadline, absence_max: absence_max(retry) }
}

#[cfg(test)]
mod tests;
