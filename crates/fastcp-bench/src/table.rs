//! The report as text: head lines, and a table for each workload and place.

use std::fmt::Write as _;

use crate::report::{Case, Failure, Report, Round, ToolRuns};
use crate::statistics::Spread;
use crate::workload::Scale;

const TOOL_WIDTH_MIN: usize = 11;

/// All of it. Writing to a string cannot fail.
pub(crate) fn text(report: &Report) -> String {
    let mut out = head(report);
    for case in &report.cases {
        out.push('\n');
        out += &case_table(case);
    }
    out + &commands(report)
}

/// Each command once, though cases share them.
fn commands(report: &Report) -> String {
    let runs = report.cases.iter().flat_map(|case| &case.tools);
    let mut lines: Vec<String> = Vec::new();
    for (tool, command) in runs.flat_map(|runs| runs.commands.iter().map(move |command| (&runs.tool, command))) {
        let line = format!("  {tool:TOOL_WIDTH_MIN$}  {command}\n");
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    if lines.is_empty() { String::new() } else { format!("\nCommands\n{}", lines.concat()) }
}

fn head(report: &Report) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "{}", report.machine.summary());
    let _ = writeln!(out, "{}", report.command);
    let _ = writeln!(
        out,
        "rounds: {}, the tools in turn; connections: {}; sources on tmpfs; on ext4, in an image on tmpfs, until synced",
        report.rounds, report.connections,
    );
    if report.scale == Scale::Short {
        let _ = writeln!(out, "short trees: these times say nothing");
    }
    for left_out in &report.left_out {
        let _ = writeln!(out, "{left_out}");
    }
    out
}

fn case_table(case: &Case) -> String {
    let mut out = String::new();
    let files = if case.tree.files == 1 { "file" } else { "files" };
    let _ = writeln!(
        out,
        "{} on {}: {} {files}, {:.1} MB",
        case.workload,
        case.place,
        case.tree.files,
        case.tree.bytes as f64 / 1e6,
    );
    let width = case.tools.iter().map(|runs| runs.tool.len()).fold(TOOL_WIDTH_MIN, usize::max);
    let link = if case.link_bits.is_some() { "  of link" } else { "" };
    let _ = writeln!(
        out,
        "  {:width$}  median s  fastest  slowest  x fastcp     MB/s{link}  wire MB  client cpu s  peak MB  server cpu s  peak MB",
        "tool",
    );
    let base = case.fastcp_median();
    for runs in &case.tools {
        let line = format!("  {:width$}{}", runs.tool, row(case, runs, base));
        let _ = writeln!(out, "{}", line.trim_end());
        if let Some(failure) = &runs.failure {
            let _ = writeln!(out, "  {:width$}  {}", "", told(failure));
        }
    }
    out += &lateness(case);
    out
}

/// Where the link itself was too slow, the times tell of this machine.
fn lateness(case: &Case) -> String {
    let rounds = case.tools.iter().flat_map(|runs| &runs.rounds);
    let (mut packets, mut late, mut late_max_ms) = (0, 0, 0.0_f64);
    for direction in rounds.filter_map(|round| round.link).flatten() {
        packets += direction.packets;
        late += direction.late;
        late_max_ms = late_max_ms.max(direction.late_max_ms);
    }
    let share = late as f64 * 100.0 / packets as f64;
    match packets {
        0 => String::new(),
        _ => format!("  {share:.2}% of all packets were late by more than 1 ms, the latest by {late_max_ms:.1} ms\n"),
    }
}

fn row(case: &Case, runs: &ToolRuns, base: Option<f64>) -> String {
    let Some(Spread { median, fastest, slowest }) = runs.spread() else { return String::new() };
    let ratio = base.map_or_else(dash, |base| format!("{:.2}", median / base));
    let bytes_per_s = case.tree.bytes as f64 / median;
    let rate = if case.is_copied { format!("{:.1}", bytes_per_s / 1e6) } else { dash() };
    let mut out = format!("  {median:8.3}  {fastest:7.3}  {slowest:7.3}  {ratio:>8}  {rate:>7}");
    if let Some(bits) = case.link_bits {
        let share = if case.is_copied { format!("{:.1}%", bytes_per_s * 800.0 / bits as f64) } else { dash() };
        let _ = write!(out, "  {share:>7}");
    }
    let wire = Spread::of(runs.rounds.iter().filter_map(|round| round.wire).map(|wire| wire.total() as f64 / 1e6));
    let client = |value: fn(&Round) -> f64| Spread::of(runs.rounds.iter().map(value));
    let median_of = |spread: Option<Spread>| spread.map_or_else(dash, |spread| format!("{:.2}", spread.median));
    let most_of = |spread: Option<Spread>| spread.map_or_else(dash, |spread| format!("{:.1}", spread.slowest));
    let server = |value: fn(crate::measure::Usage) -> f64| {
        Spread::of(runs.rounds.iter().filter_map(|round| round.server).map(value))
    };
    let _ = write!(
        out,
        "  {:>7}  {:>12}  {:>7}  {:>12}  {:>7}",
        median_of(wire),
        median_of(client(|round| round.client.processor_s)),
        most_of(client(|round| round.client.peak_bytes as f64 / 1e6)),
        median_of(server(|usage| usage.processor_s)),
        most_of(server(|usage| usage.peak_bytes as f64 / 1e6)),
    );
    out
}

fn dash() -> String {
    "-".to_owned()
}

/// Why there are no more rounds, for people.
pub(crate) fn told(failure: &Failure) -> String {
    match failure {
        Failure::OverTime { seconds } => format!("stopped after {seconds} s"),
        Failure::Wrong { error } => format!("FAILED: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::case_table;
    use crate::report::tests::{report, runs};
    use crate::wire_bytes::WireBytes;

    #[test]
    fn a_row_has_times_ratios_and_rates() {
        let report = report("link 50ms,500mbit,0%", vec![runs("fastcp", &[20.0]), runs("rsync", &[41.0, 40.0, 44.0])]);
        let table = case_table(&report.cases[0]);
        let row = table.lines().find(|line| line.starts_with("  rsync")).expect("a row");
        let columns: Vec<&str> = row.split_whitespace().collect();
        let expected = ["rsync", "41.000", "40.000", "44.000", "2.05", "24.4", "39.0%", "-", "0.50", "3.1", "-", "-"];
        assert_eq!(columns, expected);
    }

    #[test]
    fn what_went_over_the_wire_is_in_a_column() {
        let mut report = report("tmpfs", vec![runs("rsync", &[1.0, 2.0])]);
        report.cases[0].is_copied = false;
        for (round, received) in report.cases[0].tools[0].rounds.iter_mut().zip([9_000_000, 11_000_000]) {
            round.wire = Some(WireBytes { sent: 1_500_000, received });
        }
        let table = case_table(&report.cases[0]);
        let lines: Vec<&str> = table.lines().collect();
        let end = lines[1].find("wire MB").expect("a column") + "wire MB".len();
        assert!(lines[2][..end].ends_with("        -    11.50"), "{table}");
    }

    #[test]
    fn a_tool_that_failed_says_why() {
        let report = report("tmpfs", vec![runs("rsync", &[])]);
        assert!(case_table(&report.cases[0]).contains("FAILED: a < b & \"c\""));
    }
}
