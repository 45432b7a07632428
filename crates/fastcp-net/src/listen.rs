//! Accepting connections, within bounds.
//!
//! A connection over the bounds is accepted all the same, a few at a time: its peer is told that there is no room,
//! in words that it understands, and comes back later. Further ones wait until those have been told; but where it is an
//! address's own limit that they are over, they are dropped at once: nobody else waits in the queue behind them.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastcp_sys::scarce::is_exhaustion;

use crate::bounds::network_of;
use crate::{Full, Incoming};

/// The most connections that a server serves at a time where nobody says so, one thread each.
pub const CONNECTIONS_TOTAL_MAX: usize = 4096;
/// The most of them from one address.
pub const CONNECTIONS_PER_PEER_MAX: usize = 2048;

/// The most connections that are told at a time that there is no room for them.
pub const TURNED_AWAY_MAX: usize = 2;

/// Connections that wait to be accepted; the system may allow fewer. Where they are as many, others are made a second later or more:
/// with the usual 128 whoever opens many kept others out for that long.
const QUEUE_MAX: i32 = 4096;

/// How long to wait when the process has no descriptor left for one more connection.
const EXHAUSTED_WAIT: Duration = Duration::from_millis(100);

/// How many connections may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// By all peers together.
    pub total: usize,
    /// By one address, or, of IPv6, from one network of 64 bits.
    pub per_address: usize,
}

impl ConnectionLimits {
    /// As many as somebody needs who knows the peers.
    pub const NONE: Self = Self { total: usize::MAX, per_address: usize::MAX };
}

/// A bound socket.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    is_closed: AtomicBool,
    limits: ConnectionLimits,
    open: Arc<Open>,
}

/// A connection that was made to a [`Listener`]. It counts for as long as it lives.
#[derive(Debug)]
pub enum Accepted {
    /// To be served.
    Admitted(Incoming),
    /// There are too many: to be told so.
    TurnedAway(Incoming, Full),
    /// There are too many even to be told so.
    Dropped(Full),
}

/// The connections that are served.
#[derive(Debug, Default)]
struct Open {
    counts: Mutex<Counts>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Counts {
    by_peer: HashMap<IpAddr, usize>,
    turned_away: usize,
}

impl Counts {
    fn total(&self) -> usize {
        self.by_peer.values().sum()
    }

    /// Why there is no room for one more of this peer, where there is none.
    fn full_for(&self, peer: IpAddr, limits: ConnectionLimits) -> Option<Full> {
        if self.by_peer.get(&peer).is_some_and(|count| *count >= limits.per_address) {
            return Some(Full::Peer(peer));
        }
        (self.total() >= limits.total).then_some(Full::Server)
    }
}

impl Open {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to one connection; given back when dropped.
#[derive(Debug)]
pub struct Admission {
    /// `None` for one that is turned away.
    peer: Option<IpAddr>,
    open: Arc<Open>,
}

impl Listener {
    /// Binds to an address, for at most so many connections at a time; port 0 picks a free one.
    ///
    /// # Errors
    /// As `bind(2)`.
    pub fn bind(address: SocketAddr, limits: ConnectionLimits) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        socket2::SockRef::from(&listener).listen(QUEUE_MAX)?;
        Ok(Self { listener, is_closed: AtomicBool::new(false), limits, open: Arc::default() })
    }

    /// The address it is bound to.
    ///
    /// # Errors
    /// As `getsockname(2)`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Takes no more connections. Answers how many are still served.
    pub fn close(&self) -> usize {
        let open = self.open.lock();
        self.is_closed.store(true, Ordering::Release);
        self.open.ended.notify_all();
        // Wakes whoever waits for a connection, on Linux.
        let _ = socket2::SockRef::from(&self.listener).shutdown(Shutdown::Both);
        open.total()
    }

