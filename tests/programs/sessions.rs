//! What a server answers to peers that break the rules: each mistake gets its own status and one line
//! in the log with the peer's address, and the server goes on serving others.

use std::io::Write;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};

use crate::support::client::Client;
use crate::support::compare::assert_same;
use crate::support::peer::{
    ask_plain, attach, hello, open_session, plain_request, read_failure, read_frame, read_piece, read_to_end,
    send_frame, split_reply,
};
use crate::support::server::Server;
use crate::support::tree::{Tree, text};
use crate::support::{Workspace, say_skipped, wait_until};
use fastcp_model::{ByteRange, Capabilities, RelPath, Status};
use fastcp_wire::bundle::{BundleForm, BundleRequest, Bundled, BundledFile};
use fastcp_wire::frame::{FrameType, encode_frame};
use fastcp_wire::hello::{Attach, Failure, Hello, Lane, Role, Ticket};
use fastcp_wire::known::RECEIVER_FRAME_BYTES_MAX;
use fastcp_wire::offer::{OfferRequest, Place, Scope};
use fastcp_wire::reply::{BodyKind, PIECE_HEADER_BYTES, PieceHeader, TRAILER_BYTES, Trailer};
use fastcp_wire::request::{Ask, ID_UNREADABLE, RangeRequest};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt};
use nix::sys::stat::SFlag;

/// A served tree with one of everything that cannot be asked for as a file.
struct Served {
    workspace: Workspace,
    server: Server,
}

impl Served {
    fn start() -> Self {
        let workspace = Workspace::new();
        std::fs::write(workspace.at("secret"), b"outside").expect("write");
        let mut tree = Tree::new(&workspace.at("source"));
        tree.dir("dir").file("dir/file", b"bytes").file("file", &text(100_000)).special("pipe", SFlag::S_IFIFO);
        tree.link("to file", "file").link("to dir", "dir").link("out", "..").link("root", "/");
        let server = Server::start(&tree.finish());
        Self { workspace, server }
    }

    /// After whatever happened, a client gets the whole tree.
    fn assert_goes_on(&self) {
        let copy = self.workspace.at("copy");
        Client::pull(self.server.url(""), &copy).run().expect_exit(0);
        assert_same(&self.workspace.at("source"), &copy);
    }

    /// Sends bytes on a fresh connection; it is refused with this status.
    fn assert_refused(&self, bytes: &[u8], status: Status) {
        let mut stream = self.server.connect();
        stream.write_all(bytes).expect("send");
        assert_eq!(read_failure(&mut stream), status, "{bytes:?}");
    }
}

/// A session's control connection, which must live as long as the session, and one data connection.
fn attached(server: &Server) -> (TcpStream, TcpStream) {
    let mut control = server.connect();
    let ticket = open_session(&mut control, 1).ticket;
    let mut data = server.connect();
    attach(&mut data, ticket);
    (control, data)
}

fn data_of(ticket: Ticket) -> Vec<u8> {
    Attach { ticket, lane: Lane::Data }.encode()
}

#[test]
fn first_bytes_of_no_dialect_are_a_bad_request() {
    let served = Served::start();
    for bytes in [&b"FTQ2"[..], b"GET ", b"\x16\x03\x01\x00", b"\x00\x00\x00\x08", b"\xff\xff\xff\xff", b"\x00\x03ab"] {
        served.assert_refused(bytes, Status::BadRequest);
    }
    served.assert_goes_on();
}

#[test]
fn frames_that_break_a_rule_are_a_bad_request() {
    let served = Served::start();
    let hello_frame = encode_frame(FrameType::Hello, &hello(1).encode()).expect("lawful");
    let changed = |at: usize, to: u8| {
        let mut bytes = hello_frame.clone();
        bytes[at] = to;
        bytes
    };
    let bad_hello = |hello: Hello| encode_frame(FrameType::Hello, &hello.encode()).expect("lawful");
    let mistakes = [
        ("flags", changed(3, 1)[..8].to_vec()),
        ("a length over the limit", b"\x00\x01\x00\x00\xff\xff\xff\xff".to_vec()),
        ("a length over that of a first frame", b"\x00\x01\x00\x00\x00\x00\x21\x00".to_vec()),
        ("a flipped bit in the payload", changed(9, 0x55)),
        ("a flipped bit in the checksum", changed(hello_frame.len() - 1, !hello_frame[hello_frame.len() - 1])),
        ("no connections", bad_hello(Hello { connections: 0, ..hello(1) })),
        ("too many connections", bad_hello(Hello { connections: 65, ..hello(1) })),
        ("a chunk size out of bounds", bad_hello(Hello { chunk_kb: 3, ..hello(1) })),
        ("a short payload", encode_frame(FrameType::Hello, &[0, 1]).expect("lawful")),
        ("a long payload", encode_frame(FrameType::Attach, &[0; 17]).expect("lawful")),
    ];
    for (what, bytes) in mistakes {
        let mut stream = served.server.connect();
        stream.write_all(&bytes).expect("send");
        assert_eq!(read_failure(&mut stream), Status::BadRequest, "{what}");
    }
    served.assert_goes_on();
}

