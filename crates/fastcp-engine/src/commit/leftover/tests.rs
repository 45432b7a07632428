use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, SystemTime};

use fastcp_model::{ByteRange, Capabilities, Name, Timestamp};
use fastcp_sys::Stat;
use fastcp_wire::offer::Scope;

use super::{REUSED_BYTES_MIN, Useful, begin, clear, open_bases};
use crate::commit::transfer::Transfer;
use crate::commit::transfer::tests::{Jobs, Stage, metadata, name, path, root};
use crate::lock::model::Random;
use crate::schedule::job::{FileJob, Start};
use crate::settings::{Delta, Placement};
use crate::target::destination::lawful_name_of;
use crate::target::journal::Record;
use crate::target::part::PartFile;

const FILE_BYTES: u64 = 1_000_000;

fn range(start: u64, end: u64) -> ByteRange {
    ByteRange::new(start, end - start).expect("lawful")
}

/// How an earlier run left its part file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    /// It ended well.
    Closed,
    /// It was killed: no mark closes the journal.
    Killed,
}

/// What an earlier run leaves of `job`: a part file of `part_bytes` and these claims.
fn leave(transfer: &Transfer<'_>, job: &FileJob, part_bytes: u64, claims: &[ByteRange], left: Left) {
    let (_, dir) = root(transfer);
    let place = transfer.destination.part_place(&job.dir, &dir, &job.name).expect("a place");
    let part = PartFile::journaled(place, &job.binding()).expect("create");
    part.file().set_len(part_bytes).expect("lengthen");
    for (number, claim) in claims.iter().enumerate() {
        part.record([Record { range: *claim, crc: number as u32 }]);
    }
    if left == Left::Killed {
        part.doubt();
    }
}

/// Begins the only file of the root once more.
fn begin_in(transfer: &Transfer<'_>, job: FileJob) -> FileJob {
    let (_, dir) = root(transfer);
    begin(job, transfer, &dir, dir.stat_name(&name("file")).ok().as_ref()).expect("begun")
}

/// The names in the directory of part files, without what names the file.
fn parts(stage: &Stage) -> Vec<String> {
    let Ok(names) = fs::read_dir(stage.at(".fastcp/parts")) else { return Vec::new() };
    let text = |entry: std::io::Result<fs::DirEntry>| entry.expect("entry").file_name().into_string().expect("text");
    let mut suffixes: Vec<_> = names.map(|entry| text(entry)[32..].to_owned()).collect();
    suffixes.sort_unstable();
    suffixes
}

#[test]
fn what_a_run_left_that_ended_well_counts_at_once() {
    let stage = Stage::new();
    stage.transfer(|transfer| {
        let (dir, _) = root(transfer);
        let jobs = Jobs::new(&dir);
        let claims = [range(0, 65_536), range(131_072, 196_608), range(65_536, 70_000)];
        leave(transfer, &jobs.job("file", FILE_BYTES), FILE_BYTES, &claims, Left::Closed);
        let job = begin_in(transfer, jobs.job("file", FILE_BYTES));
        assert_eq!((job.start(), job.is_doubtful(), job.reused_bytes()), (Start::Resumed, false, 135_536));
        assert_eq!(job.gaps(), [range(70_000, 131_072), range(196_608, FILE_BYTES)]);
    });
    assert_eq!(stage.report.counters.bytes_reused.now(), 135_536);
}

#[test]
fn what_nobody_vouches_for_is_checked_first_and_not_fetched_meanwhile() {
    let stage = Stage::new();
    stage.transfer(|transfer| {
        let (dir, _) = root(transfer);
        let jobs = Jobs::new(&dir);
        let claims = [range(0, 65_536), range(131_072, 196_608)];
        leave(transfer, &jobs.job("file", FILE_BYTES), FILE_BYTES, &claims, Left::Killed);
        let job = begin_in(transfer, jobs.job("file", FILE_BYTES));
        assert_eq!((job.start(), job.is_doubtful(), job.reused_bytes()), (Start::Resumed, true, 0));
        assert_eq!(job.gaps(), [range(65_536, 131_072), range(196_608, FILE_BYTES)]);
        let doubtful = job.take_doubtful();
        assert!(doubtful.iter().map(|record| record.range).eq(claims));
        assert!(!job.is_doubtful(), "they are handed out once");
        // Unchecked, they are no better the next time.
        drop(job);
        assert!(begin_in(transfer, jobs.job("file", FILE_BYTES)).is_doubtful());
    });
    assert_eq!(stage.report.counters.bytes_reused.now(), 0);
}

