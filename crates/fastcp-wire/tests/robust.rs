//! What decoders do with bytes that nobody meant to send: cut, flipped, lying, or in single bytes.

use std::fs;

use fastcp_model::rules::{Action, FilterRule, Pattern, Rule, Sides};
use fastcp_model::{Listing, ListingEnd, NAME_BYTES_MAX, Name, PATH_BYTES_MAX, RelPath, SpecialKind};
use fastcp_wire::WireError;
use fastcp_wire::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameType, decode_payload, encode_frame};
use fastcp_wire::hello::{Attach, Failure, Hello, HelloReply, Lane};
use fastcp_wire::limits::{
    BATCH_BYTES_MAX, BATCH_ENTRIES_MAX, CAUSE_BYTES_MAX, CONNECTIONS_MAX, EVENT_NUMBER_MAX, EVENT_PATH_BYTES_MAX,
    FINE_SIGNATURE_BYTES_MAX, FRAME_PAYLOAD_BYTES_MAX, HASH_BYTES_MAX, HELLO_BYTES_MAX, LINK_TARGET_BYTES_MAX,
    OWNER_NAME_BYTES_MAX, PLACES_MAX, PUSH_BYTES_MAX, PUSH_SETTINGS_MAX, RANGE_BYTES_MAX, RECORD_BYTES_MAX,
    REPORT_COUNTERS_MAX, REPORT_TEXT_BYTES_MAX, REQUEST_PATH_BYTES_MAX, RULES_BYTES_MAX, SETTING_NAME_BYTES_MAX,
    SETTING_VALUE_BYTES_MAX, SIGNATURE_BYTES_MAX,
};
use fastcp_wire::offer::{BatchCodec, OfferBatch, OfferRequest, OwnerClass, OwnerName, Place, Scope};
use fastcp_wire::push::{Push, Setting};
use fastcp_wire::reply::{PIECE_HEADER_BYTES, PieceHeader, TRAILER_BYTES};
use fastcp_wire::report::{Numbered, ReportEnd, ReportState, Told, decode_seen};
use fastcp_wire::request::{PlainRequest, REQUEST_HEADER_BYTES, Request, RequestHeader};
use proptest::strategy::{BoxedStrategy, Strategy, ValueTree};
use proptest::test_runner::{Config, RngSeed, TestRunner};

use hex::hex;
use message::Message;

#[path = "support/generate.rs"]
mod generate;
#[path = "support/hex.rs"]
mod hex;
#[path = "support/message.rs"]
mod message;

/// Every run draws the same messages.
fn runner() -> TestRunner {
    TestRunner::new(Config {
        cases: 256,
        rng_seed: RngSeed::Fixed(0x4654_5131),
        failure_persistence: None,
        ..Config::default()
    })
}

/// A few messages of one kind.
fn samples(strategy: &BoxedStrategy<Message>, count: usize) -> Vec<Message> {
    let mut runner = runner();
    (0..count).map(|_| strategy.new_tree(&mut runner).expect("a message").current()).collect()
}

/// `bytes` with one byte replaced, for every position and every other value.
fn flips(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    (0..bytes.len()).flat_map(move |at| {
        (1..=u8::MAX).map(move |mask| {
            let mut flipped = bytes.to_vec();
            flipped[at] ^= mask;
            flipped
        })
    })
}

/// Where a message is whole already, though it may go on.
fn whole_at(message: &Message) -> Option<usize> {
    match message {
        Message::Attach(_) => Some(16),
        Message::Failure(_) => Some(2),
        _ => None,
    }
}

/// Whether a message carries a checksum of all of itself.
fn is_checksummed(message: &Message) -> bool {
    matches!(message, Message::Range(_) | Message::Bundle(_) | Message::Piece(_) | Message::Frame(..))
}

#[test]
fn every_message_survives_a_round_trip() {
    for (kind, strategy) in generate::kinds() {
        let result = runner().run(&strategy, |message| {
            assert_eq!(message.decode_alike(&message.encode()), Ok(message), "{kind}");
            Ok(())
        });
        result.expect(kind);
    }
}

#[test]
fn every_proper_prefix_is_an_error() {
    for (kind, strategy) in generate::kinds() {
        for message in samples(&strategy, 24) {
            let bytes = message.encode();
            for end in (0..bytes.len()).filter(|end| Some(*end) != whole_at(&message)) {
                let error = message.decode_alike(&bytes[..end]).expect_err(kind);
                let is_zstd_body = kind == "zstd batch" && end >= 5;
                let want = if is_zstd_body { WireError::Compression } else { WireError::Truncated };
                assert_eq!(error, want, "{kind}, {end} of {} bytes", bytes.len());
            }
        }
    }
}

#[test]
fn every_prefix_of_a_batch_that_admits_its_length_is_truncated() {
    for (kind, strategy) in generate::kinds().into_iter().filter(|(kind, _)| *kind == "raw batch") {
        for message in samples(&strategy, 24) {
            let bytes = message.encode();
            for end in 5..bytes.len() {
                let cut = raw_batch(&bytes[5..end]);
                assert_eq!(message.decode_alike(&cut), Err(WireError::Truncated), "{kind}, {end}");
            }
        }
    }
}

#[test]
fn every_message_refuses_bytes_after_it() {
    for (kind, strategy) in generate::kinds() {
        for message in samples(&strategy, 8) {
            let bytes = message.encode();
            let want = match kind {
                "zstd batch" => WireError::Compression,
                "attach" if whole_at(&message) == Some(bytes.len()) => WireError::Value { field: "lane", value: 0 },
                "failure" if whole_at(&message) == Some(bytes.len()) => WireError::Truncated,
                _ => WireError::TrailingBytes(1),
            };
            let longer = [bytes, vec![0]].concat();
            assert_eq!(message.decode_alike(&longer), Err(want), "{kind}");
        }
    }
}

