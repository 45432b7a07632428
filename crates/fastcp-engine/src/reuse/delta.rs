//! Which ranges of a changed file the receiver has already, somewhere in what it has of it.
//!
//! The sender lists the chunks of the new file, coarse ones first (`coarse.rs`); only for those that the receiver
//! lacks it asks for the fine ones (`fine.rs`). So the lists stay small: 27 bytes for some 80 KiB that are the same,
//! and for some 5 KiB where something changed. What is found is handed over as it is found, and nothing is kept but
//! the coarse chunks that were missed. Nothing is fetched or written here: the rest is the plan's.
//!
//! A chunk is first tried where it is expected (`expected.rs`), which takes one reading of the basis. Only where too
//! much is not there the basis is cut, by a thread of its own; lists that come before it is done wait (`waiting.rs`).

use std::collections::HashMap;
use std::io;

use fastcp_model::{ByteRange, Status};
use fastcp_net::NetError;
use fastcp_wire::limits::FINE_SIGNATURE_BYTES_MAX;
use fastcp_wire::signature::{Level, SignedChunk, StrongHash};

use crate::reuse::basis::Basis;
use crate::reuse::index::{BasisChunk, Index};

mod asker;
mod coarse;
mod effort;
mod expected;
mod fine;
mod waiting;

pub(crate) use asker::Asker;
use asker::{Asked, Listed, Search};
use coarse::find_coarse;
use effort::Effort;
use expected::with_ranges;
use fine::find_fine;

/// The longest file for [`find_small`], in bytes.
pub(crate) const SMALL_BYTES_MAX: u64 = FINE_SIGNATURE_BYTES_MAX;
/// A file that changed.
#[derive(Debug)]
pub(crate) struct DeltaFile<'a> {
    /// At the sender.
    pub(crate) path: &'a [u8],
    /// As offered.
    pub(crate) file_bytes: u64,
    /// As offered.
    pub(crate) mtime_ns: u64,
    pub(crate) basis: Basis<'a>,
    pub(crate) reach: Reach,
}

/// From where in the basis bytes can be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    Anywhere,
    /// Only from the first file, where they are to stand: it is the file that is written to.
    SamePlace,
}

/// A range of the new file that the basis has, as far as weak hashes tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    /// In the new file.
    pub(crate) range: ByteRange,
    /// Which file of the basis.
    pub(crate) file: usize,
    /// Where in it.
    pub(crate) offset: u64,
    /// Of the bytes, as the sender lists it: what is copied must have it. It was not looked at yet.
    pub(crate) hash: StrongHash,
}

/// How a search ended that did not break the connection.
#[derive(Debug)]
pub(crate) enum DeltaEnd {
    /// All that can be found was.
    Done,
    /// The file is not what was offered any more. Nothing that was found holds.
    Changed,
    /// The sender will not, or cannot. What was found may be used.
    Refused(Status),
    /// The basis cannot be read. What was found may be used.
    Basis(io::Error),
}

/// Takes what was found: each call in ascending order of ranges, none of which overlap any that held. With it may
/// come a range of which nothing more will be found: what of it was not is to be fetched.
type Take<'t> = &'t mut dyn FnMut(&[Found], Option<ByteRange>) -> Outcome;

/// What became of what was found, but for what held; in the same order.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Other bytes are there.
    pub(crate) wrong: Vec<ByteRange>,
    /// Not looked at: the new file has some of these bytes already.
    pub(crate) had: Vec<ByteRange>,
}

/// Finds what the basis has of one file.
///
/// # Errors
/// A broken connection. The search may then be done again, from the start; the basis remembers its cuts.
pub(crate) fn find(asker: &mut Asker<'_>, file: &DeltaFile<'_>, take: Take<'_>) -> Result<DeltaEnd, NetError> {
    if file.file_bytes == 0 || file.basis.is_empty() {
        return Ok(DeltaEnd::Done);
    }
    let mut search = Search::new(asker);
    let end = if file.file_bytes <= SMALL_BYTES_MAX {
        find_whole(&mut search, file, take)
    } else {
        find_coarse(&mut search, file, take).and_then(|coarse| find_fine(&mut search, file, &coarse, take))
    };
    match end {
        Err(Stop::Net(error)) => Err(error),
        Err(Stop::File(end)) => search.drain().map(|()| end),
        Ok(()) => Ok(DeltaEnd::Done),
    }
}

