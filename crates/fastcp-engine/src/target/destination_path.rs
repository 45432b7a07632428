//! Where a destination is, and how it is got at: as a user typed it, or beneath a root that is not left.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use fastcp_model::{Escaped, Name, RelPath};
use fastcp_sys::Root;

use crate::error::RunError;
use crate::settings::Durability;
use crate::target::backup::Backup;

/// Where a destination is.
#[derive(Debug, Clone)]
pub(crate) enum DestinationPath<'a> {
    /// As a user of this machine typed it: links of his own and of root are followed.
    Typed(PathBuf),
    /// As a peer named it, beneath this root: no link is followed.
    Beneath(&'a Root, RelPath),
}

impl DestinationPath<'_> {
    /// The path for messages.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Typed(path) => Escaped(path.as_os_str().as_bytes()).to_string(),
            Self::Beneath(_, path) if path.is_root() => ".".to_owned(),
            Self::Beneath(_, path) => path.to_string(),
        }
    }

    /// The path from the root of the file system, or from the root that it is beneath; without a slash in front.
    pub(crate) fn below_system_root(&self) -> Vec<u8> {
        match self {
            Self::Typed(path) => {
                let real = path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.clone());
                real.as_os_str().as_bytes().strip_prefix(b"/").unwrap_or_default().to_vec()
            }
            Self::Beneath(_, path) => path.as_bytes().to_vec(),
        }
    }

    /// Opens the directory, made where it is missing: of a typed path, as rsync has it, only the last component. Answers
    /// how many directories were made, too.
    pub(crate) fn open(&self) -> io::Result<(Root, usize)> {
        match self {
            Self::Typed(path) => match Root::open(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => match Root::make(path) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok((Root::open(path)?, 0)),
                    made => Ok((made?, 1)),
                },
                opened => Ok((opened?, 0)),
            },
            Self::Beneath(root, path) => open_beneath(root, path),
        }
    }

    /// Opens the directory; `None` where a run would make it.
    pub(crate) fn open_if_there(&self) -> io::Result<Option<Root>> {
        let opened = match self {
            Self::Typed(path) => Root::open(path),
            Self::Beneath(root, path) => root.beneath(path),
        };
        match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.could_be_made().map(|()| None),
            opened => opened.map(Some),
        }
    }

    fn could_be_made(&self) -> io::Result<()> {
        match self {
            Self::Typed(path) => {
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
                Root::open(parent).map(drop)
            }
            Self::Beneath(root, path) => {
                let mut above = path.split();
                while let Some((parent, _)) = above {
                    match root.dir(&parent) {
                        Err(error) if error.kind() == io::ErrorKind::NotFound => above = parent.split(),
                        result => return result.map(drop),
                    }
                }
                Ok(())
            }
        }
    }

    /// Removes the last `made` directories of the path, where they are empty.
    pub(crate) fn unmake(&self, made: usize) {
        let result = match self {
            Self::Typed(_) if made == 0 => Ok(()),
            Self::Typed(path) => std::fs::remove_dir(path),
            Self::Beneath(root, path) => unmake_beneath(root, path, made),
        };
        if let Err(error) = result {
            tracing::debug!(%error, "cannot remove the new destination");
        }
    }

    /// Checks that `dir`, which is below the destination where it is relative, can take what the destination gives up.
    pub(crate) fn backup(&self, dir: &Path, durability: Durability) -> Result<Backup, RunError> {
        match self {
            Self::Typed(path) => Backup::new(path, dir, durability),
            Self::Beneath(root, path) => Backup::beneath(root, path, dir, durability),
        }
    }
}

fn open_beneath(root: &Root, path: &RelPath) -> io::Result<(Root, usize)> {
    let mut made = 0;
    let opened = match root.beneath(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut at = root.dir(&RelPath::root())?;
            for name in path.names() {
                at = match at.dir(&name) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        made += usize::from(at.make_open_dir(&name)?);
                        at.dir(&name)?
                    }
                    dir => dir?,
                };
            }
            root.beneath(path)
        }
        opened => opened,
    };
    opened.map(|opened| (opened, made)).inspect_err(|_| drop(unmake_beneath(root, path, made)))
}

fn unmake_beneath(root: &Root, path: &RelPath, made: usize) -> io::Result<()> {
    let mut last: Option<(RelPath, Name)> = path.split();
    for _ in 0..made {
        let Some((parent, name)) = last else { break };
        root.dir(&parent)?.remove_dir(&name)?;
        last = parent.split();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use fastcp_model::RelPath;
    use fastcp_sys::Root;

    use super::DestinationPath;

    fn path(text: &str) -> RelPath {
        RelPath::new(text.as_bytes()).expect("lawful")
    }

    #[test]
    fn beneath_a_root_all_that_is_missing_is_made_and_goes_again() {
        let top = tempfile::tempdir().expect("temporary directory");
        fs::create_dir(top.path().join("there")).expect("make");
        let root = Root::open(top.path()).expect("open");
        for (text, missing) in [("", 0), ("there", 0), ("there/a/b", 2), ("new", 1)] {
            let destination = DestinationPath::Beneath(&root, path(text));
            assert_eq!(destination.open_if_there().expect("lawful").is_none(), missing > 0);
            let (_, made) = destination.open().expect("opened");
            assert_eq!(made, missing, "{text}");
            assert!(top.path().join(text).is_dir());
            destination.unmake(made);
            assert_eq!(top.path().join(text).is_dir(), missing == 0, "{text}");
        }
        assert!(!top.path().join("there/a").exists());
    }

    #[test]
    fn no_link_is_followed_beneath_a_root() {
        let top = tempfile::tempdir().expect("temporary directory");
        let outside = tempfile::tempdir().expect("temporary directory");
        symlink(outside.path(), top.path().join("out")).expect("link");
        fs::create_dir(top.path().join("real")).expect("make");
        symlink("real", top.path().join("in")).expect("link");
        fs::write(top.path().join("file"), b"x").expect("write");
        let root = Root::open(top.path()).expect("open");
        for text in ["out", "out/new", "in", "in/new", "file", "file/new"] {
            let destination = DestinationPath::Beneath(&root, path(text));
            assert!(destination.open().is_err(), "{text}");
            assert!(destination.open_if_there().is_err(), "{text}");
        }
        assert_eq!(fs::read_dir(outside.path()).expect("list").count(), 0);
        assert_eq!(fs::read_dir(top.path().join("real")).expect("list").count(), 0);
    }
}
