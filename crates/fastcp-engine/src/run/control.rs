//! The receiver on the control connection: it takes the offer, and asks again for what has changed since.
//!
//! A connection that is lost in the middle of an offer is made anew and the offer is asked for once more: what
//! was planned already is passed over. When the offer has ended and all else is done, files that changed
//! between offer and last byte are offered again, a few times, each time a little later: a file that never
//! rests is given up.

use std::sync::Arc;

use fastcp_model::{Capabilities, Entry, Status};
use fastcp_net::{Backoff, Session};
use fastcp_wire::offer::{OfferBatch, OfferEnd, OfferRequest, Scope};

use crate::commit::transfer::Transfer;
use crate::error::RunError;
use crate::link::offers::{Offered, Offers};
use crate::link::patience::Patience;
use crate::link::tree_cache::TreeCache;
use crate::plan::Planner;
use crate::report::Cause;
use crate::schedule::job::FileJob;

pub(crate) struct Control<'a> {
    transfer: &'a Transfer<'a>,
    session: Arc<Session>,
    planner: Planner<'a>,
    /// For the first attempt alone: an offer that comes in pieces is not remembered.
    cache: Option<TreeCache<'a>>,
    patience: Patience<'a>,
}

impl<'a> Control<'a> {
    pub(crate) fn new(transfer: &'a Transfer<'a>) -> Self {
        Self {
            transfer,
            session: transfer.line.session(),
            planner: Planner::new(transfer),
            cache: transfer.agrees(Capabilities::TREE_CACHE).then(|| TreeCache::open(transfer.destination)),
            patience: transfer.line.patience(),
        }
    }

    /// Takes the offer, and offers anew until nothing changes any more or has changed too often.
    pub(crate) fn run(mut self, request: &OfferRequest) -> Result<(), RunError> {
        let end = self.persist(|control| control.take_offer(request))?;
        let schedule = self.transfer.schedule;
        let Some(end) = end else { return Ok(()) };
        self.planner.finish(&end)?;
        self.transfer.report.set_scan_done();
        schedule.release();
        let mut backoff = Backoff::default();
        while let Some(moved) = schedule.wait_for_moved() {
            schedule.pause(backoff.next_wait());
            for job in moved {
                let again = self.persist(|control| control.offer_anew(&job))?;
                schedule.offered_anew(again);
            }
        }
        schedule.close();
        Ok(())
    }

    /// Tries until it succeeds, on a new session each time, or until nothing has got on for too long.
    fn persist<T>(&mut self, mut attempt: impl FnMut(&mut Self) -> Result<T, RunError>) -> Result<T, RunError> {
        loop {
            let (during, source) = match attempt(self) {
                Err(RunError::Net { during, source }) if source.is_transient() => (during, source),
                result => return result,
            };
            // What came of this offer is planned; the next one begins from the start.
            self.planner.replay();
            self.session = self.transfer.line.renew(&mut self.patience, during, source)?;
        }
    }

    /// The end of the offer; `None` where the run was stopped before.
    fn take_offer(&mut self, request: &OfferRequest) -> Result<Option<OfferEnd>, RunError> {
        let session = Arc::clone(&self.session);
        let silence_max = self.transfer.line.silence_max();
        let mut offers = Offers::ask(&session.control, request, silence_max, self.cache.take())?;
        while !self.transfer.schedule.is_stopped() {
            match offers.next()? {
                Offered::Batch(batch) => self.planner.plan(batch)?,
                Offered::End(end) => return Ok(Some(end)),
            }
        }
        Ok(None)
    }

    /// The job for a file as it is now; `None` where it has failed, or is here already.
    fn offer_anew(&mut self, job: &Arc<FileJob>) -> Result<Option<Arc<FileJob>>, RunError> {
        let path = self.transfer.path_at_sender(job.path());
        let request = OfferRequest { path: path.clone(), scope: Scope::Itself };
        let session = Arc::clone(&self.session);
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
        match found {
            Some(entry) => self.planner.plan_again(job, &entry).map(|again| again.map(Arc::new)),
            None => {
                self.transfer.fail(job, Cause::Source(status));
                Ok(None)
            }
        }
    }

    /// The entry of the file that was asked for, if it still is one.
    fn entry_of(&self, job: &FileJob, batch: OfferBatch) -> Option<Entry> {
        for owner in &batch.owners {
            self.transfer.owners.learn(owner);
        }
        let root = batch.listings.into_iter().find(|listing| listing.dir.is_root())?;
        root.entries.into_iter().find(|entry| entry.name == job.name)
    }
}
