//! This process: its limits and who it runs as.

use std::ffi::CString;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Gid, Pid, SysconfVar, Uid, getgroups, sysconf};

use crate::scarce::patiently;

/// The size of a process of which it cannot be known.
const SIZE_PRESUMED: u64 = 32 << 20;

/// Starts a program that belongs to this one: it hears all signals, whatever this thread does not, and is asked to end when
/// this thread ends, however that comes.
///
/// # Errors
/// As `fork(2)` and `execve(2)`.
pub fn spawn_companion(command: &mut Command) -> io::Result<Child> {
    let begin = || {
        SigSet::all().thread_unblock()?;
        nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?;
        Ok(())
    };
    // SAFETY: between fork and exec it calls two functions of the kernel and allocates nothing.
    unsafe { command.pre_exec(begin) };
    command.spawn()
}

/// Waits for a program to end. Once the time is over it is asked to, and soon after that it is ended.
///
/// # Errors
/// As `waitpid(2)`.
pub fn end_process(child: &mut Child, within: Duration) -> io::Result<ExitStatus> {
    const AFTER_ASKING: Duration = Duration::from_secs(1);
    const LOOK_EVERY: Duration = Duration::from_millis(1);
    let begun = Instant::now();
    let mut is_asked = false;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if begun.elapsed() >= within + AFTER_ASKING {
            child.kill()?;
            return child.wait();
        }
        if begun.elapsed() >= within && !std::mem::replace(&mut is_asked, true) {
            // One that has just ended need not be asked.
            let _ = nix::sys::signal::kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// What this machine calls itself, if that is text.
pub fn host_name() -> Option<String> {
    nix::unistd::gethostname().ok()?.into_string().ok()
}

/// Takes a variable out of the environment. Its value is overwritten where the kernel put it: neither a child has it, nor
/// `/proc/PID/environ`, nor a core dump. With more threads than one it is only read.
pub fn take_variable(name: &str) -> Option<Vec<u8>> {
    let value = std::env::var_os(name)?.into_vec();
    let key = CString::new(name).ok()?;
    // Where it cannot be known, this is called when the program starts.
    if std::fs::read_dir("/proc/self/task").map_or(true, |tasks| tasks.count() == 1) {
        // SAFETY: this is the only thread, so nobody changes the environment meanwhile.
        let at = unsafe { libc::getenv(key.as_ptr()) };
        if !at.is_null() {
            // SAFETY: it is the beginning of a string that ends in a zero.
            let len = unsafe { libc::strlen(at) };
            // SAFETY: the string is the process's own, in memory that it may write to, and has so many bytes.
            unsafe { libc::memset(at.cast(), 0, len) };
        }
        // SAFETY: as above; nobody reads the environment either.
        unsafe { std::env::remove_var(name) };
    }
    Some(value)
}

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

/// How many descriptors the process may have open.
///
/// # Errors
/// As `getrlimit(2)`.
pub fn descriptor_limit() -> io::Result<u64> {
    Ok(getrlimit(Resource::RLIMIT_NOFILE)?.0)
}

/// How many descriptors the process has open.
pub fn open_descriptors() -> u64 {
    match std::fs::read_dir("/proc/self/fd") {
        // One of them is that of the directory itself.
        Ok(entries) => entries.count().saturating_sub(1) as u64,
        // The lowest number that is free: as many are taken, where none is left out.
        // Made of one that every process has: a sandbox may allow no other to be opened.
        Err(_) => nix::unistd::dup(io::stderr()).map_or(u64::MAX, |free| free.as_raw_fd().unsigned_abs().into()),
    }
}

/// How many threads and processes the user may have, where that is limited. Root is bound by it only where
/// he is root of a namespace and not of the machine.
pub fn threads_max() -> Option<u64> {
    let (soft, _) = getrlimit(Resource::RLIMIT_NPROC).ok()?;
    (soft != RLIM_INFINITY).then_some(soft)
}

/// How large the process may get, in bytes, and how large it is, where that is limited.
pub fn address_space() -> Option<(u64, u64)> {
    let (soft, _) = getrlimit(Resource::RLIMIT_AS).ok()?;
    if soft == RLIM_INFINITY {
        return None;
    }
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split(' ').next().and_then(|pages| pages.parse::<u64>().ok()));
    let page_bytes = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096).unsigned_abs();
    Some((soft, pages.map_or(SIZE_PRESUMED, |pages| pages * page_bytes)))
}

/// Bytes that nobody can foresee.
///
/// # Errors
/// As `getrandom(2)`.
pub fn random_bytes() -> io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    loop {
        // SAFETY: the kernel writes into `bytes`, which lives until the call is over, and no further than its length.
        let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        match Errno::result(got) {
            // So few come all at once, or not at all.
            Ok(_) => return Ok(bytes),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// The processor time that the calling thread has used, in user and kernel.
///
/// # Errors
/// As `clock_gettime(2)`.
pub fn thread_time() -> io::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// What tells this boot of the machine from any other; `None` where the kernel does not say.
pub fn boot_id() -> Option<u128> {
    static BOOT_ID: OnceLock<Option<u128>> = OnceLock::new();
    *BOOT_ID.get_or_init(|| {
        let text = patiently(|| std::fs::read_to_string("/proc/sys/kernel/random/boot_id")).ok()?;
        u128::from_str_radix(&text.trim().replace('-', ""), 16).ok()
    })
}

/// Makes a write past `RLIMIT_FSIZE` an error (`EFBIG`) instead of the end of the process.
///
/// # Errors
/// As `sigaction(2)`.
pub fn ignore_file_size_signal() -> io::Result<()> {
    // SAFETY: no handler is installed, so there is none that could do anything unsafe.
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }?;
    Ok(())
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

/// The user that the process acts as.
pub fn user() -> u32 {
    Uid::effective().as_raw()
}

/// A number that nobody can foresee.
///
/// # Errors
/// As `getrandom(2)`.
pub fn random() -> io::Result<u128> {
    let mut bytes = [0; size_of::<u128>()];
    // SAFETY: the kernel writes at most as many bytes as the array has, which lives until the call is over.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    // As little as this always comes whole.
    Errno::result(got).map(|_| u128::from_ne_bytes(bytes)).map_err(io::Error::from)
}

/// The groups that the process may give files to without being root.
pub fn groups() -> Vec<u32> {
    let mut groups: Vec<u32> = getgroups().unwrap_or_default().into_iter().map(Gid::as_raw).collect();
    groups.push(Gid::effective().as_raw());
    groups
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    #[test]
    fn descriptors_are_counted() {
        let before = super::open_descriptors();
        let files = [(); 8].map(|()| File::open("/").expect("open"));
        assert!(super::open_descriptors() >= before.min(8));
        drop(files);
        assert!((3..100_000).contains(&before));
    }

    #[test]
    fn random_bytes_differ() {
        assert_ne!(super::random_bytes().expect("bytes"), super::random_bytes().expect("bytes"));
    }

    #[test]
    fn random_numbers_differ() {
        assert_ne!(super::random().expect("a number"), super::random().expect("a number"));
    }

    #[test]
    fn a_boot_has_one_id() {
        assert_eq!(super::boot_id(), super::boot_id());
        assert_ne!(super::boot_id(), Some(0));
    }
}
