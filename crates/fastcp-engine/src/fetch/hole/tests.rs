use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastcp_model::ByteRange;
use fastcp_net::Choice;
use fastcp_sys::file::zero_range;
use fastcp_wire::reply::HoleEnd;

use super::Fetcher;
use crate::commit::transfer::Transfer;
use crate::commit::transfer::tests::{Jobs, Stage, root};
use crate::content::zeros::SLICE_BYTES;
use crate::schedule::want::Want;
use crate::target::part::PartFile;

const FILE_BYTES: u64 = 16 << 20;

/// Runs `act` with a connection, a want of the first bytes of a file, and its part file; not at all where there is no
/// file system at hand that has no call for zeros.
fn with_part(act: impl FnOnce(&Transfer<'_>, &mut Fetcher<'_>, &Want, &PartFile)) {
    if !Path::new("/dev/shm").is_dir() {
        return;
    }
    let stage = Stage::below(Path::new("/dev/shm"));
    stage.transfer(|transfer| {
        let connection =
            transfer.line.data(Choice::Any, Instant::now() + Duration::from_secs(60)).expect("a connection").connection;
        let mut fetcher = Fetcher::new(transfer, &connection, 0, 0);
        let (dir, open) = root(transfer);
        let job = Arc::new(Jobs::new(&dir).job("file", FILE_BYTES));
        let place = transfer.destination.part_place(&dir, &open, &job.name).expect("a place");
        let part = job.part(|| PartFile::named(place)).expect("made");
        let first = ByteRange::new(0, 65_536).expect("lawful");
        if zero_range(part.file(), first).is_ok_and(|can| !can) {
            act(transfer, &mut fetcher, &Want::fetch(job, first), &part);
        }
    });
}

fn length(part: &PartFile) -> u64 {
    part.file().metadata().expect("examine").len()
}

#[test]
fn zeros_stop_being_written_when_the_file_has_failed() {
    with_part(|_, fetcher, want, part| {
        let all = ByteRange::new(0, FILE_BYTES).expect("lawful");
        fetcher.make_zeros(want, all, part).expect("written");
        assert_eq!(length(part), FILE_BYTES);
        part.file().set_len(0).expect("shorten");
        assert!(want.job.fail());
        assert!(fetcher.make_zeros(want, all, part).is_err());
        assert!(length(part) <= SLICE_BYTES as u64, "{} bytes were written", length(part));
    });
}

#[test]
fn what_is_left_of_a_hole_counts_only_for_a_file_that_has_not_failed() {
    for has_failed in [false, true] {
        with_part(|transfer, fetcher, want, part| {
            transfer.schedule.add(vec![Arc::clone(&want.job)]);
            let mut wants = Vec::new();
            transfer.schedule.next(&fetcher.held, &mut wants);
            let want = wants.pop().expect("the first range");
            if has_failed {
                want.job.fail();
            }
            let body = FILE_BYTES.to_be_bytes();
            let end = HoleEnd::decode(body, want.range, FILE_BYTES).expect("lawful");
            assert!(fetcher.take_rest_of_hole(&want, part, end).is_ok());
            let counters = &transfer.report.counters;
            let rest = FILE_BYTES - want.range.len();
            assert_eq!(counters.bytes_fetched.now(), if has_failed { 0 } else { rest });
            assert_eq!(want.job.reused_bytes(), if has_failed { 0 } else { rest });
            assert_eq!(length(part) == FILE_BYTES, !has_failed);
            assert_eq!(counters.files_failed.now(), 0, "that was told by whoever gave it up");
        });
    }
}
