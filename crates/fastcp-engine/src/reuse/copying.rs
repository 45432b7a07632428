//! Bytes from another version of a file into its part file.
//!
//! Everything is read, and compared with the sender's hash of it, before it counts: the other version may have
//! changed since it was looked at. Its CRC-32 is taken of what is written. Where the file system lets files share
//! their bytes, the part file starts out as a clone of the old target, and what stayed where it was is only read.
//! In a sparse file zeros become holes, whatever the other version has there.

use std::fs::File;
use std::io;
use std::sync::Arc;

use fastcp_model::ByteRange;
use fastcp_sys::file::{punch_hole, read_at};
use fastcp_wire::signature::StrongHash;
use rayon::prelude::*;

use crate::commit::landing::{Landing, Sharing};
use crate::commit::transfer::Transfer;
use crate::content::crc_runs::{CONFIRM_BYTES, combine};
use crate::error::RunError;
use crate::report::Cause;
use crate::reuse::delta::{Found, Outcome};
use crate::schedule::job::FileJob;
use crate::settings::Durability;
use crate::target::journal::Record;
use crate::target::part::PartFile;

/// What was copied is journaled in runs of at most this length.
const RUN_BYTES_MAX: u64 = 64 << 20;
/// Neighbours are read and written together up to so many bytes, and a single chunk whatever its length.
const READ_BYTES_MAX: u64 = 256 << 10;
/// Runs with gaps shorter than this are given to the disk as one.
const WRITE_BACK_GAP_BYTES_MAX: u64 = 1 << 20;
/// The grain in which holes are kept.
const HOLE_BYTES: usize = 4096;

pub(crate) struct Copier<'a> {
    transfer: &'a Transfer<'a>,
    landing: Landing<'a>,
    /// The file that was copied to last, and whether it began as a clone.
    last: Option<(Arc<FileJob>, Sharing)>,
}

/// Where the bytes are that are to be copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// In the part file, at their place.
    There,
    Elsewhere,
}

/// What became of what was found.
#[derive(Debug, Default)]
struct Taken {
    /// With the CRC-32 of what now stands there.
    copied: Vec<Record>,
    /// What is not what the sender has.
    wrong: Vec<ByteRange>,
}

impl<'a> Copier<'a> {
    pub(crate) fn new(transfer: &'a Transfer<'a>) -> Self {
        Self { transfer, landing: Landing::new(transfer), last: None }
    }

    /// Copies what was found in the bases of a file.
    pub(crate) fn copy(&mut self, job: &Arc<FileJob>, bases: &[File], found: &[Found]) -> Result<Outcome, RunError> {
        // A search that is done again finds what is there already, and may find what it did not find before.
        let (new, had): (Vec<&Found>, Vec<&Found>) = found.iter().partition(|found| job.may_be_copied(found.range));
        let had = had.into_iter().map(|found| found.range).collect();
        match self.copy_into_part(job, bases, &new) {
            Ok(Taken { copied, wrong }) => {
                self.transfer.report.counters.bytes_reused.add(copied.iter().map(|copied| copied.range.len()).sum());
                // It is confirmed when its gaps have been looked at, even if there are none.
                job.all_arrived(&copied);
                Ok(Outcome { wrong, had })
            }
            Err(source) => {
                self.transfer.give_up(job, Cause::Destination { operation: "cannot write", source })?;
                Ok(Outcome::default())
            }
        }
    }

    fn copy_into_part(&mut self, job: &Arc<FileJob>, bases: &[File], found: &[&Found]) -> io::Result<Taken> {
        let (part, sharing) = self.part_of(job, bases)?;
        let taken: Vec<Taken> = neighbours(found)
            .par_iter()
            .map_init(Vec::new, |buffer, found| copy_neighbours(job, &part, sharing, bases, found, buffer))
            .collect::<io::Result<_>>()?;
        let wrong = taken.iter().flat_map(|taken| &taken.wrong).copied().collect();
        let runs = joined(taken.into_iter().flat_map(|taken| taken.copied));
        if self.transfer.settings.durability != Durability::None {
            start_write_back(part.file(), &runs);
        }
        Ok(Taken { copied: runs, wrong })
    }

