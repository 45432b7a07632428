//! A tool's server at work: started, awaited, and killed when dropped.
//!
//! A server is ready when it says so or when the kernel lists its port as listening, in the
//! network namespace that the process is in. Nothing connects to see, for socat takes only one
//! connection, and nothing sleeps and hopes.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, SysconfVar, sysconf};

use crate::error::BenchError;
use crate::interrupt::Interrupt;
use crate::launch::{Listening, Ready};
use crate::measure::Usage;

const READY_TIMEOUT: Duration = Duration::from_secs(30);
const READY_POLL: Duration = Duration::from_millis(2);

/// How often to look whether a program has ended. A client's time is taken by `measure`, not here.
const END_POLL: Duration = Duration::from_millis(5);

/// The state of a listening socket, see proc_net_tcp in the kernel's documentation.
const STATE_LISTEN: &str = "0A";

/// A process and all that it started, killed together when dropped.
#[derive(Debug)]
pub(crate) struct ProcessGroup {
    pub(crate) leader: Child,
}

impl ProcessGroup {
    /// Starts the command as a group of its own.
    pub(crate) fn spawn(command: &mut Command) -> Result<Self, BenchError> {
        let spawned = command.process_group(0).stdin(Stdio::null()).spawn();
        let program = || command.get_program().to_string_lossy().into_owned();
        Ok(Self { leader: spawned.map_err(|source| BenchError::Spawn { program: program(), source })? })
    }

    /// Until it ends; `None` where that takes longer than `timeout`.
    pub(crate) fn wait(&mut self, interrupt: &Interrupt, timeout: Duration) -> Result<Option<ExitStatus>, BenchError> {
        let deadline = Instant::now() + timeout;
        while Instant::now() < deadline {
            interrupt.check()?;
            let status = self.leader.try_wait().map_err(BenchError::system("wait for a program"))?;
            if status.is_some() {
                return Ok(status);
            }
            thread::sleep(END_POLL);
        }
        Ok(None)
    }

    fn signal(&self, signal: Signal) {
        if let Ok(id) = i32::try_from(self.leader.id()) {
            // The group outlives its leader where the leader's children do.
            let _ = killpg(Pid::from_raw(id), signal);
        }
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
        let _ = self.leader.kill();
        let _ = self.leader.wait();
    }
}

/// A server that listens.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) processes: ProcessGroup,
    pub(crate) listening: Listening,
    /// Open as long as the server is, or its next line would kill it.
    _stdout: Option<ChildStdout>,
}

impl Server {
    /// Starts it with the command, stderr going to `log`, and waits until it listens.
    pub(crate) fn start(name: &str, command: &mut Command, ready: Ready, log: &Path) -> Result<Self, BenchError> {
        let stderr = File::create(log).map_err(BenchError::file("create", log))?;
        let stdout = if matches!(ready, Ready::Says { .. }) { Stdio::piped() } else { Stdio::null() };
        let mut processes = ProcessGroup::spawn(command.stdout(stdout).stderr(stderr))?;
        let (found, stdout) = match ready {
            Ready::Says { has_key } => read_listening(&mut processes.leader, has_key),
            Ready::Listens(address) => {
                let is_listening = await_listening(&mut processes.leader, address);
                (is_listening.then_some(Listening { address, key: None }), None)
            }
        };
        match found {
            Some(listening) => Ok(Self { processes, listening, _stdout: stdout }),
            None => Err(BenchError::NotListening { program: name.to_owned(), said: last_words(log) }),
        }
    }

    /// Tells it to end, which its processes then do.
    pub(crate) fn tell_to_end(&self) {
        self.processes.signal(Signal::SIGTERM);
    }

    /// What it has used, as long as it is there.
    pub(crate) fn usage(&self) -> Option<Usage> {
        let dir = PathBuf::from(format!("/proc/{}", self.processes.leader.id()));
        let status = fs::read_to_string(dir.join("status")).ok()?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        let peak_kib: u64 = peak.trim().strip_suffix(" kB")?.parse().ok()?;
        let stat = fs::read_to_string(dir.join("stat")).ok()?;
        Some(Usage { processor_s: processor_seconds(&stat)?, peak_bytes: peak_kib * 1024 })
    }
}

/// The last lines of what a program said on stderr.
pub(crate) fn last_words(log: &Path) -> String {
    const LINES: usize = 3;
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(LINES)..].join(" / ");
    if last.is_empty() { "it said nothing".to_owned() } else { last }
}

