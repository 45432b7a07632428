//! The receiver on the control connection: it takes the offer, and asks again for what has changed since.
//!
//! A connection that is lost in the middle of an offer is made anew and the offer is asked for once more: what
//! was planned already is passed over. When the offer has ended and all else is done, files that changed
//! between offer and last byte are offered again, a few times, each time a little later: a file that never
//! rests is given up.

use std::sync::Arc;

use fastcp_model::{Entry, Listing, ListingEnd, Status};
use fastcp_net::{Backoff, Session};
use fastcp_wire::offer::{OfferBatch, OfferEnd, OfferRequest, Place, Scope};

use crate::commit::transfer::Transfer;
use crate::error::RunError;
use crate::link::line::Nth;
use crate::link::offers::{Offered, Offers};
use crate::link::tree_cache::TreeCache;
use crate::plan::Planner;
use crate::report::Cause;
use crate::schedule::job::FileJob;

pub(crate) struct Control<'a> {
    transfer: &'a Transfer<'a>,
    planner: Planner<'a>,
    /// For the first attempt alone: an offer that comes in pieces is not remembered.
    cache: Option<TreeCache<'a>>,
}

impl<'a> Control<'a> {
    /// Where the offer was asked for already, with what is in `cache`.
    pub(crate) fn new(transfer: &'a Transfer<'a>, cache: Option<TreeCache<'a>>) -> Self {
        Self { transfer, planner: Planner::new(transfer), cache }
    }

    /// Takes the offer, and offers anew until nothing changes any more or has changed too often.
    pub(crate) fn run(mut self, request: &OfferRequest) -> Result<(), RunError> {
        let line = self.transfer.line;
        let mut patience = line.patience();
        let end = line.on_session(&mut patience, |session, nth| self.take_offer(session, nth, request))?;
        let schedule = self.transfer.schedule;
        let Some(end) = end else { return Ok(()) };
        self.planner.finish(&end)?;
        self.transfer.report.set_scan_done();
        schedule.release();
        let mut backoff = Backoff::default();
        while let Some(moved) = schedule.wait_for_moved() {
            schedule.pause(backoff.next_wait());
            for job in moved {
                let again = line.on_session(&mut patience, |session, nth| self.offer_anew(session, nth, &job))?;
                schedule.offered_anew(again);
            }
        }
        schedule.close();
        Ok(())
    }

    /// The end of the offer; `None` where the run was stopped before.
    fn take_offer(
        &mut self,
        session: &Session,
        nth: Nth,
        request: &OfferRequest,
    ) -> Result<Option<OfferEnd>, RunError> {
        self.begin(session, nth);
        let silence_max = self.transfer.line.silence_max();
        let mut offers = Offers::asked_ahead(nth, &session.control, request, silence_max, self.cache.take())?;
        while !self.transfer.schedule.is_stopped() {
            match offers.next()? {
                Offered::Batch(batch) => {
                    let is_selection = |listing: &Listing| listing.dir.is_root() && listing.end == ListingEnd::Selected;
                    if batch.listings.iter().any(is_selection) {
                        self.transfer.report.run.set_selected();
                    }
                    self.planner.plan(batch)?;
                }
                Offered::End(end) => return Ok(Some(end)),
            }
        }
        Ok(None)
    }

    /// The job for a file as it is now; `None` where it has failed, or is here already.
    fn offer_anew(
        &mut self,
        session: &Session,
        nth: Nth,
        job: &Arc<FileJob>,
    ) -> Result<Option<Arc<FileJob>>, RunError> {
        self.begin(session, nth);
        let path = self.transfer.path_at_sender(&job.path());
        // By name: the rules of the run have let it pass.
        let request = Place { path: path.clone(), scope: Scope::Itself }.into();
        let mut offers = Offers::ask(&session.control, &request, self.transfer.line.silence_max(), None)?;
        let mut found = None;
        let status = loop {
            match offers.next() {
                Ok(Offered::Batch(batch)) => found = found.or(self.entry_of(job, batch)),
                Ok(Offered::End(_)) => break Status::Changed,
                Err(RunError::Source { status, .. }) => break status,
                Err(error) => return Err(error),
            }
        };
        if job.offered_by() != session.source && !found.as_ref().is_some_and(|entry| job.is_version_of(entry)) {
            // Who has offered it is gone, and nobody knows whether this is a later version or an older one.
            let name_of = |source| self.transfer.line.name_of(source);
            let cause = Cause::OtherVersion { offered: name_of(job.offered_by()), asked: name_of(session.source) };
            self.transfer.fail(job, cause);
            return Ok(None);
        }
        match found {
            Some(entry) => self.planner.plan_again(job, entry).map(|again| again.map(Arc::new)),
            None => {
                self.transfer.fail(job, Cause::Source(status));
                Ok(None)
            }
        }
    }

    /// What came of an offer that broke off is planned; the next one begins from the start.
    fn begin(&mut self, session: &Session, nth: Nth) {
        self.planner.of_source(session.source);
        self.transfer.schedule.set_lead(self.transfer.line.lead());
        if nth == Nth::Again {
            self.planner.replay();
        }
    }

    /// The entry of the file that was asked for, if it still is one.
    fn entry_of(&self, job: &FileJob, batch: OfferBatch) -> Option<Entry> {
        for owner in &batch.owners {
            // Beyond the bound ids go by their numbers.
            let _ = self.transfer.owners.learn(owner);
        }
        let root = batch.listings.into_iter().find(|listing| listing.dir.is_root())?;
        root.entries.into_iter().find(|entry| entry.name == job.name)
    }
}
