//! What is offered against what is here: everything but the contents of files.
//!
//! Each batch is taken in two steps. In order: whether its listings make sense, and, of directories that
//! come in parts, which names of ours have not been named yet. Then in parallel: all entries, by one stat
//! call each. Files of the right kind and size go on to have their contents compared. Only names of ours in
//! a directory that was listed completely are too much, so those are held until its last part has come.
//! Nothing is opened for writing.

use std::collections::{HashMap, HashSet};
use std::io;

use fastcp_model::{
    Entry, EntryFailure, EntryKind, Listing, ListingEnd, Metadata, Name, RelPath, STATE_DIR, SpecialKind, Status,
};
use fastcp_sys::{Dir, FileType, Root, Stat};
use fastcp_wire::offer::{OfferBatch, OfferEnd};
use rayon::prelude::*;

use super::queue::{CheckQueue, FileCheck};
use crate::difference::Difference;
use crate::error::{RunError, is_not_there};
use crate::filter::Parent;
use crate::link::listing_order::{ListingOrder, OfferCount, broken_offer};
use crate::plan::extraneous::is_part_file;
use crate::report::{Cause, Event, Report};
use crate::target::attributes::owner_to_set;
use crate::target::backup_dirs::BackupDirs;
use crate::target::kept_times::KeptTimes;
use crate::target::owners::{Owners, TooManyNames};
use crate::target::protection::{Protection, Protections};
use crate::target::volume::is_top_of_volume;

/// Entries of one directory compared on one thread before another is asked to help.
const ENTRIES_PER_THREAD_MIN: usize = 128;

/// Names of ours, of a directory that comes in parts, that were not named so far.
type Unnamed = HashSet<Vec<u8>>;

/// Compares an offer, batch by batch.
pub(super) struct Comparer<'a> {
    root: &'a Root,
    owners: &'a Owners,
    kept_times: KeptTimes,
    /// They are not of the source.
    backups: BackupDirs,
    /// What rules leave out is not either.
    protections: Protections,
    report: &'a Report,
    queue: &'a CheckQueue,
    order: ListingOrder,
    /// Of the offer that is coming, from its beginning.
    count: OfferCount,
    /// Directories whose listing is not complete yet.
    awaited: HashSet<RelPath>,
    /// Those of them that came in part.
    in_parts: HashMap<RelPath, Unnamed>,
    /// An offer that was broken off comes once more.
    is_replay: bool,
}

/// A listing that has its place in the offer.
struct Placed {
    listing: Listing,
    protection: Protection,
    parts: Parts,
}

enum Here {
    Dir(Dir),
    /// No such directory: nothing in it is here.
    Missing,
    /// It cannot be entered.
    Closed(io::Error),
}

/// In how many listings a directory comes.
#[derive(PartialEq, Eq)]
enum Parts {
    One,
    Several,
}

impl<'a> Comparer<'a> {
    pub(super) fn new(
        root: &'a Root,
        owners: &'a Owners,
        report: &'a Report,
        queue: &'a CheckQueue,
        protections: Protections,
    ) -> Self {
        let (order, in_parts) = (ListingOrder::default(), HashMap::new());
        let awaited = HashSet::from([RelPath::root()]);
        Self {
            root,
            owners,
            kept_times: KeptTimes::default(),
            backups: BackupDirs::of(Some(root), None),
            protections,
            report,
            queue,
            order,
            count: OfferCount::default(),
            awaited,
            in_parts,
            is_replay: false,
        }
    }

    /// Compares one batch. Waits while many files wait for their contents to be compared.
    pub(super) fn compare(&mut self, batch: OfferBatch) -> Result<(), RunError> {
        self.count.add(&batch);
        for owner in &batch.owners {
            self.owners.learn(owner).map_err(|TooManyNames| broken_offer("it names ever more owners"))?;
        }
        let mut placed = Vec::with_capacity(batch.listings.len());
        for listing in batch.listings {
            if let Some(listing) = self.uncompared(listing) {
                placed.push(self.place(listing)?);
            }
        }
        let files: Vec<Vec<FileCheck>> =
            placed.par_iter().map(|placed| self.compare_listing(placed)).collect::<Result<_, _>>()?;
        for files in files.into_iter().filter(|files| !files.is_empty()) {
            if !self.queue.add(files) {
                break;
            }
        }
        Ok(())
    }

