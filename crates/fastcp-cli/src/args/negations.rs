//! `--no-NAME` for each option that is on or off, as rsync has it: hidden in the help, and the last wins.

use clap::{Arg, ArgAction, Command};

use super::rsync;

/// Gives every switch of a command and of its subcommands a negation, where it has none of its own.
pub(super) fn with_negations(mut command: Command) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    for name in names {
        command = command.mut_subcommand(name, with_negations);
    }
    let switches: Vec<(String, String)> = command.get_arguments().filter_map(negatable).collect();
    for (id, long) in switches {
        let negation = format!("no-{long}");
        if command.get_arguments().any(|arg| arg.get_long() == Some(&negation)) {
            continue;
        }
        let arg = Arg::new(negation.clone()).long(negation.clone()).action(ArgAction::SetTrue).hide(true);
        command = command.mut_arg(&id, |arg| arg.overrides_with(&negation)).arg(arg.overrides_with(id));
    }
    command
}

fn negatable(arg: &Arg) -> Option<(String, String)> {
    let long = arg.get_long().filter(|long| !long.starts_with("no-") && rsync::always(long).is_none())?;
    is_switch(arg).then(|| (arg.get_id().to_string(), long.to_owned()))
}

/// Whether an option is on or off.
pub(super) fn is_switch(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::SetTrue)
}
