//! Servers that attack whoever pulls from them, and clients that attack the server which they push to: the receiver says what
//! is wrong and ends that run, writes nothing outside of its destination, and does not grow. What lies in answers to ranges
//! does is in `lies.rs`, `bundle_lies.rs`, `delta_lies.rs` and `report_lies.rs`; `LiedTo` has an honest push go on beside.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fastcp_model::{Capabilities, Entry, EntryKind, Listing, ListingEnd};
use fastcp_wire::frame::FrameType;
use fastcp_wire::offer::{BatchCodec, OfferBatch, OfferEnd};
use fastcp_wire::reply::{BodyKind, PieceHeader};
use fastcp_wire::request::RangeRequest;

use crate::support::lied_to::LiedTo;
use crate::support::lying_sender::Lies;
use crate::support::memory::try_peak_mib;
use crate::support::said::{Offer, body, dir, file, header, link, listing, offer, truth};
use crate::support::wait_until;
use crate::support::way::{BOTH_WAYS, Way};

const BYTES: &[u8] = &[7; 100_000];
/// A receiver of a small tree needs no more than this, whatever it is told.
const PEAK_MIB_MAX: u64 = 200;

fn batch_of(listings: Vec<Listing>) -> Vec<u8> {
    OfferBatch { owners: Vec::new(), listings }.encode(BatchCodec::Raw).expect("lawful")
}

/// An offer of this batch, and its end.
fn offer_of(payload: Vec<u8>, entries: u64) -> Offer {
    let end = OfferEnd { entries, failures: 0 };
    vec![(FrameType::OfferBatch, payload), (FrameType::OfferEnd, end.encode().to_vec())]
}

/// The same bytes with others in place of some, which are as many.
fn with(mut bytes: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let places = bytes.windows(from.len()).enumerate().filter(|(_, window)| *window == from);
    let places: Vec<usize> = places.map(|(at, _)| at).collect();
    assert!(!places.is_empty());
    places.into_iter().for_each(|at| bytes[at..at + to.len()].copy_from_slice(to));
    bytes
}

/// Offers that no lawful sender can make.
fn unlawful() -> Vec<(String, Offer)> {
    let one = |entry: Entry| batch_of(vec![listing("", vec![entry])]);
    let mut all: Vec<(String, Offer)> =
        [(&b"~~~x"[..], &b"../x"[..]), (b"~etc", b"/etc"), (b"~~", b".."), (b"~", b".")]
            .into_iter()
            .map(|(stand_in, name)| {
                let name_of = std::str::from_utf8(stand_in).expect("text");
                let what = format!("a file {}", name.escape_ascii());
                (what, offer_of(with(one(file(name_of, BYTES)), stand_in, name), 2))
            })
            .collect();
    let below = batch_of(vec![listing("", vec![dir("~~")]), listing("~~", vec![file("x", BYTES)])]);
    all.push(("a directory ..".into(), offer_of(with(below, b"~~", b".."), 3)));
    let through = vec![listing("", vec![link("l", "../neighbour")]), listing("l", vec![file("x", BYTES)])];
    all.push(("a path through a link".into(), offer(through)));
    let lawful = one(file("f", BYTES));
    for at in 0..lawful.len().saturating_sub(4).min(24) {
        let mut bytes = lawful.clone();
        bytes[at..at + 4].copy_from_slice(&[0xff; 4]);
        all.push((format!("2^32 - 1 at {at}"), offer_of(bytes, 2)));
    }
    for claimed in [1000, 8 << 20, u32::MAX] {
        let bomb = [&[BatchCodec::Zstd as u8][..], &claimed.to_be_bytes(), &bomb(256 << 20)].concat();
        all.push((format!("a bomb that claims {claimed}"), offer_of(bomb, 2)));
    }
    all
}

/// So many zeros, compressed.
fn bomb(bytes: u64) -> Vec<u8> {
    zstd::encode_all(std::io::repeat(0).take(bytes), 1).expect("compress")
}

