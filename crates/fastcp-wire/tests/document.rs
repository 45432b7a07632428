//! `docs/protocol.md` against the code: numbers, names, limits, sizes, and the session at its end.

use std::collections::BTreeMap;

use fastcp_model::rules::{Action, FilterRule, Pattern, Rule, Sides};
use fastcp_model::{
    CHUNK_KB_DEFAULT, CHUNK_KB_MAX, CHUNK_KB_MIN, Capabilities, EntryKind, NAME_BYTES_MAX, PATH_BYTES_MAX, RelPath,
    SpecialKind, Status,
};
use fastcp_wire::auth::{Auth, AuthReply};
use fastcp_wire::bundle::{BUNDLE_PIECES_BYTES_MAX, BundleRequest};
use fastcp_wire::drop::{DROP_HEADER_BYTES, DROP_REPLY_BYTES};
use fastcp_wire::filter_rules::Marks;
use fastcp_wire::frame::{FRAME_HEADER_BYTES, FRAME_SUM_BYTES, FrameHeader, FrameType, decode_payload};
use fastcp_wire::hello::{self, Attach, Failure, Hello, HelloReply, Lane, Role, Ticket};
use fastcp_wire::known::{BatchId, RECEIVER_FRAME_BYTES_MAX, encode_known};
use fastcp_wire::offer::{
    BatchCodec, ENTRY_FIXED_BYTES_MAX, OfferBatch, OfferEnd, OfferRequest, OwnerClass, OwnerName, Place, Scope,
};
use fastcp_wire::push::{PUSH_VERSION, Push, Setting};
use fastcp_wire::reply::{BodyKind, PIECE_HEADER_BYTES, PieceHeader, REPLY_BYTES, TRAILER_BYTES, Trailer};
use fastcp_wire::report::{Numbered, ReportEnd, ReportState, Told, ToldKind, Undeleted, decode_seen, encode_seen};
use fastcp_wire::request::{self, Ask, ExtendedRequest, REQUEST_HEADER_BYTES, Request, RequestHeader};
use fastcp_wire::session::{Opened, Opening, Purpose};
use fastcp_wire::signature::SIGNED_CHUNK_BYTES;
use fastcp_wire::{WireError, limits};

use hex::hex;

#[path = "support/hex.rs"]
mod hex;

const DOCUMENT: &str = include_str!("../../../docs/protocol.md");

/// The rows of the table beneath a heading, without its head.
#[track_caller]
fn table(heading: &str) -> Vec<Vec<&'static str>> {
    let mut lines = DOCUMENT.lines().skip_while(|line| line.trim_start_matches('#').trim() != heading).skip(1);
    let rows: Vec<_> = lines
        .by_ref()
        .take_while(|line| !line.starts_with('#'))
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .skip(2)
        .collect();
    assert!(!rows.is_empty(), "no table beneath {heading:?}");
    rows
}

/// A number in decimal or, after `0x`, in hex.
fn number(text: &str) -> u64 {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).expect("a hex number"),
        None => text.parse().expect("a number"),
    }
}

/// The first two columns of a table.
#[track_caller]
fn numbered(heading: &str) -> Vec<(u64, &'static str)> {
    table(heading).iter().map(|row| (number(row[0]), row[1])).collect()
}

/// `HelloReply` as `HELLO_REPLY`.
fn screaming(name: &str) -> String {
    let mut out = String::new();
    for (at, letter) in name.char_indices() {
        if at > 0 && letter.is_uppercase() {
            out.push('_');
        }
        out.push(letter.to_ascii_uppercase());
    }
    out
}

#[test]
fn statuses() {
    let documented: Vec<_> =
        table("Statuses").iter().map(|row| (number(row[0]), row[1].to_owned(), row[2].to_owned())).collect();
    let coded: Vec<_> =
        Status::all().map(|status| (status.code().into(), format!("{status:?}"), status.to_string())).collect();
    assert_eq!(documented, coded);
}

