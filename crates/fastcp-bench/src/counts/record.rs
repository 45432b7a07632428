//! The figures as `docs/counts.json` has them: of each work and end, by name, for one unit.
//!
//! A figure a line, in the order of their names and with four digits, so that a change of one is a line of a diff.
//! System calls have their own names. Calls that a work makes hardly ever are not written.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::counts::compare::RARE;
use crate::counts::work::{WORKS, Work};
use crate::error::BenchError;

/// Of the names below; another number, another meaning.
const FORMAT: u32 = 1;

pub(super) const ALLOCATIONS: &str = "allocations";
pub(super) const BYTES_COPIED: &str = "bytes copied";
pub(super) const CONTEXT_SWITCHES: &str = "context switches";
pub(super) const LOCKS: &str = "locks";

/// By name, for one unit of the work.
pub(super) type Figures = BTreeMap<String, f64>;

/// The figures of all works.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    format: u32,
    pub(super) works: BTreeMap<String, WorkRecord>,
}

/// The figures of one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WorkRecord {
    /// What one unit is.
    pub(super) per: String,
    pub(super) client: Figures,
    pub(super) server: Figures,
}

static NOTHING: WorkRecord = WorkRecord { per: String::new(), client: Figures::new(), server: Figures::new() };

impl Default for Record {
    fn default() -> Self {
        Self { format: FORMAT, works: BTreeMap::new() }
    }
}

impl Record {
    /// Of a work that it does not have, there are none.
    pub(super) fn of(&self, work: Work) -> &WorkRecord {
        self.works.get(&work.to_string()).unwrap_or(&NOTHING)
    }

    pub(super) fn read(path: &Path) -> Result<Self, BenchError> {
        let text = fs::read(path).map_err(BenchError::file("read", path))?;
        let record: Self = serde_json::from_slice(&text).map_err(json_error(path))?;
        if record.format == FORMAT { Ok(record) } else { Err(BenchError::Usage("the counts have another format")) }
    }

    pub(super) fn write(&self, path: &Path) -> Result<(), BenchError> {
        let mut text = serde_json::to_vec_pretty(self).map_err(json_error(path))?;
        text.push(b'\n');
        fs::write(path, text).map_err(BenchError::file("write", path))
    }

    /// What is worth being written: rounded, and no rare calls.
    pub(super) fn without_rare(&self) -> Self {
        let mut kept = self.clone();
        for work in WORKS {
            let Some(record) = kept.works.get_mut(&work.to_string()) else { continue };
            for figures in [&mut record.client, &mut record.server] {
                figures.retain(|_, figure| *figure * work.units() as f64 >= RARE);
                figures.values_mut().for_each(|figure| *figure = rounded(*figure));
            }
        }
        kept
    }
}

impl WorkRecord {
    /// The figures of both ends, with their names.
    pub(super) fn ends(&self) -> [(&'static str, &Figures); 2] {
        [("client", &self.client), ("server", &self.server)]
    }

    /// Whether the programs have said what only they can count.
    pub(super) fn is_of_counting_programs(&self) -> bool {
        self.ends().iter().all(|(_, figures)| figures.contains_key(ALLOCATIONS))
    }

    /// Of each figure the smaller one. What one of the two does not have it never did.
    pub(super) fn take_least(&mut self, other: Self) {
        for (own, other) in [(&mut self.client, other.client), (&mut self.server, other.server)] {
            own.retain(|name, _| other.contains_key(name));
            for (name, figure) in own.iter_mut() {
                *figure = figure.min(other[name]);
            }
        }
    }
}

/// To four significant digits.
pub(super) fn rounded(figure: f64) -> f64 {
    format!("{figure:.3e}").parse().unwrap_or(figure)
}

fn json_error(path: &Path) -> impl FnOnce(serde_json::Error) -> BenchError {
    let path = path.to_path_buf();
    move |source| BenchError::Json { expected: "counts", path, source }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Figures, Record, WorkRecord, rounded};
    use crate::counts::work::Work;

    fn figures(all: &[(&str, f64)]) -> Figures {
        all.iter().map(|&(name, figure)| (name.to_owned(), figure)).collect()
    }

    fn record(client: &[(&str, f64)]) -> Record {
        let mut record = Record::default();
        let work = WorkRecord { per: "file".to_owned(), client: figures(client), server: figures(&[("read", 1.0)]) };
        record.works.insert("small".to_owned(), work);
        record
    }

    #[test]
    fn counts_are_read_as_they_were_written() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("counts.json");
        let written = record(&[("openat", 1.25), ("bytes copied", 16_350.0)]);
        written.write(&path).expect("write");
        assert_eq!(Record::read(&path).expect("read"), written);
        let text = fs::read_to_string(&path).expect("read");
        assert!(text.contains("        \"bytes copied\": 16350.0,\n        \"openat\": 1.25\n"), "{text}");
        assert_eq!(written.of(Work::Big).client.len(), 0);
    }

    #[test]
    fn other_formats_and_names_are_refused() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("counts.json");
        for text in [r#"{"format":2,"works":{}}"#, r#"{"format":1}"#, r#"{"format":1,"works":{},"more":1}"#, ""] {
            fs::write(&path, text).expect("write");
            assert!(Record::read(&path).is_err(), "{text}");
        }
    }

    #[test]
    fn rare_calls_are_not_written_and_figures_have_four_digits() {
        let kept = record(&[("openat", 1.234_56), ("mmap", 0.009)]).without_rare();
        assert_eq!(kept.of(Work::Small).client, figures(&[("openat", 1.235)]));
        assert_eq!((rounded(0.0), rounded(16_353.7), rounded(0.027_123_4)), (0.0, 16_350.0, 0.027_12));
    }

    #[test]
    fn the_least_of_two_runs_counts() {
        let mut first = record(&[("openat", 1.0), ("futex", 5.0), ("poll", 2.0)]).of(Work::Small).clone();
        first.take_least(record(&[("openat", 1.1), ("futex", 3.0), ("getpid", 1.0)]).of(Work::Small).clone());
        assert_eq!(first.client, figures(&[("openat", 1.0), ("futex", 3.0)]));
        assert!(!first.is_of_counting_programs());
    }
}
