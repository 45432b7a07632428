use std::io;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use fastcp_model::{ByteRange, ChunkGrid, Metadata, Name, RelPath, Timestamp};
use fastcp_sys::Root;

use super::{Arrival, Confirmation, FileJob, Start, Trust};
use crate::content::crc_runs::CONFIRM_BYTES;
use crate::content::zeros::crc_of_zeros;
use crate::lock::model::Random;
use crate::schedule::answered::SenderCrc;
use crate::schedule::want::Want;
use crate::target::dirs::{Age, DirState};
use crate::target::journal::Record;
use crate::target::naming::{PartPlace, Shelter};
use crate::target::part::{Mismatch, PartFile};
use crate::target::proof::RangeCrc;

/// A file of this length that is to be fetched.
pub(crate) fn job(file_bytes: u64) -> Arc<FileJob> {
    let metadata = Metadata { mode: 0o644, uid: 0, gid: 0, mtime: Timestamp::default() };
    let dir = DirState::new(RelPath::root(), Age::New, None, None);
    let grid = ChunkGrid::new(file_bytes, 1024).expect("lawful");
    Arc::new(FileJob::new(dir, Name::new(b"file").expect("lawful"), metadata, grid, true, false))
}

#[test]
fn nobody_waits_for_a_part_file_that_is_being_made() {
    let job = job(5000);
    let asked = Arc::clone(&job);
    let made = job.part(|| {
        let (answer, answered) = channel();
        std::thread::spawn(move || answer.send((asked.has_failed(), asked.end_search(), asked.is_whole())));
        let (has_failed, (gaps, arrival), is_whole) =
            answered.recv_timeout(Duration::from_secs(20)).expect("answers while a descriptor is waited for");
        assert_eq!((has_failed, gaps.len(), arrival, is_whole), (false, 1, Arrival::Partial, false));
        Err(io::ErrorKind::StorageFull.into())
    });
    assert_eq!(made.expect_err("no room").kind(), io::ErrorKind::StorageFull);
}

#[test]
fn what_a_file_left_that_failed_is_not_made_anew() {
    let job = job(5000);
    assert!(job.fail());
    assert!(!job.fail(), "once");
    assert!(job.part(|| unreachable!("an older one would be removed for it")).is_err());
}

fn range(start: u64, end: u64) -> ByteRange {
    ByteRange::new(start, end - start).expect("lawful")
}

/// A part file in a directory of its own, and the directory.
fn part(text: &[u8]) -> (tempfile::TempDir, PartFile) {
    let top = tempfile::tempdir().expect("temporary directory");
    let dir = Root::open(top.path()).and_then(|root| root.dir(&RelPath::root())).expect("open");
    let name = Name::new(b"part").expect("lawful");
    let part = PartFile::named(PartPlace { dir: Arc::new(dir), name, shelter: Shelter::StateDir }).expect("create");
    part.write_at(text, 0).expect("write");
    (top, part)
}

#[test]
fn a_file_is_whole_when_its_last_byte_arrives_whatever_the_order() {
    let cuts = [0, 1, 1000, 1024, 4000, 5000];
    let mut random = Random::new(1);
    for _ in 0..50 {
        let mut ranges: Vec<_> = cuts.windows(2).map(|ends| range(ends[0], ends[1])).collect();
        let job = job(5000);
        let mut missing = 5000;
        while !ranges.is_empty() {
            let next = ranges.swap_remove(random.below(ranges.len()));
            missing -= next.len();
            assert!(!job.is_whole());
            let arrival = if ranges.is_empty() { Arrival::Whole } else { Arrival::Partial };
            assert_eq!(job.arrived(next, 0), arrival);
            assert_eq!(job.gaps().iter().map(|gap| gap.len()).sum::<u64>(), missing);
            assert_eq!(job.reused_bytes(), 5000 - missing);
        }
        assert!(job.is_whole());
    }
    assert_eq!(job(0).gaps(), [range(0, 0)], "an empty file is asked for once");
}

#[test]
fn a_file_that_is_searched_for_is_not_whole_before_the_search_has_ended() {
    let made = Arc::into_inner(job(5000)).expect("made just now").with_basis();
    assert_eq!(made.start(), Start::Basis);
    assert!(made.may_be_copied(range(0, 5000)));
    assert_eq!(made.stands(range(0, 1000), 0), Arrival::Partial);
    assert!(!made.may_be_copied(range(999, 1001)) && made.may_be_copied(range(1000, 5000)));
    // What is not found of a range is to be fetched, and is told once.
    assert_eq!(made.decided(range(500, 2000)), [range(1000, 2000)]);
    assert_eq!(made.decided(range(1500, 1600)), []);
    assert!(!made.may_be_copied(range(1999, 3000)) && made.may_be_copied(range(2000, 3000)));
    assert_eq!(made.arrived(range(1000, 2000), 0), Arrival::Partial);
    assert_eq!(made.stands(range(2000, 4000), 0), Arrival::Partial);
    assert_eq!(made.end_search(), (vec![range(4000, 5000)], Arrival::Partial));
    assert_eq!(made.arrived(range(4000, 5000), 0), Arrival::Whole);
}

#[test]
fn a_search_that_finds_everything_leaves_nothing_to_fetch() {
    let made = Arc::into_inner(job(5000)).expect("made just now").with_basis();
    assert_eq!(made.stands(range(0, 5000), 0), Arrival::Partial);
    assert_eq!(made.end_search(), (vec![], Arrival::Whole));
}

