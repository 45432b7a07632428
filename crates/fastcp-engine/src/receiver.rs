//! The receiver: from a session to a tree.
//!
//! One thread reads offers and plans; one thread for each data connection fetches, verifies and
//! commits. They meet in the schedule. The first error that concerns everything stops them all, and
//! what is done by then stays done.

use std::panic::resume_unwind;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use fastcp_model::{Capabilities, RelPath, Status};
use fastcp_net::{Agreed, Backoff, Connection, Dialer, NetError, Session, Terms};
use fastcp_wire::frame::FrameType;
use fastcp_wire::hello::Role;
use fastcp_wire::offer::{OfferBatch, OfferEnd, OfferRequest, Scope};

use crate::destination::Destination;
use crate::error::RunError;
use crate::fetch::Transfer;
use crate::group::Groups;
use crate::owners::Owners;
use crate::plan::Planner;
use crate::report::{Event, Report};
use crate::schedule::{HoldBack, Schedule};
use crate::settings::ReceiverSettings;

/// The sender sends something every 10 s while it scans.
const OFFER_TIMEOUT: Duration = Duration::from_secs(60);

/// Brings `path` of the sender's tree, its contents or itself, into the directory `into`.
///
/// # Errors
/// What ended the run. Failures of single files are in the report instead.
pub fn pull(
    dialer: &Dialer,
    path: &RelPath,
    scope: Scope,
    into: &Path,
    settings: &ReceiverSettings,
    report: &Report,
) -> Result<(), RunError> {
    let destination = Destination::open(into).map_err(|source| RunError::NoDestination {
        path: fastcp_model::Escaped(std::os::unix::ffi::OsStrExt::as_bytes(into.as_os_str())).to_string(),
        source,
    })?;
    let session = open_session(dialer, settings, report)?;
    let request = OfferRequest { path: path.clone(), scope };
    let owners = Owners::new();
    let hold_back = if session.agreed.capabilities.contains(Capabilities::PIPELINE_SYNC) {
        HoldBack::No
    } else {
        HoldBack::UntilClosed
    };
    let schedule = Schedule::new(session.agreed.connections, hold_back);
    let groups = Groups::new(settings.descriptors_max / 4);
    let transfer = Transfer {
        dialer,
        attached: session.attach_right(),
        agreed: session.agreed,
        base: base_of(path, scope),
        destination: &destination,
        owners: &owners,
        schedule: &schedule,
        groups: &groups,
        report,
        settings,
    };
    let first_error = FirstError { schedule: &schedule, error: Mutex::new(None) };
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let _guard = StopOnPanic(&schedule);
            first_error.keep(groups.run(&transfer));
        });
        let fetching: Vec<_> = (0..session.agreed.connections)
            .map(|_| {
                threads.spawn(|| {
                    let _guard = StopOnPanic(&schedule);
                    first_error.keep(transfer.run_connection());
                })
            })
            .collect();
        first_error.keep(take_offers(&session.control, &request, &transfer, session.agreed));
        let results: Vec<_> = fetching.into_iter().map(ScopedJoinHandle::join).collect();
        groups.finish();
        if let Some(panic) = results.into_iter().find_map(Result::err) {
            resume_unwind(panic);
        }
    });
    match first_error.error.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// The directory that offered paths are relative to.
fn base_of(path: &RelPath, scope: Scope) -> RelPath {
    match (scope, path.split()) {
        (Scope::Itself, Some((parent, _))) => parent,
        _ => path.clone(),
    }
}

/// A thread that panics takes what it owed with it: the others must not wait for that.
struct StopOnPanic<'a>(&'a Schedule);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop();
        }
    }
}

/// The error that stopped the run. Others that follow from the stop are not told.
struct FirstError<'a> {
    schedule: &'a Schedule,
    error: Mutex<Option<RunError>>,
}

impl FirstError<'_> {
    fn keep(&self, result: Result<(), RunError>) {
        if let Err(error) = result {
            self.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            self.schedule.stop();
        }
    }
}

fn open_session(dialer: &Dialer, settings: &ReceiverSettings, report: &Report) -> Result<Session, RunError> {
    let terms =
        Terms { capabilities: settings.capabilities, connections: settings.connections, chunk_kb: settings.chunk_kb };
    let start = Instant::now();
    let mut backoff = Backoff::default();
    loop {
        let error = match Session::open(dialer, Role::Receiver, &terms) {
            Ok(session) => return Ok(session),
            Err(error) if error.is_transient() => error,
            Err(source) => return Err(RunError::Net { during: "opening the session", source }),
        };
        let wait = backoff.next_wait();
        if start.elapsed() + wait > settings.retry {
            let address = dialer.endpoint().to_string();
            return Err(RunError::NoAnswer { address, seconds: settings.retry.as_secs(), source: error });
        }
        report.tell(Event::Retrying { error: error.to_string(), wait });
        std::thread::sleep(wait);
    }
}

fn take_offers(
    control: &Connection,
    request: &OfferRequest,
    transfer: &Transfer<'_>,
    agreed: Agreed,
) -> Result<(), RunError> {
    let net = |source| RunError::Net { during: "reading offers", source };
    control.set_timeouts(Some(OFFER_TIMEOUT), Some(OFFER_TIMEOUT)).map_err(net)?;
    control.write_frame(FrameType::OfferRequest, &request.encode()).map_err(net)?;
    let mut planner =
        Planner::new(transfer.destination, transfer.owners, transfer.report, transfer.schedule, agreed.chunk_kb);
    loop {
        match control.read_frame() {
            Ok((FrameType::OfferBatch, payload)) => {
                let batch = OfferBatch::decode(&payload).map_err(|error| net(error.into()))?;
                planner.plan(batch)?;
            }
            Ok((FrameType::OfferEnd, payload)) => {
                OfferEnd::decode(&payload).map_err(|error| net(error.into()))?;
                planner.check_complete()?;
                transfer.report.set_scan_done();
                transfer.schedule.close();
                return Ok(());
            }
            Ok((other, _)) => return Err(net(NetError::UnexpectedFrame(other))),
            Err(NetError::Refused(status)) if is_about_the_path(status) => {
                return Err(RunError::Source { path: request.path.clone(), status });
            }
            Err(error) => return Err(net(error)),
        }
        if transfer.schedule.is_stopped() {
            return Ok(());
        }
    }
}

fn is_about_the_path(status: Status) -> bool {
    !matches!(status, Status::BadRequest | Status::Unauthorised | Status::Busy | Status::TimedOut)
}
