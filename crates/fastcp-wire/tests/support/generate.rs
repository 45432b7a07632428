//! Lawful messages of every kind, at random from a fixed seed.

use fastcp_model::rules::parse::{Cut, FileStyle, Form, Style};
use fastcp_model::rules::{Action, DirMerge, FilterRule, Pattern, Rule, Sides};
use fastcp_model::{
    ByteRange, CHUNK_KB_MAX, CHUNK_KB_MIN, Entry, EntryFailure, EntryKind, Listing, ListingEnd, Metadata, Name,
    RelPath, SpecialKind, Status, Timestamp,
};
use fastcp_wire::auth::{Auth, AuthReply};
use fastcp_wire::bundle::{BundleForm, BundleRequest, BundledFile};
use fastcp_wire::frame::FrameType;
use fastcp_wire::hello::{Attach, Failure, Hello, HelloReply, Lane, Role, Ticket};
use fastcp_wire::known::BatchId;
use fastcp_wire::limits::{
    BUNDLE_BYTES_MAX, CONNECTIONS_MAX, EVENT_NUMBER_MAX, FINE_SIGNATURE_BYTES_MAX, RANGE_BYTES_MAX, REPORT_COUNTER_MAX,
};
use fastcp_wire::offer::{BatchCodec, OfferBatch, OfferEnd, OfferRequest, OwnerClass, OwnerName, Place, Scope};
use fastcp_wire::push::{Push, Setting};
use fastcp_wire::reply::{BodyKind, PieceHeader, Reply, Trailer};
use fastcp_wire::report::{Numbered, ReportEnd, ReportState, Told, ToldKind, Undeleted};
use fastcp_wire::request::{Ask, ID_UNREADABLE, PlainRequest, RangeRequest};
use fastcp_wire::session::{Direct, Opened, Opening, Purpose};
use fastcp_wire::signature::Level;
use proptest::array::uniform11;
use proptest::collection::{btree_map, vec};
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
        ("attach", attach().prop_map(Message::Attach).boxed()),
        ("failure", failed().prop_map(Message::Failure).boxed()),
        (
            "offer request",
            (place(), vec(filter_rule(), 0..4))
                .prop_map(|(place, rules)| Message::OfferRequest(OfferRequest { place, rules }))
                .boxed(),
        ),
        ("raw batch", batch().prop_map(|batch| Message::OfferBatch(BatchCodec::Raw, batch)).boxed()),
        ("zstd batch", batch().prop_map(|batch| Message::OfferBatch(BatchCodec::Zstd, batch)).boxed()),
        (
            "known",
            vec(any::<[u8; 20]>(), 1..5).prop_map(|ids| Message::Known(ids.into_iter().map(BatchId).collect())).boxed(),
        ),
        ("same", any::<[u8; 20]>().prop_map(|id| Message::Same(BatchId(id))).boxed()),
        ("offer end", any::<(u64, u64)>().prop_map(offer_end).boxed()),
        ("push", push().prop_map(Message::Push).boxed()),
        ("report event", report_event().prop_map(Message::ReportEvent).boxed()),
        ("report state", report_state().prop_map(Message::ReportState).boxed()),
        ("report end", report_end().prop_map(Message::ReportEnd).boxed()),
        ("report seen", (0..=EVENT_NUMBER_MAX).prop_map(Message::ReportSeen).boxed()),
        ("auth", any::<([u8; 16], [u8; 32])>().prop_map(|(run, proof)| Message::Auth(Auth { run, proof })).boxed()),
        ("auth reply", any::<[u8; 32]>().prop_map(|proof| Message::AuthReply(AuthReply { proof })).boxed()),
        ("session open", session_open().boxed()),
        ("session opened", session_opened().boxed()),
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
    let ask = select(Ask::ALL.to_vec());
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
    (1u16..=0x10).prop_map(|code| FrameType::from_code(code).expect("known"))
}

