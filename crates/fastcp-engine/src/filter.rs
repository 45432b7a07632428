//! Filter rules as they stand in each directory of a walk, at either end.
//!
//! A walk begins with the rules of its run and goes down with them: in each directory the files that a dir-merge names are
//! read, and their rules stand in the dir-merge's place, before those that the directory inherits. Which file is read, and
//! how, is the caller's: a sender reads from the tree that it serves, a receiver from its destination.
//!
//! May import: nothing.
//! A file of rules that cannot be read, or that says something which is no rule, is an error and never an empty file: what it would have
//! kept out must not come in.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use fastcp_model::rules::parse::{Directive, FileStyle, Merge, RuleError};
use fastcp_model::rules::{Action, Candidate, DirMerge, FilterRule, Pattern, Rule, Sides, base_name};
use fastcp_sys::{FileType, Stat};
use nix::errno::Errno;

/// The longest file of rules in a directory, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The most rules that stand in one directory.
const RULES_MAX: usize = 65_536;
/// Files that name files that name files.
const DEPTH_MAX: usize = 16;

/// Reads a file of rules in the directory at hand, by its path from there; `None` where there is none.
pub(crate) type ReadFile<'r> = &'r mut dyn FnMut(&[u8]) -> io::Result<Option<Vec<u8>>>;

/// Why the rules of a directory are not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FilterError {
    #[error("cannot read its file of filter rules \"{}\": {source}", fastcp_model::Escaped(.file))]
    Read { file: Box<[u8]>, source: io::Error },
    #[error("its file of filter rules \"{}\" is not lawful: {source}", fastcp_model::Escaped(.file))]
    Rule { file: Box<[u8]>, source: RuleError },
    #[error("its files of filter rules name each other more than {DEPTH_MAX} deep")]
    TooDeep,
    #[error("more than {RULES_MAX} filter rules stand in it")]
    TooMany,
}

/// The rules that stand in one directory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    nodes: Arc<[Node]>,
    /// Whether there is anything to read in directories.
    has_merges: bool,
}

#[derive(Debug, Clone)]
enum Node {
    Rule(Arc<Rule>),
    /// What a dir-merge has come to.
    Merge(Arc<DirMerge>, Arc<[Node]>),
}

/// Whether an entry's directory stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parent {
    Stays,
    /// It is being deleted: perishable rules keep nothing in it.
    Goes,
}

impl Filter {
    /// The rules of a run, before the first directory is entered.
    pub(crate) fn new(rules: &[FilterRule]) -> Self {
        let node = |rule: &FilterRule| match rule {
            FilterRule::Rule(rule) => Node::Rule(Arc::new(rule.clone())),
            FilterRule::DirMerge(merge) => Node::Merge(Arc::new(merge.clone()), Arc::default()),
        };
        Self::of(rules.iter().map(node).collect())
    }

    /// What excludes everything, here and below.
    pub(crate) fn excluding_all() -> Self {
        let all = Rule::excluding(b"*", Sides::all()).map(|rule| Node::Rule(Arc::new(rule)));
        Self::of(all.into_iter().collect())
    }

    fn of(nodes: Vec<Node>) -> Self {
        let has_merges = nodes.iter().any(|node| matches!(node, Node::Merge(..)));
        Self { nodes: nodes.into(), has_merges }
    }

    /// Whether everything takes part, here and below.
    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The rules in a directory below the one that these stand in; `path` is its path from where the transfer begins.
    ///
    /// # Errors
    /// What keeps its files from being known.
    pub(crate) fn enter(&self, path: &[u8], read: ReadFile<'_>) -> Result<Self, FilterError> {
        self.entered(At::Below(path), read)
    }

    /// The same for a directory above where the transfer begins, by its path from the root of the tree: only files that are
    /// searched for there are read.
    ///
    /// # Errors
    /// As [`Filter::enter`].
    pub(crate) fn enter_above(&self, path: &[u8], read: ReadFile<'_>) -> Result<Self, FilterError> {
        self.entered(At::Above(path), read)
    }

