//! The sessions of a server: the tickets that it knows, and what it has promised.
//!
//! A session lives as long as its control connection: its ticket is forgotten when that ends. Connections are
//! promised to sessions before they are made, and no address is promised more than it may make. A session that uses
//! nothing of what it was promised is ended where others need it: its client finds the connection closed, and opens
//! another session when it needs one.

use std::collections::HashMap;
use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr, Shutdown};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use fastcp_model::{CHUNK_KB_DEFAULT, Status};
use fastcp_wire::frame::FrameType;
use fastcp_wire::hello::{Attach, Hello, HelloReply, Lane, Ticket, VERSION};
use fastcp_wire::limits::CONNECTIONS_MAX;
use fastcp_wire::offer::Place;
use socket2::Socket;

use crate::bounds::network_of;
use crate::session::intersect;
use crate::{Agreed, Bound, Bounds, Connection, ConnectionLimits, NetError, Terms};

/// A session that has had no data connection for this long, and whose control connection has neither brought nor taken
/// anything, makes room for others. A receiver that plans slowly has data connections.
pub const IDLE_MAX: Duration = Duration::from_secs(60);
/// Where another address needs room, sessions of one that has more than its share are hung up sooner.
const IDLE_MAX_BEYOND_SHARE: Duration = Duration::from_secs(5);

/// Where the server receives, connections that may be attached beside those for data: for signatures, reports, and
/// control connections in place of lost ones.
const LANES_BESIDE_DATA: u16 = 4;

/// The connections of a session in which the server receives, at least.
const RECEIVING_CONNECTIONS_MIN: usize = 4;

/// The sessions of a server.
#[derive(Debug)]
pub struct Sessions {
    terms: Terms,
    /// Of the connections of sessions together.
    limits: ConnectionLimits,
    bounds: Arc<Bounds>,
    idle_max: Duration,
    /// The same for those of an address that has more than its share.
    idle_max_beyond_share: Duration,
    open: Arc<Mutex<HashMap<Ticket, Open>>>,
    /// Of sessions that were ended here: to be told, without the lock of the sessions.
    ended: Mutex<Vec<Weak<dyn Lanes>>>,
}

#[derive(Debug)]
struct Open {
    agreed: Agreed,
    places: Arc<[Place]>,
    /// Takes its connections, where the client sends. Whoever runs the receiver owns it: what it holds is dropped there, and
    /// never under the lock of the sessions, which that takes again.
    lanes: Option<Weak<dyn Lanes>>,
    attached: u16,
    peer: IpAddr,
    control: Arc<Socket>,
    /// Since when nothing is attached, where nothing is.
    detached: Instant,
}

/// Takes the connections of a session in which the server receives.
pub trait Lanes: Send + Sync + Debug {
    /// Takes one that has been told that it belongs to the session, and answers when its thread is no longer needed.
    ///
    /// # Errors
    /// What the connection ends with.
    fn take(&self, connection: Arc<Connection>, lane: Lane) -> Result<(), NetError>;

    /// The session is forgotten: no more connections of it will come.
    fn end(&self);
}

/// What a connection that was attached is to be served by.
#[derive(Debug)]
pub enum Attached {
    /// Whoever answers for the tree that is served.
    Source(SessionGuard),
    /// The receiver of the session.
    Receiver(SessionGuard, Arc<dyn Lanes>, Lane),
}

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// An address has all that it may have.
    Peer(IpAddr),
    /// The server has as many as it can serve.
    Server,
}

impl Full {
    /// Counts that somebody was refused for it.
    pub fn count(self, bounds: &Bounds) {
        match self {
            Self::Peer(peer) => bounds.hit(Bound::ConnectionsOfAddress, Some(peer)),
            Self::Server => bounds.hit(Bound::Connections, None),
        }
    }
}

impl Open {
    /// The connections that it may make: those for data, one for control, one that asks for signatures, and one that
    /// brings reports.
    fn promised(&self) -> usize {
        usize::from(self.agreed.connections) + 2 + usize::from(self.lanes.is_some())
    }

