//! The line to the sender: a session for as long as the transfer lasts.
//!
//! A session ends when its control connection does, or its server. Then whoever reads that connection opens it anew,
//! under the same terms; the plan is the receiver's and survives. The line knows every connection that was made over
//! it, so that the end of a run need not wait for a peer that says nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fastcp_model::Status;
use fastcp_net::{Agreed, Connection, Dialer, Live, NetError, Session, Terms};
use fastcp_wire::hello::Role;

use crate::budget::Budget;
use crate::error::RunError;
use crate::link::patience::{Patience, absence_max, silence_max};
use crate::report::{Event, Report};
use crate::settings::ReceiverSettings;

pub(crate) struct Line<'a> {
    dialer: &'a Dialer,
    report: &'a Report,
    retry: Duration,
    terms: Terms,
    /// What there is to be had of descriptors, threads and memory.
    pub(crate) budget: Budget,
    /// What was agreed when the line was opened, and holds from then on.
    pub(crate) agreed: Agreed,
    session: Mutex<Arc<Session>>,
    live: Arc<Live>,
}

/// Which connections end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// All but the control connection of the session.
    Data,
    All,
}

impl<'a> Line<'a> {
    /// Opens the first session, trying for as long as the settings say, or until `live` is ended.
    pub(crate) fn open(
        dialer: &'a Dialer,
        settings: &ReceiverSettings,
        report: &'a Report,
        live: Arc<Live>,
    ) -> Result<Self, RunError> {
        let budget = Budget::of(settings, dialer);
        match budget.limited {
            Some(limited) if limited.connections == 0 => return Err(RunError::TooLittle(limited)),
            Some(limited) => report.tell(Event::Limited(limited)),
            None => {}
        }
        let terms =
            Terms { capabilities: settings.capabilities, connections: budget.connections, chunk_kb: settings.chunk_kb };
        let retry = settings.retry;
        let address = dialer.endpoint().to_string();
        let opened = Patience::new(&live, report, address.clone(), retry).persist(|deadline| {
            let control = dialed(dialer, &live, retry, deadline)?;
            Session::greet(control, Role::Receiver, &terms, deadline)
        });
        let session = match opened {
            Ok(session) => session,
            Err(source) if source.is_transient() => {
                return Err(RunError::NoAnswer { address, seconds: retry.as_secs(), source });
            }
            Err(source) => return Err(RunError::Net { during: "opening the session", source }),
        };
        let agreed = session.agreed;
        Ok(Self { dialer, report, retry, terms, budget, agreed, session: Mutex::new(Arc::new(session)), live })
    }

    /// A retry loop for whoever uses the line.
    pub(crate) fn patience(&self) -> Patience<'_> {
        Patience::new(&self.live, self.report, self.dialer.endpoint().to_string(), self.retry)
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
    pub(crate) fn renew(
        &self,
        patience: &mut Patience<'_>,
        during: &'static str,
        error: NetError,
    ) -> Result<Arc<Session>, RunError> {
        let opened = patience.failed(error).and_then(|()| {
            patience.persist(|deadline| {
                let control = self.connect(deadline)?;
                let session = Session::greet(control, Role::Receiver, &self.terms, deadline)?;
                self.check(&session)?;
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

    /// Makes a data connection. Where the server does not know the session, since it was started again or is
    /// another replica of the tree, the connection opens one of its own: a second connection might land on yet
    /// another replica.
    pub(crate) fn dial(&self, deadline: Instant) -> Result<Arc<Connection>, NetError> {
        let connection = self.connect(deadline)?;
        let attached = match self.session().attach_right().greet(&connection, deadline) {
            Err(NetError::Refused(Status::UnknownTicket)) => self.attach_alone(&connection, deadline),
            result => result,
        };
        match attached {
            Ok(()) => Ok(connection),
            // Nothing was said yet but the greeting, and a damaged one is best said again.
            Err(NetError::Protocol(_)) => Err(NetError::Closed),
            Err(other) => Err(other),
        }
    }

    fn attach_alone(&self, connection: &Arc<Connection>, deadline: Instant) -> Result<(), NetError> {
        // Of one connection, whatever the run has in all.
        let terms = Terms { connections: 1, ..self.terms };
        let session = Session::greet(Arc::clone(connection), Role::Receiver, &terms, deadline)?;
        self.check(&session)?;
        session.attach_right().greet(connection, deadline)
    }

    /// What was planned rests on what was agreed first.
    fn check(&self, session: &Session) -> Result<(), NetError> {
        match session.agreed.capabilities.contains(self.agreed.capabilities) {
            true => Ok(()),
            false => Err(NetError::Refused(Status::BadVersion)),
        }
    }

    fn connect(&self, deadline: Instant) -> Result<Arc<Connection>, NetError> {
        dialed(self.dialer, &self.live, self.retry, deadline)
    }

    /// What ends a run that has tried for long enough.
    pub(crate) fn gave_up(&self, during: &'static str, error: NetError) -> RunError {
        match error {
            source @ (NetError::Connect { .. } | NetError::Lookup { .. }) if source.is_transient() => {
                let address = self.dialer.endpoint().to_string();
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

    fn lock(&self) -> MutexGuard<'_, Arc<Session>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection to which nothing has been said.
fn dialed(dialer: &Dialer, live: &Live, retry: Duration, deadline: Instant) -> Result<Arc<Connection>, NetError> {
    let connection = dialer.dial(live, deadline)?;
    // What a receiver sends are requests, never more than the sender's socket takes.
    connection.end_without_peer(absence_max(retry))?;
    Ok(connection)
}
