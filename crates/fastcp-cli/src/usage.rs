//! What is printed instead of a run: help, version, and errors of usage.

use std::io::{ErrorKind, Write, stdout};

use crate::exit_code::{DONE, FILE_IO, USAGE};
use crate::stderr::complain;

/// Prints what the parser has to say instead of a run, and answers the exit code.
pub(crate) fn print(program: &str, error: &clap::Error) -> u8 {
    let printed = error.print().and_then(|()| stdout().flush());
    match printed {
        _ if error.use_stderr() => USAGE,
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            complain(&format!("{program}: cannot write to standard output: {error}"));
            FILE_IO
        }
        _ => DONE,
    }
}
