//! The bytes of a journal: its head, its records, its mark, and what they say (`docs/journal.md`).

use fastcp_model::{ByteRange, RelPath, Timestamp};
use fastcp_sys::{Stat, process};

use crate::content::crc_runs::{CONFIRM_BYTES, combine, crc_of_zero_segment};

/// The first bytes: format and version.
pub(super) const MAGIC: &[u8; 8] = b"FCPJRNL1";
/// The fixed part of the head, without path and sum.
pub(super) const HEAD_BYTES: usize = 8 + 8 + 8 + 4 + 4 + 8 + 2;
pub(super) const KIND_RANGE: u8 = 1;
pub(super) const KIND_MARK: u8 = 2;
pub(super) const RANGE_BYTES: usize = 1 + 8 + 8 + 4 + 4;
pub(super) const MARK_BYTES: usize = 1 + 16 + 8 + 4 + 4;
/// What a part file is becoming. With any other of these it is not resumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Binding {
    /// The target, relative to the destination.
    pub(crate) path: RelPath,
    /// The length of the source.
    pub(crate) file_bytes: u64,
    /// Its time of modification.
    pub(crate) mtime: Timestamp,
    /// The grid that it is fetched by.
    pub(crate) chunk_kb: u32,
}

impl Binding {
    /// Whether the same bytes belong there. The grid is only a way to fetch them.
    pub(crate) fn is_same_but_grid(&self, other: &Self) -> bool {
        Self { chunk_kb: other.chunk_kb, ..self.clone() } == *other
    }
}

/// A range that arrived, and its CRC-32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) range: ByteRange,
    pub(crate) crc: u32,
}

impl Record {
    /// What a record that is lawful (`crc_runs.rs`) says of each segment: one that is longer is of zeros.
    pub(crate) fn pieces(self) -> impl Iterator<Item = Self> {
        let count = self.range.len().div_ceil(CONFIRM_BYTES);
        let piece = move |position| {
            let start = self.range.start() + position * CONFIRM_BYTES;
            let range = ByteRange::new(start, CONFIRM_BYTES.min(self.range.end() - start)).ok()?;
            let crc = if count == 1 { self.crc } else { crc_of_zero_segment() };
            Some(Self { range, crc })
        };
        (0..count).filter_map(piece)
    }

    /// Adds it to records that come before it; where it follows on the last of them they become one.
    pub(crate) fn join(self, records: &mut Vec<Self>) {
        if let Some(last) = records.last_mut()
            && last.range.end() == self.range.start()
            && let Ok(range) = ByteRange::new(last.range.start(), last.range.len() + self.range.len())
        {
            *last = Self { range, crc: combine(last.crc, self.crc, self.range.len()) };
        } else {
            records.push(self);
        }
    }
}

/// Written when nobody will write to the part file any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) boot: u128,
    pub(super) ctime: Timestamp,
}

/// What a journal says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Replayed {
    pub(crate) binding: Binding,
    pub(crate) records: Vec<Record>,
    pub(super) part_inode: u64,
    pub(super) mark: Option<Mark>,
}

impl Replayed {
    /// Whether this is the part file that the journal was written for.
    pub(crate) fn is_of(&self, part: &Stat) -> bool {
        self.part_inode == part.identity.inode
    }

    /// Whether the records can be taken on trust: nothing was written since the mark, and no crash lies
    /// between.
    pub(crate) fn is_untouched(&self, part: &Stat) -> bool {
        self.mark.is_some_and(|mark| Some(mark.boot) == process::boot_id() && mark.ctime == part.identity.ctime)
    }
}

pub(super) fn encode_head(binding: &Binding, part_inode: u64) -> Vec<u8> {
    let path = binding.path.as_bytes();
    let path_bytes = u16::try_from(path.len()).expect("paths are bounded");
    let mut out = Vec::with_capacity(HEAD_BYTES + path.len() + 4);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&binding.file_bytes.to_be_bytes());
    out.extend_from_slice(&binding.mtime.secs().to_be_bytes());
    out.extend_from_slice(&binding.mtime.nanos().to_be_bytes());
    out.extend_from_slice(&binding.chunk_kb.to_be_bytes());
    out.extend_from_slice(&part_inode.to_be_bytes());
    out.extend_from_slice(&path_bytes.to_be_bytes());
    out.extend_from_slice(path);
    with_sum(out)
}

pub(super) fn encode_range(record: Record) -> Vec<u8> {
    let mut out = Vec::with_capacity(RANGE_BYTES);
    out.push(KIND_RANGE);
    out.extend_from_slice(&record.range.start().to_be_bytes());
    out.extend_from_slice(&record.range.len().to_be_bytes());
    out.extend_from_slice(&record.crc.to_be_bytes());
    with_sum(out)
}

