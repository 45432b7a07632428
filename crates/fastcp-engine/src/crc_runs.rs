//! Which bytes of a file are accounted for, and their CRC-32, as runs that grow together.
//!
//! Adjacent ranges become one run by [`crc32fast::Hasher::combine`], so the memory a file takes does
//! not grow with its size. Runs do not merge across a multiple of [`CONFIRM_BYTES`]: a file is
//! confirmed segment by segment, and a combined CRC cannot be taken apart again.

use std::collections::BTreeMap;

use crc32fast::Hasher;
use fastcp_model::ByteRange;

/// The length of the segments in which the sender confirms a file: a second or so of reading.
pub(crate) const CONFIRM_BYTES: u64 = 1 << 30;

#[derive(Debug, Default)]
pub(crate) struct CrcRuns {
    /// By start: length and CRC-32. Runs never touch within a segment and never overlap.
    runs: BTreeMap<u64, (u64, u32)>,
}

impl CrcRuns {
    /// Adds a range that does not overlap any other and lies within one segment. An overlap is
    /// ignored: the bytes are accounted for already.
    pub(crate) fn insert(&mut self, range: ByteRange, crc: u32) {
        if range.is_empty() || self.overlaps(range) {
            return;
        }
        let (mut start, mut len, mut crc) = (range.start(), range.len(), crc);
        if let Some((&before, &(before_len, before_crc))) = self.runs.range(..start).next_back()
            && before + before_len == start
            && start % CONFIRM_BYTES != 0
        {
            crc = combine(before_crc, crc, len);
            (start, len) = (before, before_len + len);
        }
        let end = start + len;
        if end % CONFIRM_BYTES != 0
            && let Some((after_len, after_crc)) = self.runs.remove(&end)
        {
            crc = combine(crc, after_crc, after_len);
            len += after_len;
        }
        self.runs.insert(start, (len, crc));
    }

    /// The CRC-32 of exactly this range, where it is one run. An empty range has CRC 0.
    pub(crate) fn crc_of(&self, range: ByteRange) -> Option<u32> {
        if range.is_empty() {
            return Some(0);
        }
        self.runs.get(&range.start()).filter(|run| run.0 == range.len()).map(|run| run.1)
    }

    /// The run that starts here: its length and CRC-32.
    pub(crate) fn run_at(&self, start: u64) -> Option<(u64, u32)> {
        self.runs.get(&start).copied()
    }

    /// Whether every byte of a file of this length is accounted for.
    pub(crate) fn is_whole(&self, file_bytes: u64) -> bool {
        self.may_be_whole(file_bytes) && segments(file_bytes).all(|segment| self.crc_of(segment).is_some())
    }

    /// The CRC-32 of all of a file of this length, where every byte is accounted for.
    pub(crate) fn whole(&self, file_bytes: u64) -> Option<u32> {
        if !self.may_be_whole(file_bytes) {
            return None;
        }
        segments(file_bytes).try_fold(0, |crc, segment| Some(combine(crc, self.crc_of(segment)?, segment.len())))
    }

    /// A whole file has one run for each segment. Asked with every range that arrives: to look at all of them each time
    /// would cost a large file more than its bytes.
    fn may_be_whole(&self, file_bytes: u64) -> bool {
        self.runs.len() as u64 == file_bytes.div_ceil(CONFIRM_BYTES)
    }

    /// The ranges that are accounted for, in order.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = ByteRange> {
        self.runs.iter().filter_map(|(&start, &(len, _))| ByteRange::new(start, len).ok())
    }

    /// What of a range is not accounted for, in order.
    pub(crate) fn gaps_in(&self, range: ByteRange) -> Vec<ByteRange> {
        let first = self.runs.range(..=range.start()).next_back().map_or(range.start(), |(start, _)| *start);
        let mut gaps = Vec::new();
        let mut at = range.start();
        for (&start, &(len, _)) in self.runs.range(first..range.end()) {
            if start > at {
                gaps.extend(ByteRange::new(at, start - at));
            }
            at = at.max(start + len);
        }
        if at < range.end() {
            gaps.extend(ByteRange::new(at, range.end() - at));
        }
        gaps
    }

    /// How many runs there are.
    pub(crate) fn len(&self) -> usize {
        self.runs.len()
    }

    /// Whether any byte of a range is accounted for.
    pub(crate) fn overlaps(&self, range: ByteRange) -> bool {
        self.runs.range(..range.end()).next_back().is_some_and(|(start, (len, _))| start + len > range.start())
    }
}

/// What of a file of this length no range of `covered` covers, in order. They may overlap and come in any order.
/// An empty file has one gap, which is empty.
pub(crate) fn gaps(file_bytes: u64, covered: impl Iterator<Item = ByteRange>) -> Vec<ByteRange> {
    let mut covered: Vec<ByteRange> = covered.collect();
    covered.sort_unstable();
    let mut gaps = Vec::new();
    let mut at = 0;
    let end = ByteRange::new(file_bytes, 0).ok();
    for range in covered.into_iter().chain(end) {
        if range.start() > at {
            gaps.extend(ByteRange::new(at, range.start() - at));
        }
        at = at.max(range.end());
    }
    if file_bytes == 0 {
        gaps.extend(end);
    }
    gaps
}

