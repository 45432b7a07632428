//! The strong hash of a range of a file: XXH3-128.

use std::fs::File;
use std::io;

use fastcp_model::ByteRange;
use fastcp_sys::file::read_at;
use fastcp_wire::signature::StrongHash;
use xxhash_rust::xxh3::Xxh3;

/// Reads a range through `slice` and hashes it; `None` where the file ends before the range does.
pub(crate) fn hash_of(file: &File, range: ByteRange, slice: &mut [u8]) -> io::Result<Option<StrongHash>> {
    let mut hasher = Xxh3::new();
    let mut at = range.start();
    while at < range.end() {
        let want = slice.len().min(usize::try_from(range.end() - at).unwrap_or(usize::MAX));
        let got = read_at(file, &mut slice[..want], at)?;
        if got < want {
            return Ok(None);
        }
        hasher.update(&slice[..want]);
        at += want as u64;
    }
    Ok(Some(StrongHash(hasher.digest128())))
}
