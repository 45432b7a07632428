//! Options from the environment: `FASTCP_` and the option's name in capitals.
//!
//! They become words in front of what was typed, so that what was typed has precedence like any later word.
//! A variable of an option that the command does not have is not looked at, and neither is one that
//! contradicts what was typed. An empty one is as good as none.
//!
//! A variable that nothing reads is reported where its name is nearly that of one, or that of an option without
//! a variable. Others are left alone: those of tests, and those that Kubernetes sets for a service named fastcp
//! (`FASTCP_PORT`, `FASTCP_SERVICE_HOST`).

use std::ffi::{OsStr, OsString};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, Error};

use super::mistaken::is_near;
use super::negations::is_switch;
use super::rsync;

/// What deletes has to be typed, and so has how much is logged.
const TYPED_ONLY: [&str; 7] =
    ["delete", "delete-excluded", "max-delete", "force-empty", "verbose", "cvs-exclude", "from0"];

/// The words that variables stand for. `typed` is what was typed, parsed by itself.
///
/// # Errors
/// A variable with a value that its option does not take, by the name of the variable.
pub(super) fn words(
    command: &Command,
    typed: &ArgMatches,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Vec<OsString>, Error> {
    let mut words = Vec::new();
    for arg in command.get_arguments() {
        let Some(long) = arg.get_long().filter(|long| may_be_set(arg, long)) else { continue };
        let name = variable_of(long);
        let Some(value) = variable(&name).filter(|value| !value.is_empty()) else { continue };
        if is_outdone(command, typed, arg) {
            continue;
        }
        let word = match arg.get_action() {
            ArgAction::SetTrue => switch_word(command, long, &name, &value)?,
            _ => Some(value_word(command, long, &name, &value)?),
        };
        words.extend(word);
    }
    Ok(words)
}

/// The variable of an option.
pub(super) fn variable_of(long: &str) -> String {
    format!("FASTCP_{}", long.to_uppercase().replace('-', "_"))
}

/// Whether an option has a variable. The negation of another option has none: that one's can say no.
pub(super) fn may_be_set(arg: &Arg, long: &str) -> bool {
    let is_option = matches!(arg.get_action(), ArgAction::SetTrue | ArgAction::Set);
    let is_negation = is_switch(arg) && long.starts_with("no-") && long != "no-compress";
    is_option && !is_negation && !TYPED_ONLY.contains(&long)
}

/// What is wrong with the name of a variable; `None` for one that an option of `commands` has, and for one that has
/// nothing to do with fastcp.
pub(super) fn mistake(commands: &[Command], name: &str) -> Option<String> {
    let options = || {
        let args = commands.iter().flat_map(Command::get_arguments);
        args.filter_map(|arg| arg.get_long().map(|long| (arg, long)))
    };
    let mut same = options().filter(|(_, long)| variable_of(long) == name).peekable();
    if let Some((_, long)) = same.peek().copied() {
        let is_set = same.any(|(arg, long)| may_be_set(arg, long));
        return (!is_set).then(|| without_variable(name, long));
    }
    let shown = options().filter(|(arg, long)| !arg.is_hide_set() && may_be_set(arg, long));
    let mut variables = shown.map(|(_, long)| variable_of(long));
    let near = variables.find(|variable| is_near(name, variable))?;
    Some(format!("{name} is ignored; did you mean {near}?"))
}

fn without_variable(name: &str, long: &str) -> String {
    match long.strip_prefix("no-") {
        Some(positive) => format!("{name} is ignored; use {}=0", variable_of(positive)),
        None => format!("{name} is ignored: --{long} has to be typed"),
    }
}

/// Whether the option, or one that it cannot be combined with, was typed.
fn is_outdone(command: &Command, typed: &ArgMatches, arg: &Arg) -> bool {
    let is_typed = |id: &str| {
        typed.try_contains_id(id).unwrap_or(false) && typed.value_source(id) == Some(ValueSource::CommandLine)
    };
    let conflicts = command.get_arg_conflicts_with(arg);
    is_typed(arg.get_id().as_str()) || conflicts.iter().any(|other| is_typed(other.get_id().as_str()))
}

fn switch_word(command: &Command, long: &str, name: &str, value: &OsStr) -> Result<Option<OsString>, Error> {
    let negation = format!("no-{long}");
    match value.to_ascii_lowercase().to_str() {
        Some("1" | "true" | "yes" | "on") => Ok(Some(format!("--{long}").into())),
        Some("0" | "false" | "no" | "off") => {
            if let Some(fact) = rsync::always(long) {
                let message = format!("{name} cannot be turned off: {fact}");
                return Err(command.clone().error(ErrorKind::InvalidValue, message));
            }
            let has_negation = command.get_arguments().any(|arg| arg.get_long() == Some(&negation));
            Ok(has_negation.then(|| format!("--{negation}").into()))
        }
        _ => {
            let value = value.to_string_lossy();
            let message = format!("invalid value '{value}' for {name}: expected 1 or 0, true or false, yes or no");
            Err(command.clone().error(ErrorKind::InvalidValue, message))
        }
    }
}

fn value_word(command: &Command, long: &str, name: &str, value: &OsStr) -> Result<OsString, Error> {
    let mut word = OsString::from(format!("--{long}="));
    word.push(value);
    let parsed = command.clone().try_get_matches_from([OsStr::new(command.get_name()), &word]);
    match parsed {
        // Values are read before anything is missed.
        Err(mut error) if matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::ValueValidation) => {
            error.insert(ContextKind::InvalidArg, ContextValue::String(name.to_owned()));
            Err(error)
        }
        _ => Ok(word),
    }
}
