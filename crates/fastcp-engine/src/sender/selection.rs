//! What of the tree takes part in a run, by the rules of whoever asks or of the operator.
//!
//! Rules are about paths from where an offer begins; a selection knows where that is in the tree, so that it judges a path in
//! the same way whatever the request that names it. What is excluded is not looked at: a walk passes over it, and whoever
//! asks for it in a tree of which a selection is served learns no more than of what is not there.

use std::collections::HashMap;
use std::io;

use fastcp_model::rules::{Action, Candidate, FilterRule, Sides};
use fastcp_model::{Name, RelPath};
use fastcp_wire::offer::{Place, Scope};

use crate::filter::{Filter, FilterError, Parent, file_of_rules};
use crate::lock::Lock;
use crate::sender::tree::Tree;

/// Directories whose rules are remembered for those who ask for what is in them.
const REMEMBERED_MAX: usize = 4096;

/// Rules, and where in the tree they begin.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    base: RelPath,
    /// Whether what is in that directory is offered, and not only something that is named.
    is_listed: bool,
    rules: Filter,
}

/// What becomes of a name that nobody has looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judged {
    In,
    Out,
    /// That depends on whether it is a directory.
    ByKind,
}

impl Judged {
    fn of(action: Option<Action>) -> Self {
        match action {
            Some(Action::Include) => Self::In,
            Some(Action::Exclude) => Self::Out,
            None => Self::ByKind,
        }
    }
}

impl Selection {
    /// Rules for an offer of this place.
    pub(crate) fn new(place: &Place, rules: &[FilterRule]) -> Self {
        Self { base: place.base(), is_listed: place.scope != Scope::Itself, rules: Filter::new(rules) }
    }

    /// Whether all of the tree takes part.
    pub(crate) fn is_everything(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rules as they stand above a directory of the tree; `None` where it is excluded, or lies outside of what the rules
    /// are about.
    ///
    /// # Errors
    /// What keeps a directory's rules from being known.
    pub(crate) fn above(&self, tree: &Tree, dir: &RelPath) -> Result<Option<Filter>, FilterError> {
        if self.is_listed && *dir == self.base {
            return self.begin(tree).map(Some);
        }
        let Some((parent, name)) = dir.split() else { return Ok(None) };
        let rules = self.reach(tree, &parent)?;
        Ok(rules.filter(|rules| self.admits(rules, &parent, &name, true)))
    }

    /// The rules in a directory of the tree, that is reached by its path alone, with the same reservation.
    ///
    /// # Errors
    /// As [`Selection::above`].
    pub(crate) fn reach(&self, tree: &Tree, dir: &RelPath) -> Result<Option<Filter>, FilterError> {
        if !dir.is_within(&self.base) {
            return Ok(None);
        }
        let mut at = self.base.clone();
        let mut rules = self.begin(tree)?;
        if self.is_listed {
            rules = self.enter(tree, &rules, &at)?;
        }
        for name in dir.names().skip(at.names().count()) {
            if !self.admits(&rules, &at, &name, true) {
                return Ok(None);
            }
            at = at.join(&name);
            rules = self.enter(tree, &rules, &at)?;
        }
        Ok(Some(rules))
    }

    /// The rules before the first directory of an offer is entered: those of directories above it have been read.
    fn begin(&self, tree: &Tree) -> Result<Filter, FilterError> {
        let mut rules = self.rules.clone();
        let (mut dir, mut names) = (RelPath::root(), self.base.names());
        while dir != self.base || !self.is_listed {
            rules = rules.enter_above(dir.as_bytes(), &mut |file| read_file(tree, &dir, file))?;
            let Some(name) = names.next() else { break };
            dir = dir.join(&name);
        }
        Ok(rules)
    }

    /// The rules in a directory of the tree, from those above it.
    ///
    /// # Errors
    /// As [`Selection::above`].
    pub(crate) fn enter(&self, tree: &Tree, above: &Filter, dir: &RelPath) -> Result<Filter, FilterError> {
        above.enter(self.below(dir), &mut |file| read_file(tree, dir, file))
    }

    /// What becomes of a name in a directory, by the rules that stand there.
    pub(crate) fn judge(&self, rules: &Filter, dir: &RelPath, name: &Name) -> Judged {
        if rules.is_empty() {
            return Judged::In;
        }
        let path = self.path(dir, name);
        Judged::of(rules.action_of_any_kind(&path, self.base.as_bytes(), Sides::SENDER))
    }

    /// The same once it is known what the entry is.
    pub(crate) fn admits(&self, rules: &Filter, dir: &RelPath, name: &Name, is_dir: bool) -> bool {
        let path = self.path(dir, name);
        let candidate = Candidate { path: &path, above: self.base.as_bytes(), is_dir };
        rules.action(&candidate, Sides::SENDER, Parent::Stays) == Action::Include
    }

    /// A directory's path from where the rules begin.
    fn below<'p>(&self, dir: &'p RelPath) -> &'p [u8] {
        let below = dir.as_bytes().strip_prefix(self.base.as_bytes()).unwrap_or(dir.as_bytes());
        below.strip_prefix(b"/").unwrap_or(below)
    }

    fn path(&self, dir: &RelPath, name: &Name) -> Vec<u8> {
        match self.below(dir) {
            [] => name.as_bytes().to_vec(),
            dir => [dir, b"/", name.as_bytes()].concat(),
        }
    }
}

/// A selection of which nothing else is given away, with what is known of the rules of its directories.
#[derive(Debug)]
pub(crate) struct Guard {
    pub(crate) selection: Selection,
    remembered: Lock<HashMap<RelPath, Option<Filter>>>,
}

impl Guard {
    pub(crate) fn new(selection: Selection) -> Self {
        Self { selection, remembered: Lock::default() }
    }

    /// Whether a file may be asked for by its path. In doubt it may not.
    pub(crate) fn gives_file(&self, tree: &Tree, path: &RelPath) -> bool {
        path.split().is_some_and(|(dir, name)| self.gives(tree, &dir).is_some_and(|given| given.gives_file(&name)))
    }

    /// What may be asked for in a directory; `None` where that is nothing.
    pub(crate) fn gives<'g>(&'g self, tree: &Tree, dir: &RelPath) -> Option<Given<'g>> {
        let known = self.remembered.lock().get(dir).cloned();
        let rules = match known {
            Some(rules) => rules,
            None => {
                let rules = self.selection.reach(tree, dir).unwrap_or_else(|error| {
                    tracing::debug!(%dir, %error, "its rules are not known");
                    None
                });
                let mut remembered = self.remembered.lock();
                if remembered.len() >= REMEMBERED_MAX {
                    remembered.clear();
                }
                remembered.insert(dir.clone(), rules.clone());
                rules
            }
        };
        rules.map(|rules| Given { selection: &self.selection, dir: dir.clone(), rules })
    }
}

/// A directory of which something may be asked for.
pub(crate) struct Given<'g> {
    selection: &'g Selection,
    dir: RelPath,
    rules: Filter,
}

impl Given<'_> {
    pub(crate) fn gives_file(&self, name: &Name) -> bool {
        self.selection.admits(&self.rules, &self.dir, name, false)
    }
}

/// Reads a file of rules in a directory of the tree. A path that begins at the root begins at the root of the tree.
fn read_file(tree: &Tree, dir: &RelPath, file: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let path = match file.strip_prefix(b"/") {
        Some(file) => RelPath::new(file),
        None => RelPath::new(file).map(|file| dir.join_path(&file)),
    };
    let path = path.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    file_of_rules(tree.open_file(&path))
}
