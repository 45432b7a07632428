//! The sender: scan, offer, answer.
//!
//! Owns the tree that is served and what is remembered of it (listings that sessions share, checksums, signatures). Keeps no
//! state of a receiver beyond the offer that it is streaming.
//!
//! May import: content, filter.
//! Never writes to the tree, and knows nothing of receivers but their requests.

pub(crate) mod adapt;
pub(crate) mod answer;
mod names;
pub(crate) mod offer;
mod offer_memory;
pub(crate) mod plain;
pub(crate) mod scan;
mod selection;
pub(crate) mod served;
pub(crate) mod shared;
pub(crate) mod signature;
pub(crate) mod source;
mod sums;
mod tree;
pub(crate) mod views;
