//! From what is offered to what is wanted.
//!
//! Listings come parents first. Each batch is planned in two steps: directories are made in the order
//! of the offer, so that a child's place is there when its listing is looked at; then all files and
//! links are compared with what the destination has, in parallel. Links are made here; files whose
//! size and time differ become wants. What is there already has only its mode and owner mended.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use fastcp_model::{ChunkGrid, Entry, EntryKind, Listing, ListingEnd, Metadata, Name, RelPath};
use fastcp_net::NetError;
use fastcp_sys::{Dir, FileType, Stat};
use fastcp_wire::WireError;
use fastcp_wire::offer::OfferBatch;
use rayon::prelude::*;

use crate::attributes;
use crate::destination::Destination;
use crate::dirs::{Age, DirState, Finisher};
use crate::error::{RunError, ends_everything};
use crate::job::FileJob;
use crate::listing_order::{ListingOrder, broken_offer};
use crate::owners::Owners;
use crate::report::{Cause, Event, Report};
use crate::schedule::Schedule;

/// Entries of one directory planned on one thread before another is asked to help.
const ENTRIES_PER_THREAD_MIN: usize = 128;

/// Plans a transfer, batch by batch.
pub(crate) struct Planner<'a> {
    destination: &'a Destination,
    owners: &'a Owners,
    report: &'a Report,
    schedule: &'a Schedule,
    chunk_kb: u32,
    /// Directories whose listing is not complete yet.
    awaited: HashMap<RelPath, Arc<DirState>>,
    order: ListingOrder,
}

/// A listing and the open directory that it is about.
struct Placed {
    listing: Listing,
    state: Arc<DirState>,
    dir: Option<Dir>,
}

/// What to do about one entry.
enum Decision {
    /// Nothing more.
    Settled,
    Fetch(FileJob),
}

impl<'a> Planner<'a> {
    pub(crate) fn new(
        destination: &'a Destination,
        owners: &'a Owners,
        report: &'a Report,
        schedule: &'a Schedule,
        chunk_kb: u32,
    ) -> Self {
        let (awaited, order) = (HashMap::new(), ListingOrder::default());
        Self { destination, owners, report, schedule, chunk_kb, awaited, order }
    }

    /// Plans one batch. Waits while the schedule is full.
    pub(crate) fn plan(&mut self, batch: OfferBatch) -> Result<(), RunError> {
        for owner in &batch.owners {
            self.owners.learn(owner);
        }
        let mut placed = Vec::with_capacity(batch.listings.len());
        for listing in batch.listings {
            placed.extend(self.place(listing)?);
        }
        let planned: Vec<Vec<FileJob>> =
            placed.par_iter().map(|placed| self.decide(placed)).collect::<Result<_, _>>()?;
        for (placed, jobs) in placed.into_iter().zip(planned) {
            self.report.counters.entries.add(placed.listing.entries.len() as u64);
            if !jobs.is_empty() && !self.schedule.add(jobs.into_iter().map(Arc::new).collect()) {
                return Ok(());
            }
            if placed.listing.end != ListingEnd::More {
                self.awaited.remove(&placed.listing.dir);
                self.finisher().release(&placed.state);
            }
        }
        Ok(())
    }

    /// Whether every directory that was named has been listed.
    pub(crate) fn check_complete(&self) -> Result<(), RunError> {
        if self.awaited.is_empty() { Ok(()) } else { Err(broken_offer("the end before all listings")) }
    }

