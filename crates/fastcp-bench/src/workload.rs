//! The workloads: which trees there are to copy, and how large.
//!
//! Names and numbers only; `generate.rs` makes them. Everything follows from [`SEED`].
//!
//! Most destinations are empty. Of a workload that has a basis, the destination holds that before
//! every run: an earlier version of the tree, for tools that send only what has changed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Every tree follows from this. A change of it, or of how trees are made, makes figures
/// incomparable.
pub(crate) const SEED: u64 = 0x6661_7374_6370;

/// By how much `--short` makes the trees smaller.
const SHORT_DIVISOR: u64 = 64;

const GIB: u64 = 1 << 30;

/// A tree to copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Workload {
    /// One incompressible file.
    Big,
    /// Many small incompressible files.
    Small,
    /// A copy of /usr/share.
    UsrShare,
    /// Logs, as text.
    Log,
    /// The small files, when the destination has them already.
    Unchanged,
    /// One incompressible file, when the destination has a version of which pages have changed.
    Pages,
    /// The same when bytes were put in front of it.
    Inserted,
    /// A million empty and tiny files.
    Million,
}

/// A name that is no workload's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no workload; see --list")]
pub(crate) struct WorkloadError(String);

/// Every workload there is.
pub(crate) const WORKLOADS: [Workload; 8] = [
    Workload::Big,
    Workload::Small,
    Workload::UsrShare,
    Workload::Log,
    Workload::Unchanged,
    Workload::Pages,
    Workload::Inserted,
    Workload::Million,
];

/// The workloads that run when none is named: all that do not take minutes and gigabytes of names.
pub(crate) fn usual_workloads() -> Vec<Workload> {
    WORKLOADS.into_iter().filter(|&workload| workload != Workload::Million).collect()
}

impl Workload {
    fn name(self) -> &'static str {
        match self {
            Self::Big => "big",
            Self::Small => "small",
            Self::UsrShare => "usr-share",
            Self::Log => "log",
            Self::Unchanged => "unchanged",
            Self::Pages => "pages",
            Self::Inserted => "inserted",
            Self::Million => "million",
        }
    }

    /// What it is, in a line.
    pub(crate) fn about(self) -> &'static str {
        match self {
            Self::Big => "one incompressible file of 4 GiB; of 1 GiB over links",
            Self::Small => "50,000 incompressible files of 0-64 KiB in 500 directories, log-normal, median 4 KiB",
            Self::UsrShare => "a copy of /usr/share",
            Self::Log => "1 GiB of log text in 8 files",
            Self::Unchanged => "the small files when the destination has them already",
            Self::Pages => "1 GiB in one file; 1 % of its pages of 4 KiB are not as at the destination",
            Self::Inserted => "1 GiB in one file, and 1,000 bytes in front that the destination has not",
            Self::Million => "1,000,000 empty and tiny files in 1,000 directories; only when named",
        }
    }

    /// What has to be made for it.
    pub(crate) fn recipe(self, scale: Scale, is_link: bool) -> Recipe {
        let part = |whole: u64| (whole / scale.divisor()).max(1);
        match self {
            Self::Big => Recipe::Big { bytes: part(if is_link { GIB } else { 4 * GIB }) },
            Self::Small | Self::Unchanged => Recipe::Small { files: part(50_000), dirs: part(500) },
            Self::UsrShare => Recipe::UsrShare { scale },
            Self::Log => Recipe::Log { files: 8, file_bytes: part(GIB / 8) },
            Self::Pages => Recipe::Pages { bytes: part(GIB) },
            Self::Inserted => Recipe::Inserted { bytes: part(GIB) },
            Self::Million => Recipe::Tiny { files: part(1_000_000), dirs: part(1_000) },
        }
    }

    /// What the destination holds before each run, where that is an earlier version.
    pub(crate) fn basis(self, scale: Scale) -> Option<Recipe> {
        match self {
            Self::Pages | Self::Inserted => Some(Recipe::Big { bytes: (GIB / scale.divisor()).max(1) }),
            _ => None,
        }
    }

    /// Whether a tool has to fetch the whole tree, however it works.
    pub(crate) fn is_copied(self) -> bool {
        !matches!(self, Self::Unchanged | Self::Pages | Self::Inserted)
    }
}

