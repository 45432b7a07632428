//! What a run may hold open and how much of it may run at a time, from what the system allows.
//!
//! Descriptors, threads and memory are divided once, at the start, over all that hold some: connections,
//! directories that are planned, files that wait for their group's sync, part files that wait to be fetched. Where
//! the system allows much, each gets what is best for speed. Where it allows little, each gets less, connections
//! first: a run with one is slower than one with eight, and as right. The parts add up to less than the whole, so
//! that calls seldom find nothing left; those that do wait ([`fastcp_sys::scarce`]).

use fastcp_wire::limits::CONNECTIONS_MAX;

mod limits;
mod served;

pub use limits::{Allowance, Limited, Limits, Resource};
pub use served::Served;

use crate::settings::Connections;

/// The most files in a group; each is an open descriptor until it has its name.
pub(crate) const GROUP_FILES_MAX: usize = 4096;

impl Limits {
    /// How many directories a run may hold open that holds open little else.
    pub(crate) fn listings(&self) -> usize {
        bounded(self.open_files.left / 4, 1, LISTINGS_MAX)
    }
}

/// The parts of a receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget {
    /// Data connections.
    pub(crate) connections: u16,
    /// Whether they are fewer than was asked for, and why.
    pub(crate) limited: Option<Limited>,
    /// What each may do.
    pub(crate) reach: Reach,
    /// Files of one group.
    pub(crate) group_files: usize,
    /// Files that wait to be fetched and hold their part file open.
    pub(crate) prepared_files: usize,
    /// Files whose old versions are held open at a time.
    pub(crate) searched_files: usize,
    /// Directories that are planned at a time.
    pub(crate) listings: usize,
}

/// How much of the process a connection may take up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// A pipe to splice through, and several files in flight.
    Full,
    /// A file at a time, and no pipe.
    Short,
}

/// Where the other end runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    Elsewhere,
    /// In this process: it takes from the same limits.
    Here,
}

impl Budget {
    /// What a receiver may do that wants so many connections, and whose sender takes from the same limits or does not.
    pub(crate) fn of(wanted: Connections, limits: &Limits, is_peer_here: bool) -> Self {
        let wanted = match wanted {
            Connections::Fixed(connections) => connections,
            Connections::Auto => CONNECTIONS_MAX,
        };
        let peer = if is_peer_here { Peer::Here } else { Peer::Elsewhere };
        Self::divided(limits, wanted, peer)
    }

    fn divided(limits: &Limits, wanted: u16, peer: Peer) -> Self {
        let by_threads = connections_by_threads(limits, peer);
        let by_memory = connections_by_memory(limits, peer);
        let mut budget = Self::of_open_files(limits, wanted.min(by_threads).min(by_memory), peer);
        if limits.open_files.left < OPEN_FILES_MIN + peer.of(SERVED_OPEN_FILES_MIN) {
            budget.connections = 0;
        }
        let limiting = [
            (budget.connections, Resource::OpenFiles, limits.open_files),
            (by_threads, Resource::Threads, limits.threads),
            (by_memory, Resource::Memory, limits.memory_bytes),
        ];
        let tightest = limiting.into_iter().rev().min_by_key(|(connections, ..)| *connections);
        budget.limited = tightest.filter(|_| budget.connections < wanted).map(|(_, resource, limit)| Limited {
            resource,
            max: limit.max,
            connections: budget.connections,
            is_elsewhere: false,
        });
        budget
    }

    fn of_open_files(limits: &Limits, wanted: u16, peer: Peer) -> Self {
        let held = FIXED_OPEN_FILES + peer.of(SERVED_FIXED_OPEN_FILES) + 3 * limits.pool_threads() as u64;
        let rest = limits.open_files.left.saturating_sub(held);
        let full = FULL_OPEN_FILES + peer.of(served::OPEN_FILES);
        let short = SHORT_OPEN_FILES + peer.of(served::OPEN_FILES);
        let (reach, connections) = if u64::from(wanted) * full <= rest / 2 {
            (Reach::Full, wanted)
        } else {
            (Reach::Short, bounded(rest / 2 / short, 1, usize::from(wanted)) as u16)
        };
        let each = if reach == Reach::Full { full } else { short };
        let rest = rest.saturating_sub(u64::from(connections) * each);
        let listings = bounded(rest / 4, 1, LISTINGS_MAX);
        let prepared_files = bounded(rest / 16, 1, PREPARED_FILES_MAX);
        let searched_files = bounded(rest / 16, 1, SEARCHED_FILES_MAX);
        let others = (listings + 2 * prepared_files + 2 * searched_files) as u64;
        // One group is written down while the next one fills.
        let group_files = bounded(rest.saturating_sub(others) / 2 / GROUPED_OPEN_FILES, 1, GROUP_FILES_MAX);
        Self { connections, limited: None, reach, group_files, prepared_files, searched_files, listings }
    }
}

impl Peer {
    /// What it takes of this process's descriptors.
    fn of(self, open_files: u64) -> u64 {
        match self {
            Self::Here => open_files,
            Self::Elsewhere => 0,
        }
    }
}

