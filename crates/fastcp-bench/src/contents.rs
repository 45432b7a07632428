//! Whether a copy has the source's bytes, for workloads in which counting them proves nothing.
//!
//! Where an earlier version was at the destination, a tool that did nothing would leave as many
//! files and bytes as one that did its work. So both sides are read, after the run and untimed.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use crate::census::files_below;
use crate::error::BenchError;

const BUFFER_BYTES: usize = 1 << 20;

/// Refuses a copy in which a file of `source` has other bytes. Files that only the copy has are the
/// census's to find.
pub(crate) fn expect_equal(source: &Path, copy: &Path) -> Result<(), BenchError> {
    for file in files_below(source)? {
        let name = file.path.strip_prefix(source).unwrap_or(&file.path);
        let copied = copy.join(name);
        if !have_equal_bytes(&file.path, &copied)? {
            return Err(BenchError::WrongContents { path: copied });
        }
    }
    Ok(())
}

fn have_equal_bytes(one: &Path, other: &Path) -> Result<bool, BenchError> {
    let mut first = open(one)?;
    let mut second = open(other)?;
    loop {
        let wanted = first.fill_buf().map_err(BenchError::file("read", one))?;
        let found = second.fill_buf().map_err(BenchError::file("read", other))?;
        let count = wanted.len().min(found.len());
        if count == 0 {
            return Ok(wanted.len() == found.len());
        }
        if wanted[..count] != found[..count] {
            return Ok(false);
        }
        first.consume(count);
        second.consume(count);
    }
}

fn open(path: &Path) -> Result<BufReader<impl Read>, BenchError> {
    let file = File::open(path).map_err(BenchError::file("open", path))?;
    Ok(BufReader::with_capacity(BUFFER_BYTES, file))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{BUFFER_BYTES, expect_equal};

    #[test]
    fn a_byte_makes_a_difference() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (source, copy) = (dir.path().join("source"), dir.path().join("copy"));
        for root in [&source, &copy] {
            fs::create_dir_all(root.join("a")).expect("make");
            fs::write(root.join("a/empty"), "").expect("write");
        }
        let right = vec![7; BUFFER_BYTES + 9];
        fs::write(source.join("a/b"), &right).expect("write");
        let error = expect_equal(&source, &copy).expect_err("a file is missing").to_string();
        assert!(error.starts_with("cannot open") && error.contains("copy/a/b"), "{error}");
        let mut last_changed = right.clone();
        last_changed[BUFFER_BYTES + 8] = 8;
        let longer = [&right[..], &[7]].concat();
        for wrong in [&right[1..], &last_changed, &longer, &[]] {
            fs::write(copy.join("a/b"), wrong).expect("write");
            let error = expect_equal(&source, &copy).expect_err("other bytes").to_string();
            assert!(error.starts_with("wrong copy: ") && error.contains("copy/a/b"), "{error}");
        }
        fs::write(copy.join("a/b"), &right).expect("write");
        expect_equal(&source, &copy).expect("the same");
    }
}
