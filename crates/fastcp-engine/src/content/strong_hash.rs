//! Hashes that decide whether bytes are the same: BLAKE3.
//!
//! Who writes the source may choose both the bytes that a destination has and those that are to replace them. With a
//! hash whose collisions are mere algebra, such as XXH3 without a secret, he could keep a mirror on the old bytes, and
//! `verify` would agree. So whatever stands for bytes here is a cryptographic hash: of the chunks of a delta, of the
//! ranges that `verify` compares, of the batches of an offer that are known already (`fastcp-wire`), and of the paths
//! that part files are named by. XXH3 remains where a collision gains nothing (`index.rs`, `offer_sum.rs`, `manifest/check.rs`).

use std::fs::File;
use std::io;

use fastcp_model::ByteRange;
use fastcp_wire::signature::{RangeHash, StrongHash};

use crate::content::zeros::{Span, put_zeros, read_spans};

/// Takes bytes in order.
pub(crate) struct StrongHasher(Box<blake3::Hasher>);

impl StrongHasher {
    pub(crate) fn new() -> Self {
        Self(Box::default())
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of a chunk of a delta.
    pub(crate) fn chunk(&self) -> StrongHash {
        StrongHash::from_blake3(&self.0.finalize())
    }

    /// The hash of a range that `verify` compares.
    pub(crate) fn range(&self) -> RangeHash {
        RangeHash(*self.0.finalize().as_bytes())
    }
}

/// What a part file is named by. Two paths of one destination must not lead to one name: one file would be
/// renamed while the other is written to it. Half of the hash will do: 2^64 attempts gain nobody more than damage to
/// files of his own.
pub(crate) fn hash_of_name(name: &[u8]) -> u128 {
    let hash = *blake3::hash(name).as_bytes();
    hash.iter().take(16).fold(0, |number, byte| number << 8 | u128::from(*byte))
}

/// Reads a range through `slice`, telling `read` of the bytes, which may end it, and hashes it; `None` where the file ends before the
/// range does.
pub(crate) fn hash_of(
    file: &File,
    range: ByteRange,
    slice: &mut [u8],
    mut read: impl FnMut(u64) -> io::Result<()>,
) -> io::Result<Option<RangeHash>> {
    let mut hasher = StrongHasher::new();
    let take = |span: Span<'_>| match span {
        Span::Bytes(bytes) => {
            hasher.update(bytes);
            read(bytes.len() as u64)
        }
        Span::Zeros(count) => put_zeros(count, |zeros| {
            hasher.update(zeros);
            read(zeros.len() as u64)
        }),
    };
    match read_spans(file, range, slice, take) {
        Ok(()) => Ok(Some(hasher.range())),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// The hash of this many zeros.
pub(crate) fn hash_of_zeros(count: u64) -> RangeHash {
    let mut hasher = StrongHasher::new();
    let hash = |zeros: &[u8]| {
        hasher.update(zeros);
        Ok(())
    };
    put_zeros(count, hash).expect("a hash takes whatever comes");
    hasher.range()
}
