//! One stream to a peer: over TCP, or over any other stream socket that somebody else feeds.
//!
//! Reads and writes are blocking with a timeout on each call; whoever must bound a whole message uses
//! [`Connection::read_exact_by`]. Bytes that bypass the process, by sendfile and splice, go through here too and are
//! counted like all others.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use fastcp_sys::tcp::TcpInfo;
use fastcp_sys::transfer::{Moved, SpliceError, SplicePipe, send_file};
use socket2::Socket;

use crate::secure::{Channel, ChannelError, Exporter, Line, Protected, Trust, shake};
use crate::{Admission, NetError, SessionGuard, WireCount};

mod frames;
mod lane;

pub(crate) use frames::checked_frame;
pub(crate) use lane::{Lane, Passage};

/// How long the kernel waits before it asks a silent peer whether it is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Probes without an answer that end a connection.
const KEEPALIVE_PROBES: u32 = 9;
/// Shorter round trips are those of one machine or one hall, where little is lost and pacing only costs.
const LONG_ROUND_TRIP: Duration = Duration::from_millis(2);
/// How long, and how much, is passed over of what a peer sends who is refused.
const LINGER_MAX: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 8 << 20;
/// `MSG_MORE` of Linux's `sys/socket.h`.
const MSG_MORE: i32 = 0x8000;

/// A connection that was accepted, or made for an embedded server, and on which nothing was said yet.
#[derive(Debug)]
pub struct Incoming {
    stream: Socket,
    /// The right to it, where there are bounds.
    admission: Option<Admission>,
    /// What the peer is called, where it is a lane of a tunnel.
    through: Option<String>,
}

impl Incoming {
    pub(crate) fn admitted(stream: TcpStream, admission: Admission) -> Self {
        Self { stream: stream.into(), admission: Some(admission), through: None }
    }

    /// The end of a lane of a tunnel to the peer that people call `name`, who has shown elsewhere who he is.
    pub fn through(stream: Socket, name: &str) -> Self {
        Self { stream, admission: None, through: Some(name.to_owned()) }
    }
}

impl From<TcpStream> for Incoming {
    fn from(stream: TcpStream) -> Self {
        Self { stream: stream.into(), admission: None, through: None }
    }
}

/// Why bytes could not be spliced.
#[derive(Debug)]
pub enum SpliceFailure {
    /// The connection broke.
    Net(NetError),
    /// The file could not be written.
    File {
        /// Bytes that were taken off the connection.
        taken: u64,
        /// Why not.
        error: io::Error,
    },
}

/// One stream to a peer.
#[derive(Debug)]
pub struct Connection {
    stream: Arc<Socket>,
    peer: String,
    count: Arc<WireCount>,
    /// What is given back when the connection is dropped.
    _admission: Option<Admission>,
    session: OnceLock<SessionGuard>,
    /// What protects it, if anything does.
    channel: Option<Channel>,
    /// Of one that goes through a tunnel.
    lane: Option<Lane>,
}

impl Connection {
    /// Takes a connection that was made to this end, with a count of its own.
    ///
    /// # Errors
    /// It is not connected any more.
    pub fn accept(Incoming { stream, admission, through }: Incoming) -> Result<Self, NetError> {
        match through {
            Some(name) => Ok(Self::through(stream.into(), name, Arc::default(), Lane::that_stays(Arc::default()))),
            None => Ok(Self { _admission: admission, ..Self::new(stream, Arc::default())? }),
        }
    }

    /// A lane of a tunnel to the peer of this name.
    pub(crate) fn through(stream: Arc<Socket>, peer: String, count: Arc<WireCount>, lane: Lane) -> Self {
        Self { stream, peer, count, _admission: None, session: OnceLock::new(), channel: None, lane: Some(lane) }
    }

    /// The same, protected as the peer that was dialled has to be.
    pub(crate) fn trusted(self, trust: &Trust, deadline: Instant) -> Result<Self, NetError> {
        let channel = trust.enter(&self.stream, &self.count, deadline)?;
        Ok(Self { channel: Some(channel), ..self })
    }

