//! Where a file is cut into chunks: by its content, so that the same bytes are cut the same way wherever
//! they are.
//!
//! A rolling hash of the last 64 bytes makes a position a candidate by itself, whatever came before. The cuts
//! are then chosen from the candidates in order, with a shortest and a longest chunk. So candidates may be
//! looked for in parallel, and after an insertion the cuts are soon the same again. `docs/protocol.md`,
//! "Cuts", says the same for other programs: what is here is part of the protocol.
//!
//! Pure: bytes and positions only. Files are cut by `cutter.rs`.

use fastcp_wire::limits::FINE_CHUNK_BYTES_MIN;
use fastcp_wire::signature::Level;

/// How many bytes the rolling hash looks back over.
pub(crate) const WINDOW_BYTES: usize = 64;

/// What each byte adds to the rolling hash. Made by the SplitMix64 generator from the seed below, so that
/// another program can make it too.
const GEAR: [u64; 256] = gear();
const GEAR_SEED: u64 = u64::from_be_bytes(*b"fastcp 1");

const fn gear() -> [u64; 256] {
    let mut table = [0; 256];
    let mut state = GEAR_SEED;
    let mut at = 0;
    while at < table.len() {
        (state, table[at]) = splitmix(state);
        at += 1;
    }
    table
}

/// The next state of the generator, and the next number.
const fn splitmix(state: u64) -> (u64, u64) {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (state, mixed ^ (mixed >> 31))
}

/// Hashes below this make candidates. Every coarse candidate is a fine one as well.
fn hash_limit(level: Level) -> u64 {
    // No byte before a chunk has a say in where it ends.
    const { assert!(FINE_CHUNK_BYTES_MIN >= WINDOW_BYTES as u64) };
    u64::MAX / level.candidate_every() + 1
}

fn roll(hash: u64, byte: u8) -> u64 {
    (hash << 1).wrapping_add(GEAR[usize::from(byte)])
}

/// How many parts are looked through side by side. Each hash has to wait for the one before it in its part; the
/// processor does not. Measured: one part 2.0 GB/s, two 3.8, four 4.5.
const STREAMS: usize = 4;

/// The candidates among the positions of `bytes` that have a whole window before them, in order. A position is
/// the count of bytes before it.
pub(crate) fn candidates(level: Level, bytes: &[u8], mut found: impl FnMut(usize)) {
    let Some(positions) = (bytes.len() + 1).checked_sub(WINDOW_BYTES) else { return };
    let (limit, count) = (hash_limit(level), positions / STREAMS);
    let firsts: [usize; STREAMS] = std::array::from_fn(|stream| stream * count);
    let mut hashes = firsts.map(|first| roll_all(&bytes[first..first + WINDOW_BYTES - 1]));
    let mut hits: [Vec<usize>; STREAMS] = Default::default();
    let mut at = 0;
    while let Some(rolled) = roll_to_hit(
        limit,
        &mut hashes,
        firsts.map(|first| {
            let next = first + WINDOW_BYTES - 1;
            &bytes[next + at..next + count]
        }),
    ) {
        at += rolled;
        for ((hash, first), hits) in hashes.iter().zip(firsts).zip(&mut hits) {
            if *hash < limit {
                hits.push(first + at + WINDOW_BYTES - 1);
            }
        }
    }
    hits.into_iter().flatten().for_each(&mut found);
    for at in STREAMS * count..positions {
        if roll_all(&bytes[at..at + WINDOW_BYTES]) < limit {
            found(at + WINDOW_BYTES);
        }
    }
}

/// Rolls on through streams of one length until one hash is below the limit; answers after how many bytes. All
/// time goes into this loop: no counter is checked in it, nothing is called from it.
fn roll_to_hit(limit: u64, hashes: &mut [u64; STREAMS], streams: [&[u8]; STREAMS]) -> Option<usize> {
    let length = streams[0].len();
    let [one, two, three, four] = streams.map(|stream| &stream[..length]);
    let [mut a, mut b, mut c, mut d] = *hashes;
    for at in 0..length {
        (a, b, c, d) = (roll(a, one[at]), roll(b, two[at]), roll(c, three[at]), roll(d, four[at]));
        if a < limit || b < limit || c < limit || d < limit {
            *hashes = [a, b, c, d];
            return Some(at + 1);
        }
    }
    None
}

