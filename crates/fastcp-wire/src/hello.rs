//! The handshake: HELLO, its reply, ATTACH, and the failure that may answer either.

use fastcp_model::{CHUNK_KB_MAX, CHUNK_KB_MIN, PATH_BYTES_MAX, RelPath, Status};

use crate::WireError;
use crate::limits::{CONNECTIONS_MAX, HELLO_BYTES_MAX, PLACES_MAX, REPORT_TEXT_BYTES_MAX};
use crate::offer::{Place, Scope};
use crate::reader::{Reader, put_short_bytes, within};
use crate::report::{event_number, shortened, text};

/// The protocol version that this crate speaks.
pub const VERSION: u16 = 1;

/// Who owns the bytes. The other end has the other role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// Offers a tree and answers ranges.
    Sender = 0,
    /// Plans and asks for ranges.
    Receiver = 1,
}

/// What names a session on its data connections: unguessable, made by the server.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket(pub [u8; 16]);

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ticket(..)")
    }
}

/// The client's first frame on a control connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The highest version that the client speaks.
    pub version: u16,
    /// The client's role.
    pub role: Role,
    /// Raw capability bits, known or not.
    pub capability_bits: u32,
    /// Data connections wanted.
    pub connections: u16,
    /// Chunk size wanted in KiB; 0 leaves it to the server.
    pub chunk_kb: u32,
    /// The places of the served tree that the session is of, merged: its root is what they make together, and of what
    /// several have under one path the first counts. With none it is of the whole tree. Only of a receiver.
    pub places: Vec<Place>,
}

impl Hello {
    /// The payload of a [`crate::frame::FrameType::Hello`] frame. What is beyond the limits of places is refused when it is
    /// read.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(15);
        out.extend_from_slice(&self.version.to_be_bytes());
        out.push(self.role as u8);
        out.extend_from_slice(&self.capability_bits.to_be_bytes());
        out.extend_from_slice(&self.connections.to_be_bytes());
        out.extend_from_slice(&self.chunk_kb.to_be_bytes());
        out.extend_from_slice(&(self.places.len() as u16).to_be_bytes());
        for place in &self.places {
            out.push(place.scope as u8);
            put_short_bytes(&mut out, place.path.as_bytes());
        }
        out
    }

    /// Decodes the payload.
    ///
    /// # Errors
    /// A field out of bounds.
    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        within("payload_len", payload.len(), HELLO_BYTES_MAX)?;
        let mut reader = Reader::new(payload);
        let version = reader.u16()?;
        let role = match reader.u8()? {
            0 => Role::Sender,
            1 => Role::Receiver,
            other => return Err(WireError::Value { field: "role", value: other.into() }),
        };
        let capability_bits = reader.u32()?;
        let connections = connections(reader.u16()?)?;
        let chunk_kb = reader.u32()?;
        if chunk_kb != 0 {
            check_chunk_kb(chunk_kb)?;
        }
        let places = places(&mut reader)?;
        reader.finish()?;
        match places.first() {
            Some(_) if role == Role::Sender => {
                Err(WireError::Value { field: "place_count", value: places.len() as u64 })
            }
            _ => Ok(Self { version, role, capability_bits, connections, chunk_kb, places }),
        }
    }
}

fn places(reader: &mut Reader<'_>) -> Result<Vec<Place>, WireError> {
    let count = usize::from(reader.u16()?);
    within("place_count", count, PLACES_MAX)?;
    let place = |_| {
        let scope = match Scope::from_code(reader.u8()?)? {
            Scope::Level => return Err(WireError::Value { field: "scope", value: Scope::Level as u64 }),
            scope => scope,
        };
        Ok(Place { scope, path: RelPath::new(reader.short_bytes("path_len", PATH_BYTES_MAX)?)? })
    };
    (0..count).map(place).collect()
}

/// The server's answer: the terms of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HelloReply {
    /// The version that the session uses.
    pub version: u16,
    /// The server's raw capability bits; the client intersects them with its own.
    pub capability_bits: u32,
    /// Data connections that the session may open.
    pub connections: u16,
    /// Chunk size of the session in KiB.
    pub chunk_kb: u32,
    /// What data connections attach with.
    pub ticket: Ticket,
}

