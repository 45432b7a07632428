//! How a client gets a connection: over the network, or to a server within its own process.
//!
//! Every address of a name is tried, each for its share of the time that the attempt has: an address that swallows
//! packets does not keep the next from its turn.
//!
//! The embedded server has no open port. For each connection a listener is made on loopback, dialled,
//! accepted from and closed again; whoever else on the machine connects in between is told apart by
//! its port and dropped. So a local copy offers nothing to other users of the machine.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use fastcp_sys::resolve::{ResolveError, addresses};
use fastcp_sys::scarce::patiently;
use fastcp_sys::tcp::{EINPROGRESS, wait_until_connected};
use fastcp_wire::offer::Place;
use socket2::{Domain, Protocol, Socket, Type};

use crate::connection::Lane;
use crate::far::{Far, Path};
use crate::live::Begun;
use crate::{Connection, Incoming, Live, NetError, Trust, WireCount};

/// How often a lookup that takes long is left to see whether anybody still wants it.
const LOOKUP_LOOK_EVERY: Duration = Duration::from_millis(100);

/// What an embedded server does with its end of a connection: serve it on a thread of its own, where there is one to
/// be had.
pub type Hear = Arc<dyn Fn(Incoming) -> io::Result<()> + Send + Sync>;

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
    /// A server at the other end of a tunnel.
    Far(Arc<Far>),
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Embedded(_) => f.write_str("the embedded server"),
            Self::Far(far) => write!(f, "{far}"),
        }
    }
}

/// Makes connections to one endpoint, all counted together.
#[derive(Debug, Clone)]
pub struct Dialer {
    endpoint: Endpoint,
    places: Arc<[Place]>,
    count: Arc<WireCount>,
    /// `None` where connections are not protected.
    trust: Option<Arc<Trust>>,
}

/// The most connections that are begun before they are needed.
const BEGUN_MAX: u16 = 8;
/// How long a direct connection may take where there is another way.
const DIRECT_MAX: Duration = Duration::from_secs(5);
/// One that nobody has asked for by then is dropped: the server waits no longer for a first word.
const BEGUN_AGE_MAX: Duration = Duration::from_secs(5);

impl Dialer {
    /// A dialer whose connections add to `count`.
    pub fn new(endpoint: Endpoint, count: Arc<WireCount>) -> Self {
        Self { endpoint, places: Arc::default(), count, trust: None }
    }

    /// The same; what it receives is of these places of the tree alone, merged, and their root is what they make together.
    #[must_use]
    pub fn of_places(self, places: impl Into<Arc<[Place]>>) -> Self {
        Self { places: places.into(), ..self }
    }

    /// The same; its connections are protected, and trust the other end as is said.
    #[must_use]
    pub fn trusting(self, trust: impl Into<Option<Arc<Trust>>>) -> Self {
        Self { trust: trust.into(), ..self }
    }

    /// The same with another count.
    #[must_use]
    pub fn counting(self, count: Arc<WireCount>) -> Self {
        Self { count, ..self }
    }

    /// The same places of the same tree, from elsewhere: a replica. It is trusted as is said of it, not as this end is.
    #[must_use]
    pub fn elsewhere(&self, endpoint: Endpoint, count: Arc<WireCount>) -> Self {
        Self { endpoint, count, places: Arc::clone(&self.places), trust: None }
    }

    /// The places that it receives, where that is not the whole tree.
    pub(crate) fn places(&self) -> &Arc<[Place]> {
        &self.places
    }

    /// Where it dials.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Makes one connection before the deadline, unless everything is ended meanwhile.
    ///
    /// # Errors
    /// [`NetError::Lookup`] or [`NetError::Connect`]; [`NetError::Closed`] where everything is ended.
    pub fn dial(&self, live: &Live, deadline: Instant) -> Result<Arc<Connection>, NetError> {
        let stream = match &self.endpoint {
            Endpoint::Tcp { host, port } => self.connect(host, *port, live, deadline)?,
            Endpoint::Embedded(hear) => {
                let (here, there) = pair().map_err(|source| self.failed(source))?;
                let here = Arc::new(Socket::from(here));
                live.keep(&here)?;
                hear(there.into()).map_err(|source| self.failed(source))?;
                here
            }
            Endpoint::Far(far) => return self.lane_of(far, far.lane()?, live, Lane::that_stays(far.passage())),
        };
        self.entered(stream, deadline).map(Arc::new)
    }

    /// A data connection to the other end of a tunnel: directly, where that is possible.
    pub(crate) fn dial_far(&self, far: &Far, live: &Live, deadline: Instant) -> Result<Arc<Connection>, NetError> {
        loop {
            match far.path(live, deadline)? {
                Path::Lane(lane) => return self.lane_of(far, lane, live, Lane::for_data(far.passage())),
                Path::Direct(address, trust) => match self.dial_directly(address, &trust, live, deadline) {
                    Ok(connection) => {
                        far.was_reached();
                        return Ok(connection);
                    }
                    Err(_) if live.is_ended() => return Err(NetError::Closed),
                    Err(error) => far.failed_directly(&error),
                },
            }
        }
    }

