//! What the kernel knows of a TCP connection, and the congestion control it uses.
//!
//! `TCP_INFO` says where a sender's time goes: waiting for the network, for the receiver to make room,
//! or for this process to bring more. No other measurement tells the three apart.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::SocketError;

pub use libc::EINPROGRESS;

/// A connection's state, of `tcp_info` in Linux's `linux/tcp.h`. Fields that the kernel does not have
/// read as zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// The smoothed round trip.
    pub round_trip: Duration,
    /// How long anything sent was unanswered: the connection had something to do.
    pub busy: Duration,
    /// Of that, how long the receiver had no room for more.
    pub receiver_limited: Duration,
    /// Of that, how long this side's own buffer held too little.
    pub buffer_limited: Duration,
    /// Bytes that the peer has acknowledged.
    pub acked_bytes: u64,
    /// Bytes that wait here to be sent for the first time.
    pub unsent_bytes: u64,
    /// How long nothing has arrived from the peer and nothing has left for it. What waits here until the peer has room
    /// has not left.
    pub quiet: Duration,
    /// Whether neither end has closed it.
    pub is_established: bool,
}

/// `TCP_ESTABLISHED` of Linux's `net/tcp_states.h`.
const ESTABLISHED: u8 = 1;

impl TcpInfo {
    /// How long the network held the connection back: neither the receiver nor the buffer here did.
    pub fn network_limited(&self) -> Duration {
        self.busy.saturating_sub(self.receiver_limited).saturating_sub(self.buffer_limited)
    }
}

/// Asks for a connection's state.
///
/// # Errors
/// As `getsockopt(2)`.
pub fn info(socket: BorrowedFd<'_>) -> io::Result<TcpInfo> {
    // SAFETY: all of its fields are integers, for which zero bytes are a value.
    let mut raw: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `raw`, which is that long.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            std::ptr::from_mut(&mut raw).cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(TcpInfo {
        round_trip: Duration::from_micros(raw.tcpi_rtt.into()),
        busy: Duration::from_micros(raw.tcpi_busy_time),
        receiver_limited: Duration::from_micros(raw.tcpi_rwnd_limited),
        buffer_limited: Duration::from_micros(raw.tcpi_sndbuf_limited),
        acked_bytes: raw.tcpi_bytes_acked,
        unsent_bytes: raw.tcpi_notsent_bytes.into(),
        is_established: raw.tcpi_state == ESTABLISHED,
        quiet: Duration::from_millis(raw.tcpi_last_data_sent.min(raw.tcpi_last_data_recv).into()),
    })
}

/// Whether the peer of a stream socket, of whichever kind, has ended its side, or all of it has ended.
pub fn is_hung_up(socket: BorrowedFd<'_>) -> bool {
    let mut looked = [PollFd::new(socket, PollFlags::from_bits_retain(libc::POLLRDHUP))];
    matches!(poll(&mut looked, PollTimeout::ZERO), Ok(1..))
}

/// Whether a stream socket has ended in both directions, or failed.
pub fn is_gone(socket: BorrowedFd<'_>) -> bool {
    // These are told whether they are asked for or not.
    let mut looked = [PollFd::new(socket, PollFlags::empty())];
    matches!(poll(&mut looked, PollTimeout::ZERO), Ok(1..))
}

/// Whether a stream socket takes a few bytes at once. Linux says so while less than two thirds of its buffer are full.
pub fn takes_some(socket: BorrowedFd<'_>) -> bool {
    let mut looked = [PollFd::new(socket, PollFlags::POLLOUT)];
    matches!(poll(&mut looked, PollTimeout::ZERO), Ok(1..))
}

/// Waits until a connection that is being made is there.
///
/// # Errors
/// Why it could not be made; `TimedOut` where it is not there in time.
pub fn wait_until_connected(socket: BorrowedFd<'_>, within: Duration) -> io::Result<()> {
    let until = Instant::now() + within;
    let mut waiting = [PollFd::new(socket, PollFlags::POLLOUT)];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match poll(&mut waiting, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Ok(0) if left.is_zero() => return Err(io::ErrorKind::TimedOut.into()),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => break,
            Err(error) => return Err(error.into()),
        }
    }
    match getsockopt(&socket, SocketError)? {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::info;

    #[test]
    fn a_connection_that_sent_was_busy() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let mut here = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
        let (mut there, _) = listener.accept().expect("accept");
        here.write_all(&[1; 16 << 10]).expect("room");
        let mut first = [0; 1024];
        there.read_exact(&mut first).expect("read");
        let info = info(here.as_fd()).expect("info");
        assert!(!info.round_trip.is_zero());
        assert!(info.network_limited() <= info.busy);
    }
}
