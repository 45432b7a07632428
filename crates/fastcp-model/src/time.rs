//! Points in time as file systems keep them.

/// Seconds and nanoseconds since 1970, before it with negative seconds. Nanoseconds are below 10^9.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    secs: i64,
    nanos: u32,
}

impl Timestamp {
    /// A timestamp, or `None` where `nanos` is 10^9 or more.
    pub fn new(secs: i64, nanos: u32) -> Option<Self> {
        (nanos < 1_000_000_000).then_some(Self { secs, nanos })
    }

    /// Whole seconds, rounded down.
    pub fn secs(self) -> i64 {
        self.secs
    }

    /// Nanoseconds within the second.
    pub fn nanos(self) -> u32 {
        self.nanos
    }

    /// Nanoseconds since 1970 as FTR1 carries them: two's complement, wrapping beyond the years 1677
    /// to 2262. Both ends compute it from the full timestamp, so equality still means equality for
    /// any two times less than 584 years apart.
    pub fn wire_ns(self) -> u64 {
        self.secs.cast_unsigned().wrapping_mul(1_000_000_000).wrapping_add(u64::from(self.nanos))
    }

    /// The timestamp that [`Timestamp::wire_ns`] of a time between 1677 and 2262 stands for.
    pub fn from_wire_ns(wire_ns: u64) -> Self {
        let signed = wire_ns.cast_signed();
        let nanos = signed.rem_euclid(1_000_000_000);
        Self { secs: signed.div_euclid(1_000_000_000), nanos: nanos as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::Timestamp;

    #[test]
    fn wire_form_round_trips_on_both_sides_of_1970() {
        for (secs, nanos) in [(0, 0), (1, 999_999_999), (-1, 1), (-2_000_000_000, 5), (4_000_000_000, 7)] {
            let time = Timestamp::new(secs, nanos).expect("lawful");
            assert_eq!(Timestamp::from_wire_ns(time.wire_ns()), time);
        }
        assert_eq!(Timestamp::new(0, 1_000_000_000), None);
    }
}
