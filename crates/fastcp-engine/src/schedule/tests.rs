use std::sync::Arc;

use fastcp_model::{ByteRange, ChunkGrid, Metadata, Name, RelPath, Timestamp};

use super::state::{Asking, BUNDLE_BYTES, BUNDLE_FILES};
use super::{Bounds, Bundling, Cut, Held, HoldBack, Next, Schedule, Turn};
use crate::schedule::job::{Arrival, FileJob};
use crate::schedule::want::{CUT_BYTES_MIN, Purpose, Want};
use crate::target::dirs::{Age, DirState};

fn job(file_bytes: u64, chunk_kb: u32) -> Arc<FileJob> {
    job_in(&DirState::new(RelPath::root(), Age::New, None, None), file_bytes, chunk_kb)
}

fn job_in(dir: &Arc<DirState>, file_bytes: u64, chunk_kb: u32) -> Arc<FileJob> {
    let metadata = Metadata { mode: 0o644, uid: 0, gid: 0, mtime: Timestamp::default() };
    let grid = ChunkGrid::new(file_bytes, chunk_kb).expect("lawful");
    Arc::new(FileJob::new(Arc::clone(dir), Name::new(b"file").expect("lawful"), metadata, grid, false, false))
}

fn with_basis(file_bytes: u64, chunk_kb: u32) -> Arc<FileJob> {
    let made = Arc::into_inner(job(file_bytes, chunk_kb)).expect("made just now");
    Arc::new(made.with_basis())
}

fn next(schedule: &Schedule, held: &Held) -> Option<Want> {
    let mut wants = Vec::new();
    let next = schedule.next(held, &mut wants);
    assert_eq!(matches!(next, Next::Wants), !wants.is_empty());
    assert!(wants.len() <= 1, "{wants:?}");
    wants.pop()
}

fn take(schedule: &Schedule) -> Want {
    next(schedule, &Held::default()).expect("a want")
}

#[test]
fn wants_cover_each_file_once_and_the_cost_comes_out_even() {
    for (file_bytes, chunk_kb) in [(0, 4), (1, 4), (4096, 4), (20_000, 4), (30 << 20, 65_536), (23 << 20, 5000)] {
        let schedule = Schedule::new(1, HoldBack::No, Cut::AtChunks, Bundling::No, Bounds::default());
        assert!(schedule.add(vec![job(file_bytes, chunk_kb)]));
        schedule.close();
        let mut end = 0;
        loop {
            let want = take(&schedule);
            assert_eq!((want.range.start(), want.purpose), (end, Purpose::Fetch));
            end = want.range.end();
            schedule.done(&want, Vec::new());
            if end == file_bytes {
                break;
            }
        }
        assert!(matches!(schedule.next(&Held::default(), &mut Vec::new()), Next::Done));
        assert_eq!(schedule.lock().cost_left, 0, "{file_bytes} bytes in {chunk_kb} KiB");
    }
}

#[test]
fn what_lies_in_a_hole_is_taken_out_once_and_the_cost_comes_out_even() {
    let range = |start: u64, end: u64| ByteRange::new(start, end - start).expect("lawful");
    let schedule = Schedule::new(1, HoldBack::No, Cut::AtChunks, Bundling::No, Bounds::default());
    let (job, other, file_bytes) = (job(1 << 40, 1024), job(1 << 30, 1024), 1 << 40);
    assert!(schedule.add(vec![Arc::clone(&job)]));
    schedule.close();
    let first = take(&schedule);
    let hole = range(first.range.end(), (600 << 30) + 5000);
    assert_eq!(schedule.take_hole(&other, hole), []);
    assert_eq!(schedule.take_hole(&job, range(hole.start() + 1, hole.end())), [], "somebody has its beginning");
    assert_eq!(schedule.take_hole(&job, hole), [hole]);
    assert_eq!(schedule.take_hole(&job, hole), []);
    let second = take(&schedule);
    assert_eq!(second.range.start(), hole.end());
    let rest = range(second.range.end(), file_bytes);
    assert_eq!(schedule.take_hole(&job, rest), [rest]);
    for want in [first, second] {
        schedule.done(&want, Vec::new());
    }
    assert!(matches!(schedule.next(&Held::default(), &mut Vec::new()), Next::Done));
    assert_eq!(schedule.lock().cost_left, 0);
}

