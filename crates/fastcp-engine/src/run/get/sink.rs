//! Where the bytes of `get` go: into a part file that becomes the output, or straight on.
//!
//! The part file lies beside the output, under a name that `--delete` knows, with a journal that binds it to the
//! state of the source. It is locked: of two that copy to one output the second is told. It becomes the output as
//! every other file does (`part.rs`).

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crc32fast::Hasher;
use fastcp_model::{ByteRange, Metadata, Name, RelPath, Timestamp};
use fastcp_sys::typed_path::open_parent;
use fastcp_sys::{Dir, FileType, Stat};

use super::{GetError, Kept, output};
use crate::content::crc_runs::{CONFIRM_BYTES, CrcRuns, is_confirmed_alone};
use crate::content::strong_hash::hash_of_name;
use crate::content::zeros::{SLICE_BYTES, crc_of_range};
use crate::target::journal::{Binding, Record, Replayed};
use crate::target::naming::{PartPlace, Shelter, mode_of_new_file};
use crate::target::owners::Owners;
use crate::target::part::{PartFile, Verified};
use crate::target::read_back::read_whole;

/// The journal learns of the bytes in steps of this length.
const STEP_BYTES: u64 = 4 << 20;
/// A grid that nothing is fetched by: the journal wants one.
const CHUNK_KB: u32 = 1024;
/// The mode of a new file, as far as the umask lets it.
const MODE: u16 = 0o666;

/// What a source was when bytes came from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SourceState {
    pub(super) file_bytes: u64,
    pub(super) mtime: Timestamp,
}

/// The output of one `get`.
pub(super) enum Sink<'a> {
    File(FileSink),
    Stream(StreamSink<'a>),
}

impl Sink<'_> {
    /// The bytes that are there already, and of what they are.
    pub(super) fn has(&self) -> Option<(SourceState, u64)> {
        match self {
            Self::File(file) => file.unfinished.as_ref().map(|unfinished| (unfinished.state, unfinished.have)),
            Self::Stream(stream) => stream.begun,
        }
    }

    /// What stays for a rerun.
    pub(super) fn kept(&self) -> Kept {
        match self {
            Self::File(FileSink { unfinished: Some(Unfinished { have: 1.., .. }), .. }) => Kept::Beginning,
            Self::File(_) | Self::Stream(_) => Kept::Nothing,
        }
    }

    /// What is there is of another state. It goes, where it can.
    pub(super) fn restart(&mut self) -> Result<(), GetError> {
        match self {
            Self::File(file) => {
                if let Some(unfinished) = file.unfinished.take() {
                    unfinished.part.discard();
                }
                Ok(())
            }
            Self::Stream(StreamSink { begun: Some((_, have)), .. }) if *have > 0 => Err(GetError::Changed),
            Self::Stream(stream) => {
                stream.begun = None;
                Ok(())
            }
        }
    }

    /// From now on bytes of this state come.
    pub(super) fn begin(&mut self, state: SourceState) -> Result<(), GetError> {
        match self {
            Self::File(file) => file.begin(state),
            Self::Stream(stream) => {
                stream.begun.get_or_insert((state, 0));
                Ok(())
            }
        }
    }

    /// Takes the next bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), GetError> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Stream(stream) => stream.write(bytes),
        }
    }

    /// No more bytes come for now.
    pub(super) fn pause(&mut self) {
        if let Self::File(FileSink { unfinished: Some(unfinished), .. }) = self {
            unfinished.note();
        }
    }
}

/// Bytes that are handed on.
pub(super) struct StreamSink<'a> {
    out: &'a mut dyn Write,
    begun: Option<(SourceState, u64)>,
    pub(super) crc: Hasher,
}

