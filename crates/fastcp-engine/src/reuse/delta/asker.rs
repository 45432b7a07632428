//! Signatures over one data connection: requests out, several at a time, lists in.
//!
//! Nothing that a sender says is believed before it is checked: the answer's id, its kind and length, the
//! checksum, that the list covers what was asked for and no more, and that the file is the one that was offered.
//! A list that arrives damaged is asked for again, behind what is on its way. A sender that breaks the protocol
//! ends the connection; a file that is not what it was, or is not to be had, ends nothing but itself.

use fastcp_model::{ByteRange, Status};
use fastcp_net::{Connection, Inbox, NetError};
use fastcp_wire::WireError;
use fastcp_wire::reply::{BodyKind, PIECE_HEADER_BYTES, PieceHeader, TRAILER_BYTES, Trailer};
use fastcp_wire::request::{Ask, RangeRequest};
use fastcp_wire::signature::{Level, SIGNED_CHUNK_BYTES, SignedChunk, decode_signature};

use crate::link::pipeline::Pipeline;

/// Requests on their way at most. More would run too far ahead of what the answers teach, and small files hold
/// their bases open meanwhile.
const OWED_MAX: usize = 128;
/// A list that arrived damaged is asked for again so often.
const ATTEMPTS_MAX: u32 = 5;

/// A data connection that owes nothing, lent for asking.
pub(crate) struct Asker<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) inbox: &'a mut Inbox,
    pub(crate) tally: Tally,
}

/// What was asked, and what came.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) requests: u64,
    /// Bytes of the file, or files, whose coarse lists came, and whose fine ones.
    pub(crate) coarse_bytes: u64,
    pub(crate) fine_bytes: u64,
    /// All that went to and fro.
    pub(crate) wire_bytes: u64,
    /// Lists that arrived damaged.
    pub(crate) asked_again: u64,
}

/// One request for a list.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'p> {
    /// Which file, where there are several.
    pub(crate) number: usize,
    pub(crate) path: &'p [u8],
    /// What the file must be for the list to count.
    pub(crate) file_bytes: u64,
    pub(crate) mtime_ns: u64,
    pub(crate) range: ByteRange,
    pub(crate) level: Level,
}

/// What came of a request.
#[derive(Debug)]
pub(crate) enum Listed {
    List(Vec<SignedChunk>),
    /// The file is not what it was when it was offered.
    Changed,
    /// The sender will not, or cannot.
    Refused(Status),
}

/// The requests of one search.
pub(crate) struct Search<'a, 'c, 'p> {
    asker: &'a mut Asker<'c>,
    owed: Pipeline<(Asked<'p>, Tries)>,
}

/// How often a request was made before.
type Tries = u32;

impl<'a> Asker<'a> {
    pub(crate) fn new(connection: &'a Connection, inbox: &'a mut Inbox) -> Self {
        Self { connection, inbox, tally: Tally::default() }
    }
}

impl<'a, 'c, 'p> Search<'a, 'c, 'p> {
    pub(crate) fn new(asker: &'a mut Asker<'c>) -> Self {
        Self { asker, owed: Pipeline::default() }
    }

    /// Whether one more request may go on its way.
    pub(crate) fn has_room(&self) -> bool {
        self.owed.has_room() && self.owed.len() < OWED_MAX
    }

    /// Asks, with the next answer that is waited for at the latest.
    pub(crate) fn ask(&mut self, asked: Asked<'p>) {
        self.put(asked, 0);
    }

    /// The next answer; `None` where nothing was asked.
    pub(crate) fn answer(&mut self) -> Result<Option<(Asked<'p>, Listed)>, NetError> {
        loop {
            self.owed.send(self.asker.connection)?;
            let Some(&(asked, attempt)) = self.owed.first() else { return Ok(None) };
            let outcome = self.read(&asked)?;
            self.owed.pop();
            match outcome {
                Some(outcome) => return Ok(Some((asked, outcome))),
                None if attempt < ATTEMPTS_MAX => {
                    self.asker.tally.asked_again += 1;
                    self.put(asked, attempt + 1);
                }
                None => return Err(WireError::Checksum("signature").into()),
            }
        }
    }

    /// Takes what is still to come, so that the connection owes nothing.
    pub(crate) fn drain(&mut self) -> Result<(), NetError> {
        while self.answer()?.is_some() {}
        Ok(())
    }