#[test]
fn frame_types() {
    let documented: Vec<_> =
        numbered("Frame types").into_iter().map(|(number, name)| (number, name.to_owned())).collect();
    let coded: Vec<_> = (0..=u16::MAX)
        .filter_map(|code| Some((code.into(), screaming(&format!("{:?}", FrameType::from_code(code).ok()?)))))
        .collect();
    assert_eq!(documented, coded);
}

#[test]
fn capability_bits() {
    let coded: Vec<_> = Capabilities::all().iter_names().map(|(name, bit)| (bit.bits().into(), name)).collect();
    assert_eq!(numbered("Capability bits"), coded);
}

#[test]
fn rule_marks() {
    let coded: Vec<_> = Marks::all().iter_names().map(|(name, mark)| (mark.bits().into(), name)).collect();
    assert_eq!(numbered("Rule marks"), coded);
}

#[test]
fn request_flags() {
    let coded = [
        (request::FLAG_WANT_CRC, "WANT_CRC"),
        (request::FLAG_RANGE, "RANGE"),
        (request::FLAG_ACCEPT_ZSTD, "ACCEPT_ZSTD"),
        (request::FLAG_CONFIRM, "CONFIRM"),
        (request::FLAG_BUNDLE, "BUNDLE"),
        (request::FLAG_SIGNATURE, "SIGNATURE"),
        (request::FLAG_FINE, "FINE"),
        (request::FLAG_HASH, "HASH"),
        (request::FLAG_ANEW, "ANEW"),
    ];
    assert_eq!(numbered("Request flags"), coded.map(|(bit, name)| (bit.into(), name)));
}

#[test]
fn body_kinds() {
    let kinds = [
        BodyKind::Raw,
        BodyKind::Zstd,
        BodyKind::Hole,
        BodyKind::Bundle,
        BodyKind::Signature,
        BodyKind::Hash,
        BodyKind::Progress,
    ];
    let coded = kinds.map(|kind| (kind as u64, format!("{kind:?}")));
    let documented: Vec<_> =
        numbered("Body kinds").into_iter().map(|(number, name)| (number, name.to_owned())).collect();
    assert_eq!(documented, coded);
}

#[test]
fn entry_kinds() {
    for (code, row) in (0u8..).zip(table("Entry kinds")) {
        assert_eq!(number(row[0]), code.into());
        let extra = match row[2].split([' ', ':']).next() {
            Some("8") => hex("0000000000000005"),
            Some("a") => hex("0001 61"),
            Some("nothing") => Vec::new(),
            other => panic!("extra of {other:?}"),
        };
        let head = hex("00000000 00000001 00 0000 0000 00 00000001");
        let entry = [&[code, 1, b'a'][..], &[0; 22], &extra, &[0; 4]].concat();
        let raw = [head, entry].concat();
        let batch = OfferBatch::decode(&[&[0][..], &(raw.len() as u32).to_be_bytes(), &raw].concat());
        let kind = format!("{:?}", batch.expect(row[1]).listings[0].entries[0].kind).to_lowercase();
        let word = match row[1] {
            "file" => "sparse: false",
            "sparse file" => "sparse: true",
            "directory" => "dir",
            "symbolic link" => "symlink",
            "named pipe" => "fifo",
            "socket" => "socket",
            "character device" => "chardevice",
            "block device" => "blockdevice",
            other => panic!("{other}"),
        };
        assert!(kind.contains(word), "{} is {kind}", row[1]);
    }
    assert_eq!(table("Entry kinds").len(), 8);
}

