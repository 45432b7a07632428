//! Taking an offer off a control connection, batch by batch, to its end.
//!
//! Whoever plans, previews or verifies reads offers here. What the sender says has not changed since the last offer is
//! recalled from the tree cache, where there is one; the reader's batches are the same with and without.

use std::time::Duration;

use fastcp_model::{PATH_BYTES_MAX, PathError, RelPath, Status};
use fastcp_net::{Connection, NetError};
use fastcp_wire::WireError;
use fastcp_wire::frame::{FrameType, encode_frame};
use fastcp_wire::known::{BatchId, encode_known};
use fastcp_wire::offer::{OfferBatch, OfferEnd, OfferRequest};

use crate::error::RunError;
use crate::link::tree_cache::TreeCache;

/// What comes next of an offer.
pub(crate) enum Offered {
    Batch(OfferBatch),
    /// The last of it.
    End(OfferEnd),
}

/// An offer that was asked for and has not ended.
pub(crate) struct Offers<'a> {
    control: &'a Connection,
    path: &'a RelPath,
    base: Base,
    cache: Option<TreeCache<'a>>,
}

impl<'a> Offers<'a> {
    /// Asks for an offer. With a cache, the sender need not repeat what is in it, and it is replaced at the end.
    ///
    /// # Errors
    /// The connection broke.
    pub(crate) fn ask(
        control: &'a Connection,
        request: &'a OfferRequest,
        silence_max: Duration,
        cache: Option<TreeCache<'a>>,
    ) -> Result<Self, RunError> {
        let asked = Self::asked(control, request, silence_max, cache)?;
        control.write_all(&Self::question(request, asked.cache.as_ref())?).map_err(reading)?;
        Ok(asked)
    }

    /// As [`Offers::ask`], where that was done already.
    pub(crate) fn asked(
        control: &'a Connection,
        request: &'a OfferRequest,
        silence_max: Duration,
        cache: Option<TreeCache<'a>>,
    ) -> Result<Self, RunError> {
        control.set_timeouts(Some(silence_max), Some(silence_max)).map_err(reading)?;
        Ok(Self { control, path: &request.path, base: Base(request.base()), cache })
    }

    /// The frames that ask for an offer.
    pub(crate) fn question(request: &OfferRequest, cache: Option<&TreeCache<'_>>) -> Result<Vec<u8>, RunError> {
        let encode =
            |frame_type, payload: &[u8]| encode_frame(frame_type, payload).map_err(|error| reading(error.into()));
        let mut frames = match cache {
            Some(cache) => encode(FrameType::OfferKnown, &encode_known(&cache.known()))?,
            None => Vec::new(),
        };
        frames.extend(encode(FrameType::OfferRequest, &request.encode())?);
        Ok(frames)
    }

    /// Waits for what comes next. After the end nothing does.
    ///
    /// # Errors
    /// [`RunError::Source`] where the sender refuses the path; else the connection broke, or the peer the protocol.
    pub(crate) fn next(&mut self) -> Result<Offered, RunError> {
        let (frame_type, payload) = match self.control.read_frame() {
            Ok(frame) => frame,
            Err(NetError::Refused(status)) if is_about_the_path(status) => {
                return Err(RunError::Source { path: self.path.clone(), status });
            }
            Err(error) => return Err(reading(error)),
        };
        match (frame_type, &mut self.cache) {
            (FrameType::OfferBatch, cache) => {
                let batch = self.base.decode(&payload)?;
                if let Some(cache) = cache.as_mut().filter(|_| !batch.listings.is_empty()) {
                    cache.sent(&payload);
                }
                Ok(Offered::Batch(batch))
            }
            (FrameType::OfferSame, Some(cache)) => {
                let id = BatchId::decode(&payload).map_err(|error| reading(error.into()))?;
                let unknown = || reading(NetError::Offer("a batch that is not known here"));
                self.base.decode(cache.recall(id).ok_or_else(unknown)?).map(Offered::Batch)
            }
            (FrameType::OfferEnd, cache) => {
                let end = OfferEnd::decode(&payload).map_err(|error| reading(error.into()))?;
                if let Some(cache) = cache.take() {
                    cache.finish();
                }
                Ok(Offered::End(end))
            }
            (other, _) => Err(reading(NetError::UnexpectedFrame(other))),
        }
    }
}

/// The directory at the sender that offered paths are relative to.
struct Base(RelPath);

impl Base {
    /// A batch of which every path can be asked for.
    fn decode(&self, payload: &[u8]) -> Result<OfferBatch, RunError> {
        let batch = OfferBatch::decode(payload).map_err(|error| reading(error.into()))?;
        for listing in &batch.listings {
            let longest = listing.entries.iter().map(|entry| entry.name.as_bytes().len()).max();
            let bytes = self.0.join_path(&listing.dir).joined_bytes(longest.unwrap_or(0));
            if bytes > PATH_BYTES_MAX {
                return Err(reading(WireError::Path(PathError::PathTooLong).into()));
            }
        }
        Ok(batch)
    }
}

fn reading(source: NetError) -> RunError {
    RunError::Net { during: "reading offers", source }
}

fn is_about_the_path(status: Status) -> bool {
    !matches!(status, Status::BadRequest | Status::Unauthorised | Status::Busy | Status::TimedOut)
}
