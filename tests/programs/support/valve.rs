//! Stands between client and server, counts what one of them sends, and stops it at an exact byte.
//!
//! A limit counts from the last [`Valve::limit`], over all connections of a kind together. What is beyond it is
//! held, so whatever a test does then happens at that byte of the transfer. A client that is gone takes nothing
//! of the limit of the next: each new limit ends the connections from before it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use fastcp_wire::frame::{FRAME_HEADER_BYTES, FrameType};
use fastcp_wire::hello::Ticket;

use super::HANG_TIMEOUT;

/// What is read at a time. Little, so that both ends of a connection stay close together.
const SLICE_BYTES: usize = 16 << 10;

/// Which connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Control,
    Data,
}

/// Whose bytes are counted and held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counted {
    Server,
    Client,
}

/// A listening proxy; ends with all its connections when dropped.
#[derive(Debug)]
pub(crate) struct Valve {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    counted: Counted,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    control: Flow,
    data: Flow,
    /// Connections of an earlier era are ended.
    era: u64,
    live: Vec<TcpStream>,
    is_over: bool,
}

/// What is sent on the connections of one kind.
#[derive(Debug, Default)]
struct Flow {
    /// Bytes that went through since the limit was set.
    passed: u64,
    /// All of them, ever.
    passed_ever: u64,
    limit: Option<u64>,
    /// Connections that have something which may not go through.
    held: usize,
}

impl Valve {
    /// An open valve before the server at this address, which may come later. It counts what the server sends.
    pub(crate) fn start(server: SocketAddr) -> Self {
        Self::start_for(server, Counted::Server)
    }

    /// As before, but it counts what clients send.
    pub(crate) fn start_toward_server(server: SocketAddr) -> Self {
        Self::start_for(server, Counted::Client)
    }

    fn start_for(server: SocketAddr, counted: Counted) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared { server, counted, state: Mutex::default(), changed: Condvar::new() });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if accepting.lock().is_over {
                    return;
                }
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || shared.connect(client));
            }
        });
        Self { address, shared }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The addresses that the server sees its clients at.
    pub(crate) fn addresses_at_server(&self) -> Vec<SocketAddr> {
        let state = self.shared.lock();
        let ends = state.live.iter().filter(|end| end.peer_addr().is_ok_and(|peer| peer == self.shared.server));
        ends.map(|end| end.local_addr().expect("bound")).collect()
    }

    pub(crate) fn url(&self) -> String {
        format!("fcp://{}", self.address)
    }

    /// Ends all connections; of the next ones, this many bytes of this kind go through.
    pub(crate) fn limit(&self, kind: Kind, bytes: u64) {
        self.renew();
        self.shared.lock().flow(kind).limit = Some(bytes);
    }

    /// So many more bytes go through, on the connections that there are as well.
    pub(crate) fn let_through(&self, kind: Kind, bytes: u64) {
        let mut state = self.shared.lock();
        let flow = state.flow(kind);
        flow.limit = Some(flow.passed + bytes);
        self.shared.changed.notify_all();
    }

    /// Ends all connections, and counts from 0 again, without a limit.
    pub(crate) fn renew(&self) {
        let mut state = self.shared.lock();
        state.era += 1;
        state.live.drain(..).for_each(|stream| end(&stream));
        for kind in [Kind::Control, Kind::Data] {
            let flow = state.flow(kind);
            (flow.passed, flow.limit) = (0, None);
        }
        self.shared.changed.notify_all();
    }

    /// Everything goes through from now on, on the connections that there are as well.
    pub(crate) fn open(&self) {
        let mut state = self.shared.lock();
        (state.control.limit, state.data.limit) = (None, None);
        self.shared.changed.notify_all();
    }

    /// Waits until the limit is reached and something is held back.
    pub(crate) fn wait_until_stalled(&self, kind: Kind) {
        self.wait_for(&format!("{kind:?} to stall"), |state| state.flow(kind).is_stalled());
    }

    /// Whether the limit is reached and something is held back.
    pub(crate) fn is_stalled(&self, kind: Kind) -> bool {
        self.shared.lock().flow(kind).is_stalled()
    }

    /// Waits until so many bytes went through since the limit was set.
    pub(crate) fn wait_until_passed(&self, kind: Kind, bytes: u64) {
        self.wait_for(&format!("{bytes} bytes of {kind:?}"), |state| state.flow(kind).passed >= bytes);
    }

    /// Bytes that went through since the limit was set.
    pub(crate) fn passed(&self, kind: Kind) -> u64 {
        self.shared.lock().flow(kind).passed
    }

    /// Bytes that ever went through.
    pub(crate) fn passed_ever(&self, kind: Kind) -> u64 {
        self.shared.lock().flow(kind).passed_ever
    }

    fn wait_for(&self, what: &str, mut is_so: impl FnMut(&mut State) -> bool) {
        let until = Instant::now() + HANG_TIMEOUT;
        let mut state = self.shared.lock();
        while !is_so(&mut state) {
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited in vain for {what}: {state:?}");
            state = self.shared.changed.wait_timeout(state, left).expect("not poisoned").0;
        }
    }
}

