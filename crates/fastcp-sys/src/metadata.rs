//! Setting mode, owner and time on what a descriptor holds, never on a path.
//!
//! A handle made with `O_PATH` takes neither `fchmod` nor `futimens`. Kernels from 6.6 on take an empty path
//! instead (from 5.8 on for times); on others its `/proc/self/fd` name does, and leads to the held inode whatever
//! happened to the name it was opened by.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use fastcp_model::Timestamp;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::{FchmodatFlags, Mode, UtimensatFlags, fchmod, fchmodat, futimens, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat};

/// `fchmodat2(2)`, of Linux 6.6: a number that all architectures share.
const FCHMODAT2: libc::c_long = 452;
static FCHMODAT2_MISSING: AtomicBool = AtomicBool::new(false);

/// Sets the permission bits of a file that is open for reading or writing.
///
/// # Errors
/// As `fchmod(2)`.
pub fn set_mode(file: impl AsFd, mode: u16) -> io::Result<()> {
    Ok(fchmod(file, mode_bits(mode))?)
}

/// Sets owner and group of an open file; `None` leaves one as it is. Clears setuid and setgid, so the
/// mode is set after it.
///
/// # Errors
/// As `fchown(2)`.
pub fn set_owner(file: impl AsFd, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    Ok(fchown(file, uid.map(Uid::from_raw), gid.map(Gid::from_raw))?)
}

/// Sets both times of an open file to now.
///
/// # Errors
/// As `futimens(2)`.
pub fn touch(file: impl AsFd) -> io::Result<()> {
    let now = TimeSpec::UTIME_NOW;
    Ok(futimens(file, &now, &now)?)
}

/// Sets the time of last modification of an open file; that of last access stays.
///
/// # Errors
/// As `futimens(2)`.
pub fn set_mtime(file: impl AsFd, mtime: Timestamp) -> io::Result<()> {
    Ok(futimens(file, &TimeSpec::UTIME_OMIT, &time_spec(mtime))?)
}

/// [`set_mode`] for a handle. Not for links, whose mode means nothing.
///
/// # Errors
/// As `fchmodat(2)`.
pub fn set_handle_mode(handle: impl AsFd, mode: u16) -> io::Result<()> {
    if !FCHMODAT2_MISSING.load(Ordering::Relaxed) {
        match fchmodat2(&handle, mode) {
            Err(Errno::ENOSYS) => FCHMODAT2_MISSING.store(true, Ordering::Relaxed),
            // A sandbox may answer EPERM for a call that it does not know.
            Err(Errno::EPERM) => {}
            result => return Ok(result?),
        }
    }
    Ok(fchmodat(AT_FDCWD, proc_path(&handle).as_str(), mode_bits(mode), FchmodatFlags::FollowSymlink)?)
}

/// [`set_owner`] for a handle, links included.
///
/// # Errors
/// As `fchownat(2)`.
pub fn set_handle_owner(handle: impl AsFd, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    Ok(fchownat(handle, "", uid.map(Uid::from_raw), gid.map(Gid::from_raw), AtFlags::AT_EMPTY_PATH)?)
}

/// [`set_mtime`] for a handle that is not a link.
///
/// # Errors
/// As `utimensat(2)`.
pub fn set_handle_mtime(handle: impl AsFd, mtime: Timestamp) -> io::Result<()> {
    let times = (TimeSpec::UTIME_OMIT, time_spec(mtime));
    match utimensat_empty(&handle, [times.0, times.1]) {
        // Before Linux 5.8.
        Err(Errno::EINVAL) => {}
        result => return Ok(result?),
    }
    let path = proc_path(&handle);
    Ok(utimensat(AT_FDCWD, path.as_str(), &times.0, &times.1, UtimensatFlags::FollowSymlink)?)
}

/// Sets the time of the link `name` itself.
///
/// # Errors
/// As `utimensat(2)`.
pub fn set_link_mtime(dir: &crate::Dir, name: &fastcp_model::Name, mtime: Timestamp) -> io::Result<()> {
    let times = (TimeSpec::UTIME_OMIT, time_spec(mtime));
    Ok(utimensat(dir, name.as_bytes(), &times.0, &times.1, UtimensatFlags::NoFollowSymlink)?)
}

fn fchmodat2(handle: impl AsFd, mode: u16) -> nix::Result<()> {
    let (raw, mode) = (handle.as_fd().as_raw_fd(), mode_bits(mode).bits());
    // SAFETY: the descriptor is borrowed for the call, and the path is a NUL-terminated literal.
    let result = unsafe { libc::syscall(FCHMODAT2, raw, c"".as_ptr(), mode, libc::AT_EMPTY_PATH) };
    Errno::result(result).map(drop)
}

fn utimensat_empty(handle: impl AsFd, times: [TimeSpec; 2]) -> nix::Result<()> {
    let (raw, times) = (handle.as_fd().as_raw_fd(), times.map(|time| *time.as_ref()));
    // SAFETY: the descriptor is borrowed for the call, the path is a NUL-terminated literal, and the kernel reads
    // two times, which live until it returns.
    let result = unsafe { libc::utimensat(raw, c"".as_ptr(), times.as_ptr(), libc::AT_EMPTY_PATH) };
    Errno::result(result).map(drop)
}

fn mode_bits(mode: u16) -> Mode {
    Mode::from_bits_truncate(u32::from(mode))
}

fn time_spec(time: Timestamp) -> TimeSpec {
    TimeSpec::new(time.secs(), i64::from(time.nanos()))
}

fn proc_path(handle: &impl AsFd) -> String {
    format!("/proc/self/fd/{}", handle.as_fd().as_raw_fd())
}

#[cfg(test)]
mod tests {
    use fastcp_model::{Name, RelPath, Timestamp};

    use super::{fchmodat2, set_handle_mode, set_handle_mtime, utimensat_empty};
    use crate::Root;

    #[test]
    fn handles_are_changed_by_whichever_way_there_is() {
        let tree = tempfile::tempdir().expect("temporary directory");
        std::fs::write(tree.path().join("file"), b"").expect("write");
        let dir = Root::open(tree.path()).expect("open").dir(&RelPath::root()).expect("root");
        let name = Name::new(b"file").expect("lawful");
        let handle = dir.handle(&name).expect("open");
        let mtime = Timestamp::new(1_600_000_000, 7).expect("lawful");
        set_handle_mode(&handle, 0o640).expect("chmod");
        set_handle_mtime(&handle, mtime).expect("set the time");
        let metadata = dir.stat_name(&name).expect("examine").metadata;
        assert_eq!((metadata.mode, metadata.mtime), (0o640, mtime));
        // Where the kernel has the newer calls, they do the same.
        if fchmodat2(&handle, 0o604).is_ok() {
            assert_eq!(dir.stat_name(&name).expect("examine").metadata.mode, 0o604);
        }
        let later = Timestamp::new(1_700_000_000, 9).expect("lawful");
        if utimensat_empty(&handle, [super::TimeSpec::UTIME_OMIT, super::time_spec(later)]).is_ok() {
            assert_eq!(dir.stat_name(&name).expect("examine").metadata.mtime, later);
        }
    }
}
