//! A dry run: what a run would do, told and counted, with nothing done.
//!
//! It asks for the same offer and plans with the same [`Planner`], which decides and has nobody that
//! acts. No data connection is dialled, no byte of a file fetched, and the destination is only looked
//! at: it is not made, and neither is fastcp's own directory in it. What this side kept of the last
//! offer is left alone too, so the whole offer is sent.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use fastcp_model::{Capabilities, Escaped, RelPath};
use fastcp_net::{Connection, ConnectionSource};
use fastcp_sys::Root;
use fastcp_wire::offer::{OfferRequest, Scope};

use crate::error::RunError;
use crate::link::line::Line;
use crate::link::offers::{Offered, Offers};
use crate::plan::Planner;
use crate::report::Report;
use crate::settings::{Connections, ReceiverSettings};
use crate::target::backup::Backup;
use crate::target::backup_dirs::BackupDirs;
use crate::target::kept_times::KeptTimes;
use crate::target::owners::Owners;

/// Tells what [`crate::pull`] would do.
///
/// # Errors
/// What would have ended the run. Failures of single entries are in the report instead.
pub fn preview(
    source: &dyn ConnectionSource,
    path: &RelPath,
    scope: Scope,
    into: &Path,
    settings: &ReceiverSettings,
    report: &Report,
) -> Result<(), RunError> {
    report.set_dry_run();
    let root = open_destination(into)?;
    let backup = match &settings.backup_dir {
        Some(dir) => Backup::new(into, dir, settings.durability)?.within().cloned(),
        None => None,
    };
    let backups = BackupDirs::of(root.as_ref(), backup.as_ref());
    let (owners, kept_times) = (Owners::new(), KeptTimes::default());
    let terms = ReceiverSettings {
        capabilities: settings.capabilities.difference(Capabilities::TREE_CACHE),
        connections: Connections::Fixed(1),
        ..settings.clone()
    };
    let line = Line::open(source, &terms, report, Arc::default())?;
    let mut planner = Planner::for_preview(root.as_ref(), backups, &owners, &kept_times, report, settings);
    let request = OfferRequest { path: path.clone(), scope };
    let (mut session, mut patience) = (line.session(), line.patience());
    loop {
        match take_offers(&session.control, &request, &mut planner, &line) {
            Err(RunError::Net { during, source }) if source.is_transient() => {
                planner.replay();
                session = line.renew(&mut patience, during, source)?;
            }
            Ok(()) => {
                report.set_scan_done();
                return Ok(());
            }
            result => return result,
        }
    }
}

/// The destination, or `None` where a run would make it.
fn open_destination(into: &Path) -> Result<Option<Root>, RunError> {
    let failed = |source| RunError::NoDestination { path: Escaped(into.as_os_str().as_bytes()).to_string(), source };
    match Root::open(into) {
        Ok(root) => Ok(Some(root)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = into.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            Root::open(parent).map(|_| None).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

fn take_offers(
    control: &Connection,
    request: &OfferRequest,
    planner: &mut Planner<'_>,
    line: &Line<'_>,
) -> Result<(), RunError> {
    let mut offers = Offers::ask(control, request, line.silence_max(), None)?;
    loop {
        match offers.next()? {
            Offered::Batch(batch) => planner.plan(batch)?,
            Offered::End(end) => return planner.finish(&end),
        }
    }
}
