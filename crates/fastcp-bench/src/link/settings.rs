//! What a link is like, typed as `50ms,500mbit,0.05%` or `50ms,500mbit,0.05%,20ms`.
//!
//! The fields are round trip, rate, loss and, if it is not the usual one, queue. What is printed is what
//! can be typed: the numbers of a benchmark name the link that they were measured over.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// How long a packet may wait for its turn where nobody says: what routers of long lines often allow.
pub const QUEUE_USUAL: Duration = Duration::from_millis(100);

/// The longest delay that is taken for meant.
const DURATION_MAX: Duration = Duration::from_secs(60);

/// The properties of a link; the same in both directions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinkSettings {
    /// The time of a small packet there and of its answer back.
    pub round_trip: Duration,
    /// Bits per second of IP packets, each direction; 0 is unlimited.
    pub rate_bits: u64,
    /// The share of packets lost by chance, each direction, from 0 to 1.
    pub loss: f64,
    /// How long a packet may queue at that rate before it is dropped; without meaning if unlimited.
    pub queue: Duration,
}

/// What is wrong with typed settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// Too few or too many fields.
    #[error("expected ROUND_TRIP,RATE,LOSS or ROUND_TRIP,RATE,LOSS,QUEUE, as in 50ms,500mbit,0.05%; got {0} fields")]
    Fields(usize),
    /// Not a time between 0 and a minute.
    #[error("not a time of at most a minute: {0:?}; expected as in 50ms, 250us or 1.5s")]
    Duration(String),
    /// Not a rate.
    #[error("not a rate: {0:?}; expected as in 500mbit, 2.5gbit, 64kbit or unlimited")]
    Rate(String),
    /// Not a share between 0 and 1.
    #[error("not a loss: {0:?}; expected as in 0.05% or 0")]
    Loss(String),
}

impl FromStr for LinkSettings {
    type Err = SettingsError;

    fn from_str(typed: &str) -> Result<Self, SettingsError> {
        let fields: Vec<&str> = typed.split(',').map(str::trim).collect();
        let (round_trip, rate, loss, queue) = match fields[..] {
            [round_trip, rate, loss] => (round_trip, rate, loss, None),
            [round_trip, rate, loss, queue] => (round_trip, rate, loss, Some(queue)),
            _ => return Err(SettingsError::Fields(fields.len())),
        };
        Ok(Self {
            round_trip: duration(round_trip).ok_or_else(|| SettingsError::Duration(round_trip.to_owned()))?,
            rate_bits: rate_bits(rate).ok_or_else(|| SettingsError::Rate(rate.to_owned()))?,
            loss: share(loss).ok_or_else(|| SettingsError::Loss(loss.to_owned()))?,
            queue: match queue {
                Some(queue) => duration(queue).ok_or_else(|| SettingsError::Duration(queue.to_owned()))?,
                None => QUEUE_USUAL,
            },
        })
    }
}

impl fmt::Display for LinkSettings {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}ms,", millis(self.round_trip))?;
        match self.rate_bits {
            0 => to.write_str("unlimited,")?,
            bits if bits % 1_000_000_000 == 0 => write!(to, "{}gbit,", bits / 1_000_000_000)?,
            bits if bits % 1_000_000 == 0 => write!(to, "{}mbit,", bits / 1_000_000)?,
            bits if bits % 1000 == 0 => write!(to, "{}kbit,", bits / 1000)?,
            bits => write!(to, "{bits}bit,")?,
        }
        // Rounded, because a share that was typed in percent is rarely exact in binary.
        write!(to, "{}%", (self.loss * 1e10).round() / 1e8)?;
        if self.queue != QUEUE_USUAL {
            write!(to, ",{}ms", millis(self.queue))?;
        }
        Ok(())
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1e6
}

/// A number that is not negative, and the unit behind it.
fn number_and_unit(typed: &str) -> Option<(f64, &str)> {
    let unit_at = typed.find(|symbol: char| !symbol.is_ascii_digit() && symbol != '.').unwrap_or(typed.len());
    let (number, unit) = typed.split_at(unit_at);
    Some((number.parse().ok()?, unit))
}

