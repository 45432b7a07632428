//! One directory of a tree, and what is done to the names in it.
//!
//! Each call passes a single [`Name`], which holds no slash, to an `*at` call on the held descriptor:
//! calls such as `mkdirat` and `renameat` cannot be told to follow no links, but a lone name below a
//! directory that was opened beneath the root leads nowhere else.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use fastcp_model::Name;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, readlinkat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, mkdirat, mknodat};
use nix::unistd::{Uid, UnlinkatFlags, linkat, symlinkat, unlinkat};

use crate::lease::open_patiently;
use crate::scarce::opened;
use crate::{Stat, SyncHandle, Volume};

const RIGHTS_OF_OTHERS: u16 = 0o077;
const WRITE_OF_OTHERS: u16 = 0o022;

/// A directory held open as an anchor (`O_PATH`).
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Dir {
    pub(crate) fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Opens a directory in this one.
    ///
    /// # Errors
    /// `ELOOP` or `ENOTDIR` where `name` is a link or no directory.
    pub fn dir(&self, name: &Name) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(Self { fd: opened(|| openat(&self.fd, name.as_bytes(), flags, Mode::empty()))? })
    }

    /// Opens the directory that this one is in now. That may be any: a directory can be moved at any time, so what
    /// is answered has to be compared with what it shall be.
    ///
    /// # Errors
    /// As `open(2)`.
    pub fn parent(&self) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(Self { fd: opened(|| openat(&self.fd, "..", flags, Mode::empty()))? })
    }

    /// Opens a directory in this one that belongs to this process's user, and takes from everybody else what rights
    /// they have in it.
    ///
    /// # Errors
    /// `EPERM` where it belongs to somebody else, or others may still write to it; `ELOOP` or `ENOTDIR` where `name`
    /// is a link or no directory.
    pub fn own_dir(&self, name: &Name) -> io::Result<Self> {
        let dir = self.dir(name)?;
        if dir.stat()?.metadata.uid != Uid::effective().as_raw() {
            return Err(Errno::EPERM.into());
        }
        if dir.stat()?.metadata.mode & RIGHTS_OF_OTHERS != 0 {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            let readable = opened(|| openat(&dir.fd, ".", flags, Mode::empty()))?;
            // Some file systems have one mode for everything. What they say then is looked at.
            let _ = fchmod(readable, Mode::S_IRWXU);
        }
        if dir.stat()?.metadata.mode & WRITE_OF_OTHERS == 0 { Ok(dir) } else { Err(Errno::EPERM.into()) }
    }

    /// Holds on to whatever has this name, a link as the link itself, to set its metadata.
    ///
    /// # Errors
    /// As `open(2)` with `O_PATH`.
    pub fn handle(&self, name: &Name) -> io::Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(opened(|| openat(&self.fd, name.as_bytes(), flags, Mode::empty()))?)
    }

    /// What the directory itself is.
    ///
    /// # Errors
    /// As `fstat(2)`.
    pub fn stat(&self) -> io::Result<Stat> {
        Stat::of_fd(&self.fd)
    }

    /// Which volume the directory is on: a rename never leaves one.
    ///
    /// # Errors
    /// As `statx(2)`.
    pub fn volume(&self) -> io::Result<Volume> {
        crate::stat::volume(&self.fd)
    }

    /// Which mount the directory is on.
    ///
    /// # Errors
    /// As `statx(2)`.
    pub fn mount_id(&self) -> io::Result<u64> {
        Ok(self.volume()?.mount_id)
    }

    /// Opens the directory for syncing.
    ///
    /// # Errors
    /// As `open(2)`, here for reading.
    pub fn sync_handle(&self) -> io::Result<SyncHandle> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        SyncHandle::new(File::from(opened(|| openat(&self.fd, ".", flags, Mode::empty()))?))
    }

    /// What `name` is; a link is not followed.
    ///
    /// # Errors
    /// As `fstatat(2)`.
    pub fn stat_name(&self, name: &Name) -> io::Result<Stat> {
        Stat::of_name(self.fd.as_fd(), name.as_bytes())
    }

    /// The names in the directory, in the file system's order, without `.` and `..`.
    ///
    /// # Errors
    /// As `open(2)`, here for reading.
    pub fn names(&self) -> io::Result<ReadNames> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = opened(|| nix::dir::Dir::openat(&self.fd, ".", flags, Mode::empty()))?;
        Ok(ReadNames { entries: dir.into_iter() })
    }

    /// Where the link `name` points.
    ///
    /// # Errors
    /// As `readlinkat(2)`; `EINVAL` where it is not a link.
    pub fn read_link(&self, name: &Name) -> io::Result<Vec<u8>> {
        use std::os::unix::ffi::OsStringExt;
        Ok(readlinkat(&self.fd, name.as_bytes())?.into_vec())
    }

    /// Opens a regular file for reading, or `ELOOP` for a link.
    ///
    /// # Errors
    /// `EAGAIN` where another program keeps a lease on it; else as `open(2)`.
    pub fn open_file(&self, name: &Name) -> io::Result<File> {
        self.open_regular(name, OFlag::O_RDONLY)
    }

    /// Opens a regular file, whoever made it, for reading and writing.
    ///
    /// # Errors
    /// `ELOOP` for a link, `EINVAL` for what is no regular file; else as `open(2)`.
    pub fn open_to_write(&self, name: &Name) -> io::Result<File> {
        let file = self.open_regular(name, OFlag::O_RDWR)?;
        if is_regular(&fstat(&file)?) { Ok(file) } else { Err(Errno::EINVAL.into()) }
    }

    /// Opens a file that this process's user made, for reading and writing. What somebody else may have put
    /// in its place is not written to: another kind of file, another's, or one that has a second name.
    ///
    /// # Errors
    /// `EPERM` for such a one; else as `open(2)`.
    pub fn open_own_file(&self, name: &Name) -> io::Result<File> {
        let file = self.open_regular(name, OFlag::O_RDWR)?;
        let stat = fstat(&file)?;
        let is_own = is_regular(&stat) && stat.st_nlink == 1 && stat.st_uid == Uid::effective().as_raw();
        if is_own { Ok(file) } else { Err(Errno::EPERM.into()) }
    }

    fn open_regular(&self, name: &Name, access: OFlag) -> io::Result<File> {
        let flags = access | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let open = || open_patiently(|| openat(&self.fd, name.as_bytes(), flags, Mode::empty()));
        Ok(File::from(opened(open)?))
    }

    /// Makes the file `name` with mode 0600, open for reading and writing.
    ///
    /// # Errors
    /// `EEXIST` where the name is taken, be it by a link; else as `open(2)`.
    pub fn create_file(&self, name: &Name) -> io::Result<File> {
        self.create_open_file(name, 0o600)
    }

    /// The same with `mode`, as far as the umask lets it.
    ///
    /// # Errors
    /// As [`Dir::create_file`].
    pub fn create_open_file(&self, name: &Name, mode: u16) -> io::Result<File> {
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(u32::from(mode) & 0o777);
        Ok(File::from(opened(|| openat(&self.fd, name.as_bytes(), flags, mode))?))
    }

    /// Makes a file in this directory that has no name yet: [`Dir::link_unnamed`] gives it one. Its mode
    /// is `mode` as far as the umask lets it.
    ///
    /// # Errors
    /// `EOPNOTSUPP` (or `EISDIR`, from kernels before 3.11) where the file system cannot; else as `open(2)`.
    pub fn create_unnamed(&self, mode: u16) -> io::Result<File> {
        let flags = OFlag::O_RDWR | OFlag::O_TMPFILE | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(u32::from(mode) & 0o777);
        Ok(File::from(opened(|| openat(&self.fd, ".", flags, mode))?))
    }

    /// Whether [`Dir::link_unnamed`] has a way: the right to link by descriptor, or `/proc`.
    pub fn can_link_unnamed(&self) -> bool {
        // No name can be made of a dot, so nothing is: the answer is EEXIST once the descriptor is accepted.
        let by_descriptor = linkat(&self.fd, "", &self.fd, ".", AtFlags::AT_EMPTY_PATH);
        by_descriptor == Err(Errno::EEXIST) || readlinkat(AT_FDCWD, proc_path(&self.fd).as_str()).is_ok()
    }

    /// Gives an unnamed file its name.
    ///
    /// # Errors
    /// `EEXIST` where the name is taken: a link never replaces. Else as `linkat(2)`.
    pub fn link_unnamed(&self, file: &File, name: &Name) -> io::Result<()> {
        // AT_EMPTY_PATH wants CAP_DAC_READ_SEARCH (or Linux 6.10); the other way wants /proc.
        match linkat(file, "", &self.fd, name.as_bytes(), AtFlags::AT_EMPTY_PATH) {
            Err(Errno::ENOENT | Errno::EPERM) => {}
            result => return Ok(result?),
        }
        Ok(linkat(AT_FDCWD, proc_path(file).as_str(), &self.fd, name.as_bytes(), AtFlags::AT_SYMLINK_FOLLOW)?)
    }

    /// Makes a directory with mode 0700: it is widened when all that goes into it is there.
    ///
    /// # Errors
    /// As `mkdirat(2)`.
    pub fn make_dir(&self, name: &Name) -> io::Result<()> {
        Ok(mkdirat(&self.fd, name.as_bytes(), Mode::S_IRWXU)?)
    }

    /// Makes a directory with the mode that the user's mask leaves, unless there is something; answers whether it did.
    ///
    /// # Errors
    /// As `mkdirat(2)`.
    pub fn make_open_dir(&self, name: &Name) -> io::Result<bool> {
        match mkdirat(&self.fd, name.as_bytes(), Mode::from_bits_truncate(0o777)) {
            Err(Errno::EEXIST) => Ok(false),
            result => Ok(result.map(|()| true)?),
        }
    }

    /// How many bytes more the file system takes from this user.
    ///
    /// # Errors
    /// As `fstatvfs(3)`.
    pub fn room_bytes(&self) -> io::Result<u64> {
        let stat = nix::sys::statvfs::fstatvfs(&self.fd)?;
        Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// As `symlinkat(2)`.
    pub fn make_link(&self, target: &[u8], name: &Name) -> io::Result<()> {
        Ok(symlinkat(target, &self.fd, name.as_bytes())?)
    }

    /// Makes `to_name` in `to` a device, pipe or socket like `name`, with its mode.
    ///
    /// # Errors
    /// `EINVAL` where `name` is none of these; `EPERM` for devices without the right to make them. Else as
    /// `mknodat(2)`.
    pub fn copy_node(&self, name: &Name, to: &Self, to_name: &Name) -> io::Result<()> {
        let stat = fstatat(&self.fd, name.as_bytes(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
        if !matches!(kind, SFlag::S_IFIFO | SFlag::S_IFSOCK | SFlag::S_IFCHR | SFlag::S_IFBLK) {
            return Err(Errno::EINVAL.into());
        }
        Ok(mknodat(&to.fd, to_name.as_bytes(), kind, Mode::from_bits_truncate(stat.st_mode), stat.st_rdev)?)
    }

    /// Renames `name` to `to_name` in `to`, replacing what is there.
    ///
    /// # Errors
    /// As `renameat(2)`.
    pub fn rename(&self, name: &Name, to: &Self, to_name: &Name) -> io::Result<()> {
        Ok(renameat(&self.fd, name.as_bytes(), &to.fd, to_name.as_bytes())?)
    }

    /// Gives what `name` is, a link as the link itself, a second name.
    ///
    /// # Errors
    /// `EEXIST` where the new name is taken; `EPERM` for a directory, or where the file system or the
    /// kernel's protection of others' files refuses. Else as `linkat(2)`.
    pub fn link(&self, name: &Name, to: &Self, to_name: &Name) -> io::Result<()> {
        Ok(linkat(&self.fd, name.as_bytes(), &to.fd, to_name.as_bytes(), AtFlags::empty())?)
    }

    /// Removes a name that is not a directory.
    ///
    /// # Errors
    /// As `unlinkat(2)`.
    pub fn remove_file(&self, name: &Name) -> io::Result<()> {
        Ok(unlinkat(&self.fd, name.as_bytes(), UnlinkatFlags::NoRemoveDir)?)
    }

    /// Removes a name that is not a directory, and may not be there.
    ///
    /// # Errors
    /// As `unlinkat(2)`, but `ENOENT`.
    pub fn remove_if_there(&self, name: &Name) -> io::Result<()> {
        match self.remove_file(name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// As `unlinkat(2)`; `ENOTEMPTY` where it is not empty.
    pub fn remove_dir(&self, name: &Name) -> io::Result<()> {
        Ok(unlinkat(&self.fd, name.as_bytes(), UnlinkatFlags::RemoveDir)?)
    }
}

fn proc_path(fd: &impl AsRawFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn is_regular(stat: &FileStat) -> bool {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFREG
}

/// The names of a directory, as raw bytes: [`Name::new`] decides which are lawful.
#[derive(Debug)]
pub struct ReadNames {
    entries: nix::dir::OwningIter,
}

impl ReadNames {
    /// Tells `each` of the names that are left, without a copy of any.
    ///
    /// # Errors
    /// As `getdents64(2)`.
    pub fn each(mut self, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        while let Some(entry) = self.next_entry() {
            each(entry?.file_name().to_bytes());
        }
        Ok(())
    }

    fn next_entry(&mut self) -> Option<io::Result<nix::dir::Entry>> {
        loop {
            match self.entries.next()? {
                Ok(entry) if matches!(entry.file_name().to_bytes(), b"." | b"..") => {}
                Ok(entry) => return Some(Ok(entry)),
                Err(errno) => return Some(Err(errno.into())),
            }
        }
    }
}

impl Iterator for ReadNames {
    type Item = io::Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_entry().map(|entry| entry.map(|entry| entry.file_name().to_bytes().to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use fastcp_model::{Name, RelPath};

    use crate::Root;

    #[test]
    fn only_a_file_of_our_own_is_opened_for_writing() {
        let tree = tempfile::tempdir().expect("temporary directory");
        let dir = Root::open(tree.path()).expect("open").dir(&RelPath::root()).expect("root");
        let name = |text: &str| Name::new(text.as_bytes()).expect("lawful");
        std::fs::write(tree.path().join("own"), b"own").expect("write");
        std::fs::create_dir(tree.path().join("dir")).expect("create");
        std::os::unix::fs::symlink("own", tree.path().join("link")).expect("link");
        assert!(dir.open_own_file(&name("own")).is_ok());
        assert!(dir.open_own_file(&name("dir")).is_err());
        assert!(dir.open_own_file(&name("link")).is_err());
        std::fs::hard_link(tree.path().join("own"), tree.path().join("second")).expect("link");
        assert!(dir.open_own_file(&name("own")).is_err());
    }

    #[test]
    fn an_unnamed_file_gets_its_name_and_never_replaces() {
        let tree = tempfile::tempdir().expect("temporary directory");
        let dir = Root::open(tree.path()).expect("open").dir(&RelPath::root()).expect("root");
        let Ok(mut file) = dir.create_unnamed(0o600) else { return };
        file.write_all(b"whole").expect("write");
        let name = Name::new(b"name").expect("lawful");
        dir.link_unnamed(&file, &name).expect("link");
        assert_eq!(std::fs::read(tree.path().join("name")).expect("read"), b"whole");
        let again = dir.create_unnamed(0o600).expect("create");
        let error = dir.link_unnamed(&again, &name).expect_err("taken");
        assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
    }
}
