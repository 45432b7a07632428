//! What the rules of a run keep at the destination: neither deleted, nor taken for a difference.
//!
//! Only what is here decides: files of rules are read from the destination, in each directory before anything in it is
//! brought up to date. So nothing that a sender says or leaves out takes a rule of the user's away. Where the rules of a
//! directory cannot be known, all that is in it is kept.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use fastcp_model::rules::{Action, Candidate, FilterRule, Sides};
use fastcp_model::{EntryKind, Listing, ListingEnd, Name, RelPath};
use fastcp_sys::{Dir, FileType, Root};

use crate::filter::{Filter, FilterError, Parent, file_of_rules};

/// The rules that stand in one directory of the destination.
#[derive(Debug, Clone, Default)]
pub(crate) struct Protection {
    rules: Filter,
    /// The path of the destination itself, that patterns with the modifier `/` begin with.
    above: Arc<[u8]>,
}

/// The rules of directories that are offered, from the first listing that names one to the last of its own.
#[derive(Debug, Default)]
pub(crate) struct Protections {
    top: Protection,
    known: HashMap<RelPath, Known>,
}

#[derive(Debug)]
enum Known {
    /// The rules above it: it has not been looked at.
    Above(Protection),
    /// Those in it. Another part of its listing is to come.
    In(Protection),
}

impl Protection {
    /// The rules of a run, before the destination is entered.
    pub(crate) fn new(rules: &[FilterRule], above: &[u8]) -> Self {
        Self { rules: Filter::new(rules), above: above.into() }
    }

    /// The rules in a directory below, at this path of the destination; `dir` is `None` where it is to be made.
    ///
    /// # Errors
    /// A file of rules that cannot be made use of.
    pub(crate) fn enter(&self, path: &RelPath, root: Option<&Root>, dir: Option<&Dir>) -> Result<Self, FilterError> {
        let mut read = |file: &[u8]| match (root, dir) {
            (Some(root), Some(dir)) => read_file(root, dir, path, file),
            _ => Ok(None),
        };
        Ok(Self { rules: self.rules.enter(path.as_bytes(), &mut read)?, above: Arc::clone(&self.above) })
    }

    /// What keeps everything, here and below.
    fn of_all() -> Self {
        Self { rules: Filter::excluding_all(), above: Arc::default() }
    }

    /// Whether there are no rules, here and below.
    pub(crate) fn is_of_nothing(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether a name in this directory, the one at `path`, is kept.
    pub(crate) fn keeps(&self, dir: &Dir, path: &RelPath, name: &Name, parent: Parent) -> bool {
        if self.is_of_nothing() {
            return false;
        }
        let whole = path.join(name);
        let action = match parent {
            Parent::Stays => self.rules.action_of_any_kind(whole.as_bytes(), &self.above, Sides::RECEIVER),
            Parent::Goes => None,
        };
        let action = action.unwrap_or_else(|| {
            let is_dir = dir.stat_name(name).is_ok_and(|stat| stat.file_type == FileType::Dir);
            let candidate = Candidate { path: whole.as_bytes(), above: &self.above, is_dir };
            self.rules.action(&candidate, Sides::RECEIVER, parent)
        });
        action == Action::Exclude
    }
}

impl Protections {
    /// The rules of a run, and the path of its destination from the root of the file system.
    pub(crate) fn new(rules: &[FilterRule], above: &[u8]) -> Self {
        Self { top: Protection::new(rules, above), known: HashMap::new() }
    }

    /// Whether there are no rules at all.
    pub(crate) fn is_of_nothing(&self) -> bool {
        self.top.is_of_nothing()
    }

    /// The rules in the directory of a listing. Listings come in the order of their offer, and each here once. Where files of
    /// rules cannot be made use of, the failure is answered, too.
    pub(crate) fn of(
        &mut self,
        listing: &Listing,
        root: Option<&Root>,
        dir: Option<&Dir>,
    ) -> (Protection, Option<FilterError>) {
        if self.is_of_nothing() {
            return (Protection::default(), None);
        }
        let (protection, failure) = match self.known.remove(&listing.dir) {
            Some(Known::In(protection)) => (protection, None),
            known => {
                let above = if let Some(Known::Above(above)) = known { above } else { self.top.clone() };
                match above.enter(&listing.dir, root, dir) {
                    Ok(protection) => (protection, None),
                    Err(error) => (Protection::of_all(), Some(error)),
                }
            }
        };
        for entry in listing.entries.iter().filter(|entry| entry.kind == EntryKind::Dir) {
            self.known.insert(listing.dir.join(&entry.name), Known::Above(protection.clone()));
        }
        if listing.end == ListingEnd::More {
            self.known.insert(listing.dir.clone(), Known::In(protection.clone()));
        }
        (protection, failure)
    }
}

/// Reads a file of rules in a directory of the destination. A path that begins at the root begins at the destination.
fn read_file(root: &Root, dir: &Dir, path: &RelPath, file: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let lawful = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
    let opened = match (Name::new(file), file.strip_prefix(b"/")) {
        (Ok(name), _) => dir.open_file(&name),
        (Err(_), Some(file)) => root.open_file(&RelPath::new(file).map_err(lawful)?),
        (Err(_), None) => root.open_file(&path.join_path(&RelPath::new(file).map_err(lawful)?)),
    };
    file_of_rules(opened)
}