    fn part_of(&mut self, job: &Arc<FileJob>, bases: &[File]) -> io::Result<(Arc<PartFile>, Sharing)> {
        let known = self.last.as_ref().filter(|(last, _)| Arc::ptr_eq(last, job)).map(|(_, sharing)| *sharing);
        let (part, sharing) = self.landing.part_with_basis(job, bases.first())?;
        let sharing = known.unwrap_or(sharing);
        self.last = Some((Arc::clone(job), sharing));
        Ok((part, sharing))
    }
}

/// Has the disk begin with what was copied. A change here and there leaves many short runs with short gaps between
/// them, and each call costs: the gaps come along.
fn start_write_back(file: &File, runs: &[Record]) {
    for near in runs.chunk_by(|one, next| next.range.start() - one.range.end() < WRITE_BACK_GAP_BYTES_MAX) {
        if let [first, ..] = near
            && let [.., last] = near
        {
            let start = first.range.start();
            fastcp_sys::file::start_write_back(file, start, last.range.end() - start);
        }
    }
}

/// Chunks that follow each other in the new file as in the basis, as one slice each.
fn neighbours<'f, 'c>(found: &'f [&'c Found]) -> Vec<&'f [&'c Found]> {
    let mut bytes = 0;
    let is_next = |one: &&Found, next: &&Found| {
        bytes += one.range.len();
        let follows = one.range.end() == next.range.start()
            && one.file == next.file
            && one.offset.checked_add(one.range.len()) == Some(next.offset)
            && bytes + next.range.len() <= READ_BYTES_MAX;
        if !follows {
            bytes = 0;
        }
        follows
    };
    found.chunk_by(is_next).collect()
}

/// Reads, compares each chunk, writes. What is not what the sender has is nobody's mistake: it is fetched.
fn copy_neighbours(
    job: &FileJob,
    part: &PartFile,
    sharing: Sharing,
    bases: &[File],
    found: &[&Found],
    buffer: &mut Vec<u8>,
) -> io::Result<Taken> {
    let [first, ..] = found else { return Ok(Taken::default()) };
    let (file, offset) = (first.file, first.offset);
    let stands_there = file == 0 && offset == first.range.start();
    let (from, standing) = match sharing {
        Sharing::Clone | Sharing::SameFile if stands_there => (Some(part.file()), Standing::There),
        // Writing could destroy what is still to be copied.
        Sharing::SameFile => (None, Standing::Elsewhere),
        Sharing::Clone | Sharing::Nothing => (bases.get(file), Standing::Elsewhere),
    };
    // A chunk is at most 1 MiB: the lists were checked.
    buffer.resize(found.iter().map(|found| found.range.len() as usize).sum(), 0);
    // What the basis lacks at its end is not what the sender has.
    let got = from.and_then(|from| read_at(from, buffer, offset).ok()).unwrap_or(0);
    let mut copied = Vec::new();
    let (runs, wrong) = equal_runs(found, &buffer[..got]);
    for (range, bytes) in runs {
        if job.sparse {
            put_sparse(part, range.start(), bytes, standing)?;
        } else if standing == Standing::Elsewhere {
            part.write_at(bytes, range.start())?;
        }
        copied.extend(pieces(range, bytes));
    }
    Ok(Taken { copied, wrong })
}

/// A range of the new file and its bytes.
type Run<'b> = (ByteRange, &'b [u8]);

