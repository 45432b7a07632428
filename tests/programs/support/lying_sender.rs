//! A sender that keeps to the handshake and then offers and answers what a test wants it to: a server that is dialled, or a
//! client that dials one and pushes.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use fastcp_model::Capabilities;
use fastcp_wire::frame::FrameType;
use fastcp_wire::hello::{Attach, Hello, HelloReply, Lane, Ticket, VERSION};
use fastcp_wire::request::{ExtendedRequest, REQUEST_HEADER_BYTES, RangeRequest, Request, RequestHeader};

use super::peer::{read_frame, send_frame};
use super::said::Offer;

/// Sends the answer to one request.
type Answer = Arc<dyn Fn(&Request, &mut TcpStream) -> std::io::Result<()> + Send + Sync>;

/// What a sender says, whoever dials.
#[derive(Clone)]
pub(crate) struct Lies {
    capabilities: Capabilities,
    offers: Arc<Offers>,
    answer: Answer,
}

impl Lies {
    /// Offers `offer` and answers each request for a range with the bytes that `answer` makes of it.
    pub(crate) fn new(offer: Offer, answer: impl Fn(&RangeRequest) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let capabilities = Capabilities::SUPPORTED.difference(Capabilities::BUNDLE);
        Self::sending(offer, capabilities, move |request, stream| stream.write_all(&answer(request)))
    }

    /// As before, of a sender that can do this; and `answer` sends by itself, and so may do things in the middle of an
    /// answer.
    pub(crate) fn sending(
        offer: Offer,
        capabilities: Capabilities,
        answer: impl Fn(&RangeRequest, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::with(vec![offer], capabilities, move |request, stream| match request {
            Request::Extended(ExtendedRequest::Range(request)) => answer(request, stream),
            other => panic!("not agreed: {other:?}"),
        })
    }

    /// As before, of a sender that is asked for bytes and confirmations only.
    pub(crate) fn sending_bytes(
        offer: Offer,
        answer: impl Fn(&RangeRequest, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let capabilities = Capabilities::SUPPORTED.difference(Capabilities::BUNDLE | Capabilities::DELTA);
        Self::sending(offer, capabilities, answer)
    }

    /// As [`Lies::new`], but takes requests for bundles too.
    pub(crate) fn bundling(offer: Offer, answer: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::with(vec![offer], Capabilities::SUPPORTED, move |request, stream| stream.write_all(&answer(request)))
    }

    /// Another offer on each control connection, and the last one on all that follow. An offer without an end is broken
    /// off.
    pub(crate) fn in_turn(
        offers: Vec<Offer>,
        answer: impl Fn(&RangeRequest) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        // One frame asks for an offer then: a connection that is closed with another unread takes what was sent with it.
        let without = Capabilities::BUNDLE | Capabilities::TREE_CACHE;
        Self::with(offers, Capabilities::SUPPORTED.difference(without), move |request, stream| match request {
            Request::Extended(ExtendedRequest::Range(request)) => stream.write_all(&answer(request)),
            other => panic!("not agreed: {other:?}"),
        })
    }

    fn with(
        offers: Vec<Offer>,
        capabilities: Capabilities,
        answer: impl Fn(&Request, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let offers = Arc::new(Offers { offers, sessions: AtomicUsize::new(0) });
        Self { capabilities, offers, answer: Arc::new(answer) }
    }

    /// Says it as a server.
    pub(crate) fn listen(self) -> LyingSender {
        LyingSender::start_listening(move |stream, _| serve(stream, &self))
    }

    /// Says it as a client that pushes to the server at this address. An honest client has to dial the answer: what it
    /// asks for by PUSH is asked for, and it gets the reports and tells of them.
    pub(crate) fn push_to(self, server: SocketAddr) -> LyingSender {
        LyingSender::start_listening(move |client, dialled| _ = push(client, server, &self, dialled))
    }
}

/// A sender that does not tell the truth; stops listening when dropped.
#[derive(Debug)]
pub(crate) struct LyingSender {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    is_over: AtomicBool,
    dialled: Dialled,
}

/// Where the control connections come from that were made to a server.
type Dialled = Mutex<Vec<SocketAddr>>;

impl LyingSender {
    /// [`Lies::new`] as a server.
    pub(crate) fn start(offer: Offer, answer: impl Fn(&RangeRequest) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Lies::new(offer, answer).listen()
    }

    fn start_listening(take: impl Fn(TcpStream, &Dialled) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared::default());
        let (listening, take) = (Arc::clone(&shared), Arc::new(take));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if listening.is_over.load(Ordering::Acquire) {
                    return;
                }
                let (shared, take) = (Arc::clone(&listening), Arc::clone(&take));
                std::thread::spawn(move || take(stream, &shared.dialled));
            }
        });
        Self { address, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("fcp://{}", self.address)
    }

