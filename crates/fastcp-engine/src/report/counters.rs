//! Numbers that a report has at any time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

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

    /// Takes over what another has counted.
    pub(crate) fn set(&self, now: u64) {
        self.0.store(now, Ordering::Relaxed);
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

impl Counters {
    /// Each of them, in the order that both ends of a push know.
    pub(crate) fn each(&self) -> [&Count; 26] {
        [
            &self.entries,
            &self.files,
            &self.bytes_total,
            &self.files_wanted,
            &self.bytes_wanted,
            &self.files_committed,
            &self.files_unchanged,
            &self.files_failed,
            &self.links_made,
            &self.dirs_made,
            &self.attributes_changed,
            &self.links_wanted,
            &self.dirs_wanted,
            &self.special_skipped,
            &self.deleted,
            &self.bytes_fetched,
            &self.bytes_reused,
            &self.bytes_unchanged,
            &self.files_verified,
            &self.bytes_verified,
            &self.differences,
            &self.chunks_refetched,
            &self.reconnects,
            &self.waited_network,
            &self.waited_source,
            &self.waited_destination,
        ]
    }

    /// What is done once, by whichever receiver: it adds up.
    pub(crate) fn done(&self) -> [&Count; 7] {
        [
            &self.files_committed,
            &self.links_made,
            &self.dirs_made,
            &self.attributes_changed,
            &self.deleted,
            &self.bytes_fetched,
            &self.chunks_refetched,
        ]
    }
}