/// One event of each kind, by the name that the document has for it. What is variable in them is empty.
fn events() -> [(&'static str, Told); 7] {
    let path = RelPath::root;
    let target = ToldKind::Link(Vec::new());
    let failed = Told::Failed { path: path(), is_moving_source: false, kind: String::new(), text: String::new() };
    [
        ("failed", failed),
        ("skipped", Told::Skipped { path: path(), kind: SpecialKind::Fifo }),
        ("item", Told::Item { change: *b">f+++++++++", path: path(), kind: target }),
        ("not deleting", Told::NotDeleting(Undeleted::Entries { entries: 0, max: 0 })),
        ("limited", Told::Limited { resource: 0, max: 0, connections: 0 }),
        ("recorded", Told::Recorded(Vec::new())),
        ("committed", Told::Committed { path: path(), bytes: 0 }),
    ]
}

/// The bytes of an event of this kind, and those before its body.
fn event_bytes(wanted: &str) -> Vec<u8> {
    let (_, event) = events().into_iter().find(|(name, _)| *name == wanted).expect("an event");
    Numbered { number: 1, event }.encode()
}

#[test]
fn event_kinds() {
    let coded = events().map(|(name, _)| (u64::from(event_bytes(name)[8]), name));
    assert_eq!(numbered("Event kinds"), coded);
    let beyond = [&1u64.to_be_bytes()[..], &[7], &[0; 40]].concat();
    assert_eq!(Numbered::decode(&beyond), Err(WireError::Value { field: "event", value: 7 }));
}

#[test]
fn the_names_of_settings_are_lawful() {
    let settings: Vec<_> = table("Settings").iter().map(|row| Setting::new(row[0], "")).collect();
    let offer = Place { path: RelPath::root(), scope: Scope::Contents };
    let push = Push { offer, into: RelPath::root(), new_name: None, settings, rules: Vec::new() };
    assert_eq!(push.encode().and_then(|payload| Push::decode(&payload)), Ok(push));
}

#[test]
fn limits_table() {
    let documented: BTreeMap<_, _> = table("Limits").iter().map(|row| (row[0], number(row[1]))).collect();
    let coded = BTreeMap::from([
        ("VERSION", hello::VERSION.into()),
        ("PUSH_VERSION", PUSH_VERSION.into()),
        ("REQUEST_PATH_BYTES_MAX", limits::REQUEST_PATH_BYTES_MAX as u64),
        ("RANGE_BYTES_MAX", limits::RANGE_BYTES_MAX),
        ("ZSTD_RANGE_BYTES_MAX", limits::ZSTD_RANGE_BYTES_MAX),
        ("FILE_BYTES_MAX", limits::FILE_BYTES_MAX),
        ("BUNDLE_FILES_MAX", limits::BUNDLE_FILES_MAX as u64),
        ("BUNDLE_LIST_BYTES_MAX", limits::BUNDLE_LIST_BYTES_MAX as u64),
        ("BUNDLE_BYTES_MAX", limits::BUNDLE_BYTES_MAX),
        ("BUNDLE_PIECES_BYTES_MAX", BUNDLE_PIECES_BYTES_MAX),
        ("SIGNATURE_BYTES_MAX", limits::SIGNATURE_BYTES_MAX),
        ("SIGNATURE_CHUNK_BYTES_MIN", limits::SIGNATURE_CHUNK_BYTES_MIN),
        ("SIGNATURE_CANDIDATE_EVERY", limits::SIGNATURE_CANDIDATE_EVERY),
        ("SIGNATURE_CHUNK_BYTES_MAX", limits::SIGNATURE_CHUNK_BYTES_MAX),
        ("FINE_SIGNATURE_BYTES_MAX", limits::FINE_SIGNATURE_BYTES_MAX),
        ("FINE_CHUNK_BYTES_MIN", limits::FINE_CHUNK_BYTES_MIN),
        ("FINE_CANDIDATE_EVERY", limits::FINE_CANDIDATE_EVERY),
        ("FINE_CHUNK_BYTES_MAX", limits::FINE_CHUNK_BYTES_MAX),
        ("HASH_BYTES_MAX", limits::HASH_BYTES_MAX),
        ("PROGRESS_BYTES_MIN", limits::PROGRESS_BYTES_MIN),
        ("FRAME_PAYLOAD_BYTES_MAX", limits::FRAME_PAYLOAD_BYTES_MAX as u64),
        ("RECEIVER_FRAME_BYTES_MAX", RECEIVER_FRAME_BYTES_MAX as u64),
        ("BATCH_BYTES_MAX", limits::BATCH_BYTES_MAX as u64),
        ("BATCH_ENTRIES_MAX", limits::BATCH_ENTRIES_MAX as u64),
        ("KNOWN_BATCHES_MAX", limits::KNOWN_BATCHES_MAX as u64),
        ("RULES_BYTES_MAX", limits::RULES_BYTES_MAX as u64),
        ("UNLISTED_BYTES_MAX", limits::UNLISTED_BYTES_MAX as u64),
        ("UNLISTED_DIR_BYTES", limits::UNLISTED_DIR_BYTES as u64),
        ("LINK_TARGET_BYTES_MAX", limits::LINK_TARGET_BYTES_MAX as u64),
        ("OWNER_NAME_BYTES_MAX", limits::OWNER_NAME_BYTES_MAX as u64),
        ("DROP_NAME_BYTES_MAX", limits::DROP_NAME_BYTES_MAX as u64),
        ("PLACES_MAX", limits::PLACES_MAX as u64),
        ("HELLO_BYTES_MAX", limits::HELLO_BYTES_MAX as u64),
        ("AUTH_PAYLOAD_BYTES_MAX", limits::AUTH_PAYLOAD_BYTES_MAX as u64),
        ("SESSION_PATH_BYTES_MAX", limits::SESSION_PATH_BYTES_MAX as u64),
        ("SESSION_ADDRESS_BYTES_MAX", limits::SESSION_ADDRESS_BYTES_MAX as u64),
        ("SESSION_TOKEN_BYTES_MAX", limits::SESSION_TOKEN_BYTES_MAX as u64),
        ("SESSION_BYTES_MAX", limits::SESSION_BYTES_MAX as u64),
        ("PUSH_BYTES_MAX", limits::PUSH_BYTES_MAX as u64),
        ("PUSH_SETTINGS_MAX", limits::PUSH_SETTINGS_MAX as u64),
        ("SETTING_NAME_BYTES_MAX", limits::SETTING_NAME_BYTES_MAX as u64),
        ("SETTING_VALUE_BYTES_MAX", limits::SETTING_VALUE_BYTES_MAX as u64),
        ("EVENT_NUMBER_MAX", limits::EVENT_NUMBER_MAX),
        ("EVENT_PATH_BYTES_MAX", limits::EVENT_PATH_BYTES_MAX as u64),
        ("CAUSE_BYTES_MAX", limits::CAUSE_BYTES_MAX as u64),
        ("REPORT_TEXT_BYTES_MAX", limits::REPORT_TEXT_BYTES_MAX as u64),
        ("RECORD_BYTES_MAX", limits::RECORD_BYTES_MAX as u64),
        ("REPORT_COUNTER_MAX", limits::REPORT_COUNTER_MAX),
        ("REPORT_COUNTERS_MAX", limits::REPORT_COUNTERS_MAX as u64),
        ("CONNECTIONS_MAX", limits::CONNECTIONS_MAX.into()),
        ("PATH_BYTES_MAX", PATH_BYTES_MAX as u64),
        ("NAME_BYTES_MAX", NAME_BYTES_MAX as u64),
        ("CHUNK_KB_MIN", CHUNK_KB_MIN.into()),
        ("CHUNK_KB_MAX", CHUNK_KB_MAX.into()),
        ("CHUNK_KB_DEFAULT", CHUNK_KB_DEFAULT.into()),
    ]);
    assert_eq!(documented, coded);
}

/// A constant added to the code and to neither the document nor the list above is found here.
#[test]
fn no_limit_is_left_out() {
    let source = include_str!("../src/limits.rs");
    let names: Vec<_> = source
        .lines()
        .filter_map(|line| line.strip_prefix("pub const "))
        .map(|line| line.split(':').next().unwrap_or_default())
        .collect();
    assert!(names.len() >= 9);
    let documented: Vec<_> = table("Limits").iter().map(|row| row[0]).collect();
    for name in names {
        assert!(documented.contains(&name), "{name} is not in the table of limits");
    }
}

#[test]
fn every_limit_that_is_named_is_in_the_table() {
    let names: Vec<_> = table("Limits").iter().map(|row| row[0]).collect();
    let quoted = DOCUMENT.split('`').skip(1).step_by(2);
    for name in quoted.filter(|text| text.ends_with("_MAX") || text.ends_with("_MIN") || text.ends_with("_DEFAULT")) {
        assert!(names.contains(&name), "{name} is not in the table of limits");
    }
}

/// The headings of the tables of fields, and the bytes of their fixed parts.
fn layouts() -> BTreeMap<&'static str, u64> {
    let mut heading = "";
    let mut layouts = BTreeMap::new();
    for line in DOCUMENT.lines() {
        if line.starts_with('#') {
            heading = line.trim_start_matches('#').trim();
        } else if line.starts_with("| offset |") {
            layouts.insert(heading, fixed_bytes(heading));
        }
    }
    layouts
}

