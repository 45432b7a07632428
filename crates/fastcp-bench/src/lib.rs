//! Runs fastcp and other tools side by side over the same trees, and says how long each took.
//!
//! A *workload* is a tree to copy, a *place* is where the copy goes and what lies between the two
//! ends, a *tool* is what copies. The three together with a round are a *run*: servers are started
//! and ready, the client's command is timed from its spawn to its exit, and then what arrived is
//! counted. A run that copied the wrong thing has no time, only an error.
//!
//! The benchmark runs the programs as their users do. Of fastcp's crates it imports only the one with
//! the operating system's calls, so that nothing of what it measures can be set up in a way that the
//! command line cannot.

pub mod link;
pub mod link_command;

mod args;
mod bare;
mod case;
mod census;
mod chart;
mod contents;
mod counts;
mod create;
mod error;
mod ext4;
mod generate;
mod interrupt;
mod launch;
mod log_text;
mod machine;
mod measure;
mod programs;
mod random;
mod report;
mod revise;
mod run;
mod server;
mod single;
mod site;
mod ssh;
mod statistics;
mod svg;
mod table;
mod tool;
mod trees;
mod variant;
mod wire_bytes;
mod workload;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Job};
use crate::error::BenchError;

const EXIT_FAILED: u8 = 1;

/// What a shell answers for a program that SIGINT ended.
const EXIT_INTERRUPTED: u8 = 130;

/// Parses the process's arguments, runs, and answers how it ended: 0, 1 when a run was wrong,
/// none could be made or a count has grown, 130 when it was interrupted.
pub fn main() -> ExitCode {
    match Args::parse().job().and_then(run_job) {
        Ok(code) => code,
        Err(error) => {
            say(&format!("fastcp-bench: {error}"));
            let code = if matches!(error, BenchError::Interrupted) { EXIT_INTERRUPTED } else { EXIT_FAILED };
            ExitCode::from(code)
        }
    }
}

fn run_job(job: Job) -> Result<ExitCode, BenchError> {
    match job {
        Job::Bench(settings) => run::run(&settings),
        Job::List => write_out(&run::list()).map(|()| ExitCode::SUCCESS),
        Job::Counts(words) => counts::run(&words),
        Job::Link(words) => Ok(link_command::run(&words)?.into()),
        Job::Draw { from, to } => run::draw(&from, &to).map(|()| ExitCode::SUCCESS),
        Job::Measure(words) => measure::run(&words).map(|()| ExitCode::SUCCESS),
        Job::Tether(words) => measure::tether(&words).map(|()| ExitCode::SUCCESS),
        Job::BareServe(words) => bare::serve(&words).map(|()| ExitCode::SUCCESS),
        Job::BareFetch(words) => bare::fetch(&words).map(|()| ExitCode::SUCCESS),
        Job::Create(words) => create::run(&words).map(|()| ExitCode::SUCCESS),
    }
}

/// One line of what goes on, on stderr; a reader that has gone is no reason to stop.
fn say(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Text for stdout.
fn write_out(text: &str) -> Result<(), BenchError> {
    io::stdout().lock().write_all(text.as_bytes()).map_err(|source| BenchError::Output { source })
}
