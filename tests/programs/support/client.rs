//! Runs `fastcp-client` and reads what it says.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::launch::Launch;
use super::strace::Strace;
use super::{HANG_TIMEOUT, Workspace, is_root};

const PROGRAM: &str = env!("CARGO_BIN_EXE_fastcp-client");

/// A client about to be run.
#[derive(Debug)]
pub(crate) struct Client {
    program: PathBuf,
    words: Vec<std::ffi::OsString>,
    launch: Launch,
}

impl Client {
    /// A client with exactly these words.
    pub(crate) fn new<W: AsRef<OsStr>>(words: impl IntoIterator<Item = W>) -> Self {
        let words = words.into_iter().map(|word| word.as_ref().to_owned()).collect();
        Self { program: PathBuf::from(PROGRAM), words, launch: Launch::default() }
    }

    /// `pull FROM DST --json`.
    pub(crate) fn pull(from: impl AsRef<OsStr>, dst: impl AsRef<OsStr>) -> Self {
        Self::new([OsStr::new("pull"), OsStr::new("--json"), from.as_ref(), dst.as_ref()])
    }

    /// `push SRC TO --json`.
    pub(crate) fn push(src: impl AsRef<OsStr>, to: impl AsRef<OsStr>) -> Self {
        Self::new([OsStr::new("push"), OsStr::new("--json"), src.as_ref(), to.as_ref()])
    }

    /// `verify DST FROM --json`.
    pub(crate) fn verify(dst: impl AsRef<OsStr>, from: impl AsRef<OsStr>) -> Self {
        Self::new([OsStr::new("verify"), OsStr::new("--json"), dst.as_ref(), from.as_ref()])
    }

    /// `get HOST PORT PATH OUT --json`.
    pub(crate) fn get(port: u16, path: impl AsRef<OsStr>, out: impl AsRef<OsStr>) -> Self {
        let port = port.to_string();
        let words = ["get", "--json", "127.0.0.1", &port].map(OsStr::new);
        Self::new(words.into_iter().chain([path.as_ref(), out.as_ref()]))
    }

    /// Adds options, separated by spaces.
    pub(crate) fn options(mut self, options: &str) -> Self {
        self.words.extend(options.split_whitespace().map(Into::into));
        self
    }

    /// Adds words as they are.
    pub(crate) fn words<W: AsRef<OsStr>>(mut self, words: &[W]) -> Self {
        self.words.extend(words.iter().map(|word| word.as_ref().to_owned()));
        self
    }

    /// Runs as an unprivileged user, from where that user can reach the program.
    pub(crate) fn unprivileged(mut self, workspace: &Workspace) -> Self {
        if is_root() {
            let reachable = workspace.at("client program");
            if !reachable.exists() && fs::hard_link(&self.program, &reachable).is_err() {
                // Not by this process: a child that another test starts meanwhile would hold the copy open for
                // writing, and what is open for writing cannot be run.
                let copied = Command::new("cp").arg(&self.program).arg(&reachable).status();
                assert!(copied.expect("cp runs").success(), "copy the program");
            }
            self.program = reachable;
            self.launch.set_unprivileged();
        }
        self
    }

    /// Runs under a limit of the length of files (`RLIMIT_FSIZE`).
    pub(crate) fn file_bytes_max(self, bytes: u64) -> Self {
        self.under(&["prlimit", &format!("--fsize={bytes}")])
    }

    /// Is started by another program, which these words begin with.
    pub(crate) fn under(mut self, words: &[&str]) -> Self {
        self.launch.set_under(words.iter().map(|&word| word.to_owned()).collect());
        self
    }

    /// Is run with these faults.
    pub(crate) fn strace(mut self, strace: &Strace) -> Self {
        self.launch.set_under(strace.words());
        self
    }

    /// Is started in this way.
    pub(crate) fn launched(mut self, launch: &Launch) -> Self {
        self.launch = launch.clone();
        self
    }

    /// Has a variable in its environment.
    pub(crate) fn variable(mut self, name: &str, value: impl Into<std::ffi::OsString>) -> Self {
        self.launch.set_variable(name, value);
        self
    }

    /// Runs under restrictions of `tests/under`, separated by spaces.
    pub(crate) fn restricted(mut self, restrictions: &str) -> Self {
        self.launch.restrict(restrictions);
        self
    }

    /// Runs to the end.
    pub(crate) fn run(self) -> Run {
        self.start().finish()
    }

    /// Starts, to be finished later.
    pub(crate) fn start(self) -> Running {
        let mut command = self.launch.command(&self.program);
        command.args(&self.words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("start the client");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut errors = child.stderr.take().expect("piped");
        let stderr = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            errors.read_to_end(&mut bytes).expect("read stderr");
            String::from_utf8_lossy(&bytes).into_owned()
        });
        let (guard, ended) = channel();
        let pid = child.id();
        std::thread::spawn(move || kill_if_it_hangs(pid, &ended));
        Running { child, stdout, stderr: Some(stderr), said: Vec::new(), _guard: guard }
    }
}

/// Waits until the client's end drops the sender; kills the client where that takes too long.
fn kill_if_it_hangs(pid: u32, ended: &Receiver<()>) {
    if ended.recv_timeout(HANG_TIMEOUT) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
        let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
    }
}

