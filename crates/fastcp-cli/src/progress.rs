//! Progress while a run lasts: bars on a terminal, lines every few seconds elsewhere.
//!
//! A thread of its own looks at the counters five times a second; nothing on the path of the bytes
//! knows of it. Scan, fetch and verify have a line each. No bar has an end before the scan has one,
//! and no count ever goes down, so nothing runs backwards.

use std::io::{IsTerminal, stderr};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use fastcp_engine::{Event, Report};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::output::{Format, Output, complain, size};

const TICK: Duration = Duration::from_millis(200);
const LINE_EVERY: Duration = Duration::from_secs(5);
const JSON_EVERY: Duration = Duration::from_secs(1);

/// Events printed together: the bars are drawn again once for all of them.
const EVENTS_TOGETHER_MAX: usize = 256;

/// Shows events and progress until the senders of `events` are gone.
pub(crate) fn show(report: &Report, events: &Receiver<Event>, output: &Output, course: Course) {
    let mut display = Display::new(output, course);
    let mut next_tick = Instant::now() + TICK;
    loop {
        match events.recv_timeout(next_tick.saturating_duration_since(Instant::now())) {
            Ok(event) => display.print(event, events),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        // However many events there are, progress is shown between them.
        if Instant::now() >= next_tick {
            display.tick(report);
            next_tick = Instant::now() + TICK;
        }
    }
    display.clear();
}

/// What a run does with files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Course {
    /// It brings them over.
    Copy,
    /// It compares them.
    Verify,
}

impl Course {
    /// What it does with bytes, in one word.
    pub(crate) fn phase(self) -> &'static str {
        match self {
            Self::Copy => "fetch",
            Self::Verify => "verify",
        }
    }

    fn done_word(self) -> &'static str {
        match self {
            Self::Copy => "fetched",
            Self::Verify => "verified",
        }
    }

    fn bytes_done(self, report: &Report) -> u64 {
        match self {
            Self::Copy => report.counters.bytes_fetched.now(),
            Self::Verify => report.counters.bytes_verified.now(),
        }
    }
}

struct Display<'a> {
    output: &'a Output,
    course: Course,
    kind: Kind,
}

enum Kind {
    Bars(Bars),
    Lines { every: Duration, last: Instant, start: Instant },
    Nothing,
}

impl<'a> Display<'a> {
    fn new(output: &'a Output, course: Course) -> Self {
        let now = Instant::now();
        let kind = match output.format {
            Format::Quiet => Kind::Nothing,
            Format::Json => Kind::Lines { every: JSON_EVERY, last: now, start: now },
            Format::Text if stderr().is_terminal() => Kind::Bars(Bars::new(course)),
            Format::Text => Kind::Lines { every: LINE_EVERY, last: now, start: now },
        };
        Self { output, course, kind }
    }

    fn tick(&mut self, report: &Report) {
        match &mut self.kind {
            Kind::Bars(bars) => bars.tick(report),
            Kind::Lines { every, last, start } if last.elapsed() >= *every => {
                *last = Instant::now();
                match self.output.format {
                    Format::Json => self.output.progress(report, self.course),
                    Format::Text | Format::Quiet => complain(&line_of(report, start.elapsed(), self.course)),
                }
            }
            Kind::Lines { .. } | Kind::Nothing => {}
        }
    }

    /// Prints an event and those that wait behind it without breaking the bars.
    fn print(&self, first: Event, events: &Receiver<Event>) {
        let print = || {
            let more = events.try_iter().take(EVENTS_TOGETHER_MAX - 1);
            std::iter::once(first).chain(more).for_each(|event| self.output.event(&event));
        };
        match &self.kind {
            Kind::Bars(bars) => bars.all.suspend(print),
            Kind::Lines { .. } | Kind::Nothing => print(),
        }
    }

    fn clear(&self) {
        if let Kind::Bars(bars) = &self.kind {
            // A terminal that is gone needs no clearing.
            let _ = bars.all.clear();
        }
    }
}

fn line_of(report: &Report, elapsed: Duration, course: Course) -> String {
    let counters = &report.counters;
    let done = course.bytes_done(report);
    let rate = size((done as f64 / elapsed.as_secs_f64().max(0.001)) as u64);
    let total = bytes_to_fetch(report);
    let scan = if report.is_scan_done() { "scanned" } else { "scanning" };
    format!(
        "{scan} {} entries; {} {} of {} ({rate}/s); {} of {} files done",
        counters.entries.now(),
        course.done_word(),
        size(done),
        size(total),
        files_done(report),
        counters.files.now(),
    )
}

fn bytes_to_fetch(report: &Report) -> u64 {
    let counters = &report.counters;
    counters.bytes_total.now().saturating_sub(counters.bytes_unchanged.now() + counters.bytes_reused.now())
}

/// Files that nothing more is to be done about, as far as they are counted one by one.
pub(crate) fn files_done(report: &Report) -> u64 {
    let counters = &report.counters;
    counters.files_committed.now()
        + counters.files_unchanged.now()
        + counters.files_failed.now()
        + counters.files_verified.now()
}

struct Bars {
    course: Course,
    all: MultiProgress,
    scan: ProgressBar,
    fetch: ProgressBar,
    verify: ProgressBar,
    has_end: bool,
}

impl Bars {
    fn new(course: Course) -> Self {
        let all = MultiProgress::new();
        let open_ended = |template: &str| {
            let bar = all.add(ProgressBar::no_length());
            bar.set_style(style(template));
            bar
        };
        let scan = open_ended("scan    {spinner} {human_pos} entries{msg}");
        let phase = course.phase();
        let fetch =
            open_ended(&format!("{phase:<7} {{spinner}} {{binary_bytes}} of {{msg}} so far, {{binary_bytes_per_sec}}"));
        let verify = open_ended("verify  {spinner} {human_pos} of {msg} files so far");
        Self { course, all, scan, fetch, verify, has_end: false }
    }

    fn tick(&mut self, report: &Report) {
        self.scan.set_position(report.counters.entries.now());
        if report.is_scan_done() && !self.has_end {
            self.has_end = true;
            self.scan.set_message(", complete");
            let phase = self.course.phase();
            self.fetch.set_style(style(&format!(
                "{phase:<7} [{{bar:30}}] {{binary_bytes}} of {{binary_total_bytes}}, {{binary_bytes_per_sec}}, ETA {{eta}}"
            )));
            self.verify.set_style(style("verify  [{bar:30}] {human_pos} of {human_len} files"));
            self.fetch.set_length(bytes_to_fetch(report));
            self.verify.set_length(report.counters.files.now());
        }
        if !self.has_end {
            self.fetch.set_message(size(bytes_to_fetch(report)));
            self.verify.set_message(report.counters.files.now().to_string());
        }
        self.fetch.set_position(self.course.bytes_done(report));
        self.verify.set_position(files_done(report));
        for bar in [&self.scan, &self.fetch, &self.verify] {
            bar.tick();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("our own templates are lawful")
}
