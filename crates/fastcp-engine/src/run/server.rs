//! The serving side: one connection at a time, whatever dialect it speaks.
//!
//! [`Server::serve`] runs on a thread of its own for each connection. What goes wrong on one is
//! answered with its own status where the dialect has one, logged once with the peer's address, and
//! ends that connection only.

use std::sync::Arc;
use std::time::Duration;

use fastcp_model::{Escaped, Status};
use fastcp_net::{
    Attached, Bound, Bounds, Connection, Endpoint, Full, Gate, Greeting, Incoming, NetError, SessionGuard, Sessions,
    Terms, greet, greet_again,
};
use fastcp_wire::drop::DropReply;
use fastcp_wire::frame::FrameType;
use fastcp_wire::hello::{Failure, Hello, Role};
use fastcp_wire::reply::Reply;
use fastcp_wire::request::{PlainRequest, REQUEST_MAGIC};

use crate::run::inbox::Inbox;
use crate::run::places::Places;
use crate::run::pushed::Host;
use crate::sender::answer::{SEND_TIMEOUT, answer_ranges};
use crate::sender::offer::{OffersEnd, send_failure, serve_offers};
use crate::sender::plain::answer_plain;
use crate::sender::source::Source;
use crate::sender::views::Views;
use crate::settings::ServerSettings;
use crate::threads::STACK_BYTES;

/// The target of its log lines.
pub const SERVER_LOG_TARGET: &str = module_path!();

/// A peer for whom there is no room has this long to say who it is.
const TURNED_AWAY_TIMEOUT: Duration = Duration::from_secs(2);

/// A tree being served.
#[derive(Debug)]
pub struct Server {
    source: Arc<Source>,
    settings: ServerSettings,
    sessions: Sessions,
    places: Places,
    views: Views,
    inbox: Option<Inbox>,
    gate: Arc<Gate>,
    bounds: Arc<Bounds>,
}

impl Server {
    /// Serves `source` to whoever connects.
    pub fn new(source: Source, settings: ServerSettings) -> Self {
        let terms = Terms {
            capabilities: settings.capabilities,
            connections: settings.connections,
            chunk_kb: settings.chunk_kb,
        };
        let bounds = Arc::<Bounds>::default();
        let sessions = Sessions::new(terms, settings.limits).within(settings.idle_timeout, Arc::clone(&bounds));
        Self {
            source: Arc::new(source.within(settings.offer_bytes_max, settings.sums_max, &bounds)),
            bounds,
            settings,
            sessions,
            places: Places::default(),
            views: Views::default(),
            inbox: None,
            gate: Arc::default(),
        }
    }

    /// Has the server take files that scripts hand to it.
    #[must_use]
    pub fn with_inbox(self, inbox: Inbox) -> Self {
        Self { inbox: Some(inbox), ..self }
    }

    /// Has the server ask this of whoever connects.
    #[must_use]
    pub fn behind(self, gate: Arc<Gate>) -> Self {
        gate.count_into(&self.bounds);
        Self { gate, ..self }
    }

    /// Where runs of this process find the server: it listens nowhere, and each of their connections gets a thread.
    pub fn embedded(self: Arc<Self>) -> Endpoint {
        Endpoint::Embedded(Arc::new(move |incoming| {
            let server = Arc::clone(&self);
            let thread = std::thread::Builder::new().name("serve".to_owned()).stack_size(STACK_BYTES);
            thread.spawn(move || server.serve(incoming)).map(drop)
        }))
    }

    /// How often which limit was run into.
    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// No more connections will be made: pushes whose sender is gone end, and those whose sender goes.
    pub fn drain(&self) {
        self.places.drain();
    }

