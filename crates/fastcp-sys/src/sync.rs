//! Making what was written survive a power cut.

use std::fs::File;
use std::io;
use std::sync::OnceLock;

use nix::sys::utsname::uname;
use nix::unistd::syncfs;

use crate::FileSystem;

/// Kernels before this one report no failed write-back from `syncfs`: syncfs(2), "VERSIONS".
const SYNCFS_REPORTS_SINCE: Kernel = (5, 8);

/// Major and minor number of a release.
type Kernel = (u32, u32);

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
        let whole = WholeSync::of(FileSystem::of(&dir)?, running_kernel());
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

impl WholeSync {
    fn of(file_system: FileSystem, kernel: Option<Kernel>) -> Self {
        let is_known = matches!(file_system, FileSystem::Ext | FileSystem::Xfs | FileSystem::Btrfs | FileSystem::Tmpfs);
        let reports = kernel.is_some_and(|kernel| kernel >= SYNCFS_REPORTS_SINCE);
        if is_known && reports { Self::Trusted } else { Self::Unknown }
    }
}

/// The kernel that runs; `None` where its name has no form that is known.
fn running_kernel() -> Option<Kernel> {
    static RUNNING: OnceLock<Option<Kernel>> = OnceLock::new();
    *RUNNING.get_or_init(|| release(uname().ok()?.release().to_str()?))
}

fn release(text: &str) -> Option<Kernel> {
    let mut numbers = text.split(|letter: char| !letter.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::{WholeSync, release};
    use crate::FileSystem;

    #[test]
    fn one_call_is_trusted_where_it_reports_what_failed() {
        let cases = [
            ("5.7.19-generic", FileSystem::Ext, WholeSync::Unknown),
            ("5.8.0", FileSystem::Ext, WholeSync::Trusted),
            ("5.10.0-30-amd64", FileSystem::Xfs, WholeSync::Trusted),
            ("6.18.44+", FileSystem::Btrfs, WholeSync::Trusted),
            ("10.0-rc1", FileSystem::Tmpfs, WholeSync::Trusted),
            ("4.18.0-553.el8.x86_64", FileSystem::Xfs, WholeSync::Unknown),
            ("2.6.78", FileSystem::Ext, WholeSync::Unknown),
            ("6.18.44", FileSystem::Nfs, WholeSync::Unknown),
            ("6.18.44", FileSystem::Overlay, WholeSync::Unknown),
            ("a name", FileSystem::Ext, WholeSync::Unknown),
            ("7", FileSystem::Ext, WholeSync::Unknown),
        ];
        for (text, file_system, wanted) in cases {
            assert_eq!(WholeSync::of(file_system, release(text)), wanted, "{text}");
        }
    }
}
