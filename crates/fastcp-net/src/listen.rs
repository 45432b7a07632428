//! Accepting connections, within bounds.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The most connections that a server serves at a time, one thread each.
pub const CONNECTIONS_TOTAL_MAX: usize = 4096;
/// The most of them from one address.
pub const CONNECTIONS_PER_PEER_MAX: usize = 2048;

/// How long to wait when the process has no descriptor left for one more connection.
const EXHAUSTED_WAIT: Duration = Duration::from_millis(100);

/// A bound socket.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    is_closed: AtomicBool,
    open: Arc<Open>,
}

/// The connections that are served.
#[derive(Debug, Default)]
struct Open {
    by_peer: Mutex<HashMap<IpAddr, usize>>,
    ended: Condvar,
}

impl Open {
    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.by_peer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to one connection; given back when dropped.
#[derive(Debug)]
pub struct Admission {
    peer: IpAddr,
    open: Arc<Open>,
}

impl Listener {
    /// Binds to an address; port 0 picks a free one.
    ///
    /// # Errors
    /// As `bind(2)`.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        Ok(Self { listener, is_closed: AtomicBool::new(false), open: Arc::default() })
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
        self.is_closed.store(true, Ordering::Release);
        // Wakes whoever waits for a connection, on Linux.
        let _ = socket2::SockRef::from(&self.listener).shutdown(Shutdown::Both);
        self.open.lock().values().sum()
    }

    /// Waits until no connection is served any more.
    pub fn wait_for_end(&self) {
        let mut open = self.open.lock();
        while !open.is_empty() {
            open = self.open.ended.wait(open).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Accepts one connection within the bounds. Those over them are closed and logged. `None` after
    /// [`Listener::close`].
    ///
    /// # Errors
    /// A listening socket that is broken for good.
    pub fn accept(&self) -> io::Result<Option<(TcpStream, Admission)>> {
        loop {
            match self.listener.accept() {
                _ if self.is_closed.load(Ordering::Acquire) => return Ok(None),
                Ok((stream, peer)) => match self.admit(peer.ip()) {
                    Some(admission) => return Ok(Some((stream, admission))),
                    None => tracing::warn!(%peer, "connection closed: too many connections"),
                },
                Err(error) if is_peers_fault(&error) => {}
                Err(error) if is_exhaustion(&error) => {
                    tracing::warn!(%error, "cannot accept for now");
                    std::thread::sleep(EXHAUSTED_WAIT);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn admit(&self, peer: IpAddr) -> Option<Admission> {
        let mut open = self.open.lock();
        let total: usize = open.values().sum();
        let of_peer = open.get(&peer).copied().unwrap_or(0);
        if total >= CONNECTIONS_TOTAL_MAX || of_peer >= CONNECTIONS_PER_PEER_MAX {
            return None;
        }
        open.insert(peer, of_peer + 1);
        Some(Admission { peer, open: Arc::clone(&self.open) })
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        if let Some(count) = open.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.peer);
                self.open.ended.notify_all();
            }
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

/// `EMFILE`, `ENFILE`, `ENOBUFS`, `ENOMEM`: the connection stays in the queue until there is room.
fn is_exhaustion(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(24 | 23 | 105 | 12))
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::Listener;

    #[test]
    fn a_closed_listener_waits_for_those_that_it_serves() {
        let listener = Listener::bind("127.0.0.1:0".parse().expect("an address")).expect("bind");
        let address = listener.local_addr().expect("bound");
        let _client = TcpStream::connect(address).expect("connect");
        let (_stream, admission) = listener.accept().expect("accept").expect("open");
        std::thread::scope(|threads| {
            let waiting = threads.spawn(|| listener.accept().expect("accept").is_none());
            assert_eq!(listener.close(), 1);
            assert!(waiting.join().expect("join"));
            let ended = threads.spawn(|| listener.wait_for_end());
            drop(admission);
            ended.join().expect("join");
        });
        assert!(listener.accept().expect("accept").is_none());
    }
}
