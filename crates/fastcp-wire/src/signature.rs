//! Signatures: a range of a file as the list of content-defined chunks that it is made of.
//!
//! A list is the body of a piece of kind *signature*: for each chunk its length and the XXH3-128 of its
//! bytes, in order, from the start of the range that was asked for. Where the cuts fall is the sender's
//! affair (`docs/protocol.md`, "Cuts"); a receiver that cuts in the same way finds the same chunks in
//! what it has.

use crate::WireError;
use crate::limits::{
    FINE_CANDIDATE_EVERY, FINE_CHUNK_BYTES_MAX, FINE_CHUNK_BYTES_MIN, SIGNATURE_CANDIDATE_EVERY,
    SIGNATURE_CHUNK_BYTES_MAX, SIGNATURE_CHUNK_BYTES_MIN,
};
use crate::reader::Reader;

/// The bytes of one chunk in a list.
pub const SIGNED_CHUNK_BYTES: usize = 20;

/// How long chunks are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Level {
    /// About 160 KiB. The list starts at the start of the range, and ends with the first cut at or past its
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

/// The strong hash of some bytes: XXH3-128.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StrongHash(pub u128);

/// One chunk of a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignedChunk {
    /// Its length in bytes, never 0.
    pub len: u32,
    /// Of its bytes.
    pub hash: StrongHash,
}

/// Appends a list to `out`.
pub fn encode_signature(chunks: &[SignedChunk], out: &mut Vec<u8>) {
    for chunk in chunks {
        out.extend_from_slice(&chunk.len.to_be_bytes());
        out.extend_from_slice(&chunk.hash.0.to_be_bytes());
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
        let len = reader.u32()?;
        if len == 0 || u64::from(len) > max {
            return Err(WireError::TooLong { field: "chunk_len", value: len.into(), max });
        }
        chunks.push(SignedChunk { len, hash: strong_hash(&mut reader)? });
    }
    Ok(chunks)
}

/// The body of a piece of kind *hash*.
pub fn encode_hash(hash: StrongHash) -> [u8; 16] {
    hash.0.to_be_bytes()
}

/// Decodes the body of a piece of kind *hash*.
///
/// # Errors
/// A body of another length.
pub fn decode_hash(body: &[u8]) -> Result<StrongHash, WireError> {
    let mut reader = Reader::new(body);
    let hash = strong_hash(&mut reader)?;
    reader.finish()?;
    Ok(hash)
}

fn strong_hash(reader: &mut Reader<'_>) -> Result<StrongHash, WireError> {
    let bytes = reader.bytes(16)?;
    Ok(StrongHash(bytes.iter().fold(0, |hash, byte| hash << 8 | u128::from(*byte))))
}
