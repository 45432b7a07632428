//! This process: its limits and who it runs as.

use std::io;
use std::time::Duration;

#[cfg(feature = "tun")]
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::time::{ClockId, clock_gettime};
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

/// The processor time that the calling thread has used, in user and kernel.
///
/// # Errors
/// As `clock_gettime(2)`.
pub fn thread_time() -> io::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// Lets the calling thread run before all that are scheduled the usual way, and in turns with its like.
///
/// # Errors
/// As `sched_setscheduler(2)`: `PermissionDenied` unless root or allowed by `RLIMIT_RTPRIO`.
#[cfg(feature = "tun")]
pub fn put_thread_first() -> io::Result<()> {
    let lowest_of_those = libc::sched_param { sched_priority: 1 };
    // SAFETY: the kernel reads one `sched_param`, which lives until the call is over; 0 is this thread.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_RR, &raw const lowest_of_those) };
    Errno::result(result)?;
    Ok(())
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