    fn is_idle(&self, idle_max: Duration) -> bool {
        self.attached == 0
            && self.detached.elapsed() >= idle_max
            && fastcp_sys::tcp::info(self.control.as_fd()).is_ok_and(|info| info.quiet >= idle_max)
    }
}

/// How many data connections a session may have: half of what nobody was promised, so that there is something for
/// others, too.
fn share(max: usize, promised: usize) -> Option<u16> {
    match max.saturating_sub(promised) {
        0 | 1 => None,
        left => Some(u16::try_from((left - 2) / 2).unwrap_or(u16::MAX).max(1)),
    }
}

/// An open session at the server, or one of its data connections; given back when dropped.
#[derive(Debug)]
pub struct SessionGuard {
    /// The terms.
    pub agreed: Agreed,
    /// The places of the tree that it is of; none for all of it.
    pub places: Arc<[Place]>,
    ticket: Ticket,
    capability_bits: u32,
    is_control: bool,
    open: Arc<Mutex<HashMap<Ticket, Open>>>,
}

impl Sessions {
    /// No sessions yet, and the terms for those to come.
    pub fn new(terms: Terms, limits: ConnectionLimits) -> Self {
        Self {
            terms,
            limits,
            bounds: Arc::default(),
            idle_max: IDLE_MAX,
            idle_max_beyond_share: IDLE_MAX_BEYOND_SHARE,
            open: Arc::default(),
            ended: Mutex::default(),
        }
    }

    /// The same; sessions that have used nothing for so long make room for others, and what is done about that is counted.
    #[must_use]
    pub fn within(self, idle_max: Duration, bounds: Arc<Bounds>) -> Self {
        Self { idle_max, bounds, ..self }
    }

    /// Whether there can be room for a session in which the server receives: for control, reports, signatures and data.
    pub fn can_receive(&self) -> bool {
        self.limits.total >= RECEIVING_CONNECTIONS_MIN
    }

