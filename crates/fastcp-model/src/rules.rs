//! Filter rules: which entries of a tree take part in a run, in the language of rsync(1), "FILTER RULES".
//!
//! A rule names a [`Pattern`] and what becomes of the entries that match it. Rules are tried in order; the first that
//! matches decides, and what none matches is included. Rules are parsed from what users type in [`parse`], travel as they
//! are, and are evaluated by whoever walks a tree. The facts about the language are from rsync's manual page, 3.4, and from
//! trying rsync 3.2.7.
//!
//! Nothing here reads a file: a [`DirMerge`] says which file has more rules in each directory, and its reader gives
//! them back to [`parse::FileStyle`].

pub mod parse;
mod pattern;
mod wildcard;

pub use pattern::{PATTERN_BYTES_MAX, Pattern, PatternError};

bitflags::bitflags! {
    /// The ends of a transfer that a rule is evaluated at.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct Sides: u8 {
        /// It decides what is offered.
        const SENDER = 1;
        /// It decides what may be deleted.
        const RECEIVER = 2;
    }
}

/// What becomes of an entry that matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// It takes part.
    Include,
    /// It does not: it is neither offered (sender) nor deleted (receiver).
    Exclude,
}

/// One filter rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rule {
    /// What becomes of what matches.
    pub action: Action,
    /// What matches.
    pub pattern: Pattern,
    /// Where it is evaluated.
    pub sides: Sides,
    /// It does not keep an entry whose directory is deleted.
    pub is_perishable: bool,
    /// It is about the names of extended attributes, not about entries.
    pub is_about_attributes: bool,
}

impl Rule {
    /// The rule that keeps a file of rules out of the transfer, wherever it is; `None` where its path names nothing.
    pub fn excluding(file: &[u8], sides: Sides) -> Option<Self> {
        let pattern = Pattern::new(base_name(file)).ok()?;
        Some(Self { action: Action::Exclude, pattern, sides, is_perishable: false, is_about_attributes: false })
    }
}

/// The last component of a path.
pub fn base_name(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or_default()
}

/// A file that may be in any directory and has rules for that directory and those below it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DirMerge {
    /// Its name in each directory.
    pub file: Box<[u8]>,
    /// How it is read.
    pub style: parse::FileStyle,
    /// Directories above the transfer are searched for it, too: its name was given with a leading slash.
    pub searches_above: bool,
    /// What is below a directory does not inherit that directory's rules.
    pub is_not_inherited: bool,
    /// The file itself is excluded from the transfer.
    pub excludes_itself: bool,
}

/// One place in a list of rules.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FilterRule {
    /// A rule.
    Rule(Rule),
    /// The rules of a file in the directory at hand stand here, before those that are inherited.
    DirMerge(DirMerge),
}

/// An entry that rules are evaluated for.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Its path from where the transfer begins, without a leading slash.
    pub path: &'a [u8],
    /// The path of where the transfer begins, from the root of the file system or, of a server's tree, from its root:
    /// without slashes around it. Patterns with the modifier `/` are about both together.
    pub above: &'a [u8],
    /// Whether it is a directory.
    pub is_dir: bool,
}
