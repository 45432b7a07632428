//! What the bare loop sends: records, each a slice of a file.
//!
//! `u16 path length | u64 file bytes | u64 offset | u32 slice bytes | u32 CRC-32 | path | slice`,
//! little-endian. The stream ends after a record. Only the two halves of this crate speak it.

use std::ffi::OsStr;
use std::io::{self, BufRead, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::SLICE_BYTES;
use crate::error::BenchError;

const HEAD_BYTES: usize = 26;

/// All of a record but the slice.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Relative, without `..`.
    pub(super) path: PathBuf,
    pub(super) file_bytes: u64,
    pub(super) offset: u64,
    pub(super) slice_bytes: u32,
    pub(super) crc: u32,
}

impl Record {
    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let path = self.path.as_os_str().as_bytes();
        let path_bytes = u16::try_from(path.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidFilename))?;
        let mut head = Vec::with_capacity(HEAD_BYTES + path.len());
        head.extend(path_bytes.to_le_bytes());
        head.extend(self.file_bytes.to_le_bytes());
        head.extend(self.offset.to_le_bytes());
        head.extend(self.slice_bytes.to_le_bytes());
        head.extend(self.crc.to_le_bytes());
        head.extend(path);
        out.write_all(&head)
    }

    /// The next one; `None` at the end of the stream.
    pub(super) fn read(from: &mut impl BufRead) -> Result<Option<Self>, BenchError> {
        let broken = BenchError::system("receive a record");
        match Self::read_head(from) {
            Ok(None) => Ok(None),
            Ok(Some(record)) => record.checked().map(Some),
            Err(error) => Err(broken(error)),
        }
    }

    fn read_head(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        if from.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let mut path = vec![0; u16::from_le_bytes(taken(from)?).into()];
        let file_bytes = u64::from_le_bytes(taken(from)?);
        let offset = u64::from_le_bytes(taken(from)?);
        let slice_bytes = u32::from_le_bytes(taken(from)?);
        let crc = u32::from_le_bytes(taken(from)?);
        from.read_exact(&mut path)?;
        let path = PathBuf::from(OsStr::from_bytes(&path));
        Ok(Some(Self { path, file_bytes, offset, slice_bytes, crc }))
    }

    fn checked(self) -> Result<Self, BenchError> {
        let end = self.offset.checked_add(self.slice_bytes.into());
        if end.is_none_or(|end| end > self.file_bytes) || u64::from(self.slice_bytes) > SLICE_BYTES {
            return Err(BenchError::BareStream("a slice lies outside its file"));
        }
        let is_plain = |path: &Path| path.components().all(|part| matches!(part, Component::Normal(_)));
        if self.path.as_os_str().is_empty() || !is_plain(&self.path) {
            return Err(BenchError::BareStream("a path leads out of the tree"));
        }
        Ok(self)
    }
}

fn taken<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::Record;

    fn record(path: &str, offset: u64) -> Record {
        Record { path: path.into(), file_bytes: 100, offset, slice_bytes: 60, crc: 7 }
    }

    fn through(record: &Record) -> Option<Record> {
        let mut bytes = Vec::new();
        record.write(&mut bytes).expect("a vector takes all");
        Record::read(&mut &bytes[..]).ok().flatten()
    }

    #[test]
    fn lawful_records_pass_and_others_do_not() {
        assert_eq!(through(&record("a/b", 40)), Some(record("a/b", 40)));
        for unlawful in [record("a", 41), record("../a", 0), record("/a", 0), record("", 0), record("a", u64::MAX)] {
            assert_eq!(through(&unlawful), None);
        }
        assert!(matches!(Record::read(&mut &b""[..]), Ok(None)));
        assert!(Record::read(&mut &b"\x01"[..]).is_err());
    }
}
