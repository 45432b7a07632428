//! The sender's walk of its tree: parallel, bounded in memory, parents before children.
//!
//! The walk goes depth first in batches: some directories are taken off a stack, listed in parallel,
//! and their subdirectories put back on it. So a listing always follows the one that names it, memory
//! grows with the directories still to be listed and not with the tree, and nobody waits for a socket
//! on a thread of the pool: the next batch is made when it is asked for. Names in a listing ascend. Of a
//! very large directory only the names are held; its entries are examined and listed part by part.
//! Scans that run at the same time share what they list ([`SharedListings`]), and the memory that there is for all of
//! them ([`OfferMemory`]). Where that is short, less is listed at a time, names are read again, and the directories of one
//! part are listed before its next part. What the rules of a run exclude is passed over, and nothing below it is walked.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use fastcp_model::{
    Entry, EntryFailure, EntryKind, Listing, ListingEnd, Name, PATH_BYTES_MAX, RelPath, STATE_DIR, STATE_LOCK,
    STATE_PARTS, Status,
};
use fastcp_sys::Dir;
use fastcp_sys::scarce::persistently;
use fastcp_wire::offer::{OfferRequest, Place, Scope};
use fastcp_wire::unlisted::Unlisted;
use rayon::prelude::*;

use crate::filter::{Filter, FilterError};
use crate::sender::names::{Gathering, NamesInUse};
use crate::sender::offer_memory::{Held, Kind, OfferMemory, Parked};
use crate::sender::scan::examine::{examine, shown};
use crate::sender::selection::{Judged, Selection};
use crate::sender::shared::Sharing;
use crate::sender::source::{Source, status_of};
use crate::sender::tree::{Tree, TreeDir, open_dir};

/// Directories listed at a time.
const BATCH_DIRS: usize = 64;
/// Entries of one directory listed at a time.
const PART_ENTRIES: usize = 2048;
/// The same where memory is short; then one directory is listed at a time.
const SMALL_PART_ENTRIES: usize = 256;
/// What the directories may take that one directory names at a time; the batch has fewer where there is not so much for each.
const NAMED_BYTES: usize = 100 << 10;
/// The same where memory is short, of the directories of all levels together, which are listed one below the other.
const SHORT_NAMED_BYTES: usize = 256 << 10;
/// Entries of one directory examined on one thread before another is asked to help.
const ENTRIES_PER_THREAD_MIN: usize = 256;

/// A walk in progress. Each item is a batch of listings, or parts of them.
pub(crate) struct Scan<'a> {
    tree: &'a Tree,
    selection: Selection,
    /// With others of the whole tree.
    shared: Option<Sharing<'a>>,
    memory: &'a OfferMemory,
    base: RelPath,
    stack: Vec<Step<'a>>,
    /// What the stack takes.
    stacked: Held<'a>,
    /// Receivers hold it, too.
    unlisted: Unlisted,
    first: Option<Arc<Listing>>,
    /// Whether directories are listed that others name.
    is_deep: bool,
    since: Instant,
}

/// What one step of a scan has found.
pub(crate) struct Batch<'a> {
    pub(crate) listings: Vec<Arc<Listing>>,
    /// Room for them.
    _held: Held<'a>,
}

/// What is to be listed.
enum Step<'a> {
    /// With the rules that stand above it.
    Dir(RelPath, Filter),
    /// The rest of a large directory.
    Rest(Rest<'a>),
}

/// The part of a directory that has not been examined; all of it at the beginning.
struct Rest<'a> {
    dir: RelPath,
    /// Those that stand in it.
    rules: Filter,
    /// The last name that has been; `None` at the beginning.
    after: Option<Vec<u8>>,
    /// The next ones, unless they have to be read again.
    names: Option<Parked<'a>>,
}

/// How much is listed at a time.
#[derive(Clone, Copy)]
struct Pace {
    dirs: usize,
    part_entries: usize,
    /// What the directories may take that one step names.
    named_bytes: usize,
}

/// A step that was taken, or one for which there was no room.
enum Taken<'a> {
    Listed(Listed<'a>),
    Put(Step<'a>),
}

/// What has come of a step.
struct Listed<'a> {
    listing: Arc<Listing>,
    /// The rules that stand in the directory.
    rules: Filter,
    rest: Option<Rest<'a>>,
}

