//! One workload at one place: the tools in turn, round after round.
//!
//! In turn, so that what disturbs the machine for a while disturbs all of them; and each round
//! begins with another tool. Every run has a destination of its own name, empty or with an earlier
//! version of the tree, but for the workload whose destination is to be there already: that one
//! each tool fills for itself first, untimed, and keeps. What a run leaves is removed before the
//! next one, untimed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use nix::unistd::syncfs;

use crate::error::BenchError;
use crate::generate;
use crate::interrupt::Interrupt;
use crate::report::{Failure, ToolRuns};
use crate::single::{Ended, SingleRun};
use crate::tool::Tool;
use crate::workload::Workload;

/// What all runs of a case share.
#[derive(Debug)]
pub(crate) struct CaseRun<'a> {
    pub(crate) single: SingleRun<'a>,
    pub(crate) interrupt: &'a Interrupt,
    pub(crate) workload: Workload,
    pub(crate) rounds: u32,
    /// For messages: the workload and the place.
    pub(crate) name: String,
}

impl CaseRun<'_> {
    /// All rounds of all tools. A tool that failed once does not run again.
    pub(crate) fn run(&self, tools: &[Tool]) -> Result<Vec<ToolRuns>, BenchError> {
        let mut all: Vec<ToolRuns> = tools.iter().map(|&tool| no_runs(tool)).collect();
        for round in 0..self.rounds {
            for position in 0..tools.len() {
                let index = (position + round as usize) % tools.len();
                if all[index].failure.is_none() {
                    self.take_turn(tools[index], round + 1, &mut all[index])?;
                }
            }
        }
        Ok(all)
    }

    /// One run, whose failure is recorded. Only what ends the benchmark is an error.
    fn take_turn(&self, tool: Tool, round: u32, runs: &mut ToolRuns) -> Result<(), BenchError> {
        let destination = self.destination(tool, round);
        let result = self.copy(tool, &destination);
        self.interrupt.check()?;
        if self.workload != Workload::Unchanged {
            self.remove(&destination)?;
        }
        let told = match result {
            Ok(Ended::Copied(copied)) => {
                let wall_s = copied.measurement.wall_s;
                runs.commands.clone_from(&copied.commands);
                runs.rounds.push(copied.round(round));
                format!("{wall_s:.3} s")
            }
            Ok(Ended::OverTime { seconds }) => {
                runs.failure = Some(Failure::OverTime { seconds });
                format!("stopped after {seconds} s")
            }
            Err(error) => {
                runs.failure = Some(Failure::Wrong { error: error.to_string() });
                format!("FAILED: {error}")
            }
        };
        crate::say(&format!("{}, round {round} of {}: {tool} {told}", self.name, self.rounds));
        Ok(())
    }

    fn destination(&self, tool: Tool, round: u32) -> PathBuf {
        let dir = &self.single.site.dir;
        match self.workload {
            Workload::Unchanged => dir.join(format!("{tool}-kept")),
            _ => dir.join(format!("{tool}-{round}")),
        }
    }

    fn copy(&self, tool: Tool, destination: &Path) -> Result<Ended, BenchError> {
        if !destination.exists() {
            fs::create_dir(destination).map_err(BenchError::file("make", destination))?;
            self.restore_basis(destination)?;
            if self.workload == Workload::Unchanged {
                let first = self.single.run(tool, destination)?;
                if matches!(first, Ended::OverTime { .. }) {
                    return Ok(first);
                }
            }
        }
        self.single.run(tool, destination)
    }

    /// Puts the earlier version there, if the workload has one.
    fn restore_basis(&self, destination: &Path) -> Result<(), BenchError> {
        let Some(basis) = self.single.basis else { return Ok(()) };
        generate::copy_into(&[basis.root.join(".")], destination)?;
        self.settle()
    }

    fn remove(&self, destination: &Path) -> Result<(), BenchError> {
        if destination.exists() {
            fs::remove_dir_all(destination).map_err(BenchError::file("remove", destination))?;
        }
        self.settle()
    }

    /// Waits for the disk, or the next run would.
    fn settle(&self) -> Result<(), BenchError> {
        if !self.single.site.has_disk() {
            return Ok(());
        }
        let dir = &self.single.site.dir;
        let opened = File::open(dir).map_err(BenchError::file("open", dir))?;
        syncfs(&opened).map_err(|errno| BenchError::file("sync", dir)(errno.into()))
    }
}

fn no_runs(tool: Tool) -> ToolRuns {
    ToolRuns {
        tool: tool.to_string(),
        is_limit: tool.is_limit(),
        commands: Vec::new(),
        rounds: Vec::new(),
        failure: None,
    }
}
