//! How a client gets a connection: over the network, or to a server within its own process.
//!
//! The embedded server has no open port. For each connection a listener is made on loopback, dialled,
//! accepted from and closed again; whoever else on the machine connects in between is told apart by
//! its port and dropped. So a local copy offers nothing to other users of the machine.

use std::fmt;
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use fastcp_sys::scarce::patiently;

use crate::{Connection, NetError, WireCount};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What an embedded server does with its end of a connection: serve it on a thread of its own, where there is one to
/// be had.
pub type Hear = Arc<dyn Fn(TcpStream) -> std::io::Result<()> + Send + Sync>;

/// Where to dial.
#[derive(Clone)]
pub enum Endpoint {
    /// A host name or address, and a port.
    Tcp {
        /// Name, IPv4 or IPv6 address without brackets.
        host: String,
        /// Port.
        port: u16,
    },
    /// A server in this process.
    Embedded(Hear),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Embedded(_) => f.write_str("the embedded server"),
        }
    }
}

/// Makes connections to one endpoint, all counted together.
#[derive(Clone)]
pub struct Dialer {
    endpoint: Endpoint,
    count: Arc<WireCount>,
}

impl Dialer {
    /// A dialer whose connections add to `count`.
    pub fn new(endpoint: Endpoint, count: Arc<WireCount>) -> Self {
        Self { endpoint, count }
    }

    /// Where it dials.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Makes one connection; every address of the host is tried.
    ///
    /// # Errors
    /// [`NetError::Connect`].
    pub fn dial(&self) -> Result<Connection, NetError> {
        let stream = match &self.endpoint {
            Endpoint::Tcp { host, port } => connect(host, *port),
            Endpoint::Embedded(hear) => pair().and_then(|(here, there)| hear(there).map(|()| here)),
        };
        let stream = stream.map_err(|source| NetError::Connect { address: self.endpoint.to_string(), source })?;
        Connection::new(stream, Arc::clone(&self.count))
    }
}

fn connect(host: &str, port: u16) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match patiently(|| TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Two ends of one loopback connection.
fn pair() -> std::io::Result<(TcpStream, TcpStream)> {
    let listener = patiently(|| TcpListener::bind(("127.0.0.1", 0)))?;
    let address = listener.local_addr()?;
    let here = patiently(|| TcpStream::connect(address))?;
    let own = here.local_addr()?;
    loop {
        let (there, peer) = patiently(|| listener.accept())?;
        if peer == own {
            return Ok((here, there));
        }
    }
}
