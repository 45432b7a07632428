//! Carries packets from one device to the other when their time has come.
//!
//! Each direction is one thread that shares nothing with the other but the two devices: it takes in what
//! the near device has to send, asks the [`Schedule`], and writes to the far one what is due. Writing
//! runs the receiving host's whole network stack, so most of the thread's time is the kernel's.
//!
//! A wake for each packet would cost more than the packet. After a round that moved something the thread
//! rests before it looks again, as a network card holds back its interrupts, and only after one that did
//! not it waits for the next packet or the next time. So under load a packet is late by up to a rest,
//! at each device, and a lone packet on a quiet line is not. Time that was lost is not made up for by
//! the schedule: who is late goes at once, and the next one at its own time.

use std::fs::File;
use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fastcp_sys::process::put_thread_first;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::prctl::set_timerslack;
use nix::sys::time::TimeSpec;

use super::ring::{PACKET_BYTES_MAX, PacketRing};
use super::schedule::{Fate, Schedule};
use super::{DirectionCounters, LinkSettings};

/// The longest rest between two rounds.
const REST_MAX: Duration = Duration::from_micros(200);

/// Rests in a round trip where it is short: how precise the delay is under load.
const RESTS_PER_ROUND_TRIP: u32 = 200;

/// By how much the kernel may prolong a rest; its usual 50 us are much of one.
const TIMER_SLACK_NS: u64 = 5_000;

/// Packets taken in before those that are due get their turn.
const ROUND_PACKETS: usize = 64;

/// The memory for packets on an unlimited line, and the most for any other. If it is full, packets wait
/// in the device.
const RING_BYTES_MAX: f64 = (256_u64 << 20) as f64;

/// A packet later than this means that the machine, not the link, set the pace.
const LATE: Duration = Duration::from_millis(1);

/// Both directions, until dropped.
#[derive(Debug)]
pub(super) struct Carriers {
    /// Closing it ends the threads. An option, so that it can be closed before they are waited for.
    stop: Option<PipeWriter>,
    threads: Vec<JoinHandle<()>>,
    counters: [Arc<Mutex<DirectionCounters>>; 2],
}

impl Carriers {
    /// Starts to carry between two devices whose descriptors do not block.
    pub(super) fn start(settings: &LinkSettings, seeds: [u64; 2], devices: &[File; 2]) -> io::Result<Self> {
        let (stopped, stop) = io::pipe()?;
        let mut carriers = Self { stop: Some(stop), threads: Vec::new(), counters: Default::default() };
        for (direction, name) in ["link-to-far", "link-to-near"].into_iter().enumerate() {
            let carrier = Carrier {
                from: devices[direction].try_clone()?,
                to: devices[1 - direction].try_clone()?,
                stopped: stopped.try_clone()?,
                started: Instant::now(),
                rest: REST_MAX.min(settings.round_trip / RESTS_PER_ROUND_TRIP),
                schedule: Schedule::new(settings, seeds[direction]),
                ring: PacketRing::new(ring_bytes(settings)),
                counted: DirectionCounters::default(),
                counters: Arc::clone(&carriers.counters[direction]),
            };
            let thread = thread::Builder::new().name(name.to_owned()).spawn(|| carrier.carry())?;
            carriers.threads.push(thread);
        }
        Ok(carriers)
    }

