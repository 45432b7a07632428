//! Options that would do nothing: refused where they were typed. In the environment they may be meant for other runs.

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Command, Error};

/// Refuses options that were typed and mean nothing to this run. `all` has what the environment says as well.
///
/// # Errors
/// What to do instead.
pub(super) fn check(command: &Command, typed: &ArgMatches, all: &ArgMatches) -> Result<(), Error> {
    let refused = |kind, message| Err(command.clone().error(kind, message));
    if is_typed(typed, "manifest_hash") && !is_given(all, "manifest") {
        return refused(ErrorKind::MissingRequiredArgument, "--manifest-hash needs --manifest");
    }
    if is_typed(typed, "compress_level") && is_from_server(command, all) {
        let message = "--compress-level is for a local source; a server is told its level when it is started: \
            fastcp-server --compress-level";
        return refused(ErrorKind::ArgumentConflict, message);
    }
    Ok(())
}

fn is_typed(typed: &ArgMatches, id: &str) -> bool {
    is_given(typed, id) && typed.value_source(id) == Some(ValueSource::CommandLine)
}

fn is_given(matches: &ArgMatches, id: &str) -> bool {
    matches.try_contains_id(id).unwrap_or(false)
}

/// `pull` from an address, or the form without a command. The server has an option of the same name.
fn is_from_server(command: &Command, all: &ArgMatches) -> bool {
    if command.get_name() == "push" {
        return false;
    }
    let from = all.try_get_raw("from").ok().flatten().and_then(|mut words| words.next());
    match from {
        Some(from) => from.as_encoded_bytes().get(..6).is_some_and(|start| start.eq_ignore_ascii_case(b"fcp://")),
        None => command.get_name() == "fastcp-client",
    }
}
