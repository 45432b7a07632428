//! Manifests: what was committed, as text that outlives the run (`docs/manifest.md`).
//!
//! The first line names the format, its version and the hash; each further line is one file. Lines are only
//! ever appended, so a crash can tear no more than the last one, and a later line about a path replaces
//! earlier ones. A line that makes no sense is damage: it is said and never guessed at. This module knows
//! the lines, `writer` and `check` the files.
//!
//! May import: target, content.
//! Never decides what is recorded.

use fastcp_model::{ByteRange, Escaped, PATH_BYTES_MAX, RelPath, Timestamp};

use crate::content::content_hash::ContentHash;
use crate::error::ManifestError;
use crate::settings::ManifestHash;

pub(crate) mod check;
mod recorder;
mod writer;

pub use check::verify_manifest;
pub(crate) use recorder::Recorder;
pub(crate) use writer::ManifestWriter;

const FORMAT: &[u8] = b"fastcp-manifest";
const VERSION: &[u8] = b"1";
/// The longest first line that is looked at.
const HEADER_BYTES_MAX: usize = 64;
/// The longest lawful line, with its end: a path of which every byte is escaped, the longest hash, and numbers.
const LINE_BYTES_MAX: usize = 4 * PATH_BYTES_MAX + 64 + 20 + 32 + 4;

/// One file as it was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) hash: ContentHash,
    pub(crate) size_bytes: u64,
    pub(crate) mtime: Timestamp,
    /// Relative to the destination.
    pub(crate) path: RelPath,
}

impl Record {
    /// Appends the line, with its end.
    fn put(&self, out: &mut Vec<u8>) {
        let (secs, nanos) = (self.mtime.secs(), self.mtime.nanos());
        let path = Escaped(self.path.as_bytes());
        out.extend_from_slice(format!("{} {} {secs}.{nanos:09} {path}\n", self.hash, self.size_bytes).as_bytes());
    }

    /// Reads a line, without its end; `None` where it is damaged.
    fn parse(hash: ManifestHash, line: &[u8]) -> Option<Self> {
        let mut fields = line.splitn(4, |&byte| byte == b' ');
        let hash = ContentHash::parse(hash, fields.next()?)?;
        let size_bytes = digits(fields.next()?)?.parse().ok()?;
        let mtime = parse_time(fields.next()?)?;
        let path = RelPath::new(&Escaped::undo(fields.next()?)?).ok()?;
        ByteRange::new(0, size_bytes).ok()?;
        (!path.is_root()).then_some(Self { hash, size_bytes, mtime, path })
    }
}

fn parse_time(text: &[u8]) -> Option<Timestamp> {
    let point = text.iter().position(|&byte| byte == b'.')?;
    let (secs, nanos) = (&text[..point], digits(&text[point + 1..])?);
    digits(secs.strip_prefix(b"-").unwrap_or(secs))?;
    if nanos.len() != 9 {
        return None;
    }
    Timestamp::new(std::str::from_utf8(secs).ok()?.parse().ok()?, nanos.parse().ok()?)
}

/// The text, where it is digits and nothing else.
fn digits(text: &[u8]) -> Option<&str> {
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| is_number)
}

/// The first line of a manifest, with its end.
fn header(hash: ManifestHash) -> Vec<u8> {
    [FORMAT, b" ", VERSION, b" ", hash.name().as_bytes(), b"\n"].concat()
}

/// Reads the first line out of the beginning of a file: which hash it names, and how long the line is.
fn parse_header(path: &str, beginning: &[u8]) -> Result<(ManifestHash, usize), ManifestError> {
    let not_a_manifest = || ManifestError::NotAManifest(path.to_owned());
    let end = beginning.iter().position(|&byte| byte == b'\n').ok_or_else(not_a_manifest)?;
    let words: Vec<&[u8]> = beginning[..end].split(|&byte| byte == b' ').collect();
    match words[..] {
        [FORMAT, VERSION, hash] => {
            let unknown = || ManifestError::UnknownHash { path: path.to_owned(), hash: Escaped(hash).to_string() };
            Ok((ManifestHash::from_name(hash).ok_or_else(unknown)?, end + 1))
        }
        [FORMAT, version, ..] => {
            Err(ManifestError::Version { path: path.to_owned(), version: Escaped(version).to_string() })
        }
        _ => Err(not_a_manifest()),
    }
}

