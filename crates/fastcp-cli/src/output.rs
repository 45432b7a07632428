//! What a run prints: events as they come, and the summary.
//!
//! Results go to stdout, messages to stderr, where names are escaped as in log lines. With `--json`, stdout is
//! one JSON object a line and nothing else; of the events, stderr has errors, failures and warnings as well.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fastcp_engine::{Event, Item, ItemKind, Report, SourceReport};
use fastcp_model::{Escaped, Grouped, RelPath};
use serde::Serialize;
use serde_json::json;

use crate::course::{Course, files_done};
use crate::events::as_json;
use crate::screen::Screen;
use crate::stderr::complain;
use crate::stdout::Stdout;
use crate::wording::{counted, counts, kind_name, size};

/// In which form a run prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people: results on stdout, messages on stderr.
    Text,
    /// As before, errors only.
    Quiet,
    /// JSON lines on stdout; errors on stderr as well.
    Json,
}

/// An attempt that fails is nothing to speak of before this much time without progress.
const RETRYING_UNTOLD: Duration = Duration::from_secs(2);

/// Shorter runs say nothing of what limited them: it was hardly measured.
const LIMIT_TOLD_FROM: Duration = Duration::from_secs(1);

/// What is printed of each change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listing {
    None,
    /// The names that `rsync -v` prints.
    Names,
    /// The same; a file has its line when it has its name, with how far the run is by then.
    NamesWhenDone,
    /// The lines that `rsync -i` prints.
    Changes,
}

/// How far a run is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Far {
    /// Files that have their names.
    pub(crate) files: u64,
    /// Files that are to have them, as far as is known.
    pub(crate) total: u64,
    /// Whether there may be more.
    pub(crate) is_growing: bool,
    pub(crate) bytes_per_second: u64,
}

/// What a client prints to.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) format: Format,
    listing: Listing,
    pub(crate) stdout: Stdout,
    pub(crate) screen: Arc<Screen>,
    failures: Mutex<Failures>,
}

/// Where every file has a line, those that failed are named once more at the end, as many as can be read.
#[derive(Debug, Default)]
struct Failures {
    lines: Vec<String>,
    more: u64,
}

/// Failures that are named at the end.
const FAILURES_NAMED_MAX: usize = 20;

/// The last line of `--json`: names are a contract that scripts rely on.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Summary {
    event: &'static str,
    entries: u64,
    files_committed: u64,
    files_unchanged: u64,
    files_failed: u64,
    links_made: u64,
    dirs_made: u64,
    attributes_changed: u64,
    special_skipped: u64,
    deleted: u64,
    bytes_total: u64,
    bytes_fetched: u64,
    bytes_reused: u64,
    bytes_wire_in: u64,
    bytes_wire_out: u64,
    chunks_refetched: u64,
    reconnects: u64,
    elapsed_ms: u64,
    /// `None` for a short run.
    limited_by: Option<&'static str>,
    failures: BTreeMap<String, u64>,
    dry_run: bool,
    files_wanted: u64,
    links_wanted: u64,
    dirs_wanted: u64,
    bytes_wanted: u64,
    exit: u8,
    /// With several sources, what came from each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sources: Vec<FromSource>,
    /// What was done with bytes, in one word.
    #[serde(skip)]
    done_word: &'static str,
}

/// What came from one of several sources.
#[derive(Debug, Serialize)]
struct FromSource {
    source: String,
    bytes_wire_in: u64,
    bytes_per_second: u64,
    /// Connections that broke.
    breaks: u64,
    /// Files of which it has another version.
    disagrees: u64,
}

impl FromSource {
    fn all(report: &Report, elapsed: Duration) -> Vec<Self> {
        let rate = |bytes: u64| (bytes as f64 / elapsed.as_secs_f64().max(0.001)) as u64;
        let of_source = |source: Arc<SourceReport>| {
            let bytes_wire_in = source.wire.bytes_in.load(Ordering::Relaxed);
            let (breaks, disagrees) = (source.breaks.now(), source.barred.now());
            let bytes_per_second = rate(bytes_wire_in);
            Self { source: source.name.clone(), bytes_wire_in, bytes_per_second, breaks, disagrees }
        };
        report.sources().into_iter().map(of_source).collect()
    }