#[test]
fn a_claim_that_does_not_stand_is_a_gap_that_a_hole_is_taken_out_of() {
    let range = |start: u64, end: u64| ByteRange::new(start, end - start).expect("lawful");
    let schedule = Schedule::new(1, HoldBack::No, Cut::AtChunks, Bundling::No, Bounds::default());
    let claimed = job(1 << 40, 1024);
    schedule.add(vec![Arc::clone(&claimed)]);
    schedule.close();
    let first = take(&schedule);
    assert_eq!(schedule.take_hole(&claimed, range(first.range.end(), 1 << 30)).len(), 1);
    // One that is being checked is in hand.
    schedule.lock().in_flight += 1;
    schedule.checked(&claimed, vec![range(7 << 30, 9 << 30), range(20 << 30, 21 << 30)], Vec::new());
    assert!(schedule.lock().urgent.is_empty(), "nothing is cut before it is asked for");
    assert_eq!(
        schedule.take_hole(&claimed, range(7 << 30, 30 << 30)),
        [range(7 << 30, 9 << 30), range(20 << 30, 21 << 30)]
    );
    assert_eq!(schedule.take_hole(&claimed, range(1 << 30, 1 << 40)), [range(1 << 30, 1 << 40)]);
    schedule.done(&first, Vec::new());
    assert!(matches!(schedule.next(&Held::default(), &mut Vec::new()), Next::Done));
    assert_eq!(schedule.lock().cost_left, 0);
}

#[test]
fn a_connection_holds_no_more_than_its_share() {
    let schedule = Schedule::new(4, HoldBack::No, Cut::AtChunks, Bundling::No, Bounds::default());
    schedule.add((0..40).map(|_| job(1000, 4)).collect());
    schedule.close();
    for connection in 1..4 {
        schedule.lock().shares.set(connection, 100);
    }
    let mut held = Held { rate: 100, ..Held::default() };
    while let Some(want) = next(&schedule, &held) {
        held.add(&want);
    }
    assert_eq!(held.wants, 10);
}

#[test]
fn what_a_broken_connection_owed_is_handed_out_again() {
    let schedule = Schedule::new(1, HoldBack::No, Cut::AtChunks, Bundling::No, Bounds::default());
    schedule.add(vec![job(10_000, 4)]);
    schedule.close();
    let owed = take(&schedule);
    let other = take(&schedule);
    schedule.give_back(0, std::iter::once(owed.clone()));
    assert_eq!(take(&schedule).range, owed.range);
    schedule.done(&other, Vec::new());
    schedule.done(&owed, Vec::new());
    let last = take(&schedule);
    let confirm = Want { purpose: Purpose::Confirm, ..last.clone() };
    schedule.done(&last, vec![confirm]);
    let confirm = take(&schedule);
    assert_eq!(confirm.purpose, Purpose::Confirm);
    schedule.done(&confirm, Vec::new());
    assert!(matches!(schedule.next(&Held::default(), &mut Vec::new()), Next::Done));
}

#[test]
fn towards_the_end_large_files_are_cut_finer() {
    let schedule = Schedule::new(2, HoldBack::No, Cut::Evenly, Bundling::No, Bounds::default());
    schedule.add(vec![job(16 << 20, 1024)]);
    schedule.close();
    schedule.lock().shares.set(1, 100);
    let mut lengths = Vec::new();
    while let Some(want) = next(&schedule, &Held { rate: 100, ..Held::default() }) {
        lengths.push(want.range.len());
        schedule.done(&want, Vec::new());
    }
    assert_eq!(lengths.iter().sum::<u64>(), 16 << 20);
    assert_eq!((lengths[0], lengths.last()), (1 << 20, Some(&CUT_BYTES_MIN)));
    assert!(lengths[lengths.len() - 8..].iter().all(|&length| length <= 256 << 10), "{lengths:?}");
    assert_eq!(schedule.lock().cost_left, 0);
}

#[test]
fn small_files_of_one_directory_are_handed_out_together() {
    let schedule = Schedule::new(1, HoldBack::No, Cut::Evenly, Bundling::Yes, Bounds::default());
    let dir = DirState::new(RelPath::root(), Age::New, None, None);
    let mut sizes = vec![10_u64; 70];
    sizes.extend([60 << 10, 60 << 10, 60 << 10, 60 << 10, 65 << 10, 5]);
    schedule.add(sizes.iter().map(|&size| job_in(&dir, size, 1024)).collect());
    schedule.add(vec![job(5, 1024)]);
    schedule.close();
    let mut counts = Vec::new();
    let mut wants = Vec::new();
    while matches!(schedule.next(&Held { rate: 1, ..Held::default() }, &mut wants), Next::Wants) {
        assert!(wants.iter().map(|want| want.range.len()).sum::<u64>() <= BUNDLE_BYTES);
        counts.push(wants.len());
        for want in wants.drain(..) {
            schedule.done(&want, Vec::new());
        }
    }
    assert_eq!(counts, [BUNDLE_FILES, 9, 1, 1, 1, 1]);
    assert_eq!(schedule.lock().cost_left, 0);
}