#[test]
fn claims_count_at_once_or_are_handed_out_to_be_checked() {
    let records = || vec![Record { range: range(0, 1000), crc: 1 }, Record { range: range(4000, 5000), crc: 2 }];
    let grid = ChunkGrid::new(5000, 4).expect("lawful");
    for (trust, doubtful, counted) in [(Trust::Taken, vec![], 2000), (Trust::ToCheck, records(), 0)] {
        let (_top, part) = part(&[0; 5000]);
        let made = Arc::into_inner(job(5000)).expect("made just now").resumed(part, grid, records(), trust);
        assert_eq!((made.start(), made.grid.chunk_kb()), (Start::Resumed, 4));
        assert_eq!((made.is_doubtful(), made.reused_bytes()), (trust == Trust::ToCheck, counted));
        assert_eq!(made.gaps(), [range(1000, 4000)], "what may be there is not fetched meanwhile");
        assert_eq!(made.take_doubtful(), doubtful);
        assert!(!made.is_doubtful());
        assert!(made.part(|| unreachable!("there is one")).is_ok());
    }
}

#[test]
fn a_file_offered_anew_counts_and_forgets_what_led_astray() {
    for (is_distrusted, start) in [(false, Start::Basis), (true, Start::Afresh)] {
        let before = job(5000);
        if is_distrusted {
            before.distrust();
        }
        let basis = || Arc::into_inner(job(5000)).expect("made just now").with_basis();
        let again = basis().again(&before);
        assert_eq!((again.offered_before, again.start()), (1, start));
        let arrival = again.stands(range(0, 5000), 0);
        assert_eq!(arrival, if is_distrusted { Arrival::Whole } else { Arrival::Partial });
        assert_eq!(basis().again(&again).offered_before, 2);
    }
}

#[test]
fn nothing_arrives_for_a_file_that_has_failed() {
    let (top, part) = part(b"bytes");
    let job = job(5);
    job.adopt(part);
    assert!(job.has_part(|part| part.is_new()));
    assert!(job.fail());
    assert!(!job.has_part(|_| true), "it is let go of");
    assert!(top.path().join("part").exists(), "and stays for the next run");
    assert_eq!(job.arrived(range(0, 5), 0), Arrival::Partial);
    assert!(!job.is_whole() && !job.differs(&SenderCrc::new(&confirmation(&job), RangeCrc::claimed(range(0, 5), 9))));
}

fn confirmation(job: &Arc<FileJob>) -> Want {
    Want::confirmations(job).remove(0)
}

#[test]
fn what_the_sender_does_not_have_is_thrown_away() {
    let (top, part) = part(b"bytes");
    let job = job(5);
    job.adopt(part);
    job.stands(range(0, 5), 1);
    let want = confirmation(&job);
    let answer = |crc| SenderCrc::new(&want, RangeCrc::claimed(want.range, crc));
    assert!(job.differs(&answer(2)) && !job.differs(&answer(1)));
    let mismatch = FileJob::confirmed(answer(2), 0);
    assert!(matches!(mismatch, Confirmation::Mismatch(Mismatch { want: 2, got: 1 })), "{mismatch:?}");
    assert!(!top.path().join("part").exists(), "nothing is resumed from it");
}

/// Each of two sources may have another version, and each may have given a part.
#[test]
fn what_two_sources_say_of_parts_of_a_file_proves_nothing() {
    let (_top, part) = part(b"bytes");
    let job = job(2 * CONFIRM_BYTES);
    job.adopt(part);
    let wants = Want::confirmations(&job);
    for want in &wants {
        job.stands(want.range, 1);
    }
    let answer = |nth: usize, source| {
        let want = &wants[nth];
        FileJob::confirmed(SenderCrc::new(want, RangeCrc::claimed(want.range, 1)), source)
    };
    // Whichever speaks first is not another one.
    assert!(matches!(answer(0, 3), Confirmation::Partial));
    assert!(matches!(answer(1, 2), Confirmation::Anew));
    assert!(matches!(answer(0, 3), Confirmation::Anew));
    assert!(matches!(answer(1, 3), Confirmation::Whole { .. }));
}

#[test]
fn bytes_that_are_missing_are_never_confirmed() {
    let (top, part) = part(b"byte");
    let job = job(5);
    job.adopt(part);
    job.stands(range(0, 4), 0);
    let want = confirmation(&job);
    let confirmed = FileJob::confirmed(SenderCrc::new(&want, RangeCrc::claimed(want.range, 0)), 0);
    assert!(matches!(confirmed, Confirmation::Mismatch(_)), "{confirmed:?}");
    assert!(!top.path().join("part").exists());
}

#[test]
fn every_segment_of_a_hole_is_there_at_once() {
    let job = job(3 * CONFIRM_BYTES + 5);
    job.hole_arrived(range(7, 3 * CONFIRM_BYTES + 2));
    assert_eq!(job.gaps(), [range(0, 7), range(3 * CONFIRM_BYTES + 2, 3 * CONFIRM_BYTES + 5)]);
    assert_eq!(job.arrived(range(0, 7), crc_of_zeros(7)), Arrival::Partial);
    assert_eq!(job.arrived(range(3 * CONFIRM_BYTES + 2, 3 * CONFIRM_BYTES + 5), crc_of_zeros(3)), Arrival::Whole);
    for want in Want::confirmations(&job) {
        let zeros = RangeCrc::claimed(want.range, crc_of_zeros(want.range.len()));
        assert!(!job.differs(&SenderCrc::new(&want, zeros)));
    }
}
