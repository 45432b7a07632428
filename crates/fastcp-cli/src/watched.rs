//! A run with its events and its progress shown beside it, and its summary after it.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use fastcp_engine::Report;
use fastcp_net::Dialer;

use crate::course::Course;
use crate::exit_code;
use crate::output::{Output, Summary};
use crate::progress;
use crate::reach::Reached;

/// Events that may wait to be printed; then the run waits for whoever reads them.
const EVENTS_AHEAD: usize = 4096;

/// A run that was watched to its end.
pub(crate) struct Watched<T> {
    pub(crate) report: Report,
    pub(crate) elapsed: Duration,
    /// What came of it; an error where the thread that shows progress could not be started, and so nothing was.
    pub(crate) result: io::Result<T>,
}

/// Does `work` with events and progress shown as they come.
pub(crate) fn watched<T>(output: &Output, course: Course, work: impl FnOnce(&Report) -> T) -> Watched<T> {
    let start = Instant::now();
    let (sender, events) = sync_channel(EVENTS_AHEAD);
    let report = Report::new(sender);
    let result = std::thread::scope(|threads| {
        let shared = &report;
        let display = std::thread::Builder::new().name("progress".to_owned());
        let shown = display.spawn_scoped(threads, move || progress::show(shared, &events, output, course));
        let (shown, failure) = match shown {
            Ok(thread) => (Some(thread), None),
            Err(error) => (None, Some(error)),
        };
        let result = {
            let _closing = Closing(&report);
            failure.map_or_else(|| Ok(work(&report)), Err)
        };
        // A panic in the display has been printed; the run itself is what counts.
        drop(shown.map(ScopedJoinHandle::join));
        result
    });
    Watched { report, elapsed: start.elapsed(), result }
}

/// Watches a run that copies, and says its summary. Answers the exit code.
pub(crate) fn watched_copy(
    reached: &Reached,
    output: &Output,
    course: Course,
    work: impl FnOnce(&Dialer, &Report) -> (u8, Option<String>),
) -> u8 {
    let Watched { report, elapsed, result } =
        watched(output, course, |report| work(&reached.dialer(Arc::clone(&report.wire)), report));
    reached.remember();
    let (code, error) =
        result.unwrap_or_else(|error| (exit_code::RESOURCES, Some(format!("cannot start a thread: {error}"))));
    match error {
        Some(error) if code != exit_code::DONE => output.error(&error, code),
        Some(warning) => output.warning(&warning),
        None => {}
    }
    let code = output.stdout.exit_code(code);
    output.summary(&Summary::new(&report, elapsed, course, code));
    output.stdout.exit_code(code)
}

/// However the work ends, be it by a panic, the display comes to its end: nobody waits for it in vain.
struct Closing<'a>(&'a Report);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}
