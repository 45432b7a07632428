//! A server that says what it likes, to a receiver that dials it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fastcp_model::{
    Entry, EntryFailure, EntryKind, Listing, ListingEnd, Metadata, Name, RelPath, SpecialKind, Status, Timestamp,
};
use fastcp_net::{Connection, Dialer, Endpoint, Incoming, NetError};
use fastcp_wire::frame::{FrameType, encode_frame};
use fastcp_wire::hello::{HelloReply, Ticket, VERSION};
use fastcp_wire::offer::{BatchCodec, OfferBatch, OfferEnd};
use fastcp_wire::reply::{BodyKind, PieceHeader, Reply, Trailer};
use fastcp_wire::request::{ExtendedRequest, REQUEST_HEADER_BYTES, RangeRequest, Request, RequestHeader};

use super::{ACTS_MAX, END_MAX, Script, World, pattern};
use crate::settings::{
    Connections, Deletion, Delta, Durability, EmptySource, LinkSettings, Placement, ReceiverSettings,
};
use crate::{Pull, Report};

/// The time of everything that is offered.
const MTIME_SECS: i64 = 1_000_000;
/// Bodies that are made are no longer.
const BODY_BYTES_MAX: u64 = 1 << 17;

/// A receiver, and a server that does what the script says.
///
/// # Panics
/// Where something outside the destination is changed.
pub fn receiver(dir: &Path, bytes: &[u8]) {
    let world = World::new(dir);
    let mut script = Script::new(bytes);
    let settings = receiver_settings(&mut script);
    let offer_bytes = usize::from(u16::from_be_bytes(script.fixed()));
    let offer = script.split_off(offer_bytes);
    let saying = Arc::new(Saying { offer: offer.into(), answers: script.into(), sizes: Mutex::default() });
    let hear = move |incoming: Incoming| {
        let saying = Arc::clone(&saying);
        // Whatever the receiver does to it, it goes on until the script ends.
        std::thread::spawn(move || drop(saying.speak(incoming)));
        Ok(())
    };
    let (events, told) = sync_channel(64);
    let report = Report::new(events);
    std::thread::spawn(move || told.iter().for_each(drop));
    let dialer = Dialer::new(Endpoint::Embedded(Arc::new(hear)), Arc::clone(&report.wire));
    let link = LinkSettings { connections: Connections::Fixed(2), retry: Duration::ZERO, ..LinkSettings::default() };
    // How it ends is the script's doing.
    let _ = Pull::new(&dialer, &world.tree).receiver(settings).link(link).run(&report);
    world.expect_untouched();
}

fn receiver_settings(script: &mut Script) -> ReceiverSettings {
    let choices = script.byte();
    let is_chosen = |bit: u8| choices >> bit & 1 == 1;
    ReceiverSettings {
        durability: Durability::None,
        delta: if is_chosen(0) { Delta::Unused } else { Delta::Used },
        placement: if is_chosen(1) { Placement::InPlace } else { Placement::PartFile },
        deletion: is_chosen(2).then_some(Deletion { max: None, empty_source: EmptySource::Deletes }),
        backup_dir: is_chosen(3).then(|| "kept".into()),
        ..ReceiverSettings::default()
    }
}

