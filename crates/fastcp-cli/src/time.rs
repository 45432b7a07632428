//! Times for people and programs: RFC 3339, in UTC.

use fastcp_model::Timestamp;

const SECONDS_PER_DAY: i64 = 86_400;

/// `2026-01-31 12:00:00Z`.
pub(crate) fn utc(time: Timestamp) -> String {
    let (days, seconds) = (time.secs().div_euclid(SECONDS_PER_DAY), time.secs().rem_euclid(SECONDS_PER_DAY));
    let (year, month, day) = date(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z")
}

/// 2000-01-01, counted from 1970-01-01: the calendar repeats itself from there on.
const YEAR_2000: i64 = 10_957;
const YEARS_OF_CYCLE: i64 = 400;
const DAYS_OF_CYCLE: i64 = 146_097;

/// The date of a day counted from 1970-01-01, in the Gregorian calendar.
fn date(days: i64) -> (i64, i64, i64) {
    let since = days - YEAR_2000;
    let (mut year, mut left) =
        (2000 + since.div_euclid(DAYS_OF_CYCLE) * YEARS_OF_CYCLE, since.rem_euclid(DAYS_OF_CYCLE));
    while left >= 365 + leap_days(year) {
        left -= 365 + leap_days(year);
        year += 1;
    }
    let mut month = 0;
    for length in [31, 28 + leap_days(year), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        month += 1;
        if left < length {
            break;
        }
        left -= length;
    }
    (year, month, left + 1)
}

fn leap_days(year: i64) -> i64 {
    i64::from(year % 4 == 0 && (year % 100 != 0 || year % 400 == 0))
}

#[cfg(test)]
mod tests {
    use fastcp_model::Timestamp;

    use super::utc;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00Z"),
            (-1, "1969-12-31 23:59:59Z"),
            (951_782_400, "2000-02-29 00:00:00Z"),
            (951_868_800, "2000-03-01 00:00:00Z"),
            (4_107_542_399, "2100-02-28 23:59:59Z"),
            (4_107_542_400, "2100-03-01 00:00:00Z"),
            (1_798_761_599, "2026-12-31 23:59:59Z"),
            (-62_135_596_800, "0001-01-01 00:00:00Z"),
        ] {
            assert_eq!(utc(Timestamp::new(seconds, 0).expect("lawful")), text);
        }
    }
}
