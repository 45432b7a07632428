//! Comparing a destination with a manifest: no source is needed.
//!
//! The manifest is read twice. The first pass finds damage, and of each path the line that counts, which is
//! the last: it keeps a hash of the path and an offset for each line, 16 bytes, and looks at the paths
//! themselves only where hashes meet. The second pass compares, many records at a time. What is in the
//! destination and not in the manifest is no difference: a manifest tells what was committed, not all
//! that there is.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use fastcp_model::{Name, RelPath};
use fastcp_sys::file::read_at;
use fastcp_sys::{FileType, Root, typed_path};
use rayon::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use super::writer::shown;
use super::{HEADER_BYTES_MAX, LINE_BYTES_MAX, Record, parse_header};
use crate::content::content_hash::ContentHasher;
use crate::difference::Difference;
use crate::error::{ManifestError, RunError, is_not_there};
use crate::report::{Cause, Report};
use crate::settings::ManifestHash;
use crate::target::read_back::read_whole;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;

/// Records that one thread takes at a time.
const RECORDS_PER_STEP: usize = 64;

/// Compares the directory `against` with the manifest at `path`. Differences are events and counts of the
/// report.
///
/// # Errors
/// A manifest or a destination that cannot be used. Damaged records are in the report instead.
pub fn verify_manifest(path: &Path, against: &Path, report: &Report) -> Result<(), RunError> {
    let root = Root::open(against).map_err(RunError::not_verifiable(against))?;
    let manifest = Manifest::open(path)?;
    let offsets = manifest.last_lines(report).map_err(|source| manifest.failed(source))?;
    report.counters.entries.add(offsets.len() as u64);
    report.counters.files.add(offsets.len() as u64);
    report.set_scan_done();
    let check = |offsets: &[u64]| manifest.check(offsets, &root, report);
    offsets.par_chunks(RECORDS_PER_STEP).try_for_each(check).map_err(|source| manifest.failed(source))?;
    Ok(())
}

struct Manifest {
    file: File,
    shown: String,
    hash: ManifestHash,
    header_bytes: u64,
}

impl Manifest {
    fn open(path: &Path) -> Result<Self, ManifestError> {
        let failed = |operation| move |source| ManifestError::File { operation, path: shown(path), source };
        let file = typed_path::open_to_read(path).map_err(failed("open"))?;
        let mut beginning = [0; HEADER_BYTES_MAX];
        let got = read_at(&file, &mut beginning, 0).map_err(failed("read"))?;
        let (hash, header_bytes) = parse_header(&shown(path), &beginning[..got])?;
        Ok(Self { file, shown: shown(path), hash, header_bytes: header_bytes as u64 })
    }

    fn failed(&self, source: io::Error) -> ManifestError {
        ManifestError::File { operation: "read", path: self.shown.clone(), source }
    }

    fn lines_from(&self, offset: u64) -> Lines<'_> {
        Lines { reader: BufReader::new(ReadFrom { file: &self.file, offset }), next: offset }
    }

    /// The offsets of the lines that count, ascending. Damaged lines are reported.
    fn last_lines(&self, report: &Report) -> io::Result<Vec<u64>> {
        let mut found: Vec<(u64, u64)> = Vec::new();
        let mut lines = self.lines_from(self.header_bytes);
        let mut number = 1;
        while let Some((offset, line)) = lines.next()? {
            number += 1;
            match line {
                Line::Torn => {
                    tracing::warn!(line = number, "the last line of the manifest is incomplete and is ignored")
                }
                Line::Whole(line) => match Record::parse(self.hash, &line) {
                    // Paths with the same hash are compared.
                    Some(record) => found.push((xxh3_64(record.path.as_bytes()), offset)),
                    None => report.failed(RelPath::root(), Cause::DamagedRecord { line: number }),
                },
                Line::TooLong => report.failed(RelPath::root(), Cause::DamagedRecord { line: number }),
            }
        }
        found.par_sort_unstable();
        let mut offsets = Vec::with_capacity(found.len());
        for same_hash in found.chunk_by(|one, next| one.0 == next.0) {
            match same_hash {
                [(_, offset)] => offsets.push(*offset),
                several => self.keep_last(several, &mut offsets)?,
            }
        }
        offsets.par_sort_unstable();
        Ok(offsets)
    }

    /// Of lines whose paths have the same hash, the last of each path.
    fn keep_last(&self, ascending: &[(u64, u64)], offsets: &mut Vec<u64>) -> io::Result<()> {
        let mut seen: Vec<RelPath> = Vec::new();
        for (_, offset) in ascending.iter().rev() {
            let path = self.record_at(*offset)?.path;
            if !seen.contains(&path) {
                seen.push(path);
                offsets.push(*offset);
            }
        }
        Ok(())
    }

    fn record_at(&self, offset: u64) -> io::Result<Record> {
        self.record_of(self.lines_from(offset).next()?.map(|(_, line)| line))
    }

    /// A line that was lawful a moment ago.
    fn record_of(&self, line: Option<Line>) -> io::Result<Record> {
        let record = match line {
            Some(Line::Whole(line)) => Record::parse(self.hash, &line),
            _ => None,
        };
        record.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it changed while it was read"))
    }

    /// Compares the records at these offsets.
    fn check(&self, offsets: &[u64], root: &Root, report: &Report) -> io::Result<()> {
        let Some(first) = offsets.first() else { return Ok(()) };
        let mut lines = self.lines_from(*first);
        for wanted in offsets {
            let line = loop {
                match lines.next()? {
                    Some((offset, line)) if offset == *wanted => break Some(line),
                    Some((offset, _)) if offset < *wanted => {}
                    _ => break None,
                }
            };
            check_record(&self.record_of(line)?, self.hash, root, report);
        }
        Ok(())
    }
}