pub(super) fn encode_mark(mark: Mark) -> Vec<u8> {
    let mut out = Vec::with_capacity(MARK_BYTES);
    out.push(KIND_MARK);
    out.extend_from_slice(&mark.boot.to_be_bytes());
    out.extend_from_slice(&mark.ctime.secs().to_be_bytes());
    out.extend_from_slice(&mark.ctime.nanos().to_be_bytes());
    with_sum(out)
}

pub(super) fn with_sum(mut out: Vec<u8>) -> Vec<u8> {
    let sum = crc32fast::hash(&out);
    out.extend_from_slice(&sum.to_be_bytes());
    out
}

/// What the sound beginning of a journal says, and how long that is. `None` where not even the head is sound.
pub(super) fn replay(bytes: &[u8]) -> Option<(Replayed, usize)> {
    let (mut replayed, mut at) = decode_head(bytes)?;
    while let Some((kind, fields)) = sound_record(&bytes[at..]) {
        match kind {
            KIND_RANGE => {
                let Some(record) = decode_range(fields, replayed.binding.file_bytes) else { break };
                replayed.records.push(record);
                // Written after the mark: that was not the end.
                replayed.mark = None;
            }
            _ => replayed.mark = decode_mark(fields),
        }
        at += 1 + fields.len() + 4;
    }
    Some((replayed, at))
}

pub(super) fn decode_head(bytes: &[u8]) -> Option<(Replayed, usize)> {
    let mut rest = Fields(bytes);
    if rest.take::<8>()? != *MAGIC {
        return None;
    }
    let file_bytes = u64::from_be_bytes(rest.take()?);
    let mtime = Timestamp::new(i64::from_be_bytes(rest.take()?), u32::from_be_bytes(rest.take()?))?;
    let chunk_kb = u32::from_be_bytes(rest.take()?);
    let part_inode = u64::from_be_bytes(rest.take()?);
    let path_bytes = usize::from(u16::from_be_bytes(rest.take()?));
    let (path, sum) = rest.0.split_at_checked(path_bytes)?;
    let head_bytes = HEAD_BYTES + path_bytes;
    if Fields(sum).take()? != crc32fast::hash(&bytes[..head_bytes]).to_be_bytes() {
        return None;
    }
    let binding = Binding { path: RelPath::new(path).ok()?, file_bytes, mtime, chunk_kb };
    Some((Replayed { binding, records: Vec::new(), part_inode, mark: None }, head_bytes + 4))
}

/// The kind and the fields of the first record, where it is whole and its sum is right.
fn sound_record(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let kind = *bytes.first()?;
    let record_bytes = match kind {
        KIND_RANGE => RANGE_BYTES,
        KIND_MARK => MARK_BYTES,
        _ => return None,
    };
    let (said, sum) = bytes.get(..record_bytes)?.split_at(record_bytes - 4);
    (sum == crc32fast::hash(said).to_be_bytes()).then_some((kind, &said[1..]))
}

fn decode_range(fields: &[u8], file_bytes: u64) -> Option<Record> {
    let mut fields = Fields(fields);
    let (start, len) = (u64::from_be_bytes(fields.take()?), u64::from_be_bytes(fields.take()?));
    let range = ByteRange::new(start, len).ok().filter(|range| range.end() <= file_bytes && !range.is_empty())?;
    Some(Record { range, crc: u32::from_be_bytes(fields.take()?) })
}

fn decode_mark(fields: &[u8]) -> Option<Mark> {
    let mut fields = Fields(fields);
    let boot = u128::from_be_bytes(fields.take()?);
    let ctime = Timestamp::new(i64::from_be_bytes(fields.take()?), u32::from_be_bytes(fields.take()?))?;
    Some(Mark { boot, ctime })
}