/// With fewer descriptors a run does not get on, however long it waits.
const OPEN_FILES_MIN: u64 = 13;
const SERVED_OPEN_FILES_MIN: u64 = 4;
/// Of a receiver: the root, its lock, the mount, its directory of part files, the kept offer, the control
/// connection, the one that asks for signatures, the manifest.
const FIXED_OPEN_FILES: u64 = 8;
/// Of the sender in the same process: the root, the other ends of those two connections.
const SERVED_FIXED_OPEN_FILES: u64 = 3;
/// Of a connection: itself, a directory, a pipe; of five files in flight each its part file and its journal.
const FULL_OPEN_FILES: u64 = 14;
/// Of one that does one thing at a time: itself, a directory, a part file and its journal, one in passing.
const SHORT_OPEN_FILES: u64 = 5;
/// Of a file that waits for its group: its part file and its directory, and sometimes a journal.
const GROUPED_OPEN_FILES: u64 = 3;
const LISTINGS_MAX: usize = 512;
const PREPARED_FILES_MAX: usize = 64;
const SEARCHED_FILES_MAX: usize = 64;

/// Threads that a receiver has beside its connections', with some to spare for others of the same user.
const FIXED_THREADS: u64 = 8;
const SERVED_FIXED_THREADS: u64 = 3;

fn connections_by_threads(limits: &Limits, peer: Peer) -> u16 {
    let fixed = FIXED_THREADS + peer.of(SERVED_FIXED_THREADS);
    bounded(limits.threads.left.saturating_sub(fixed) / 2, 1, CONNECTIONS_MAX.into()) as u16
}

/// What a receiver needs before the first connection: stacks of its threads, files that are planned.
const FIXED_MEMORY: u64 = 48 << 20;
/// Of a connection: two ranges of 4 MiB, one of them compressed, with what that takes, and a stack.
const CONNECTION_MEMORY: u64 = 12 << 20;

fn connections_by_memory(limits: &Limits, peer: Peer) -> u16 {
    let (fixed, each) = match peer {
        Peer::Elsewhere => (FIXED_MEMORY, CONNECTION_MEMORY),
        Peer::Here => (FIXED_MEMORY * 3 / 2, CONNECTION_MEMORY * 2),
    };
    bounded(limits.memory_bytes.left.saturating_sub(fixed) / each, 1, CONNECTIONS_MAX.into()) as u16
}

fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn bounded(number: u64, min: usize, max: usize) -> usize {
    count(number).clamp(min, max)
}

#[cfg(test)]
mod tests {
    use super::{
        Allowance, Budget, FIXED_OPEN_FILES, FULL_OPEN_FILES, GROUPED_OPEN_FILES, Limits, Peer, Reach,
        SERVED_FIXED_OPEN_FILES, SHORT_OPEN_FILES, served,
    };

    fn open_files(max: u64) -> Limits {
        Limits { open_files: Allowance { max, left: max - 3 }, ..Limits::NONE }
    }

    /// The most that may be open at a time by a budget.
    fn sum(budget: &Budget, limits: &Limits, peer: Peer) -> u64 {
        let each = if budget.reach == Reach::Full { FULL_OPEN_FILES } else { SHORT_OPEN_FILES };
        FIXED_OPEN_FILES
            + peer.of(SERVED_FIXED_OPEN_FILES)
            + 3 * limits.pool_threads() as u64
            + u64::from(budget.connections) * (each + peer.of(served::OPEN_FILES))
            + (budget.listings + 2 * budget.prepared_files + 2 * budget.searched_files) as u64
            + 2 * GROUPED_OPEN_FILES * budget.group_files as u64
    }

    #[test]
    fn the_parts_are_no_more_than_the_whole() {
        for peer in [Peer::Elsewhere, Peer::Here] {
            for max in (48..3000).chain([10_000, 1 << 20]) {
                for wanted in [1, 4, 8, 64] {
                    let limits = open_files(max);
                    let budget = Budget::divided(&limits, wanted, peer);
                    assert!(
                        sum(&budget, &limits, peer) <= limits.open_files.left,
                        "{max} {wanted} {peer:?} {budget:?}"
                    );
                    assert!((1..=wanted).contains(&budget.connections));
                    assert_eq!(budget.limited.is_some(), budget.connections < wanted);
                }
            }
        }
    }

    #[test]
    fn much_is_all_that_is_of_use() {
        for limits in [Limits::NONE, open_files(1 << 20)] {
            let budget = Budget::divided(&limits, 64, Peer::Here);
            assert_eq!((budget.connections, budget.reach, budget.limited), (64, Reach::Full, None));
            assert_eq!((budget.group_files, budget.prepared_files), (4096, 64));
        }
        assert_eq!(Budget::divided(&open_files(1024), 64, Peer::Elsewhere).connections, 64);
    }

    #[test]
    fn the_tightest_limit_is_told() {
        let told = |limits: &Limits, wanted| {
            Budget::divided(limits, wanted, Peer::Elsewhere).limited.map(|limited| limited.to_string())
        };
        assert_eq!(told(&open_files(64), 16).as_deref(), Some("open files are limited to 64: using 5 connections"));
        assert_eq!(told(&open_files(64), 5), None);
        let threads = Limits { threads: Allowance { max: 12, left: 12 }, ..open_files(64) };
        assert_eq!(told(&threads, 8).as_deref(), Some("threads are limited to 12: using 2 connections"));
        let memory = Limits { memory_bytes: Allowance { max: 64 << 20, left: 50 << 20 }, ..threads };
        assert_eq!(told(&memory, 4).as_deref(), Some("memory is limited to 64 MiB: using 1 connection"));
    }
}
