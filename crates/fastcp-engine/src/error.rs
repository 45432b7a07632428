//! What ends a whole transfer. What ends one file only is a [`crate::Cause`].

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use fastcp_model::{Escaped, RelPath, Status};
use fastcp_net::NetError;
use fastcp_sys::scarce::is_exhaustion;

use crate::budget::Limited;

/// Why a transfer ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Nothing answered in the time given.
    #[error("no answer from {address} within {seconds} s: {source}")]
    NoAnswer {
        /// Who was dialled.
        address: String,
        /// The time given.
        seconds: u64,
        /// The last attempt's failure.
        source: NetError,
    },
    /// The connection failed, or the peer broke the protocol.
    #[error("{during}: {source}")]
    Net {
        /// What was being done.
        during: &'static str,
        /// What happened.
        source: NetError,
    },
    /// The manifest cannot be used, or not any more.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// What was asked for is not there.
    #[error("cannot read \"{path}\" at the source: {status}")]
    Source {
        /// The path asked for.
        path: RelPath,
        /// Why not.
        status: Status,
    },
    /// The transfer was asked to end.
    #[error("interrupted")]
    Interrupted,
    /// Somebody else is at work in the destination.
    #[error("\"{path}\" is in use by another run of fastcp")]
    Locked {
        /// The destination.
        path: String,
    },
    /// The destination cannot be used at all.
    #[error("cannot use \"{path}\" as the destination: {source}")]
    NoDestination {
        /// The destination.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// The directory to verify cannot be opened.
    #[error("cannot verify \"{path}\": {source}")]
    NotVerifiable {
        /// The directory.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// The backup directory cannot be used.
    #[error("cannot use \"{path}\" as the backup directory: {problem}")]
    Backup {
        /// The backup directory.
        path: String,
        /// Why not.
        problem: BackupProblem,
    },
    /// The system allows less than any run needs.
    #[error("{0}")]
    TooLittle(Limited),
    /// The system has no more threads, descriptors or memory for this process.
    #[error("cannot {operation}: {source}; see ulimit -a")]
    Exhausted {
        /// What was tried.
        operation: &'static str,
        /// What came of it.
        source: io::Error,
    },
    /// The receiver, elsewhere, has ended the run.
    #[error("{}", Escaped(text.as_bytes()))]
    AtReceiver {
        /// Of which kind the reason is.
        ending: Ending,
        /// The reason, in the receiver's words.
        text: String,
    },
    /// The destination cannot take any more.
    #[error("cannot {operation} \"{path}\": {source}")]
    Destination {
        /// What was tried.
        operation: &'static str,
        /// Where; the destination itself or a path in it.
        path: String,
        /// What came of it.
        source: io::Error,
    },
}

/// Of which kind the reason for the end of a run is, for whoever is told of it from elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Ending {
    /// None of these.
    Other = 1,
    /// A peer that did not answer in time.
    NoAnswer = 2,
    /// A connection that failed.
    Net = 3,
    /// What was asked for is not there.
    Source = 4,
    /// It was asked to end.
    Interrupted = 5,
    /// Somebody else is at work in the destination.
    Locked = 6,
    /// The destination, or the backup directory, cannot be used.
    NoDestination = 7,
    /// The backup directory must not be used.
    Backup = 8,
    /// Too few descriptors, threads, or too little memory.
    Resources = 9,
    /// The destination cannot take any more.
    Destination = 10,
}

impl Ending {
    const ALL: [Self; 10] = [
        Self::Other,
        Self::NoAnswer,
        Self::Net,
        Self::Source,
        Self::Interrupted,
        Self::Locked,
        Self::NoDestination,
        Self::Backup,
        Self::Resources,
        Self::Destination,
    ];

    /// Its number on the wire; 0 is for a run that came to its end.
    pub(crate) fn code(self) -> u8 {
        self as u8
    }

    /// The ending with this number, if it is one.
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|ending| ending.code() == code)
    }
}

/// Why a directory cannot take backups.
#[derive(Debug, thiserror::Error)]
pub enum BackupProblem {
    /// It is the destination, or the destination is in it: a backup could replace what was copied.
    #[error("it contains the destination")]
    HoldsDestination,
    /// It is named as a directory below the destination and is not one.
    #[error("it is reached through a symbolic link in the destination")]
    Link,
    /// It is in fastcp's own directory, which may be removed at any time.
    #[error("it is inside .fastcp, which may be removed at any time")]
    State,
    /// It cannot be opened or made.
    #[error("{0}")]
    Io(io::Error),
}

/// A manifest that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file system said no.
    #[error("cannot {operation} the manifest \"{path}\": {source}")]
    File {
        /// What was tried.
        operation: &'static str,
        /// The manifest.
        path: String,
        /// What came of it.
        source: io::Error,
    },
    /// The file is something else; it is left as it is.
    #[error("\"{0}\" is not a manifest")]
    NotAManifest(String),
    /// A version that is not known here.
    #[error("the manifest \"{path}\" has version {version}; this program supports version 1")]
    Version {
        /// The manifest.
        path: String,
        /// Its version.
        version: String,
    },
    /// A hash that is not known here.
    #[error("the manifest \"{path}\" has {hash} hashes; this program supports blake3, sha256 and xxh3-128")]
    UnknownHash {
        /// The manifest.
        path: String,
        /// What it has.
        hash: String,
    },
    /// Two hashes in one manifest would be of no use.
    #[error("the manifest \"{path}\" uses {has} hashes; {wanted} records cannot be added")]
    OtherHash {
        /// The manifest.
        path: String,
        /// What it has.
        has: &'static str,
        /// What was wanted.
        wanted: &'static str,
    },
    /// Files have their names whose records were lost with the receiver that made them.
    #[error("the manifest \"{0}\" may lack files that were copied before the server was started again")]
    Incomplete(String),
    /// Another run appends to it.
    #[error("the manifest \"{0}\" is in use by another run")]
    Busy(String),
}

impl RunError {
    /// Of which kind it is.
    pub fn ending(&self) -> Ending {
        match self {
            Self::NoAnswer { .. } => Ending::NoAnswer,
            Self::Net { .. } => Ending::Net,
            Self::Source { .. } => Ending::Source,
            Self::Interrupted => Ending::Interrupted,
            Self::Locked { .. } => Ending::Locked,
            Self::NoDestination { source, .. } | Self::Destination { source, .. } if is_exhaustion(source) => {
                Ending::Resources
            }
            Self::NoDestination { .. } => Ending::NoDestination,
            Self::Destination { .. } => Ending::Destination,
            Self::Backup { problem: BackupProblem::Io(_), .. } => Ending::NoDestination,
            Self::Backup { .. } => Ending::Backup,
            Self::TooLittle(_) | Self::Exhausted { .. } => Ending::Resources,
            Self::Manifest(_) | Self::NotVerifiable { .. } => Ending::Other,
            Self::AtReceiver { ending, .. } => *ending,
        }
    }

    /// A thread that cannot be started, of those that a run cannot do without.
    pub(crate) fn no_thread(source: io::Error) -> Self {
        Self::Exhausted { operation: "start a thread", source }
    }

    /// The directory at this path cannot be verified.
    pub(crate) fn not_verifiable(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = Escaped(path.as_os_str().as_bytes()).to_string();
        |source| Self::NotVerifiable { path, source }
    }
}

/// Nothing has the name, or, on the way to it, something else than a directory.
pub(crate) fn is_not_there(error: &io::Error) -> bool {
    use nix::libc::{ELOOP, ENOENT, ENOTDIR};
    matches!(error.raw_os_error(), Some(ENOENT | ENOTDIR | ELOOP))
}
