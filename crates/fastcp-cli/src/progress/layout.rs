//! The display as text: up to three lines that fit into any number of columns.
//!
//! Each line has forms from the longest to the shortest, and a bar that takes the room that is left. The
//! longest form that fits with a bar is taken, else the longest that fits without one.

use std::time::Duration;

use fastcp_model::Grouped;

/// Narrower bars say less than the number beside them.
const BAR_COLUMNS_MIN: usize = 8;
const BAR_COLUMNS_MAX: usize = 40;
const LABEL_COLUMNS: usize = 8;
const SPINNER: [char; 4] = ['|', '/', '-', '\\'];

/// What is shown.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct View {
    /// The line about entries; none where nothing is scanned.
    pub(super) scan: Option<Scan>,
    /// Whether the totals are final.
    pub(super) is_total_known: bool,
    /// The lines about bytes and files; none where nothing is fetched.
    pub(super) rows: Vec<Row>,
}

/// The line about entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scan {
    /// Found so far.
    pub(super) entries: u64,
    pub(super) is_done: bool,
    /// Counts the draws.
    pub(super) turn: usize,
}

/// A line of something that comes to an end.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) label: &'static str,
    pub(super) bytes: u64,
    pub(super) bytes_total: u64,
    pub(super) detail: Detail,
}

/// What a line tells beside its bytes.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Detail {
    /// How fast it is, and how long it will take.
    Speed { bytes_per_second: u64, left: Option<Duration> },
    /// How many files are done.
    Files { done: u64, total: u64 },
    /// The same, and nothing about bytes.
    FilesOnly { done: u64, total: u64 },
}

/// The lines, none of which has more than `columns` characters.
pub(super) fn lines(view: &View, columns: usize) -> Vec<String> {
    let scan = view.scan.iter().map(|scan| scan_line(scan, columns));
    scan.chain(view.rows.iter().map(|row| row_line(row, view.is_total_known, columns))).collect()
}

fn scan_line(scan: &Scan, columns: usize) -> String {
    let entries = Grouped(scan.entries).to_string();
    let forms = match scan.is_done {
        true => vec![format!("{entries} entries, complete"), format!("{entries} entries"), entries],
        false => {
            let spinner = SPINNER[scan.turn % SPINNER.len()];
            vec![format!("{entries} entries {spinner}"), format!("{entries} {spinner}"), entries]
        }
    };
    fit("scan", None, &forms, columns)
}

fn row_line(row: &Row, is_total_known: bool, columns: usize) -> String {
    let (done, total) = (size(row.bytes), size(row.bytes_total));
    let percent = percent(row.bytes, row.bytes_total);
    let amount = match (is_total_known, row.bytes_total) {
        (true, _) => format!("{done} of {total}"),
        (false, 0) => done.clone(),
        (false, _) => format!("{done} of {total} so far"),
    };
    let short = if is_total_known { format!("{percent:>3}%") } else { done };
    let forms = match &row.detail {
        Detail::Speed { bytes_per_second, left } => {
            let speed = format!("{}/s", size(*bytes_per_second));
            let mut forms = vec![format!("{amount}, {speed}"), format!("{short} {speed}"), short];
            if let Some(left) = left.filter(|_| is_total_known) {
                let left = clock(left);
                forms.insert(0, format!("{amount}, {speed}, {left} left"));
                forms.insert(2, format!("{}, {speed}, {left} left", forms[2].split(' ').next().unwrap_or_default()));
            }
            forms
        }
        Detail::Files { done, total } => {
            let files = format!("{} of {} files", Grouped(*done), Grouped(*total));
            vec![format!("{amount}, {files}"), files, short]
        }
        Detail::FilesOnly { done, total } => vec![format!("{} of {} files", Grouped(*done), Grouped(*total)), short],
    };
    let share = is_total_known.then(|| f64::from(percent) / 100.0);
    fit(row.label, share, &forms, columns)
}