impl FromStr for Workload {
    type Err = WorkloadError;

    fn from_str(name: &str) -> Result<Self, WorkloadError> {
        let found = WORKLOADS.into_iter().find(|workload| workload.name() == name);
        found.ok_or_else(|| WorkloadError(name.to_owned()))
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.name())
    }
}

/// How large the trees are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Scale {
    /// As the workloads say.
    Full,
    /// To see that everything works.
    Short,
}

impl Scale {
    /// By how much trees are smaller.
    pub(crate) fn divisor(self) -> u64 {
        match self {
            Self::Full => 1,
            Self::Short => SHORT_DIVISOR,
        }
    }
}

/// How a tree is made. Equal recipes make equal trees, so that workloads can share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recipe {
    /// One incompressible file.
    Big { bytes: u64 },
    /// The big file of so many bytes, and a hundredth of its pages changed.
    Pages { bytes: u64 },
    /// The big file of so many bytes, and others in front of them.
    Inserted { bytes: u64 },
    /// Log-normal sizes.
    Small { files: u64, dirs: u64 },
    /// What lies in /usr/share, or the first of it.
    UsrShare { scale: Scale },
    /// Log text.
    Log { files: u64, file_bytes: u64 },
    /// Of no byte, or a few.
    Tiny { files: u64, dirs: u64 },
}

impl fmt::Display for Recipe {
    /// A name for its directory.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Big { bytes } => write!(out, "big-{bytes}"),
            Self::Pages { bytes } => write!(out, "pages-{bytes}"),
            Self::Inserted { bytes } => write!(out, "inserted-{bytes}"),
            Self::Small { files, dirs } => write!(out, "small-{files}-{dirs}"),
            Self::UsrShare { scale: Scale::Full } => out.write_str("usr-share"),
            Self::UsrShare { scale: Scale::Short } => out.write_str("usr-share-short"),
            Self::Log { files, file_bytes } => write!(out, "log-{files}-{file_bytes}"),
            Self::Tiny { files, dirs } => write!(out, "tiny-{files}-{dirs}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Recipe, Scale, WORKLOADS, Workload, WorkloadError, usual_workloads};

    #[test]
    fn names_are_understood_and_shown_again() {
        for workload in WORKLOADS {
            assert_eq!(workload.to_string().parse(), Ok(workload));
        }
        assert_eq!("edited".parse::<Workload>(), Err(WorkloadError("edited".to_owned())));
        assert!(!usual_workloads().contains(&Workload::Million));
    }

    #[test]
    fn short_trees_are_a_64th_and_links_get_a_quarter_of_the_big_file() {
        assert_eq!(Workload::Big.recipe(Scale::Full, false), Recipe::Big { bytes: 4 << 30 });
        assert_eq!(Workload::Big.recipe(Scale::Full, true), Recipe::Big { bytes: 1 << 30 });
        assert_eq!(Workload::Big.recipe(Scale::Short, false), Recipe::Big { bytes: 64 << 20 });
        assert_eq!(Workload::Small.recipe(Scale::Short, true), Recipe::Small { files: 781, dirs: 7 });
        let shared = Workload::Unchanged.recipe(Scale::Full, false);
        assert_eq!(Workload::Small.recipe(Scale::Full, true), shared);
        let basis = Workload::Pages.basis(Scale::Full);
        assert_eq!(basis, Some(Workload::Big.recipe(Scale::Full, true)));
        assert_eq!(Workload::Inserted.basis(Scale::Short), Some(Recipe::Big { bytes: 16 << 20 }));
    }
}
