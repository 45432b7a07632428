//! Servers that a remote shell starts: `[USER@]HOST:PATH`, through ssh or whatever `--rsh` says.
//!
//! The far end runs `fastcp-server --session`, and a tunnel over its standard input and output carries everything to begin
//! with. What the session is of travels in the tunnel and not in the command, so no shell has to be told a path. A login may
//! print whatever it likes before the server speaks. There is one login for each run; what the tunnel ends with is explained
//! by what the shell ended with.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fastcp_engine::{Dialer, Endpoint};
use fastcp_model::{Escaped, RelPath};
use fastcp_net::{End, Far, Live, NetError, RemoteProblem, Token, Trust, Tunnel};
use fastcp_wire::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameType, decode_payload, encode_frame};
use fastcp_wire::hello::Failure as Refusal;
use fastcp_wire::limits::{SESSION_BYTES_MAX, SESSION_PATH_BYTES_MAX};
use fastcp_wire::offer::OfferRequest;
use fastcp_wire::session::{Direct, MARK, Opened, Opening, Purpose};

use crate::args::options::ShellOptions;
use crate::exit_code::{self, Failure};
use crate::reach::Reached;
use crate::remote::Remote;
use crate::secrets;

/// What a login may print before the server speaks.
const CHATTER_BYTES_MAX: usize = 1 << 20;
/// Words of the command that the far end runs.
const REMOTE_WORDS: usize = 2;
/// How long the shell may take to end once its output has.
const END_MAX: Duration = Duration::from_secs(3);
/// How long one address may take to answer directly.
const PROBE_MAX: Duration = Duration::from_secs(3);

/// A server to fetch from, and which places of it are meant.
pub(crate) fn source(
    remotes: &[Remote],
    options: &ShellOptions,
) -> Result<(Reached, Shell, Vec<OfferRequest>), Failure> {
    let usage = |message: String| Failure::new(exit_code::USAGE, message);
    let (root, places) = match remotes {
        [remote] => {
            let (root, path, scope) = remote.source().map_err(|error| usage(format!("{}: {error}", remote.shown())))?;
            (root, vec![OfferRequest { path, scope }])
        }
        several => Remote::several(several).map_err(usage)?,
    };
    let (reached, shell) = start(&remotes[0], &opening(Purpose::Pull, root), options)?;
    Ok((reached, shell, places))
}

/// A run's shell; ended when dropped.
pub(crate) struct Shell {
    shared: Arc<Shared>,
    tunnel: Arc<Tunnel>,
}

/// What is known of the far end.
struct Shared {
    host: String,
    process: Mutex<Process>,
    state: Mutex<State>,
    heard: Condvar,
}

/// The shell's process, and what it ended with: `None` where a signal ended it.
enum Process {
    Running(Child),
    Ended(Option<i32>),
}