fn duration(typed: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(typed)?;
    let nanos = match unit {
        "us" => number * 1e3,
        "ms" => number * 1e6,
        "s" => number * 1e9,
        "" if number == 0.0 => 0.0,
        _ => return None,
    };
    let duration = Duration::from_nanos(nanos.round() as u64);
    (duration <= DURATION_MAX).then_some(duration)
}

fn rate_bits(typed: &str) -> Option<u64> {
    if typed == "unlimited" {
        return Some(0);
    }
    let (number, unit) = number_and_unit(typed)?;
    let bits = match unit {
        "bit" => number,
        "kbit" => number * 1e3,
        "mbit" => number * 1e6,
        "gbit" => number * 1e9,
        "" if number == 0.0 => return Some(0),
        _ => return None,
    };
    // Less than a bit would come out as unlimited.
    (bits >= 1.0).then_some(bits.round() as u64)
}

fn share(typed: &str) -> Option<f64> {
    let (number, unit) = number_and_unit(typed)?;
    let share = match unit {
        "%" => number / 100.0,
        "" if number == 0.0 => 0.0,
        _ => return None,
    };
    (share <= 1.0).then_some(share)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{LinkSettings, QUEUE_USUAL, SettingsError};

    fn parsed(typed: &str) -> LinkSettings {
        typed.parse().expect(typed)
    }

    #[test]
    fn all_fields_are_read() {
        let expected = LinkSettings {
            round_trip: Duration::from_millis(50),
            rate_bits: 500_000_000,
            loss: 0.0005,
            queue: Duration::from_millis(20),
        };
        assert_eq!(parsed("50ms,500mbit,0.05%,20ms"), expected);
        assert_eq!(parsed(" 50ms, 0.5gbit, 0.05%"), LinkSettings { queue: QUEUE_USUAL, ..expected });
    }

    #[test]
    fn nothing_may_be_typed_as_zero() {
        let nothing = LinkSettings { round_trip: Duration::ZERO, rate_bits: 0, loss: 0.0, queue: Duration::ZERO };
        assert_eq!(parsed("0,0,0,0"), nothing);
        assert_eq!(parsed("0ms,unlimited,0%,0s"), nothing);
    }

    #[test]
    fn what_is_printed_can_be_typed() {
        for (typed, printed) in [
            ("50ms,500mbit,0.05%", "50ms,500mbit,0.05%"),
            ("50ms,500mbit,0.05%,100ms", "50ms,500mbit,0.05%"),
            ("0.25s,2.5gbit,0,0", "250ms,2500mbit,0%,0ms"),
            ("150us,64kbit,0.07%,1.5ms", "0.15ms,64kbit,0.07%,1.5ms"),
            ("0,0,100%,1s", "0ms,unlimited,100%,1000ms"),
            ("1ms,1000gbit,33.3%", "1ms,1000gbit,33.3%"),
            ("1ms,1234567bit,0.0001%", "1ms,1234567bit,0.0001%"),
        ] {
            assert_eq!(parsed(typed).to_string(), printed);
            assert_eq!(parsed(printed), parsed(typed));
        }
    }

    #[test]
    fn the_field_that_is_wrong_is_named() {
        let refused = |typed: &str| typed.parse::<LinkSettings>().expect_err(typed);
        assert_eq!(refused("50ms"), SettingsError::Fields(1));
        assert_eq!(refused("50ms,1mbit,0,1ms,2ms"), SettingsError::Fields(5));
        for duration in ["", "50", "-1ms", "5m", "1e3ms", "61s", "1..5ms", "nans"] {
            assert_eq!(refused(&format!("{duration},1mbit,0")), SettingsError::Duration(duration.into()));
        }
        for rate in ["", "500", "500mb", "0.1bit", "-5mbit"] {
            assert_eq!(refused(&format!("1ms,{rate},0")), SettingsError::Rate(rate.into()));
        }
        for loss in ["", "0.05", "101%", "-1%", "%"] {
            assert_eq!(refused(&format!("1ms,1mbit,{loss}")), SettingsError::Loss(loss.into()));
        }
    }
}
