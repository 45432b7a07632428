//! Hosts that were deployed to: `deployed_hosts`.
//!
//! A line has the command that leads to the host, its words escaped with their spaces, so that a host is another one for another
//! login or another `--rsh`. Behind a tab stands the program that was named, if one was.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use fastcp_model::Escaped;

use crate::exit_code::{self, Failure};
use crate::kept;
use crate::wording::shown;

const FILE_NAME: &str = "deployed_hosts";

/// A host, and what is known of it.
#[derive(Debug)]
pub(super) struct Host {
    command: String,
    program: Option<PathBuf>,
    is_remembered: bool,
}

impl Host {
    /// The host that these words lead to.
    pub(super) fn of(leading: &[OsString]) -> Self {
        let words: Vec<_> = leading.iter().map(|word| escaped(word)).collect();
        Self { command: words.join(" "), program: None, is_remembered: false }
    }

    /// Looks up whether it was deployed to.
    pub(super) fn find(&mut self) -> Result<bool, Failure> {
        let found = kept::find(FILE_NAME, |line| program_of(line, &self.command))?;
        if let Some((program, _)) = found {
            (self.program, self.is_remembered) = (program, true);
        }
        Ok(self.is_remembered)
    }

    /// Has it run this program from now on, if it is one.
    pub(super) fn name_program(&mut self, program: Option<&Path>) -> Result<(), Failure> {
        let Some(program) = program else { return Ok(()) };
        let whole = std::path::absolute(program).map_err(|error| {
            Failure::new(
                exit_code::FILE_IO,
                format!("cannot read \"{}\", which is to be sent: {error}", shown(program)),
            )
        })?;
        (self.program, self.is_remembered) = (Some(whole), false);
        Ok(())
    }

    pub(super) fn program(&self) -> Option<&Path> {
        self.program.as_deref()
    }

    pub(super) fn remember(&self) -> io::Result<()> {
        let mut line = self.command.clone();
        if let Some(program) = &self.program {
            line.extend(["\t", &escaped(program.as_os_str())]);
        }
        let is_kept = self.is_remembered
            || kept::find(FILE_NAME, |kept| (kept == line).then_some(())).is_ok_and(|found| found.is_some());
        if is_kept { Ok(()) } else { self.replace(Some(&line)) }
    }

    pub(super) fn forget(&mut self) -> io::Result<()> {
        let is_known = self.find().map_err(|failure| io::Error::other(failure.message))?;
        if is_known {
            self.replace(None)?;
        }
        Ok(())
    }

    fn replace(&self, line: Option<&str>) -> io::Result<()> {
        kept::replace(FILE_NAME, |line| program_of(line, &self.command).is_some(), line)
    }
}

fn escaped(word: &OsStr) -> String {
    Escaped(word.as_bytes()).to_string().replace(' ', "\\x20")
}

/// The program that a line about a host names, if it does.
fn program_of(line: &str, command: &str) -> Option<Option<PathBuf>> {
    let (host, program) = line.split_once('\t').map_or((line, None), |(host, program)| (host, Some(program)));
    let read = |program: &str| Some(PathBuf::from(OsString::from_vec(Escaped::undo(program.trim().as_bytes())?)));
    (host.trim() == command).then(|| program.and_then(read))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{Host, escaped, program_of};

    #[test]
    fn lines() {
        let host = Host::of(&["ssh".into(), "-F".into(), "a b".into(), "ana@host".into()]);
        assert_eq!(host.command, "ssh -F a\\x20b ana@host");
        assert_eq!(program_of("ssh -F a\\x20b ana@host", &host.command), Some(None));
        let odd = PathBuf::from("/a b\tc\\d\n");
        let line = format!("{}\t{}", host.command, escaped(odd.as_os_str()));
        assert_eq!(program_of(&line, &host.command), Some(Some(odd)));
        for line in ["", "# ssh ana@host", "ssh -F a b ana@host", "ssh -F a\\x20b ana@hosts"] {
            assert_eq!(program_of(line, &host.command), None, "{line}");
        }
    }
}