/// Takes and answers everything as one connection of two.
fn drain(schedule: &Schedule) {
    schedule.lock().shares.set(1, 100);
    let mut wants = Vec::new();
    while matches!(schedule.next(&Held { rate: 100, ..Held::default() }, &mut wants), Next::Wants) {
        for want in wants.drain(..) {
            schedule.done(&want, Vec::new());
        }
    }
}

#[test]
fn the_cost_comes_out_even_however_files_are_cut_or_bundled() {
    let schedule = Schedule::new(2, HoldBack::No, Cut::Evenly, Bundling::Yes, Bounds::default());
    let dir = DirState::new(RelPath::root(), Age::New, None, None);
    schedule.add((0..1000).map(|at| job_in(&dir, if at % 8 == 0 { 10 } else { 20 << 10 }, 4)).collect());
    schedule.add(vec![job(61 << 20, 6144), job((1 << 30) + 5, 5000), job(0, 4)]);
    schedule.close();
    drain(&schedule);
    assert_eq!(schedule.lock().cost_left, 0);
}

#[test]
fn no_range_crosses_the_border_of_a_confirmed_segment() {
    for cut in [Cut::AtChunks, Cut::Evenly] {
        let schedule = Schedule::new(1, HoldBack::No, cut, Bundling::No, Bounds::default());
        let large = job((1 << 30) + 4096, 5000);
        schedule.add(vec![Arc::clone(&large)]);
        schedule.close();
        let mut last = Arrival::Partial;
        while let Some(want) = next(&schedule, &Held { rate: 1, ..Held::default() }) {
            last = large.arrived(want.range, 0);
            schedule.done(&want, Vec::new());
        }
        assert_eq!(last, Arrival::Whole);
    }
}

#[test]
fn sizes_beyond_all_measure_do_not_overflow() {
    let schedule = Schedule::new(1, HoldBack::No, Cut::Evenly, Bundling::Yes, Bounds::default());
    schedule.add((0..3).map(|_| job(i64::MAX as u64, 4)).collect());
    assert!(!take(&schedule).range.is_empty());
}

#[test]
fn a_connection_that_is_not_needed_rests() {
    let schedule = Schedule::new(1, HoldBack::No, Cut::AtChunks, Bundling::No, Bounds::default());
    schedule.add(vec![job(10, 4), job(10, 4)]);
    let second = Held { connection: 1, ..Held::default() };
    assert!(matches!(schedule.next(&second, &mut Vec::new()), Next::Rest));
    schedule.set_active(2);
    assert_eq!(schedule.wait_for_turn(1), Some(Turn::AtOnce));
    assert!(matches!(schedule.next(&second, &mut Vec::new()), Next::Wants));
}

#[test]
fn what_may_be_here_is_looked_for_first_and_not_too_far_ahead() {
    let schedule = Schedule::new(1, HoldBack::No, Cut::AtChunks, Bundling::No, Bounds::default());
    let prepared_max = Bounds::default().prepared_max;
    let count = prepared_max + 1;
    schedule.add((0..count).map(|_| with_basis(10_000, 4)).collect());
    assert!(schedule.lock().take(Cut::AtChunks, u64::MAX, Asking { source: 0, lead: 0 }).is_none());
    let first: Vec<_> = (0..prepared_max).map(|_| schedule.next_to_reuse().expect("a file")).collect();
    first.iter().for_each(|job| schedule.reused(job));
    std::thread::scope(|threads| {
        let last = threads.spawn(|| schedule.next_to_reuse());
        // One file's worth makes room for one file.
        for _ in 0..3 {
            let want = take(&schedule);
            assert_eq!(want.attempt, 1, "unproven bytes may stand there");
            schedule.done(&want, Vec::new());
        }
        schedule.reused(&last.join().expect("join").expect("the last"));
    });
    schedule.close();
    while let Some(want) = next(&schedule, &Held { rate: 1, ..Held::default() }) {
        schedule.done(&want, Vec::new());
    }
    assert!(schedule.next_to_reuse().is_none());
}

