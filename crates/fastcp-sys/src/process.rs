//! This process: its limits and who it runs as.

use std::io;
use std::time::Duration;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::time::TimeVal;
use nix::unistd::{Gid, Uid, getgroups};

/// Raises the soft limit of open descriptors to the hard one and answers it.
///
/// # Errors
/// As `getrlimit(2)` and `setrlimit(2)`.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

/// The processor time that this process has used, in user and kernel.
pub fn processor_time() -> Duration {
    let used = getrusage(UsageWho::RUSAGE_SELF).map(|usage| [usage.user_time(), usage.system_time()]);
    let seconds: i64 = used.iter().flatten().map(TimeVal::tv_sec).sum();
    let micros: i64 = used.iter().flatten().map(TimeVal::tv_usec).sum();
    Duration::from_secs(seconds.unsigned_abs()) + Duration::from_micros(micros.unsigned_abs())
}

/// Whether the process acts as root.
pub fn is_root() -> bool {
    Uid::effective().is_root()
}

/// The groups that the process may give files to without being root.
pub fn groups() -> Vec<u32> {
    let mut groups: Vec<u32> = getgroups().unwrap_or_default().into_iter().map(Gid::as_raw).collect();
    groups.push(Gid::effective().as_raw());
    groups
}
