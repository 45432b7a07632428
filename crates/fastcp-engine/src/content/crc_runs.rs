//! Which bytes of a file are accounted for, and their CRC-32, as runs that grow together.
//!
//! Adjacent ranges become one run by [`crc32fast::Hasher::combine`], so the memory a file takes does
//! not grow with its size. Runs do not merge across a multiple of [`CONFIRM_BYTES`]: a file is
//! confirmed segment by segment, and a combined CRC cannot be taken apart again. Segments of zeros are the
//! exception: each has the same CRC, so any number of them is one run, and a hole costs the same whatever its length.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crc32fast::Hasher;
use fastcp_model::ByteRange;

use crate::content::zeros::crc_of_zeros;

/// The length of the segments in which the sender confirms a file: a second or so of reading.
pub(crate) const CONFIRM_BYTES: u64 = 1 << 30;

static ZERO_SEGMENT_CRC: LazyLock<u32> = LazyLock::new(|| crc_of_zeros(CONFIRM_BYTES));

/// The CRC-32 of a segment of zeros.
pub(crate) fn crc_of_zero_segment() -> u32 {
    *ZERO_SEGMENT_CRC
}

#[derive(Debug, Default)]
pub(crate) struct CrcRuns {
    /// By start: length and CRC-32. Runs never touch within a segment and never overlap. One that goes across
    /// the border of a segment is of whole segments of zeros.
    runs: BTreeMap<u64, (u64, u32)>,
    /// The length of all runs.
    covered_bytes: u64,
}

