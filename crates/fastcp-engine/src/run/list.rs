//! What a sender has, without a destination to compare it with.

use std::sync::Arc;

use fastcp_model::{Entry, RelPath, Status};
use fastcp_net::{Ahead, ConnectionSource};
use fastcp_wire::offer::{OfferRequest, Scope};

use crate::budget::Limits;
use crate::error::RunError;
use crate::link::line::{Line, Nth};
use crate::link::offers::{Offered, Offers};
use crate::report::{Cause, Report};
use crate::settings::{Connections, LinkSettings};

/// Names everything that a sender offers for a request, directory by directory: `each` is told the directory, relative to
/// the request's base, and what is in it. What could not be read is in the report.
///
/// # Errors
/// What ended the run.
pub fn list(
    source: &dyn ConnectionSource,
    request: &OfferRequest,
    settings: &LinkSettings,
    report: &Report,
    each: &mut dyn FnMut(&RelPath, &Entry),
) -> Result<(), RunError> {
    let link = LinkSettings { connections: Connections::Fixed(1), ..*settings };
    let frames = Offers::question(request, None)?;
    let ahead = Ahead { frames: &frames, connections: 0 };
    let line = Line::open(source, &link, &Limits::of_process(), report, Arc::default(), ahead)?;
    // Offers are the same until the tree changes: after a lost connection, what was told is passed over.
    let mut told = 0;
    line.on_session(&mut line.patience(), |session, nth| {
        let mut offers = Offers::asked_ahead(nth, &session.control, request, line.silence_max(), None)?;
        let passed_over = if nth == Nth::Again { told } else { 0 };
        let mut at = 0;
        loop {
            let batch = match offers.next()? {
                Offered::Batch(batch) => batch,
                Offered::End(_) => return Ok(()),
            };
            for listing in &batch.listings {
                let is_new = at >= passed_over;
                at += 1;
                if !is_new {
                    continue;
                }
                told = at;
                listing.entries.iter().for_each(|entry| each(&listing.dir, entry));
                for failure in &listing.failures {
                    report.failed(listing.dir.join(&failure.name), Cause::Source(failure.cause));
                }
                if let fastcp_model::ListingEnd::Broken(status) = listing.end {
                    report.failed(listing.dir.clone(), Cause::Source(status));
                }
            }
        }
    })
}

/// As [`list`], of one path as people name it: what is in a directory, or a file itself. With `is_deep`, all that is below
/// as well.
///
/// # Errors
/// As [`list`].
pub fn list_path(
    source: &dyn ConnectionSource,
    path: &RelPath,
    is_deep: bool,
    settings: &LinkSettings,
    report: &Report,
    each: &mut dyn FnMut(&RelPath, &Entry),
) -> Result<(), RunError> {
    let scope = if is_deep { Scope::Contents } else { Scope::Level };
    let request = OfferRequest { path: path.clone(), scope };
    match list(source, &request, settings, report, each) {
        // A file, or a link, which is not followed.
        Err(RunError::Source { status: Status::NotADirectory | Status::OutsideRoot, .. }) => {
            let request = OfferRequest { path: path.clone(), scope: Scope::Itself };
            list(source, &request, settings, report, each)
        }
        result => result,
    }
}