impl<'a> Scan<'a> {
    /// Starts where a request says: at a directory's contents, or at an entry under its own name.
    pub(crate) fn new(source: &'a Source, request: &OfferRequest) -> Result<Self, Status> {
        // Before anything is looked at: what others listed earlier may be older than what its user did last.
        let since = Instant::now();
        let Place { path, scope } = &request.place;
        let selection = match &source.guard {
            Some(guard) => guard.selection.clone(),
            None => Selection::new(&request.place, &request.rules),
        };
        let scan = Self {
            tree: &source.tree,
            shared: selection.is_everything().then(|| source.listings.join()),
            selection,
            memory: &source.offers,
            base: path.clone(),
            stack: Vec::new(),
            stacked: source.offers.hold(Kind::Listings),
            unlisted: Unlisted::default(),
            first: None,
            is_deep: *scope != Scope::Level,
            since,
        };
        match (scope, path.split()) {
            (Scope::Itself, Some((parent, name))) => scan.of_itself(parent, &name),
            _ => scan.of_contents(),
        }
    }

    fn of_contents(mut self) -> Result<Self, Status> {
        open_dir(self.tree, &self.base)?;
        let rules = self.rules(Selection::above, &self.base)?;
        self.stack.push(Step::Dir(RelPath::root(), rules));
        Ok(self)
    }

    fn of_itself(mut self, base: RelPath, name: &Name) -> Result<Self, Status> {
        self.base = base;
        let dir = open_dir(self.tree, &self.base)?;
        let rules = self.rules(Selection::reach, &self.base)?;
        let entry = match dir.examine(name, examine) {
            Ok(Some((kind, metadata))) => Entry { name: name.clone(), kind, metadata },
            Ok(None) => return Err(Status::NotFound),
            Err(status) => return Err(status),
        };
        let is_dir = entry.kind == EntryKind::Dir;
        let is_in = self.selection.admits(&rules, &self.base, name, is_dir);
        if is_in && is_dir {
            if self.tree.is_other_name(&self.base.join(name)) {
                // Another name of a directory would have to stand in the paths of all that is in it.
                return Err(Status::NotFound);
            }
            self.stack.push(Step::Dir(path_of(name), rules));
        }
        let (dir, failures, end) = (RelPath::root(), Vec::new(), ListingEnd::Selected);
        let entries = is_in.then_some(entry).into_iter().collect();
        self.first = Some(Arc::new(Listing { dir, root: None, entries, failures, end }));
        Ok(self)
    }

    /// The rules that an offer begins with.
    fn rules(
        &self,
        find: impl Fn(&Selection, &Tree, &RelPath) -> Result<Option<Filter>, FilterError>,
        dir: &RelPath,
    ) -> Result<Filter, Status> {
        match find(&self.selection, self.tree, dir) {
            Ok(rules) => rules.ok_or(Status::NotFound),
            Err(error) => {
                tracing::warn!(%dir, "{error}");
                Err(Status::FilterRules)
            }
        }
    }

