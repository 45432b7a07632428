//! Why entries fail.

use std::io;

use fastcp_model::{Escaped, Status};

/// Why an entry could not be brought over.
#[derive(Debug)]
pub enum Cause {
    /// The sender said so.
    Source(Status),
    /// The destination's file system said so.
    Destination {
        /// What was tried.
        operation: &'static str,
        /// What came of it.
        source: io::Error,
    },
    /// Connections broke over it, one after another, while other files got through.
    Broken {
        /// How many.
        connections: u32,
    },
    /// The bytes do not have the sender's checksum.
    Checksum {
        /// The sender's.
        want: u32,
        /// Of what was written.
        got: u32,
    },
    /// A line of the manifest makes no sense.
    DamagedRecord {
        /// Counted from 1.
        line: u64,
    },
    /// A directory that is not empty stands where something else belongs.
    DirectoryInTheWay,
    /// Another file system is mounted where something would be deleted.
    MountPoint,
    /// The destination keeps backups under the name that the source has for something else.
    BackupDirectory,
    /// The source that offered it was lost, and the one that leads now has not the version that was offered.
    OtherVersion {
        /// The one that was lost.
        offered: String,
        /// The one that was asked instead.
        asked: String,
    },
    /// A receiver elsewhere said so.
    Told {
        /// What failures of this kind are counted under.
        kind: String,
        /// Why, in its words.
        text: String,
        /// Whether the source only moved on.
        is_moving_source: bool,
    },
    /// It would run with the rights of its owner, and the receiver does not let others bring such files.
    SetUid,
    /// A file of filter rules in a directory of the destination cannot be made use of: nothing is deleted there.
    FilterRules(String),
    /// The source says that it is larger than any file that is copied.
    TooLarge {
        /// How large.
        size_bytes: u64,
    },
}

impl Cause {
    /// A short name that failures are counted under.
    pub fn kind(&self) -> &str {
        match self {
            Self::Told { kind, .. } => kind,
            Self::Source(Status::NotFound) => "vanished at the source",
            Self::Source(Status::Changed | Status::BadRange) => "changed at the source",
            Self::Source(Status::PermissionDenied) => "permission denied at the source",
            Self::Source(_) => "failed at the source",
            Self::Destination { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "permission denied at the destination"
            }
            Self::Destination { .. } => "failed at the destination",
            Self::Broken { .. } => "connections broke",
            Self::Checksum { .. } => "checksum mismatch",
            Self::DamagedRecord { .. } => "damaged record in the manifest",
            Self::DirectoryInTheWay => "directory in the way",
            Self::MountPoint => "mount point",
            Self::BackupDirectory => "backup directory",
            Self::SetUid => "setuid bit dropped",
            Self::FilterRules(_) => "filter rules",
            Self::TooLarge { .. } => "too large",
            Self::OtherVersion { .. } => "other version",
        }
    }

    /// Whether the source only moved on while it was copied: exit 24 rather than 23.
    pub fn is_moving_source(&self) -> bool {
        match self {
            Self::Told { is_moving_source, .. } => *is_moving_source,
            Self::Source(status) => matches!(status, Status::NotFound | Status::Changed | Status::BadRange),
            _ => false,
        }
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Told { text, .. } => write!(f, "{}", Escaped(text.as_bytes())),
            Self::Source(Status::NotFound) => f.write_str("vanished at the source"),
            Self::Source(Status::Changed | Status::BadRange) => {
                f.write_str("changed at the source while it was copied; run the command again")
            }
            Self::Source(status) => write!(f, "{status} (at the source)"),
            Self::Destination { operation, source } => write!(f, "{operation}: {source} (at the destination)"),
            Self::Broken { connections } => {
                write!(f, "{connections} connections broke while it was fetched; not tried again")
            }
            Self::Checksum { want, got } => write!(f, "CRC-32 mismatch (expected {want:08x}, got {got:08x})"),
            Self::DamagedRecord { line } => {
                write!(f, "line {line} of the manifest is invalid; its file was not verified")
            }
            Self::FilterRules(error) => write!(f, "nothing is deleted in it: {error} (at the destination)"),
            Self::DirectoryInTheWay => f.write_str("a non-empty directory is in the way; move it or use --delete"),
            Self::BackupDirectory => {
                f.write_str("not copied: backups are kept there; choose another --backup-dir, or move it away")
            }
            Self::OtherVersion { offered, asked } => {
                write!(
                    f,
                    "not copied: {offered}, which offered it, cannot be reached, and {asked} has not that version"
                )
            }
            Self::MountPoint => f.write_str("not deleted: it is a mount point"),
            Self::SetUid => f.write_str(
                "copied without its setuid and setgid bits: the server keeps them only if it was started with --allow-setuid",
            ),
            Self::TooLarge { size_bytes } => {
                write!(f, "{size_bytes} bytes at the source; no file over 1 PiB is copied")
            }
        }
    }
}