/// Finds what their bases have of many small files, each of at most [`SMALL_BYTES_MAX`]. `take` gets, once for
/// each, its number in the order of `files`, what was found, and how it ended.
///
/// # Errors
/// A broken connection. What `take` did not get is then to be looked for again.
pub(crate) fn find_small<'p>(
    asker: &mut Asker<'_>,
    files: impl IntoIterator<Item = DeltaFile<'p>>,
    take: &mut dyn FnMut(usize, &[Found], DeltaEnd),
) -> Result<(), NetError> {
    let mut files = files.into_iter().enumerate();
    let mut search = Search::new(asker);
    let mut waiting: HashMap<usize, Basis<'p>> = HashMap::new();
    let mut buffer = Vec::new();
    loop {
        while search.has_room() {
            let Some((number, file)) = files.next() else { break };
            if file.file_bytes == 0 || file.basis.is_empty() {
                take(number, &[], DeltaEnd::Done);
                continue;
            }
            search.ask(asked_whole(number, file.path, file.file_bytes, file.mtime_ns));
            waiting.insert(number, file.basis);
        }
        let Some((asked, outcome)) = search.answer()? else { return Ok(()) };
        let Some(basis) = waiting.remove(&asked.number) else { continue };
        let found = listed(outcome).and_then(|chunks| {
            let index = basis.all_fine(&mut buffer)?;
            Ok(in_list(&index, 0, &chunks, &mut Effort::default()))
        });
        match found {
            Ok(found) => take(asked.number, &found, DeltaEnd::Done),
            Err(Stop::File(end)) => take(asked.number, &[], end),
            Err(Stop::Net(error)) => return Err(error),
        }
    }
}

/// Why a search goes no further.
enum Stop {
    Net(NetError),
    File(DeltaEnd),
}

impl From<NetError> for Stop {
    fn from(error: NetError) -> Self {
        Self::Net(error)
    }
}

/// All that is read here is of a basis.
impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::File(DeltaEnd::Basis(error))
    }
}

fn listed(outcome: Listed) -> Result<Vec<SignedChunk>, Stop> {
    match outcome {
        Listed::List(chunks) => Ok(chunks),
        Listed::Changed => Err(Stop::File(DeltaEnd::Changed)),
        Listed::Refused(status) => Err(Stop::File(DeltaEnd::Refused(status))),
    }
}

/// The one request for a small file.
fn asked_whole(number: usize, path: &[u8], file_bytes: u64, mtime_ns: u64) -> Asked<'_> {
    assert!(file_bytes <= SMALL_BYTES_MAX, "a long file is cut coarsely first");
    Asked { number, path, file_bytes, mtime_ns, range: range(0, file_bytes), level: Level::Fine }
}

fn find_whole<'p>(search: &mut Search<'_, '_, 'p>, file: &DeltaFile<'p>, take: Take<'_>) -> Result<(), Stop> {
    search.ask(asked_whole(0, file.path, file.file_bytes, file.mtime_ns));
    let index = file.basis.all_fine(&mut Vec::new());
    let Some((_, outcome)) = search.answer()? else { return Ok(()) };
    let chunks = listed(outcome)?;
    give(&in_list(&index?, 0, &chunks, &mut Effort::default()), take);
    Ok(())
}

fn asked<'p>(file: &DeltaFile<'p>, range: ByteRange, level: Level) -> Asked<'p> {
    Asked { number: 0, path: file.path, file_bytes: file.file_bytes, mtime_ns: file.mtime_ns, range, level }
}

fn give(found: &[Found], take: Take<'_>) -> Outcome {
    if found.is_empty() { Outcome::default() } else { take(found, None) }
}

/// What a fine list that starts at `start` has in common with the basis.
fn in_list(index: &Index, start: u64, chunks: &[SignedChunk], effort: &mut Effort) -> Vec<Found> {
    let mut found = Vec::new();
    look_up(index, start, chunks, |range, one| {
        effort.looked_up(range, one.is_some());
        found.extend(one);
    });
    found
}

/// Looks up each chunk of a list that starts at `start`.
fn look_up(index: &Index, start: u64, chunks: &[SignedChunk], mut each: impl FnMut(ByteRange, Option<Found>)) {
    for (range, chunk) in with_ranges(start, chunks) {
        let found =
            |place: BasisChunk| Found { range, file: place.file as usize, offset: place.offset, hash: chunk.hash };
        each(range, index.find(chunk, range.start()).map(found));
    }
}

/// What a list that starts at `start` covers.
fn range_of(start: u64, chunks: &[SignedChunk]) -> ByteRange {
    range(start, chunks.iter().map(|chunk| u64::from(chunk.len)).sum())
}

/// A range within an offered file or a list that was checked against it.
fn range(start: u64, len: u64) -> ByteRange {
    ByteRange::new(start, len).expect("within a file whose length fits")
}

#[cfg(test)]
mod tests;
