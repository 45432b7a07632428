//! What has become of a run, for what is decided by it.
//!
//! The counters of a report are for people and may be off for a moment; whether something is deleted, removed or
//! given up is decided by this and never by them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

#[derive(Debug, Default)]
pub(crate) struct RunState {
    root_finished: AtomicBool,
    source_unread: AtomicBool,
    selected: AtomicBool,
    failed: AtomicBool,
    proven: AtomicU64,
}

impl RunState {
    /// The root of the tree waits for nothing any more, and so nothing below it does.
    pub(crate) fn set_root_finished(&self) {
        self.root_finished.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_root_finished(&self) -> bool {
        self.root_finished.load(Ordering::Relaxed)
    }

    /// Something at the source could not be read: what is missing from the offer may exist.
    pub(crate) fn set_source_unread(&self) {
        self.source_unread.store(true, Ordering::Relaxed);
    }

    /// Whether everything at the source could be read so far.
    pub(crate) fn is_source_read(&self) -> bool {
        !self.source_unread.load(Ordering::Relaxed)
    }

    /// Of the root of what was asked for, only some entries were offered: others may be there.
    pub(crate) fn set_selected(&self) {
        self.selected.store(true, Ordering::Relaxed);
    }

    /// Whether all that could be at the root was offered.
    pub(crate) fn is_whole(&self) -> bool {
        !self.selected.load(Ordering::Relaxed)
    }

    /// An entry could not be brought over.
    pub(crate) fn set_failed(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }

    /// Whether any entry could not be brought over.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// A range has come and is what the sender has.
    pub(crate) fn add_proven(&self) {
        self.proven.fetch_add(1, Ordering::Relaxed);
    }

    /// How many have, over all connections.
    pub(crate) fn proven(&self) -> u64 {
        self.proven.load(Ordering::Relaxed)
    }
}
