//! What a transfer tells the outside: counters that can be read at any time, and events as they come.
//!
//! Libraries do not print; the command line reads these. A failure is an event once and a count for
//! ever, so that memory does not grow with failures.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use fastcp_model::RelPath;
use fastcp_net::WireCount;

use crate::difference::Difference;
use crate::lock::Lock;
use crate::processor::Ticks;
use crate::run_state::RunState;

mod cause;
mod counters;
mod event;
mod item;
mod refusal;
mod told;

pub use cause::Cause;
pub use counters::{Count, Counters};
pub use event::Event;
pub use item::{Item, ItemKind};
pub use refusal::Refusal;
pub(crate) use told::told;

/// Kinds of failures that are counted apart.
const KINDS_MAX: usize = 64;
const RETRY_TOLD_EVERY: Duration = Duration::from_secs(1);

/// What held a transfer back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Bytes took their time to arrive.
    Network,
    /// There was nothing to ask for: the scan or the planning was behind.
    Source,
    /// The destination's file system.
    Destination,
    /// The processor.
    Cpu,
}

impl Limit {
    /// Its name in the summary.
    pub fn name(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Source => "source",
            Self::Destination => "destination",
            Self::Cpu => "cpu",
        }
    }
}

/// What one of several sources has done.
#[derive(Debug)]
pub struct SourceReport {
    /// What people call it.
    pub name: String,
    /// Its bytes.
    pub wire: Arc<WireCount>,
    /// Connections to it that broke.
    pub breaks: Count,
    /// Files that it has otherwise than the source that leads, and that others were asked for.
    pub barred: Count,
}

/// The shared report of one transfer.
#[derive(Debug)]
pub struct Report {
    /// What was done so far.
    pub counters: Counters,
    /// Bytes on the wire.
    pub wire: Arc<WireCount>,
    /// What decides, and is not shown.
    pub(crate) run: RunState,
    /// The machine's processor time when the transfer began.
    begun: Option<Ticks>,
    scan_done: AtomicBool,
    retry_told: Lock<Option<Instant>>,
    tally: Lock<BTreeMap<String, u64>>,
    only_moving_source: AtomicBool,
    dry_run: AtomicBool,
    told_limit: Lock<Option<Limit>>,
    reconnected_here: Count,
    /// The counters of receivers elsewhere that were lost.
    before: Lock<Vec<u64>>,
    sources: Lock<Vec<Arc<SourceReport>>>,
    refusal: Lock<Option<Refusal>>,
    difference_tally: Lock<BTreeMap<Difference, u64>>,
    events: Lock<Option<SyncSender<Event>>>,
}

impl Report {
    /// A report that sends its events to `events`. Where that is full, the run waits for the reader: events
    /// may be as many as there are entries, and none is lost.
    pub fn new(events: SyncSender<Event>) -> Self {
        Self {
            counters: Counters::default(),
            wire: Arc::default(),
            begun: Ticks::now(),
            scan_done: AtomicBool::new(false),
            run: RunState::default(),
            retry_told: Lock::default(),
            tally: Lock::default(),
            only_moving_source: AtomicBool::new(true),
            dry_run: AtomicBool::new(false),
            told_limit: Lock::default(),
            reconnected_here: Count::default(),
            before: Lock::default(),
            sources: Lock::default(),
            refusal: Lock::default(),
            difference_tally: Lock::default(),
            events: Lock::leaf(Some(events)),
        }
    }

    /// Whether the totals are final.
    pub fn is_scan_done(&self) -> bool {
        self.scan_done.load(Ordering::Relaxed)
    }

    /// One more of several sources, of which is told apart from the others. Answers the count of its bytes.
    pub fn add_source(&self, name: String) -> Arc<WireCount> {
        let wire = WireCount::part_of(&self.wire);
        let (breaks, barred) = (Count::default(), Count::default());
        self.sources.lock().push(Arc::new(SourceReport { name, wire: Arc::clone(&wire), breaks, barred }));
        wire
    }

    /// What there is to be said of each of several sources; nothing where there is one.
    pub fn sources(&self) -> Vec<Arc<SourceReport>> {
        self.sources.lock().clone()
    }

    /// A connection to the source with this number has broken.
    pub(crate) fn broke(&self, number: usize) {
        self.sources.lock().get(number).inspect(|source| source.breaks.add(1));
    }

