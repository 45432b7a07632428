//! A target before it has its name, and the one way to the name.
//!
//! `PartFile -seal-> Sealed -verify-> Verified -set_metadata-> Dressed -commit-> done`. Each step
//! consumes the one before, so no code can commit what was not verified. The order is the promise of
//! the whole program: data written, whole-file CRC proven, metadata set, synced (`group.rs`), and only
//! then the name, and after it the end of the journal. [`Dressed::commit`] is the only one that has files
//! named (`naming.rs`).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};

use fastcp_model::{Metadata, Name};
use fastcp_sys::{Dir, Stat};

use crate::lock::{Lock, Rank, touches_files};
use crate::target::across;
use crate::target::attributes;
use crate::target::journal::{Binding, Journal, Record, Replayed};
use crate::target::naming::{PartPlace, name_part, name_unnamed, remove_name};
use crate::target::owners::Owners;
use crate::target::proof::{NotGiven, WholeCrc};

/// The unfinished target.
#[derive(Debug)]
pub(crate) struct PartFile {
    file: File,
    place: Location,
    journal: Option<Journal>,
    /// Reasons why the journal may say what is not so. While there is one, no mark vouches for it.
    doubts: AtomicUsize,
    /// The kernel lets one thread at a time write to an inode and has the others spin for it. Waiting
    /// here instead leaves them the processor.
    writing: Lock<()>,
}

#[derive(Debug)]
enum Location {
    /// In the target's directory, without a name: gone with the process.
    Unnamed,
    /// Under a name that only part files have.
    Named(PartPlace),
    /// Under the target's own name.
    Target,
}

impl PartFile {
    /// A part file without a name, for a target that is new and comes in one answer. It may as well have
    /// the target's mode from the start: nobody can open it.
    pub(crate) fn unnamed(dir: &Dir, mode: u16) -> io::Result<Self> {
        Ok(Self::new(dir.create_unnamed(mode)?, Location::Unnamed))
    }

    /// An empty part file at `place`. An older one is removed and never written to: it may be a
    /// hard link to something else.
    pub(crate) fn named(place: PartPlace) -> io::Result<Self> {
        place.dir.remove_if_there(&place.name)?;
        Ok(Self::new(place.dir.create_file(&place.name)?, Location::Named(place)))
    }

    /// The same, with a journal: what arrives in it need not arrive again.
    pub(crate) fn journaled(place: PartPlace, binding: &Binding) -> io::Result<Self> {
        let mut part = Self::named(place.clone())?;
        part.journal = Some(Journal::create(place.dir, &place.name, &part.file, binding)?);
        Ok(part)
    }

