//! The receiver: from a session to a tree.
//!
//! One thread reads offers and plans; one thread for each data connection fetches, verifies and
//! commits. They meet in the schedule. The first error that concerns everything stops them all, and
//! what is done by then stays done.

use std::io;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use fastcp_model::Capabilities;
use fastcp_net::{Ahead, ConnectionSource, WireCount};
use fastcp_wire::limits::CONNECTIONS_MAX;
use fastcp_wire::offer::{OfferRequest, Place, Scope};

use crate::commit::group::{Groups, commit_groups};
use crate::commit::leftover::{self, Useful};
use crate::commit::transfer::Transfer;
use crate::content::cutter::Cutter;
use crate::error::RunError;
use crate::interrupt::{Interrupt, Listening};
use crate::link::first_error::FirstError;
use crate::link::line::{Ending, Line};
use crate::link::offers::Offers;
use crate::link::tree_cache::TreeCache;
use crate::manifest::Recorder;
use crate::report::Report;
use crate::reuse::Reuse;
use crate::run::control::Control;
use crate::schedule::tune::{Tuner, window_for};
use crate::schedule::want::WANT_COST;
use crate::schedule::{Bounds, Bundling, Cut, HoldBack, Schedule, Watched};
use crate::settings::{Connections, LinkSettings, ProcessSettings, ReceiverSettings, SizeLimits};
use crate::target::destination::Destination;
use crate::target::destination_path::DestinationPath;
use crate::target::lock::{Lock, Locked};
use crate::target::owners::Owners;
use crate::threads::{Threads, spawn};

/// What a receiver is to do.
pub(super) struct Task<'a> {
    pub(super) source: &'a dyn ConnectionSource,
    pub(super) request: OfferRequest,
    pub(super) into: DestinationPath<'a>,
    pub(super) receiver: ReceiverSettings,
    pub(super) link: LinkSettings,
    pub(super) process: ProcessSettings,
}

/// Brings a tree over.
pub(super) fn receive(run: &Task<'_>, interrupt: &Interrupt, report: &Report) -> Result<(), RunError> {
    let into = &run.into;
    let manifest = run.receiver.manifest.as_ref().map(|to| Recorder::open(to, report)).transpose()?;
    // Before anything is made: what is made and was not needed goes again.
    let listening = interrupt.listen();
    let destination =
        Destination::open(into).map_err(|source| RunError::NoDestination { path: into.shown(), source })?;
    let destination = destination.with_backup(into, &run.receiver)?;
    let lock = destination.lock().map_err(|Locked| RunError::Locked { path: into.shown() })?;
    if let Err(error) = destination.look_at_file_system() {
        tracing::debug!(%error, "not known what the destination is on");
    }
    let result = receive_into(&destination, run, manifest.as_ref(), &listening, report);
    match result {
        Ok(()) => clear_leftovers(&destination, lock.as_ref(), run, report),
        Err(_) => destination.leave_as_found(lock, into),
    }
    result
}

/// Removes what earlier runs left of files that nobody will resume.
fn clear_leftovers(destination: &Destination, lock: Option<&Lock>, run: &Task<'_>, report: &Report) {
    let Place { path, scope } = &run.request.place;
    // Of several entries that were asked for by name, none tells of those beside them. What rules or limits leave out may
    // have been begun by a run that took it.
    let takes_all = run.receiver.filter.is_empty() && run.receiver.sizes == SizeLimits::default();
    let is_known_whole = takes_all && (*scope == Scope::Itself || report.run.is_whole());
    let Some(lock) = lock.filter(|_| report.run.is_source_read() && is_known_whole) else { return };
    let useful = match (report.run.has_failed(), lock.since) {
        (false, _) => Useful::Nothing,
        (true, Some(since)) => Useful::WrittenSince(since),
        (true, None) => return,
    };
    leftover::clear(destination, path, *scope, useful);
}

fn receive_into(
    destination: &Destination,
    run: &Task<'_>,
    manifest: Option<&Recorder<'_>>,
    listening: &Listening,
    report: &Report,
) -> Result<(), RunError> {
    let live = Arc::default();
    let cache = run.link.capabilities.contains(Capabilities::TREE_CACHE).then(|| TreeCache::open(destination));
    let frames = Offers::question(&run.request, cache.as_ref())?;
    let ahead = Ahead { frames: &frames, connections: begin_with(run.link.connections) };
    let open = || Line::open(run.source, &run.link, &run.process.limits, report, Arc::clone(&live), ahead);
    let line = listening.while_opening(&live, open)?;
    // One that the sender cannot make use of was passed over.
    let cache = cache.filter(|_| line.agreed.capabilities.contains(Capabilities::TREE_CACHE));
    let tuner = match run.link.connections {
        Connections::Fixed(_) => None,
        Connections::Auto => Some(Tuner::new(line.agreed.connections)),
    };
    let schedule = schedule_for(&line, tuner.as_ref().map_or(line.agreed.connections, Tuner::active));
    let transfer = Transfer {
        line: &line,
        base: run.request.place.base(),
        destination,
        owners: &Owners::new(),
        schedule: &schedule,
        groups: &Groups::new(line.budget.group_files),
        report,
        settings: &run.receiver,
        receive_path: run.process.receive_path,
        manifest,
        cutter: &Cutter::default(),
        budget: line.budget,
    };
    let result = run_threads(&transfer, &run.request, cache, tuner, listening);
    // Records of what was committed are kept, however the run ended.
    let recorded = manifest.map_or(Ok(()), Recorder::finish);
    result.and(recorded.map_err(RunError::from))
}

/// How many data connections are needed as soon as the session is open.
fn begin_with(connections: Connections) -> u16 {
    match connections {
        Connections::Fixed(connections) => connections,
        Connections::Auto => Tuner::new(CONNECTIONS_MAX).active(),
    }
}

