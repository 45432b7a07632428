//! One round of a work: the programs run under strace at both ends, and once more without.
//!
//! strace sees every call and makes all of them slow, so whatever threads do to each other is counted without it, by
//! the programs themselves. Connections are four and bytes are received by copying: what fastcp chooses by the clock
//! would make counts depend on it.

use std::ffi::OsString;
use std::fs::{self, File, FileTimes};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime};

use serde::Deserialize;

use crate::census::{Census, files_below};
use crate::counts::record::{ALLOCATIONS, BYTES_COPIED, CONTEXT_SWITCHES, Figures, LOCKS, WorkRecord};
use crate::counts::strace::{self, Calls};
use crate::counts::work::Work;
use crate::error::BenchError;
use crate::interrupt::Interrupt;
use crate::launch::{Listening, Route};
use crate::programs::Programs;
use crate::random::Random;
use crate::server::{ProcessGroup, Server, last_words};
use crate::single::clean_environment;
use crate::tool::Tool;
use crate::trees::{Tree, Trees};
use crate::workload::{Recipe, SEED};

const CONNECTIONS: u16 = 4;
const TIMEOUT: Duration = Duration::from_secs(600);

/// One file in so many is changed.
const CHANGED_EVERY: u64 = 100;
/// In October of 2030: later than any tree's.
const CHANGED_MTIME: Duration = Duration::from_secs(1_917_000_000);

/// A server trusts less in what it knows of a file that has changed in the last two seconds.
const SETTLING: Duration = Duration::from_millis(2500);

/// The variable that names the file for a program's own counts.
const COUNTS_VARIABLE: &str = "FASTCP_COUNTS";

/// What every round has in common.
#[derive(Debug)]
pub(super) struct Bench<'a> {
    pub(super) programs: &'a Programs,
    pub(super) interrupt: &'a Interrupt,
    pub(super) trees: &'a Trees,
    pub(super) scratch: &'a Path,
}

/// Where copies go. What one work leaves the next may build on.
#[derive(Debug)]
pub(super) struct Destination {
    path: PathBuf,
    /// How often the tree's files have been changed.
    version: u64,
    /// Of the last work's tree.
    recipe: Option<Recipe>,
}

/// What was counted at both ends in one round, in all.
#[derive(Debug)]
pub(super) struct Sample {
    client: Figures,
    server: Figures,
}

/// Whether strace looks on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Watched {
    ByStrace,
    ByThemselves,
}

/// As the programs write them.
#[derive(Debug, Deserialize)]
struct OwnCounts {
    allocations: u64,
    locks: u64,
    context_switches: u64,
}

