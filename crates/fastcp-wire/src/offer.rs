//! What the receiver asks to be shown, and how an offer ends; its batches are in `batch.rs`.

use fastcp_model::rules::FilterRule;
use fastcp_model::{PATH_BYTES_MAX, RelPath};

use crate::WireError;
use crate::filter_rules::{put_rules, rules};
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

/// The receiver's request for offers. A cursor has its place from the start; this version knows none and sends it empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferRequest {
    /// What is to be offered.
    pub place: Place,
    /// What of it takes part; paths begin where the offer does.
    pub rules: Vec<FilterRule>,
}

impl OfferRequest {
    /// The payload of an [`crate::frame::FrameType::OfferRequest`] frame.
    ///
    /// # Errors
    /// More than [`RULES_BYTES_MAX`](crate::limits::RULES_BYTES_MAX) bytes of rules.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        let mut out = vec![self.place.scope as u8];
        put_short_bytes(&mut out, self.place.path.as_bytes());
        put_rules(&mut out, &self.rules)?;
        out.extend_from_slice(&0u16.to_be_bytes());
        Ok(out)
    }

    /// Decodes the payload.
    ///
    /// # Errors
    /// An unlawful path or rule, an unknown scope, or a cursor, which this version does not know.
    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(payload);
        let scope = Scope::from_code(reader.u8()?)?;
        let path = RelPath::new(reader.short_bytes("path_len", PATH_BYTES_MAX)?)?;
        let rules = rules(&mut reader)?;
        within("cursor_len", usize::from(reader.u16()?), 0)?;
        reader.finish()?;
        Ok(Self { place: Place { path, scope }, rules })
    }
}

impl From<Place> for OfferRequest {
    fn from(place: Place) -> Self {
        Self { place, rules: Vec::new() }
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
