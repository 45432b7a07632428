//! The search for coarse chunks, from one end of the file to the other.
//!
//! It goes along the basis and tries each chunk where it is expected. Single ones that are not there have changed, and
//! are left for the fine search. Where a long run is not there something was put in or taken out: the basis is cut
//! near by, and the search goes on behind what it finds. Where that finds nothing the whole basis is cut, and
//! from there on chunks are looked up in its index.

use std::io;
use std::thread;

use fastcp_model::ByteRange;
use fastcp_wire::limits::SIGNATURE_BYTES_MAX;
use fastcp_wire::signature::{Level, SignedChunk};

use super::asker::Search;
use super::expected::{Expected, Fate, Sought, Tried, WAYS, try_there, with_ranges};
use super::waiting::{Early, Made};
use super::{DeltaFile, Found, Reach, Stop, Take, asked, give, listed, look_up, range, range_of};
use crate::reuse::basis::{Basis, Used};
use crate::reuse::index::Index;

/// Chunks are tried so many bytes at a time.
const STEP_BYTES: u64 = 16 << 20;
/// When so many bytes at the end of a step are not where they are expected, all that follows may be elsewhere.
const ASTRAY_BYTES: u64 = 4 << 20;
/// How far before its place something that strayed is looked for, and how far behind the end of the step.
const NEAR_BEFORE_BYTES: u64 = 1 << 20;
const NEAR_BEHIND_BYTES: u64 = 16 << 20;
/// The most chunks for the fine search, 96 MiB of memory: what a file of 150 GB has. What is beyond is fetched.
const MISSED_MAX: usize = 2 << 20;
/// The most turns that are remembered, 96 MiB of memory.
const TURNS_MAX: usize = 4 << 20;

/// What the coarse search leaves for the fine one.
pub(super) struct Coarse<'f> {
    /// What it could not find.
    pub(super) missed: Vec<Missed>,
    /// What of the basis was found.
    pub(super) used: Used,
    /// Whether all was looked up that is not where it is expected.
    pub(super) is_indexed: bool,
    basis: &'f Basis<'f>,
    reach: Reach,
    expected: Expected,
    /// Where the chunk that was found last stands in the new file, and what it makes expect.
    last: (u64, Expected),
    /// From where on in the new file chunks are expected elsewhere than before.
    turns: Vec<(u64, Expected)>,
}

/// A coarse chunk that was not found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Missed {
    pub(super) range: ByteRange,
    pub(super) chunk: SignedChunk,
}

/// Looks for all coarse chunks.
pub(super) fn find_coarse<'f, 'p>(
    search: &mut Search<'_, '_, 'p>,
    file: &'f DeltaFile<'p>,
    take: Take<'_>,
) -> Result<Coarse<'f>, Stop> {
    let ask_from = |search: &mut Search<'_, '_, 'p>, at: u64| {
        let step = SIGNATURE_BYTES_MAX.min(file.file_bytes - at);
        search.ask(asked(file, range(at, step), Level::Coarse));
    };
    thread::scope(|threads| {
        let mut coarse = Coarse::new(&file.basis, file.reach);
        let mut index: Option<Made<'_, &Index>> = None;
        let mut early = Early::default();
        ask_from(search, 0);
        while let Some((asked, outcome)) = search.answer()? {
            let (start, chunks) = (asked.range.start(), listed(outcome)?);
            let end = range_of(start, &chunks).end();
            let is_last = end >= file.file_bytes;
            if !is_last {
                // The sender works on it while this list is gone through.
                ask_from(search, end);
            }
            let settled = if index.is_none() { coarse.go_along(start, &chunks, take)? } else { 0 };
            if let Some((range, _)) = with_ranges(start, &chunks).nth(settled) {
                early.push(range.start(), chunks[settled..].to_vec());
                if index.is_none() {
                    index = Some(Made::by(threads, || file.basis.coarse())?);
                    coarse.is_indexed = true;
                }
            }
            if let Some(index) = &mut index
                && (is_last || early.may_go(index))
            {
                let index = index.wait()?;
                early.take().for_each(|(start, chunks)| coarse.sort_out(index, start, &chunks, take));
            }
        }
        Ok(coarse)
    })
}

impl<'f> Coarse<'f> {
    fn new(basis: &'f Basis<'f>, reach: Reach) -> Self {
        let (missed, used, expected) = (Vec::new(), basis.unused(), Expected::default());
        let (last, turns) = ((0, expected), vec![(0, expected)]);
        Self { missed, used, is_indexed: false, basis, reach, expected, last, turns }
    }

    /// Tries the chunks of a list that starts at `start`; answers how many were settled. The others are to be looked
    /// up in an index of all of the basis.
    fn go_along(&mut self, start: u64, chunks: &[SignedChunk], take: Take<'_>) -> io::Result<usize> {
        let (mut at, mut settled) = (start, 0);
        while settled < chunks.len() {
            let step = step_of(&chunks[settled..]);
            let ways = self.ways([self.expected; 2]);
            let sought = with_ranges(at, step).map(|(range, chunk)| Sought { range, chunk, ways });
            let tried = try_there(self.basis, &sought.collect::<Vec<_>>(), take);
            let astray = self.note(&tried, step);
            let astray_chunks = &step[step.len() - astray.len()..];
            let is_far = astray.iter().map(|tried| tried.range.len()).sum::<u64>() >= ASTRAY_BYTES;
            if is_far && self.reach == Reach::Anywhere {
                if !self.find_near(astray, astray_chunks, take)? {
                    return Ok(settled + step.len() - astray.len());
                }
            } else {
                astray.iter().zip(astray_chunks).for_each(|(tried, chunk)| self.miss(tried.range, chunk));
            }
            at = tried.last().map_or(at, |tried| tried.range.end());
            settled += step.len();
        }
        Ok(settled)
    }

