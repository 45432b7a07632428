//! From verified bytes to a name: what all connections of a transfer share, the end of each file, groups that are synced
//! together, and what earlier runs left.
//!
//! May import: schedule, link, manifest, target, content.
//! Never asks the sender for anything.

pub(crate) mod group;
pub(crate) mod landing;
pub(crate) mod leftover;
pub(crate) mod transfer;
