//! An ext4 of its own, in an image file in the scratch directory.
//!
//! The device below is memory, so that times tell of the file system and not of somebody's disk.
//! The image is sparse: it takes as much as was ever written to it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::BenchError;
use crate::programs;

/// For the journal and the file system's own tables.
const SPARE_BYTES: u64 = 1 << 30;

/// What has to fit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// Of files, all destinations that are there at once together.
    pub(crate) bytes: u64,
    pub(crate) files: u64,
}

/// A mounted image; unmounted and removed when dropped.
#[derive(Debug)]
pub(crate) struct Ext4 {
    image: PathBuf,
    mount_point: PathBuf,
}

impl Ext4 {
    /// Makes and mounts one on `mount_point`, a directory that is there.
    pub(crate) fn mount(scratch: &Path, mount_point: &Path, room: Room) -> Result<Self, BenchError> {
        let image = scratch.join("ext4.image");
        // Every file wastes half a block, and takes an inode.
        let bytes = room.bytes + room.bytes / 4 + room.files * 8192 + SPARE_BYTES;
        let inodes = room.files + room.files / 4 + 65_536;
        let file = File::create(&image).map_err(BenchError::file("create", &image))?;
        file.set_len(bytes).map_err(BenchError::file("resize", &image))?;
        drop(file);
        let mounted = Self { image, mount_point: mount_point.to_path_buf() };
        // Tables are made now, or the kernel would make them while somebody is timed.
        let tables = "lazy_itable_init=0,lazy_journal_init=0";
        let mut mkfs = Command::new("mkfs.ext4");
        run(mkfs.args(["-q", "-F", "-E", tables, "-N", &inodes.to_string()]).arg(&mounted.image))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(&mounted.image).arg(&mounted.mount_point))?;
        Ok(mounted)
    }
}

impl Drop for Ext4 {
    fn drop(&mut self) {
        if let Err(error) = run(Command::new("umount").arg(&self.mount_point)) {
            crate::say(&format!("fastcp-bench: {error}"));
        }
        let _ = fs::remove_file(&self.image);
    }
}

fn run(command: &mut Command) -> Result<(), BenchError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.env("PATH", programs::search_path()).stdin(Stdio::null()).output();
    let output = output.map_err(|source| BenchError::Spawn { program: program.clone(), source })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(BenchError::Program { program, ended: output.status.to_string(), said })
}