    fn text(&self) -> String {
        let Self { source, bytes_wire_in, bytes_per_second, breaks, disagrees } = self;
        let mut notes = vec![format!("{}/s", size(*bytes_per_second))];
        if *breaks > 0 {
            notes.push(format!("{} lost", counted(*breaks, "connection")));
        }
        if *disagrees > 0 {
            notes.push(format!("another version of {}", counted(*disagrees, "file")));
        }
        format!("; {} from {source} ({})", size(*bytes_wire_in), notes.join(", "))
    }
}

impl Summary {
    pub(crate) fn new(report: &Report, elapsed: Duration, course: Course, exit: u8) -> Self {
        let counters = &report.counters;
        Self {
            event: "summary",
            entries: counters.entries.now(),
            files_committed: counters.files_committed.now(),
            files_unchanged: counters.files_unchanged.now(),
            files_failed: counters.files_failed.now(),
            links_made: counters.links_made.now(),
            dirs_made: counters.dirs_made.now(),
            attributes_changed: counters.attributes_changed.now(),
            special_skipped: counters.special_skipped.now(),
            deleted: counters.deleted.now(),
            bytes_total: counters.bytes_total.now(),
            bytes_fetched: counters.bytes_fetched.now(),
            bytes_reused: counters.bytes_reused.now(),
            bytes_wire_in: report.wire.bytes_in.load(Ordering::Relaxed),
            bytes_wire_out: report.wire.bytes_out.load(Ordering::Relaxed),
            chunks_refetched: counters.chunks_refetched.now(),
            reconnects: counters.reconnects.now(),
            elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            limited_by: (elapsed >= LIMIT_TOLD_FROM).then(|| report.limited_by().name()),
            failures: report.failures(),
            dry_run: report.is_dry_run(),
            files_wanted: counters.files_wanted.now(),
            links_wanted: counters.links_wanted.now(),
            dirs_wanted: counters.dirs_wanted.now(),
            bytes_wanted: counters.bytes_wanted.now(),
            exit,
            sources: FromSource::all(report, elapsed),
            done_word: course.done_word(),
        }
    }

    fn was_done(&self) -> String {
        let seconds = self.elapsed_ms as f64 / 1000.0;
        let mut text = format!("{} copied", counted(self.files_committed, "file"));
        text += &self.other_changes();
        // A single file is not compared with what is there.
        if self.entries > 0 {
            text += &format!(", {} unchanged", Grouped(self.files_unchanged));
        }
        if self.bytes_reused > 0 {
            text += &format!("; {} reused", size(self.bytes_reused));
        }
        if self.bytes_fetched > 0 {
            let rate = size((self.bytes_fetched as f64 / seconds.max(0.001)) as u64);
            let limit = self.limited_by.map_or(String::new(), |limit| format!(", limited by {limit}"));
            text += &format!("; {} {} in {seconds:.2} s ({rate}/s{limit})", size(self.bytes_fetched), self.done_word);
        } else {
            text += &format!("; {seconds:.2} s");
        }
        text
    }

    fn would_be_done(&self) -> String {
        let mut text = format!("would copy {} ({})", counted(self.files_wanted, "file"), size(self.bytes_wanted));
        for (count, one, verb) in [
            (self.links_wanted, "link", "make"),
            (self.dirs_wanted, "directory", "make"),
            (self.deleted, "entry", "delete"),
            (self.attributes_changed, "entry", "change attributes of"),
        ] {
            if count > 0 {
                text += &format!(", {verb} {}", counted(count, one));
            }
        }
        text + &format!("; {} unchanged (dry run)", Grouped(self.files_unchanged))
    }

    /// What changes beside files: nothing is said of what does not.
    fn other_changes(&self) -> String {
        let mut text = String::new();
        for (count, one, verb) in [
            (self.links_made, "link", "made"),
            (self.dirs_made, "directory", "made"),
            (self.deleted, "entry", "deleted"),
        ] {
            if count > 0 {
                text += &format!(", {} {verb}", counted(count, one));
            }
        }
        if self.attributes_changed > 0 {
            text += &format!(", attributes of {} changed", counted(self.attributes_changed, "entry"));
        }
        text
    }

