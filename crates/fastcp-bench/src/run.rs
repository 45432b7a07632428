//! A benchmark from its settings to its report.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::sys::statvfs::statvfs;
use tempfile::TempDir;

use crate::args::Settings;
use crate::case::CaseRun;
use crate::census::Census;
use crate::chart;
use crate::error::BenchError;
use crate::ext4::Room;
use crate::interrupt::Interrupt;
use crate::machine::Machine;
use crate::programs::{self, Programs};
use crate::report::{Case, Report};
use crate::single::SingleRun;
use crate::site::{Place, Site};
use crate::table;
use crate::tool::{Tool, usual_tools};
use crate::trees::{Tree, Trees};
use crate::workload::{WORKLOADS, Workload, usual_workloads};

/// Where the scratch directory is made if there is room: on tmpfs wherever this runs.
const SCRATCH_PARENT: &str = "/dev/shm";

/// Room for the largest tree, a copy of it and the image that may hold another.
const SCRATCH_BYTES: u64 = 14 << 30;

/// Runs all of it, and says the table. A failure where a run was wrong.
pub(crate) fn run(settings: &Settings) -> Result<ExitCode, BenchError> {
    let interrupt = Interrupt::watch()?;
    let programs = Programs::find(settings.bin_dir.as_deref())?;
    let scratch = Scratch::make(settings.scratch.as_deref(), SCRATCH_BYTES / settings.scale.divisor())?;
    let machine = Machine::here(&programs.version);
    let report = Report::new(machine, settings, settings.to_string());
    let trees = Trees::new(scratch.path())?;
    let mut bench = Bench { settings, programs, interrupt, scratch, trees, report };
    let result = bench.run();
    bench.tidy(result)?;
    let report = bench.report;
    fs::create_dir_all(&settings.out).map_err(BenchError::file("make", &settings.out))?;
    report.write(&settings.out.join("benchmark.json"))?;
    write_drawing(&report, &settings.out.join("benchmark.svg"))?;
    crate::write_out(&table::text(&report))?;
    Ok(if report.is_right() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Draws reports as one.
pub(crate) fn draw(from: &[PathBuf], to: &Path) -> Result<(), BenchError> {
    let mut reports = from.iter().map(|path| Report::read(path));
    let mut merged = reports.next().ok_or(BenchError::Usage("expected a report"))??;
    for report in reports {
        merged.merge(report?);
    }
    write_drawing(&merged, to)
}

fn write_drawing(report: &Report, to: &Path) -> Result<(), BenchError> {
    fs::write(to, chart::draw(report)).map_err(BenchError::file("write", to))
}

/// What can be named.
pub(crate) fn list() -> String {
    let mut text = String::from("Workloads:\n");
    for workload in WORKLOADS {
        let _ = writeln!(text, "  {workload:<10} {}", workload.about());
    }
    text.push_str("\nTools:\n");
    for tool in usual_tools() {
        let _ = writeln!(text, "  {tool:<11} {}", tool.about());
    }
    let usual = usual_workloads().iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let _ = writeln!(text, "\nWithout words: {usual} with all tools, on tmpfs, ext4 and links.");
    text
}

/// Where trees and copies lie.
#[derive(Debug)]
pub(crate) enum Scratch {
    Temporary(TempDir),
    Given(PathBuf),
}

impl Scratch {
    /// The directory that was named, or a temporary one with room for `bytes`.
    pub(crate) fn make(dir: Option<&Path>, bytes: u64) -> Result<Self, BenchError> {
        let Some(dir) = dir else {
            let parent = scratch_parent(bytes);
            let made = tempfile::Builder::new().prefix("fastcp-bench-").tempdir_in(&parent);
            return made.map(Self::Temporary).map_err(BenchError::file("make a directory in", parent));
        };
        fs::create_dir_all(dir).map_err(BenchError::file("make", dir))?;
        dir.canonicalize().map(Self::Given).map_err(BenchError::file("find", dir))
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Temporary(dir) => dir.path(),
            Self::Given(dir) => dir,
        }
    }
}

/// Containers often have a tmpfs of a few megabytes.
fn scratch_parent(bytes: u64) -> PathBuf {
    let room = statvfs(SCRATCH_PARENT).map_or(0, |found| found.blocks_available() * found.fragment_size());
    if room >= bytes {
        return PathBuf::from(SCRATCH_PARENT);
    }
    let usual = std::env::temp_dir();
    crate::say(&format!("{SCRATCH_PARENT} has no room for {bytes} bytes; trees and copies lie in {}", usual.display()));
    usual
}

struct Bench<'a> {
    settings: &'a Settings,
    programs: Programs,
    interrupt: Interrupt,
    scratch: Scratch,
    trees: Trees,
    report: Report,
}

