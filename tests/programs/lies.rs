//! A sender that keeps to the handshake and then lies. Whatever it offers or answers, nothing is written
//! outside of the destination, nothing wrong under a final name, and what happened is said.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::support::Workspace;
use crate::support::client::{Client, Run, contents};
use crate::support::compare::assert_same;
use crate::support::lying_sender::{LyingSender, Offer, body, dir, file, header, link, listing, offer, truth};
use crate::support::tree::plain;
use fastcp_model::{ByteRange, Entry, EntryKind, ListingEnd, Status};
use fastcp_wire::bundle::{BundleRequest, Bundled};
use fastcp_wire::frame::FrameType;
use fastcp_wire::offer::OfferEnd;
use fastcp_wire::reply::{BodyKind, PieceHeader, Reply, Trailer};
use fastcp_wire::request::{Ask, ExtendedRequest, RangeRequest, Request};

const BYTES: &[u8] = b"the bytes of a file";

/// Pulls from a sender that lies. Whatever it says, the neighbours of the destination stay as they are.
fn pull_lies(offer: Offer, answer: impl Fn(&RangeRequest) -> Vec<u8> + Send + Sync + 'static) -> (Workspace, Run) {
    let workspace = Workspace::new();
    let neighbour = plain(&workspace.at("neighbour"));
    let before = workspace.at("before");
    Client::pull(contents(&neighbour), &before).run().expect_exit(0);
    let sender = LyingSender::start(offer, answer);
    let run = Client::pull(sender.url(), workspace.at("copy")).options("--retry 1").run();
    assert_same(&before, &neighbour);
    let mut names: Vec<_> =
        fs::read_dir(workspace.at(".")).expect("read").flatten().map(|one| one.file_name()).collect();
    names.sort();
    // A run that failed before it had anything leaves no destination.
    names.retain(|name| name != "copy");
    assert_eq!(names, ["before", "neighbour"]);
    (workspace, run)
}

fn one_file() -> Offer {
    offer(vec![listing("", vec![file("file", BYTES)])])
}

#[test]
fn a_sender_that_tells_the_truth_is_believed() {
    let (workspace, run) = pull_lies(one_file(), |request| truth(request, BYTES));
    run.expect_exit(0).expect_counts(&[("files_committed", 1)]);
    assert_eq!(fs::read(workspace.at("copy/file")).expect("arrived"), BYTES);
}

/// The end knows of a failure, or of entries, that no listing told.
#[test]
fn an_end_that_counts_otherwise_breaks_the_offer() {
    for end in [OfferEnd { entries: 2, failures: 1 }, OfferEnd { entries: 3, failures: 0 }] {
        let mut frames = one_file();
        frames[1].1 = end.encode();
        let (_workspace, run) = pull_lies(frames, |request| truth(request, BYTES));
        let run = run.expect_exit(12);
        assert!(run.stderr.contains("invalid offer"), "{}", run.stderr);
    }
}

#[test]
fn offers_that_break_the_rules_end_the_run() {
    let mut twice_the_end = offer(vec![]);
    twice_the_end.truncate(1);
    twice_the_end.push((FrameType::HelloReply, Vec::new()));
    let mut unfinished = listing("", vec![dir("sub")]);
    unfinished.end = ListingEnd::More;
    let mut first_part = listing("", vec![file("f", BYTES)]);
    first_part.end = ListingEnd::More;
    let lies = [
        ("a directory that was not named", offer(vec![listing("", vec![]), listing("other", vec![file("f", BYTES)])])),
        ("a directory that is a file", offer(vec![listing("", vec![file("f", BYTES)]), listing("f", vec![])])),
        (
            "a directory behind a link",
            offer(vec![listing("", vec![link("l", "../neighbour")]), listing("l", vec![dir("x")])]),
        ),
        ("the same directory twice", offer(vec![listing("", vec![dir("sub"), dir("sub")])])),
        ("the same file twice", offer(vec![listing("", vec![file("f", BYTES), file("f", BYTES)])])),
        ("names that descend", offer(vec![listing("", vec![file("g", BYTES), file("f", BYTES)])])),
        ("the same file in two parts", offer(vec![first_part, listing("", vec![file("f", BYTES)])])),
        ("our own directory", offer(vec![listing("", vec![dir(".fastcp")]), listing(".fastcp", vec![])])),
        ("a link as our own directory", offer(vec![listing("", vec![link(".fastcp", "../neighbour")])])),
        ("a directory without its listing", offer(vec![listing("", vec![dir("sub")])])),
        ("a listing without its end", offer(vec![unfinished])),
        ("no listing at all", offer(vec![])),
        ("no listing of the root's own", offer(vec![listing("sub", vec![])])),
        ("a frame that has no place", twice_the_end),
        ("bytes that are no batch", vec![(FrameType::OfferBatch, vec![1, 0, 0, 0, 9, 1, 2, 3])]),
    ];
    for (what, offer) in lies {
        let (workspace, run) = pull_lies(offer, |request| truth(request, BYTES));
        assert_eq!(run.code, Some(12), "{what}: {}", run.stderr);
        assert!(run.stderr.contains("protocol error"), "{what}: {}", run.stderr);
        assert!(!workspace.at("copy/other").exists(), "{what}");
    }
}

