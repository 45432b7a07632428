//! Where the connections of one run come from.
//!
//! A receiver needs a session and data connections that belong to it, again and again while connections break. Who
//! dialled is not its business, nor what lies in between: it asks a source. Byte counts, and what else concerns
//! all connections of a run, are the source's too.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastcp_model::Status;
use fastcp_wire::hello::Role;

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
    fn session(&self, terms: &Terms, attempt: Attempt<'_>) -> Result<Session, NetError>;

    /// A data connection of this session, or one to another replica of the same tree, on the same terms.
    ///
    /// # Errors
    /// As [`ConnectionSource::session`].
    fn data(&self, session: &Session, attempt: Attempt<'_>) -> Result<Arc<Connection>, NetError>;
}

impl ConnectionSource for Dialer {
    fn peer_name(&self) -> String {
        self.endpoint().to_string()
    }

    fn is_in_this_process(&self) -> bool {
        matches!(self.endpoint(), Endpoint::Embedded(_))
    }

    fn session(&self, terms: &Terms, attempt: Attempt<'_>) -> Result<Session, NetError> {
        Session::greet(connect(self, attempt)?, Role::Receiver, terms, attempt.deadline)
    }

    /// Where the server does not know the session, since it was started again or is another replica of the tree, the
    /// connection opens one of its own: a second connection might land on yet another replica.
    fn data(&self, session: &Session, attempt: Attempt<'_>) -> Result<Arc<Connection>, NetError> {
        let connection = connect(self, attempt)?;
        let attached = match session.attach_right().greet(&connection, attempt.deadline) {
            Err(NetError::Refused(Status::UnknownTicket)) => attach_alone(&connection, &session.agreed, attempt),
            result => result,
        };
        match attached {
            Ok(()) => Ok(connection),
            // Nothing was said yet but the greeting, and a damaged one is best said again.
            Err(NetError::Protocol(_)) => Err(NetError::Closed),
            Err(other) => Err(other),
        }
    }
}

fn connect(dialer: &Dialer, attempt: Attempt<'_>) -> Result<Arc<Connection>, NetError> {
    let connection = dialer.dial(attempt.live, attempt.deadline)?;
    // What a receiver sends are requests, never more than the sender's socket takes.
    connection.end_without_peer(attempt.absence_max)?;
    Ok(connection)
}

fn attach_alone(connection: &Arc<Connection>, agreed: &Agreed, attempt: Attempt<'_>) -> Result<(), NetError> {
    // Of one connection, whatever the run has in all.
    let terms = Terms { connections: 1, ..agreed.terms() };
    let session = Session::greet(Arc::clone(connection), Role::Receiver, &terms, attempt.deadline)?;
    session.agreed.must_allow(agreed)?;
    session.attach_right().greet(connection, attempt.deadline)
}
