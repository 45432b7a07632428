//! Lawful messages of every kind, at random from a fixed seed.

use fastcp_model::{
    ByteRange, CHUNK_KB_MAX, CHUNK_KB_MIN, Entry, EntryFailure, EntryKind, Listing, ListingEnd, Metadata, Name,
    RelPath, SpecialKind, Status, Timestamp,
};
use fastcp_wire::bundle::{BundleForm, BundleRequest, BundledFile};
use fastcp_wire::frame::FrameType;
use fastcp_wire::hello::{Hello, HelloReply, Role, Ticket};
use fastcp_wire::known::BatchId;
use fastcp_wire::limits::{BUNDLE_BYTES_MAX, CONNECTIONS_MAX, FINE_SIGNATURE_BYTES_MAX, RANGE_BYTES_MAX};
use fastcp_wire::offer::{BatchCodec, OfferBatch, OfferEnd, OfferRequest, OwnerClass, OwnerName, Scope};
use fastcp_wire::reply::{BodyKind, PieceHeader, Reply, Trailer};
use fastcp_wire::request::{Ask, ID_UNREADABLE, PlainRequest, RangeRequest};
use fastcp_wire::signature::Level;
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::select;
use proptest::strategy::BoxedStrategy;

use crate::message::Message;

/// A generator for each kind of message, with its name.
pub(crate) fn kinds() -> Vec<(&'static str, BoxedStrategy<Message>)> {
    vec![
        ("plain request", plain_request().prop_map(Message::Plain).boxed()),
        ("range request", range_request().prop_map(Message::Range).boxed()),
        ("bundle request", bundle_request().prop_map(Message::Bundle).boxed()),
        ("reply", reply().prop_map(Message::Reply).boxed()),
        ("piece header", piece_header().prop_map(Message::Piece).boxed()),
        ("trailer", trailer().prop_map(Message::Trailer).boxed()),
        (
            "frame",
            (frame_type(), vec(any::<u8>(), 0..40)).prop_map(|(kind, bytes)| Message::Frame(kind, bytes)).boxed(),
        ),
        ("hello", hello().prop_map(Message::Hello).boxed()),
        ("hello reply", hello_reply().prop_map(Message::HelloReply).boxed()),
        ("attach", any::<[u8; 16]>().prop_map(|bytes| Message::Attach(Ticket(bytes))).boxed()),
        ("failure", status().prop_map(Message::Failure).boxed()),
        ("offer request", offer_request().prop_map(Message::OfferRequest).boxed()),
        ("raw batch", batch().prop_map(|batch| Message::OfferBatch(BatchCodec::Raw, batch)).boxed()),
        ("zstd batch", batch().prop_map(|batch| Message::OfferBatch(BatchCodec::Zstd, batch)).boxed()),
        (
            "known",
            vec(any::<[u8; 20]>(), 1..5).prop_map(|ids| Message::Known(ids.into_iter().map(BatchId).collect())).boxed(),
        ),
        ("same", any::<[u8; 20]>().prop_map(|id| Message::Same(BatchId(id))).boxed()),
        ("offer end", any::<(u64, u64)>().prop_map(offer_end).boxed()),
    ]
}

fn plain_request() -> impl Strategy<Value = PlainRequest> {
    (vec(any::<u8>(), 1..60), any::<u64>(), any::<bool>()).prop_map(|(path, offset, want_crc)| PlainRequest {
        path: path.into(),
        offset,
        want_crc,
    })
}

fn bundle_request() -> impl Strategy<Value = BundleRequest> {
    let file = (vec(any::<u8>(), 0..30), 0..=BUNDLE_BYTES_MAX / 8)
        .prop_map(|(name, len)| BundledFile { name: name.into(), len });
    let accept = select(vec![BundleForm::Pieces, BundleForm::PiecesOrZstd]);
    (0..ID_UNREADABLE, vec(any::<u8>(), 0..60), accept, vec(file, 1..8))
        .prop_map(|(id, dir, accept, files)| BundleRequest { id, dir: dir.into(), accept, files })
}

fn range_request() -> impl Strategy<Value = RangeRequest> {
    let range = (0..i64::MAX as u64 - RANGE_BYTES_MAX, 0..=RANGE_BYTES_MAX)
        .prop_map(|(start, len)| ByteRange::new(start, len).expect("ends below 2^63"));
    let ask = select(vec![
        Ask::Bytes,
        Ask::BytesOrZstd,
        Ask::Confirm,
        Ask::ConfirmAnew,
        Ask::Signature(Level::Coarse),
        Ask::Signature(Level::Fine),
        Ask::Hash,
    ]);
    (0..ID_UNREADABLE, vec(any::<u8>(), 1..60), range, ask).prop_map(|(id, path, range, ask)| {
        let len_max = if ask == Ask::Signature(Level::Fine) { FINE_SIGNATURE_BYTES_MAX } else { RANGE_BYTES_MAX };
        let range = ByteRange::new(range.start(), range.len().min(len_max)).expect("shorter");
        RangeRequest { id, path: path.into(), range, ask }
    })
}

fn reply() -> impl Strategy<Value = Reply> {
    (status(), any::<u64>(), any::<u64>(), any::<u32>()).prop_map(|(status, file_bytes, mtime_ns, crc32)| Reply {
        status,
        file_bytes,
        mtime_ns,
        crc32,
    })
}

