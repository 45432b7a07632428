//! Ranges that break connections.
//!
//! Connections break for many reasons, and whatever is owed is asked for again. But a range that breaks them again
//! and again, while others get through, is at fault itself: a request that ends the sender's thread, a body that
//! something on the way does not let pass. Such a range fails its file, or it would be dialled for without end. To
//! tell which range it is, one that may be to blame is asked for by itself, with nothing behind it: an answer before
//! it could be lost with it.

use std::time::Instant;

/// A range fails its file when it has broken this many connections. One may be chance, two a server that was
/// restarted twice.
pub(crate) const BREAKS_MAX: u32 = 3;

/// Connections that broke over one range, one after another.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Breaks {
    count: u32,
    last: Option<Instant>,
}

impl Breaks {
    /// One more, that was dialled `since`. What ends a server ends many connections at a time, and what was owed goes
    /// from one of them to the next: only one that was dialled after the last break says something new.
    pub(crate) fn add(&mut self, since: Instant) {
        if self.last.is_none_or(|last| last < since) {
            self.count += 1;
            self.last = Some(Instant::now());
        }
    }

    /// Whether it may be to blame: then it is asked for alone.
    pub(crate) fn is_suspect(&self) -> bool {
        self.count > 0
    }

    /// Whether it is to blame.
    pub(crate) fn are_too_many(&self) -> bool {
        self.count >= BREAKS_MAX
    }
}
