//! A disk whose power can be cut: ext4 on a loop device on a file that can be cloned at any moment.
//!
//! The file lies on XFS, which clones it as it is at one instant (`FICLONE`). The loop device writes past the page
//! cache, so the file holds what ext4 has written to its disk and nothing that it only has in memory. A clone is
//! therefore what a power cut at that instant leaves, and mounting it is the boot after. ext4's kindness to
//! programs that rename without a sync (`auto_da_alloc`) is turned off, and it commits every second, so that a
//! name gets to the disk before its bytes wherever nobody saw to it that it does not.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Workspace, is_root, say_skipped};

const OUTER_MIB: u64 = 4096;

/// The file system that clones files, and the disk on it.
#[derive(Debug)]
pub(crate) struct CrashDisk {
    // In the order in which they have to go.
    disk: Mounted,
    _outer: Mounted,
    dir: PathBuf,
    snapshots: usize,
}

/// A mounted image; unmounted when dropped.
#[derive(Debug)]
pub(crate) struct Mounted {
    pub(crate) path: PathBuf,
    device: String,
}

impl CrashDisk {
    /// A disk of this many MiB; `None`, with a message, where none can be made.
    pub(crate) fn make(workspace: &Workspace, size_mib: u64) -> Option<Self> {
        if !is_root() {
            say_skipped("only root can mount disks");
            return None;
        }
        let made = Self::try_make(workspace, size_mib);
        if made.is_none() {
            say_skipped("no loop devices, mkfs.xfs or mkfs.ext4 here");
        }
        made
    }

    fn try_make(workspace: &Workspace, size_mib: u64) -> Option<Self> {
        let image = workspace.at("outer image");
        run("truncate", &["-s", &format!("{OUTER_MIB}M"), shown(&image)])?;
        run("mkfs.xfs", &["-q", "-m", "reflink=1", shown(&image)])?;
        let outer = Mounted::mount(&image, &workspace.at("outer"), "xfs", "noatime,nodiscard")?;
        let dir = outer.path.clone();
        let image = dir.join("disk");
        run("truncate", &["-s", &format!("{size_mib}M"), shown(&image)])?;
        // Blocks as long as those of XFS: it writes others of a file that was cloned through the page cache.
        run("mkfs.ext4", &["-q", "-F", "-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0", shown(&image)])?;
        let disk = Mounted::mount(&image, &workspace.at("disk"), "ext4", "noauto_da_alloc,commit=1")?;
        Some(Self { disk, _outer: outer, dir, snapshots: 0 })
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.disk.path
    }

    /// What the disk holds at this instant.
    pub(crate) fn snapshot(&mut self) -> Snapshot {
        self.snapshots += 1;
        let image = self.dir.join(format!("snapshot {}", self.snapshots));
        let disk = self.dir.join("disk");
        run("cp", &["--reflink=always", shown(&disk), shown(&image)]).expect("clone the disk");
        Snapshot { image }
    }
}

/// A disk after a power cut; removed when dropped.
#[derive(Debug)]
pub(crate) struct Snapshot {
    image: PathBuf,
}

impl Snapshot {
    /// Mounts it, which replays its log.
    pub(crate) fn boot(&self, at: &Path) -> Mounted {
        Mounted::mount(&self.image, at, "ext4", "noauto_da_alloc").expect("mount a disk after a power cut")
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.image);
    }
}

impl Mounted {
    fn mount(image: &Path, at: &Path, kind: &str, options: &str) -> Option<Self> {
        std::fs::create_dir_all(at).expect("create the mount point");
        let device = run("losetup", &["--find", "--show", "--direct-io=on", shown(image)])?.trim().to_owned();
        if run("mount", &["-t", kind, "-o", options, &device, shown(at)]).is_none() {
            run("losetup", &["-d", &device]);
            return None;
        }
        Some(Self { path: at.to_path_buf(), device })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if run("umount", &[shown(&self.path)]).is_none() {
            run("umount", &["-l", shown(&self.path)]);
        }
        run("losetup", &["-d", &self.device]);
    }
}

/// What a program said on stdout; `None` where it is not there or failed.
fn run(program: &str, words: &[&str]) -> Option<String> {
    let output = Command::new(program).args(words).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn shown(path: &Path) -> &str {
    path.to_str().expect("plain")
}
