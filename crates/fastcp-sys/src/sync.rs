//! Making what was written survive a power cut.

use std::fs::File;
use std::io;

use nix::sys::statfs::{BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, FsType, TMPFS_MAGIC, XFS_SUPER_MAGIC, fstatfs};
use nix::unistd::syncfs;

/// A directory held open for syncing. The kernel reports a failed write-back once to each descriptor
/// that was open before it, so this one is opened before the writes that it answers for.
#[derive(Debug)]
pub struct SyncHandle {
    dir: File,
    whole: WholeSync,
}

/// Whether one call may stand for a sync of each file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WholeSync {
    /// `syncfs` writes all data and metadata and reports errors.
    Trusted,
    /// Not known to: each file is synced by itself.
    Unknown,
}

impl SyncHandle {
    pub(crate) fn new(dir: File) -> io::Result<Self> {
        let known = [EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC, TMPFS_MAGIC];
        let is_known = |fs: FsType| known.contains(&fs);
        let whole = if is_known(fstatfs(&dir)?.filesystem_type()) { WholeSync::Trusted } else { WholeSync::Unknown };
        Ok(Self { dir, whole })
    }

    /// Whether [`SyncHandle::sync_file_system`] may be relied on.
    pub fn whole(&self) -> WholeSync {
        self.whole
    }

    /// Syncs all of the file system that the directory is on.
    ///
    /// # Errors
    /// As `syncfs(2)`.
    pub fn sync_file_system(&self) -> io::Result<()> {
        Ok(syncfs(&self.dir)?)
    }

    /// Syncs the names in the directory.
    ///
    /// # Errors
    /// As `fsync(2)`.
    pub fn sync_dir(&self) -> io::Result<()> {
        self.dir.sync_all()
    }
}
