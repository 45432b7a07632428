//! A small file system of its own, where the tests may mount one.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::say_skipped;

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

fn run(program: &str, words: &[&str], path: &Path) -> bool {
    Command::new(program).args(words).arg(path).output().is_ok_and(|output| output.status.success())
}
