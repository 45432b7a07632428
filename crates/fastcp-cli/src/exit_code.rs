//! rsync's exit codes, because scripts know them. The one table.

use std::process::ExitCode;

use fastcp_engine::{BackupProblem, Ending, GetError, ManifestError, Refusal, Report, RunError};
use fastcp_model::Status;
use fastcp_net::{NetError, RemoteProblem, TlsError};

pub(crate) const DONE: u8 = 0;
pub(crate) const USAGE: u8 = 1;
pub(crate) const PROTOCOL: u8 = 2;
pub(crate) const NOTHING_USABLE: u8 = 3;
pub(crate) const NOT_AUTHORISED: u8 = 5;
pub(crate) const SOCKET: u8 = 10;
pub(crate) const FILE_IO: u8 = 11;
pub(crate) const STREAM: u8 = 12;
pub(crate) const INTERRUPTED: u8 = 20;
pub(crate) const RESOURCES: u8 = fastcp_engine::OUT_OF_MEMORY;
pub(crate) const SOME_FAILED: u8 = 23;
pub(crate) const SOME_VANISHED: u8 = 24;
pub(crate) const DELETE_LIMIT: u8 = 25;
pub(crate) const TIMED_OUT: u8 = 30;
pub(crate) const NO_ANSWER: u8 = 35;

/// The code of a run that came to its end.
pub(crate) fn of_report(report: &Report) -> u8 {
    match (report.counters.files_failed.now(), report.refusal()) {
        // What waited for a deletion has failed for want of it, so this goes first.
        (_, Some(Refusal::Limit { .. })) => DELETE_LIMIT,
        (0, None) => DONE,
        (0, Some(Refusal::Source | Refusal::CutShort | Refusal::EmptySource)) => SOME_FAILED,
        _ if report.is_only_moving_source() => SOME_VANISHED,
        _ => SOME_FAILED,
    }
}

/// The code of a comparison that came to its end.
pub(crate) fn of_verification(report: &Report) -> u8 {
    if report.counters.differences.now() > 0 { SOME_FAILED } else { of_report(report) }
}

/// The code of a run that ended before its time.
pub(crate) fn of_run_error(error: &RunError) -> u8 {
    match error {
        RunError::NoAnswer { source, .. } => of_no_answer(source),
        RunError::Net { source, .. } => of_net_error(source),
        RunError::Source { .. } | RunError::Locked { .. } => NOTHING_USABLE,
        RunError::Interrupted => INTERRUPTED,
        RunError::TooLittle(_) | RunError::Exhausted { .. } => RESOURCES,
        RunError::Manifest(error) => of_manifest_error(error),
        RunError::AtReceiver { ending, .. } => match ending {
            Ending::Other | Ending::Net => STREAM,
            Ending::NoAnswer => NO_ANSWER,
            Ending::Source | Ending::Locked => NOTHING_USABLE,
            Ending::Interrupted => INTERRUPTED,
            Ending::NoDestination | Ending::Destination => FILE_IO,
            Ending::Backup => USAGE,
            Ending::Resources => RESOURCES,
        },
        RunError::Backup { problem: BackupProblem::Io(source), .. }
        | RunError::NoDestination { source, .. }
        | RunError::NotVerifiable { source, .. }
        | RunError::Destination { source, .. } => of_io_error(source, FILE_IO),
        RunError::Backup { .. } => USAGE,
    }
}

/// The code of a `get` that failed.
pub(crate) fn of_get_error(error: &GetError) -> u8 {
    match error {
        GetError::Path(_) => USAGE,
        GetError::Refused(Status::Unauthorised) => NOT_AUTHORISED,
        GetError::Refused(_) => NOTHING_USABLE,
        GetError::NoAnswer { source, .. } => of_no_answer(source),
        GetError::Net(error) => of_net_error(error),
        GetError::Output { source, .. } | GetError::Stream(source) => of_io_error(source, FILE_IO),
        GetError::NotAFile { .. } | GetError::Directory { .. } | GetError::Busy { .. } => NOTHING_USABLE,
        GetError::Checksum { .. } | GetError::NoChecksum => SOME_FAILED,
        GetError::Changed => SOME_VANISHED,
    }
}

/// The code of a manifest that cannot be used.
pub(crate) fn of_manifest_error(error: &ManifestError) -> u8 {
    match error {
        ManifestError::File { source, .. } => of_io_error(source, FILE_IO),
        ManifestError::Incomplete(_) => SOME_FAILED,
        ManifestError::NotAManifest(_)
        | ManifestError::Version { .. }
        | ManifestError::UnknownHash { .. }
        | ManifestError::OtherHash { .. }
        | ManifestError::Busy(_) => USAGE,
    }
}

/// `usual`, unless the process has run out of something.
pub(crate) fn of_io_error(error: &std::io::Error, usual: u8) -> u8 {
    if fastcp_engine::is_exhaustion(error) { RESOURCES } else { usual }
}

/// Whoever could not even dial, or serve himself, need not look for the other end.
fn of_no_answer(error: &NetError) -> u8 {
    match error {
        NetError::Connect { .. } | NetError::Socket(_) if error.is_shortage() => RESOURCES,
        _ => NO_ANSWER,
    }
}

pub(crate) fn of_net_error(error: &NetError) -> u8 {
    match error {
        NetError::Connect { source, .. } | NetError::Socket(source) => of_io_error(source, SOCKET),
        NetError::Lookup { .. } => SOCKET,
        NetError::Closed
        | NetError::Protocol(_)
        | NetError::Request(_)
        | NetError::Offer(_)
        | NetError::UnexpectedFrame(_) => STREAM,
        NetError::UnknownDialect(_) | NetError::Foreign(_) | NetError::Refused(Status::BadVersion) => PROTOCOL,
        NetError::Refused(Status::Unauthorised) => NOT_AUTHORISED,
        NetError::Remote { problem, .. } => match problem {
            RemoteProblem::NoLogin => NO_ANSWER,
            RemoteProblem::NoProgram | RemoteProblem::NoPlace => NOTHING_USABLE,
            RemoteProblem::Ended => STREAM,
        },
        NetError::Tls(TlsError::Record(_)) => STREAM,
        NetError::Tls(_) => NOT_AUTHORISED,
        NetError::TimedOut(_) => TIMED_OUT,
        NetError::Refused(_) => STREAM,
        NetError::Denied { status: Status::Unauthorised, .. } => NOT_AUTHORISED,
        NetError::Denied {
            status: Status::InUse | Status::NotFound | Status::NotADirectory | Status::OutsideRoot,
            ..
        } => NOTHING_USABLE,
        NetError::Denied { status: Status::Busy, .. } => RESOURCES,
        NetError::Denied { .. } => USAGE,
    }
}

/// Gets by with what memory there is, and has a panic for want of it end the process with the code for that. Whatever
/// panics else is a bug. To be called before the first thread.
pub(crate) fn exit_when_out_of_memory() {
    fastcp_engine::share_heap_where_limited();
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        fastcp_engine::exit_if_none_is_left();
        usual(panic);
    }));
}

/// To be the last thing that `main` calls.
pub(crate) fn exit(code: u8) -> ExitCode {
    #[cfg(feature = "counts")]
    crate::counts::write();
    ExitCode::from(code)
}

/// A run that could not start.
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(code: u8, message: impl ToString) -> Self {
        Self { code, message: message.to_string() }
    }
}