/// Bytes that are taken from the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use fastcp_model::{ByteRange, RelPath, Timestamp};

    use crate::content::crc_runs::{CONFIRM_BYTES, crc_of_zero_segment};
    use crate::content::zeros::crc_of_zeros;

    use super::{Binding, Mark, Record, encode_head, encode_mark, encode_range, replay};

    fn binding() -> Binding {
        Binding {
            path: RelPath::new(b"dir/file").expect("lawful"),
            file_bytes: 100_000,
            mtime: Timestamp::new(-5, 7).expect("lawful"),
            chunk_kb: 4,
        }
    }

    fn record(start: u64, crc: u32) -> Record {
        Record { range: ByteRange::new(start, 4096).expect("lawful"), crc }
    }

    fn mark() -> Mark {
        Mark { boot: 9, ctime: Timestamp::new(3, 4).expect("lawful") }
    }

    /// A head, two records, a mark; and where each ends.
    pub(in super::super) fn sample() -> (Vec<u8>, [usize; 4]) {
        let parts = [
            encode_head(&binding(), 77),
            encode_range(record(0, 1)),
            encode_range(record(8192, 2)),
            encode_mark(mark()),
        ];
        let mut ends = [0; 4];
        let mut bytes = Vec::new();
        for (end, part) in ends.iter_mut().zip(&parts) {
            bytes.extend_from_slice(part);
            *end = bytes.len();
        }
        (bytes, ends)
    }

    #[test]
    fn a_record_of_zeros_is_taken_apart_one_segment_at_a_time() {
        let range = |start, len| ByteRange::new(start, len).expect("lawful");
        let short = Record { range: range(5, 100), crc: 7 };
        assert!(short.pieces().eq([short]));
        let len = (1 << 50) - CONFIRM_BYTES;
        let long = Record { range: range(CONFIRM_BYTES, len), crc: crc_of_zeros(len) };
        let first = Record { range: range(CONFIRM_BYTES, CONFIRM_BYTES), crc: crc_of_zero_segment() };
        assert_eq!(long.pieces().next(), Some(first));
        let (mut even, mut joined) = (Vec::new(), Vec::new());
        for (number, piece) in long.pieces().take(9).enumerate() {
            piece.join(&mut joined);
            if number != 4 {
                piece.join(&mut even);
            }
        }
        let zeros = |start, count: u64| {
            let len = count * CONFIRM_BYTES;
            Record { range: range(start * CONFIRM_BYTES, len), crc: crc_of_zeros(len) }
        };
        assert_eq!(joined, [zeros(1, 9)]);
        assert_eq!(even, [zeros(1, 4), zeros(6, 4)]);
    }

    #[test]
    fn golden_bytes() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let (bytes, ends) = sample();
        // FCPJRNL1, file_size, secs, nanos, chunk_kb, inode, path_len, path, crc32
        assert_eq!(
            hex(&bytes[..ends[0]]),
            "4643504a524e4c31 00000000000186a0 fffffffffffffffb 00000007 00000004 000000000000004d 0008 6469722f66696c65 b620d439"
                .replace(' ', "")
        );
        // kind, start, len, crc32, sum
        assert_eq!(
            hex(&bytes[ends[0]..ends[1]]),
            "01 0000000000000000 0000000000001000 00000001 aa0f7418".replace(' ', "")
        );
        // kind, boot id, ctime secs, nanos, sum
        assert_eq!(
            hex(&bytes[ends[2]..ends[3]]),
            "02 00000000000000000000000000000009 0000000000000003 00000004 0a03c34f".replace(' ', "")
        );
    }

    #[test]
    fn what_was_written_is_replayed_and_a_torn_end_is_dropped() {
        let (bytes, ends) = sample();
        assert!(replay(&bytes[..ends[0] - 1]).is_none());
        for torn in ends[0]..=bytes.len() {
            let (replayed, sound_bytes) = replay(&bytes[..torn]).expect("a sound head");
            let whole = ends.iter().filter(|&&end| end <= torn).count() - 1;
            assert_eq!((sound_bytes, &replayed.binding), (ends[whole], &binding()));
            assert_eq!(replayed.records[..], [record(0, 1), record(8192, 2)][..whole.min(2)]);
            assert_eq!(replayed.mark, (whole == 3).then(mark));
        }
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let (bytes, ends) = sample();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                let Some((replayed, sound_bytes)) = replay(&damaged) else {
                    assert!(at < ends[0]);
                    continue;
                };
                let before = ends.iter().filter(|&&end| end <= at).count();
                assert_eq!(sound_bytes, ends[before - 1], "byte {at}");
                assert_eq!((replayed.records.len(), replayed.mark), ((before - 1).min(2), None));
            }
        }
    }

    #[test]
    fn a_record_after_the_mark_takes_it_back_and_none_leaves_the_file() {
        let (mut bytes, _) = sample();
        bytes.extend_from_slice(&encode_range(record(4096, 3)));
        assert_eq!(replay(&bytes).expect("sound").0.mark, None);
        let sound_bytes = bytes.len();
        bytes.extend_from_slice(&encode_range(record(99_000, 3)));
        let (replayed, sound) = replay(&bytes).expect("sound");
        assert_eq!((replayed.records.len(), sound), (3, sound_bytes));
    }
}
