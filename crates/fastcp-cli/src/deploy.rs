//! `--deploy`: a host where fastcp is not installed runs the program that the client sends there.
//!
//! One login does it. The command of the login is the same for every program (`COMMAND`): a shell that reads a script
//! (`deploy/far_end.sh`) from its input and runs it, so nothing of it depends on what the login shell makes of quotes, and no host
//! needs more than `sh` and a few programs that every one has. The script looks for a program by its hash in the user's own
//! directories, runs it where it is there, and says so; else it asks for it. Only then is the program sent. The script writes
//! it under another name, checks length, hash and that it runs, and renames it; only its word `done` has the client go on. So a
//! name with a hash never stands for anything else, whatever is cut off, and programs that read too far take nothing of the session.
//!
//! Where the program is in place nothing waits for that answer: the client opens its session at once, behind the script.
//!
//! Nothing is ever downloaded by the far end, and nothing secret is in the script.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::{ChildStdin, ChildStdout};

use fastcp_model::Escaped;

use crate::args::options::ShellOptions;
use crate::chatter::Chatter;
use crate::exit_code::{self, Failure};
use crate::wording::{shown, size};
use hosts::Host;
use program::{Linking, Program};

mod hosts;
mod program;

/// What a host is asked to run: reads a script up to an empty line, and runs it. Every login shell reads these quotes alike.
pub(crate) const COMMAND: [&str; 3] = ["sh", "-c", r#"eval "$(while read -r l && [ "$l" ]; do echo "$l"; done)""#];

const SCRIPT: &str = include_str!("deploy/far_end.sh");

/// What the script's answers begin with.
const ANSWER: &[u8] = b"fastcp-deploy 1 ";

/// A program that is to be run on a host.
pub(crate) struct Deployment {
    host: Host,
    program: Program,
}

/// What the script says.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// The program is there, and hears what comes.
    Have,
    /// It is to be sent; what `uname -m` says.
    Need { machine: String },
    /// It has come, and hears what comes.
    Done,
    /// No directory takes it; which ones were tried.
    None(String),
    /// It could not be written.
    Unwritten,
    /// Less came than was to come, or something else.
    Damaged,
    /// It does not run there: the exit code and what it says.
    Broken(String),
}

/// Why a host does not run the program.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeployError {
    /// The script said nothing: the login ended before it was run. Its exit code tells more.
    #[error("nothing was heard of the program")]
    Unheard,
    #[error("the connection to {host} ended while fastcp was being sent; nothing of it was kept")]
    Ended { host: String },
    #[error("cannot read \"{program}\" to send it: {source}")]
    Program { program: String, source: io::Error },
    #[error(
        "{host} has another kind of processor ({machine}) than \"{program}\" is for. Build fastcp for it, and name that program: \
         --deploy-bin FILE"
    )]
    Processor { host: String, machine: String, program: String },
    #[error(
        "no directory on {host} takes a program. It has to belong to you, nobody else may write to it, and programs must be \
         allowed there (no noexec); tried: {dirs}"
    )]
    NoPlace { host: String, dirs: String },
    #[error("{host} could not write the program; is its disk full?")]
    Unwritten { host: String },
    #[error("the program did not arrive at {host} as it was sent; nothing of it was kept")]
    Damaged { host: String },
    #[error("\"{program}\" does not run on {host} ({said}){advice}")]
    Broken { host: String, program: String, said: String, advice: &'static str },
}

/// What a program needs that is linked to the system's libraries.
const SHARED_LIBRARIES: &str = ". It needs libraries that this host may not have in its version: build one that needs none \
    with ./static (README.md), and name it: --deploy-bin FILE";

impl DeployError {
    /// As a failure of the run.
    pub(crate) fn failure(self) -> Failure {
        let code = match &self {
            Self::Unheard | Self::Ended { .. } | Self::Damaged { .. } => exit_code::STREAM,
            Self::Program { .. } | Self::Unwritten { .. } => exit_code::FILE_IO,
            Self::Processor { .. } | Self::NoPlace { .. } | Self::Broken { .. } => exit_code::NOTHING_USABLE,
        };
        Failure::new(code, self)
    }
}

impl Deployment {
    /// What is to be deployed to the host that these words lead to: where it is asked for, and where it was before.
    pub(crate) fn wanted(leading: &[OsString], options: &ShellOptions) -> Result<Option<Self>, Failure> {
        let mut host = Host::of(leading);
        if options.no_deploy {
            host.forget().map_err(|error| Failure::new(exit_code::FILE_IO, error))?;
        }
        if options.no_deploy || options.remote_bin.is_some() {
            return Ok(None);
        }
        if !(options.deploy || options.deploy_bin.is_some() || host.find()?) {
            return Ok(None);
        }
        host.name_program(options.deploy_bin.as_deref())?;
        let program = Program::open(host.program())?;
        Ok(Some(Self { host, program }))
    }