    /// Shakes hands as the end that was dialled; `first` was read already. Answers keying material of the connection.
    pub(crate) fn protect(
        &mut self,
        side: rustls::ServerConnection,
        first: &[u8],
        deadline: Instant,
    ) -> Result<Exporter, NetError> {
        let line = Line { socket: &self.stream, count: &self.count, deadline };
        let Protected { channel, exporter, .. } = shake(side, first, &line)?;
        self.channel = Some(channel);
        Ok(exporter)
    }

    /// Whether nobody in between can read or change what is said.
    pub fn is_protected(&self) -> bool {
        self.channel.is_some() || self.is_lane()
    }

    /// Whether it goes through a tunnel.
    fn is_lane(&self) -> bool {
        self.lane.is_some()
    }

    /// Whether it had better be replaced soon: its keys have been used for long, or there is a better way by now.
    pub fn is_worn(&self) -> bool {
        self.channel.as_ref().is_some_and(Channel::is_worn) || self.lane.as_ref().is_some_and(Lane::is_worn)
    }

    /// Has its bytes add to this count, too, from now on. Only the first such count is heeded.
    pub fn count_into(&self, count: &Arc<WireCount>) {
        self.count.forward_to(count);
    }

    /// Makes it one of its session for as long as it lives.
    pub fn join(&self, session: SessionGuard) {
        // One that has a session keeps it: it was never given two.
        drop(self.session.set(session));
    }

    /// Wraps a connected stream and sets the options that all connections have.
    pub(crate) fn new(stream: impl Into<Arc<Socket>>, count: Arc<WireCount>) -> Result<Self, NetError> {
        let stream = stream.into();
        let peer = address_of(&stream)?.to_string();
        stream.set_tcp_nodelay(true).map_err(NetError::Socket)?;
        let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
        // No TCP_USER_TIMEOUT: with it the kernel also ends a connection whose peer is alive but, with good
        // reason, has read nothing for a while.
        stream.set_tcp_keepalive(&keepalive.with_retries(KEEPALIVE_PROBES)).map_err(NetError::Socket)?;
        Ok(Self { stream, peer, count, _admission: None, session: OnceLock::new(), channel: None, lane: None })
    }

    /// The address that the peer has.
    pub fn peer_ip(&self) -> Option<IpAddr> {
        self.peer_address().ok().map(|address| address.ip())
    }

    /// The peer's address.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// Has the kernel end the connection where the peer's kernel has acknowledged nothing for this long: neither
    /// what was sent nor, while nothing is sent, its probes. A peer that is alive and busy is not concerned. For an
    /// end that sends little, and to a peer that takes all of it soon.
    ///
    /// # Errors
    /// A socket that is gone.
    pub fn end_without_peer(&self, after: Duration) -> Result<(), NetError> {
        if self.is_lane() {
            // Whoever holds the tunnel looks after that.
            return Ok(());
        }
        let second = Duration::from_secs(1);
        let (idle, interval) =
            ((after / 3).clamp(second, KEEPALIVE_IDLE), (after / 6).clamp(second, KEEPALIVE_INTERVAL));
        let keepalive = socket2::TcpKeepalive::new().with_time(idle).with_interval(interval);
        self.stream.set_tcp_keepalive(&keepalive).map_err(NetError::Socket)?;
        self.stream.set_tcp_user_timeout(Some(after)).map_err(NetError::Socket)
    }

    /// Makes this end send by BBR where the round trip is long and the kernel allows it. Losses that are
    /// not the sign of a full link then no longer throttle it, as they do with cubic and reno.
    pub fn send_by_bbr(&self) {
        if self.is_lane() || !self.is_long() {
            return;
        }
        // EPERM: the administrator allows others only. ENOENT: the kernel has none.
        if let Err(error) = self.stream.set_tcp_congestion(b"bbr") {
            tracing::debug!(%error, "BBR is not available; using the congestion control of the host");
        }
    }

    /// Whether the other end is far away, by the round trip so far. What goes through a tunnel has no other way to be quick.
    pub fn is_long(&self) -> bool {
        self.is_lane() || self.round_trip() >= LONG_ROUND_TRIP
    }

    /// The round trip so far; zero where nothing is known of it.
    pub fn round_trip(&self) -> Duration {
        self.lane.as_ref().map_or_else(|| self.tcp_info().round_trip, Lane::round_trip)
    }

