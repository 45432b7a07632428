//! Reading messages off a connection with few calls.
//!
//! One receive takes whatever has arrived; headers are decoded and small bodies written straight out
//! of the buffer. A body that is spliced first gets what is buffered of it, then the socket itself.

use crate::{Connection, NetError};

/// Enough for the pipeline of small answers that arrive together, little enough to stay in cache.
const INBOX_BYTES: usize = 256 << 10;

/// What has arrived on a connection and was not taken yet.
#[derive(Debug)]
pub struct Inbox {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    supply: Supply,
}

/// Whether more can come.
#[derive(Debug, PartialEq, Eq)]
enum Supply {
    Connection,
    Nothing,
}

impl Inbox {
    /// An inbox of a connection.
    #[expect(clippy::new_without_default, reason = "it allocates")]
    pub fn new() -> Self {
        Self { buffer: vec![0; INBOX_BYTES], start: 0, end: 0, supply: Supply::Connection }
    }

    /// An inbox that holds these bytes and never gets more: messages that came inside another.
    pub fn of(bytes: Vec<u8>) -> Self {
        Self { start: 0, end: bytes.len(), buffer: bytes, supply: Supply::Nothing }
    }

    /// What has arrived and not been taken.
    pub fn buffered(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Takes bytes that are buffered.
    ///
    /// # Panics
    /// Where fewer are.
    pub fn consume(&mut self, count: usize) {
        assert!(count <= self.end - self.start, "consumed more than was buffered");
        self.start += count;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Waits until `count` bytes are buffered. `false` where the peer closed before the first of them.
    ///
    /// # Errors
    /// The connection broke, or was closed in the middle of them.
    pub fn fill_to(&mut self, connection: &Connection, count: usize) -> Result<bool, NetError> {
        assert!(self.supply == Supply::Nothing || count <= self.buffer.len(), "a message is larger than the inbox");
        while self.end - self.start < count {
            if self.receive(connection)? == 0 {
                return if self.start == self.end { Ok(false) } else { Err(NetError::Closed) };
            }
        }
        Ok(true)
    }

    /// Receives once, after whatever is buffered; answers how many bytes came.
    ///
    /// # Errors
    /// The connection broke.
    pub fn receive(&mut self, connection: &Connection) -> Result<usize, NetError> {
        if self.supply == Supply::Nothing {
            return Ok(0);
        }
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let count = connection.read_some(&mut self.buffer[self.end..])?;
        self.end += count;
        Ok(count)
    }

    /// Takes a fixed number of bytes, waiting for them.
    ///
    /// # Errors
    /// The connection broke, or was closed before all had come.
    pub fn take<const N: usize>(&mut self, connection: &Connection) -> Result<[u8; N], NetError> {
        if !self.fill_to(connection, N)? {
            return Err(NetError::Closed);
        }
        let taken = self.buffered().first_chunk::<N>().copied().ok_or(NetError::Closed)?;
        self.consume(N);
        Ok(taken)
    }

    /// Fills `out`, from the buffer first.
    ///
    /// # Errors
    /// As [`Inbox::take`].
    pub fn take_into(&mut self, connection: &Connection, out: &mut [u8]) -> Result<(), NetError> {
        let ready = out.len().min(self.end - self.start);
        out[..ready].copy_from_slice(&self.buffered()[..ready]);
        self.consume(ready);
        match (ready == out.len(), &self.supply) {
            (true, _) => Ok(()),
            (false, Supply::Connection) => connection.read_exact(&mut out[ready..]),
            (false, Supply::Nothing) => Err(NetError::Closed),
        }
    }
}
