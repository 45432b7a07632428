//! What a connection through a tunnel knows of its way, of which the kernel knows nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// One tunnel, as its lanes see it.
#[derive(Debug, Default)]
pub(crate) struct Passage {
    /// Whether data had better go directly.
    has_better: AtomicBool,
    /// The shortest time in which the other end has answered, in microseconds; 0 before it has.
    round_trip: AtomicU64,
}

impl Passage {
    /// Says whether data had better go directly.
    pub(crate) fn set_better(&self, has_better: bool) {
        self.has_better.store(has_better, Ordering::Relaxed);
    }
}

/// A lane's part in it.
#[derive(Debug, Clone)]
pub(crate) struct Lane {
    passage: Arc<Passage>,
    is_for_data: bool,
}

impl Lane {
    /// One that is replaced once there is a better way.
    pub(crate) fn for_data(passage: Arc<Passage>) -> Self {
        Self { passage, is_for_data: true }
    }

    /// One that stays.
    pub(crate) fn that_stays(passage: Arc<Passage>) -> Self {
        Self { passage, is_for_data: false }
    }

    pub(super) fn is_worn(&self) -> bool {
        self.is_for_data && self.passage.has_better.load(Ordering::Relaxed)
    }

    pub(super) fn was_answered_in(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
        let shorter = |known: u64| (known == 0 || micros < known).then_some(micros);
        // Where another answer was quicker there is nothing to do.
        let _ = self.passage.round_trip.fetch_update(Ordering::Relaxed, Ordering::Relaxed, shorter);
    }

    pub(super) fn round_trip(&self) -> Duration {
        Duration::from_micros(self.passage.round_trip.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::{Lane, Passage};

    #[test]
    fn the_shortest_answer_counts_for_all_lanes() {
        let passage = Arc::new(Passage::default());
        let (control, data) = (Lane::that_stays(Arc::clone(&passage)), Lane::for_data(Arc::clone(&passage)));
        assert_eq!(data.round_trip(), Duration::ZERO);
        for (answered, known) in [(70, 70), (50, 50), (60, 50)] {
            control.was_answered_in(Duration::from_millis(answered));
            assert_eq!(data.round_trip(), Duration::from_millis(known));
        }
        passage.set_better(true);
        assert!(data.is_worn() && !control.is_worn());
    }
}
