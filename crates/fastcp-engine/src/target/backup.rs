//! Where entries go instead of away: `--backup-dir`.
//!
//! An entry keeps its path below the destination. It moves by rename or gets a second name by link; where the
//! kernel refuses both, since the backup directory is on another file system, it is copied (`across.rs`) and then
//! removed. What is about to be replaced is linked or copied first
//! where the file system allows it, so that its own name never stands for nothing. A backup of the
//! same path that was kept earlier makes way, as rsync has it. All access is beneath the descriptor of
//! the backup directory, and no link in it is followed.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use fastcp_model::{Escaped, Name, RelPath, STATE_DIR, Timestamp};
use fastcp_sys::{Dir, Root, Stat, metadata, typed_path};
use nix::libc::{ELOOP, ENOTDIR, EXDEV};

use crate::error::{BackupProblem, RunError};
use crate::settings::Durability;
use crate::target::across;

mod older;

use older::clear;

/// A backup directory that may be used, made when first needed.
#[derive(Debug)]
pub(crate) struct Backup {
    path: PathBuf,
    root: OnceLock<Root>,
    /// What a copy has to survive before its original goes.
    durability: Durability,
    /// Below the destination, where it is there.
    within: Option<RelPath>,
}

impl Backup {
    /// Checks that `dir` can take what the destination at `into` gives up.
    pub(crate) fn new(into: &Path, dir: &Path, durability: Durability) -> Result<Self, RunError> {
        let path = into.join(dir);
        let within = place_of(into, &path)?;
        let problem = |problem| refused(&path, problem);
        let is_below = dir.is_relative() && !dir.components().any(|part| part == Component::ParentDir);
        if is_below && within.is_none() {
            return Err(problem(BackupProblem::Link));
        }
        typed_path::check_links(&path).map_err(|error| problem(BackupProblem::Io(error)))?;
        Ok(Self { path, root: OnceLock::new(), durability, within })
    }

    /// The same for a destination that a peer named, at `path` beneath `root`. It may only be in the destination.
    pub(crate) fn beneath(root: &Root, path: &RelPath, dir: &Path, durability: Durability) -> Result<Self, RunError> {
        let problem = |problem| refused(dir, problem);
        let is_own = |name: Name| name.as_bytes() == STATE_DIR;
        let within = match RelPath::new(dir.as_os_str().as_bytes()) {
            Ok(within) if within.is_root() => return Err(problem(BackupProblem::HoldsDestination)),
            Ok(within) if within.names().any(is_own) => return Err(problem(BackupProblem::State)),
            Ok(within) => within,
            Err(error) => return Err(problem(BackupProblem::Io(io::Error::other(error)))),
        };
        match root.dir(&path.join_path(&within)) {
            Err(error) if matches!(error.raw_os_error(), Some(ELOOP | EXDEV)) => Err(problem(BackupProblem::Link)),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(problem(BackupProblem::Io(error))),
            _ => Ok(Self { path: dir.to_path_buf(), root: OnceLock::new(), durability, within: Some(within) }),
        }
    }

    /// Its path below the destination, where it is there.
    pub(crate) fn within(&self) -> Option<&RelPath> {
        self.within.as_ref()
    }

