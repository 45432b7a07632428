//! The sender: scan, offer, answer.
//!
//! Owns the tree that is served and what is remembered of it (listings that sessions share, checksums, signatures). May
//! import `content`. Knows nothing of receivers but their requests, keeps no state of one beyond the offer that it is
//! streaming, and never writes to the tree.

pub(crate) mod adapt;
pub(crate) mod answer;
pub(crate) mod offer;
pub(crate) mod plain;
pub(crate) mod scan;
pub(crate) mod served;
pub(crate) mod shared;
pub(crate) mod signature;
pub(crate) mod source;