#[test]
fn a_flipped_byte_never_panics_and_never_goes_unseen_under_a_checksum() {
    for (kind, strategy) in generate::kinds() {
        for message in samples(&strategy, 4) {
            for flipped in flips(&message.encode()) {
                let decoded = message.decode_alike(&flipped);
                assert!(decoded.is_err() || !is_checksummed(&message), "{kind}: a flip went unseen: {flipped:02x?}");
            }
        }
    }
}

/// A connection reads only what the flipped header announces. What is left is then the start of the
/// next message, so the one flip that can pass is RANGE off: a plain request, unlawful on a data connection.
#[test]
fn a_flip_in_a_request_on_a_connection_is_seen_or_makes_it_plain() {
    let extended =
        generate::kinds().into_iter().filter(|(kind, _)| matches!(*kind, "range request" | "bundle request"));
    for message in extended.flat_map(|(_, strategy)| samples(&strategy, 4)) {
        for flipped in flips(&message.encode()) {
            let (header_bytes, rest) = flipped.split_first_chunk::<REQUEST_HEADER_BYTES>().expect("whole");
            let Ok(header) = RequestHeader::decode(header_bytes) else { continue };
            let Some(rest) = rest.get(..header.rest_bytes()) else { continue };
            let decoded = Request::decode(header_bytes, header, rest);
            assert!(!matches!(decoded, Ok(Request::Extended(_))), "a flip went unseen: {flipped:02x?}");
        }
    }
}

#[test]
fn a_flip_in_a_framed_message_is_seen() {
    for (kind, strategy) in generate::kinds() {
        let framed: Vec<_> = samples(&strategy, 2).iter().filter_map(frame).collect();
        for (frame_type, payload) in framed {
            let message = Message::Frame(frame_type, payload);
            for flipped in flips(&message.encode()) {
                assert!(message.decode_alike(&flipped).is_err(), "{kind}: a flip went unseen: {flipped:02x?}");
            }
        }
    }
}

/// The frame that carries a message of the control dialect.
fn frame(message: &Message) -> Option<(FrameType, Vec<u8>)> {
    let frame_type = match message {
        Message::Hello(_) => FrameType::Hello,
        Message::HelloReply(_) => FrameType::HelloReply,
        Message::Attach(_) => FrameType::Attach,
        Message::Failure(_) => FrameType::Failure,
        Message::OfferRequest(_) => FrameType::OfferRequest,
        Message::OfferBatch(..) => FrameType::OfferBatch,
        Message::OfferEnd(_) => FrameType::OfferEnd,
        Message::Known(_) => FrameType::OfferKnown,
        Message::Same(_) => FrameType::OfferSame,
        Message::Push(_) => FrameType::Push,
        Message::ReportEvent(_) => FrameType::ReportEvent,
        Message::ReportState(_) => FrameType::ReportState,
        Message::ReportEnd(_) => FrameType::ReportEnd,
        Message::ReportSeen(_) => FrameType::ReportSeen,
        Message::Auth(_) => FrameType::Auth,
        Message::AuthReply(_) => FrameType::AuthReply,
        Message::SessionOpen(_) => FrameType::SessionOpen,
        Message::SessionOpened(_) => FrameType::SessionOpened,
        Message::Frame(frame_type, payload) => return Some((*frame_type, payload.clone())),
        Message::Plain(_)
        | Message::Range(_)
        | Message::Bundle(_)
        | Message::Reply(_)
        | Message::Piece(_)
        | Message::Trailer(_) => return None,
    };
    Some((frame_type, message.encode()))
}

#[test]
fn arbitrary_bytes_never_panic() {
    let bytes = proptest::collection::vec(proptest::num::u8::ANY, 0..200);
    for (kind, strategy) in generate::kinds() {
        let like = samples(&strategy, 1).remove(0);
        let result = runner().run(&bytes, |bytes| {
            if let Ok(message) = like.decode_alike(&bytes) {
                assert_eq!(message.decode_alike(&message.encode()), Ok(message), "{kind}");
            }
            Ok(())
        });
        result.expect(kind);
    }
}

/// Collects single bytes into whole messages, as a connection that reads only what it was promised.
struct Feed {
    header_bytes: usize,
    rest_bytes: fn(&[u8]) -> Result<usize, WireError>,
    buffer: Vec<u8>,
    whole: Vec<Vec<u8>>,
}

impl Feed {
    fn new(header_bytes: usize, rest_bytes: fn(&[u8]) -> Result<usize, WireError>) -> Self {
        Self { header_bytes, rest_bytes, buffer: Vec::new(), whole: Vec::new() }
    }

    fn push(&mut self, byte: u8) -> Result<(), WireError> {
        self.buffer.push(byte);
        if self.buffer.len() < self.header_bytes {
            return Ok(());
        }
        let wanted = self.header_bytes + (self.rest_bytes)(&self.buffer[..self.header_bytes])?;
        assert!(self.buffer.len() <= wanted, "read past the message");
        if self.buffer.len() == wanted {
            self.whole.push(std::mem::take(&mut self.buffer));
        }
        Ok(())
    }
}

#[track_caller]
fn feed(mut feed: Feed, messages: &[Message]) {
    for byte in messages.iter().flat_map(Message::encode) {
        feed.push(byte).expect("lawful");
    }
    assert!(feed.buffer.is_empty(), "the last message is not whole");
    assert_eq!(feed.whole.len(), messages.len());
    for (bytes, message) in feed.whole.iter().zip(messages) {
        assert_eq!(message.decode_alike(bytes).as_ref(), Ok(message));
    }
}

