//! The CRC-32 of zero bytes, without the bytes: the holes of a file are never read.

use crate::crc_runs::combine;

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
    use super::crc_of_zeros;

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