#[test]
fn sessions_are_refused_for_their_own_reasons() {
    let served = Served::start();
    let frame = |hello: Hello| encode_frame(FrameType::Hello, &hello.encode()).expect("lawful");
    served.assert_refused(&frame(Hello { version: 0, ..hello(1) }), Status::BadVersion);
    served.assert_refused(&frame(Hello { role: Role::Sender, ..hello(1) }), Status::Unauthorised);
    assert_unknown(&mut served.server.connect(), Ticket([9; 16]));
    served.assert_goes_on();
}

/// A ticket that is not known is refused, and the connection stays for one more greeting.
fn assert_unknown(stream: &mut TcpStream, ticket: Ticket) {
    send_frame(stream, FrameType::Attach, &data_of(ticket));
    let status = Failure::from(Status::UnknownTicket).encode();
    assert_eq!(read_frame(stream), Some((FrameType::Failure, status)));
}

#[test]
fn a_data_connection_with_an_unknown_ticket_opens_a_session_of_its_own() {
    let served = Served::start();
    let mut stream = served.server.connect();
    assert_unknown(&mut stream, Ticket([9; 16]));
    let ticket = open_session(&mut stream, 1).ticket;
    attach(&mut stream, ticket);
    let mut request = Vec::new();
    let range = ByteRange::new(0, 5).expect("lawful");
    RangeRequest { id: 1, path: b"dir/file"[..].into(), range, ask: Ask::Bytes }.encode(&mut request);
    stream.write_all(&request).expect("send");
    assert_eq!(read_piece(&mut stream).1, b"bytes");
    // Others may attach to it as to any session, until it ends with its connection.
    attach(&mut served.server.connect(), ticket);
    let here = stream.local_addr().expect("an address");
    stream.shutdown(Shutdown::Write).expect("end the session");
    assert_eq!(read_to_end(&mut stream), b"");
    assert_unknown(&mut served.server.connect(), ticket);
    assert_eq!(served.server.log_lines_about(here), Vec::<String>::new());
}

#[test]
fn a_connection_has_one_more_greeting_after_an_unknown_ticket() {
    let served = Served::start();
    let plain = plain_request(b"file", 0, 0);
    let attach_frame = encode_frame(FrameType::Attach, &data_of(Ticket([9; 16]))).expect("lawful");
    for second in [plain, attach_frame, b"GET / HTTP/1.1\r\n".to_vec()] {
        let mut stream = served.server.connect();
        assert_unknown(&mut stream, Ticket([9; 16]));
        stream.write_all(&second).expect("send");
        assert_eq!(read_failure(&mut stream), Status::BadRequest);
    }
    // Neither is a second session opened on one connection.
    let mut stream = served.server.connect();
    open_session(&mut stream, 1);
    send_frame(&mut stream, FrameType::Attach, &data_of(Ticket([9; 16])));
    assert_eq!(read_failure(&mut stream), Status::UnknownTicket);
}

#[test]
fn a_ticket_ends_with_its_session() {
    let served = Served::start();
    let mut control = served.server.connect();
    let ticket = open_session(&mut control, 2).ticket;
    attach(&mut served.server.connect(), ticket);
    control.shutdown(Shutdown::Write).expect("end the session");
    assert_eq!(read_to_end(&mut control), b"");
    assert_unknown(&mut served.server.connect(), ticket);
}