/// What the server says, whoever of its threads is next.
struct Saying {
    offer: Mutex<Script>,
    answers: Mutex<Script>,
    /// The files that were offered.
    sizes: Mutex<HashMap<Vec<u8>, u64>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Saying {
    fn speak(&self, incoming: Incoming) -> Result<(), NetError> {
        let connection = Connection::accept(incoming)?;
        connection.set_timeouts(Some(END_MAX), Some(END_MAX))?;
        let said = match connection.read_frame_by(Instant::now() + END_MAX)? {
            (FrameType::Hello, _) => self.offer_on(&connection),
            (FrameType::Attach, _) => self.answer_on(&connection),
            _ => Ok(()),
        };
        connection.hang_up();
        said
    }

    fn offer_on(&self, connection: &Connection) -> Result<(), NetError> {
        let reply = {
            let mut script = lock(&self.offer);
            let capability_bits = u32::from(script.byte()) | u32::from(script.byte()) << 8;
            let connections = u16::from(script.byte());
            HelloReply { version: VERSION, capability_bits, connections, chunk_kb: 64, ticket: Ticket([7; 16]) }
        };
        connection.write_frame(FrameType::HelloReply, &reply.encode())?;
        loop {
            let (asked, _) = connection.read_frame()?;
            if asked == FrameType::OfferRequest && !self.offer_once(connection)? {
                return Ok(());
            }
        }
    }

    /// Makes one offer; answers whether there can be another.
    fn offer_once(&self, connection: &Connection) -> Result<bool, NetError> {
        let (mut entries, mut failures) = (1, 0);
        for _ in 0..ACTS_MAX {
            let mut script = lock(&self.offer);
            if script.is_over() {
                return Ok(false);
            }
            let frame = match script.below(6) {
                0..=2 => {
                    let mut count = |path: Vec<u8>, size: Option<u64>| {
                        entries += 1;
                        if let Some(size) = size {
                            lock(&self.sizes).insert(path, size);
                        }
                    };
                    listings(&mut script, &mut count).map(|payload| encode_frame(FrameType::OfferBatch, &payload))
                }
                3 => {
                    failures = script.byte().into();
                    let end = OfferEnd { entries, failures };
                    drop(script);
                    connection.write_frame(FrameType::OfferEnd, &end.encode())?;
                    return Ok(true);
                }
                4 => {
                    let frame_type = FrameType::from_code((script.byte() % 0x16).into());
                    frame_type.ok().map(|frame_type| encode_frame(frame_type, &script.bytes()))
                }
                _ => Some(Ok(script.bytes())),
            };
            drop(script);
            if let Some(Ok(frame)) = frame {
                connection.write_all(&frame)?;
            }
        }
        Ok(failures > 0)
    }

    fn answer_on(&self, connection: &Connection) -> Result<(), NetError> {
        connection.write_frame(FrameType::AttachReply, &[])?;
        for _ in 0..ACTS_MAX {
            let mut header = [0; REQUEST_HEADER_BYTES];
            connection.read_exact(&mut header)?;
            let decoded = RequestHeader::decode(&header).expect("a lawful request");
            let mut rest = vec![0; decoded.rest_bytes()];
            connection.read_exact(&mut rest)?;
            let answer = match Request::decode(&header, decoded, &rest).expect("a lawful request") {
                Request::Plain(_) => panic!("a plain request in a session"),
                Request::Extended(ExtendedRequest::Range(request)) => self.answer(&request),
                Request::Extended(ExtendedRequest::Bundle(bundle)) => {
                    let mut script = lock(&self.answers);
                    Some(bundle.files.iter().flat_map(|_| piece(&mut script, bundle.id)).collect())
                }
            };
            match answer {
                Some(answer) => connection.write_all(&answer)?,
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// The truth, as far as the script has it; none where it wants the connection to end.
    fn answer(&self, request: &RangeRequest) -> Option<Vec<u8>> {
        let mut script = lock(&self.answers);
        let act = script.below(8);
        match act {
            0..=3 => {
                let size = lock(&self.sizes).get(&*request.path).copied().unwrap_or_default();
                Some(truth(request, size, act == 3))
            }
            4 => Some(piece(&mut script, request.id)),
            5 => Some(script.bytes()),
            6 => {
                let status = Status::from_code((script.byte() % 24).into()).unwrap_or(Status::NotFound);
                let header = PieceHeader { reply: Reply::failed(status), ..header(request.id, BodyKind::Raw, 0) };
                Some(header.encode().to_vec())
            }
            _ => None,
        }
    }
}

fn header(id: u32, kind: BodyKind, body_bytes: u32) -> PieceHeader {
    PieceHeader { reply: Reply { status: Status::Ok, file_bytes: 0, mtime_ns: 0, crc32: 0 }, id, kind, body_bytes }
}

fn mtime() -> Timestamp {
    Timestamp::new(MTIME_SECS, 0).expect("lawful")
}

/// What an honest server answers; with one wrong byte, if that is wanted.
fn truth(request: &RangeRequest, size: u64, is_wrong: bool) -> Vec<u8> {
    let len = request.range.len().min(BODY_BYTES_MAX);
    let mut body = pattern(request.range.start(), len as usize);
    let crc32 = crc32fast::hash(&body);
    if let Some(byte) = body.first_mut().filter(|_| is_wrong) {
        *byte ^= 1;
    }
    let reply = Reply { status: Status::Ok, file_bytes: size, mtime_ns: mtime().wire_ns(), crc32: 0 };
    if request.ask.is_confirmation() {
        let reply = Reply { crc32, ..reply };
        return PieceHeader { reply, ..header(request.id, BodyKind::Raw, 0) }.encode().to_vec();
    }
    let header = PieceHeader { reply, ..header(request.id, BodyKind::Raw, body.len() as u32) };
    [&header.encode()[..], &body, &Trailer { crc32, status: Status::Ok }.encode()].concat()
}

/// Any piece whose sums are right.
pub(super) fn piece(script: &mut Script, id: u32) -> Vec<u8> {
    let kind = BodyKind::ALL[script.below(BodyKind::ALL.len())];
    let reply = Reply {
        status: Status::Ok,
        file_bytes: script.number(),
        mtime_ns: if script.is_set() { script.number() } else { mtime().wire_ns() },
        crc32: u32::from_be_bytes(script.fixed()),
    };
    let body = match script.below(4) {
        0 => pattern(0, script.number().min(BODY_BYTES_MAX) as usize),
        1 => zstd::bulk::compress(&vec![0; script.number().min(1 << 24) as usize], 1).expect("compress"),
        _ => script.bytes(),
    };
    let body_bytes = if script.byte() == 1 { script.number() as u32 } else { body.len() as u32 };
    let trailer = Trailer { crc32: crc32fast::hash(&body), status: Status::Ok };
    let header = PieceHeader { reply, ..header(id, kind, body_bytes) };
    [&header.encode()[..], &body, &trailer.encode()].concat()
}

/// A batch of listings; `offered` hears of each path that it names, and how long a file is said to be.
pub(super) fn listings(script: &mut Script, offered: &mut dyn FnMut(Vec<u8>, Option<u64>)) -> Option<Vec<u8>> {
    if script.byte() == 1 {
        // The body of a batch as it is, which mutations rarely give the right length.
        let body = script.bytes();
        return Some([&[0][..], &(body.len() as u32).to_be_bytes(), &body].concat());
    }
    let mut batch = OfferBatch::default();
    for _ in 0..=script.below(3) {
        let Ok(dir) = RelPath::new(&script.path()) else { continue };
        let mut listing = Listing {
            root: (dir.is_root() && !script.is_set()).then(|| metadata(script)),
            dir,
            entries: Vec::new(),
            failures: Vec::new(),
            end: [
                ListingEnd::Complete,
                ListingEnd::Complete,
                ListingEnd::More,
                ListingEnd::Broken(Status::PermissionDenied),
            ][script.below(4)],
        };
        for _ in 0..script.below(6) {
            let Some(name) = name(script) else { continue };
            if script.byte() == 0xff {
                listing.failures.push(EntryFailure { name, cause: Status::PermissionDenied });
                continue;
            }
            let kind = kind(script);
            let size = if let EntryKind::File { size_bytes, .. } = kind { Some(size_bytes) } else { None };
            let parent = listing.dir.as_bytes();
            let path = if parent.is_empty() { name.as_bytes().to_vec() } else { [parent, name.as_bytes()].join(&b'/') };
            offered(path, size);
            listing.entries.push(Entry { name, kind, metadata: metadata(script) });
        }
        batch.listings.push(listing);
    }
    let codec = if script.is_set() { BatchCodec::Zstd } else { BatchCodec::Raw };
    batch.encode(codec).ok()
}

fn name(script: &mut Script) -> Option<Name> {
    const NAMES: [&[u8]; 8] = [b"file", b"sub", b"inner", b"new", b"leak", b"secret", b".fastcp", b"parts"];
    match script.below(NAMES.len() + 1) {
        nth if nth < NAMES.len() => Name::new(NAMES[nth]).ok(),
        _ => Name::new(&script.bytes()).ok(),
    }
}

fn kind(script: &mut Script) -> EntryKind {
    match script.below(8) {
        0..=3 => EntryKind::File { size_bytes: script.number(), sparse: script.is_set() },
        4 | 5 => EntryKind::Dir,
        6 => EntryKind::Symlink { target: [&b"../outside"[..], b"/etc/passwd", b"file", b"."][script.below(4)].into() },
        _ => EntryKind::Special(SpecialKind::Fifo),
    }
}

fn metadata(script: &mut Script) -> Metadata {
    let mode = [0o644, 0o755, 0o4755, 0o000][script.below(4)];
    Metadata { mode, uid: 0, gid: 0, mtime: mtime() }
}