impl CrcRuns {
    /// Adds a range that does not overlap any other. It lies within one segment, or is of whole segments of zeros
    /// ([`zeros_of`]). An overlap is ignored: the bytes are accounted for already.
    pub(crate) fn insert(&mut self, range: ByteRange, crc: u32) {
        if range.is_empty() || self.overlaps(range) {
            return;
        }
        self.covered_bytes += range.len();
        let (mut start, mut len, mut crc) = (range.start(), range.len(), crc);
        if let Some((&before, &(before_len, before_crc))) = self.runs.range(..start).next_back()
            && before + before_len == start
            && start % CONFIRM_BYTES != 0
        {
            self.runs.remove(&before);
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
        if is_zero_segments(start, len, crc) {
            (start, len) = self.take_zero_segments_around(start, len);
            crc = crc_of_zeros(len);
        }
        self.runs.insert(start, (len, crc));
    }

    /// Takes out the segments of zeros next to these; answers where all of them start, and their length.
    fn take_zero_segments_around(&mut self, mut start: u64, mut len: u64) -> (u64, u64) {
        if let Some((&before, &(before_len, before_crc))) = self.runs.range(..start).next_back()
            && before + before_len == start
            && is_zero_segments(before, before_len, before_crc)
        {
            self.runs.remove(&before);
            (start, len) = (before, before_len + len);
        }
        let end = start + len;
        if let Some(&(after_len, after_crc)) = self.runs.get(&end)
            && is_zero_segments(end, after_len, after_crc)
        {
            self.runs.remove(&end);
            len += after_len;
        }
        (start, len)
    }

    /// The CRC-32 of exactly this range, where it is one run or a segment of zeros. An empty range has CRC 0.
    pub(crate) fn crc_of(&self, range: ByteRange) -> Option<u32> {
        if range.is_empty() {
            return Some(0);
        }
        let (&start, &(len, crc)) = self.runs.range(..=range.start()).next_back()?;
        if (start, len) == (range.start(), range.len()) {
            return Some(crc);
        }
        let is_segment = range.start().is_multiple_of(CONFIRM_BYTES) && range.len() == CONFIRM_BYTES;
        (is_segment && range.end() <= start + len && is_zero_segments(start, len, crc)).then(crc_of_zero_segment)
    }

    /// How much of a range is one run from its start on, and the CRC-32 of that.
    pub(crate) fn beginning_of(&self, range: ByteRange) -> Option<(u64, u32)> {
        let run = self.runs.get(&range.start()).copied().filter(|(len, _)| *len <= range.len());
        run.or_else(|| Some((range.len(), self.crc_of(range).filter(|_| !range.is_empty())?)))
    }

    /// Whether every byte of a file of this length is accounted for. Asked with every range that arrives.
    pub(crate) fn is_whole(&self, file_bytes: u64) -> bool {
        let end = self.runs.last_key_value().map_or(0, |(start, (len, _))| start + len);
        self.covered_bytes == file_bytes && end == file_bytes
    }

    /// The CRC-32 of all of a file of this length, where every byte is accounted for.
    pub(crate) fn whole(&self, file_bytes: u64) -> Option<u32> {
        let crc = || self.runs.values().fold(0, |before, &(len, crc)| combine(before, crc, len));
        self.is_whole(file_bytes).then(crc)
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

/// A range of zeros as [`CrcRuns`] takes it: what is of the first segment, all whole segments together, and what is
/// of the last.
pub(crate) fn zeros_of(range: ByteRange) -> impl Iterator<Item = ByteRange> {
    let whole_start = range.start().next_multiple_of(CONFIRM_BYTES).min(range.end());
    let whole_end = (range.end() - range.end() % CONFIRM_BYTES).max(whole_start);
    let spans = [(range.start(), whole_start), (whole_start, whole_end), (whole_end, range.end())];
    let cut = spans.into_iter().filter(|(start, end)| start < end);
    cut.filter_map(|(start, end)| ByteRange::new(start, end - start).ok())
}

/// Whether a range may be added to [`CrcRuns`] with this CRC-32.
pub(crate) fn is_confirmed_alone(range: ByteRange, crc: u32) -> bool {
    let is_in_segment = !range.is_empty() && range.start() / CONFIRM_BYTES == (range.end() - 1) / CONFIRM_BYTES;
    is_in_segment || is_zero_segments(range.start(), range.len(), crc)
}

/// Whether this is of whole segments, with the CRC-32 that zeros have.
fn is_zero_segments(start: u64, len: u64, crc: u32) -> bool {
    let is_whole = start.is_multiple_of(CONFIRM_BYTES) && len.is_multiple_of(CONFIRM_BYTES) && len > 0;
    is_whole && crc == if len == CONFIRM_BYTES { crc_of_zero_segment() } else { crc_of_zeros(len) }
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

    use super::{CONFIRM_BYTES, CrcRuns, combine, gaps, is_confirmed_alone, segments, zeros_of};
    use crate::content::zeros::crc_of_zeros;

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

    #[test]
    fn a_hole_is_a_few_runs_whatever_its_length() {
        let (start, end) = (5, (1 << 50) - 7);
        let mut runs = CrcRuns::default();
        for zeros in zeros_of(range(start, end - start)) {
            assert!(is_confirmed_alone(zeros, crc_of_zeros(zeros.len())));
            runs.insert(zeros, crc_of_zeros(zeros.len()));
        }
        assert_eq!(runs.len(), 3);
        assert_eq!(runs.crc_of(range(77 * CONFIRM_BYTES, CONFIRM_BYTES)), Some(crc_of_zeros(CONFIRM_BYTES)));
        assert_eq!(runs.crc_of(range(77 * CONFIRM_BYTES, 5)), None);
        assert_eq!(runs.gaps_in(range(0, 1 << 50)), [range(0, start), range(end, 7)]);
        runs.insert(range(0, start), crc32fast::hash(b"begin"));
        runs.insert(range(end, 7), crc32fast::hash(b"the end"));
        assert_eq!(runs.len(), 3);
        let zeros = combine(crc32fast::hash(b"begin"), crc_of_zeros(end - start), end - start);
        assert_eq!(runs.whole(1 << 50), Some(combine(zeros, crc32fast::hash(b"the end"), 7)));
    }

    #[test]
    fn segments_of_zeros_become_one_run_in_any_order_and_others_do_not() {
        let file_bytes = 9 * CONFIRM_BYTES + 3;
        for step in [1, 3, 7] {
            let mut runs = CrcRuns::default();
            let all: Vec<_> = segments(file_bytes).collect();
            for turn in 0..10 {
                let segment = all[turn * step % 10];
                assert!(!runs.is_whole(file_bytes));
                let crc = if turn * step % 10 == 4 { 77 } else { crc_of_zeros(segment.len()) };
                runs.insert(segment, crc);
                assert_eq!(runs.crc_of(segment), Some(crc));
            }
            assert_eq!(runs.len(), 4, "before, the one, behind, and what is no whole segment");
            assert!(runs.is_whole(file_bytes));
            assert_eq!(runs.crc_of(all[4]), Some(77));
            assert_eq!(runs.beginning_of(all[0]), Some((CONFIRM_BYTES, crc_of_zeros(CONFIRM_BYTES))));
        }
    }

    #[test]
    fn a_segment_of_zeros_that_comes_in_parts_leaves_nothing_behind() {
        let mut runs = CrcRuns::default();
        let parts = [(0, CONFIRM_BYTES), (CONFIRM_BYTES, 5), (2 * CONFIRM_BYTES, CONFIRM_BYTES)];
        for (start, len) in parts.into_iter().chain([(CONFIRM_BYTES + 5, CONFIRM_BYTES - 5)]) {
            runs.insert(range(start, len), crc_of_zeros(len));
        }
        assert_eq!(runs.ranges().collect::<Vec<_>>(), [range(0, 3 * CONFIRM_BYTES)]);
        assert_eq!(runs.crc_of(range(CONFIRM_BYTES, CONFIRM_BYTES)), Some(crc_of_zeros(CONFIRM_BYTES)));
    }

    #[test]
    fn a_range_across_a_border_is_confirmed_alone_only_if_it_is_of_segments_of_zeros() {
        let two = range(CONFIRM_BYTES, 2 * CONFIRM_BYTES);
        assert!(is_confirmed_alone(two, crc_of_zeros(two.len())));
        assert!(!is_confirmed_alone(two, 1));
        let across = range(CONFIRM_BYTES - 1, 2);
        assert!(!is_confirmed_alone(across, crc_of_zeros(2)));
        assert!(is_confirmed_alone(range(CONFIRM_BYTES - 1, 1), 9));
        assert!(!is_confirmed_alone(range(3, 0), 0));
    }
}