/// The sum of a table's fixed parts. Each offset must be the sum so far, with `+n` after a variable part.
fn fixed_bytes(heading: &str) -> u64 {
    let (mut sum, mut variable) = (0, false);
    for row in table(heading) {
        assert_eq!(row.len(), 5, "{heading}: {row:?}");
        let want = if variable { format!("{sum}+n") } else { sum.to_string() };
        assert_eq!(row[0], want, "{heading}: offset of {}", row[2]);
        match row[1] {
            "+n" => variable = true,
            bytes => sum += number(bytes),
        }
    }
    sum
}

#[test]
fn fixed_sizes() {
    let ticket = Ticket([0; 16]);
    let hello =
        Hello { version: 1, role: Role::Sender, capability_bits: 0, connections: 1, chunk_kb: 0, places: Vec::new() };
    let reply = HelloReply { version: 1, capability_bits: 0, connections: 1, chunk_kb: 4, ticket };
    let request = Place { path: RelPath::root(), scope: Scope::Contents };
    let failure_frame = Failure { status: Status::Busy, detail: "a".to_owned() };
    let push = |settings| {
        let push = Push { offer: request.clone(), into: RelPath::root(), new_name: None, settings, rules: Vec::new() };
        push.encode().expect("within the limits").len()
    };
    let setting = push(vec![Setting::new("", "")]) - push(Vec::new());
    let event = event_bytes("recorded").len() - 2;
    let body = |name| event_bytes(name).len() - event;
    let state = ReportState { called: 0, is_scan_done: false, counters: Vec::new() };
    let end = ReportEnd { events: 0, outcome: 0, text: String::new(), limit: 0 };
    let empty_batch = batch_bytes("00000000", "00000000");
    let owner = batch_bytes("00000001 00 00000000 0001 61", "00000000") - empty_batch - 1;
    let listing = batch_bytes("00000000", "00000001 00 0000 0000 00 00000000 00000000") - empty_batch;
    let metadata = batch_bytes("00000000", &format!("00000001 00 0000 0000 01 {:044x} 00000000 00000000", 0));
    let entry = batch_bytes("00000000", &format!("00000001 00 0000 0000 00 00000001 02 01 61 {:044x} 00000000", 0));
    let failure = batch_bytes("00000000", "00000001 00 0000 0000 00 00000000 00000001 01 61 0001");
    let with_places = |count| {
        let places = vec![request.clone(); count];
        Hello { role: Role::Receiver, places, ..hello.clone() }.encode().len()
    };
    let place = with_places(2) - with_places(1);
    let pattern = || Pattern::new(b"a").expect("lawful");
    let rule = || {
        FilterRule::Rule(Rule {
            action: Action::Exclude,
            pattern: pattern(),
            sides: Sides::all(),
            is_perishable: false,
            is_about_attributes: false,
        })
    };
    let with_rules = |count| {
        let rules = std::iter::repeat_with(rule).take(count).collect();
        OfferRequest { place: request.clone(), rules }.encode().expect("within the limits").len()
    };
    let coded = BTreeMap::from([
        ("AUTH", Auth { run: [0; 16], proof: [0; 32] }.encode().len()),
        ("AUTH_REPLY", AuthReply { proof: [0; 32] }.encode().len()),
        ("SESSION_OPEN", Opening { purpose: Purpose::Pull, path: Vec::new() }.encode().len()),
        ("SESSION_OPENED", Opened { into: Vec::new(), direct: None }.encode().len()),
        ("FTQ1 request", REQUEST_HEADER_BYTES),
        ("FTQ1 request, extended", REQUEST_HEADER_BYTES + extension_bytes()),
        ("FTQ1 request for a bundle", REQUEST_HEADER_BYTES + extension_bytes()),
        ("Bundled file", BundleRequest::listed_bytes(b"")),
        ("Bundle header", PIECE_HEADER_BYTES),
        ("Progress header", PIECE_HEADER_BYTES),
        ("FTR1 reply", REPLY_BYTES),
        ("Piece header", PIECE_HEADER_BYTES),
        ("Piece trailer", TRAILER_BYTES),
        ("Signed chunk", SIGNED_CHUNK_BYTES),
        ("Drop", DROP_HEADER_BYTES),
        ("DROP_REPLY", DROP_REPLY_BYTES),
        ("Frame", FRAME_HEADER_BYTES + FRAME_SUM_BYTES),
        ("HELLO", hello.encode().len()),
        ("Place", place),
        ("HELLO_REPLY", reply.encode().len()),
        ("ATTACH", Attach { ticket, lane: Lane::Report { seen: 0 } }.encode().len()),
        ("FAILURE", failure_frame.encode().len() - 1),
        ("PUSH", push(Vec::new())),
        ("Setting", setting),
        ("OFFER_REQUEST", with_rules(0)),
        ("Filter rule", with_rules(1) - with_rules(0) - 1),
        ("OFFER_KNOWN", encode_known(&[]).len()),
        ("OFFER_SAME", BatchId([0; 20]).encode().len()),
        ("OFFER_BATCH", OfferBatch::default().encode(BatchCodec::Raw).expect("small").len() - empty_batch),
        ("OFFER_BATCH body", empty_batch),
        ("Owner", owner),
        ("Listing", listing),
        ("Metadata", metadata - empty_batch - listing),
        ("Entry", entry - empty_batch - listing - 1),
        ("Entry failure", failure - empty_batch - listing - 1),
        ("OFFER_END", OfferEnd { entries: 0, failures: 0 }.encode().len()),
        ("REPORT_EVENT", event),
        ("Failed entry", body("failed")),
        ("Skipped entry", body("skipped")),
        ("Changed entry", body("item")),
        ("Deletion refused", body("not deleting")),
        ("Resource limit", body("limited")),
        ("Manifest record", body("recorded")),
        ("Committed file", body("committed")),
        ("REPORT_STATE", state.encode().len()),
        ("REPORT_END", end.encode().len()),
        ("REPORT_SEEN", encode_seen(0).len()),
    ]);
    let coded: BTreeMap<_, _> = coded.into_iter().map(|(heading, bytes)| (heading, bytes as u64)).collect();
    assert_eq!(layouts(), coded);
}

