//! What is told as it happens.

use std::time::Duration;

use fastcp_model::{RelPath, SpecialKind};

use crate::budget::Limited;
use crate::difference::Difference;
use crate::report::{Cause, Item, Refusal};

/// Something worth telling as it happens.
#[derive(Debug)]
pub enum Event {
    /// An entry could not be brought over.
    Failed {
        /// Relative to the destination.
        path: RelPath,
        /// Why.
        cause: Cause,
    },
    /// An entry is not what it should be.
    Differs {
        /// Relative to the destination.
        path: RelPath,
        /// In which way.
        what: Difference,
    },
    /// A device, pipe or socket was passed over.
    Skipped {
        /// Relative to the destination.
        path: RelPath,
        /// What it is.
        kind: SpecialKind,
    },
    /// A file has its content, and its name. Told where it was asked for.
    Committed {
        /// Relative to the destination.
        path: RelPath,
        /// The length of the file.
        bytes: u64,
    },
    /// An entry changes, or would.
    Item(Item),
    /// Nothing is deleted, though deletion was asked for.
    NotDeleting(Refusal),
    /// One of several sources has something else under this name than the first, and is not asked for it any more.
    Disagrees {
        /// Relative to the destination.
        path: RelPath,
        /// Which source.
        source: String,
    },
    /// The one of several sources that decided what is right cannot be reached, and another one decides from now on.
    SourceLost {
        /// The one that was lost.
        lost: String,
        /// The one that decides now.
        lead: String,
    },
    /// A line for the manifest that the other end keeps.
    Recorded(Vec<u8>),
    /// What the system allows is less than was asked for.
    Limited(Limited),
    /// Nothing answers; trying again.
    Retrying {
        /// Who is waited for.
        address: String,
        /// What is the matter with them, in few words.
        reason: String,
        /// What went wrong.
        error: String,
        /// How long until the next attempt.
        wait: Duration,
        /// For how long there has been no progress.
        failing: Duration,
        /// How long it will be tried without any.
        left: Duration,
    },
}
