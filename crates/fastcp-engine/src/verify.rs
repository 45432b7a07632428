//! Comparing a destination with a source, changing nothing at either end.
//!
//! One thread reads listings and compares what a stat call tells; files of the right size go on to the
//! threads of the data connections, which compare XXH3-128 hashes of their contents. Equal sizes and times
//! prove nothing here: to find what is wrong behind them is the point. Nothing is written, made or locked,
//! and the offer is not remembered, so that a look at a destination leaves no trace in it.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use fastcp_model::{Capabilities, Escaped, RelPath};
use fastcp_net::{Connection, Dialer, NetError};
use fastcp_sys::Root;
use fastcp_wire::frame::FrameType;
use fastcp_wire::limits::HASH_BYTES_MAX;
use fastcp_wire::offer::{OfferBatch, OfferEnd, OfferRequest, Scope};

use crate::error::RunError;
use crate::owners::Owners;
use crate::receiver::{OFFER_TIMEOUT, base_of, is_about_the_path, open_session};
use crate::report::Report;
use crate::settings::{Connections, ReceiverSettings};

mod contents;
mod listing;
mod queue;

use contents::Verification;
use listing::Comparer;
use queue::CheckQueue;

/// With `auto`: hashing is done by the processors and disks of both ends, of which throughput on the wire
/// tells nothing.
const AUTO_CONNECTIONS: u16 = 8;

/// Compares the directory `against` with `path` of the sender's tree, its contents or itself. Differences
/// are events and counts of the report.
///
/// # Errors
/// What ended the run. What could not be read is in the report instead.
pub fn verify(
    dialer: &Dialer,
    path: &RelPath,
    scope: Scope,
    against: &Path,
    settings: &ReceiverSettings,
    report: &Report,
) -> Result<(), RunError> {
    verify_in_ranges(dialer, &OfferRequest { path: path.clone(), scope }, against, settings, report, HASH_BYTES_MAX)
}

fn verify_in_ranges(
    dialer: &Dialer,
    request: &OfferRequest,
    against: &Path,
    settings: &ReceiverSettings,
    report: &Report,
    range_bytes_max: u64,
) -> Result<(), RunError> {
    let root = open_destination(against)?;
    let session = open_session(dialer, settings, report)?;
    if !session.agreed.capabilities.contains(Capabilities::DELTA) {
        return Err(RunError::CannotHash);
    }
    let connections = match settings.connections {
        Connections::Fixed(_) => session.agreed.connections,
        Connections::Auto => session.agreed.connections.min(AUTO_CONNECTIONS),
    };
    let queue = CheckQueue::new(range_bytes_max);
    let verification = Verification {
        dialer,
        attached: session.attach_right(),
        base: base_of(&request.path, request.scope),
        root: &root,
        queue: &queue,
        report,
        retry: settings.retry,
    };
    let first_error = FirstError { queue: &queue, error: Mutex::new(None) };
    std::thread::scope(|threads| {
        let _guard = StopOnPanic(&queue);
        for _ in 0..connections {
            threads.spawn(|| {
                let _guard = StopOnPanic(&queue);
                first_error.keep(verification.run_connection());
            });
        }
        first_error.keep(compare_offer(&session.control, request, &verification));
    });
    first_error.error.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// Opens a destination that has to be there: nothing is made.
pub(crate) fn open_destination(path: &Path) -> Result<Root, RunError> {
    Root::open(path).map_err(|source| RunError::NoDestination {
        path: Escaped(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str())).to_string(),
        source,
    })
}

fn compare_offer(
    control: &Connection,
    request: &OfferRequest,
    verification: &Verification<'_>,
) -> Result<(), RunError> {
    let net = |source| RunError::Net { during: "reading offers", source };
    control.set_timeouts(Some(OFFER_TIMEOUT), Some(OFFER_TIMEOUT)).map_err(net)?;
    control.write_frame(FrameType::OfferRequest, &request.encode()).map_err(net)?;
    let owners = Owners::new();
    let mut comparer = Comparer::new(verification.root, &owners, verification.report, verification.queue);
    while !verification.queue.is_stopped() {
        match control.read_frame() {
            Ok((FrameType::OfferBatch, payload)) => {
                comparer.compare(OfferBatch::decode(&payload).map_err(|error| net(error.into()))?)?;
            }
            Ok((FrameType::OfferEnd, payload)) => {
                OfferEnd::decode(&payload).map_err(|error| net(error.into()))?;
                comparer.check_complete()?;
                verification.report.set_scan_done();
                verification.queue.close();
                return Ok(());
            }
            Ok((other, _)) => return Err(net(NetError::UnexpectedFrame(other))),
            Err(NetError::Refused(status)) if is_about_the_path(status) => {
                return Err(RunError::Source { path: request.path.clone(), status });
            }
            Err(error) => return Err(net(error)),
        }
    }
    Ok(())
}

/// A thread that panics takes what it owed with it: the others must not wait for that.
struct StopOnPanic<'a>(&'a CheckQueue);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop();
        }
    }
}

/// The error that stopped the run. Others that follow from the stop are not told.
struct FirstError<'a> {
    queue: &'a CheckQueue,
    error: Mutex<Option<RunError>>,
}

impl FirstError<'_> {
    fn keep(&self, result: Result<(), RunError>) {
        if let Err(error) = result {
            self.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            self.queue.stop();
        }
    }
}