    fn text(&self) -> String {
        let mut text = if self.dry_run { self.would_be_done() } else { self.was_done() };
        text.extend(self.sources.iter().map(FromSource::text));
        if self.special_skipped > 0 {
            text += &format!("; {} skipped (device, pipe or socket)", counted(self.special_skipped, "entry"));
        }
        if self.files_failed > 0 {
            text += &format!("; {} FAILED: {}", Grouped(self.files_failed), counts(&self.failures));
        }
        text
    }
}

impl Output {
    pub(crate) fn new(format: Format, screen: &Arc<Screen>) -> Self {
        let stdout = Stdout::of("fastcp-client");
        Self { format, listing: Listing::None, stdout, screen: Arc::clone(screen), failures: Mutex::default() }
    }

    /// The same, with this much printed of each change.
    pub(crate) fn listing(self, listing: Listing) -> Self {
        Self { listing, ..self }
    }

    fn failed(&self, line: String) {
        self.message(&line);
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.lines.len() < FAILURES_NAMED_MAX {
            failures.lines.push(line);
        } else {
            failures.more += 1;
        }
    }

    fn name_failures(&self) {
        let Failures { lines, more } = &*self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().for_each(|line| self.message(&format!("failed: {line}")));
        if *more > 0 {
            self.message(&format!("failed: {} more, named above", Grouped(*more)));
        }
    }

    /// Prints the summary.
    pub(crate) fn summary(&self, summary: &Summary) {
        match self.format {
            // A run that never got to see a tree has said why, and that is all there is to say.
            Format::Text if summary.exit != 0 && summary.entries == 0 => {}
            Format::Text => {
                self.stdout.line(&summary.text());
                if self.listing != Listing::None {
                    self.name_failures();
                }
            }
            Format::Json => self.stdout.json(summary),
            Format::Quiet if summary.files_failed > 0 => complain(&summary.text()),
            Format::Quiet => {}
        }
    }

    /// Prints that a file has its name, where that is listed.
    fn committed(&self, path: &RelPath, bytes: u64, far: Far) {
        if self.listing == Listing::NamesWhenDone {
            let Far { files, total, is_growing, bytes_per_second } = far;
            let (files, total) = (Grouped(files), Grouped(total.max(files)));
            let more = if is_growing { "+" } else { "" };
            let rate = size(bytes_per_second);
            self.stdout.line(&format!("{path} ({files}/{total}{more}, {}, {rate}/s)", size(bytes)));
        }
    }

    /// Prints one event. The run is so far by then.
    pub(crate) fn event(&self, event: &Event, far: Far) {
        if self.format == Format::Json {
            self.stdout.json(&as_json(event));
        }
        match (event, self.format) {
            (Event::Item(item), Format::Text) => {
                if let Some(line) = item_line(item, self.listing) {
                    self.stdout.line(&line);
                }
            }
            (Event::Committed { path, bytes }, Format::Text) => self.committed(path, *bytes, far),
            (Event::Differs { path, what }, Format::Text) => {
                self.stdout.line(&format!("differs: {} \"{path}\"", what.name()));
            }
            (Event::Item(_) | Event::Committed { .. } | Event::Differs { .. } | Event::Recorded(_), _) => {}
            (Event::Disagrees { path, source }, _) => {
                self.message(&format!("\"{path}\": {source} has another version; fetched from other sources"));
            }
            (Event::SourceLost { lost, lead }, _) => {
                self.message(&format!("{lost} cannot be reached; {lead} decides from now on"));
            }
            (Event::NotDeleting(refusal), _) => self.message(&refusal.to_string()),
            (Event::Failed { path, cause }, _) => self.failed(format!("\"{path}\": {cause}")),
            (Event::Skipped { path, kind }, Format::Text) => {
                self.message(&format!("skipped \"{path}\": a {}", kind_name(*kind)));
            }
            // What is over before anybody could wonder needs no line.
            (Event::Retrying { failing, wait, .. }, Format::Text) if *failing + *wait < RETRYING_UNTOLD => {}
            (Event::Retrying { address, reason, left, .. }, Format::Text) => {
                let seconds = left.as_secs_f64();
                self.message(&format!("waiting for {address} ({reason}), giving up in {seconds:.0} s"));
            }
            (Event::Limited(limited), Format::Text) => self.message(&limited.to_string()),
            (Event::Skipped { .. } | Event::Limited(_) | Event::Retrying { .. }, Format::Quiet | Format::Json) => {}
        }
    }

