//! Options that select what takes part, in rsync's language. Their order among each other counts, so they are read by where
//! they stand on the command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, PathBufValueParser, ValueParser};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};

/// Where rules are evaluated that do not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unqualified {
    /// What is left out is not deleted either.
    BothEnds,
    /// `--delete-excluded`: only what is copied follows from them.
    SenderAlone,
}

/// What selects entries by their names.
#[derive(Debug, Default)]
pub(crate) struct FilterOptions {
    /// In the order in which they were typed.
    pub(crate) words: Vec<FilterWord>,
    /// Rules of files and of `--filter`s are cut at NUL.
    pub(crate) is_cut_at_nul: bool,
    /// What `cvs` ignores stands behind all of them.
    pub(crate) has_cvs: bool,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FilterWord {
    Exclude(OsString),
    Include(OsString),
    Filter(OsString),
    ExcludeFrom(PathBuf),
    IncludeFrom(PathBuf),
    /// `-F`: the first time a file of rules in each directory, the second time that file stays out.
    PerDirectory,
}

const HEADING: &str = "Selection";

fn appended(name: &'static str, value: &'static str, help: &'static str, parser: ValueParser) -> Arg {
    let arg = Arg::new(name).long(name).value_name(value).help(help).help_heading(HEADING);
    arg.action(ArgAction::Append).value_parser(parser).allow_hyphen_values(true)
}

fn args() -> [Arg; 8] {
    let text = || OsStringValueParser::new().into();
    let path = || PathBufValueParser::new().into();
    let switch = |name: &'static str| Arg::new(name).help_heading(HEADING);
    [
        appended("exclude", "PATTERN", "Leave out what matches PATTERN, with everything below it", text()),
        appended(
            "include",
            "PATTERN",
            "Do not leave out what matches PATTERN; of all rules, the first that matches counts",
            text(),
        ),
        appended("filter", "RULE", "Add a filter rule, as rsync has them: + - . : H S P R !", text()).short('f'),
        appended(
            "exclude-from",
            "FILE",
            "Read patterns to leave out from FILE, one on each line; - is standard input",
            path(),
        ),
        appended("include-from", "FILE", "Read patterns not to leave out from FILE", path()),
        // Where each of them stands counts.
        switch("per-directory")
            .short('F')
            .action(ArgAction::Append)
            .num_args(0)
            .default_missing_value("")
            .help("Read filter rules from .rsync-filter in each directory; twice: and do not copy those files"),
        switch("cvs-exclude")
            .short('C')
            .long("cvs-exclude")
            .action(ArgAction::SetTrue)
            .help("Leave out what cvs ignores, such as *.o, *~ and .git/, and what is named in .cvsignore"),
        switch("from0")
            .short('0')
            .long("from0")
            .action(ArgAction::SetTrue)
            .help("Patterns in files end with a NUL byte instead of a line end"),
    ]
}

impl Args for FilterOptions {
    fn augment_args(command: Command) -> Command {
        command.args(args())
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for FilterOptions {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut words: Vec<(usize, FilterWord)> = Vec::new();
        let mut texts = |name, word: fn(OsString) -> FilterWord| {
            let values = matches.get_many::<OsString>(name).into_iter().flatten().cloned();
            words.extend(matches.indices_of(name).into_iter().flatten().zip(values.map(word)));
        };
        texts("exclude", FilterWord::Exclude);
        texts("include", FilterWord::Include);
        texts("filter", FilterWord::Filter);
        let mut paths = |name, word: fn(PathBuf) -> FilterWord| {
            let values = matches.get_many::<PathBuf>(name).into_iter().flatten().cloned();
            words.extend(matches.indices_of(name).into_iter().flatten().zip(values.map(word)));
        };
        paths("exclude-from", FilterWord::ExcludeFrom);
        paths("include-from", FilterWord::IncludeFrom);
        let times = matches.indices_of("per-directory").into_iter().flatten();
        words.extend(times.map(|index| (index, FilterWord::PerDirectory)));
        words.sort_by_key(|(index, _)| *index);
        Ok(Self {
            words: words.into_iter().map(|(_, word)| word).collect(),
            is_cut_at_nul: matches.get_flag("from0"),
            has_cvs: matches.get_flag("cvs-exclude"),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
