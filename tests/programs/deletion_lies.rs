//! `--delete` by the offers of a sender that fails, breaks off or lies: what is not known to be gone stays.

use std::fs;

use fastcp_model::{EntryFailure, Listing, ListingEnd, Status};
use fastcp_wire::frame::FrameType;
use fastcp_wire::offer::OfferEnd;

use crate::support::client::Run;
use crate::support::copied::Copied;
use crate::support::extra::{EXTRA, refusals};
use crate::support::lying_sender::Lies;
use crate::support::said::{Offer, dir, file, listing, name, offer, truth};
use crate::support::way::{BOTH_WAYS, Way};

/// What a sender that makes this offer brings about in a copy that has more.
fn delete_by(way: Way, offer: Offer) -> (Copied, Run) {
    let copied = Copied::with_extra_by(way);
    let run = copied.hear(Lies::new(offer, |request| truth(request, b"bytes")), "--delete --retry 1");
    (copied, run)
}

#[test]
fn an_honest_offer_deletes() {
    for way in BOTH_WAYS {
        let listings = vec![listing("", vec![file("file", b"bytes"), dir("sub")]), listing("sub", vec![])];
        let (copied, run) = delete_by(way, offer(listings));
        // Root's three and the pair below, with all that is in `sub` and `gone`.
        run.expect_exit(0).expect_counts(&[("deleted", EXTRA + 5), ("files_committed", 1)]);
        assert_eq!(fs::read_dir(copied.copy.join("sub")).expect("read").count(), 0);
        assert!(!copied.copy.join("gone").exists());
    }
}

#[test]
fn an_offer_with_any_failure_deletes_nothing() {
    for way in BOTH_WAYS {
        let whole = || vec![listing("", vec![file("file", b"bytes"), dir("sub")]), listing("sub", vec![])];
        let mut entry_failed = whole();
        entry_failed[1].failures = vec![EntryFailure { name: name("odd"), cause: Status::NameTooLong }];
        let mut broken = whole();
        broken[1].end = ListingEnd::Broken(Status::PermissionDenied);
        for listings in [entry_failed, broken] {
            let (copied, run) = delete_by(way, offer(listings));
            let run = run.expect_exit(23).expect_counts(&[("deleted", 0), ("files_committed", 1), ("files_failed", 1)]);
            assert_eq!(refusals(&run), ["source errors"]);
            copied.assert_extra_kept();
        }
    }
}

#[test]
fn an_offer_whose_end_counts_what_no_listing_told_deletes_nothing() {
    for way in BOTH_WAYS {
        for end in [OfferEnd { entries: 3, failures: 1 }, OfferEnd { entries: 4, failures: 0 }] {
            let mut frames = offer(vec![listing("", vec![file("file", b"bytes"), dir("sub")]), listing("sub", vec![])]);
            frames[1].1 = end.encode();
            let (copied, run) = delete_by(way, frames);
            let run = run.expect_exit(12).expect_counts(&[("deleted", 0)]);
            assert_eq!(refusals(&run), ["cut short"]);
            copied.assert_extra_kept();
        }
    }
}

#[test]
fn an_offer_that_is_cut_short_deletes_nothing() {
    for way in BOTH_WAYS {
        let whole = || offer(vec![listing("", vec![file("file", b"bytes"), dir("sub")]), listing("sub", vec![])]);
        let mut torn = whole();
        torn[1] = (FrameType::Hello, Vec::new());
        let mut unlisted = offer(vec![listing("", vec![dir("sub")])]);
        unlisted[1].1 = OfferEnd { entries: 2, failures: 0 }.encode();
        let twice = offer(vec![listing("", vec![file("file", b"bytes")]), listing("", vec![])]);
        let below =
            |end| offer(vec![listing("", vec![dir("sub")]), listing("sub", vec![file("small", b"bytes")]), end]);
        let twice_below = below(listing("sub", vec![]));
        for frames in [torn, unlisted, twice, twice_below] {
            let (copied, run) = delete_by(way, frames);
            let run = run.expect_exit(12).expect_counts(&[("deleted", 0)]);
            assert_eq!(refusals(&run), ["cut short"]);
            copied.assert_extra_kept();
        }
    }
}

/// The same of a sender whose first control connection is cut before the end of its offer.
fn delete_by_two(way: Way, first: Vec<Listing>, second: Vec<Listing>) -> (Copied, Run) {
    let copied = Copied::with_extra_by(way);
    let mut torn = offer(first);
    torn.pop();
    let run = copied.hear(Lies::in_turn(vec![torn, offer(second)], |request| truth(request, b"bytes")), "--delete");
    (copied, run)
}

#[test]
fn an_offer_that_comes_twice_deletes_what_neither_has() {
    for way in BOTH_WAYS {
        let whole = || vec![listing("", vec![file("file", b"bytes"), dir("sub")]), listing("sub", vec![dir("text")])];
        let all = || [whole(), vec![listing("sub/text", vec![])]].concat();
        let mut root_begun = all();
        root_begun.truncate(1);
        root_begun[0].entries.truncate(1);
        root_begun[0].end = ListingEnd::More;
        for first in [root_begun, whole(), all()] {
            let (copied, run) = delete_by_two(way, first, all());
            run.expect_exit(0).expect_counts(&[("deleted", EXTRA + 4), ("files_committed", 1), ("reconnects", 1)]);
            assert_eq!(fs::read_dir(copied.copy.join("sub")).expect("read").count(), 1);
        }
        // What the second offer names stays, even where both name as many.
        let first = vec![listing("", vec![file("file", b"bytes"), dir("sub")])];
        let second = vec![listing("", vec![file("extra", b"bytes"), dir("sub")]), listing("sub", vec![])];
        let (copied, run) = delete_by_two(way, first, second);
        let run = run.expect_exit(23).expect_counts(&[("deleted", 0)]);
        assert_eq!(refusals(&run), ["source errors"]);
        copied.assert_extra_kept();
        // The server comes back without its disk; what it had not listed yet has vanished.
        for (first, code) in [(all(), 23), (whole(), 24)] {
            let (copied, run) = delete_by_two(way, first, vec![listing("", vec![])]);
            let run = run.expect_exit(code).expect_counts(&[("deleted", 0)]);
            assert_eq!(refusals(&run), ["source errors"]);
            copied.assert_extra_kept();
        }
    }
}
