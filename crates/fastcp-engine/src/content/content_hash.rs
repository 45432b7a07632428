//! The hash of a whole file, as manifests have it.
//!
//! BLAKE3 and SHA-256 hold against somebody who makes up bytes to fit; the first is faster by far, the second has a
//! program on every system. XXH3-128 finds accidents and is as fast as memory. All are of all bytes of the file,
//! holes as zeros. Written as lower-case hexadecimal digits, XXH3-128 as the number that it is.

use std::fmt;

use fastcp_model::hex_digit;
use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::Xxh3;

use crate::settings::ManifestHash;

/// The hash of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ContentHash {
    Blake3([u8; 32]),
    Xxh3(u128),
    Sha256([u8; 32]),
}

impl ContentHash {
    /// Reads what [`fmt::Display`] writes; `None` for anything else.
    pub(crate) fn parse(hash: ManifestHash, text: &[u8]) -> Option<Self> {
        Some(match hash {
            ManifestHash::Blake3 => Self::Blake3(bytes_of_hex(text)?),
            ManifestHash::Xxh3 => Self::Xxh3(u128::from_be_bytes(bytes_of_hex(text)?)),
            ManifestHash::Sha256 => Self::Sha256(bytes_of_hex(text)?),
        })
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Xxh3(hash) => write!(f, "{hash:032x}"),
            Self::Blake3(hash) | Self::Sha256(hash) => hash.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}

fn bytes_of_hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let (pairs, rest) = text.as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = hex_digit(*high)? << 4 | hex_digit(*low)?;
    }
    Some(bytes)
}

/// Takes a file's bytes in order.
pub(crate) enum ContentHasher {
    Blake3(Box<blake3::Hasher>),
    Xxh3(Box<Xxh3>),
    Sha256(Box<Sha256>),
}

impl ContentHasher {
    pub(crate) fn new(hash: ManifestHash) -> Self {
        match hash {
            ManifestHash::Blake3 => Self::Blake3(Box::default()),
            ManifestHash::Xxh3 => Self::Xxh3(Box::default()),
            ManifestHash::Sha256 => Self::Sha256(Box::default()),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Blake3(hasher) => {
                hasher.update(bytes);
            }
            Self::Xxh3(hasher) => hasher.update(bytes),
            Self::Sha256(hasher) => hasher.update(bytes),
        }
    }

    pub(crate) fn finish(self) -> ContentHash {
        match self {
            Self::Blake3(hasher) => ContentHash::Blake3(*hasher.finalize().as_bytes()),
            Self::Xxh3(hasher) => ContentHash::Xxh3(hasher.digest128()),
            Self::Sha256(hasher) => ContentHash::Sha256((*hasher).finalize().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ContentHash, ContentHasher, ManifestHash};

    #[test]
    fn hashes_are_those_that_other_programs_compute() {
        // The first from FIPS 180-2, the others for no bytes, as `xxhsum -H2` and `b3sum` print them.
        let known = [
            (ManifestHash::Sha256, &b"abc"[..], "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (ManifestHash::Xxh3, b"", "99aa06d3014798d86001c324468d497f"),
            (ManifestHash::Blake3, b"", "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"),
        ];
        for (kind, bytes, text) in known {
            let mut hasher = ContentHasher::new(kind);
            bytes.iter().for_each(|byte| hasher.update(&[*byte]));
            let hash = hasher.finish();
            assert_eq!(hash.to_string(), text);
            assert_eq!(ContentHash::parse(kind, text.as_bytes()), Some(hash));
            for wrong in [&text[1..], &text.replace('0', "g"), &format!("{text}0"), &text.to_uppercase(), ""] {
                assert_eq!(ContentHash::parse(kind, wrong.as_bytes()), None, "{wrong}");
            }
        }
    }

    #[test]
    fn names_round_trip() {
        for hash in ManifestHash::ALL {
            assert_eq!(ManifestHash::from_name(hash.name().as_bytes()), Some(hash));
        }
        assert_eq!(ManifestHash::from_name(b"md5"), None);
    }
}
