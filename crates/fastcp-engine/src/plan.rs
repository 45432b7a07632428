//! From what is offered to what is wanted.
//!
//! Listings come parents first. Each batch is planned in two steps: directories are made in the order
//! of the offer, so that a child's place is there when its listing is looked at; then all files and
//! links are compared with what the destination has, in parallel. What differs is decided in `decide.rs`
//! and done in `act.rs`: links are made and attributes mended at once, files become wants. A dry run
//! plans in the same way and has nobody that acts. With `--delete`, what is found to be extraneous
//! (`extraneous.rs`) goes when the offer has ended (`deletion.rs`), and not before.
//!
//! May import: commit, schedule, link, target, filter.
//! Never asks for a byte of a file.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use fastcp_model::{Entry, EntryKind, Listing, ListingEnd, RelPath, Status};
use fastcp_sys::Root;
use fastcp_wire::offer::OfferBatch;
use rayon::prelude::*;

use crate::commit::transfer::Transfer;
use crate::error::RunError;
use crate::link::listing_order::{ListingOrder, OfferCount, broken_offer};
use crate::link::offer_sum::OfferSum;
use crate::plan::act::Actor;
use crate::plan::candidates::nameless_file;
use crate::plan::decide::{Decision, Ground, decide};
use crate::plan::entry::too_large;
use crate::plan::extraneous::{Displacing, Extraneous, MakeFile};
use crate::report::{Cause, Count, Refusal, Report};
use crate::schedule::job::FileJob;
use crate::settings::{Deletion, Itemize, ReceiverSettings, SetUid, SizeLimits};
use crate::target::backup_dirs::BackupDirs;
use crate::target::dirs::{Age, DirState};
use crate::target::kept_times::KeptTimes;
use crate::target::owners::{Owners, TooManyNames};
use crate::target::protection::{Protection, Protections};
use crate::target::reach::ends_everything;

pub(crate) mod act;
pub(crate) mod candidates;
pub(crate) mod decide;
pub(crate) mod deletion;
mod entry;
pub(crate) mod extraneous;
mod finish;
pub(crate) mod itemize;
pub(crate) mod removal;

/// The bits of a mode by which a file runs with the rights of its owner or group.
const SETUID_SETGID: u16 = 0o6000;

/// Plans a transfer, batch by batch.
pub(crate) struct Planner<'a> {
    /// `None` where a dry run finds no destination.
    root: Option<&'a Root>,
    root_age: Age,
    owners: &'a Owners,
    kept_times: &'a KeptTimes,
    report: &'a Report,
    itemize: Itemize,
    /// The most listings that are planned at a time.
    listings_max: usize,
    /// `None` in a dry run.
    actor: Option<Actor<'a>>,
    deletion: Option<Deletion>,
    setuid: SetUid,
    sizes: SizeLimits,
    /// `None` without deletion, and after it.
    extraneous: Option<Extraneous<'a>>,
    /// Where there is deletion.
    protections: Protections,
    /// Offered entries that the destination had already, be it as another kind.
    there_before: Count,
    /// The backup directories below the destination.
    backups: BackupDirs,
    /// An offer that was broken off comes once more.
    is_replay: bool,
    /// Whether the root's listing has begun: it is named by no other, and comes once.
    has_root: bool,
    /// Directories whose listing is not complete yet.
    awaited: HashMap<RelPath, Arc<DirState>>,
    order: ListingOrder,
    /// Of the offer that is coming, from its beginning.
    count: OfferCount,
    /// What was planned, where deletion hangs on it, and what an offer that comes once more has named: not the same
    /// where the source has changed since the one that was broken off.
    planned: OfferSum,
    offered: OfferSum,
}

/// What an offer is compared with, and by which rules.
pub(crate) struct Looking<'a> {
    /// The destination; `None` where it is to be made.
    pub(crate) root: Option<&'a Root>,
    /// The backup directories below it.
    pub(crate) backups: BackupDirs,
    pub(crate) owners: &'a Owners,
    pub(crate) kept_times: &'a KeptTimes,
    /// The path of the destination from the root of the file system.
    pub(crate) above: &'a [u8],
    /// The most listings that are planned at a time: each holds its directory open.
    pub(crate) listings_max: usize,
}

