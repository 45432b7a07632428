//! Both roles of a transfer.
//!
//! The sender scans, offers and answers ranges; the receiver plans, schedules, fetches, verifies and
//! commits. The receiver drives: every byte that moves was asked for by a want that it made, and all
//! state of a transfer is the receiver's. Nothing here knows which side dialled, prints, or reads
//! arguments: settings come in, a [`Report`] goes out.

mod adapt;
mod answer;
mod attributes;
mod body;
mod compress;
mod content_hash;
mod crc_runs;
mod destination;
mod difference;
mod dirs;
mod error;
mod fetch;
mod get;
mod group;
mod inbox;
mod job;
mod landing;
mod listing_order;
mod manifest;
mod offer;
mod owners;
mod part;
mod plain;
mod plan;
mod processor;
mod read_back;
mod receive_path;
mod receiver;
mod report;
mod scan;
mod schedule;
mod served;
mod server;
mod settings;
mod share;
mod shared;
mod source;
mod strong_hash;
mod tree_cache;
mod tune;
mod verify;
mod want;

pub use content_hash::ManifestHash;
pub use difference::Difference;
pub use error::RunError;
pub use get::{GetError, GetSettings, Got, get};
pub use manifest::{ManifestError, ManifestWriter, verify_manifest};
pub use receiver::pull;
pub use report::{Cause, Count, Counters, Event, Limit, Report};
pub use server::Server;
pub use settings::{
    Compression, Connections, Durability, PlainCrc, ReceivePath, ReceiverSettings, ServerSettings, VerifyOver,
};
pub use source::Source;
pub use verify::verify;

pub use fastcp_sys::process::raise_descriptor_limit;