    fn entered(&self, place: At<'_>, read: ReadFile<'_>) -> Result<Self, FilterError> {
        if !self.has_merges {
            return Ok(self.clone());
        }
        let mut entering = Entering { place, read, known: Vec::new(), count: 0, has_changed: false };
        known_of(&self.nodes, &mut entering.known);
        let nodes = entering.nodes(&self.nodes)?;
        // Most directories have no files of rules: they share what stands above them.
        Ok(if entering.has_changed { Self::of(nodes) } else { self.clone() })
    }

    /// What becomes of an entry at this end.
    pub(crate) fn action(&self, entry: &Candidate<'_>, side: Sides, parent: Parent) -> Action {
        first(&self.nodes, &mut |rule| {
            let decides = is_evaluated(rule, side, parent) && rule.pattern.matches(entry);
            decides.then_some(rule.action)
        })
        .unwrap_or(Action::Include)
    }

    /// The same where nobody has looked yet what the entry is; `None` where that makes a difference.
    pub(crate) fn action_of_any_kind(&self, path: &[u8], above: &[u8], side: Sides) -> Option<Action> {
        let of_kind = |rule: &Rule, is_dir| rule.pattern.matches(&Candidate { path, above, is_dir });
        first(&self.nodes, &mut |rule| {
            if !is_evaluated(rule, side, Parent::Stays) {
                return None;
            }
            let as_file = of_kind(rule, false);
            let as_dir = if rule.pattern.depends_on_kind() { of_kind(rule, true) } else { as_file };
            match (as_file, as_dir) {
                (false, false) => None,
                (true, true) => Some(Some(rule.action)),
                _ => Some(None),
            }
        })
        .unwrap_or(Some(Action::Include))
    }
}

fn is_evaluated(rule: &Rule, side: Sides, parent: Parent) -> bool {
    !rule.is_about_attributes && rule.sides.contains(side) && !(rule.is_perishable && parent == Parent::Goes)
}

/// The first answer that a rule gives.
fn first<T>(nodes: &[Node], answer: &mut impl FnMut(&Rule) -> Option<T>) -> Option<T> {
    nodes.iter().find_map(|node| match node {
        Node::Rule(rule) => answer(rule),
        Node::Merge(_, nodes) => first(nodes, answer),
    })
}

/// The base names of dir-merges: of one name there is one.
fn known_of(nodes: &[Node], known: &mut Vec<Box<[u8]>>) {
    for node in nodes {
        if let Node::Merge(merge, nodes) = node {
            known.push(base_name(&merge.file).into());
            known_of(nodes, known);
        }
    }
}

