//! Setting mode, owner and time on what a descriptor holds, never on a path.
//!
//! A handle made with `O_PATH` takes neither `fchmod` nor `futimens`; its `/proc/self/fd` name does,
//! on every kernel, and leads to the held inode whatever happened to the name it was opened by.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use fastcp_model::Timestamp;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::{FchmodatFlags, Mode, UtimensatFlags, fchmod, fchmodat, futimens, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat};

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
    let path = proc_path(&handle);
    let times = (TimeSpec::UTIME_OMIT, time_spec(mtime));
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

fn mode_bits(mode: u16) -> Mode {
    Mode::from_bits_truncate(u32::from(mode))
}

fn time_spec(time: Timestamp) -> TimeSpec {
    TimeSpec::new(time.secs(), i64::from(time.nanos()))
}

fn proc_path(handle: &impl AsFd) -> String {
    format!("/proc/self/fd/{}", handle.as_fd().as_raw_fd())
}
