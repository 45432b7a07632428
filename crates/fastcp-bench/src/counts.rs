//! How much fastcp does for each file, MiB or directory: counts, which hardly depend on the machine.
//!
//! `fastcp-bench counts` runs a few fixed works over loopback, each once under strace at both ends and once without,
//! and divides what was counted by the work's units. `docs/counts.json` holds the figures; `--check` compares with
//! it, and a figure that grew is a failure. Some counts follow from who ran when; those may vary more ([`compare`]).
//! What is written is the largest of a few rounds, and a work with a figure beyond what is allowed is run again, of
//! which the least counts: so a figure has the room that it needs by its own nature, and most need none.

mod compare;
mod record;
mod strace;
mod table;
mod trial;
mod work;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::counts::compare::{Change, Finding};
use crate::counts::record::{Record, WorkRecord};
use crate::counts::trial::{Bench, Destination, Sample};
use crate::counts::work::{WORKS, Work};
use crate::error::BenchError;
use crate::interrupt::Interrupt;
use crate::programs::{self, Programs};
use crate::run::Scratch;
use crate::trees::Trees;

/// How often a work is run whose figures stay too large.
const TRIES_MAX: u32 = 3;

/// Of each figure the largest in so many rounds is written.
const ROUNDS_WRITTEN: u32 = 3;

/// Room for the large file and a copy of it.
const SCRATCH_BYTES: u64 = 3 << 30;

/// What to count, and what for.
#[derive(Debug, clap::Args)]
pub(crate) struct CountsWords {
    /// Compare with these figures, and fail where one has grown
    #[arg(long, value_name = "FILE.json", conflicts_with = "write")]
    check: Option<PathBuf>,

    /// Write the figures
    #[arg(long, value_name = "FILE.json")]
    write: Option<PathBuf>,

    /// Rounds, of which the largest figures count [default: 1, with --write 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,

    /// Where fastcp-server and fastcp-client are, built with --features counts [default: beside this program]
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,

    /// Where trees and copies lie; should be on tmpfs [default: a temporary directory in /dev/shm]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
}

/// Counts. A failure where a figure has grown.
pub(crate) fn run(words: &CountsWords) -> Result<ExitCode, BenchError> {
    let interrupt = Interrupt::watch()?;
    let programs = Programs::find(words.bin_dir.as_deref())?;
    if let Some(obstacle) = programs::missing(&["strace"]) {
        return Err(BenchError::CannotCount(obstacle));
    }
    let known = words.check.as_deref().map(Record::read).transpose()?;
    let scratch = Scratch::make(words.scratch.as_deref(), SCRATCH_BYTES)?;
    let trees = Trees::new(scratch.path())?;
    let bench = Bench { programs: &programs, interrupt: &interrupt, trees: &trees, scratch: scratch.path() };
    let counted = count_all(&bench, words, known.as_ref());
    bench.clear()?;
    let counted = counted?;
    crate::write_out(&table::text(&counted, known.as_ref()))?;
    if let Some(path) = &words.write {
        counted.without_rare().write(path)?;
    }
    Ok(match (known, &words.check) {
        (Some(known), Some(path)) => verdict(&counted, &known, path)?,
        _ => ExitCode::SUCCESS,
    })
}

fn count_all(bench: &Bench<'_>, words: &CountsWords, known: Option<&Record>) -> Result<Record, BenchError> {
    let rounds = words.rounds.unwrap_or(if words.write.is_some() { ROUNDS_WRITTEN } else { 1 });
    let mut counted = Record::default();
    let mut destination = Destination::new(bench);
    for work in WORKS {
        let mut figures = count(work, bench, &mut destination, rounds)?;
        if known.is_some() && !figures.is_of_counting_programs() {
            return Err(BenchError::CannotCount("the programs are not built with --features counts".to_owned()));
        }
        for _ in 1..TRIES_MAX {
            let findings = known.map_or_else(Vec::new, |known| compare::findings(work, &figures, known));
            let Some(grown) = findings.iter().find(|finding| finding.is_failure()) else { break };
            crate::say(&format!("once more, for {grown}"));
            figures.take_least(count(work, bench, &mut destination, 1)?);
        }
        counted.works.insert(work.to_string(), figures);
    }
    Ok(counted)
}

fn count(work: Work, bench: &Bench<'_>, destination: &mut Destination, rounds: u32) -> Result<WorkRecord, BenchError> {
    let mut samples = Vec::new();
    for round in 1..=rounds {
        crate::say(&format!("{work}: round {round} of {rounds}"));
        samples.push(bench.sample(work, destination)?);
    }
    Ok(Sample::largest(&samples, work))
}

/// Says what has grown, and what has shrunk so far that it should be written anew.
fn verdict(counted: &Record, known: &Record, path: &Path) -> Result<ExitCode, BenchError> {
    let of_work = |work: Work| compare::findings(work, counted.of(work), known);
    let findings: Vec<Finding> = WORKS.into_iter().flat_map(of_work).collect();
    let lines_of = |change: Change| -> String {
        findings.iter().filter(|finding| finding.change == change).map(|finding| format!("  {finding}\n")).collect()
    };
    let (path, shrunk, grown) = (path.display(), lines_of(Change::Shrunk), lines_of(Change::Grown));
    let is_grown = !grown.is_empty();
    let mut text = String::new();
    if !shrunk.is_empty() {
        text += &format!("\nsmaller than in {path}, which should be written anew:\n{shrunk}");
    }
    text += &match is_grown {
        true => format!(
            "\nlarger than in {path}:\n{grown}for a change that needs more, see docs/performance.md, \"Counts\"\n"
        ),
        false => format!("\nno figure is larger than in {path}\n"),
    };
    crate::write_out(&text)?;
    Ok(if is_grown { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
