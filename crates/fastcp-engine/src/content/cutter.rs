//! Cuts files into chunks and hashes them, on threads of its own.
//!
//! The same code cuts at the sender, which lists the chunks of the new file, and at the receiver, which looks
//! for them in what it has. A file is gone through twice: in parallel for candidates, then, once the cuts are
//! chosen in order, in parallel for hashes. The second time it comes from the page cache. So memory is a slice
//! for each thread, whatever the file. Candidates are few, and those of one step are all that is kept.
//!
//! The threads are not rayon's common ones: those may all be scanning, and a scan may wait for a receiver
//! that waits for what is done here.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fastcp_model::ByteRange;
use fastcp_sys::Stat;
use fastcp_sys::file::{next_data, read_at};
use fastcp_wire::limits::SIGNATURE_CHUNK_BYTES_MAX;
use fastcp_wire::signature::{Level, SignedChunk, WeakHash};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use xxhash_rust::xxh3::Xxh3;

use crate::content::cuts::{Cuts, WINDOW_BYTES, candidates, cuts_of};
use crate::content::strong_hash::StrongHasher;
use crate::content::zeros::SLICE_BYTES;
use crate::lock::Lock;

/// What one thread looks through for candidates before it takes the next.
const SEGMENT_BYTES: u64 = 4 << 20;
/// Cutting is bound by memory long before so many threads.
const THREADS_MAX: usize = 16;

/// The threads that cut. One for a sender, one for a receiver.
#[derive(Debug, Default)]
pub(crate) struct Cutter {
    /// Made when first needed: most runs cut nothing.
    pool: Lock<Option<Arc<ThreadPool>>>,
    is_stopped: AtomicBool,
}

/// A file to be cut, of the length that it had when it was looked at.
pub(crate) struct CutFile<'a> {
    file: &'a File,
    file_bytes: u64,
    is_sparse: bool,
    /// Is told of the bytes that are read.
    on_read: &'a (dyn Fn(u64) + Sync),
}

/// A chunk that can be looked up, but stands for nothing yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MarkedChunk {
    /// Its length in bytes.
    pub(crate) len: u32,
    pub(crate) weak: WeakHash,
}

impl MarkedChunk {
    /// A chunk of these bytes, at most as many as the longest coarse chunk has.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self { len: bytes.len() as u32, weak: WeakHash::of(bytes) }
    }
}

/// Why a file was not cut.
#[derive(Debug)]
pub(crate) enum CutError {
    /// It is shorter than it was.
    Ended,
    /// It cannot be read, or there are no threads to be had.
    Io(io::Error),
}

impl Cutter {
    /// The coarse chunks from the start of the range, which counts as a cut, to the first cut at or after its
    /// end, or to the end of the file.
    pub(crate) fn coarse(&self, file: &CutFile<'_>, range: ByteRange) -> Result<Vec<ByteRange>, CutError> {
        // A chunk that begins before the end of the range ends no later.
        let end = range.end().saturating_add(SIGNATURE_CHUNK_BYTES_MAX).min(file.file_bytes);
        self.install(|| {
            let found = file.candidates(Level::Coarse, range.start(), end)?;
            Ok(chunks_between(range, end, found.iter().flatten().copied()))
        })
    }

    /// The same chunks with their weak hashes.
    pub(crate) fn coarse_marked(&self, file: &CutFile<'_>, range: ByteRange) -> Result<Vec<MarkedChunk>, CutError> {
        self.map(&self.coarse(file, range)?, |slice, chunk| file.marked(*chunk, slice))
    }

    /// Runs `work` for each of `inputs`, in parallel, each thread with a buffer of its own.
    pub(crate) fn map<T: Sync, U: Send>(
        &self,
        inputs: &[T],
        work: impl Fn(&mut Vec<u8>, &T) -> Result<U, CutError> + Sync,
    ) -> Result<Vec<U>, CutError> {
        self.install(|| inputs.par_iter().map_init(Vec::new, |buffer, input| work(buffer, input)).collect())
    }

    /// Nothing is to be cut any more. What is being cut comes to its end within moments.
    pub(crate) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    fn install<T: Send>(&self, work: impl FnOnce() -> Result<T, CutError> + Send) -> Result<T, CutError> {
        if self.is_stopped.load(Ordering::Relaxed) {
            return Err(CutError::Io(io::ErrorKind::Interrupted.into()));
        }
        let pool = self.pool().map_err(CutError::Io)?;
        pool.install(work)
    }

    fn pool(&self) -> io::Result<Arc<ThreadPool>> {
        let mut pool = self.pool.lock();
        if let Some(pool) = &*pool {
            return Ok(Arc::clone(pool));
        }
        // Where the system allows few threads, the common pool has few.
        let mut threads = rayon::current_num_threads().min(THREADS_MAX);
        let made = loop {
            let builder = ThreadPoolBuilder::new().num_threads(threads).thread_name(|number| format!("cut {number}"));
            match builder.build() {
                Ok(made) => break Arc::new(made),
                Err(_) if threads > 1 => threads /= 2,
                // The only reason is that the system has no more threads, which it says with the errno for it.
                Err(_) => return Err(io::Error::from_raw_os_error(nix::libc::ENOMEM)),
            }
        };
        *pool = Some(Arc::clone(&made));
        Ok(made)
    }
}