impl Bench<'_> {
    fn run(&mut self) -> Result<(), BenchError> {
        let tools = self.able_tools();
        let mut places = self.able_places();
        for &workload in &self.settings.workloads {
            let mut kept = Vec::new();
            for place in places {
                if self.run_case(workload, &place, &tools)? {
                    kept.push(place);
                }
            }
            places = kept;
            self.forget_trees(workload)?;
        }
        Ok(())
    }

    /// Also where a run was cut short: copies go, and trees unless they are wanted.
    fn tidy(&self, result: Result<(), BenchError>) -> Result<(), BenchError> {
        Site::clear(self.scratch.path())?;
        if !self.settings.keep_workloads {
            self.trees.remove()?;
        }
        result
    }

    fn able_tools(&mut self) -> Vec<Tool> {
        let obstacle = |tool: &Tool| programs::obstacle(*tool);
        self.able(&self.settings.tools, obstacle)
    }

    fn able_places(&mut self) -> Vec<Place> {
        self.able(&self.settings.places, Place::obstacle)
    }

    /// What can run here; what cannot is said and reported.
    fn able<T: Clone + ToString>(&mut self, wanted: &[T], obstacle: impl Fn(&T) -> Option<String>) -> Vec<T> {
        let mut able = Vec::new();
        for one in wanted {
            match obstacle(one) {
                None => able.push(one.clone()),
                Some(why) => self.leave_out(format!("{} is left out: {why}", one.to_string())),
            }
        }
        able
    }

    fn leave_out(&mut self, what: String) {
        crate::say(&what);
        self.report.left_out.push(what);
    }

    /// `false` where the place could not be set up.
    fn run_case(&mut self, workload: Workload, place: &Place, tools: &[Tool]) -> Result<bool, BenchError> {
        let tools: Vec<Tool> =
            tools.iter().copied().filter(|tool| tool.takes_part(workload, place.is_link())).collect();
        if tools.is_empty() {
            return Ok(true);
        }
        self.interrupt.check()?;
        let tree = self.trees.tree(workload.recipe(self.settings.scale, place.is_link()))?;
        let basis = workload.basis(self.settings.scale).map(|recipe| self.trees.tree(recipe)).transpose()?;
        let name = format!("{workload}, {place}");
        let site = match Site::up(place, self.scratch.path(), room(&tree, workload, basis.as_ref(), tools.len())) {
            Ok(site) => site,
            Err(error) => {
                self.leave_out(format!("{place} is left out from {workload} on: {error}"));
                return Ok(false);
            }
        };
        site.warm(tree.census.bytes + basis.as_ref().map_or(0, |basis| basis.census.bytes))?;
        let single = SingleRun {
            programs: &self.programs,
            interrupt: &self.interrupt,
            scratch: self.scratch.path(),
            site: &site,
            tree: &tree,
            basis: basis.as_ref(),
            connections: self.settings.connections,
            timeout: self.settings.timeout,
        };
        let rounds = self.settings.rounds;
        let runs = CaseRun { single, interrupt: &self.interrupt, workload, rounds, name }.run(&tools)?;
        drop(site);
        Site::clear(self.scratch.path())?;
        self.report.cases.push(Case {
            workload: workload.to_string(),
            place: place.to_string(),
            link_bits: place.rate_bits(),
            is_copied: workload.is_copied(),
            tree: tree.census,
            tools: runs,
        });
        Ok(true)
    }

    /// Removes the trees that no later workload wants.
    fn forget_trees(&self, workload: Workload) -> Result<(), BenchError> {
        if self.settings.keep_workloads {
            return Ok(());
        }
        let later = self.settings.workloads.iter().skip_while(|&&other| other != workload).skip(1);
        let scale = self.settings.scale;
        let recipes = |workload: Workload| {
            let copied = [false, true].map(|is_link| workload.recipe(scale, is_link));
            copied.into_iter().chain(workload.basis(scale))
        };
        let wanted: Vec<_> = later.flat_map(|&workload| recipes(workload)).collect();
        let mut unwanted = recipes(workload).filter(|recipe| !wanted.contains(recipe));
        unwanted.try_for_each(|recipe| self.trees.forget(recipe))
    }
}

/// What a destination of ext4 needs: one copy at a time, but where each tool keeps its own, and with
/// it the version that is replaced only when it is complete.
fn room(tree: &Tree, workload: Workload, basis: Option<&Tree>, tools: usize) -> Room {
    let copies = if workload == Workload::Unchanged { tools as u64 } else { 1 };
    let replaced = basis.map_or_else(Census::default, |basis| basis.census);
    // A removed copy's room may not be free at once.
    Room {
        bytes: (tree.census.bytes + replaced.bytes) * (copies + 1),
        files: (tree.census.files + replaced.files) * (copies + 1),
    }
}
