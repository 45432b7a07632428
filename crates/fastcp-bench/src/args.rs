//! What was typed, and what it means.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::bare::{FetchWords, ServeWords};
use crate::counts::CountsWords;
use crate::create::CreateWords;
use crate::error::BenchError;
use crate::link::LinkSettings;
use crate::link_command::LinkArgs;
use crate::measure::{MeasureWords, TetherWords};
use crate::site::{Place, PlaceKind};
use crate::tool::{Tool, usual_tools};
use crate::workload::{Scale, Workload, usual_workloads};

const ROUNDS_USUAL: u32 = 5;
const LINKS_USUAL: [&str; 2] = ["50ms,500mbit,0%", "50ms,500mbit,0.05%"];

/// Runs fastcp beside other tools and says how long each took.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Action>,

    /// What to copy, separated by commas [default: all but million]
    workloads: Option<Choice<Workload>>,

    /// What to copy with, separated by commas [default: all]
    tools: Option<Choice<Tool>>,

    /// Rounds; each runs every tool once [default: 5, with --short 1]
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,

    /// Where to copy to, of tmpfs, ext4 and link [default: all, with --short tmpfs]
    #[arg(long, value_name = "PLACE,..")]
    on: Option<Choice<PlaceKind>>,

    /// Connections of fastcp and the bare loop; transfers of rclone
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    conns: u16,

    /// Round trip, rate and loss of a link; may be given more than once
    /// [default: 50ms,500mbit,0% and 50ms,500mbit,0.05%]
    #[arg(long, value_name = "DELAY,RATE,LOSS")]
    link: Vec<LinkSettings>,

    /// One round over trees of a 64th, to see that everything works
    #[arg(long)]
    short: bool,

    /// Where benchmark.json and benchmark.svg go
    #[arg(long, value_name = "DIR", default_value = "target/benchmark")]
    out: PathBuf,

    /// Where trees and copies lie; should be on tmpfs [default: a temporary directory in /dev/shm]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,

    /// Leave the trees in the scratch directory, where the next run takes them from
    #[arg(long, requires = "scratch")]
    keep_workloads: bool,

    /// Where fastcp-server and fastcp-client are [default: beside this program]
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,

    /// A tool that takes longer is stopped, and left out of that case's further rounds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,

    /// Say which workloads and tools there are
    #[arg(long)]
    list: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Draw reports; where several have a case, the later ones' runs count
    Draw {
        /// The reports, benchmark.json, and at the end the drawing to write
        #[arg(required = true, num_args = 2.., value_name = "FILE.json.. OUT.svg")]
        files: Vec<PathBuf>,
    },
    /// Count what fastcp does for each file: system calls, bytes copied, allocations, locks, waits
    Counts(CountsWords),
    /// Run a command while an emulated long-distance link is up
    Link(LinkArgs),
    /// Run a client's command and measure it
    #[command(hide = true)]
    Measure(MeasureWords),
    /// Become a server's command
    #[command(hide = true)]
    Tether(TetherWords),
    /// Serve a tree to bare-fetch
    #[command(hide = true)]
    BareServe(ServeWords),
    /// Fetch a tree from bare-serve
    #[command(hide = true)]
    BareFetch(FetchWords),
    /// Create the files of a list
    #[command(hide = true)]
    Create(CreateWords),
}

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Job {
    Bench(Settings),
    List,
    Counts(CountsWords),
    Link(LinkArgs),
    Draw { from: Vec<PathBuf>, to: PathBuf },
    Measure(MeasureWords),
    Tether(TetherWords),
    BareServe(ServeWords),
    BareFetch(FetchWords),
    Create(CreateWords),
}

/// What a benchmark is to be.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) workloads: Vec<Workload>,
    pub(crate) tools: Vec<Tool>,
    pub(crate) places: Vec<Place>,
    pub(crate) scale: Scale,
    pub(crate) rounds: u32,
    pub(crate) connections: u16,
    pub(crate) timeout: Duration,
    pub(crate) out: PathBuf,
    pub(crate) scratch: Option<PathBuf>,
    pub(crate) keep_workloads: bool,
    pub(crate) bin_dir: Option<PathBuf>,
    /// As typed.
    pub(crate) command_line: Vec<OsString>,
}

impl Args {
    /// What they mean.
    pub(crate) fn job(self) -> Result<Job, BenchError> {
        Ok(match self.command {
            Some(Action::Draw { mut files }) => {
                let to = files.pop().ok_or(BenchError::Usage("expected reports and a drawing"))?;
                Job::Draw { from: files, to }
            }
            Some(Action::Counts(words)) => Job::Counts(words),
            Some(Action::Link(words)) => Job::Link(words),
            Some(Action::Measure(words)) => Job::Measure(words),
            Some(Action::Tether(words)) => Job::Tether(words),
            Some(Action::BareServe(words)) => Job::BareServe(words),
            Some(Action::BareFetch(words)) => Job::BareFetch(words),
            Some(Action::Create(words)) => Job::Create(words),
            None if self.list => Job::List,
            None => Job::Bench(self.settings()?),
        })
    }