    /// Prints the error that ends a run: on stderr in each format, as an event too with `--json`.
    pub(crate) fn error(&self, message: &str, exit: u8) {
        if self.format == Format::Json {
            self.stdout.json(&json!({"event": "error", "message": message, "exit": exit}));
        }
        self.message(message);
    }

    /// Prints a warning, in the same way.
    pub(crate) fn warning(&self, message: &str) {
        if self.format == Format::Json {
            self.stdout.json(&json!({"event": "warning", "message": message}));
        }
        self.message(&format!("warning: {message}"));
    }

    pub(crate) fn message(&self, line: &str) {
        complain(&format!("fastcp-client: {line}"));
    }

    /// A progress line for scripts.
    pub(crate) fn progress(&self, report: &Report, course: Course) {
        let counters = &report.counters;
        self.stdout.json(&json!({
            "event": "progress",
            "phase": if report.is_scan_done() || course == Course::Get { course.phase() } else { "scan" },
            "entries": counters.entries.now(),
            "files": counters.files.now(),
            "files_done": files_done(report),
            "bytes_total": counters.bytes_total.now(),
            "bytes_fetched": counters.bytes_fetched.now(),
            "bytes_verified": course.bytes_verified(report),
        }));
    }
}

/// A line of `--itemize-changes` or `-v`, as rsync prints it but for names with odd bytes, which are escaped
/// as everywhere. With `-v`, an entry other than a directory has no line if only its attributes change, and a file that is
/// fetched has it later.
fn item_line(item: &Item, listing: Listing) -> Option<String> {
    let change = String::from_utf8_lossy(&item.change);
    let name = match &item.kind {
        ItemKind::Dir => format!("{}/", item.path),
        ItemKind::Link(target) => format!("{} -> {}", item.path, Escaped(target)),
        ItemKind::Other => item.path.to_string(),
    };
    match listing {
        Listing::None => None,
        Listing::Changes => Some(format!("{change} {name}")),
        Listing::Names | Listing::NamesWhenDone if change.starts_with('*') => Some(format!("deleting {name}")),
        Listing::NamesWhenDone if change.starts_with('>') => None,
        Listing::Names | Listing::NamesWhenDone => {
            (!change.starts_with('.') || item.kind == ItemKind::Dir).then_some(name)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;
    use std::time::Duration;

    use fastcp_engine::Report;

    use super::Summary;
    use crate::course::{Course, Way};

    #[test]
    fn a_short_run_says_nothing_of_limits() {
        let (sender, _events) = sync_channel(1);
        let report = Report::new(sender);
        let run = |elapsed| {
            let summary = Summary::new(&report, Duration::from_millis(elapsed), Course::Copy(Way::Here), 0);
            Summary { bytes_fetched: 1, ..summary }
        };
        assert_eq!((run(999).limited_by, run(1000).limited_by), (None, Some("cpu")));
        assert!(!run(999).text().contains("limited"));
        assert!(run(1000).text().contains("limited by cpu"));
    }

    #[test]
    fn counts_are_grouped() {
        let done = Summary { entries: 1, files_committed: 1_234_567, files_unchanged: 1000, ..Summary::default() };
        let failed = Summary { files_failed: 2000, failures: [("io".to_owned(), 2000)].into(), ..done };
        assert_eq!(failed.text(), "1,234,567 files copied, 1,000 unchanged; 0.00 s; 2,000 FAILED: 2,000 io");
    }

    #[test]
    fn a_dry_run_says_what_would_be_done() {
        let dry = Summary { dry_run: true, files_wanted: 1, links_wanted: 2, dirs_wanted: 1, ..Summary::default() };
        let dry = Summary { deleted: 1, attributes_changed: 3, ..dry };
        let said = "would copy 1 file (0 B), make 2 links, make 1 directory, delete 1 entry, \
            change attributes of 3 entries; 0 unchanged (dry run)";
        assert_eq!(dry.text(), said);
    }
}