/// Where the directory is that is being entered.
#[derive(Clone, Copy)]
enum At<'p> {
    Below(&'p [u8]),
    Above(&'p [u8]),
}

/// A directory being entered.
struct Entering<'p, 'r> {
    place: At<'p>,
    read: ReadFile<'r>,
    known: Vec<Box<[u8]>>,
    /// Rules so far.
    count: usize,
    /// Whether other rules stand here than above.
    has_changed: bool,
}

impl Entering<'_, '_> {
    fn nodes(&mut self, nodes: &[Node]) -> Result<Vec<Node>, FilterError> {
        let entered = nodes.iter().map(|node| match node {
            Node::Rule(rule) => self.counted(Node::Rule(Arc::clone(rule))),
            Node::Merge(merge, inherited) => self.merge(merge, inherited),
        });
        entered.collect()
    }

    fn counted(&mut self, node: Node) -> Result<Node, FilterError> {
        self.count += 1;
        if self.count > RULES_MAX { Err(FilterError::TooMany) } else { Ok(node) }
    }

    fn merge(&mut self, merge: &Arc<DirMerge>, inherited: &[Node]) -> Result<Node, FilterError> {
        if matches!(self.place, At::Above(_)) && !merge.searches_above {
            return Ok(Node::Merge(Arc::clone(merge), inherited.into()));
        }
        let inherited = match merge.is_not_inherited {
            true => {
                self.has_changed |= !inherited.is_empty();
                Vec::new()
            }
            false => self.nodes(inherited)?,
        };
        let mut list = List { own: Vec::new(), inherited };
        self.file(&merge.file, &merge.style, &mut list, 0)?;
        let List { mut own, inherited } = list;
        own.extend(inherited);
        Ok(Node::Merge(Arc::clone(merge), own.into()))
    }

    /// Puts the rules of a file behind those that are there.
    fn file(&mut self, file: &[u8], style: &FileStyle, list: &mut List, depth: usize) -> Result<(), FilterError> {
        if depth >= DEPTH_MAX {
            return Err(FilterError::TooDeep);
        }
        let bytes = match (self.read)(file) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(()),
            Err(source) => return Err(FilterError::Read { file: file.into(), source }),
        };
        self.has_changed = true;
        let directives = style.read(&bytes).map_err(|source| FilterError::Rule { file: file.into(), source })?;
        for directive in directives {
            match directive {
                Directive::Rule(FilterRule::Rule(rule)) => {
                    let pattern = self.anchored(rule.pattern);
                    let node = self.counted(Node::Rule(Arc::new(Rule { pattern, ..rule })))?;
                    list.own.push(node);
                }
                Directive::Rule(FilterRule::DirMerge(merge)) => self.nested(merge, list)?,
                Directive::Merge(Merge { file, style, excludes_itself }) => {
                    if excludes_itself {
                        list.own.extend(self.itself(&file, style.style.sides)?);
                    }
                    self.file(&file, &style, list, depth + 1)?;
                }
                Directive::Clear => {
                    list.own.clear();
                    list.inherited.clear();
                }
            }
        }
        Ok(())
    }

    /// A dir-merge that a file in this directory names: from here on down.
    fn nested(&mut self, merge: DirMerge, list: &mut List) -> Result<(), FilterError> {
        let name: Box<[u8]> = base_name(&merge.file).into();
        if self.known.contains(&name) {
            return Ok(());
        }
        self.known.push(name);
        if self.known.len() > DEPTH_MAX {
            return Err(FilterError::TooDeep);
        }
        if merge.excludes_itself {
            list.own.extend(self.itself(&merge.file, merge.style.style.sides)?);
        }
        let node = self.merge(&Arc::new(merge), &[])?;
        list.own.push(node);
        Ok(())
    }

    /// The rule that keeps a file of rules out of the transfer.
    fn itself(&mut self, file: &[u8], sides: Sides) -> Result<Option<Node>, FilterError> {
        Rule::excluding(file, sides).map(|rule| self.counted(Node::Rule(Arc::new(rule)))).transpose()
    }

    fn anchored(&self, pattern: Pattern) -> Pattern {
        match self.place {
            At::Below(dir) => pattern.anchored_at(dir),
            At::Above(dir) => pattern.anchored_above(dir),
        }
    }
}

/// What a file of rules says that was opened; `None` where there is none, or a directory has its name.
///
/// # Errors
/// What cannot be read, or is too long.
pub(crate) fn file_of_rules(opened: io::Result<File>) -> io::Result<Option<Vec<u8>>> {
    let file = match opened {
        Ok(file) => file,
        Err(error) => {
            return match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::ENOENT | Errno::ENOTDIR | Errno::EISDIR) => Ok(None),
                _ if error.kind() == io::ErrorKind::NotFound => Ok(None),
                _ => Err(error),
            };
        }
    };
    match Stat::of_fd(&file)?.file_type {
        FileType::File => {}
        FileType::Dir => return Ok(None),
        _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")),
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > FILE_BYTES_MAX {
        true => Err(Errno::EFBIG.into()),
        false => Ok(Some(bytes)),
    }
}

/// The rules of one dir-merge in one directory.
struct List {
    own: Vec<Node>,
    inherited: Vec<Node>,
}

#[cfg(test)]
mod tests;