#[test]
fn offers_that_nobody_can_make_lead_nowhere() {
    for way in BOTH_WAYS {
        let lied_to = LiedTo::by(way);
        // A server's lines are told apart by ports, which are used again where there are many runs.
        let of_way = |what: &str| way == Way::Pull || !what.starts_with("2^32");
        for (what, offer) in unlawful().into_iter().filter(|(what, _)| of_way(what)) {
            let hearing = lied_to.start(
                &lied_to.copy(),
                Lies::new(offer, |request| truth(request, BYTES)),
                "--retry 1 --conns 1",
            );
            let run = hearing.finish();
            // Some of the numbers are times and owners, which may be any.
            let is_sound = matches!(run.code, Some(12 | 23 | 24)) || (run.code == Some(0) && what.starts_with("2^32"));
            assert!(is_sound, "{what}: {:?} {}", run.code, run.stderr);
        }
        lied_to.finish();
    }
}

#[test]
fn a_file_of_any_size_fails_alone() {
    for way in BOTH_WAYS {
        let lied_to = LiedTo::by(way);
        let stand_in = 0x4142_4344_4546_4748_u64;
        let huge = Entry { kind: EntryKind::File { size_bytes: stand_in, sparse: true }, ..file("huge", b"") };
        let lawful = batch_of(vec![listing("", vec![file("file", BYTES), huge])]);
        for size in [1_u64 << 63, u64::MAX, i64::MAX as u64] {
            let payload = with(lawful.clone(), &stand_in.to_be_bytes(), &size.to_be_bytes());
            let copy = lied_to.copy();
            let lies = Lies::new(offer_of(payload, 3), |request| truth(request, BYTES));
            let run = lied_to.hear_at(&copy, lies, "--retry 1 --conns 1");
            assert!(matches!(run.code, Some(12 | 23)), "{size}: {:?} {}", run.code, run.stderr);
            assert!(!copy.join("huge").exists());
        }
        lied_to.finish();
    }
}

/// A body that is a few bytes and becomes many.
#[test]
fn a_bomb_in_place_of_a_range_is_not_unpacked() {
    let bomb: Arc<[u8]> = bomb(64 << 20).into();
    for way in BOTH_WAYS {
        let lied_to = LiedTo::by(way);
        let bomb = Arc::clone(&bomb);
        let lie = move |request: &RangeRequest| {
            if request.ask.is_confirmation() {
                return truth(request, BYTES);
            }
            let header = PieceHeader { kind: BodyKind::Zstd, body_bytes: bomb.len() as u32, ..header(request, BYTES) };
            [&header.encode()[..], &body(&bomb)].concat()
        };
        let (copy, run) = lied_to.hear(Lies::new(offer(vec![listing("", vec![file("file", BYTES)])]), lie));
        assert!(matches!(run.code, Some(12 | 23)), "{:?} {}", run.code, run.stderr);
        assert!(!copy.join("file").exists());
        lied_to.finish();
    }
}

/// An offer of far more than anybody plans at a time, of files that are never answered for: it is read as far as there is
/// room.
#[test]
fn an_offer_that_is_never_kept_takes_a_bounded_amount_of_memory() {
    let part = |nth: usize| {
        let entries = (0..1000).map(|name| file(&format!("{nth:0>8}{name:0>240}"), BYTES)).collect();
        let root = listing("", Vec::new()).root.filter(|_| nth == 0);
        (FrameType::OfferBatch, batch_of(vec![Listing { end: ListingEnd::More, root, ..listing("", entries) }]))
    };
    let parts: Offer = (0..120).map(part).collect();
    let without = Capabilities::BUNDLE | Capabilities::DELTA;
    for way in BOTH_WAYS {
        let lied_to = LiedTo::by(way);
        let lies = Lies::sending(parts.clone(), Capabilities::SUPPORTED.difference(without), |_, stream| {
            // No answer until the other end is gone.
            stream.read_to_end(&mut Vec::new()).map(drop)
        });
        let hearing = lied_to.start(&lied_to.copy(), lies, "--retry 1 --conns 1");
        let (pid, is_over) = (hearing.receiver_pid(), AtomicBool::new(false));
        let peak = std::thread::scope(|threads| {
            let sampling = threads.spawn(|| {
                let mut peak = 0;
                wait_until("the end", || {
                    peak = try_peak_mib(pid).unwrap_or(peak);
                    is_over.load(Ordering::Acquire)
                });
                peak
            });
            let run = hearing.finish();
            is_over.store(true, Ordering::Release);
            assert!(run.code.is_some_and(|code| code != 0), "{:?} {}", run.code, run.stderr);
            sampling.join().expect("join")
        });
        assert!((1..PEAK_MIB_MAX).contains(&peak), "{peak} MiB");
        lied_to.finish();
    }
}