#[cfg(test)]
mod tests {
    use fastcp_model::{RelPath, Timestamp};

    use super::{LINE_BYTES_MAX, Record, header, parse_header};
    use crate::content::content_hash::ContentHash;
    use crate::error::ManifestError;
    use crate::settings::ManifestHash;

    fn record(path: &[u8], secs: i64, nanos: u32) -> Record {
        Record {
            hash: ContentHash::Xxh3(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef),
            size_bytes: 42,
            mtime: Timestamp::new(secs, nanos).expect("lawful"),
            path: RelPath::new(path).expect("lawful"),
        }
    }

    fn line_of(record: &Record) -> Vec<u8> {
        let mut out = Vec::new();
        record.put(&mut out);
        out
    }

    #[test]
    fn a_record_is_one_line_as_documented() {
        let line = line_of(&record(b"dir/a \\name\n\xff", 1_700_000_000, 5));
        let text = "0123456789abcdef0123456789abcdef 42 1700000000.000000005 dir/a \\\\name\\x0a\\xff\n";
        assert_eq!(String::from_utf8_lossy(&line), text);
        assert_eq!(header(ManifestHash::Sha256), b"fastcp-manifest 1 sha256\n");
    }

    #[test]
    fn records_round_trip_whatever_their_names_and_times() {
        let longest = [b"\x01/".repeat(2047), b"\x01".to_vec()].concat();
        for path in [&b"a"[..], b" ", b"a  b", b"\n", b"\\x41", b"\xff\xfe/\x7f", &longest] {
            for (secs, nanos) in [(0, 0), (-1, 1), (i64::MIN, 999_999_999), (i64::MAX, 0)] {
                let record = record(path, secs, nanos);
                let line = line_of(&record);
                let (end, line) = line.split_last().expect("a line");
                assert!(*end == b'\n' && !line.contains(&b'\n') && line.len() < LINE_BYTES_MAX);
                assert_eq!(Record::parse(ManifestHash::Xxh3, line), Some(record));
                assert_eq!(Record::parse(ManifestHash::Sha256, line), None);
            }
        }
    }

    #[test]
    fn damage_never_panics_and_cut_lines_are_no_records_of_the_same() {
        let whole = record(b"dir/name", 1_700_000_000, 5);
        let line = line_of(&whole);
        let line = &line[..line.len() - 1];
        for at in 0..line.len() {
            assert_ne!(Record::parse(ManifestHash::Xxh3, &line[..at]), Some(whole.clone()));
            for bit in 0..8 {
                let mut flipped = line.to_vec();
                flipped[at] ^= 1 << bit;
                assert_ne!(Record::parse(ManifestHash::Xxh3, &flipped), Some(whole.clone()), "byte {at} bit {bit}");
            }
        }
        for wrong in ["+42", "-42", "", "4 2", "9223372036854775808", "0x2a"] {
            let text = String::from_utf8_lossy(line).replace(" 42 ", &format!(" {wrong} "));
            assert_eq!(Record::parse(ManifestHash::Xxh3, text.as_bytes()), None, "{wrong}");
        }
        for wrong in ["/dir/name", "dir//name", "../name", "", "dir/\\x00", "dir/\\q"] {
            let text = String::from_utf8_lossy(line).replace("dir/name", wrong);
            assert_eq!(Record::parse(ManifestHash::Xxh3, text.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn first_lines_are_told_apart() {
        let parse = |bytes: &[u8]| parse_header("m", bytes);
        assert!(matches!(parse(b"fastcp-manifest 1 xxh3-128\nmore"), Ok((ManifestHash::Xxh3, 27))));
        assert!(matches!(parse(b"fastcp-manifest 2 xxh3-128\n"), Err(ManifestError::Version { .. })));
        assert!(matches!(parse(b"fastcp-manifest 1 md5\n"), Err(ManifestError::UnknownHash { .. })));
        for other in [&b""[..], b"fastcp-manifest 1 sha256", b"notes\n", b"\n", b"fastcp-manifest\n"] {
            assert!(matches!(parse(other), Err(ManifestError::NotAManifest(_))), "{other:?}");
        }
        assert!(matches!(parse(b"fastcp-manifest 1 sha256 x\n"), Err(ManifestError::Version { .. })));
    }
}
