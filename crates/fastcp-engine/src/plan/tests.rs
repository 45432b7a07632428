use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use fastcp_model::{Entry, EntryFailure, EntryKind, Listing, ListingEnd, SpecialKind, Status};
use fastcp_net::NetError;
use fastcp_wire::limits::FILE_BYTES_MAX;
use fastcp_wire::offer::{OfferBatch, OfferEnd};

use super::Planner;
use crate::commit::transfer::Transfer;
use crate::commit::transfer::tests::{Stage, metadata, name, path};
use crate::error::RunError;
use crate::report::{Counters, Refusal};
use crate::schedule::job::FileJob;
use crate::schedule::{Held, Next};
use crate::settings::{Deletion, EmptySource};

/// The time of what is offered.
const SECS: i64 = 1000;

fn entry(text: &str, kind: EntryKind) -> Entry {
    let mode = if kind == EntryKind::Dir { 0o755 } else { 0o644 };
    Entry { name: name(text), kind, metadata: metadata(mode, SECS) }
}

fn file(text: &str, size_bytes: u64) -> Entry {
    entry(text, EntryKind::File { size_bytes, sparse: false })
}

fn dir(text: &str) -> Entry {
    entry(text, EntryKind::Dir)
}

fn link(text: &str) -> Entry {
    entry(text, EntryKind::Symlink { target: b"target".as_slice().into() })
}

fn listing(dir: &str, entries: Vec<Entry>) -> Listing {
    Listing { dir: path(dir), root: None, entries, failures: Vec::new(), end: ListingEnd::Complete }
}

fn batch(listings: Vec<Listing>) -> OfferBatch {
    OfferBatch { owners: Vec::new(), listings }
}

fn end_of(listings: &[Listing]) -> OfferEnd {
    let entries = listings.iter().map(|listing| listing.entries.len() as u64).sum();
    OfferEnd { entries, failures: 0 }
}

/// Plans the listings as one offer.
fn plan(transfer: &Transfer<'_>, listings: Vec<Listing>) -> Result<(), RunError> {
    let mut planner = Planner::new(transfer);
    let end = end_of(&listings);
    planner.plan(batch(listings))?;
    planner.finish(&end)
}

/// Takes every file that was asked for, and fails it; answers their paths, in order.
fn asked(transfer: &Transfer<'_>) -> Vec<String> {
    let (mut paths, mut wants) = (Vec::new(), Vec::new());
    transfer.schedule.close();
    while matches!(transfer.schedule.next(&Held { rate: 1, ..Held::default() }, &mut wants), Next::Wants) {
        for want in wants.drain(..) {
            if want.job.fail() {
                paths.push(want.job.path().to_string());
                transfer.finisher().release(&want.job.dir);
            }
            transfer.schedule.done(&want, Vec::new());
        }
    }
    paths.sort_unstable();
    paths
}

/// Writes five bytes that are as they are offered.
fn write_same(path: &Path) {
    fs::write(path, b"bytes").expect("write");
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("set");
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(SECS.unsigned_abs());
    fs::File::options().write(true).open(path).and_then(|file| file.set_modified(time)).expect("set");
}

/// Files wanted and unchanged, links made, directories made.
fn work(counters: &Counters) -> [u64; 4] {
    [&counters.files_wanted, &counters.files_unchanged, &counters.links_made, &counters.dirs_made]
        .map(|count| count.now())
}

fn tree() -> Vec<Listing> {
    let fifo = entry("z", EntryKind::Special(SpecialKind::Fifo));
    vec![
        listing("", vec![dir("a"), file("b", 5), link("c"), fifo]),
        listing("a", vec![dir("deep"), file("f", 70_000)]),
        listing("a/deep", vec![file("g", 0)]),
    ]
}

#[test]
fn what_is_missing_is_made_or_asked_for() {
    // However many directories are planned at a time.
    for listings in [1, 2, 100] {
        let mut stage = Stage::new();
        stage.listings = Some(listings);
        stage.transfer(|transfer| {
            plan(transfer, tree()).expect("planned");
            assert_eq!(work(&stage.report.counters), [3, 0, 1, 2]);
            assert_eq!(stage.report.counters.special_skipped.now(), 1);
            assert_eq!(stage.report.counters.entries.now(), 7);
            assert_eq!(fs::read_link(stage.at("c")).expect("a link").to_str(), Some("target"));
            assert!(stage.at("a/deep").is_dir() && !stage.at("b").exists());
            assert!(!stage.report.run.is_root_finished(), "it waits for its files");
            assert_eq!(asked(transfer), ["a/deep/g", "a/f", "b"]);
        });
        assert!(stage.report.run.is_root_finished());
        assert_eq!(stage.failed(), []);
    }
}

