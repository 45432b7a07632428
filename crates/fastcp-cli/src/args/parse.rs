//! From words to arguments.
//!
//! Options may stand anywhere, before the command too: the command is moved to the front, so that all options
//! are read by the command that they are for, in their order.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::{Arg, Command, Error, FromArgMatches};

use super::{environment, idle, mistaken};

/// Reads the words of a command line, the program's name first, and the environment.
///
/// # Errors
/// Whatever is to be printed instead of a run: help and version, too.
pub(crate) fn parse<T: FromArgMatches>(
    mut command: Command,
    words: Vec<OsString>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<T, Error> {
    command.build();
    let end_of_options = words.iter().position(|word| word == "--").unwrap_or(words.len());
    let without_units = |(index, word)| if (1..end_of_options).contains(&index) { without_units(word) } else { word };
    let words = words.into_iter().enumerate().map(without_units).collect();
    let (words, is_subcommand) = with_command_in_front(&command, words);
    let typed = command.clone().try_get_matches_from(&words);
    let name = words.get(1).filter(|_| is_subcommand).and_then(|name| name.to_str());
    let of_words = name.and_then(|name| command.find_subcommand(name)).unwrap_or(&command).clone();
    if let Some(refusal) = typed.as_ref().err().and_then(|error| mistaken::rsync_option(&of_words, error)) {
        return Err(refusal);
    }
    if command.has_subcommands() && !is_subcommand && !words.iter().any(|word| word == "--") {
        mistaken::check(&command, &positionals(&command, &words))?;
    }
    let typed = typed.map_err(|error| mistaken::explained(&command, &of_words, error))?;
    let typed = typed.subcommand().map_or(&typed, |(_, typed)| typed);
    let from_environment = environment::words(&of_words, typed, variable)?;
    let (front, rest) = words.split_at(if is_subcommand { 2 } else { 1 });
    let words = [front, &from_environment, rest].concat();
    let all = command.try_get_matches_from(words)?;
    idle::check(&of_words, typed, all.subcommand().map_or(&all, |(_, all)| all))?;
    T::from_arg_matches(&all)
}

/// Takes the `h` out of options that are typed together, as in `-avh`: to rsync it means sizes with units, which are
/// what is printed. Alone it asks for help.
fn without_units(word: OsString) -> OsString {
    let letters = word.as_bytes().strip_prefix(b"-").unwrap_or_default();
    let is_bundle = letters.iter().all(u8::is_ascii_alphabetic) && letters.iter().any(|&letter| letter != b'h');
    if !is_bundle || !letters.contains(&b'h') {
        return word;
    }
    let others = letters.iter().copied().filter(|&letter| letter != b'h');
    OsString::from_vec(std::iter::once(b'-').chain(others).collect())
}

/// Moves the name of a command to the front; answers whether there is one.
fn with_command_in_front(command: &Command, mut words: Vec<OsString>) -> (Vec<OsString>, bool) {
    let Some(index) = positional_indices(command, &words).into_iter().next() else { return (words, false) };
    let is_after_dashes = words[..index].iter().any(|word| word == "--");
    let name = words[index].to_str().filter(|_| !is_after_dashes);
    if name.is_none_or(|name| command.find_subcommand(name).is_none()) {
        return (words, false);
    }
    let name = words.remove(index);
    words.insert(1, name);
    (words, true)
}

fn positionals<'a>(command: &Command, words: &'a [OsString]) -> Vec<&'a OsStr> {
    positional_indices(command, words).into_iter().map(|index| words[index].as_os_str()).collect()
}

/// Where words stand that are neither options nor their values.
fn positional_indices(command: &Command, words: &[OsString]) -> Vec<usize> {
    let mut found = Vec::new();
    let mut index = 1;
    while index < words.len() {
        let word = words[index].as_bytes();
        if word == b"--" {
            found.extend(index + 1..words.len());
            break;
        }
        if word.len() < 2 || word[0] != b'-' {
            found.push(index);
        }
        index += if takes_next_word(command, word) { 2 } else { 1 };
    }
    found
}

/// Whether the value of an option is the next word.
fn takes_next_word(command: &Command, word: &[u8]) -> bool {
    if let Some(long) = word.strip_prefix(b"--") {
        return takes_value(command, |arg| arg.get_long().is_some_and(|name| name.as_bytes() == long));
    }
    let Some(shorts) = word.strip_prefix(b"-") else { return false };
    let takes = |&short: &u8| takes_value(command, |arg| arg.get_short() == Some(short.into()));
    shorts.iter().position(takes).is_some_and(|first| first + 1 == shorts.len())
}

/// Whether an option of the command, or of any below it, takes a value.
fn takes_value(command: &Command, is_it: impl Fn(&Arg) -> bool) -> bool {
    let commands = std::iter::once(command).chain(command.get_subcommands());
    let mut options = commands.flat_map(Command::get_arguments).filter(|arg| !arg.is_positional());
    options.any(|arg| is_it(arg) && arg.get_action().takes_values())
}
