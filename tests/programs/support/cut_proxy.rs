//! Stands between client and server and spoils what one of them sends on one connection.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::valve::{Kind, read_kind};

/// What happens to one connection. Offsets count from the first byte that is sent on it toward its receiver: the client,
/// or the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It ends at both ends once this many bytes went through.
    Cut(usize),
    /// The receiver's end ends there; the sender is never told, as when a link goes dead.
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
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    fault: Fault,
    is_toward_server: bool,
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

    /// One that spoils what the client sends on the data connection that comes after `nth` others.
    pub(crate) fn start_toward_server(server: SocketAddr, nth: usize, fault: Fault) -> Self {
        Self::start_with(server, Kind::Data, nth, fault, true)
    }

    /// One that spoils the connection of this kind that comes after `nth` others.
    pub(crate) fn start_for(server: SocketAddr, kind: Kind, nth: usize, fault: Fault) -> Self {
        Self::start_with(server, kind, nth, fault, false)
    }

    fn start_with(server: SocketAddr, kind: Kind, nth: usize, fault: Fault, is_toward_server: bool) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared {
            server,
            fault,
            is_toward_server,
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
        let Ok(server) = TcpStream::connect(self.server) else { return };
        let Ok((kind, first)) = read_kind(&mut client) else { return };
        let count = if kind == Kind::Data { &self.data_connections } else { &self.control_connections };
        let is_faulty = count.fetch_add(1, Ordering::AcqRel) == self.nth && kind == self.kind;
        let is_end_hidden = is_faulty && matches!(self.fault, Fault::CutUnseen(_));
        let back = [&client, &server].map(|stream| stream.try_clone().expect("clone"));
        let (from, to, mut back) = match self.is_toward_server {
            true => (client, server, {
                let [client, server] = back;
                [server, client]
            }),
            false => (server, client, back),
        };
        // What tells the kind was read from the client.
        let (ahead, ahead_back) = if self.is_toward_server { (first, Vec::new()) } else { (Vec::new(), first) };
        std::thread::spawn(move || {
            let [from, to] = &mut back;
            let _ = std::io::copy(&mut std::io::Cursor::new(ahead_back).chain(from), to);
            if !is_end_hidden {
                let _ = to.shutdown(Shutdown::Write);
            }
        });
        if is_faulty {
            self.pass_on_badly(ahead, from, to);
        } else {
            let mut to = to;
            let _ = std::io::copy(&mut std::io::Cursor::new(ahead).chain(from), &mut to);
            end(&to);
        }
    }

    fn pass_on_badly(&self, ahead: Vec<u8>, from: TcpStream, mut to: TcpStream) {
        let (Fault::Cut(at) | Fault::CutUnseen(at) | Fault::Flip(at) | Fault::Lose(at) | Fault::Swap(at)) = self.fault;
        let end_of_from = from.try_clone().expect("clone");
        let mut from = std::io::Cursor::new(ahead).chain(from);
        let _ = std::io::copy(&mut Read::by_ref(&mut from).take(at as u64), &mut to);
        match self.fault {
            Fault::Cut(_) => {
                end(&end_of_from);
                end(&to);
            }
            Fault::CutUnseen(_) => {
                self.held.lock().expect("not poisoned").push(end_of_from);
                let _ = to.shutdown(Shutdown::Write);
            }
            Fault::Flip(_) => change(from, to, |[byte]| vec![byte ^ 0x10]),
            Fault::Lose(_) => change(from, to, |[_]| Vec::new()),
            Fault::Swap(_) => change(from, to, |[first, second]| vec![second, first]),
        }
    }
}

/// Passes a few bytes on changed, and the rest as it is.
fn change<const N: usize>(mut from: impl Read, mut to: TcpStream, by: impl FnOnce([u8; N]) -> Vec<u8>) {
    let mut bytes = [0; N];
    if from.read_exact(&mut bytes).is_ok() {
        let _ = to.write_all(&by(bytes));
    }
    let _ = std::io::copy(&mut from, &mut to);
    end(&to);
}

fn end(stream: &TcpStream) {
    let _ = stream.shutdown(Shutdown::Both);
}