#[test]
fn what_is_as_offered_costs_nothing_more() {
    let stage = Stage::new();
    stage.transfer(|transfer| {
        fs::create_dir_all(stage.at("a/deep")).expect("create");
        for below in ["b", "a/f", "a/deep/g"] {
            write_same(&stage.at(below));
        }
        fs::set_permissions(stage.at("a/f"), fs::Permissions::from_mode(0o600)).expect("set");
        let listings = vec![
            listing("", vec![dir("a"), file("b", 5)]),
            listing("a", vec![dir("deep"), file("f", 5)]),
            listing("a/deep", vec![file("g", 6)]),
        ];
        plan(transfer, listings).expect("planned");
        assert_eq!(work(&stage.report.counters), [1, 2, 0, 0]);
        let mode = stage.at("a/f").metadata().expect("examine").permissions().mode();
        assert_eq!(mode & 0o7777, 0o644, "mended at once");
        assert_eq!(asked(transfer), ["a/deep/g"]);
    });
    assert!(stage.report.run.is_root_finished());
}

#[test]
fn what_cannot_be_made_fails_alone() {
    let stage = Stage::new();
    stage.transfer(|transfer| {
        fs::create_dir_all(stage.at("a/full")).expect("create");
        fs::create_dir(stage.at("b")).expect("create");
        fs::write(stage.at("d"), b"a file").expect("write");
        let listings = vec![
            listing("", vec![file("a", 5), link("b"), file("c", FILE_BYTES_MAX + 1), dir("d")]),
            listing("d", vec![]),
        ];
        plan(transfer, listings).expect("planned");
        assert_eq!(work(&stage.report.counters), [0, 0, 1, 1]);
        assert!(stage.at("a/full").is_dir() && stage.at("b").is_symlink() && stage.at("d").is_dir());
        assert_eq!(asked(transfer), Vec::<String>::new());
    });
    assert_eq!(stage.failed(), [("a".to_owned(), "directory in the way"), ("c".to_owned(), "too large")]);
    assert!(stage.report.run.is_root_finished());
}

#[test]
fn an_offer_that_makes_no_sense_ends_the_run() {
    let root = |entries| listing("", entries);
    let count_of_one = OfferEnd { entries: 1, failures: 0 };
    let cases = [
        ("a directory that was not named", vec![root(vec![file("a", 1)]), listing("b", vec![])], None),
        ("the root twice", vec![root(vec![]), root(vec![])], None),
        ("a directory twice", vec![root(vec![dir("a")]), listing("a", vec![]), listing("a", vec![])], None),
        ("names that descend", vec![root(vec![file("b", 1), file("a", 1)])], None),
        ("a name twice", vec![root(vec![file("a", 1), file("a", 1)])], None),
        ("a directory and a file of one name", vec![root(vec![dir("a"), file("a", 1)])], None),
        ("what is ours", vec![root(vec![dir(".fastcp")])], None),
        ("no root", vec![], None),
        ("a directory without its listing", vec![root(vec![dir("a")])], None),
        ("another count", vec![root(vec![])], Some(count_of_one)),
        ("another count of failures", vec![root(vec![])], Some(OfferEnd { entries: 0, failures: 1 })),
    ];
    for (case, listings, end) in cases {
        let stage = Stage::new();
        stage.transfer(|transfer| {
            let mut planner = Planner::new(transfer);
            let end = end.unwrap_or_else(|| end_of(&listings));
            let result = planner.plan(batch(listings)).and_then(|()| planner.finish(&end));
            let error = result.expect_err(case);
            assert!(matches!(error, RunError::Net { source: NetError::Offer(_), .. }), "{case}: {error:?}");
        });
    }
}

#[test]
fn a_directory_that_comes_in_parts_is_one_directory() {
    let stage = Stage::new();
    stage.transfer(|transfer| {
        let part = |entries| Listing { end: ListingEnd::More, ..listing("", entries) };
        let listings =
            vec![part(vec![file("a", 1)]), part(vec![]), part(vec![file("b", 1)]), listing("", vec![file("c", 1)])];
        plan(transfer, listings).expect("planned");
        assert_eq!(asked(transfer), ["a", "b", "c"]);
        let listings = vec![part(vec![file("b", 1)]), listing("", vec![file("a", 1)])];
        plan(transfer, listings).expect_err("its names ascend over all parts");
    });
}