/// A port that nothing listens on.
pub(crate) fn free_port() -> Result<u16, BenchError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(BenchError::system("find a free port"))?;
    listener.local_addr().map(|address| address.port()).map_err(BenchError::system("find a free port"))
}

fn read_listening(leader: &mut Child, has_key: bool) -> (Option<Listening>, Option<ChildStdout>) {
    let Some(stdout) = leader.stdout.take() else { return (None, None) };
    let mut from = BufReader::new(stdout);
    let listening = listening(&mut from, has_key);
    (listening, Some(from.into_inner()))
}

/// From the first line of a server, and from the second where that has the key.
fn listening(from: &mut impl BufRead, has_key: bool) -> Option<Listening> {
    let mut after = |prefix: &str| {
        let mut line = String::new();
        from.read_line(&mut line).ok()?;
        line.trim_end().strip_prefix(prefix).map(str::to_owned)
    };
    let address = after("listening on ")?.parse().ok()?;
    let key = match has_key {
        true => Some(after("address: ")?.split_once('#')?.1.to_owned()),
        false => None,
    };
    Some(Listening { address, key })
}

fn await_listening(leader: &mut Child, address: SocketAddrV4) -> bool {
    let sockets = PathBuf::from(format!("/proc/{}/net/tcp", leader.id()));
    let deadline = Instant::now() + READY_TIMEOUT;
    while Instant::now() < deadline {
        if fs::read_to_string(&sockets).is_ok_and(|table| is_listening(&table, address)) {
            return true;
        }
        if !matches!(leader.try_wait(), Ok(None)) {
            return false;
        }
        thread::sleep(READY_POLL);
    }
    false
}

/// Whether the kernel's table has a listening socket with this address.
fn is_listening(table: &str, address: SocketAddrV4) -> bool {
    let ip = u32::from_ne_bytes(address.ip().octets());
    let local = format!("{ip:08X}:{:04X}", address.port());
    table.lines().skip(1).any(|line| {
        let mut columns = line.split_whitespace().skip(1);
        columns.next() == Some(&local) && columns.nth(1) == Some(STATE_LISTEN)
    })
}

/// User and kernel time in a line of /proc/PID/stat.
fn processor_seconds(stat: &str) -> Option<f64> {
    // The name is in brackets and may hold anything, brackets too.
    let after_name = &stat[stat.rfind(')')? + 1..];
    // From "state", the third column; utime and stime are the 14th and 15th.
    let mut columns = after_name.split_whitespace().skip(11);
    let ticks: u64 = columns.next()?.parse::<u64>().ok()? + columns.next()?.parse::<u64>().ok()?;
    let ticks_per_second = sysconf(SysconfVar::CLK_TCK).ok()??;
    Some(ticks as f64 / ticks_per_second as f64)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddrV4;

    use super::{is_listening, listening, processor_seconds};
    use crate::launch::Listening;

    #[test]
    fn what_a_server_says_is_read() {
        let said = "listening on 127.0.0.1:7\naddress: fcp://127.0.0.1:7#sha256:0f\n";
        let address = "127.0.0.1:7".parse().expect("an address");
        let key = Some("sha256:0f".to_owned());
        assert_eq!(listening(&mut said.as_bytes(), false), Some(Listening { address, key: None }));
        assert_eq!(listening(&mut said.as_bytes(), true), Some(Listening { address, key }));
        for wrong in ["", "listening on 127.0.0.1:7\n", "listening on 127.0.0.1:7\naddress: fcp://127.0.0.1:7\n"] {
            assert_eq!(listening(&mut wrong.as_bytes(), true), None, "{wrong}");
        }
    }

    #[test]
    fn the_table_of_sockets_is_read() {
        let table = "  sl  local_address rem_address   st tx_queue\n   \
            0: 0100007F:B359 00000000:0000 0A 00000000:00000000\n   \
            1: 0100007F:B35A 0100007F:0001 01 00000000:00000000\n";
        let at = |text: &str| text.parse::<SocketAddrV4>().expect("an address");
        assert!(is_listening(table, at("127.0.0.1:45913")));
        assert!(!is_listening(table, at("127.0.0.1:45914")), "it is connected");
        assert!(!is_listening(table, at("127.0.0.2:45913")));
    }

    #[test]
    fn processor_time_is_read_past_any_name() {
        let stat = "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20";
        let ticks_per_second = 100.0;
        assert_eq!(processor_seconds(stat), Some(200.0 / ticks_per_second));
    }
}