    fn finisher(&self) -> Finisher<'a> {
        Finisher { root: &self.destination.root, owners: self.owners, report: self.report }
    }

    /// Finds the directory that a listing is about and makes those that it names.
    fn place(&mut self, listing: Listing) -> Result<Option<Placed>, RunError> {
        let state = self.state_of(&listing)?;
        self.order.check(&listing)?;
        if let ListingEnd::Broken(status) = listing.end {
            self.report.failed(listing.dir.clone(), Cause::Source(status));
        }
        for failure in &listing.failures {
            let path = listing.dir.join(&failure.name).unwrap_or_else(|_| listing.dir.clone());
            self.report.failed(path, Cause::Source(failure.cause));
        }
        let dir = self.open(&state)?;
        for entry in &listing.entries {
            if entry.kind == EntryKind::Dir {
                self.place_dir(&state, dir.as_ref(), entry)?;
            }
        }
        Ok(Some(Placed { listing, state, dir }))
    }

    fn state_of(&mut self, listing: &Listing) -> Result<Arc<DirState>, RunError> {
        if let Some(state) = self.awaited.get(&listing.dir) {
            return Ok(Arc::clone(state));
        }
        if !listing.dir.is_root() {
            return Err(broken_offer("a listing of a directory that was not named"));
        }
        if listing.root.is_some() {
            self.report.counters.entries.add(1);
            self.open_up_root()?;
        }
        let state = DirState::new(RelPath::root(), Age::Old, None, listing.root);
        self.awaited.insert(RelPath::root(), Arc::clone(&state));
        Ok(state)
    }

    /// The destination itself may be read-only from an earlier run.
    fn open_up_root(&self) -> Result<(), RunError> {
        let root = RelPath::root();
        let opened = self.destination.root.dir(&root).and_then(|dir| open_up(&dir, &dir.stat()?, self.owners));
        opened.or_else(|source| self.fail(&root, "cannot open directory", source))
    }

    fn open(&self, state: &Arc<DirState>) -> Result<Option<Dir>, RunError> {
        if state.age == Age::Blocked {
            return Ok(None);
        }
        match self.destination.root.dir(&state.path) {
            Ok(dir) => Ok(Some(dir)),
            Err(source) => {
                self.fail(&state.path, "cannot open directory", source)?;
                Ok(None)
            }
        }
    }

    fn place_dir(&mut self, parent: &Arc<DirState>, dir: Option<&Dir>, entry: &Entry) -> Result<(), RunError> {
        let path = self.path_of(parent, &entry.name)?;
        let age = match dir {
            None => Age::Blocked,
            Some(dir) => match make_way_for_dir(dir, &entry.name, parent.age, self.owners) {
                Ok(age) => {
                    if age == Age::New {
                        self.report.counters.dirs_made.add(1);
                    }
                    age
                }
                Err(source) => {
                    self.fail(&path, "cannot make directory", source)?;
                    Age::Blocked
                }
            },
        };
        parent.expect(1);
        let state = DirState::new(path.clone(), age, Some(Arc::clone(parent)), Some(entry.metadata));
        match self.awaited.insert(path, state) {
            None => Ok(()),
            Some(_) => Err(broken_offer("the same directory twice")),
        }
    }

    fn path_of(&self, dir: &DirState, name: &Name) -> Result<RelPath, RunError> {
        dir.path.join(name).map_err(|error| RunError::Net {
            during: "reading offers",
            source: NetError::Protocol(WireError::Path(error)),
        })
    }

    fn decide(&self, placed: &Placed) -> Result<Vec<FileJob>, RunError> {
        let Some(dir) = &placed.dir else { return Ok(Vec::new()) };
        let decisions: Vec<Decision> = placed
            .listing
            .entries
            .par_iter()
            .with_min_len(ENTRIES_PER_THREAD_MIN)
            .map(|entry| self.decide_entry(&placed.state, dir, entry))
            .collect::<Result<_, _>>()?;
        let jobs: Vec<FileJob> = decisions
            .into_iter()
            .filter_map(|decision| match decision {
                Decision::Fetch(job) => Some(job),
                Decision::Settled => None,
            })
            .collect();
        placed.state.expect(jobs.len() as u64);
        Ok(jobs)
    }

    fn decide_entry(&self, state: &Arc<DirState>, dir: &Dir, entry: &Entry) -> Result<Decision, RunError> {
        let result = match &entry.kind {
            EntryKind::Dir => return Ok(Decision::Settled),
            EntryKind::Special(kind) => {
                self.report.counters.special_skipped.add(1);
                self.report.tell(Event::Skipped { path: self.path_of(state, &entry.name)?, kind: *kind });
                return Ok(Decision::Settled);
            }
            EntryKind::Symlink { target } => self
                .place_link(state, dir, entry, target)
                .map(|()| Decision::Settled)
                .map_err(|error| ("cannot make link", error)),
            EntryKind::File { size_bytes, sparse } => {
                self.report.counters.files.add(1);
                self.report.counters.bytes_total.add(*size_bytes);
                self.decide_file(state, dir, entry, *size_bytes, *sparse).map_err(|error| ("cannot examine", error))
            }
        };
        match result {
            Ok(decision) => Ok(decision),
            Err((operation, source)) => {
                self.fail(&self.path_of(state, &entry.name)?, operation, source)?;
                Ok(Decision::Settled)
            }
        }
    }

    fn decide_file(
        &self,
        state: &Arc<DirState>,
        dir: &Dir,
        entry: &Entry,
        size_bytes: u64,
        sparse: bool,
    ) -> io::Result<Decision> {
        let there = existing(dir, &entry.name, state.age)?;
        if let Some(stat) = &there {
            if is_unchanged(stat, size_bytes, &entry.metadata) {
                if attributes::differ(stat, &entry.metadata, self.owners) {
                    attributes::mend(dir.handle(&entry.name)?, stat, &entry.metadata, self.owners)?;
                }
                self.report.counters.files_unchanged.add(1);
                self.report.counters.bytes_unchanged.add(size_bytes);
                return Ok(Decision::Settled);
            }
            clear_empty_dir(dir, &entry.name, stat)?;
        }
        let grid = ChunkGrid::new(size_bytes, self.chunk_kb).map_err(io::Error::other)?;
        let replaces = there.is_some_and(|stat| stat.file_type != FileType::Dir);
        let job = FileJob::new(Arc::clone(state), entry.name.clone(), entry.metadata, grid, sparse, replaces);
        Ok(Decision::Fetch(job))
    }

    fn place_link(&self, state: &Arc<DirState>, dir: &Dir, entry: &Entry, target: &[u8]) -> io::Result<()> {
        let name = &entry.name;
        match existing(dir, name, state.age)? {
            Some(stat) if stat.file_type == FileType::Symlink && dir.read_link(name)? == target => {
                return attributes::mend_link(dir, name, &entry.metadata, self.owners);
            }
            Some(stat) => {
                clear_empty_dir(dir, name, &stat)?;
                let (parts, part_name) = self.destination.part_place(state, dir, name)?;
                let _ = parts.remove_file(&part_name);
                parts.make_link(target, &part_name)?;
                parts.rename(&part_name, dir, name)?;
            }
            None => dir.make_link(target, name)?,
        }
        self.report.counters.links_made.add(1);
        attributes::mend_link(dir, name, &entry.metadata, self.owners)
    }

    /// One entry failed, or, where the failure concerns all of them, the run did.
    fn fail(&self, path: &RelPath, operation: &'static str, source: io::Error) -> Result<(), RunError> {
        if ends_everything(&source) {
            let operation = operation.strip_prefix("cannot ").unwrap_or(operation);
            return Err(RunError::Destination { operation, path: path.to_string(), source });
        }
        let cause = match source.raw_os_error() {
            Some(nix::libc::ENOTEMPTY) => Cause::DirectoryInTheWay,
            _ => Cause::Destination { operation, source },
        };
        self.report.failed(path.clone(), cause);
        Ok(())
    }
}

