//! The report: every round of every run, as it stands in `benchmark.json`.
//!
//! The names are a format: `fastcp-bench draw` reads reports that other versions wrote. What
//! the table and the drawing show is computed from it.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::args::Settings;
use crate::census::Census;
use crate::error::BenchError;
use crate::link::DirectionCounters;
use crate::machine::Machine;
use crate::measure::Usage;
use crate::statistics::Spread;
use crate::wire_bytes::WireBytes;
use crate::workload::Scale;

/// Of the names below; another number, another meaning.
const FORMAT: u32 = 1;

/// A whole run of the benchmark.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) format: u32,
    pub(crate) machine: Machine,
    /// What was typed.
    pub(crate) command: String,
    pub(crate) scale: Scale,
    pub(crate) rounds: u32,
    pub(crate) connections: u16,
    /// What was left out, and why.
    pub(crate) left_out: Vec<String>,
    pub(crate) cases: Vec<Case>,
}

/// One workload at one place.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Case {
    pub(crate) workload: String,
    pub(crate) place: String,
    /// Of the link, where there is one with a limit.
    pub(crate) link_bits: Option<u64>,
    /// Whether all bytes of the tree have to travel, whatever the tool.
    pub(crate) is_copied: bool,
    pub(crate) tree: Census,
    pub(crate) tools: Vec<ToolRuns>,
}

/// The runs of one tool in a case.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ToolRuns {
    pub(crate) tool: String,
    /// Whether it shows a limit.
    pub(crate) is_limit: bool,
    /// Of the server, if it has one, and of the client.
    pub(crate) commands: Vec<String>,
    pub(crate) rounds: Vec<Round>,
    /// Why there are no more rounds.
    pub(crate) failure: Option<Failure>,
}

/// Why a tool was left out of further rounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Failure {
    /// It took longer than allowed.
    OverTime { seconds: u64 },
    /// It failed, or copied the wrong thing.
    Wrong { error: String },
}

/// One run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Round {
    /// From 1.
    pub(crate) round: u32,
    pub(crate) wall_s: f64,
    /// Of that, the closing sync.
    pub(crate) sync_s: f64,
    pub(crate) client: Usage,
    /// Where one process is the whole server.
    pub(crate) server: Option<Usage>,
    /// From the destination to the source, and back.
    pub(crate) link: Option<[LinkTraffic; 2]>,
    pub(crate) fastcp: Option<FastcpSummary>,
    /// Of tools that say it.
    pub(crate) wire: Option<WireBytes>,
}

/// What a link saw in one direction.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct LinkTraffic {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    /// By chance, as it is set to.
    pub(crate) lost: u64,
    /// Because its queue was full.
    pub(crate) overflowed: u64,
    /// Because the receiving host had no memory for them.
    pub(crate) refused: u64,
    /// More than a millisecond, because the machine was busy.
    pub(crate) late: u64,
    pub(crate) late_max_ms: f64,
}

impl From<DirectionCounters> for LinkTraffic {
    fn from(counted: DirectionCounters) -> Self {
        let DirectionCounters { packets, bytes, lost, overflowed, refused, late, late_max } = counted;
        let late_max_ms = late_max.as_secs_f64() * 1e3;
        Self { packets, bytes, lost, overflowed, refused, late, late_max_ms }
    }
}

/// Of the last line of `fastcp-client --json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FastcpSummary {
    /// None of a run under a second.
    pub(crate) limited_by: Option<String>,
    pub(crate) bytes_fetched: u64,
    pub(crate) bytes_wire_in: u64,
}

impl Report {
    /// With no case yet.
    pub(crate) fn new(machine: Machine, settings: &Settings, command: String) -> Self {
        Self {
            format: FORMAT,
            machine,
            command,
            scale: settings.scale,
            rounds: settings.rounds,
            connections: settings.connections,
            left_out: Vec::new(),
            cases: Vec::new(),
        }
    }

    pub(crate) fn read(path: &Path) -> Result<Self, BenchError> {
        let text = fs::read(path).map_err(BenchError::file("read", path))?;
        let report: Self = serde_json::from_slice(&text).map_err(|source| BenchError::Json {
            expected: "a report of this benchmark",
            path: path.to_path_buf(),
            source,
        })?;
        if report.format == FORMAT { Ok(report) } else { Err(BenchError::Usage("the report has another format")) }
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), BenchError> {
        let mut text = serde_json::to_vec_pretty(self).map_err(|source| BenchError::Json {
            expected: "a report of this benchmark",
            path: path.to_path_buf(),
            source,
        })?;
        text.push(b'\n');
        fs::write(path, text).map_err(BenchError::file("write", path))
    }

