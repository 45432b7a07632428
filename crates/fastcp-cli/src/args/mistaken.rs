//! Words that look like a mistake: told before they are taken for a directory.

use std::ffi::OsStr;
use std::path::Path;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command, Error};
use fastcp_model::Escaped;

use super::rsync;
use crate::address::Address;

/// Words of other tools, and of later versions, that are no commands.
const NO_COMMANDS: [(&str, &str); 6] = [
    ("sync", "there is no command sync; use pull or push, with --delete to delete what the source does not have"),
    ("mirror", "there is no command mirror; use pull or push, with --delete to delete what the source does not have"),
    ("copy", "there is no command copy; use pull or push, or get for one file of an FTQ1 server"),
    ("cp", "there is no command cp; use pull or push, or get for one file of an FTQ1 server"),
    ("finish", "finish is not supported yet"),
    ("serve", "the server is a program of its own: fastcp-server"),
];

/// What `verify` needs beside a directory.
const FROM_OR_MANIFEST: &str = "<FROM>, or --manifest <FILE>";

/// Refuses a first word that was meant as a command.
///
/// # Errors
/// A message that says what to type instead.
pub(super) fn check(command: &Command, words: &[&OsStr]) -> Result<(), Error> {
    let Some(word) = words.first().and_then(|word| word.to_str()) else { return Ok(()) };
    let is_short_form = matches!(words, [_, _, port] if port.to_str().is_some_and(|port| port.parse::<u16>().is_ok()));
    if word.contains('/') || (is_short_form && Path::new(word).is_dir()) {
        return if is_short_form { Ok(()) } else { check_shape(command, words) };
    }
    if let Some((_, message)) = NO_COMMANDS.iter().find(|(name, _)| *name == word) {
        return Err(refusal(command, word, message));
    }
    let names = command.get_subcommands().map(Command::get_name);
    match names.filter(|name| *name != "help").find(|name| is_near(word, name)) {
        Some(name) => Err(refusal(command, word, &format!("unknown command '{word}'; did you mean '{name}'?"))),
        None if is_short_form => Ok(()),
        None => check_shape(command, words),
    }
}

/// Two words are what rsync takes.
fn check_shape(command: &Command, words: &[&OsStr]) -> Result<(), Error> {
    let [first, second] = words else { return Ok(()) };
    let (first, second) = (first.to_string_lossy(), second.to_string_lossy());
    // As it is typed in the short form, or as an address is given to other programs.
    let (from, dst) = match (Address::with_port(&first), Address::with_port(&second)) {
        (Some(_), _) => (format!("fcp://{first}"), quoted(&second)),
        (None, Some(_)) => (format!("fcp://{second}"), quoted(&first)),
        (None, None) if second.starts_with("fcp://") => (quoted(&second), quoted(&first)),
        (None, None) => (quoted(&first), quoted(&second)),
    };
    let message = format!("no command and no port given; did you mean 'fastcp-client pull {from} {dst}'?");
    Err(command.clone().error(ErrorKind::MissingRequiredArgument, message))
}

/// A word as it has to be typed in a shell.
fn quoted(word: &str) -> String {
    let is_plain = |character: char| character.is_alphanumeric() || "/._-:@%+=,[]".contains(character);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("\"{}\"", Escaped(word.as_bytes())),
    }
}

fn refusal(command: &Command, word: &str, message: &str) -> Error {
    let message = format!("{message}\n\n  tip: to copy to a directory of that name, write './{word}'");
    command.clone().error(ErrorKind::InvalidSubcommand, message)
}

/// One letter more, less, changed, or two exchanged.
pub(super) fn is_near(word: &str, name: &str) -> bool {
    let (word, name) = (word.as_bytes(), name.as_bytes());
    let start = word.iter().zip(name).take_while(|(a, b)| a == b).count();
    let (word, name) = (&word[start..], &name[start..]);
    let end = word.iter().rev().zip(name.iter().rev()).take_while(|(a, b)| a == b).count();
    match (&word[..word.len() - end], &name[..name.len() - end]) {
        ([], [] | [_]) | ([_], [] | [_]) => true,
        ([a, b], [c, d]) => a == d && b == c,
        _ => false,
    }
}