impl<'a> CutFile<'a> {
    pub(crate) fn new(file: &'a File, stat: &Stat) -> Self {
        let is_sparse = stat.allocated_bytes < stat.size_bytes();
        Self { file, file_bytes: stat.size_bytes(), is_sparse, on_read: &|_| {} }
    }

    /// Tells `on_read` of the bytes that are read from now on.
    pub(crate) fn telling(self, on_read: &'a (dyn Fn(u64) + Sync)) -> Self {
        Self { on_read, ..self }
    }

    /// The length that it had.
    pub(crate) fn bytes(&self) -> u64 {
        self.file_bytes
    }

    /// The candidates between two cuts, segment by segment.
    fn candidates(&self, level: Level, start: u64, end: u64) -> Result<Vec<Vec<u64>>, CutError> {
        let segment = |slice: &mut Vec<u8>, position: u64| {
            let from = start + position * SEGMENT_BYTES;
            let mut found = Vec::new();
            self.candidates_within(level, (start, from, end.min(from + SEGMENT_BYTES)), slice, &mut found)?;
            Ok(found)
        };
        let count = end.saturating_sub(start).div_ceil(SEGMENT_BYTES);
        (0..count).into_par_iter().map_init(|| vec![0; SLICE_BYTES], segment).collect()
    }

    /// The candidates after `from` and up to `end`, slice by slice, each with the run-up that the window needs
    /// where there is one.
    fn candidates_within(
        &self,
        level: Level,
        (start, from, end): (u64, u64, u64),
        slice: &mut [u8],
        found: &mut Vec<u64>,
    ) -> Result<(), CutError> {
        const RUN_UP: u64 = WINDOW_BYTES as u64 - 1;
        let mut at = from;
        while at < end {
            let read_from = at.saturating_sub(RUN_UP).max(start);
            let length = slice.len().min(usize::try_from(end - read_from).unwrap_or(usize::MAX));
            // Zeros have no candidates: a test of `cuts.rs` holds it.
            let read = ByteRange::new(read_from, length as u64).map_err(|_| CutError::Ended)?;
            if !self.is_hole(read) {
                self.read(&mut slice[..length], read_from)?;
                candidates(level, &slice[..length], |position| found.push(read_from + position as u64));
            }
            at = read.end();
        }
        Ok(())
    }

    /// Fills `bytes` from `offset`.
    pub(crate) fn read(&self, bytes: &mut [u8], offset: u64) -> Result<(), CutError> {
        let got = read_at(self.file, bytes, offset).map_err(CutError::Io)?;
        (self.on_read)(got as u64);
        match got {
            got if got == bytes.len() => Ok(()),
            _ => Err(CutError::Ended),
        }
    }

    /// The hashes of a chunk, read slice by slice; `each` sees the slices too.
    pub(crate) fn signed(
        &self,
        chunk: ByteRange,
        slice: &mut Vec<u8>,
        mut each: impl FnMut(&[u8]),
    ) -> Result<SignedChunk, CutError> {
        let mut hasher = StrongHasher::new();
        let MarkedChunk { len, weak } = self.read_chunk(chunk, slice, |bytes| {
            hasher.update(bytes);
            each(bytes);
        })?;
        Ok(SignedChunk { len, weak, hash: hasher.chunk() })
    }

    /// The weak hash of a chunk, read slice by slice.
    pub(crate) fn marked(&self, chunk: ByteRange, slice: &mut Vec<u8>) -> Result<MarkedChunk, CutError> {
        self.read_chunk(chunk, slice, |_| {})
    }

    fn read_chunk(
        &self,
        chunk: ByteRange,
        slice: &mut Vec<u8>,
        mut each: impl FnMut(&[u8]),
    ) -> Result<MarkedChunk, CutError> {
        slice.resize(SLICE_BYTES, 0);
        let is_hole = self.is_hole(chunk);
        if is_hole {
            slice.fill(0);
        }
        let mut hasher = Xxh3::new();
        let mut at = chunk.start();
        while at < chunk.end() {
            let slice = &mut slice[..SLICE_BYTES.min((chunk.end() - at) as usize)];
            if !is_hole {
                self.read(slice, at)?;
            }
            hasher.update(slice);
            each(slice);
            at += slice.len() as u64;
        }
        // A chunk is at most 1 MiB long.
        Ok(MarkedChunk { len: chunk.len() as u32, weak: WeakHash::from_xxh3(hasher.digest()) })
    }

    /// Whether the range is known to hold zeros only.
    pub(crate) fn is_hole(&self, range: ByteRange) -> bool {
        self.is_sparse
            && !range.is_empty()
            && next_data(self.file, range.start()).is_ok_and(|data| data.is_none_or(|at| at >= range.end()))
    }
}

