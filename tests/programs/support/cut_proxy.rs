//! Stands between client and server and spoils what the server sends on one connection.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use fastcp_wire::frame::FrameType;

use super::valve::Kind;

/// What happens to one connection. Offsets count from the first byte that the server sends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It ends at both ends once this many bytes went through.
    Cut(usize),
    /// The client's end ends there; the server is never told, as when a link goes dead.
    CutUnseen(usize),
    /// The byte at this offset arrives with a bit wrong.
    Flip(usize),
    /// The byte at this offset never arrives.
    Lose(usize),
    /// The byte at this offset and the next arrive in the other order.
    Swap(usize),
}

/// A listening proxy; stops listening when dropped.
#[derive(Debug)]
pub(crate) struct CutProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    fault: Fault,
    /// The connection that it happens to: its kind, and how many of that kind come before it.
    kind: Kind,
    nth: usize,
    control_connections: AtomicUsize,
    data_connections: AtomicUsize,
    stop: AtomicBool,
    /// Ends that are kept open though nobody uses them.
    held: Mutex<Vec<TcpStream>>,
}

impl CutProxy {
    /// A proxy to the server at this address that spoils the first data connection.
    pub(crate) fn start(server: SocketAddr, fault: Fault) -> Self {
        Self::start_for(server, Kind::Data, 0, fault)
    }

    /// One that spoils the connection of this kind that comes after `nth` others.
    pub(crate) fn start_for(server: SocketAddr, kind: Kind, nth: usize, fault: Fault) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared {
            server,
            fault,
            kind,
            nth,
            control_connections: AtomicUsize::new(0),
            data_connections: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            held: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if accepting.stop.load(Ordering::Acquire) {
                    return;
                }
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || shared.connect(client));
            }
        });
        Self { address, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("fcp://{}", self.address)
    }

    /// How many data connections were made.
    pub(crate) fn data_connections(&self) -> usize {
        self.shared.data_connections.load(Ordering::Acquire)
    }

    /// How many control connections were made.
    pub(crate) fn control_connections(&self) -> usize {
        self.shared.control_connections.load(Ordering::Acquire)
    }
}

impl Drop for CutProxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        drop(TcpStream::connect(self.address));
    }
}

impl Shared {
    fn connect(&self, mut client: TcpStream) {
        let mut first = [0; 2];
        let Ok(mut server) = TcpStream::connect(self.server) else { return };
        if client.read_exact(&mut first).is_err() || server.write_all(&first).is_err() {
            return;
        }
        let (kind, count) = match u16::from_be_bytes(first) == FrameType::Attach as u16 {
            true => (Kind::Data, &self.data_connections),
            false => (Kind::Control, &self.control_connections),
        };
        let is_faulty = count.fetch_add(1, Ordering::AcqRel) == self.nth && kind == self.kind;
        let is_end_hidden = is_faulty && matches!(self.fault, Fault::CutUnseen(_));
        let requests = [&client, &server].map(|stream| stream.try_clone().expect("clone"));
        std::thread::spawn(move || {
            let [mut from, mut to] = requests;
            let _ = std::io::copy(&mut from, &mut to);
            if !is_end_hidden {
                let _ = to.shutdown(Shutdown::Write);
            }
        });
        if is_faulty {
            self.answer_badly(server, client);
        } else {
            let _ = std::io::copy(&mut server, &mut client);
            end(&client);
        }
    }

    fn answer_badly(&self, mut server: TcpStream, mut client: TcpStream) {
        let (Fault::Cut(at) | Fault::CutUnseen(at) | Fault::Flip(at) | Fault::Lose(at) | Fault::Swap(at)) = self.fault;
        let _ = std::io::copy(&mut Read::by_ref(&mut server).take(at as u64), &mut client);
        match self.fault {
            Fault::Cut(_) => {
                end(&server);
                end(&client);
            }
            Fault::CutUnseen(_) => {
                self.held.lock().expect("not poisoned").push(server);
                let _ = client.shutdown(Shutdown::Write);
            }
            Fault::Flip(_) => change(server, client, |[byte]| vec![byte ^ 0x10]),
            Fault::Lose(_) => change(server, client, |[_]| Vec::new()),
            Fault::Swap(_) => change(server, client, |[first, second]| vec![second, first]),
        }
    }
}

/// Passes a few bytes on changed, and the rest as it is.
fn change<const N: usize>(mut server: TcpStream, mut client: TcpStream, by: impl FnOnce([u8; N]) -> Vec<u8>) {
    let mut bytes = [0; N];
    if server.read_exact(&mut bytes).is_ok() {
        let _ = client.write_all(&by(bytes));
    }
    let _ = std::io::copy(&mut server, &mut client);
    end(&client);
}

fn end(stream: &TcpStream) {
    let _ = stream.shutdown(Shutdown::Both);
}
