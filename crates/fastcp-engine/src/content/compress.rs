//! Ranges as zstd, where that makes them fewer bytes.

use zstd::bulk::Compressor;

/// Ranges shorter than this go as they are: the frame's own overhead eats the gain.
const COMPRESS_BYTES_MIN: usize = 256;
/// How much is tried before a whole range is.
pub(crate) const SAMPLE_BYTES: usize = 16 << 10;
/// zstd's fastest level, for the sample: 3 us on random bytes, 26 on text.
const SAMPLE_LEVEL: i32 = -5;

/// One connection's compressor: contexts are costly to make, so they are kept.
pub(crate) struct RangeCompressor {
    level: i32,
    sampler: Compressor<'static>,
    compressor: Compressor<'static>,
    /// What comes out, before it is known whether it is short enough.
    shrunk: Vec<u8>,
}

impl RangeCompressor {
    /// A compressor, or `None` where zstd cannot get memory for it.
    pub(crate) fn new(level: i32) -> Option<Self> {
        let sampler = Compressor::new(SAMPLE_LEVEL).ok()?;
        Some(Self { level, sampler, compressor: Compressor::new(level).ok()?, shrunk: Vec::new() })
    }

    /// Changes the level for what comes next.
    pub(crate) fn set_level(&mut self, level: i32) {
        if level != self.level && self.compressor.set_compression_level(level).is_ok() {
            self.level = level;
        }
    }

    /// Appends the compressed bytes to `out` and answers their length; `None`, with `out` as it was,
    /// where they would not be at least a tenth fewer.
    pub(crate) fn compress(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        if bytes.len() < COMPRESS_BYTES_MIN || !self.would_shrink(middle_of(bytes)) {
            return None;
        }
        let length_max = bytes.len() - bytes.len() / 10;
        self.shrunk.clear();
        self.shrunk.reserve(length_max);
        match self.compressor.compress_to_buffer(bytes, &mut self.shrunk) {
            Ok(length) if length <= length_max => {
                out.extend_from_slice(&self.shrunk);
                Some(length)
            }
            Ok(_) => None,
            Err(_) => {
                // The context is left in the middle of a frame; a new one is the sure way out.
                if let Ok(fresh) = Compressor::new(self.level) {
                    self.compressor = fresh;
                }
                None
            }
        }
    }

    /// Whether a sample of at most [`SAMPLE_BYTES`] gets at least a tenth shorter.
    pub(crate) fn would_shrink(&mut self, sample: &[u8]) -> bool {
        let mut out = [0; SAMPLE_BYTES + 512];
        self.sampler.compress_to_buffer(sample, &mut out).is_ok_and(|length| length < sample.len() - sample.len() / 10)
    }
}

fn middle_of(bytes: &[u8]) -> &[u8] {
    let start = (bytes.len() / 2).saturating_sub(SAMPLE_BYTES / 2);
    &bytes[start..bytes.len().min(start + SAMPLE_BYTES)]
}

#[cfg(test)]
mod tests {
    use super::RangeCompressor;
    #[test]
    fn only_what_shrinks_is_compressed() {
        let mut compressor = RangeCompressor::new(1).expect("memory");
        let text = b"the same words again and again; ".repeat(4000);
        let mut state = 1u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .take(200_000)
        .collect();
        let mut out = vec![7];
        assert_eq!(compressor.compress(&noise, &mut out), None);
        assert_eq!(out, [7]);
        let length = compressor.compress(&text, &mut out).expect("shrinks");
        assert_eq!(zstd::bulk::decompress(&out[1..=length], text.len()).expect("valid"), text);
        let mixed = [&text[..60_000], &noise[..], &text[..60_000]].concat();
        assert_eq!(compressor.compress(&mixed, &mut out), None);
        assert!(compressor.compress(&text, &mut out).is_some(), "usable after a failure");
    }
}
