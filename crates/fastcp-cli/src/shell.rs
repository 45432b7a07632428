//! Servers that a remote shell starts: `[USER@]HOST:PATH`, through ssh or whatever `--rsh` says.
//!
//! The far end runs `fastcp-server --session`, or a program that is sent there first (`deploy.rs`), and a tunnel over its standard input and output carries everything to begin
//! with. What the session is of travels in the tunnel and not in the command, so no shell has to be told a path. A login may
//! print whatever it likes before the server speaks. There is one login for each run; what the tunnel ends with is explained
//! by what the shell ended with.

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastcp_engine::Endpoint;
use fastcp_model::{Escaped, RelPath};
use fastcp_net::{End, Far, NetError, RemoteProblem, Tunnel};
use fastcp_wire::frame::{FrameType, encode_frame};
use fastcp_wire::hello::Failure as Refusal;
use fastcp_wire::limits::SESSION_PATH_BYTES_MAX;
use fastcp_wire::offer::Place;
use fastcp_wire::session::{Opened, Opening, Purpose};

use crate::args::options::ShellOptions;
use crate::deploy::{self, DeployError, Deployment};
use crate::exit_code::{self, Failure};
use crate::reach::Reached;
use crate::remote::Remote;
use crate::secrets;
use direct::direct_way;
use explained::{Ended, FarEnd};
use greeting::Greeting;
use words::{Leading, asking_for_name, is_ssh};

mod direct;
mod explained;
mod greeting;
mod words;

/// How long the shell may take to end once its output has.
const END_MAX: Duration = Duration::from_secs(3);
/// How long ssh may take to end after a run. What it would wait for is a round trip with which nothing is said any more: the
/// far end ends with the connection as well.
const SSH_END_MAX: Duration = Duration::from_millis(5);

