//! Both roles of a transfer.
//!
//! The sender scans, offers and answers ranges; the receiver plans, schedules, fetches, verifies and
//! commits. The receiver drives: every byte that moves was asked for by a want that it made, and all
//! state of a transfer is the receiver's. Nothing here knows which side dialled, prints, or reads
//! arguments: settings come in, a [`Report`] goes out.

mod breaks;
mod budget;
mod commit;
mod content;
mod difference;
mod error;
mod fetch;
mod filter;
mod interrupt;
mod link;
mod lock;
mod manifest;
mod plan;
mod processor;
mod report;
mod reuse;
mod run;
mod run_state;
mod schedule;
mod sender;
mod settings;
mod target;
mod threads;
mod verify;

/// For fuzz targets only: what holds of any bytes that an earlier run left, and whatever a peer says. Each function works in a
/// directory of its own.
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::link::tree_cache::fuzzing::tree_cache;
    pub use crate::manifest::check::fuzzing::manifest;
    pub use crate::settings::orders::fuzzing::settings;
    pub use crate::target::journal::fuzzing::journal;
    pub use hostile::{receiver, server};

    mod hostile;

    #[cfg(test)]
    pub(crate) use tests::mutated;

    #[cfg(test)]
    mod tests;
}

pub use budget::{Allowance, Limited, Limits, Resource, Served};
pub use difference::Difference;
pub use error::{BackupProblem, Ending, ManifestError, RunError};
pub use interrupt::Interrupt;
pub use manifest::verify_manifest;
pub use report::{Cause, Count, Counters, Event, Item, ItemKind, Limit, Refusal, Report, SourceReport};
pub use run::drop::{DropError, Dropped, drop_file};
pub use run::get::{GetError, GetOutput, GetSettings, Got, Kept, get};
pub use run::inbox::Inbox;
pub use run::list::{list, list_path};
pub use run::pull::Pull;
pub use run::push::Push;
pub use run::server::{SERVER_LOG_TARGET, Server};
pub use sender::source::Source;
pub use settings::{
    CONNECTIONS_DEFAULT, Compression, Connections, Deletion, Delta, Durability, EmptySource, Itemize, LinkSettings,
    ManifestFile, ManifestHash, MaxDelete, OFFER_BYTES_DEFAULT, Placement, PlainCrc, ProcessSettings, RETRY_DEFAULT,
    ReceivePath, ReceiverSettings, Recording, SUMS_MAX, ServerSettings, SetUid, SizeLimits, VerifyOver, Writes,
};
pub use threads::{STACK_BYTES, start_pool};
pub use verify::verify;

pub use fastcp_net::{ConnectionSource, Dialer, Endpoint, Replicas, SOURCES_MAX};
#[cfg(feature = "counts")]
pub use fastcp_sys::counts;
pub use fastcp_sys::memory::{ExitingAllocator, OUT_OF_MEMORY, exit_if_none_is_left, share_heap_where_limited};
pub use fastcp_sys::names::ask_built_in_services;
pub use fastcp_sys::process::{
    end_process, host_name, ignore_file_size_signal, raise_descriptor_limit, spawn_companion, take_variable, user,
};
pub use fastcp_sys::scarce::is_exhaustion;
pub use fastcp_sys::terminal::columns as terminal_columns;