/// What of the bytes at the place of these neighbours is what the sender has, in runs as long as may be, and which
/// ranges are not.
fn equal_runs<'b>(found: &[&Found], bytes: &'b [u8]) -> (Vec<Run<'b>>, Vec<ByteRange>) {
    let (mut runs, mut wrong): (Vec<Run<'b>>, Vec<ByteRange>) = Default::default();
    let mut at = 0;
    for found in found {
        let start = at;
        at += found.range.len() as usize;
        if bytes.get(start..at).is_none_or(|chunk| StrongHash::of(chunk) != found.hash) {
            wrong.push(found.range);
            continue;
        }
        let (first, from) = match runs.last() {
            Some((run, before)) if run.end() == found.range.start() => (run.start(), start - before.len()),
            _ => (found.range.start(), start),
        };
        if from < start {
            runs.pop();
        }
        let run = ByteRange::new(first, (at - from) as u64).expect("neighbours within one file");
        runs.push((run, &bytes[from..at]));
    }
    (runs, wrong)
}

/// Makes holes of zeros, and writes the others unless they stand there.
fn put_sparse(part: &PartFile, start: u64, bytes: &[u8], standing: Standing) -> io::Result<()> {
    let mut at = start;
    for span in spans(start, bytes) {
        let is_hole = is_zero(span) && punch_hole(part.file(), at, span.len() as u64)?;
        if standing == Standing::Elsewhere && !is_hole {
            part.write_at(span, at)?;
        }
        at += span.len() as u64;
    }
    Ok(())
}

/// Bytes at `start` of a file, cut where cells that are zero and others meet.
fn spans(start: u64, bytes: &[u8]) -> Vec<&[u8]> {
    let to_border = HOLE_BYTES - (start % HOLE_BYTES as u64) as usize;
    let (first, others) = bytes.split_at(to_border.min(bytes.len()));
    let cells: Vec<&[u8]> = std::iter::once(first).chain(others.chunks(HOLE_BYTES)).collect();
    let mut rest = bytes;
    let span = |alike: &[&[u8]]| {
        let (span, after) = rest.split_at(alike.iter().map(|cell| cell.len()).sum());
        rest = after;
        span
    };
    cells.chunk_by(|one, next| is_zero(one) == is_zero(next)).map(span).collect()
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

/// The CRC-32 of a range, in two where it lies across the border of what is confirmed at a time.
fn pieces(range: ByteRange, bytes: &[u8]) -> Vec<Record> {
    let border = (range.start() / CONFIRM_BYTES + 1) * CONFIRM_BYTES;
    let (near, far) = bytes.split_at(border.saturating_sub(range.start()).min(bytes.len() as u64) as usize);
    let piece = |start, bytes: &[u8]| {
        let range = ByteRange::new(start, bytes.len() as u64).expect("within a lawful range");
        (!range.is_empty()).then(|| Record { range, crc: crc32fast::hash(bytes) })
    };
    piece(range.start(), near).into_iter().chain(piece(border, far)).collect()
}

/// Neighbours as one, so that neither the journal nor the memory holds each chunk by itself.
fn joined(copied: impl Iterator<Item = Record>) -> Vec<Record> {
    let mut runs: Vec<Record> = Vec::new();
    for next in copied {
        match runs.last_mut() {
            Some(last)
                if last.range.end() == next.range.start()
                    && next.range.start() % CONFIRM_BYTES != 0
                    && last.range.len() + next.range.len() <= RUN_BYTES_MAX =>
            {
                let len = last.range.len() + next.range.len();
                last.crc = combine(last.crc, next.crc, next.range.len());
                last.range = ByteRange::new(last.range.start(), len).expect("neighbours within one file");
            }
            _ => runs.push(next),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use fastcp_model::ByteRange;
    use fastcp_wire::signature::StrongHash;

    use super::{
        CONFIRM_BYTES, Found, HOLE_BYTES, READ_BYTES_MAX, RUN_BYTES_MAX, Record, equal_runs, is_zero, joined,
        neighbours, pieces, spans,
    };

    fn range(start: u64, len: u64) -> ByteRange {
        ByteRange::new(start, len).expect("lawful")
    }

    fn found(start: u64, bytes: &[u8], offset: u64) -> Found {
        Found { range: range(start, bytes.len() as u64), file: 0, offset, hash: StrongHash::of(bytes) }
    }

    #[test]
    fn what_lies_side_by_side_in_both_is_read_at_once_up_to_a_bound() {
        let lengths = |found: &[Found]| -> Vec<usize> {
            let found: Vec<&Found> = found.iter().collect();
            neighbours(&found).iter().map(|group| group.len()).collect()
        };
        let (one, two) = (found(0, b"one ", 50), found(4, b"two", 54));
        assert_eq!(lengths(&[]), []);
        assert_eq!(lengths(&[one, two, found(7, b"!", 57)]), [3]);
        assert_eq!(lengths(&[one, found(5, b"two", 54)]), [1, 1], "not side by side in the new file");
        assert_eq!(lengths(&[one, found(4, b"two", 55)]), [1, 1], "not side by side in the basis");
        assert_eq!(lengths(&[one, Found { file: 1, ..two }]), [1, 1], "of another file");
        let long = vec![0; READ_BYTES_MAX as usize - 3];
        let [long, longer] = [found(4, &long, 54), found(1 + READ_BYTES_MAX, &long, 51 + READ_BYTES_MAX)];
        assert_eq!(lengths(&[one, long, longer, Found { file: 1, ..two }]), [1, 1, 1, 1]);
        assert_eq!(lengths(&[found(4, &[0; 9], 4), found(13, &[0; 9], 13), found(22, &[0; 9], 99)]), [2, 1]);
    }

    #[test]
    fn of_neighbours_only_those_that_are_equal_are_copied() {
        let parts = [&b"one "[..], b"two ", b"three ", b"four"];
        let bytes = parts.concat();
        let starts = [100, 104, 108, 114];
        let found: Vec<Found> = parts.iter().zip(starts).map(|(part, start)| found(start, part, start)).collect();
        let found: Vec<&Found> = found.iter().collect();
        assert_eq!(equal_runs(&found, &bytes), (vec![(range(100, 18), &bytes[..])], vec![]));
        let mut changed = bytes.clone();
        changed[5] ^= 1;
        let around = vec![(range(100, 4), &b"one "[..]), (range(108, 10), &b"three four"[..])];
        assert_eq!(equal_runs(&found, &changed), (around, vec![range(104, 4)]));
        let shorter = (vec![(range(100, 14), &bytes[..14])], vec![range(114, 4)]);
        assert_eq!(equal_runs(&found, &bytes[..17]), shorter, "the basis became shorter");
        assert_eq!(equal_runs(&found, &[]).1.len(), 4);
    }

    #[test]
    fn a_range_across_a_border_is_two() {
        let bytes = b"near and far";
        let whole = pieces(range(5, 12), bytes);
        assert_eq!(whole, [Record { range: range(5, 12), crc: crc32fast::hash(bytes) }]);
        let ends_there = pieces(range(CONFIRM_BYTES - 12, 12), bytes);
        assert_eq!(ends_there.len(), 1);
        let across = pieces(range(2 * CONFIRM_BYTES - 4, 12), bytes);
        let halves = [
            Record { range: range(2 * CONFIRM_BYTES - 4, 4), crc: crc32fast::hash(&bytes[..4]) },
            Record { range: range(2 * CONFIRM_BYTES, 8), crc: crc32fast::hash(&bytes[4..]) },
        ];
        assert_eq!(across, halves);
    }

    #[test]
    fn zeros_are_cut_out_cell_by_cell() {
        let cut = |start, bytes: &[u8]| -> Vec<(usize, bool)> {
            spans(start, bytes).into_iter().map(|span| (span.len(), is_zero(span))).collect()
        };
        let mut bytes = vec![0; 5 * HOLE_BYTES];
        assert_eq!(cut(0, &bytes), [(5 * HOLE_BYTES, true)]);
        assert_eq!(cut(7, &bytes[..9]), [(9, true)]);
        bytes[2 * HOLE_BYTES] = 1;
        assert_eq!(cut(0, &bytes), [(2 * HOLE_BYTES, true), (HOLE_BYTES, false), (2 * HOLE_BYTES, true)]);
        // It stands at the end of the second whole cell.
        let first = HOLE_BYTES + 1;
        assert_eq!(cut(HOLE_BYTES as u64 - 1, &bytes)[..2], [(first, true), (HOLE_BYTES, false)]);
        bytes.fill(2);
        assert_eq!(cut(1, &bytes), [(5 * HOLE_BYTES, false)]);
    }

    #[test]
    fn neighbours_become_runs_of_bounded_length_within_a_segment() {
        let copied = |start, len| Record { range: range(start, len), crc: 0 };
        let lengths = |copied: &[Record]| -> Vec<u64> {
            joined(copied.iter().copied()).iter().map(|run| run.range.len()).collect()
        };
        assert_eq!(lengths(&[copied(0, 5), copied(5, 5), copied(11, 5)]), [10, 5]);
        assert_eq!(lengths(&[copied(CONFIRM_BYTES - 5, 5), copied(CONFIRM_BYTES, 5)]), [5, 5]);
        assert_eq!(lengths(&[copied(0, RUN_BYTES_MAX), copied(RUN_BYTES_MAX, 1)]), [RUN_BYTES_MAX, 1]);
        let [first, second] = [b"one ", b"more"].map(|bytes| crc32fast::hash(bytes));
        let run =
            joined([Record { range: range(0, 4), crc: first }, Record { range: range(4, 4), crc: second }].into_iter());
        assert_eq!(run, [Record { range: range(0, 8), crc: crc32fast::hash(b"one more") }]);
    }
}
