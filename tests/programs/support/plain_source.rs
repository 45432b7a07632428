//! A server that speaks plain FTQ1 and nothing else, and answers what a test wants it to.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// A request as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) path: Vec<u8>,
    pub(crate) flags: u16,
    pub(crate) offset: u64,
}

/// A server that closes after each answer; stops when dropped.
#[derive(Debug)]
pub(crate) struct PlainSource {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl PlainSource {
    /// Answers every request with the bytes that `answer` makes of its number and content.
    pub(crate) fn start(answer: impl Fn(usize, &Seen) -> Vec<u8> + Send + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind");
        let address = listener.local_addr().expect("bound");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
            move || serve(&listener, &seen, &stop, answer)
        });
        Self { address, seen, stop, thread: Some(thread) }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// The offsets asked for, in order.
    pub(crate) fn offsets(&self) -> Vec<u64> {
        self.seen().iter().map(|seen| seen.offset).collect()
    }

    /// The requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("not poisoned").clone()
    }
}

impl Drop for PlainSource {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        drop(TcpStream::connect(self.address));
        drop(self.thread.take().map(JoinHandle::join));
    }
}

fn serve(listener: &TcpListener, seen: &Mutex<Vec<Seen>>, stop: &AtomicBool, answer: impl Fn(usize, &Seen) -> Vec<u8>) {
    loop {
        let (mut stream, _) = listener.accept().expect("accept");
        if stop.load(Ordering::Acquire) {
            return;
        }
        let Some(request) = read_request(&mut stream) else { continue };
        let nth = {
            let mut seen = seen.lock().expect("not poisoned");
            seen.push(request.clone());
            seen.len() - 1
        };
        // A client that has heard enough closes early.
        let _ = stream.write_all(&answer(nth, &request));
    }
}

fn read_request(stream: &mut TcpStream) -> Option<Seen> {
    let mut header = [0; 16];
    stream.read_exact(&mut header).ok()?;
    assert_eq!(&header[..4], b"FTQ1");
    let number =
        |range: std::ops::Range<usize>| header[range].iter().fold(0u64, |sum, &byte| sum << 8 | u64::from(byte));
    let mut path = vec![0; number(4..6) as usize];
    stream.read_exact(&mut path).ok()?;
    Some(Seen { path, flags: number(6..8) as u16, offset: number(8..16) })
}

/// The 32 bytes of a reply with status 0, from its fields. The bytes that mean nothing hold what was
/// on the stack.
pub(crate) fn reply(file_bytes: u64, mtime_ns: u64, crc32: u32) -> Vec<u8> {
    let mut bytes = b"FTR1\0\0".to_vec();
    bytes.extend_from_slice(&[0xAA, 0x55]);
    bytes.extend_from_slice(&file_bytes.to_be_bytes());
    bytes.extend_from_slice(&mtime_ns.to_be_bytes());
    bytes.extend_from_slice(&crc32.to_be_bytes());
    bytes.extend_from_slice(&[0xDE, 0xAD, 0xBE, 0xEF]);
    bytes
}

/// A whole answer for a file that holds `bytes`.
pub(crate) fn whole(bytes: &[u8], mtime_ns: u64, crc32: u32, offset: u64) -> Vec<u8> {
    let start = bytes.len().min(offset as usize);
    [reply(bytes.len() as u64, mtime_ns, crc32), bytes[start..].to_vec()].concat()
}