/// What `of` makes of each fine chunk of some bytes, which begin with a cut and end with one.
pub(crate) fn fine_chunks<T>(bytes: &[u8], of: impl Fn(&[u8]) -> T) -> Vec<T> {
    let mut last = 0;
    let made = |cut: usize| of(&bytes[std::mem::replace(&mut last, cut)..cut]);
    cuts_of(Level::Fine, bytes).into_iter().map(made).collect()
}

/// The coarse chunks from the start of `range` to the first cut at or after its end; `end` is where the file
/// ends, or is beyond that cut.
fn chunks_between(range: ByteRange, end: u64, candidates: impl Iterator<Item = u64>) -> Vec<ByteRange> {
    let mut chunks = Vec::new();
    let mut start = range.start();
    let mut cut = |at: u64| {
        if start < range.end() {
            chunks.extend(ByteRange::new(start, at - start));
            start = at;
        }
    };
    let mut cuts = Cuts::from(Level::Coarse, range.start());
    candidates.for_each(|at| cuts.candidate(at, &mut cut));
    cuts.end(end, &mut cut);
    chunks
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use fastcp_model::ByteRange;
    use fastcp_sys::Stat;
    use fastcp_wire::signature::Level;

    use super::{CutError, CutFile, Cutter, MarkedChunk};
    use crate::content::cuts::cuts_of;

    fn random(count: usize) -> Vec<u8> {
        let mut state = 11u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..count).map(|_| next()).collect()
    }

    fn coarse(file: &File, start: u64, len: u64) -> Result<Vec<MarkedChunk>, CutError> {
        let stat = Stat::of_fd(file).expect("stat");
        Cutter::default().coarse_marked(&CutFile::new(file, &stat), ByteRange::new(start, len).expect("lawful"))
    }

    /// What one thread makes of it, in memory.
    fn in_order(bytes: &[u8]) -> Vec<MarkedChunk> {
        let mut last = 0;
        let cuts = cuts_of(Level::Coarse, bytes).into_iter();
        cuts.map(|cut| MarkedChunk::of(&bytes[std::mem::replace(&mut last, cut)..cut])).collect()
    }

    #[test]
    fn a_cutter_that_was_stopped_cuts_nothing() {
        let file = tempfile::tempfile().expect("file");
        let stat = Stat::of_fd(&file).expect("stat");
        let cutter = Cutter::default();
        cutter.stop();
        let cut = cutter.coarse(&CutFile::new(&file, &stat), ByteRange::new(0, 0).expect("lawful"));
        assert!(matches!(cut, Err(CutError::Io(error)) if error.kind() == std::io::ErrorKind::Interrupted));
    }

    #[test]
    fn threads_cut_a_file_as_one_would() {
        for length in [0, 1, 100_000, (4 << 20) - 1, (4 << 20) + 63, 21_000_001] {
            let bytes = random(length);
            let file = tempfile::tempfile().expect("file");
            file.write_all_at(&bytes, 0).expect("write");
            assert_eq!(coarse(&file, 0, length as u64).expect("cut"), in_order(&bytes), "{length} bytes");
        }
    }

    #[test]
    fn steps_that_follow_each_other_give_the_chunks_of_the_whole() {
        let bytes = random(12 << 20);
        let file = tempfile::tempfile().expect("file");
        file.write_all_at(&bytes, 0).expect("write");
        for step in [1, 1 << 20, 5_000_000] {
            let (mut start, mut found) = (0, Vec::new());
            while start < bytes.len() as u64 {
                let chunks = coarse(&file, start, step.min(bytes.len() as u64 - start)).expect("cut");
                let listed: u64 = chunks.iter().map(|chunk| u64::from(chunk.len)).sum();
                assert!(listed >= step.min(bytes.len() as u64 - start));
                start += listed;
                found.extend(chunks);
            }
            assert_eq!(found, in_order(&bytes), "steps of {step}");
        }
    }

    #[test]
    fn holes_are_cut_like_the_zeros_that_they_are() {
        let mut bytes = vec![0; 20 << 20];
        bytes[9_000_000..9_500_000].copy_from_slice(&random(500_000));
        let file = tempfile::tempfile().expect("file");
        file.set_len(bytes.len() as u64).expect("grow");
        file.write_all_at(&bytes[9_000_000..9_500_000], 9_000_000).expect("write");
        assert_eq!(coarse(&file, 0, bytes.len() as u64).expect("cut"), in_order(&bytes));
    }

    #[test]
    fn a_file_that_became_shorter_is_told() {
        let file = tempfile::tempfile().expect("file");
        file.write_all_at(&random(1 << 20), 0).expect("write");
        let stat = Stat::of_fd(&file).expect("stat");
        file.set_len(1000).expect("cut off");
        let range = ByteRange::new(0, 1 << 20).expect("lawful");
        let result = Cutter::default().coarse_marked(&CutFile::new(&file, &stat), range);
        assert!(matches!(result, Err(CutError::Ended)));
    }
}
