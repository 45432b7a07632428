//! Positioned reads, preallocation and holes.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, PosixFadviseAdvice, fallocate, posix_fadvise};
use nix::unistd::{Whence, lseek64};

/// Reads at `offset` until `buffer` is full or the file ends; answers how many bytes that were.
///
/// # Errors
/// As `pread(2)`.
pub fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Reserves room for `len` bytes, so that a full disk shows before the bytes are fetched. A file
/// system that cannot is no error.
///
/// # Errors
/// `ENOSPC`, `EFBIG`, `EDQUOT` and other failures of `fallocate(2)`.
pub fn allocate(file: &File, len: u64) -> io::Result<()> {
    if len == 0 {
        return Ok(());
    }
    loop {
        match fallocate(file, FallocateFlags::empty(), 0, len.cast_signed()) {
            Err(Errno::EINTR) => {}
            Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// The offset of the first byte at or after `offset` that is not in a hole; `None` where only a hole
/// is left. A file system without holes answers `offset`.
///
/// # Errors
/// As `lseek(2)`.
pub fn next_data(file: &File, offset: u64) -> io::Result<Option<u64>> {
    match lseek64(file, offset.cast_signed(), Whence::SeekData) {
        Ok(at) => Ok(Some(at.cast_unsigned())),
        Err(Errno::ENXIO) => Ok(None),
        Err(Errno::EINVAL | Errno::EOPNOTSUPP) => Ok(Some(offset)),
        Err(errno) => Err(errno.into()),
    }
}

/// Starts writing a range to the disk without waiting for it, so that a later sync finds little left.
/// A hint: its failure changes nothing.
pub fn start_write_back(file: &File, offset: u64, len: u64) {
    let (offset, len) = (offset.cast_signed(), len.cast_signed());
    // SAFETY: the descriptor is borrowed for the call, which touches no memory of ours.
    let _ = unsafe { libc::sync_file_range(file.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE) };
}

/// Tells the kernel that a range will soon be read. A hint: its failure changes nothing.
pub fn will_read(file: &File, offset: u64, len: u64) {
    let _ = posix_fadvise(file, offset.cast_signed(), len.cast_signed(), PosixFadviseAdvice::POSIX_FADV_WILLNEED);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::{next_data, read_at};

    #[test]
    fn reads_stop_at_the_end_and_holes_are_seen() {
        let file = tempfile::tempfile().expect("file");
        file.set_len(1 << 20).expect("grow");
        file.write_all_at(b"data", 512 << 10).expect("write");
        let mut buffer = vec![1; 1024];
        assert_eq!(read_at(&file, &mut buffer, (1 << 20) - 10).expect("read"), 10);
        let found = next_data(&file, 0).expect("seek").expect("has data");
        assert!(found <= 512 << 10);
        assert!(next_data(&file, 600 << 10).expect("seek").is_none_or(|at| at >= 600 << 10));
    }
}
