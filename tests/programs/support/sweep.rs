//! How far a sweep goes, and the numbers that it draws.

use std::io::Write;

/// `FASTCP_LONG_TESTS=1` asks for long sweeps.
pub(crate) fn is_long() -> bool {
    std::env::var_os("FASTCP_LONG_TESTS").is_some_and(|value| value == "1")
}

/// Numbers that can be drawn again: `FASTCP_SEED` repeats a sweep.
#[derive(Debug)]
pub(crate) struct Draw {
    state: u64,
}

impl Draw {
    /// A new sequence, or the one that was asked for. Says which.
    pub(crate) fn new() -> Self {
        let asked = std::env::var("FASTCP_SEED").ok().map(|text| text.parse().expect("FASTCP_SEED is a number"));
        let seed = asked.unwrap_or_else(|| u64::from(std::process::id()) ^ fresh());
        let _ = writeln!(std::io::stderr(), "FASTCP_SEED={seed} repeats this sweep");
        Self { state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1 }
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 11) % end.max(1)
    }

    /// Of two things that are as likely, whether it is the first.
    pub(crate) fn is_heads(&mut self) -> bool {
        self.below(2) == 0
    }
}

/// Another number in every run.
fn fresh() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish() >> 32
}
