//! The server's first look at a connection: its first bytes choose the dialect.

use std::time::{Duration, Instant};

use fastcp_wire::WireError;
use fastcp_wire::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameType};
use fastcp_wire::hello::{Attach, Hello};
use fastcp_wire::limits::HELLO_BYTES_MAX;
use fastcp_wire::request::{FLAG_RANGE, PlainRequest, REQUEST_HEADER_BYTES, REQUEST_MAGIC, Request, RequestHeader};

use crate::connection::checked_frame;
use crate::{Connection, Gate, NetError};

/// A peer has this long to say who it is.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// What a peer wants, told by its first message.
#[derive(Debug)]
pub enum Greeting {
    /// One plain FTQ1 request, read whole. The extended form needs a session.
    Plain(PlainRequest),
    /// A file, of whose header these bytes were read.
    Drop([u8; 4]),
    /// A new session.
    Hello(Hello),
    /// One more connection of a session.
    Attach(Attach),
}

/// Lets a connection in, as far as the gate does, and reads the first message.
///
/// # Errors
/// A peer that is silent, closes, is not let in, or speaks no known dialect.
pub fn greet(connection: &mut Connection, gate: &Gate, timeout: Duration) -> Result<Greeting, NetError> {
    let deadline = Instant::now() + timeout;
    let greeting = gate.enter(connection, deadline).and_then(|first| read_greeting(connection, first, deadline));
    greeting.map_err(|error| match error {
        NetError::TimedOut(_) => NetError::TimedOut(timeout),
        other => other,
    })
}

/// Reads the next message of a peer who was told that his session is not known. He may have asked for ranges before he
/// heard that: what he asked for is passed over.
///
/// # Errors
/// As [`greet`]; a peer that goes on asking.
pub fn greet_again(connection: &Connection, timeout: Duration) -> Result<Greeting, NetError> {
    let deadline = Instant::now() + timeout;
    let mut passed_over = 0;
    loop {
        let mut first = [0; 4];
        connection.read_exact_by(&mut first, deadline)?;
        if u32::from_be_bytes(first) != REQUEST_MAGIC {
            return read_opening(connection, first, deadline);
        }
        let (request, bytes) = read_request(connection, first, deadline)?;
        passed_over += bytes;
        if matches!(request, Request::Plain(_)) || passed_over > PASSED_OVER_BYTES_MAX {
            return Err(NetError::UnknownDialect(first));
        }
    }
}

/// More than a receiver asks for before it takes an answer.
const PASSED_OVER_BYTES_MAX: usize = 1 << 20;

fn read_greeting(connection: &Connection, first: [u8; 4], deadline: Instant) -> Result<Greeting, NetError> {
    match first {
        _ if u32::from_be_bytes(first) == REQUEST_MAGIC => plain(read_request(connection, first, deadline)?.0),
        [0, 0, ..] => Ok(Greeting::Drop(first)),
        [0, 1 | 2, ..] => read_opening(connection, first, deadline),
        _ => Err(NetError::UnknownDialect(first)),
    }
}

fn plain(request: Request) -> Result<Greeting, NetError> {
    match request {
        Request::Plain(request) => Ok(Greeting::Plain(request)),
        Request::Extended(_) => Err(NetError::Request(WireError::Value { field: "flags", value: FLAG_RANGE.into() })),
    }
}

/// Reads the rest of a request; answers how long all of it is, too.
fn read_request(connection: &Connection, first: [u8; 4], deadline: Instant) -> Result<(Request, usize), NetError> {
    let mut header = [0; REQUEST_HEADER_BYTES];
    header[..4].copy_from_slice(&first);
    connection.read_exact_by(&mut header[4..], deadline)?;
    let decoded = RequestHeader::decode(&header).map_err(NetError::Request)?;
    let mut rest = vec![0; decoded.rest_bytes()];
    connection.read_exact_by(&mut rest, deadline)?;
    let request = Request::decode(&header, decoded, &rest).map_err(NetError::Request)?;
    Ok((request, header.len() + rest.len()))
}

/// The longest opening frame, its checksum with it: HELLO may name places.
const OPENING_REST_BYTES_MAX: usize = HELLO_BYTES_MAX + 4;

fn read_opening(connection: &Connection, first: [u8; 4], deadline: Instant) -> Result<Greeting, NetError> {
    let mut header = [0; FRAME_HEADER_BYTES];
    header[..4].copy_from_slice(&first);
    connection.read_exact_by(&mut header[4..], deadline)?;
    let rest_bytes = FrameHeader::decode(&header)?.rest_bytes();
    if rest_bytes > OPENING_REST_BYTES_MAX {
        let max = OPENING_REST_BYTES_MAX as u64;
        return Err(WireError::TooLong { field: "payload_len", value: rest_bytes as u64, max }.into());
    }
    let mut rest = vec![0; rest_bytes];
    connection.read_exact_by(&mut rest, deadline)?;
    match checked_frame(&header, &rest)? {
        (FrameType::Hello, payload) => Ok(Greeting::Hello(Hello::decode(&payload)?)),
        (FrameType::Attach, payload) => Ok(Greeting::Attach(Attach::decode(&payload)?)),
        (other, _) => Err(NetError::UnexpectedFrame(other)),
    }
}
