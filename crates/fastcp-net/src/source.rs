//! Where the connections of one run come from.
//!
//! A receiver needs a session and data connections that belong to it, again and again while connections break. Who
//! dialled is not its business, nor what lies in between: it asks a source. Byte counts, and what else concerns
//! all connections of a run, are the source's too.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastcp_model::Status;
use fastcp_wire::hello::{Lane, Role};
use fastcp_wire::offer::Place;

use crate::session::take_reply;
use crate::{Agreed, AttachRight, Connection, Dialer, Endpoint, Live, NetError, Session, Terms};

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
#[derive(Debug, Clone, Copy)]
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
    /// Which of several sources it leads to.
    pub source: usize,
    agreed: Agreed,
    places: Arc<[Place]>,
    is_answered: bool,
}

/// Which of several sources a data connection may lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Whichever has room.
    Any,
    /// The one that leads: it offers and confirms.
    Lead,
    /// The same, for a connection beside those that fetch: it is none of its source's share.
    Beside,
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
    /// One that the peer has made.
    pub(crate) fn answered(connection: Arc<Connection>, agreed: Agreed) -> Self {
        Self { connection, source: 0, agreed, places: Arc::default(), is_answered: true }
    }

    /// The same, of the source with this number.
    pub(crate) fn of_source(self, source: usize) -> Self {
        Self { source, ..self }
    }

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
                attach_alone(&self.connection, &self.agreed, &self.places, deadline).map(|()| Attachment::Anew)
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
    fn data(&self, session: &Session, choice: Choice, attempt: Attempt<'_>) -> Result<DataConnection, NetError>;

    /// Which of several sources leads: what it says of a file decides. It is another one once this one is lost.
    fn lead(&self) -> usize {
        0
    }

    /// What people call one of several sources.
    fn name_of(&self, _number: usize) -> String {
        self.peer_name()
    }

    /// Whether this source has more connections than its share, while another that could have some lacks them: one that was
    /// away may be back. Whoever has one then makes it anew.
    fn is_crowded(&self, _number: usize) -> bool {
        false
    }

    /// A data connection that led to this source has broken, or was never answered, for this reason.
    fn broke(&self, _number: usize, _error: &NetError) {}
}

impl Dialer {
    /// A new session in which this end has the role.
    ///
    /// # Errors
    /// As [`ConnectionSource::session`].
    pub fn session_as(
        &self,
        role: Role,
        terms: &Terms,
        ahead: Ahead<'_>,
        attempt: Attempt<'_>,
    ) -> Result<Session, NetError> {
        let control = self.dial(attempt.live, attempt.deadline)?;
        if role == Role::Receiver {
            ready(&control, attempt)?;
        }
        // Where a round trip takes no time, the threads that need connections make them as soon.
        if control.is_long() {
            self.begin(&control, ahead.connections, attempt.live);
        }
        let places = if role == Role::Receiver { &self.places()[..] } else { &[] };
        let session = Session::greet(control, role, terms, places, ahead.frames, attempt.deadline);
        attempt.live.drop_begun_beyond(session.as_ref().map_or(0, |session| session.agreed.connections));
        session
    }

    /// One more connection of a session, which the peer knows for one.
    ///
    /// # Errors
    /// As [`ConnectionSource::session`]; [`Status::UnknownTicket`] where the session has ended.
    pub fn lane(&self, right: AttachRight, lane: Lane, attempt: Attempt<'_>) -> Result<Arc<Connection>, NetError> {
        let connection = self.connected(attempt)?;
        if matches!(lane, Lane::Report { .. }) {
            ready(&connection, attempt)?;
        }
        right.greet_as(lane, &connection, attempt.deadline)?;
        Ok(connection)
    }

    fn connected(&self, attempt: Attempt<'_>) -> Result<Arc<Connection>, NetError> {
        if let Endpoint::Far(far) = self.endpoint() {
            return self.dial_far(far, attempt.live, attempt.deadline);
        }
        match self.begun(attempt.live, attempt.deadline) {
            Some(connection) => Ok(connection),
            None => self.dial(attempt.live, attempt.deadline),
        }
    }
}

impl ConnectionSource for Dialer {
    fn peer_name(&self) -> String {
        self.endpoint().to_string()
    }

    fn is_in_this_process(&self) -> bool {
        matches!(self.endpoint(), Endpoint::Embedded(_))
    }

    fn session(&self, terms: &Terms, ahead: Ahead<'_>, attempt: Attempt<'_>) -> Result<Session, NetError> {
        self.session_as(Role::Receiver, terms, ahead, attempt)
    }

    fn data(&self, session: &Session, _: Choice, attempt: Attempt<'_>) -> Result<DataConnection, NetError> {
        let connection = self.connected(attempt)?;
        ready(&connection, attempt)?;
        session.attach_right().ask(&connection, attempt.deadline)?;
        let places = Arc::clone(self.places());
        Ok(DataConnection { connection, source: 0, agreed: session.agreed, places, is_answered: false })
    }
}

