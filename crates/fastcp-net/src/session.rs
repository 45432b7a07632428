//! What both sides agreed on, and the tickets that tie data connections to it.
//!
//! A session lives as long as its control connection: the server forgets the ticket when that ends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fastcp_model::{CHUNK_KB_DEFAULT, Capabilities, Status};
use fastcp_wire::frame::FrameType;
use fastcp_wire::hello::{Hello, HelloReply, Role, Ticket, VERSION, encode_attach};
use fastcp_wire::limits::CONNECTIONS_MAX;

use crate::{Connection, NetError};

/// What one side brings to the handshake.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// What it can do.
    pub capabilities: Capabilities,
    /// Data connections: wanted by a client, allowed by a server.
    pub connections: u16,
    /// Chunk size in KiB, where this side names one.
    pub chunk_kb: Option<u32>,
}

/// What both sides agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed {
    /// What both can do.
    pub capabilities: Capabilities,
    /// Data connections that the session may open.
    pub connections: u16,
    /// Chunk size in KiB.
    pub chunk_kb: u32,
}

/// A client's session: the control connection and what data connections need.
#[derive(Debug)]
pub struct Session {
    /// The connection that offers travel on.
    pub control: Arc<Connection>,
    /// The terms.
    pub agreed: Agreed,
    ticket: Ticket,
}

impl Session {
    /// Opens a session over this connection, to which nothing has been said that led to anything, before the
    /// deadline.
    ///
    /// # Errors
    /// A server that refuses, or breaks the protocol; a connection that breaks.
    pub fn greet(control: Arc<Connection>, role: Role, terms: &Terms, deadline: Instant) -> Result<Self, NetError> {
        control.set_timeouts(None, Some(time_left(deadline)))?;
        let hello = Hello {
            version: VERSION,
            role,
            capability_bits: terms.capabilities.bits(),
            connections: terms.connections,
            chunk_kb: terms.chunk_kb.unwrap_or(0),
        };
        control.write_frame(FrameType::Hello, &hello.encode())?;
        let reply = match control.read_frame_by(deadline)? {
            (FrameType::HelloReply, payload) => HelloReply::decode(&payload)?,
            (other, _) => return Err(NetError::UnexpectedFrame(other)),
        };
        if reply.version != VERSION {
            return Err(NetError::Refused(Status::BadVersion));
        }
        let agreed = Agreed {
            capabilities: intersect(reply.capability_bits, terms.capabilities, control.peer()),
            connections: reply.connections.min(terms.connections),
            chunk_kb: reply.chunk_kb,
        };
        Ok(Self { control, agreed, ticket: reply.ticket })
    }

    /// The right to open data connections, apart from the control connection.
    pub fn attach_right(&self) -> Attached {
        Attached { ticket: self.ticket }
    }
}

/// The right to open data connections of one session.
#[derive(Debug, Clone, Copy)]
pub struct Attached {
    ticket: Ticket,
}

impl Attached {
    /// Makes this connection a data connection before the deadline.
    ///
    /// # Errors
    /// A server that does not know the session; a connection that breaks.
    pub fn greet(&self, connection: &Connection, deadline: Instant) -> Result<(), NetError> {
        connection.set_timeouts(None, Some(time_left(deadline)))?;
        connection.write_frame(FrameType::Attach, &encode_attach(self.ticket))?;
        match connection.read_frame_by(deadline)? {
            (FrameType::AttachReply, _) => Ok(()),
            (other, _) => Err(NetError::UnexpectedFrame(other)),
        }
    }
}

/// How long a call may take; never zero, which would be refused.
fn time_left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

/// The sessions of a server.
#[derive(Debug)]
pub struct Sessions {
    terms: Terms,
    /// The most connections of all sessions together.
    total_max: usize,
    open: Arc<Mutex<HashMap<Ticket, Open>>>,
}

#[derive(Debug)]
struct Open {
    agreed: Agreed,
    attached: u16,
}

/// An open session at the server, or one of its data connections; given back when dropped.
#[derive(Debug)]
pub struct SessionGuard {
    /// The terms.
    pub agreed: Agreed,
    ticket: Ticket,
    is_control: bool,
    open: Arc<Mutex<HashMap<Ticket, Open>>>,
}

impl Sessions {
    /// No sessions yet, and the terms for those to come. Together they may have `total_max` connections.
    pub fn new(terms: Terms, total_max: usize) -> Self {
        Self { terms, total_max, open: Arc::default() }
    }

