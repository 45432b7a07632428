//! The tree that a sender serves: files opened beneath its root, and failures in the wire's words.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use fastcp_model::rules::FilterRule;
use fastcp_model::{ByteRange, Name, RelPath, Status};
use fastcp_net::Bounds;
use fastcp_sys::{Dir, FileType, Root, Stat};
use fastcp_wire::offer::Place;
use nix::errno::Errno;

use crate::content::crc_runs::combine;
use crate::content::zeros::{Span, SpanCrc, read_spans};
use crate::sender::offer_memory::OfferMemory;
use crate::sender::selection::{Given, Guard, Selection};
use crate::sender::served::{ServedCrcs, changed_recently};
use crate::sender::shared::SharedListings;
use crate::sender::signature::Signatures;
use crate::sender::sums::{Begun, Sums};
use crate::sender::tree::{Tree, TreeDir, open_dir};

/// So much is read for a CRC-32 before what has come of it is remembered. A segment of confirmation is a multiple. What
/// is no longer than this is read at once.
pub(crate) const STEP_BYTES: u64 = 16 << 20;

/// A served tree. One for all connections; it holds no state of any session.
#[derive(Debug)]
pub struct Source {
    pub(crate) tree: Tree,
    /// Of which nothing else is given away.
    pub(crate) guard: Option<Arc<Guard>>,
    pub(crate) served: Arc<ServedCrcs>,
    pub(crate) listings: SharedListings,
    /// What scans hold.
    pub(crate) offers: Arc<OfferMemory>,
    pub(crate) signatures: Arc<Signatures>,
    /// Long reads for checksums.
    pub(crate) sums: Arc<Sums>,
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
            guard: None,
            served: Arc::default(),
            listings: SharedListings::default(),
            offers: Arc::default(),
            signatures: Arc::default(),
            sums: Arc::default(),
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

    /// The same, of which nobody is given anything but what these rules admit of a place.
    #[must_use]
    pub fn selected(self, place: &Place, rules: &[FilterRule]) -> Self {
        let selection = Selection::new(place, rules);
        let guard = (!selection.is_everything()).then(|| Arc::new(Guard::new(selection)));
        Self { guard, ..self }
    }

    /// What these places of it make together, merged.
    ///
    /// # Errors
    /// The first place that cannot be looked at, and why, in the wire's words.
    pub(crate) fn of_places(&self, places: &[Place]) -> Result<Self, (RelPath, Status)> {
        let tree = self.tree.of_places(places).map_err(|(path, error)| (path, status_of(&error)))?;
        // What is known of files is known by what they are, wherever they are in a tree. Listings are known by their paths.
        Ok(Self {
            tree,
            guard: self.guard.clone(),
            served: Arc::clone(&self.served),
            listings: self.listings.of_another_tree(),
            offers: Arc::clone(&self.offers),
            signatures: Arc::clone(&self.signatures),
            sums: Arc::clone(&self.sums),
        })
    }

    /// The same, within these limits: of bytes that scans hold, and of long checksums that are computed at a time.
    pub(crate) fn within(self, offer_bytes_max: usize, sums_max: usize, bounds: &Arc<Bounds>) -> Self {
        let offers = OfferMemory::new(offer_bytes_max, Arc::clone(bounds));
        let sums = Sums::new(sums_max, Arc::clone(bounds));
        let listings = SharedListings::of(offer_bytes_max);
        Self { listings, offers: Arc::new(offers), sums: Arc::new(sums), ..self }
    }

    /// Opens a regular file.
    pub(crate) fn open_file(&self, path: &RelPath) -> Result<OpenFile, Status> {
        if self.guard.as_ref().is_some_and(|guard| !guard.gives_file(&self.tree, path)) {
            return Err(Status::NotFound);
        }
        let file = self.tree.open_file(path).map_err(|error| status_of(&error))?;
        let stat = Stat::of_fd(&file).map_err(|error| status_of(&error))?;
        check_regular(stat.file_type)?;
        Ok(OpenFile { file, stat })
    }

