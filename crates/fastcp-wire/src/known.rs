//! Batches that need not be sent again: the agreed TREE_CACHE bit.
//!
//! A receiver that kept the batches of an earlier offer names them, by a hash of each payload, before
//! it asks for offers. A batch that comes out the same is then named instead of sent. Who may name files at the
//! source must not be able to make two batches with one name: the mirror would stay as the first one says.

use crate::WireError;
use crate::limits::KNOWN_BATCHES_MAX;
use crate::reader::{Reader, within};
use crate::signature::beginning;

/// The length of a [`BatchId`] in bytes.
pub const BATCH_ID_BYTES: usize = 20;

/// The longest payload of a frame of a receiver once there is a session, in bytes: all the batches that it may know.
pub const RECEIVER_FRAME_BYTES_MAX: usize = 4 + KNOWN_BATCHES_MAX * BATCH_ID_BYTES;

/// The name of a batch: the first 20 bytes of the BLAKE3 of its payload, as it is on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BatchId(pub [u8; BATCH_ID_BYTES]);

impl BatchId {
    /// The id of the payload of an [`crate::frame::FrameType::OfferBatch`] frame.
    pub fn of(payload: &[u8]) -> Self {
        Self(beginning(blake3::hash(payload).as_bytes()))
    }

    /// The payload of an [`crate::frame::FrameType::OfferSame`] frame.
    pub fn encode(self) -> Vec<u8> {
        self.0.to_vec()
    }

    /// Decodes the payload of an [`crate::frame::FrameType::OfferSame`] frame.
    ///
    /// # Errors
    /// A wrong length.
    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(payload);
        let id = Self(reader.array()?);
        reader.finish()?;
        Ok(id)
    }
}

/// The payload of an [`crate::frame::FrameType::OfferKnown`] frame, of at most [`KNOWN_BATCHES_MAX`] ids.
pub fn encode_known(ids: &[BatchId]) -> Vec<u8> {
    let ids = &ids[..ids.len().min(KNOWN_BATCHES_MAX)];
    let mut out = Vec::with_capacity(4 + ids.len() * BATCH_ID_BYTES);
    out.extend_from_slice(&(ids.len() as u32).to_be_bytes());
    out.extend(ids.iter().flat_map(|id| id.0));
    out
}

/// Decodes the payload of an [`crate::frame::FrameType::OfferKnown`] frame.
///
/// # Errors
/// Too many ids, or a broken one.
pub fn decode_known(payload: &[u8]) -> Result<Vec<BatchId>, WireError> {
    let mut reader = Reader::new(payload);
    let count = reader.u32()? as usize;
    within("count", count, KNOWN_BATCHES_MAX)?;
    let ids = (0..count).map(|_| reader.array().map(BatchId)).collect::<Result<_, _>>()?;
    reader.finish()?;
    Ok(ids)
}
