//! What the sender says its bytes are: the only thing that lets a file have its name.
//!
//! A [`RangeCrc`] is the CRC-32 that one answer carried, for the range that was asked about. It is made here, of bytes
//! as they come off the connection, and nowhere else: code that has only its own checksum at hand cannot make one.
//! [`WholeCrc`] is that of all of a file, from the answer that brought the whole of it or from all its confirmations
//! together, and `part.rs` gives no name without one. Confirmations are kept as ranges: one that arrives twice is
//! still one. Which file an answer is about is `answered.rs`'s to say.

use std::ops::Deref;
use std::time::Instant;

use fastcp_model::{ByteRange, Status};
use fastcp_net::{Connection, Inbox, NetError};
use fastcp_wire::WireError;
use fastcp_wire::reply::{PIECE_HEADER_BYTES, PieceHeader, REPLY_BYTES, Reply, TRAILER_BYTES, Trailer};

use crate::content::crc_runs::CrcRuns;
use crate::content::zeros::crc_of_zeros;

/// The header of an answer as it arrived.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heard(PieceHeader);

impl Heard {
    /// Takes a header off the connection.
    pub(crate) fn take(inbox: &mut Inbox, connection: &Connection) -> Result<Self, NetError> {
        let bytes = inbox.take::<PIECE_HEADER_BYTES>(connection)?;
        Ok(Self(PieceHeader::decode(&bytes)?))
    }

    /// The CRC-32 in the answer to a request for a confirmation of this range; `None` where the sender refuses.
    pub(crate) fn confirms(&self, range: ByteRange) -> Option<RangeCrc> {
        (self.reply.status == Status::Ok).then_some(RangeCrc { range, crc: self.reply.crc32 })
    }
}

impl Deref for Heard {
    type Target = PieceHeader;

    fn deref(&self) -> &PieceHeader {
        &self.0
    }
}

/// The reply of a server that speaks plain FTQ1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeardPlain(Reply);

impl HeardPlain {
    /// Takes the reply off the connection, waiting for it no longer than until `deadline`.
    pub(crate) fn take_by(connection: &Connection, deadline: Instant) -> Result<Self, NetError> {
        let mut bytes = [0; REPLY_BYTES];
        connection.read_first_by(&mut bytes, deadline)?;
        Ok(Self(Reply::decode(&bytes)?))
    }

    /// The CRC-32 of the whole file.
    pub(crate) fn whole(&self) -> WholeCrc {
        WholeCrc(self.0.crc32)
    }

    /// Whether that may stand for none: some servers give 0.
    pub(crate) fn not_given(&self) -> Option<NotGiven> {
        (self.0.crc32 == 0).then_some(NotGiven(()))
    }
}

impl Deref for HeardPlain {
    type Target = Reply;

    fn deref(&self) -> &Reply {
        &self.0
    }
}

/// A plain server's word that it gives no CRC-32: then the length is all that there is to check.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NotGiven(());

/// The sender's CRC-32 of a range.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RangeCrc {
    range: ByteRange,
    crc: u32,
}

impl RangeCrc {
    /// Takes the trailer of the answer about `range` off the connection, whose body has been taken: the CRC-32, and how
    /// it went. A trailer that cannot be read was damaged.
    pub(crate) fn take_trailer(
        range: ByteRange,
        inbox: &mut Inbox,
        connection: &Connection,
    ) -> Result<Result<(Self, Status), WireError>, NetError> {
        let bytes = inbox.take::<TRAILER_BYTES>(connection)?;
        Ok(Trailer::decode(&bytes).map(|Trailer { crc32, status }| (Self { range, crc: crc32 }, status)))
    }

    /// The same, of the range that is a hole: the trailer of such an answer repeats the CRC-32 of its body, and what
    /// the body says is that the range is zeros. As it is where the body was damaged.
    pub(crate) fn of_hole(self, body_crc: u32) -> Self {
        let crc = if self.crc == body_crc { crc_of_zeros(self.range.len()) } else { self.crc };
        Self { crc, ..self }
    }

    pub(crate) fn crc(&self) -> u32 {
        self.crc
    }

    pub(crate) fn range(&self) -> ByteRange {
        self.range
    }

    /// The CRC-32 of a file of this length, where the range is all of it.
    pub(crate) fn of_whole(&self, file_bytes: u64) -> Option<WholeCrc> {
        (self.range.start() == 0 && self.range.len() == file_bytes).then_some(WholeCrc(self.crc))
    }

    /// For tests of what follows from it.
    #[cfg(test)]
    pub(crate) fn claimed(range: ByteRange, crc: u32) -> Self {
        Self { range, crc }
    }
}

/// Which ranges of one file the sender has confirmed.
#[derive(Debug, Default)]
pub(crate) struct Confirmed(CrcRuns);

impl Confirmed {
    /// Adds a confirmation; answers the CRC-32 of the file of this length once nothing of it is missing.
    pub(crate) fn add(&mut self, confirmed: &RangeCrc, file_bytes: u64) -> Option<WholeCrc> {
        self.0.insert(confirmed.range, confirmed.crc);
        self.0.whole(file_bytes).map(WholeCrc)
    }
}

/// The CRC-32 of a whole file at the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WholeCrc(u32);

impl WholeCrc {
    pub(crate) fn crc(self) -> u32 {
        self.0
    }

    /// For tests of what follows from it.
    #[cfg(test)]
    pub(crate) fn claimed(crc: u32) -> Self {
        Self(crc)
    }
}