impl Bench<'_> {
    /// A round of the work.
    pub(super) fn sample(&self, work: Work, destination: &mut Destination) -> Result<Sample, BenchError> {
        let mut sample = Sample { client: Figures::new(), server: Figures::new() };
        for watched in [Watched::ByStrace, Watched::ByThemselves] {
            let tree = destination.prepare(work, self)?;
            let [client, server] = self.copy(work.tool(), &tree, &destination.path, watched)?;
            sample.client.extend(client);
            sample.server.extend(server);
        }
        Ok(sample)
    }

    /// Removes trees and copies.
    pub(super) fn clear(&self) -> Result<(), BenchError> {
        remove(&copy_path(self.scratch))?;
        self.trees.remove()
    }

    /// One copy; what was counted at the client and at the server.
    fn copy(&self, tool: Tool, tree: &Tree, destination: &Path, watched: Watched) -> Result<[Figures; 2], BenchError> {
        self.interrupt.check()?;
        let files = tempfile::tempdir_in(self.scratch).map_err(BenchError::file("write to", self.scratch))?;
        let route = Route {
            programs: self.programs,
            source: &tree.root,
            destination,
            scratch: files.path(),
            ip: Ipv4Addr::LOCALHOST,
            connections: CONNECTIONS,
        };
        let at = |name: &str| files.path().join(name);
        let launch = route.server(tool, || Ok(0))?.ok_or(BenchError::Usage("fastcp has a server"))?;
        let mut command = self.command(&launch.words, watched, &route, "server");
        let mut server = Server::start("the server", &mut command, launch.ready, &at("server.err"))?;
        self.run_client(&route, tool, &server.listening, watched)?;
        server.tell_to_end();
        self.finished(&mut server.processes, &at("server.err"), "the server")?;
        tree.census.expect(Census::of(destination)?)?;
        match watched {
            Watched::ByStrace => Ok([called(&at("client"))?, called(&at("server"))?]),
            Watched::ByThemselves => Ok([own_counts(&at("client"))?, own_counts(&at("server"))?]),
        }
    }

    fn run_client(
        &self,
        route: &Route<'_>,
        tool: Tool,
        server: &Listening,
        watched: Watched,
    ) -> Result<(), BenchError> {
        let at = |name: &str| route.scratch.join(name);
        let (out, err) = (at("client.out"), at("client.err"));
        let mut words = route.client(tool, server);
        words.extend(["--receive-path", "copy"].map(OsString::from));
        let mut command = self.command(&words, watched, route, "client");
        command.stdout(File::create(&out).map_err(BenchError::file("create", &out))?);
        command.stderr(File::create(&err).map_err(BenchError::file("create", &err))?);
        self.finished(&mut ProcessGroup::spawn(&mut command)?, &err, "the client")
    }

    /// Waits until it has ended well.
    fn finished(&self, processes: &mut ProcessGroup, err: &Path, name: &str) -> Result<(), BenchError> {
        let ended = match processes.wait(self.interrupt, TIMEOUT)? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => status.to_string(),
            None => format!("nothing after {} s", TIMEOUT.as_secs()),
        };
        Err(BenchError::Program { program: name.to_owned(), ended, said: last_words(err) })
    }

    /// The command, tied to this process, and what is counted going to files whose names begin with `name`.
    fn command(&self, words: &[OsString], watched: Watched, route: &Route<'_>, name: &str) -> Command {
        let log = route.scratch.join(name);
        let mut command = Command::new(&self.programs.bench);
        clean_environment(&mut command, route.scratch);
        command.args(["tether", "--"]);
        match watched {
            Watched::ByStrace => {
                // Should strace be killed, the program goes on, so it is tied to strace as well.
                command.args(strace::words(&log)).arg(&self.programs.bench).args(["tether", "--"]);
            }
            Watched::ByThemselves => {
                command.env(COUNTS_VARIABLE, log);
            }
        }
        command.args(words);
        command
    }
}

fn called(log: &Path) -> Result<Figures, BenchError> {
    let Calls { by_name, copied_bytes } = Calls::take(log)?;
    let calls = by_name.into_iter().map(|(name, count)| (name, count as f64));
    Ok(calls.chain([(BYTES_COPIED.to_owned(), copied_bytes as f64)]).collect())
}

/// None where the program was not built to count.
fn own_counts(log: &Path) -> Result<Figures, BenchError> {
    if !log.exists() {
        return Ok(Figures::new());
    }
    let text = fs::read(log).map_err(BenchError::file("read", log))?;
    let OwnCounts { allocations, locks, context_switches } = serde_json::from_slice(&text)
        .map_err(|source| BenchError::Json { expected: "a program's counts", path: log.to_path_buf(), source })?;
    let all = [(ALLOCATIONS, allocations), (LOCKS, locks), (CONTEXT_SWITCHES, context_switches)];
    Ok(all.into_iter().map(|(name, count)| (name.to_owned(), count as f64)).collect())
}

impl Destination {
    pub(super) fn new(bench: &Bench<'_>) -> Self {
        Self { path: copy_path(bench.scratch), version: 0, recipe: None }
    }

    /// Makes it what the work begins with, and the tree too.
    fn prepare(&mut self, work: Work, bench: &Bench<'_>) -> Result<Tree, BenchError> {
        let recipe = work.recipe();
        let last = self.recipe.replace(recipe);
        if let Some(other) = last.filter(|other| *other != recipe) {
            bench.trees.forget(other)?;
        }
        let tree = bench.trees.tree(recipe)?;
        if last != Some(recipe) {
            thread::sleep(SETTLING);
        }
        match work {
            Work::Unchanged => {}
            Work::Changed => {
                self.version += 1;
                change(&tree, self.version)?;
                thread::sleep(SETTLING);
            }
            Work::Small | Work::Push | Work::Dirs | Work::Big => {
                remove(&self.path)?;
                fs::create_dir(&self.path).map_err(BenchError::file("make", &self.path))?;
            }
        }
        Ok(tree)
    }
}

