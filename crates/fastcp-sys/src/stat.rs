//! What the file system says of an entry, in our words.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use fastcp_model::{Metadata, Timestamp};
use nix::fcntl::AtFlags;
use nix::sys::stat::{FileStat, SFlag, fstat, fstatat};

/// The type bits of a mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileType {
    /// Regular file.
    File,
    /// Directory.
    Dir,
    /// Symbolic link.
    Symlink,
    /// Named pipe.
    Fifo,
    /// Unix socket.
    Socket,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
}

/// What tells one state of one file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Length in bytes.
    pub size_bytes: u64,
    /// Last modification.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
}

/// The result of a stat call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub file_type: FileType,
    /// Mode, owner, group and time.
    pub metadata: Metadata,
    /// Identity, with size and times.
    pub identity: Identity,
    /// Room taken on disk, in bytes.
    pub allocated_bytes: u64,
}

impl Stat {
    /// What a descriptor refers to.
    ///
    /// # Errors
    /// As `fstat(2)`.
    pub fn of_fd(fd: impl AsFd) -> io::Result<Self> {
        Ok(Self::from_raw(&fstat(fd)?))
    }

    /// What `path` below `at` is; a link at its end is not followed.
    pub(crate) fn of_name(at: BorrowedFd<'_>, path: &[u8]) -> io::Result<Self> {
        Ok(Self::from_raw(&fstatat(at, path, AtFlags::AT_SYMLINK_NOFOLLOW)?))
    }

    fn from_raw(raw: &FileStat) -> Self {
        let metadata = Metadata {
            mode: (raw.st_mode & 0o7777) as u16,
            uid: raw.st_uid,
            gid: raw.st_gid,
            mtime: timestamp(raw.st_mtime, raw.st_mtime_nsec),
        };
        let identity = Identity {
            device: raw.st_dev,
            inode: raw.st_ino,
            size_bytes: raw.st_size.cast_unsigned(),
            mtime: metadata.mtime,
            ctime: timestamp(raw.st_ctime, raw.st_ctime_nsec),
        };
        // POSIX leaves the unit of st_blocks open; Linux counts 512 bytes whatever the file system.
        let allocated_bytes = raw.st_blocks.cast_unsigned() * 512;
        Self { file_type: file_type(raw.st_mode), metadata, identity, allocated_bytes }
    }

    /// Device and inode: which entry it is, whatever its state.
    pub fn place(&self) -> (u64, u64) {
        (self.identity.device, self.identity.inode)
    }

    /// The length in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.identity.size_bytes
    }
}

/// Within one volume a rename can work: one mount, and on it one device, since each btrfs subvolume is a device of
/// its own on the mount of the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Volume {
    /// The mount.
    pub mount_id: u64,
    /// The device.
    pub device: u64,
}

/// The volume that a descriptor is on. Kernels before 5.8 do not tell the mount; there the device stands for it.
pub(crate) fn volume(fd: impl AsFd) -> io::Result<Volume> {
    // SAFETY: statx is plain old data, for which all zeros is a valid value.
    let mut out: libc::statx = unsafe { std::mem::zeroed() };
    let raw = fd.as_fd().as_raw_fd();
    // SAFETY: the descriptor is borrowed for the call, the path is a NUL-terminated literal, and `out`
    // is a live statx that the kernel fills.
    let result = unsafe { libc::statx(raw, c"".as_ptr(), libc::AT_EMPTY_PATH, libc::STATX_MNT_ID, &raw mut out) };
    match nix::errno::Errno::result(result) {
        Ok(_) if out.stx_mask & libc::STATX_MNT_ID != 0 => {
            let device = libc::makedev(out.stx_dev_major, out.stx_dev_minor);
            Ok(Volume { mount_id: out.stx_mnt_id, device })
        }
        Ok(_) | Err(nix::errno::Errno::ENOSYS) => {
            let device = Stat::of_fd(fd)?.identity.device;
            Ok(Volume { mount_id: device, device })
        }
        Err(errno) => Err(errno.into()),
    }
}

fn file_type(mode: u32) -> FileType {
    let bits = SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits());
    match bits {
        SFlag::S_IFDIR => FileType::Dir,
        SFlag::S_IFLNK => FileType::Symlink,
        SFlag::S_IFIFO => FileType::Fifo,
        SFlag::S_IFSOCK => FileType::Socket,
        SFlag::S_IFCHR => FileType::CharDevice,
        SFlag::S_IFBLK => FileType::BlockDevice,
        _ => FileType::File,
    }
}

/// Some file systems have been seen to report nanoseconds out of range; such a time counts as its second.
fn timestamp(secs: i64, nanos: i64) -> Timestamp {
    let nanos = u32::try_from(nanos).unwrap_or(0);
    Timestamp::new(secs, nanos).or(Timestamp::new(secs, 0)).unwrap_or_default()
}
