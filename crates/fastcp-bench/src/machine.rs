//! What the figures were taken on.

use std::fs;
use std::thread;

use serde::{Deserialize, Serialize};

/// Head lines of a report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) processor: String,
    pub(crate) processors: usize,
    pub(crate) memory_bytes: u64,
    /// What connections use that choose none.
    pub(crate) congestion_control: String,
    pub(crate) fastcp_version: String,
}

impl Machine {
    /// This one.
    pub(crate) fn here(fastcp_version: &str) -> Self {
        Self {
            kernel: line_of("/proc/sys/kernel/osrelease"),
            processor: field("/proc/cpuinfo", "model name"),
            processors: thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: memory_bytes(&field("/proc/meminfo", "MemTotal")),
            congestion_control: line_of("/proc/sys/net/ipv4/tcp_congestion_control"),
            fastcp_version: fastcp_version.to_owned(),
        }
    }

    #[cfg(test)]
    pub(crate) fn unknown() -> Self {
        Self {
            kernel: unknown(),
            processor: unknown(),
            processors: 1,
            memory_bytes: 0,
            congestion_control: unknown(),
            fastcp_version: unknown(),
        }
    }

    /// All of it in a line.
    pub(crate) fn summary(&self) -> String {
        format!(
            "Linux {}, {} processors ({}), {:.1} GiB of memory, {} over loopback, fastcp {}",
            self.kernel,
            self.processors,
            self.processor,
            self.memory_bytes as f64 / (1_u64 << 30) as f64,
            self.congestion_control,
            self.fastcp_version,
        )
    }
}

fn unknown() -> String {
    "unknown".to_owned()
}

fn line_of(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| unknown(), |text| text.trim().to_owned())
}

/// What follows `name` and a colon in a file of such lines.
fn field(path: &str, name: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let found = lines.find(|(key, _)| key.trim() == name);
    found.map_or_else(unknown, |(_, value)| value.trim().to_owned())
}

fn memory_bytes(text: &str) -> u64 {
    text.strip_suffix(" kB").and_then(|kib| kib.parse::<u64>().ok()).map_or(0, |kib| kib * 1024)
}