/// A schedule for what was agreed, which so many connections begin with.
fn schedule_for(line: &Line<'_>, active: u16) -> Schedule {
    let agrees = |capability| line.agreed.capabilities.contains(capability);
    let hold_back = if agrees(Capabilities::PIPELINE_SYNC) { HoldBack::No } else { HoldBack::UntilClosed };
    let cut = if agrees(Capabilities::VIRTUAL_ARCHIVE) { Cut::Evenly } else { Cut::AtChunks };
    let bundling = if agrees(Capabilities::BUNDLE) { Bundling::Yes } else { Bundling::No };
    let bounds = Bounds { prepared_max: line.budget.prepared_files, ..Bounds::default() };
    Schedule::new(active, hold_back, cut, bundling, bounds)
}

/// Runs the threads of a transfer to their end.
fn run_threads(
    transfer: &Transfer<'_>,
    request: &OfferRequest,
    cache: Option<TreeCache<'_>>,
    tuner: Option<Tuner>,
    listening: &Listening,
) -> Result<(), RunError> {
    let (schedule, groups) = (transfer.schedule, transfer.groups);
    let stop = || {
        schedule.stop();
        transfer.cutter.stop();
    };
    let first_error = &FirstError::new(transfer.line, &stop);
    std::thread::scope(|threads| {
        let _guard = first_error.stop_on_panic();
        let _over = Over(listening);
        let _last_group = LastGroup(groups);
        let started = start_helpers(threads, transfer, first_error, listening)
            .and_then(|()| start_fetching(threads, transfer, first_error));
        let fetching = match started {
            Ok(fetching) => fetching,
            Err(error) => return first_error.keep(Err(RunError::no_thread(error))),
        };
        if let Some(tuner) = tuner {
            let window = window_for(transfer.line.session().control.round_trip());
            let tuning = spawn(threads, "tune", move || tune(tuner, schedule, &transfer.report.wire, window));
            // The number of connections then stays what it is.
            drop(tuning.inspect_err(|error| tracing::debug!(%error, "cannot start a thread to tune with")));
        }
        // The control connection is this thread's own. As long as it is there, those that are being greeted on are
        // no strangers to the server.
        first_error.keep_and_hang_up(Control::new(transfer, cache).run(request), Ending::Data);
        let results: Vec<_> = fetching.into_iter().map(ScopedJoinHandle::join).collect();
        if let Some(panic) = results.into_iter().find_map(Result::err) {
            resume_unwind(panic);
        }
    });
    first_error.result()?;
    assert!(transfer.report.run.is_root_finished(), "a file was neither committed nor given up");
    Ok(())
}

/// Starts the threads of which there is one each, and none to spare.
fn start_helpers<'scope>(
    threads: &'scope Threads<'scope, '_>,
    transfer: &'scope Transfer<'scope>,
    first_error: &'scope FirstError<'scope>,
    listening: &'scope Listening,
) -> io::Result<()> {
    spawn(threads, "interrupt", || {
        if listening.wait() {
            first_error.keep(Err(RunError::Interrupted));
        }
    })?;
    spawn(threads, "commit", || {
        let _guard = first_error.stop_on_panic();
        first_error.keep(commit_groups(transfer));
    })?;
    spawn(threads, "reuse", || {
        let _guard = first_error.stop_on_panic();
        first_error.keep(Reuse::new(transfer).run());
    })?;
    Ok(())
}

/// Starts a thread for each data connection, or as many as there are to be had.
fn start_fetching<'scope>(
    threads: &'scope Threads<'scope, '_>,
    transfer: &'scope Transfer<'scope>,
    first_error: &'scope FirstError<'scope>,
) -> io::Result<Vec<ScopedJoinHandle<'scope, ()>>> {
    let mut fetching = Vec::new();
    for number in 0..transfer.line.agreed.connections {
        let started = spawn(threads, "fetch", move || {
            let _guard = first_error.stop_on_panic();
            first_error.keep(transfer.run_connection(number.into()));
        });
        match started {
            Ok(thread) => fetching.push(thread),
            Err(error) if fetching.is_empty() => return Err(error),
            Err(error) => {
                tracing::warn!("cannot start more threads ({error}): using {number} connections");
                break;
            }
        }
    }
    Ok(fetching)
}

/// What is done in so many windows is too little to learn anything by.
const LATE_WINDOWS: f64 = 2.0;

/// Changes the number of connections by what throughput says, until all is done.
fn tune(mut tuner: Tuner, schedule: &Schedule, wire: &WireCount, window: Duration) {
    let (mut before, mut since) = (0, Instant::now());
    while let Some(Watched { wants_done, left }) = schedule.watch(window) {
        // Bytes as they arrive: what whole answers bring comes in lumps.
        let done = wants_done * WANT_COST + wire.bytes_in.load(Ordering::Relaxed);
        let rate = (done - before) as f64 / since.elapsed().as_secs_f64();
        (before, since) = (done, Instant::now());
        tracing::debug!(connections = tuner.active(), rate, "throughput");
        // Near the end, or where planning is what takes so long. New connections would not be up to speed before the end,
        // and then they would be waited for.
        if left.is_some_and(|left| (left as f64) < rate * window.as_secs_f64() * LATE_WINDOWS) {
            continue;
        }
        tuner.window(rate);
        schedule.set_active(tuner.active());
    }
}

/// However the threads end, nobody need wait for an interruption any more.
pub(super) struct Over<'a>(pub(super) &'a Listening);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.over();
    }
}

/// However the threads end, the groups must learn that nothing more will come.
struct LastGroup<'a>(&'a Groups);

impl Drop for LastGroup<'_> {
    fn drop(&mut self) {
        self.0.finish();
    }
}
