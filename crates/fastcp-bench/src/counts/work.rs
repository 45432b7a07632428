//! The works that are counted: a tree, what is at the destination before, and by what the counts are divided.

use std::fmt;

use crate::tool::Tool;
use crate::variant::Variant;
use crate::workload::Recipe;

const SMALL_FILES: u64 = 50_000;
const SMALL_DIRS: u64 = 500;
const PUSHED_FILES: u64 = 20_000;
const PUSHED_DIRS: u64 = 200;
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
    /// Fewer small files, none of which is there, pushed to a server.
    Push,
    /// Directories with a file of a few bytes in each, none of which is there.
    Dirs,
    /// One file that is not there.
    Big,
}

/// All of them. Those that share a tree and a destination stand in the order that they need.
pub(super) const WORKS: [Work; 6] = [Work::Small, Work::Unchanged, Work::Changed, Work::Push, Work::Dirs, Work::Big];

impl Work {
    /// The tree.
    pub(super) fn recipe(self) -> Recipe {
        match self {
            Self::Small | Self::Unchanged | Self::Changed => Recipe::Small { files: SMALL_FILES, dirs: SMALL_DIRS },
            Self::Push => Recipe::Small { files: PUSHED_FILES, dirs: PUSHED_DIRS },
            Self::Dirs => Recipe::Tiny { files: DIRS, dirs: DIRS },
            Self::Big => Recipe::Big { bytes: BIG_MIB << 20 },
        }
    }

    /// What does it.
    pub(super) fn tool(self) -> Tool {
        Tool::Fastcp(Variant { is_push: self == Self::Push, ..Variant::default() })
    }

    /// How many units the work is of.
    pub(super) fn units(self) -> u64 {
        match self {
            Self::Small | Self::Unchanged | Self::Changed => SMALL_FILES,
            Self::Push => PUSHED_FILES,
            Self::Dirs => DIRS,
            Self::Big => BIG_MIB,
        }
    }

    /// What one of them is.
    pub(super) fn unit(self) -> &'static str {
        match self {
            Self::Small | Self::Unchanged | Self::Changed | Self::Push => "file",
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
            Self::Push => "push",
            Self::Dirs => "dirs",
            Self::Big => "big",
        })
    }
}