fn roll_all(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |hash, &byte| roll(hash, byte))
}

/// Chooses the cuts from the candidates. Cuts are the ends of chunks.
#[derive(Debug)]
pub(crate) struct Cuts {
    level: Level,
    last: u64,
}

impl Cuts {
    /// Starts at `start`, which counts as a cut.
    pub(crate) fn from(level: Level, start: u64) -> Self {
        Self { level, last: start }
    }

    /// Takes the next candidate; candidates ascend.
    pub(crate) fn candidate(&mut self, at: u64, mut cut: impl FnMut(u64)) {
        self.cut_long(at, &mut cut);
        if at.saturating_sub(self.last) >= self.level.chunk_bytes_min() {
            self.last = at;
            cut(at);
        }
    }

    /// Takes the end of what is cut, where the last chunk ends too.
    pub(crate) fn end(&mut self, at: u64, mut cut: impl FnMut(u64)) {
        self.cut_long(at, &mut cut);
        if at > self.last {
            self.last = at;
            cut(at);
        }
    }

    /// Ends chunks that grow too long before `at`.
    fn cut_long(&mut self, at: u64, cut: &mut impl FnMut(u64)) {
        let max = self.level.chunk_bytes_max();
        while at.saturating_sub(self.last) > max {
            self.last += max;
            cut(self.last);
        }
    }
}

/// All cuts of `bytes`, as positions in it; the last one is its end.
pub(crate) fn cuts_of(level: Level, bytes: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    let mut cuts = Cuts::from(level, 0);
    // A position in a slice fits both kinds of integer.
    candidates(level, bytes, |at| cuts.candidate(at as u64, |cut| found.push(cut as usize)));
    cuts.end(bytes.len() as u64, |cut| found.push(cut as usize));
    found
}

#[cfg(test)]
mod tests {
    use fastcp_wire::signature::Level;

    use super::{Cuts, GEAR, WINDOW_BYTES, candidates, cuts_of, hash_limit, splitmix};

    const LEVELS: [Level; 2] = [Level::Coarse, Level::Fine];

