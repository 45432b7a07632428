//! Two small processes between the benchmark and what it runs.
//!
//! `measure` runs a client's command: it takes the wall time from the spawn to the exit, and asks
//! the kernel for the processor time and the peak memory of that command and all that it started.
//! The kernel tells those of all children of a process together, so each run needs a process of
//! its own; and a small one, because a child's peak begins with what its parent had.
//!
//! `tether` becomes a server's command, which dies should the benchmark be killed.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::Signal;
use nix::sys::time::TimeValLike;
use nix::unistd::syncfs;
use serde::{Deserialize, Serialize};

use crate::error::BenchError;
use crate::interrupt;

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct MeasureWords {
    /// The file that the measurement goes to
    #[arg(long)]
    report: PathBuf,

    /// Count until the file system of this directory is synced
    #[arg(long)]
    sync: Option<PathBuf>,

    /// The command
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// What to become.
#[derive(Debug, clap::Args)]
pub(crate) struct TetherWords {
    /// The command
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// How a command ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measurement {
    /// How it ended, where that was a failure.
    pub(crate) failure: Option<String>,
    /// From the spawn to the exit, or to the end of the sync.
    pub(crate) wall_s: f64,
    /// Of that, the sync.
    pub(crate) sync_s: f64,
    /// Of the command and its children.
    pub(crate) usage: Usage,
}

/// What a process took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// In user and kernel mode.
    pub(crate) processor_s: f64,
    /// Of the largest single process.
    pub(crate) peak_bytes: u64,
}

impl Measurement {
    /// Reads what `measure` wrote.
    pub(crate) fn read(path: &Path) -> Result<Self, BenchError> {
        let text = fs::read(path).map_err(BenchError::file("read", path))?;
        serde_json::from_slice(&text).map_err(|source| BenchError::Json {
            expected: "a measurement",
            path: path.to_path_buf(),
            source,
        })
    }
}

/// Runs the command and writes how it went.
pub(crate) fn run(words: &MeasureWords) -> Result<(), BenchError> {
    tie_to_parent()?;
    let mut command = command_of(&words.command)?;
    // Opened first, so that only the sync itself counts.
    let synced = words.sync.as_ref().map(|dir| File::open(dir).map_err(BenchError::file("open", dir))).transpose()?;
    let start = Instant::now();
    let status = command.stdin(Stdio::null()).status().map_err(|source| spawn_error(&command, source))?;
    let exited = Instant::now();
    if let Some(dir) = synced {
        syncfs(&dir).map_err(|errno| BenchError::system("sync the destination")(errno.into()))?;
    }
    let end = Instant::now();
    let measurement = Measurement {
        failure: (!status.success()).then(|| status.to_string()),
        wall_s: (end - start).as_secs_f64(),
        sync_s: (end - exited).as_secs_f64(),
        usage: children_usage()?,
    };
    let report = &words.report;
    let text = serde_json::to_vec(&measurement).map_err(|source| BenchError::Json {
        expected: "a measurement",
        path: report.clone(),
        source,
    })?;
    fs::write(report, text).map_err(BenchError::file("write", report))
}

/// Becomes the command.
pub(crate) fn tether(words: &TetherWords) -> Result<(), BenchError> {
    tie_to_parent()?;
    let mut command = command_of(&words.command)?;
    let source = command.exec();
    Err(spawn_error(&command, source))
}

fn tie_to_parent() -> Result<(), BenchError> {
    interrupt::unblock()?;
    set_pdeathsig(Signal::SIGKILL).map_err(|errno| BenchError::system("be tied to the parent")(errno.into()))
}

fn command_of(words: &[OsString]) -> Result<Command, BenchError> {
    let (program, rest) = words.split_first().ok_or(BenchError::Usage("expected a command"))?;
    let mut command = Command::new(program);
    command.args(rest);
    Ok(command)
}

fn spawn_error(command: &Command, source: std::io::Error) -> BenchError {
    BenchError::Spawn { program: command.get_program().to_string_lossy().into_owned(), source }
}

fn children_usage() -> Result<Usage, BenchError> {
    let used = getrusage(UsageWho::RUSAGE_CHILDREN)
        .map_err(|errno| BenchError::system("ask for the resources used")(errno.into()))?;
    let microseconds = used.user_time().num_microseconds() + used.system_time().num_microseconds();
    Ok(Usage {
        processor_s: microseconds as f64 / 1e6,
        // In KiB, see getrusage(2).
        peak_bytes: u64::try_from(used.max_rss()).unwrap_or(0) * 1024,
    })
}
