//! A dry run: what a run would do, told and counted, with nothing done.
//!
//! It asks for the same offer and plans with the same [`Planner`], which decides and has nobody that
//! acts. No data connection is dialled, no byte of a file fetched, and the destination is only looked
//! at: it is not made, and neither is fastcp's own directory in it. What this side kept of the last
//! offer is left alone too, so the whole offer is sent.

use std::sync::Arc;

use fastcp_model::Capabilities;
use fastcp_net::{Ahead, Connection};
use fastcp_wire::offer::OfferRequest;

use crate::error::RunError;
use crate::interrupt::Interrupt;
use crate::link::line::{Ending, Line, Nth};
use crate::link::offers::{Offered, Offers};
use crate::plan::{Looking, Planner};
use crate::report::Report;
use crate::run::receiver::{Over, Task};
use crate::settings::{Connections, LinkSettings};
use crate::target::backup_dirs::BackupDirs;
use crate::target::kept_times::KeptTimes;
use crate::target::owners::Owners;
use crate::threads::spawn;

/// Tells what [`super::receiver::receive`] would do.
pub(super) fn preview(run: &Task<'_>, interrupt: &Interrupt, report: &Report) -> Result<(), RunError> {
    report.set_dry_run();
    let no_destination = |source| RunError::NoDestination { path: run.into.shown(), source };
    let root = run.into.open_if_there().map_err(no_destination)?;
    let backup = match &run.receiver.backup_dir {
        Some(dir) => run.into.backup(dir, run.receiver.durability)?.within().cloned(),
        None => None,
    };
    let backups = BackupDirs::of(root.as_ref(), backup.as_ref());
    let (owners, kept_times, above) = (Owners::new(), KeptTimes::default(), run.into.below_system_root());
    let link = LinkSettings {
        capabilities: run.link.capabilities.difference(Capabilities::TREE_CACHE),
        connections: Connections::Fixed(1),
        ..run.link
    };
    let limits = &run.process.limits;
    let frames = Offers::question(&run.request, None)?;
    let ahead = Ahead { frames: &frames, connections: 0 };
    let (live, listening) = (Arc::default(), interrupt.listen());
    let open = || Line::open(run.source, &link, limits, report, Arc::clone(&live), ahead);
    let line = listening.while_opening(&live, open)?;
    let looking = Looking {
        root: root.as_ref(),
        backups,
        owners: &owners,
        kept_times: &kept_times,
        above: &above,
        listings_max: limits.listings(),
    };
    let mut planner = Planner::for_preview(looking, report, &run.receiver);
    let planned = std::thread::scope(|threads| {
        let _over = Over(&listening);
        // Where there is no thread for it, the run can only be ended with its process.
        let ending = spawn(threads, "interrupt", || {
            if listening.wait() {
                line.hang_up(Ending::All);
            }
        });
        drop(ending.inspect_err(|error| tracing::debug!(%error, "cannot start a thread to be interrupted by")));
        line.on_session(&mut line.patience(), |session, nth| {
            if nth == Nth::Again {
                planner.replay();
            }
            take_offers(&session.control, nth, &run.request, &mut planner, &line)
        })
    });
    match planned {
        Err(_) if listening.was_asked() => return Err(RunError::Interrupted),
        planned => planned?,
    }
    report.set_scan_done();
    Ok(())
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
