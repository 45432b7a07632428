//! Who is told of what: each change of the schedule's state wakes those whom it concerns, and nobody else.

use super::{Schedule, State};
use crate::lock::News;

/// What is waited for, each by its own kind of waiter.
#[derive(Debug, Default)]
pub(super) struct AllNews {
    /// Connections that owe nothing: there are wants.
    pub(super) work: News,
    /// Connections that rest: more of them are to work.
    pub(super) turn: News,
    /// The planner: the queue has room.
    pub(super) room: News,
    /// The reuse thread: there are files to search, or fewer that it has prepared.
    pub(super) reuse: News,
    /// The planner after the offer: nothing is left but files that changed.
    pub(super) settled: News,
    /// Those who only pass time: the run is over.
    pub(super) end: News,
}

impl AllNews {
    pub(super) fn tell_everybody(&self) {
        for news in [&self.work, &self.turn, &self.room, &self.reuse, &self.settled, &self.end] {
            news.tell_all();
        }
    }
}

impl Schedule {
    /// Files were added: of some the bytes are wanted, others are searched for first.
    pub(super) fn tell_of_files(&self, state: &State) {
        if !state.to_reuse.is_empty() {
            self.news.reuse.tell_all();
        }
        self.tell_of_wants(state);
        self.tell_if_settled(state);
    }

    pub(super) fn tell_of_wants(&self, state: &State) {
        let files = if state.held_back { 0 } else { state.files.len() };
        if state.has_others {
            // Not everybody may take all of them.
            return self.news.work.tell_all();
        }
        self.news.work.tell(state.urgent.len() + files);
    }

    /// Files may have left the queue since so many were prepared.
    pub(super) fn tell_of_taken(&self, state: &State, prepared: usize) {
        if prepared >= self.bounds.prepared_max && state.prepared < self.bounds.prepared_max {
            self.news.reuse.tell_all();
        }
        self.tell_of_room(state);
    }

    /// The planner comes back to some room, not to a single place.
    pub(super) fn tell_of_room(&self, state: &State) {
        let queued_max = self.bounds.queued_max;
        if self.news.room.is_awaited() && state.queued() < queued_max - queued_max / 8 {
            self.news.room.tell_all();
        }
    }

    pub(super) fn tell_if_settled(&self, state: &State) {
        if state.closed && state.is_settled() {
            self.news.tell_everybody();
        } else if self.news.settled.is_awaited() && state.is_settled() {
            self.news.settled.tell_all();
        }
    }
}