#[test]
fn a_session_opens_no_more_connections_than_twice_those_agreed() {
    let served = Served::start();
    let mut control = served.server.connect();
    let reply = open_session(&mut control, 2);
    assert_eq!(reply.connections, 2);
    // As many again as were agreed: those may be the ones that this side does not know to be dead.
    let data: Vec<TcpStream> = (0..4)
        .map(|_| {
            let mut stream = served.server.connect();
            attach(&mut stream, reply.ticket);
            stream
        })
        .collect();
    let attach_frame = encode_frame(FrameType::Attach, &data_of(reply.ticket)).expect("lawful");
    served.assert_refused(&attach_frame, Status::TooManyConnections);
    drop(data);
    served.assert_goes_on();
}

#[test]
fn a_server_bounds_the_connections_of_a_session() {
    let workspace = Workspace::new();
    let source = crate::support::tree::plain(&workspace.at("source"));
    let server = Server::start_with(&source, "127.0.0.1 0 --conns 2 --chunk-kb 128");
    let reply = open_session(&mut server.connect(), 64);
    assert_eq!((reply.connections, reply.chunk_kb), (2, 128));
    Client::pull(server.url(""), workspace.at("copy")).options("--conns 64").run().expect_exit(0);
    assert_same(&source, &workspace.at("copy"));
}

#[test]
fn frames_within_a_session_are_checked_as_well() {
    let served = Served::start();
    let unexpected = encode_frame(FrameType::OfferEnd, &[0; 16]).expect("lawful");
    let unknown = b"\x77\x77\x00\x00\x00\x00\x00\x00".to_vec();
    let too_long = b"\x00\x06\x00\x00\x7f\xff\xff\xff".to_vec();
    let dots = Place { path: RelPath::new(b"aa/bb").expect("lawful"), scope: Scope::Contents };
    let mut dots = OfferRequest::from(dots).encode().expect("few rules");
    dots[3..5].copy_from_slice(b"..");
    let dots = encode_frame(FrameType::OfferRequest, &dots).expect("lawful");
    for bytes in [unexpected, unknown, too_long, dots] {
        let mut control = served.server.connect();
        open_session(&mut control, 1);
        control.write_all(&bytes).expect("send");
        let status = read_failure(&mut control);
        assert!(matches!(status, Status::BadRequest | Status::BadPath), "{status}");
    }
    served.assert_goes_on();
}

#[test]
fn offers_of_what_is_not_there_say_why() {
    let served = Served::start();
    let mut control = served.server.connect();
    open_session(&mut control, 1);
    for (path, status) in [
        ("gone", Status::NotFound),
        ("file", Status::NotADirectory),
        ("out/source", Status::OutsideRoot),
        ("root/etc", Status::OutsideRoot),
    ] {
        let request = Place { path: RelPath::new(path.as_bytes()).expect("lawful"), scope: Scope::Contents };
        send_frame(&mut control, FrameType::OfferRequest, &OfferRequest::from(request).encode().expect("few rules"));
        let answer = read_frame(&mut control).expect("an answer");
        assert_eq!(answer, (FrameType::Failure, status.code().to_be_bytes().to_vec()), "{path}");
    }
    served.assert_goes_on();
}

/// Every path that is no file beneath the root, and what is said of it.
const PATHS: [(&[u8], Status); 13] = [
    (b"gone", Status::NotFound),
    (b"dir", Status::IsADirectory),
    (b"pipe", Status::NotARegularFile),
    (b"file/below", Status::NotADirectory),
    (b"to file", Status::OutsideRoot),
    (b"to dir/file", Status::OutsideRoot),
    (b"out/secret", Status::OutsideRoot),
    (b"root/etc/passwd", Status::OutsideRoot),
    (b"../secret", Status::BadPath),
    (b"dir/../file", Status::BadPath),
    (b"./file", Status::BadPath),
    (b"fi\0le", Status::BadPath),
    (b"dir//file", Status::BadPath),
];

#[test]
fn ranges_of_what_is_no_file_say_why_and_the_connection_goes_on() {
    let served = Served::start();
    let (_control, mut data) = attached(&served.server);
    let range = ByteRange::new(0, 5).expect("lawful");
    let requests = PATHS.into_iter().chain([(&b"dir/file"[..], Status::Ok), (b"file", Status::Ok)]);
    for (id, (path, status)) in (1..).zip(requests) {
        let mut bytes = Vec::new();
        RangeRequest { id, path: path.into(), range, ask: Ask::Bytes }.encode(&mut bytes);
        data.write_all(&bytes).expect("send");
        let (header, body, _) = read_piece(&mut data);
        assert_eq!((header.id, header.reply.status), (id, status), "{}", path.escape_ascii());
        assert_eq!((header.kind, body.len()), (BodyKind::Raw, if status == Status::Ok { 5 } else { 0 }));
    }
    let mut beyond = Vec::new();
    let range = ByteRange::new(99_999, 2).expect("lawful");
    RangeRequest { id: 99, path: b"file"[..].into(), range, ask: Ask::Bytes }.encode(&mut beyond);
    data.write_all(&beyond).expect("send");
    assert_eq!(read_piece(&mut data).0.reply.status, Status::BadRange);
}

