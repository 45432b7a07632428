//! Draws a report: a panel for each workload and place, in it a bar for each tool.
//!
//! A bar is the median, the line on it goes from the fastest round to the slowest. Each panel has
//! a scale of its own; a tool that took many times as long as fastcp is cut off, its time said
//! beside it. What shows a limit is drawn as an outline, and a dashed line goes through the panel
//! at the bare loop's median. The drawing brings its own background, light or dark as the reader
//! has it, so that it is readable on any page.

use crate::report::{Case, Failure, Report, ToolRuns};
use crate::statistics::Spread;
use crate::svg::Svg;

const COLUMNS: usize = 2;
const PANEL_WIDTH: f64 = 460.0;
const MARGIN: f64 = 20.0;
const HEAD_HEIGHT: f64 = 64.0;
const TITLE_HEIGHT: f64 = 28.0;
const ROW_HEIGHT: f64 = 20.0;
const BAR_HEIGHT: f64 = 13.0;
/// Of a tool's name: for each letter, and least.
const LETTER_WIDTH: f64 = 7.3;
const LABEL_WIDTH_MIN: f64 = 70.0;
/// To the right of the bars, for their times.
const TIMES_WIDTH: f64 = 136.0;
/// No panel shows more than so many times fastcp's median.
const CUT_AT: f64 = 6.0;

