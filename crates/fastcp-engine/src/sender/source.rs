//! The tree that a sender serves: files opened beneath its root, and failures in the wire's words.

use std::fs::File;
use std::io;
use std::path::Path;

use fastcp_model::{ByteRange, Name, RelPath, Status};
use fastcp_sys::{Dir, FileType, Root, Stat};
use fastcp_wire::offer::OfferRequest;
use nix::errno::Errno;

use crate::content::crc_runs::combine;
use crate::content::zeros::{Span, SpanCrc, read_spans};
use crate::lock::{Lock, News};
use crate::sender::served::ServedCrcs;
use crate::sender::shared::SharedListings;
use crate::sender::signature::Signatures;
use crate::sender::tree::Tree;

/// So much is read for a CRC-32 before what has come of it is remembered. A segment of confirmation is a multiple.
const STEP_BYTES: u64 = 64 << 20;

/// A served tree. One for all connections; it holds no state of any session.
#[derive(Debug)]
pub struct Source {
    pub(crate) tree: Tree,
    pub(crate) served: ServedCrcs,
    pub(crate) listings: SharedListings,
    pub(crate) signatures: Signatures,
    /// Whole files that are read for a plain request's CRC-32.
    pub(crate) sums: Turns,
}

/// Files that may be read as a whole at a time before anything of them is sent: whoever asks for more waits.
const SUMS_MAX: usize = 2;

/// A few at a time.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    taken: Lock<usize>,
    free: News,
}

/// The right to be one of them; given back when dropped.
#[derive(Debug)]
pub(crate) struct Turn<'a>(&'a Turns);

impl Turns {
    /// Waits for a turn.
    pub(crate) fn take(&self) -> Turn<'_> {
        let mut taken = self.taken.lock();
        while *taken >= SUMS_MAX {
            taken = self.taken.wait(&self.free, taken);
        }
        *taken += 1;
        Turn(self)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.taken.lock() -= 1;
        self.0.free.tell(1);
    }
}

/// A file as it was when opened.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) file: File,
    pub(crate) stat: Stat,
}

impl Source {
    /// Opens the directory to serve.
    ///
    /// # Errors
    /// As `open(2)`; `ENOTDIR` where it is not a directory.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            tree: Tree::new(Root::open(path)?),
            served: ServedCrcs::default(),
            listings: SharedListings::default(),
            signatures: Signatures::default(),
            sums: Turns::default(),
        })
    }

    /// The same, of which nobody is given anything but this entry and what is in it.
    #[must_use]
    pub fn only(self, path: &RelPath) -> Self {
        Self { tree: self.tree.only(path), ..self }
    }

    /// The one entry of a tree may be asked for by this name as well, and is offered by it then.
    #[must_use]
    pub fn also_called(self, name: &Name) -> Self {
        Self { tree: self.tree.also_called(name), ..self }
    }

    /// The same, merged with others: of what several have under one path, the first counts, and directories have what any
    /// of them has.
    #[must_use]
    pub fn merged(self, others: impl IntoIterator<Item = Self>) -> Self {
        Self { tree: self.tree.merged(others.into_iter().map(|other| other.tree)), ..self }
    }

    /// What these places of it make together, merged.
    ///
    /// # Errors
    /// The first place that cannot be looked at, and why, in the wire's words.
    pub(crate) fn of_places(&self, places: &[OfferRequest]) -> Result<Self, (RelPath, Status)> {
        let tree = self.tree.of_places(places).map_err(|(path, error)| (path, status_of(&error)))?;
        let (served, listings, signatures) = (ServedCrcs::default(), SharedListings::default(), Signatures::default());
        Ok(Self { tree, served, listings, signatures, sums: Turns::default() })
    }

    /// Opens a regular file.
    pub(crate) fn open_file(&self, path: &RelPath) -> Result<OpenFile, Status> {
        let file = self.tree.open_file(path).map_err(|error| status_of(&error))?;
        let stat = Stat::of_fd(&file).map_err(|error| status_of(&error))?;
        check_regular(stat.file_type)?;
        Ok(OpenFile { file, stat })
    }

    /// The CRC-32 of a range, from memory as far as it was served in this state, else by reading it; `read` is told
    /// of the bytes read, and ends it by an error. What is long is remembered step by step: whoever asks again after a connection was lost
    /// does not begin again.
    pub(crate) fn crc_of(
        &self,
        open: &OpenFile,
        range: ByteRange,
        slice: &mut [u8],
        mut read: impl FnMut(u64) -> io::Result<()>,
    ) -> Result<u32, Status> {
        let identity = open.stat.identity;
        let (mut at, mut crc) = (range.start(), 0);
        while at < range.end() {
            let rest = ByteRange::new(at, range.end() - at).map_err(|_| Status::BadRange)?;
            let (len, step_crc) = match self.served.recall(identity, rest) {
                Some(known) => known,
                None => {
                    let len = (STEP_BYTES - at % STEP_BYTES).min(rest.len());
                    let step = ByteRange::new(at, len).map_err(|_| Status::BadRange)?;
                    let crc = read_crc(open, step, slice, &mut read)?;
                    if range.len() > STEP_BYTES && open.is_unchanged() {
                        self.served.remember(identity, step, crc);
                    }
                    (len, crc)
                }
            };
            crc = combine(crc, step_crc, len);
            at += len;
        }
        Ok(crc)
    }

    /// What is remembered of the contents of a file may be wrong.
    pub(crate) fn forget(&self, open: &OpenFile) {
        self.served.forget(open.stat.identity);
        self.signatures.forget(open.stat.identity);
    }
}