    /// What the host is sent before the session is opened with so many bytes.
    pub(crate) fn script(&self, opening_bytes: usize) -> String {
        let Program { hash, bytes, .. } = &self.program;
        let lines = SCRIPT.lines().map(str::trim_start).filter(|line| !line.starts_with('#'));
        let mut script = format!("hash={hash} bytes={bytes} opening={opening_bytes}\n");
        lines.for_each(|line| script.extend([line, "\n"]));
        script.push('\n');
        script
    }

    /// Sends the program to the host `called` so, where the script asks for it; then the session's opening once more, for it was
    /// passed over. Answers what the session goes to.
    ///
    /// # Errors
    /// Why it does not run there.
    pub(crate) fn deploy(
        &self,
        called: &str,
        input: &mut ChildStdout,
        output: ChildStdin,
        opening: &[u8],
    ) -> Result<ChildStdin, DeployError> {
        let mut chatter = Chatter::default();
        let (host, program) = (called.to_owned(), shown(&self.program.path));
        let machine = match chatter.find(input, Answer::decode).map_err(|_| DeployError::Unheard)? {
            Answer::Have => return Ok(output),
            Answer::Need { machine } => machine,
            other => return Err(self.explain(other, host)),
        };
        if !self.program.is_for(&machine) {
            let machine = Escaped(machine.as_bytes()).to_string();
            return Err(DeployError::Processor { host, machine, program });
        }
        tracing::warn!("sending fastcp ({}) to {host}", size(self.program.bytes));
        let unreadable = |source| DeployError::Program { program, source };
        // Beside it: whoever takes no more of it says so, and need not read the rest.
        let sending = self.program.send(output).map_err(unreadable)?;
        let ended = || DeployError::Ended { host: called.to_owned() };
        match chatter.find(input, Answer::decode).map_err(|_| ended())? {
            Answer::Done => {
                let sent = sending.join().unwrap_or_else(|_| Err(io::Error::other("it was not sent")));
                let mut output = sent.map_err(|_| ended())?;
                // One that has ended by now is explained as any program is.
                let _ = output.write_all(opening);
                Ok(output)
            }
            other => Err(self.explain(other, host)),
        }
    }

    fn explain(&self, answer: Answer, host: String) -> DeployError {
        match answer {
            Answer::None(dirs) => DeployError::NoPlace { host, dirs: Escaped(dirs.as_bytes()).to_string() },
            Answer::Unwritten => DeployError::Unwritten { host },
            Answer::Have | Answer::Need { .. } | Answer::Done | Answer::Damaged => DeployError::Damaged { host },
            Answer::Broken(said) => {
                let advice = if self.program.linking == Linking::Dynamic { SHARED_LIBRARIES } else { "" };
                let said = Escaped(said.as_bytes()).to_string();
                DeployError::Broken { host, program: shown(&self.program.path), said, advice }
            }
        }
    }

    /// Has later runs do the same without being asked.
    pub(crate) fn remember(&self) {
        if let Err(error) = self.host.remember() {
            tracing::warn!("cannot remember that this host was deployed to: {error}");
        }
    }
}

impl Answer {
    fn decode(line: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(line.strip_prefix(ANSWER)?).into_owned();
        let (word, rest) = text.split_once(' ').unwrap_or((&text, ""));
        let rest = rest.to_owned();
        match word {
            "have" => Some(Self::Have),
            "need" => Some(Self::Need { machine: rest }),
            "done" => Some(Self::Done),
            "none" => Some(Self::None(rest)),
            "unwritten" => Some(Self::Unwritten),
            "damaged" => Some(Self::Damaged),
            "broken" => Some(Self::Broken(rest)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, COMMAND, SCRIPT};

    #[test]
    fn the_script_comes_through_read_and_echo_as_it_is() {
        assert!(SCRIPT.lines().all(|line| !line.is_empty() && !line.contains('\\')));
        // What was cut off does nothing: all but the last line only says what words mean.
        assert!(SCRIPT.ends_with("}\ndeploy\n"));
        assert!(COMMAND.iter().all(|word| !word.contains(['\'', '!', '\\', '\n'])));
    }

    #[test]
    fn answers() {
        let decode = |line: &str| Answer::decode(line.as_bytes());
        assert_eq!(decode("fastcp-deploy 1 need x86_64"), Some(Answer::Need { machine: "x86_64".to_owned() }));
        assert_eq!(decode("fastcp-deploy 1 have"), Some(Answer::Have));
        assert_eq!(decode("fastcp-deploy 1 none /a /b"), Some(Answer::None("/a /b".to_owned())));
        for line in ["fastcp-deploy 2 have", "fastcp-deploy 1 havent", "have", "", " fastcp-deploy 1 have"] {
            assert_eq!(decode(line), None, "{line}");
        }
    }
}