    /// Keeps what is about to be replaced: `name` in `dir`, which is at `above` below `destination`.
    pub(crate) fn keep(&self, destination: &Root, dir: &Dir, name: &Name, above: &RelPath) -> io::Result<()> {
        let place = self.place(destination, above)?;
        clear(&place, name)?;
        match dir.link(name, &place, name) {
            // Somebody removed it: nothing is left to keep.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) if across::is_refused(&error) => {
                let before = dir.stat_name(name)?;
                across::copy_entry(dir, name, &place, self.durability)?;
                expect_unchanged(dir, name, &before)
            }
            // No links on this file system, or not to this file for this user.
            Err(_) => self.move_entry(dir, name, &place),
            Ok(()) => Ok(()),
        }
    }

    /// Moves `name`, which is no directory, out of `dir`.
    pub(crate) fn take(&self, destination: &Root, dir: &Dir, name: &Name, above: &RelPath) -> io::Result<()> {
        let place = self.place(destination, above)?;
        // A rename to another name of the same file does nothing at all: so the old name goes first.
        clear(&place, name)?;
        self.move_entry(dir, name, &place)
    }

    fn move_entry(&self, dir: &Dir, name: &Name, place: &Dir) -> io::Result<()> {
        match dir.rename(name, place, name) {
            Err(error) if across::is_refused(&error) => {
                let before = dir.stat_name(name)?;
                across::copy_entry(dir, name, place, self.durability)?;
                remove_copied(dir, name, &before)
            }
            result => result,
        }
    }

    /// Makes the counterpart of a directory that is about to go.
    pub(crate) fn take_dir(&self, destination: &Root, path: &RelPath, mtime: Timestamp) -> io::Result<()> {
        metadata::set_handle_mtime(self.place(destination, path)?, mtime)
    }

    /// The root of a backup directory outside the destination: where the user says, links of his own followed.
    fn root(&self) -> io::Result<&Root> {
        if let Some(root) = self.root.get() {
            return Ok(root);
        }
        let root = Root::make_all(&self.path)?;
        Ok(self.root.get_or_init(|| root))
    }

    /// The directory for backups of what is in `path`, made where it is missing.
    fn place(&self, destination: &Root, path: &RelPath) -> io::Result<Dir> {
        let (root, top) = match &self.within {
            Some(within) => (destination, within),
            None => (self.root()?, &RelPath::root()),
        };
        let full = top.join_path(path);
        if let Ok(dir) = root.dir(&full) {
            return Ok(dir);
        }
        let mut at = root.dir(&RelPath::root())?;
        for name in top.names() {
            at = enter_or_make(&at, &name, destination, &RelPath::root())?;
        }
        let mut walked = RelPath::root();
        for name in path.names() {
            walked = walked.join(&name);
            at = match enter_or_make(&at, &name, destination, &walked) {
                // An older backup of the same path, or a link that was planted.
                Err(error) if matches!(error.raw_os_error(), Some(ENOTDIR | ELOOP)) => {
                    at.remove_file(&name)?;
                    enter_or_make(&at, &name, destination, &walked)?
                }
                result => result?,
            };
        }
        Ok(at)
    }
}

/// Removes what was copied to the backup directory, unless it has become something else since.
fn remove_copied(dir: &Dir, name: &Name, before: &Stat) -> io::Result<()> {
    expect_unchanged(dir, name, before)?;
    dir.remove_file(name)
}

/// Of what has become something else since it was copied to the backup directory there is no backup.
fn expect_unchanged(dir: &Dir, name: &Name, before: &Stat) -> io::Result<()> {
    if dir.stat_name(name)?.identity == before.identity {
        return Ok(());
    }
    Err(io::Error::other("it changed while it was copied to the backup directory"))
}

fn enter_or_make(at: &Dir, name: &Name, destination: &Root, like: &RelPath) -> io::Result<Dir> {
    match at.dir(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => make_like(at, name, destination, like),
        result => result,
    }
}

