//! A server that keeps to the handshake and then offers and answers what a test wants it to.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use fastcp_model::{
    ByteRange, Capabilities, Entry, EntryKind, Listing, ListingEnd, Metadata, Name, RelPath, Status, Timestamp,
};
use fastcp_wire::frame::FrameType;
use fastcp_wire::hello::{HelloReply, Ticket, VERSION};
use fastcp_wire::offer::{BatchCodec, OfferBatch, OfferEnd};
use fastcp_wire::reply::{BodyKind, PieceHeader, Reply, Trailer};
use fastcp_wire::request::{ExtendedRequest, REQUEST_HEADER_BYTES, RangeRequest, Request, RequestHeader};

use super::peer::{read_frame, send_frame};

/// Sends the answer to one request.
type Answer = Arc<dyn Fn(&Request, &mut TcpStream) -> std::io::Result<()> + Send + Sync>;

/// Frames sent in answer to the request for offers: each a type and a payload.
pub(crate) type Offer = Vec<(FrameType, Vec<u8>)>;

/// A sender that does not tell the truth; stops listening when dropped.
#[derive(Debug)]
pub(crate) struct LyingSender {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl LyingSender {
    /// Offers `offer` and answers each request for a range with the bytes that `answer` makes of it.
    pub(crate) fn start(offer: Offer, answer: impl Fn(&RangeRequest) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::start_with_capabilities(offer, Capabilities::SUPPORTED.difference(Capabilities::BUNDLE), answer)
    }

    /// As before, but `answer` sends by itself, and so may do things in the middle of an answer. It is asked for bytes
    /// and confirmations only.
    pub(crate) fn start_sending(
        offer: Offer,
        answer: impl Fn(&RangeRequest, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let capabilities = Capabilities::SUPPORTED.difference(Capabilities::BUNDLE | Capabilities::DELTA);
        Self::start_sending_with(offer, capabilities, answer)
    }

    /// As before, of a sender that can do this.
    pub(crate) fn start_sending_with(
        offer: Offer,
        capabilities: Capabilities,
        answer: impl Fn(&RangeRequest, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::start_with(vec![offer], capabilities, move |request, stream| match request {
            Request::Extended(ExtendedRequest::Range(request)) => answer(request, stream),
            other => panic!("not agreed: {other:?}"),
        })
    }

    /// As [`LyingSender::start`], but says that it can do no more than this.
    pub(crate) fn start_with_capabilities(
        offer: Offer,
        capabilities: Capabilities,
        answer: impl Fn(&RangeRequest) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        Self::start_with(vec![offer], capabilities, move |request, stream| match request {
            Request::Extended(ExtendedRequest::Range(request)) => stream.write_all(&answer(request)),
            other => panic!("not agreed: {other:?}"),
        })
    }

    /// As before, but takes requests for bundles too.
    pub(crate) fn start_bundling(offer: Offer, answer: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::start_with(vec![offer], Capabilities::SUPPORTED, move |request, stream| {
            stream.write_all(&answer(request))
        })
    }

    /// Another offer on each session, and the last one on all that follow. An offer without an end is broken off.
    pub(crate) fn start_in_turn(
        offers: Vec<Offer>,
        answer: impl Fn(&RangeRequest) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        // One frame asks for an offer then: a connection that is closed with another unread takes what was sent with it.
        let without = Capabilities::BUNDLE | Capabilities::TREE_CACHE;
        Self::start_with(offers, Capabilities::SUPPORTED.difference(without), move |request, stream| match request {
            Request::Extended(ExtendedRequest::Range(request)) => stream.write_all(&answer(request)),
            other => panic!("not agreed: {other:?}"),
        })
    }

    fn start_with(
        offers: Vec<Offer>,
        capabilities: Capabilities,
        answer: impl Fn(&Request, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind");
        let address = listener.local_addr().expect("bound");
        let stop = Arc::new(AtomicBool::new(false));
        let offers = Arc::new(Offers { offers, sessions: AtomicUsize::new(0) });
        let (stopped, answer) = (Arc::clone(&stop), Arc::new(answer) as Answer);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                let (offers, answer) = (Arc::clone(&offers), Arc::clone(&answer));
                std::thread::spawn(move || serve(stream, capabilities, &offers, &answer));
            }
        });
        Self { address, stop }
    }

    pub(crate) fn url(&self) -> String {
        format!("fcp://{}", self.address)
    }
}

impl Drop for LyingSender {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        drop(TcpStream::connect(self.address));
    }
}

/// What is offered, session by session.
struct Offers {
    offers: Vec<Offer>,
    sessions: AtomicUsize,
}

impl Offers {
    fn next(&self) -> &Offer {
        let nth = self.sessions.fetch_add(1, Ordering::AcqRel);
        self.offers.get(nth).or(self.offers.last()).expect("an offer")
    }
}

fn serve(mut stream: TcpStream, capabilities: Capabilities, offers: &Offers, answer: &Answer) {
    match read_frame(&mut stream) {
        Some((FrameType::Hello, _)) => serve_control(&mut stream, capabilities, offers.next()),
        Some((FrameType::Attach, _)) => serve_data(&mut stream, answer),
        _ => {}
    }
}

