//! A little of what a fuzzer does, from seeds, so that every run of the tests has its share of it.

/// Hands each of `seeds` to `check`, as it is and `rounds` times with some bytes changed, cut, doubled or taken out.
pub(crate) fn mutated(seeds: &[&[u8]], rounds: u64, check: impl Fn(&[u8])) {
    for seed in seeds {
        check(seed);
    }
    let mut random = Random(1);
    for _ in 0..rounds {
        let mut bytes = seeds[random.below(seeds.len())].to_vec();
        for _ in 0..=random.below(3) {
            mutate(&mut bytes, &mut random);
        }
        check(&bytes);
    }
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(bytes.len() + 1);
    let end = at + random.below(bytes.len() - at + 1).min(64);
    match random.below(6) {
        0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        1 if at < bytes.len() => bytes[at] = [0, 1, 2, b' ', b'\n', b'\\', 0x7f, 0xff][random.below(8)],
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(at..end)),
        4 => {
            let part = bytes[at..end].to_vec();
            let to = random.below(bytes.len() + 1);
            drop(bytes.splice(to..to, part));
        }
        _ => drop(bytes.splice(at..at, (0..random.below(40)).map(|_| random.next() as u8).collect::<Vec<_>>())),
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}