    /// Serves one connection until it ends.
    pub fn serve(&self, incoming: Incoming) {
        let mut connection = match Connection::accept(incoming) {
            Ok(connection) => connection,
            Err(error) => {
                tracing::debug!(%error, "connection ended before it was served");
                return;
            }
        };
        // An error span: it must be on whenever anything is logged, for the address that it carries.
        let _span = tracing::error_span!("connection", peer = connection.peer()).entered();
        let greeting = self.greeting_of(&mut connection);
        let connection = Arc::new(connection);
        match greeting.and_then(|greeting| self.serve_greeted(&connection, greeting)) {
            Ok(()) => tracing::debug!("connection done"),
            Err(error) => {
                if let Some(failure) = told(&error) {
                    send_failure(&connection, failure);
                }
                if matches!(error, NetError::Denied { status: Status::Unauthorised, .. }) {
                    connection.linger();
                }
                if is_expected(&error) || !self.bounds.may_warn(connection.peer_ip()) {
                    tracing::debug!(%error, "connection ended");
                } else if let NetError::Denied { detail, .. } = error {
                    tracing::warn!("refused: {detail}");
                } else {
                    tracing::warn!(%error, "connection ended");
                }
            }
        }
    }

    /// Tells a peer for whom there is no room to come back later.
    pub fn turn_away(&self, incoming: Incoming, full: Full) {
        full.count(&self.bounds);
        self.sessions.make_room(full);
        let told = Connection::accept(incoming).and_then(|mut connection| {
            connection.set_timeouts(None, Some(TURNED_AWAY_TIMEOUT))?;
            // Whoever says nothing is told nothing: his words are not known.
            let greeting = greet(&mut connection, &self.gate, TURNED_AWAY_TIMEOUT)?;
            self.refuse(&connection, &greeting, Status::Busy.into())?;
            tracing::debug!(peer = connection.peer(), "connection refused: too many connections");
            Ok(())
        });
        if let Err(error) = told {
            tracing::debug!(%error, "connection refused");
        }
    }

    /// Says no in the words of whoever asked.
    fn refuse(&self, connection: &Connection, greeting: &Greeting, failure: Failure) -> Result<(), NetError> {
        match greeting {
            Greeting::Plain(_) => connection.write_all(&Reply::failed(failure.status).encode()),
            Greeting::Hello(_) | Greeting::Attach(_) => {
                send_failure(connection, failure);
                Ok(())
            }
            Greeting::Drop(_) if self.inbox.is_none() => Ok(()),
            Greeting::Drop(_) => connection.write_all(&DropReply { status: failure.status, crc32: 0 }.encode()),
        }
    }

    /// What a peer wants who has passed the gate.
    fn greeting_of(&self, connection: &mut Connection) -> Result<Greeting, NetError> {
        connection.set_timeouts(None, Some(self.settings.handshake_timeout))?;
        let greeting = greet(connection, &self.gate, self.settings.handshake_timeout);
        if let Err(NetError::Request(_)) = greeting {
            connection.write_all(&Reply::failed(Status::BadRequest).encode())?;
        }
        if let Err(NetError::TimedOut(_)) = greeting {
            self.bounds.hit(Bound::Handshake, connection.peer_ip());
        }
        // A handshake of TLS has left what remained of its time.
        connection.set_timeouts(None, Some(self.settings.handshake_timeout))?;
        greeting
    }

    fn serve_greeted(&self, connection: &Arc<Connection>, greeting: Greeting) -> Result<(), NetError> {
        if !self.gate.takes(connection) {
            if self.bounds.may_warn(connection.peer_ip()) {
                tracing::warn!("refused: the connection is not protected");
            }
            let detail = "this server takes protected connections alone; the address that it printed ends in #sha256:";
            let failure = Failure { status: Status::Unauthorised, detail: detail.to_owned() };
            self.refuse(connection, &greeting, failure)?;
            connection.linger();
            return Ok(());
        }
        match greeting {
            Greeting::Plain(request) => self.serve_plain(connection, &request),
            Greeting::Drop(first) => match &self.inbox {
                Some(inbox) => inbox.take(connection, first),
                None => Err(NetError::UnknownDialect(first)),
            },
            Greeting::Hello(hello) => self.serve_session(connection, &hello),
            Greeting::Attach(attach) => match self.sessions.attach(connection, attach) {
                Err(NetError::Refused(Status::UnknownTicket)) => self.serve_stranger(connection),
                attached => self.serve_attached(connection, attached?),
            },
        }
    }