    /// What was counted up to the last round of each.
    pub(super) fn counters(&self) -> [DirectionCounters; 2] {
        [0, 1].map(|direction| *self.counters[direction].lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Carriers {
    fn drop(&mut self) {
        self.stop = None;
        for thread in self.threads.drain(..) {
            // A carrier that panicked has said so; the rest is to be taken down all the same.
            let _ = thread.join();
        }
    }
}

/// What can be under way at once: all that the queue and the wire hold, and a tenth of a second more
/// for a machine that is late.
fn ring_bytes(settings: &LinkSettings) -> usize {
    let held = settings.queue + settings.round_trip / 2 + Duration::from_millis(100);
    match settings.rate_bits {
        0 => RING_BYTES_MAX as usize,
        rate => (rate as f64 / 8.0 * held.as_secs_f64()).min(RING_BYTES_MAX) as usize + PACKET_BYTES_MAX,
    }
}

/// One direction.
#[derive(Debug)]
struct Carrier {
    from: File,
    to: File,
    stopped: PipeReader,
    started: Instant,
    rest: Duration,
    schedule: Schedule,
    ring: PacketRing,
    counted: DirectionCounters,
    counters: Arc<Mutex<DirectionCounters>>,
}

impl Carrier {
    /// Carries until the other end of `stopped` is closed or the device is gone.
    fn carry(mut self) {
        // Without either the link is as good, only later.
        let _ = set_timerslack(TIMER_SLACK_NS);
        // A host's programs do not hold up the wire or another host's network stack. On two cores that two
        // other programs kept busy, 60,000 of 200,000 packets were late without it, and 500 with it.
        let _ = put_thread_first();
        loop {
            let woken = Instant::now();
            let delivered_count = self.deliver(self.now_ns());
            let Ok(taken_count) = self.take_in() else { return };
            *self.counters.lock().unwrap_or_else(PoisonError::into_inner) = self.counted;
            // While the ring is full the device stays readable, and waiting for it would be spinning.
            let is_quiet = delivered_count + taken_count == 0 && self.ring.room().is_some();
            if !is_quiet {
                thread::sleep(self.rest.saturating_sub(woken.elapsed()));
            }
            if !self.goes_on(if is_quiet { self.due_in() } else { Some(Duration::ZERO) }) {
                return;
            }
        }
    }

    fn now_ns(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// Writes the packets that have arrived by `now_ns`, and answers how many.
    fn deliver(&mut self, now_ns: u64) -> usize {
        let mut count = 0;
        while let Some(arrives_ns) = self.ring.next_arrival_ns().filter(|&at_ns| at_ns <= now_ns) {
            self.count_late(Duration::from_nanos(now_ns - arrives_ns));
            if let Some(packet) = self.ring.oldest()
                // The kernel refuses when it has no memory, or while the device is down.
                && self.to.write(packet).is_err()
            {
                self.counted.refused += 1;
            }
            self.ring.pop();
            count += 1;
        }
        count
    }

    fn count_late(&mut self, late: Duration) {
        self.counted.late += u64::from(late > LATE);
        self.counted.late_max = self.counted.late_max.max(late);
    }

    /// Takes in what the device has, as far as it is one round's work, and answers how many packets.
    fn take_in(&mut self) -> io::Result<usize> {
        for count in 0..ROUND_PACKETS {
            let Some(room) = self.ring.room() else { return Ok(count) };
            match self.from.read(room) {
                Ok(len) => self.decide(len),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    return Ok(count);
                }
                // EBADFD: somebody took the device away.
                Err(error) => return Err(error),
            }
        }
        Ok(ROUND_PACKETS)
    }

    /// Keeps the packet that was just read, or not.
    fn decide(&mut self, len: usize) {
        self.counted.packets += 1;
        self.counted.bytes += len as u64;
        // The time after the read: a packet may be taken for a little late, never for early.
        match self.schedule.admit(self.now_ns(), len) {
            Fate::Arrives { at_ns } => self.ring.push(len, at_ns),
            Fate::Lost => self.counted.lost += 1,
            Fate::Overflowed => self.counted.overflowed += 1,
        }
    }

    /// How long until the next packet is due; `None` if there is none.
    fn due_in(&self) -> Option<Duration> {
        let arrives_ns = self.ring.next_arrival_ns()?;
        Some(Duration::from_nanos(arrives_ns.saturating_sub(self.now_ns())))
    }

    /// Waits for a packet, at most for `timeout`; answers whether there is reason to go on.
    fn goes_on(&self, timeout: Option<Duration>) -> bool {
        let mut watched =
            [PollFd::new(self.stopped.as_fd(), PollFlags::empty()), PollFd::new(self.from.as_fd(), PollFlags::POLLIN)];
        match ppoll(&mut watched, timeout.map(TimeSpec::from_duration), None) {
            Ok(_) => watched[0].any() == Some(false),
            Err(errno) => errno == Errno::EINTR,
        }
    }
}