    fn put(&mut self, asked: Asked<'p>, attempt: Tries) {
        let (id, ask) = (self.owed.next_id(), Ask::Signature(asked.level));
        let request = RangeRequest { id, path: asked.path.into(), range: asked.range, ask };
        let request_bytes = self.owed.put((asked, attempt), |out| request.encode(out));
        self.asker.tally.requests += 1;
        self.asker.tally.wire_bytes += request_bytes as u64;
    }

    /// Reads one answer whole; `None` where it was damaged.
    fn read(&mut self, asked: &Asked<'_>) -> Result<Option<Listed>, NetError> {
        let header = self.owed.header(self.asker.inbox, self.asker.connection, Some(asked.range.len()))?;
        self.asker.tally.wire_bytes += PIECE_HEADER_BYTES as u64;
        let is_offered = header.reply.file_bytes == asked.file_bytes && header.reply.mtime_ns == asked.mtime_ns;
        match header.reply.status {
            Status::Ok => {}
            Status::Changed => return Ok(Some(Listed::Changed)),
            Status::BadRange if !is_offered => return Ok(Some(Listed::Changed)),
            other => return Ok(Some(Listed::Refused(other))),
        }
        let (body, trailer) = self.body(&header, asked)?;
        Ok(match trailer {
            Ok(Trailer { crc32, .. }) if crc32 != crc32fast::hash(&body) => None,
            // A status that is not known was damaged on its way: the checksum is not over it.
            Err(_) => None,
            _ if !is_offered => Some(Listed::Changed),
            Ok(Trailer { status: Status::Ok, .. }) => Some(Listed::List(self.list(asked, &body)?)),
            Ok(Trailer { status: Status::Changed, .. }) => Some(Listed::Changed),
            Ok(Trailer { status, .. }) => Some(Listed::Refused(status)),
        })
    }

    fn body(
        &mut self,
        header: &PieceHeader,
        asked: &Asked<'_>,
    ) -> Result<(Vec<u8>, Result<Trailer, WireError>), NetError> {
        if header.kind != BodyKind::Signature {
            return Err(WireError::Value { field: "kind", value: header.kind as u64 }.into());
        }
        let (value, max) = (u64::from(header.body_bytes), list_bytes_max(asked));
        if value > max {
            return Err(WireError::TooLong { field: "body_len", value, max }.into());
        }
        let mut body = vec![0; header.body_bytes as usize];
        self.asker.inbox.take_into(self.asker.connection, &mut body)?;
        let trailer = self.asker.inbox.take::<TRAILER_BYTES>(self.asker.connection)?;
        self.asker.tally.wire_bytes += value + TRAILER_BYTES as u64;
        Ok((body, Trailer::decode(&trailer)))
    }

    fn list(&mut self, asked: &Asked<'_>, body: &[u8]) -> Result<Vec<SignedChunk>, NetError> {
        let chunks = decode_signature(asked.level, body)?;
        let listed = check_list(asked, &chunks)?;
        match asked.level {
            Level::Coarse => self.asker.tally.coarse_bytes += listed,
            Level::Fine => self.asker.tally.fine_bytes += listed,
        }
        Ok(chunks)
    }
}

/// The longest list that whoever keeps to the shortest chunk has for a range.
fn list_bytes_max(asked: &Asked<'_>) -> u64 {
    (asked.range.len() / asked.level.chunk_bytes_min() + 2) * SIGNED_CHUNK_BYTES as u64
}

/// Whether a list is of what was asked for: how many bytes it covers.
fn check_list(asked: &Asked<'_>, chunks: &[SignedChunk]) -> Result<u64, WireError> {
    // No list is so long that this could overflow.
    let listed: u64 = chunks.iter().map(|chunk| u64::from(chunk.len)).sum();
    let wrong = || WireError::Value { field: "signature", value: listed };
    let end = asked.range.start().checked_add(listed).ok_or_else(wrong)?;
    let last = chunks.last().map_or(0, |chunk| u64::from(chunk.len));
    let is_right = match asked.level {
        Level::Fine => end == asked.range.end(),
        // The last chunk is the one that goes to or over the end of the range.
        Level::Coarse => end >= asked.range.end() && end - last < asked.range.end() && end <= asked.file_bytes,
    };
    if is_right { Ok(listed) } else { Err(wrong()) }
}
