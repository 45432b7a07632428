//! How much memory a process has.

use std::fs;

/// The most that a process has had in memory so far, in MiB.
pub(crate) fn peak_mib(pid: u32) -> u64 {
    try_peak_mib(pid).expect("it lives")
}

/// The same; `None` where it has ended.
pub(crate) fn try_peak_mib(pid: u32) -> Option<u64> {
    field(pid, "VmHWM:")
}

/// What it has in memory now, in MiB.
pub(crate) fn resident_mib(pid: u32) -> u64 {
    field(pid, "VmRSS:").expect("it lives")
}

fn field(pid: u32, name: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib / 1024)
}
