//! Stands between client and server and spoils what the server sends on one data connection.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use fastcp_wire::frame::FrameType;

/// What happens to the first data connection. Offsets count from the first byte that the server sends
/// on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It ends at both ends once this many bytes went through.
    Cut(usize),
    /// The client's end ends there; the server is never told, as when a link goes dead.
    CutUnseen(usize),
    /// The byte at this offset arrives with a bit wrong.
    Flip(usize),
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
    data_connections: AtomicUsize,
    stop: AtomicBool,
    /// Ends that are kept open though nobody uses them.
    held: Mutex<Vec<TcpStream>>,
}

impl CutProxy {
    /// A proxy to the server at this address.
    pub(crate) fn start(server: SocketAddr, fault: Fault) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared {
            server,
            fault,
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
        let is_data = u16::from_be_bytes(first) == FrameType::Attach as u16;
        let is_faulty = is_data && self.data_connections.fetch_add(1, Ordering::AcqRel) == 0;
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
        let (Fault::Cut(at) | Fault::CutUnseen(at) | Fault::Flip(at)) = self.fault;
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
            Fault::Flip(_) => {
                let mut byte = [0];
                if server.read_exact(&mut byte).is_ok() {
                    let _ = client.write_all(&[byte[0] ^ 0x10]);
                }
                let _ = std::io::copy(&mut server, &mut client);
                end(&client);
            }
        }
    }
}

fn end(stream: &TcpStream) {
    let _ = stream.shutdown(Shutdown::Both);
}
