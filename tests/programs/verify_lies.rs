//! `verify` against a sender that keeps to the handshake and then lies, changes its mind or breaks off:
//! what can be told from a difference is told apart, and nothing is guessed.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::support::Workspace;
use crate::support::client::{Client, Run};
use crate::support::lying_sender::LyingSender;
use crate::support::said::{Offer, body, file, header, listing, offer};
use crate::support::tree::set_mtime;
use fastcp_model::{ListingEnd, Status};
use fastcp_wire::offer::OfferEnd;
use fastcp_wire::reply::{BodyKind, PieceHeader, Reply};
use fastcp_wire::request::{Ask, RangeRequest};

const BYTES: &[u8] = b"the bytes of a file";

fn hash_answer(request: &RangeRequest, change: impl Fn(&mut PieceHeader)) -> Vec<u8> {
    assert_eq!(request.ask, Ask::Hash);
    let mut header = header(request, BYTES);
    (header.kind, header.body_bytes) = (BodyKind::Hash, 32);
    change(&mut header);
    [header.encode().to_vec(), body(blake3::hash(BYTES).as_bytes())].concat()
}

/// Compares a directory that holds what is offered, and `more`, with a sender that answers like this.
fn verify_lies(end: ListingEnd, answer: impl Fn(&RangeRequest) -> Vec<u8> + Send + Sync + 'static) -> Run {
    let mut root = listing("", vec![file("file", BYTES)]);
    root.end = end;
    verify_offer(offer(vec![root]), answer)
}

fn verify_offer(offer: Offer, answer: impl Fn(&RangeRequest) -> Vec<u8> + Send + Sync + 'static) -> Run {
    let workspace = Workspace::new();
    let copy = workspace.at("copy");
    fs::create_dir(&copy).expect("create");
    fs::write(copy.join("file"), BYTES).expect("write");
    fs::write(copy.join("more"), BYTES).expect("write");
    for (path, mode) in [(copy.join("file"), 0o644), (copy.clone(), 0o755)] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("chmod");
        set_mtime(&path, 1_600_000_000, 5);
    }
    let sender = LyingSender::start(offer, answer);
    Client::verify(&copy, sender.url()).options("--retry 1").run()
}

#[test]
fn only_what_is_listed_completely_has_extraneous_entries() {
    let truth = |request: &RangeRequest| hash_answer(request, |_| {});
    verify_lies(ListingEnd::Complete, truth).expect_differences(&[("extraneous", "more")]);
    verify_lies(ListingEnd::Selected, truth).expect_differences(&[]);
    let run = verify_lies(ListingEnd::Broken(Status::PermissionDenied), truth).expect_exit(23);
    assert_eq!((run.differences().len(), run.paths_of("failed")), (0, vec![".".to_owned()]));
    let run = verify_lies(ListingEnd::More, truth);
    assert_eq!(run.code, Some(12), "{}", run.stderr);
}

/// The end knows of a failure, or of entries, that no listing told.
#[test]
fn an_end_that_counts_otherwise_breaks_the_offer() {
    for end in [OfferEnd { entries: 2, failures: 1 }, OfferEnd { entries: 3, failures: 0 }] {
        let mut root = listing("", vec![file("file", BYTES)]);
        root.end = ListingEnd::Selected;
        let mut frames = offer(vec![root]);
        frames[1].1 = end.encode();
        let run = verify_offer(frames, |request| hash_answer(request, |_| {})).expect_exit(12);
        assert!(run.stderr.contains("invalid offer"), "{}", run.stderr);
    }
}

#[test]
fn a_source_that_moves_on_is_said_and_exits_with_24() {
    type Change = fn(&mut PieceHeader);
    let changes: [Change; 2] = [|header| header.reply.mtime_ns += 1, |header| header.reply.file_bytes += 1];
    for change in changes {
        let run = verify_lies(ListingEnd::Selected, move |request| hash_answer(request, change)).expect_exit(24);
        assert_eq!((run.count("files_failed"), run.count("files_verified")), (1, 0));
        assert!(run.stderr.contains("changed"), "{}", run.stderr);
    }
    let failed = |request: &RangeRequest, status| {
        let reply = Reply::failed(status);
        PieceHeader { reply, id: request.id, kind: BodyKind::Raw, body_bytes: 0 }.encode().to_vec()
    };
    verify_lies(ListingEnd::Selected, move |request| failed(request, Status::NotFound)).expect_exit(24);
    verify_lies(ListingEnd::Selected, move |request| failed(request, Status::BadRange)).expect_exit(24);
    verify_lies(ListingEnd::Selected, move |request| failed(request, Status::InputOutput)).expect_exit(23);
    // A difference that is known weighs more than a file that moved on.
    let run = verify_lies(ListingEnd::Complete, move |request| failed(request, Status::NotFound)).expect_exit(23);
    assert_eq!(run.differences().len(), 1);
}

#[test]
fn a_damaged_answer_is_asked_for_again_and_a_lie_ends_the_run() {
    let was_damaged = AtomicBool::new(false);
    let run = verify_lies(ListingEnd::Selected, move |request| {
        let mut answer = hash_answer(request, |_| {});
        answer[50] ^= u8::from(!was_damaged.swap(true, Ordering::Relaxed));
        answer
    });
    run.expect_differences(&[]).expect_counts(&[("files_verified", 1), ("reconnects", 0)]);
    let run = verify_lies(ListingEnd::Selected, |request| {
        let mut answer = hash_answer(request, |_| {});
        answer[50] ^= 1;
        answer
    });
    run.expect_exit(23).expect_counts(&[("files_failed", 1), ("differences", 0)]);
    let trailer_says = |status: Status, times: usize| {
        let asked = AtomicUsize::new(0);
        move |request: &RangeRequest| {
            let mut answer = hash_answer(request, |_| {});
            if asked.fetch_add(1, Ordering::Relaxed) < times {
                let end = answer.len();
                answer[end - 2..].copy_from_slice(&status.code().to_be_bytes());
            }
            answer
        }
    };
    verify_lies(ListingEnd::Selected, trailer_says(Status::Changed, 1)).expect_differences(&[]);
    verify_lies(ListingEnd::Selected, trailer_says(Status::Changed, 1000)).expect_exit(24);
    verify_lies(ListingEnd::Selected, trailer_says(Status::InputOutput, 1000)).expect_exit(23);
    type Lie = fn(&mut PieceHeader);
    let lies: [Lie; 4] = [
        |header| header.id += 1,
        |header| header.kind = BodyKind::Raw,
        |header| header.body_bytes = 17,
        |header| header.body_bytes = 0,
    ];
    for lie in lies {
        let run = verify_lies(ListingEnd::Selected, move |request| hash_answer(request, lie)).expect_exit(12);
        assert!(run.stderr.contains("protocol error"), "{}", run.stderr);
    }
}