    /// Opens a directory in which files may be asked for.
    pub(crate) fn open_dir(&self, path: &RelPath) -> Result<ServedDir<'_>, Status> {
        let given = match &self.guard {
            None => None,
            Some(guard) => Some(guard.gives(&self.tree, path).ok_or(Status::NotFound)?),
        };
        Ok(ServedDir { dir: open_dir(&self.tree, path)?, given })
    }

    /// The CRC-32 of a range, from memory as far as it was served in this state, else by reading it; `read` is told
    /// of the bytes that are done, and ends it by an error. What is long is computed in steps, once for all who ask, and
    /// remembered step by step: whoever asks again after a connection was lost does not begin again.
    pub(crate) fn crc_of(
        &self,
        open: &OpenFile,
        range: ByteRange,
        slice: &mut [u8],
        read: &mut dyn FnMut(u64) -> io::Result<()>,
    ) -> Result<u32, Status> {
        let identity = open.stat.identity;
        let (mut at, mut crc) = (range.start(), 0);
        while at < range.end() {
            let rest = ByteRange::new(at, range.end() - at).map_err(|_| Status::BadRange)?;
            let (len, step_crc) = match self.served.recall(identity, rest) {
                Some((len, crc)) => {
                    read(len).map_err(|error| status_of(&error))?;
                    (len, crc)
                }
                None if range.len() <= STEP_BYTES => (rest.len(), read_crc(open, rest, slice, read)?),
                None => {
                    let len = (STEP_BYTES - at % STEP_BYTES).min(rest.len());
                    let step = ByteRange::new(at, len).map_err(|_| Status::BadRange)?;
                    let Some(crc) = self.crc_of_step(open, step, slice, read)? else { continue };
                    (len, crc)
                }
            };
            crc = combine(crc, step_crc, len);
            at += len;
        }
        Ok(crc)
    }

    /// `None` where somebody else has computed it meanwhile.
    fn crc_of_step(
        &self,
        open: &OpenFile,
        step: ByteRange,
        slice: &mut [u8],
        read: &mut dyn FnMut(u64) -> io::Result<()>,
    ) -> Result<Option<u32>, Status> {
        let identity = open.stat.identity;
        // What is not remembered is nothing to wait for.
        let shared = (!changed_recently(&identity)).then_some((identity, step.start()));
        let begun = self.sums.begin(shared, &mut || read(0)).map_err(|error| status_of(&error))?;
        let Begun::Turn(_turn) = begun else { return Ok(None) };
        let crc = read_crc(open, step, slice, read)?;
        if open.is_unchanged() {
            self.served.remember(identity, step, crc);
        }
        Ok(Some(crc))
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
    read: &mut dyn FnMut(u64) -> io::Result<()>,
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

/// A directory of the tree.
pub(crate) struct ServedDir<'a> {
    dir: TreeDir,
    /// Where not all that is in it may be asked for.
    given: Option<Given<'a>>,
}

impl ServedDir<'_> {
    /// Opens a regular file in it, as [`open_in`] does.
    pub(crate) fn open_file(&self, name: &Name) -> Result<OpenFile, Status> {
        match &self.given {
            Some(given) if !given.gives_file(name) => Err(Status::NotFound),
            _ => self.dir.open_file(name),
        }
    }
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

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io;

    use fastcp_model::{ByteRange, RelPath, Status};

    use super::{STEP_BYTES, Source};
    use crate::content::zeros::SLICE_BYTES;
    use crate::sender::sums::Begun;

    fn crc(source: &Source, name: &str, read: &mut dyn FnMut(u64) -> io::Result<()>) -> Result<u32, Status> {
        let open = source.open_file(&RelPath::new(name.as_bytes()).expect("lawful")).expect("there");
        let whole = ByteRange::new(0, open.stat.size_bytes()).expect("lawful");
        source.crc_of(&open, whole, &mut vec![0; SLICE_BYTES], read)
    }

    /// What is small waits for nobody, and who waits with something large finds out that nobody wants it any more.
    #[test]
    fn only_large_sums_wait_for_a_turn() {
        let dir = tempfile::tempdir().expect("temporary directory");
        fs::write(dir.path().join("small"), b"bytes").expect("write");
        File::create(dir.path().join("large")).and_then(|file| file.set_len(STEP_BYTES + 1)).expect("make");
        let source = Source::open(dir.path()).expect("open");
        let zeros = crc32fast::hash(&vec![0; STEP_BYTES as usize + 1]);
        assert_eq!(crc(&source, "large", &mut |_| Ok(())), Ok(zeros));
        let turns = [(); 2].map(|()| source.sums.begin(None, &mut || Ok(())).expect("wanted"));
        assert!(turns.iter().all(|turn| matches!(turn, Begun::Turn(_))));
        assert_eq!(crc(&source, "small", &mut |_| Ok(())), Ok(crc32fast::hash(b"bytes")));
        let mut looks = 0;
        let gone = crc(&source, "large", &mut |bytes| {
            looks += 1;
            assert_eq!(bytes, 0, "nothing is read");
            if looks == 2 { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
        });
        assert_eq!((gone, looks), (Err(Status::InputOutput), 2));
        drop(turns);
        assert_eq!(crc(&source, "large", &mut |_| Ok(())), Ok(zeros));
    }

    /// Of a file that has changed a moment ago nothing is remembered.
    #[test]
    fn a_sum_is_of_the_bytes_that_there_are() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let source = Source::open(dir.path()).expect("open");
        for byte in [1, 2, 3] {
            let bytes = vec![byte; STEP_BYTES as usize + 1];
            fs::write(dir.path().join("large"), &bytes).expect("write");
            assert_eq!(crc(&source, "large", &mut |_| Ok(())), Ok(crc32fast::hash(&bytes)));
        }
    }
}
