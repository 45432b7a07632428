//! `fastcp-bench link SETTINGS -- COMMAND`: a link for as long as a command runs.
//!
//! The command runs in the caller's namespace and learns the ends by `LINK_NEAR`, `LINK_FAR` (names for
//! `ip netns exec`), `LINK_NEAR_IP` and `LINK_FAR_IP`. Its exit status becomes ours.
//!
//! The link is to be taken down however the command ends. So this process keeps the signals that would
//! end it: an interrupt from the terminal reaches the command anyway, and a request to terminate is
//! passed on to it.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::panic::resume_unwind;
use std::process::{Child, Command, ExitStatus};
use std::thread;

use clap::Args;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill};
use nix::unistd::Pid;

use crate::link::{Link, LinkError, LinkSettings};

/// What was typed behind `link`.
#[derive(Debug, Args)]
pub struct LinkArgs {
    /// Round trip, rate, loss and maybe queue, as in 50ms,500mbit,0.05% or 50ms,500mbit,0.05%,100ms
    settings: LinkSettings,
    /// Lose other packets than usual; the same number loses the same ones
    #[arg(long)]
    seed: Option<u64>,
    /// What to run while the link is up, with LINK_NEAR, LINK_FAR, LINK_NEAR_IP and LINK_FAR_IP set
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Why the command did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum LinkCommandError {
    /// There is no link.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Signals could not be held back.
    #[error("cannot hold back signals: {0}")]
    Signals(#[source] Errno),
    /// The command did not start.
    #[error("cannot run {program:?}: {source}")]
    Spawn {
        /// What was to run.
        program: OsString,
        /// Why it did not.
        source: io::Error,
    },
    /// The command's end was not seen.
    #[error("cannot wait for the command: {0}")]
    Wait(#[source] io::Error),
}

/// Runs the command and answers its exit code, or 128 and the signal that ended it.
///
/// # Errors
/// As [`LinkCommandError`] lists; then nothing of the link is left.
pub fn run(args: &LinkArgs) -> Result<u8, LinkCommandError> {
    let held: SigSet = [Signal::SIGINT, Signal::SIGHUP, Signal::SIGTERM].into_iter().collect();
    // Before the link comes up, so that its threads inherit it.
    let usual = held.thread_swap_mask(SigmaskHow::SIG_BLOCK).map_err(LinkCommandError::Signals)?;
    let link = match args.seed {
        Some(seed) => Link::up_with_seeds(&args.settings, [seed, !seed])?,
        None => Link::up(&args.settings)?,
    };
    let mut child = spawn(&args.command, &link, usual)?;
    pass_on(held, &child);
    let status = child.wait().map_err(LinkCommandError::Wait)?;
    report(&args.settings, &link);
    Ok(code_of(status))
}

/// Starts the command with the signals that this process came with. A child inherits the mask of the
/// thread that spawns it; this one is gone before it could be interrupted.
fn spawn(words: &[OsString], link: &Link, usual: SigSet) -> Result<Child, LinkCommandError> {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command.env("LINK_NEAR", link.near().name()).env("LINK_NEAR_IP", link.near().address().to_string());
    command.env("LINK_FAR", link.far().name()).env("LINK_FAR_IP", link.far().address().to_string());
    let spawn = move || {
        usual.thread_set_mask()?;
        command.spawn()
    };
    thread::spawn(spawn)
        .join()
        .unwrap_or_else(|panic| resume_unwind(panic))
        .map_err(|source| LinkCommandError::Spawn { program: words[0].clone(), source })
}

/// Passes requests to terminate on to the command, until this process ends.
fn pass_on(held: SigSet, child: &Child) {
    let pid = Pid::from_raw(child.id().cast_signed());
    thread::spawn(move || {
        while let Ok(signal) = held.wait() {
            if signal == Signal::SIGTERM {
                // It may have ended meanwhile.
                let _ = kill(pid, signal);
            }
        }
    });
}

/// Says what went over the link, beside what the command says.
fn report(settings: &LinkSettings, link: &Link) {
    let [to_far, to_near] = link.counters();
    // Who closed our standard error does not want to know.
    let _ = writeln!(io::stderr(), "link {settings}\n  near to far: {to_far}\n  far to near: {to_near}");
}

fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}