    /// The session is another replica's, or has ended. The connection may open one here: of connections that go
    /// through a balancer nobody knows where the next will land.
    fn serve_stranger(&self, connection: &Arc<Connection>) -> Result<(), NetError> {
        tracing::debug!("unknown session ticket");
        send_failure(connection, Status::UnknownTicket);
        match greet_again(connection, self.settings.handshake_timeout)? {
            Greeting::Hello(hello) => self.serve_session(connection, &hello),
            Greeting::Attach(_) => Err(NetError::UnexpectedFrame(FrameType::Attach)),
            Greeting::Plain(_) => Err(NetError::UnknownDialect(REQUEST_MAGIC.to_be_bytes())),
            Greeting::Drop(first) => Err(NetError::UnknownDialect(first)),
        }
    }

    fn serve_plain(&self, connection: &Connection, request: &PlainRequest) -> Result<(), NetError> {
        connection.set_timeouts(None, Some(SEND_TIMEOUT))?;
        let status = answer_plain(connection, &self.source, request, self.settings.plain_crc)?;
        let path = Escaped(&request.path);
        match status {
            Status::Ok => {}
            Status::NotFound => tracing::debug!(%path, "plain request refused: {status}"),
            _ => tracing::warn!(%path, "plain request refused: {status}"),
        }
        Ok(())
    }

    fn serve_session(&self, connection: &Arc<Connection>, hello: &Hello) -> Result<(), NetError> {
        if hello.role == Role::Sender {
            return self.host().receive(connection, hello);
        }
        let session = self.sessions.agree(connection, hello)?;
        let source = self.source_of(&session)?;
        session.reply(connection)?;
        tracing::info!(connections = session.agreed.connections, chunk_kb = session.agreed.chunk_kb, "session opened");
        match serve_offers(connection, &source, session.agreed)? {
            OffersEnd::Closed => Ok(()),
            OffersEnd::Attach(attach) => self.serve_attached(connection, self.sessions.attach(connection, attach)?),
        }
    }

    fn serve_attached(&self, connection: &Arc<Connection>, attached: Attached) -> Result<(), NetError> {
        match attached {
            Attached::Source(session) => {
                let source = self.source_of(&session)?;
                answer_ranges(connection, &source, session.agreed, self.settings.compression)
            }
            Attached::Receiver(session, lanes, lane) => {
                connection.join(session);
                lanes.take(Arc::clone(connection), lane)
            }
        }
    }

    /// What a session is of: the whole tree, or what the places that it named make together.
    fn source_of(&self, session: &SessionGuard) -> Result<Arc<Source>, NetError> {
        if session.places.is_empty() {
            return Ok(Arc::clone(&self.source));
        }
        let view = self.views.of(&self.source, &session.places);
        view.map_err(|(path, status)| NetError::Denied { status, detail: format!("\"{path}\": {status}") })
    }

    fn host(&self) -> Host<'_> {
        Host {
            root: self.source.tree.root(),
            writes: self.settings.writes,
            setuid: self.settings.setuid,
            sessions: &self.sessions,
            places: &self.places,
            handshake_timeout: self.settings.handshake_timeout,
        }
    }
}

/// What happens to a server whose peers and networks are in no better order than usual: connections are lost, their
/// peers vanish, health checks say nothing, and a client that dials again comes with the ticket of a session that is
/// over. Only a peer that breaks a rule, or is refused for good, is worth a warning.
pub(super) fn is_expected(error: &NetError) -> bool {
    matches!(
        error,
        NetError::Closed
            | NetError::TimedOut(_)
            | NetError::Socket(_)
            | NetError::Refused(Status::UnknownTicket | Status::TooManyConnections)
    )
}

/// What a peer that broke a rule is told before the connection closes.
fn told(error: &NetError) -> Option<Failure> {
    match error {
        NetError::Refused(status) => Some((*status).into()),
        NetError::Denied { status, detail } => Some(Failure { status: *status, detail: detail.clone() }),
        NetError::Protocol(_) | NetError::UnexpectedFrame(_) | NetError::UnknownDialect(_) => {
            Some(Status::BadRequest.into())
        }
        NetError::TimedOut(_) => Some(Status::TimedOut.into()),
        NetError::Request(_)
        | NetError::Tls(_)
        | NetError::Remote { .. }
        | NetError::Offer(_)
        | NetError::Connect { .. }
        | NetError::Lookup { .. }
        | NetError::Foreign(_)
        | NetError::Closed
        | NetError::Socket(_) => None,
    }
}
