//! The sender's walk of its tree: parallel, bounded in memory, parents before children.
//!
//! The walk goes depth first in batches: some directories are taken off a stack, listed in parallel,
//! and their subdirectories put back on it. So a listing always follows the one that names it, memory
//! grows with the directories still to be listed and not with the tree, and nobody waits for a socket
//! on a thread of the pool: the next batch is made when it is asked for. Names in a listing ascend. Of a
//! very large directory only the names are held; its entries are examined and listed part by part.
//! Scans that run at the same time share what they list ([`SharedListings`]).

use std::io;
use std::sync::Arc;
use std::time::Instant;

use fastcp_model::{
    Entry, EntryFailure, EntryKind, Escaped, Listing, ListingEnd, Metadata, NAME_BYTES_MAX, Name, PATH_BYTES_MAX,
    RelPath, STATE_DIR, STATE_LOCK, STATE_PARTS, SpecialKind, Status,
};
use fastcp_sys::scarce::persistently;
use fastcp_sys::{Dir, FileType, Stat};
use fastcp_wire::limits::LINK_TARGET_BYTES_MAX;
use fastcp_wire::offer::Scope;
use rayon::prelude::*;

use crate::sender::shared::{SharedListings, Sharing};
use crate::sender::source::status_of;
use crate::sender::tree::{Tree, TreeDir, open_dir};

/// Directories listed at a time.
const BATCH_DIRS: usize = 64;
/// Entries of one directory listed at a time.
const PART_ENTRIES: usize = 2048;
/// Entries of one directory examined on one thread before another is asked to help.
const ENTRIES_PER_THREAD_MIN: usize = 256;

/// A walk in progress. Each item is a batch of listings, or parts of them.
pub(crate) struct Scan<'a> {
    tree: &'a Tree,
    shared: Sharing<'a>,
    base: RelPath,
    stack: Vec<Step>,
    first: Option<Arc<Listing>>,
    /// Whether directories are listed that others name.
    is_deep: bool,
    since: Instant,
}

/// What is to be listed.
enum Step {
    Dir(RelPath),
    /// The rest of a large directory.
    Rest(Rest),
}

/// Names of a directory that have not been examined, the last of them first.
struct Rest {
    dir: RelPath,
    names: Vec<Vec<u8>>,
}

impl<'a> Scan<'a> {
    /// Starts at `path`: its contents, or itself under its own name.
    pub(crate) fn new(
        tree: &'a Tree,
        shared: &'a SharedListings,
        path: &RelPath,
        scope: Scope,
    ) -> Result<Self, Status> {
        // Before anything is looked at: what others listed earlier may be older than what its user did last.
        let since = Instant::now();
        let scan = Self {
            tree,
            shared: shared.join(),
            base: path.clone(),
            stack: Vec::new(),
            first: None,
            is_deep: scope != Scope::Level,
            since,
        };
        match (scope, path.split()) {
            (Scope::Itself, Some((parent, name))) => scan.of_itself(parent, &name),
            _ => scan.of_contents(),
        }
    }

    fn of_contents(mut self) -> Result<Self, Status> {
        open_dir(self.tree, &self.base)?;
        self.stack.push(Step::Dir(RelPath::root()));
        Ok(self)
    }

    fn of_itself(mut self, base: RelPath, name: &Name) -> Result<Self, Status> {
        self.base = base;
        let dir = open_dir(self.tree, &self.base)?;
        let entry = match dir.examine(name, examine) {
            Ok(Some((kind, metadata))) => Entry { name: name.clone(), kind, metadata },
            Ok(None) => return Err(Status::NotFound),
            Err(status) => return Err(status),
        };
        if entry.kind == EntryKind::Dir {
            if self.tree.is_other_name(&self.base.join(name)) {
                // Another name of a directory would have to stand in the paths of all that is in it.
                return Err(Status::NotFound);
            }
            self.stack.push(Step::Dir(path_of(name)));
        }
        let (dir, failures, end) = (RelPath::root(), Vec::new(), ListingEnd::Selected);
        self.first = Some(Arc::new(Listing { dir, root: None, entries: vec![entry], failures, end }));
        Ok(self)
    }