    /// Whether there is no session.
    pub fn is_empty(&self) -> bool {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// How many data connections the next session of this address may have.
    fn allowed(&self, open: &HashMap<Ticket, Open>, peer: IpAddr) -> Result<u16, Full> {
        let of_all = open.values().map(Open::promised).sum();
        let of_peer = open.values().filter(|session| session.peer == peer).map(Open::promised).sum();
        let left = share(self.limits.total, of_all).ok_or(Full::Server)?;
        let left_to_peer = share(self.limits.per_address, of_peer).ok_or(Full::Peer(peer))?;
        Ok(left.min(left_to_peer))
    }

    /// As [`Sessions::allowed`], at the cost of idle sessions where there would be no room.
    fn room_for(&self, open: &mut HashMap<Ticket, Open>, peer: IpAddr) -> Result<u16, NetError> {
        self.allowed(open, peer)
            .or_else(|full| {
                self.end_idle(open, full);
                self.allowed(open, peer)
            })
            .map_err(|full| {
                full.count(&self.bounds);
                NetError::Refused(Status::Busy)
            })
    }

    /// Ends idle sessions, of which each keeps a thread: for others there are none left. Only those that are in the way.
    pub fn make_room(&self, full: Full) {
        self.end_idle(&mut self.open.lock().unwrap_or_else(PoisonError::into_inner), full);
        self.tell_ended();
    }

    fn tell_ended(&self) {
        let ended = std::mem::take(&mut *self.ended.lock().unwrap_or_else(PoisonError::into_inner));
        ended.iter().filter_map(Weak::upgrade).for_each(|lanes| lanes.end());
    }

    fn end_idle(&self, open: &mut HashMap<Ticket, Open>, full: Full) {
        let mut of_peer: HashMap<IpAddr, usize> = HashMap::new();
        for session in open.values() {
            *of_peer.entry(session.peer).or_default() += session.promised();
        }
        // One more address is to have room.
        let share = self.limits.total / (of_peer.len() + 1);
        open.retain(|_, session| {
            let is_in_the_way = full == Full::Server || full == Full::Peer(session.peer);
            let is_beyond_share = full == Full::Server && of_peer[&session.peer] > share;
            let beyond = self.idle_max.min(self.idle_max_beyond_share);
            let idle_max = if is_beyond_share { beyond } else { self.idle_max };
            if !is_in_the_way || !session.is_idle(idle_max) {
                return true;
            }
            self.bounds.hit(Bound::IdleSession, Some(session.peer));
            // Its thread wakes, be it that it reads or that it writes. One that is gone already needs no end.
            let _ = session.control.shutdown(Shutdown::Both);
            let lanes = session.lanes.take();
            self.ended.lock().unwrap_or_else(PoisonError::into_inner).extend(lanes);
            false
        });
    }

    /// Agrees on terms with a client, who is to be told of it ([`SessionGuard::reply`]).
    ///
    /// # Errors
    /// A version that is not spoken here, or [`Status::Busy`] where all connections are promised to others.
    pub fn agree(&self, connection: &Connection, hello: &Hello) -> Result<SessionGuard, NetError> {
        let agreed = self.agree_now(connection, hello);
        self.tell_ended();
        agreed
    }

    fn agree_now(&self, connection: &Connection, hello: &Hello) -> Result<SessionGuard, NetError> {
        if hello.version < VERSION {
            return Err(NetError::Refused(Status::BadVersion));
        }
        let ticket = Ticket(fastcp_sys::process::random_bytes().map_err(NetError::Socket)?);
        let peer = network_of(connection.peer_ip().unwrap_or(Ipv4Addr::LOCALHOST.into()));
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let allowed = self.room_for(&mut open, peer)?;
        let agreed = Agreed {
            capabilities: intersect(hello.capability_bits, self.terms.capabilities, connection.peer()),
            connections: hello.connections.min(self.terms.connections).min(CONNECTIONS_MAX).min(allowed),
            chunk_kb: match hello.chunk_kb {
                0 => self.terms.chunk_kb.unwrap_or(CHUNK_KB_DEFAULT),
                wanted => wanted,
            },
        };
        let control = connection.shared_stream();
        let places: Arc<[Place]> = hello.places.as_slice().into();
        let (of_session, detached) = (Arc::clone(&places), Instant::now());
        let session = Open { agreed, places: of_session, lanes: None, attached: 0, peer, control, detached };
        open.insert(ticket, session);
        let capability_bits = self.terms.capabilities.bits();
        Ok(SessionGuard { agreed, places, ticket, capability_bits, is_control: true, open: Arc::clone(&self.open) })
    }

    /// Attaches a connection and answers its ATTACH.
    ///
    /// # Errors
    /// [`NetError::Refused`] for an unknown ticket, where too many are attached, or for a lane that the session does not
    /// have; or a broken connection.
    pub fn attach(&self, connection: &Connection, Attach { ticket, lane }: Attach) -> Result<Attached, NetError> {
        let (agreed, places, lanes) = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            let session = open.get_mut(&ticket).ok_or(NetError::Refused(Status::UnknownTicket))?;
            // A client dials again long before this side knows that a connection is dead: as many as
            // were agreed may linger beside as many that live.
            let others = session.lanes.as_ref().map_or(0, |_| LANES_BESIDE_DATA);
            if session.attached >= 2 * session.agreed.connections + others {
                return Err(NetError::Refused(Status::TooManyConnections));
            }
            if lane != Lane::Data && session.lanes.is_none() {
                return Err(NetError::Refused(Status::BadRequest));
            }
            let lanes = match &session.lanes {
                Some(lanes) => Some(lanes.upgrade().ok_or(NetError::Refused(Status::UnknownTicket))?),
                None => None,
            };
            session.attached += 1;
            (session.agreed, Arc::clone(&session.places), lanes)
        };
        let capability_bits = self.terms.capabilities.bits();
        let open = Arc::clone(&self.open);
        let guard = SessionGuard { agreed, places, ticket, capability_bits, is_control: false, open };
        connection.write_frame(FrameType::AttachReply, &[])?;
        Ok(match lanes {
            Some(lanes) => Attached::Receiver(guard, lanes, lane),
            None => Attached::Source(guard),
        })
    }
}