impl Drop for Valve {
    fn drop(&mut self) {
        self.renew();
        self.shared.lock().is_over = true;
        drop(TcpStream::connect(self.address));
    }
}

impl Flow {
    fn is_stalled(&self) -> bool {
        self.held > 0 && self.limit.is_some_and(|limit| self.passed >= limit)
    }
}

impl State {
    fn flow(&mut self, kind: Kind) -> &mut Flow {
        match kind {
            Kind::Control => &mut self.control,
            Kind::Data => &mut self.data,
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A test that fails while it holds the state still has to end its connections.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connect(&self, mut client: TcpStream) {
        let era = self.lock().era;
        let Ok(mut server) = TcpStream::connect(self.server) else { return };
        let Ok((kind, first)) = read_kind(&mut client) else { return };
        if server.write_all(&first).is_err() {
            return;
        }
        let ends = [&client, &server].map(|stream| stream.try_clone().expect("clone"));
        {
            let mut state = self.lock();
            if state.era != era {
                return;
            }
            state.live.extend(ends.iter().map(|stream| stream.try_clone().expect("clone")));
        }
        let [client_too, server_too] = ends;
        let (mut from, mut to, mut others) = match self.counted {
            Counted::Server => (server, client, [client_too, server_too]),
            Counted::Client => (client, server, [server_too, client_too]),
        };
        std::thread::spawn(move || {
            let [from, to] = &mut others;
            let _ = std::io::copy(from, to);
            let _ = to.shutdown(Shutdown::Write);
        });
        self.relay(kind, era, &mut from, &mut to);
        end(&from);
        end(&to);
    }

    fn relay(&self, kind: Kind, era: u64, from: &mut TcpStream, to: &mut TcpStream) {
        let mut slice = vec![0; SLICE_BYTES];
        while let Ok(count @ 1..) = from.read(&mut slice) {
            let mut rest = &slice[..count];
            while !rest.is_empty() {
                let Some(allowed) = self.take(kind, era, rest.len()) else { return };
                let (now, later) = rest.split_at(allowed);
                if to.write_all(now).is_err() {
                    return;
                }
                rest = later;
            }
        }
    }

    /// Waits until something may go through: how many bytes of these. `None` where the connection is to end.
    fn take(&self, kind: Kind, era: u64, count: usize) -> Option<usize> {
        let mut state = self.lock();
        let mut is_held = false;
        loop {
            let is_past = state.era != era;
            let flow = state.flow(kind);
            let left = flow.limit.map_or(u64::MAX, |limit| limit.saturating_sub(flow.passed));
            if is_past || left > 0 {
                flow.held -= usize::from(is_held);
                let allowed = count.min(usize::try_from(left).unwrap_or(usize::MAX));
                if is_past {
                    return None;
                }
                flow.passed += allowed as u64;
                flow.passed_ever += allowed as u64;
                self.changed.notify_all();
                return Some(allowed);
            }
            if !is_held {
                is_held = true;
                flow.held += 1;
                self.changed.notify_all();
            }
            state = self.changed.wait(state).expect("not poisoned");
        }
    }
}

/// What a connection is for, by the first frame that the client sends: the bytes that tell are part of the answer.
/// A data connection attaches with a ticket alone; the others of a session say what they are for.
pub(crate) fn read_kind(client: &mut TcpStream) -> std::io::Result<(Kind, Vec<u8>)> {
    let mut first = vec![0; 2];
    client.read_exact(&mut first)?;
    if first != (FrameType::Attach as u16).to_be_bytes() {
        return Ok((Kind::Control, first));
    }
    first.resize(FRAME_HEADER_BYTES, 0);
    client.read_exact(&mut first[2..])?;
    let is_data = first[4..] == (size_of::<Ticket>() as u32).to_be_bytes();
    Ok((if is_data { Kind::Data } else { Kind::Control }, first))
}

fn end(stream: &TcpStream) {
    let _ = stream.shutdown(Shutdown::Both);
}
