//! Appending to a manifest.
//!
//! Records gather in memory and leave in one write when a group of files has its names, so a record never
//! comes before its file. A line that a crash tore is cut off by the next run before it appends; a write
//! that fails is taken back at once, and nothing more is written then. One run at a time appends.

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use fastcp_model::Escaped;
use fastcp_sys::Dir;
use fastcp_sys::file::read_at;
use fastcp_sys::typed_path::{self, Opened};

use super::{HEADER_BYTES_MAX, Record, header, parse_header};
use crate::error::ManifestError;
use crate::lock::{Guard, Lock, Rank};
use crate::settings::{ManifestFile, ManifestHash};

/// Records leave at this size though their group is not complete.
const BUFFER_BYTES: usize = 64 << 10;
/// What is read at a time in search of the last line's end.
const SEARCH_BYTES: u64 = 64 << 10;

/// A manifest that a run appends to.
#[derive(Debug)]
pub(crate) struct ManifestWriter {
    hash: ManifestHash,
    path: PathBuf,
    /// Where it lies, to make its name durable.
    dir: Dir,
    state: Lock<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    /// Whole lines that are not in the file yet.
    lines: Vec<u8>,
    /// The file's length.
    file_bytes: u64,
    /// A write failed: what the file has is all that it will have.
    has_failed: bool,
}

impl ManifestWriter {
    /// Opens the manifest, made where it is missing.
    ///
    /// # Errors
    /// A file that is no manifest, or has another version or hash, or is appended to by another run: such a
    /// file is left as it is. Failures of the file system.
    pub(crate) fn open(ManifestFile { path, hash }: &ManifestFile) -> Result<Self, ManifestError> {
        let hash = *hash;
        let failed = |operation| move |source| ManifestError::File { operation, path: shown(path), source };
        let Opened { file, dir } = typed_path::open_to_append(path).map_err(failed("open"))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(ManifestError::Busy(shown(path))),
            // A file system without locks has no other way to tell.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        let metadata = file.metadata().map_err(failed("examine"))?;
        if !metadata.is_file() {
            return Err(ManifestError::NotAManifest(shown(path)));
        }
        let whole_bytes = check_first_line(&file, path, hash)?;
        let kept_bytes = end_of_last_line(&file, whole_bytes, metadata.len()).map_err(failed("read"))?;
        if kept_bytes < metadata.len() {
            file.set_len(kept_bytes).map_err(failed("shorten"))?;
        }
        let lines = if kept_bytes == 0 { header(hash) } else { Vec::new() };
        let state = State { file, lines, file_bytes: kept_bytes, has_failed: false };
        let writer = Self { hash, path: path.clone(), dir, state: Lock::new(Rank::Files, state) };
        writer.flush()?;
        Ok(writer)
    }

    /// The hash of its records.
    pub(crate) fn hash(&self) -> ManifestHash {
        self.hash
    }

    /// Takes a record of a file that has its name.
    pub(crate) fn put(&self, record: &Record) -> Result<(), ManifestError> {
        let mut state = self.lock();
        record.put(&mut state.lines);
        if state.lines.len() < BUFFER_BYTES { Ok(()) } else { self.write(&mut state) }
    }

    /// Takes a record that a receiver elsewhere has made, as it travels.
    ///
    /// # Errors
    /// As [`ManifestWriter::put`]; `None` where it is no record.
    pub(crate) fn put_line(&self, line: &[u8]) -> Option<Result<(), ManifestError>> {
        let record = Record::parse(self.hash, line.strip_suffix(b"\n")?)?;
        Some(self.put(&record))
    }

    /// That records are missing, and will be.
    pub(crate) fn incomplete(&self) -> ManifestError {
        ManifestError::Incomplete(shown(&self.path))
    }

    /// Writes the records that were taken.
    pub(crate) fn flush(&self) -> Result<(), ManifestError> {
        self.write(&mut self.lock())
    }

    /// Writes the records that were taken and makes all of them durable.
    ///
    /// # Errors
    /// As of the file system; what could not be written is gone.
    pub(crate) fn finish(&self) -> Result<(), ManifestError> {
        let mut state = self.lock();
        self.write(&mut state)?;
        let name_too = || self.dir.sync_handle()?.sync_dir();
        state.file.sync_all().and_then(|()| name_too()).map_err(|source| self.failed("sync", source))
    }

    fn write(&self, state: &mut State) -> Result<(), ManifestError> {
        let lines = std::mem::take(&mut state.lines);
        if lines.is_empty() || state.has_failed {
            return Ok(());
        }
        match state.file.write_all(&lines) {
            Ok(()) => state.file_bytes += lines.len() as u64,
            Err(source) => {
                state.has_failed = true;
                // Should this fail as well, the next run cuts the torn line off.
                let _ = state.file.set_len(state.file_bytes);
                return Err(self.failed("write", source));
            }
        }
        state.lines = lines;
        state.lines.clear();
        Ok(())
    }