fn serve_control(stream: &mut TcpStream, capabilities: Capabilities, offer: &Offer) {
    let reply = HelloReply {
        version: VERSION,
        capability_bits: capabilities.bits(),
        connections: 1,
        chunk_kb: 1024,
        ticket: Ticket([7; 16]),
    };
    send_frame(stream, FrameType::HelloReply, &reply.encode());
    // The session lasts until the client ends it, and what has changed may be asked for again.
    while let Some((asked, _)) = read_frame(stream) {
        if asked != FrameType::OfferRequest {
            continue;
        }
        for (frame_type, payload) in offer {
            send_frame(stream, *frame_type, payload);
        }
        if offer.last().is_some_and(|(frame_type, _)| *frame_type == FrameType::OfferBatch) {
            return;
        }
    }
}

fn serve_data(stream: &mut TcpStream, answer: &Answer) {
    send_frame(stream, FrameType::AttachReply, &[]);
    while let Some(request) = read_request(stream) {
        if answer(&request, stream).is_err() {
            return;
        }
    }
}

fn read_request(stream: &mut TcpStream) -> Option<Request> {
    let mut header = [0; REQUEST_HEADER_BYTES];
    stream.read_exact(&mut header).ok()?;
    let decoded = RequestHeader::decode(&header).expect("a lawful request");
    let mut rest = vec![0; decoded.rest_bytes()];
    stream.read_exact(&mut rest).ok()?;
    match Request::decode(&header, decoded, &rest).expect("a lawful request") {
        Request::Plain(_) => panic!("a plain request on a data connection"),
        extended => Some(extended),
    }
}

/// What every offered entry has beside its mode.
fn metadata(mode: u16) -> Metadata {
    let mtime = Timestamp::new(1_600_000_000, 5).expect("lawful");
    Metadata { mode, uid: 0, gid: 0, mtime }
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).expect("lawful")
}

pub(crate) fn file(text: &str, bytes: &[u8]) -> Entry {
    let kind = EntryKind::File { size_bytes: bytes.len() as u64, sparse: false };
    Entry { name: name(text), kind, metadata: metadata(0o644) }
}

pub(crate) fn dir(text: &str) -> Entry {
    Entry { name: name(text), kind: EntryKind::Dir, metadata: metadata(0o755) }
}

pub(crate) fn link(text: &str, target: &str) -> Entry {
    Entry { name: name(text), kind: EntryKind::Symlink { target: target.as_bytes().into() }, metadata: metadata(0o644) }
}

/// One directory's listing, complete.
pub(crate) fn listing(path: &str, entries: Vec<Entry>) -> Listing {
    let dir = RelPath::new(path.as_bytes()).expect("lawful");
    let root = dir.is_root().then(|| metadata(0o755));
    Listing { dir, root, entries, failures: Vec::new(), end: ListingEnd::Complete }
}

/// A whole offer: the listings and the end.
pub(crate) fn offer(listings: Vec<Listing>) -> Offer {
    let count = |listing: &Listing| listing.entries.len() as u64 + u64::from(listing.root.is_some());
    let entries = listings.iter().map(count).sum();
    let failed =
        |listing: &Listing| listing.failures.len() as u64 + u64::from(matches!(listing.end, ListingEnd::Broken(_)));
    let failures = listings.iter().map(failed).sum();
    let batch = OfferBatch { owners: Vec::new(), listings };
    let end = OfferEnd { entries, failures };
    vec![
        (FrameType::OfferBatch, batch.encode(BatchCodec::Zstd).expect("lawful")),
        (FrameType::OfferEnd, end.encode().to_vec()),
    ]
}

/// The header of a truthful answer from a file that holds `bytes`.
pub(crate) fn header(request: &RangeRequest, bytes: &[u8]) -> PieceHeader {
    let body_bytes = if request.ask.is_confirmation() { 0 } else { request.range.len() as u32 };
    let crc32 = if request.ask.is_confirmation() { crc32fast::hash(part(bytes, request.range)) } else { 0 };
    let reply =
        Reply { status: Status::Ok, file_bytes: bytes.len() as u64, mtime_ns: metadata(0).mtime.wire_ns(), crc32 };
    PieceHeader { reply, id: request.id, kind: BodyKind::Raw, body_bytes }
}

/// A truthful answer from a file that holds `bytes`.
pub(crate) fn truth(request: &RangeRequest, bytes: &[u8]) -> Vec<u8> {
    let header = header(request, bytes).encode().to_vec();
    if request.ask.is_confirmation() { header } else { [header, body(part(bytes, request.range))].concat() }
}

/// A body and its trailer.
pub(crate) fn body(bytes: &[u8]) -> Vec<u8> {
    let trailer = Trailer { crc32: crc32fast::hash(bytes), status: Status::Ok };
    [bytes, &trailer.encode()].concat()
}

fn part(bytes: &[u8], range: ByteRange) -> &[u8] {
    &bytes[range.start() as usize..range.end() as usize]
}