#[test]
fn a_bundle_says_of_each_name_what_it_is() {
    let served = Served::start();
    std::fs::write(served.workspace.at("source/dir/other"), text(50_000)).expect("write");
    let (_control, mut data) = attached(&served.server);
    let mut ask = |dir: &[u8], names: &[(&[u8], u64)], accept| {
        let files = names.iter().map(|&(name, len)| BundledFile { name: name.into(), len }).collect();
        let mut bytes = Vec::new();
        BundleRequest { id: 7, dir: dir.into(), accept, files }.encode(&mut bytes);
        data.write_all(&bytes).expect("send");
        data.try_clone().expect("clone")
    };
    let names: [(&[u8], u64); 9] = [
        (b"gone", 1),
        (b"dir", 1),
        (b"pipe", 1),
        (b"to file", 1),
        (b"..", 1),
        (b"", 1),
        (b"dir/file", 1),
        (b"file", 100_001),
        (b"file", 100_000),
    ];
    let said = [
        Status::NotFound,
        Status::IsADirectory,
        Status::NotARegularFile,
        Status::OutsideRoot,
        Status::BadPath,
        Status::BadPath,
        Status::BadPath,
        Status::BadRange,
        Status::Ok,
    ];
    let mut answers = ask(b"", &names, BundleForm::Pieces);
    for (id, status) in (7..).zip(said) {
        let (header, body, _) = read_piece(&mut answers);
        assert_eq!((header.id, header.reply.status), (id, status));
        assert_eq!(body, if status == Status::Ok { text(100_000) } else { Vec::new() });
    }
    for (dir, status) in
        [(&b"to dir"[..], Status::OutsideRoot), (b"..", Status::BadPath), (b"file", Status::NotADirectory)]
    {
        let mut answers = ask(dir, &[(b"file", 1), (b"other", 1)], BundleForm::PiecesOrZstd);
        for id in [7, 8] {
            let (header, _, _) = read_piece(&mut answers);
            assert_eq!((header.id, header.reply.status), (id, status));
        }
    }
    served.assert_goes_on();
}

#[test]
fn the_id_of_unreadable_requests_is_nobodys() {
    let served = Served::start();
    let mut control = served.server.connect();
    let ticket = open_session(&mut control, 1).ticket;
    let range = ByteRange::new(0, 4).expect("lawful");
    let (mut single, mut bundle) = (Vec::new(), Vec::new());
    RangeRequest { id: ID_UNREADABLE, path: b"dir/file"[..].into(), range, ask: Ask::Bytes }.encode(&mut single);
    let files = vec![BundledFile { name: b"file"[..].into(), len: 4 }];
    BundleRequest { id: ID_UNREADABLE, dir: b"dir"[..].into(), accept: BundleForm::Pieces, files }.encode(&mut bundle);
    for request in [single, bundle] {
        let mut data = served.server.connect();
        attach(&mut data, ticket);
        data.write_all(&request).expect("send");
        assert_unreadable(&mut data);
    }
    served.assert_goes_on();
}

