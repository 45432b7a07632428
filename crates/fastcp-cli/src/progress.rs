//! Progress while a run lasts: lines that are drawn again on a terminal, a line every few seconds elsewhere.
//!
//! A thread of its own looks at the counters five times a second; nothing on the path of the bytes
//! knows of it. Scan, fetch and verify have a line each, as far as a run does them. No bar has an end before the scan has one,
//! and no count ever goes down, so nothing runs backwards.

use std::io::{IsTerminal, stderr};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use fastcp_engine::{Event, Report};
use fastcp_model::Grouped;

use crate::course::{Course, bytes_to_fetch, files_done};
use crate::output::{Far, Format, Output};
use crate::progress::layout::{Detail, Row, Scan, View};
use crate::progress::speed::Speed;
use crate::screen::Screen;
use crate::stderr::complain;
use crate::wording::size;

mod layout;
mod speed;

const TICK: Duration = Duration::from_millis(200);
const LINE_EVERY: Duration = Duration::from_secs(5);
const JSON_EVERY: Duration = Duration::from_secs(1);
/// Events printed together: the lines are drawn again once for all of them.
const EVENTS_TOGETHER_MAX: usize = 256;

/// Shows events and progress until the senders of `events` are gone.
pub(crate) fn show(report: &Report, events: &Receiver<Event>, output: &Output, course: Course) {
    let mut display = Display::new(output, course);
    let mut next_tick = Instant::now() + TICK;
    loop {
        match events.recv_timeout(next_tick.saturating_duration_since(Instant::now())) {
            Ok(event) => display.print(report, event, events),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        // However many events there are, progress is shown between them.
        if Instant::now() >= next_tick {
            display.tick(report);
            next_tick = Instant::now() + TICK;
        }
    }
    output.screen.end();
}

impl Course {
    /// The line of the scan.
    fn scan(self, report: &Report, turn: usize) -> Option<Scan> {
        let scan = Scan { entries: report.counters.entries.now(), is_done: report.is_scan_done(), turn };
        (self != Self::Get).then_some(scan)
    }

    /// The lines below that of the scan.
    fn rows(self, report: &Report, bytes_per_second: u64) -> Vec<Row> {
        let counters = &report.counters;
        let (bytes, bytes_total) = (self.bytes_done(report), bytes_to_fetch(report));
        let left = bytes_total.saturating_sub(bytes).checked_div(bytes_per_second).map(Duration::from_secs);
        let speed = Detail::Speed { bytes_per_second, left };
        let files = Detail::Files { done: files_done(report), total: counters.files.now() };
        let verified = self.bytes_verified(report);
        let first = Row { label: self.phase(), bytes, bytes_total, detail: speed };
        match self {
            Self::List => Vec::new(),
            _ if report.is_dry_run() => Vec::new(),
            Self::Get => vec![first],
            Self::Copy(_) => vec![first, Row { label: "verify", bytes: verified, bytes_total, detail: files }],
            Self::CopyAndReadBack(_) => {
                let bytes_total = counters.bytes_wanted.now();
                vec![first, Row { label: "verify", bytes: verified, bytes_total, detail: files }]
            }
            Self::Verify => {
                let files = Detail::FilesOnly { done: files_done(report), total: counters.files.now() };
                vec![first, Row { label: "files", bytes: verified, bytes_total, detail: files }]
            }
        }
    }
}

struct Display<'a> {
    output: &'a Output,
    course: Course,
    kind: Kind,
    start: Instant,
    /// Smoothed; 0 before there is anything to smooth.
    bytes_per_second: u64,
    speed: Speed,
    /// Files that were told to have their names, and their bytes.
    committed: u64,
    committed_bytes: u64,
}

enum Kind {
    /// Lines that are drawn again and again.
    Drawn {
        turn: usize,
    },
    Lines {
        every: Duration,
        last: Instant,
    },
    Nothing,
}

impl<'a> Display<'a> {
    fn new(output: &'a Output, course: Course) -> Self {
        let now = Instant::now();
        let kind = match output.format {
            Format::Quiet => Kind::Nothing,
            Format::Json => Kind::Lines { every: JSON_EVERY, last: now },
            Format::Text if can_draw() => Kind::Drawn { turn: 0 },
            Format::Text => Kind::Lines { every: LINE_EVERY, last: now },
        };
        Self {
            output,
            course,
            kind,
            start: now,
            bytes_per_second: 0,
            speed: Speed::new(now),
            committed: 0,
            committed_bytes: 0,
        }
    }

    fn tick(&mut self, report: &Report) {
        self.bytes_per_second = self.speed.update(self.course.bytes_done(report), Instant::now());
        match &mut self.kind {
            Kind::Drawn { turn } => {
                *turn += 1;
                let view = View {
                    scan: self.course.scan(report, *turn),
                    is_total_known: self.course.is_total_known(report),
                    rows: self.course.rows(report, self.bytes_per_second),
                };
                self.output.screen.draw(layout::lines(&view, Screen::columns()));
            }
            Kind::Lines { every, last } if last.elapsed() >= *every && self.course != Course::List => {
                *last = Instant::now();
                match self.output.format {
                    Format::Json => self.output.progress(report, self.course),
                    Format::Text | Format::Quiet => complain(&line_of(report, self.start.elapsed(), self.course)),
                }
            }
            Kind::Lines { .. } | Kind::Nothing => {}
        }
    }

    /// Prints an event and those that wait behind it.
    fn print(&mut self, report: &Report, first: Event, events: &Receiver<Event>) {
        let output = self.output;
        output.screen.suspend(|| {
            let more = events.try_iter().take(EVENTS_TOGETHER_MAX - 1);
            for event in std::iter::once(first).chain(more) {
                if let Event::Committed { bytes, .. } = &event {
                    self.committed += 1;
                    self.committed_bytes += bytes;
                }
                output.event(&event, self.far(report));
            }
        });
    }

    fn far(&self, report: &Report) -> Far {
        // The counters of a receiver elsewhere come now and then.
        let bytes = self.course.bytes_done(report).max(self.committed_bytes);
        let average = (bytes as f64 / self.start.elapsed().as_secs_f64().max(0.001)) as u64;
        Far {
            files: self.committed,
            total: report.counters.files_wanted.now(),
            is_growing: !self.course.is_total_known(report),
            bytes_per_second: if self.bytes_per_second > 0 { self.bytes_per_second } else { average },
        }
    }
}

/// Whether stderr is a terminal that understands more than lines.
fn can_draw() -> bool {
    stderr().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb" && !term.is_empty())
}

fn line_of(report: &Report, elapsed: Duration, course: Course) -> String {
    let counters = &report.counters;
    let done = course.bytes_done(report);
    let rate = size((done as f64 / elapsed.as_secs_f64().max(0.001)) as u64);
    let total = bytes_to_fetch(report);
    if course == Course::Get {
        return format!("{} {} of {} ({rate}/s)", course.done_word(), size(done), size(total));
    }
    let scan = if report.is_scan_done() { "scanned" } else { "scanning" };
    format!(
        "{scan} {} entries; {} {} of {} ({rate}/s); {} of {} files done",
        Grouped(counters.entries.now()),
        course.done_word(),
        size(done),
        size(total),
        Grouped(files_done(report)),
        Grouped(counters.files.now()),
    )
}
