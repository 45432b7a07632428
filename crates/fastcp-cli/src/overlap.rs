//! Copying a tree into itself never ends well: it is refused before it starts.
//!
//! Compared by device and inode of the ancestors, so that links and bind mounts hide nothing.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

type Id = (u64, u64);

/// How two trees relate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Overlap {
    #[error("source and destination are the same directory")]
    Same,
    #[error("the destination is inside the source")]
    DestinationInside,
    #[error("the source is inside the destination")]
    SourceInside,
}

/// Whether the tree at `source` and the one to be made at `target` share anything. The target need
/// not exist yet.
pub(crate) fn between(source: &Path, target: &Path) -> Option<Overlap> {
    let source_ids = ids(source);
    let target_ids = ids(target);
    let source_id = id(source).ok()?;
    let target_id = id(target).ok();
    if target_id == Some(source_id) {
        Some(Overlap::Same)
    } else if target_ids.contains(&source_id) {
        Some(Overlap::DestinationInside)
    } else if target_id.is_some_and(|target_id| source_ids.contains(&target_id)) {
        Some(Overlap::SourceInside)
    } else {
        None
    }
}

/// Whether `file` lies in `dir`, or would if it were made. Neither need exist yet.
pub(crate) fn is_inside(file: &Path, dir: &Path) -> bool {
    let is_dir_itself = std::path::absolute(file).ok() == std::path::absolute(dir).ok();
    is_dir_itself || id(dir).is_ok_and(|dir_id| ids(file).contains(&dir_id))
}

/// The ids of a path and all its ancestors, as far as they exist.
fn ids(path: &Path) -> Vec<Id> {
    let mut absolute = std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
    while !absolute.exists() && absolute.pop() {}
    let real = absolute.canonicalize().unwrap_or(absolute);
    real.ancestors().filter_map(|ancestor| id(ancestor).ok()).collect()
}

fn id(path: &Path) -> io::Result<Id> {
    let metadata = std::fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::{Overlap, between, is_inside};

    #[test]
    fn trees_that_share_anything_are_found_through_links_too() {
        let top = tempfile::tempdir().expect("temporary directory");
        let at = |name: &str| top.path().join(name);
        std::fs::create_dir_all(at("a/b")).expect("create");
        std::fs::create_dir(at("c")).expect("create");
        std::os::unix::fs::symlink("a", at("link")).expect("link");
        assert_eq!(between(&at("a"), &at("c")), None);
        assert_eq!(between(&at("a"), &at("c/new")), None);
        assert_eq!(between(&at("a"), &at("a")), Some(Overlap::Same));
        assert_eq!(between(&at("a"), &at("link")), Some(Overlap::Same));
        assert_eq!(between(&at("a"), &at("link/b/new")), Some(Overlap::DestinationInside));
        assert_eq!(between(&at("link/b"), &at("a")), Some(Overlap::SourceInside));
    }

    #[test]
    fn files_in_a_directory_are_found_through_links_too() {
        let top = tempfile::tempdir().expect("temporary directory");
        let at = |name: &str| top.path().join(name);
        std::fs::create_dir_all(at("a/b")).expect("create");
        std::os::unix::fs::symlink("a/b", at("link")).expect("link");
        std::fs::write(at("a/b/there"), b"").expect("write");
        std::os::unix::fs::symlink("a/b/there", at("to file")).expect("link");
        for (file, inside) in [
            ("file", false),
            ("a2", false),
            ("a", true),
            ("a/file", true),
            ("a/b/there", true),
            ("link/new", true),
            ("to file", true),
            ("a/../file", false),
        ] {
            assert_eq!(is_inside(&at(file), &at("a")), inside, "{file}");
        }
        assert!(is_inside(&at("none yet"), &at("none yet")));
    }
}