fn samples_of(wanted: &[&str]) -> Vec<Message> {
    let kinds = generate::kinds().into_iter().filter(|(kind, _)| wanted.contains(kind));
    let messages: Vec<_> = kinds.flat_map(|(_, strategy)| samples(&strategy, 12)).collect();
    assert_eq!(messages.len(), 12 * wanted.len());
    messages
}

#[test]
fn requests_arrive_one_byte_at_a_time() {
    let rest_bytes = |header: &[u8]| Ok(RequestHeader::decode(header.try_into().expect("16 bytes"))?.rest_bytes());
    feed(Feed::new(REQUEST_HEADER_BYTES, rest_bytes), &samples_of(&["plain request", "range request"]));
}

#[test]
fn frames_arrive_one_byte_at_a_time() {
    let rest_bytes = |header: &[u8]| Ok(FrameHeader::decode(header.try_into().expect("8 bytes"))?.rest_bytes());
    let kinds = [
        "frame",
        "hello",
        "hello reply",
        "attach",
        "failure",
        "offer request",
        "raw batch",
        "zstd batch",
        "offer end",
        "push",
        "report event",
        "report state",
        "report end",
        "report seen",
    ];
    let frames: Vec<_> =
        samples_of(&kinds).iter().filter_map(frame).map(|(kind, payload)| Message::Frame(kind, payload)).collect();
    assert_eq!(frames.len(), 12 * kinds.len());
    feed(Feed::new(FRAME_HEADER_BYTES, rest_bytes), &frames);
}

#[test]
fn replies_and_trailers_arrive_one_byte_at_a_time() {
    for kind in ["reply", "piece header", "trailer"] {
        let messages = samples_of(&[kind]);
        feed(Feed::new(messages[0].encode().len(), |_| Ok(0)), &messages);
    }
}

#[test]
fn pieces_arrive_one_byte_at_a_time() {
    let rest_bytes = |header: &[u8]| {
        let header = PieceHeader::decode(header.try_into().expect("48 bytes"))?;
        Ok(header.body_bytes as usize + TRAILER_BYTES)
    };
    let mut feed = Feed::new(PIECE_HEADER_BYTES, rest_bytes);
    let trailer = samples_of(&["trailer"]).remove(0).encode();
    for message in samples_of(&["piece header"]) {
        let Message::Piece(mut header) = message else { panic!("asked for piece headers") };
        header.body_bytes %= 50;
        let body = vec![0x55; header.body_bytes as usize];
        let bytes = [&header.encode()[..], &body, &trailer].concat();
        bytes.iter().for_each(|&byte| feed.push(byte).expect("lawful"));
        assert_eq!(feed.whole.last(), Some(&bytes));
    }
    assert_eq!(feed.whole.len(), 12);
}

#[track_caller]
fn assert_too_long<T: std::fmt::Debug>(result: Result<T, WireError>, field: &str, value: u64, max: u64) {
    match result {
        Err(WireError::TooLong { field: got_field, value: got_value, max: got_max }) => {
            assert_eq!((got_field, got_value, got_max), (field, value, max));
        }
        other => panic!("{field}: {other:?}"),
    }
}

#[track_caller]
fn assert_value<T: std::fmt::Debug>(result: Result<T, WireError>, field: &str, value: u64) {
    match result {
        Err(WireError::Value { field: got_field, value: got_value }) => {
            assert_eq!((got_field, got_value), (field, value));
        }
        other => panic!("{field}: {other:?}"),
    }
}

fn request_header(path_len: u16, flags: u16) -> Result<RequestHeader, WireError> {
    let bytes = hex(&format!("46545131 {path_len:04x} {flags:04x} 0000000000000000"));
    RequestHeader::decode(bytes[..].try_into().expect("16 bytes"))
}

#[test]
fn a_requests_path_is_bounded_by_its_header() {
    let max = REQUEST_PATH_BYTES_MAX as u64;
    assert!(request_header(4096, 0).is_ok());
    assert_too_long(request_header(4097, 0), "path_len", 4097, max);
    assert_too_long(request_header(u16::MAX, 2), "path_len", u16::MAX.into(), max);
    assert_value(request_header(0, 0), "path_len", 0);
    let too_long = PlainRequest { path: vec![b'a'; 4097].into(), offset: 0, want_crc: false };
    assert_too_long(too_long.encode(), "path_len", 4097, max);
}

#[test]
fn a_requests_flags_are_known_and_agree() {
    for flags in 0..=u16::MAX {
        let lawful_header = matches!(flags, 0 | 1) || (flags & 2 != 0 && flags <= 0x1ff && flags & 1 == 0);
        assert_eq!(request_header(1, flags).is_ok(), lawful_header, "{flags:#x}");
    }
    // All that are alone or, FINE with SIGNATURE and ANEW with CONFIRM; a bundle has another form.
    for flags in (2..=0x1ff).step_by(2).filter(|flags| flags & 0x12 == 2) {
        match flags {
            2 | 6 | 0xa | 0x22 | 0x62 | 0x82 | 0x10a => assert!(range_request(flags, 0, 1).is_ok(), "{flags:#x}"),
            _ => assert_value(range_request(flags, 0, 1), "flags", flags.into()),
        }
    }
    for flags in [26, 30, 0x32, 0x92] {
        assert_value(range_request(flags, 0, 1), "flags", flags.into());
    }
}

/// An extended request for `a` with these fields and a right checksum.
fn range_request(flags: u16, offset: u64, length: u64) -> Result<Message, WireError> {
    let mut bytes = hex(&format!("46545131 0001 {flags:04x} {offset:016x} 61 {length:016x} 00000007"));
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
    samples_of(&["range request"])[0].decode_alike(&bytes)
}