#[test]
fn the_bound_on_an_entry_holds() {
    let longest_extra = 8;
    assert!(layouts()["Entry"] + longest_extra <= ENTRY_FIXED_BYTES_MAX as u64);
}

/// What the flag RANGE adds to a request.
fn extension_bytes() -> usize {
    let rest_bytes = |flags: u16| {
        let header = hex(&format!("46545131 0001 {flags:04x} 0000000000000000"));
        RequestHeader::decode(header[..].try_into().expect("16 bytes")).expect("lawful").rest_bytes()
    };
    rest_bytes(request::FLAG_RANGE) - rest_bytes(0)
}

/// The length of a batch that consists of these owners and listings, if the code takes it for one.
#[track_caller]
fn batch_bytes(owners: &str, listings: &str) -> usize {
    let raw = hex(&format!("{owners} {listings}"));
    OfferBatch::decode(&[&[0][..], &(raw.len() as u32).to_be_bytes(), &raw].concat()).expect("lawful");
    raw.len()
}

#[test]
fn first_bytes() {
    let documented: Vec<_> = table("First bytes").iter().map(|row| hex(row[0].trim_matches('`'))).collect();
    let coded = [
        request::REQUEST_MAGIC.to_be_bytes().to_vec(),
        (FrameType::Hello as u16).to_be_bytes().to_vec(),
        (FrameType::Attach as u16).to_be_bytes().to_vec(),
        vec![0, 0],
        // A handshake of TLS 1.3 calls itself 3.1 or 3.3.
        vec![0x16, 3],
    ];
    assert_eq!(documented, coded);
}