/// A listing and the open directory that it is about.
pub(crate) struct Placed {
    pub(crate) listing: Listing,
    pub(crate) state: Arc<DirState>,
    pub(crate) ground: Ground,
    /// What is kept of what is in it.
    pub(crate) protection: Protection,
}

/// What planning an entry leads to.
enum Planned {
    /// Nothing more.
    Settled,
    Fetch(FileJob),
    /// It waits until the directory in its place is gone.
    Displaces(Entry),
}

/// Whoever asked for deletion learns that there was none.
impl Drop for Planner<'_> {
    fn drop(&mut self) {
        if self.extraneous.is_some() {
            self.report.refuse(Refusal::CutShort);
        }
    }
}

impl<'a> Planner<'a> {
    pub(crate) fn new(transfer: &'a Transfer<'a>) -> Self {
        let destination = transfer.destination;
        let backup = destination.backup().and_then(|backup| backup.within());
        let looking = Looking {
            root: Some(&destination.root),
            backups: BackupDirs::of(Some(&destination.root), backup),
            owners: transfer.owners,
            kept_times: &destination.kept_times,
            above: &destination.above,
            listings_max: transfer.budget.listings,
        };
        let make_file: MakeFile<'a> = Box::new(|| {
            let dir = destination.state_dir().or_else(|_| destination.root.dir(&RelPath::root()))?;
            nameless_file(&dir)
        });
        let mut planner = Self::over(looking, transfer.report, transfer.settings, make_file);
        planner.root_age = destination.age;
        planner.actor = Some(Actor { transfer, source: 0 });
        planner
    }

    /// A planner that decides and does nothing.
    pub(crate) fn for_preview(looking: Looking<'a>, report: &'a Report, settings: &ReceiverSettings) -> Self {
        // Nothing is to change at the destination, so what does not fit in memory lies elsewhere.
        let make_file: MakeFile<'a> =
            Box::new(|| nameless_file(&Root::open(&std::env::temp_dir())?.dir(&RelPath::root())?));
        Self::over(looking, report, settings, make_file)
    }

    fn over(looking: Looking<'a>, report: &'a Report, settings: &ReceiverSettings, make_file: MakeFile<'a>) -> Self {
        let Looking { root, backups, owners, kept_times, above, listings_max } = looking;
        let rules = settings.deletion.map_or(&[][..], |_| &settings.filter);
        Self {
            root,
            root_age: if root.is_some() { Age::Old } else { Age::New },
            owners,
            kept_times,
            report,
            itemize: settings.itemize,
            listings_max,
            actor: None,
            deletion: settings.deletion,
            setuid: settings.setuid,
            sizes: settings.sizes,
            extraneous: settings.deletion.map(|_| Extraneous::new(root, backups.clone(), make_file)),
            protections: Protections::new(rules, above),
            there_before: Count::default(),
            backups,
            is_replay: false,
            has_root: false,
            awaited: HashMap::new(),
            order: ListingOrder::default(),
            count: OfferCount::default(),
            planned: OfferSum::default(),
            offered: OfferSum::default(),
        }
    }

    /// Plans one batch. Waits while the schedule is full.
    pub(crate) fn plan(&mut self, batch: OfferBatch) -> Result<(), RunError> {
        self.count.add(&batch);
        for owner in &batch.owners {
            self.owners.learn(owner).map_err(|TooManyNames| broken_offer("it names ever more owners"))?;
        }
        let mut listings = batch.listings.into_iter();
        while !listings.as_slice().is_empty() {
            // Each holds its directory open.
            if !self.plan_listings(listings.by_ref().take(self.listings_max))? {
                break;
            }
        }
        Ok(())
    }

    /// Plans some listings. `false` where the run was stopped.
    fn plan_listings(&mut self, listings: impl Iterator<Item = Listing>) -> Result<bool, RunError> {
        let mut placed = Vec::new();
        for listing in listings {
            if self.is_replay {
                self.offered.add(&listing);
            }
            if let Some(listing) = self.unplanned(listing) {
                if self.extraneous.is_some() {
                    self.planned.add(&listing);
                }
                placed.push(self.place(listing)?);
            }
        }
        self.look_for_extraneous(&placed)?;
        let planned: Vec<Vec<Planned>> =
            placed.par_iter().map(|placed| self.plan_entries(placed)).collect::<Result<_, _>>()?;
        for (placed, outcomes) in placed.into_iter().zip(planned) {
            self.report.counters.entries.add(placed.listing.entries.len() as u64);
            if !self.take_over(&placed.state, &placed.protection, outcomes) {
                return Ok(false);
            }
            if placed.listing.end != ListingEnd::More {
                self.release(&placed.state);
            }
        }
        Ok(true)
    }

    /// Whose offer is coming, of several sources.
    pub(crate) fn of_source(&mut self, source: usize) {
        if let Some(actor) = &mut self.actor {
            actor.source = source;
        }
    }

    /// The offer comes once more from its beginning: what is planned already is passed over.
    pub(crate) fn replay(&mut self) {
        self.is_replay = true;
        self.count = OfferCount::default();
        self.offered = OfferSum::default();
    }

    /// What of a listing has not been planned yet; `None` where that is nothing. Only after a break is there
    /// anything that has been.
    fn unplanned(&self, mut listing: Listing) -> Option<Listing> {
        if !self.is_replay {
            return Some(listing);
        }
        let is_first = listing.dir.is_root() && !self.has_root;
        if !is_first && !self.awaited.contains_key(&listing.dir) {
            return None;
        }
        if let Some(last) = self.order.last_of(&listing.dir) {
            listing.entries.retain(|entry| entry.name > *last);
            // One beyond it may have been told already; better twice than never.
            listing.failures.retain(|failure| failure.name > *last);
        }
        Some(listing)
    }

    /// The job for a file that had changed when it was fetched, as it is offered now; `None` where it has failed
    /// or is here already. The directory waits for it as before.
    pub(crate) fn plan_again(&self, job: &FileJob, mut entry: Entry) -> Result<Option<FileJob>, RunError> {
        // It was told when it was planned first.
        self.drop_setuid(&mut entry);
        let entry = &entry;
        if let Some(cause) = too_large(entry) {
            self.report.failed(job.path(), cause);
            self.release(&job.dir);
            return Ok(None);
        }
        let ground = self.open(&job.dir)?;
        let decided = decide(&ground, job.dir.age, entry, self.owners, self.kept_times).and_then(|decision| {
            match (&entry.kind, &decision, &self.actor, ground.dir()) {
                (EntryKind::File { .. }, Decision::Make(_) | Decision::Mend(_), Some(actor), Some(dir)) => {
                    actor.act(&job.dir, dir, entry, decision)
                }
                (EntryKind::File { .. }, Decision::Unchanged, ..) => Ok(None),
                _ => Err(io::Error::from_raw_os_error(nix::libc::ENOTEMPTY)),
            }
        });
        match decided {
            Ok(Some(again)) => return Ok(Some(again.again(job))),
            Ok(None) => {}
            Err(_) if !matches!(entry.kind, EntryKind::File { .. }) => {
                self.report.failed(job.path(), Cause::Source(Status::Changed));
            }
            Err(source) => self.fail(&job.path(), "cannot examine", source)?,
        }
        self.release(&job.dir);
        Ok(None)
    }

    /// Hands jobs to the schedule and keeps what has to wait. `false` where the run was stopped.
    fn take_over(&mut self, state: &Arc<DirState>, protection: &Protection, outcomes: Vec<Planned>) -> bool {
        let mut jobs = Vec::new();
        for outcome in outcomes {
            match (outcome, &mut self.extraneous) {
                (Planned::Fetch(job), _) => jobs.push(Arc::new(job)),
                (Planned::Displaces(entry), Some(extraneous)) => {
                    state.expect(1);
                    let (state, protection) = (Arc::clone(state), protection.clone());
                    extraneous.displacing.push(Displacing { state, protection, entry });
                }
                (Planned::Displaces(_) | Planned::Settled, _) => {}
            }
        }
        match &self.actor {
            Some(actor) if !jobs.is_empty() => {
                state.expect(jobs.len() as u64);
                actor.transfer.schedule.add(jobs)
            }
            _ => true,
        }
    }

    /// One thing less that a directory waits for. In a dry run nothing is finished.
    fn release(&self, state: &Arc<DirState>) {
        if let Some(actor) = &self.actor {
            actor.transfer.finisher().release(state);
        }
    }

    /// Finds the directory that a listing is about and makes those that it names.
    fn place(&mut self, mut listing: Listing) -> Result<Placed, RunError> {
        let state = self.state_of(&listing)?;
        for entry in &mut listing.entries {
            if self.drop_setuid(entry) {
                self.report.failed(listing.dir.join(&entry.name), Cause::SetUid);
            }
        }
        self.order.check(&listing)?;
        if listing.end != ListingEnd::More {
            // Whatever else comes of this directory, even in the same batch, comes too late.
            self.awaited.remove(&listing.dir);
        }
        if let ListingEnd::Broken(status) = listing.end {
            self.report.failed(listing.dir.clone(), Cause::Source(status));
        }
        for failure in &listing.failures {
            let path = listing.dir.join(&failure.name);
            self.report.failed(path, Cause::Source(failure.cause));
        }
        if matches!(listing.end, ListingEnd::Broken(_)) || !listing.failures.is_empty() {
            self.report.run.set_source_unread();
        }
        let ground = self.open(&state)?;
        let (protection, failure) = self.protections.of(&listing, self.root, ground.dir());
        if let Some(error) = failure {
            self.report.failed(state.path.clone(), Cause::FilterRules(error.to_string()));
        }
        for entry in &listing.entries {
            if entry.kind == EntryKind::Dir {
                self.place_dir(&state, &ground, entry)?;
            }
        }
        Ok(Placed { listing, state, ground, protection })
    }

    /// Takes the setuid and setgid bits off a file, where they are not to be kept; answers whether it had any.
    fn drop_setuid(&self, entry: &mut Entry) -> bool {
        let is_dropped = self.setuid == SetUid::Dropped
            && matches!(entry.kind, EntryKind::File { .. })
            && entry.metadata.mode & SETUID_SETGID != 0;
        if is_dropped {
            entry.metadata.mode &= !SETUID_SETGID;
        }
        is_dropped
    }

    fn state_of(&mut self, listing: &Listing) -> Result<Arc<DirState>, RunError> {
        if let Some(state) = self.awaited.get(&listing.dir) {
            return Ok(Arc::clone(state));
        }
        if !listing.dir.is_root() {
            return Err(broken_offer("it lists a directory that was not named"));
        }
        if std::mem::replace(&mut self.has_root, true) {
            return Err(broken_offer("it lists the root twice"));
        }
        if let Some(metadata) = &listing.root {
            self.report.counters.entries.add(1);
            self.look_at_root(metadata)?;
        }
        let state = DirState::new(RelPath::root(), self.root_age, None, listing.root);
        self.awaited.insert(RelPath::root(), Arc::clone(&state));
        Ok(state)
    }

    fn open(&self, state: &Arc<DirState>) -> Result<Ground, RunError> {
        let root = match (state.age, &self.actor, self.root) {
            (Age::Blocked, ..) => return Ok(Ground::Lost),
            (Age::New, None, _) | (_, _, None) => return Ok(Ground::ToBeMade),
            (_, _, Some(root)) => root,
        };
        match root.dir(&state.path) {
            Ok(dir) => Ok(Ground::Open(dir)),
            Err(source) => {
                self.fail(&state.path, "cannot open directory", source)?;
                Ok(Ground::Lost)
            }
        }
    }

    fn place_dir(&mut self, parent: &Arc<DirState>, ground: &Ground, entry: &Entry) -> Result<(), RunError> {
        let path = parent.path.join(&entry.name);
        let age = match self.plan_dir(parent, ground, entry, &path) {
            Ok(age) => age,
            Err(source) => {
                self.fail(&path, "cannot create directory", source)?;
                Age::Blocked
            }
        };
        parent.expect(1);
        let state = DirState::new(path.clone(), age, Some(Arc::clone(parent)), Some(entry.metadata));
        match self.awaited.insert(path, state) {
            None => Ok(()),
            Some(_) => Err(broken_offer("it names a directory twice")),
        }
    }

    /// One entry failed, or, where the failure concerns all of them, the run did.
    fn fail(&self, path: &RelPath, operation: &'static str, source: io::Error) -> Result<(), RunError> {
        if self.root.is_some_and(|root| ends_everything(root, path, &source)) {
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

#[cfg(test)]
mod tests;
