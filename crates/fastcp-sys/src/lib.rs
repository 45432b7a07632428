//! The operating system calls that fastcp needs, and the only crate that may say `unsafe`.
//!
//! - [`Root`] and [`Dir`]: every access to a tree beneath one descriptor, no link followed.
//! - [`typed_path`]: paths that the user typed, whose links are followed where they are trusted.
//! - [`Stat`] and [`metadata`]: what is known of an entry, and setting it on a held descriptor.
//! - [`transfer`]: sendfile and splice, with results that cannot be misread.
//! - [`mod@file`]: positioned reads, preallocation, holes.
//! - [`FileBytes`]: the bytes of a file of our own, mapped where that is safe.
//! - [`SyncHandle`]: making what was written survive a power cut.
//! - [`resolve`]: the addresses of a name.
//! - [`names`]: who is asked for names.
//! - [`tcp`]: what holds a connection back.
//! - [`memory`]: an allocator that says when there is none left.
//! - [`counts`]: with the feature of that name, how much the program allocates and locks.
//! - [`process`]: limits and identity of this process.
//! - [`terminal`]: how wide it is.
//! - [`scarce`]: waiting for descriptors.
//! - `tun`, a feature: packet devices and the namespaces they live in, for the benchmarks.
//!
//! Nothing here knows of protocols, plans or policies.

pub mod counts;
pub mod file;
pub mod memory;
pub mod metadata;
pub mod names;
pub mod process;
pub mod resolve;
pub mod scarce;
pub mod tcp;
pub mod terminal;
pub mod transfer;
#[cfg(feature = "tun")]
pub mod tun;
pub mod typed_path;

mod dir;
mod file_bytes;
mod file_system;
mod lease;
mod root;
mod stat;
mod sync;

pub use dir::{Dir, ReadNames};
pub use file_bytes::FileBytes;
pub use file_system::FileSystem;
pub use root::Root;
pub use stat::{FileType, Identity, Stat, Volume};
pub use sync::{SyncHandle, WholeSync};
