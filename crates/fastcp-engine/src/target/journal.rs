//! The journal of one part file: which of its ranges have arrived, so that a rerun fetches the others only.
//!
//! Append-only (`docs/journal.md` has the format). A record is a claim: "these bytes stand in the part file
//! and have this CRC-32". It is written after the bytes, so a kill at any moment leaves bytes without a
//! claim, never a claim without bytes. A record has a sum of its own; replay stops at the first that is
//! torn or damaged. A power cut may lose the bytes of a claim, and somebody may write to the part file
//! between two runs: so claims are taken on trust only if the journal was closed by a mark, in this boot,
//! and the part file has not been changed since, by its ctime. Otherwise the bytes are read and compared
//! before they count, beside the fetch of what is missing (`reuse.rs`).
//!
//! What goes wrong with a journal costs bytes on the wire, never a wrong byte: whatever it says, the whole
//! file is confirmed by the sender before it gets its name.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fastcp_model::{Name, PATH_BYTES_MAX, RelPath};
use fastcp_sys::{Dir, FileBytes, Stat, process};

mod format;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;

pub(crate) use format::{Binding, Record, Replayed};
use format::{HEAD_BYTES, Mark, RANGE_BYTES, decode_head, encode_head, encode_mark, encode_range, replay};

/// What follows the part file's name.
const SUFFIX: &[u8] = b".journal";
/// A longer journal is not read to its end: 2^22 records, 4 TiB in chunks of 1 MiB.
const READ_BYTES_MAX: u64 = (RANGE_BYTES as u64) << 22;

/// A journal that is being written.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    dir: Arc<Dir>,
    name: Name,
    /// After a write that failed, what comes after it would not be found.
    is_broken: AtomicBool,
}

impl Journal {
    /// The name of the journal of the part file `part`.
    pub(crate) fn name_of(part: &Name) -> Name {
        Name::new(&[part.as_bytes(), SUFFIX].concat()).expect("our own names are lawful")
    }

    /// The name of the part file that this is the journal of, if it is one by its name.
    pub(crate) fn part_of(name: &[u8]) -> Option<&[u8]> {
        name.strip_suffix(SUFFIX)
    }

    /// Begins a journal, in place of an older one.
    pub(crate) fn create(dir: Arc<Dir>, part_name: &Name, part: &File, binding: &Binding) -> io::Result<Self> {
        let name = Self::name_of(part_name);
        dir.remove_if_there(&name)?;
        let file = dir.create_file(&name)?;
        let inode = Stat::of_fd(part)?.identity.inode;
        (&file).write_all(&encode_head(binding, inode))?;
        Ok(Self { file, dir, name, is_broken: AtomicBool::new(false) })
    }

    /// Reads a journal and goes on writing it behind its last sound record. `None` where there is none, or
    /// none that can be read.
    pub(crate) fn resume(dir: &Arc<Dir>, part_name: &Name) -> Option<(Self, Replayed)> {
        let name = Self::name_of(part_name);
        let file = dir.open_own_file(&name).ok()?;
        let bytes = FileBytes::of(file, READ_BYTES_MAX).ok()?;
        let (replayed, sound_bytes) = replay(bytes.get(0..bytes.bytes())?)?;
        let mut file = bytes.into_file();
        file.set_len(sound_bytes as u64).ok()?;
        io::Seek::seek(&mut file, io::SeekFrom::End(0)).ok()?;
        Some((Self { file, dir: Arc::clone(dir), name, is_broken: AtomicBool::new(false) }, replayed))
    }

    /// The target that the part file `part` was for.
    pub(crate) fn bound_path(dir: &Dir, part: &Name) -> Option<RelPath> {
        let mut head = Vec::new();
        let file = dir.open_own_file(&Self::name_of(part)).ok()?;
        file.take((HEAD_BYTES + PATH_BYTES_MAX + 4) as u64).read_to_end(&mut head).ok()?;
        decode_head(&head).map(|(replayed, _)| replayed.binding.path)
    }

    /// Ranges stand in the part file. Records that cannot be written cost a rerun their bytes, no more.
    pub(crate) fn record(&self, records: impl IntoIterator<Item = Record>) {
        self.append(&records.into_iter().flat_map(encode_range).collect::<Vec<u8>>());
    }

    /// Nobody writes to the part file any more. The mark vouches for its bytes, so they are synced first: a disk can
    /// be lost, or refuse them, without a boot in between.
    pub(crate) fn close(&self, part: &File) {
        if let Err(error) = part.sync_data() {
            tracing::debug!(%error, "a journal ends without a mark");
            return;
        }
        if let (Some(boot), Ok(stat)) = (process::boot_id(), Stat::of_fd(part)) {
            self.append(&encode_mark(Mark { boot, ctime: stat.identity.ctime }));
        }
    }

    /// Its part file is called `part` from now on.
    pub(crate) fn set_aside(self, part: &Name) {
        if let Err(error) = self.dir.rename(&self.name, &self.dir, &Self::name_of(part)) {
            tracing::debug!(%error, "cannot rename a journal");
        }
    }

    /// Something in the part file is wrong, and nobody knows what: no rerun may go on with it.
    pub(crate) fn abandon(&self) {
        self.is_broken.store(true, Ordering::Relaxed);
        if let Err(error) = self.file.set_len(0).and_then(|()| self.dir.remove_file(&self.name)) {
            tracing::debug!(%error, "cannot remove the journal of a wrong part file");
        }
    }

    /// Its part file has become the target, or is of no use any more.
    pub(crate) fn remove(self) {
        if let Err(error) = self.dir.remove_file(&self.name) {
            tracing::debug!(%error, "cannot remove a journal");
        }
    }

    /// Writers append at the same time: one call each, which the kernel does not mix.
    fn append(&self, bytes: &[u8]) {
        if self.is_broken.load(Ordering::Relaxed) {
            return;
        }
        if let Err(error) = (&self.file).write_all(bytes) {
            tracing::debug!(%error, "cannot append to a journal");
            self.is_broken.store(true, Ordering::Relaxed);
        }
    }
}