    /// Lists a directory or the next part of one; answers what is left of it, too.
    fn take_step(&self, step: Step) -> (Arc<Listing>, Option<Rest>) {
        let full = self.base.join_path(step.dir());
        let is_whole = matches!(step, Step::Dir(_));
        if let Some(listing) = self.shared.listed_since(&full, self.since).filter(|_| is_whole) {
            return (at_place(listing, step.dir()), None);
        }
        let start = Instant::now();
        let dir = step.dir().clone();
        let (listing, rest) = match self.list(step, &full) {
            Ok((listing, rest)) => (Arc::new(listing), rest),
            Err(error) => (Arc::new(broken(dir, status_of(&error))), None),
        };
        if is_whole && listing.end == ListingEnd::Complete && !listing.dir.is_root() {
            self.shared.listed(full, start, &listing);
        }
        (listing, rest)
    }

    fn list(&self, step: Step, full: &RelPath) -> io::Result<(Listing, Option<Rest>)> {
        let dir = persistently(|| self.tree.dir(full))?;
        let mut root = None;
        let (path, mut names) = match step {
            Step::Rest(rest) => (rest.dir, rest.names),
            Step::Dir(path) => {
                if path.is_root() {
                    root = dir.metadata()?;
                }
                let names = persistently(|| names_descending(&dir, path.is_root() || full.is_root()))?;
                (path, names)
            }
        };
        let part = names.split_off(names.len().saturating_sub(PART_ENTRIES));
        let examined: Vec<Option<Examined>> = part
            .into_par_iter()
            .rev()
            .with_min_len(ENTRIES_PER_THREAD_MIN)
            .map(|name| examine_raw(&dir, full, name))
            .collect();
        let end = match (names.is_empty(), dir.is_whole()) {
            (true, true) => ListingEnd::Complete,
            (true, false) => ListingEnd::Selected,
            (false, _) => ListingEnd::More,
        };
        let mut listing = Listing { dir: path.clone(), root, entries: Vec::new(), failures: Vec::new(), end };
        for one in examined.into_iter().flatten() {
            match one {
                Ok(entry) => listing.entries.push(entry),
                Err(failure) => listing.failures.push(failure),
            }
        }
        let rest = (!names.is_empty()).then_some(Rest { dir: path, names });
        Ok((listing, rest))
    }
}

impl Step {
    fn dir(&self) -> &RelPath {
        match self {
            Self::Dir(dir) => dir,
            Self::Rest(rest) => &rest.dir,
        }
    }
}

impl Iterator for Scan<'_> {
    type Item = Vec<Arc<Listing>>;

    fn next(&mut self) -> Option<Vec<Arc<Listing>>> {
        if let Some(first) = self.first.take() {
            return Some(vec![first]);
        }
        if self.stack.is_empty() {
            return None;
        }
        let steps = self.stack.split_off(self.stack.len().saturating_sub(BATCH_DIRS));
        let listed: Vec<(Arc<Listing>, Option<Rest>)> =
            steps.into_par_iter().rev().map(|step| self.take_step(step)).collect();
        let mut listings = Vec::with_capacity(listed.len());
        let mut rests = Vec::new();
        for (listing, rest) in listed {
            listings.push(listing);
            rests.push(rest);
        }
        for (listing, rest) in listings.iter().zip(rests).rev() {
            let dirs = listing.entries.iter().rev().filter(|entry| self.is_deep && entry.kind == EntryKind::Dir);
            // Too long a path was made a failure when the entry was examined.
            self.stack.extend(dirs.map(|entry| Step::Dir(listing.dir.join(&entry.name))));
            // On top: one large directory is finished before the next is begun.
            self.stack.extend(rest.map(Step::Rest));
        }
        Some(listings)
    }
}

/// The names in a directory, each once, the last one first. What receivers keep for themselves is not among them: at the top
/// of a tree it is known by its name, further down, where a copy may have been made into any directory, by what is in it.
fn names_descending(dir: &TreeDir, is_top: bool) -> io::Result<Vec<Vec<u8>>> {
    let mut names = dir.names()?;
    names.retain(|name| name.as_slice() != STATE_DIR || !(is_top || is_state_dir(dir)));
    names.par_sort_unstable_by(|one, other| other.cmp(one));
    // A directory that changes while it is read may give a name twice, and so do several parts of a tree.
    names.dedup();
    Ok(names)
}

