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
use crate::link::line::Nth;
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
        let offers = Self::to_come(control, request, silence_max, cache)?;
        control.write_all(&Self::question(request, offers.cache.as_ref())?).map_err(reading)?;
        Ok(offers)
    }

    /// An offer that was asked for with the greeting of the run's first session; on any other it is asked for now.
    ///
    /// # Errors
    /// As [`Offers::ask`].
    pub(crate) fn asked_ahead(
        nth: Nth,
        control: &'a Connection,
        request: &'a OfferRequest,
        silence_max: Duration,
        cache: Option<TreeCache<'a>>,
    ) -> Result<Self, RunError> {
        match nth {
            Nth::First => Self::to_come(control, request, silence_max, cache),
            Nth::Again => Self::ask(control, request, silence_max, cache),
        }
    }

    fn to_come(
        control: &'a Connection,
        request: &'a OfferRequest,
        silence_max: Duration,
        cache: Option<TreeCache<'a>>,
    ) -> Result<Self, RunError> {
        control.set_timeouts(Some(silence_max), Some(silence_max)).map_err(reading)?;
        Ok(Self { control, path: &request.place.path, base: Base(request.place.base()), cache })
    }

    /// The frames that ask for an offer.
    pub(crate) fn question(request: &OfferRequest, cache: Option<&TreeCache<'_>>) -> Result<Vec<u8>, RunError> {
        let encode =
            |frame_type, payload: &[u8]| encode_frame(frame_type, payload).map_err(|error| reading(error.into()));
        let mut frames = match cache {
            Some(cache) => encode(FrameType::OfferKnown, &encode_known(&cache.known()))?,
            None => Vec::new(),
        };
        frames.extend(encode(FrameType::OfferRequest, &request.encode().map_err(|error| reading(error.into()))?)?);
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
            let dir = self.0.join_path(&listing.dir);
            let longest = listing.entries.iter().map(|entry| entry.name.as_bytes().len()).max();
            if longest.map_or(dir.is_too_long(), |name| dir.joined_bytes(name) > PATH_BYTES_MAX) {
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

#[cfg(test)]
mod tests {
    use fastcp_model::{Entry, EntryKind, Listing, ListingEnd, Metadata, Name, PATH_BYTES_MAX, RelPath, Timestamp};
    use fastcp_wire::offer::{BatchCodec, OfferBatch};

    use super::Base;

    fn path(bytes: usize) -> RelPath {
        let last = if bytes.is_multiple_of(2) { "yz" } else { "y" };
        RelPath::new(("x/".repeat((bytes - 1) / 2) + last).as_bytes()).expect("lawful")
    }

    /// Whether a directory may be offered below `base` whose only entry, if it has one, has a name of so many bytes.
    fn is_taken(base: RelPath, dir_bytes: usize, name_bytes: usize) -> bool {
        let metadata = Metadata { mode: 0o755, uid: 0, gid: 0, mtime: Timestamp::default() };
        let name = (name_bytes > 0).then(|| Name::new(&b"n".repeat(name_bytes)).expect("lawful"));
        let entries = name.into_iter().map(|name| Entry { name, kind: EntryKind::Dir, metadata }).collect();
        let (dir, failures, end) = (path(dir_bytes), Vec::new(), ListingEnd::Complete);
        let listings = vec![Listing { dir, root: None, entries, failures, end }];
        let batch = OfferBatch { owners: Vec::new(), listings }.encode(BatchCodec::Raw).expect("lawful");
        Base(base).decode(&batch).is_ok()
    }

    #[test]
    fn every_path_that_is_offered_can_be_asked_for() {
        let root = RelPath::root;
        assert!(is_taken(root(), PATH_BYTES_MAX, 0), "an empty directory as deep as can be");
        assert!(!is_taken(root(), PATH_BYTES_MAX, 1));
        assert!(is_taken(root(), PATH_BYTES_MAX - 3, 2) && !is_taken(root(), PATH_BYTES_MAX - 3, 3));
        assert!(is_taken(path(3), PATH_BYTES_MAX - 4, 0) && !is_taken(path(3), PATH_BYTES_MAX - 3, 0));
        assert!(is_taken(path(3), PATH_BYTES_MAX - 9, 4) && !is_taken(path(3), PATH_BYTES_MAX - 9, 5));
    }
}