/// A server to fetch from, and which places of it are meant.
pub(crate) fn source(remotes: &[Remote], options: &ShellOptions) -> Result<(Reached, Shell, Vec<Place>), Failure> {
    let usage = |message: String| Failure::new(exit_code::USAGE, message);
    let (root, places) = match remotes {
        [remote] => {
            let (root, path, scope) = remote.source().map_err(|error| usage(format!("{}: {error}", remote.shown())))?;
            (root, vec![Place { path, scope }])
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
    is_ssh: bool,
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
    /// A mark that came before, of another version.
    other_version: Option<u32>,
    /// What is there.
    far_end: FarEnd,
    /// How the tunnel ended, if it has.
    end: Option<End>,
    /// This end is done with it.
    is_done: bool,
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
        if let Some(Err(refusal)) = &state.opened {
            let detail = format!("{host}: {}", Escaped(refusal.detail.as_bytes()));
            return NetError::Remote { problem: RemoteProblem::NoPlace, detail };
        }
        let State { is_marked, other_version, far_end, end, .. } = *state;
        Ended { far_end, code, is_marked, other_version, end }.explain(host)
    }

    /// What the shell ended with. One that does not end by itself is asked to, and then ended: it may sit at a prompt.
    fn exit_code(&self) -> Option<i32> {
        self.exit_code_within(END_MAX)
    }

    fn exit_code_within(&self, end_max: Duration) -> Option<i32> {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        let child = match &mut *process {
            Process::Running(child) => child,
            Process::Ended(code) => return *code,
        };
        let ended = fastcp_engine::end_process(child, end_max);
        let code = ended.ok().and_then(|status| status.code());
        *process = Process::Ended(code);
        code
    }

    /// The tunnel is over: whoever waits learns it, and the shell ends.
    fn over(&self, end: End) {
        let is_done = {
            let mut state = self.lock();
            state.end = Some(end);
            state.is_done
        };
        self.heard.notify_all();
        if !is_done {
            self.exit_code();
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        self.shared.lock().is_done = true;
        self.tunnel.hang_up();
        // Its standard input is closed, so it ends; one that does not is ended.
        let _ = self.shared.exit_code_within(if self.is_ssh { SSH_END_MAX } else { END_MAX });
    }
}

/// Starts a server behind a remote shell.
pub(crate) fn start(remote: &Remote, opening: &Opening, options: &ShellOptions) -> Result<(Reached, Shell), Failure> {
    let usage = |message: String| Failure::new(exit_code::USAGE, message);
    if opening.path.len() > SESSION_PATH_BYTES_MAX {
        return Err(usage(format!("the path has more than {SESSION_PATH_BYTES_MAX} bytes")));
    }
    let leading = Leading::to(remote, options).map_err(usage)?;
    let deployment = Deployment::wanted(&leading.words, options)?;
    let words = match &deployment {
        Some(_) => leading.to_command(&deploy::COMMAND),
        None => leading.to_session(options.remote_bin.as_deref().unwrap_or("fastcp-server")).map_err(usage)?,
    };
    let (program, rest) = words.split_first().expect("a shell and what it is to run");
    let mut command = Command::new(program);
    command.args(rest).stdin(Stdio::piped()).stdout(Stdio::piped()).env_remove(secrets::VARIABLE);
    let cannot = |error: io::Error| {
        let code = exit_code::of_io_error(&error, exit_code::NOTHING_USABLE);
        Failure::new(code, format!("cannot run \"{}\": {error}", Escaped(program.as_bytes())))
    };
    let mut child = fastcp_engine::spawn_companion(&mut command).map_err(cannot)?;
    let (input, output) = (child.stdout.take(), child.stdin.take());
    let (Some(mut input), Some(mut output)) = (input, output) else { unreachable!("both are piped") };
    let host = remote.shown();
    let process = Mutex::new(Process::Running(child));
    let shared = Arc::new(Shared { host: host.clone(), process, state: Mutex::default(), heard: Condvar::new() });
    let frame = encode_frame(FrameType::SessionOpen, &opening.encode()).expect("a path within its limit");
    let script = deployment.as_ref().map(|deployment| deployment.script(frame.len())).unwrap_or_default();
    // One that has ended by now is explained later.
    let _ = output.write_all(&[script.as_bytes(), &frame].concat());
    if let Some(deployment) = &deployment {
        shared.lock().far_end = FarEnd::Deploying;
        output = deployment.deploy(&host, &mut input, output, &frame).map_err(|error| match error {
            DeployError::Unheard => failure(shared.explain()),
            error => error.failure(),
        })?;
        shared.lock().far_end = FarEnd::Deployed;
    }
    let greeting = Greeting { input, shared: Arc::clone(&shared), is_marked: false };
    let tunnel = Tunnel::over(greeting, output, None).map_err(cannot)?;
    let (ending, ended) = (Arc::clone(&tunnel), Arc::clone(&shared));
    let thread = std::thread::Builder::new().name("shell".to_owned());
    thread.spawn(move || ended.over(ending.wait_for_end())).map_err(cannot)?;
    let explaining = Arc::clone(&shared);
    let far = Arc::new(Far::new(host, Arc::clone(&tunnel), Box::new(move || explaining.explain())));
    let (probed, probing) = (Arc::clone(&far), Arc::clone(&shared));
    let asked = asking_for_name(&leading.words);
    let thread = std::thread::Builder::new().name("direct".to_owned());
    thread.spawn(move || probed.decide(direct_way(&probing, asked))).map_err(cannot)?;
    let shell = Shell { shared, tunnel, is_ssh: is_ssh(&leading.words) };
    // A login may take as long as somebody needs for it. Only then does a run begin, with the time that it has.
    shell.opened()?;
    if let Some(deployment) = deployment {
        deployment.remember();
    }
    Ok((Endpoint::Far(far).into(), shell))
}

fn failure(error: NetError) -> Failure {
    Failure::new(exit_code::of_net_error(&error), error)
}

impl Shell {
    fn opened(&self) -> Result<Opened, Failure> {
        self.shared.opened().map_err(failure)
    }

    /// What is to be written to, below what the server serves.
    pub(crate) fn destination(&self) -> Result<RelPath, Failure> {
        RelPath::new(&self.opened()?.into)
            .map_err(|error| Failure::new(exit_code::USAGE, format!("{}: {error}", self.shared.host)))
    }
}

/// What a session is opened with.
pub(crate) fn opening(purpose: Purpose, path: Vec<u8>) -> Opening {
    // An empty path is the home directory.
    Opening { purpose, path: if path.is_empty() { b".".to_vec() } else { path } }
}