/// The messages of the worked session: title and bytes.
fn session() -> Vec<(&'static str, Vec<u8>)> {
    worked(1)
}

/// The messages of the worked session in that place.
fn worked(nth: usize) -> Vec<(&'static str, Vec<u8>)> {
    let text = DOCUMENT.split("```text\n").nth(nth).and_then(|text| text.split("```").next()).expect("a session");
    text.split("== ")
        .skip(1)
        .map(|message| {
            let (title, bytes) = message.split_once('\n').expect("a title and bytes");
            (title, hex(bytes))
        })
        .collect()
}

/// The payload of a frame of the session.
fn payload(bytes: &[u8], wanted: FrameType) -> Result<Vec<u8>, WireError> {
    let (header, rest) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>().ok_or(WireError::Truncated)?;
    assert_eq!(FrameHeader::decode(header)?.frame_type, wanted);
    Ok(decode_payload(header, rest)?.to_vec())
}

fn request(bytes: &[u8]) -> Result<Request, WireError> {
    let (header, rest) = bytes.split_first_chunk::<REQUEST_HEADER_BYTES>().ok_or(WireError::Truncated)?;
    Request::decode(header, RequestHeader::decode(header)?, rest)
}

fn piece(bytes: &[u8]) -> Result<PieceHeader, WireError> {
    PieceHeader::decode(bytes.try_into().expect("48 bytes"))
}

