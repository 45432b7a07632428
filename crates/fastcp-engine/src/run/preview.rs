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

use fastcp_model::{Capabilities, Escaped};
use fastcp_net::{Ahead, Connection};
use fastcp_sys::Root;
use fastcp_wire::offer::OfferRequest;

use crate::error::RunError;
use crate::link::line::{Line, Nth};
use crate::link::offers::{Offered, Offers};
use crate::plan::{Looking, Planner};
use crate::report::Report;
use crate::run::pull::Pull;
use crate::settings::{Connections, LinkSettings};
use crate::target::backup::Backup;
use crate::target::backup_dirs::BackupDirs;
use crate::target::kept_times::KeptTimes;
use crate::target::owners::Owners;

/// See [`Pull::preview`].
pub(super) fn preview(run: &Pull<'_>, report: &Report) -> Result<(), RunError> {
    report.set_dry_run();
    let root = open_destination(&run.into)?;
    let backup = match &run.receiver.backup_dir {
        Some(dir) => Backup::new(&run.into, dir, run.receiver.durability)?.within().cloned(),
        None => None,
    };
    let backups = BackupDirs::of(root.as_ref(), backup.as_ref());
    let (owners, kept_times) = (Owners::new(), KeptTimes::default());
    let link = LinkSettings {
        capabilities: run.link.capabilities.difference(Capabilities::TREE_CACHE),
        connections: Connections::Fixed(1),
        ..run.link
    };
    let limits = &run.process.limits;
    let frames = Offers::question(&run.request, None)?;
    let ahead = Ahead { frames: &frames, connections: 0 };
    let line = Line::open(run.source, &link, limits, report, Arc::default(), ahead)?;
    let looking = Looking {
        root: root.as_ref(),
        backups,
        owners: &owners,
        kept_times: &kept_times,
        listings_max: limits.listings(),
    };
    let mut planner = Planner::for_preview(looking, report, &run.receiver);
    line.on_session(&mut line.patience(), |session, nth| {
        if nth == Nth::Again {
            planner.replay();
        }
        take_offers(&session.control, nth, &run.request, &mut planner, &line)
    })?;
    report.set_scan_done();
    Ok(())
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
    nth: Nth,
    request: &OfferRequest,
    planner: &mut Planner<'_>,
    line: &Line<'_>,
) -> Result<(), RunError> {
    let mut offers = Offers::asked_ahead(nth, control, request, line.silence_max(), None)?;
    loop {
        match offers.next()? {
            Offered::Batch(batch) => planner.plan(batch)?,
            Offered::End(end) => return planner.finish(&end),
        }
    }
}
