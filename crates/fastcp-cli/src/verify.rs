//! `fastcp-client verify`: differences on stdout, a summary, and an exit code that says which it was.
//!
//! A difference is a result and not an error, so it goes to stdout; what could not be read goes to stderr,
//! as for a copy. 23 stands for both, and the summary tells them apart.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fastcp_engine::{Limits, Report, RunError};
use fastcp_model::Grouped;
use fastcp_wire::offer::OfferRequest;
use serde::Serialize;

use crate::args::VerifyArgs;
use crate::args::filters::Unqualified;
use crate::course::Course;
use crate::exit_code::{self, Failure};
use crate::filters;
use crate::from::From;
use crate::output::{Format, Output};
use crate::screen::Screen;
use crate::setup::{format, link_settings, start_pool};
use crate::sources::reach;
use crate::stderr::complain;
use crate::watched::{Watched, watched};
use crate::wording::{counted, counts, size};

/// The last line of `--json`: names are a contract that scripts rely on.
#[derive(Debug, Serialize)]
struct VerifySummary {
    event: &'static str,
    entries: u64,
    files: u64,
    files_verified: u64,
    files_failed: u64,
    special_skipped: u64,
    bytes_total: u64,
    bytes_verified: u64,
    differences: u64,
    differences_by_kind: BTreeMap<&'static str, u64>,
    failures: BTreeMap<String, u64>,
    bytes_wire_in: u64,
    bytes_wire_out: u64,
    reconnects: u64,
    elapsed_ms: u64,
    exit: u8,
}

/// Compares a directory with FROM, or with a manifest.
pub(crate) fn verify(args: &VerifyArgs, screen: &Arc<Screen>) -> Result<u8, Failure> {
    start_pool()?;
    match (&args.from, &args.manifest) {
        (Some(from), _) => {
            let from = From::parse(from).map_err(|error| Failure::new(exit_code::USAGE, error))?;
            with_source(from, args, screen)
        }
        (None, Some(manifest)) => Ok(run_shown(&Output::new(format(&args.output), screen), |report| {
            fastcp_engine::verify_manifest(manifest, &args.dir, report)
        })),
        (None, None) => unreachable!("the parser asks for one of them"),
    }
}

fn with_source(from: From, args: &VerifyArgs, screen: &Arc<Screen>) -> Result<u8, Failure> {
    // The shell ends when the run does.
    let rules = filters::rules(&args.filters, Unqualified::BothEnds)?;
    let (reached, place, _shell) = reach(from, &args.trust, &args.shell)?;
    let request = OfferRequest { place, rules };
    let settings = link_settings(&args.link);
    let code = run_shown(&Output::new(format(&args.output), screen), |report| {
        let dialer = reached.dialer(Arc::clone(&report.wire));
        fastcp_engine::verify(&dialer, &request, &args.dir, &settings, &Limits::of_process(), report)
    });
    reached.remember();
    Ok(code)
}

/// Runs with differences and progress shown as they come, and says the summary.
fn run_shown(output: &Output, work: impl FnOnce(&Report) -> Result<(), RunError>) -> u8 {
    let Watched { report, elapsed, result } = watched(output, Course::Verify, work);
    let result = result.unwrap_or_else(|source| Err(RunError::Exhausted { operation: "start a thread", source }));
    let code = match &result {
        Ok(()) => exit_code::of_verification(&report),
        Err(error) => {
            let code = exit_code::of_run_error(error);
            output.error(&error.to_string(), code);
            code
        }
    };
    let code = output.stdout.exit_code(code);
    VerifySummary::new(&report, elapsed, code).print(output);
    output.stdout.exit_code(code)
}

impl VerifySummary {
    fn new(report: &Report, elapsed: Duration, exit: u8) -> Self {
        let counters = &report.counters;
        let by_kind = report.differences().into_iter().map(|(what, count)| (what.name(), count));
        Self {
            event: "summary",
            entries: counters.entries.now(),
            files: counters.files.now(),
            files_verified: counters.files_verified.now(),
            files_failed: counters.files_failed.now(),
            special_skipped: counters.special_skipped.now(),
            bytes_total: counters.bytes_total.now(),
            bytes_verified: counters.bytes_verified.now(),
            differences: counters.differences.now(),
            differences_by_kind: by_kind.collect(),
            failures: report.failures(),
            bytes_wire_in: report.wire.bytes_in.load(Ordering::Relaxed),
            bytes_wire_out: report.wire.bytes_out.load(Ordering::Relaxed),
            reconnects: counters.reconnects.now(),
            elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            exit,
        }
    }

    fn print(&self, output: &Output) {
        match output.format {
            // A run that never got to see anything has said why.
            Format::Text if self.exit != 0 && self.entries == 0 && self.files_failed == 0 => {}
            Format::Text => output.stdout.line(&self.text()),
            Format::Json => output.stdout.json(self),
            Format::Quiet if self.files_failed > 0 => complain(&self.text()),
            Format::Quiet => {}
        }
    }

    fn text(&self) -> String {
        let seconds = self.elapsed_ms as f64 / 1000.0;
        let rate = size((self.bytes_verified as f64 / seconds.max(0.001)) as u64);
        let (files, bytes) = (counted(self.files_verified, "file"), size(self.bytes_verified));
        let mut text = format!("{files} verified, {bytes} in {seconds:.2} s ({rate}/s)");
        text += &match self.differences {
            0 => "; no differences".to_owned(),
            1 => format!("; 1 DIFFERENCE: {}", counts(&self.differences_by_kind)),
            count => format!("; {} DIFFERENCES: {}", Grouped(count), counts(&self.differences_by_kind)),
        };
        if self.files_failed > 0 {
            text += &format!("; {} NOT VERIFIED: {}", Grouped(self.files_failed), counts(&self.failures));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::run_shown;
    use crate::output::{Format, Output};

    #[test]
    fn a_panic_ends_the_run_and_does_not_leave_it_waiting() {
        let (ended, end) = channel();
        std::thread::spawn(move || {
            let run =
                AssertUnwindSafe(|| run_shown(&Output::new(Format::Quiet, &Arc::default()), |_| panic!("on purpose")));
            ended.send(catch_unwind(run).is_err())
        });
        assert_eq!(end.recv_timeout(Duration::from_secs(20)), Ok(true));
    }
}