/// A client at work; killed when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: Option<JoinHandle<String>>,
    said: Vec<String>,
    _guard: Sender<()>,
}

impl Running {
    /// The client's process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the client has told of this event.
    pub(crate) fn wait_for_event(&mut self, event: &str) {
        loop {
            let line = self.next_line().unwrap_or_else(|| panic!("ended without {event}: {:?}", self.said));
            if serde_json::from_str::<Value>(&line).is_ok_and(|value| value["event"] == event) {
                return;
            }
        }
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("send a signal");
    }

    /// Whether one of its threads waits for somebody to read what it prints.
    pub(crate) fn is_writing_to_a_full_pipe(&self) -> bool {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("list threads");
        // A thread may have ended meanwhile. The number of write(2) and the descriptor are the first two words.
        let calls = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("syscall")).ok());
        let write = nix::libc::SYS_write.to_string();
        calls.into_iter().any(|call| call.split(' ').take(2).eq([write.as_str(), "0x1"]))
    }

    /// Whether it has come to its end.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("ask for the end").is_some()
    }

    /// Kills it where it stands.
    pub(crate) fn kill(self) {
        self.signal(Signal::SIGKILL);
        let run = self.finish();
        assert_eq!(run.code, None, "killed, and not ended before: {}", run.stderr);
    }

    /// Kills it, unless it ends by itself at this very moment; then that must be a good end.
    pub(crate) fn kill_or_finish(self) {
        self.signal(Signal::SIGKILL);
        let run = self.finish();
        assert!(matches!(run.code, None | Some(0)), "{:?} {}", run.code, run.stderr);
    }

    /// Waits for the end.
    pub(crate) fn finish(mut self) -> Run {
        while self.next_line().is_some() {}
        let status = self.child.wait().expect("wait for the client");
        let stderr = self.stderr.take().expect("not taken yet").join().expect("stderr reader");
        Run { code: status.code(), lines: std::mem::take(&mut self.said), stderr }
    }

    fn next_line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.stdout.read_line(&mut line).expect("read stdout") {
            0 => None,
            _ => {
                self.said.push(line.trim_end().to_owned());
                self.said.last().cloned()
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client that has ended.
#[derive(Debug)]
pub(crate) struct Run {
    /// `None` where a signal ended it.
    pub(crate) code: Option<i32>,
    /// What it said on stdout.
    pub(crate) lines: Vec<String>,
    pub(crate) stderr: String,
}

impl Run {
    /// Panics unless the run ended with this code, and the summary agrees where there is one.
    pub(crate) fn expect_exit(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stderr:\n{}stdout:\n{}", self.stderr, self.lines.join("\n"));
        if self.lines.last().is_some_and(|line| line.starts_with('{')) {
            // The summary, or the error of a run that could not start.
            assert_eq!(self.events().pop().expect("an event")["exit"], code);
        }
        self
    }

    /// A counter of the summary.
    pub(crate) fn count(&self, name: &str) -> u64 {
        let summary = self.events().pop().expect("a summary");
        assert_eq!(summary["event"], "summary");
        summary[name].as_u64().unwrap_or_else(|| panic!("no counter {name} in {summary}"))
    }

    /// Panics unless the summary's counters have these values.
    pub(crate) fn expect_counts(self, counts: &[(&str, u64)]) -> Self {
        for (name, wanted) in counts {
            assert_eq!(self.count(name), *wanted, "{name}; stderr:\n{}{:?}", self.stderr, self.lines);
        }
        self
    }

    /// All lines of `--json`, each of which has to be an object with a name.
    pub(crate) fn events(&self) -> Vec<Value> {
        let parse = |line: &String| {
            let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            assert!(value["event"].is_string(), "an event has a name: {line}");
            value
        };
        self.lines.iter().map(parse).collect()
    }

    /// What `verify` found: the kind and the path of each difference, sorted.
    pub(crate) fn differences(&self) -> Vec<(String, String)> {
        let events = self.events().into_iter().filter(|value| value["event"] == "differs");
        let word = |value: &Value, name: &str| value[name].as_str().expect("a word").to_owned();
        let mut found: Vec<_> = events.map(|value| (word(&value, "what"), word(&value, "path"))).collect();
        found.sort();
        assert_eq!(self.count("differences"), found.len() as u64);
        found
    }

    /// Panics unless the differences are these, each a kind and a path, and exit code and counts agree.
    pub(crate) fn expect_differences(self, wanted: &[(&str, &str)]) -> Self {
        let run = self.expect_exit(if wanted.is_empty() { 0 } else { 23 });
        let mut wanted: Vec<_> = wanted.iter().map(|(what, path)| ((*what).to_owned(), (*path).to_owned())).collect();
        wanted.sort();
        assert_eq!(run.differences(), wanted, "stderr:\n{}", run.stderr);
        assert_eq!(run.count("files_failed"), 0);
        run
    }

    /// The paths of events of one name.
    pub(crate) fn paths_of(&self, event: &str) -> Vec<String> {
        let events = self.events().into_iter().filter(|value| value["event"] == event);
        let mut paths: Vec<String> = events.map(|value| value["path"].as_str().expect("a path").to_owned()).collect();
        paths.sort();
        paths
    }
}

/// `path/`, which means the contents.
pub(crate) fn contents(path: &Path) -> PathBuf {
    path.join("")
}
