//! The works that are counted: a tree, what is at the destination before, and by what the counts are divided.

use std::fmt;

use crate::workload::Recipe;

const SMALL_FILES: u64 = 50_000;
const SMALL_DIRS: u64 = 500;
const DIRS: u64 = 10_000;
const BIG_MIB: u64 = 1024;

/// Something to do that is the same each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// Small files, none of which is there.
    Small,
    /// The same when all of them are there.
    Unchanged,
    /// The same after a hundredth of them got other bytes and times.
    Changed,
    /// Directories with a file of a few bytes in each, none of which is there.
    Dirs,
    /// One file that is not there.
    Big,
}

/// All of them. Those that share a tree and a destination stand in the order that they need.
pub(super) const WORKS: [Work; 5] = [Work::Small, Work::Unchanged, Work::Changed, Work::Dirs, Work::Big];

impl Work {
    /// The tree.
    pub(super) fn recipe(self) -> Recipe {
        match self {
            Self::Small | Self::Unchanged | Self::Changed => Recipe::Small { files: SMALL_FILES, dirs: SMALL_DIRS },
            Self::Dirs => Recipe::Tiny { files: DIRS, dirs: DIRS },
            Self::Big => Recipe::Big { bytes: BIG_MIB << 20 },
        }
    }

    /// How many units the work is of.
    pub(super) fn units(self) -> u64 {
        match self {
            Self::Small | Self::Unchanged | Self::Changed => SMALL_FILES,
            Self::Dirs => DIRS,
            Self::Big => BIG_MIB,
        }
    }

    /// What one of them is.
    pub(super) fn unit(self) -> &'static str {
        match self {
            Self::Small | Self::Unchanged | Self::Changed => "file",
            Self::Dirs => "directory",
            Self::Big => "MiB",
        }
    }
}

impl fmt::Display for Work {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Small => "small",
            Self::Unchanged => "unchanged",
            Self::Changed => "changed",
            Self::Dirs => "dirs",
            Self::Big => "big",
        })
    }
}