#[test]
fn an_offer_that_comes_once_more_is_planned_once() {
    let stage = Stage::new();
    stage.transfer(|transfer| {
        let mut planner = Planner::new(transfer);
        let part = |entries| Listing { end: ListingEnd::More, ..listing("", entries) };
        planner.plan(batch(vec![part(vec![dir("a"), dir("b"), file("c", 1)])])).expect("planned");
        planner.plan(batch(vec![listing("a", vec![file("x", 1)])])).expect("planned");
        assert_eq!(work(&stage.report.counters), [2, 0, 0, 2]);
        // Meanwhile `b` was removed at the source, and `d` made.
        planner.replay();
        let again = vec![
            listing("", vec![dir("a"), file("c", 1), file("d", 1)]),
            listing("a", vec![file("x", 1), file("y", 1)]),
        ];
        let end = end_of(&again);
        planner.plan(batch(again)).expect("planned");
        planner.finish(&end).expect("it counts from its beginning");
        assert_eq!(work(&stage.report.counters), [3, 0, 0, 2]);
        assert_eq!(
            asked(transfer),
            ["a/x", "c", "d"],
            "what came after a listing that was complete comes with the next run"
        );
    });
    assert_eq!(stage.failed(), [("b".to_owned(), "vanished at the source")]);
    assert!(stage.report.run.is_root_finished());
}

#[test]
fn failures_at_the_source_are_told_and_the_rest_is_planned() {
    let stage = Stage::new();
    stage.transfer(|transfer| {
        let failure = EntryFailure { name: name("b"), cause: Status::PermissionDenied };
        let listings = vec![
            Listing { failures: vec![failure], ..listing("", vec![dir("a"), file("c", 1)]) },
            Listing { end: ListingEnd::Broken(Status::InputOutput), ..listing("a", vec![file("x", 1)]) },
        ];
        let mut planner = Planner::new(transfer);
        let end = OfferEnd { failures: 2, ..end_of(&listings) };
        planner.plan(batch(listings)).expect("planned");
        planner.finish(&end).expect("finished");
        assert_eq!(asked(transfer), ["a/x", "c"]);
    });
    let failed = [("a".to_owned(), "failed at the source"), ("b".to_owned(), "permission denied at the source")];
    assert_eq!(stage.failed(), failed);
    assert!(!stage.report.run.is_source_read());
}

#[test]
fn a_run_that_was_stopped_plans_no_further() {
    let mut stage = Stage::new();
    stage.listings = Some(1);
    stage.transfer(|transfer| {
        transfer.schedule.stop();
        let mut planner = Planner::new(transfer);
        let listings = vec![listing("", vec![dir("a"), file("b", 1)]), listing("a", vec![dir("deep")])];
        planner.plan(batch(listings)).expect("no failure");
        assert!(stage.at("a").exists() && !stage.at("a/deep").exists());
    });
}

/// A stage whose runs delete.
fn deleting() -> Stage {
    let mut stage = Stage::new();
    stage.settings.deletion = Some(Deletion { max: None, empty_source: EmptySource::Refused });
    fs::create_dir_all(stage.at("extra/deep")).expect("create");
    fs::write(stage.at("other"), b"other").expect("write");
    stage
}

#[test]
fn what_only_the_destination_has_goes_when_the_offer_has_ended() {
    let stage = deleting();
    fs::create_dir_all(stage.at("b/full")).expect("create");
    stage.transfer(|transfer| {
        let listings = vec![listing("", vec![dir("a"), file("b", 1)]), listing("a", vec![])];
        let mut planner = Planner::new(transfer);
        let end = end_of(&listings);
        planner.plan(batch(listings)).expect("planned");
        assert!(stage.at("extra/deep").exists() && stage.at("other").exists() && stage.at("b/full").exists());
        assert_eq!(stage.report.counters.deleted.now(), 0);
        planner.finish(&end).expect("finished");
        assert_eq!(stage.report.counters.deleted.now(), 4, "what is in `b`, and not `b`, which is replaced");
        assert!(!stage.at("extra").exists() && !stage.at("other").exists() && stage.at("a").exists());
        assert_eq!(asked(transfer), ["b"], "what had its name is gone");
    });
    assert_eq!((stage.report.refusal(), stage.failed()), (None, vec![]));
    assert!(stage.report.run.is_root_finished());
}

