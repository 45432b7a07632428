//! What a sender has, without a destination to compare it with.

use std::sync::Arc;

use fastcp_model::rules::FilterRule;
use fastcp_model::{Entry, ListingEnd, RelPath, Status};
use fastcp_net::{Ahead, ConnectionSource};
use fastcp_wire::offer::{OfferRequest, Place, Scope};

use crate::budget::Limits;
use crate::error::RunError;
use crate::link::line::Line;
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
    // Offers name the same in the same order until the tree changes: after a lost connection, what was told is passed over.
    let mut told = Told::default();
    line.on_session(&mut line.patience(), |session, nth| {
        let mut offers = Offers::asked_ahead(nth, &session.control, request, line.silence_max(), None)?;
        let mut passed = Told::default();
        loop {
            let batch = match offers.next()? {
                Offered::Batch(batch) => batch,
                Offered::End(_) => return Ok(()),
            };
            for listing in &batch.listings {
                for entry in &listing.entries {
                    if is_new(&mut passed.entries, &mut told.entries) {
                        each(&listing.dir, entry);
                    }
                }
                let of_entries =
                    listing.failures.iter().map(|failure| (listing.dir.join(&failure.name), failure.cause));
                let of_dir = match listing.end {
                    ListingEnd::Broken(status) => Some((listing.dir.clone(), status)),
                    _ => None,
                };
                for (path, status) in of_entries.chain(of_dir) {
                    if is_new(&mut passed.failures, &mut told.failures) {
                        report.failed(path, Cause::Source(status));
                    }
                }
            }
        }
    })
}

/// How much was told.
#[derive(Default)]
struct Told {
    entries: u64,
    failures: u64,
}

/// Counts one more; answers whether it is beyond those that were told.
fn is_new(passed: &mut u64, told: &mut u64) -> bool {
    *passed += 1;
    let is_new = *passed > *told;
    *told = (*told).max(*passed);
    is_new
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
    rules: &[FilterRule],
    settings: &LinkSettings,
    report: &Report,
    each: &mut dyn FnMut(&RelPath, &Entry),
) -> Result<(), RunError> {
    let scope = if is_deep { Scope::Contents } else { Scope::Level };
    let request = |scope| OfferRequest { place: Place { path: path.clone(), scope }, rules: rules.to_vec() };
    match list(source, &request(scope), settings, report, each) {
        // A file, or a link, which is not followed.
        Err(RunError::Source { status: Status::NotADirectory | Status::OutsideRoot, .. }) => {
            list(source, &request(Scope::Itself), settings, report, each)
        }
        result => result,
    }
}
