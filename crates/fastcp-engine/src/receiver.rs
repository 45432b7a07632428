//! The receiver: from a session to a tree.
//!
//! One thread reads offers and plans; one thread for each data connection fetches, verifies and
//! commits. They meet in the schedule. The first error that concerns everything stops them all, and
//! what is done by then stays done.

use std::panic::resume_unwind;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use fastcp_model::{Capabilities, RelPath, Status};
use fastcp_net::{Backoff, Connection, Dialer, NetError, Session, Terms, WireCount};
use fastcp_wire::frame::FrameType;
use fastcp_wire::hello::Role;
use fastcp_wire::known::{BatchId, encode_known};
use fastcp_wire::limits::CONNECTIONS_MAX;
use fastcp_wire::offer::{OfferBatch, OfferEnd, OfferRequest, Scope};

use crate::destination::Destination;
use crate::error::RunError;
use crate::fetch::Transfer;
use crate::group::Groups;
use crate::owners::Owners;
use crate::plan::Planner;
use crate::report::{Event, Report};
use crate::schedule::{Bundling, Cut, HoldBack, Schedule};
use crate::settings::{Connections, ReceiverSettings};
use crate::tree_cache::TreeCache;
use crate::tune::{Tuner, window_for};
use crate::want::WANT_COST;

/// The sender sends something every 10 s while it scans.
pub(crate) const OFFER_TIMEOUT: Duration = Duration::from_secs(60);

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
    let cut = match session.agreed.capabilities.contains(Capabilities::VIRTUAL_ARCHIVE) {
        true => Cut::Evenly,
        false => Cut::AtChunks,
    };
    let tuner = match settings.connections {
        Connections::Fixed(_) => None,
        Connections::Auto => Some(Tuner::new(session.agreed.connections)),
    };
    let active = tuner.as_ref().map_or(session.agreed.connections, Tuner::active);
    let bundling = match session.agreed.capabilities.contains(Capabilities::BUNDLE) {
        true => Bundling::Yes,
        false => Bundling::No,
    };
    let schedule = Schedule::new(active, hold_back, cut, bundling);
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
    let result = run(&transfer, &session.control, &request, tuner);
    // Records of what was committed are kept, however the run ended.
    let recorded = settings.manifest.iter().try_for_each(|manifest| manifest.finish());
    result.and(recorded.map_err(RunError::from))
}

/// Runs the threads of a transfer to their end.
fn run(
    transfer: &Transfer<'_>,
    control: &Connection,
    request: &OfferRequest,
    tuner: Option<Tuner>,
) -> Result<(), RunError> {
    let (schedule, groups) = (transfer.schedule, transfer.groups);
    let first_error = &FirstError { schedule, error: Mutex::new(None) };
    std::thread::scope(|threads| {
        let _guard = StopOnPanic(schedule);
        let _last_group = LastGroup(groups);
        threads.spawn(|| {
            let _guard = StopOnPanic(schedule);
            first_error.keep(groups.run(transfer));
        });
        if let Some(tuner) = tuner {
            let window = window_for(control.tcp_info().round_trip);
            threads.spawn(move || tune(tuner, schedule, &transfer.report.wire, window));
        }
        let fetching: Vec<_> = (0..transfer.agreed.connections)
            .map(|number| {
                threads.spawn(move || {
                    let _guard = StopOnPanic(schedule);
                    first_error.keep(transfer.run_connection(number.into()));
                })
            })
            .collect();
        first_error.keep(take_offers(control, request, transfer));
        let results: Vec<_> = fetching.into_iter().map(ScopedJoinHandle::join).collect();
        if let Some(panic) = results.into_iter().find_map(Result::err) {
            resume_unwind(panic);
        }
    });
    match first_error.error.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(error) => Err(error),
        None => {
            assert!(transfer.report.is_root_finished(), "a file was neither committed nor given up");
            Ok(())
        }
    }
}

/// Changes the number of connections by what throughput says, until all is done.
fn tune(mut tuner: Tuner, schedule: &Schedule, wire: &WireCount, window: Duration) {
    let (mut before, mut since) = (0, Instant::now());
    while let Some(wants) = schedule.watch(window) {
        // Bytes as they arrive: what whole answers bring comes in lumps.
        let done = wants * WANT_COST + wire.bytes_in.load(Ordering::Relaxed);
        let rate = (done - before) as f64 / since.elapsed().as_secs_f64();
        (before, since) = (done, Instant::now());
        tracing::debug!(connections = tuner.active(), rate, "throughput");
        tuner.window(rate);
        schedule.set_active(tuner.active());
    }
}

/// The directory that offered paths are relative to.
pub(crate) fn base_of(path: &RelPath, scope: Scope) -> RelPath {
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

/// However the threads end, the groups must learn that nothing more will come.
struct LastGroup<'a>(&'a Groups);

impl Drop for LastGroup<'_> {
    fn drop(&mut self) {
        self.0.finish();
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

pub(crate) fn open_session(dialer: &Dialer, settings: &ReceiverSettings, report: &Report) -> Result<Session, RunError> {
    let connections = match settings.connections {
        Connections::Fixed(connections) => connections,
        Connections::Auto => CONNECTIONS_MAX,
    };
    let terms = Terms { capabilities: settings.capabilities, connections, chunk_kb: settings.chunk_kb };
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

fn take_offers(control: &Connection, request: &OfferRequest, transfer: &Transfer<'_>) -> Result<(), RunError> {
    let net = |source| RunError::Net { during: "reading offers", source };
    control.set_timeouts(Some(OFFER_TIMEOUT), Some(OFFER_TIMEOUT)).map_err(net)?;
    let mut cache = match transfer.agreed.capabilities.contains(Capabilities::TREE_CACHE) {
        true => Some(TreeCache::open(transfer.destination)),
        false => None,
    };
    if let Some(cache) = &cache {
        control.write_frame(FrameType::OfferKnown, &encode_known(&cache.known())).map_err(net)?;
    }
    control.write_frame(FrameType::OfferRequest, &request.encode()).map_err(net)?;
    let mut planner = Planner::new(
        transfer.destination,
        transfer.owners,
        transfer.report,
        transfer.schedule,
        transfer.agreed.chunk_kb,
    );
    loop {
        match control.read_frame() {
            Ok((FrameType::OfferBatch, payload)) => {
                let batch = OfferBatch::decode(&payload).map_err(|error| net(error.into()))?;
                if let Some(cache) = cache.as_mut().filter(|_| !batch.listings.is_empty()) {
                    cache.sent(&payload);
                }
                planner.plan(batch)?;
            }
            Ok((FrameType::OfferSame, payload)) => {
                let id = BatchId::decode(&payload).map_err(|error| net(error.into()))?;
                let payload = cache.as_mut().and_then(|cache| cache.recall(id));
                let payload = payload.ok_or_else(|| net(NetError::Offer("a batch that is not known here")))?;
                planner.plan(OfferBatch::decode(&payload).map_err(|error| net(error.into()))?)?;
            }
            Ok((FrameType::OfferEnd, payload)) => {
                OfferEnd::decode(&payload).map_err(|error| net(error.into()))?;
                planner.check_complete()?;
                if let Some(cache) = cache {
                    cache.finish();
                }
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

pub(crate) fn is_about_the_path(status: Status) -> bool {
    !matches!(status, Status::BadRequest | Status::Unauthorised | Status::Busy | Status::TimedOut)
}