    /// Lists a directory or the next part of one; answers what is left of it, too. All but the first of a batch wait for
    /// another one where there is no room for what was found.
    fn take_step(&self, step: Step<'a>, pace: Pace, is_first: bool, held: &Held<'_>) -> Taken<'a> {
        let (rules, after) = match &step {
            Step::Dir(_, rules) => (rules.clone(), None),
            Step::Rest(rest) => (rest.rules.clone(), Some(rest.after.clone())),
        };
        let listed = self.list_step(step, pace);
        if held.grow(bytes_of(&listed.listing)) || is_first {
            return Taken::Listed(listed);
        }
        let dir = listed.listing.dir.clone();
        Taken::Put(match after {
            // With names to be read again.
            Some(after) => Step::Rest(Rest { dir, rules, after, names: None }),
            None => Step::Dir(dir, rules),
        })
    }

    /// How much is listed at a time now.
    fn pace(&self) -> Pace {
        let room = self.memory.room();
        if OfferMemory::is_tight_with(room) || !self.unlisted.has_room() {
            let named_bytes = SHORT_NAMED_BYTES.min(self.unlisted.step_bytes_max());
            return Pace { dirs: 1, part_entries: SMALL_PART_ENTRIES, named_bytes };
        }
        // Others take of the same room.
        let bytes = (room / 8).min(self.unlisted.step_bytes_max());
        let dirs = (bytes / NAMED_BYTES).clamp(1, BATCH_DIRS);
        Pace { dirs, part_entries: PART_ENTRIES, named_bytes: bytes / dirs.min(self.stack.len()).max(1) }
    }

    /// How many entries of a directory are listed at a time, each of which may be a directory with the longest of names.
    fn entries_of(&self, full: &RelPath, pace: Pace) -> usize {
        let named_bytes = if pace.dirs == 1 { pace.named_bytes / (1 + full.names().count()) } else { pace.named_bytes };
        (named_bytes / (size_of::<Step<'_>>() + Unlisted::bytes_of_one(full))).clamp(1, pace.part_entries)
    }

    fn list_step(&self, step: Step<'a>, pace: Pace) -> Listed<'a> {
        let full = self.base.join_path(step.dir());
        let sharing = self.shared.as_ref().filter(|_| matches!(step, Step::Dir(..)));
        if let Some(listing) = sharing.and_then(|shared| shared.listed_since(&full, self.since)) {
            return Listed { listing: at_place(listing, step.dir()), rules: Filter::default(), rest: None };
        }
        let start = Instant::now();
        let listed = self.list(step, &full, self.entries_of(&full, pace));
        let is_whole = listed.listing.end == ListingEnd::Complete && !listed.listing.dir.is_root();
        if let Some(shared) = sharing.filter(|_| is_whole) {
            shared.listed(full, start, &listed.listing, bytes_of(&listed.listing));
        }
        listed
    }

    fn list(&self, step: Step<'a>, full: &RelPath, part_entries: usize) -> Listed<'a> {
        let dir = step.dir().clone();
        let failed = |status| Listed { listing: Arc::new(broken(dir, status)), rules: Filter::default(), rest: None };
        let (step, rules) = match step {
            Step::Dir(path, above) => match self.selection.enter(self.tree, &above, full) {
                Ok(rules) => (Rest { dir: path, rules: rules.clone(), after: None, names: None }, rules),
                Err(error) => {
                    tracing::warn!(dir = %full, "{error}");
                    return failed(Status::FilterRules);
                }
            },
            Step::Rest(rest) => {
                let rules = rest.rules.clone();
                (rest, rules)
            }
        };
        match self.list_part(step, full, part_entries) {
            Ok((listing, rest)) => Listed { listing: Arc::new(listing), rules, rest },
            Err(error) => failed(status_of(&error)),
        }
    }

    /// Lists the next part of a directory.
    fn list_part(
        &self,
        step: Rest<'a>,
        full: &RelPath,
        part_entries: usize,
    ) -> io::Result<(Listing, Option<Rest<'a>>)> {
        let Rest { dir: path, rules, after, names: parked } = step;
        let dir = persistently(|| self.tree.dir(full))?;
        let root = if path.is_root() && after.is_none() { dir.metadata()? } else { None };
        let is_top = path.is_root() || full.is_root();
        let mut names = match parked.and_then(|parked| NamesInUse::unparked(self.memory, parked)) {
            Some(names) => names,
            None => persistently(|| self.read_names(&dir, after.as_deref(), is_top))?,
        };
        let part = names.next_part(part_entries).with_min_len(ENTRIES_PER_THREAD_MIN);
        let examined: Vec<Option<Examined>> = part.map(|name| self.examine_raw(&dir, full, &rules, name)).collect();
        let end = match (names.is_at_end(), dir.is_whole()) {
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
        let rest = match names.last_listed() {
            Some(last) if end == ListingEnd::More => {
                let after = Some(last.to_vec());
                Some(Rest { dir: path, rules, after, names: names.park() })
            }
            _ => None,
        };
        Ok((listing, rest))
    }

    /// What a name is that was read in a directory; `None` where it is excluded, or nothing any more.
    fn examine_raw(&self, dir: &TreeDir, full: &RelPath, rules: &Filter, raw: &[u8]) -> Option<Examined> {
        let Ok(name) = Name::new(raw) else {
            return Some(Err(EntryFailure { name: shown(raw), cause: Status::BadPath }));
        };
        let judged = self.selection.judge(rules, full, &name);
        if judged == Judged::Out {
            return None;
        }
        if full.joined_bytes(name.as_bytes().len()) > PATH_BYTES_MAX {
            return Some(Err(EntryFailure { name, cause: Status::NameTooLong }));
        }
        match dir.examine(&name, examine) {
            Ok(found) => found
                .filter(|(kind, _)| {
                    judged == Judged::In || self.selection.admits(rules, full, &name, *kind == EntryKind::Dir)
                })
                .map(|(kind, metadata)| Ok(Entry { name, kind, metadata })),
            Err(cause) => Some(Err(EntryFailure { name, cause })),
        }
    }

    /// The names in a directory behind `after`, each once and in order, as many as there is room for. What receivers keep for
    /// themselves is not among them: at the top of a tree it is known by its name, further down, where a copy may have been
    /// made into any directory, by what is in it.
    fn read_names(&self, dir: &TreeDir, after: Option<&[u8]>, is_top: bool) -> io::Result<NamesInUse<'a>> {
        let mut names = Gathering::new(self.memory, after);
        dir.each_name(|name| {
            if name != STATE_DIR || !(is_top || is_state_dir(dir)) {
                names.add(name);
            }
        })?;
        Ok(names.finish())
    }

    /// Takes note of what a listing leads to.
    fn push(&mut self, listed: Listed<'a>) {
        let Listed { listing, rules, rest } = listed;
        let (is_deep, start) = (self.is_deep, self.stack.len());
        let dirs = listing.entries.iter().rev().filter(|entry| is_deep && entry.kind == EntryKind::Dir);
        // Too long a path was made a failure when the entry was examined.
        self.stack.extend(dirs.map(|entry| Step::Dir(listing.dir.join(&entry.name), rules.clone())));
        self.unlisted.take(&listing);
        let rest = rest.map(Step::Rest);
        self.stacked.add(self.stack[start..].iter().chain(&rest).map(Step::bytes).sum());
        let Some(rest) = rest else { return };
        let has_room = !self.memory.is_tight() && self.unlisted.has_room();
        // On top: one large directory is finished before the next is begun. The directories of one part are listed before
        // the next where there is no room for those of all parts.
        self.stack.insert(if has_room { self.stack.len() } else { start }, rest);
    }
}

impl Step<'_> {
    fn dir(&self) -> &RelPath {
        match self {
            Self::Dir(dir, _) => dir,
            Self::Rest(rest) => &rest.dir,
        }
    }

    /// What it takes on the stack.
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.dir().as_bytes().len()
    }
}

impl<'a> Iterator for Scan<'a> {
    type Item = Batch<'a>;

    fn next(&mut self) -> Option<Batch<'a>> {
        let held = self.memory.hold(Kind::Listings);
        if let Some(first) = self.first.take() {
            return Some(Batch { listings: vec![first], _held: held });
        }
        if self.stack.is_empty() {
            return None;
        }
        let pace = self.pace();
        let steps = self.stack.split_off(self.stack.len().saturating_sub(pace.dirs));
        self.stacked.shrink(steps.iter().map(Step::bytes).sum());
        let taken: Vec<Taken<'a>> = steps
            .into_par_iter()
            .rev()
            .enumerate()
            .map(|(nth, step)| self.take_step(step, pace, nth == 0, &held))
            .collect();
        let mut listings = Vec::with_capacity(taken.len());
        let (mut all, mut put) = (Vec::with_capacity(taken.len()), Vec::new());
        for one in taken {
            match one {
                Taken::Listed(listed) => {
                    listings.push(Arc::clone(&listed.listing));
                    all.push(listed);
                }
                Taken::Put(step) => put.push(step),
            }
        }
        self.stacked.add(put.iter().map(Step::bytes).sum());
        self.stack.extend(put.into_iter().rev());
        for listed in all.into_iter().rev() {
            self.push(listed);
        }
        self.stacked.trim();
        Some(Batch { listings, _held: held })
    }
}

/// What a listing takes.
fn bytes_of(listing: &Listing) -> usize {
    let of_entry = |entry: &Entry| {
        let target = if let EntryKind::Symlink { target } = &entry.kind { target.len() } else { 0 };
        size_of::<Entry>() + entry.name.as_bytes().len() + target
    };
    let of_failure = |failure: &EntryFailure| size_of::<EntryFailure>() + failure.name.as_bytes().len();
    size_of::<Listing>()
        + listing.dir.as_bytes().len()
        + listing.entries.iter().map(of_entry).sum::<usize>()
        + listing.failures.iter().map(of_failure).sum::<usize>()
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

fn path_of(name: &Name) -> RelPath {
    RelPath::new(name.as_bytes()).expect("a name is a path of one part")
}

mod examine;
#[cfg(test)]
mod tests;
