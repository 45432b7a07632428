//! The search for fine chunks, in what the coarse search missed.
//!
//! They too are tried where they are expected first: most are of places that were rewritten here and there. What is not
//! there is looked up in an index of what the new file did not use of the basis, which a thread of its own makes.
//! Coarse chunks of which nothing is where it is expected may be copies of something that is used already. When there
//! are many of them, the whole basis is cut coarsely after all, and they are looked up.

use std::thread;

use fastcp_wire::signature::{Level, SignedChunk};

use super::asker::Search;
use super::coarse::{Coarse, Missed};
use super::effort::Effort;
use super::expected::{Expected, Fate, Sought, Tried, WAYS, try_there, with_ranges};
use super::waiting::{Early, Made};
use super::{DeltaFile, Reach, Stop, Take, asked, give, in_list, listed, look_up, range_of};
use crate::reuse::index::Index;

/// Lists of so many bytes are gone through together: more than one processor can be at it.
const TOGETHER_BYTES: u64 = 8 << 20;
/// The whole basis is cut for this part of its length, and for no more than so many bytes.
const WORTH_CUTTING_PART: u64 = 128;
const WORTH_CUTTING_BYTES_MAX: u64 = 64 << 20;

/// A list and where its chunks are expected.
struct FineList {
    start: u64,
    chunks: Vec<SignedChunk>,
    ways: [Option<Expected>; WAYS],
}

/// What has been asked for and not been decided yet.
struct Fine<'f, 'b> {
    file: &'f DeltaFile<'b>,
    coarse: &'f Coarse<'f>,
    effort: Effort,
    /// Lists that have not been gone through yet, and their bytes.
    together: Vec<FineList>,
    together_bytes: u64,
    /// Lists of which nothing is where it is expected, and their bytes.
    astray: Vec<FineList>,
    astray_bytes: u64,
    /// What is to be looked up in the index of what is not used.
    early: Early,
}

/// Looks for fine chunks in the ranges that the coarse search missed.
pub(super) fn find_fine<'p>(
    search: &mut Search<'_, '_, 'p>,
    file: &DeltaFile<'p>,
    coarse: &Coarse<'_>,
    take: Take<'_>,
) -> Result<(), Stop> {
    if coarse.missed.is_empty() {
        return Ok(());
    }
    thread::scope(|threads| {
        let mut index = match file.reach {
            Reach::Anywhere => Some(Made::by(threads, || file.basis.fine(&coarse.used))?),
            Reach::SamePlace => None,
        };
        let mut fine = Fine::new(file, coarse);
        let mut to_ask = coarse.missed.iter();
        loop {
            while search.has_room()
                && let Some(missed) = to_ask.find(|_| fine.effort.may_ask())
            {
                search.ask(asked(file, missed.range, Level::Fine));
            }
            let answer = search.answer()?;
            let is_last = answer.is_none();
            if let Some((asked, outcome)) = answer {
                fine.push(asked.range.start(), listed(outcome)?);
            }
            if is_last || fine.together_bytes >= TOGETHER_BYTES {
                fine.go_through(take);
                fine.look_up_astray(is_last, take)?;
            }
            match &mut index {
                Some(index) if is_last || fine.early.may_go(index) => fine.look_up_early(Some(index.wait()?), take),
                None => fine.look_up_early(None, take),
                Some(_) => {}
            }
            if is_last {
                return Ok(());
            }
        }
    })
}

impl<'f, 'b> Fine<'f, 'b> {
    fn new(file: &'f DeltaFile<'b>, coarse: &'f Coarse<'f>) -> Self {
        Self {
            file,
            coarse,
            effort: Effort::default(),
            together: Vec::new(),
            together_bytes: 0,
            astray: Vec::new(),
            astray_bytes: 0,
            early: Early::default(),
        }
    }

    fn push(&mut self, start: u64, chunks: Vec<SignedChunk>) {
        self.together_bytes += range_of(start, &chunks).len();
        self.together.push(FineList { start, chunks, ways: self.coarse.ways_of(start) });
    }

    /// Tries all chunks where they are expected, and keeps what is not there.
    fn go_through(&mut self, take: Take<'_>) {
        self.together_bytes = 0;
        let mut lists = std::mem::take(&mut self.together);
        // A list that had to be asked for again comes late.
        lists.sort_unstable_by_key(|list| list.start);
        let sought = lists.iter().flat_map(|list| {
            with_ranges(list.start, &list.chunks).map(|(range, chunk)| Sought { range, chunk, ways: list.ways })
        });
        let tried = try_there(&self.file.basis, &sought.collect::<Vec<_>>(), take);
        let mut rest = &tried[..];
        for list in lists {
            let (of_list, behind) = rest.split_at(list.chunks.len());
            rest = behind;
            let is_astray = of_list.iter().all(|tried| tried.fate == Fate::Missed);
            if is_astray && !self.coarse.is_indexed && self.file.reach == Reach::Anywhere {
                self.astray_bytes += range_of(list.start, &list.chunks).len();
                self.astray.push(list);
            } else {
                self.keep_missed(&list, of_list);
            }
        }
    }

    /// Takes note of what was found of a list, and keeps what was not.
    fn keep_missed(&mut self, list: &FineList, tried: &[Tried]) {
        let mut chunks = &list.chunks[..];
        for run in tried.chunk_by(|one, next| (one.fate == Fate::Missed) == (next.fate == Fate::Missed)) {
            let (of_run, behind) = chunks.split_at(run.len());
            chunks = behind;
            let [first, ..] = run else { continue };
            if first.fate == Fate::Missed {
                self.early.push(first.range.start(), of_run.to_vec());
            } else {
                run.iter().for_each(|tried| self.effort.looked_up(tried.range, true));
            }
        }
    }

    /// Looks up the coarse chunks that have gone astray, if they are worth it; what is not found is left to fine chunks.
    fn look_up_astray(&mut self, is_last: bool, take: Take<'_>) -> Result<(), Stop> {
        let is_worth = self.astray_bytes >= worth_cutting_bytes(self.file);
        if self.astray.is_empty() || !(is_worth || is_last) {
            return Ok(());
        }
        let index = if is_worth { Some(self.file.basis.coarse()?) } else { None };
        for list in std::mem::take(&mut self.astray) {
            let missed = index.and_then(|index| Some((index, self.coarse.missed_at(list.start)?)));
            match missed {
                Some((index, missed)) if is_found(index, missed, take) => self.effort.looked_up(missed.range, true),
                _ => self.early.push(list.start, list.chunks),
            }
        }
        if !is_worth {
            self.astray_bytes = 0;
        }
        Ok(())
    }

    /// Looks up what is left, where there is an index; then it is decided.
    fn look_up_early(&mut self, index: Option<&mut Index>, take: Take<'_>) {
        let nothing = Index::default();
        let index = index.as_deref().unwrap_or(&nothing);
        for (start, chunks) in self.early.take() {
            take(&in_list(index, start, &chunks, &mut self.effort), Some(range_of(start, &chunks)));
        }
    }
}

/// Whether a coarse chunk is somewhere in the basis.
fn is_found(index: &Index, missed: &Missed, take: Take<'_>) -> bool {
    let mut found = Vec::new();
    look_up(index, missed.range.start(), std::slice::from_ref(&missed.chunk), |_, one| found.extend(one));
    !found.is_empty() && give(&found, take).wrong.is_empty()
}

fn worth_cutting_bytes(file: &DeltaFile<'_>) -> u64 {
    (file.basis.bytes() / WORTH_CUTTING_PART).min(WORTH_CUTTING_BYTES_MAX)
}
