//! Reading a file that is complete, to see what it says before it gets its name.
//!
//! The CRC-32 that was taken on the way says what was handed to the kernel; memory, a driver or a disk may
//! still have made something else of it. `--verify written` and `disk` take it over what the part file
//! reads as, and a manifest's hash is taken in the same pass, over the same bytes. So whatever a manifest
//! vouches for has been compared with the sender's CRC.

use std::fs::File;
use std::io;

use crc32fast::Hasher;
use fastcp_model::ByteRange;
use fastcp_sys::file::{forget_cached, read_at};

use crate::content::content_hash::{ContentHash, ContentHasher};
use crate::content::zeros::{SLICE_BYTES, Span, SpanCrc, put_zeros, read_spans};
use crate::settings::{ManifestHash, VerifyOver};

/// What a complete part file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) crc: u32,
    /// For a manifest, where one is wanted.
    pub(crate) hash: Option<ContentHash>,
}

/// Looks at a complete part file of `file_bytes` as closely as was asked for. `written` is the CRC-32 of
/// what was written to it. `read` is told of what is read back, and may end it with an error.
pub(crate) fn look_at(
    file: &File,
    file_bytes: u64,
    written: u32,
    verify: VerifyOver,
    manifest: Option<ManifestHash>,
    mut read: impl FnMut(u64) -> io::Result<()>,
) -> io::Result<Seen> {
    match (verify, manifest) {
        (VerifyOver::Received, None) => return Ok(Seen { crc: written, hash: None }),
        (VerifyOver::Disk, _) => {
            file.sync_data()?;
            forget_cached(file);
        }
        (VerifyOver::Received | VerifyOver::Written, _) => {}
    }
    let Some(manifest) = manifest else {
        return Ok(Seen { crc: crc_of_whole(file, file_bytes, read)?, hash: None });
    };
    let (mut crc, mut hasher) = (Hasher::new(), ContentHasher::new(manifest));
    read_whole(file, file_bytes, |bytes| {
        crc.update(bytes);
        hasher.update(bytes);
        read(bytes.len() as u64)
    })?;
    Ok(Seen { crc: crc.finalize(), hash: Some(hasher.finish()) })
}

fn crc_of_whole(file: &File, file_bytes: u64, mut read: impl FnMut(u64) -> io::Result<()>) -> io::Result<u32> {
    let mut crc = SpanCrc::default();
    read_spans(file, whole(file_bytes)?, &mut slice_for(file_bytes), |span| {
        crc.add(&span);
        read(span.len())
    })?;
    expect_end(file, file_bytes).map(|()| crc.crc())
}

/// Hands all bytes of a file to `take`, in order. Holes are not read, but no hash knows a shorter way through zeros.
///
/// # Errors
/// `UnexpectedEof` and `InvalidData` for a file that is shorter or longer than `file_bytes`; that of `take`.
pub(crate) fn read_whole(
    file: &File,
    file_bytes: u64,
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut slice = slice_for(file_bytes);
    read_spans(file, whole(file_bytes)?, &mut slice, |span| match span {
        Span::Bytes(bytes) => take(bytes),
        Span::Zeros(count) => put_zeros(count, &mut take),
    })?;
    expect_end(file, file_bytes)
}

fn slice_for(file_bytes: u64) -> Vec<u8> {
    vec![0; SLICE_BYTES.min(usize::try_from(file_bytes).unwrap_or(usize::MAX))]
}

fn whole(file_bytes: u64) -> io::Result<ByteRange> {
    ByteRange::new(0, file_bytes).map_err(io::Error::other)
}

fn expect_end(file: &File, file_bytes: u64) -> io::Result<()> {
    match read_at(file, &mut [0], file_bytes)? {
        0 => Ok(()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::{Seen, look_at, read_whole};
    use crate::content::content_hash::ContentHasher;
    use crate::content::zeros::SLICE_BYTES;
    use crate::settings::{ManifestHash, VerifyOver};

    #[test]
    fn what_is_read_counts_and_not_what_was_written() {
        let bytes: Vec<u8> = (0..SLICE_BYTES + 1000).map(|at| (at % 251) as u8).collect();
        let len = bytes.len() as u64;
        let file = tempfile::tempfile().expect("file");
        file.write_all_at(&bytes, 0).expect("write");
        let written = crc32fast::hash(&bytes);
        let all = [VerifyOver::Received, VerifyOver::Written, VerifyOver::Disk];
        for verify in all {
            let seen = look_at(&file, len, written, verify, None, |_| Ok(())).expect("read");
            assert_eq!(seen, Seen { crc: written, hash: None }, "{verify:?}");
        }
        file.write_all_at(&[bytes[SLICE_BYTES] ^ 1], SLICE_BYTES as u64).expect("write");
        let crcs = all.map(|verify| look_at(&file, len, written, verify, None, |_| Ok(())).expect("read").crc);
        assert_eq!(crcs[0], written, "nothing was read");
        assert!(crcs[1] != written && crcs[2] == crcs[1]);
        let seen =
            look_at(&file, len, written, VerifyOver::Received, Some(ManifestHash::Sha256), |_| Ok(())).expect("read");
        assert_eq!(seen.crc, crcs[1], "a manifest vouches for nothing that was not compared");
        let mut hasher = ContentHasher::new(ManifestHash::Sha256);
        read_whole(&file, len, |slice| {
            hasher.update(slice);
            Ok(())
        })
        .expect("read");
        assert_eq!(seen.hash, Some(hasher.finish()));
    }

    #[test]
    fn whoever_is_told_may_end_it() {
        let file = tempfile::tempfile().expect("file");
        file.set_len(1 << 40).expect("a hole");
        let mut told = 0;
        let stop = |bytes| {
            told += bytes;
            if told > 1 << 20 { Err(std::io::ErrorKind::Interrupted.into()) } else { Ok(()) }
        };
        let seen = look_at(&file, 1 << 40, 0, VerifyOver::Received, Some(ManifestHash::Blake3), stop);
        assert_eq!(seen.expect_err("stopped").kind(), std::io::ErrorKind::Interrupted);
        assert!(told < 2 << 20, "{told}");
    }

    #[test]
    fn a_file_of_another_length_is_an_error() {
        let file = tempfile::tempfile().expect("file");
        file.write_all_at(b"four", 0).expect("write");
        for (len, fits) in [(3, false), (4, true), (5, false), (0, false)] {
            assert_eq!(look_at(&file, len, 0, VerifyOver::Written, None, |_| Ok(())).is_ok(), fits, "{len}");
        }
        let empty = tempfile::tempfile().expect("file");
        assert_eq!(look_at(&empty, 0, 0, VerifyOver::Disk, None, |_| Ok(())).expect("read").crc, 0);
    }
}
