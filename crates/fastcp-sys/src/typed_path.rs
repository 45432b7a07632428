//! Paths that the user typed: the destination, the tree to serve, a manifest, a backup directory.
//!
//! They may lead through symbolic links, and others may be able to put links on the way: in `/tmp`, or in a home
//! directory that root copies to. A link is followed only if it belongs to root or to the user who runs this
//! process, as rsync has it. So the path is walked one component at a time, each opened without following it, and a
//! link is examined, read and followed by the descriptor that holds it: whatever is exchanged meanwhile changes
//! nothing about what was examined.

use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use fastcp_model::{Escaped, Name};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, mkdirat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use crate::scarce::opened;
use crate::{Dir, FileType, Stat, process};

/// As many links as the kernel follows in one path.
const LINKS_MAX: u32 = 40;
const DIR_FLAGS: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

/// What somebody else has put where the user's path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Foreign {
    /// A symbolic link that belongs to neither root nor the user.
    Link {
        /// The link.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// A file to be written to, in a directory that its owner does not own.
    File {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
}

impl fmt::Display for Foreign {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |path: &PathBuf| Escaped(path.as_os_str().as_bytes()).to_string();
        match self {
            Self::Link { path, owner } => write!(
                out,
                "\"{}\" is a symbolic link of user {owner}; only links of root or your own are followed, name the place that it leads to instead",
                shown(path)
            ),
            Self::File { path, owner } => write!(
                out,
                "\"{}\" was made by user {owner} in somebody else's directory; remove it or choose another name",
                shown(path)
            ),
        }
    }
}

impl Error for Foreign {}

impl From<Foreign> for io::Error {
    fn from(foreign: Foreign) -> Self {
        Self::new(io::ErrorKind::PermissionDenied, foreign)
    }
}

/// A file, and the directory that its name is in.
#[derive(Debug)]
pub struct Opened {
    /// The file.
    pub file: File,
    /// Its directory, after all links.
    pub dir: Dir,
}

/// Opens the directory at `path`.
///
/// # Errors
/// [`Foreign::Link`] as `PermissionDenied`; else as `open(2)`.
pub(crate) fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    let mut walk = Walk::new(path)?;
    while walk.step()? {}
    Ok(walk.at)
}

/// Makes the directory at `path`, whose parent is there, and opens it.
///
/// # Errors
/// `EEXIST` where there is something; [`Foreign::Link`] as `PermissionDenied`; else as `mkdirat(2)`.
pub(crate) fn make_dir(path: &Path) -> io::Result<OwnedFd> {
    let mut walk = Walk::new(path)?;
    let name = walk.walk_to_last()?;
    mkdirat(&walk.at, name.as_os_str(), Mode::from_bits_truncate(0o777))?;
    walk.rest.push(Part::Name(name));
    while walk.step()? {}
    Ok(walk.at)
}

/// Opens the directory at `path`, after making it and those above it that are missing.
///
/// # Errors
/// [`Foreign::Link`] as `PermissionDenied`; else as `open(2)` and `mkdirat(2)`.
pub(crate) fn make_dirs(path: &Path) -> io::Result<OwnedFd> {
    let mut walk = Walk::new(path)?;
    loop {
        match walk.step() {
            Ok(true) => {}
            Ok(false) => return Ok(walk.at),
            Err(error) if error.kind() == io::ErrorKind::NotFound => walk.make_next()?,
            Err(error) => return Err(error),
        }
    }
}

/// Whether links of others are on the way, as far as `path` exists.
///
/// # Errors
/// [`Foreign::Link`] as `PermissionDenied`; else as `open(2)`, except that nothing need be there.
pub fn check_links(path: &Path) -> io::Result<()> {
    match open_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map(drop),
    }
}

/// Opens the directory of `path` and answers the name in it. What has that name is not looked at.
///
/// # Errors
/// `EISDIR` where the path ends in no name; [`Foreign::Link`] as `PermissionDenied`; else as `open(2)`.
pub fn open_parent(path: &Path) -> io::Result<(Dir, Name)> {
    let mut walk = Walk::new(path)?;
    let last = walk.walk_to_last()?;
    let name = Name::new(last.as_bytes()).map_err(|error| io::Error::new(io::ErrorKind::InvalidFilename, error))?;
    Ok((Dir::from_fd(walk.at), name))
}

/// Opens the file at `path` for reading.
///
/// # Errors
/// [`Foreign::Link`] as `PermissionDenied`; else as `open(2)`.
pub fn open_to_read(path: &Path) -> io::Result<File> {
    Ok(open_file(path, OFlag::O_RDONLY)?.file)
}

/// Opens the file at `path` for reading and appending, made where it is missing.
///
/// # Errors
/// [`Foreign`] as `PermissionDenied`; else as `open(2)`.
pub fn open_to_append(path: &Path) -> io::Result<Opened> {
    let opened = open_file(path, OFlag::O_RDWR | OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_NOCTTY)?;
    let owner = Stat::of_fd(&opened.file)?.metadata.uid;
    // What the directory's owner can do with its names, nobody else should be able to do.
    if is_trusted(owner) || owner == opened.dir.stat()?.metadata.uid {
        Ok(opened)
    } else {
        Err(Foreign::File { path: path.to_path_buf(), owner }.into())
    }
}