/// What a receiver sends are requests, and acknowledgements of what it was told: never more than the peer's socket takes.
fn ready(connection: &Connection, attempt: Attempt<'_>) -> Result<(), NetError> {
    connection.end_without_peer(attempt.absence_max)
}

fn attach_alone(
    connection: &Arc<Connection>,
    agreed: &Agreed,
    places: &[Place],
    deadline: Instant,
) -> Result<(), NetError> {
    // Of one connection, whatever the run has in all.
    let terms = Terms { connections: 1, ..agreed.terms() };
    let session = Session::greet(Arc::clone(connection), Role::Receiver, &terms, places, &[], deadline)?;
    session.agreed.must_allow(agreed)?;
    session.attach_right().greet(connection, deadline)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use fastcp_model::{ByteRange, Capabilities, Status};
    use fastcp_wire::frame::FrameType;
    use fastcp_wire::hello::{Attach, Failure};
    use fastcp_wire::request::{Ask, RangeRequest};

    use super::{Ahead, Attachment, Attempt, Choice, ConnectionSource};
    use crate::{
        Connection, Dialer, Endpoint, Gate, Greeting, Live, NetError, Sessions, Terms, WireCount, greet, greet_again,
    };

    const TIMEOUT: Duration = Duration::from_secs(60);
    const TERMS: Terms = Terms { capabilities: Capabilities::SUPPORTED, connections: 4, chunk_kb: None };

    /// Serves one connection as a server does, as far as greetings go; answers what was asked for behind them.
    fn serve(sessions: &Sessions, connection: &mut Connection) -> Result<u8, NetError> {
        let greeting = match greet(connection, &Gate::open(), TIMEOUT)? {
            Greeting::Attach(attach) if sessions.attach(connection, attach).is_err() => {
                let failure = Failure::from(Status::UnknownTicket);
                connection.write_frame(FrameType::Failure, &failure.encode())?;
                greet_again(connection, TIMEOUT)?
            }
            other => other,
        };
        if let Greeting::Hello(hello) = greeting {
            let session = sessions.agree(connection, &hello)?;
            session.reply(connection)?;
            match connection.read_frame() {
                Ok((FrameType::Attach, payload)) => {
                    let _data = sessions.attach(connection, Attach::decode(&payload)?)?;
                    return first_byte(connection);
                }
                Ok((other, _)) => return Err(NetError::UnexpectedFrame(other)),
                Err(error) => return Err(error),
            }
        }
        first_byte(connection)
    }

    fn first_byte(connection: &Connection) -> Result<u8, NetError> {
        let mut byte = [0];
        connection.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    /// The session of one server, and a data connection that lands on another one: it goes on there, and of what was
    /// asked for before nothing is left over.
    #[test]
    fn a_connection_that_lands_elsewhere_opens_a_session_there() {
        let replicas = [0, 1].map(|_| Sessions::new(TERMS, crate::ConnectionLimits::NONE));
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        let count = Arc::new(WireCount::default());
        let dialer = Dialer::new(Endpoint::Tcp { host: "127.0.0.1".to_owned(), port }, Arc::clone(&count));
        let live = Live::default();
        let attempt = Attempt { live: &live, deadline: Instant::now() + TIMEOUT, absence_max: TIMEOUT };
        std::thread::scope(|threads| {
            let served = threads.spawn(|| {
                let accepted = replicas.iter().map(|sessions| {
                    let (stream, _) = listener.accept().expect("accept");
                    let mut connection = Connection::accept(stream.into()).expect("connected");
                    threads.spawn(move || serve(sessions, &mut connection))
                });
                accepted.collect::<Vec<_>>()
            });
            let session = dialer.session(&TERMS, Ahead::NONE, attempt).expect("a session");
            let mut data = dialer.data(&session, Choice::Any, attempt).expect("a connection");
            assert!(!data.is_answered());
            let range = ByteRange::new(0, 9).expect("lawful");
            let mut requests = Vec::new();
            for id in 0..100 {
                RangeRequest { id, path: (*b"file").into(), range, ask: Ask::Bytes }.encode(&mut requests);
            }
            data.connection.write_all(&requests).expect("sent");
            assert_eq!(data.answer(attempt.deadline).expect("attached"), Attachment::Anew);
            assert_eq!(data.answer(attempt.deadline).expect("known"), Attachment::AsAsked, "it was heard");
            data.connection.write_all(b"!").expect("sent");
            let mut served = served.join().expect("join");
            let second = served.pop().expect("two").join().expect("join");
            assert_eq!(second.expect("served"), b'!', "what was asked for before is passed over");
            session.control.hang_up();
            assert!(served.pop().expect("one").join().expect("join").is_err());
        });
    }
}