    /// How many data connections the next session may have: half of what nobody was promised, so that there is
    /// something for others, too. A session has a control connection and one more that asks for signatures.
    fn allowed(&self, open: &HashMap<Ticket, Open>) -> Result<u16, NetError> {
        let promised = open.values().map(|session| usize::from(session.agreed.connections) + 2).sum();
        match self.total_max.saturating_sub(promised) {
            0 | 1 => Err(NetError::Refused(Status::Busy)),
            left => Ok(u16::try_from((left - 2) / 2).unwrap_or(u16::MAX).max(1)),
        }
    }

    /// Agrees on terms with a client and answers its HELLO.
    ///
    /// # Errors
    /// A version that is not spoken here, [`Status::Busy`] where all connections are promised to others, or a broken
    /// connection.
    pub fn open(&self, connection: &Connection, hello: &Hello) -> Result<SessionGuard, NetError> {
        if hello.version < VERSION {
            return Err(NetError::Refused(Status::BadVersion));
        }
        let ticket = Ticket(fastcp_sys::process::random_bytes().map_err(NetError::Socket)?);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let allowed = self.allowed(&open)?;
        let agreed = Agreed {
            capabilities: intersect(hello.capability_bits, self.terms.capabilities, connection.peer()),
            connections: hello.connections.min(self.terms.connections).min(CONNECTIONS_MAX).min(allowed),
            chunk_kb: match hello.chunk_kb {
                0 => self.terms.chunk_kb.unwrap_or(CHUNK_KB_DEFAULT),
                wanted => wanted,
            },
        };
        open.insert(ticket, Open { agreed, attached: 0 });
        drop(open);
        let guard = SessionGuard { agreed, ticket, is_control: true, open: Arc::clone(&self.open) };
        let reply = HelloReply {
            version: VERSION,
            capability_bits: self.terms.capabilities.bits(),
            connections: agreed.connections,
            chunk_kb: agreed.chunk_kb,
            ticket,
        };
        connection.write_frame(FrameType::HelloReply, &reply.encode())?;
        Ok(guard)
    }

    /// Attaches a data connection and answers its ATTACH.
    ///
    /// # Errors
    /// [`NetError::Refused`] for an unknown ticket or where too many are attached, or a broken connection.
    pub fn attach(&self, connection: &Connection, ticket: Ticket) -> Result<SessionGuard, NetError> {
        let agreed = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            let session = open.get_mut(&ticket).ok_or(NetError::Refused(Status::UnknownTicket))?;
            // A client dials again long before this side knows that a connection is dead: as many as
            // were agreed may linger beside as many that live.
            if session.attached >= 2 * session.agreed.connections {
                return Err(NetError::Refused(Status::TooManyConnections));
            }
            session.attached += 1;
            session.agreed
        };
        let guard = SessionGuard { agreed, ticket, is_control: false, open: Arc::clone(&self.open) };
        connection.write_frame(FrameType::AttachReply, &[])?;
        Ok(guard)
    }
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_control {
            open.remove(&self.ticket);
        } else if let Some(session) = open.get_mut(&self.ticket) {
            session.attached -= 1;
        }
    }
}

fn intersect(peer_bits: u32, own: Capabilities, peer: &str) -> Capabilities {
    let (known, unknown) = Capabilities::from_peer(peer_bits);
    if unknown != 0 {
        tracing::debug!(peer, "unknown capability bits {unknown:#x} ignored");
    }
    known & own
}

#[cfg(test)]
mod tests {
    use fastcp_model::{Capabilities, Status};
    use fastcp_wire::hello::Ticket;

    use super::{Agreed, Open, Sessions, Terms};
    use crate::NetError;

    /// What sessions that want as much as they can get are allowed, one after another.
    fn allowed(total_max: usize, wanted: u16) -> Vec<u16> {
        let terms = Terms { capabilities: Capabilities::SUPPORTED, connections: wanted, chunk_kb: None };
        let sessions = Sessions::new(terms, total_max);
        let mut open = sessions.open.lock().expect("sound");
        let mut all = Vec::new();
        loop {
            match sessions.allowed(&open) {
                Ok(connections) => {
                    let connections = connections.min(wanted);
                    let agreed = Agreed { capabilities: Capabilities::SUPPORTED, connections, chunk_kb: 1024 };
                    let ticket = Ticket([all.len() as u8; 16]);
                    all.push(connections);
                    open.insert(ticket, Open { agreed, attached: 0 });
                }
                Err(error) => {
                    assert!(matches!(error, NetError::Refused(Status::Busy)));
                    return all;
                }
            }
        }
    }

    #[test]
    fn the_first_session_leaves_something_for_others() {
        assert_eq!(allowed(1, 4), []);
        assert_eq!(allowed(4, 64), [1]);
        assert_eq!(allowed(16, 64), [7, 2, 1]);
        assert_eq!(allowed(16, 1), [1; 5]);
        assert_eq!(allowed(4096, 64)[..60], [64; 60]);
    }
}