#[derive(Default)]
struct State {
    /// What the server has answered.
    opened: Option<Result<Opened, Refusal>>,
    /// Whether its mark has come.
    is_marked: bool,
    /// How the tunnel ended, if it has.
    end: Option<End>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the server has answered, once it has.
    fn opened(&self) -> Result<Opened, NetError> {
        let mut state = self.lock();
        loop {
            match &state.opened {
                Some(Ok(opened)) => return Ok(opened.clone()),
                _ if state.opened.is_some() || state.end.is_some() => {
                    drop(state);
                    return Err(self.explain());
                }
                _ => state = self.heard.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Why there is no tunnel any more.
    fn explain(&self) -> NetError {
        let host = &self.host;
        let code = self.exit_code();
        let state = self.lock();
        let remote = |problem, detail| NetError::Remote { problem, detail };
        if let Some(Err(refusal)) = &state.opened {
            return remote(RemoteProblem::NoPlace, format!("{host}: {}", Escaped(refusal.detail.as_bytes())));
        }
        match (code, state.is_marked, state.end) {
            (_, true, Some(End::Silence)) => {
                remote(RemoteProblem::Ended, format!("nothing was heard from {host} for too long"))
            }
            (Some(255), false, _) => {
                remote(RemoteProblem::NoLogin, format!("the remote shell could not reach {host} (exit code 255)"))
            }
            (Some(126 | 127), false, _) => remote(
                RemoteProblem::NoProgram,
                format!(
                    "fastcp-server is not found on {host}. Install it there, or say where it is: --remote-bin /path/to/fastcp-server"
                ),
            ),
            (Some(code), false, _) => remote(
                RemoteProblem::NoProgram,
                format!(
                    "fastcp-server on {host} did not begin a session (exit code {code}); is it an older version? --remote-bin names another"
                ),
            ),
            (None, false, _) => remote(
                RemoteProblem::NoProgram,
                format!("what answers on {host} is no fastcp-server of this version; --remote-bin names another"),
            ),
            _ => remote(RemoteProblem::Ended, format!("the connection to {host} ended")),
        }
    }

    /// What the shell ended with. One that does not end by itself is asked to, and then ended: it may sit at a prompt.
    fn exit_code(&self) -> Option<i32> {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        let child = match &mut *process {
            Process::Running(child) => child,
            Process::Ended(code) => return *code,
        };
        let ended = fastcp_engine::end_process(child, END_MAX);
        let code = ended.ok().and_then(|status| status.code());
        *process = Process::Ended(code);
        code
    }

    /// The tunnel is over: whoever waits learns it, and the shell ends.
    fn over(&self, end: End) {
        self.lock().end = Some(end);
        self.heard.notify_all();
        self.exit_code();
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        self.tunnel.hang_up();
        // Its standard input is closed, so it ends; one that does not is ended.
        let _ = self.shared.exit_code();
    }
}

/// Starts a server behind a remote shell.
pub(crate) fn start(remote: &Remote, opening: &Opening, options: &ShellOptions) -> Result<(Reached, Shell), Failure> {
    let usage = |message: String| Failure::new(exit_code::USAGE, message);
    let words = command_words(remote, options).map_err(usage)?;
    let (program, rest) = words.split_first().expect("a shell and what it is to run");
    if opening.path.len() > SESSION_PATH_BYTES_MAX {
        return Err(usage(format!("the path has more than {SESSION_PATH_BYTES_MAX} bytes")));
    }
    let mut command = Command::new(program);
    command.args(rest).stdin(Stdio::piped()).stdout(Stdio::piped()).env_remove(secrets::VARIABLE);
    let cannot = |error: io::Error| {
        let code = exit_code::of_io_error(&error, exit_code::NOTHING_USABLE);
        Failure::new(code, format!("cannot run \"{}\": {error}", Escaped(program.as_bytes())))
    };
    let mut child = fastcp_engine::spawn_companion(&mut command).map_err(cannot)?;
    let (input, output) = (child.stdout.take(), child.stdin.take());
    let (Some(input), Some(mut output)) = (input, output) else { unreachable!("both are piped") };
    let frame = encode_frame(FrameType::SessionOpen, &opening.encode()).expect("a path within its limit");
    // One that has ended by now is explained later.
    let _ = output.write_all(&frame);
    let host = remote.shown();
    let process = Mutex::new(Process::Running(child));
    let shared = Arc::new(Shared { host: host.clone(), process, state: Mutex::default(), heard: Condvar::new() });
    let greeting = Greeting { input, shared: Arc::clone(&shared), is_marked: false };
    let tunnel = Tunnel::over(greeting, output, None).map_err(cannot)?;
    let (ending, ended) = (Arc::clone(&tunnel), Arc::clone(&shared));
    let thread = std::thread::Builder::new().name("shell".to_owned());
    thread.spawn(move || ended.over(ending.wait_for_end())).map_err(cannot)?;
    let explaining = Arc::clone(&shared);
    let far = Arc::new(Far::new(host, Arc::clone(&tunnel), Box::new(move || explaining.explain())));
    let (probed, probing) = (Arc::clone(&far), Arc::clone(&shared));
    let asked = asking_for_name(&words);
    let thread = std::thread::Builder::new().name("direct".to_owned());
    thread.spawn(move || probed.decide(direct_way(&probing, asked))).map_err(cannot)?;
    let shell = Shell { shared, tunnel };
    // A login may take as long as somebody needs for it. Only then does a run begin, with the time that it has.
    shell.opened()?;
    Ok((Endpoint::Far(far).into(), shell))
}

impl Shell {
    fn opened(&self) -> Result<Opened, Failure> {
        self.shared.opened().map_err(|error| Failure::new(exit_code::of_net_error(&error), error))
    }

    /// What is to be written to, below what the server serves.
    pub(crate) fn destination(&self) -> Result<RelPath, Failure> {
        RelPath::new(&self.opened()?.into)
            .map_err(|error| Failure::new(exit_code::USAGE, format!("{}: {error}", self.shared.host)))
    }
}

/// The words that start the far end: a shell, whom it goes to, and what is run there.
fn command_words(remote: &Remote, options: &ShellOptions) -> Result<Vec<OsString>, String> {
    let rsh = options.rsh.as_deref().unwrap_or(OsStr::new("ssh"));
    let mut words = split_words(rsh.as_bytes())?;
    if words.is_empty() {
        return Err("--rsh is empty".to_owned());
    }
    let program = options.remote_bin.as_deref().unwrap_or("fastcp-server");
    // A command that ends so takes the remote command itself, as `kubectl exec -i POD --` does.
    if words.last().is_some_and(|word| word == "--") {
        if !remote.login.is_empty() && remote.port.is_some() {
            return Err("a port is for ssh; --rsh says where it goes".to_owned());
        }
        if program.is_empty() {
            return Err("--remote-bin is empty".to_owned());
        }
        // Nobody takes quotes off it.
        words.push(program.into());
    } else {
        if is_ssh(&words) {
            // A terminal would change what passes.
            words.push("-T".into());
        }
        if let Some(port) = remote.port {
            words.extend(["-p".into(), port.to_string().into()]);
        }
        words.extend([remote.login.clone().into(), quoted(program)?.into()]);
    }
    words.push("--session".into());
    Ok(words)
}

/// A program's path as any login shell reads it, be it of the POSIX kind, csh or fish.
fn quoted(program: &str) -> Result<String, String> {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "/._-+~".contains(character);
    match program {
        "" => Err("--remote-bin is empty".to_owned()),
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

/// What the far end prints: passed on from where the tunnel begins.
struct Greeting<R> {
    input: R,
    shared: Arc<Shared>,
    is_marked: bool,
}

impl<R: Read> Greeting<R> {
    /// Passes over whatever a login prints, and takes the server's answer.
    fn hear(&mut self) -> io::Result<()> {
        self.find_mark()?;
        self.is_marked = true;
        self.shared.lock().is_marked = true;
        let mut header = [0; FRAME_HEADER_BYTES];
        self.input.read_exact(&mut header)?;
        let decoded = FrameHeader::decode_within(&header, SESSION_BYTES_MAX).map_err(io::Error::other)?;
        let mut rest = vec![0; decoded.rest_bytes()];
        self.input.read_exact(&mut rest)?;
        let payload = decode_payload(&header, &rest).map_err(io::Error::other)?;
        let opened = match decoded.frame_type {
            FrameType::SessionOpened => Ok(Opened::decode(payload).map_err(io::Error::other)?),
            FrameType::Failure => Err(Refusal::decode(payload).map_err(io::Error::other)?),
            other => return Err(io::Error::other(format!("{other:?}"))),
        };
        let is_refused = opened.is_err();
        self.shared.lock().opened = Some(opened);
        self.shared.heard.notify_all();
        if is_refused { Err(io::ErrorKind::ConnectionRefused.into()) } else { Ok(()) }
    }

    fn find_mark(&mut self) -> io::Result<()> {
        // As if a line had ended before the first.
        let mut last = vec![b'\n'];
        for _ in 0..CHATTER_BYTES_MAX {
            let mut byte = [0];
            self.input.read_exact(&mut byte)?;
            if last.len() == MARK.len() {
                last.remove(0);
            }
            last.push(byte[0]);
            if last == MARK {
                return Ok(());
            }
        }
        Err(io::ErrorKind::InvalidData.into())
    }
}

impl<R: Read> Read for Greeting<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if !self.is_marked {
            self.hear()?;
        }
        self.input.read(into)
    }
}

fn is_ssh(words: &[OsString]) -> bool {
    words.first().is_some_and(|word| Path::new(word).file_name().is_some_and(|name| name == "ssh"))
}

/// The command that says what ssh's configuration makes of the host's name, which may not be the one that the host has for
/// itself. Nobody is asked for a password for that.
fn asking_for_name(words: &[OsString]) -> Option<Command> {
    if !is_ssh(words) {
        return None;
    }
    let mut command = Command::new(&words[0]);
    command.arg("-G").args(&words[1..words.len() - REMOTE_WORDS]);
    command.stdin(Stdio::null()).stderr(Stdio::null()).env_remove(secrets::VARIABLE);
    Some(command)
}

fn name_said(mut asked: Command) -> Option<String> {
    let said = asked.output().ok()?.stdout;
    let text = String::from_utf8(said).ok()?;
    text.lines().find_map(|line| line.strip_prefix("hostname ")).map(|name| name.trim_matches(['[', ']']).to_owned())
}

/// Finds out whether the server can be reached directly.
fn direct_way(shared: &Shared, asked: Option<Command>) -> Option<(SocketAddr, Arc<Trust>)> {
    let direct = shared.opened().ok()?.direct;
    let found = direct.as_ref().and_then(|direct| probe(direct, asked));
    if found.is_none() && shared.lock().end.is_none() {
        let host = &shared.host;
        tracing::warn!("no direct connection to {host}: everything goes through the remote shell, which is slower");
    }
    found
}

fn probe(direct: &Direct, asked: Option<Command>) -> Option<(SocketAddr, Arc<Trust>)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    let own: SocketAddr = text(&direct.address)?.parse().ok()?;
    let key = text(&direct.key)?.parse().ok()?;
    let token = Token::new(&direct.token).ok()?;
    let trust = Arc::new(Trust::of_key(Some((key, "the session".to_owned())), Some(token)).ok()?);
    let others = || asked.and_then(name_said).and_then(|name| fastcp_net::addresses(&name, own.port()).ok());
    let others = std::iter::once_with(others).flatten().flatten().filter(|address| *address != own);
    let found = std::iter::once(own).chain(others).find(|address| {
        let endpoint = Endpoint::Tcp { host: address.ip().to_string(), port: address.port() };
        let dialer = Dialer::new(endpoint, Arc::default()).trusting(Arc::clone(&trust));
        let answered = dialer.dial(&Live::default(), Instant::now() + PROBE_MAX);
        if let Err(error) = &answered {
            tracing::debug!(%error, "not reached directly");
        }
        answered.is_ok()
    });
    found.map(|address| (address, trust))
}

/// What a session is opened with.
pub(crate) fn opening(purpose: Purpose, path: Vec<u8>) -> Opening {
    // An empty path is the home directory.
    Opening { purpose, path: if path.is_empty() { b".".to_vec() } else { path } }
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
        assert!(quoted("it's").is_err() && quoted("").is_err() && quoted("a!b").is_err());
    }
}