/// Whether what has that name in a directory is what a receiver keeps for itself.
fn is_state_dir(dir: &TreeDir) -> bool {
    let name = |bytes: &[u8]| Name::new(bytes).expect("our own names are lawful");
    let holds_state = |dir: &Dir, state: &Name| {
        let state = dir.dir(state).ok();
        let has = |file: &[u8]| state.as_ref().is_some_and(|state| state.stat_name(&name(file)).is_ok());
        Ok((has(STATE_LOCK) || has(STATE_PARTS)).then_some(()))
    };
    dir.examine(&name(STATE_DIR), holds_state).is_ok_and(|found| found.is_some())
}

/// The end of a directory that cannot be listed.
fn broken(dir: RelPath, status: Status) -> Listing {
    Listing { dir, root: None, entries: Vec::new(), failures: Vec::new(), end: ListingEnd::Broken(status) }
}

/// A listing that another scan made, perhaps from another base: there the directory had another path.
fn at_place(listing: Arc<Listing>, dir: &RelPath) -> Arc<Listing> {
    if listing.dir == *dir { listing } else { Arc::new(Listing { dir: dir.clone(), ..(*listing).clone() }) }
}

type Examined = Result<Entry, EntryFailure>;

fn examine_raw(dir: &TreeDir, full: &RelPath, raw: Vec<u8>) -> Option<Examined> {
    let name = match Name::from_vec(raw) {
        Ok(name) => name,
        Err(raw) => return Some(Err(EntryFailure { name: shown(&raw), cause: Status::BadPath })),
    };
    if full.joined_bytes(name.as_bytes().len()) > PATH_BYTES_MAX {
        return Some(Err(EntryFailure { name, cause: Status::NameTooLong }));
    }
    match dir.examine(&name, examine) {
        Ok(found) => found.map(|(kind, metadata)| Ok(Entry { name, kind, metadata })),
        Err(cause) => Some(Err(EntryFailure { name, cause })),
    }
}

/// What an entry is; `None` where it vanished since the directory was read.
fn examine(dir: &Dir, name: &Name) -> Result<Option<(EntryKind, Metadata)>, Status> {
    let result = dir.stat_name(name).and_then(|stat| Ok((stat, kind_of(dir, name, &stat)?)));
    match result {
        Ok((stat, kind)) => Ok(Some((kind, stat.metadata))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(status_of(&error)),
    }
}

fn kind_of(dir: &Dir, name: &Name, stat: &Stat) -> io::Result<EntryKind> {
    Ok(match stat.file_type {
        FileType::File => {
            let size_bytes = stat.size_bytes();
            EntryKind::File { size_bytes, sparse: stat.allocated_bytes < size_bytes }
        }
        FileType::Dir => EntryKind::Dir,
        FileType::Symlink => {
            let target = dir.read_link(name)?;
            if target.len() > LINK_TARGET_BYTES_MAX {
                return Err(io::Error::from_raw_os_error(nix::libc::ENAMETOOLONG));
            }
            EntryKind::Symlink { target: target.into() }
        }
        FileType::Fifo => EntryKind::Special(SpecialKind::Fifo),
        FileType::Socket => EntryKind::Special(SpecialKind::Socket),
        FileType::CharDevice => EntryKind::Special(SpecialKind::CharDevice),
        FileType::BlockDevice => EntryKind::Special(SpecialKind::BlockDevice),
    })
}

fn path_of(name: &Name) -> RelPath {
    RelPath::new(name.as_bytes()).expect("a name is a path of one part")
}

/// A name that cannot be carried, made into one that can be shown.
fn shown(raw: &[u8]) -> Name {
    let mut text = Escaped(raw).to_string().replace('/', "\\x2f");
    while text.len() > NAME_BYTES_MAX {
        text.pop();
    }
    Name::new(text.as_bytes()).unwrap_or_else(|_| Name::new(b"?").expect("lawful"))
}
