//! What a transfer tells the outside: counters that can be read at any time, and events as they come.
//!
//! Libraries do not print; the command line reads these. A failure is an event once and a count for
//! ever, so that memory does not grow with failures.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use fastcp_model::{RelPath, SpecialKind, Status};
use fastcp_net::WireCount;

use crate::budget::Limited;
use crate::difference::Difference;
use crate::lock::Lock;
use crate::processor::Ticks;
use crate::run_state::RunState;

mod item;
mod refusal;

pub use item::{Item, ItemKind};
pub use refusal::Refusal;

const RETRY_TOLD_EVERY: Duration = Duration::from_secs(1);

/// A number that many threads add to.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// The number now.
    pub fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Adds the time since `start`, in nanoseconds.
    pub(crate) fn add_since(&self, start: Instant) {
        self.add(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
}

/// What was done so far. All but the waits only grow.
#[derive(Debug, Default)]
pub struct Counters {
    /// Entries offered: files, directories, links and others.
    pub entries: Count,
    /// Regular files offered.
    pub files: Count,
    /// Bytes of all files offered.
    pub bytes_total: Count,
    /// Regular files that differ from what is there, or are missing there.
    pub files_wanted: Count,
    /// Their bytes.
    pub bytes_wanted: Count,
    /// Files whose new content is under its final name.
    pub files_committed: Count,
    /// Files that were there already.
    pub files_unchanged: Count,
    /// Entries that could not be brought over.
    pub files_failed: Count,
    /// Symbolic links made.
    pub links_made: Count,
    /// Directories made.
    pub dirs_made: Count,
    /// Entries that have their content already and whose attributes were changed, or in a dry run would be.
    pub attributes_changed: Count,
    /// Symbolic links that differ from what is there, or are missing there.
    pub links_wanted: Count,
    /// Directories that are missing.
    pub dirs_wanted: Count,
    /// Devices, pipes and sockets passed over.
    pub special_skipped: Count,
    /// Entries removed, or that a dry run would remove.
    pub deleted: Count,
    /// File bytes received and kept.
    pub bytes_fetched: Count,
    /// File bytes that needed no fetching though their file was incomplete or changed.
    pub bytes_reused: Count,
    /// Bytes of files that turned out unchanged.
    pub bytes_unchanged: Count,
    /// Files whose contents were compared and found equal.
    pub files_verified: Count,
    /// Bytes that were compared and found equal; in a copy, bytes of part files that were read back.
    pub bytes_verified: Count,
    /// Differences found; an entry may have several.
    pub differences: Count,
    /// Ranges fetched a second time because their checksum was wrong.
    pub chunks_refetched: Count,
    /// Data connections dialled again.
    pub reconnects: Count,
    /// Nanoseconds that connections waited for bytes.
    pub waited_network: Count,
    /// Nanoseconds that connections had nothing to ask for.
    pub waited_source: Count,
    /// Nanoseconds spent in the destination's file system.
    pub waited_destination: Count,
}

/// Why an entry could not be brought over.
#[derive(Debug)]
pub enum Cause {
    /// The sender said so.
    Source(Status),
    /// The destination's file system said so.
    Destination {
        /// What was tried.
        operation: &'static str,
        /// What came of it.
        source: io::Error,
    },
    /// Connections broke over it, one after another, while other files got through.
    Broken {
        /// How many.
        connections: u32,
    },
    /// The bytes do not have the sender's checksum.
    Checksum {
        /// The sender's.
        want: u32,
        /// Of what was written.
        got: u32,
    },
    /// A line of the manifest makes no sense.
    DamagedRecord {
        /// Counted from 1.
        line: u64,
    },
    /// A directory that is not empty stands where something else belongs.
    DirectoryInTheWay,
    /// Another file system is mounted where something would be deleted.
    MountPoint,
    /// The destination keeps backups under the name that the source has for something else.
    BackupDirectory,
    /// The source says that it is larger than any file that is copied.
    TooLarge {
        /// How large.
        size_bytes: u64,
    },
}

impl Cause {
    /// A short name that failures are counted under.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Source(Status::NotFound) => "vanished at the source",
            Self::Source(Status::Changed | Status::BadRange) => "changed at the source",
            Self::Source(Status::PermissionDenied) => "permission denied at the source",
            Self::Source(_) => "failed at the source",
            Self::Destination { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "permission denied at the destination"
            }
            Self::Destination { .. } => "failed at the destination",
            Self::Broken { .. } => "connections broke",
            Self::Checksum { .. } => "checksum mismatch",
            Self::DamagedRecord { .. } => "damaged record in the manifest",
            Self::DirectoryInTheWay => "directory in the way",
            Self::MountPoint => "mount point",
            Self::BackupDirectory => "backup directory",
            Self::TooLarge { .. } => "too large",
        }
    }

    /// Whether the source only moved on while it was copied: exit 24 rather than 23.
    pub fn is_moving_source(&self) -> bool {
        matches!(self, Self::Source(Status::NotFound | Status::Changed | Status::BadRange))
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Source(Status::NotFound) => f.write_str("vanished at the source"),
            Self::Source(Status::Changed | Status::BadRange) => {
                f.write_str("changed at the source while it was copied; run the command again")
            }
            Self::Source(status) => write!(f, "{status} (at the source)"),
            Self::Destination { operation, source } => write!(f, "{operation}: {source} (at the destination)"),
            Self::Broken { connections } => {
                write!(f, "{connections} connections broke while it was fetched; not tried again")
            }
            Self::Checksum { want, got } => write!(f, "CRC-32 mismatch (expected {want:08x}, got {got:08x})"),
            Self::DamagedRecord { line } => {
                write!(f, "line {line} of the manifest is invalid; its file was not verified")
            }
            Self::DirectoryInTheWay => f.write_str("a non-empty directory is in the way; move it or use --delete"),
            Self::BackupDirectory => {
                f.write_str("not copied: backups are kept there; choose another --backup-dir, or move it away")
            }
            Self::MountPoint => f.write_str("not deleted: it is a mount point"),
            Self::TooLarge { size_bytes } => {
                write!(f, "{size_bytes} bytes at the source; no file over 1 PiB is copied")
            }
        }
    }
}

