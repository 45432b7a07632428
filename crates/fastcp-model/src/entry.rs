//! What a tree is made of: entries, and listings of one directory each.

use crate::{Name, RelPath, Status, Timestamp};

/// What is preserved beside the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// Permission bits with setuid, setgid and sticky: `0o7777` at most.
    pub mode: u16,
    /// The numeric owner at the sender.
    pub uid: u32,
    /// The numeric group at the sender.
    pub gid: u32,
    /// Time of last modification.
    pub mtime: Timestamp,
}

/// Kinds that are named but not copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecialKind {
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File {
        /// Its length.
        size_bytes: u64,
        /// Whether it takes up less room than its length: it has holes.
        sparse: bool,
    },
    /// A directory. Its listing follows in the same offer.
    Dir,
    /// A symbolic link; never followed.
    Symlink {
        /// Where it points, as it is: any bytes but NUL.
        target: Box<[u8]>,
    },
    /// Not a file, directory or link.
    Special(SpecialKind),
}

/// One member of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name within the directory.
    pub name: Name,
    /// What it is.
    pub kind: EntryKind,
    /// Mode, owner, group, time.
    pub metadata: Metadata,
}

/// A member that the sender could not examine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryFailure {
    /// Its name, escaped where the raw one is not lawful.
    pub name: Name,
    /// Why.
    pub cause: Status,
}

/// How a listing ends. Only `Complete` says that what is not named does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListingEnd {
    /// Another part of the same directory follows.
    More,
    /// That was all of it.
    Complete,
    /// Only what was asked for by name; the directory holds more.
    Selected,
    /// The directory could not be read to its end.
    Broken(Status),
}

/// One directory's members, or a part of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The directory, relative to what is offered.
    pub dir: RelPath,
    /// The directory's own metadata, given for the offer's root, which no other listing names.
    pub root: Option<Metadata>,
    /// Its members in this part.
    pub entries: Vec<Entry>,
    /// Members that could not be examined.
    pub failures: Vec<EntryFailure>,
    /// Whether this is all.
    pub end: ListingEnd,
}