impl HelloReply {
    /// The payload of a [`crate::frame::FrameType::HelloReply`] frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(28);
        out.extend_from_slice(&self.version.to_be_bytes());
        out.extend_from_slice(&self.capability_bits.to_be_bytes());
        out.extend_from_slice(&self.connections.to_be_bytes());
        out.extend_from_slice(&self.chunk_kb.to_be_bytes());
        out.extend_from_slice(&self.ticket.0);
        out
    }

    /// Decodes the payload.
    ///
    /// # Errors
    /// A field out of bounds.
    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(payload);
        let version = reader.u16()?;
        let capability_bits = reader.u32()?;
        let connections = connections(reader.u16()?)?;
        let chunk_kb = reader.u32()?;
        check_chunk_kb(chunk_kb)?;
        let ticket = Ticket(reader.ticket()?);
        reader.finish()?;
        Ok(Self { version, capability_bits, connections, chunk_kb, ticket })
    }
}

/// What a connection of a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Ranges.
    Data,
    /// Offers, in place of a control connection that is lost. Only where the server receives: where it sends, the client
    /// opens another session.
    Control,
    /// What the receiver tells. Only where the server receives.
    Report {
        /// The number of the last event that the client has been told.
        seen: u64,
    },
}

const LANE_CONTROL: u8 = 1;
const LANE_REPORT: u8 = 2;

/// A connection of a session that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attach {
    /// Which session.
    pub ticket: Ticket,
    /// What for.
    pub lane: Lane,
}

impl Attach {
    /// The payload of an [`crate::frame::FrameType::Attach`] frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.ticket.0.to_vec();
        match self.lane {
            Lane::Data => {}
            Lane::Control => out.push(LANE_CONTROL),
            Lane::Report { seen } => {
                out.push(LANE_REPORT);
                out.extend_from_slice(&seen.to_be_bytes());
            }
        }
        out
    }

    /// Decodes the payload.
    ///
    /// # Errors
    /// A wrong length, an unknown lane, or a number beyond its limit.
    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(payload);
        let ticket = Ticket(reader.ticket()?);
        if payload.len() == ticket.0.len() {
            return Ok(Self { ticket, lane: Lane::Data });
        }
        let lane = match reader.u8()? {
            LANE_CONTROL => Lane::Control,
            LANE_REPORT => Lane::Report { seen: event_number(&mut reader, "seen")? },
            other => return Err(WireError::Value { field: "lane", value: other.into() }),
        };
        reader.finish()?;
        Ok(Self { ticket, lane })
    }
}

/// Why a connection ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What it is.
    pub status: Status,
    /// In words, where the status alone does not say it.
    pub detail: String,
}

impl Failure {
    /// The payload of a [`crate::frame::FrameType::Failure`] frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.status.code().to_be_bytes().to_vec();
        if !self.detail.is_empty() {
            put_short_bytes(&mut out, shortened(&self.detail, REPORT_TEXT_BYTES_MAX));
        }
        out
    }

    /// Decodes the payload.
    ///
    /// # Errors
    /// An unknown status, or a text that is none or too long.
    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(payload);
        let code = reader.u16()?;
        let status = Status::from_code(code).ok_or(WireError::Value { field: "status", value: code.into() })?;
        let has_detail = payload.len() > 2;
        let detail = if has_detail { text(&mut reader, "detail_len", REPORT_TEXT_BYTES_MAX)? } else { String::new() };
        reader.finish()?;
        // Said in one way only.
        if has_detail && detail.is_empty() { Err(WireError::TrailingBytes(2)) } else { Ok(Self { status, detail }) }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self { status, detail: String::new() }
    }
}

fn connections(count: u16) -> Result<u16, WireError> {
    if (1..=CONNECTIONS_MAX).contains(&count) {
        Ok(count)
    } else {
        Err(WireError::Value { field: "connections", value: count.into() })
    }
}

fn check_chunk_kb(chunk_kb: u32) -> Result<(), WireError> {
    if (CHUNK_KB_MIN..=CHUNK_KB_MAX).contains(&chunk_kb) {
        Ok(())
    } else {
        Err(WireError::Value { field: "chunk_kb", value: chunk_kb.into() })
    }
}