    /// A message was answered at once, in this time.
    pub(crate) fn was_answered_in(&self, time: Duration) {
        if let Some(lane) = &self.lane {
            lane.was_answered_in(time);
        }
    }

    /// What the kernel knows of the connection; zeros where it does not say.
    pub fn tcp_info(&self) -> TcpInfo {
        fastcp_sys::tcp::info(self.stream.as_fd()).unwrap_or_default()
    }

    /// Whether the peer is there, for all that is known.
    pub fn is_established(&self) -> bool {
        match self.is_lane() {
            true => !fastcp_sys::tcp::is_hung_up(self.stream.as_fd()),
            false => self.tcp_info().is_established,
        }
    }

    /// Whether nothing can be said to the peer any more. One that has only ended its own side still listens.
    pub fn is_gone(&self) -> bool {
        fastcp_sys::tcp::is_gone(self.stream.as_fd())
    }

    /// Whether a few bytes can be sent without waiting for the peer to read.
    pub fn takes_some(&self) -> bool {
        fastcp_sys::tcp::takes_some(self.stream.as_fd())
    }

    /// Ends the connection in both directions, whoever waits on it.
    pub fn hang_up(&self) {
        // One that is gone already needs no end.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }

    /// Says that nothing more will be sent; what the peer sends can still be read.
    pub fn end_sending(&self) {
        if let Some(channel) = &self.channel {
            // One that is gone already needs no end.
            let _ = channel.end(|slices| self.send(slices, 0));
        }
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }

    /// Says that nothing more will be sent, and passes over what the peer was sending meanwhile, for a while: closed before
    /// that, the connection would take what was said last away from him.
    pub fn linger(&self) {
        self.end_sending();
        let until = Instant::now() + LINGER_MAX;
        let (mut piece, mut passed_over) = ([0; 4096], 0);
        while passed_over < LINGER_BYTES_MAX {
            match self.read_some_by(&mut piece, until) {
                Ok(count @ 1..) => passed_over += count,
                _ => break,
            }
        }
    }

    /// The stream, for whoever may have to end it.
    pub(crate) fn shared_stream(&self) -> Arc<Socket> {
        Arc::clone(&self.stream)
    }

    /// The address at the other end.
    pub(crate) fn peer_address(&self) -> Result<SocketAddr, NetError> {
        address_of(&self.stream)
    }

    /// Sends bytes of a file without a copy in this process, where that is possible: what was not moved is to be sent
    /// by hand.
    ///
    /// # Errors
    /// A timeout or a broken socket.
    pub fn send_file(&self, file: &File, offset: u64, len: u64) -> Result<Moved, NetError> {
        if self.channel.is_some() {
            // Nobody can seal what he does not see.
            return Ok(Moved::Unsupported(0));
        }
        let moved = send_file(&*self.stream, file, offset, len).map_err(|error| self.write_error(error))?;
        self.count.add(0, moved.bytes_of(len));
        Ok(moved)
    }

    /// Receives bytes into a file through a pipe without a copy in this process, where that is possible: what was not
    /// moved is to be received by hand. After an error the pipe must not be used again.
    ///
    /// # Errors
    /// Which end failed.
    pub fn splice(&self, pipe: &SplicePipe, file: &File, offset: u64, len: u64) -> Result<Moved, SpliceFailure> {
        if self.channel.is_some() {
            return Ok(Moved::Unsupported(0));
        }
        match pipe.receive(&*self.stream, file, offset, len) {
            Ok(moved) => {
                self.count.add(moved.bytes_of(len), 0);
                Ok(moved)
            }
            Err(SpliceError::Socket(error)) => Err(SpliceFailure::Net(self.read_error(error))),
            Err(SpliceError::File { taken, error }) => {
                self.count.add(taken, 0);
                Err(SpliceFailure::File { taken, error })
            }
        }
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
        match &self.channel {
            None => self.receive(buffer).map_err(|error| self.read_error(error)),
            Some(channel) => {
                let opened = channel.receive(buffer, |into| self.receive(into));
                opened.map_err(|error| self.channel_error(error, Self::read_error))
            }
        }
    }

    /// As [`Connection::read_some`], before the deadline: also where several pieces have to arrive before there is anything
    /// to read.
    fn read_some_by(&self, buffer: &mut [u8], deadline: Instant) -> Result<usize, NetError> {
        let receive = |into: &mut [u8]| {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            self.receive(into)
        };
        match &self.channel {
            None => ({ receive })(buffer).map_err(|error| self.read_error(error)),
            Some(channel) => {
                channel.receive(buffer, receive).map_err(|error| self.channel_error(error, Self::read_error))
            }
        }
    }

    /// Takes bytes off the stream.
    fn receive(&self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match (&*self.stream).read(into) {
                Ok(count) => {
                    self.count.add(count as u64, 0);
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Puts bytes on the stream; answers how many it took.
    fn send(&self, slices: &[io::IoSlice<'_>], flags: i32) -> io::Result<usize> {
        let count = self.stream.send_vectored_with_flags(slices, flags)?;
        self.count.add(0, count as u64);
        Ok(count)
    }

    fn channel_error(&self, error: ChannelError, told: impl Fn(&Self, io::Error) -> NetError) -> NetError {
        match error {
            ChannelError::Io(error) => told(self, error),
            ChannelError::Net(error) => error,
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
    /// As [`Connection::read_exact`]; [`NetError::TimedOut`] tells the time since the call.
    pub fn read_exact_by(&self, buffer: &mut [u8], deadline: Instant) -> Result<(), NetError> {
        let start = Instant::now();
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read_some_by(&mut buffer[filled..], deadline) {
                Ok(0) => return Err(NetError::Closed),
                Ok(count) => filled += count,
                Err(NetError::TimedOut(_)) => return Err(NetError::TimedOut(start.elapsed())),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends all bytes.
    ///
    /// # Errors
    /// A timeout or a broken socket.
    pub fn write_all(&self, bytes: &[u8]) -> Result<(), NetError> {
        if let Some(channel) = &self.channel {
            let sent = channel.send(bytes, false, |slices| self.send(slices, 0));
            return sent.map_err(|error| self.channel_error(error, Self::write_error));
        }
        (&*self.stream).write_all(bytes).map_err(|error| self.write_error(error))?;
        self.count.add(0, bytes.len() as u64);
        Ok(())
    }

    /// Sends all bytes and tells the kernel that more follow at once, so that it does not send a short
    /// segment for them.
    ///
    /// # Errors
    /// A timeout or a broken socket.
    pub fn write_more(&self, bytes: &[u8]) -> Result<(), NetError> {
        if let Some(channel) = &self.channel {
            let sent = channel.send(bytes, true, |slices| self.send(slices, MSG_MORE));
            return sent.map_err(|error| self.channel_error(error, Self::write_error));
        }
        let mut left = bytes;
        while !left.is_empty() {
            match self.stream.send_with_flags(left, MSG_MORE) {
                Ok(count) => left = &left[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.write_error(error)),
            }
        }
        self.count.add(0, bytes.len() as u64);
        Ok(())
    }

    /// The error of a failed read, told in this crate's words.
    fn read_error(&self, error: io::Error) -> NetError {
        self.socket_error(error, self.stream.read_timeout())
    }

    /// The error of a failed write, told in this crate's words.
    fn write_error(&self, error: io::Error) -> NetError {
        self.socket_error(error, self.stream.write_timeout())
    }

    fn socket_error(&self, error: io::Error, timeout: io::Result<Option<Duration>>) -> NetError {
        let waited = |timeout: io::Result<Option<Duration>>| timeout.ok().flatten().unwrap_or_default();
        match error.kind() {
            io::ErrorKind::WouldBlock => NetError::TimedOut(waited(timeout)),
            // ETIMEDOUT: the kernel gave the peer up.
            io::ErrorKind::TimedOut => NetError::TimedOut(waited(self.stream.tcp_user_timeout())),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => {
                NetError::Closed
            }
            _ => NetError::Socket(error),
        }
    }
}

/// The address at the other end of a stream.
fn address_of(stream: &Socket) -> Result<SocketAddr, NetError> {
    let address = stream.peer_addr().map_err(NetError::Socket)?;
    address.as_socket().ok_or_else(|| NetError::Socket(io::ErrorKind::Unsupported.into()))
}