/// Something worth telling as it happens.
#[derive(Debug)]
pub enum Event {
    /// An entry could not be brought over.
    Failed {
        /// Relative to the destination.
        path: RelPath,
        /// Why.
        cause: Cause,
    },
    /// An entry is not what it should be.
    Differs {
        /// Relative to the destination.
        path: RelPath,
        /// In which way.
        what: Difference,
    },
    /// A device, pipe or socket was passed over.
    Skipped {
        /// Relative to the destination.
        path: RelPath,
        /// What it is.
        kind: SpecialKind,
    },
    /// An entry changes, or would.
    Item(Item),
    /// Nothing is deleted, though deletion was asked for.
    NotDeleting(Refusal),
    /// What the system allows is less than was asked for.
    Limited(Limited),
    /// Nothing answers; trying again.
    Retrying {
        /// Who is waited for.
        address: String,
        /// What is the matter with them, in few words.
        reason: String,
        /// What went wrong.
        error: String,
        /// How long until the next attempt.
        wait: Duration,
        /// For how long there has been no progress.
        failing: Duration,
        /// How long it will be tried without any.
        left: Duration,
    },
}

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
    tally: Lock<BTreeMap<&'static str, u64>>,
    only_moving_source: AtomicBool,
    dry_run: AtomicBool,
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
            refusal: Lock::default(),
            difference_tally: Lock::default(),
            events: Lock::leaf(Some(events)),
        }
    }

    /// Whether the totals are final.
    pub fn is_scan_done(&self) -> bool {
        self.scan_done.load(Ordering::Relaxed)
    }

    /// Failures by cause.
    pub fn failures(&self) -> BTreeMap<&'static str, u64> {
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

    /// What held the transfer back: the processors where this machine had none idle, be it for this
    /// program or another, else whatever the connections waited for most.
    pub fn limited_by(&self) -> Limit {
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
        *self.tally.lock().entry(cause.kind()).or_insert(0) += 1;
        if !cause.is_moving_source() {
            self.only_moving_source.store(false, Ordering::Relaxed);
        }
        self.tell(Event::Failed { path, cause });
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
