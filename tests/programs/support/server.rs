//! Runs `fastcp-server` on a free port of loopback.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};

use tempfile::TempDir;

use super::HANG_TIMEOUT;
use super::launch::Launch;
use super::strace::Strace;
use super::way::RECEIVES;

const PROGRAM: &str = env!("CARGO_BIN_EXE_fastcp-server");

/// A server at work; killed when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    log: PathBuf,
    stdout: BufReader<ChildStdout>,
    _dir: TempDir,
}

impl Server {
    /// Serves `root` on 127.0.0.1.
    pub(crate) fn start(root: &Path) -> Self {
        Self::start_with(root, "127.0.0.1 0")
    }

    /// Serves `root` with these further words, separated by spaces.
    pub(crate) fn start_with(root: &Path, words: &str) -> Self {
        Self::try_start(root, words).expect("a server that listens")
    }

    /// Serves `root` on 127.0.0.1 with these environment variables.
    pub(crate) fn start_in_environment(root: &Path, variables: &[(&str, &str)]) -> Self {
        let mut launch = Launch::default();
        let variables = variables.iter().map(|(name, value)| format!("{name}={value}"));
        launch.set_under(std::iter::once("env".to_owned()).chain(variables).collect());
        Self::try_launch(root, "127.0.0.1 0", &launch).expect("a server that listens")
    }

    /// As before, with these faults.
    pub(crate) fn start_strace(root: &Path, words: &str, strace: &Strace) -> Self {
        let mut launch = Launch::default();
        launch.set_under(strace.words());
        Self::try_launch(root, words, &launch).expect("a server that listens")
    }

    /// As before, under restrictions of `tests/under`.
    pub(crate) fn start_restricted(root: &Path, words: &str, restrictions: &str) -> Self {
        let mut launch = Launch::default();
        launch.restrict(restrictions);
        Self::try_launch(root, words, &launch).expect("a server that listens")
    }

    /// As before; `None` where the server ends without listening.
    pub(crate) fn try_start(root: &Path, words: &str) -> Option<Self> {
        Self::try_launch(root, words, &Launch::default())
    }

    /// As before, launched in this way.
    pub(crate) fn try_launch(root: &Path, words: &str, launch: &Launch) -> Option<Self> {
        let dir = tempfile::tempdir().expect("temporary directory");
        let log = dir.path().join("log");
        let mut child = launch
            .command(PROGRAM.as_ref())
            .arg(root)
            .args(words.split_whitespace())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).expect("create the log"))
            .spawn()
            .expect("start the server");
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        stdout.read_line(&mut line).expect("read the first line");
        let Some(address) = line.strip_prefix("listening on ") else {
            child.wait().expect("wait for the server");
            return None;
        };
        let address = address.trim_end().parse().expect("an address");
        Some(Self { child, address, log, stdout, _dir: dir })
    }

    /// A server of `root` that takes whatever is pushed, and deletes what it is told to.
    pub(crate) fn start_receiving(root: &Path) -> Self {
        Self::start_with(root, &format!("127.0.0.1 0 {RECEIVES}"))
    }

    /// The next line that it prints, without this beginning.
    pub(crate) fn announced(&mut self, beginning: &str) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("read a line");
        let rest = line.strip_prefix(beginning).unwrap_or_else(|| panic!("\"{beginning}\" expected: {line}"));
        rest.trim_end().to_owned()
    }

    /// The server's process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// `fcp://address/path`.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("fcp://{}/{path}", self.address)
    }

    /// A bare connection, which waits for no answer for ever.
    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("connect");
        stream.set_read_timeout(Some(HANG_TIMEOUT)).expect("set the timeout");
        stream
    }

    /// How many threads it has.
    pub(crate) fn threads(&self) -> usize {
        fs::read_dir(format!("/proc/{}/task", self.child.id())).map_or(0, Iterator::count)
    }

    /// How many descriptors it has.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).map_or(0, Iterator::count)
    }

    /// All that it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("read the log")
    }

    /// Log lines that hold the address of this end of a connection. Complete once the server has
    /// closed that connection.
    pub(crate) fn log_lines_about(&self, peer: SocketAddr) -> Vec<String> {
        self.log().lines().filter(|line| line.contains(&peer.to_string())).map(str::to_owned).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
