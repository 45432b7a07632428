//! A tree's root: the descriptor beneath which everything else is opened.
//!
//! `openat2` with `RESOLVE_BENEATH`, `RESOLVE_NO_SYMLINKS` and `RESOLVE_NO_MAGICLINKS` makes the kernel
//! refuse a path that leaves the root or passes through a link, whoever plants that link and whenever.
//! Kernels before 5.6 and some sandboxes lack the call; there the path is walked one component at a
//! time with `O_NOFOLLOW`, which refuses the same things and only costs more calls.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use fastcp_model::{Name, RelPath};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::Mode;

use crate::lease::open_patiently;
use crate::scarce::opened;
use crate::{Dir, FileType, Stat, typed_path};

/// `ENOSYS` is the kernel's and holds for the process; anything else holds for one call.
static OPENAT2_MISSING: AtomicBool = AtomicBool::new(false);

/// The root of a tree.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
}

impl Root {
    /// Opens the directory at `path`, which the user typed: links of his own and of root are followed.
    ///
    /// # Errors
    /// As `open(2)`; `ENOTDIR` where it is not a directory; [`typed_path::Foreign`] where others' links are on the way.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { fd: typed_path::open_dir(path)? })
    }

    /// Makes the directory at `path`, whose parent is there, and opens it.
    ///
    /// # Errors
    /// `AlreadyExists` where there is something; else as [`Root::open`].
    pub fn make(path: &Path) -> io::Result<Self> {
        Ok(Self { fd: typed_path::make_dir(path)? })
    }

    /// Opens the directory at `path`, after making it and those above it that are missing.
    ///
    /// # Errors
    /// As [`Root::open`].
    pub fn make_all(path: &Path) -> io::Result<Self> {
        Ok(Self { fd: typed_path::make_dirs(path)? })
    }

    /// Opens a directory of the tree, for use as an anchor; reading it needs no permission until then.
    ///
    /// # Errors
    /// `ELOOP` or `EXDEV` where the path leads through a link or out of the root; else as `open(2)`.
    pub fn dir(&self, path: &RelPath) -> io::Result<Dir> {
        self.resolve(path, OFlag::O_PATH | OFlag::O_DIRECTORY).map(Dir::from_fd)
    }

    /// Opens a directory of the tree as the root of a tree of its own.
    ///
    /// # Errors
    /// As [`Root::dir`].
    pub fn beneath(&self, path: &RelPath) -> io::Result<Self> {
        self.resolve(path, OFlag::O_PATH | OFlag::O_DIRECTORY).map(|fd| Self { fd })
    }

    /// Opens a regular file of the tree for reading.
    ///
    /// A device, pipe or socket is not opened, since opening alone can have effects; the type is
    /// looked at first, and again by the caller's own `fstat` on what was opened. It is looked at in the
    /// file's directory: a path that leads through a link must not be followed even for that.
    ///
    /// # Errors
    /// `ELOOP` or `EXDEV` where the path leads through a link or out of the root, `EISDIR` for a
    /// directory, `EINVAL` for other things that are not regular files, `EAGAIN` where another program keeps a lease
    /// on it; else as `open(2)`.
    pub fn open_file(&self, path: &RelPath) -> io::Result<File> {
        let Some((parent, name)) = path.split() else { return Err(Errno::EISDIR.into()) };
        let dir = self.dir(&parent)?;
        match dir.stat_name(&name)?.file_type {
            FileType::File => dir.open_file(&name),
            FileType::Symlink => Err(Errno::ELOOP.into()),
            FileType::Dir => Err(Errno::EISDIR.into()),
            _ => Err(Errno::EINVAL.into()),
        }
    }

    fn resolve(&self, path: &RelPath, flags: OFlag) -> io::Result<OwnedFd> {
        if !OPENAT2_MISSING.load(Ordering::Relaxed) {
            match opened(|| self.resolve_in_kernel(path, flags)) {
                Err(Errno::ENOSYS) => OPENAT2_MISSING.store(true, Ordering::Relaxed),
                // A sandbox may answer EPERM for a call that it does not know. The walk asks again.
                Err(Errno::EPERM) => {}
                result => return Ok(result?),
            }
        }
        Ok(opened(|| self.resolve_by_walk(path, flags))?)
    }

    fn resolve_in_kernel(&self, path: &RelPath, flags: OFlag) -> nix::Result<OwnedFd> {
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(
            ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS,
        );
        let bytes = if path.is_root() { b"." } else { path.as_bytes() };
        open_patiently(|| openat2(&self.fd, bytes, how))
    }

    fn resolve_by_walk(&self, path: &RelPath, flags: OFlag) -> nix::Result<OwnedFd> {
        let Some((parent, name)) = path.split() else {
            return openat(&self.fd, ".", flags | OFlag::O_CLOEXEC, Mode::empty());
        };
        let mut at = self.fd.try_clone().map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
        for part in parent.names() {
            at = step(&at, &part, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        }
        step(&at, &name, flags)
    }
}

/// Opens a name in a directory. `ELOOP` for a link, whatever is wanted: asked for a directory, `openat` says
/// `ENOTDIR` of a link.
fn step(at: &OwnedFd, name: &Name, flags: OFlag) -> nix::Result<OwnedFd> {
    let opened = openat(at, name.as_bytes(), flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty());
    let is_link = || Stat::of_name(at.as_fd(), name.as_bytes()).is_ok_and(|stat| stat.file_type == FileType::Symlink);
    match opened {
        Err(Errno::ENOTDIR) if is_link() => Err(Errno::ELOOP),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use fastcp_model::RelPath;
    use nix::errno::Errno;
    use nix::fcntl::OFlag;

    use super::Root;

    fn path(bytes: &[u8]) -> RelPath {
        RelPath::new(bytes).expect("lawful")
    }

    #[test]
    fn links_are_never_passed_by_either_way_of_resolving() {
        let tree = tempfile::tempdir().expect("temporary directory");
        std::fs::create_dir_all(tree.path().join("inside/deep")).expect("create");
        std::fs::write(tree.path().join("inside/deep/file"), b"x").expect("write");
        symlink("/etc", tree.path().join("out")).expect("link");
        symlink("inside", tree.path().join("in")).expect("link");
        symlink("inside/deep/file", tree.path().join("to_file")).expect("link");
        let root = Root::open(tree.path()).expect("open");
        for (bytes, lawful) in
            [(&b"inside/deep/file"[..], true), (b"out/passwd", false), (b"in/deep/file", false), (b"to_file", false)]
        {
            let flags = OFlag::O_RDONLY;
            match root.resolve_in_kernel(&path(bytes), flags) {
                // No openat2 here: the walk is what there is.
                Err(Errno::ENOSYS | Errno::EPERM) => {}
                result => assert_eq!(result.is_ok(), lawful),
            }
            assert_eq!(root.resolve_by_walk(&path(bytes), flags).is_ok(), lawful);
        }
    }

    #[test]
    fn only_regular_files_are_opened() {
        let tree = tempfile::tempdir().expect("temporary directory");
        nix::unistd::mkfifo(&tree.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("pipe");
        std::fs::create_dir(tree.path().join("dir")).expect("create");
        let root = Root::open(tree.path()).expect("open");
        for (bytes, errno) in [(&b"pipe"[..], Errno::EINVAL), (b"dir", Errno::EISDIR), (b"gone", Errno::ENOENT)] {
            let error = root.open_file(&path(bytes)).expect_err("refused");
            assert_eq!(error.raw_os_error(), Some(errno as i32));
        }
    }
}
