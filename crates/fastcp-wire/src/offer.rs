//! What the receiver asks to be shown, and how an offer ends; its batches are in `batch.rs`.

use fastcp_model::{PATH_BYTES_MAX, RelPath};

use crate::WireError;
use crate::reader::{Reader, put_short_bytes, within};

mod batch;

pub use batch::{BatchCodec, ENTRY_FIXED_BYTES_MAX, OfferBatch, OwnerClass, OwnerName};

/// Which part of the sender's tree to offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Scope {
    /// What is inside the path: rsync's trailing slash.
    Contents = 0,
    /// The path itself, under its own name.
    Itself = 1,
    /// What is inside the path, but not what is inside that.
    Level = 2,
}

impl Scope {
    pub(crate) fn from_code(code: u8) -> Result<Self, WireError> {
        match code {
            0 => Ok(Self::Contents),
            1 => Ok(Self::Itself),
            2 => Ok(Self::Level),
            other => Err(WireError::Value { field: "scope", value: other.into() }),
        }
    }
}

/// A place in the sender's tree.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// The sub-path, relative to the sender's root.
    pub path: RelPath,
    /// Its contents or itself.
    pub scope: Scope,
}

impl Place {
    /// The directory that offered paths are relative to.
    pub fn base(&self) -> RelPath {
        match (self.scope, self.path.split()) {
            (Scope::Itself, Some((parent, _))) => parent,
            _ => self.path.clone(),
        }
    }
}

/// The receiver's request for offers. Rules and cursor have their place from the start; this version
/// knows none and sends them empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferRequest {
    /// What is to be offered.
    pub place: Place,
}

impl OfferRequest {
    /// The payload of an [`crate::frame::FrameType::OfferRequest`] frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.place.scope as u8];
        put_short_bytes(&mut out, self.place.path.as_bytes());
        out.extend_from_slice(&0u32.to_be_bytes());
        out.extend_from_slice(&0u16.to_be_bytes());
        out
    }

    /// Decodes the payload.
    ///
    /// # Errors
    /// An unlawful path, an unknown scope, or rules or a cursor, which this version does not know.
    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(payload);
        let scope = Scope::from_code(reader.u8()?)?;
        let path = RelPath::new(reader.short_bytes("path_len", PATH_BYTES_MAX)?)?;
        within("rules_len", reader.u32()? as usize, 0)?;
        within("cursor_len", usize::from(reader.u16()?), 0)?;
        reader.finish()?;
        Ok(Self { place: Place { path, scope } })
    }
}

impl From<Place> for OfferRequest {
    fn from(place: Place) -> Self {
        Self { place }
    }
}

/// What the sender says once every listing is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OfferEnd {
    /// Entries offered, the root included.
    pub entries: u64,
    /// Listings that broke and entries that could not be examined.
    pub failures: u64,
}

impl OfferEnd {
    /// The payload of an [`crate::frame::FrameType::OfferEnd`] frame.
    pub fn encode(&self) -> Vec<u8> {
        [self.entries.to_be_bytes(), self.failures.to_be_bytes()].concat()
    }

    /// Decodes the payload.
    ///
    /// # Errors
    /// A wrong length.
    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(payload);
        let end = Self { entries: reader.u64()?, failures: reader.u64()? };
        reader.finish()?;
        Ok(end)
    }
}