    /// The target itself, of which what is beyond `file_bytes` goes. A link or anything else that is no file in
    /// its place is replaced.
    pub(crate) fn in_place(dir: &Dir, name: &Name, file_bytes: u64) -> io::Result<Self> {
        let file = match dir.open_to_write(name) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => dir.create_file(name)?,
            Err(error) if is_no_file(&error) => {
                dir.remove_file(name)?;
                dir.create_file(name)?
            }
            Err(error) => return Err(error),
        };
        if Stat::of_fd(&file)?.size_bytes() > file_bytes {
            file.set_len(file_bytes)?;
        }
        Ok(Self::new(file, Location::Target))
    }

    /// The part file that an earlier run left, and what its journal says of it.
    pub(crate) fn resume(place: &PartPlace) -> Option<(Self, Replayed, Stat)> {
        let (journal, replayed) = Journal::resume(&place.dir, &place.name)?;
        let file = place.dir.open_own_file(&place.name).ok()?;
        let stat = Stat::of_fd(&file).ok()?;
        if !replayed.is_of(&stat) {
            return None;
        }
        let mut part = Self::new(file, Location::Named(place.clone()));
        part.journal = Some(journal);
        if !replayed.is_untouched(&stat) {
            part.doubt();
        }
        Some((part, replayed, stat))
    }

    /// Something that the journal says may not be so: no mark closes it until that is settled.
    pub(crate) fn doubt(&self) {
        self.doubts.fetch_add(1, Ordering::Relaxed);
    }

    /// All that the journal said when it was found has been looked at, and is so.
    pub(crate) fn settle_doubt(&self) {
        self.doubts.fetch_sub(1, Ordering::Relaxed);
    }

    /// It will not become the target: from now on it is called `name`. Its journal goes along, and still says what it is of.
    pub(crate) fn set_aside(mut self, name: &Name) -> io::Result<()> {
        match &self.place {
            Location::Named(place) => place.dir.rename(&place.name, &place.dir, name)?,
            Location::Unnamed | Location::Target => return Ok(()),
        }
        if let Some(journal) = self.journal.take() {
            journal.set_aside(name);
        }
        Ok(())
    }

    fn new(file: File, place: Location) -> Self {
        touches_files();
        Self { file, place, journal: None, doubts: AtomicUsize::new(0), writing: Lock::new(Rank::Files, ()) }
    }

    /// Takes note, for a rerun, that ranges stand in the file. Their bytes were written before.
    pub(crate) fn record(&self, records: impl IntoIterator<Item = Record>) {
        touches_files();
        if let Some(journal) = &self.journal {
            journal.record(records);
        }
    }

    /// Whether it began empty, and holds nothing but what was written to it.
    pub(crate) fn is_new(&self) -> bool {
        !matches!(self.place, Location::Target)
    }

    /// Writes all of `bytes` at `offset`.
    pub(crate) fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        touches_files();
        let _writing = self.writing.lock();
        self.file.write_all_at(bytes, offset)
    }

    /// The file to write to.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// What is in it is not what the sender has. It goes, and its journal: nothing may be resumed from it.
    pub(crate) fn discard(&self) {
        touches_files();
        if let Some(journal) = &self.journal {
            journal.abandon();
        }
        if let Location::Named(place) = &self.place
            && let Err(error) = place.dir.remove_file(&place.name)
        {
            tracing::debug!(%error, "cannot remove a part file with wrong contents");
        }
    }

    /// No more bytes: `crc` is that of all that was written.
    pub(crate) fn seal(self, crc: u32) -> Sealed {
        Sealed { part: self, crc }
    }
}

/// `ELOOP` for a link, `ENXIO` for a pipe or socket, `EINVAL` for what turned out to be a device.
fn is_no_file(error: &io::Error) -> bool {
    use nix::libc::{EINVAL, ELOOP, ENXIO};
    matches!(error.raw_os_error(), Some(EINVAL | ELOOP | ENXIO))
}

/// A part file that does not become the target now may do so in a rerun.
impl Drop for PartFile {
    fn drop(&mut self) {
        touches_files();
        if let Some(journal) = self.journal.take()
            && *self.doubts.get_mut() == 0
        {
            journal.close(&self.file);
        }
    }
}

/// A part file that is complete.
#[derive(Debug)]
pub(crate) struct Sealed {
    part: PartFile,
    crc: u32,
}

/// What was written is not what the sender has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mismatch {
    pub(crate) want: u32,
    pub(crate) got: u32,
}

impl Sealed {
    /// Compares what was written with what the sender has. A part file that is something else is gone.
    pub(crate) fn verify(self, sender: WholeCrc) -> Result<Verified, Mismatch> {
        if self.crc == sender.crc() {
            Ok(Verified { part: self.part, crc: self.crc })
        } else {
            self.part.discard();
            Err(Mismatch { want: sender.crc(), got: self.crc })
        }
    }
}

impl Sealed {
    /// Takes the file as it is, since its server gives no CRC-32 (`get` alone).
    pub(crate) fn accept(self, _: NotGiven) -> Verified {
        Verified { part: self.part, crc: self.crc }
    }

    /// It will not become the target.
    pub(crate) fn discard(self) {
        self.part.discard();
    }
}

/// A part file that holds what the sender has.
#[derive(Debug)]
pub(crate) struct Verified {
    part: PartFile,
    crc: u32,
}

impl Verified {
    /// What the file is by now.
    pub(crate) fn stat(&self) -> io::Result<Stat> {
        Stat::of_fd(&self.part.file)
    }

    /// Sets mode, owner and time, which go to the disk with the data.
    pub(crate) fn set_metadata(self, metadata: &Metadata, owners: &Owners) -> io::Result<Dressed> {
        attributes::set_on_file(&self.part.file, metadata, owners)?;
        Ok(Dressed { part: self.part, crc: self.crc })
    }
}

/// A verified part file with the target's metadata: all but the name.
#[derive(Debug)]
pub(crate) struct Dressed {
    part: PartFile,
    crc: u32,
}