/// Makes a directory with the mode and owner of its counterpart; always open to its owner, since more
/// may have to go there.
fn make_like(at: &Dir, name: &Name, destination: &Root, path: &RelPath) -> io::Result<Dir> {
    match at.make_dir(name) {
        // Threads that commit and the one that deletes may both be here.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let made = at.dir(name)?;
    let like = destination.dir(path)?.stat()?.metadata;
    // Only root gives directories away, and then the owner is as good as the mode.
    let _ = metadata::set_handle_owner(&made, Some(like.uid), Some(like.gid));
    metadata::set_handle_mode(&made, like.mode | 0o700)?;
    Ok(made)
}

/// Where the backup directory is below the destination, if it is; an error where it must not be.
fn place_of(into: &Path, path: &Path) -> Result<Option<RelPath>, RunError> {
    let (into, real) = (real(into), real(path));
    if into.starts_with(&real) {
        return Err(refused(path, BackupProblem::HoldsDestination));
    }
    let Ok(within) = real.strip_prefix(&into) else { return Ok(None) };
    if within.iter().any(|part| part.as_bytes() == STATE_DIR) {
        return Err(refused(path, BackupProblem::State));
    }
    RelPath::new(within.as_os_str().as_bytes())
        .map(Some)
        .map_err(|error| refused(path, BackupProblem::Io(io::Error::other(error))))
}

/// The path without links and `..`, as far as it exists.
fn real(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let mut real = PathBuf::new();
    for part in absolute.components() {
        match part {
            Component::ParentDir => {
                real.pop();
            }
            Component::CurDir => {}
            other => real.push(other),
        }
        if let Ok(resolved) = real.canonicalize() {
            real = resolved;
        }
    }
    real
}

fn refused(path: &Path, problem: BackupProblem) -> RunError {
    RunError::Backup { path: Escaped(path.as_os_str().as_bytes()).to_string(), problem }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::path::Path;

    use fastcp_model::{Name, RelPath};
    use fastcp_sys::Root;

    use super::{Backup, remove_copied};
    use crate::error::{BackupProblem, RunError};
    use crate::settings::Durability;

    mod across;

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).expect("lawful")
    }

    fn path(text: &str) -> RelPath {
        RelPath::new(text.as_bytes()).expect("lawful")
    }

    #[test]
    fn what_is_replaced_keeps_its_name_and_gets_a_second_one() {
        let top = tempfile::tempdir().expect("temporary directory");
        let (into, bak) = (top.path().join("dst"), top.path().join("bak"));
        fs::create_dir_all(into.join("a")).expect("create");
        fs::write(into.join("a/file"), b"old").expect("write");
        fs::create_dir_all(bak.join("a/file/older")).expect("create");
        let root = Root::open(&into).expect("open");
        let backup = Backup::new(&into, Path::new("../bak"), Durability::None).expect("lawful");
        let dir = root.dir(&path("a")).expect("open");
        backup.keep(&root, &dir, &name("file"), &path("a")).expect("keep");
        let inode = |path: &Path| path.metadata().expect("examine").ino();
        assert_eq!(inode(&into.join("a/file")), inode(&bak.join("a/file")));
        backup.take(&root, &dir, &name("file"), &path("a")).expect("take");
        assert!(!into.join("a/file").exists());
        assert_eq!(fs::read(bak.join("a/file")).expect("read"), b"old");
    }

    #[test]
    fn a_link_in_the_backup_directory_is_replaced_and_not_followed() {
        let top = tempfile::tempdir().expect("temporary directory");
        let (into, bak) = (top.path().join("dst"), top.path().join("bak"));
        fs::create_dir_all(into.join("a")).expect("create");
        fs::create_dir_all(top.path().join("elsewhere")).expect("create");
        fs::create_dir(&bak).expect("create");
        fs::write(into.join("a/file"), b"old").expect("write");
        symlink("../elsewhere", bak.join("a")).expect("link");
        let root = Root::open(&into).expect("open");
        let backup = Backup::new(&into, &bak, Durability::None).expect("lawful");
        let dir = root.dir(&path("a")).expect("open");
        backup.take(&root, &dir, &name("file"), &path("a")).expect("take");
        assert_eq!(fs::read(bak.join("a/file")).expect("read"), b"old");
        assert_eq!(fs::read_dir(top.path().join("elsewhere")).expect("read").count(), 0);
    }

    #[test]
    fn what_was_written_after_it_was_copied_stays() {
        let top = tempfile::tempdir().expect("temporary directory");
        let file = top.path().join("file");
        let dir = Root::open(top.path()).expect("open").dir(&RelPath::root()).expect("open");
        let changes: [fn(&Path); 2] = [
            |file| fs::write(file, b"longer").expect("write"),
            |file| {
                // Both are there at once: else the new one may get the number of the old one.
                fs::write(file.with_extension("new"), b"old").expect("write");
                fs::rename(file.with_extension("new"), file).expect("rename");
            },
        ];
        for change in changes {
            fs::write(&file, b"old").expect("write");
            let before = dir.stat_name(&name("file")).expect("examine");
            change(&file);
            remove_copied(&dir, &name("file"), &before).expect_err("no backup of it");
            let now = dir.stat_name(&name("file")).expect("it stays");
            remove_copied(&dir, &name("file"), &now).expect("removed");
            assert!(!file.exists());
        }
    }

    #[test]
    fn directories_that_cannot_take_backups_are_refused_and_none_is_made_for_nothing() {
        let top = tempfile::tempdir().expect("temporary directory");
        let into = top.path().join("dst");
        fs::create_dir(&into).expect("create");
        symlink("dst", top.path().join("link")).expect("link");
        for dir in [".", "..", "../link", "x/.."] {
            let error = Backup::new(&into, Path::new(dir), Durability::None).expect_err("refused");
            assert!(matches!(error, RunError::Backup { problem: BackupProblem::HoldsDestination, .. }), "{dir}");
        }
        for dir in [".fastcp", ".fastcp/bak", "../link/.fastcp/x"] {
            let error = Backup::new(&into, Path::new(dir), Durability::None).expect_err("refused");
            assert!(matches!(error, RunError::Backup { problem: BackupProblem::State, .. }), "{dir}");
        }
        symlink("..", into.join("out")).expect("link");
        for dir in ["out/bak", "./out/bak"] {
            let error = Backup::new(&into, Path::new(dir), Durability::None).expect_err("refused");
            assert!(matches!(error, RunError::Backup { problem: BackupProblem::Link, .. }), "{dir}");
        }
        let within = Backup::new(&into, Path::new("../link/old/bak"), Durability::None).expect("lawful");
        assert_eq!(within.within(), Some(&path("old/bak")));
        assert_eq!(fs::read_dir(&into).expect("read").count(), 1, "nothing is made before it is needed");
    }
}
