//! The words of the schedule: what it is told when it is made, what connections say to it, and what it answers.

use crate::schedule::want::Want;

/// How much may wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Files that are queued; the planner pauses there.
    pub(crate) queued_max: usize,
    /// Files that have been searched for and wait to be fetched: each holds its part file open.
    pub(crate) prepared_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { queued_max: 16_384, prepared_max: 64 }
    }
}

/// How a connection came to its turn to work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    AtOnce,
    AfterRest,
}

/// What to do next.
#[derive(Debug)]
pub(crate) enum Next {
    /// Ask for what was added to the wants: several at a time where they can be asked for as one.
    Wants,
    /// Ask for nothing more until some answers are in.
    Enough,
    /// This connection is not needed for now.
    Rest,
    /// What is left is for the source that leads, which has no connection: this one is to be made anew, to it.
    Lead,
    /// Everything is done, or the run was stopped.
    Done,
}

/// Whether fetching waits for the last offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HoldBack {
    /// Fetching starts with the first offer.
    No,
    /// Fetching starts after the last one.
    UntilClosed,
}

/// Where a large file may be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// So finely that connections finish together.
    Evenly,
    /// At its chunks.
    AtChunks,
}

/// Whether small files of one directory are handed out together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bundling {
    Yes,
    No,
}

/// What a connection has in flight, and how fast it gets it.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Held {
    pub(crate) connection: usize,
    /// Which of several sources it leads to.
    pub(crate) source: usize,
    pub(crate) wants: usize,
    pub(crate) cost: u64,
    /// Cost for each second.
    pub(crate) rate: u64,
}

impl Held {
    pub(crate) fn add(&mut self, want: &Want) {
        self.wants += 1;
        self.cost += want.cost();
    }

    pub(crate) fn remove(&mut self, want: &Want) {
        self.wants -= 1;
        self.cost -= want.cost();
    }
}
