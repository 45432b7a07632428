//! Where the connections of one run come from.
//!
//! A receiver needs a session and data connections that belong to it, again and again while connections break. Who
//! dialled is not its business, nor what lies in between: it asks a source. Byte counts, and what else concerns
//! all connections of a run, are the source's too.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastcp_model::Status;
use fastcp_wire::hello::Role;

use crate::session::take_reply;
use crate::{Agreed, Connection, Dialer, Endpoint, Live, NetError, Session, Terms};

/// One attempt to get a connection.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// What ends it before its time, and the connection that comes of it.
    pub live: &'a Live,
    /// When it ends at the latest.
    pub deadline: Instant,
    /// How long the peer's kernel may acknowledge nothing, from then on: [`Connection::end_without_peer`].
    pub absence_max: Duration,
}

/// What need not wait for a session: it goes on its way while the session is being agreed on, and saves a round trip
/// each.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ahead<'a> {
    /// Frames that are sent behind the greeting.
    pub frames: &'a [u8],
    /// Data connections that will be wanted at once.
    pub connections: u16,
}

impl Ahead<'_> {
    /// Nothing.
    pub const NONE: Self = Self { frames: &[], connections: 0 };
}

/// A data connection of which the peer may not have said yet that it is one.
#[derive(Debug)]
pub struct DataConnection {
    /// Requests may be sent on it at once.
    pub connection: Arc<Connection>,
    agreed: Agreed,
    is_answered: bool,
}

/// What the peer says to whoever makes a data connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attachment {
    /// It is one.
    AsAsked,
    /// It did not know the session, since it was started again or is another replica of the tree. The connection has
    /// opened a session of its own, on the same terms, and what was asked for before is lost.
    Anew,
}

impl DataConnection {
    /// Takes the peer's word that this is a data connection, before anything else is taken off it. A second connection
    /// might land on yet another replica: so where the peer does not know the session, this one opens its own.
    ///
    /// # Errors
    /// The peer refuses, or the connection breaks.
    pub fn answer(&mut self, deadline: Instant) -> Result<Attachment, NetError> {
        if self.is_answered {
            return Ok(Attachment::AsAsked);
        }
        let answer = match take_reply(&self.connection, deadline) {
            Ok(()) => Ok(Attachment::AsAsked),
            Err(NetError::Refused(Status::UnknownTicket)) => {
                attach_alone(&self.connection, &self.agreed, deadline).map(|()| Attachment::Anew)
            }
            Err(error) => Err(error),
        };
        self.is_answered = answer.is_ok();
        answer.map_err(|error| match error {
            // Nothing was said yet but the greeting, and a damaged one is best said again.
            NetError::Protocol(_) => NetError::Closed,
            other => other,
        })
    }

    /// Whether the peer has said so.
    pub fn is_answered(&self) -> bool {
        self.is_answered
    }
}

/// Gives a receiver connections to its sender.
pub trait ConnectionSource: Sync {
    /// What people call the other end.
    fn peer_name(&self) -> String;

    /// Whether the other end is in this process, and so takes from the same limits.
    fn is_in_this_process(&self) -> bool;

    /// A new session.
    ///
    /// # Errors
    /// Nobody there, a peer that refuses or breaks the protocol, or the end of the attempt.
    fn session(&self, terms: &Terms, ahead: Ahead<'_>, attempt: Attempt<'_>) -> Result<Session, NetError>;

    /// A data connection of this session, whose first answer is not waited for.
    ///
    /// # Errors
    /// As [`ConnectionSource::session`].
    fn data(&self, session: &Session, attempt: Attempt<'_>) -> Result<DataConnection, NetError>;
}

impl ConnectionSource for Dialer {
    fn peer_name(&self) -> String {
        self.endpoint().to_string()
    }

    fn is_in_this_process(&self) -> bool {
        matches!(self.endpoint(), Endpoint::Embedded(_))
    }

    fn session(&self, terms: &Terms, ahead: Ahead<'_>, attempt: Attempt<'_>) -> Result<Session, NetError> {
        let control = connect(self, attempt)?;
        // Where a round trip takes no time, the threads that need connections make them as soon.
        if control.is_long() {
            self.begin(&control, ahead.connections, attempt.live);
        }
        Session::greet_and_ask(control, Role::Receiver, terms, ahead.frames, attempt.deadline)
    }

    fn data(&self, session: &Session, attempt: Attempt<'_>) -> Result<DataConnection, NetError> {
        let connection = match self.begun(attempt.deadline) {
            Some(connection) => ready(connection, attempt)?,
            None => connect(self, attempt)?,
        };
        session.attach_right().ask(&connection, attempt.deadline)?;
        Ok(DataConnection { connection, agreed: session.agreed, is_answered: false })
    }
}

fn connect(dialer: &Dialer, attempt: Attempt<'_>) -> Result<Arc<Connection>, NetError> {
    ready(dialer.dial(attempt.live, attempt.deadline)?, attempt)
}

fn ready(connection: Arc<Connection>, attempt: Attempt<'_>) -> Result<Arc<Connection>, NetError> {
    // What a receiver sends are requests, never more than the sender's socket takes.
    connection.end_without_peer(attempt.absence_max)?;
    Ok(connection)
}

fn attach_alone(connection: &Arc<Connection>, agreed: &Agreed, deadline: Instant) -> Result<(), NetError> {
    // Of one connection, whatever the run has in all.
    let terms = Terms { connections: 1, ..agreed.terms() };
    let session = Session::greet(Arc::clone(connection), Role::Receiver, &terms, deadline)?;
    session.agreed.must_allow(agreed)?;
    session.attach_right().greet(connection, deadline)
}