#[test]
fn answers_that_break_the_rules_end_the_run() {
    type Lie = fn(&RangeRequest) -> Vec<u8>;
    fn changed(request: &RangeRequest, change: impl Fn(&mut PieceHeader)) -> Vec<u8> {
        let mut header = header(request, BYTES);
        change(&mut header);
        [header.encode().to_vec(), body(BYTES)].concat()
    }
    let lies: [(&str, Lie); 6] = [
        ("a wrong id", |request| changed(request, |header| header.id = header.id.wrapping_add(1))),
        ("too long a body", |request| changed(request, |header| header.body_bytes += 1)),
        ("too short a body", |request| changed(request, |header| header.body_bytes -= 1)),
        ("a hole with a body", |request| changed(request, |header| header.kind = BodyKind::Hole)),
        ("zstd that is longer", |request| changed(request, |header| header.kind = BodyKind::Zstd)),
        ("a header with a flipped bit", |request| {
            let mut bytes = truth(request, BYTES);
            bytes[10] ^= 1;
            bytes
        }),
    ];
    for (what, lie) in lies {
        let (workspace, run) = pull_lies(one_file(), lie);
        assert_eq!(run.code, Some(12), "{what}: {}", run.stderr);
        assert!(!workspace.at("copy/file").exists(), "{what}");
    }
}

/// A piece that says that all of its range is a hole, which goes on to `end`.
fn hole(request: &RangeRequest, bytes: &[u8], end: u64) -> Vec<u8> {
    let header = PieceHeader { kind: BodyKind::Hole, body_bytes: 8, ..header(request, bytes) };
    [&header.encode()[..], &body(&end.to_be_bytes())].concat()
}

#[test]
fn holes_that_are_none_never_get_a_name() {
    static CHUNKS: [u8; 3 << 20] = [7; 3 << 20];
    type Lie = fn(&RangeRequest) -> Vec<u8>;
    let lies: [(&str, Lie); 4] = [
        ("there are bytes in it", |request| hole(request, &CHUNKS, request.range.end())),
        ("it does not go on so far", |request| hole(request, &CHUNKS, 3 << 20)),
        ("it ends before its range", |request| hole(request, &CHUNKS, request.range.end() - 1)),
        ("it ends behind the file", |request| hole(request, &CHUNKS, (3 << 20) + 1)),
    ];
    for (what, lie) in lies {
        let workspace = Workspace::new();
        let sender = LyingSender::start(offer(vec![listing("", vec![file("file", &CHUNKS)])]), move |request| {
            if request.ask == Ask::Confirm { truth(request, &CHUNKS) } else { lie(request) }
        });
        let run = Client::pull(sender.url(), workspace.at("copy")).options("--retry 1").run();
        assert!(matches!(run.code, Some(12 | 23 | 24)), "{what}: {:?} {}", run.code, run.stderr);
        assert!(!workspace.at("copy/file").exists(), "{what}");
    }
}

#[test]
fn a_file_larger_than_any_fails_alone_and_at_once() {
    let large = Entry { kind: EntryKind::File { size_bytes: 1 << 62, sparse: true }, ..file("large", BYTES) };
    let listings = vec![listing("", vec![file("file", BYTES), large])];
    let (workspace, run) = pull_lies(offer(listings), |request| {
        assert!(request.path.ends_with(b"file"), "nothing is asked of the other");
        truth(request, BYTES)
    });
    run.expect_exit(23).expect_counts(&[("files_committed", 1)]);
    assert_eq!(fs::read(workspace.at("copy/file")).expect("arrived"), BYTES);
    assert!(!workspace.at("copy/large").exists());
}

fn two_files() -> Offer {
    offer(vec![listing("", vec![file("one", BYTES), file("two", BYTES)])])
}

/// The pieces that answer a bundle truthfully, one after the other.
fn pieces_of(request: &BundleRequest) -> Vec<u8> {
    let range = ByteRange::new(0, BYTES.len() as u64).expect("lawful");
    let ask = |id| RangeRequest { id, path: (*b"any").into(), range, ask: Ask::Bytes };
    (request.id..).zip(&request.files).flat_map(|(id, _)| truth(&ask(id), BYTES)).collect()
}

