//! How many connections a server can have at a time.

use std::fmt;

use fastcp_net::TURNED_AWAY_MAX;

use super::{Limits, Resource, count};

/// A control connection and a data connection: with fewer nothing can be served.
const CONNECTIONS_MIN: usize = 2;
/// Of a connection: itself, a file, and a directory or the next file.
pub(super) const OPEN_FILES: u64 = 3;
/// The root, the listening socket, those that are turned away.
const FIXED_OPEN_FILES: u64 = 2 + TURNED_AWAY_MAX as u64;
/// Of a scan, one thread: a directory and its names.
const OPEN_FILES_PER_POOL_THREAD: u64 = 2;
/// The first, the one for signals, those of connections that are turned away.
const FIXED_THREADS: u64 = 2 + TURNED_AWAY_MAX as u64;
/// Of so many connections: their own threads, and one that scans. A session, for which there may be a scan, has at least
/// as many connections as the first number.
const SCANNED_CONNECTIONS: u64 = 3;
const SCANNED_THREADS: u64 = SCANNED_CONNECTIONS + 1;
/// What there is before the first connection, stacks of the pool among it.
const FIXED_MEMORY: u64 = 32 << 20;
/// Of a connection: a range of 4 MiB, what compresses it, and a stack.
const CONNECTION_MEMORY: u64 = 12 << 20;

/// What a server can serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    /// Connections at a time; 0 where that is too little for one client.
    pub connections: usize,
    /// What there would have to be more of.
    pub resource: Resource,
    /// How much of it is allowed.
    pub max: u64,
}

impl Served {
    /// What can be served under these limits, at most so many connections.
    pub fn of(limits: &Limits, connections_max: usize) -> Self {
        let pool = limits.pool_threads() as u64;
        let open_files = limits.open_files.left.saturating_sub(FIXED_OPEN_FILES + pool * OPEN_FILES_PER_POOL_THREAD);
        let threads = limits.threads.left.saturating_sub(FIXED_THREADS + pool);
        let all = [
            (open_files / OPEN_FILES, Resource::OpenFiles, limits.open_files.max),
            (
                threads / SCANNED_THREADS * SCANNED_CONNECTIONS + threads % SCANNED_THREADS,
                Resource::Threads,
                limits.threads.max,
            ),
            (
                limits.memory_bytes.left.saturating_sub(FIXED_MEMORY) / CONNECTION_MEMORY,
                Resource::Memory,
                limits.memory_bytes.max,
            ),
        ];
        let tightest = all.into_iter().min_by_key(|(connections, ..)| *connections);
        let (connections, resource, max) = tightest.unwrap_or((0, Resource::OpenFiles, 0));
        let connections = count(connections).min(connections_max);
        Self { connections: if connections < CONNECTIONS_MIN { 0 } else { connections }, resource, max }
    }
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.resource.write_limit(self.max, f)?;
        match self.connections {
            0 => write!(f, ": too few to serve a client"),
            connections => write!(f, ": serving up to {connections} connections at a time"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Served;
    use crate::budget::{Allowance, Limits};

    fn told(max: u64) -> String {
        let open_files = Allowance { max, left: max - 3 };
        Served::of(&Limits { open_files, ..Limits::NONE }, 4096).to_string()
    }

    #[test]
    fn what_can_be_served_follows_from_the_tightest_limit() {
        assert_eq!(Served::of(&Limits::NONE, 4096).connections, 4096);
        assert_eq!(told(14), "open files are limited to 14: too few to serve a client");
        assert_eq!(told(24), "open files are limited to 24: serving up to 5 connections at a time");
        let threads = Allowance { max: 12, left: 12 };
        assert_eq!(Served::of(&Limits { threads, ..Limits::NONE }, 4096).connections, 6);
    }
}