#[test]
fn a_range_is_bounded() {
    assert!(range_request(2, 0, RANGE_BYTES_MAX).is_ok());
    for flags in [2, 6] {
        assert_too_long(range_request(flags, 0, RANGE_BYTES_MAX + 1), "length", RANGE_BYTES_MAX + 1, RANGE_BYTES_MAX);
        assert_too_long(range_request(flags, 0, u64::MAX), "length", u64::MAX, RANGE_BYTES_MAX);
    }
    for (flags, max) in [(0x22, SIGNATURE_BYTES_MAX), (0x62, FINE_SIGNATURE_BYTES_MAX), (0x82, HASH_BYTES_MAX)] {
        assert!(range_request(flags, 0, max).is_ok());
        assert_too_long(range_request(flags, 0, max + 1), "length", max + 1, max);
    }
    assert_value(range_request(2, i64::MAX as u64, 1), "length", 1);
    assert_value(range_request(2, u64::MAX, 1), "length", 1);
    assert!(range_request(10, 0, i64::MAX as u64).is_ok());
    assert_value(range_request(10, 1, i64::MAX as u64), "length", i64::MAX as u64);
    assert_value(range_request(10, 0, u64::MAX), "length", u64::MAX);
}

/// A piece header with these fields and a right checksum.
fn piece(kind: u16, status: u16, repeated: u16, body_len: u32) -> Result<PieceHeader, WireError> {
    let mut bytes = hex(&format!("46545231 {status:04x} 0000 {:048x}", 0));
    bytes.extend_from_slice(&hex(&format!("00000001 {kind:04x} {repeated:04x} {body_len:08x}")));
    bytes.resize(44, 0);
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
    PieceHeader::decode(bytes[..].try_into().expect("48 bytes"))
}

#[test]
fn a_piece_header_is_bounded_even_under_a_right_checksum() {
    let max = RANGE_BYTES_MAX as u32;
    assert!(piece(0, 0, 0, max).is_ok());
    assert_too_long(piece(0, 0, 0, max + 1), "body_len", u64::from(max) + 1, RANGE_BYTES_MAX);
    assert_too_long(piece(1, 0, 0, u32::MAX), "body_len", u32::MAX.into(), RANGE_BYTES_MAX);
    assert_value(piece(7, 0, 0, 0), "kind", 7);
    assert_value(piece(0, 0, 1, 0), "status", 1);
    assert_value(piece(0, 22, 22, 0), "status", 22);
}

fn frame_header(text: &str) -> Result<FrameHeader, WireError> {
    FrameHeader::decode(hex(text)[..].try_into().expect("8 bytes"))
}

#[test]
fn a_frame_is_bounded_by_its_header() {
    let max = FRAME_PAYLOAD_BYTES_MAX as u64;
    assert!(frame_header("0007 0000 00400000").is_ok());
    assert_too_long(frame_header("0007 0000 00400001"), "payload_len", max + 1, max);
    assert_too_long(frame_header("0007 0000 ffffffff"), "payload_len", u32::MAX.into(), max);
    assert_value(frame_header("0007 0001 00000000"), "flags", 1);
    for code in [0, 0x15, 0x1603, u16::MAX] {
        assert_eq!(frame_header(&format!("{code:04x} 0000 00000000")), Err(WireError::UnknownFrame(code)));
    }
    let too_long = vec![0; FRAME_PAYLOAD_BYTES_MAX + 1];
    assert_too_long(encode_frame(FrameType::OfferBatch, &too_long), "payload_len", max + 1, max);
}

#[test]
fn a_frame_must_have_the_length_of_its_header() {
    let frame = encode_frame(FrameType::Attach, b"abc").expect("short");
    let (header, rest) = frame.split_first_chunk::<FRAME_HEADER_BYTES>().expect("whole");
    assert_eq!(decode_payload(header, rest), Ok(&b"abc"[..]));
    assert_eq!(decode_payload(header, &rest[1..]), Err(WireError::Truncated));
    assert_eq!(decode_payload(header, &[rest, b"x"].concat()), Err(WireError::TrailingBytes(1)));
}

#[test]
fn the_terms_of_a_session_are_bounded() {
    let hello = |connections: u16, chunk_kb: u32| {
        Hello::decode(&hex(&format!("0001 00 00000000 {connections:04x} {chunk_kb:08x} 0000")))
    };
    let reply = |connections: u16, chunk_kb: u32| {
        HelloReply::decode(&hex(&format!("0001 00000000 {connections:04x} {chunk_kb:08x} {:032x}", 0)))
    };
    assert!(hello(CONNECTIONS_MAX, 0).is_ok() && reply(CONNECTIONS_MAX, 4).is_ok());
    for connections in [0, CONNECTIONS_MAX + 1, u16::MAX] {
        assert_value(hello(connections, 4), "connections", connections.into());
        assert_value(reply(connections, 4), "connections", connections.into());
    }
    for chunk_kb in [1, 3, 65_537, u32::MAX] {
        assert_value(hello(1, chunk_kb), "chunk_kb", chunk_kb.into());
        assert_value(reply(1, chunk_kb), "chunk_kb", chunk_kb.into());
    }
    assert_value(reply(1, 0), "chunk_kb", 0);
    assert_value(Hello::decode(&hex("0001 02 00000000 0001 00000000 0000")), "role", 2);
}

