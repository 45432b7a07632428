//! How an entry of a destination is not what it should be.

/// One way in which an entry differs. An entry may differ in several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// It is not there.
    Missing,
    /// It is there and should not be.
    Extraneous,
    /// It is of another kind: a directory instead of a file, say.
    Type,
    /// A file's length.
    Size,
    /// A file's bytes.
    Contents,
    /// Where a symbolic link points.
    Target,
    /// The time of last modification.
    Mtime,
    /// The permission bits.
    Mode,
    /// The owner or the group.
    Owner,
}

impl Difference {
    /// Its name in events and lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Extraneous => "extraneous",
            Self::Type => "type",
            Self::Size => "size",
            Self::Contents => "contents",
            Self::Target => "target",
            Self::Mtime => "mtime",
            Self::Mode => "mode",
            Self::Owner => "owner",
        }
    }
}
