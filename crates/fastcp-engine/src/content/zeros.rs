//! Files with holes, of which the holes are never read: nobody waits for terabytes of zeros.

use std::fs::File;
use std::io;

use fastcp_model::ByteRange;
use fastcp_sys::Stat;
use fastcp_sys::file::{next_data_range, read_range};

use crate::content::crc_runs::combine;

/// What is read at a time: it stays in a core's own cache while the CRC runs over it.
pub(crate) const SLICE_BYTES: usize = 256 << 10;

/// A part of what was read.
pub(crate) enum Span<'a> {
    Bytes(&'a [u8]),
    /// So many zeros, from a hole.
    Zeros(u64),
}

/// Reads a range through `slice` and hands it to `take` in order.
///
/// # Errors
/// `UnexpectedEof` where the file ends before the range does; that of `take`, which ends it; else as `pread(2)` and
/// `lseek(2)`.
pub(crate) fn read_spans(
    file: &File,
    range: ByteRange,
    slice: &mut [u8],
    mut take: impl FnMut(Span<'_>) -> io::Result<()>,
) -> io::Result<()> {
    let mut at = range.start();
    let mut has_holes = false;
    while at < range.end() {
        let rest = ByteRange::new(at, range.end() - at).map_err(io::Error::other)?;
        let data = next_data_range(file, rest)?;
        let start = data.map_or(range.end(), ByteRange::start);
        if start > at {
            has_holes = true;
            take(Span::Zeros(start - at))?;
        }
        at = start;
        if let Some(data) = data {
            read_range(file, data, slice, |bytes| take(Span::Bytes(bytes)))?;
            at = data.end();
        }
    }
    // Behind its end a file looks like a hole.
    if has_holes && Stat::of_fd(file)?.size_bytes() < range.end() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

impl Span<'_> {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Zeros(count) => *count,
        }
    }
}

/// The CRC-32 of spans, one after the other.
#[derive(Debug, Default)]
pub(crate) struct SpanCrc(u32);

impl SpanCrc {
    pub(crate) fn add(&mut self, span: &Span<'_>) {
        self.0 = match span {
            Span::Bytes(bytes) => {
                let mut hasher = crc32fast::Hasher::new_with_initial(self.0);
                hasher.update(bytes);
                hasher.finalize()
            }
            Span::Zeros(count) => combine(self.0, crc_of_zeros(*count), *count),
        };
    }

    pub(crate) fn crc(&self) -> u32 {
        self.0
    }
}

/// The CRC-32 of a range, read through `slice`.
///
/// # Errors
/// As [`read_spans`].
pub(crate) fn crc_of_range(file: &File, range: ByteRange, slice: &mut [u8]) -> io::Result<u32> {
    let mut crc = SpanCrc::default();
    read_spans(file, range, slice, |span| {
        crc.add(&span);
        Ok(())
    })?;
    Ok(crc.crc())
}

/// Hands this many zeros to `take`, piece by piece.
///
/// # Errors
/// The first of `take`, which ends it.
pub(crate) fn put_zeros(count: u64, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let mut left = count;
    while left > 0 {
        let zeros = &ZEROS[..left.min(ZEROS.len() as u64) as usize];
        take(zeros)?;
        left -= zeros.len() as u64;
    }
    Ok(())
}

/// The CRC-32 of this many zero bytes, in as many steps as the count has bits.
pub(crate) fn crc_of_zeros(count: u64) -> u32 {
    // Of 1, 2, 4, 8 ... bytes: each is the one before it, twice.
    let (mut doubled, mut bytes) = (crc32fast::hash(&[0]), 1_u64);
    let (mut crc, mut left) = (0, count);
    while left > 0 {
        if left & 1 == 1 {
            crc = combine(crc, doubled, bytes);
        }
        left >>= 1;
        if left > 0 {
            doubled = combine(doubled, doubled, bytes);
            bytes *= 2;
        }
    }
    crc
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use fastcp_model::ByteRange;

    use super::{crc_of_range, crc_of_zeros, put_zeros};

    #[test]
    fn a_file_with_holes_has_the_crc_of_its_bytes() {
        let file = tempfile::tempfile().expect("file");
        let mut bytes = vec![0; 3 << 20];
        for at in [0, 1 << 20, (2 << 20) - 3] {
            file.write_all_at(b"data", at).expect("write");
            bytes[at as usize..at as usize + 4].copy_from_slice(b"data");
        }
        file.set_len(3 << 20).expect("grow");
        for (start, end) in [(0, 3 << 20), (2, 1 << 20), (1, (1 << 20) + 2), (600_000, 700_000), (2 << 20, 3 << 20)] {
            let range = ByteRange::new(start as u64, (end - start) as u64).expect("lawful");
            let crc = crc_of_range(&file, range, &mut [0; 5000]).expect("read");
            assert_eq!(crc, crc32fast::hash(&bytes[start..end]), "{start} to {end}");
        }
        let beyond = ByteRange::new(2 << 20, (1 << 20) + 1).expect("lawful");
        let error = crc_of_range(&file, beyond, &mut [0; 5000]).expect_err("too short");
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn the_first_error_ends_zeros_without_end() {
        let mut taken = 0;
        let ended = put_zeros(u64::MAX, |zeros| {
            taken += zeros.len() as u64;
            if taken > 1 << 20 { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        });
        assert_eq!(ended.expect_err("no room").kind(), std::io::ErrorKind::StorageFull);
        assert!(taken < 2 << 20);
    }

    #[test]
    fn as_if_the_zeros_had_been_read() {
        for count in [0, 1, 2, 3, 7, 64, 4095, 4096, 4097, 1_000_003] {
            assert_eq!(crc_of_zeros(count), crc32fast::hash(&vec![0; count as usize]), "{count}");
        }
        // 1 TiB and all that a length can say: the sum of the parts.
        let whole = crc_of_zeros(u64::MAX);
        let half = crc_of_zeros(u64::MAX / 2);
        assert_eq!(whole, super::combine(super::combine(half, half, u64::MAX / 2), crc_of_zeros(1), 1));
    }
}