    /// The source with this number is not asked for a file any more.
    pub(crate) fn barred(&self, number: usize) {
        self.sources.lock().get(number).inspect(|source| source.barred.add(1));
    }

    /// Failures by cause.
    pub fn failures(&self) -> BTreeMap<String, u64> {
        self.tally.lock().clone()
    }

    /// Differences by kind.
    pub fn differences(&self) -> BTreeMap<Difference, u64> {
        self.difference_tally.lock().clone()
    }

    /// Whether all failures are of a source that moved on meanwhile.
    pub fn is_only_moving_source(&self) -> bool {
        self.only_moving_source.load(Ordering::Relaxed)
    }

    /// Whether nothing is changed and the counters say what would be.
    pub fn is_dry_run(&self) -> bool {
        self.dry_run.load(Ordering::Relaxed)
    }

    pub(crate) fn set_dry_run(&self) {
        self.dry_run.store(true, Ordering::Relaxed);
    }

    /// Why nothing was deleted, where deletion was asked for and refused.
    pub fn refusal(&self) -> Option<Refusal> {
        *self.refusal.lock()
    }

    /// Nothing will be deleted.
    pub(crate) fn refuse(&self, refusal: Refusal) {
        *self.refusal.lock() = Some(refusal);
        self.tell(Event::NotDeleting(refusal));
    }

    /// What a receiver elsewhere says that held it back.
    pub(crate) fn set_limit(&self, limit: Limit) {
        *self.told_limit.lock() = Some(limit);
    }

    /// What held the transfer back: the processors where this machine had none idle, be it for this
    /// program or another, else whatever the connections waited for most.
    pub fn limited_by(&self) -> Limit {
        if let Some(limit) = *self.told_limit.lock() {
            return limit;
        }
        if let (Some(before), Some(now)) = (self.begun, Ticks::now())
            && now.were_busy_since(before)
        {
            return Limit::Cpu;
        }
        let waits = &self.counters;
        [
            (waits.waited_network.now(), Limit::Network),
            (waits.waited_source.now(), Limit::Source),
            (waits.waited_destination.now(), Limit::Destination),
        ]
        .into_iter()
        .max_by_key(|(waited, _)| *waited)
        .map_or(Limit::Network, |(_, limit)| limit)
    }

    pub(crate) fn set_scan_done(&self) {
        self.scan_done.store(true, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self, path: RelPath, cause: Cause) {
        self.run.set_failed();
        self.counters.files_failed.add(1);
        self.note_failure(&cause);
        self.tell(Event::Failed { path, cause });
    }

    fn note_failure(&self, cause: &Cause) {
        let mut tally = self.tally.lock();
        // A receiver elsewhere names the kinds of its own failures.
        let is_known = tally.len() < KINDS_MAX || tally.contains_key(cause.kind());
        *tally.entry(if is_known { cause.kind() } else { "others" }.to_owned()).or_insert(0) += 1;
        drop(tally);
        if !cause.is_moving_source() {
            self.only_moving_source.store(false, Ordering::Relaxed);
        }
    }

    pub(crate) fn differs(&self, path: RelPath, what: Difference) {
        self.counters.differences.add(1);
        *self.difference_tally.lock().entry(what).or_insert(0) += 1;
        self.tell(Event::Differs { path, what });
    }

    /// Connections that break together need not all say so: `true` for one in a while.
    pub(crate) fn may_tell_retry(&self) -> bool {
        let mut told = self.retry_told.lock();
        let may = told.is_none_or(|told| told.elapsed() >= RETRY_TOLD_EVERY);
        if may {
            *told = Some(Instant::now());
        }
        may
    }

    /// A connection to a receiver elsewhere was lost, and is made anew: he does not know of it.
    pub(crate) fn reconnected(&self) {
        self.reconnected_here.add(1);
        self.counters.reconnects.add(1);
    }

    /// Another receiver elsewhere does what the one before has left: what that one has done counts, and what it could not do
    /// is tried again.
    pub(crate) fn begin_again(&self) {
        *self.before.lock() = self.counters.each().map(Count::now).to_vec();
        self.tally.lock().clear();
        self.only_moving_source.store(true, Ordering::Relaxed);
    }

    /// Nobody listening any more is no reason to stop.
    pub(crate) fn tell(&self, event: Event) {
        if let Some(events) = &*self.events.lock() {
            drop(events.send(event));
        }
    }

    /// Ends the stream of events: whoever reads them gets to its end.
    pub fn close(&self) {
        *self.events.lock() = None;
    }
}