#[test]
fn the_places_of_a_session_are_checked() {
    let hello = |role: u8, count: usize, places: &str| {
        Hello::decode(&hex(&format!("0001 {role:02x} 00000000 0001 00000000 {count:04x} {places}")))
    };
    let place = "00 0001 61 ";
    assert_eq!(hello(1, PLACES_MAX, &place.repeat(PLACES_MAX)).map(|hello| hello.places.len()), Ok(PLACES_MAX));
    let (count, max) = (PLACES_MAX + 1, PLACES_MAX as u64);
    assert_too_long(hello(1, count, &place.repeat(count)), "place_count", max + 1, max);
    assert_value(hello(0, 1, place), "place_count", 1);
    assert_value(hello(1, 1, "02 0001 61"), "scope", 2);
    assert!(matches!(hello(1, 1, "00 0004 2e2e2f61"), Err(WireError::Path(_))), "a path that leads out");
    assert_eq!(hello(1, 2, place), Err(WireError::Truncated));
    assert_eq!(hello(1, 0, place), Err(WireError::TrailingBytes(4)));
    let too_long = vec![0; HELLO_BYTES_MAX + 1];
    assert_too_long(Hello::decode(&too_long), "payload_len", too_long.len() as u64, HELLO_BYTES_MAX as u64);
}

#[test]
fn an_attachment_is_checked() {
    let attach = |rest: &str| Attach::decode(&hex(&format!("{:032x} {rest}", 0))).map(|attach| attach.lane);
    assert_eq!(attach(""), Ok(Lane::Data));
    assert_eq!(attach("01"), Ok(Lane::Control));
    assert_eq!(attach("02 7fffffffffffffff"), Ok(Lane::Report { seen: EVENT_NUMBER_MAX }));
    assert_value(attach("02 8000000000000000"), "seen", 1 << 63);
    assert_value(attach("00"), "lane", 0);
    assert_value(attach("03"), "lane", 3);
    assert_eq!(attach("01 00"), Err(WireError::TrailingBytes(1)));
    assert_eq!(attach("02 00000000000000"), Err(WireError::Truncated));
    assert_eq!(attach("02 0000000000000000 00"), Err(WireError::TrailingBytes(1)));
}

#[test]
fn a_failure_is_checked() {
    let failure = |text: &str| Failure::decode(&hex(text));
    assert_value(failure("0016"), "status", 22);
    assert_value(failure("0016 0001 61"), "status", 22);
    assert_eq!(failure("0007 0001 61").map(|failure| failure.detail), Ok("a".to_owned()));
    assert_eq!(failure("0007 0000"), Err(WireError::TrailingBytes(2)), "no detail is said in one way only");
    assert_eq!(failure("0007 0001 61 00"), Err(WireError::TrailingBytes(1)));
    assert_value(failure("0007 0003 61ff62"), "detail", 0xff);
    let max = REPORT_TEXT_BYTES_MAX as u64;
    assert_too_long(failure("0007 2001"), "detail_len", max + 1, max);
}

/// A push of all there is, to the root, with these settings.
fn push_with(settings: Vec<Setting>) -> Push {
    let offer = Place { path: RelPath::root(), scope: Scope::Contents };
    Push { offer, into: RelPath::root(), new_name: None, settings, rules: Vec::new() }
}

#[test]
fn a_push_is_checked() {
    let push = |text: &str| Push::decode(&hex(text));
    assert!(push("0001 00 0000 0000 0000 00 00000000").is_ok());
    assert_value(push("0000 00 0000 0000 0000 00"), "version", 0);
    assert_value(push("0002 00 0000 0000 0000 00"), "version", 2);
    assert_value(push("0001 03 0000 0000 0000 00"), "scope", 3);
    let max = PATH_BYTES_MAX as u64;
    assert_too_long(push("0001 00 1000"), "path_len", 4096, max);
    assert_too_long(push("0001 00 0000 1000"), "into_len", 4096, max);
    assert_too_long(push("0001 00 0000 0000 0100"), "new_name_len", 256, NAME_BYTES_MAX as u64);
    assert_too_long(push("0001 00 0000 0000 0000 00 00100001"), "rules_len", (1 << 20) + 1, 1 << 20);
    for path in ["2f61", "612f", "2e2e", "2e", "6100", "612f2f62", "612f2e2e", "2e2e2f61"] {
        let sized = format!("{:04x} {path}", path.len() / 2);
        for text in [format!("0001 00 {sized} 0000 0000 00"), format!("0001 00 0000 {sized} 0000 00")] {
            assert!(matches!(push(&text), Err(WireError::Path(_))), "{text}");
        }
    }
    for name in ["2e", "2e2e", "2f", "612f62", "6100"] {
        let result = push(&format!("0001 00 0000 0000 {:04x} {name} 00", name.len() / 2));
        assert!(matches!(result, Err(WireError::Path(_))), "{name}: {result:?}");
    }
}

#[test]
fn settings_are_bounded() {
    let push = |text: &str| Push::decode(&hex(&format!("0001 00 0000 0000 0000 {text}")));
    assert_too_long(push("41"), "setting_count", 65, PUSH_SETTINGS_MAX as u64);
    assert_too_long(push("ff"), "setting_count", 255, PUSH_SETTINGS_MAX as u64);
    assert_eq!(push("40"), Err(WireError::Truncated));
    assert!(push("02 0001 61 0000 0001 62 0000 00000000").is_ok());
    assert_value(push("02 0001 61 0000 0001 61 0001 78"), "settings", 2);
    assert_too_long(push("01 0041"), "name_len", 65, SETTING_NAME_BYTES_MAX as u64);
    assert_too_long(push("01 0001 61 1001"), "value_len", 4097, SETTING_VALUE_BYTES_MAX as u64);
    for name in [b'A', b'_', b'=', b' ', b'/', 0, 0x7f, 0xff] {
        assert_value(push(&format!("01 0001 {name:02x} 0000")), "name", name.into());
    }
}