/// What has this name, where the directory is old enough to hold anything.
fn existing(dir: &Dir, name: &Name, age: Age) -> io::Result<Option<Stat>> {
    if age == Age::New {
        return Ok(None);
    }
    match dir.stat_name(name) {
        Ok(stat) => Ok(Some(stat)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// rsync's quick check, to the nanosecond.
fn is_unchanged(there: &Stat, size_bytes: u64, wanted: &Metadata) -> bool {
    there.file_type == FileType::File && there.size_bytes() == size_bytes && there.metadata.mtime == wanted.mtime
}

/// An empty directory gives way to a file or link of its name; one that is not empty never does.
fn clear_empty_dir(dir: &Dir, name: &Name, there: &Stat) -> io::Result<()> {
    if there.file_type == FileType::Dir { dir.remove_dir(name) } else { Ok(()) }
}

/// Makes sure that `name` is a directory that this process can work in.
fn make_way_for_dir(dir: &Dir, name: &Name, parent: Age, owners: &Owners) -> io::Result<Age> {
    match existing(dir, name, parent)? {
        None => dir.make_dir(name)?,
        Some(stat) if stat.file_type == FileType::Dir => {
            open_up(&dir.dir(name)?, &stat, owners)?;
            return Ok(Age::Old);
        }
        Some(_) => {
            dir.remove_file(name)?;
            dir.make_dir(name)?;
        }
    }
    Ok(Age::New)
}

/// Gives the owner of a read-only directory the right to work in it; its own mode comes back when it
/// is finished.
fn open_up(dir: &Dir, stat: &Stat, owners: &Owners) -> io::Result<()> {
    if owners.is_root() || stat.metadata.mode & 0o700 == 0o700 {
        return Ok(());
    }
    fastcp_sys::metadata::set_handle_mode(dir, stat.metadata.mode | 0o700)
}