/// Gives a hundredth of the files other bytes and later times: each time the same ones, anywhere in the tree.
fn change(tree: &Tree, version: u64) -> Result<(), BenchError> {
    let mut files = files_below(&tree.root)?;
    files.sort();
    let mut chosen = Random::new(SEED);
    let mut bytes = Random::of_part(SEED, version);
    let mut left = files.len() as u64 / CHANGED_EVERY;
    for (index, file) in files.iter().enumerate() {
        if chosen.below((files.len() - index) as u64) >= left {
            continue;
        }
        left -= 1;
        let mut content = vec![0; usize::try_from(file.bytes).unwrap_or(0)];
        bytes.fill(&mut content);
        fs::write(&file.path, content).map_err(BenchError::file("write", &file.path))?;
        let mtime = SystemTime::UNIX_EPOCH + CHANGED_MTIME + Duration::from_secs(version);
        let opened = File::open(&file.path).map_err(BenchError::file("open", &file.path))?;
        let times = FileTimes::new().set_modified(mtime);
        opened.set_times(times).map_err(BenchError::file("set the time of", &file.path))?;
    }
    Ok(())
}

fn copy_path(scratch: &Path) -> PathBuf {
    scratch.join("copy")
}

fn remove(dir: &Path) -> Result<(), BenchError> {
    if dir.exists() { fs::remove_dir_all(dir).map_err(BenchError::file("remove", dir)) } else { Ok(()) }
}

impl Sample {
    /// The largest of each figure, for one unit.
    pub(super) fn largest(samples: &[Self], work: Work) -> WorkRecord {
        let of_end = |end: fn(&Self) -> &Figures| {
            let mut largest = Figures::new();
            for (name, count) in samples.iter().flat_map(end) {
                let figure = largest.entry(name.clone()).or_insert(0.0);
                *figure = figure.max(count / work.units() as f64);
            }
            largest
        };
        let (client, server) = (of_end(|sample| &sample.client), of_end(|sample| &sample.server));
        WorkRecord { per: work.unit().to_owned(), client, server }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Figures, Sample, change};
    use crate::census::{Census, files_below};
    use crate::counts::work::Work;
    use crate::generate;
    use crate::trees::Tree;
    use crate::workload::Recipe;

    #[test]
    fn a_hundredth_of_the_files_changes_and_each_time_the_same_ones() {
        let dir = tempfile::tempdir().expect("temporary directory");
        generate::make(Recipe::Small { files: 300, dirs: 7 }, dir.path()).expect("make");
        let tree = Tree { root: dir.path().to_path_buf(), census: Census::of(dir.path()).expect("count") };
        let state = || {
            let mut files = files_below(dir.path()).expect("list");
            files.sort();
            let of_file = |path: &std::path::Path| {
                let mtime = fs::metadata(path).and_then(|metadata| metadata.modified()).expect("look at");
                (fs::read(path).expect("read"), mtime)
            };
            files.iter().map(|file| of_file(&file.path)).collect::<Vec<_>>()
        };
        let versions = [0, 1, 2].map(|version| {
            if version > 0 {
                change(&tree, version).expect("change");
            }
            state()
        });
        let changed = |old: usize, new: usize| -> Vec<usize> {
            (0..300).filter(|&file| versions[old][file].1 < versions[new][file].1).collect()
        };
        assert_eq!(changed(0, 1).len(), 3);
        assert_eq!(changed(0, 1), changed(1, 2));
        assert!(changed(0, 1).iter().any(|&file| versions[0][file].0 != versions[1][file].0));
        assert_eq!(Census::of(dir.path()).expect("count"), tree.census);
    }

    #[test]
    fn the_largest_is_for_one_unit() {
        let sample = |count: f64| Sample {
            client: [("openat".to_owned(), count)].into_iter().collect(),
            server: Figures::new(),
        };
        let mut samples = [50_000.0, 150_000.0, 100_000.0].map(sample);
        samples[0].server.insert("read".to_owned(), 25_000.0);
        let largest = Sample::largest(&samples, Work::Small);
        assert_eq!((largest.client["openat"], largest.server["read"], largest.per.as_str()), (3.0, 0.5, "file"));
    }
}