#[test]
fn a_bundle_is_compressed_as_one_where_that_is_accepted() {
    let workspace = Workspace::new();
    let mut tree = Tree::new(&workspace.at("source"));
    tree.dir("dir").file("dir/one", &text(3000)).file("dir/two", &text(3000));
    let server = Server::start_with(&tree.finish(), "127.0.0.1 0 --compress-level 3");
    let (_control, mut data) = attached(&server);
    let files = [&b"one"[..], b"two"].map(|name| BundledFile { name: name.into(), len: 3000 }).to_vec();
    let mut bytes = Vec::new();
    let accept = BundleForm::PiecesOrZstd;
    BundleRequest { id: u32::MAX - 1, dir: (*b"dir").into(), accept, files }.encode(&mut bytes);
    data.write_all(&bytes).expect("send");
    let (header, body, trailer) = read_piece(&mut data);
    assert_eq!((header.kind, header.id), (BodyKind::Bundle, u32::MAX - 1));
    let bundled = Bundled::of(&header).expect("lawful");
    let pieces = zstd::bulk::decompress(&body, bundled.bytes).expect("decompresses");
    assert_eq!(trailer, Some(Trailer { crc32: crc32fast::hash(&pieces), status: Status::Ok }));
    assert_eq!((bundled.pieces, pieces.len()), (2, 2 * (PIECE_HEADER_BYTES + 3000 + TRAILER_BYTES)));
    let (one, two) = pieces.split_at(pieces.len() / 2);
    for (piece, id) in [(one, u32::MAX - 1), (two, 0)] {
        let header = PieceHeader::decode(piece.first_chunk().expect("whole")).expect("lawful");
        assert_eq!((header.id, header.kind, header.body_bytes), (id, BodyKind::Raw, 3000));
        assert_eq!(piece[PIECE_HEADER_BYTES..][..3000], text(3000)[..]);
    }
}

#[test]
fn plain_requests_for_what_is_no_file_say_why() {
    let served = Served::start();
    for (path, status) in PATHS.into_iter().chain([(&b"/../secret"[..], Status::BadPath), (b"//file", Status::BadPath)])
    {
        let answer = ask_plain(served.server.connect(), &plain_request(path, 1, 0));
        let (reply, body) = split_reply(&answer);
        assert_eq!((reply.status, body.len()), (status, 0), "{}", path.escape_ascii());
        assert_eq!((reply.file_bytes, reply.mtime_ns, reply.crc32), (0, 0, 0), "nothing is told of it");
    }
    served.assert_goes_on();
}

/// A request that cannot be read is answered as such, and the connection ends.
fn assert_unreadable(data: &mut TcpStream) {
    let (header, _, _) = read_piece(data);
    assert_eq!((header.id, header.reply.status), (ID_UNREADABLE, Status::BadRequest));
    assert_eq!(read_to_end(data), b"");
}

#[test]
fn a_corrupted_request_ends_its_connection_only() {
    let served = Served::start();
    let mut control = served.server.connect();
    let ticket = open_session(&mut control, 2).ticket;
    let (mut good, mut bad) = (served.server.connect(), served.server.connect());
    attach(&mut good, ticket);
    attach(&mut bad, ticket);
    let range = ByteRange::new(0, 4).expect("lawful");
    let mut bytes = Vec::new();
    RangeRequest { id: 1, path: b"dir/file"[..].into(), range, ask: Ask::Bytes }.encode(&mut bytes);
    let mut flipped = bytes.clone();
    flipped[20] ^= 4;
    bad.write_all(&flipped).expect("send");
    assert_unreadable(&mut bad);
    good.write_all(&bytes).expect("send");
    assert_eq!(read_piece(&mut good).1, b"byte");
    served.assert_goes_on();
}

#[test]
fn ranges_longer_than_any_chunk_are_refused() {
    let served = Served::start();
    let (_control, mut data) = attached(&served.server);
    let mut bytes = Vec::new();
    let range = ByteRange::new(0, (64 << 20) + 1).expect("lawful");
    RangeRequest { id: 1, path: b"file"[..].into(), range, ask: Ask::Bytes }.encode(&mut bytes);
    data.write_all(&bytes).expect("send");
    assert_unreadable(&mut data);
    served.assert_goes_on();
}

#[test]
fn extended_requests_belong_to_a_session() {
    let served = Served::start();
    let mut bytes = Vec::new();
    let range = ByteRange::new(0, 5).expect("lawful");
    RangeRequest { id: 1, path: b"file"[..].into(), range, ask: Ask::Bytes }.encode(&mut bytes);
    let mut stream = served.server.connect();
    stream.write_all(&bytes).expect("send");
    let answer = read_to_end(&mut stream);
    assert_eq!(split_reply(&answer).0.status, Status::BadRequest);
    served.assert_goes_on();
}

#[test]
fn every_refusal_is_logged_once_with_the_address_of_the_peer() {
    let served = Served::start();
    let plain = |path: &[u8]| plain_request(path, 0, 0);
    let refused = [b"GET / HTTP/1.1\r\n".to_vec(), plain(b"../secret"), plain(b"to file"), plain(b"dir")];
    for bytes in refused {
        let mut stream = served.server.connect();
        let here = stream.local_addr().expect("an address");
        stream.write_all(&bytes).expect("send");
        read_to_end(&mut stream);
        let lines = served.server.log_lines_about(here);
        assert_eq!(lines.len(), 1, "{lines:?} about {}", bytes.escape_ascii());
    }
}

