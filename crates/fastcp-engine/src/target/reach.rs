//! How far a failure of the destination's file system reaches: one entry, or everything that is still to come.
//!
//! An errno alone does not say. A tree may have other file systems mounted below it, or subvolumes: one that is
//! read-only or full concerns what is on it, and everything else can still be copied. So the errno says what kind of
//! trouble it is, the place says whose, and where both leave it open the destination itself is tried.

use std::io;

use fastcp_model::RelPath;
use fastcp_sys::Root;
use fastcp_sys::file::allocate;
use fastcp_sys::scarce::is_exhaustion;

/// What is written to see whether the destination takes files.
const TRIAL_BYTES: u64 = 4 << 10;

/// What an errno says of the file system that it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// All of it: no room or no inodes left (`ENOSPC`), or it takes no changes (`EROFS`), be it because it was
    /// mounted so or because the kernel stopped writing to it after an error.
    FileSystem,
    /// Perhaps all of it. `EDQUOT` is the share of one user, group, project or subvolume, which may be the one that
    /// all files count to. `EIO` is one block of one file, or a disk that is gone.
    Unclear,
    /// None of it: this process, or the system, has no descriptor or memory left, and it was waited for some.
    Process,
    /// One entry: its permissions, its name, its length, whatever else.
    Entry,
}

fn trouble(error: &io::Error) -> Trouble {
    use nix::libc::{EDQUOT, EIO, ENOSPC, EROFS};
    match error.raw_os_error() {
        Some(ENOSPC | EROFS) => Trouble::FileSystem,
        Some(EDQUOT | EIO) => Trouble::Unclear,
        _ if is_exhaustion(error) => Trouble::Process,
        _ => Trouble::Entry,
    }
}

/// Whether an error may concern more than one entry.
pub(crate) fn may_reach_others(error: &io::Error) -> bool {
    trouble(error) != Trouble::Entry
}

/// Whether a failure at `path`, below the destination's root, leaves nothing to be copied to the destination.
///
/// | errno | on the destination's own file system | on another one below it |
/// |---|---|---|
/// | `ENOSPC`, `EROFS` | everything | the entry |
/// | `EDQUOT`, `EIO` | everything if the destination takes no file at all now, else the entry | the entry |
/// | `EMFILE`, `ENFILE`, `ENOMEM` | everything | everything |
/// | others | the entry | the entry |
pub(crate) fn ends_everything(root: &Root, path: &RelPath, error: &io::Error) -> bool {
    match trouble(error) {
        Trouble::Process => true,
        Trouble::Entry => false,
        Trouble::FileSystem => is_on_own(root, path),
        Trouble::Unclear => is_on_own(root, path) && !takes_files(root),
    }
}

/// Whether a path is on the file system of the destination's root. What cannot be looked at is where the directory
/// above it is.
pub(crate) fn is_on_own(root: &Root, path: &RelPath) -> bool {
    let place_of = |path: &RelPath| {
        let dir = root.dir(path)?;
        Ok::<_, io::Error>((dir.mount_id()?, dir.stat()?.identity.device))
    };
    let Ok(own) = place_of(&RelPath::root()) else { return true };
    let mut path = path.clone();
    loop {
        match (place_of(&path), path.split()) {
            (Ok(place), _) => return place == own,
            (Err(_), Some((above, _))) => path = above,
            (Err(_), None) => return true,
        }
    }
}

/// Whether a file with something in it can be made at the destination. It has no name and is gone at once.
fn takes_files(root: &Root) -> bool {
    let made = root.dir(&RelPath::root()).and_then(|dir| dir.create_unnamed(0o600)).and_then(|file| {
        allocate(&file, TRIAL_BYTES)?;
        std::os::unix::fs::FileExt::write_all_at(&file, &[0; TRIAL_BYTES as usize], 0)
    });
    // Another kind of failure, such as a directory that is not ours to write, says nothing of the file system.
    made.err().is_none_or(|error| !may_reach_others(&error))
}

#[cfg(test)]
mod tests {
    use std::io;

    use fastcp_model::RelPath;
    use fastcp_sys::Root;
    use nix::libc::{EACCES, EDQUOT, EFBIG, EIO, EMFILE, ENOSPC, EROFS};

    use super::ends_everything;

    #[test]
    fn only_what_no_file_can_escape_ends_everything() {
        let tree = tempfile::tempdir().expect("temporary directory");
        std::fs::create_dir(tree.path().join("dir")).expect("create");
        let root = Root::open(tree.path()).expect("open");
        let ends = |path: &str, code| {
            let path = RelPath::new(path.as_bytes()).expect("lawful");
            ends_everything(&root, &path, &io::Error::from_raw_os_error(code))
        };
        for path in ["", "dir", "dir/file", "no/such/dir"] {
            for (code, expected) in [
                (ENOSPC, true),
                (EROFS, true),
                (EMFILE, true),
                (EDQUOT, false),
                (EIO, false),
                (EACCES, false),
                (EFBIG, false),
            ] {
                assert_eq!(ends(path, code), expected, "{path} {code}");
            }
        }
    }
}