const STYLE: &str = "\
text { font: 12px system-ui, sans-serif; fill: #1f2328; }
.head { font-size: 15px; font-weight: 600; }
.title { font-size: 13px; font-weight: 600; }
.faint { fill: #59636e; }
.page { fill: #ffffff; }
.axis { stroke: #d1d9e0; }
.fastcp { fill: #1a7f5a; }
.other { fill: #8fa3b8; }
.limit { fill: none; stroke: #bc6c00; }
.bare { stroke: #bc6c00; stroke-dasharray: 3 3; }
.whisker { stroke: #1f2328; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; }
.faint { fill: #9198a1; }
.page { fill: #0d1117; }
.axis { stroke: #3d444d; }
.fastcp { fill: #2fa77b; }
.other { fill: #5b6f86; }
.limit { stroke: #e3a04f; }
.bare { stroke: #e3a04f; }
.whisker { stroke: #e6edf3; }
}";

/// The drawing of a report.
pub(crate) fn draw(report: &Report) -> String {
    let rows: Vec<&[Case]> = report.cases.chunks(COLUMNS).collect();
    let height = HEAD_HEIGHT + rows.iter().map(|row| row_height(row)).sum::<f64>() + MARGIN;
    let width = COLUMNS as f64 * (PANEL_WIDTH + MARGIN) + MARGIN;
    let mut svg = Svg::default();
    let view = format!("0 0 {width} {height}");
    svg.group("svg", &[("xmlns", &"http://www.w3.org/2000/svg"), ("viewBox", &view), ("width", &width)], |svg| {
        svg.text("style", &[], STYLE);
        svg.empty("rect", &[("class", &"page"), ("width", &width), ("height", &height), ("rx", &6)]);
        draw_head(svg, report);
        let mut top = HEAD_HEIGHT;
        for row in rows {
            for (column, case) in row.iter().enumerate() {
                let left = MARGIN + column as f64 * (PANEL_WIDTH + MARGIN);
                let shift = format!("translate({left} {top})");
                svg.group("g", &[("transform", &shift)], |svg| draw_case(svg, case));
            }
            top += row_height(row);
        }
    });
    svg.finish()
}

fn row_height(row: &[Case]) -> f64 {
    let tools = row.iter().map(|case| case.tools.len()).max().unwrap_or(0);
    TITLE_HEIGHT + tools as f64 * ROW_HEIGHT + MARGIN
}

fn draw_head(svg: &mut Svg, report: &Report) {
    let what = format!(
        "Seconds: median, fastest and slowest; rounds: {}; connections: {}",
        report.rounds, report.connections,
    );
    svg.text("text", &[("class", &"head"), ("x", &MARGIN), ("y", &28)], &what);
    svg.text("text", &[("class", &"faint"), ("x", &MARGIN), ("y", &48)], &report.machine.summary());
}

fn draw_case(svg: &mut Svg, case: &Case) {
    let files = if case.tree.files == 1 { "file" } else { "files" };
    let size = format!(" {} {files}, {:.0} MB", case.tree.files, case.tree.bytes as f64 / 1e6);
    svg.group("text", &[("y", &14)], |svg| {
        svg.text("tspan", &[("class", &"title")], &format!("{} on {}", case.workload, case.place));
        svg.text("tspan", &[("class", &"faint")], &size);
    });
    let scale = Scale::of(case);
    let bottom = TITLE_HEIGHT + case.tools.len() as f64 * ROW_HEIGHT;
    draw_upright(svg, "axis", scale.left, bottom);
    let bare = case.tools.iter().find(|runs| runs.tool == "bare").and_then(ToolRuns::spread);
    if let Some(bare) = bare {
        // Below the times, which it may cross.
        draw_upright(svg, "bare", scale.at(bare.median), bottom);
    }
    for (index, runs) in case.tools.iter().enumerate() {
        draw_runs(svg, runs, &scale, TITLE_HEIGHT + index as f64 * ROW_HEIGHT);
    }
}

fn draw_upright(svg: &mut Svg, class: &str, x: f64, bottom: f64) {
    svg.empty("line", &[("class", &class), ("x1", &x), ("x2", &x), ("y1", &(TITLE_HEIGHT - 4.0)), ("y2", &bottom)]);
}

/// Seconds to the distance from the panel's left.
struct Scale {
    seconds_max: f64,
    /// Where bars begin.
    left: f64,
}

impl Scale {
    fn of(case: &Case) -> Self {
        let slowest = case.tools.iter().filter_map(ToolRuns::spread).map(|spread| spread.slowest);
        let slowest = slowest.fold(f64::MIN_POSITIVE, f64::max);
        let cut = case.fastcp_median().map_or(f64::INFINITY, |median| median * CUT_AT);
        let letters = case.tools.iter().map(|runs| runs.tool.len()).max().unwrap_or(0);
        let left = (letters as f64 * LETTER_WIDTH).clamp(LABEL_WIDTH_MIN, PANEL_WIDTH / 2.0).round();
        Self { seconds_max: slowest.min(cut), left }
    }

    /// To a tenth of a pixel.
    fn at(&self, seconds: f64) -> f64 {
        let share = (seconds / self.seconds_max).min(1.0);
        let bars_width = PANEL_WIDTH - TIMES_WIDTH - self.left;
        ((self.left + share * bars_width) * 10.0).round() / 10.0
    }

    fn is_cut(&self, seconds: f64) -> bool {
        seconds > self.seconds_max
    }
}

fn draw_runs(svg: &mut Svg, runs: &ToolRuns, scale: &Scale, top: f64) {
    let middle = top + BAR_HEIGHT / 2.0;
    let baseline = middle + 4.0;
    let label = [("x", &(scale.left - 6.0) as &dyn std::fmt::Display), ("y", &baseline), ("text-anchor", &"end")];
    svg.text("text", &label, &runs.tool);
    let end = match runs.spread() {
        Some(spread) => draw_bar(svg, class_of(runs), &spread, scale, top),
        None => scale.left,
    };
    svg.text("text", &[("class", &"faint"), ("x", &(end + 6.0)), ("y", &baseline)], &times(runs));
}

/// Answers where it ends.
fn draw_bar(svg: &mut Svg, class: &str, spread: &Spread, scale: &Scale, top: f64) -> f64 {
    let middle = top + BAR_HEIGHT / 2.0;
    let (left, end) = (scale.at(spread.fastest), scale.at(spread.slowest));
    let width = scale.at(spread.median) - scale.left;
    svg.empty(
        "rect",
        &[("class", &class), ("x", &scale.left), ("y", &top), ("width", &width), ("height", &BAR_HEIGHT)],
    );
    if end > left {
        svg.empty("line", &[("class", &"whisker"), ("x1", &left), ("x2", &end), ("y1", &middle), ("y2", &middle)]);
    }
    if scale.is_cut(spread.median) {
        // Two strokes through the end: there is more of it.
        for x in [end - 9.0, end - 5.0] {
            let (from, to) = (top - 2.0, top + BAR_HEIGHT + 2.0);
            svg.empty("line", &[("class", &"whisker"), ("x1", &x), ("x2", &(x + 3.0)), ("y1", &to), ("y2", &from)]);
        }
    }
    end
}

fn class_of(runs: &ToolRuns) -> &'static str {
    match (runs.is_limit, runs.is_fastcp()) {
        (true, _) => "limit",
        (false, true) => "fastcp",
        (false, false) => "other",
    }
}

fn times(runs: &ToolRuns) -> String {
    let failed = match runs.failure {
        None => "",
        Some(Failure::OverTime { .. }) => "stopped",
        Some(Failure::Wrong { .. }) => "failed",
    };
    match runs.spread() {
        None => failed.to_owned(),
        Some(Spread { median, fastest, slowest }) if fastest < slowest => {
            format!("{} ({}\u{2013}{}) {failed}", short(median), short(fastest), short(slowest))
        }
        Some(only) => format!("{} {failed}", short(only.median)),
    }
}

/// Three digits or so.
fn short(seconds: f64) -> String {
    match seconds {
        ..1.0 => format!("{seconds:.3}"),
        1.0..10.0 => format!("{seconds:.2}"),
        10.0..100.0 => format!("{seconds:.1}"),
        _ => format!("{seconds:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::draw;
    use crate::report::tests::{report, runs};
    use crate::svg::assert_well_formed;

    #[test]
    fn every_report_is_drawn_well_formed() {
        let mut all =
            report("tmpfs", vec![runs("fastcp", &[1.0, 2.0, 3.0]), runs("rsync", &[90.0]), runs("bare", &[0.5])]);
        all.merge(report("a \"place\" <&>", vec![runs("cp", &[])]));
        all.merge(report("nothing", Vec::new()));
        let text = draw(&all);
        assert_well_formed(&text);
        assert!(text.contains("2.00 (1.00\u{2013}3.00)") && text.contains("&lt;&amp;&gt;") && text.contains("failed"));
        all.cases.clear();
        assert_well_formed(&draw(&all));
    }

    #[test]
    fn nothing_is_drawn_outside_its_panel() {
        let text = draw(&report("tmpfs", vec![runs("fastcp", &[1.0]), runs("rsync", &[1000.0])]));
        let widths = text.split("width=\"").skip(3).filter_map(|rest| rest.split('"').next()?.parse::<f64>().ok());
        assert!(
            widths.clone().count() == 2
                && widths.into_iter().all(|width| width <= super::PANEL_WIDTH - super::TIMES_WIDTH)
        );
    }
}