#[test]
fn a_push_that_its_peer_would_refuse_is_not_encoded() {
    let encode = |settings| push_with(settings).encode();
    let setting = |name: usize, value| Setting { name: "n".repeat(name), value: vec![b'v'; value] };
    let all: Vec<_> = (1..=PUSH_SETTINGS_MAX).map(|length| setting(length, 0)).collect();
    let longest = push_with(all.clone());
    assert_eq!(longest.encode().and_then(|payload| Push::decode(&payload)), Ok(longest));
    let more = [all, vec![setting(1, 1)]].concat();
    assert_too_long(encode(more), "setting_count", 65, PUSH_SETTINGS_MAX as u64);
    assert_too_long(encode(vec![setting(65, 0)]), "name_len", 65, SETTING_NAME_BYTES_MAX as u64);
    assert_too_long(encode(vec![setting(1, 4097)]), "value_len", 4097, SETTING_VALUE_BYTES_MAX as u64);
    // Each as long as it may be, and all together too long.
    let values: Vec<_> = (1..=4).map(|length| setting(length, SETTING_VALUE_BYTES_MAX)).collect();
    let bytes = 14 + values.iter().map(|setting| 4 + setting.name.len() + setting.value.len()).sum::<usize>();
    let pattern = |bytes| {
        FilterRule::Rule(Rule {
            action: Action::Exclude,
            pattern: Pattern::new(&vec![b'p'; bytes]).expect("lawful"),
            sides: Sides::all(),
            is_perishable: false,
            is_about_attributes: false,
        })
    };
    let rules = [vec![pattern(1019); 1023], vec![pattern(1019)]].concat();
    let bytes = bytes + 1024 * 1024;
    let push = Push { rules, ..push_with(values) };
    assert_too_long(push.encode(), "payload_len", bytes as u64, PUSH_BYTES_MAX as u64);
    let too_long = vec![0; PUSH_BYTES_MAX + 1];
    assert_too_long(Push::decode(&too_long), "payload_len", too_long.len() as u64, PUSH_BYTES_MAX as u64);
}

fn report_event(text: &str) -> Result<Told, WireError> {
    Numbered::decode(&hex(&format!("0000000000000001 {text}"))).map(|numbered| numbered.event)
}

#[test]
fn an_event_is_checked() {
    assert_value(report_event("07"), "event", 7);
    assert_value(report_event("ff"), "event", 255);
    let above_max = Numbered::decode(&hex("8000000000000000 03 00"));
    assert_value(above_max, "number", 1 << 63);
    assert_eq!(report_event("03 00 00"), Err(WireError::TrailingBytes(1)));
    for path in ["2f61", "612f", "2e2e", "612f2e2e", "6100"] {
        let path = format!("{:04x} {path}", path.len() / 2);
        for text in [format!("00 00 {path}"), format!("01 00 {path}"), format!("02 {} {path}", "2e".repeat(11))] {
            assert!(matches!(report_event(&text), Err(WireError::Path(_))), "{text}");
        }
    }
}

#[test]
fn a_failed_entry_is_checked() {
    assert!(report_event("00 01 0000 0000 0000").is_ok());
    assert_value(report_event("00 02 0000 0000 0000"), "moving", 2);
    assert_too_long(report_event("00 00 0000 0081"), "cause_len", 129, CAUSE_BYTES_MAX as u64);
    assert_too_long(report_event("00 00 0000 0000 2001"), "text_len", 8193, REPORT_TEXT_BYTES_MAX as u64);
    assert_value(report_event("00 00 0000 0000 0001 80"), "text", 0x80);
    // What would go to a terminal as it is.
    for byte in [0x00, 0x07, 0x0a, 0x1b, 0x7f] {
        assert_value(report_event(&format!("00 00 0000 0002 61{byte:02x} 0000")), "cause", byte);
    }
    assert_value(report_event("00 00 0000 0002 c3a0 0000"), "cause", 0xc3);
}

#[test]
fn other_events_are_checked() {
    assert_value(report_event("01 04 0000"), "special_kind", 4);
    let change = "2e".repeat(11);
    assert_value(report_event(&format!("02 {change} 0000 03")), "item_kind", 3);
    let max = LINK_TARGET_BYTES_MAX as u64;
    assert_too_long(report_event(&format!("02 {change} 0000 02 1001")), "target_len", max + 1, max);
    for byte in [0x00, 0x1b, 0x7f, 0x9b] {
        let change = format!("{byte:02x}{}", "2e".repeat(10));
        assert_value(report_event(&format!("02 {change} 0000 00")), "change", byte);
    }
    assert_value(report_event("03 05"), "reason", 5);
    assert!(report_event("03 03 0000000000000001 ffffffffffffffff").is_ok());
    for percent in [101, 256, u64::MAX] {
        assert_value(report_event(&format!("03 04 0000000000000001 {percent:016x}")), "max", percent);
    }
    assert_value(report_event("04 03 0000000000000001 0001"), "resource", 3);
    assert_too_long(report_event("05 8001"), "record_len", 32_769, RECORD_BYTES_MAX as u64);
}

/// An entry that cannot be asked for, since its path is too long, is told nevertheless.
#[test]
fn the_path_of_an_event_may_be_one_name_too_long() {
    let dir = RelPath::new(&[b"d/".repeat(PATH_BYTES_MAX / 2), b"d".to_vec()].concat()).expect("just short enough");
    let longest = dir.join(&Name::new(&[b'n'; NAME_BYTES_MAX]).expect("lawful"));
    assert_eq!(longest.as_bytes().len(), EVENT_PATH_BYTES_MAX);
    for path in [dir.clone(), dir.join(&Name::new(b"n").expect("lawful")), longest.clone()] {
        let told = Numbered { number: 1, event: Told::Skipped { path, kind: SpecialKind::Fifo } };
        assert_eq!(Numbered::decode(&told.encode()), Ok(told));
    }
    let skipped = |path: &[u8]| {
        let path: String = path.iter().map(|byte| format!("{byte:02x}")).collect();
        report_event(&format!("01 00 {:04x} {path}", path.len() / 2))
    };
    let max = EVENT_PATH_BYTES_MAX as u64;
    assert_too_long(skipped(&[longest.as_bytes(), b"n"].concat()), "path_len", max + 1, max);
    let dir = dir.as_bytes();
    for unlawful in [[dir, b"/.."].concat(), [dir, b"/"].concat(), [b"/", dir].concat(), [dir, b"d/n"].concat()] {
        assert!(matches!(skipped(&unlawful), Err(WireError::Path(_))));
    }
    assert!(matches!(skipped(&[b'n'; PATH_BYTES_MAX + 1]), Err(WireError::Path(_))), "no name is that long");
}

