//! The serving side: one connection at a time, whatever dialect it speaks.
//!
//! [`Server::serve`] runs on a thread of its own for each connection. What goes wrong on one is
//! answered with its own status where the dialect has one, logged once with the peer's address, and
//! ends that connection only.

use std::net::TcpStream;
use std::sync::Arc;

use fastcp_model::{Escaped, Status};
use fastcp_net::{Connection, Greeting, NetError, Sessions, Terms, WireCount, greet};
use fastcp_wire::WireError;
use fastcp_wire::hello::{Hello, Role, Ticket};
use fastcp_wire::range::{FLAG_RANGE, PlainRequest, Reply, Request};

use crate::answer::{SEND_TIMEOUT, answer_ranges};
use crate::offer::{send_failure, serve_offers};
use crate::plain::answer_plain;
use crate::settings::ServerSettings;
use crate::source::Source;

/// A tree being served.
#[derive(Debug)]
pub struct Server {
    source: Source,
    settings: ServerSettings,
    sessions: Sessions,
    count: Arc<WireCount>,
}

impl Server {
    /// Serves `source` to whoever connects.
    pub fn new(source: Source, settings: ServerSettings) -> Self {
        let terms = Terms {
            capabilities: settings.capabilities,
            connections: settings.connections,
            chunk_kb: settings.chunk_kb,
        };
        Self { source, settings, sessions: Sessions::new(terms), count: Arc::default() }
    }

    /// Serves one connection until it ends.
    pub fn serve(&self, stream: TcpStream) {
        let connection = match Connection::new(stream, Arc::clone(&self.count)) {
            Ok(connection) => connection,
            Err(error) => {
                tracing::debug!(%error, "connection ended before it was served");
                return;
            }
        };
        // An error span: it must be on whenever anything is logged, for the address that it carries.
        let _span = tracing::error_span!("connection", peer = connection.peer()).entered();
        match self.serve_greeted(&connection) {
            Ok(()) => tracing::debug!("connection done"),
            Err(NetError::Closed) => tracing::debug!("connection closed by the peer"),
            Err(error) => {
                if let Some(status) = told_status(&error) {
                    send_failure(&connection, status);
                }
                tracing::warn!(%error, "connection ended");
            }
        }
    }

    fn serve_greeted(&self, connection: &Connection) -> Result<(), NetError> {
        connection.set_timeouts(None, Some(self.settings.handshake_timeout))?;
        let greeting = match greet(connection, self.settings.handshake_timeout) {
            Ok(Greeting::Request(Request::Range(_) | Request::Bundle(_))) => {
                Err(NetError::Request(WireError::Value { field: "flags", value: FLAG_RANGE.into() }))
            }
            other => other,
        };
        if let Err(NetError::Request(_)) = greeting {
            connection.write_all(&Reply::failed(Status::BadRequest).encode())?;
        }
        match greeting? {
            Greeting::Request(Request::Plain(request)) => self.serve_plain(connection, &request),
            Greeting::Request(Request::Range(_) | Request::Bundle(_)) => unreachable!("refused above"),
            Greeting::Hello(hello) => self.serve_session(connection, &hello),
            Greeting::Attach(ticket) => self.serve_data(connection, ticket),
        }
    }

    fn serve_plain(&self, connection: &Connection, request: &PlainRequest) -> Result<(), NetError> {
        connection.set_timeouts(None, Some(SEND_TIMEOUT))?;
        let status = answer_plain(connection, &self.source, request, self.settings.plain_crc)?;
        if status != Status::Ok {
            tracing::warn!(path = %Escaped(&request.path), "plain request refused: {status}");
        }
        Ok(())
    }

    fn serve_session(&self, connection: &Connection, hello: &Hello) -> Result<(), NetError> {
        if hello.role != Role::Receiver {
            return Err(NetError::Refused(Status::Unauthorised));
        }
        let session = self.sessions.open(connection, hello)?;
        tracing::info!(connections = session.agreed.connections, chunk_kb = session.agreed.chunk_kb, "session opened");
        serve_offers(connection, &self.source, session.agreed)
    }

    fn serve_data(&self, connection: &Connection, ticket: Ticket) -> Result<(), NetError> {
        let session = self.sessions.attach(connection, ticket)?;
        answer_ranges(connection, &self.source, session.agreed, self.settings.compression)
    }
}

/// What a peer that broke a rule is told before the connection closes.
fn told_status(error: &NetError) -> Option<Status> {
    match error {
        NetError::Refused(status) => Some(*status),
        NetError::Protocol(_) | NetError::UnexpectedFrame(_) | NetError::UnknownDialect(_) => Some(Status::BadRequest),
        NetError::TimedOut(_) => Some(Status::TimedOut),
        NetError::Request(_)
        | NetError::Offer(_)
        | NetError::Connect { .. }
        | NetError::Closed
        | NetError::Socket(_) => None,
    }
}
