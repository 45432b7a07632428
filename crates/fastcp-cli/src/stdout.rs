//! Standard output. Lines that cannot be written are not dropped in silence.
//!
//! A reader that has closed the pipe wants no more: that is no error, and nothing more is written.
//! Anything else, such as a full disk, is reported once, and the exit code says that output was lost.

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::exit_code::{DONE, FILE_IO};
use crate::stderr::complain;

/// Standard output of a program.
#[derive(Debug)]
pub(crate) struct Stdout {
    program: &'static str,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Complete,
    /// The reader has closed the pipe.
    Closed,
    /// At least one line could not be written.
    Lost,
}

impl Stdout {
    pub(crate) fn of(program: &'static str) -> Self {
        Self { program, state: Mutex::new(State::Complete) }
    }

    /// Writes a line.
    pub(crate) fn line(&self, line: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if *state == State::Closed {
            return;
        }
        match writeln!(io::stdout().lock(), "{line}") {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => *state = State::Closed,
            Err(error) => {
                if std::mem::replace(&mut *state, State::Lost) == State::Complete {
                    complain(&format!("{}: cannot write to standard output: {error}", self.program));
                }
            }
        }
    }

    /// Writes an object as one line of JSON.
    pub(crate) fn json(&self, value: &impl Serialize) {
        match serde_json::to_string(value) {
            Ok(line) => self.line(&line),
            Err(error) => unreachable!("our own events have a form in JSON: {error}"),
        }
    }

    /// The exit code of a run that would otherwise end with `code`.
    pub(crate) fn exit_code(&self, code: u8) -> u8 {
        let is_lost = *self.state.lock().unwrap_or_else(PoisonError::into_inner) == State::Lost;
        if is_lost && code == DONE { FILE_IO } else { code }
    }
}
