//! Which file system something is on, as far as that makes a difference.

use std::io;
use std::os::fd::AsFd;

use nix::sys::statfs::{
    BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, FUSE_SUPER_MAGIC, FsType, MSDOS_SUPER_MAGIC, NFS_SUPER_MAGIC,
    OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC, XFS_SUPER_MAGIC, fstatfs,
};

/// `EXFAT_SUPER_MAGIC` of Linux's `fs/exfat/exfat_fs.h`.
const EXFAT_SUPER_MAGIC: FsType = FsType(0x2011_BAB0);

/// The kind of a file system, by `statfs(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    /// ext2, ext3 and ext4, which share a number.
    Ext,
    /// XFS.
    Xfs,
    /// Btrfs.
    Btrfs,
    /// tmpfs.
    Tmpfs,
    /// overlayfs.
    Overlay,
    /// NFS of any version.
    Nfs,
    /// FAT, vfat included.
    Fat,
    /// exFAT.
    ExFat,
    /// A program's, by FUSE.
    Fuse,
    /// Any other.
    Other,
}

impl FileSystem {
    /// What a descriptor is on.
    ///
    /// # Errors
    /// As `fstatfs(2)`.
    pub fn of(fd: impl AsFd) -> io::Result<Self> {
        let known = [
            (EXT4_SUPER_MAGIC, Self::Ext),
            (XFS_SUPER_MAGIC, Self::Xfs),
            (BTRFS_SUPER_MAGIC, Self::Btrfs),
            (TMPFS_MAGIC, Self::Tmpfs),
            (OVERLAYFS_SUPER_MAGIC, Self::Overlay),
            (NFS_SUPER_MAGIC, Self::Nfs),
            (MSDOS_SUPER_MAGIC, Self::Fat),
            (EXFAT_SUPER_MAGIC, Self::ExFat),
            (FUSE_SUPER_MAGIC, Self::Fuse),
        ];
        let number = fstatfs(fd)?.filesystem_type();
        Ok(known.iter().find(|(known, _)| *known == number).map_or(Self::Other, |(_, kind)| *kind))
    }

    /// Whether it is known to be kept by this machine's kernel on this machine's disks, or in its memory.
    pub fn is_local(self) -> bool {
        matches!(self, Self::Ext | Self::Xfs | Self::Btrfs | Self::Tmpfs | Self::Overlay | Self::Fat | Self::ExFat)
    }

    /// Whether a crash in the middle of a rename leaves the old file or the new one under the name. FAT and exFAT
    /// have no log: they may have neither then.
    pub fn replaces_atomically(self) -> bool {
        !matches!(self, Self::Fat | Self::ExFat)
    }
}

#[cfg(test)]
mod tests {
    use super::FileSystem;

    #[test]
    fn what_another_machine_or_a_program_keeps_is_not_local() {
        for (kind, is_local) in [
            (FileSystem::Ext, true),
            (FileSystem::Tmpfs, true),
            (FileSystem::Nfs, false),
            (FileSystem::Fuse, false),
            (FileSystem::Other, false),
        ] {
            assert_eq!(kind.is_local(), is_local, "{kind:?}");
        }
    }
}
