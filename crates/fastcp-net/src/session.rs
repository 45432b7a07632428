//! What both sides agreed on, and the ticket that ties data connections to it: the end that asks for a session.
//!
//! A session lives as long as its control connection. What the server keeps of it is in `sessions.rs`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastcp_model::{Capabilities, Status};
use fastcp_wire::frame::{FrameType, encode_frame};
use fastcp_wire::hello::{Attach, Hello, HelloReply, Lane, Role, Ticket, VERSION};
use fastcp_wire::offer::Place;

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

impl Agreed {
    /// What to ask for so that another session has the same.
    pub fn terms(&self) -> Terms {
        Terms { capabilities: self.capabilities, connections: self.connections, chunk_kb: Some(self.chunk_kb) }
    }

    /// Whether what rests on `earlier` may go on under these terms.
    ///
    /// # Errors
    /// [`Status::BadVersion`]: the peer can do less.
    pub fn must_allow(&self, earlier: &Self) -> Result<(), NetError> {
        match self.capabilities.contains(earlier.capabilities) {
            true => Ok(()),
            false => Err(NetError::Refused(Status::BadVersion)),
        }
    }
}

/// A client's session: the control connection and what data connections need.
#[derive(Debug)]
pub struct Session {
    /// The connection that offers travel on.
    pub control: Arc<Connection>,
    /// The terms.
    pub agreed: Agreed,
    /// Which of several sources it was opened with.
    pub source: usize,
    ticket: Ticket,
}

impl Session {
    /// Opens a session over this connection, to which nothing has been said that led to anything, before the deadline: of
    /// these places of the tree alone, if there are any. `frames` go out behind the greeting; what they ask for need not
    /// wait for the reply.
    ///
    /// # Errors
    /// A server that refuses, or breaks the protocol; a connection that breaks.
    pub fn greet(
        control: Arc<Connection>,
        role: Role,
        terms: &Terms,
        places: &[Place],
        frames: &[u8],
        deadline: Instant,
    ) -> Result<Self, NetError> {
        control.set_timeouts(None, Some(time_left(deadline)))?;
        let hello = Hello {
            version: VERSION,
            role,
            capability_bits: terms.capabilities.bits(),
            connections: terms.connections,
            chunk_kb: terms.chunk_kb.unwrap_or(0),
            places: places.to_vec(),
        };
        let mut opening = encode_frame(FrameType::Hello, &hello.encode())?;
        opening.extend_from_slice(frames);
        let begun = Instant::now();
        control.write_all(&opening)?;
        let reply = match control.read_frame_by(deadline)? {
            (FrameType::HelloReply, payload) => HelloReply::decode(&payload)?,
            (other, _) => return Err(NetError::UnexpectedFrame(other)),
        };
        control.was_answered_in(begun.elapsed());
        if reply.version != VERSION {
            return Err(NetError::Refused(Status::BadVersion));
        }
        let agreed = Agreed {
            capabilities: intersect(reply.capability_bits, terms.capabilities, control.peer()),
            connections: reply.connections.min(terms.connections),
            chunk_kb: reply.chunk_kb,
        };
        Ok(Self { control, agreed, source: 0, ticket: reply.ticket })
    }

    /// A session that the peer has opened.
    pub(crate) fn given(control: Arc<Connection>, agreed: Agreed, ticket: Ticket) -> Self {
        Self { control, agreed, source: 0, ticket }
    }

    /// The same, of the source with this number.
    pub(crate) fn of_source(self, source: usize) -> Self {
        Self { source, ..self }
    }

    /// The right to open data connections, apart from the control connection.
    pub fn attach_right(&self) -> AttachRight {
        AttachRight { ticket: self.ticket }
    }
}

/// The right to open data connections of one session.
#[derive(Debug, Clone, Copy)]
pub struct AttachRight {
    ticket: Ticket,
}

impl AttachRight {
    /// Makes this connection a data connection before the deadline.
    ///
    /// # Errors
    /// A server that does not know the session; a connection that breaks.
    pub fn greet(&self, connection: &Connection, deadline: Instant) -> Result<(), NetError> {
        self.greet_as(Lane::Data, connection, deadline)
    }

    /// Makes this connection one of the session before the deadline, for whatever it is needed.
    ///
    /// # Errors
    /// As [`AttachRight::greet`].
    pub fn greet_as(&self, lane: Lane, connection: &Connection, deadline: Instant) -> Result<(), NetError> {
        self.ask_as(lane, connection, deadline)?;
        take_reply(connection, deadline)
    }

    /// Asks for it alone: the reply is still to be taken.
    pub(crate) fn ask(&self, connection: &Connection, deadline: Instant) -> Result<(), NetError> {
        self.ask_as(Lane::Data, connection, deadline)
    }

    fn ask_as(&self, lane: Lane, connection: &Connection, deadline: Instant) -> Result<(), NetError> {
        connection.set_timeouts(None, Some(time_left(deadline)))?;
        connection.write_frame(FrameType::Attach, &Attach { ticket: self.ticket, lane }.encode())
    }
}

/// Takes the reply that makes this a data connection.
pub(crate) fn take_reply(connection: &Connection, deadline: Instant) -> Result<(), NetError> {
    match connection.read_frame_by(deadline)? {
        (FrameType::AttachReply, _) => Ok(()),
        (other, _) => Err(NetError::UnexpectedFrame(other)),
    }
}

/// How long a call may take; never zero, which would be refused.
fn time_left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

pub(crate) fn intersect(peer_bits: u32, own: Capabilities, peer: &str) -> Capabilities {
    let (known, unknown) = Capabilities::from_peer(peer_bits);
    if unknown != 0 {
        tracing::debug!(peer, "unknown capability bits {unknown:#x} ignored");
    }
    known & own
}
