//! The words of the command that leads to the far end.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::{Command, Stdio};

use fastcp_model::Escaped;

use crate::args::options::ShellOptions;
use crate::remote::Remote;
use crate::secrets;
use crate::session::SESSION;

/// The words of a command that leads to a host, and how it takes what is to be run there.
pub(super) struct Leading {
    pub(super) words: Vec<OsString>,
    remote: Takes,
}

enum Takes {
    /// Words as they are, as `kubectl exec -i POD --` does.
    Words,
    /// A line for a login shell.
    Line,
}

impl Leading {
    /// The way to this host.
    pub(super) fn to(remote: &Remote, options: &ShellOptions) -> Result<Self, String> {
        let rsh = options.rsh.as_deref().unwrap_or(OsStr::new("ssh"));
        let mut words = split_words(rsh.as_bytes())?;
        if words.is_empty() {
            return Err("--rsh is empty".to_owned());
        }
        if words.last().is_some_and(|word| word == "--") {
            if !remote.login.is_empty() && remote.port.is_some() {
                return Err("a port is for ssh; --rsh says where it goes".to_owned());
            }
            return Ok(Self { words, remote: Takes::Words });
        }
        if is_ssh(&words) {
            // A terminal would change what passes.
            words.push("-T".into());
            // The connection may be another's, but never is one that others share: it ends with the run.
            words.push("-oControlMaster=no".into());
        }
        if let Some(port) = remote.port {
            words.extend(["-p".into(), port.to_string().into()]);
        }
        words.push(remote.login.clone().into());
        Ok(Self { words, remote: Takes::Line })
    }

    /// The words that start a program there which is in place.
    pub(super) fn to_session(&self, program: &str) -> Result<Vec<OsString>, String> {
        let program = match self.remote {
            _ if program.is_empty() => return Err("--remote-bin is empty".to_owned()),
            // Nobody takes quotes off it.
            Takes::Words => program.to_owned(),
            Takes::Line => quoted(program)?,
        };
        Ok(self.followed_by(vec![program, SESSION.to_owned()]))
    }

    /// The words that start these there: none of them has a quote that a shell takes off.
    pub(super) fn to_command(&self, command: &[&str]) -> Vec<OsString> {
        let quoted = |word: &&str| match self.remote {
            Takes::Line if word.contains(' ') => format!("'{word}'"),
            _ => (*word).to_owned(),
        };
        self.followed_by(command.iter().map(quoted).collect())
    }

    fn followed_by(&self, remote: Vec<String>) -> Vec<OsString> {
        self.words.iter().cloned().chain(remote.into_iter().map(OsString::from)).collect()
    }
}

/// A program's path as any login shell reads it, be it of the POSIX kind, csh or fish.
fn quoted(program: &str) -> Result<String, String> {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "/._-+~".contains(character);
    match program {
        program if program.chars().all(is_plain) => Ok(program.to_owned()),
        program if program.contains(['\'', '!', '\n', '\\']) => {
            Err(format!("--remote-bin \"{}\": no shell reads that alike", Escaped(program.as_bytes())))
        }
        program => Ok(format!("'{program}'")),
    }
}

/// Words of a command, with quotes of either kind.
fn split_words(text: &[u8]) -> Result<Vec<OsString>, String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<Vec<u8>>, None);
    for &byte in text {
        match (quote, byte) {
            (Some(open), _) if byte == open => quote = None,
            (None, b'\'' | b'"') => {
                quote = Some(byte);
                word.get_or_insert_default();
            }
            (None, b' ' | b'\t' | b'\n') => words.extend(word.take().map(OsString::from_vec)),
            _ => word.get_or_insert_default().push(byte),
        }
    }
    if quote.is_some() {
        return Err("--rsh: a quote is not closed".to_owned());
    }
    words.extend(word.map(OsString::from_vec));
    Ok(words)
}

/// Whether these words run ssh itself.
pub(super) fn is_ssh(words: &[OsString]) -> bool {
    words.first().is_some_and(|word| Path::new(word).file_name().is_some_and(|name| name == "ssh"))
}

/// The command that says what ssh's configuration makes of the host's name, which may not be the one that the host has for
/// itself. Nobody is asked for a password for that.
pub(super) fn asking_for_name(leading: &[OsString]) -> Option<Command> {
    if !is_ssh(leading) {
        return None;
    }
    let mut command = Command::new(&leading[0]);
    command.arg("-G").args(&leading[1..]);
    command.stdin(Stdio::null()).stderr(Stdio::null()).env_remove(secrets::VARIABLE);
    Some(command)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::{quoted, split_words};

    #[test]
    fn commands_are_split_as_shells_do() {
        let words = |text: &str| split_words(text.as_bytes()).map(|words| words.join(&OsString::from("|")));
        assert_eq!(words(" ssh  -o 'A b' \"c d\"e ''"), Ok("ssh|-o|A b|c de|".into()));
        assert!(words("ssh 'x").is_err());
    }

    #[test]
    fn programs_are_read_alike_by_every_shell() {
        assert_eq!(quoted("~/bin/fastcp-server").as_deref(), Ok("~/bin/fastcp-server"));
        assert_eq!(quoted("/a b/$c").as_deref(), Ok("'/a b/$c'"));
        assert!(quoted("it's").is_err() && quoted("a!b").is_err());
    }
}