fn read_crc(
    open: &OpenFile,
    range: ByteRange,
    slice: &mut [u8],
    read: &mut impl FnMut(u64) -> io::Result<()>,
) -> Result<u32, Status> {
    let mut crc = SpanCrc::default();
    let take = |span: Span<'_>| {
        crc.add(&span);
        match span {
            Span::Bytes(bytes) => read(bytes.len() as u64),
            _ => Ok(()),
        }
    };
    read_spans(&open.file, range, slice, take).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Status::Changed,
        _ => status_of(&error),
    })?;
    Ok(crc.crc())
}

impl OpenFile {
    /// Whether this is the file that it was when it was opened, in the same state. The time of its last
    /// change counts too: a program that writes and then sets the old time back is seen by it.
    pub(crate) fn is_unchanged(&self) -> bool {
        Stat::of_fd(&self.file).is_ok_and(|now| now.identity == self.stat.identity)
    }

    /// Its state now, where it is longer than it was when it was opened.
    pub(crate) fn grown(&self) -> Option<Stat> {
        Stat::of_fd(&self.file).ok().filter(|now| now.size_bytes() > self.stat.size_bytes())
    }
}

/// Opens a regular file of an open directory. The state that comes with it is from just before: whether it
/// is that of the opened file shows when it is compared with the file's state after reading.
pub(crate) fn open_in(dir: &Dir, name: &Name) -> Result<OpenFile, Status> {
    let stat = dir.stat_name(name).map_err(|error| status_of(&error))?;
    check_regular(stat.file_type)?;
    let file = dir.open_file(name).map_err(|error| status_of(&error))?;
    Ok(OpenFile { file, stat })
}

/// What is said of things that are no regular files. A link may lead anywhere.
fn check_regular(file_type: FileType) -> Result<(), Status> {
    match file_type {
        FileType::File => Ok(()),
        FileType::Dir => Err(Status::IsADirectory),
        FileType::Symlink => Err(Status::OutsideRoot),
        _ => Err(Status::NotARegularFile),
    }
}

/// A failure of the file system at the sender, as the receiver is told of it.
pub(crate) fn status_of(error: &io::Error) -> Status {
    let Some(code) = error.raw_os_error() else {
        return if error.kind() == io::ErrorKind::NotFound { Status::NotFound } else { Status::InputOutput };
    };
    match Errno::from_raw(code) {
        Errno::ENOENT | Errno::ESTALE => Status::NotFound,
        Errno::EACCES | Errno::EPERM => Status::PermissionDenied,
        Errno::EISDIR => Status::IsADirectory,
        Errno::EINVAL | Errno::ENXIO => Status::NotARegularFile,
        Errno::ELOOP | Errno::EXDEV => Status::OutsideRoot,
        Errno::ENOTDIR => Status::NotADirectory,
        Errno::ENAMETOOLONG => Status::NameTooLong,
        Errno::EAGAIN => Status::InUse,
        Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS => Status::Busy,
        _ => Status::InputOutput,
    }
}