fn hello() -> impl Strategy<Value = Hello> {
    let chunk_kb = prop_oneof![Just(0), CHUNK_KB_MIN..=CHUNK_KB_MAX];
    let role = select(vec![Role::Sender, Role::Receiver]);
    let scope = select(vec![Scope::Contents, Scope::Itself]);
    let places = vec((path(), scope).prop_map(|(path, scope)| Place { path, scope }), 0..4);
    (any::<u16>(), role, any::<u32>(), 1..=CONNECTIONS_MAX, chunk_kb, places).prop_map(
        |(version, role, capability_bits, connections, chunk_kb, places)| Hello {
            version,
            role,
            capability_bits,
            connections,
            chunk_kb,
            // A sender names no places.
            places: if role == Role::Receiver { places } else { Vec::new() },
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

fn attach() -> impl Strategy<Value = Attach> {
    let lane = prop_oneof![
        Just(Lane::Data),
        Just(Lane::Control),
        (0..=EVENT_NUMBER_MAX).prop_map(|seen| Lane::Report { seen }),
    ];
    (any::<[u8; 16]>(), lane).prop_map(|(ticket, lane)| Attach { ticket: Ticket(ticket), lane })
}

fn failed() -> impl Strategy<Value = Failure> {
    (status(), words()).prop_map(|(status, detail)| Failure { status, detail })
}

fn push() -> impl Strategy<Value = Push> {
    let option = vec(select(b"abcdefghijklmnopqrstuvwxyz-".to_vec()), 1..20)
        .prop_map(|option| String::from_utf8(option).expect("ASCII"));
    let settings = btree_map(option, vec(any::<u8>(), 0..30), 0..6)
        .prop_map(|settings| settings.into_iter().map(|(name, value)| Setting { name, value }).collect());
    (place(), path(), proptest::option::of(name()), settings, vec(filter_rule(), 0..4))
        .prop_map(|(offer, into, new_name, settings, rules)| Push { offer, into, new_name, settings, rules })
}

fn report_event() -> impl Strategy<Value = Numbered> {
    let cause = vec(b' '..=b'~', 0..20).prop_map(|cause| String::from_utf8(cause).expect("ASCII"));
    let target = vec(any::<u8>(), 0..50);
    let item_kind = prop_oneof![Just(ToldKind::Dir), Just(ToldKind::Other), target.prop_map(ToldKind::Link)];
    let undeleted = prop_oneof![
        Just(Undeleted::Source),
        Just(Undeleted::CutShort),
        Just(Undeleted::EmptySource),
        any::<(u64, u64)>().prop_map(|(entries, max)| Undeleted::Entries { entries, max }),
        (any::<u64>(), 0u8..=100).prop_map(|(entries, max)| Undeleted::Percent { entries, max }),
    ];
    let event = prop_oneof![
        (path(), any::<bool>(), cause, words()).prop_map(|(path, is_moving_source, kind, text)| Told::Failed {
            path,
            is_moving_source,
            kind,
            text,
        }),
        (path(), special_kind()).prop_map(|(path, kind)| Told::Skipped { path, kind }),
        (uniform11(b' '..=b'~'), path(), item_kind).prop_map(|(change, path, kind)| Told::Item { change, path, kind }),
        undeleted.prop_map(Told::NotDeleting),
        (0u8..=2, any::<u64>(), any::<u16>()).prop_map(|(resource, max, connections)| Told::Limited {
            resource,
            max,
            connections,
        }),
        vec(any::<u8>(), 0..60).prop_map(Told::Recorded),
        (path(), any::<u64>()).prop_map(|(path, bytes)| Told::Committed { path, bytes }),
    ];
    (0..=EVENT_NUMBER_MAX, event).prop_map(|(number, event)| Numbered { number, event })
}

fn report_state() -> impl Strategy<Value = ReportState> {
    (any::<u32>(), any::<bool>(), vec(0..=REPORT_COUNTER_MAX, 0..8))
        .prop_map(|(called, is_scan_done, counters)| ReportState { called, is_scan_done, counters })
}

fn report_end() -> impl Strategy<Value = ReportEnd> {
    (0..=EVENT_NUMBER_MAX, any::<u8>(), words(), any::<u8>()).prop_map(|(events, outcome, text, limit)| ReportEnd {
        events,
        outcome,
        text,
        limit,
    })
}

fn filter_rule() -> impl Strategy<Value = FilterRule> {
    let marks = any::<[bool; 4]>();
    let sides = (0u8..4).prop_map(Sides::from_bits_retain);
    let action = prop_oneof![Just(Action::Include), Just(Action::Exclude)];
    let form = prop_oneof![Just(Form::Prefixed), Just(Form::Cvs), action.clone().prop_map(Form::Bare)];
    let cut = select(vec![Cut::Lines, Cut::Words, Cut::Nul]);
    let rule = (action, vec(any::<u8>(), 1..20), sides.clone(), marks);
    let rule = rule.prop_map(|(action, text, sides, [absolute, negated, is_perishable, is_about_attributes])| {
        let pattern = Pattern::new(&text).expect("some bytes").absolute(absolute).negated(negated);
        FilterRule::Rule(Rule { action, pattern, sides, is_perishable, is_about_attributes })
    });
    let merge = (vec(any::<u8>(), 1..20), form, cut, sides, marks, marks);
    let merge = merge.prop_map(|(file, form, cut, sides, read, is)| {
        let [is_absolute, is_perishable, is_about_attributes, is_sided] = read;
        let [searches_above, is_not_inherited, excludes_itself, _] = is;
        let style =
            FileStyle { style: Style { form, sides, is_sided, is_absolute, is_perishable, is_about_attributes }, cut };
        FilterRule::DirMerge(DirMerge { file: file.into(), style, searches_above, is_not_inherited, excludes_itself })
    });
    prop_oneof![rule, merge]
}

fn place() -> impl Strategy<Value = Place> {
    (path(), select(vec![Scope::Contents, Scope::Itself])).prop_map(|(path, scope)| Place { path, scope })
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
    prop_oneof![
        (0..=i64::MAX as u64, any::<bool>()).prop_map(|(size_bytes, sparse)| EntryKind::File { size_bytes, sparse }),
        Just(EntryKind::Dir),
        text(50).prop_map(|target| EntryKind::Symlink { target }),
        special_kind().prop_map(EntryKind::Special),
    ]
}

fn special_kind() -> impl Strategy<Value = SpecialKind> {
    select(vec![SpecialKind::Fifo, SpecialKind::Socket, SpecialKind::CharDevice, SpecialKind::BlockDevice])
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

/// Up to 20 characters of any kind.
fn words() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..=20).prop_map(String::from_iter)
}

fn name() -> impl Strategy<Value = Name> {
    text(20).prop_filter_map("not a name", |bytes| Name::new(&bytes).ok())
}

fn path() -> impl Strategy<Value = RelPath> {
    vec(name(), 0..4).prop_map(|names| names.iter().fold(RelPath::root(), |path, name| path.join(name)))
}

fn session_open() -> impl Strategy<Value = Message> {
    (any::<bool>(), vec(any::<u8>(), 0..40)).prop_map(|(is_push, path)| {
        let purpose = if is_push { Purpose::Push } else { Purpose::Pull };
        Message::SessionOpen(Opening { purpose, path })
    })
}

fn session_opened() -> impl Strategy<Value = Message> {
    let bytes = || vec(any::<u8>(), 0..40);
    (bytes(), vec(any::<u8>(), 1..40), bytes(), bytes(), any::<bool>()).prop_map(|(into, address, key, token, has)| {
        Message::SessionOpened(Opened { into, direct: has.then_some(Direct { address, key, token }) })
    })
}
