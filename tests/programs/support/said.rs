//! Offers and answers as a sender makes them, for tests to change something in.

use fastcp_model::{ByteRange, Entry, EntryKind, Listing, ListingEnd, Metadata, Name, RelPath, Status, Timestamp};
use fastcp_wire::frame::FrameType;
use fastcp_wire::offer::{BatchCodec, OfferBatch, OfferEnd};
use fastcp_wire::reply::{BodyKind, PieceHeader, Reply, Trailer};
use fastcp_wire::request::RangeRequest;

/// Frames sent in answer to the request for offers: each a type and a payload.
pub(crate) type Offer = Vec<(FrameType, Vec<u8>)>;

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
