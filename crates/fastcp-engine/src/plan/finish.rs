//! The end of an offer: what was named and not listed, and what goes because the source does not have it.

use fastcp_model::Status;
use fastcp_wire::offer::OfferEnd;

use super::{Placed, Planner};
use crate::error::RunError;
use crate::link::listing_order::broken_offer;
use crate::plan::decide::Ground;
use crate::plan::deletion::{Step, Verdict, cannot_keep};
use crate::plan::extraneous::Displacing;
use crate::plan::removal::Action;
use crate::report::Cause;
use crate::settings::Deletion;

impl Planner<'_> {
    /// The offer has ended. Every directory that was named must have been listed, unless it was removed between
    /// an offer that was broken off and the next. Deletes what is extraneous, and plans what waited for that.
    pub(crate) fn finish(&mut self, end: &OfferEnd) -> Result<(), RunError> {
        if !self.has_root {
            return Err(broken_offer("it ends before the listing of the root"));
        }
        if !self.awaited.is_empty() && !self.is_replay {
            return Err(broken_offer("it ends before all directories are listed"));
        }
        for (path, state) in std::mem::take(&mut self.awaited) {
            self.report.run.set_source_unread();
            self.report.failed(path, Cause::Source(Status::NotFound));
            self.release(&state);
        }
        // A sender that counts otherwise knows of something that is not known here.
        self.count.expect(end)?;
        let (Some(mut extraneous), Some(deletion)) = (self.extraneous.take(), self.deletion) else { return Ok(()) };
        extraneous.spoilt |= self.is_replay && self.offered != self.planned;
        extraneous.spoilt |= !self.report.run.is_source_read() || end.failures > 0;
        let verdict = self.step(deletion).take(&mut extraneous)?;
        for held in &extraneous.candidates.dirs {
            self.release(&held.state);
        }
        for Displacing { state, protection, entry } in std::mem::take(&mut extraneous.displacing) {
            let ground = match (&self.actor, verdict) {
                (None, Verdict::Done) => Ground::ToBeMade,
                _ => self.open(&state)?,
            };
            let outcome = self.plan_entry(&state, &ground, &entry)?;
            if !self.take_over(&state, &protection, vec![outcome]) {
                return Ok(());
            }
            self.release(&state);
        }
        Ok(())
    }

    fn step(&self, deletion: Deletion) -> Step<'_> {
        Step {
            deletion,
            action: self.actor.as_ref().map_or(Action::Preview, |actor| Action::Remove(actor.transfer.destination)),
            root: self.root,
            owners: self.owners,
            report: self.report,
            itemize: self.itemize,
            staying: self.there_before.now(),
            backups: &self.backups,
            schedule: self.actor.as_ref().map(|actor| actor.transfer.schedule),
        }
    }

    pub(super) fn look_for_extraneous(&mut self, placed: &[Placed]) -> Result<(), RunError> {
        let Some(extraneous) = &mut self.extraneous else { return Ok(()) };
        for (path, source) in extraneous.look(placed).map_err(cannot_keep)? {
            self.fail(&path, "cannot read directory", source)?;
        }
        Ok(())
    }
}