fn piece_header() -> impl Strategy<Value = PieceHeader> {
    let kind = select(vec![
        BodyKind::Raw,
        BodyKind::Zstd,
        BodyKind::Hole,
        BodyKind::Signature,
        BodyKind::Hash,
        BodyKind::Progress,
    ]);
    (reply(), any::<u32>(), kind, 0..=RANGE_BYTES_MAX as u32).prop_map(|(reply, id, kind, body_bytes)| PieceHeader {
        reply,
        id,
        kind,
        body_bytes,
    })
}

fn trailer() -> impl Strategy<Value = Trailer> {
    (any::<u32>(), status()).prop_map(|(crc32, status)| Trailer { crc32, status })
}

fn frame_type() -> impl Strategy<Value = FrameType> {
    (1u16..=8).prop_map(|code| FrameType::from_code(code).expect("known"))
}

fn hello() -> impl Strategy<Value = Hello> {
    let chunk_kb = prop_oneof![Just(0), CHUNK_KB_MIN..=CHUNK_KB_MAX];
    let role = select(vec![Role::Sender, Role::Receiver]);
    (any::<u16>(), role, any::<u32>(), 1..=CONNECTIONS_MAX, chunk_kb).prop_map(
        |(version, role, capability_bits, connections, chunk_kb)| Hello {
            version,
            role,
            capability_bits,
            connections,
            chunk_kb,
        },
    )
}

fn hello_reply() -> impl Strategy<Value = HelloReply> {
    (any::<u16>(), any::<u32>(), 1..=CONNECTIONS_MAX, CHUNK_KB_MIN..=CHUNK_KB_MAX, any::<[u8; 16]>()).prop_map(
        |(version, capability_bits, connections, chunk_kb, ticket)| HelloReply {
            version,
            capability_bits,
            connections,
            chunk_kb,
            ticket: Ticket(ticket),
        },
    )
}

fn offer_request() -> impl Strategy<Value = OfferRequest> {
    (path(), select(vec![Scope::Contents, Scope::Itself])).prop_map(|(path, scope)| OfferRequest { path, scope })
}

fn offer_end((entries, failures): (u64, u64)) -> Message {
    Message::OfferEnd(OfferEnd { entries, failures })
}

fn batch() -> impl Strategy<Value = OfferBatch> {
    (vec(owner(), 0..3), vec(listing(), 0..4)).prop_map(|(owners, listings)| OfferBatch { owners, listings })
}

fn owner() -> impl Strategy<Value = OwnerName> {
    let class = select(vec![OwnerClass::User, OwnerClass::Group]);
    (class, any::<u32>(), text(30)).prop_map(|(class, id, name)| OwnerName { class, id, name })
}

fn listing() -> impl Strategy<Value = Listing> {
    let end = prop_oneof![
        Just(ListingEnd::More),
        Just(ListingEnd::Complete),
        Just(ListingEnd::Selected),
        status().prop_map(ListingEnd::Broken),
    ];
    (path(), proptest::option::of(metadata()), vec(entry(), 0..4), vec(failure(), 0..3), end)
        .prop_map(|(dir, root, entries, failures, end)| Listing { dir, root, entries, failures, end })
}

fn entry() -> impl Strategy<Value = Entry> {
    (name(), entry_kind(), metadata()).prop_map(|(name, kind, metadata)| Entry { name, kind, metadata })
}

fn failure() -> impl Strategy<Value = EntryFailure> {
    (name(), status()).prop_map(|(name, cause)| EntryFailure { name, cause })
}

fn entry_kind() -> impl Strategy<Value = EntryKind> {
    let special =
        select(vec![SpecialKind::Fifo, SpecialKind::Socket, SpecialKind::CharDevice, SpecialKind::BlockDevice]);
    prop_oneof![
        (0..=i64::MAX as u64, any::<bool>()).prop_map(|(size_bytes, sparse)| EntryKind::File { size_bytes, sparse }),
        Just(EntryKind::Dir),
        text(50).prop_map(|target| EntryKind::Symlink { target }),
        special.prop_map(EntryKind::Special),
    ]
}

fn metadata() -> impl Strategy<Value = Metadata> {
    let mtime =
        (any::<i64>(), 0u32..1_000_000_000).prop_map(|(secs, nanos)| Timestamp::new(secs, nanos).expect("lawful"));
    (0u16..=0o7777, any::<u32>(), any::<u32>(), mtime).prop_map(|(mode, uid, gid, mtime)| Metadata {
        mode,
        uid,
        gid,
        mtime,
    })
}

fn status() -> impl Strategy<Value = Status> {
    select(Status::all().collect::<Vec<_>>())
}

/// Up to `bytes_max` bytes, at least one, none of them NUL.
fn text(bytes_max: usize) -> impl Strategy<Value = Box<[u8]>> {
    vec(1u8..=255, 1..=bytes_max).prop_map(Vec::into_boxed_slice)
}

fn name() -> impl Strategy<Value = Name> {
    text(20).prop_filter_map("not a name", |bytes| Name::new(&bytes).ok())
}

fn path() -> impl Strategy<Value = RelPath> {
    vec(name(), 0..4).prop_map(|names| names.iter().fold(RelPath::root(), |path, name| path.join(name)))
}