/// The segments in which a file of this length is confirmed.
pub(crate) fn segments(file_bytes: u64) -> impl Iterator<Item = ByteRange> {
    (0..file_bytes.div_ceil(CONFIRM_BYTES)).filter_map(move |position| {
        let start = position * CONFIRM_BYTES;
        ByteRange::new(start, CONFIRM_BYTES.min(file_bytes - start)).ok()
    })
}

/// A range, cut where segments end.
pub(crate) fn segments_of(range: ByteRange) -> impl Iterator<Item = ByteRange> {
    (range.start() / CONFIRM_BYTES..range.end().div_ceil(CONFIRM_BYTES)).filter_map(move |position| {
        let start = range.start().max(position * CONFIRM_BYTES);
        let end = range.end().min((position + 1).saturating_mul(CONFIRM_BYTES));
        ByteRange::new(start, end - start).ok()
    })
}

/// The CRC-32 of two spans of bytes, one after the other.
pub(crate) fn combine(first: u32, second: u32, second_bytes: u64) -> u32 {
    let mut hasher = Hasher::new_with_initial(first);
    hasher.combine(&Hasher::new_with_initial_len(second, second_bytes));
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use fastcp_model::ByteRange;

    use super::{CONFIRM_BYTES, CrcRuns, gaps};

    fn range(start: u64, len: u64) -> ByteRange {
        ByteRange::new(start, len).expect("lawful")
    }

    #[test]
    fn ranges_in_any_order_give_the_crc_of_the_whole() {
        let bytes: Vec<u8> = (0..100_000u32).map(|at| (at * 7 % 253) as u8).collect();
        let cuts = [0, 1, 4096, 5000, 65_536, 99_999, 100_000];
        for step in [1, 5] {
            let mut runs = CrcRuns::default();
            for turn in 0..6 {
                let at = turn * step % 6;
                let (start, end) = (cuts[at], cuts[at + 1]);
                assert!(!runs.is_whole(100_000));
                runs.insert(range(start as u64, (end - start) as u64), crc32fast::hash(&bytes[start..end]));
            }
            assert_eq!(runs.len(), 1);
            assert_eq!(runs.whole(100_000), Some(crc32fast::hash(&bytes)));
        }
    }

    #[test]
    fn gaps_in_a_range_end_with_it() {
        let mut runs = CrcRuns::default();
        for (start, len) in [(10, 10), (30, 10), (60, 5)] {
            runs.insert(range(start, len), 0);
        }
        let gaps = |start, len| -> Vec<(u64, u64)> {
            runs.gaps_in(range(start, len)).into_iter().map(|gap| (gap.start(), gap.len())).collect()
        };
        assert_eq!(gaps(0, 100), [(0, 10), (20, 10), (40, 20), (65, 35)]);
        assert_eq!(gaps(15, 20), [(20, 10)]);
        assert_eq!(gaps(10, 10), []);
        assert_eq!(gaps(22, 3), [(22, 3)]);
        assert_eq!(gaps(70, 5), [(70, 5)]);
        assert_eq!(CrcRuns::default().gaps_in(range(3, 4)), [range(3, 4)]);
    }

    #[test]
    fn gaps_are_what_is_not_covered() {
        let gaps_of = |covered: &[(u64, u64)]| -> Vec<(u64, u64)> {
            let covered = covered.iter().map(|&(start, len)| range(start, len));
            gaps(100, covered).into_iter().map(|gap| (gap.start(), gap.len())).collect()
        };
        assert_eq!(gaps_of(&[]), [(0, 100)]);
        assert_eq!(gaps_of(&[(0, 100)]), []);
        assert_eq!(gaps_of(&[(50, 10), (10, 5), (12, 20)]), [(0, 10), (32, 18), (60, 40)]);
        assert_eq!(gaps_of(&[(0, 1), (99, 1)]), [(1, 98)]);
        assert_eq!(gaps(0, std::iter::empty()), [range(0, 0)]);
    }

    #[test]
    fn a_range_that_came_twice_counts_once() {
        let mut runs = CrcRuns::default();
        runs.insert(range(0, 10), 1);
        runs.insert(range(5, 10), 2);
        assert_eq!(runs.crc_of(range(0, 10)), Some(1));
        assert!(!runs.is_whole(15));
    }

    #[test]
    fn runs_stay_apart_at_the_borders_of_segments() {
        let mut runs = CrcRuns::default();
        runs.insert(range(0, CONFIRM_BYTES), 1);
        runs.insert(range(CONFIRM_BYTES, 10), 2);
        assert_eq!(runs.len(), 2);
        assert!(runs.is_whole(CONFIRM_BYTES + 10));
        assert_eq!(CrcRuns::default().whole(0), Some(0));
    }
}