    /// Waits until no connection is served any more.
    pub fn wait_for_end(&self) {
        let mut open = self.open.lock();
        while !open.by_peer.is_empty() {
            open = self.open.ended.wait(open).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Accepts one connection. `None` after [`Listener::close`].
    ///
    /// # Errors
    /// A listening socket that is broken for good.
    pub fn accept(&self) -> io::Result<Option<Accepted>> {
        let mut is_told = false;
        loop {
            match self.listener.accept() {
                _ if self.is_closed.load(Ordering::Acquire) => return Ok(None),
                Ok((stream, peer)) => return Ok(Some(self.admit(stream, peer.ip()))),
                Err(error) if is_peers_fault(&error) => {}
                Err(error) if is_exhaustion(&error) => {
                    if !std::mem::replace(&mut is_told, true) {
                        tracing::warn!(%error, "cannot accept connections at the moment");
                    }
                    std::thread::sleep(EXHAUSTED_WAIT);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn admit(&self, stream: TcpStream, peer: IpAddr) -> Accepted {
        let peer = network_of(peer);
        let mut open = self.open.lock();
        while let Some(full) = open.full_for(peer, self.limits) {
            if open.turned_away >= TURNED_AWAY_MAX {
                if matches!(full, Full::Peer(_)) || self.is_closed.load(Ordering::Acquire) {
                    return Accepted::Dropped(full);
                }
                // There may be room by then.
                open = self.open.ended.wait(open).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            open.turned_away += 1;
            let admission = Admission { peer: None, open: Arc::clone(&self.open) };
            return Accepted::TurnedAway(Incoming::admitted(stream, admission), full);
        }
        *open.by_peer.entry(peer).or_default() += 1;
        let admission = Admission { peer: Some(peer), open: Arc::clone(&self.open) };
        Accepted::Admitted(Incoming::admitted(stream, admission))
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        let Some(peer) = self.peer else {
            open.turned_away -= 1;
            return self.open.ended.notify_all();
        };
        if let Some(count) = open.by_peer.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                open.by_peer.remove(&peer);
            }
            // Whoever closes the listener waits for the last, and whoever accepts may wait for room.
            self.open.ended.notify_all();
        }
    }
}

/// The connection died in the queue; the next one may live.
fn is_peers_fault(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::{Accepted, ConnectionLimits, Full, Listener, TURNED_AWAY_MAX};

    fn limits(total: usize) -> ConnectionLimits {
        ConnectionLimits { total, per_address: usize::MAX }
    }

    #[test]
    fn a_closed_listener_waits_for_those_that_it_serves() {
        let listener = Listener::bind("127.0.0.1:0".parse().expect("an address"), limits(9)).expect("bind");
        let address = listener.local_addr().expect("bound");
        let _client = TcpStream::connect(address).expect("connect");
        let Some(Accepted::Admitted(admitted)) = listener.accept().expect("accept") else { panic!("room") };
        std::thread::scope(|threads| {
            let waiting = threads.spawn(|| listener.accept().expect("accept").is_none());
            assert_eq!(listener.close(), 1);
            assert!(waiting.join().expect("join"));
            let ended = threads.spawn(|| listener.wait_for_end());
            drop(admitted);
            ended.join().expect("join");
        });
        assert!(listener.accept().expect("accept").is_none());
    }

    #[test]
    fn those_over_the_bound_are_turned_away_and_a_few_at_a_time() {
        let listener = Listener::bind("127.0.0.1:0".parse().expect("an address"), limits(1)).expect("bind");
        let address = listener.local_addr().expect("bound");
        let _clients = [(); TURNED_AWAY_MAX + 3].map(|()| TcpStream::connect(address).expect("connect"));
        let accept = || listener.accept().expect("accept").expect("open");
        let Accepted::Admitted(admitted) = accept() else { panic!("there is room for one") };
        let mut turned_away: Vec<_> = (0..TURNED_AWAY_MAX).map(|_| accept()).collect();
        assert!(turned_away.iter().all(|accepted| matches!(accepted, Accepted::TurnedAway(..))));
        std::thread::scope(|threads| {
            let next = threads.spawn(accept);
            drop(admitted);
            drop(turned_away.pop());
            assert!(matches!(next.join().expect("join"), Accepted::Admitted(..)), "there is room again");
        });
    }

    #[test]
    fn nobody_waits_behind_an_address_that_is_over_its_own_limit() {
        let limits = ConnectionLimits { total: 9, per_address: 1 };
        let listener = Listener::bind("127.0.0.1:0".parse().expect("an address"), limits).expect("bind");
        let address = listener.local_addr().expect("bound");
        let _clients = [(); TURNED_AWAY_MAX + 2].map(|()| TcpStream::connect(address).expect("connect"));
        let accept = || listener.accept().expect("accept").expect("open");
        let accepted: Vec<_> = (0..TURNED_AWAY_MAX + 2).map(|_| accept()).collect();
        assert!(matches!(accepted[0], Accepted::Admitted(..)));
        assert!(matches!(accepted[TURNED_AWAY_MAX + 1], Accepted::Dropped(Full::Peer(_))));
    }
}