#[test]
fn a_part_file_that_was_written_to_since_is_not_trusted() {
    let stage = Stage::new();
    stage.transfer(|transfer| {
        let (dir, _) = root(transfer);
        let jobs = Jobs::new(&dir);
        leave(transfer, &jobs.job("file", FILE_BYTES), FILE_BYTES, &[range(0, 65_536)], Left::Closed);
        let part = fs::read_dir(stage.at(".fastcp/parts")).expect("read").map(|entry| entry.expect("entry").path());
        let part = part.into_iter().find(|path| path.extension().is_none()).expect("a part file");
        // A time that no clock shows now: ctimes may be as coarse as a tick.
        let file = fs::File::options().write(true).open(part).expect("open");
        let ctime = || Stat::of_fd(&file).expect("examine").identity.ctime;
        let before = ctime();
        while ctime() == before {
            file.set_modified(SystemTime::UNIX_EPOCH).expect("set");
        }
        let job = begin_in(transfer, jobs.job("file", FILE_BYTES));
        assert_eq!((job.is_doubtful(), job.reused_bytes()), (true, 0));
    });
}

#[test]
fn what_is_not_worth_it_or_not_agreed_is_fetched_whole() {
    let without_resume = Capabilities::SUPPORTED - Capabilities::CHUNK_RESUME;
    for (capabilities, placement, file_bytes) in [
        (Capabilities::SUPPORTED, Placement::PartFile, REUSED_BYTES_MIN),
        (without_resume, Placement::PartFile, FILE_BYTES),
        (Capabilities::SUPPORTED, Placement::InPlace, FILE_BYTES),
    ] {
        let mut stage = Stage::new();
        (stage.link.capabilities, stage.settings.placement) = (capabilities, placement);
        stage.transfer(|transfer| {
            let (dir, _) = root(transfer);
            let jobs = Jobs::new(&dir);
            leave(transfer, &jobs.job("file", file_bytes), file_bytes, &[range(0, 4096)], Left::Closed);
            let job = begin_in(transfer, jobs.job("file", file_bytes));
            assert_eq!((job.start(), job.reused_bytes()), (Start::Afresh, 0));
            assert_eq!(job.gaps(), [range(0, file_bytes)]);
        });
        assert_eq!(parts(&stage), ["", ".journal"], "nothing is done about what lies there");
    }
}

#[test]
fn a_part_file_of_another_version_is_set_aside_for_what_they_have_in_common() {
    for (delta, start) in [(Delta::Used, Start::Basis), (Delta::Unused, Start::Afresh)] {
        let mut stage = Stage::new();
        stage.settings.delta = delta;
        stage.transfer(|transfer| {
            let (dir, _) = root(transfer);
            let mut jobs = Jobs::new(&dir);
            leave(transfer, &jobs.job("file", FILE_BYTES), 5, &[range(0, 5)], Left::Closed);
            jobs.metadata = metadata(0o644, 2000);
            // Also the next time, when there is no part file any more.
            for _ in 0..2 {
                let job = begin_in(transfer, jobs.job("file", FILE_BYTES));
                assert_eq!((job.start(), job.reused_bytes()), (start, 0));
                assert_eq!(parts(&stage), [".stale", ".stale.journal"]);
                let bases = open_bases(transfer, &job);
                assert_eq!(bases.iter().map(|file| Stat::of_fd(file).expect("examine").size_bytes()).sum::<u64>(), 5);
            }
        });
    }
}