#[test]
fn what_a_report_says_of_the_run_is_checked() {
    let state = |text: &str| ReportState::decode(&hex(text));
    assert_value(state("00000000 02 0000"), "scan_done", 2);
    let max = REPORT_COUNTERS_MAX as u64;
    assert_too_long(state("00000000 00 0101"), "counter_count", max + 1, max);
    assert_too_long(state("00000000 00 ffff"), "counter_count", u16::MAX.into(), max);
    assert_eq!(state("00000000 00 0100"), Err(WireError::Truncated));
    let end = |text: &str| ReportEnd::decode(&hex(text));
    assert!(end("7fffffffffffffff ff ff 0000").is_ok(), "what does not know an outcome takes it for a failure");
    assert_value(end("8000000000000000 00 00 0000"), "events", 1 << 63);
    assert_too_long(end("0000000000000000 00 00 2001"), "text_len", 8193, REPORT_TEXT_BYTES_MAX as u64);
    assert_value(end("0000000000000000 00 00 0001 ff"), "text", 0xff);
    assert_eq!(decode_seen(&hex("7fffffffffffffff")), Ok(EVENT_NUMBER_MAX));
    assert_value(decode_seen(&hex("ffffffffffffffff")), "seen", u64::MAX);
}

#[test]
fn an_offer_request_is_bounded() {
    let decode = |text: &str| OfferRequest::decode(&hex(text));
    assert_too_long(decode("00 1000 00000000 0000"), "path_len", 4096, PATH_BYTES_MAX as u64);
    let rules_max = RULES_BYTES_MAX as u64;
    assert_too_long(decode("00 0000 00100001 0000 00"), "rules_len", rules_max + 1, rules_max);
    assert_too_long(decode("00 0000 ffffffff 0000"), "rules_len", u32::MAX.into(), rules_max);
    let rule = |text: &str| decode(&format!("00 0000 {:08x} {text} 0000", text.replace(' ', "").len() / 2));
    assert!(rule("00 0006 0001 61").is_ok() && rule("01 0006 0001 61").is_ok());
    assert_value(rule("02 0006 0001 61"), "kind", 2);
    assert_value(rule("00 0006 0000"), "text_len", 0);
    assert_value(rule("01 0006 0000"), "text_len", 0);
    // A mark that there is not, one of the other kind, and pairs that exclude each other.
    for (kind, marks) in [(0, 0x4000), (1, 0x8000), (0, 0x0080), (1, 0x0040), (1, 0x0001), (1, 0x0180), (1, 0x0600)] {
        assert_value(rule(&format!("{kind:02x} {marks:04x} 0001 61")), "marks", marks);
    }
    assert_too_long(rule("00 0006 1001 61"), "text_len", 4097, 4095);
    assert_eq!(rule("00 0006 0002 61"), Err(WireError::Truncated));
    assert_too_long(decode("00 0000 00000000 0001 00"), "cursor_len", 1, 0);
    assert_value(decode("03 0000 00000000 0000"), "scope", 3);
    for path in ["2f61", "612f", "2e2e", "2e", "6100", "612f2f62", "612f2e2e"] {
        let result = decode(&format!("00 {:04x} {path} 00000000 0000", path.len() / 2));
        assert!(matches!(result, Err(WireError::Path(_))), "{path}: {result:?}");
    }
}

/// The payload of a raw batch with this body.
fn raw_batch(body: &[u8]) -> Vec<u8> {
    [&[0][..], &(body.len() as u32).to_be_bytes(), body].concat()
}

fn decode_body(text: &str) -> Result<OfferBatch, WireError> {
    OfferBatch::decode(&raw_batch(&hex(text)))
}

#[test]
fn a_batchs_counts_are_bounded() {
    let max = BATCH_ENTRIES_MAX as u64;
    let listing = "00 0000 0000 00";
    assert_too_long(decode_body("00010001"), "owner_count", max + 1, max);
    assert_too_long(decode_body("00000000 ffffffff"), "listing_count", u32::MAX.into(), max);
    assert_too_long(decode_body(&format!("00000000 00000001 {listing} 00010001")), "entry_count", max + 1, max);
    assert_too_long(
        decode_body(&format!("00000000 00000001 {listing} 00000000 ffffffff")),
        "entry_count",
        u32::MAX.into(),
        max,
    );
    for lying in ["00010000", "00000000 00010000"] {
        assert_eq!(decode_body(lying), Err(WireError::Truncated), "{lying}");
    }
}

#[test]
fn entries_are_counted_over_the_whole_batch() {
    let failure = "0161 0001";
    let first = format!("00 0000 0000 00 00000000 00008000 {}", failure.repeat(0x8000));
    let second = |count: usize| format!("00 0000 0000 00 00000000 {count:08x} {}", failure.repeat(count));
    assert!(decode_body(&format!("00000000 00000002 {first} {}", second(0x8000))).is_ok());
    let result = decode_body(&format!("00000000 00000002 {first} {}", second(0x8001)));
    assert_too_long(result, "entry_count", 0x8001, 0x8000);
}

