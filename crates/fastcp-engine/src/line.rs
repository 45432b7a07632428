//! The line to the sender: a session for as long as the transfer lasts.
//!
//! A session ends when its control connection does, or its server. Then it is opened anew, by whoever notices
//! first, under the same terms; the plan is the receiver's and survives. The line knows every connection that
//! was made over it, so that the end of a run need not wait for a peer that says nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use fastcp_model::Status;
use fastcp_net::{Agreed, Backoff, Connection, Dialer, NetError, Session, Terms};
use fastcp_wire::hello::Role;

use crate::budget::Budget;
use crate::error::RunError;
use crate::report::{Event, Report};
use crate::settings::ReceiverSettings;

pub(crate) struct Line<'a> {
    dialer: &'a Dialer,
    terms: Terms,
    /// What was agreed when the line was opened, and holds from then on.
    pub(crate) agreed: Agreed,
    session: Mutex<Arc<Session>>,
    live: Mutex<Live>,
}

#[derive(Debug, Default)]
struct Live {
    connections: Vec<Weak<Connection>>,
    /// The one that the session lives with.
    control: Weak<Connection>,
    is_cut: bool,
}

/// Which connections end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// All but the control connection of the session.
    Data,
    All,
}

impl<'a> Line<'a> {
    /// Opens the first session, trying for as long as the settings say.
    pub(crate) fn open(dialer: &'a Dialer, settings: &ReceiverSettings, report: &Report) -> Result<Self, RunError> {
        let budget = Budget::of(settings, dialer);
        match budget.limited {
            Some(limited) if limited.connections == 0 => return Err(RunError::TooLittle(limited)),
            Some(limited) => report.tell(Event::Limited(limited)),
            None => {}
        }
        let terms =
            Terms { capabilities: settings.capabilities, connections: budget.connections, chunk_kb: settings.chunk_kb };
        let start = Instant::now();
        let mut backoff = Backoff::default();
        loop {
            let error = match Session::open(dialer, Role::Receiver, &terms) {
                Ok(session) => return Ok(Self::new(dialer, terms, session)),
                Err(error) if error.is_transient() => error,
                Err(source) => return Err(RunError::Net { during: "opening the session", source }),
            };
            let wait = backoff.next_wait();
            if start.elapsed() + wait > settings.retry {
                let address = dialer.endpoint().to_string();
                return Err(RunError::NoAnswer { address, seconds: settings.retry.as_secs(), source: error });
            }
            report.tell(Event::Retrying { error: error.to_string(), wait });
            std::thread::sleep(wait);
        }
    }

    fn new(dialer: &'a Dialer, terms: Terms, session: Session) -> Self {
        let agreed = session.agreed;
        let connections = vec![Arc::downgrade(&session.control)];
        let live = Mutex::new(Live { connections, control: Arc::downgrade(&session.control), is_cut: false });
        Self { dialer, terms, agreed, session: Mutex::new(Arc::new(session)), live }
    }

    /// Where it leads.
    pub(crate) fn address(&self) -> String {
        self.dialer.endpoint().to_string()
    }

    /// The session as it is now.
    pub(crate) fn session(&self) -> Arc<Session> {
        Arc::clone(&self.lock())
    }

    /// Opens a session in place of one that is lost, unless somebody has done so. Others wait meanwhile.
    pub(crate) fn renew(&self, lost: &Arc<Session>) -> Result<Arc<Session>, NetError> {
        let mut current = self.lock();
        if Arc::ptr_eq(&current, lost) {
            let session = Session::greet(self.connect()?, Role::Receiver, &self.terms)?;
            self.check(&session)?;
            // Whoever still waits for something on the old one must learn that nothing will come.
            lost.control.hang_up();
            self.live().control = Arc::downgrade(&session.control);
            *current = Arc::new(session);
        }
        Ok(Arc::clone(&current))
    }

    /// Makes a data connection. Where the server does not know the session, since it was started again or is
    /// another replica of the tree, the connection opens one of its own: a second connection might land on yet
    /// another replica.
    pub(crate) fn dial(&self) -> Result<Arc<Connection>, NetError> {
        let connection = self.connect()?;
        let attached = match self.session().attach_right().greet(&connection) {
            Err(NetError::Refused(Status::UnknownTicket)) => self.attach_alone(&connection),
            result => result,
        };
        match attached {
            Ok(()) => Ok(connection),
            // Nothing was said yet but the greeting, and a damaged one is best said again.
            Err(NetError::Protocol(_)) => Err(NetError::Closed),
            Err(other) => Err(other),
        }
    }

    fn attach_alone(&self, connection: &Arc<Connection>) -> Result<(), NetError> {
        // Of one connection, whatever the run has in all.
        let terms = Terms { connections: 1, ..self.terms };
        let session = Session::greet(Arc::clone(connection), Role::Receiver, &terms)?;
        self.check(&session)?;
        session.attach_right().greet(connection)
    }

    /// What was planned rests on what was agreed first.
    fn check(&self, session: &Session) -> Result<(), NetError> {
        match session.agreed.capabilities.contains(self.agreed.capabilities) {
            true => Ok(()),
            false => Err(NetError::Refused(Status::BadVersion)),
        }
    }

    /// A connection to which nothing has been said. It is known before it is greeted on: that may take a while,
    /// too.
    fn connect(&self) -> Result<Arc<Connection>, NetError> {
        let connection = Arc::new(self.dialer.dial()?);
        self.keep(&connection)?;
        Ok(connection)
    }

    /// Ends connections, and those to come.
    pub(crate) fn hang_up(&self, ending: Ending) {
        let mut live = self.live();
        live.is_cut = true;
        let is_kept =
            |connection: &Arc<Connection>| ending == Ending::Data && live.control.ptr_eq(&Arc::downgrade(connection));
        for connection in live.connections.iter().filter_map(Weak::upgrade).filter(|one| !is_kept(one)) {
            connection.hang_up();
        }
    }

    fn keep(&self, connection: &Arc<Connection>) -> Result<(), NetError> {
        let mut live = self.live();
        if live.is_cut {
            return Err(NetError::Closed);
        }
        live.connections.retain(|weak| weak.strong_count() > 0);
        live.connections.push(Arc::downgrade(connection));
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Session>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
