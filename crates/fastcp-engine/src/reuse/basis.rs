//! What the receiver has already, and where in it which chunks are.
//!
//! A basis is one or more local files: the old target, a part file whose source has changed. Each is cut the way
//! the sender cuts the new file, so that equal bytes make equal chunks wherever they are. Fine chunks are looked
//! for only in what the new file has not been found to use. Nothing of the contents is kept in
//! memory. Chunks are found by their length and weak hash, which prove nothing, and a basis may change while it is
//! used: whoever copies from it must compare the strong hash of what was copied.
//!
//! Cutting all of it takes as long as reading it twice, so it is put off until something is known to be elsewhere
//! than where it would be expected (`delta.rs`).

use std::fs::File;
use std::io;
use std::sync::OnceLock;

use fastcp_model::ByteRange;
use fastcp_sys::Stat;
use fastcp_wire::limits::{FINE_SIGNATURE_BYTES_MAX, SIGNATURE_BYTES_MAX};

use crate::content::crc_runs::CrcRuns;
use crate::content::cutter::{CutError, CutFile, Cutter, MarkedChunk, fine_chunks};
use crate::reuse::index::{BasisChunk, ENTRIES_MAX, Index};

/// Of a basis for a small file no more than this is looked at, of each file.
const SMALL_BASIS_BYTES_MAX: u64 = 16 << 20;
/// How many parts are cut finely before it is seen whether the index is full.
const FINE_BATCH: usize = 1024;
/// What is cut finely by one thread at a time.
const PART_BYTES: u64 = 256 << 10;
/// The most runs of what is used that are remembered of a file; what lies beyond is cut once more.
const USED_RUNS_MAX: usize = 2 << 20;

/// Local files to take bytes from.
#[derive(Debug)]
pub(crate) struct Basis<'a> {
    cutter: &'a Cutter,
    files: Vec<(File, Stat)>,
    /// Made when first needed, and kept for when the connection breaks.
    coarse: OnceLock<Index>,
}

/// A part of a basis.
#[derive(Debug, Clone, Copy)]
struct Part {
    /// Which file.
    file: u32,
    offset: u64,
    len: u64,
}

/// Which ranges of a basis the new file is known to have.
#[derive(Debug)]
pub(crate) struct Used {
    files: Vec<CrcRuns>,
}

impl Used {
    /// Adds a range of one file.
    pub(crate) fn add(&mut self, file: usize, range: Option<ByteRange>) {
        if let (Some(runs), Some(range)) = (self.files.get_mut(file), range)
            && runs.len() < USED_RUNS_MAX
        {
            // Two chunks of the new file may be the same one here.
            runs.gaps_in(range).into_iter().for_each(|gap| runs.insert(gap, 0));
        }
    }
}

impl<'a> Basis<'a> {
    /// A basis of these files, which are numbered as they come.
    ///
    /// # Errors
    /// As `fstat(2)`.
    pub(crate) fn new(cutter: &'a Cutter, files: Vec<File>) -> io::Result<Self> {
        let look = |file: File| Stat::of_fd(&file).map(|stat| (file, stat));
        let files = files.into_iter().map(look).collect::<io::Result<_>>()?;
        Ok(Self { cutter, files, coarse: OnceLock::new() })
    }

    /// A basis that has nothing.
    pub(crate) fn empty(cutter: &'a Cutter) -> Self {
        Self { cutter, files: Vec::new(), coarse: OnceLock::new() }
    }

    /// Whether it has no bytes.
    pub(crate) fn is_empty(&self) -> bool {
        self.files.iter().all(|(_, stat)| stat.size_bytes() == 0)
    }

    /// Whether all of it has been cut.
    #[cfg(test)]
    pub(crate) fn is_cut(&self) -> bool {
        self.coarse.get().is_some()
    }

    /// The length of all files together.
    pub(crate) fn bytes(&self) -> u64 {
        (0..self.files.len()).map(|file| self.file_bytes(file)).sum()
    }

    /// The length of one file; nothing of one that there is not.
    pub(crate) fn file_bytes(&self, file: usize) -> u64 {
        self.files.get(file).map_or(0, |(_, stat)| stat.size_bytes())
    }

    /// How many files there are.
    pub(crate) fn files(&self) -> usize {
        self.files.len()
    }

    /// None of it.
    pub(crate) fn unused(&self) -> Used {
        Used { files: self.files.iter().map(|_| CrcRuns::default()).collect() }
    }

