//! The strong hash of a range of a file: XXH3-128.

use std::fs::File;
use std::io;

use fastcp_model::ByteRange;
use fastcp_sys::file::read_range;
use fastcp_wire::signature::StrongHash;
use xxhash_rust::xxh3::Xxh3;

/// Reads a range through `slice` and hashes it; `None` where the file ends before the range does.
pub(crate) fn hash_of(file: &File, range: ByteRange, slice: &mut [u8]) -> io::Result<Option<StrongHash>> {
    let mut hasher = Xxh3::new();
    match read_range(file, range, slice, |bytes| hasher.update(bytes)) {
        Ok(()) => Ok(Some(StrongHash(hasher.digest128()))),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}