impl SessionGuard {
    /// What names the session.
    pub fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// Has the session's connections taken by a receiver.
    pub fn received_by(&self, lanes: &Arc<dyn Lanes>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = open.get_mut(&self.ticket) {
            session.lanes = Some(Arc::downgrade(lanes));
        }
    }

    /// Answers the client's HELLO.
    ///
    /// # Errors
    /// A broken connection.
    pub fn reply(&self, connection: &Connection) -> Result<(), NetError> {
        let reply = HelloReply {
            version: VERSION,
            capability_bits: self.capability_bits,
            connections: self.agreed.connections,
            chunk_kb: self.agreed.chunk_kb,
            ticket: self.ticket,
        };
        connection.write_frame(FrameType::HelloReply, &reply.encode())
    }
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_control {
            open.remove(&self.ticket);
        } else if let Some(session) = open.get_mut(&self.ticket) {
            session.attached -= 1;
            session.detached = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use fastcp_model::{Capabilities, Status};
    use fastcp_wire::frame::FRAME_HEADER_BYTES;
    use fastcp_wire::hello::{Attach, Hello, HelloReply, Lane, Role, Ticket, VERSION};

    use socket2::Socket;

    use super::{Agreed, Full, Open, Sessions, Terms};
    use crate::{CONNECTIONS_PER_PEER_MAX, Connection, ConnectionLimits, NetError, WireCount};

    fn sessions(total_max: usize, wanted: u16) -> Sessions {
        let terms = Terms { capabilities: Capabilities::SUPPORTED, connections: wanted, chunk_kb: None };
        Sessions::new(terms, ConnectionLimits { total: total_max, per_address: CONNECTIONS_PER_PEER_MAX })
    }

    /// Both ends of a connection on loopback: of the server, and of the client.
    fn connected() -> (Connection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let there = TcpStream::connect(listener.local_addr().expect("an address")).expect("connect");
        let (here, _) = listener.accept().expect("accept");
        (Connection::new(Socket::from(here), Arc::<WireCount>::default()).expect("connected"), there)
    }

    fn address(nth: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, nth).into()
    }

    /// What sessions that want as much as they can get are allowed, one after another, each from the address that
    /// `peer_of` gives it, and what then is in the way of another one.
    fn allowed(total_max: usize, wanted: u16, peer_of: impl Fn(u8) -> IpAddr) -> (Vec<u16>, Full) {
        let sessions = sessions(total_max, wanted);
        let control = connected().0.shared_stream();
        let mut open = sessions.open.lock().expect("sound");
        let mut all = Vec::new();
        loop {
            let nth = all.len() as u8;
            let peer = peer_of(nth);
            match sessions.allowed(&open, peer) {
                Ok(connections) => {
                    let connections = connections.min(wanted);
                    let agreed = Agreed { capabilities: Capabilities::SUPPORTED, connections, chunk_kb: 1024 };
                    all.push(connections);
                    let (control, detached) = (Arc::clone(&control), Instant::now());
                    let places = Arc::default();
                    let session = Open { agreed, places, lanes: None, attached: 0, peer, control, detached };
                    open.insert(Ticket([nth; 16]), session);
                }
                Err(full) => return (all, full),
            }
        }
    }

    #[test]
    fn the_first_session_leaves_something_for_others() {
        let one = |total_max, wanted| allowed(total_max, wanted, |_| address(1)).0;
        assert_eq!(one(1, 4), []);
        assert_eq!(one(4, 64), [1]);
        assert_eq!(one(16, 64), [7, 2, 1]);
        assert_eq!(one(16, 1), [1; 5]);
        assert_eq!(allowed(4096, 64, address).0[..60], [64; 60]);
    }

