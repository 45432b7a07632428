//! One change, as `--itemize-changes` lists it.

use fastcp_model::{EntryKind, RelPath};

/// One change, or what would be one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Eleven characters, as rsync prints them.
    pub change: [u8; 11],
    /// Relative to the destination.
    pub path: RelPath,
    /// What it is, or was.
    pub kind: ItemKind,
}

impl Item {
    /// An entry that goes.
    pub(crate) fn deleted(path: RelPath, kind: ItemKind) -> Self {
        Self { change: *b"*deleting  ", path, kind }
    }
}

/// What a changed entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ItemKind {
    /// A directory.
    Dir,
    /// A symbolic link that points there.
    Link(Box<[u8]>),
    /// Anything else.
    Other,
}

impl ItemKind {
    pub(crate) fn of(kind: &EntryKind) -> Self {
        match kind {
            EntryKind::Dir => Self::Dir,
            EntryKind::Symlink { target } => Self::Link(target.clone()),
            EntryKind::File { .. } | EntryKind::Special(_) => Self::Other,
        }
    }
}
