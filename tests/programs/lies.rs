//! A sender that keeps to the handshake and then lies. Whatever it offers or answers, nothing is written
//! outside of the destination, nothing wrong under a final name, and what happened is said.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::lied_to::LiedTo;
use crate::support::lying_sender::Lies;
use crate::support::said::{Offer, body, dir, file, header, link, listing, offer, truth};
use crate::support::way::BOTH_WAYS;
use fastcp_model::{Entry, EntryKind, ListingEnd, Status};
use fastcp_wire::frame::FrameType;
use fastcp_wire::offer::OfferEnd;
use fastcp_wire::reply::{BodyKind, PieceHeader, Reply};
use fastcp_wire::request::{Ask, RangeRequest};

const BYTES: &[u8] = b"the bytes of a file";

fn one_file() -> Offer {
    offer(vec![listing("", vec![file("file", BYTES)])])
}

#[test]
fn a_sender_that_tells_the_truth_is_believed() {
    for way in BOTH_WAYS {
        let lied_to = LiedTo::by(way);
        let (copy, run) = lied_to.hear(Lies::new(one_file(), |request| truth(request, BYTES)));
        run.expect_exit(0).expect_counts(&[("files_committed", 1)]);
        assert_eq!(fs::read(copy.join("file")).expect("arrived"), BYTES);
        lied_to.finish();
    }
}

/// As a log does that was empty when it was offered, and is written to before it is fetched.
#[test]
fn an_empty_file_that_grows_arrives_as_it_was_offered() {
    for way in BOTH_WAYS {
        let lied_to = LiedTo::by(way);
        let empty = offer(vec![listing("", vec![file("file", b"")])]);
        let (copy, run) = lied_to.hear(Lies::new(empty, |request| {
            let mut header = header(request, b"");
            header.reply.file_bytes = BYTES.len() as u64;
            [header.encode().to_vec(), body(b"")].concat()
        }));
        run.expect_exit(0).expect_counts(&[("files_committed", 1)]);
        assert_eq!(fs::read(copy.join("file")).expect("arrived"), b"");
        lied_to.finish();
    }
}

/// The end knows of a failure, or of entries, that no listing told.
#[test]
fn an_end_that_counts_otherwise_breaks_the_offer() {
    for way in BOTH_WAYS {
        let lied_to = LiedTo::by(way);
        for end in [OfferEnd { entries: 2, failures: 1 }, OfferEnd { entries: 3, failures: 0 }] {
            let mut frames = one_file();
            frames[1].1 = end.encode();
            let (_, run) = lied_to.hear(Lies::new(frames, |request| truth(request, BYTES)));
            let run = run.expect_exit(12);
            assert!(run.stderr.contains("invalid offer"), "{}", run.stderr);
        }
        lied_to.finish();
    }
}

fn unlawful_offers() -> Vec<(&'static str, Offer)> {
    let mut twice_the_end = offer(vec![]);
    twice_the_end.truncate(1);
    twice_the_end.push((FrameType::HelloReply, Vec::new()));
    let mut unfinished = listing("", vec![dir("sub")]);
    unfinished.end = ListingEnd::More;
    let mut first_part = listing("", vec![file("f", BYTES)]);
    first_part.end = ListingEnd::More;
    vec![
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
    ]
}