fn open_file(path: &Path, flags: OFlag) -> io::Result<Opened> {
    if path.as_os_str().as_bytes().ends_with(b"/") {
        return Err(Errno::EISDIR.into());
    }
    let mut walk = Walk::new(path)?;
    loop {
        let last = walk.walk_to_last()?;
        let flags = flags | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(0o666);
        match open_at(&walk.at, &last, flags | OFlag::O_NOFOLLOW, mode) {
            Ok(fd) => return Ok(Opened { file: File::from(fd), dir: Dir::from_fd(walk.at) }),
            Err(Errno::ELOOP) => {
                if let Followed::ByKernel = walk.follow(&last)? {
                    let fd = open_at(&walk.at, &last, flags & !OFlag::O_CREAT, Mode::empty())?;
                    return Ok(Opened { file: File::from(fd), dir: Dir::from_fd(walk.at) });
                }
            }
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn open_at(at: impl AsFd, name: &OsStr, flags: OFlag, mode: Mode) -> nix::Result<OwnedFd> {
    opened(|| openat(&at, name, flags, mode))
}

fn is_trusted(owner: u32) -> bool {
    owner == 0 || owner == process::user()
}

/// A component that is still to be walked.
#[derive(Debug, Clone)]
enum Part {
    Root,
    Up,
    Name(OsString),
}

/// How a link is gone on with.
enum Followed {
    /// What it leads to is to be walked in its place.
    ByHand,
    /// It is one of `/proc`, such as `/proc/self/fd/1`, which leads where no path does.
    ByKernel,
}

/// A walk along a path.
#[derive(Debug)]
struct Walk {
    at: OwnedFd,
    /// Where that is, for messages.
    shown: PathBuf,
    /// The next part last.
    rest: Vec<Part>,
    links: u32,
}

impl Walk {
    fn new(path: &Path) -> io::Result<Self> {
        if path.as_os_str().is_empty() {
            return Err(Errno::ENOENT.into());
        }
        // An absolute path works from a directory that may not be entered, too.
        let start = if path.is_absolute() { "/" } else { "." };
        let at = open_at(AT_FDCWD, OsStr::new(start), DIR_FLAGS, Mode::empty())?;
        let mut walk = Self { at, shown: PathBuf::new(), rest: Vec::new(), links: 0 };
        walk.put(path);
        Ok(walk)
    }

    /// Puts a path before what is left.
    fn put(&mut self, path: &Path) {
        self.rest.extend(path.components().rev().filter_map(|component| match component {
            Component::RootDir => Some(Part::Root),
            Component::ParentDir => Some(Part::Up),
            Component::Normal(name) => Some(Part::Name(name.to_os_string())),
            Component::CurDir | Component::Prefix(_) => None,
        }));
    }

    /// Enters the next directory, or puts where a link leads in its place. `false` at the end.
    fn step(&mut self) -> io::Result<bool> {
        let Some(part) = self.rest.last().cloned() else { return Ok(false) };
        match &part {
            Part::Root => {
                self.at = open_at(AT_FDCWD, OsStr::new("/"), DIR_FLAGS, Mode::empty())?;
                self.shown = PathBuf::from("/");
            }
            Part::Up => {
                self.at = open_at(&self.at, OsStr::new(".."), DIR_FLAGS, Mode::empty())?;
                self.shown.push("..");
            }
            Part::Name(name) => return self.enter(name).map(|()| true),
        }
        self.rest.pop();
        Ok(true)
    }

    fn enter(&mut self, name: &OsStr) -> io::Result<()> {
        match open_at(&self.at, name, DIR_FLAGS | OFlag::O_NOFOLLOW, Mode::empty()) {
            Ok(dir) => self.at = dir,
            // A link as well: it is no directory.
            Err(Errno::ENOTDIR | Errno::ELOOP) => {
                self.rest.pop();
                if let Followed::ByHand = self.follow(name)? {
                    return Ok(());
                }
                self.at = open_at(&self.at, name, DIR_FLAGS, Mode::empty())?;
                self.shown.push(name);
                return Ok(());
            }
            Err(errno) => return Err(errno.into()),
        }
        self.shown.push(name);
        self.rest.pop();
        Ok(())
    }

    /// Puts where the link `name` leads before what is left. `ENOTDIR` where it is no link.
    fn follow(&mut self, name: &OsStr) -> io::Result<Followed> {
        let link = open_at(&self.at, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
        let stat = Stat::of_fd(&link)?;
        if stat.file_type != FileType::Symlink {
            return Err(Errno::ENOTDIR.into());
        }
        let owner = stat.metadata.uid;
        if !is_trusted(owner) {
            return Err(Foreign::Link { path: self.shown.join(name), owner }.into());
        }
        self.links += 1;
        if self.links > LINKS_MAX {
            return Err(Errno::ELOOP.into());
        }
        if fstatfs(link.as_fd())?.filesystem_type() == PROC_SUPER_MAGIC {
            return Ok(Followed::ByKernel);
        }
        self.put(Path::new(&readlinkat(&link, "")?));
        Ok(Followed::ByHand)
    }

    /// Walks to the directory of the last name, and takes the name.
    fn walk_to_last(&mut self) -> io::Result<OsString> {
        while self.rest.len() > 1 {
            self.step()?;
        }
        match self.rest.pop() {
            Some(Part::Name(name)) => Ok(name),
            _ => Err(Errno::EISDIR.into()),
        }
    }

    /// Makes the directory that is next, unless somebody else is quicker.
    fn make_next(&self) -> io::Result<()> {
        let Some(Part::Name(name)) = self.rest.last() else { return Err(Errno::ENOENT.into()) };
        match mkdirat(&self.at, name.as_os_str(), Mode::from_bits_truncate(0o777)) {
            Ok(()) | Err(Errno::EEXIST) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests;