    /// Takes the cases of another in. Where both have a tool in a case, the other's runs count.
    pub(crate) fn merge(&mut self, other: Self) {
        for case in other.cases {
            let same =
                |own: &&mut Case| own.workload == case.workload && own.place == case.place && own.tree == case.tree;
            match self.cases.iter_mut().find(same) {
                None => self.cases.push(case),
                Some(own) => {
                    own.tools.retain(|tool| case.tools.iter().all(|other| other.tool != tool.tool));
                    own.tools.extend(case.tools);
                }
            }
        }
    }

    /// Whether every run copied the right thing.
    pub(crate) fn is_right(&self) -> bool {
        let mut runs = self.cases.iter().flat_map(|case| &case.tools);
        runs.all(|runs| !matches!(runs.failure, Some(Failure::Wrong { .. })))
    }
}

impl Case {
    /// The median of fastcp, or of the first of its variants.
    pub(crate) fn fastcp_median(&self) -> Option<f64> {
        let plain = self.tools.iter().find(|runs| runs.tool == "fastcp");
        let variant = || self.tools.iter().find(|runs| runs.is_fastcp());
        plain.or_else(variant).and_then(ToolRuns::spread).map(|spread| spread.median)
    }
}

impl ToolRuns {
    /// Of the wall times; `None` where it never came through.
    pub(crate) fn spread(&self) -> Option<Spread> {
        Spread::of(self.rounds.iter().map(|round| round.wall_s))
    }

    /// Whether it is fastcp, in whatever variant.
    pub(crate) fn is_fastcp(&self) -> bool {
        self.tool.starts_with("fastcp")
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{Case, Failure, Report, Round, ToolRuns};
    use crate::census::Census;
    use crate::machine::Machine;
    use crate::measure::Usage;
    use crate::workload::Scale;

    pub(crate) fn runs(tool: &str, times: &[f64]) -> ToolRuns {
        let usage = Usage { processor_s: 0.5, peak_bytes: 3 << 20 };
        let round = |(index, &wall_s): (usize, &f64)| Round {
            round: index as u32 + 1,
            wall_s,
            sync_s: 0.0,
            client: usage,
            server: None,
            link: None,
            fastcp: None,
            wire: None,
        };
        ToolRuns {
            tool: tool.to_owned(),
            is_limit: tool == "bare",
            commands: vec![format!("{tool} SRC DST")],
            rounds: times.iter().enumerate().map(round).collect(),
            failure: times.is_empty().then(|| Failure::Wrong { error: "a < b & \"c\"".to_owned() }),
        }
    }

    pub(crate) fn report(place: &str, tools: Vec<ToolRuns>) -> Report {
        let tree = Census { files: 1, bytes: 1_000_000_000 };
        let link_bits = place.starts_with("link").then_some(500_000_000);
        let case =
            Case { workload: "big".to_owned(), place: place.to_owned(), link_bits, is_copied: true, tree, tools };
        Report {
            format: super::FORMAT,
            machine: Machine::unknown(),
            command: "fastcp-bench".to_owned(),
            scale: Scale::Full,
            rounds: 3,
            connections: 8,
            left_out: Vec::new(),
            cases: vec![case],
        }
    }

    #[test]
    fn reports_are_read_as_they_were_written() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("benchmark.json");
        let written = report("tmpfs", vec![runs("fastcp", &[1.0, 3.0, 2.0]), runs("rsync", &[])]);
        written.write(&path).expect("write");
        let read = Report::read(&path).expect("read");
        assert_eq!(format!("{read:?}"), format!("{written:?}"));
        assert!(!read.is_right());
        assert_eq!(read.cases[0].fastcp_median(), Some(2.0));
    }

    #[test]
    fn rounds_of_earlier_reports_say_nothing_of_the_wire() {
        let mut round = serde_json::to_value(&runs("rsync", &[1.0]).rounds[0]).expect("JSON");
        round.as_object_mut().and_then(|fields| fields.remove("wire")).expect("a field");
        assert_eq!(serde_json::from_value::<Round>(round).expect("a round").wire, None);
    }

    #[test]
    fn merging_replaces_tools_and_adds_cases() {
        let mut report_ = report("tmpfs", vec![runs("fastcp", &[1.0]), runs("rsync", &[2.0])]);
        report_.merge(report("tmpfs", vec![runs("rsync", &[5.0]), runs("cp", &[6.0])]));
        report_.merge(report("ext4", vec![runs("cp", &[7.0])]));
        let medians = |case: &Case| -> Vec<f64> {
            case.tools.iter().filter_map(|tool| tool.spread()).map(|spread| spread.median).collect()
        };
        assert_eq!(report_.cases.iter().map(medians).collect::<Vec<_>>(), [vec![1.0, 5.0, 6.0], vec![7.0]]);
    }
}