    fn lane_of(&self, far: &Far, stream: Socket, live: &Live, lane: Lane) -> Result<Arc<Connection>, NetError> {
        let stream = Arc::new(stream);
        live.keep(&stream)?;
        Ok(Arc::new(Connection::through(stream, far.to_string(), Arc::clone(&self.count), lane)))
    }

    fn dial_directly(
        &self,
        address: SocketAddr,
        trust: &Trust,
        live: &Live,
        deadline: Instant,
    ) -> Result<Arc<Connection>, NetError> {
        let failed = |source| NetError::Connect { address: address.to_string(), source };
        let socket = patiently(|| Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)));
        let stream = Arc::new(socket.map_err(failed)?);
        live.keep(&stream)?;
        let deadline = deadline.min(Instant::now() + DIRECT_MAX);
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        stream.connect_timeout(&address.into(), left).map_err(failed)?;
        Connection::new(stream, Arc::clone(&self.count))?.trusted(trust, deadline).map(Arc::new)
    }

    /// A connection over a stream that is there.
    fn entered(&self, stream: Arc<Socket>, deadline: Instant) -> Result<Connection, NetError> {
        let connection = Connection::new(stream, Arc::clone(&self.count))?;
        match &self.trust {
            Some(trust) => connection.trusted(trust, deadline),
            None => Ok(connection),
        }
    }

    /// Begins connections to where `control` leads, so that they are there when they are asked for. What goes wrong
    /// with one is nobody's error: another is made.
    pub(crate) fn begin(&self, control: &Connection, count: u16, live: &Live) {
        let Ok(address) = control.peer_address() else { return };
        // An embedded server hears of no connection but those that are handed to it.
        if matches!(self.endpoint, Endpoint::Tcp { .. }) {
            let to = self.endpoint.to_string();
            (0..count.min(BEGUN_MAX))
                .map_while(|_| begin(address, live).ok())
                .for_each(|stream| live.keep_begun(stream, &to));
        }
    }

    /// One of those that were begun, as soon as it is there.
    pub(crate) fn begun(&self, live: &Live, deadline: Instant) -> Option<Arc<Connection>> {
        let to = self.endpoint.to_string();
        loop {
            let Begun { stream, since, .. } = live.take_begun(&to)?;
            let left = deadline.saturating_duration_since(Instant::now());
            if since.elapsed() < BEGUN_AGE_MAX
                && wait_until_connected(stream.as_fd(), left).is_ok()
                && stream.set_nonblocking(false).is_ok()
                && let Ok(connection) = self.entered(stream, deadline)
            {
                return Some(Arc::new(connection));
            }
        }
    }

    fn connect(&self, host: &str, port: u16, live: &Live, deadline: Instant) -> Result<Arc<Socket>, NetError> {
        let found = look_up(host, port, live, deadline)?;
        let mut last = io::ErrorKind::NotFound.into();
        for (nth, address) in found.iter().enumerate() {
            let domain = Domain::for_address(*address);
            let socket = patiently(|| Socket::new(domain, Type::STREAM, Some(Protocol::TCP)));
            let stream = Arc::new(socket.map_err(|source| self.failed(source))?);
            live.keep(&stream)?;
            let left = deadline.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(found.len() - nth).unwrap_or(u32::MAX);
            match stream.connect_timeout(&(*address).into(), share) {
                Ok(()) => return Ok(stream),
                Err(_) if live.is_ended() => return Err(NetError::Closed),
                Err(error) => last = error,
            }
        }
        Err(self.failed(last))
    }

    fn failed(&self, source: io::Error) -> NetError {
        NetError::Connect { address: self.endpoint.to_string(), source }
    }
}

/// Has the kernel make a connection.
fn begin(address: SocketAddr, live: &Live) -> io::Result<Arc<Socket>> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(EINPROGRESS) => return Err(error),
        _ => {}
    }
    let stream = Arc::new(socket);
    live.keep(&stream).map_err(io::Error::other)?;
    Ok(stream)
}

/// The addresses of a host. A lookup cannot be interrupted: it has a thread of its own, which may be left behind.
fn look_up(host: &str, port: u16, live: &Live, deadline: Instant) -> Result<Vec<SocketAddr>, NetError> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![(ip, port).into()]);
    }
    let failed = |source| NetError::Lookup { host: host.to_owned(), source };
    let (found, finding) = channel();
    let name = host.to_owned();
    let spawned = std::thread::Builder::new().name("lookup".to_owned()).spawn(move || {
        // Nobody may want it any more.
        let _ = found.send(addresses(&name, port));
    });
    spawned.map_err(|error| failed(ResolveError::System(error)))?;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match finding.recv_timeout(left.min(LOOKUP_LOOK_EVERY)) {
            Ok(result) => return result.map_err(failed),
            Err(_) if live.is_ended() => return Err(NetError::Closed),
            Err(RecvTimeoutError::Timeout) if !left.is_zero() => {}
            Err(_) => return Err(failed(ResolveError::NoAnswer)),
        }
    }
}

/// Two ends of one loopback connection.
pub(crate) fn pair() -> io::Result<(TcpStream, TcpStream)> {
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
