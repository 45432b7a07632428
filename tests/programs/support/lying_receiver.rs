//! A server that takes a push, keeps to the handshake, and then asks for whatever a test wants to know.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};

use fastcp_model::{ByteRange, Capabilities};
use fastcp_wire::bundle::{BundleForm, BundleRequest, BundledFile};
use fastcp_wire::frame::FrameType;
use fastcp_wire::hello::{Attach, Hello, HelloReply, Lane, Role, Ticket, VERSION};
use fastcp_wire::limits::CONNECTIONS_MAX;
use fastcp_wire::push::Push;
use fastcp_wire::reply::PieceHeader;
use fastcp_wire::request::{Ask, RangeRequest};

use super::HANG_TIMEOUT;
use super::peer::{read_frame, read_piece, send_frame};

const TICKET: Ticket = Ticket([7; 16]);

/// A receiver that has not been dialled yet.
#[derive(Debug)]
pub(crate) struct LyingReceiver {
    listener: TcpListener,
    pub(crate) address: SocketAddr,
}

/// A receiver in a session: what it is told to do, and the connections that the client has made.
#[derive(Debug)]
pub(crate) struct Receiving {
    pub(crate) push: Push,
    pub(crate) control: TcpStream,
    pub(crate) data: TcpStream,
    /// Those that the client made beside them.
    _others: Vec<TcpStream>,
}

impl LyingReceiver {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind");
        let address = listener.local_addr().expect("bound");
        Self { listener, address }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("fcp://{}/{path}", self.address)
    }

    /// Takes a client in, and listens no more.
    pub(crate) fn take_in(self) -> Receiving {
        self.take_in_with(Capabilities::SUPPORTED)
    }

    /// The same, able to do no more than this.
    pub(crate) fn take_in_with(self, capabilities: Capabilities) -> Receiving {
        let (push, control) = self.greet(capabilities);
        let mut others = Vec::new();
        loop {
            match self.attach_next() {
                (Lane::Data, data) => return Receiving { push, control, data, _others: others },
                (_, other) => others.push(other),
            }
        }
    }

    /// Takes a client in that waits for reports, on the last of these connections.
    pub(crate) fn take_in_to_report(&self) -> (Receiving, TcpStream) {
        let (push, control) = self.greet(Capabilities::SUPPORTED);
        let (mut data, mut report) = (None, None);
        loop {
            match self.attach_next() {
                (Lane::Data, stream) => data = Some(stream),
                (Lane::Report { .. }, stream) => report = Some(stream),
                (Lane::Control, _) => panic!("a second control connection"),
            }
            if data.is_some() && report.is_some() {
                break;
            }
        }
        let (data, report) = (data.expect("attached"), report.expect("attached"));
        (Receiving { push, control, data, _others: Vec::new() }, report)
    }

    /// The next connection that is attached, and what for.
    pub(crate) fn attach_next(&self) -> (Lane, TcpStream) {
        let mut stream = self.accept();
        let (frame_type, payload) = read_frame(&mut stream).expect("a greeting");
        assert_eq!(frame_type, FrameType::Attach);
        let attach = Attach::decode(&payload).expect("lawful");
        assert_eq!(attach.ticket, TICKET);
        send_frame(&mut stream, FrameType::AttachReply, &[]);
        (attach.lane, stream)
    }

    /// Whether nobody waits to be let in.
    pub(crate) fn is_left_alone(&self) -> bool {
        self.listener.set_nonblocking(true).expect("set");
        self.listener.accept().is_err()
    }

    fn greet(&self, capabilities: Capabilities) -> (Push, TcpStream) {
        let mut control = self.accept();
        let (frame_type, payload) = read_frame(&mut control).expect("a first frame");
        assert_eq!(frame_type, FrameType::Hello);
        let hello = Hello::decode(&payload).expect("lawful");
        assert_eq!(hello.role, Role::Sender);
        let reply = HelloReply {
            version: VERSION,
            capability_bits: capabilities.bits(),
            // More than anybody asked for.
            connections: CONNECTIONS_MAX,
            chunk_kb: 1024,
            ticket: TICKET,
        };
        send_frame(&mut control, FrameType::HelloReply, &reply.encode());
        let (frame_type, payload) = read_frame(&mut control).expect("what is to be done");
        assert_eq!(frame_type, FrameType::Push);
        (Push::decode(&payload).expect("lawful"), control)
    }

    fn accept(&self) -> TcpStream {
        let (stream, _) = self.listener.accept().expect("accept");
        stream.set_read_timeout(Some(HANG_TIMEOUT)).expect("set the timeout");
        stream
    }
}

impl Receiving {
    /// Asks for an offer in these bytes; the frame that answers.
    pub(crate) fn ask_for_offer(&mut self, payload: &[u8]) -> Option<(FrameType, Vec<u8>)> {
        send_frame(&mut self.control, FrameType::OfferRequest, payload);
        read_frame(&mut self.control)
    }

    /// Sends a request; the header of the first piece of the answer, and its body.
    pub(crate) fn ask(&mut self, request: &[u8]) -> (PieceHeader, Vec<u8>) {
        self.data.write_all(request).expect("send a request");
        let (header, body, _) = read_piece(&mut self.data);
        (header, body)
    }
}

/// What asks for an offer of this path, lawful or not.
pub(crate) fn offer_request(scope: u8, path: &[u8]) -> Vec<u8> {
    let path_len = u16::try_from(path.len()).expect("short").to_be_bytes();
    [&[scope][..], &path_len, path, &[0; 6]].concat()
}

pub(crate) fn range_request(id: u32, path: &[u8], start: u64, len: u64, ask: Ask) -> Vec<u8> {
    let mut bytes = Vec::new();
    let range = ByteRange::new(start, len).expect("lawful");
    RangeRequest { id, path: path.into(), range, ask }.encode(&mut bytes);
    bytes
}

pub(crate) fn bundle_request(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let files = vec![BundledFile { name: name.into(), len: 1 }];
    BundleRequest { id: 9, dir: dir.into(), accept: BundleForm::Pieces, files }.encode(&mut bytes);
    bytes
}
