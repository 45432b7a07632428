//! The packets on their way: bytes in one preallocated ring, times in a queue beside it.
//!
//! Nothing is allocated for a packet and nothing is copied twice: it is read from one device straight
//! into [`room`](PacketRing::room), kept there by [`push`](PacketRing::push), or not, and written to the
//! other device from where it lies. A packet is never split over the end of the ring. The memory is the
//! kernel's zero page until packets have been there, so that a generous ring costs nothing.
//!
//! Invariant: from the oldest packet's start up to `tail`, going round, is taken; the rest is free. The
//! two are equal only when the ring is empty.

use std::collections::VecDeque;

/// The devices' MTU, and so the longest packet.
pub(super) const PACKET_BYTES_MAX: usize = 1500;

/// Packets in the order of their arrival.
#[derive(Debug)]
pub(super) struct PacketRing {
    bytes: Box<[u8]>,
    waiting: VecDeque<Waiting>,
    tail: usize,
}

#[derive(Debug)]
struct Waiting {
    arrives_ns: u64,
    start: usize,
    len: usize,
}

impl PacketRing {
    /// An empty ring for at least this many bytes of packets.
    pub(super) fn new(capacity_bytes: usize) -> Self {
        // What is lost where a packet does not fit before the end, and between `tail` and the oldest.
        let bytes = vec![0; capacity_bytes + 2 * PACKET_BYTES_MAX].into_boxed_slice();
        Self { bytes, waiting: VecDeque::new(), tail: 0 }
    }

    /// Where the next packet may be put; `None` while the ring is full.
    pub(super) fn room(&mut self) -> Option<&mut [u8]> {
        let is_free_at_end = self.bytes.len() - self.tail >= PACKET_BYTES_MAX;
        self.tail = match self.waiting.front() {
            None => 0,
            Some(oldest) if oldest.start < self.tail && is_free_at_end => self.tail,
            Some(oldest) if oldest.start < self.tail => (oldest.start > PACKET_BYTES_MAX).then_some(0)?,
            Some(oldest) => (oldest.start - self.tail > PACKET_BYTES_MAX).then_some(self.tail)?,
        };
        self.bytes.get_mut(self.tail..self.tail + PACKET_BYTES_MAX)
    }

    /// Keeps the first `len` bytes of what [`room`](Self::room) gave last.
    pub(super) fn push(&mut self, len: usize, arrives_ns: u64) {
        assert!((1..=PACKET_BYTES_MAX).contains(&len));
        self.waiting.push_back(Waiting { arrives_ns, start: self.tail, len });
        self.tail += len;
    }

    /// When the oldest packet arrives.
    pub(super) fn next_arrival_ns(&self) -> Option<u64> {
        self.waiting.front().map(|oldest| oldest.arrives_ns)
    }

    /// The oldest packet.
    pub(super) fn oldest(&self) -> Option<&[u8]> {
        self.waiting.front().map(|oldest| &self.bytes[oldest.start..oldest.start + oldest.len])
    }

    /// Forgets the oldest packet.
    pub(super) fn pop(&mut self) {
        self.waiting.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::{PACKET_BYTES_MAX, PacketRing};

    /// Puts a packet whose bytes tell it from its neighbours; answers whether there was room.
    fn put(ring: &mut PacketRing, number: u64, len: usize) -> bool {
        let Some(room) = ring.room() else { return false };
        room[..len].fill(number as u8);
        ring.push(len, number);
        true
    }

    fn take(ring: &mut PacketRing, number: u64, len: usize) {
        assert_eq!(ring.next_arrival_ns(), Some(number));
        assert!(ring.oldest().is_some_and(|packet| packet == vec![number as u8; len]));
        ring.pop();
    }

    fn len_of(number: u64) -> usize {
        1 + (number as usize * 7919) % PACKET_BYTES_MAX
    }

    #[test]
    fn packets_come_out_whole_and_in_order_however_full_the_ring_is() {
        for capacity in [0, 1, 1499, 1500, 1501, 10_000, 64 << 10] {
            let mut ring = PacketRing::new(capacity);
            let (mut put_count, mut taken_count) = (0, 0);
            for step in 0..20_000 {
                // Fills up and drains in waves of growing depth.
                let is_filling = step % 200 < 100 + step / 400;
                if is_filling && put(&mut ring, put_count, len_of(put_count)) {
                    put_count += 1;
                } else if taken_count < put_count {
                    take(&mut ring, taken_count, len_of(taken_count));
                    taken_count += 1;
                }
            }
            assert!(taken_count > 1000, "{capacity}: {taken_count}");
        }
    }

    #[test]
    fn the_ring_holds_what_was_asked_for_and_then_says_that_it_is_full() {
        for len in [40, 1499, 1500] {
            let mut ring = PacketRing::new(100 * len);
            let mut count = 0;
            while put(&mut ring, count, len) {
                count += 1;
            }
            assert!(count >= 100, "{count} of {len}");
            for number in 0..count {
                take(&mut ring, number, len);
            }
            assert!(ring.oldest().is_none() && ring.room().is_some());
        }
    }

    #[test]
    fn room_that_was_not_kept_is_given_again() {
        let mut ring = PacketRing::new(0);
        for _ in 0..100 {
            assert!(ring.room().is_some());
        }
        assert_eq!(ring.next_arrival_ns(), None);
    }
}
