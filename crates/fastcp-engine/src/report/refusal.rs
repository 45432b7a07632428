//! Why a run that was to delete did not.

use fastcp_model::Grouped;

use crate::settings::MaxDelete;

/// Why nothing was deleted though deletion was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Something at the source could not be read: what is missing from the offer may exist.
    Source,
    /// The run ended before the offer was complete.
    CutShort,
    /// The source holds nothing.
    EmptySource,
    /// More would go than is allowed.
    Limit {
        /// How many entries would go.
        entries: u64,
        /// What is allowed.
        max: MaxDelete,
    },
}

impl Refusal {
    /// A short name for scripts.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Source => "source errors",
            Self::CutShort => "cut short",
            Self::EmptySource => "empty source",
            Self::Limit { .. } => "max delete",
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Source => f.write_str("not deleting: the source could not be read completely"),
            Self::CutShort => f.write_str("not deleting: the run ended before the source was listed completely"),
            Self::EmptySource => f.write_str(
                "not deleting: the source is empty; use --force-empty to delete everything at the destination",
            ),
            Self::Limit { entries, max } => {
                let noun = if *entries == 1 { "entry" } else { "entries" };
                let entries = Grouped(*entries);
                write!(f, "not deleting: {entries} {noun} would be deleted, more than --max-delete {max} allows")
            }
        }
    }
}
