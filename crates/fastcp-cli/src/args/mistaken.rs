//! Words that look like a mistake: told before they are taken for a directory.

use std::ffi::OsStr;
use std::path::Path;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, Error};

/// Words of other tools, and of later versions, that are no commands.
const NO_COMMANDS: [(&str, &str); 9] = [
    ("push", "push is not supported yet; run fastcp-server at the source and fastcp-client pull at the destination"),
    ("sync", "there is no command sync; use pull, with --delete to delete what the source does not have"),
    ("mirror", "there is no command mirror; use pull, with --delete to delete what the source does not have"),
    ("copy", "there is no command copy; use pull, or get for one file of an FTQ1 server"),
    ("cp", "there is no command cp; use pull, or get for one file of an FTQ1 server"),
    ("ls", "ls is not supported yet; pull --dry-run --itemize-changes lists what would be copied"),
    ("drop", "drop is not supported yet"),
    ("finish", "finish is not supported yet"),
    ("serve", "the server is a program of its own: fastcp-server"),
];

/// Options of rsync that fastcp has not, and why.
const NO_OPTIONS: [(&[&str], &str); 11] = [
    (&["-r", "--recursive"], "directories are always copied with everything in them"),
    (
        &["-l", "--links", "-p", "--perms", "-t", "--times", "-g", "--group", "-o", "--owner"],
        "this is always preserved",
    ),
    (&["-P", "--partial", "--progress"], "progress is shown on a terminal, and part files are always kept"),
    (&["-S", "--sparse"], "holes of sparse files are always kept"),
    (&["-H", "--hard-links"], "hard links are copied as separate files"),
    (&["-A", "--acls", "-X", "--xattrs"], "access control lists and extended attributes are not copied yet"),
    (&["-D", "--devices", "--specials"], "devices, pipes and sockets are skipped"),
    (&["-e", "--rsh"], "copies over ssh are not supported yet; run fastcp-server at the source"),
    (
        &["-f", "--filter", "--exclude", "--include", "--exclude-from", "--include-from", "--files-from"],
        "filters are not supported yet",
    ),
    (
        &["-c", "--checksum", "-I", "--ignore-times", "--size-only", "-u", "--update"],
        "fastcp-client verify compares contents; \
        files count as unchanged if their size and time are equal",
    ),
    (&["--bwlimit"], "bandwidth limits are not supported yet"),
];

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
    let [from, to] = words else { return Ok(()) };
    let (from, to) = (from.to_string_lossy(), to.to_string_lossy());
    let message = format!("no command and no port given; did you mean 'fastcp-client pull {from} {to}'?");
    Err(command.clone().error(ErrorKind::MissingRequiredArgument, message))
}

fn refusal(command: &Command, word: &str, message: &str) -> Error {
    let message = format!("{message}\n\n  tip: to copy to a directory of that name, write './{word}'");
    command.clone().error(ErrorKind::InvalidSubcommand, message)
}

/// One letter more, less, changed, or two exchanged.
fn is_near(word: &str, name: &str) -> bool {
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

/// Adds what fastcp does instead to an error about an option of rsync.
pub(super) fn with_advice(mut error: Error) -> Error {
    let Some(ContextValue::String(option)) = error.get(ContextKind::InvalidArg) else { return error };
    if error.kind() != ErrorKind::UnknownArgument {
        return error;
    }
    let option = option.split('=').next().unwrap_or_default();
    if let Some((_, advice)) = NO_OPTIONS.iter().find(|(names, _)| names.contains(&option)) {
        let advice = ContextValue::StyledStrs(vec![(*advice).to_owned().into()]);
        error.insert(ContextKind::Suggested, advice);
        // An option with a similar name would be beside the point.
        error.insert(ContextKind::SuggestedArg, ContextValue::None);
    }
    error
}