    fn random(count: usize, seed: u64) -> Vec<u8> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..count).map(|_| next()).collect()
    }

    /// As the specification says it, one position after the other.
    fn candidates_by_definition(level: Level, bytes: &[u8]) -> Vec<usize> {
        let is_candidate = |at: &usize| {
            let window = bytes[*at - WINDOW_BYTES..*at].iter().rev().zip(0..);
            window.fold(0u64, |hash, (byte, shift)| hash.wrapping_add(GEAR[usize::from(*byte)] << shift))
                < hash_limit(level)
        };
        (WINDOW_BYTES..=bytes.len()).filter(is_candidate).collect()
    }

    fn cuts_by_definition(level: Level, bytes: &[u8]) -> Vec<usize> {
        let (min, max) = (level.chunk_bytes_min() as usize, level.chunk_bytes_max() as usize);
        let candidates = candidates_by_definition(level, bytes);
        let (mut cuts, mut last) = (Vec::new(), 0);
        while last < bytes.len() {
            let longest = (last + max).min(bytes.len());
            let first = candidates.iter().copied().find(|at| (last + min..longest).contains(at));
            last = first.unwrap_or(longest);
            cuts.push(last);
        }
        cuts
    }

    /// `docs/protocol.md` gives the same numbers, which another program made.
    #[test]
    fn the_numbers_of_the_specification() {
        let ends = (GEAR[0], GEAR[1], GEAR[255]);
        assert_eq!(ends, (0xa606_7d6f_064b_b9b3, 0x7d75_7a30_7c70_1fcf, 0xd6a9_72e4_7cec_03c3));
        let (mut state, mut bytes) = (0, Vec::new());
        while bytes.len() < 1 << 20 {
            let (next, number) = splitmix(state);
            bytes.extend_from_slice(&number.to_be_bytes());
            state = next;
        }
        assert_eq!(bytes[..4], [0xe2, 0x20, 0xa8, 0x39]);
        let fine = [1588, 3631, 7367, 8893, 21_141, 27_069, 30_606, 35_789, 42_795, 46_137, 49_073, 65_536];
        assert_eq!(cuts_of(Level::Fine, &bytes[..65_536]), fine);
        assert_eq!(
            cuts_of(Level::Coarse, &bytes),
            [
                27_069, 46_137, 70_524, 164_011, 199_710, 220_348, 325_989, 359_028, 382_305, 419_634, 513_349,
                635_339, 657_115, 695_220, 815_849, 906_155, 934_416, 951_586, 1_004_430, 1_048_576
            ]
        );
    }

    #[test]
    fn candidates_are_those_of_the_definition_at_every_length() {
        let bytes = random(200_000, 1);
        for length in (0..200).chain([4095, 4096, 4097, 100_001, 200_000]) {
            let mut found = Vec::new();
            candidates(Level::Fine, &bytes[..length], |at| found.push(at));
            assert_eq!(found, candidates_by_definition(Level::Fine, &bytes[..length]), "{length} bytes");
        }
    }

    #[test]
    fn cuts_are_those_of_the_definition() {
        let bytes = random(3 << 20, 2);
        for level in LEVELS {
            assert_eq!(cuts_of(level, &bytes), cuts_by_definition(level, &bytes));
        }
    }

    #[test]
    fn segments_with_a_run_up_give_the_same_cuts() {
        let bytes = random(1 << 20, 3);
        for level in LEVELS {
            for segment in [WINDOW_BYTES, 100, 4096, 65_537, 1 << 19, 1 << 20] {
                let mut found = Vec::new();
                let mut cuts = Cuts::from(level, 0);
                for start in (0..bytes.len()).step_by(segment) {
                    // As `cutter.rs` does: a position belongs to the segment that ends with it or after it.
                    let from = start.saturating_sub(WINDOW_BYTES - 1);
                    let end = bytes.len().min(start + segment);
                    candidates(level, &bytes[from..end], |at| {
                        cuts.candidate((from + at) as u64, |cut| found.push(cut as usize));
                    });
                }
                cuts.end(bytes.len() as u64, |cut| found.push(cut as usize));
                assert_eq!(found, cuts_of(level, &bytes), "{level:?}, segments of {segment}");
            }
        }
    }

    #[test]
    fn chunks_keep_to_their_lengths() {
        let bytes = random(32 << 20, 4);
        for level in LEVELS {
            let cuts = cuts_of(level, &bytes);
            let mut last = 0;
            for &cut in &cuts {
                let length = (cut - last) as u64;
                assert!(length <= level.chunk_bytes_max());
                assert!(length >= level.chunk_bytes_min() || cut == bytes.len());
                last = cut;
            }
            let average = bytes.len() as u64 / cuts.len() as u64;
            let expected = level.candidate_every() + level.chunk_bytes_min();
            assert!((expected / 2..expected * 2).contains(&average), "{level:?}: {average}");
        }
    }

    #[test]
    fn bytes_that_are_all_the_same_are_cut_at_the_longest_only() {
        for byte in 0..=255 {
            assert_eq!(cuts_of(Level::Fine, &vec![byte; 150_000]), [65_536, 131_072, 150_000], "{byte}");
        }
        assert_eq!(cuts_of(Level::Coarse, &vec![0; 5 << 19]), [1 << 20, 2 << 20, 5 << 19]);
    }

    #[test]
    fn short_inputs_are_one_chunk() {
        for level in LEVELS {
            assert_eq!(cuts_of(level, &[]), [0; 0]);
            for length in [1, 63, 64, 65, level.chunk_bytes_min() as usize] {
                assert_eq!(cuts_of(level, &random(length, 5)), [length], "{level:?}, {length} bytes");
            }
        }
    }

    #[test]
    fn lengths_around_the_longest_chunk() {
        for length in [65_535, 65_536, 65_537, 131_072] {
            let bytes = vec![7; length];
            assert_eq!(cuts_of(Level::Fine, &bytes), cuts_by_definition(Level::Fine, &bytes), "{length} bytes");
        }
    }

    #[test]
    fn an_insertion_at_the_front_changes_the_first_chunks_only() {
        let old = random(8 << 20, 6);
        let new = [random(1000, 7), old.clone()].concat();
        for level in LEVELS {
            let (before, after) = (cuts_of(level, &old), cuts_of(level, &new));
            let moved: Vec<usize> = before.iter().map(|cut| cut + 1000).collect();
            let same = after.iter().rev().zip(moved.iter().rev()).take_while(|(a, b)| a == b).count();
            assert!(after.len() - same <= 4, "{level:?}: {} of {} cuts differ", after.len() - same, after.len());
        }
    }
}