#[test]
fn files_that_changed_come_out_when_nothing_else_is_left() {
    let schedule = Schedule::new(1, HoldBack::No, Cut::AtChunks, Bundling::No, Bounds::default());
    schedule.add(vec![job(1, 4), job(2, 4)]);
    let first = take(&schedule);
    first.job.fail();
    schedule.moved(Arc::clone(&first.job));
    schedule.done(&first, Vec::new());
    assert!(!schedule.lock().is_settled());
    let second = take(&schedule);
    schedule.done(&second, Vec::new());
    assert_eq!(schedule.wait_for_moved().expect("the first").len(), 1);
    assert!(!schedule.lock().is_settled(), "it is being offered anew");
    schedule.offered_anew(Some(job(3, 4)));
    schedule.done(&take(&schedule), Vec::new());
    assert!(schedule.wait_for_moved().is_none());
    schedule.close();
    assert!(schedule.is_finished());
}

#[test]
fn held_back_means_until_the_last_offer() {
    let schedule = Schedule::new(1, HoldBack::UntilClosed, Cut::AtChunks, Bundling::No, Bounds::default());
    schedule.add(vec![job(1, 4)]);
    assert!(schedule.lock().take(Cut::AtChunks, u64::MAX, Asking { source: 0, lead: 0 }).is_none());
    schedule.close();
    take(&schedule);
}

#[test]
fn the_planner_goes_on_when_all_files_that_waited_have_changed() {
    let schedule = Schedule::new(1, HoldBack::No, Cut::Evenly, Bundling::Yes, Bounds::default());
    let jobs: Vec<_> = (0..Bounds::default().queued_max).map(|_| with_basis(100_000, 64)).collect();
    assert!(schedule.add(jobs));
    std::thread::scope(|threads| {
        let (told, is_added) = std::sync::mpsc::channel();
        let schedule = &schedule;
        threads.spawn(move || told.send(schedule.add(vec![with_basis(100_000, 64)])));
        while !schedule.news.room.is_awaited() {
            std::thread::yield_now();
        }
        threads.spawn(|| {
            while let Some(job) = schedule.next_to_reuse() {
                assert!(job.fail());
                schedule.moved(Arc::clone(&job));
                schedule.reused(&job);
            }
        });
        threads.spawn(|| while matches!(schedule.next(&Held::default(), &mut Vec::new()), Next::Wants) {});
        let added = is_added.recv_timeout(std::time::Duration::from_secs(20));
        schedule.stop();
        assert_eq!(added, Ok(true));
    });
}

#[test]
fn a_file_that_a_source_has_otherwise_is_left_to_the_others() {
    let schedule = Schedule::new(2, HoldBack::No, Cut::AtChunks, Bundling::No, Bounds::default());
    let of = |source| Held { connection: source, source, ..Held::default() };
    let take_for = |source| next(&schedule, &of(source)).expect("a want");
    for source in [0, 1] {
        schedule.joined(source);
    }
    assert!(schedule.add(vec![job(10, 4), job(20, 4)]));
    let want = take_for(1);
    assert!(want.job.bar(1) && !want.job.bar(1), "it is said once");
    schedule.done(&want, vec![want.clone()]);
    let other = take_for(1);
    assert!(!Arc::ptr_eq(&other.job, &want.job));
    // The first alone confirms.
    schedule.done(&other, Want::confirmations(&other.job));
    let for_first = [take_for(0), take_for(0)];
    assert!(Arc::ptr_eq(&for_first[0].job, &want.job) && for_first[0].purpose == Purpose::Fetch);
    assert!(Arc::ptr_eq(&for_first[1].job, &other.job) && for_first[1].purpose == Purpose::Confirm);
    // Nobody leads to the first any more, and only the first will do: the other has to make room for one that does.
    schedule.give_back(0, for_first.into_iter());
    schedule.left(0);
    assert!(matches!(schedule.next(&of(1), &mut Vec::new()), Next::Lead));
    // Or it leads itself from now on, and gets what it was barred from as well: its word decides.
    schedule.set_lead(1);
    assert!(schedule.is_lead(1) && !schedule.is_lead(0));
    assert_eq!([take_for(1), take_for(1)].map(|want| want.purpose), [Purpose::Fetch, Purpose::Confirm]);
}
