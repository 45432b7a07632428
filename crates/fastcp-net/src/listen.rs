//! Accepting connections, within bounds.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
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
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// The right to one connection; given back when dropped.
#[derive(Debug)]
pub struct Admission {
    peer: IpAddr,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Listener {
    /// Binds to an address; port 0 picks a free one.
    ///
    /// # Errors
    /// As `bind(2)`.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address)?, open: Arc::default() })
    }

    /// The address it is bound to.
    ///
    /// # Errors
    /// As `getsockname(2)`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Accepts one connection within the bounds. Those over them are closed and logged.
    ///
    /// # Errors
    /// A listening socket that is broken for good.
    pub fn accept(&self) -> io::Result<(TcpStream, Admission)> {
        loop {
            match self.listener.accept() {
                Ok((stream, peer)) => match self.admit(peer.ip()) {
                    Some(admission) => return Ok((stream, admission)),
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
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let total: usize = open.values().sum();
        let of_peer = open.entry(peer).or_insert(0);
        if total >= CONNECTIONS_TOTAL_MAX || *of_peer >= CONNECTIONS_PER_PEER_MAX {
            return None;
        }
        *of_peer += 1;
        Some(Admission { peer, open: Arc::clone(&self.open) })
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.peer);
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