fn check_record(record: &Record, hash: ManifestHash, root: &Root, report: &Report) {
    report.counters.bytes_total.add(record.size_bytes);
    let Some((parent, name)) = record.path.split() else { return };
    let differs = |what| report.differs(record.path.clone(), what);
    match compare(record, hash, root, &parent, &name, &differs) {
        Ok(Checked::Same) => {
            report.counters.files_verified.add(1);
            report.counters.bytes_verified.add(record.size_bytes);
        }
        Ok(Checked::Differs) => {}
        Err(error) if is_not_there(&error) => differs(Difference::Missing),
        Err(source) => {
            report.failed(record.path.clone(), Cause::Destination { operation: "cannot read", source });
        }
    }
}

/// Whether the contents are those of the record.
enum Checked {
    Same,
    Differs,
}

fn compare(
    record: &Record,
    hash: ManifestHash,
    root: &Root,
    parent: &RelPath,
    name: &Name,
    differs: &impl Fn(Difference),
) -> io::Result<Checked> {
    let dir = root.dir(parent)?;
    let stat = dir.stat_name(name)?;
    if stat.file_type != FileType::File {
        differs(Difference::Type);
        return Ok(Checked::Differs);
    }
    if stat.metadata.mtime != record.mtime {
        differs(Difference::Mtime);
    }
    if stat.size_bytes() != record.size_bytes {
        differs(Difference::Size);
        return Ok(Checked::Differs);
    }
    let mut hasher = ContentHasher::new(hash);
    let hash_bytes = |bytes: &[u8]| {
        hasher.update(bytes);
        Ok(())
    };
    match read_whole(&dir.open_file(name)?, record.size_bytes, hash_bytes) {
        Ok(()) if hasher.finish() == record.hash => Ok(Checked::Same),
        Ok(()) => {
            differs(Difference::Contents);
            Ok(Checked::Differs)
        }
        // It grew or shrank since it was examined.
        Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData) => {
            differs(Difference::Size);
            Ok(Checked::Differs)
        }
        Err(error) => Err(error),
    }
}

/// One line of a manifest.
enum Line {
    /// Without its end.
    Whole(Vec<u8>),
    /// Longer than any lawful line.
    TooLong,
    /// The last one, without an end.
    Torn,
}

/// The lines from some offset on, each with its own offset.
struct Lines<'a> {
    reader: BufReader<ReadFrom<'a>>,
    next: u64,
}

impl Lines<'_> {
    fn next(&mut self) -> io::Result<Option<(u64, Line)>> {
        let offset = self.next;
        let mut line = Vec::new();
        let taken = self.reader.by_ref().take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut line)?;
        self.next += taken as u64;
        let line = match line.pop() {
            None => return Ok(None),
            Some(b'\n') => Line::Whole(line),
            Some(_) if taken < LINE_BYTES_MAX => Line::Torn,
            Some(_) => self.skip_line()?,
        };
        Ok(Some((offset, line)))
    }

    /// The rest of a line that is too long.
    fn skip_line(&mut self) -> io::Result<Line> {
        loop {
            let ready = self.reader.fill_buf()?;
            if ready.is_empty() {
                return Ok(Line::Torn);
            }
            let end = ready.iter().position(|&byte| byte == b'\n');
            let count = end.map_or(ready.len(), |at| at + 1);
            self.reader.consume(count);
            self.next += count as u64;
            if end.is_some() {
                return Ok(Line::TooLong);
            }
        }
    }
}

/// Reads a file that others read at other places.
struct ReadFrom<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for ReadFrom<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = read_at(self.file, buffer, self.offset)?;
        self.offset += got as u64;
        Ok(got)
    }
}