    /// The addresses that a server saw its sessions come from.
    pub(crate) fn addresses_at_server(&self) -> Vec<SocketAddr> {
        self.shared.dialled.lock().expect("not poisoned").clone()
    }
}

impl Drop for LyingSender {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        drop(TcpStream::connect(self.address));
    }
}

/// What is offered, control connection by control connection.
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

fn serve(mut stream: TcpStream, lies: &Lies) {
    match read_frame(&mut stream) {
        Some((FrameType::Hello, _)) => {
            let reply = HelloReply {
                version: VERSION,
                capability_bits: lies.capabilities.bits(),
                connections: 1,
                chunk_kb: 1024,
                ticket: Ticket([7; 16]),
            };
            send_frame(&mut stream, FrameType::HelloReply, &reply.encode());
            make_offer(&mut stream, lies.offers.next());
        }
        Some((FrameType::Attach, _)) => {
            send_frame(&mut stream, FrameType::AttachReply, &[]);
            answer_requests(&mut stream, &lies.answer);
        }
        _ => {}
    }
}

/// Greets the server in the words of a client, and then says what it likes; but for the connection that reports come on.
fn push(mut client: TcpStream, server: SocketAddr, lies: &Lies, dialled: &Dialled) -> Option<()> {
    let (frame_type, payload) = read_frame(&mut client)?;
    let mut stream = TcpStream::connect(server).ok()?;
    let is_session = frame_type == FrameType::Hello;
    let lane = if is_session {
        dialled.lock().expect("not poisoned").push(stream.local_addr().expect("connected"));
        let hello = Hello::decode(&payload).expect("lawful");
        let capability_bits = hello.capability_bits & lies.capabilities.bits();
        send_frame(&mut stream, FrameType::Hello, &Hello { capability_bits, ..hello }.encode());
        let (frame_type, payload) = read_frame(&mut client)?;
        send_frame(&mut stream, frame_type, &payload);
        Lane::Control
    } else {
        send_frame(&mut stream, frame_type, &payload);
        Attach::decode(&payload).expect("lawful").lane
    };
    let (frame_type, payload) = read_frame(&mut stream)?;
    send_frame(&mut client, frame_type, &payload);
    let mut ends = [&client, &stream].map(|stream| stream.try_clone().expect("clone"));
    std::thread::spawn(move || {
        let [from, to] = &mut ends;
        match lane {
            Lane::Report { .. } => drop(std::io::copy(from, to)),
            // Of what it would say otherwise, only the end counts.
            Lane::Control | Lane::Data => drop(std::io::copy(from, &mut std::io::sink())),
        }
        let _ = to.shutdown(Shutdown::Both);
    });
    match lane {
        Lane::Control => make_offer(&mut stream, lies.offers.next()),
        Lane::Data => answer_requests(&mut stream, &lies.answer),
        Lane::Report { .. } => drop(std::io::copy(&mut stream, &mut client)),
    }
    for stream in [&client, &stream] {
        let _ = stream.shutdown(Shutdown::Both);
    }
    Some(())
}

/// Offers this whenever it is asked for an offer.
fn make_offer(stream: &mut TcpStream, offer: &Offer) {
    // The session lasts until the receiver ends it, and what has changed may be asked for again.
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

fn answer_requests(stream: &mut TcpStream, answer: &Answer) {
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
