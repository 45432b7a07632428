//! The bytes of a file, all at hand: mapped where nobody else can take them away, copied elsewhere.
//!
//! Mapped memory has two dangers that `read(2)` has not. Whoever truncates the file, or a disk that fails, turns the
//! next look at it into SIGBUS, which ends the process; and whoever writes to the file changes what a `&[u8]`
//! promises to be unchanging. So a file is mapped only where
//!
//! - it belongs to this user, nobody else may write to it, and it has no second name: whoever could still change it
//!   is this user or root, who can as well end the process. That runs of fastcp keep off each other's files is their
//!   lock's doing, and this process neither writes to nor truncates what it has mapped;
//! - it is on a file system of this machine: elsewhere those rules are another machine's to keep, and a server that is
//!   gone is a page that cannot be had;
//! - `MADV_POPULATE_READ` (Linux 5.14) has brought in every page: a disk's error is an `io::Error` then, as it is for
//!   `read(2)`.
//!
//! The length is looked at again, on the held descriptor, at every access. So a truncation that happens all the same
//! is found, unless it falls between that look and the use of the bytes. Two ways to SIGBUS are left: such a truncation,
//! by this user or root; and a page that the kernel has dropped since, for want of memory, and that the local disk then
//! cannot read any more. Pages are not locked: `RLIMIT_MEMLOCK` allows less than the files are long.
//!
//! A file that does not pass is copied to memory, its first [`COPIED_BYTES_MAX`]: older kernels, file systems that
//! cannot map or that name another owner.

use std::fs::File;
use std::io;
use std::ops::Range;

use memmap2::{Advice, Mmap, MmapOptions};
use nix::sys::stat::fstat;
use nix::unistd::Uid;

use crate::file::read_at;
use crate::file_system::FileSystem;

/// What is copied at most of a file that cannot be mapped.
const COPIED_BYTES_MAX: u64 = 128 << 20;
/// Write permission of the group and of others.
const OTHERS_WRITE: u32 = 0o022;

/// A file and its bytes, or the first of them.
#[derive(Debug)]
pub struct FileBytes {
    file: File,
    held: Held,
}

#[derive(Debug)]
enum Held {
    Mapped(Mmap),
    Copied(Vec<u8>),
}

impl FileBytes {
    /// Takes the bytes of a regular file, as long as it is now, up to `bytes_max`. Of one that has to be copied it may
    /// be fewer.
    ///
    /// # Errors
    /// As `fstat(2)` and `pread(2)`, also where the disk fails.
    pub fn of(file: File, bytes_max: u64) -> io::Result<Self> {
        let stat = fstat(&file)?;
        let bytes = stat.st_size.cast_unsigned().min(bytes_max);
        let is_ours_alone =
            stat.st_uid == Uid::effective().as_raw() && stat.st_mode & OTHERS_WRITE == 0 && stat.st_nlink <= 1;
        let mapped = if is_ours_alone && is_local(&file) { map(&file, bytes)? } else { None };
        let held = match mapped {
            Some(map) => Held::Mapped(map),
            None => Held::Copied(copy(&file, bytes)?),
        };
        Ok(Self { file, held })
    }

    /// How many bytes are at hand.
    pub fn bytes(&self) -> u64 {
        self.held().len() as u64
    }

    /// The bytes of a range; `None` where they are not at hand, or the file is shorter than it was.
    pub fn get(&self, range: Range<u64>) -> Option<&[u8]> {
        let (start, end) = (usize::try_from(range.start).ok()?, usize::try_from(range.end).ok()?);
        let is_whole = match &self.held {
            Held::Mapped(map) => fstat(&self.file).ok()?.st_size.cast_unsigned() >= map.len() as u64,
            Held::Copied(_) => true,
        };
        self.held().get(start..end).filter(|_| is_whole)
    }

    /// The file, no longer mapped: it may be written to again.
    pub fn into_file(self) -> File {
        self.file
    }

    fn held(&self) -> &[u8] {
        match &self.held {
            Held::Mapped(map) => map,
            Held::Copied(bytes) => bytes,
        }
    }
}

fn is_local(file: &File) -> bool {
    FileSystem::of(file).is_ok_and(FileSystem::is_local)
}