#[test]
fn nothing_is_deleted_where_it_is_not_known_what_the_source_has() {
    let listings = || vec![listing("", vec![file("a", 1)])];
    type Ends = fn(&mut Planner<'_>, Vec<Listing>) -> Result<(), RunError>;
    let cases: [(&str, Ends); 3] = [
        ("another offer the second time", |planner, mut listings| {
            planner.replay();
            listings[0].entries.push(file("b", 1));
            let end = end_of(&listings);
            planner.plan(batch(listings)).and_then(|()| planner.finish(&end))
        }),
        ("an end that counts otherwise", |planner, _| planner.finish(&OfferEnd { entries: 1, failures: 1 })),
        ("no end", |_, _| Ok(())),
    ];
    for (case, finish) in cases {
        let stage = deleting();
        stage.transfer(|transfer| {
            let mut planner = Planner::new(transfer);
            planner.plan(batch(listings())).expect("planned");
            let finished = finish(&mut planner, listings());
            assert_eq!(finished.is_err(), case == "an end that counts otherwise", "{case}");
        });
        assert!(stage.at("extra/deep").exists() && stage.at("other").exists(), "{case}");
        assert_eq!(stage.report.counters.deleted.now(), 0, "{case}");
        assert!(stage.report.refusal().is_some(), "{case}");
        let is_cut_short = case != "another offer the second time";
        assert_eq!(stage.report.refusal() == Some(Refusal::CutShort), is_cut_short, "{case}");
    }
}

/// The only file that was asked for.
fn only_job(transfer: &Transfer<'_>) -> Arc<FileJob> {
    // Nobody waits for a file that was not.
    transfer.schedule.close();
    let mut wants = Vec::new();
    transfer.schedule.next(&Held::default(), &mut wants);
    Arc::clone(&wants.pop().expect("a want").job)
}

/// Plans a file, has it change, and offers it anew as `entry`; hands on what comes of it.
fn offered_anew(stage: &Stage, entry: &Entry, check: impl FnOnce(Option<FileJob>, &FileJob)) {
    stage.transfer(|transfer| {
        let mut planner = Planner::new(transfer);
        planner.plan(batch(vec![listing("", vec![file("file", 100)])])).expect("planned");
        planner.finish(&OfferEnd { entries: 1, failures: 0 }).expect("finished");
        let job = only_job(transfer);
        assert!(job.fail());
        assert!(!stage.report.run.is_root_finished());
        let again = planner.plan_again(&job, entry.clone()).expect("the run goes on");
        let is_again = again.is_some();
        check(again, &job);
        assert_eq!(stage.report.run.is_root_finished(), !is_again, "its directory waits for it, and for nothing else");
    });
}

#[test]
fn a_file_that_changed_is_wanted_as_it_is_now() {
    let stage = Stage::new();
    offered_anew(&stage, &file("file", 77), |again, before| {
        let again = again.expect("a job");
        assert_eq!((again.grid.file_bytes(), again.offered_before, before.offered_before), (77, 1, 0));
        assert!(!again.has_failed());
    });
    assert_eq!(stage.failed(), []);
}

#[test]
fn a_file_that_is_here_by_now_needs_nothing_more() {
    let stage = Stage::new();
    write_same(&stage.at("file"));
    offered_anew(&stage, &file("file", 5), |again, _| assert!(again.is_none()));
    assert_eq!(stage.failed(), []);
}

#[test]
fn a_file_that_is_too_large_when_it_is_offered_anew_fails() {
    for (size_bytes, is_wanted) in [(FILE_BYTES_MAX, true), (FILE_BYTES_MAX + 1, false), (i64::MAX as u64, false)] {
        let stage = Stage::new();
        offered_anew(&stage, &file("file", size_bytes), |again, _| assert_eq!(again.is_some(), is_wanted));
        let failed = if is_wanted { vec![] } else { vec![("file".to_owned(), "too large")] };
        assert_eq!(stage.failed(), failed);
    }
}

#[test]
fn a_file_that_has_become_something_else_fails() {
    for kind in [EntryKind::Dir, EntryKind::Special(SpecialKind::Fifo), link("file").kind] {
        let stage = Stage::new();
        offered_anew(&stage, &entry("file", kind), |again, _| assert!(again.is_none()));
        assert_eq!(stage.failed(), [("file".to_owned(), "changed at the source")]);
    }
}

#[test]
fn a_directory_that_has_taken_the_place_of_a_file_stays() {
    let stage = Stage::new();
    stage.transfer(|transfer| {
        let mut planner = Planner::new(transfer);
        planner.plan(batch(vec![listing("", vec![file("file", 100)])])).expect("planned");
        let job = only_job(transfer);
        fs::create_dir_all(stage.at("file/full")).expect("create");
        assert!(planner.plan_again(&job, file("file", 77)).expect("the run goes on").is_none());
    });
    assert_eq!(stage.failed(), [("file".to_owned(), "directory in the way")]);
    assert!(stage.at("file/full").is_dir());
}