#[test]
fn offers_that_break_the_rules_end_the_run() {
    for way in BOTH_WAYS {
        let lied_to = LiedTo::by(way);
        for (what, offer) in unlawful_offers() {
            let (copy, run) = lied_to.hear(Lies::new(offer, |request| truth(request, BYTES)));
            assert_eq!(run.code, Some(12), "{what}: {}", run.stderr);
            assert!(run.stderr.contains("protocol error"), "{what}: {}", run.stderr);
            assert!(!copy.join("other").exists(), "{what}");
        }
        lied_to.finish();
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
    for way in BOTH_WAYS {
        let lied_to = LiedTo::by(way);
        for (what, lie) in lies {
            let (copy, run) = lied_to.hear(Lies::new(one_file(), lie));
            assert_eq!(run.code, Some(12), "{what}: {}", run.stderr);
            assert!(!copy.join("file").exists(), "{what}");
        }
        lied_to.finish();
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
    for way in BOTH_WAYS {
        let lied_to = LiedTo::by(way);
        for (what, lie) in lies {
            let offer = offer(vec![listing("", vec![file("file", &CHUNKS)])]);
            let (copy, run) = lied_to.hear(Lies::new(offer, move |request| {
                if request.ask == Ask::Confirm { truth(request, &CHUNKS) } else { lie(request) }
            }));
            assert!(matches!(run.code, Some(12 | 23 | 24)), "{what}: {:?} {}", run.code, run.stderr);
            assert!(!copy.join("file").exists(), "{what}");
        }
        lied_to.finish();
    }
}

#[test]
fn a_file_larger_than_any_fails_alone_and_at_once() {
    let large = Entry { kind: EntryKind::File { size_bytes: 1 << 62, sparse: true }, ..file("large", BYTES) };
    let offer = offer(vec![listing("", vec![file("file", BYTES), large])]);
    for way in BOTH_WAYS {
        let lied_to = LiedTo::by(way);
        let (copy, run) = lied_to.hear(Lies::new(offer.clone(), |request| {
            assert!(request.path.ends_with(b"file"), "nothing is asked of the other");
            truth(request, BYTES)
        }));
        run.expect_exit(23).expect_counts(&[("files_committed", 1)]);
        assert_eq!(fs::read(copy.join("file")).expect("arrived"), BYTES);
        assert!(!copy.join("large").exists());
        lied_to.finish();
    }
}

#[test]
fn an_offer_of_more_than_there_can_be_is_of_files_that_fail() {
    let huge = |text| {
        let kind = EntryKind::File { size_bytes: i64::MAX as u64, sparse: true };
        Entry { kind, ..file(text, b"") }
    };
    for way in BOTH_WAYS {
        let lied_to = LiedTo::by(way);
        let offer = offer(vec![listing("", vec![huge("a"), huge("b")])]);
        let (_, run) = lied_to.hear(Lies::new(offer, |request| {
            PieceHeader { reply: Reply::failed(Status::NotFound), id: request.id, kind: BodyKind::Raw, body_bytes: 0 }
                .encode()
                .to_vec()
        }));
        run.expect_exit(23).expect_counts(&[("files_failed", 2)]);
        lied_to.finish();
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
    for way in BOTH_WAYS {
        let lied_to = LiedTo::by(way);
        for change in changes {
            let (copy, run) = lied_to.hear(Lies::new(one_file(), move |request| {
                let mut header = header(request, BYTES);
                change(&mut header);
                let rest = if header.reply.status == Status::Ok { body(BYTES) } else { Vec::new() };
                [header.encode().to_vec(), rest].concat()
            }));
            let run = run.expect_exit(24);
            assert_eq!((run.count("files_failed"), run.paths_of("failed")), (1, vec!["file".to_owned()]));
            assert!(!copy.join("file").exists());
        }
        lied_to.finish();
    }
}

#[test]
fn a_file_that_only_grew_is_confirmed_as_far_as_it_was_offered() {
    for way in BOTH_WAYS {
        let lied_to = LiedTo::by(way);
        for (confirmed, code) in [(true, 0), (false, 24)] {
            let (copy, run) = lied_to.hear(Lies::new(one_file(), move |request| {
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
            }));
            let run = run.expect_exit(code);
            assert_eq!(run.count("files_committed"), u64::from(confirmed));
            let copied = fs::read(copy.join("file")).ok();
            assert_eq!(copied.as_deref(), confirmed.then_some(BYTES));
        }
        lied_to.finish();
    }
}

#[test]
fn bytes_that_never_have_their_crc_are_given_up() {
    for way in BOTH_WAYS {
        let lied_to = LiedTo::by(way);
        let (copy, run) = lied_to.hear(Lies::new(one_file(), |request| {
            let mut answer = truth(request, BYTES);
            answer[50] ^= 1;
            answer
        }));
        let run = run.expect_exit(23);
        assert_eq!((run.count("files_failed"), run.count("bytes_fetched")), (1, 0));
        assert!(run.count("chunks_refetched") > 0 && run.stderr.contains("CRC-32 mismatch"), "{}", run.stderr);
        assert!(!copy.join("file").exists());
        lied_to.finish();
    }
}

#[test]
fn a_link_planted_while_the_file_is_on_its_way_is_not_followed() {
    for way in BOTH_WAYS {
        let lied_to = LiedTo::by(way);
        let (copy, elsewhere) = (lied_to.copy(), lied_to.copy());
        fs::create_dir(&elsewhere).expect("create");
        let planted = AtomicBool::new(false);
        let (sub, target) = (copy.join("sub"), elsewhere.clone());
        let entries = vec![listing("", vec![dir("sub")]), listing("sub", vec![file("one", BYTES), file("two", BYTES)])];
        let lies = Lies::new(offer(entries), move |request| {
            if !planted.swap(true, Ordering::AcqRel) {
                fs::rename(&sub, sub.with_file_name("moved away")).expect("move");
                symlink(&target, &sub).expect("link");
            }
            truth(request, BYTES)
        });
        let run = lied_to.hear_at(&copy, lies, "");
        assert!(matches!(run.code, Some(0 | 23)), "{}", run.stderr);
        assert_eq!(fs::read_dir(&elsewhere).expect("read").count(), 0, "nothing is written through the link");
        lied_to.finish();
    }
}
