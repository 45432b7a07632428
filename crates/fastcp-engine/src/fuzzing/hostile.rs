//! A whole server and a whole receiver, fed by a peer that says what it likes.
//!
//! What is fuzzed is a script of what the peer does, act by act. Sums are right where an act says so, for no mutation would
//! find them; everything else is as the script has it. Whatever is said, what lies beside the tree stays as it is, nobody is
//! told of it, nothing panics, and all of it ends when the script does.

use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

mod client;
mod server;

pub use client::server;
pub use server::receiver;

/// What lies beside the tree, where nobody may get by a path.
const SECRET: &[u8] = b"for nobody outside";
/// Longer than anything that ends by itself takes.
const END_MAX: Duration = Duration::from_secs(30);
/// Acts of one script, at most.
const ACTS_MAX: usize = 64;

/// Paths that peers ask for and offer.
const PATHS: [&[u8]; 12] = [
    b"",
    b"file",
    b"sub",
    b"sub/inner",
    b"new",
    b"new/file",
    b"leak",
    b"leak/secret",
    b"../outside/secret",
    b"/etc/passwd",
    b".fastcp/parts/file",
    b"sub/../file",
];

/// A script, read from its beginning. Behind its end are zeros.
#[derive(Debug)]
struct Script {
    bytes: Arc<[u8]>,
    at: usize,
    end: usize,
}

impl Script {
    fn new(bytes: &[u8]) -> Self {
        Self { bytes: bytes.into(), at: 0, end: bytes.len() }
    }

    /// Its next bytes, as a script of their own.
    fn split_off(&mut self, count: usize) -> Self {
        let end = self.end.min(self.at + count);
        let part = Self { bytes: Arc::clone(&self.bytes), at: self.at, end };
        self.at = end;
        part
    }

    fn is_over(&self) -> bool {
        self.at >= self.end
    }

    fn fixed<const N: usize>(&mut self) -> [u8; N] {
        let mut fixed = [0; N];
        for byte in &mut fixed {
            *byte = if self.is_over() { 0 } else { self.bytes[self.at] };
            self.at += 1;
        }
        fixed
    }

    fn byte(&mut self) -> u8 {
        u8::from_be_bytes(self.fixed())
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    fn is_set(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// Small numbers, and those at which things turn.
    fn number(&mut self) -> u64 {
        match self.byte() % 8 {
            0..=2 => self.byte().into(),
            3 | 4 => u16::from_be_bytes(self.fixed()).into(),
            5 => 1 << (self.byte() % 64),
            6 => u64::MAX - u64::from(self.byte()),
            _ => u64::from_be_bytes(self.fixed()),
        }
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = usize::from(u16::from_be_bytes(self.fixed()));
        let end = self.end.min(self.at + len).max(self.at);
        let bytes = self.bytes.get(self.at..end).unwrap_or_default().to_vec();
        self.at = end;
        bytes
    }

    fn path(&mut self) -> Vec<u8> {
        match self.below(PATHS.len() + 1) {
            nth if nth < PATHS.len() => PATHS[nth].to_vec(),
            _ => self.bytes(),
        }
    }
}

/// A directory with a tree, and what lies beside it.
#[derive(Debug)]
struct World {
    tree: PathBuf,
    outside: [PathBuf; 2],
    before: [Attributes; 2],
}

/// What would tell that somebody wrote to a file or a directory.
type Attributes = (u64, u64, u32, i64, i64);

impl World {
    /// Makes it anew.
    fn new(dir: &Path) -> Self {
        let (tree, outside) = (dir.join("tree"), dir.join("outside"));
        if tree.exists() {
            fs::remove_dir_all(&tree).expect("remove");
        }
        fs::create_dir_all(tree.join("sub")).expect("make");
        fs::create_dir_all(&outside).expect("make");
        fs::write(outside.join("secret"), SECRET).expect("write");
        fs::write(tree.join("file"), pattern(0, 40_000)).expect("write");
        fs::write(tree.join("sub/inner"), b"within").expect("write");
        symlink("../outside", tree.join("leak")).expect("link");
        let outside = [outside.join("secret"), outside];
        let before = outside.each_ref().map(|path| attributes(path));
        Self { tree, outside, before }
    }

    /// What lies beside the tree is as it was.
    fn expect_untouched(&self) {
        assert_eq!(self.outside.each_ref().map(|path| attributes(path)), self.before);
        assert_eq!(fs::read(&self.outside[0]).expect("read"), SECRET);
    }
}

fn attributes(path: &Path) -> Attributes {
    let metadata: Metadata = fs::symlink_metadata(path).expect("it is there");
    (metadata.ino(), metadata.size(), metadata.mode(), metadata.mtime_nsec(), metadata.ctime_nsec())
}

/// The bytes of every file that a peer tells the truth about.
fn pattern(offset: u64, len: usize) -> Vec<u8> {
    (offset..).take(len).map(|at| (at % 251) as u8).collect()
}

#[cfg(test)]
mod tests {
    use super::{receiver, server};
    use crate::fuzzing::mutated;

    /// Scripts that get somewhere: what they do is in the order of the acts.
    #[test]
    fn whoever_connects_reads_and_writes_nothing_outside() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let offer = [3, 0, 0xff, 2, 1, 0, 6, 0, 0, 0];
        let ranges = [3, 1, 0xff, 2, 0, 0, 4, 0, 0, 5, 1, 0, 0, 3, 0x9c, 0x40, 0];
        let plain = [0, 6, 7, 1, 0, 0, 0, 6, 1, 1, 0, 0];
        let push = [3, 1, 0, 0xff, 2, 7, 4, 0, 2, 0, 1, 8, 1, 2, 1, 4, 0, 0, 9];
        mutated(&[&offer, &ranges, &plain, &push], 150, |bytes| server(dir.path(), bytes));
    }

    /// What the fuzzer found.
    #[test]
    fn what_went_wrong_once_does_so_no_more() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let found: [&[u8]; 1] = [&[
            0x3f, 0x14, 0x2c, 0x0, 0x52, 0x2e, 0x1, 0xc7, 0x0, 0x0, 0x0, 0xf9, 0x0, 0x38, 0x3f, 0x3e, 0xce, 0xc0, 0xa1,
            0x3, 0x0, 0x0, 0xad, 0x16, 0x0, 0x8b, 0x20, 0x3, 0x0, 0x0, 0x0, 0x0, 0x0, 0x38, 0x3f, 0x3e, 0xce, 0xc0,
            0xa1, 0x3, 0x0, 0x0, 0x0, 0x38, 0x3, 0x0, 0x0, 0xad, 0x0, 0x0, 0x2e, 0xff, 0xff,
        ]];
        found.into_iter().for_each(|bytes| receiver(dir.path(), bytes));
    }

    #[test]
    fn whoever_is_dialled_writes_nothing_outside() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let offer = [0, 0, 0, 40, 0, 0xff, 1, 0, 2, 1, 4, 0, 0, 0, 6, 3, 0, 0, 1, 4, 0, 0, 5, 0, 0];
        let truth = [[&[0, 0, 0, 16][..], &[0, 0xff, 1, 1, 1, 4, 0, 0, 5, 1], &[0; 9]].concat(), vec![0; 8]].concat();
        mutated(&[&offer, &truth], 150, |bytes| receiver(dir.path(), bytes));
    }
}