#[test]
fn the_grid_of_the_journal_is_kept_and_what_is_behind_the_end_goes() {
    let stage = Stage::new();
    stage.transfer(|transfer| {
        let (dir, _) = root(transfer);
        let mut jobs = Jobs::new(&dir);
        leave(transfer, &jobs.job("file", FILE_BYTES), 2 * FILE_BYTES, &[range(0, 4096)], Left::Closed);
        jobs.chunk_kb = 128;
        let job = begin_in(transfer, jobs.job("file", FILE_BYTES));
        assert_eq!((job.grid.chunk_kb(), job.reused_bytes()), (64, 4096));
        job.has_part(|part| {
            assert_eq!(Stat::of_fd(part.file()).expect("examine").size_bytes(), FILE_BYTES);
            true
        });
    });
}

/// What of many claims is kept: of two that overlap the later, and nothing that is not in the part file.
#[test]
fn claims_that_are_kept_are_apart_and_in_the_part_file() {
    let stage = Stage::new();
    stage.transfer(|transfer| {
        let (dir, _) = root(transfer);
        let jobs = Jobs::new(&dir);
        let mut random = Random::new(1);
        let (mut dropped, mut kept_of_all) = (0, 0);
        for round in 0..40 {
            let part_bytes = FILE_BYTES - random.below(300_000) as u64;
            let mut claim = |_| {
                let start = random.below(FILE_BYTES as usize - 1) as u64;
                range(start, (start + 1 + random.below(60_000) as u64).min(FILE_BYTES))
            };
            let claims: Vec<_> = (0..25).map(&mut claim).collect();
            leave(transfer, &jobs.job("file", FILE_BYTES), part_bytes, &claims, Left::Killed);
            let job = begin_in(transfer, jobs.job("file", FILE_BYTES));
            let kept: Vec<Record> = job.take_doubtful();
            assert!(kept.is_sorted_by(|one, next| one.range.end() <= next.range.start()), "round {round}: {kept:?}");
            for (number, claim) in claims.iter().enumerate() {
                let is_kept = kept.contains(&Record { range: *claim, crc: number as u32 });
                let is_within = claim.end() <= part_bytes;
                let overlaps = |other: &ByteRange| other.start() < claim.end() && claim.start() < other.end();
                let is_overlapped = kept.iter().any(|record| record.crc > number as u32 && overlaps(&record.range));
                assert_eq!(is_kept, is_within && !is_overlapped, "round {round}: {claim:?}");
            }
            dropped += claims.len() - kept.len();
            kept_of_all += kept.len();
        }
        assert!(dropped > 100 && kept_of_all > 100, "{dropped} dropped, {kept_of_all} kept");
    });
}

/// A claim that was dropped would be heard once the part file is longer: no mark may vouch for it.
#[test]
fn a_journal_that_claims_too_much_is_not_vouched_for() {
    let stage = Stage::new();
    stage.transfer(|transfer| {
        let (dir, _) = root(transfer);
        let jobs = Jobs::new(&dir);
        let claims = [range(0, 4096), range(FILE_BYTES - 10, FILE_BYTES)];
        leave(transfer, &jobs.job("file", FILE_BYTES), 500_000, &claims, Left::Closed);
        let job = begin_in(transfer, jobs.job("file", FILE_BYTES));
        assert_eq!((job.is_doubtful(), job.reused_bytes()), (false, 4096));
        job.has_part(|part| part.file().set_len(FILE_BYTES).is_ok());
        drop(job);
        let job = begin_in(transfer, jobs.job("file", FILE_BYTES));
        assert_eq!((job.is_doubtful(), job.reused_bytes()), (true, 0));
    });
}

#[test]
fn an_old_version_is_searched_unless_there_is_little_in_it() {
    type Makes = fn(&std::path::Path);
    let cases: [(Makes, bool, Start); 6] = [
        (|file| fs::write(file, [7; 5000]).expect("write"), false, Start::Basis),
        (|file| fs::write(file, [7; 5000]).expect("write"), true, Start::Basis),
        (|file| fs::write(file, []).expect("write"), false, Start::Afresh),
        (|file| fs::File::create(file).and_then(|file| file.set_len(1 << 30)).expect("make"), true, Start::Afresh),
        (|file| symlink("other", file).expect("link"), false, Start::Afresh),
        (|file| fs::create_dir(file).expect("create"), false, Start::Afresh),
    ];
    for (number, (make, sparse, start)) in cases.into_iter().enumerate() {
        let stage = Stage::new();
        fs::write(stage.at("other"), b"another").expect("write");
        make(&stage.at("file"));
        stage.transfer(|transfer| {
            let (dir, _) = root(transfer);
            let jobs = Jobs { sparse, ..Jobs::new(&dir) };
            let job = begin_in(transfer, jobs.job("file", FILE_BYTES));
            assert_eq!(job.start(), start, "case {number}");
            let bases = open_bases(transfer, &job).len();
            assert_eq!(bases, if number < 4 { 1 } else { 0 }, "case {number}: only files, and through no link");
        });
    }
}