    fn settings(self) -> Result<Settings, BenchError> {
        let is_short = self.short;
        let usual_places = || if is_short { vec![PlaceKind::Tmpfs] } else { PlaceKind::ALL.to_vec() };
        let links = if self.link.is_empty() {
            LINKS_USUAL.into_iter().map(str::parse).collect::<Result<Vec<LinkSettings>, _>>()?
        } else {
            self.link
        };
        let settings = Settings {
            workloads: chosen(self.workloads, usual_workloads),
            tools: chosen(self.tools, usual_tools),
            places: places(chosen(self.on, usual_places), &links),
            scale: if is_short { Scale::Short } else { Scale::Full },
            rounds: self.rounds.unwrap_or(if is_short { 1 } else { ROUNDS_USUAL }),
            connections: self.conns,
            timeout: Duration::from_secs(self.timeout),
            out: self.out,
            scratch: self.scratch,
            keep_workloads: self.keep_workloads,
            bin_dir: self.bin_dir,
            command_line: std::env::args_os().skip(1).collect(),
        };
        if settings.rounds == 0 { Err(BenchError::Usage("--rounds: at least one")) } else { Ok(settings) }
    }
}

fn chosen<T>(choice: Option<Choice<T>>, usual: impl FnOnce() -> Vec<T>) -> Vec<T> {
    match choice {
        Some(Choice::These(these)) => these,
        Some(Choice::All) | None => usual(),
    }
}

fn places(kinds: Vec<PlaceKind>, links: &[LinkSettings]) -> Vec<Place> {
    let of_kind = |kind| match kind {
        PlaceKind::Tmpfs => vec![Place::Tmpfs],
        PlaceKind::Ext4 => vec![Place::Ext4],
        PlaceKind::Link => links.iter().copied().map(Place::Link).collect(),
    };
    kinds.into_iter().flat_map(of_kind).collect()
}

/// A list with commas, or the word `all`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Choice<T> {
    All,
    These(Vec<T>),
}

impl<T: FromStr + PartialEq> FromStr for Choice<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        if text == "all" {
            return Ok(Self::All);
        }
        let mut these = Vec::new();
        for name in text.split(',') {
            let one = name.parse()?;
            if !these.contains(&one) {
                these.push(one);
            }
        }
        Ok(Self::These(these))
    }
}

impl fmt::Display for Settings {
    /// What was typed.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("fastcp-bench")?;
        self.command_line.iter().try_for_each(|word| write!(out, " {}", word.to_string_lossy()))
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::{Args, Job, Settings};
    use crate::site::Place;
    use crate::tool::Tool;
    use crate::workload::{Scale, Workload};

    fn settings(line: &str) -> Settings {
        let args = Args::try_parse_from(line.split(' ')).expect(line);
        match args.job().expect(line) {
            Job::Bench(settings) => settings,
            job => panic!("{job:?}"),
        }
    }

    #[test]
    fn arguments_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn without_words_everything_runs() {
        let settings = settings("fastcp-bench");
        assert_eq!((settings.workloads.len(), settings.tools.len(), settings.places.len()), (7, 16, 4));
        assert_eq!((settings.rounds, settings.scale), (5, Scale::Full));
    }

    #[test]
    fn words_choose() {
        let settings = settings("fastcp-bench big,log all --on tmpfs,link --link 10ms,100mbit,1% --short --rounds 3");
        assert_eq!(settings.workloads, [Workload::Big, Workload::Log]);
        assert_eq!(settings.tools.len(), 16);
        assert_eq!((settings.rounds, settings.scale), (3, Scale::Short));
        let link = "10ms,100mbit,1%".parse().expect("a link");
        assert_eq!(settings.places, [Place::Tmpfs, Place::Link(link)]);
    }

    #[test]
    fn short_is_one_round_on_tmpfs() {
        let settings = settings("fastcp-bench all cp,cp --short");
        assert_eq!((settings.places, settings.rounds), (vec![Place::Tmpfs], 1));
        assert_eq!(settings.tools, [Tool::Cp]);
    }

    #[test]
    fn draw_takes_reports_and_a_drawing() {
        let args = Args::try_parse_from(["fastcp-bench", "draw", "a.json", "b.json", "c.svg"]).expect("lawful");
        let job = args.job().expect("lawful");
        assert!(matches!(job, Job::Draw { from, to } if from.len() == 2 && to.as_os_str() == "c.svg"));
        assert!(Args::try_parse_from(["fastcp-bench", "draw", "a.json"]).is_err());
        assert!(Args::try_parse_from(["fastcp-bench", "bigger"]).is_err());
    }
}
