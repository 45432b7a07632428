//! Two files that XXH3 and CRC-32 take for one.
//!
//! Without a seed XXH3 multiplies the halves of each eight bytes after an exclusive or with a known secret. Where the
//! lower half becomes zero the product is zero, whatever the upper half; and the eight bytes themselves are added to a
//! neighbouring sum. So two such words of one column may exchange their upper halves. Each exchange changes the CRC-32
//! by a constant, and of 33 constants some have an exclusive or of zero.

/// The secret of XXH3, as far as the stripes reach that are used here.
#[rustfmt::skip]
const SECRET: [u8; 176] = [
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
    0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
    0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
    0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
    0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
    0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
    0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
    0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
    0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
    0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e,
    0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce,
];
const STRIPE_BYTES: usize = 64;
const LANE_BYTES: usize = 8;
/// The stripes of one block that are multiplied with the secret from its beginning on, but for the last.
const STRIPES: usize = 14;

/// Two words that may exchange their upper halves: where those are.
#[derive(Debug, Clone, Copy)]
struct Exchange {
    upper: [usize; 2],
}

impl Exchange {
    fn apply(self, bytes: &mut [u8]) {
        for at in 0..LANE_BYTES / 2 {
            bytes.swap(self.upper[0] + at, self.upper[1] + at);
        }
    }
}

/// Two versions of these bytes, at least 1,025 of them, whose first KiB was made up: different, but with the same
/// XXH3 (64 and 128 bits) and the same CRC-32, also of any beginning that is long enough.
pub(crate) fn colliding(mut bytes: Vec<u8>) -> [Vec<u8>; 2] {
    let mut exchanges = Vec::new();
    for stripe in (0..STRIPES).step_by(2) {
        for lane in 0..STRIPE_BYTES / LANE_BYTES {
            let upper = [stripe, stripe + 1].map(|stripe| {
                let (word, secret) = (stripe * STRIPE_BYTES + lane * LANE_BYTES, (stripe + lane) * LANE_BYTES);
                bytes[word..word + 4].copy_from_slice(&SECRET[secret..secret + 4]);
                word + LANE_BYTES / 2
            });
            exchanges.push(Exchange { upper });
        }
    }
    let mut other = bytes.clone();
    for exchange in without_effect(&bytes, &exchanges) {
        exchange.apply(&mut other);
    }
    [bytes, other]
}

/// Some exchanges that leave the CRC-32 as it is, together.
fn without_effect(bytes: &[u8], exchanges: &[Exchange]) -> Vec<Exchange> {
    // For each bit the one combination that has it as its highest, and which exchanges it is made of.
    let mut by_highest: [Option<(u32, u64)>; 32] = [None; 32];
    for (number, exchange) in exchanges.iter().enumerate() {
        let mut exchanged = bytes.to_vec();
        exchange.apply(&mut exchanged);
        let (mut effect, mut of) = (crc32fast::hash(&exchanged) ^ crc32fast::hash(bytes), 1u64 << number);
        while effect != 0 {
            let highest = effect.ilog2() as usize;
            match by_highest[highest] {
                Some((known, of_known)) => (effect, of) = (effect ^ known, of ^ of_known),
                None => {
                    by_highest[highest] = Some((effect, of));
                    break;
                }
            }
        }
        if effect == 0 {
            let chosen = exchanges.iter().enumerate().filter(|(nth, _)| of >> nth & 1 == 1);
            return chosen.map(|(_, exchange)| *exchange).collect();
        }
    }
    unreachable!("33 numbers of 32 bits depend on each other")
}
