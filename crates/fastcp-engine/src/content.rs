//! Bytes and their sums: CRC-32 and its combinations, hashes, cuts by content, compression, holes.
//!
//! May import: none of the other folders.
//! Knows files as descriptors to read from, and neither paths nor connections.

pub(crate) mod compress;
pub(crate) mod content_hash;
pub(crate) mod crc_runs;
pub(crate) mod cuts;
pub(crate) mod cutter;
pub(crate) mod strong_hash;
pub(crate) mod zeros;