/// `None` where the system cannot map this file, or cannot bring it in.
fn map(file: &File, bytes: u64) -> io::Result<Option<Mmap>> {
    let Ok(len) = usize::try_from(bytes) else { return Ok(None) };
    let mut options = MmapOptions::new();
    // SAFETY: as the module's header says: nobody but this user and root can change or truncate the file, and
    // every page is brought in below before any is looked at. What is left ends the process by a signal; it cannot
    // show bytes that are not the file's.
    let map = match unsafe { options.len(len).map_copy_read_only(file) } {
        Ok(map) => map,
        // A file system without mappings, a limit on the address space, a sandbox.
        Err(_) => return Ok(None),
    };
    match map.advise(Advice::PopulateRead) {
        Ok(()) => Ok(Some(map)),
        // EFAULT: a page that cannot be had, where a look at it would be SIGBUS. EHWPOISON: bad memory.
        Err(error) if [Some(libc::EFAULT), Some(libc::EHWPOISON)].contains(&error.raw_os_error()) => {
            Err(io::Error::from_raw_os_error(libc::EIO))
        }
        // EINVAL: a kernel before 5.14. ENOMEM: the limit of a control group.
        Err(_) => Ok(None),
    }
}

fn copy(file: &File, bytes: u64) -> io::Result<Vec<u8>> {
    let len = usize::try_from(bytes.min(COPIED_BYTES_MAX)).map_err(io::Error::other)?;
    let mut copied = Vec::new();
    // Where an address space is limited it may be this, and not the mapping, that there is no room for.
    copied.try_reserve_exact(len)?;
    copied.resize(len, 0);
    let got = read_at(file, &mut copied, 0)?;
    copied.truncate(got);
    Ok(copied)
}

#[cfg(test)]
mod tests {
    use std::fs::{File, Permissions};
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use super::{FileBytes, Held, map};

    fn file_of(bytes: &[u8], mode: u32) -> File {
        let mut file = tempfile::tempfile().expect("file");
        file.write_all(bytes).expect("write");
        file.set_permissions(Permissions::from_mode(mode)).expect("chmod");
        file
    }

    #[test]
    fn mapped_and_copied_bytes_are_the_same() {
        for length in [0, 1, 4095, 4096, 4097, 300_000] {
            let bytes: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            for mode in [0o600, 0o644, 0o620, 0o602] {
                let whole = FileBytes::of(file_of(&bytes, mode), 1 << 20).expect("read");
                assert_eq!(whole.bytes(), length);
                assert_eq!(whole.get(0..length), Some(&bytes[..]));
                assert_eq!(whole.get(length..length + 1), None);
                if mode & 0o022 != 0 {
                    assert!(matches!(whole.held, Held::Copied(_)), "others may write to it");
                }
            }
        }
    }

    #[test]
    fn a_file_with_a_second_name_is_copied() {
        let dir = tempfile::tempdir().expect("temporary directory");
        std::fs::write(dir.path().join("one"), b"bytes").expect("write");
        std::fs::hard_link(dir.path().join("one"), dir.path().join("two")).expect("link");
        let whole = FileBytes::of(File::open(dir.path().join("one")).expect("open"), 100).expect("read");
        assert!(matches!(whole.held, Held::Copied(_)));
    }

    #[test]
    fn a_file_that_is_cut_off_is_not_touched_again() {
        let whole = FileBytes::of(file_of(&[7; 20_000], 0o600), 1 << 20).expect("read");
        assert_eq!(whole.get(19_000..20_000), Some(&[7; 1000][..]));
        whole.file.set_len(0).expect("cut off");
        match whole.held {
            Held::Mapped(_) => assert_eq!(whole.get(19_000..20_000), None),
            Held::Copied(_) => assert_eq!(whole.get(19_000..20_000), Some(&[7; 1000][..])),
        }
    }

    #[test]
    fn pages_that_cannot_be_had_are_an_error_and_no_signal() {
        // Beyond the end of a file a page is as unreadable as on a failing disk.
        match map(&file_of(b"short", 0o600), 1 << 20) {
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EIO)),
            Ok(map) => assert!(map.is_none(), "only a kernel that cannot bring pages in says nothing"),
        }
    }

    #[test]
    fn of_a_file_that_is_too_long_its_beginning_is_taken() {
        for mode in [0o600, 0o666] {
            let first = FileBytes::of(file_of(b"12345", mode), 4).expect("read");
            assert_eq!((first.bytes(), first.get(0..4), first.get(0..5)), (4, Some(&b"1234"[..]), None));
        }
    }
}