/// A bundle of these pieces, said to be so many.
fn bundle_of(request: &BundleRequest, pieces: &[u8], count: usize) -> Vec<u8> {
    let body_of = zstd::bulk::compress(pieces, 1).expect("compresses");
    let header = Bundled { pieces: count, bytes: pieces.len() }.header(request.id, body_of.len() as u32);
    let trailer = Trailer { crc32: crc32fast::hash(pieces), status: Status::Ok };
    [&header.encode()[..], &body_of, &trailer.encode()].concat()
}

/// Pulls two files from a sender that answers the request for both of them as `answer` says.
fn pull_bundle(answer: fn(&BundleRequest) -> Vec<u8>) -> (Workspace, Run) {
    let workspace = Workspace::new();
    let sender = LyingSender::start_bundling(two_files(), move |request| match request {
        Request::Extended(ExtendedRequest::Bundle(request)) => answer(request),
        Request::Extended(ExtendedRequest::Range(request)) => truth(request, BYTES),
        Request::Plain(_) => unreachable!(),
    });
    let run = Client::pull(sender.url(), workspace.at("copy")).options("--retry 1").run();
    (workspace, run)
}

#[test]
fn bundles_come_one_by_one_or_compressed() {
    let answers: [fn(&BundleRequest) -> Vec<u8>; 2] =
        [pieces_of, |request| bundle_of(request, &pieces_of(request), request.files.len())];
    for answer in answers {
        let (workspace, run) = pull_bundle(answer);
        run.expect_exit(0).expect_counts(&[("files_committed", 2), ("chunks_refetched", 0), ("reconnects", 0)]);
        assert_eq!(fs::read(workspace.at("copy/two")).expect("arrived"), BYTES);
    }
}

#[test]
fn a_damaged_bundle_is_asked_for_again_file_by_file() {
    for at in [50, 60] {
        DAMAGED_AT.store(at, Ordering::Release);
        let (workspace, run) = pull_bundle(|request| {
            let mut bytes = bundle_of(request, &pieces_of(request), request.files.len());
            bytes[DAMAGED_AT.load(Ordering::Acquire)] ^= 0x10;
            bytes
        });
        run.expect_exit(0).expect_counts(&[("files_committed", 2), ("chunks_refetched", 2), ("reconnects", 0)]);
        assert_eq!(fs::read(workspace.at("copy/two")).expect("arrived"), BYTES);
    }
}

static DAMAGED_AT: AtomicUsize = AtomicUsize::new(0);

#[test]
fn bytes_left_over_in_a_bundle_harm_nobody() {
    let (workspace, run) = pull_bundle(|request| bundle_of(request, &[&pieces_of(request)[..], b"more"].concat(), 2));
    // Both files are there by then: whether the mistake is still of interest is a matter of time.
    assert!(matches!(run.code, Some(0 | 12)), "{}", run.stderr);
    assert_eq!(fs::read(workspace.at("copy/two")).expect("arrived"), BYTES);
}

#[test]
fn an_offer_of_more_than_there_can_be_is_of_files_that_fail() {
    let huge = |text| {
        let kind = EntryKind::File { size_bytes: i64::MAX as u64, sparse: true };
        Entry { kind, ..file(text, b"") }
    };
    let (_workspace, run) = pull_lies(offer(vec![listing("", vec![huge("a"), huge("b")])]), |request| {
        PieceHeader { reply: Reply::failed(Status::NotFound), id: request.id, kind: BodyKind::Raw, body_bytes: 0 }
            .encode()
            .to_vec()
    });
    run.expect_exit(23).expect_counts(&[("files_failed", 2)]);
}

#[test]
fn a_bundle_that_ends_too_early_costs_the_connection() {
    let (workspace, run) = pull_bundle(|request| {
        let pieces = pieces_of(request);
        bundle_of(request, &pieces[..pieces.len() - 7], 2)
    });
    run.expect_exit(0).expect_counts(&[("files_committed", 2), ("reconnects", 1)]);
    assert_eq!(fs::read(workspace.at("copy/two")).expect("arrived"), BYTES);
}