    fn failed(&self, operation: &'static str, source: io::Error) -> ManifestError {
        ManifestError::File { operation, path: shown(&self.path), source }
    }

    fn lock(&self) -> Guard<'_, State> {
        self.state.lock()
    }
}

/// The length of the first line; 0 where there is none, or the beginning of one that a crash tore.
fn check_first_line(file: &File, path: &Path, hash: ManifestHash) -> Result<u64, ManifestError> {
    let mut beginning = [0; HEADER_BYTES_MAX];
    let got = read_at(file, &mut beginning, 0).map_err(|source| ManifestError::File {
        operation: "read",
        path: shown(path),
        source,
    })?;
    let beginning = &beginning[..got];
    if header(hash).starts_with(beginning) && got < header(hash).len() {
        return Ok(0);
    }
    match parse_header(&shown(path), beginning)? {
        (has, length) if has == hash => Ok(length as u64),
        (has, _) => Err(ManifestError::OtherHash { path: shown(path), has: has.name(), wanted: hash.name() }),
    }
}

/// The offset after the last line's end, at least `whole_bytes`.
fn end_of_last_line(file: &File, whole_bytes: u64, file_bytes: u64) -> io::Result<u64> {
    let mut block = vec![0; SEARCH_BYTES as usize];
    let mut end = file_bytes;
    while end > whole_bytes {
        let start = end.saturating_sub(SEARCH_BYTES).max(whole_bytes);
        let block = &mut block[..(end - start) as usize];
        let got = read_at(file, block, start)?;
        if let Some(at) = block[..got].iter().rposition(|&byte| byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(whole_bytes)
}

pub(super) fn shown(path: &Path) -> String {
    Escaped(path.as_os_str().as_bytes()).to_string()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use fastcp_model::{RelPath, Timestamp};

    use super::{ManifestWriter, Record, header};
    use crate::content::content_hash::ContentHash;
    use crate::error::ManifestError;
    use crate::settings::{ManifestFile, ManifestHash};

    fn open(path: &Path) -> Result<ManifestWriter, ManifestError> {
        ManifestWriter::open(&ManifestFile { path: path.to_path_buf(), hash: ManifestHash::Xxh3 })
    }

    fn record(nth: u128) -> Record {
        let path = RelPath::new(format!("file {nth}").as_bytes()).expect("lawful");
        Record { hash: ContentHash::Xxh3(nth), size_bytes: 1, mtime: Timestamp::default(), path }
    }

    #[test]
    fn a_torn_end_of_any_length_is_cut_off_and_whole_lines_stay() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("manifest");
        let again = || open(&path).expect("open");
        let writer = again();
        writer.put(&record(1)).expect("put");
        writer.put(&record(2)).expect("put");
        writer.finish().expect("finish");
        drop(writer);
        let whole = fs::read(&path).expect("read");
        assert_eq!(whole.iter().filter(|&&byte| byte == b'\n').count(), 3);
        for length in 0..=whole.len() {
            fs::write(&path, &whole[..length]).expect("write");
            drop(again());
            let kept = fs::read(&path).expect("read");
            let last_end = whole[..length].iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
            let wanted = if last_end == 0 { header(ManifestHash::Xxh3) } else { whole[..last_end].to_vec() };
            assert_eq!(kept, wanted, "cut at {length}");
        }
        let long_tear = [&whole[..], &vec![0; 200_000]].concat();
        fs::write(&path, long_tear).expect("write");
        drop(again());
        assert_eq!(fs::read(&path).expect("read"), whole);
    }

    #[test]
    fn what_is_no_manifest_of_this_hash_is_left_as_it_is() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("manifest");
        let others =
            ["notes\n", "x", "fastcp-manifest 2 xxh3-128\n", "fastcp-manifest 1 sha256\n", "fastcp-manifest 1 s"];
        for bytes in others {
            fs::write(&path, bytes).expect("write");
            assert!(open(&path).is_err(), "{bytes}");
            assert_eq!(fs::read(&path).expect("read"), bytes.as_bytes());
        }
    }

    #[test]
    fn one_run_at_a_time() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("manifest");
        let first = open(&path).expect("open");
        let second = open(&path);
        assert!(matches!(second, Err(ManifestError::Busy(_))), "{second:?}");
        drop(first);
        open(&path).expect("free again");
    }

    #[test]
    fn a_write_that_fails_leaves_whole_lines() {
        // A device that is always full takes the open file's place.
        let Ok(full) = fs::File::options().write(true).open("/dev/full") else { return };
        let dir = tempfile::tempdir().expect("temporary directory");
        let writer = open(&dir.path().join("manifest")).expect("open");
        writer.lock().file = full;
        writer.put(&record(1)).expect("gathered");
        assert!(matches!(writer.flush(), Err(ManifestError::File { operation: "write", .. })));
        writer.put(&record(2)).expect("of no interest any more");
        writer.flush().expect("nothing is written after a failure");
        assert_eq!(fs::read(dir.path().join("manifest")).expect("read"), header(ManifestHash::Xxh3));
    }
}
