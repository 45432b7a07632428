//! What holds of any bytes that are read as a journal. For the fuzz target and for tests.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use fastcp_model::{ByteRange, Name, RelPath};
use fastcp_sys::Root;

use super::format::{HEAD_BYTES, KIND_MARK, KIND_RANGE, MAGIC, MARK_BYTES, RANGE_BYTES};
use super::format::{encode_head, encode_mark, encode_range, replay, with_sum};
use super::{Journal, Record, Replayed};
use crate::content::crc_runs::is_confirmed_alone;

const PART_NAME: &[u8] = b"part";

/// Reads `bytes` as a journal, as they are and with right checksums, and writes in the directory `dir`.
///
/// # Panics
/// Where a claim is not of the file, a journal does not read as it was written, or damage costs more than it touched.
pub fn journal(dir: &Path, bytes: &[u8]) {
    check(bytes);
    let sound = with_sums(bytes);
    check(&sound);
    for bytes in [bytes, &sound] {
        resume(dir, bytes);
    }
}

fn check(bytes: &[u8]) {
    let Some((replayed, sound_bytes)) = replay(bytes) else { return };
    assert_eq!(replay(&bytes[..sound_bytes]).as_ref(), Some(&(replayed, sound_bytes)), "what is behind it counts");
    let (replayed, _) = replay(bytes).expect("read before");
    replayed.records.iter().for_each(|record| check_claim(record, replayed.binding.file_bytes));
    let written = encode(&replayed);
    let (again, again_bytes) = replay(&written).expect("written here");
    assert_eq!((&again, again_bytes), (&replayed, written.len()));
    if replayed.binding.file_bytes > 0 {
        check_torn(&written, &replayed);
    }
}

/// A claim is of bytes of the file, and what is confirmed of it piece by piece is all of it.
fn check_claim(record: &Record, file_bytes: u64) {
    let range = record.range;
    assert!(!range.is_empty() && range.end() <= file_bytes, "{record:?} of {file_bytes} bytes");
    if is_confirmed_alone(range, record.crc) {
        let (mut end, mut joined) = (range.start(), Vec::new());
        for piece in record.pieces().take(8) {
            assert_eq!(piece.range.start(), end);
            assert!(is_confirmed_alone(piece.range, piece.crc));
            end = piece.range.end();
            piece.join(&mut joined);
        }
        assert!(end == range.end() || record.pieces().count() > 8);
        assert!(end < range.end() || joined == [*record]);
    }
}

/// One more record that is torn or damaged anywhere is not there, and nothing else is lost.
fn check_torn(written: &[u8], before: &Replayed) {
    let record = Record { range: ByteRange::new(0, 1).expect("lawful"), crc: crc32fast::hash(written) };
    let longer = [written, &encode_range(record)].concat();
    let expect_before = |bytes: &[u8]| {
        let (replayed, sound_bytes) = replay(bytes).expect("a sound head");
        assert_eq!((&replayed, sound_bytes), (before, written.len()));
    };
    for cut in 1..=RANGE_BYTES {
        expect_before(&longer[..longer.len() - cut]);
    }
    let mut flipped = longer.clone();
    let bit = record.crc as usize % (RANGE_BYTES * 8);
    flipped[written.len() + bit / 8] ^= 1 << (bit % 8);
    expect_before(&flipped);
    let (replayed, sound_bytes) = replay(&longer).expect("a sound head");
    let records = [&before.records[..], &[record]].concat();
    assert_eq!((replayed.records, replayed.mark, sound_bytes), (records, None, longer.len()));
}

/// What is resumed is what is replayed; what comes after it is found, and what was behind it is gone.
fn resume(dir: &Path, bytes: &[u8]) {
    let name = Name::new(PART_NAME).expect("lawful");
    let path = dir.join("part.journal");
    fs::write(&path, bytes).expect("write");
    let dir = Arc::new(Root::open(dir).and_then(|root| root.dir(&RelPath::root())).expect("open"));
    let resumed = Journal::resume(&dir, &name);
    let Some((replayed, sound_bytes)) = replay(bytes) else {
        assert!(resumed.is_none());
        assert_eq!(fs::read(&path).expect("read"), bytes, "it is not ours to shorten");
        return;
    };
    let (journal, resumed) = resumed.expect("as replayed");
    assert_eq!(resumed, replayed);
    assert_eq!(fs::read(&path).expect("read"), &bytes[..sound_bytes]);
    assert_eq!(Journal::bound_path(&dir, &name).as_ref(), Some(&replayed.binding.path));
    if replayed.binding.file_bytes > 0 {
        let record = Record { range: ByteRange::new(0, 1).expect("lawful"), crc: 7 };
        journal.record([record]);
        let (_, again) = Journal::resume(&dir, &name).expect("as before");
        assert_eq!(again.records, [&replayed.records[..], &[record]].concat());
    }
}

fn encode(replayed: &Replayed) -> Vec<u8> {
    let mut out = encode_head(&replayed.binding, replayed.part_inode);
    replayed.records.iter().for_each(|record| out.extend(encode_range(*record)));
    replayed.mark.iter().for_each(|mark| out.extend(encode_mark(*mark)));
    out
}

/// The same bytes as a head and records whose checksums are right, which mutations would never find. Some of the ranges
/// end about where the file does.
fn with_sums(bytes: &[u8]) -> Vec<u8> {
    let Some((fixed, rest)) = bytes.split_at_checked(HEAD_BYTES) else { return bytes.to_vec() };
    let (path, mut rest) = rest.split_at(usize::from(fixed[HEAD_BYTES - 1]).min(rest.len()));
    let path_bytes = path.len() as u16;
    let mut out = with_sum([&MAGIC[..], &fixed[MAGIC.len()..HEAD_BYTES - 2], &path_bytes.to_be_bytes(), path].concat());
    let file_bytes = u64_at(fixed, MAGIC.len());
    while let Some((&first, after)) = rest.split_first() {
        let (kind, record_bytes) = if first % 8 == 0 { (KIND_MARK, MARK_BYTES) } else { (KIND_RANGE, RANGE_BYTES) };
        let Some((fields, after)) = after.split_at_checked(record_bytes - 5) else { break };
        let mut fields = fields.to_vec();
        if kind == KIND_RANGE && first % 8 > 2 {
            let start = u64_at(&fields, 0) % file_bytes.max(1);
            let len = (file_bytes - start.min(file_bytes)).wrapping_add(u64::from(first % 8)).wrapping_sub(5);
            fields[..16].copy_from_slice(&[start.to_be_bytes(), len.to_be_bytes()].concat());
        }
        out.extend(with_sum([&[kind][..], &fields].concat()));
        rest = after;
    }
    out.extend_from_slice(rest);
    out
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |field| u64::from_be_bytes(*field))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::journal;
    use crate::target::journal::format::tests::sample;

    /// Whatever is done to these bytes is done from the same seeds in every run.
    #[test]
    fn any_bytes_that_a_journal_can_become_are_read_as_they_are_written() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let seen = |bytes: &[u8]| journal(dir.path(), bytes);
        crate::fuzzing::mutated(&[&sample().0, b""], 500, seen);
        assert!(Path::new(dir.path()).join("part.journal").exists());
    }
}