#[test]
fn bundles_that_lie_end_the_run() {
    type Lie = fn(&BundleRequest) -> Vec<u8>;
    let lies: [(&str, Lie); 7] = [
        ("more pieces than were asked for", |request| bundle_of(request, &pieces_of(request), 3)),
        ("fewer pieces than it holds", |request| bundle_of(request, &pieces_of(request), 1)),
        ("a bundle in a bundle", |request| {
            let inner = bundle_of(request, &pieces_of(request), 2);
            bundle_of(request, &inner, 2)
        }),
        ("a body longer than its pieces", |request| {
            let mut header = Bundled { pieces: 2, bytes: 200 }.header(request.id, 200);
            header.body_bytes = 64 << 20;
            header.encode().to_vec()
        }),
        ("no pieces", |request| bundle_of(request, b"", 0)),
        ("ids in another order", |request| {
            let pieces = pieces_of(request);
            let (one, two) = pieces.split_at(pieces.len() / 2);
            bundle_of(request, &[two, one].concat(), 2)
        }),
        ("more than a bundle may hold", |request| bundle_of(request, &vec![0; 2 << 20], 2)),
    ];
    for (what, lie) in lies {
        let (workspace, run) = pull_bundle(lie);
        assert_eq!(run.code, Some(12), "{what}: {}", run.stderr);
        for name in ["one", "two"] {
            let copied = fs::read(workspace.at("copy").join(name));
            assert!(copied.is_err() || copied.is_ok_and(|bytes| bytes == BYTES), "{what}: {name}");
        }
    }
}

#[test]
fn a_source_that_moved_on_exits_with_24_and_leaves_the_old_file() {
    type Change = fn(&mut PieceHeader);
    let changes: [Change; 4] = [
        |header| header.reply.mtime_ns += 1,
        |header| header.reply.file_bytes -= 1,
        |header| (header.reply.status, header.body_bytes) = (Status::NotFound, 0),
        |header| (header.reply.status, header.body_bytes) = (Status::BadRange, 0),
    ];
    for change in changes {
        let (workspace, run) = pull_lies(one_file(), move |request| {
            let mut header = header(request, BYTES);
            change(&mut header);
            let rest = if header.reply.status == Status::Ok { body(BYTES) } else { Vec::new() };
            [header.encode().to_vec(), rest].concat()
        });
        let run = run.expect_exit(24);
        assert_eq!((run.count("files_failed"), run.paths_of("failed")), (1, vec!["file".to_owned()]));
        assert!(!workspace.at("copy/file").exists());
    }
}

#[test]
fn a_file_that_only_grew_is_confirmed_as_far_as_it_was_offered() {
    for (confirmed, code) in [(true, 0), (false, 24)] {
        let (workspace, run) = pull_lies(one_file(), move |request| {
            let mut header = header(request, BYTES);
            header.reply.file_bytes += 5;
            let rest = match request {
                request if request.ask.is_confirmation() => {
                    header.reply.crc32 ^= u32::from(!confirmed);
                    Vec::new()
                }
                _ => body(BYTES),
            };
            [header.encode().to_vec(), rest].concat()
        });
        let run = run.expect_exit(code);
        assert_eq!(run.count("files_committed"), u64::from(confirmed));
        let copied = fs::read(workspace.at("copy/file")).ok();
        assert_eq!(copied.as_deref(), confirmed.then_some(BYTES));
    }
}

#[test]
fn bytes_that_never_have_their_crc_are_given_up() {
    let (workspace, run) = pull_lies(one_file(), |request| {
        let mut answer = truth(request, BYTES);
        answer[50] ^= 1;
        answer
    });
    let run = run.expect_exit(23);
    assert_eq!((run.count("files_failed"), run.count("bytes_fetched")), (1, 0));
    assert!(run.count("chunks_refetched") > 0 && run.stderr.contains("CRC-32 mismatch"), "{}", run.stderr);
    assert!(!workspace.at("copy/file").exists());
}

#[test]
fn a_link_planted_while_the_file_is_on_its_way_is_not_followed() {
    let workspace = Workspace::new();
    let (copy, elsewhere) = (workspace.at("copy"), workspace.at("elsewhere"));
    fs::create_dir(&elsewhere).expect("create");
    let planted = AtomicBool::new(false);
    let (sub, target): (PathBuf, PathBuf) = (copy.join("sub"), elsewhere.clone());
    let entries = vec![listing("", vec![dir("sub")]), listing("sub", vec![file("one", BYTES), file("two", BYTES)])];
    let sender = LyingSender::start(offer(entries), move |request| {
        if !planted.swap(true, Ordering::AcqRel) {
            fs::rename(&sub, sub.with_file_name("moved away")).expect("move");
            symlink(&target, &sub).expect("link");
        }
        truth(request, BYTES)
    });
    let run = Client::pull(sender.url(), &copy).run();
    assert!(matches!(run.code, Some(0 | 23)), "{}", run.stderr);
    assert_eq!(fs::read_dir(&elsewhere).expect("read").count(), 0, "nothing is written through the link");
}
