//! How the programs under test are started.

use std::path::Path;
use std::process::Command;

/// `program`, run by another one where `under` has the words of one.
pub(crate) fn command(program: &Path, under: &[String]) -> Command {
    let Some((outer, words)) = under.split_first() else { return Command::new(program) };
    let mut command = Command::new(outer);
    command.args(words).arg(program);
    command
}
