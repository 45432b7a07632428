//! One TCP stream.
//!
//! Reads and writes are blocking with a timeout on each call; whoever must bound a whole message uses
//! [`Connection::read_exact_by`]. The stream itself is lent out for sendfile and splice, whose users
//! add what they moved to the counts.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fastcp_sys::tcp::TcpInfo;
use fastcp_wire::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameType, decode_payload, encode_frame};
use fastcp_wire::hello::decode_failure;

use crate::NetError;

/// Bytes that went over the wire, of all connections that share the count.
#[derive(Debug, Default)]
pub struct WireCount {
    /// Received.
    pub bytes_in: AtomicU64,
    /// Sent.
    pub bytes_out: AtomicU64,
}

/// How long the kernel waits before it asks a silent peer whether it is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Shorter round trips are those of one machine or one hall, where little is lost and pacing only costs.
const LONG_ROUND_TRIP: Duration = Duration::from_millis(2);
/// `MSG_MORE` of Linux's `sys/socket.h`.
const MSG_MORE: i32 = 0x8000;

/// One TCP stream to a peer.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    peer: String,
    count: Arc<WireCount>,
}

impl Connection {
    /// Wraps a connected stream and sets the options that all connections have.
    ///
    /// # Errors
    /// A stream that is not connected any more.
    pub fn new(stream: TcpStream, count: Arc<WireCount>) -> Result<Self, NetError> {
        let peer = stream.peer_addr().map_err(NetError::Socket)?.to_string();
        stream.set_nodelay(true).map_err(NetError::Socket)?;
        let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
        // No TCP_USER_TIMEOUT: with it the kernel also ends a connection whose peer is alive but, with good
        // reason, has read nothing for a while.
        socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive).map_err(NetError::Socket)?;
        Ok(Self { stream, peer, count })
    }

    /// The peer's address.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// Makes this end send by BBR where the round trip is long and the kernel allows it. Losses that are
    /// not the sign of a full link then no longer throttle it, as they do with cubic and reno.
    pub fn send_by_bbr(&self) {
        if !self.is_long() {
            return;
        }
        // EPERM: the administrator allows others only. ENOENT: the kernel has none.
        if let Err(error) = socket2::SockRef::from(&self.stream).set_tcp_congestion(b"bbr") {
            tracing::debug!(%error, "bbr is not to be had; the host's congestion control stays");
        }
    }

    /// Whether the other end is far away, by the round trip so far.
    pub fn is_long(&self) -> bool {
        self.tcp_info().round_trip >= LONG_ROUND_TRIP
    }

    /// What the kernel knows of the connection; zeros where it does not say.
    pub fn tcp_info(&self) -> TcpInfo {
        fastcp_sys::tcp::info(self.stream.as_fd()).unwrap_or_default()
    }

    /// Ends the connection in both directions, whoever waits on it.
    pub fn hang_up(&self) {
        // One that is gone already needs no end.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }

    /// The stream, for calls that move bytes past this process.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Counts bytes that were moved past [`Connection::read_some`] and [`Connection::write_all`].
    pub fn count_moved(&self, bytes_in: u64, bytes_out: u64) {
        self.count.bytes_in.fetch_add(bytes_in, Ordering::Relaxed);
        self.count.bytes_out.fetch_add(bytes_out, Ordering::Relaxed);
    }

    /// Sets how long one call may wait for the peer; `None` waits for ever.
    ///
    /// # Errors
    /// A zero duration, or a socket that is gone.
    pub fn set_timeouts(&self, read: Option<Duration>, write: Option<Duration>) -> Result<(), NetError> {
        self.stream.set_read_timeout(read).map_err(NetError::Socket)?;
        self.stream.set_write_timeout(write).map_err(NetError::Socket)
    }

    /// Reads what there is, at least one byte unless the peer has closed; 0 means that it has.
    ///
    /// # Errors
    /// A timeout or a broken socket.
    pub fn read_some(&self, buffer: &mut [u8]) -> Result<usize, NetError> {
        loop {
            match (&self.stream).read(buffer) {
                Ok(count) => {
                    self.count_moved(count as u64, 0);
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.read_error(error)),
            }
        }
    }

    /// Fills the buffer.
    ///
    /// # Errors
    /// [`NetError::Closed`] where the peer closes first; a timeout or a broken socket.
    pub fn read_exact(&self, buffer: &mut [u8]) -> Result<(), NetError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read_some(&mut buffer[filled..])? {
                0 => return Err(NetError::Closed),
                count => filled += count,
            }
        }
        Ok(())
    }

    /// Fills the buffer, the whole of it before `deadline`: a peer that sends a byte now and then
    /// gains nothing by it.
    ///
    /// # Errors
    /// As [`Connection::read_exact`].
    pub fn read_exact_by(&self, buffer: &mut [u8], deadline: Instant) -> Result<(), NetError> {
        let mut filled = 0;
        while filled < buffer.len() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(NetError::TimedOut(0));
            }
            self.stream.set_read_timeout(Some(left)).map_err(NetError::Socket)?;
            match self.read_some(&mut buffer[filled..])? {
                0 => return Err(NetError::Closed),
                count => filled += count,
            }
        }
        Ok(())
    }

    /// Sends all bytes.
    ///
    /// # Errors
    /// A timeout or a broken socket.
    pub fn write_all(&self, bytes: &[u8]) -> Result<(), NetError> {
        (&self.stream).write_all(bytes).map_err(|error| self.write_error(error))?;
        self.count_moved(0, bytes.len() as u64);
        Ok(())
    }

    /// Sends all bytes and tells the kernel that more follow at once, so that it does not send a short
    /// segment for them.
    ///
    /// # Errors
    /// A timeout or a broken socket.
    pub fn write_more(&self, bytes: &[u8]) -> Result<(), NetError> {
        let socket = socket2::SockRef::from(&self.stream);
        let mut left = bytes;
        while !left.is_empty() {
            match socket.send_with_flags(left, MSG_MORE) {
                Ok(count) => left = &left[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.write_error(error)),
            }
        }
        self.count_moved(0, bytes.len() as u64);
        Ok(())
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// As [`Connection::write_all`]; a payload over its limit.
    pub fn write_frame(&self, frame_type: FrameType, payload: &[u8]) -> Result<(), NetError> {
        self.write_all(&encode_frame(frame_type, payload)?)
    }

    /// Receives a frame. A failure frame from the peer is [`NetError::Refused`].
    ///
    /// # Errors
    /// A frame that breaks the protocol, or as [`Connection::read_exact`].
    pub fn read_frame(&self) -> Result<(FrameType, Vec<u8>), NetError> {
        let mut header = [0; FRAME_HEADER_BYTES];
        self.read_exact(&mut header)?;
        let mut rest = vec![0; FrameHeader::decode(&header)?.rest_bytes()];
        self.read_exact(&mut rest)?;
        checked_frame(&header, &rest)
    }

    /// The error of a failed read, told in this crate's words.
    pub fn read_error(&self, error: io::Error) -> NetError {
        socket_error(error, self.stream.read_timeout())
    }

    /// The error of a failed write, told in this crate's words.
    pub fn write_error(&self, error: io::Error) -> NetError {
        socket_error(error, self.stream.write_timeout())
    }
}

/// Decodes a frame that has been read whole; a failure frame becomes an error.
pub(crate) fn checked_frame(header: &[u8; FRAME_HEADER_BYTES], rest: &[u8]) -> Result<(FrameType, Vec<u8>), NetError> {
    let frame_type = FrameHeader::decode(header)?.frame_type;
    let payload = decode_payload(header, rest)?;
    if frame_type == FrameType::Failure {
        return Err(NetError::Refused(decode_failure(payload)?));
    }
    Ok((frame_type, payload.to_vec()))
}

fn socket_error(error: io::Error, timeout: io::Result<Option<Duration>>) -> NetError {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            NetError::TimedOut(timeout.ok().flatten().map_or(0, |timeout| timeout.as_secs()))
        }
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => NetError::Closed,
        _ => NetError::Socket(error),
    }
}
