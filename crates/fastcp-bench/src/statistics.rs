//! Middle and spread of a few times.
//!
//! Medians, because a machine shared with others spoils single rounds; the fastest and the slowest
//! beside them, because a median alone hides how much it was spoilt.

use serde::Serialize;

/// Middle and spread of at least one time, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) fastest: f64,
    pub(crate) slowest: f64,
}

impl Spread {
    /// `None` where there is no time.
    pub(crate) fn of(times: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut times: Vec<f64> = times.into_iter().collect();
        times.sort_by(f64::total_cmp);
        let (fastest, slowest) = (*times.first()?, *times.last()?);
        let upper = times.len() / 2;
        let lower = (times.len() - 1) / 2;
        Some(Self { median: f64::midpoint(times[lower], times[upper]), fastest, slowest })
    }
}

#[cfg(test)]
mod tests {
    use super::Spread;

    #[test]
    fn of_none_one_and_some() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([2.0]), Some(Spread { median: 2.0, fastest: 2.0, slowest: 2.0 }));
        assert_eq!(Spread::of([9.0, 1.0, 2.0]), Some(Spread { median: 2.0, fastest: 1.0, slowest: 9.0 }));
        assert_eq!(Spread::of([4.0, 1.0, 3.0, 2.0]), Some(Spread { median: 2.5, fastest: 1.0, slowest: 4.0 }));
    }
}
