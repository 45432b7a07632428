//! What lies in a tree: how many regular files, and of how many bytes.
//!
//! That is what every tool copies, whatever else it keeps, and so what shows that a copy is whole.
//! Links are not followed and not counted, for rclone leaves them out. fastcp's own directory at
//! the root is not counted either.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::BenchError;

/// Where fastcp keeps its part files.
const FASTCP_DIR: &str = ".fastcp";

/// Regular files of a tree, and the sum of their sizes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Census {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

impl Census {
    /// Counts a tree.
    pub(crate) fn of(root: &Path) -> Result<Self, BenchError> {
        let mut census = Self::default();
        for file in files_below(root)? {
            census.files += 1;
            census.bytes += file.bytes;
        }
        Ok(census)
    }

    /// Refuses a copy that is not this.
    pub(crate) fn expect(self, found: Self) -> Result<(), BenchError> {
        if found == self {
            return Ok(());
        }
        Err(BenchError::WrongCopy {
            files: self.files,
            bytes: self.bytes,
            found_files: found.files,
            found_bytes: found.bytes,
        })
    }
}

/// A regular file of a tree.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FoundFile {
    /// With the root.
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
}

/// Every regular file below `root`.
pub(crate) fn files_below(root: &Path) -> Result<Vec<FoundFile>, BenchError> {
    let mut found = Vec::new();
    let mut dirs = vec![root.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        let entries = fs::read_dir(&dir).map_err(BenchError::file("list", &dir))?;
        for entry in entries {
            let entry = entry.map_err(BenchError::file("list", &dir))?;
            let kind = entry.file_type().map_err(BenchError::file("look at", entry.path()))?;
            if kind.is_dir() && !(dir == root && entry.file_name() == FASTCP_DIR) {
                dirs.push(entry.path());
            } else if kind.is_file() {
                let metadata = entry.metadata().map_err(BenchError::file("look at", entry.path()))?;
                found.push(FoundFile { path: entry.path(), bytes: metadata.len() });
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::Census;

    #[test]
    fn regular_files_count_and_nothing_else() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = |name: &str| dir.path().join(name);
        fs::create_dir_all(path("a/b")).expect("make");
        fs::create_dir(path(".fastcp")).expect("make");
        for (name, bytes) in [("a/b/c", 5), ("a/d", 0), ("e", 7), (".fastcp/part", 9)] {
            fs::write(path(name), vec![0; bytes]).expect("write");
        }
        symlink("e", path("link")).expect("link");
        let census = Census::of(dir.path()).expect("count");
        assert_eq!(census, Census { files: 3, bytes: 12 });
        assert!(census.expect(census).is_ok());
        let error = census.expect(Census { files: 3, bytes: 11 }).expect_err("one byte less");
        assert_eq!(error.to_string(), "wrong copy: 3 files of 11 bytes, not 3 of 12");
    }
}
