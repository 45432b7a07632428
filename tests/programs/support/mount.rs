//! Small file systems of their own, where the tests may mount them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::say_skipped;

const XFS_BYTES: u64 = 320 << 20;

/// A mounted tmpfs; unmounted when dropped.
#[derive(Debug)]
pub(crate) struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// A tmpfs of this many KiB at `path`; `None`, with a message, where that is not allowed.
    pub(crate) fn mount(path: &Path, size_kib: u32) -> Option<Self> {
        std::fs::create_dir(path).expect("create the mount point");
        let size = format!("size={size_kib}k");
        let is_mounted = run("mount", &["-t", "tmpfs", "-o", &size, "fastcp-test"], path);
        if !is_mounted {
            say_skipped("no tmpfs can be mounted here");
        }
        is_mounted.then(|| Self { path: path.to_path_buf() })
    }

    /// Mounts it anew with these options.
    pub(crate) fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        assert!(run("mount", &["-o", &options], &self.path), "remount with {options}");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        run("umount", &["-l"], &self.path);
    }
}

/// A mounted XFS, whose files can share their bytes; unmounted when dropped.
#[derive(Debug)]
pub(crate) struct XfsDisk {
    path: PathBuf,
}

impl XfsDisk {
    /// An XFS at `path`, with its image beside; `None`, with a message, where that is not possible.
    pub(crate) fn mount(path: &Path) -> Option<Self> {
        std::fs::create_dir(path).expect("create the mount point");
        let image = path.with_extension("image");
        // The least that mkfs.xfs takes. Nearly all of it is a hole.
        File::create(&image).and_then(|file| file.set_len(XFS_BYTES)).expect("make an image");
        let words = ["-t", "xfs", "-o", "loop", image.to_str().expect("plain")];
        let is_mounted = run("mkfs.xfs", &["-q"], &image) && run("mount", &words, path);
        if !is_mounted {
            say_skipped("no XFS can be made and mounted here");
        }
        is_mounted.then(|| Self { path: path.to_path_buf() })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Room that is free once everything is on the disk.
    pub(crate) fn free_bytes(&self) -> u64 {
        assert!(run("sync", &["-f"], &self.path), "sync");
        let output = Command::new("stat").args(["-f", "-c", "%f %S"]).arg(&self.path).output().expect("run stat");
        let said = String::from_utf8(output.stdout).expect("numbers");
        said.split_whitespace().map(|word| word.parse::<u64>().expect("a number")).product()
    }
}

impl Drop for XfsDisk {
    fn drop(&mut self) {
        run("umount", &["-l"], &self.path);
    }
}

/// A file system of any kind on a loop device; unmounted when dropped.
#[derive(Debug)]
pub(crate) struct LoopDisk {
    path: PathBuf,
}

impl LoopDisk {
    /// Makes a file system with `mkfs`, a program and its words, and mounts it at `path`, with its image beside;
    /// `None`, with a message, where that is not possible.
    pub(crate) fn mount(path: &Path, mkfs: &[&str], options: &str, image_mib: u64) -> Option<Self> {
        std::fs::create_dir(path).expect("create the mount point");
        let image = path.with_extension("image");
        File::create(&image).and_then(|file| file.set_len(image_mib << 20)).expect("make an image");
        let words = ["-o", options, image.to_str().expect("plain")];
        let is_mounted = run(mkfs[0], &mkfs[1..], &image) && run("mount", &words, path);
        if !is_mounted {
            say_skipped(&format!("no file system of {} can be made and mounted here", mkfs[0]));
        }
        is_mounted.then(|| Self { path: path.to_path_buf() })
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        run("umount", &["-l"], &self.path);
    }
}

/// A mounted overlayfs; unmounted when dropped.
#[derive(Debug)]
pub(crate) struct Overlay {
    path: PathBuf,
}

impl Overlay {
    /// An overlay of `lower` at `path`; what changes goes to `upper`. `None`, with a message, where that is not possible.
    pub(crate) fn mount(path: &Path, lower: &Path, upper: &Path) -> Option<Self> {
        for dir in [path, &upper.join("upper"), &upper.join("work")] {
            std::fs::create_dir(dir).expect("create");
        }
        let [lower, upper] = [lower, upper].map(|path| path.to_str().expect("plain"));
        let options = format!("lowerdir={lower},upperdir={upper}/upper,workdir={upper}/work");
        let is_mounted = run("mount", &["-t", "overlay", "-o", &options, "fastcp-test"], path);
        if !is_mounted {
            say_skipped("no overlayfs can be mounted here");
        }
        is_mounted.then(|| Self { path: path.to_path_buf() })
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        run("umount", &["-l"], &self.path);
    }
}

/// Gives a directory of an XFS a project of its own, which what is made in it inherits; `false`, with a message, where
/// that is not possible.
pub(crate) fn make_project(path: &Path) -> bool {
    let is_made = run("xfs_io", &["-c", "chproj 42", "-c", "chattr +P"], path);
    if !is_made {
        say_skipped("no projects can be made here");
    }
    is_made
}

/// Makes a btrfs subvolume at `path`.
pub(crate) fn make_subvolume(path: &Path) {
    assert!(run("btrfs", &["-q", "subvolume", "create"], path), "make a subvolume");
}

/// Makes a btrfs subvolume take no changes (`true`), or take them again (`false`).
pub(crate) fn set_subvolume_read_only(path: &Path, word: &str) {
    let words = ["property", "set", "-t", "subvol", path.to_str().expect("plain"), "ro", word];
    assert!(Command::new("btrfs").args(words).output().is_ok_and(|output| output.status.success()), "{words:?}");
}

/// Lets a btrfs subvolume hold so much.
pub(crate) fn limit_subvolume(path: &Path, size: &str) {
    let is_limited = run("btrfs", &["quota", "enable"], path) && run("btrfs", &["qgroup", "limit", size], path);
    assert!(is_limited, "limit a subvolume");
}

fn run(program: &str, words: &[&str], path: &Path) -> bool {
    Command::new(program).args(words).arg(path).output().is_ok_and(|output| output.status.success())
}
