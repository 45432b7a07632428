//! Which figures have grown, and by how much they may.
//!
//! A tenth for what follows from the work alone, the double for what depends on who ran when. A few calls more
//! never fail, be the figure ever so small: threads start and files of the system are read whatever the work
//! is, and how many small files are asked for at once varies. A name that has no figure counts as one that was too
//! rare to be written.

use std::collections::BTreeSet;
use std::fmt;

use crate::counts::record::{ALLOCATIONS, BYTES_COPIED, CONTEXT_SWITCHES, Figures, LOCKS, Record, WorkRecord, rounded};
use crate::counts::work::Work;

/// What happens less often in a whole run has no figure, and so many more never fail.
pub(super) const RARE: f64 = 500.0;

/// So many more of what depends on the moment never fail, and so many bytes.
const RARE_MOMENTARY: f64 = 2000.0;
const RARE_BYTES: f64 = 65_536.0;

/// By how much a figure may grow.
const GROWTH_MAX: f64 = 1.1;
const GROWTH_MAX_OF_MOMENTARY: f64 = 2.0;

/// What depends on the moment: waking, waiting, and how much has arrived when a socket is looked at.
const MOMENTARY: [&str; 5] = [CONTEXT_SWITCHES, "futex", "recvfrom", "sched_yield", "sendto"];

/// A figure that is not as it was.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Finding {
    pub(super) change: Change,
    work: Work,
    end: &'static str,
    name: String,
    before: f64,
    now: f64,
}

/// How a figure differs from what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// By more than it may.
    Grown,
    /// By so much that what is written should be written anew.
    Shrunk,
}

/// The same where the file is large: it is cut by the speed of the connections, each piece costs some of these, and
/// what has arrived of it is written at once.
const MOMENTARY_OF_PIECES: [&str; 3] = [ALLOCATIONS, LOCKS, "pwrite64"];

/// Whether a name stands for what depends on the moment.
pub(super) fn is_momentary(work: Work, name: &str) -> bool {
    MOMENTARY.contains(&name) || work == Work::Big && MOMENTARY_OF_PIECES.contains(&name)
}

/// Every figure of the work that has grown or shrunk.
pub(super) fn findings(work: Work, counted: &WorkRecord, known: &Record) -> Vec<Finding> {
    let ends = counted.ends().into_iter().zip(known.of(work).ends());
    ends.flat_map(|((end, now), (_, before))| findings_of_end(work, end, now, before)).collect()
}

fn findings_of_end(work: Work, end: &'static str, now: &Figures, before: &Figures) -> Vec<Finding> {
    let names: BTreeSet<&String> = now.keys().chain(before.keys()).collect();
    let finding = |name: &String| {
        let (now, before) = (now.get(name).copied().unwrap_or(0.0), before.get(name).copied());
        let change = change(work, name, before, now)?;
        Some(Finding { change, work, end, name: name.clone(), before: before.unwrap_or(0.0), now })
    };
    names.into_iter().filter_map(finding).collect()
}

/// `None` where nothing is to be said.
fn change(work: Work, name: &str, before: Option<f64>, now: f64) -> Option<Change> {
    let units = work.units() as f64;
    let (growth_max, slack) = match name {
        _ if is_momentary(work, name) => (GROWTH_MAX_OF_MOMENTARY, RARE_MOMENTARY),
        BYTES_COPIED => (GROWTH_MAX, RARE_BYTES),
        _ => (GROWTH_MAX, RARE),
    };
    let (before, now) = (before.map_or(RARE, |before| before * units), now * units);
    if now > before * growth_max && now > before + slack {
        return Some(Change::Grown);
    }
    let is_smaller = now < before / growth_max && now < before - slack && before > RARE;
    is_smaller.then_some(Change::Shrunk)
}

impl Finding {
    /// Whether it makes a check fail.
    pub(super) fn is_failure(&self) -> bool {
        self.change == Change::Grown
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { work, end, name, .. } = self;
        write!(out, "{work}/{end}: {name} {} -> {} per {}", rounded(self.before), rounded(self.now), work.unit())
    }
}

#[cfg(test)]
mod tests {
    use super::{Change, change, findings, is_momentary};
    use crate::counts::record::{Record, WorkRecord};
    use crate::counts::work::Work;

    #[test]
    fn a_tenth_is_allowed_and_no_more() {
        assert_eq!(change(Work::Small, "openat", Some(2.0), 2.19), None);
        assert_eq!(change(Work::Small, "openat", Some(2.0), 2.21), Some(Change::Grown));
        assert_eq!(change(Work::Small, "openat", Some(2.0), 1.83), None);
        assert_eq!(change(Work::Small, "openat", Some(2.0), 1.81), Some(Change::Shrunk));
    }

    #[test]
    fn what_depends_on_the_moment_may_double() {
        let names = ["context switches", "futex", "locks", "openat"];
        assert_eq!(names.map(|name| is_momentary(Work::Small, name)), [true, true, false, false]);
        assert_eq!(names.map(|name| is_momentary(Work::Big, name)), [true, true, true, false]);
        assert_eq!(change(Work::Small, "futex", Some(0.5), 0.99), None);
        assert_eq!(change(Work::Small, "futex", Some(0.5), 1.01), Some(Change::Grown));
        assert_eq!(change(Work::Small, "futex", Some(0.5), 0.26), None);
        assert_eq!(change(Work::Small, "futex", Some(0.5), 0.24), Some(Change::Shrunk));
    }

    #[test]
    fn a_few_more_never_fail() {
        // 490 calls more in the whole run, then 510; bytes have a number of their own.
        assert_eq!(change(Work::Small, "mmap", Some(0.02), 0.0298), None);
        assert_eq!(change(Work::Small, "mmap", Some(0.02), 0.0302), Some(Change::Grown));
        assert_eq!(change(Work::Small, "bytes copied", Some(1.0), 2.0), None);
        assert_eq!(change(Work::Small, "bytes copied", Some(1.0), 3.0), Some(Change::Grown));
        assert_eq!(change(Work::Big, "sendfile", Some(4.0), 4.45), None);
        assert_eq!(change(Work::Big, "sendfile", Some(4.0), 4.5), Some(Change::Grown));
    }

    #[test]
    fn a_new_name_counts_as_rare_until_now() {
        for (name, most) in [("fsync", 1000.0), ("futex", 2500.0)] {
            let change = |calls: f64| change(Work::Small, name, None, calls / Work::Small.units() as f64);
            assert_eq!([0.0, most - 1.0, most + 1.0].map(change), [None, None, Some(Change::Grown)]);
        }
    }

    #[test]
    fn findings_say_which_end_and_by_how_much() {
        let mut known = Record::default();
        let mut before = WorkRecord::default();
        before.client.extend([("futex".to_owned(), 0.52), ("statx".to_owned(), 1.0)]);
        known.works.insert("small".to_owned(), before);
        let mut now = WorkRecord::default();
        now.client.insert("futex".to_owned(), 1.310_04);
        now.server.insert("openat".to_owned(), 2.0);
        let findings = findings(Work::Small, &now, &known);
        let said: Vec<String> = findings.iter().map(ToString::to_string).collect();
        let expected = [
            "small/client: futex 0.52 -> 1.31 per file",
            "small/client: statx 1 -> 0 per file",
            "small/server: openat 0 -> 2 per file",
        ];
        assert_eq!(said, expected);
        let failures: Vec<bool> = findings.iter().map(super::Finding::is_failure).collect();
        assert_eq!(failures, [true, false, true]);
    }
}
