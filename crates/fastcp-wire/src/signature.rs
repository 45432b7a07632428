//! Signatures: a range of a file as the list of content-defined chunks that it is made of.
//!
//! A list is the body of a piece of kind *signature*: for each chunk its length and two hashes of its
//! bytes, in order, from the start of the range that was asked for. Where the cuts fall is the sender's
//! affair (`docs/protocol.md`, "Cuts"); a receiver that cuts in the same way finds the same chunks in
//! what it has.

use xxhash_rust::xxh3::xxh3_64;

use crate::WireError;
use crate::limits::{
    FINE_CANDIDATE_EVERY, FINE_CHUNK_BYTES_MAX, FINE_CHUNK_BYTES_MIN, SIGNATURE_CANDIDATE_EVERY,
    SIGNATURE_CHUNK_BYTES_MAX, SIGNATURE_CHUNK_BYTES_MIN,
};
use crate::reader::Reader;

/// The bytes of one chunk in a list.
pub const SIGNED_CHUNK_BYTES: usize = LEN_BYTES + WEAK_HASH_BYTES + STRONG_HASH_BYTES;

/// The bytes of a chunk's length: the longest is 1 MiB.
const LEN_BYTES: usize = 3;
const WEAK_HASH_BYTES: usize = 4;

/// How long chunks are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Level {
    /// About 80 KiB. The list starts at the start of the range, and ends with the first cut at or past its
    /// end, or with the file.
    Coarse,
    /// About 5 KiB. The list is of the range and nothing else: the last chunk ends with it.
    Fine,
}

impl Level {
    /// The shortest chunk but for the last one, in bytes.
    pub fn chunk_bytes_min(self) -> u64 {
        match self {
            Self::Coarse => SIGNATURE_CHUNK_BYTES_MIN,
            Self::Fine => FINE_CHUNK_BYTES_MIN,
        }
    }

    /// One position in so many is a candidate for a cut.
    pub fn candidate_every(self) -> u64 {
        match self {
            Self::Coarse => SIGNATURE_CANDIDATE_EVERY,
            Self::Fine => FINE_CANDIDATE_EVERY,
        }
    }

    /// The longest chunk, in bytes.
    pub fn chunk_bytes_max(self) -> u64 {
        match self {
            Self::Coarse => SIGNATURE_CHUNK_BYTES_MAX,
            Self::Fine => FINE_CHUNK_BYTES_MAX,
        }
    }
}

/// The weak hash of a chunk: the lower half of its XXH3-64.
///
/// It says where to look, and costs next to nothing: who has the bytes takes only this of all that he has, and the
/// strong hash only of what he copies. Whoever makes collisions gains a chunk that is fetched for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WeakHash(pub u32);

impl WeakHash {
    /// The hash of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_xxh3(xxh3_64(bytes))
    }

    /// The half of a hash that was taken piece by piece.
    pub fn from_xxh3(hash: u64) -> Self {
        Self(hash as u32)
    }
}

/// The bytes of a [`StrongHash`].
pub const STRONG_HASH_BYTES: usize = 20;

/// The strong hash of a chunk: the first 20 bytes of its BLAKE3.
///
/// Equal hashes pass for equal bytes, and who writes a file at the source may choose both versions of it. So it must
/// be a hash that nobody can make collisions for. 20 bytes take 2^80 attempts; 16 would take 2^64, which has been done
/// for other hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StrongHash(pub [u8; STRONG_HASH_BYTES]);

impl StrongHash {
    /// The hash of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_blake3(&blake3::hash(bytes))
    }

    /// The beginning of a hash that was taken piece by piece.
    pub fn from_blake3(hash: &blake3::Hash) -> Self {
        Self(beginning(hash.as_bytes()))
    }
}

/// The bytes of a [`RangeHash`].
pub const RANGE_HASH_BYTES: usize = 32;

/// The hash of a range of a file, for those who compare without copying: BLAKE3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RangeHash(pub [u8; RANGE_HASH_BYTES]);

/// The beginning of a hash.
pub(crate) fn beginning<const N: usize>(hash: &[u8; RANGE_HASH_BYTES]) -> [u8; N] {
    const { assert!(N <= RANGE_HASH_BYTES) };
    std::array::from_fn(|at| hash[at])
}

/// One chunk of a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignedChunk {
    /// Its length in bytes, never 0.
    pub len: u32,
    /// Of its bytes: where to look.
    pub weak: WeakHash,
    /// Of its bytes: whether they are the same.
    pub hash: StrongHash,
}

impl SignedChunk {
    /// A chunk of these bytes, at most as many as the longest coarse chunk has.
    pub fn of(bytes: &[u8]) -> Self {
        Self { len: bytes.len() as u32, weak: WeakHash::of(bytes), hash: StrongHash::of(bytes) }
    }
}

/// Appends a list to `out`.
pub fn encode_signature(chunks: &[SignedChunk], out: &mut Vec<u8>) {
    for chunk in chunks {
        out.extend_from_slice(&chunk.len.to_be_bytes()[4 - LEN_BYTES..]);
        out.extend_from_slice(&chunk.weak.0.to_be_bytes());
        out.extend_from_slice(&chunk.hash.0);
    }
}

/// Decodes a list.
///
/// # Errors
/// A torn last chunk, or one that is empty or longer than chunks of this level are.
pub fn decode_signature(level: Level, body: &[u8]) -> Result<Vec<SignedChunk>, WireError> {
    let max = level.chunk_bytes_max();
    let mut reader = Reader::new(body);
    let mut chunks = Vec::with_capacity(body.len() / SIGNED_CHUNK_BYTES);
    for _ in 0..body.len().div_ceil(SIGNED_CHUNK_BYTES) {
        let [high, middle, low]: [u8; LEN_BYTES] = reader.array()?;
        let len = u32::from_be_bytes([0, high, middle, low]);
        if len == 0 || u64::from(len) > max {
            return Err(WireError::TooLong { field: "chunk_len", value: len.into(), max });
        }
        chunks.push(SignedChunk { len, weak: WeakHash(reader.u32()?), hash: StrongHash(reader.array()?) });
    }
    Ok(chunks)
}

/// The body of a piece of kind *hash*.
pub fn encode_hash(hash: RangeHash) -> [u8; RANGE_HASH_BYTES] {
    hash.0
}

/// Decodes the body of a piece of kind *hash*.
///
/// # Errors
/// A body of another length.
pub fn decode_hash(body: &[u8]) -> Result<RangeHash, WireError> {
    let mut reader = Reader::new(body);
    let hash = RangeHash(reader.array()?);
    reader.finish()?;
    Ok(hash)
}
