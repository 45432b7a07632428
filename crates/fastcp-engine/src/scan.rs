//! The sender's walk of its tree: parallel, bounded in memory, parents before children.
//!
//! The walk goes depth first in batches: some directories are taken off a stack, listed in parallel,
//! and their subdirectories put back on it. So a listing always follows the one that names it, memory
//! grows with the directories still to be listed and not with the tree, and nobody waits for a socket
//! on a thread of the pool: the next batch is made when it is asked for. Names in a listing ascend.

use std::io;

use fastcp_model::{
    Entry, EntryFailure, EntryKind, Escaped, Listing, ListingEnd, NAME_BYTES_MAX, Name, PATH_BYTES_MAX, RelPath,
    SpecialKind, Status,
};
use fastcp_sys::{Dir, FileType, Root, Stat};
use fastcp_wire::limits::LINK_TARGET_BYTES_MAX;
use fastcp_wire::offer::Scope;
use rayon::prelude::*;

use crate::source::status_of;

/// Where a receiver keeps its state, at the root of a tree. Never offered.
pub(crate) const STATE_DIR: &[u8] = b".fastcp";

/// Directories listed at a time.
const BATCH_DIRS: usize = 64;
/// Entries of one directory examined on one thread before another is asked to help.
const ENTRIES_PER_THREAD_MIN: usize = 256;

/// A walk in progress. Each item is a batch of whole listings.
pub(crate) struct Scan<'a> {
    root: &'a Root,
    base: RelPath,
    stack: Vec<RelPath>,
    first: Option<Listing>,
}

impl<'a> Scan<'a> {
    /// Starts at `path`: its contents, or itself under its own name.
    pub(crate) fn new(root: &'a Root, path: &RelPath, scope: Scope) -> Result<Self, Status> {
        match (scope, path.split()) {
            (Scope::Itself, Some((parent, name))) => Self::of_itself(root, parent, name),
            _ => Self::of_contents(root, path.clone()),
        }
    }

    fn of_contents(root: &'a Root, base: RelPath) -> Result<Self, Status> {
        root.dir(&base).map_err(|error| status_of(&error))?;
        Ok(Self { root, base, stack: vec![RelPath::root()], first: None })
    }

    fn of_itself(root: &'a Root, base: RelPath, name: Name) -> Result<Self, Status> {
        let dir = root.dir(&base).map_err(|error| status_of(&error))?;
        let entry = match examine(&dir, &name) {
            Ok(Some(entry)) => entry,
            Ok(None) => return Err(Status::NotFound),
            Err(status) => return Err(status),
        };
        let stack = if entry.kind == EntryKind::Dir { vec![path_of(&name)] } else { Vec::new() };
        let (dir, failures, end) = (RelPath::root(), Vec::new(), ListingEnd::Selected);
        let first = Some(Listing { dir, root: None, entries: vec![entry], failures, end });
        Ok(Self { root, base, stack, first })
    }

    fn list(&self, dir: &RelPath) -> Listing {
        let mut listing = Listing {
            dir: dir.clone(),
            root: None,
            entries: Vec::new(),
            failures: Vec::new(),
            end: ListingEnd::Complete,
        };
        if let Err(error) = self.list_into(&mut listing) {
            listing.end = ListingEnd::Broken(status_of(&error));
        }
        listing
    }

    fn list_into(&self, listing: &mut Listing) -> io::Result<()> {
        let Ok(full) = self.base.join_path(&listing.dir) else {
            return Err(io::Error::from_raw_os_error(nix::libc::ENAMETOOLONG));
        };
        let dir = self.root.dir(&full)?;
        if listing.dir.is_root() {
            listing.root = Some(dir.stat()?.metadata);
        }
        let mut names = dir.names()?.collect::<io::Result<Vec<Vec<u8>>>>()?;
        // A directory that changes while it is read may give a name twice.
        names.par_sort_unstable();
        names.dedup();
        let hides_state = listing.dir.is_root() || full.is_root();
        let examined: Vec<Option<Examined>> = names
            .par_iter()
            .with_min_len(ENTRIES_PER_THREAD_MIN)
            .filter(|name| !(hides_state && name.as_slice() == STATE_DIR))
            .map(|name| examine_raw(&dir, &full, name))
            .collect();
        for one in examined.into_iter().flatten() {
            match one {
                Ok(entry) => listing.entries.push(entry),
                Err(failure) => listing.failures.push(failure),
            }
        }
        Ok(())
    }
}

impl Iterator for Scan<'_> {
    type Item = Vec<Listing>;

    fn next(&mut self) -> Option<Vec<Listing>> {
        if let Some(first) = self.first.take() {
            return Some(vec![first]);
        }
        if self.stack.is_empty() {
            return None;
        }
        let dirs = self.stack.split_off(self.stack.len().saturating_sub(BATCH_DIRS));
        let listings: Vec<Listing> = dirs.par_iter().rev().map(|dir| self.list(dir)).collect();
        for listing in listings.iter().rev() {
            let dirs = listing.entries.iter().rev().filter(|entry| entry.kind == EntryKind::Dir);
            // Too long a path was made a failure when the entry was examined.
            self.stack.extend(dirs.filter_map(|entry| listing.dir.join(&entry.name).ok()));
        }
        Some(listings)
    }
}

type Examined = Result<Entry, EntryFailure>;

fn examine_raw(dir: &Dir, full: &RelPath, raw: &[u8]) -> Option<Examined> {
    let name = match Name::new(raw) {
        Ok(name) => name,
        Err(_) => return Some(Err(EntryFailure { name: shown(raw), cause: Status::BadPath })),
    };
    if full.as_bytes().len() + 1 + raw.len() > PATH_BYTES_MAX {
        return Some(Err(EntryFailure { name, cause: Status::NameTooLong }));
    }
    match examine(dir, &name) {
        Ok(entry) => entry.map(Ok),
        Err(cause) => Some(Err(EntryFailure { name, cause })),
    }
}

/// What an entry is; `None` where it vanished since the directory was read.
fn examine(dir: &Dir, name: &Name) -> Result<Option<Entry>, Status> {
    let result = dir.stat_name(name).and_then(|stat| Ok((stat, kind_of(dir, name, &stat)?)));
    match result {
        Ok((stat, kind)) => Ok(Some(Entry { name: name.clone(), kind, metadata: stat.metadata })),
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
