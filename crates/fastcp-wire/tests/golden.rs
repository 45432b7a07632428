//! The bytes of every message, field by field, fixed for good. A change here is a change of format.

use fastcp_model::rules::parse::{Cut, FileStyle, Form, Style};
use fastcp_model::rules::{Action, DirMerge, FilterRule, Pattern, Rule, Sides};
use fastcp_model::{
    ByteRange, Entry, EntryFailure, EntryKind, Listing, ListingEnd, Metadata, Name, RelPath, SpecialKind, Status,
    Timestamp,
};
use fastcp_wire::auth::{Auth, AuthReply};
use fastcp_wire::bundle::BUNDLE_PIECES_BYTES_MAX;
use fastcp_wire::bundle::{BundleForm, BundleRequest, Bundled, BundledFile};
use fastcp_wire::frame::FrameType;
use fastcp_wire::hello::{Attach, Failure, Hello, HelloReply, Lane, Role, Ticket};
use fastcp_wire::known::BatchId;
use fastcp_wire::limits::{BUNDLE_BYTES_MAX, BUNDLE_FILES_MAX, CAUSE_BYTES_MAX, REPORT_TEXT_BYTES_MAX};
use fastcp_wire::offer::{BatchCodec, OfferBatch, OfferEnd, OfferRequest, OwnerClass, OwnerName, Place, Scope};
use fastcp_wire::progress::Progress;
use fastcp_wire::push::{Push, Setting};
use fastcp_wire::reply::{BodyKind, HoleEnd, PieceHeader, Reply, Trailer};
use fastcp_wire::report::{Numbered, ReportEnd, ReportState, Told, ToldKind, Undeleted};
use fastcp_wire::request::{Ask, PlainRequest, RangeRequest};
use fastcp_wire::session::{Direct, MARK, Opened, Opening, Purpose};
use fastcp_wire::signature::{
    Level, RangeHash, SignedChunk, StrongHash, WeakHash, decode_hash, decode_signature, encode_hash, encode_signature,
};

use hex::hex;
use message::Message;

#[path = "support/hex.rs"]
mod hex;
#[path = "support/message.rs"]
mod message;

#[track_caller]
fn check(golden: &str, message: &Message) {
    let bytes = hex(golden);
    assert_eq!(message.encode(), bytes, "encodes to other bytes");
    assert_eq!(message.decode_alike(&bytes).as_ref(), Ok(message), "decodes to another message");
}