impl Dressed {
    /// Syncs this file alone, where no sync of the whole file system does it for a group.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.part.file.sync_all()
    }

    /// What the file is by now: a file system may have rounded its time.
    pub(crate) fn stat(&self) -> io::Result<Stat> {
        Stat::of_fd(&self.part.file)
    }

    /// Gives the file its name `name` in `dir`, replacing what had it. Where an unnamed file finds its
    /// name taken, `fallback` makes a place for it that it can be renamed from. Where a rename is refused, a copy
    /// gets the name (`across.rs`).
    pub(crate) fn commit(
        mut self,
        dir: &Dir,
        name: &Name,
        fallback: impl FnOnce() -> io::Result<PartPlace>,
    ) -> io::Result<()> {
        let named = match &self.part.place {
            Location::Target => Ok(()),
            Location::Named(place) => name_part(&self.part.file, place, dir, name),
            Location::Unnamed => name_unnamed(&self.part.file, dir, name, fallback),
        };
        match named {
            Err(error) if across::is_refused(&error) => self.commit_copy(dir, name)?,
            result => result?,
        }
        if let Some(journal) = self.part.journal.take() {
            journal.remove();
        }
        Ok(())
    }

    fn commit_copy(&self, dir: &Dir, name: &Name) -> io::Result<()> {
        match (across::commit_copy(&self.part.file, self.crc, dir, name), &self.part.place) {
            (Ok(()), Location::Named(place)) => {
                remove_name(&self.part.file, place);
                Ok(())
            }
            (Err(error), _) if error.kind() == io::ErrorKind::InvalidData => {
                self.part.discard();
                Err(error)
            }
            (result, _) => result,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fastcp_model::{Metadata, Name, RelPath, Timestamp};
    use fastcp_sys::{Dir, Root};

    use super::{Dressed, PartFile};
    use crate::target::naming::{PartPlace, Shelter};
    use crate::target::owners::Owners;
    use crate::target::proof::WholeCrc;

    /// A part file that is ready for its name, and the directory with it.
    fn dressed(tree: &std::path::Path) -> (Dressed, Arc<Dir>, Name) {
        let dir = Arc::new(Root::open(tree).expect("open").dir(&RelPath::root()).expect("root"));
        let [part_name, name] = ["part", "name"].map(|text| Name::new(text.as_bytes()).expect("lawful"));
        let place = PartPlace { dir: Arc::clone(&dir), name: part_name, shelter: Shelter::StateDir };
        let part = PartFile::named(place).expect("create");
        part.write_at(b"whole", 0).expect("write");
        let metadata = Metadata { mode: 0o600, uid: 0, gid: 0, mtime: Timestamp::default() };
        let crc = crc32fast::hash(b"whole");
        let verified = part.seal(crc).verify(WholeCrc::claimed(crc)).expect("equal");
        // Whoever is not root keeps his own.
        let owners = Owners::new();
        (verified.set_metadata(&metadata, &owners).expect("set"), dir, name)
    }

    #[test]
    fn a_copy_that_has_its_name_counts_whatever_becomes_of_the_part_file() {
        let tree = tempfile::tempdir().expect("temporary directory");
        let (dressed, dir, name) = dressed(tree.path());
        std::fs::remove_file(tree.path().join("part")).expect("remove");
        dressed.commit_copy(&dir, &name).expect("whole, and named");
        assert_eq!(std::fs::read(tree.path().join("name")).expect("read"), b"whole");
        // What has the part file's name by now is not ours to remove.
        let (dressed, dir, name) = self::dressed(tree.path());
        std::fs::remove_file(tree.path().join("part")).expect("remove");
        std::fs::write(tree.path().join("part"), b"another's").expect("write");
        dressed.commit_copy(&dir, &name).expect("whole, and named");
        assert!(tree.path().join("part").exists());
    }

    #[test]
    fn a_part_file_that_somebody_replaced_gets_no_name() {
        let tree = tempfile::tempdir().expect("temporary directory");
        let (dressed, dir, name) = dressed(tree.path());
        std::fs::remove_file(tree.path().join("part")).expect("remove");
        std::fs::write(tree.path().join("part"), b"half").expect("write");
        let fallback = || unreachable!("it has a name");
        assert!(dressed.commit(&dir, &name, fallback).is_err());
        assert!(!tree.path().join("name").exists());
    }
}