/// The best of the forms, with a bar where there is a share to be shown and room.
fn fit(label: &str, share: Option<f64>, forms: &[String], columns: usize) -> String {
    if let Some(share) = share {
        for form in forms {
            // Two brackets and a space.
            let room = columns.saturating_sub(LABEL_COLUMNS + form.len() + 3);
            if room >= BAR_COLUMNS_MIN {
                return format!("{label:<LABEL_COLUMNS$}{} {form}", bar(share, room.min(BAR_COLUMNS_MAX)));
            }
        }
    }
    for form in forms {
        if LABEL_COLUMNS + form.len() <= columns {
            return format!("{label:<LABEL_COLUMNS$}{form}");
        }
    }
    let shortest = forms.last().map_or("", String::as_str);
    format!("{label} {shortest}").chars().take(columns).collect()
}

fn bar(share: f64, columns: usize) -> String {
    let full = (share * columns as f64) as usize;
    let head = if full < columns { ">" } else { "" };
    format!("[{:<columns$}]", "=".repeat(full) + head)
}

/// Rounded down: 100 means all.
fn percent(done: u64, total: u64) -> u32 {
    let percent = if total == 0 { 100 } else { u128::from(done) * 100 / u128::from(total) };
    percent.min(100) as u32
}

/// Three digits and a unit: 8 characters at most.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let (mut value, mut unit) = (bytes as f64 / 1024.0, 0);
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// `0:42`, `1:02:03`, or days.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, minutes, seconds) => format!("{minutes}:{seconds:02}"),
        (hours @ 1..100, minutes, seconds) => format!("{hours}:{minutes:02}:{seconds:02}"),
        (hours, ..) => format!("{} days", hours / 24),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Detail, Row, Scan, View, clock, lines, size};

    fn view(bytes: u64, total: u64, rate: u64, is_scan_done: bool) -> View {
        let left = (rate > 0).then(|| Duration::from_secs(total.saturating_sub(bytes) / rate.max(1)));
        let row = |label, detail| Row { label, bytes, bytes_total: total, detail };
        let rows = vec![
            row("fetch", Detail::Speed { bytes_per_second: rate, left }),
            row("verify", Detail::Files { done: bytes / 100, total: total / 100 }),
        ];
        let scan = Scan { entries: total, is_done: is_scan_done, turn: 1 };
        View { scan: Some(scan), is_total_known: is_scan_done, rows }
    }

    #[test]
    fn no_line_is_longer_than_the_terminal_is_wide() {
        let numbers = [0, 1, 999, 1000, 1023 << 10, 1_050_000_000, 1023 << 30, 999 << 40, u64::MAX];
        for columns in 1..=250 {
            for total in numbers {
                for done in numbers.into_iter().filter(|done| *done <= total) {
                    for rate in numbers {
                        for is_scan_done in [false, true] {
                            for line in lines(&view(done, total, rate, is_scan_done), columns) {
                                assert!(line.chars().count() <= columns, "{columns}: {line:?}");
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_fits_is_shown() {
        let view = view(300 << 30, 1 << 40, 1_200_000_000, true);
        assert_eq!(
            lines(&view, 79),
            [
                "scan    1,099,511,627,776 entries, complete",
                "fetch   [=======>                 ] 300 GiB of 1.00 TiB, 1.12 GiB/s, 10:47 left",
                "verify  [==>       ] 300 GiB of 1.00 TiB, 3,221,225,472 of 10,995,116,277 files",
            ]
        );
        assert_eq!(lines(&view, 39)[1], "fetch   [===>         ]  29% 1.12 GiB/s");
        assert_eq!(lines(&view, 19)[1], "fetch    29%");
        assert_eq!(lines(&view, 19)[0], "scan 1,099,511,627,");
        let unscanned = View { scan: None, rows: view.rows[..1].to_vec(), ..view };
        assert_eq!(lines(&unscanned, 19), ["fetch    29%"]);
    }

    #[test]
    fn numbers_have_three_digits() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "0.98 KiB"),
            (1 << 20, "1.00 MiB"),
            (10 << 20, "10.0 MiB"),
            (1023 << 20, "1.00 GiB"),
            (999 << 30, "999 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        let clocks = [42, 3723, 400_000].map(|seconds| clock(Duration::from_secs(seconds)));
        assert_eq!(clocks, ["0:42", "1:02:03", "4 days"]);
    }
}