#[test]
fn the_sessions_handshake_is_what_the_code_speaks() -> Result<(), WireError> {
    let session = session();
    assert_eq!(session.len(), 13);
    let titles: Vec<_> = session.iter().map(|(title, _)| title.split(": ").nth(1).unwrap_or_default()).collect();
    assert_eq!(titles[..4], ["HELLO", "HELLO_REPLY", "ATTACH", "ATTACH_REPLY"]);
    let hello = Hello::decode(&payload(&session[0].1, FrameType::Hello)?)?;
    let reply = HelloReply::decode(&payload(&session[1].1, FrameType::HelloReply)?)?;
    assert_eq!((hello.version, hello.role, hello.chunk_kb), (hello::VERSION, Role::Receiver, 0));
    assert_eq!((reply.version, reply.chunk_kb), (hello::VERSION, CHUNK_KB_DEFAULT));
    let (own, _) = Capabilities::from_peer(hello.capability_bits);
    let (peer, unknown) = Capabilities::from_peer(reply.capability_bits);
    assert_eq!((own & peer, unknown), (Capabilities::RESUME | Capabilities::PIPELINE_SYNC, 0));
    let attach = Attach::decode(&payload(&session[2].1, FrameType::Attach)?)?;
    assert_eq!(attach, Attach { ticket: reply.ticket, lane: Lane::Data });
    assert_eq!(payload(&session[3].1, FrameType::AttachReply)?, b"");
    Ok(())
}

