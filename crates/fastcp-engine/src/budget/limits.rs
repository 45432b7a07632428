//! What the system allows this process, and the words for it.

use std::fmt;

use fastcp_sys::process;

use super::count;

/// Something that there is only so much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// What there may be of it.
    pub max: u64,
    /// How much of that was not in use when it was asked for.
    pub left: u64,
}

impl Allowance {
    pub(super) const NONE: Self = Self { max: u64::MAX, left: u64::MAX };
}

/// What the system allows this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Descriptors (`RLIMIT_NOFILE`).
    pub open_files: Allowance,
    /// Threads (`RLIMIT_NPROC`). They are the user's and not the process's; how many others there are is not known.
    pub threads: Allowance,
    /// Bytes of memory (`RLIMIT_AS`).
    pub memory_bytes: Allowance,
}

impl Limits {
    /// No limit.
    pub const NONE: Self =
        Self { open_files: Allowance::NONE, threads: Allowance::NONE, memory_bytes: Allowance::NONE };

    /// Those of this process, and what is left of them.
    pub fn of_process() -> Self {
        let open_files = process::descriptor_limit()
            .map_or(Allowance::NONE, |max| Allowance { max, left: max.saturating_sub(process::open_descriptors()) });
        let threads = process::threads_max().map_or(Allowance::NONE, |max| Allowance { max, left: max });
        let memory_bytes = process::address_space()
            .map_or(Allowance::NONE, |(max, used)| Allowance { max, left: max.saturating_sub(used) });
        Self { open_files, threads, memory_bytes }
    }

    /// Half of what is left of each, for one of several that share it.
    pub(crate) fn halved(self) -> Self {
        let halved = |allowance: Allowance| Allowance {
            left: if allowance == Allowance::NONE { allowance.left } else { allowance.left / 2 },
            ..allowance
        };
        Self {
            open_files: halved(self.open_files),
            threads: halved(self.threads),
            memory_bytes: halved(self.memory_bytes),
        }
    }

    /// How many threads scan, plan and hash: one for each processor, where the system allows as many.
    pub fn pool_threads(&self) -> usize {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let allowed = (self.open_files.left / OPEN_FILES_PER_POOL_THREAD)
            .min(self.threads.left / THREADS_PER_POOL_THREAD)
            .min(self.memory_bytes.left / MEMORY_PER_POOL_THREAD);
        processors.min(count(allowed)).max(1)
    }
}

/// Of so many descriptors one thread of the pool may use its three: a directory, the names in it, an entry.
const OPEN_FILES_PER_POOL_THREAD: u64 = 48;
/// Of so many threads one is of the pool.
const THREADS_PER_POOL_THREAD: u64 = 32;
/// For so much memory there is one, with a stack of 2 MiB.
const MEMORY_PER_POOL_THREAD: u64 = 64 << 20;

/// What of a run's connections a limit has taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limited {
    /// Which limit.
    pub resource: Resource,
    /// What it allows.
    pub max: u64,
    /// Connections that there will be; none where there is too little for a run.
    pub connections: u16,
    /// The limit is the other end's, which has told of it.
    pub is_elsewhere: bool,
}

/// What a process may have little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Descriptors.
    OpenFiles,
    /// Threads.
    Threads,
    /// Memory.
    Memory,
}

impl Resource {
    /// The word for it in `--json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenFiles => "open_files",
            Self::Threads => "threads",
            Self::Memory => "memory",
        }
    }

    pub(super) fn write_limit(self, max: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OpenFiles => write!(f, "open files are limited to {max}"),
            Self::Threads => write!(f, "threads are limited to {max}"),
            Self::Memory => write!(f, "memory is limited to {} MiB", max >> 20),
        }
    }
}

impl fmt::Display for Limited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_elsewhere {
            f.write_str("at the other end, ")?;
        }
        self.resource.write_limit(self.max, f)?;
        match self.connections {
            0 => write!(f, ": too few for a run"),
            1 => write!(f, ": using 1 connection"),
            connections => write!(f, ": using {connections} connections"),
        }
    }
}
