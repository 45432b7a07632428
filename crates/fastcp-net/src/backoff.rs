//! How long to wait before dialling again.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(200);
/// The longest wait between two attempts.
pub const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Waits of `min(5 s, 200 ms * 2^k)`, each shortened at random by up to a quarter, so that many
/// connections that broke together do not all come back together.
#[derive(Debug, Default)]
pub struct Backoff {
    attempt: u32,
}

impl Backoff {
    /// The next wait.
    pub fn next_wait(&mut self) -> Duration {
        let wait = FIRST.saturating_mul(2u32.saturating_pow(self.attempt)).min(BACKOFF_MAX);
        self.attempt = self.attempt.saturating_add(1);
        let jitter = RandomState::new().hash_one(self.attempt) % 256;
        wait - wait.mul_f64(jitter as f64 / 1024.0)
    }

    /// Starts over, after an attempt that got somewhere.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::{BACKOFF_MAX, Backoff};

    #[test]
    fn waits_double_to_five_seconds() {
        let mut backoff = Backoff::default();
        for full_ms in [200, 400, 800, 1600, 3200, 5000, 5000] {
            let wait = backoff.next_wait().as_millis();
            assert!(wait <= full_ms && wait >= full_ms * 3 / 4, "{wait} ms for {full_ms} ms");
        }
        backoff.attempt = u32::MAX;
        assert!(backoff.next_wait() <= BACKOFF_MAX);
    }
}