#[test]
fn peers_that_vanish_in_the_middle_take_nothing_down() {
    let served = Served::start();
    let frame = encode_frame(FrameType::Hello, &hello(1).encode()).expect("lawful");
    let request = plain_request(b"file", 1, 0);
    for bytes in [&b""[..], b"F", b"FTQ1", &request[..20], &frame[..5], &frame[..frame.len() - 1], &frame, &request] {
        let mut stream = served.server.connect();
        stream.write_all(bytes).expect("send");
    }
    served.assert_goes_on();
}

#[test]
fn silent_peers_are_told_so_after_the_time_they_have() {
    let served = Served::start();
    let mut silent = served.server.connect();
    let mut slow = served.server.connect();
    slow.write_all(b"\0\x01\0").expect("send");
    served.assert_goes_on();
    assert_eq!(read_failure(&mut silent), Status::TimedOut);
    assert_eq!(read_failure(&mut slow), Status::TimedOut);
}

/// What a server does for one client ends with that client, also in the middle of an offer.
#[test]
fn a_client_that_leaves_in_the_middle_of_an_offer_takes_its_threads_with_it() {
    let workspace = Workspace::new();
    let mut tree = Tree::new(&workspace.at("source"));
    for dir in 0..640 {
        tree.dir(format!("{dir}"));
        for file in 0..20 {
            tree.file(format!("{dir}/{file:0>250}"), b"");
        }
    }
    let server = Server::start(&tree.finish());
    let before = server.threads();
    if before == 0 {
        return say_skipped("there is no /proc to count threads in");
    }
    let mut control = server.connect();
    // The offer is longer than what the kernel holds of it on both ends.
    setsockopt(&control, sockopt::RcvBuf, &4096).expect("a small buffer");
    let capability_bits = Capabilities::SUPPORTED.difference(Capabilities::COMPRESSED_TREE).bits();
    send_frame(&mut control, FrameType::Hello, &Hello { capability_bits, ..hello(1) }.encode());
    let request = Place { path: RelPath::root(), scope: Scope::Contents };
    send_frame(&mut control, FrameType::OfferRequest, &OfferRequest::from(request).encode().expect("few rules"));
    wait_until("one thread to scan and one to send", || server.threads() == before + 2);
    drop(control);
    wait_until("both to end", || server.threads() == before);
}

/// A connection from another address of this machine.
fn connect_from(here: Ipv4Addr, server: &Server) -> TcpStream {
    let SocketAddr::V4(there) = server.address else { panic!("the usual host has an IPv4 address") };
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    let [a, b, c, d] = here.octets();
    bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &SockaddrIn::new(a, b, c, d, 0)).expect("bind");
    connect(std::os::fd::AsRawFd::as_raw_fd(&fd), &SockaddrIn::from(there)).expect("connect");
    TcpStream::from(fd)
}

#[test]
fn idle_sessions_of_one_address_leave_room_for_others() {
    let open_files = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit").1;
    let are_few = std::env::var("FASTCP_TEST_UNDER").is_ok_and(|under| under.contains("descriptors="));
    if open_files < 16_384 || are_few {
        return say_skipped("too few open files are allowed for a server of full size");
    }
    let served = Served::start();
    let idle: Vec<TcpStream> = (0..80)
        .map(|_| {
            let mut stream = connect_from(Ipv4Addr::new(127, 0, 0, 2), &served.server);
            send_frame(&mut stream, FrameType::Hello, &hello(64).encode());
            read_frame(&mut stream).expect("an answer");
            stream
        })
        .collect();
    let mut control = served.server.connect();
    assert_eq!(open_session(&mut control, 64).connections, 64);
    served.assert_goes_on();
    drop(idle);
}

#[test]
fn frames_that_no_receiver_sends_are_refused_before_they_are_read() {
    let served = Served::start();
    let mut control = served.server.connect();
    open_session(&mut control, 1);
    let length = u32::try_from(RECEIVER_FRAME_BYTES_MAX + 1).expect("short").to_be_bytes();
    control.write_all(&[&[0, 9, 0, 0], &length[..]].concat()).expect("send");
    assert_eq!(read_failure(&mut control), Status::BadRequest);
    served.assert_goes_on();
}
