//! Word to the receiver that an answer is being worked on.
//!
//! Reading a gigabyte from a slow disk takes longer than a receiver waits for a byte. Whoever reads for an answer
//! tells the pulse how much, from any thread; once a second one of them sends a piece of kind *progress*
//! (`docs/protocol.md`). Answers that were gathered before go first: what is on the connection stays in order. Where the
//! receiver reads nothing, nothing is sent: whoever computes may be waited for by others, and waits for nobody.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fastcp_net::{Connection, NetError};
use fastcp_wire::limits::PROGRESS_BYTES_MIN;
use fastcp_wire::progress::Progress;

use crate::lock::Lock;

/// A fraction of the shortest time that anybody waits for a byte (`patience.rs`).
const PULSE_EVERY: Duration = Duration::from_secs(1);

/// One answer in the making.
pub(super) struct Pulse<'a> {
    connection: &'a Connection,
    id: u32,
    every: Duration,
    done_bytes: AtomicU64,
    told: Lock<Told>,
}

struct Told {
    /// Answers that have not left yet.
    gathered: Vec<u8>,
    at: Instant,
    done_bytes: u64,
    result: Result<(), NetError>,
}

impl<'a> Pulse<'a> {
    /// The answer to the request with this id, which comes after `gathered`.
    pub(super) fn new(connection: &'a Connection, id: u32, gathered: Vec<u8>) -> Self {
        let told = Lock::leaf(Told { gathered, at: Instant::now(), done_bytes: 0, result: Ok(()) });
        Self { connection, id, every: PULSE_EVERY, done_bytes: AtomicU64::new(0), told }
    }

    /// More bytes were read for the answer; none, where it waits.
    ///
    /// # Errors
    /// Nobody is there any more to hear it.
    pub(super) fn read(&self, bytes: u64) -> io::Result<()> {
        if bytes == 0 && self.connection.is_gone() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let done_bytes = self.done_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        // Whoever holds it is sending.
        let Some(mut told) = self.told.try_lock() else { return Ok(()) };
        let is_enough = done_bytes >= told.done_bytes + PROGRESS_BYTES_MIN;
        if told.result.is_err() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        if !is_enough || told.at.elapsed() < self.every || !self.connection.takes_some() {
            return Ok(());
        }
        let header = Progress { id: self.id, done_bytes }.header().encode();
        told.gathered.extend_from_slice(&header);
        told.result = self.connection.write_all(&told.gathered);
        told.gathered.clear();
        (told.at, told.done_bytes) = (Instant::now(), done_bytes);
        Ok(())
    }

    /// The answer is there. Gives back what has not left yet.
    ///
    /// # Errors
    /// The connection broke while word was sent.
    pub(super) fn end(self) -> Result<Vec<u8>, NetError> {
        let told = self.told.into_inner();
        told.result.map(|()| told.gathered)
    }
}