    #[test]
    fn sessions_of_one_address_together_are_promised_no_more_than_it_may_connect() {
        let (of_one, full) = allowed(4096, 64, |_| address(1));
        assert_eq!(full, Full::Peer(address(1)));
        assert_eq!(of_one[..30], [64; 30]);
        let promised: usize = of_one.iter().map(|connections| usize::from(*connections) + 2).sum();
        assert!((2047..=2049).contains(&promised), "{promised}");
        let others = |nth| if usize::from(nth) < of_one.len() { address(1) } else { address(2) };
        let (of_two, full) = allowed(4096, 64, others);
        assert_eq!((of_two[of_one.len()], full), (64, Full::Server));
    }

    #[test]
    fn who_has_more_than_his_share_makes_room_first() {
        let mut sessions = sessions(40, 4);
        sessions.idle_max_beyond_share = Duration::ZERO;
        let control = connected().0.shared_stream();
        let mut open = sessions.open.lock().expect("sound");
        let agreed = Agreed { capabilities: Capabilities::SUPPORTED, connections: 4, chunk_kb: 1024 };
        for (nth, peer, attached) in [(1, 1, 0), (2, 1, 0), (3, 1, 1), (4, 1, 0), (5, 2, 0)] {
            let (control, detached, places) = (Arc::clone(&control), Instant::now(), Arc::default());
            let session = Open { agreed, places, lanes: None, attached, peer: address(peer), control, detached };
            open.insert(Ticket([nth; 16]), session);
        }
        sessions.end_idle(&mut open, Full::Peer(address(1)));
        assert_eq!(open.len(), 5, "all of them have been used within the minute");
        sessions.end_idle(&mut open, Full::Server);
        let mut left: Vec<_> = open.keys().map(|ticket| ticket.0[0]).collect();
        left.sort();
        // One is at work, and one is of an address that has little.
        assert_eq!(left, [3, 5]);
    }

    fn opened(sessions: &Sessions) -> Result<(super::SessionGuard, Connection, TcpStream), NetError> {
        let (here, there) = connected();
        let hello = Hello {
            version: VERSION,
            role: Role::Receiver,
            capability_bits: Capabilities::SUPPORTED.bits(),
            connections: 64,
            chunk_kb: 0,
            places: Vec::new(),
        };
        let guard = sessions.agree(&here, &hello)?;
        guard.reply(&here)?;
        Ok((guard, here, there))
    }

    fn data_of(session: &super::SessionGuard) -> Attach {
        Attach { ticket: session.ticket, lane: Lane::Data }
    }

    #[test]
    fn an_idle_session_is_ended_where_another_needs_room() {
        let mut sessions = sessions(4, 64);
        let is_busy = |result| matches!(result, Err(NetError::Refused(Status::Busy)));
        let (first, _control, mut client) = opened(&sessions).expect("room for one");
        assert!(is_busy(opened(&sessions).map(drop)), "it was opened just now");
        sessions.idle_max = Duration::ZERO;
        let (data, mut receiver) = connected();
        let attached = sessions.attach(&data, data_of(&first)).expect("known");
        assert!(is_busy(opened(&sessions).map(drop)), "it has a data connection");
        drop(attached);
        let (second, ..) = opened(&sessions).expect("room again");
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).expect("hung up");
        assert!(rest.len() > FRAME_HEADER_BYTES + size_of::<HelloReply>() / 2, "nothing was lost");
        let again = sessions.attach(&data, data_of(&first)).map(drop);
        assert!(matches!(again, Err(NetError::Refused(Status::UnknownTicket))));
        // That its thread ends later takes nothing from the second.
        drop(first);
        drop(sessions.attach(&data, data_of(&second)).expect("known"));
        sessions.make_room(Full::Peer(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))));
        drop(sessions.attach(&data, data_of(&second)).expect("it is in nobody's way"));
        sessions.make_room(Full::Server);
        let mut bytes = Vec::new();
        drop(data);
        receiver.read_to_end(&mut bytes).expect("closed");
        assert!(sessions.attach(&connected().0, data_of(&second)).is_err());
    }
}