#[test]
fn an_owner_is_checked() {
    let owner = |class: &str, name: &str| decode_body(&format!("00000001 {class} 00000001 {name} 00000000"));
    assert!(owner("00", "0001 61").is_ok());
    assert_value(owner("02", "0001 61"), "owner_class", 2);
    assert_value(owner("00", "0000"), "owner_name", 0);
    assert_value(owner("00", "0002 6100"), "owner_name", 0);
    let max = OWNER_NAME_BYTES_MAX as u64;
    assert_too_long(owner("01", "0101"), "owner_name_len", max + 1, max);
}

#[test]
fn a_listing_is_checked() {
    let listing = |text: &str| decode_body(&format!("00000000 00000001 {text} 00000000 00000000"));
    assert!(listing("03 0002 0000 00").is_ok());
    assert_value(listing("04 0000 0000 00"), "end", 4);
    assert_value(listing("03 0016 0000 00"), "status", 22);
    assert_value(listing("01 0000 0000 02"), "has_root", 2);
    assert_too_long(listing("01 0000 ffff 00"), "path_len", u16::MAX.into(), PATH_BYTES_MAX as u64);
    assert!(matches!(listing("01 0000 0002 2e2e 00"), Err(WireError::Path(_))));
}

#[test]
fn an_entry_is_checked() {
    let entry = |text: &str| decode_body(&format!("00000000 00000001 00 0000 0000 00 00000001 {text} 00000000"));
    let metadata = "01ed 00000001 00000001 0000000000000000 00000000";
    assert!(entry(&format!("02 01 61 {metadata}")).is_ok());
    assert_value(entry(&format!("08 01 61 {metadata}")), "entry_kind", 8);
    assert_value(entry("02 01 61 1000 00000001 00000001 0000000000000000 00000000"), "mode", 0x1000);
    assert_value(entry("02 01 61 01ed 00000001 00000001 0000000000000000 3b9aca00"), "mtime_nanos", 1_000_000_000);
    for kind in ["00", "01"] {
        assert_value(entry(&format!("{kind} 01 61 {metadata} 8000000000000000")), "file_size", 1 << 63);
    }
    assert_value(entry(&format!("03 01 61 {metadata} 0000")), "target", 0);
    assert_value(entry(&format!("03 01 61 {metadata} 0002 6100")), "target", 0);
    let max = LINK_TARGET_BYTES_MAX as u64;
    assert_too_long(entry(&format!("03 01 61 {metadata} 1001")), "target_len", max + 1, max);
    for name in ["00", "01 2e", "02 2e2e", "01 2f", "01 00", "03 612f62"] {
        let result = entry(&format!("02 {name} {metadata}"));
        assert!(matches!(result, Err(WireError::Path(_))), "{name}: {result:?}");
    }
}

#[test]
fn a_batch_must_have_the_length_that_it_says() {
    let max = BATCH_BYTES_MAX as u64;
    let decode = |text: &str| OfferBatch::decode(&hex(text));
    assert!(decode("00 00000008 0000000000000000").is_ok());
    assert_eq!(decode("00 00000009 0000000000000000"), Err(WireError::Truncated));
    assert_eq!(decode("00 00000007 0000000000000000"), Err(WireError::TrailingBytes(1)));
    for codec in ["00", "01"] {
        assert_too_long(decode(&format!("{codec} 00800001")), "raw_len", max + 1, max);
        assert_too_long(decode(&format!("{codec} ffffffff")), "raw_len", u32::MAX.into(), max);
    }
    assert_value(decode("02 00000000"), "codec", 2);
    for raw_len in ["00000007", "00000009", "00800000"] {
        let mut payload = OfferBatch::default().encode(BatchCodec::Zstd).expect("small");
        payload[1..5].copy_from_slice(&hex(raw_len));
        assert_eq!(OfferBatch::decode(&payload), Err(WireError::Compression), "{raw_len}");
    }
}

/// The most memory that this process has had, in KiB.
fn peak_kb() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("is there");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

/// 4 GiB of zeros in well under a frame: whoever decompresses it first and looks at it later holds it all.
#[test]
fn a_bomb_is_refused_before_it_is_held() {
    let mebibyte = zstd::bulk::compress(&vec![0; 1 << 20], 19).expect("compresses");
    for raw_len in [8u32, 1 << 20, BATCH_BYTES_MAX as u32] {
        let mut payload = vec![1];
        payload.extend_from_slice(&raw_len.to_be_bytes());
        payload.extend_from_slice(&mebibyte.repeat(4096));
        assert!(payload.len() < FRAME_PAYLOAD_BYTES_MAX);
        assert_eq!(OfferBatch::decode(&payload), Err(WireError::Compression));
    }
    assert!(peak_kb() < 1 << 20, "{} KiB were held", peak_kb());
}

#[test]
fn an_encoder_refuses_what_its_peer_would() {
    let max = BATCH_ENTRIES_MAX as u64;
    let listing = Listing {
        dir: RelPath::root(),
        root: None,
        entries: Vec::new(),
        failures: Vec::new(),
        end: ListingEnd::Complete,
    };
    let owner = |name: &[u8]| OwnerName { class: OwnerClass::User, id: 0, name: name.into() };
    let encode = |owners, listings| OfferBatch { owners, listings }.encode(BatchCodec::Zstd);
    assert!(encode(Vec::new(), vec![listing.clone(); BATCH_ENTRIES_MAX]).is_ok());
    assert_too_long(encode(Vec::new(), vec![listing; BATCH_ENTRIES_MAX + 1]), "listing_count", max + 1, max);
    assert_too_long(encode(vec![owner(b"a"); BATCH_ENTRIES_MAX + 1], Vec::new()), "owner_count", max + 1, max);
    assert_value(encode(vec![owner(b"")], Vec::new()), "owner_name", 0);
    let long = [b'a'; OWNER_NAME_BYTES_MAX + 1];
    assert_too_long(encode(vec![owner(&long)], Vec::new()), "owner_name_len", 257, 256);
}
