//! What a server answers to those who ask which chunks a file is made of: lists that cover exactly what was
//! asked for, of chunks whose lengths are lawful and whose hashes are those that the server itself gives for
//! their ranges.

use std::io::Write;
use std::net::TcpStream;

use crate::support::Workspace;
use crate::support::peer::{attach, open_session, read_piece};
use crate::support::server::Server;
use crate::support::tree::{Tree, noise};
use fastcp_model::{ByteRange, Status};
use fastcp_wire::limits::FINE_SIGNATURE_BYTES_MAX;
use fastcp_wire::reply::{BodyKind, PieceHeader};
use fastcp_wire::request::{Ask, RangeRequest};
use fastcp_wire::signature::{Level, STRONG_HASH_BYTES, SignedChunk, decode_hash, decode_signature};

const FILE_BYTES: usize = 5_000_000;

/// A server of a few files, and a session with one data connection.
struct Asking {
    _workspace: Workspace,
    _server: Server,
    _control: TcpStream,
    data: TcpStream,
    bytes: Vec<u8>,
}

impl Asking {
    fn start() -> Self {
        let workspace = Workspace::new();
        let bytes = noise(FILE_BYTES, 3);
        let mut tree = Tree::new(&workspace.at("source"));
        tree.file("file", &bytes).file("moved", &[&noise(777, 4), &bytes[..]].concat()).file("empty", b"");
        tree.sparse("sparse", 5 << 20, &[(1 << 20, &bytes[..100_000])]).dir("dir");
        let server = Server::start(&tree.finish());
        let mut control = server.connect();
        let ticket = open_session(&mut control, 1).ticket;
        let mut data = server.connect();
        attach(&mut data, ticket);
        Self { _workspace: workspace, _server: server, _control: control, data, bytes }
    }

    fn ask(&mut self, path: &str, start: u64, len: u64, ask: Ask) -> (PieceHeader, Vec<u8>) {
        let range = ByteRange::new(start, len).expect("lawful");
        let mut request = Vec::new();
        RangeRequest { id: 1, path: path.as_bytes().into(), range, ask }.encode(&mut request);
        self.data.write_all(&request).expect("send");
        let (header, body, trailer) = read_piece(&mut self.data);
        if let Some(trailer) = trailer {
            assert_eq!((trailer.crc32, trailer.status), (crc32fast::hash(&body), Status::Ok));
        }
        (header, body)
    }

    fn list(&mut self, path: &str, start: u64, len: u64, level: Level) -> Vec<SignedChunk> {
        let (header, body) = self.ask(path, start, len, Ask::Signature(level));
        assert_eq!((header.reply.status, header.kind), (Status::Ok, BodyKind::Signature));
        decode_signature(level, &body).expect("lawful")
    }

    /// The hash of each chunk is that of its range, and all but the last are long enough.
    fn assert_true(&mut self, path: &str, start: u64, level: Level, chunks: &[SignedChunk]) {
        let mut at = start;
        for (position, chunk) in chunks.iter().enumerate() {
            let (header, body) = self.ask(path, at, chunk.len.into(), Ask::Hash);
            assert_eq!(header.reply.status, Status::Ok);
            let hash = match header.kind {
                BodyKind::Hash => decode_hash(&body).expect("a hash").0,
                // Of zeros it is told that they are zeros.
                BodyKind::Hole => *blake3::hash(&vec![0; chunk.len as usize]).as_bytes(),
                other => panic!("{path} at {at}: {other:?}"),
            };
            assert_eq!(hash[..STRONG_HASH_BYTES], chunk.hash.0, "{path} at {at}");
            assert!(u64::from(chunk.len) >= level.chunk_bytes_min() || position + 1 == chunks.len());
            at += u64::from(chunk.len);
        }
    }
}

fn bytes_of(chunks: &[SignedChunk]) -> u64 {
    chunks.iter().map(|chunk| u64::from(chunk.len)).sum()
}

#[test]
fn a_coarse_list_ends_with_the_first_cut_after_its_range() {
    let mut asking = Asking::start();
    let whole = asking.list("file", 0, FILE_BYTES as u64, Level::Coarse);
    assert_eq!(bytes_of(&whole), FILE_BYTES as u64);
    asking.assert_true("file", 0, Level::Coarse, &whole);
    let first = asking.list("file", 0, 1, Level::Coarse);
    assert_eq!(first, whole[..1]);
    let second = asking.list("file", bytes_of(&first), 1 << 20, Level::Coarse);
    assert_eq!(second, whole[1..=second.len()]);
    let before_last = bytes_of(&second) - u64::from(second.last().expect("not empty").len);
    assert!(before_last < 1 << 20 && bytes_of(&second) >= 1 << 20);
}

#[test]
fn a_fine_list_is_of_its_range_and_nothing_else() {
    let mut asking = Asking::start();
    for (start, len) in [(0, 1), (100, 300_000), (FILE_BYTES as u64 - 20_000, 20_000)] {
        let chunks = asking.list("file", start, len, Level::Fine);
        assert_eq!(bytes_of(&chunks), len);
        asking.assert_true("file", start, Level::Fine, &chunks);
    }
    let longest = asking.list("file", 7, FINE_SIGNATURE_BYTES_MAX, Level::Fine);
    assert_eq!(bytes_of(&longest), FINE_SIGNATURE_BYTES_MAX);
}

#[test]
fn bytes_that_moved_are_soon_cut_as_before() {
    let mut asking = Asking::start();
    let whole = asking.list("file", 0, FILE_BYTES as u64, Level::Coarse);
    let moved = asking.list("moved", 0, FILE_BYTES as u64 + 777, Level::Coarse);
    let same = whole.iter().rev().zip(moved.iter().rev()).take_while(|(one, other)| one == other).count();
    assert!(same + 2 >= whole.len(), "{same} of {} chunks are the same", whole.len());
}

#[test]
fn holes_are_listed_as_the_zeros_that_they_are() {
    let mut asking = Asking::start();
    let chunks = asking.list("sparse", 0, 5 << 20, Level::Coarse);
    assert_eq!(bytes_of(&chunks), 5 << 20);
    asking.assert_true("sparse", 0, Level::Coarse, &chunks);
}

#[test]
fn nothing_has_no_chunks() {
    let mut asking = Asking::start();
    for level in [Level::Coarse, Level::Fine] {
        assert_eq!(asking.list("empty", 0, 0, level), []);
        assert_eq!(asking.list("file", 1000, 0, level), []);
        assert_eq!(asking.list("file", FILE_BYTES as u64, 0, level), []);
    }
}

#[test]
fn what_cannot_be_listed_says_why_and_the_connection_goes_on() {
    let mut asking = Asking::start();
    for level in [Level::Coarse, Level::Fine] {
        for (path, start, len, status) in [
            ("gone", 0, 1, Status::NotFound),
            ("dir", 0, 1, Status::IsADirectory),
            ("../file", 0, 1, Status::BadPath),
            ("file", FILE_BYTES as u64 - 100, 101, Status::BadRange),
            ("file", FILE_BYTES as u64, 1, Status::BadRange),
            ("file", u64::MAX >> 2, 0, Status::BadRange),
        ] {
            let (header, body) = asking.ask(path, start, len, Ask::Signature(level));
            assert_eq!((header.reply.status, body.len()), (status, 0), "{path} {level:?}");
        }
    }
    let (header, body) = asking.ask("file", 0, 10, Ask::Bytes);
    assert_eq!((header.reply.status, &body[..]), (Status::Ok, &asking.bytes[..10]));
}