    /// The coarse chunks of one file between two offsets.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(crate) fn coarse_near(&self, number: usize, (from, end): (u64, u64)) -> io::Result<Index> {
        let mut places = Vec::new();
        if let Some((number, file)) = self.cut_files().nth(number) {
            let end = end.min(file.bytes());
            until_end(self.cut_coarse_within(number, &file, (from, end), &mut places))?;
        }
        Ok(Index::new(places))
    }

    /// The coarse chunks of all files. Made once: it takes a second for a few GB, or as long as the disk needs.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(crate) fn coarse(&self) -> io::Result<&Index> {
        if let Some(index) = self.coarse.get() {
            return Ok(index);
        }
        let mut places = Vec::new();
        for (number, file) in self.cut_files() {
            until_end(self.cut_coarse(number, &file, &mut places))?;
        }
        Ok(self.coarse.get_or_init(|| Index::new(places)))
    }

    /// The fine chunks of what is not used.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(crate) fn fine(&self, used: &Used) -> io::Result<Index> {
        let files: Vec<CutFile<'_>> = self.cut_files().map(|(_, file)| file).collect();
        let mut places = Vec::new();
        for batch in self.unused_parts(used).chunks(FINE_BATCH) {
            let cut = self.cutter.map(batch, |buffer, part| Ok(fine_places(&files[part.file as usize], *part, buffer)));
            for cut in cut.map_err(io_error)? {
                places.extend(until_end(cut)?.unwrap_or_default());
            }
            if places.len() >= ENTRIES_MAX {
                break;
            }
        }
        Ok(Index::new(places))
    }

    /// What is not used, in parts that are cut one by one.
    fn unused_parts(&self, used: &Used) -> Vec<Part> {
        let mut parts = Vec::new();
        for (file, (runs, (_, stat))) in (0..).zip(used.files.iter().zip(&self.files)) {
            let Ok(whole) = range(0, stat.size_bytes()) else { continue };
            for gap in runs.gaps_in(whole) {
                let starts = (gap.start()..gap.end()).step_by(PART_BYTES as usize);
                parts.extend(starts.map(|at| Part { file, offset: at, len: PART_BYTES.min(gap.end() - at) }));
            }
        }
        parts
    }

    /// The fine chunks of all files, or of the first part of long ones: for a new file that is small.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(crate) fn all_fine(&self, buffer: &mut Vec<u8>) -> io::Result<Index> {
        let mut places = Vec::new();
        for (number, file) in self.cut_files() {
            until_end(cut_finely(number, &file, buffer, &mut places))?;
        }
        Ok(Index::new(places))
    }

    fn cut_files(&self) -> impl Iterator<Item = (u32, CutFile<'_>)> {
        (0..).zip(self.files.iter().map(|(file, stat)| CutFile::new(file, stat)))
    }

    fn cut_coarse(&self, number: u32, file: &CutFile<'_>, places: &mut Vec<BasisChunk>) -> Result<(), CutError> {
        self.cut_coarse_within(number, file, (0, file.bytes()), places)
    }

    fn cut_coarse_within(
        &self,
        number: u32,
        file: &CutFile<'_>,
        (mut at, end): (u64, u64),
        places: &mut Vec<BasisChunk>,
    ) -> Result<(), CutError> {
        while at < end && places.len() < ENTRIES_MAX {
            let step = range(at, SIGNATURE_BYTES_MAX.min(end - at))?;
            put_places(number, &mut at, &self.cutter.coarse_marked(file, step)?, places);
        }
        Ok(())
    }
}

/// Places for chunks that follow each other from `at` on.
fn put_places(file: u32, at: &mut u64, chunks: &[MarkedChunk], places: &mut Vec<BasisChunk>) {
    for chunk in chunks {
        places.push(BasisChunk { weak: chunk.weak, len: chunk.len, file, offset: *at });
        *at += u64::from(chunk.len);
    }
}

/// The fine chunks of a part. Those of a hole are of no use: the sender sends none either.
fn fine_places(file: &CutFile<'_>, part: Part, buffer: &mut Vec<u8>) -> Result<Vec<BasisChunk>, CutError> {
    let mut places = Vec::new();
    if !file.is_hole(range(part.offset, part.len)?) {
        buffer.resize(part.len as usize, 0);
        file.read(buffer, part.offset)?;
        put_places(part.file, &mut part.offset.clone(), &fine_chunks(buffer, MarkedChunk::of), &mut places);
    }
    Ok(places)
}

/// The fine chunks of a file from its start.
fn cut_finely(
    number: u32,
    file: &CutFile<'_>,
    buffer: &mut Vec<u8>,
    places: &mut Vec<BasisChunk>,
) -> Result<(), CutError> {
    let end = file.bytes().min(SMALL_BASIS_BYTES_MAX);
    let mut at = 0;
    while at < end {
        let length = FINE_SIGNATURE_BYTES_MAX.min(end - at);
        buffer.resize(length as usize, 0);
        file.read(buffer, at)?;
        let mut chunks = fine_chunks(buffer, MarkedChunk::of);
        if at + length < end && chunks.len() > 1 {
            // It ended with the buffer; its true end is found with the next one.
            chunks.pop();
        }
        put_places(number, &mut at, &chunks, places);
    }
    Ok(())
}

/// A file that became shorter is used as far as it went.
fn until_end<T>(cut: Result<T, CutError>) -> io::Result<Option<T>> {
    match cut {
        Ok(value) => Ok(Some(value)),
        Err(CutError::Ended) => Ok(None),
        Err(CutError::Io(error)) => Err(error),
    }
}

fn io_error(error: CutError) -> io::Error {
    match error {
        CutError::Ended => io::ErrorKind::UnexpectedEof.into(),
        CutError::Io(error) => error,
    }
}

/// A range of a file that exists: its end fits.
fn range(start: u64, len: u64) -> Result<ByteRange, CutError> {
    ByteRange::new(start, len).map_err(|_| CutError::Ended)
}