    /// Where the chunks of a range that was missed are expected: as the chunks before it were, or as those behind it.
    pub(super) fn ways_of(&self, start: u64) -> [Option<Expected>; WAYS] {
        let behind = self.turns.partition_point(|(at, _)| *at <= start);
        let of = |turn: usize| self.turns.get(turn).map(|(_, expected)| *expected);
        let before = of(behind.saturating_sub(1)).unwrap_or_default();
        self.ways([before, of(behind).unwrap_or(before)])
    }

    /// The chunk that was missed there.
    pub(super) fn missed_at(&self, start: u64) -> Option<&Missed> {
        let at = self.missed.binary_search_by_key(&start, |missed| missed.range.start()).ok()?;
        Some(&self.missed[at])
    }

    fn ways(&self, [one, other]: [Expected; 2]) -> [Option<Expected>; WAYS] {
        match self.reach {
            Reach::Anywhere => [Some(one), Some(other), one.in_other_file(self.basis)],
            Reach::SamePlace => [Some(Expected::default()), None, None],
        }
    }

    /// Takes note of what was found and missed; answers what was missed at the end, which is not noted.
    fn note<'t>(&mut self, tried: &'t [Tried], chunks: &[SignedChunk]) -> &'t [Tried] {
        let settled = tried.iter().rposition(|tried| tried.fate != Fate::Missed).map_or(0, |last| last + 1);
        let (settled, astray) = tried.split_at(settled);
        for (Tried { range, fate }, chunk) in settled.iter().zip(chunks) {
            match fate {
                Fate::Found(expected) => self.used.add(expected.file(), expected.range(*range)),
                Fate::Missed => self.miss(*range, chunk),
                Fate::Had => {}
            }
        }
        astray
    }

    /// Looks for what strayed near to where it was expected; `false` where it is not there either.
    fn find_near(&mut self, astray: &[Tried], chunks: &[SignedChunk], take: Take<'_>) -> io::Result<bool> {
        let (Some(first), Some(last)) = (astray.first(), astray.last()) else { return Ok(true) };
        let Some(from) = self.expected.offset(first.range.start()) else { return Ok(false) };
        let length = last.range.end() - first.range.start() + NEAR_BEHIND_BYTES;
        let near = (from.saturating_sub(NEAR_BEFORE_BYTES), from.saturating_add(length));
        let index = self.basis.coarse_near(self.expected.file(), near)?;
        let mut found: Vec<Found> = Vec::new();
        look_up(&index, first.range.start(), chunks, |_, one| found.extend(one));
        // One chunk may be there by chance. If it was, the next step strays as well.
        let is_behind = found.last().is_some_and(|found| found.range == last.range);
        let found_bytes = found.iter().map(|found| found.range.len()).sum::<u64>();
        if !is_behind && found_bytes < (last.range.end() - first.range.start()) / 2 {
            return Ok(false);
        }
        let outcome = give(&found, take);
        found.retain(|found| outcome.wrong.binary_search(&found.range).is_err());
        let mut found = found.iter().peekable();
        for (tried, chunk) in astray.iter().zip(chunks) {
            match found.next_if(|found| found.range == tried.range) {
                Some(found) => self.find(found),
                None => self.miss(tried.range, chunk),
            }
        }
        Ok(true)
    }

    /// Looks up a list that starts at `start`.
    fn sort_out(&mut self, index: &Index, start: u64, chunks: &[SignedChunk], take: Take<'_>) {
        let (mut found, mut chunk) = (Vec::new(), chunks.iter());
        look_up(index, start, chunks, |range, one| match (one, chunk.next()) {
            (Some(one), _) => {
                self.find(&one);
                found.push(one);
            }
            (None, Some(chunk)) => self.miss(range, chunk),
            (None, None) => {}
        });
        give(&found, take);
    }

    /// Takes note of what was found where nothing was expected. What one chunk says may be chance, such as one of zeros.
    fn find(&mut self, found: &Found) {
        let (before, expected) = (self.last, Expected::behind(found));
        if before.1 == expected && self.expected != expected {
            self.expected = expected;
            if self.turns.len() < TURNS_MAX {
                self.turns.push((before.0, expected));
            }
        }
        self.last = (found.range.start(), expected);
        self.used.add(expected.file(), expected.range(found.range));
    }

    fn miss(&mut self, range: ByteRange, chunk: &SignedChunk) {
        if self.missed.len() < MISSED_MAX {
            self.missed.push(Missed { range, chunk: *chunk });
        }
    }
}

/// The first chunks of a list, so many that they are enough for one step.
fn step_of(chunks: &[SignedChunk]) -> &[SignedChunk] {
    let mut bytes = 0;
    let last = chunks.iter().position(|chunk| {
        bytes += u64::from(chunk.len);
        bytes >= STEP_BYTES
    });
    &chunks[..last.map_or(chunks.len(), |last| last + 1)]
}
