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
use super::expected::{Expected, Sought, Tried, try_there, with_ranges};
use super::waiting::{Early, Made};
use super::{DeltaFile, Found, Reach, Stop, Take, asked, give, listed, look_up, range};
use crate::reuse::basis::{Basis, Used};
use crate::reuse::index::{Index, Kinds};

/// Chunks are tried so many bytes at a time.
const STEP_BYTES: u64 = 16 << 20;
/// When so many bytes at the end of a step are not where they are expected, all that follows may be elsewhere.
const ASTRAY_BYTES: u64 = 4 << 20;
/// How far before its place something that strayed is looked for, and how far behind the end of the step.
const NEAR_BEFORE_BYTES: u64 = 1 << 20;
const NEAR_BEHIND_BYTES: u64 = 16 << 20;
/// The most chunks for the fine search, 64 MiB of memory: what a file of 300 GB has. What is beyond is fetched.
const MISSED_MAX: usize = 4 << 20;
/// The most turns that are remembered, 96 MiB of memory.
const TURNS_MAX: usize = 4 << 20;

/// What the coarse search leaves for the fine one.
pub(super) struct Coarse<'f> {
    /// What it could not find.
    pub(super) missed: Vec<ByteRange>,
    /// What of the basis was found.
    pub(super) used: Used,
    /// The chunks of the basis that the new file has, where the basis had to be cut.
    pub(super) found: Option<Kinds>,
    basis: &'f Basis<'f>,
    reach: Reach,
    expected: Expected,
    /// From where on in the new file chunks are expected elsewhere than before.
    turns: Vec<(u64, Expected)>,
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
            let end = start + chunks.iter().map(|chunk| u64::from(chunk.len)).sum::<u64>();
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
        let (missed, found, expected) = (Vec::new(), None, Expected::default());
        Self { missed, used: basis.unused(), found, basis, reach, expected, turns: vec![(0, expected)] }
    }

    /// Tries the chunks of a list that starts at `start`; answers how many were settled. The others are to be looked
    /// up in an index of all of the basis.
    fn go_along(&mut self, start: u64, chunks: &[SignedChunk], take: Take<'_>) -> io::Result<usize> {
        let (mut at, mut settled) = (start, 0);
        while settled < chunks.len() {
            let step = step_of(&chunks[settled..]);
            let expected = [self.expected; 2];
            let sought = with_ranges(at, step).map(|(range, chunk)| Sought { range, chunk, expected });
            let tried = try_there(self.basis, &sought.collect::<Vec<_>>(), take);
            let astray = self.note(&tried);
            let astray_chunks = &step[step.len() - astray.len()..];
            let is_far = astray.iter().map(|tried| tried.range.len()).sum::<u64>() >= ASTRAY_BYTES;
            if is_far && self.reach == Reach::Anywhere && self.basis.has_more(&self.used) {
                if !self.find_near(astray, astray_chunks, take)? {
                    return Ok(settled + step.len() - astray.len());
                }
            } else {
                astray.iter().for_each(|tried| self.miss(tried.range));
            }
            at = tried.last().map_or(at, |tried| tried.range.end());
            settled += step.len();
        }
        Ok(settled)
    }

    /// Where the chunks of a range that was missed are expected: as the chunks before it were, or as those behind it.
    pub(super) fn expected_of(&self, start: u64) -> [Expected; 2] {
        let behind = self.turns.partition_point(|(at, _)| *at <= start);
        let of = |turn: usize| self.turns.get(turn).map(|(_, expected)| *expected);
        let before = of(behind.saturating_sub(1)).unwrap_or_default();
        [before, of(behind).unwrap_or(before)]
    }

    /// Takes note of what was found and missed; answers what was missed at the end, which is not noted.
    fn note<'t>(&mut self, tried: &'t [Tried]) -> &'t [Tried] {
        let found = tried.iter().rposition(|tried| tried.is_found).map_or(0, |last| last + 1);
        let (settled, astray) = tried.split_at(found);
        for tried in settled {
            if tried.is_found {
                self.use_up(tried.range);
            } else {
                self.miss(tried.range);
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
        look_up(&index, first.range.start(), chunks, |_, one| found.extend(one.map(|(_, one)| one)));
        // One chunk may be there by chance. If it was, the next step strays as well.
        let is_behind = found.last().is_some_and(|found| found.range == last.range);
        let found_bytes = found.iter().map(|found| found.range.len()).sum::<u64>();
        if !is_behind && found_bytes < (last.range.end() - first.range.start()) / 2 {
            return Ok(false);
        }
        let wrong = give(&found, take);
        found.retain(|found| wrong.binary_search(&found.range).is_err());
        let mut found = found.iter().peekable();
        for tried in astray {
            match found.next_if(|found| found.range == tried.range) {
                Some(found) => self.find(found),
                None => self.miss(tried.range),
            }
        }
        Ok(true)
    }

    /// Looks up a list that starts at `start`.
    fn sort_out(&mut self, index: &Index, start: u64, chunks: &[SignedChunk], take: Take<'_>) {
        let mut kinds = self.found.take().unwrap_or_else(|| index.no_kinds());
        let mut found = Vec::new();
        look_up(index, start, chunks, |range, one| match one {
            Some((kind, one)) => {
                kinds.insert(kind);
                self.find(&one);
                found.push(one);
            }
            None => self.miss(range),
        });
        self.found = Some(kinds);
        give(&found, take);
    }

    fn find(&mut self, found: &Found) {
        let expected = Expected::behind(found);
        if expected != std::mem::replace(&mut self.expected, expected) && self.turns.len() < TURNS_MAX {
            self.turns.push((found.range.start(), expected));
        }
        self.use_up(found.range);
    }

    /// What is expected of a range is there.
    fn use_up(&mut self, found: ByteRange) {
        let place = self.expected.offset(found.start()).and_then(|offset| ByteRange::new(offset, found.len()).ok());
        self.used.add(self.expected.file(), place);
    }

    fn miss(&mut self, range: ByteRange) {
        if self.missed.len() < MISSED_MAX {
            self.missed.push(range);
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
