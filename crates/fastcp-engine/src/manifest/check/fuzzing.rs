//! What holds of any bytes that are read as a manifest. For the fuzz target and for tests.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::mpsc::sync_channel;

use fastcp_model::{RelPath, Timestamp};

use super::super::{LINE_BYTES_MAX, ManifestWriter, Record, header, parse_header};
use super::{Manifest, verify_manifest};
use crate::content::content_hash::ContentHash;
use crate::report::Report;
use crate::settings::{ManifestFile, ManifestHash};

/// Reads `bytes` as a manifest, as they are and behind a first line, and appends to it, in the directory `dir`.
///
/// # Panics
/// Where a record does not read as it was written, a damaged line costs more than itself, or what is appended is lost.
pub fn manifest(dir: &Path, bytes: &[u8]) {
    for hash in ManifestHash::ALL {
        bytes.split(|&byte| byte == b'\n').for_each(|line| check_line(hash, line));
    }
    check_file(dir, bytes);
    let hash = ManifestHash::ALL[bytes.len() % 3];
    check_file(dir, &[&header(hash), bytes].concat());
}

fn check_line(hash: ManifestHash, line: &[u8]) {
    let Some(record) = Record::parse(hash, line) else { return };
    assert!(!record.path.is_root());
    let mut written = Vec::new();
    record.put(&mut written);
    let (&end, written) = written.split_last().expect("a line");
    assert!(end == b'\n' && !written.contains(&b'\n') && written.len() < LINE_BYTES_MAX);
    assert_eq!(Record::parse(hash, written).as_ref(), Some(&record));
    let cut = line.len() - 1;
    assert_ne!(Record::parse(hash, &written[..cut.min(written.len() - 1)]).as_ref(), Some(&record));
}

/// What is to be found in a manifest.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    /// Where the lines that count begin.
    offsets: Vec<u64>,
    damaged: u64,
}

/// The same, told from the bytes in the plainest way.
fn expected(hash: ManifestHash, header_bytes: usize, bytes: &[u8]) -> Found {
    let (mut last, mut damaged, mut at) = (HashMap::new(), 0, header_bytes);
    for line in bytes[header_bytes..].split_inclusive(|&byte| byte == b'\n') {
        let offset = at as u64;
        at += line.len();
        let Some(text) = line.strip_suffix(b"\n") else { break };
        match Record::parse(hash, text).filter(|_| line.len() <= LINE_BYTES_MAX) {
            Some(record) => {
                last.insert(record.path, offset);
            }
            None => damaged += 1,
        }
    }
    let mut offsets: Vec<_> = last.into_values().collect();
    offsets.sort_unstable();
    Found { offsets, damaged }
}

fn found(path: &Path) -> Found {
    let report = Report::new(sync_channel(0).0);
    let manifest = Manifest::open(path).expect("its first line is lawful");
    let offsets = manifest.last_lines(&report).expect("read");
    for offset in &offsets {
        manifest.record_at(*offset).expect("a line that counts");
    }
    Found { offsets, damaged: report.counters.files_failed.now() }
}

fn check_file(dir: &Path, bytes: &[u8]) {
    let path = dir.join("manifest");
    fs::write(&path, bytes).expect("write");
    let first = &bytes[..bytes.len().min(super::HEADER_BYTES_MAX)];
    let Ok((hash, header_bytes)) = parse_header("manifest", first) else {
        assert!(Manifest::open(&path).is_err());
        return;
    };
    assert_eq!(bytes[..header_bytes], header(hash));
    let wanted = expected(hash, header_bytes, bytes);
    assert_eq!(found(&path), wanted);
    check_against_nothing(dir, &path, &wanted);
    check_appended(&path, hash, header_bytes, bytes);
}

/// Of an empty destination every record that counts is missing, and nothing is equal.
fn check_against_nothing(dir: &Path, path: &Path, wanted: &Found) {
    let empty = dir.join("empty");
    fs::create_dir_all(&empty).expect("create");
    let report = Report::new(sync_channel(0).0);
    verify_manifest(path, &empty, &report).expect("a manifest");
    let counters = &report.counters;
    assert_eq!(counters.entries.now(), wanted.offsets.len() as u64);
    assert_eq!(counters.files_verified.now(), 0);
    let failed = counters.differences.now() + counters.files_failed.now();
    assert_eq!(failed, counters.entries.now() + wanted.damaged);
}

/// A run that appends cuts off a torn end and nothing else; its record is the one that counts of its path.
fn check_appended(path: &Path, hash: ManifestHash, header_bytes: usize, bytes: &[u8]) {
    let content = match hash {
        ManifestHash::Blake3 => ContentHash::Blake3([7; 32]),
        ManifestHash::Xxh3 => ContentHash::Xxh3(7),
        ManifestHash::Sha256 => ContentHash::Sha256([7; 32]),
    };
    let name = RelPath::new(b"a").expect("lawful");
    let record = Record { hash: content, size_bytes: 7, mtime: Timestamp::default(), path: name };
    let writer = ManifestWriter::open(&ManifestFile { path: path.to_path_buf(), hash }).expect("open");
    writer.put(&record).expect("put");
    writer.flush().expect("write");
    drop(writer);
    let mut whole_bytes = bytes.to_vec();
    let end = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    whole_bytes.truncate(end);
    record.put(&mut whole_bytes);
    assert_eq!(fs::read(path).expect("read"), whole_bytes);
    let wanted = expected(hash, header_bytes, &whole_bytes);
    assert_eq!(wanted.offsets.last(), Some(&(end as u64)));
    assert_eq!(found(path), wanted);
}

#[cfg(test)]
mod tests {
    use super::manifest;

    const LINES: &str = "\
0123456789abcdef0123456789abcdef 42 1700000000.000000005 dir/a \\\\name\\x0a
0123456789abcdef0123456789abcdef 0 -1.500000000 a
0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef 42 1700000000.000000005 dir/b
0123456789abcdef0123456789abcdef 42 1700000000.000000005 a";

    /// Whatever is done to these bytes is done from the same seeds in every run.
    #[test]
    fn any_bytes_that_a_manifest_can_become_are_read_line_by_line() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let whole = format!("fastcp-manifest 1 xxh3-128\n{LINES}");
        let seeds = [whole.as_bytes(), LINES.as_bytes(), LINES.split_at(80).1.as_bytes(), b""];
        crate::fuzzing::mutated(&seeds, 300, |bytes| manifest(dir.path(), bytes));
        let long = [LINES.as_bytes(), &[b'x'; 20_000], b"\n", LINES.as_bytes(), b"\n"].concat();
        manifest(dir.path(), &long);
    }
}