#[test]
fn the_sessions_offer_is_what_the_code_speaks() -> Result<(), WireError> {
    let session = session();
    let request = OfferRequest::decode(&payload(&session[4].1, FrameType::OfferRequest)?)?;
    assert_eq!(request.place, Place { path: RelPath::root(), scope: Scope::Contents });
    let batch_payload = payload(&session[5].1, FrameType::OfferBatch)?;
    let batch = OfferBatch::decode(&batch_payload)?;
    assert_eq!(batch.encode(BatchCodec::Raw)?, batch_payload);
    assert_eq!(batch.owners, [OwnerName { class: OwnerClass::User, id: 1000, name: (*b"ana").into() }]);
    let entry = &batch.listings[0].entries[0];
    assert_eq!(entry.name.as_bytes(), b"hi");
    assert_eq!(entry.kind, EntryKind::File { size_bytes: 6, sparse: false });
    assert_eq!(entry.metadata.mtime.wire_ns(), piece(&session[8].1)?.reply.mtime_ns);
    let end = OfferEnd::decode(&payload(&session[6].1, FrameType::OfferEnd)?)?;
    assert_eq!(end, OfferEnd { entries: 2, failures: 0 });
    Ok(())
}

#[test]
fn the_sessions_ranges_are_what_the_code_speaks() -> Result<(), WireError> {
    let session = session();
    let asked = |at: usize, ask: Ask| {
        let Ok(Request::Extended(ExtendedRequest::Range(request))) = request(&session[at].1) else {
            panic!("message {at} is no range request")
        };
        assert_eq!((&request.path[..], request.range.start(), request.range.len()), (&b"hi"[..], 0, 6));
        assert_eq!(request.ask, ask);
        request.id
    };
    let (header, body) = (piece(&session[8].1)?, &session[9].1);
    assert_eq!(header.id, asked(7, Ask::Bytes));
    assert_eq!(header.body_bytes as usize, body.len());
    let trailer = Trailer::decode(session[10].1[..].try_into().expect("6 bytes"))?;
    assert_eq!(trailer, Trailer { crc32: crc32fast::hash(body), status: Status::Ok });
    let confirmation = piece(&session[12].1)?;
    assert_eq!(confirmation.id, asked(11, Ask::Confirm));
    assert_eq!((confirmation.reply.crc32, confirmation.body_bytes), (trailer.crc32, 0));
    Ok(())
}

#[test]
fn the_worked_push_is_what_the_code_speaks() -> Result<(), WireError> {
    let session = worked(2);
    assert_eq!(session.len(), 9);
    let hello = Hello::decode(&payload(&session[0].1, FrameType::Hello)?)?;
    assert_eq!(hello.role, Role::Sender);
    let push = Push::decode(&payload(&session[1].1, FrameType::Push)?)?;
    let settings = vec![Setting::new("itemize-changes", ""), Setting::new("retry", 60)];
    let offer = Place { path: RelPath::root(), scope: Scope::Contents };
    assert_eq!(push, Push { offer, into: RelPath::new(b"new")?, new_name: None, settings, rules: Vec::new() });
    let reply = HelloReply::decode(&payload(&session[2].1, FrameType::HelloReply)?)?;
    let attach = Attach::decode(&payload(&session[3].1, FrameType::Attach)?)?;
    assert_eq!(attach, Attach { ticket: reply.ticket, lane: Lane::Report { seen: 0 } });
    assert_eq!(payload(&session[4].1, FrameType::AttachReply)?, b"");
    let event = Numbered::decode(&payload(&session[5].1, FrameType::ReportEvent)?)?;
    let item = Told::Item { change: *b">f+++++++++", path: RelPath::new(b"hi")?, kind: ToldKind::Other };
    assert_eq!(event, Numbered { number: 1, event: item });
    let state = ReportState::decode(&payload(&session[6].1, FrameType::ReportState)?)?;
    assert_eq!((state.called, state.is_scan_done), (1, true));
    assert_eq!(state.counters.len(), table("Counters").len());
    let end = ReportEnd::decode(&payload(&session[7].1, FrameType::ReportEnd)?)?;
    assert_eq!(end, ReportEnd { events: event.number, outcome: 0, text: String::new(), limit: 0 });
    assert_eq!(decode_seen(&payload(&session[8].1, FrameType::ReportSeen)?)?, end.events + 1);
    Ok(())
}
