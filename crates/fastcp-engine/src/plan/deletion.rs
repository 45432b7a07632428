//! The one step in which entries are deleted, and everything that can keep it from happening.
//!
//! It comes after the last offer. Nothing goes where anything at the source could not be read, where
//! the offer was cut short, where the source is empty (unless that is said to be meant), or where more
//! would go than `--max-delete` allows; that is counted before the first entry goes. All or nothing:
//! a limit that stops half way would leave a tree that is neither old nor new.

use std::io;

use fastcp_sys::Root;

use crate::error::RunError;
use crate::plan::extraneous::Extraneous;
use crate::plan::removal::{Action, Removal};
use crate::report::{Refusal, Report};
use crate::schedule::Schedule;
use crate::settings::{Deletion, EmptySource, Itemize, MaxDelete};
use crate::target::backup_dirs::BackupDirs;
use crate::target::owners::Owners;

/// Whether the step was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Done,
    Refused,
}

/// What the step needs to know.
pub(crate) struct Step<'a> {
    pub(crate) deletion: Deletion,
    /// What happens to entries once nothing speaks against it.
    pub(crate) action: Action<'a>,
    pub(crate) root: Option<&'a Root>,
    pub(crate) owners: &'a Owners,
    pub(crate) report: &'a Report,
    pub(crate) itemize: Itemize,
    /// Offered entries that the destination had already.
    pub(crate) staying: u64,
    /// The backup directories below the destination.
    pub(crate) backups: &'a BackupDirs,
    /// Whose stop ends the step where it is; a dry run has none.
    pub(crate) schedule: Option<&'a Schedule>,
}

impl Step<'_> {
    /// Deletes all of `extraneous`, or nothing.
    pub(crate) fn take(&self, extraneous: &mut Extraneous<'_>) -> Result<Verdict, RunError> {
        extraneous.candidates.finish().map_err(cannot_keep)?;
        if let Some(refusal) = self.refusal(extraneous)? {
            self.report.refuse(refusal);
            return Ok(Verdict::Refused);
        }
        self.walk(extraneous, self.action)?;
        Ok(Verdict::Done)
    }

    fn refusal(&self, extraneous: &Extraneous<'_>) -> Result<Option<Refusal>, RunError> {
        if extraneous.spoilt {
            return Ok(Some(Refusal::Source));
        }
        if extraneous.is_source_empty && self.deletion.empty_source == EmptySource::Refused {
            return Ok(Some(Refusal::EmptySource));
        }
        let Some(max) = self.deletion.max else { return Ok(None) };
        let entries = self.walk(extraneous, Action::Count)?;
        Ok(is_over(max, entries, self.staying).then_some(Refusal::Limit { entries, max }))
    }

    /// Visits all that would go; answers how many entries those are.
    fn walk(&self, extraneous: &Extraneous<'_>, action: Action<'_>) -> Result<u64, RunError> {
        let Some(root) = self.root else { return Ok(0) };
        let Self { owners, report, itemize, backups, schedule, .. } = *self;
        let mut removal = Removal { action, owners, report, itemize, backups, schedule, count: 0 };
        for held in &extraneous.candidates.dirs {
            removal.enter(root, &held.state.path, &held.protection, |removal, place| {
                for name in extraneous.candidates.names_of(held) {
                    removal.visit(place, &name.map_err(cannot_keep)?)?;
                }
                Ok(())
            })?;
        }
        for displacing in &extraneous.displacing {
            let name = &displacing.entry.name;
            let (path, protection) = (&displacing.state.path, &displacing.protection);
            removal.enter(root, path, protection, |removal, place| removal.displace(place, name))?;
        }
        Ok(removal.count)
    }
}

/// A share is one of what the destination had as far as the offer speaks of it: of what would go and
/// what stays.
fn is_over(max: MaxDelete, entries: u64, staying: u64) -> bool {
    match max {
        MaxDelete::Entries(count) => entries > count,
        MaxDelete::Percent(percent) => {
            let had = u128::from(entries) + u128::from(staying);
            u128::from(entries) * 100 > had * u128::from(percent)
        }
    }
}

pub(crate) fn cannot_keep(source: io::Error) -> RunError {
    RunError::Destination { operation: "keep the list of names to delete in", path: ".fastcp".to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::is_over;
    use crate::settings::MaxDelete::{Entries, Percent};

    #[test]
    fn a_limit_is_what_may_still_go() {
        assert!(!is_over(Entries(0), 0, 0) && is_over(Entries(0), 1, 9));
        assert!(!is_over(Entries(5), 5, 0) && is_over(Entries(5), 6, 1_000_000));
        assert!(!is_over(Percent(10), 10, 90) && is_over(Percent(10), 11, 90));
        assert!(!is_over(Percent(100), 10, 0) && is_over(Percent(99), 10, 0));
        assert!(!is_over(Percent(0), 0, 7) && is_over(Percent(0), 1, u64::MAX));
        assert!(is_over(Percent(100), u64::MAX, 0) == is_over(Percent(100), 1, 0));
    }
}
