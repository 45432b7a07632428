//! Whether this machine's processors have time to spare.
//!
//! A thread that waits for a processor looks to its own clock like one that waits for the network. Only
//! the machine as a whole can tell the two apart: where no processor is idle, work is what things cost.

/// With less of its time idle than this, the machine is busy.
const IDLE_SHARE_MIN: f64 = 0.15;

/// Processor time since the machine started, in the kernel's ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticks {
    idle: u64,
    total: u64,
}

impl Ticks {
    /// Asks the kernel; `None` where it does not say.
    pub(crate) fn now() -> Option<Self> {
        std::fs::read_to_string("/proc/stat").ok().and_then(|text| Self::parse(&text))
    }

    /// Whether all processors were busy, or nearly so, from `before` to now.
    pub(crate) fn were_busy_since(self, before: Self) -> bool {
        self.idle_share_since(before) < IDLE_SHARE_MIN
    }

    /// The first line of `/proc/stat`, as proc_stat(5) describes it: `cpu user nice system idle iowait ...`.
    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().next()?.strip_prefix("cpu ")?;
        let fields: Vec<u64> = line.split_whitespace().map_while(|field| field.parse().ok()).collect();
        // The eighth is the last: guests' time is part of `user` already.
        let total = fields.iter().take(8).sum();
        Some(Self { idle: fields.get(3)? + fields.get(4)?, total })
    }

    fn idle_share_since(self, before: Self) -> f64 {
        let total = self.total.saturating_sub(before.total).max(1);
        self.idle.saturating_sub(before.idle) as f64 / total as f64
    }
}

#[cfg(test)]
mod tests {
    use super::Ticks;

    #[test]
    fn idle_is_idle_and_waiting_for_a_disk() {
        let before = Ticks::parse("cpu  100 0 50 200 50 0 0 0 7 0\ncpu0 1 2 3\n").expect("lawful");
        assert_eq!(before, Ticks { idle: 250, total: 400 });
        let after = Ticks::parse("cpu  180 0 60 205 55 0 0 0 9 0\n").expect("lawful");
        assert!((after.idle_share_since(before) - 0.1).abs() < 1e-9);
        assert_eq!(Ticks::parse("cpu0 1 2 3 4 5"), None);
        assert_eq!(Ticks::parse(""), None);
    }
}