#[test]
fn the_old_target_is_searched_before_what_was_set_aside() {
    let stage = Stage::new();
    fs::write(stage.at("file"), b"target").expect("write");
    stage.transfer(|transfer| {
        let (dir, _) = root(transfer);
        let mut jobs = Jobs::new(&dir);
        leave(transfer, &jobs.job("file", FILE_BYTES), 77, &[], Left::Closed);
        jobs.metadata = metadata(0o644, 2000);
        let job = begin_in(transfer, jobs.job("file", FILE_BYTES));
        let lengths =
            open_bases(transfer, &job).into_iter().map(|file| Stat::of_fd(file).expect("examine").size_bytes());
        assert!(lengths.eq([6, 77]));
    });
}

/// What lies in `parts` for one file: its part file, what was set aside before it, and a journal of each.
fn four_of(part: &Name) -> [Name; 4] {
    ["", ".journal", ".stale", ".stale.journal"].map(|end| lawful_name_of(&[part.as_bytes(), end.as_bytes()].concat()))
}

/// Leaves four files for each of `a` and `b`. Those of `b` are old.
fn leave_several(stage: &Stage, transfer: &Transfer<'_>) -> Vec<Name> {
    let (dir, open) = root(transfer);
    let mut jobs = Jobs::new(&dir);
    let mut names = Vec::new();
    for text in ["a", "b"] {
        jobs.metadata = metadata(0o644, 1000);
        leave(transfer, &jobs.job(text, FILE_BYTES), 5, &[range(0, 5)], Left::Closed);
        jobs.metadata = metadata(0o644, 2000);
        begin_in(transfer, jobs.job(text, FILE_BYTES));
        let job = jobs.job(text, FILE_BYTES);
        leave(transfer, &job, 5, &[range(0, 5)], Left::Closed);
        let part = transfer.destination.part_place(&dir, &open, &job.name).expect("a place").name;
        if text == "b" {
            for name in four_of(&part) {
                let path = stage.at(".fastcp/parts").join(std::str::from_utf8(name.as_bytes()).expect("text"));
                let file = fs::File::options().write(true).open(path).expect("open");
                file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1000)).expect("set");
            }
        }
        names.push(part);
    }
    names
}

#[test]
fn what_no_file_has_a_use_for_is_removed_and_nothing_else() {
    let since = Useful::WrittenSince(Timestamp::new(2000, 0).expect("lawful"));
    let long_ago = Useful::WrittenSince(Timestamp::new(500, 0).expect("lawful"));
    for (below, scope, useful, kept) in [
        ("", Scope::Contents, Useful::Nothing, [false, false]),
        ("", Scope::Contents, since, [true, false]),
        ("", Scope::Contents, long_ago, [true, true]),
        ("some/where/a", Scope::Itself, Useful::Nothing, [false, true]),
        ("some/where/b", Scope::Itself, Useful::Nothing, [true, false]),
        ("some/where/b", Scope::Itself, long_ago, [true, true]),
        ("some/where/c", Scope::Itself, Useful::Nothing, [true, true]),
        ("some/where/c", Scope::Contents, Useful::Nothing, [false, false]),
    ] {
        let stage = Stage::new();
        stage.transfer(|transfer| {
            let names = leave_several(&stage, transfer);
            clear(transfer.destination, &path(below), scope, useful);
            let parts = transfer.destination.parts_dirs().remove(0);
            for (part, is_kept) in names.iter().zip(kept) {
                let are_there = four_of(part).map(|name| parts.stat_name(&name).is_ok());
                assert_eq!(are_there, [is_kept; 4], "{below} {scope:?} {useful:?}");
            }
        });
    }
}
