//! The vocabulary of fastcp, as types that cannot hold a wrong value.
//!
//! Every other crate speaks in these words. Nothing here does I/O, reads a clock or allocates by a
//! number that somebody else chose: a path is checked when it is made, a range cannot overflow, and
//! a chunk index can be had only from the grid it belongs to.

mod capabilities;
mod entry;
mod grouped;
mod path;
mod range;
mod status;
mod time;

pub mod rules;

pub use capabilities::Capabilities;
pub use entry::{Entry, EntryFailure, EntryKind, Listing, ListingEnd, Metadata, SpecialKind};
pub use grouped::Grouped;
pub use path::{Escaped, NAME_BYTES_MAX, Name, PATH_BYTES_MAX, PathError, RelPath, hex_digit};
pub use range::{ByteRange, CHUNK_KB_DEFAULT, CHUNK_KB_MAX, CHUNK_KB_MIN, ChunkGrid, ChunkIndex, RangeError};
pub use status::Status;
pub use time::Timestamp;

/// The port that a server listens on where none is named.
pub const DEFAULT_PORT: u16 = 9999;

/// Where a receiver keeps its state, at the root of a tree. Never offered.
pub const STATE_DIR: &[u8] = b".fastcp";
/// Whoever works in a destination holds a lock on this file in it.
pub const STATE_LOCK: &[u8] = b"lock";
/// The directory of part files in it.
pub const STATE_PARTS: &[u8] = b"parts";
