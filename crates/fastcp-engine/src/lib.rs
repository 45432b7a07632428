//! Both roles of a transfer.
//!
//! The sender scans, offers and answers ranges; the receiver plans, schedules, fetches, verifies and
//! commits. The receiver drives: every byte that moves was asked for by a want that it made, and all
//! state of a transfer is the receiver's. Nothing here knows which side dialled, prints, or reads
//! arguments: settings come in, a [`Report`] goes out.

mod answer;
mod compress;
mod crc_runs;
mod inbox;
mod offer;
mod plain;
mod scan;
mod served;
mod server;
mod settings;
mod source;

pub use server::Server;
pub use settings::{COMPRESS_LEVEL_DEFAULT, Compression, PlainCrc, ReceivePath, ReceiverSettings, ServerSettings};
pub use source::Source;