impl<'a> StreamSink<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Self {
        Self { out, begun: None, crc: Hasher::new() }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), GetError> {
        self.out.write_all(bytes).map_err(GetError::Stream)?;
        self.crc.update(bytes);
        if let Some((_, have)) = &mut self.begun {
            *have += bytes.len() as u64;
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> Result<(), GetError> {
        self.out.flush().map_err(GetError::Stream)
    }
}

/// A file that is to be.
pub(super) struct FileSink {
    path: PathBuf,
    dir: Arc<Dir>,
    name: Name,
    place: PartPlace,
    unfinished: Option<Unfinished>,
}

/// A part file with its beginning in it.
struct Unfinished {
    part: PartFile,
    /// Keeps others from the part file.
    _lock: File,
    state: SourceState,
    have: u64,
    /// Up to where the journal knows of it, and the CRC-32 of what follows.
    noted: u64,
    crc: Hasher,
}

impl FileSink {
    /// Looks at the place of the output, and at what an earlier run left beside it.
    pub(super) fn new(path: &Path) -> Result<Self, GetError> {
        let (dir, name) = open_parent(path).map_err(|source| output("use", path, source))?;
        match dir.stat_name(&name).map(|stat| stat.file_type) {
            Ok(FileType::File) => {}
            Ok(FileType::Dir) => return Err(GetError::Directory { path: path.to_path_buf() }),
            Ok(_) => return Err(GetError::NotAFile { path: path.to_path_buf() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(output("examine", path, source)),
        }
        // No path within a tree begins with a slash: a part file of `pull` has another name.
        let hash = hash_of_name(&[b"/get/", name.as_bytes()].concat());
        let part = Name::new(format!(".fastcp-{hash:032x}.part").as_bytes()).expect("our own names are lawful");
        let dir = Arc::new(dir);
        let place = PartPlace { dir: Arc::clone(&dir), name: part, shelter: Shelter::Beside };
        let mut sink = Self { path: path.to_path_buf(), dir, name, place, unfinished: None };
        sink.find()?;
        Ok(sink)
    }

    /// What an earlier run left. Only what follows the beginning without a gap counts; all of it is read once more
    /// before it gets its name.
    fn find(&mut self) -> Result<(), GetError> {
        let lock = match self.place.dir.open_own_file(&self.place.name) {
            Ok(file) => self.lock(file)?,
            Err(_) => return Ok(()),
        };
        let Some((part, replayed, stat)) = PartFile::resume(&self.place) else { return Ok(()) };
        let state = SourceState { file_bytes: replayed.binding.file_bytes, mtime: replayed.binding.mtime };
        let Ok(whole) = ByteRange::new(0, state.file_bytes) else { return Ok(()) };
        if stat.size_bytes() > state.file_bytes && part.file().set_len(state.file_bytes).is_err() {
            return Ok(());
        }
        let standing = standing(&part, &replayed, &stat);
        let mut runs = CrcRuns::default();
        standing.iter().for_each(|record| runs.insert(record.range, record.crc));
        let have = runs.gaps_in(whole).first().map_or(whole.end(), |gap| gap.start());
        self.unfinished = Some(Unfinished { part, _lock: lock, state, have, noted: have, crc: Hasher::new() });
        Ok(())
    }

    fn begin(&mut self, state: SourceState) -> Result<(), GetError> {
        if self.unfinished.is_some() {
            return Ok(());
        }
        let path = RelPath::root().join(&self.name);
        let SourceState { file_bytes, mtime } = state;
        let binding = Binding { path, file_bytes, mtime, chunk_kb: CHUNK_KB };
        let part = match PartFile::journaled(self.place.clone(), &binding) {
            Ok(part) => part,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(self.busy()),
            Err(source) => return Err(self.failed("create a part file for", source)),
        };
        let lock = part.file().try_clone().map_err(|source| self.failed("lock the part file of", source))?;
        let lock = self.lock(lock)?;
        self.unfinished = Some(Unfinished { part, _lock: lock, state, have: 0, noted: 0, crc: Hasher::new() });
        Ok(())
    }

    /// A file system without locks keeps nobody out.
    fn lock(&self, file: File) -> Result<File, GetError> {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => Err(self.busy()),
            Err(TryLockError::Error(_)) | Ok(()) => Ok(file),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), GetError> {
        let Some(unfinished) = &mut self.unfinished else { return Ok(()) };
        if let Err(source) = unfinished.part.write_at(bytes, unfinished.have) {
            return Err(self.failed("write", source));
        }
        unfinished.received(bytes);
        Ok(())
    }

    /// The part file, which has all bytes by now, and the CRC-32 of what it reads as.
    pub(super) fn take(&mut self) -> Result<Finished, GetError> {
        let unfinished =
            self.unfinished.take().ok_or_else(|| self.failed("read back", io::ErrorKind::NotFound.into()))?;
        let Unfinished { part, state, _lock, .. } = unfinished;
        let mut crc = Hasher::new();
        let read = read_whole(part.file(), state.file_bytes, |bytes| {
            crc.update(bytes);
            Ok(())
        });
        read.map_err(|source| self.failed("read back", source))?;
        Ok(Finished { part, _lock, crc: crc.finalize() })
    }

    /// Sets time and mode, syncs, and gives the file its name.
    pub(super) fn commit(&self, verified: Verified, mtime: Timestamp) -> Result<(), GetError> {
        let Metadata { uid, gid, .. } = verified.stat().map_err(|source| self.failed("examine", source))?.metadata;
        let mode = mode_of_new_file(&self.dir, MODE).map_err(|source| self.failed("create", source))?;
        let metadata = Metadata { mode, uid, gid, mtime };
        let dressed = verified.set_metadata(&metadata, &Owners::new());
        let dressed = dressed.map_err(|source| self.failed("set the time of", source))?;
        dressed.sync().map_err(|source| self.failed("sync", source))?;
        let named = dressed.commit(&self.dir, &self.name, || Ok(self.place.clone()));
        named.map_err(|source| self.failed("rename to", source))?;
        let synced = self.dir.sync_handle().and_then(|handle| handle.sync_dir());
        synced.map_err(|source| self.failed("sync the directory of", source))
    }

    fn busy(&self) -> GetError {
        GetError::Busy { path: self.path.clone() }
    }

    fn failed(&self, operation: &'static str, source: io::Error) -> GetError {
        output(operation, &self.path, source)
    }
}

impl Unfinished {
    fn received(&mut self, bytes: &[u8]) {
        // No record goes beyond the end of a segment: such a one would count for nothing (`crc_runs.rs`).
        for part in split_at_border(self.have, bytes) {
            self.crc.update(part);
            self.have += part.len() as u64;
            if self.have - self.noted >= STEP_BYTES || self.have.is_multiple_of(CONFIRM_BYTES) {
                self.note();
            }
        }
    }

    fn note(&mut self) {
        if let Ok(range) = ByteRange::new(self.noted, self.have - self.noted)
            && !range.is_empty()
        {
            self.part.record([Record { range, crc: std::mem::take(&mut self.crc).finalize() }]);
            self.noted = self.have;
        }
    }
}

/// Bytes from this position on, split where a segment ends.
fn split_at_border(at: u64, bytes: &[u8]) -> [&[u8]; 2] {
    let to_border = CONFIRM_BYTES - at % CONFIRM_BYTES;
    let (before, after) = bytes.split_at(bytes.len().min(usize::try_from(to_border).unwrap_or(usize::MAX)));
    [before, after]
}

/// The records that count. A server may give no CRC-32, so nothing else would tell that a crash lost their bytes or
/// that somebody changed them: where no mark vouches for them, they are read. Should one not stand, the next run
/// reads all of them again.
fn standing(part: &PartFile, replayed: &Replayed, stat: &Stat) -> Vec<Record> {
    let lawful = replayed.records.iter().filter(|record| is_confirmed_alone(record.range, record.crc));
    if replayed.is_untouched(stat) {
        return lawful.copied().collect();
    }
    let mut slice = vec![0; SLICE_BYTES];
    let mut piece_stands =
        |piece: Record| crc_of_range(part.file(), piece.range, &mut slice).is_ok_and(|crc| crc == piece.crc);
    // A file that is zeros to its end is not read beyond the first that is none.
    let stands = |record: &&Record| record.pieces().all(&mut piece_stands);
    let standing: Vec<Record> = lawful.filter(stands).copied().collect();
    if standing.len() == replayed.records.len() {
        part.settle_doubt();
    }
    standing
}

/// A part file with all its bytes.
pub(super) struct Finished {
    pub(super) part: PartFile,
    pub(super) _lock: File,
    pub(super) crc: u32,
}

#[cfg(test)]
mod tests {
    use fastcp_model::ByteRange;

    use super::split_at_border;
    use crate::content::crc_runs::{CONFIRM_BYTES, is_confirmed_alone};

    #[test]
    fn no_record_goes_beyond_the_end_of_a_segment() {
        let bytes = [1; 100];
        for (at, first) in [(0, 100), (CONFIRM_BYTES - 30, 30), (CONFIRM_BYTES - 100, 100), (CONFIRM_BYTES, 100)] {
            let [before, after] = split_at_border(at, &bytes);
            assert_eq!((before.len(), before.len() + after.len()), (first, bytes.len()), "{at}");
            let mut at = at;
            for part in [before, after].into_iter().filter(|part| !part.is_empty()) {
                let range = ByteRange::new(at, part.len() as u64).expect("lawful");
                assert!(is_confirmed_alone(range, 0), "{range:?}");
                at = range.end();
            }
        }
    }
}