fn ticket() -> Ticket {
    Ticket(*b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f")
}

fn range(start: u64, len: u64) -> ByteRange {
    ByteRange::new(start, len).expect("lawful")
}

fn path(bytes: &[u8]) -> RelPath {
    RelPath::new(bytes).expect("lawful")
}

fn name(bytes: &[u8]) -> Name {
    Name::new(bytes).expect("lawful")
}

fn metadata(mode: u16, secs: i64, nanos: u32) -> Metadata {
    Metadata { mode, uid: 1000, gid: 100, mtime: Timestamp::new(secs, nanos).expect("lawful") }
}

#[test]
fn plain_request() {
    let request = PlainRequest { path: (*b"/a/b").into(), offset: 0x0102_0304_0506_0708, want_crc: true };
    check(
        "46545131           # magic FTQ1
         0004               # path_len
         0001               # flags WANT_CRC
         0102030405060708   # offset
         2f612f62           # path /a/b",
        &Message::Plain(request),
    );
}

#[test]
fn range_request() {
    let request = |id, ask| Message::Range(RangeRequest { id, path: (*b"hi").into(), range: range(0, 6), ask });
    check(
        "46545131           # magic FTQ1
         0002               # path_len
         0002               # flags RANGE
         0000000000000000   # offset
         6869               # path hi
         0000000000000006   # length
         00000001           # id
         7e41afd7           # crc32",
        &request(1, Ask::Bytes),
    );
    check(
        "46545131           # magic FTQ1
         0002               # path_len
         0006               # flags RANGE, ACCEPT_ZSTD
         0000000000000000   # offset
         6869               # path hi
         0000000000000006   # length
         00000003           # id
         90136f68           # crc32",
        &request(3, Ask::BytesOrZstd),
    );
    check(
        "46545131           # magic FTQ1
         0002               # path_len
         000a               # flags RANGE, CONFIRM
         0000000000000000   # offset
         6869               # path hi
         0000000000000006   # length
         00000002           # id
         e7f1bd4b           # crc32",
        &request(2, Ask::Confirm),
    );
    for (flags, sum, ask) in [
        ("0022 # RANGE, SIGNATURE", "0cce57c0", Ask::Signature(Level::Coarse)),
        ("0062 # RANGE, SIGNATURE, FINE", "09044ef0", Ask::Signature(Level::Fine)),
        ("010a # RANGE, CONFIRM, ANEW", "8fb77d59", Ask::ConfirmAnew),
        ("0082 # RANGE, HASH", "05bf6938", Ask::Hash),
    ] {
        check(
            &format!("46545131 0002 {flags}\n 0000000000000000 6869 0000000000000006 00000004 {sum}"),
            &request(4, ask),
        );
    }
}

#[test]
fn known_batches() {
    let ids = [BatchId([1; 20]), BatchId([0xfe; 20])];
    check(
        "00000002   # count
         0101010101010101010101010101010101010101   # id
         fefefefefefefefefefefefefefefefefefefefe   # id",
        &Message::Known(ids.to_vec()),
    );
    check("0101010101010101010101010101010101010101   # id", &Message::Same(ids[0]));
    // The beginning of the BLAKE3 of no bytes, as its test vectors have it.
    assert_eq!(BatchId::of(b"").0[..], hex("af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9"));
}

#[test]
fn bundle_request() {
    let files = [(&b"a"[..], 3), (b"bc", 0x0102)].map(|(name, len)| BundledFile { name: name.into(), len });
    let request =
        |accept| Message::Bundle(BundleRequest { id: 7, dir: (*b"hi").into(), accept, files: files.to_vec() });
    check(
        "46545131           # magic FTQ1
         0002               # path_len
         0012               # flags RANGE, BUNDLE
         0000000000000017   # list_len
         6869               # path hi
         0001 61 0000000000000003
         0002 6263 0000000000000102
         0000000000000002   # count
         00000007           # id
         05916636           # crc32",
        &request(BundleForm::Pieces),
    );
    let bytes = request(BundleForm::PiecesOrZstd).encode();
    assert_eq!(bytes[6..8], [0x00, 0x16], "flags RANGE, BUNDLE, ACCEPT_ZSTD");
    let root = BundleRequest { id: 7, dir: (*b"").into(), accept: BundleForm::Pieces, files: files.to_vec() };
    assert_eq!(root.rel_path(), Ok(RelPath::root()));
    let root = Message::Bundle(root);
    assert_eq!(root.decode_alike(&root.encode()).as_ref(), Ok(&root), "an empty path is the root");
}

#[test]
fn bundle_header() {
    let header = Bundled { pieces: 2, bytes: 0x171 }.header(7, 0x80);
    check(
        "46545231           # magic FTR1
         0000               # status Ok
         0000               # reserved
         0000000000000171   # bytes of the pieces
         0000000000000002   # pieces
         00000000           # not used
         00000000           # padding
         00000007           # id of the first piece
         0003               # kind Bundle
         0000               # status Ok
         00000080           # body_len
         b947f6a0           # crc32 of the header",
        &Message::Piece(header),
    );
    assert_eq!(Bundled::of(&header), Ok(Bundled { pieces: 2, bytes: 0x171 }));
    for (pieces, bytes) in [(0, 1), (BUNDLE_FILES_MAX + 1, 1), (1, BUNDLE_PIECES_BYTES_MAX as usize + 1)] {
        assert!(Bundled::of(&Bundled { pieces, bytes }.header(7, 1)).is_err(), "{pieces} {bytes}");
    }
}

#[test]
fn progress_header() {
    let progress = Progress { id: 7, done_bytes: 0x0123_4567 };
    let header = progress.header();
    check(
        "46545231           # magic FTR1
         0000               # status Ok
         0000               # reserved
         0000000001234567   # bytes read so far
         0000000000000000   # not used
         00000000           # not used
         00000000           # padding
         00000007           # id of the request
         0006               # kind Progress
         0000               # status Ok
         00000000           # body_len: there is none
         f9965c17           # crc32 of the header",
        &Message::Piece(header),
    );
    assert_eq!(Progress::of(&header), Ok(progress));
    assert!(Progress::of(&PieceHeader { body_bytes: 1, ..header }).is_err());
    assert!(Progress::of(&PieceHeader { kind: BodyKind::Raw, ..header }).is_err());
    assert!(Progress::of(&PieceHeader { reply: Reply { mtime_ns: 1, ..header.reply }, ..header }).is_err());
}

#[test]
fn bundles_over_their_limits_are_refused() {
    let file = |name: usize, len| BundledFile { name: vec![b'n'; name].into(), len };
    let decoded = |files: Vec<BundledFile>| {
        let message = Message::Bundle(BundleRequest { id: 1, dir: (*b"d").into(), accept: BundleForm::Pieces, files });
        message.decode_alike(&message.encode())
    };
    assert!(decoded(vec![file(1, BUNDLE_BYTES_MAX)]).is_ok());
    assert!(decoded(vec![file(1, BUNDLE_BYTES_MAX), file(1, 1)]).is_err());
    assert!(decoded(vec![file(1, u64::MAX), file(1, 2)]).is_err());
    assert!(decoded(vec![file(256, 1)]).is_err());
    assert!(decoded(vec![file(1, 0); BUNDLE_FILES_MAX]).is_ok());
    assert!(decoded(vec![file(1, 0); BUNDLE_FILES_MAX + 1]).is_err());
    assert!(decoded(vec![file(250, 0); 100]).is_err(), "the list is too long");
    assert!(decoded(Vec::new()).is_err());
}

#[test]
fn reply() {
    let reply = Reply { status: Status::Changed, file_bytes: 0x1122, mtime_ns: u64::MAX, crc32: 0xcbf4_3926 };
    check(
        "46545231           # magic FTR1
         0009               # status Changed
         0000               # reserved
         0000000000001122   # file_size
         ffffffffffffffff   # mtime_ns: one nanosecond before 1970
         cbf43926           # crc32
         00000000           # padding",
        &Message::Reply(reply),
    );
}

#[test]
fn reply_from_a_program_that_does_not_clear_its_padding() {
    let bytes = hex("46545231 0000 abcd 0000000000000006 0000000000000007 363a3020 deadbeef");
    let reply = Reply { status: Status::Ok, file_bytes: 6, mtime_ns: 7, crc32: 0x363a_3020 };
    assert_eq!(Message::Reply(reply).decode_alike(&bytes), Ok(Message::Reply(reply)));
}

#[test]
fn piece_header() {
    let reply = Reply { status: Status::Ok, file_bytes: 6, mtime_ns: 0x17bb_f2cf_9b9a_ca05, crc32: 0 };
    let piece = |id, kind, body_bytes| Message::Piece(PieceHeader { reply, id, kind, body_bytes });
    check(
        "46545231           # magic FTR1
         0000               # status Ok
         0000               # reserved
         0000000000000006   # file_size
         17bbf2cf9b9aca05   # mtime_ns
         00000000           # crc32: not asked for
         00000000           # padding
         00000001           # id
         0000               # kind Raw
         0000               # status Ok
         00000006           # body_len
         73cb78f5           # crc32 of the header",
        &piece(1, BodyKind::Raw, 6),
    );
    check(
        "46545231 0000 0000 0000000000000006 17bbf2cf9b9aca05 00000000 00000000
         00000002           # id
         0001               # kind Zstd
         0000               # status Ok
         00000005           # body_len
         75381e3e           # crc32 of the header",
        &piece(2, BodyKind::Zstd, 5),
    );
    check(
        "46545231 0000 0000 0000000000000006 17bbf2cf9b9aca05 00000000 00000000
         00000003           # id
         0002               # kind Hole
         0000               # status Ok
         00000008           # body_len
         2d1a6c5d           # crc32 of the header",
        &piece(3, BodyKind::Hole, 8),
    );
    let range = ByteRange::new(1, 5).expect("lawful");
    assert_eq!(HoleEnd::new(range, 256).encode()[..], hex("0000000000000100 # the zeros go on up to here"));
    for (end, lawful) in [(5, false), (6, true), (256, true), (257, false)] {
        assert_eq!(HoleEnd::decode(u64::to_be_bytes(end), range, 256).is_ok(), lawful, "{end}");
    }
}

#[test]
fn failed_piece_header() {
    let reply = Reply::failed(Status::NotFound);
    check(
        "46545231           # magic FTR1
         0001               # status NotFound
         0000               # reserved
         0000000000000000   # file_size
         0000000000000000   # mtime_ns
         00000000           # crc32
         00000000           # padding
         01020304           # id
         0000               # kind Raw
         0001               # status NotFound
         00000000           # body_len
         9ab7aba4           # crc32 of the header",
        &Message::Piece(PieceHeader { reply, id: 0x0102_0304, kind: BodyKind::Raw, body_bytes: 0 }),
    );
}

#[test]
fn trailer() {
    check(
        "363a3020           # crc32 of the range
         0009               # status Changed",
        &Message::Trailer(Trailer { crc32: 0x363a_3020, status: Status::Changed }),
    );
}

#[test]
fn frames_of_every_type() {
    for (code, frame_type, sum) in [
        ("0001", FrameType::Hello, "5c95edec"),
        ("0002", FrameType::Attach, "b7a256ef"),
        ("0003", FrameType::HelloReply, "58603dd1"),
        ("0004", FrameType::AttachReply, "babc26a8"),
        ("0005", FrameType::Failure, "557e4d96"),
        ("0006", FrameType::OfferRequest, "be49f695"),
        ("0007", FrameType::OfferBatch, "518b9dab"),
        ("0008", FrameType::OfferEnd, "a080c626"),
        ("0009", FrameType::OfferKnown, "4f42ad18"),
        ("000a", FrameType::OfferSame, "a475161b"),
        ("000b", FrameType::Push, "4bb77d25"),
        ("000c", FrameType::ReportEvent, "a96b665c"),
        ("000d", FrameType::ReportState, "46a90d62"),
        ("000e", FrameType::ReportEnd, "ad9eb661"),
        ("000f", FrameType::ReportSeen, "425cdd5f"),
        ("0010", FrameType::Cancel, "94f9073a"),
        ("0011", FrameType::Auth, "7b3b6c04"),
        ("0012", FrameType::AuthReply, "900cd707"),
        ("0013", FrameType::SessionOpen, "7fcebc39"),
        ("0014", FrameType::SessionOpened, "9d12a740"),
    ] {
        let golden = format!(
            "{code}             # msg_type
             0000               # flags
             00000003           # payload_len
             616263             # payload
             {sum}              # crc32"
        );
        check(&golden, &Message::Frame(frame_type, b"abc".to_vec()));
    }
}

#[test]
fn attach_reply_is_an_empty_frame() {
    check(
        "0004               # msg_type ATTACH_REPLY
         0000               # flags
         00000000           # payload_len
         916dfb7a           # crc32",
        &Message::Frame(FrameType::AttachReply, Vec::new()),
    );
}

#[test]
fn cancel_is_an_empty_frame() {
    check(
        "0010               # msg_type CANCEL
         0000               # flags
         00000000           # payload_len
         02fc43a7           # crc32",
        &Message::Frame(FrameType::Cancel, Vec::new()),
    );
}

#[test]
fn auth() {
    let run = *b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f";
    check(
        "000102030405060708090a0b0c0d0e0f                                     # run
         abababababababababababababababababababababababababababababababab     # proof",
        &Message::Auth(Auth { run, proof: [0xab; 32] }),
    );
    check(
        "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd     # proof",
        &Message::AuthReply(AuthReply { proof: [0xcd; 32] }),
    );
}

#[test]
fn sessions_over_a_remote_shell() {
    check(
        "01                 # purpose push
         0003               # path_len
         2f612f             # path",
        &Message::SessionOpen(Opening { purpose: Purpose::Push, path: b"/a/".to_vec() }),
    );
    check(
        "0000               # into_len
         0000               # address_len
         0000               # key_len
         0000               # token_len",
        &Message::SessionOpened(Opened { into: Vec::new(), direct: None }),
    );
    let direct = Direct { address: b"[::1]:7".to_vec(), key: b"sha".to_vec(), token: b"t".to_vec() };
    check(
        "0001               # into_len
         62                 # into
         0007               # address_len
         5b3a3a315d3a37     # address
         0003               # key_len
         736861             # key
         0001               # token_len
         74                 # token",
        &Message::SessionOpened(Opened { into: b"b".to_vec(), direct: Some(direct) }),
    );
    assert_eq!(MARK, b"\nfastcp-session 1\n");
}

#[test]
fn hello() {
    check(
        "0001               # version
         01                 # role receiver
         80000143           # capability_bits, one of them unknown
         0040               # connections
         00010000           # chunk_kb 65536
         0000               # place_count",
        &Message::Hello(Hello {
            version: 1,
            role: Role::Receiver,
            capability_bits: 0x8000_0143,
            connections: 64,
            chunk_kb: 65_536,
            places: Vec::new(),
        }),
    );
    check(
        "0002               # version
         00                 # role sender
         00000000           # capability_bits
         0001               # connections
         00000000           # chunk_kb: the server decides
         0000               # place_count",
        &Message::Hello(Hello {
            version: 2,
            role: Role::Sender,
            capability_bits: 0,
            connections: 1,
            chunk_kb: 0,
            places: Vec::new(),
        }),
    );
    let place = |path: &[u8], scope| Place { path: RelPath::new(path).expect("lawful"), scope };
    check(
        "0001               # version
         01                 # role receiver
         00000143           # capability_bits
         0004               # connections
         00000000           # chunk_kb: the server decides
         0002               # place_count
         00                 # scope contents
         0003               # path_len
         612f62             # path
         01                 # scope itself
         0001               # path_len
         63                 # path",
        &Message::Hello(Hello {
            version: 1,
            role: Role::Receiver,
            capability_bits: 0x143,
            connections: 4,
            chunk_kb: 0,
            places: vec![place(b"a/b", Scope::Contents), place(b"c", Scope::Itself)],
        }),
    );
}

#[test]
fn hello_reply() {
    check(
        "0001               # version
         00000143           # capability_bits
         0004               # connections
         00000400           # chunk_kb 1024
         0001020304050607   # ticket
         08090a0b0c0d0e0f",
        &Message::HelloReply(HelloReply {
            version: 1,
            capability_bits: 0x143,
            connections: 4,
            chunk_kb: 1024,
            ticket: ticket(),
        }),
    );
}

#[test]
fn attach() {
    let attach = |lane| Message::Attach(Attach { ticket: ticket(), lane });
    check("0001020304050607 08090a0b0c0d0e0f   # ticket", &attach(Lane::Data));
    check(
        "0001020304050607   # ticket
         08090a0b0c0d0e0f
         01                 # lane control",
        &attach(Lane::Control),
    );
    check(
        "0001020304050607   # ticket
         08090a0b0c0d0e0f
         02                 # lane report
         0000000000000102   # seen",
        &attach(Lane::Report { seen: 0x102 }),
    );
}

#[test]
fn failure() {
    check("000e   # status UnknownTicket", &Message::Failure(Status::UnknownTicket.into()));
    check(
        "0013               # status InUse
         0007               # detail_len
         6e6f7420c3a061     # detail: not, a space, a with a grave accent, a",
        &Message::Failure(Failure { status: Status::InUse, detail: "not \u{e0}a".to_owned() }),
    );
}

#[test]
fn push() {
    let offer = Place { path: path(b"a/\xff"), scope: Scope::Itself };
    let settings = vec![
        Setting::new("durability", "file"),
        Setting::new("delete", ""),
        Setting { name: "backup-dir".to_owned(), value: b"b/\xff".to_vec() },
    ];
    let rule = FilterRule::Rule(Rule {
        action: Action::Exclude,
        pattern: Pattern::new(b"x").expect("lawful"),
        sides: Sides::all(),
        is_perishable: false,
        is_about_attributes: false,
    });
    check(
        "0001                   # version
         01                     # scope itself
         0003                   # path_len
         612fff                 # path: a, slash, a byte that is not UTF-8
         0003                   # into_len
         642f65                 # into d/e
         0001                   # new_name_len
         6e                     # new_name n
         03                     # setting_count
         000a                   # name_len
         6475726162696c697479   # name durability
         0004                   # value_len
         66696c65               # value file
         0006                   # name_len
         64656c657465           # name delete
         0000                   # value_len: an option without a value
         000a                   # name_len
         6261636b75702d646972   # name backup-dir
         0003                   # value_len
         622fff                 # value: b, slash, a byte that is not UTF-8
         00000006               # rules_len
         00                     # kind rule
         0006                   # marks sender, receiver
         0001                   # text_len
         78                     # text x",
        &Message::Push(Push { offer, into: path(b"d/e"), new_name: Some(name(b"n")), settings, rules: vec![rule] }),
    );
    check(
        "0001               # version
         00                 # scope contents
         0000               # path_len: the root
         0000               # into_len: the root
         0000               # new_name_len: none
         00                 # setting_count
         00000000           # rules_len",
        &Message::Push(Push {
            offer: Place { path: RelPath::root(), scope: Scope::Contents },
            into: RelPath::root(),
            new_name: None,
            settings: Vec::new(),
            rules: Vec::new(),
        }),
    );
}

fn event(number: u64, event: Told) -> Message {
    Message::ReportEvent(Numbered { number, event })
}

#[test]
fn report_of_a_failure() {
    let failed = |is_moving_source| Told::Failed {
        path: path(b"a/\xff"),
        is_moving_source,
        kind: "too large".to_owned(),
        text: "gr\u{f6}\u{df}er".to_owned(),
    };
    check(
        "0102030405060708   # number
         00                 # event failed
         01                 # moving: the source changed meanwhile
         0003               # path_len
         612fff             # path: a, slash, a byte that is not UTF-8
         0009               # cause_len
         746f6f206c61726765 # cause too large
         0008               # text_len
         6772c3b6c39f6572   # text: greater in German, as UTF-8",
        &event(0x0102_0304_0506_0708, failed(true)),
    );
    check(
        "0000000000000001 00
         00                 # moving: it did not
         0003 612fff 0009 746f6f206c61726765 0008 6772c3b6c39f6572",
        &event(1, failed(false)),
    );
}

#[test]
fn report_of_what_was_skipped() {
    for (code, kind) in [
        ("00 # named pipe", SpecialKind::Fifo),
        ("01 # socket", SpecialKind::Socket),
        ("02 # character device", SpecialKind::CharDevice),
        ("03 # block device", SpecialKind::BlockDevice),
    ] {
        let golden = format!(
            "0000000000000002   # number
             01                 # event skipped
             {code}
             0001               # path_len
             70                 # path p"
        );
        check(&golden, &event(2, Told::Skipped { path: path(b"p"), kind }));
    }
}

#[test]
fn report_of_a_change() {
    for (golden, kind) in [
        ("00 # item_kind directory", ToldKind::Dir),
        ("01 # item_kind another", ToldKind::Other),
        ("02 # item_kind symbolic link\n 0002 # target_len\n 2eff # target", ToldKind::Link(b".\xff".to_vec())),
    ] {
        let golden = format!(
            "0000000000000003         # number
             02                       # event item
             3e662b2b2b2b2b2b2b2b2b   # change >f+++++++++
             0000                     # path_len: the destination itself
             {golden}"
        );
        check(&golden, &event(3, Told::Item { change: *b">f+++++++++", path: RelPath::root(), kind }));
    }
}

#[test]
fn report_of_no_deletion() {
    for (golden, why) in [
        ("00 # reason source unread", Undeleted::Source),
        ("01 # reason cut short", Undeleted::CutShort),
        ("02 # reason empty source", Undeleted::EmptySource),
        (
            "03                 # reason too many
             0000000000000102   # entries
             0000000000000101   # max",
            Undeleted::Entries { entries: 0x102, max: 0x101 },
        ),
        (
            "04                 # reason too large a part
             0000000000000102   # entries
             0000000000000064   # max, of a hundred",
            Undeleted::Percent { entries: 0x102, max: 100 },
        ),
    ] {
        let golden = format!(
            "0000000000000004   # number
             03                 # event not deleting
             {golden}"
        );
        check(&golden, &event(4, Told::NotDeleting(why)));
    }
}

#[test]
fn report_of_a_limit() {
    for resource in 0..=2 {
        let golden = format!(
            "0000000000000005   # number
             04                 # event limited
             {resource:02x}                 # resource
             0000000000000400   # max
             0007               # connections"
        );
        check(&golden, &event(5, Told::Limited { resource, max: 1024, connections: 7 }));
    }
}

#[test]
fn report_of_a_record() {
    check(
        "0000000000000006   # number
         05                 # event recorded
         0004               # record_len
         6162ff0a           # record",
        &event(6, Told::Recorded(b"ab\xff\n".to_vec())),
    );
}

#[test]
fn report_of_a_committed_file() {
    check(
        "0000000000000007   # number
         06                 # event committed
         0102030405060708   # size
         0003               # path_len
         612f62             # path",
        &event(7, Told::Committed { path: RelPath::new(b"a/b").expect("lawful"), bytes: 0x0102_0304_0506_0708 }),
    );
}

#[test]
fn report_state() {
    check(
        "00000005           # called
         01                 # scan_done
         0002               # counter_count
         0000000000000003   # counter
         0102030405060708   # counter",
        &Message::ReportState(ReportState { called: 5, is_scan_done: true, counters: vec![3, 0x0102_0304_0506_0708] }),
    );
    check(
        "00000000           # called
         00                 # scan_done
         0000               # counter_count",
        &Message::ReportState(ReportState { called: 0, is_scan_done: false, counters: Vec::new() }),
    );
}

#[test]
fn report_end() {
    check(
        "0000000000000102   # events
         05                 # outcome
         02                 # limit
         0002               # text_len
         6e6f               # text no",
        &Message::ReportEnd(ReportEnd { events: 0x102, outcome: 5, text: "no".to_owned(), limit: 2 }),
    );
}

#[test]
fn report_seen() {
    check("0000000000000102   # seen", &Message::ReportSeen(0x102));
}

#[test]
fn what_is_too_long_to_be_told_is_cut_between_characters() {
    let detail = "\u{e0}".repeat(REPORT_TEXT_BYTES_MAX);
    let told = Failure { status: Status::Busy, detail: format!("a{detail}") }.encode();
    let shorter = Failure::decode(&told).expect("lawful").detail;
    assert_eq!(shorter.len(), REPORT_TEXT_BYTES_MAX - 1);
    let end = ReportEnd { events: 0, outcome: 1, text: detail.clone(), limit: 0 }.encode();
    assert_eq!(ReportEnd::decode(&end).expect("lawful").text.len(), REPORT_TEXT_BYTES_MAX);
    let kind = "k".repeat(CAUSE_BYTES_MAX + 1);
    let failed = Told::Failed { path: path(b"a"), is_moving_source: false, kind, text: detail };
    let failed = Numbered::decode(&Numbered { number: 1, event: failed }.encode()).expect("lawful");
    let Told::Failed { kind, text, .. } = failed.event else { panic!("{failed:?}") };
    assert_eq!((kind.len(), text.len()), (CAUSE_BYTES_MAX, REPORT_TEXT_BYTES_MAX));
}

#[test]
fn offer_request() {
    check(
        "01                 # scope itself
         0003               # path_len
         612fff             # path: a, slash, a byte that is not UTF-8
         00000000           # rules_len
         0000               # cursor_len",
        &Message::OfferRequest(Place { path: path(b"a/\xff"), scope: Scope::Itself }.into()),
    );
    check(
        "00                 # scope contents
         0000               # path_len: the root
         00000000           # rules_len
         0000               # cursor_len",
        &Message::OfferRequest(Place { path: RelPath::root(), scope: Scope::Contents }.into()),
    );
    let pattern = Pattern::new(b"/*.o").expect("lawful").negated(true);
    let rule = Rule {
        action: Action::Exclude,
        pattern,
        sides: Sides::SENDER,
        is_perishable: true,
        is_about_attributes: false,
    };
    let style = Style { form: Form::Bare(Action::Include), sides: Sides::all(), ..Style::FILTER };
    let merge = DirMerge {
        file: (*b".r").into(),
        style: FileStyle { style, cut: Cut::Words },
        searches_above: true,
        is_not_inherited: true,
        excludes_itself: true,
    };
    check(
        "00                 # scope contents
         0000               # path_len: the root
         00000010           # rules_len
         00                 # kind rule
         0052               # marks SENDER, PERISHABLE, NEGATED
         0004               # text_len
         2f2a2e6f           # text: /*.o
         01                 # kind dir-merge
         3a87               # marks INCLUDE, SENDER, RECEIVER, BARE, WORDS, ABOVE, NOT_INHERITED, ITSELF
         0002               # text_len
         2e72               # text: .r
         0000               # cursor_len",
        &Message::OfferRequest(OfferRequest {
            place: Place { path: RelPath::root(), scope: Scope::Contents },
            rules: vec![FilterRule::Rule(rule), FilterRule::DirMerge(merge)],
        }),
    );
}

#[test]
fn offer_end() {
    check(
        "0000000000000102   # entries
         0000000000000003   # failures",
        &Message::OfferEnd(OfferEnd { entries: 0x102, failures: 3 }),
    );
}

const ROOT_BATCH: &str = "
    00000002           # owner_count
    00                 # owner_class user
    000003e8           # id 1000
    0003               # owner_name_len
    616e61             # owner_name ana
    01                 # owner_class group
    00000064           # id 100
    0005               # owner_name_len
    7573657273         # owner_name users
    00000003           # listing_count

    00                 # end more
    0000               # cause
    0000               # path_len: the root
    01                 # has_root
    01ed               #   mode 755
    000003e8           #   uid
    00000064           #   gid
    0000000065f00000   #   mtime_secs
    00000000           #   mtime_nanos
    00000004           # entry_count
    00                 # entry_kind file
    02                 #   name_len
    6869               #   name hi
    01a4               #   mode 644
    000003e8           #   uid
    00000064           #   gid
    0000000065f00001   #   mtime_secs
    00000005           #   mtime_nanos
    0000000000000006   #   size
    01                 # entry_kind sparse file
    01                 #   name_len
    73                 #   name s
    0180 000003e8 00000064 0000000000000000 00000000
    7fffffffffffffff   #   size, the largest
    02                 # entry_kind directory
    01                 #   name_len
    64                 #   name d
    03ff 000003e8 00000064 ffffffffffffffff 3b9ac9ff
    03                 # entry_kind symbolic link
    01                 #   name_len
    6c                 #   name l
    01ff 000003e8 00000064 0000000000000001 00000000
    0005               #   target_len
    2e2e2f68ff         #   target ../h and a byte that is not UTF-8
    00000000           # failure_count

    01                 # end complete
    0000               # cause
    0000               # path_len: the root
    00                 # has_root
    00000004           # entry_count
    04 01 70 01a4 000003e8 00000064 0000000000000000 00000000   # named pipe p
    05 01 71 01a4 000003e8 00000064 0000000000000000 00000000   # socket q
    06 01 72 01a4 000003e8 00000064 0000000000000000 00000000   # character device r
    07 01 74 01a4 000003e8 00000064 0000000000000000 00000000   # block device t
    00000001           # failure_count
    01                 #   name_len
    78                 #   name x
    000a               #   cause InputOutput

    03                 # end broken
    0002               # cause PermissionDenied
    0001               # path_len
    64                 # path d
    00                 # has_root
    00000000           # entry_count
    00000000           # failure_count";

fn root_batch() -> OfferBatch {
    let entry = |entry_name: &[u8], kind, metadata| Entry { name: name(entry_name), kind, metadata };
    let plain = metadata(0o644, 0, 0);
    let first = vec![
        entry(b"hi", EntryKind::File { size_bytes: 6, sparse: false }, metadata(0o644, 0x65f0_0001, 5)),
        entry(b"s", EntryKind::File { size_bytes: i64::MAX as u64, sparse: true }, metadata(0o600, 0, 0)),
        entry(b"d", EntryKind::Dir, metadata(0o1777, -1, 999_999_999)),
        entry(b"l", EntryKind::Symlink { target: (*b"../h\xff").into() }, metadata(0o777, 1, 0)),
    ];
    let second = vec![
        entry(b"p", EntryKind::Special(SpecialKind::Fifo), plain),
        entry(b"q", EntryKind::Special(SpecialKind::Socket), plain),
        entry(b"r", EntryKind::Special(SpecialKind::CharDevice), plain),
        entry(b"t", EntryKind::Special(SpecialKind::BlockDevice), plain),
    ];
    let root = Some(metadata(0o755, 0x65f0_0000, 0));
    let failures = vec![EntryFailure { name: name(b"x"), cause: Status::InputOutput }];
    let listing = |dir, root, entries, failures, end| Listing { dir, root, entries, failures, end };
    OfferBatch {
        owners: vec![
            OwnerName { class: OwnerClass::User, id: 1000, name: (*b"ana").into() },
            OwnerName { class: OwnerClass::Group, id: 100, name: (*b"users").into() },
        ],
        listings: vec![
            listing(RelPath::root(), root, first, Vec::new(), ListingEnd::More),
            listing(RelPath::root(), None, second, failures, ListingEnd::Complete),
            listing(path(b"d"), None, Vec::new(), Vec::new(), ListingEnd::Broken(Status::PermissionDenied)),
        ],
    }
}

#[test]
fn raw_batch() {
    let golden = format!(
        "00                 # codec raw
         {:08x}             # raw_len
         {ROOT_BATCH}",
        hex(ROOT_BATCH).len()
    );
    check(&golden, &Message::OfferBatch(BatchCodec::Raw, root_batch()));
}

#[test]
fn zstd_batch() {
    let golden = hex("01                 # codec zstd
         00000016           # raw_len 22
         28b52ffd           # zstd magic, little-endian
         20                 #   one segment, a content size of one byte
         16                 #   content size 22
         b10000             #   last block, stored as it is, 22 bytes
         00000000           # owner_count
         00000001           # listing_count
         02                 # end selected
         0000               # cause
         0000               # path_len: the root
         00                 # has_root
         00000000           # entry_count
         00000000           # failure_count");
    let listing = Listing {
        dir: RelPath::root(),
        root: None,
        entries: Vec::new(),
        failures: Vec::new(),
        end: ListingEnd::Selected,
    };
    let batch = OfferBatch { owners: Vec::new(), listings: vec![listing] };
    assert_eq!(OfferBatch::decode(&golden), Ok(batch.clone()));
    // The compressor may choose other bytes from one release to the next, but not another header.
    let encoded = batch.encode(BatchCodec::Zstd).expect("small");
    assert_eq!(encoded[..9], golden[..9]);
    assert_eq!(OfferBatch::decode(&encoded), Ok(batch));
}

#[test]
fn signatures_and_hashes() {
    let hash = StrongHash(std::array::from_fn(|at| at as u8));
    let chunks =
        [SignedChunk { len: 8192, weak: WeakHash(0xa0a1_a2a3), hash }, SignedChunk { len: 1, ..SignedChunk::of(b"") }];
    let mut body = Vec::new();
    encode_signature(&chunks, &mut body);
    let bytes = hex("002000 a0a1a2a3 000102030405060708090a0b0c0d0e0f10111213   # 8192 bytes
         000001 38d394c2 af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9   # 1 byte");
    assert_eq!(body, bytes);
    assert_eq!(decode_signature(Level::Fine, &bytes).expect("lawful"), chunks);
    assert_eq!(decode_signature(Level::Coarse, &[]).expect("lawful"), []);
    for torn in [1, 26, 28, 53] {
        assert!(decode_signature(Level::Fine, &bytes[..torn]).is_err(), "{torn} bytes");
    }
    for (level, len, lawful) in [
        (Level::Fine, 0, false),
        (Level::Fine, 64 << 10, true),
        (Level::Fine, (64 << 10) + 1, false),
        (Level::Coarse, 1 << 20, true),
        (Level::Coarse, (1 << 20) + 1, false),
    ] {
        let mut body = Vec::new();
        encode_signature(&[SignedChunk { len, weak: WeakHash(0), hash }], &mut body);
        assert_eq!(decode_signature(level, &body).is_ok(), lawful, "{level:?} {len}");
    }
    let hash = RangeHash(*blake3::hash(b"").as_bytes());
    let bytes = hex("af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262");
    assert_eq!(encode_hash(hash)[..], bytes);
    assert_eq!(decode_hash(&bytes).expect("lawful"), hash);
    assert!(decode_hash(&[0; 31]).is_err() && decode_hash(&[0; 33]).is_err());
}