/// Says of an option that `command` does not have what to type instead; other errors stay as they are. `all` is the
/// command of the program, with all its subcommands.
pub(super) fn explained(all: &Command, command: &Command, mut error: Error) -> Error {
    if let (ErrorKind::MissingRequiredArgument, Some(ContextValue::Strings(missing))) =
        (error.kind(), error.get(ContextKind::InvalidArg))
    {
        let named = missing.iter().map(|name| if name == "<FROM>" { FROM_OR_MANIFEST } else { name }.to_owned());
        if command.get_name() == "verify" {
            let named = ContextValue::Strings(named.collect());
            error.insert(ContextKind::InvalidArg, named);
        }
        return error;
    }
    match (error.kind(), error.get(ContextKind::InvalidArg), error.get(ContextKind::InvalidSubcommand)) {
        (ErrorKind::UnknownArgument, Some(ContextValue::String(option)), _) if option.starts_with('-') => {
            unknown_option(all, command, option)
        }
        (ErrorKind::InvalidSubcommand, _, Some(ContextValue::String(word))) => {
            let near = all.get_subcommands().map(Command::get_name).find(|name| is_near(word, name));
            let tip = near.map_or(String::new(), |name| format!("; did you mean '{name}'?"));
            command.clone().error(ErrorKind::InvalidSubcommand, format!("unknown command '{word}'{tip}"))
        }
        _ => error,
    }
}

/// The refusal of an option of rsync, if that is what the error is about.
pub(super) fn rsync_option(command: &Command, error: &Error) -> Option<Error> {
    let Some(ContextValue::String(option)) = error.get(ContextKind::InvalidArg) else { return None };
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let option = option.split('=').next().unwrap_or_default();
    let (message, instead) = rsync::refusal(option)?;
    Some(command.clone().error(ErrorKind::UnknownArgument, with_tip(message, &instead)))
}

fn unknown_option(all: &Command, command: &Command, option: &str) -> Error {
    let name = option.split('=').next().unwrap_or_default();
    let others = all.get_subcommands().filter(|other| other.get_name() != command.get_name());
    let of_other = others.into_iter().find(|other| has_shown(other, name));
    let tip = match (nearest(command, name), of_other) {
        (_, Some(other)) => format!("this is an option of {}: leave it out", other.get_name()),
        (Some(near), None) => format!("did you mean '--{near}'?"),
        (None, None) => String::new(),
    };
    let message = with_tip(format!("unexpected argument '{name}' found"), &tip);
    command.clone().error(ErrorKind::UnknownArgument, message)
}

fn with_tip(message: String, tip: &str) -> String {
    if tip.is_empty() { message } else { format!("{message}\n\n  tip: {tip}") }
}

/// The option that was meant: begun, or with a letter wrong. Never one that the help does not show.
fn nearest<'a>(command: &'a Command, option: &str) -> Option<&'a str> {
    let word = option.strip_prefix("--").filter(|word| word.len() > 2)?;
    let bare = word.strip_prefix("no-").unwrap_or(word);
    let options = || shown_options(command);
    options().find(|long| is_near(word, long)).or_else(|| {
        let begun = options().find(|long| long.starts_with(word));
        begun.or_else(|| options().find(|long| bare != word && is_near(bare, long)))
    })
}

fn has_shown(command: &Command, option: &str) -> bool {
    let is_it = |arg: &Arg| match option.strip_prefix("--") {
        Some(long) => arg.get_long() == Some(long),
        None => arg.get_short().is_some_and(|short| option == format!("-{short}")),
    };
    command.get_arguments().any(|arg| !arg.is_hide_set() && is_it(arg))
}

fn shown_options(command: &Command) -> impl Iterator<Item = &str> {
    command.get_arguments().filter(|arg| !arg.is_hide_set()).filter_map(Arg::get_long)
}
