//! Positioned reads, preallocation and holes.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use fastcp_model::ByteRange;
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

/// Appends what a file has from `offset` on, at most `len` bytes, without filling the room for them beforehand; answers
/// how many there were.
///
/// # Errors
/// As `pread(2)`; what was read until then is appended.
pub fn read_onto(file: &File, out: &mut Vec<u8>, len: usize, offset: u64) -> io::Result<usize> {
    out.reserve(len);
    let start = out.len();
    while out.len() - start < len {
        let done = out.len() - start;
        let room = &mut out.spare_capacity_mut()[..len - done];
        let at = libc::off_t::try_from(offset + done as u64).map_err(io::Error::other)?;
        // SAFETY: the kernel writes at most as many bytes as `room` has, and reads none of them.
        let count = unsafe { libc::pread(file.as_raw_fd(), room.as_mut_ptr().cast(), room.len(), at) };
        match usize::try_from(count) {
            Ok(0) => break,
            // SAFETY: so many bytes behind those that were there before are written, and there is room for them.
            Ok(count) => unsafe { out.set_len(start + done + count) },
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(out.len() - start)
}

/// Reads a range through `slice` and hands it to `take`, piece by piece and in order.
///
/// # Errors
/// `UnexpectedEof` where the file ends before the range does; that of `take`, which ends it; else as `pread(2)`.
pub fn read_range(
    file: &File,
    range: ByteRange,
    slice: &mut [u8],
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut at = range.start();
    while at < range.end() {
        let want = slice.len().min(usize::try_from(range.end() - at).unwrap_or(usize::MAX));
        if read_at(file, &mut slice[..want], at)? < want {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        take(&slice[..want])?;
        at += want as u64;
    }
    Ok(())
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
    fallocate_range(file, FallocateFlags::empty(), 0, len).map(|_| ())
}

/// Makes a range read as zeros and take no room. `false` where the file system cannot.
///
/// # Errors
/// Other failures of `fallocate(2)`.
pub fn punch_hole(file: &File, offset: u64, len: u64) -> io::Result<bool> {
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate_range(file, flags, offset, len)
}

/// Makes a range read as zeros and keep its room, or take it; the file grows where it ends before. `false` where the
/// file system cannot.
///
/// # Errors
/// Other failures of `fallocate(2)`.
pub fn zero_range(file: &File, range: ByteRange) -> io::Result<bool> {
    fallocate_range(file, FallocateFlags::FALLOC_FL_ZERO_RANGE, range.start(), range.len())
}

/// `false` where the file system cannot (`EOPNOTSUPP`), or the kernel (`ENOSYS`). A signal (`EINTR`) is no answer.
fn fallocate_range(file: &File, flags: FallocateFlags, offset: u64, len: u64) -> io::Result<bool> {
    loop {
        match fallocate(file, flags, offset.cast_signed(), len.cast_signed()) {
            Ok(()) => return Ok(true),
            Err(Errno::EINTR) => {}
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        }
    }
}

nix::ioctl_write_int!(
    /// `FICLONE` of Linux's `linux/fs.h`.
    ficlone,
    0x94,
    9
);

/// Makes `file` share all of `from`'s bytes until either is written to. `false` where the file system
/// cannot, or not between these two.
///
/// # Errors
/// As `ioctl_ficlone(2)`: no room, a disk that fails.
pub fn clone_from(file: &File, from: &File) -> io::Result<bool> {
    let from = u64::try_from(from.as_raw_fd()).map_err(io::Error::other)?;
    // SAFETY: both descriptors are borrowed for the call, which touches no memory of ours.
    match unsafe { ficlone(file.as_raw_fd(), from) } {
        Ok(_) => Ok(true),
        // ENOTTY: a file system that has never heard of it.
        Err(Errno::EOPNOTSUPP | Errno::EXDEV | Errno::EINVAL | Errno::ENOTTY | Errno::ENOSYS | Errno::EPERM) => {
            Ok(false)
        }
        Err(errno) => Err(errno.into()),
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

/// The first range within `range` that may hold data; `None` where all of it is a hole. What lies between two such
/// ranges reads as zeros. A file system without holes answers `range`.
///
/// # Errors
/// As `lseek(2)`.
pub fn next_data_range(file: &File, range: ByteRange) -> io::Result<Option<ByteRange>> {
    let Some(start) = next_data(file, range.start())?.filter(|&start| start < range.end()) else { return Ok(None) };
    let end = match lseek64(file, start.cast_signed(), Whence::SeekHole) {
        Ok(at) => at.cast_unsigned().min(range.end()),
        // Cut off meanwhile: reading will tell.
        Err(Errno::ENXIO | Errno::EINVAL | Errno::EOPNOTSUPP) => range.end(),
        Err(errno) => return Err(errno.into()),
    };
    Ok(ByteRange::new(start, end - start).ok())
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

/// Lets go of what is cached of a file, so that the next read comes from the disk. Only what has been
/// synced is let go of. A hint: file systems that live in memory (tmpfs) and some over a network ignore
/// it, and then the read comes from the cache.
pub fn forget_cached(file: &File) {
    let _ = posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use fastcp_model::ByteRange;

    use super::{next_data, next_data_range, punch_hole, read_at, read_onto, read_range};

    #[test]
    fn what_is_read_comes_behind_what_there_was() {
        let file = tempfile::tempfile().expect("file");
        file.write_all_at(b"some bytes", 0).expect("write");
        let mut out = b"before ".to_vec();
        assert_eq!(read_onto(&file, &mut out, 4, 5).expect("read"), 4);
        assert_eq!(out, b"before byte");
        assert_eq!(read_onto(&file, &mut out, 100, 8).expect("read"), 2, "the file ends");
        assert_eq!(read_onto(&file, &mut out, 100, 10).expect("read"), 0);
        assert_eq!(out, b"before bytees");
        assert!(read_onto(&file, &mut out, 1, u64::MAX).is_err());
        assert_eq!(out, b"before bytees");
    }

    #[test]
    fn a_punched_range_reads_as_zeros() {
        let file = tempfile::tempfile().expect("file");
        file.write_all_at(&[7; 20_000], 0).expect("write");
        if !punch_hole(&file, 5000, 10_000).expect("punch") {
            return;
        }
        let mut buffer = vec![1; 20_000];
        assert_eq!(read_at(&file, &mut buffer, 0).expect("read"), 20_000);
        assert!(buffer[..5000].iter().chain(&buffer[15_000..]).all(|&byte| byte == 7));
        assert!(buffer[5000..15_000].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn a_range_is_read_in_order_and_to_its_end() {
        let file = tempfile::tempfile().expect("file");
        let bytes: Vec<u8> = (0..10_000).map(|at| (at % 251) as u8).collect();
        file.write_all_at(&bytes, 0).expect("write");
        for (start, len) in [(0, 10_000), (17, 4096), (9_999, 1), (500, 0)] {
            let mut seen = Vec::new();
            let range = ByteRange::new(start, len).expect("lawful");
            read_range(&file, range, &mut [0; 1000], |piece| {
                seen.extend_from_slice(piece);
                Ok(())
            })
            .expect("read");
            assert_eq!(seen, bytes[start as usize..(start + len) as usize]);
        }
        let beyond = ByteRange::new(9_000, 1_001).expect("lawful");
        let error = read_range(&file, beyond, &mut [0; 4096], |_| Ok(())).expect_err("too short");
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
        let mut pieces = 0;
        let end = read_range(&file, beyond, &mut [0; 100], |_| {
            pieces += 1;
            if pieces == 3 { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        });
        assert_eq!((end.expect_err("ended").kind(), pieces), (std::io::ErrorKind::StorageFull, 3));
    }

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
        let range = |start, len| ByteRange::new(start, len).expect("lawful");
        let data = next_data_range(&file, range(0, 1 << 20)).expect("seek").expect("has data");
        assert!(data.start() == found && data.end() >= (512 << 10) + 4);
        let clipped = next_data_range(&file, range(512 << 10, 2)).expect("seek").expect("has data");
        assert_eq!(clipped, range(512 << 10, 2));
    }
}