    /// The offer was broken off. It will come once more, from the start.
    pub(super) fn replay(&mut self) {
        self.is_replay = true;
        self.count = OfferCount::default();
    }

    /// What of a listing has not been compared yet; `None` where that is nothing. Only after a break is there
    /// anything that has been.
    fn uncompared(&self, mut listing: Listing) -> Option<Listing> {
        if !self.is_replay {
            return Some(listing);
        }
        if !self.awaited.contains(&listing.dir) {
            return None;
        }
        if let Some(last) = self.order.last_of(&listing.dir) {
            listing.entries.retain(|entry| entry.name > *last);
            listing.failures.clear();
            listing.root = None;
        }
        Some(listing)
    }

    /// Every directory that was named has to have been listed, but for those that went away while the offer
    /// came a second time. What the end counts has to have been listed, too: a failure that is not told would look as
    /// if there were no difference.
    pub(super) fn finish(&mut self, end: &OfferEnd) -> Result<(), RunError> {
        self.count.expect(end)?;
        if !self.awaited.is_empty() && !self.is_replay {
            return Err(broken_offer("it ends before all directories are listed"));
        }
        for path in self.awaited.drain() {
            self.report.failed(path, Cause::Source(Status::NotFound));
        }
        Ok(())
    }

    /// All that has to happen in the order of the offer.
    fn place(&mut self, listing: Listing) -> Result<Placed, RunError> {
        if !self.awaited.contains(&listing.dir) {
            return Err(broken_offer("it lists a directory that was not named"));
        }
        self.order.check(&listing)?;
        for entry in listing.entries.iter().filter(|entry| entry.kind == EntryKind::Dir) {
            if !self.awaited.insert(listing.dir.join(&entry.name)) {
                return Err(broken_offer("it names a directory twice"));
            }
        }
        if listing.end != ListingEnd::More {
            self.awaited.remove(&listing.dir);
        }
        let dir = if self.protections.is_of_nothing() { None } else { self.root.dir(&listing.dir).ok() };
        let (protection, failure) = self.protections.of(&listing, Some(self.root), dir.as_ref());
        if let Some(error) = failure {
            self.report.failed(listing.dir.clone(), Cause::FilterRules(error.to_string()));
        }
        let parts = self.note_part(&listing, &protection);
        Ok(Placed { listing, protection, parts })
    }

    fn open(&self, path: &RelPath) -> Here {
        match self.root.dir(path) {
            Ok(dir) => Here::Dir(dir),
            Err(error) if is_not_there(&error) => Here::Missing,
            Err(error) => Here::Closed(error),
        }
    }

    /// Keeps account of a directory that comes in parts.
    fn note_part(&mut self, listing: &Listing, protection: &Protection) -> Parts {
        let begun = self.in_parts.remove(&listing.dir);
        if begun.is_none() && listing.end != ListingEnd::More {
            return Parts::One;
        }
        let Here::Dir(dir) = &self.open(&listing.dir) else { return Parts::Several };
        let mut unnamed = match begun {
            Some(unnamed) => unnamed,
            None => self.names_in(dir, &listing.dir).into_iter().collect(),
        };
        for name in named(listing) {
            unnamed.remove(name.as_bytes());
        }
        match listing.end {
            ListingEnd::More => drop(self.in_parts.insert(listing.dir.clone(), unnamed)),
            ListingEnd::Complete => self.tell_extraneous(dir, &listing.dir, protection, unnamed),
            ListingEnd::Selected | ListingEnd::Broken(_) => {}
        }
        Parts::Several
    }

