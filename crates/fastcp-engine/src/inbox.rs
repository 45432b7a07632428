//! Reading messages off a connection with few calls.
//!
//! One receive takes whatever has arrived; headers are decoded and small bodies written straight out
//! of the buffer. A body that is spliced first gets what is buffered of it, then the socket itself.

use fastcp_net::{Connection, NetError};

/// Enough for the pipeline of small answers that arrive together, little enough to stay in cache.
const INBOX_BYTES: usize = 256 << 10;

pub(crate) struct Inbox {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    supply: Supply,
}

/// Whether more can come.
#[derive(PartialEq, Eq)]
enum Supply {
    Connection,
    Nothing,
}

impl Inbox {
    pub(crate) fn new() -> Self {
        Self { buffer: vec![0; INBOX_BYTES], start: 0, end: 0, supply: Supply::Connection }
    }

    /// An inbox that holds these bytes and never gets more: messages that came inside another.
    pub(crate) fn of(bytes: Vec<u8>) -> Self {
        Self { start: 0, end: bytes.len(), buffer: bytes, supply: Supply::Nothing }
    }

    /// What has arrived and not been taken.
    pub(crate) fn buffered(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Takes bytes that are buffered.
    pub(crate) fn consume(&mut self, count: usize) {
        assert!(count <= self.end - self.start, "consumed more than was buffered");
        self.start += count;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Waits until `count` bytes are buffered. `false` where the peer closed before the first of them.
    pub(crate) fn fill_to(&mut self, connection: &Connection, count: usize) -> Result<bool, NetError> {
        assert!(self.supply == Supply::Nothing || count <= self.buffer.len(), "a message is larger than the inbox");
        while self.end - self.start < count {
            if self.receive(connection)? == 0 {
                return if self.start == self.end { Ok(false) } else { Err(NetError::Closed) };
            }
        }
        Ok(true)
    }

    /// Receives once, after whatever is buffered; answers how many bytes came.
    pub(crate) fn receive(&mut self, connection: &Connection) -> Result<usize, NetError> {
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
    pub(crate) fn take<const N: usize>(&mut self, connection: &Connection) -> Result<[u8; N], NetError> {
        if !self.fill_to(connection, N)? {
            return Err(NetError::Closed);
        }
        let taken = self.buffered().first_chunk::<N>().copied().ok_or(NetError::Closed)?;
        self.consume(N);
        Ok(taken)
    }

    /// Fills `out`, from the buffer first.
    pub(crate) fn take_into(&mut self, connection: &Connection, out: &mut [u8]) -> Result<(), NetError> {
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
