//! The receiver on the control connection: it takes the offer, and asks again for what has changed since.
//!
//! A connection that is lost in the middle of an offer is made anew and the offer is asked for once more: what
//! was planned already is passed over. When the offer has ended and all else is done, files that changed
//! between offer and last byte are offered again, a few times, each time a little later: a file that never
//! rests is given up.

use std::sync::Arc;

use fastcp_model::{Capabilities, Entry, Status};
use fastcp_net::{Backoff, NetError, Session};
use fastcp_wire::frame::FrameType;
use fastcp_wire::known::{BatchId, encode_known};
use fastcp_wire::offer::{OfferBatch, OfferEnd, OfferRequest, Scope};

use crate::error::RunError;
use crate::job::FileJob;
use crate::patience::Patience;
use crate::plan::Planner;
use crate::report::Cause;
use crate::transfer::Transfer;
use crate::tree_cache::TreeCache;

/// A file that changes while it is fetched is offered again this often.
pub(crate) const OFFERED_AGAIN_MAX: u32 = 3;

pub(crate) struct Control<'a> {
    transfer: &'a Transfer<'a>,
    session: Arc<Session>,
    planner: Planner<'a>,
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
            self.cache = None;
            self.planner.replay();
            self.session = self.transfer.line.renew(&mut self.patience, during, source)?;
        }
    }

    /// The end of the offer; `None` where the run was stopped before.
    fn take_offer(&mut self, request: &OfferRequest) -> Result<Option<OfferEnd>, RunError> {
        self.set_timeouts()?;
        if let Some(cache) = &self.cache {
            self.send(FrameType::OfferKnown, &encode_known(&cache.known()))?;
        }
        self.send(FrameType::OfferRequest, &request.encode())?;
        loop {
            let (frame_type, payload) = match self.session.control.read_frame() {
                Ok(frame) => frame,
                Err(NetError::Refused(status)) if is_about_the_path(status) => {
                    return Err(RunError::Source { path: request.path.clone(), status });
                }
                Err(error) => return Err(reading_offers(error)),
            };
            match frame_type {
                FrameType::OfferBatch => {
                    let batch = decode_batch(&payload)?;
                    if let Some(cache) = self.cache.as_mut().filter(|_| !batch.listings.is_empty()) {
                        cache.sent(&payload);
                    }
                    self.planner.plan(batch)?;
                }
                FrameType::OfferSame => {
                    let id = BatchId::decode(&payload).map_err(|error| reading_offers(error.into()))?;
                    let payload = self.cache.as_mut().and_then(|cache| cache.recall(id));
                    let unknown = || reading_offers(NetError::Offer("a batch that is not known here"));
                    self.planner.plan(decode_batch(payload.ok_or_else(unknown)?)?)?;
                }
                FrameType::OfferEnd => {
                    let end = OfferEnd::decode(&payload).map_err(|error| reading_offers(error.into()))?;
                    if let Some(cache) = self.cache.take() {
                        cache.finish();
                    }
                    return Ok(Some(end));
                }
                other => return Err(reading_offers(NetError::UnexpectedFrame(other))),
            }
            if self.transfer.schedule.is_stopped() {
                return Ok(None);
            }
        }
    }

    /// The job for a file as it is now; `None` where it has failed, or is here already.
    fn offer_anew(&mut self, job: &Arc<FileJob>) -> Result<Option<Arc<FileJob>>, RunError> {
        let path = self.transfer.path_at_sender(job.path());
        let request = OfferRequest { path: path.clone(), scope: Scope::Itself };
        self.set_timeouts()?;
        self.send(FrameType::OfferRequest, &request.encode())?;
        let mut found = None;
        let status = loop {
            match self.session.control.read_frame() {
                Ok((FrameType::OfferBatch, payload)) => {
                    let batch = decode_batch(&payload)?;
                    found = found.or(self.entry_of(job, batch));
                }
                Ok((FrameType::OfferEnd, _)) => break Status::Changed,
                Ok((other, _)) => return Err(reading_offers(NetError::UnexpectedFrame(other))),
                Err(NetError::Refused(status)) if is_about_the_path(status) => break status,
                Err(error) => return Err(reading_offers(error)),
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

    fn set_timeouts(&self) -> Result<(), RunError> {
        let silence_max = Some(self.transfer.line.silence_max());
        self.session.control.set_timeouts(silence_max, silence_max).map_err(reading_offers)
    }

    fn send(&self, frame_type: FrameType, payload: &[u8]) -> Result<(), RunError> {
        self.session.control.write_frame(frame_type, payload).map_err(reading_offers)
    }
}

fn decode_batch(payload: &[u8]) -> Result<OfferBatch, RunError> {
    OfferBatch::decode(payload).map_err(|error| reading_offers(error.into()))
}

fn reading_offers(source: NetError) -> RunError {
    RunError::Net { during: "reading offers", source }
}

pub(crate) fn is_about_the_path(status: Status) -> bool {
    !matches!(status, Status::BadRequest | Status::Unauthorised | Status::Busy | Status::TimedOut)
}