    fn compare_listing(&self, placed: &Placed) -> Result<Vec<FileCheck>, RunError> {
        let listing = &placed.listing;
        self.report.counters.entries.add(listing.entries.len() as u64 + u64::from(listing.root.is_some()));
        self.tell_failures(listing);
        // Opened here and not in order: a batch may have more listings than there are descriptors.
        let dir = match self.open(&listing.dir) {
            Here::Dir(dir) => Some(dir),
            Here::Missing => None,
            Here::Closed(source) => {
                // Once for all parts.
                if listing.end != ListingEnd::More {
                    self.fail(listing.dir.clone(), "cannot open directory", source);
                }
                return Ok(Vec::new());
            }
        };
        if let Some(dir) = &dir {
            self.compare_dir(dir, placed);
        }
        let compare = |entry| self.compare_entry(&listing.dir, dir.as_ref(), entry);
        let found = listing.entries.par_iter().with_min_len(ENTRIES_PER_THREAD_MIN).map(compare);
        Ok(found.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }

    /// Compares a directory as a whole.
    fn compare_dir(&self, dir: &Dir, Placed { listing, protection, parts }: &Placed) {
        if let Some(root) = &listing.root {
            match dir.stat() {
                Ok(stat) => self.compare_metadata(dir, &listing.dir, stat, root),
                Err(source) => self.fail(listing.dir.clone(), "cannot examine", source),
            }
        }
        if *parts == Parts::One && listing.end == ListingEnd::Complete {
            let mut unnamed = self.names_in(dir, &listing.dir);
            let known: HashSet<&[u8]> = named(listing).map(Name::as_bytes).collect();
            unnamed.retain(|name| !known.contains(name.as_slice()));
            self.tell_extraneous(dir, &listing.dir, protection, unnamed);
        }
    }

    fn tell_failures(&self, listing: &Listing) {
        if let ListingEnd::Broken(status) = listing.end {
            self.report.failed(listing.dir.clone(), Cause::Source(status));
        }
        for EntryFailure { name, cause } in &listing.failures {
            let path = listing.dir.join(name);
            self.report.failed(path, Cause::Source(*cause));
        }
    }

    /// Compares one entry, of a directory that is here or not. A file whose contents are to be compared is
    /// answered.
    fn compare_entry(&self, above: &RelPath, dir: Option<&Dir>, entry: &Entry) -> Result<Option<FileCheck>, RunError> {
        let path = above.join(&entry.name);
        if let EntryKind::File { size_bytes, .. } = entry.kind {
            self.report.counters.files.add(1);
            self.report.counters.bytes_total.add(size_bytes);
        }
        let Some(dir) = dir else {
            self.tell_missing(path, entry);
            return Ok(None);
        };
        match dir.stat_name(&entry.name) {
            Ok(stat) => Ok(self.compare_there(dir, path, entry, &stat)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.tell_missing(path, entry);
                Ok(None)
            }
            Err(source) => {
                self.fail(path, "cannot examine", source);
                Ok(None)
            }
        }
    }

    fn compare_there(&self, dir: &Dir, path: RelPath, entry: &Entry, stat: &Stat) -> Option<FileCheck> {
        if stat.file_type != file_type(&entry.kind) {
            self.report.differs(path, Difference::Type);
            return None;
        }
        if let EntryKind::Special(kind) = entry.kind {
            self.skip(path, kind);
            return None;
        }
        self.compare_metadata(dir, &path, *stat, &entry.metadata);
        match &entry.kind {
            EntryKind::File { size_bytes, .. } => self.compare_size(path, *size_bytes, &entry.metadata, stat),
            EntryKind::Symlink { target } => {
                match dir.read_link(&entry.name) {
                    Ok(found) if found == **target => {}
                    Ok(_) => self.report.differs(path, Difference::Target),
                    Err(source) => self.fail(path, "cannot examine", source),
                }
                None
            }
            EntryKind::Dir | EntryKind::Special(_) => None,
        }
    }

    fn compare_size(&self, path: RelPath, size_bytes: u64, wanted: &Metadata, stat: &Stat) -> Option<FileCheck> {
        if stat.size_bytes() != size_bytes {
            self.report.differs(path, Difference::Size);
            return None;
        }
        if size_bytes == 0 {
            self.report.counters.files_verified.add(1);
            return None;
        }
        let check = FileCheck::new(path, size_bytes, wanted.mtime);
        Some(if stat.allocated_bytes < size_bytes { check.with_holes() } else { check })
    }

    /// Compares what is in `dir`, or `dir` itself.
    fn compare_metadata(&self, dir: &Dir, path: &RelPath, stat: Stat, wanted: &Metadata) {
        let stat = self.kept_times.as_wanted(dir, stat, wanted.mtime);
        // A link has no mode of its own.
        let has_mode = stat.file_type != FileType::Symlink;
        let found = [
            (stat.metadata.mtime != wanted.mtime, Difference::Mtime),
            (has_mode && stat.metadata.mode != wanted.mode, Difference::Mode),
            (owner_to_set(&stat, wanted, self.owners).is_some(), Difference::Owner),
        ];
        for (_, what) in found.into_iter().filter(|(differs, _)| *differs) {
            self.report.differs(path.clone(), what);
        }
    }

    /// A device, pipe or socket is never copied, so it is not missed.
    fn tell_missing(&self, path: RelPath, entry: &Entry) {
        match entry.kind {
            EntryKind::Special(kind) => self.skip(path, kind),
            _ => self.report.differs(path, Difference::Missing),
        }
    }

    fn skip(&self, path: RelPath, kind: SpecialKind) {
        self.report.counters.special_skipped.add(1);
        self.report.tell(Event::Skipped { path, kind });
    }

    /// The names in a directory here; none, and a report, where they cannot be read.
    fn names_in(&self, dir: &Dir, path: &RelPath) -> Vec<Vec<u8>> {
        let names = dir.names().and_then(Iterator::collect::<io::Result<Vec<_>>>);
        names.unwrap_or_else(|source| {
            self.fail(path.clone(), "cannot read directory", source);
            Vec::new()
        })
    }

    fn tell_extraneous(
        &self,
        dir: &Dir,
        path: &RelPath,
        protection: &Protection,
        names: impl IntoIterator<Item = Vec<u8>>,
    ) {
        for raw in names {
            let is_state = raw == STATE_DIR && is_top_of_volume(self.root, path).unwrap_or(false);
            match Name::new(&raw).map(|name| (path.join(&name), name)) {
                Ok((_, name)) if protection.keeps(dir, path, &name, Parent::Stays) => {}
                // What deletion leaves alone is no difference either.
                Ok((path, name)) if is_state || is_part_file(&name) || self.backups.has_below(&path) => {}
                Ok((path, _)) => self.report.differs(path, Difference::Extraneous),
                Err(error) => self.fail(path.clone(), "cannot name an entry", io::Error::other(error)),
            }
        }
    }

    fn fail(&self, path: RelPath, operation: &'static str, source: io::Error) {
        self.report.failed(path, Cause::Destination { operation, source });
    }
}

/// All names that a listing says something about.
fn named(listing: &Listing) -> impl Iterator<Item = &Name> {
    let entries = listing.entries.iter().map(|entry| &entry.name);
    entries.chain(listing.failures.iter().map(|failure| &failure.name))
}

fn file_type(kind: &EntryKind) -> FileType {
    match kind {
        EntryKind::File { .. } => FileType::File,
        EntryKind::Dir => FileType::Dir,
        EntryKind::Symlink { .. } => FileType::Symlink,
        EntryKind::Special(SpecialKind::Fifo) => FileType::Fifo,
        EntryKind::Special(SpecialKind::Socket) => FileType::Socket,
        EntryKind::Special(SpecialKind::CharDevice) => FileType::CharDevice,
        EntryKind::Special(SpecialKind::BlockDevice) => FileType::BlockDevice,
    }
}
