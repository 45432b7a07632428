//! A session with the sender and losing it: dialling, retrying, hanging up; and the one reader of offers.
//!
//! An offer that breaks off is asked for again, and what came twice is told apart here.
//!
//! May import: target.
//! Never plans, and never asks for a byte of a file.

pub(crate) mod connections;
pub(crate) mod first_error;
pub(crate) mod line;
pub(crate) mod listing_order;
pub(crate) mod offer_sum;
pub(crate) mod offers;
pub(crate) mod patience;
pub(crate) mod pipeline;
pub(crate) mod tree_cache;
