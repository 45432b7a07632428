//! Senders that lie in bundles of small files: no wrong byte gets a name, and damage costs the bundle and no more.

use std::fs;

use crate::support::lied_to::LiedTo;
use crate::support::lying_sender::Lies;
use crate::support::said::{Offer, file, listing, offer, truth};
use crate::support::way::BOTH_WAYS;
use fastcp_model::{ByteRange, Status};
use fastcp_wire::bundle::{BundleRequest, Bundled};
use fastcp_wire::reply::Trailer;
use fastcp_wire::request::{Ask, ExtendedRequest, RangeRequest, Request};

const BYTES: &[u8] = b"the bytes of a file";

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

/// Two files from a sender that answers the request for both of them as `answer` says.
fn bundled(answer: impl Fn(&BundleRequest) -> Vec<u8> + Send + Sync + 'static) -> Lies {
    Lies::bundling(two_files(), move |request| match request {
        Request::Extended(ExtendedRequest::Bundle(request)) => answer(request),
        Request::Extended(ExtendedRequest::Range(request)) => truth(request, BYTES),
        Request::Plain(_) => unreachable!(),
    })
}

#[test]
fn bundles_come_one_by_one_or_compressed() {
    let answers: [fn(&BundleRequest) -> Vec<u8>; 2] =
        [pieces_of, |request| bundle_of(request, &pieces_of(request), request.files.len())];
    for way in BOTH_WAYS {
        let lied_to = LiedTo::by(way);
        for answer in answers {
            let (copy, run) = lied_to.hear(bundled(answer));
            run.expect_exit(0).expect_counts(&[("files_committed", 2), ("chunks_refetched", 0), ("reconnects", 0)]);
            assert_eq!(fs::read(copy.join("two")).expect("arrived"), BYTES);
        }
        lied_to.finish();
    }
}

#[test]
fn a_damaged_bundle_is_asked_for_again_file_by_file() {
    for way in BOTH_WAYS {
        let lied_to = LiedTo::by(way);
        for at in [50, 60] {
            let (copy, run) = lied_to.hear(bundled(move |request| {
                let mut bytes = bundle_of(request, &pieces_of(request), request.files.len());
                bytes[at] ^= 0x10;
                bytes
            }));
            run.expect_exit(0).expect_counts(&[("files_committed", 2), ("chunks_refetched", 2), ("reconnects", 0)]);
            assert_eq!(fs::read(copy.join("two")).expect("arrived"), BYTES);
        }
        lied_to.finish();
    }
}

#[test]
fn bytes_left_over_in_a_bundle_harm_nobody() {
    for way in BOTH_WAYS {
        let lied_to = LiedTo::by(way);
        let (copy, run) =
            lied_to.hear(bundled(|request| bundle_of(request, &[&pieces_of(request)[..], b"more"].concat(), 2)));
        // Both files are there by then: whether the mistake is still of interest is a matter of time.
        assert!(matches!(run.code, Some(0 | 12)), "{}", run.stderr);
        assert_eq!(fs::read(copy.join("two")).expect("arrived"), BYTES);
        lied_to.finish();
    }
}

#[test]
fn a_bundle_that_ends_too_early_costs_the_connection() {
    for way in BOTH_WAYS {
        let lied_to = LiedTo::by(way);
        let (copy, run) = lied_to.hear(bundled(|request| {
            let pieces = pieces_of(request);
            bundle_of(request, &pieces[..pieces.len() - 7], 2)
        }));
        run.expect_exit(0).expect_counts(&[("files_committed", 2), ("reconnects", 1)]);
        assert_eq!(fs::read(copy.join("two")).expect("arrived"), BYTES);
        lied_to.finish();
    }
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
    for way in BOTH_WAYS {
        let lied_to = LiedTo::by(way);
        for (what, lie) in lies {
            let (copy, run) = lied_to.hear(bundled(lie));
            assert_eq!(run.code, Some(12), "{what}: {}", run.stderr);
            for name in ["one", "two"] {
                let copied = fs::read(copy.join(name));
                assert!(copied.is_err() || copied.is_ok_and(|bytes| bytes == BYTES), "{what}: {name}");
            }
        }
        lied_to.finish();
    }
}
