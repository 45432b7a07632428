//! Signatures over one data connection: requests out, several at a time, lists in.
//!
//! Nothing that a sender says is believed before it is checked: the answer's id, its kind and length, the
//! checksum, that the list covers what was asked for and no more, and that the file is the one that was offered.
//! A list that arrives damaged is asked for again, behind what is on its way. A sender that breaks the protocol
//! ends the connection; a file that is not what it was, or is not to be had, ends nothing but itself.

use std::collections::VecDeque;

use fastcp_model::{ByteRange, Status};
use fastcp_net::{Connection, Inbox, NetError};
use fastcp_wire::WireError;
use fastcp_wire::bundle::id_after;
use fastcp_wire::progress::{Awaited, hear};
use fastcp_wire::reply::{BodyKind, PIECE_HEADER_BYTES, PieceHeader, TRAILER_BYTES, Trailer};
use fastcp_wire::request::{Ask, ID_UNREADABLE, RangeRequest};
use fastcp_wire::signature::{Level, SIGNED_CHUNK_BYTES, SignedChunk, decode_signature};

/// Bytes of requests on their way at most, as in `fetch.rs`: the sender reads none while it writes.
const REQUEST_BYTES_MAX: usize = 32 << 10;
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
pub(crate) enum Outcome {
    List(Vec<SignedChunk>),
    /// The file is not what it was when it was offered.
    Changed,
    /// The sender will not, or cannot.
    Refused(Status),
}

/// The requests of one search.
pub(crate) struct Pipeline<'a, 'c, 'p> {
    asker: &'a mut Asker<'c>,
    owed: VecDeque<Owed<'p>>,
    next_id: u32,
    request_bytes: usize,
    requests: Vec<u8>,
}

struct Owed<'p> {
    id: u32,
    asked: Asked<'p>,
    request_bytes: usize,
    attempt: u32,
}

impl<'a> Asker<'a> {
    pub(crate) fn new(connection: &'a Connection, inbox: &'a mut Inbox) -> Self {
        Self { connection, inbox, tally: Tally::default() }
    }
}

impl<'a, 'c, 'p> Pipeline<'a, 'c, 'p> {
    pub(crate) fn new(asker: &'a mut Asker<'c>) -> Self {
        Self { asker, owed: VecDeque::new(), next_id: 0, request_bytes: 0, requests: Vec::new() }
    }

    /// Whether one more request may go on its way.
    pub(crate) fn has_room(&self) -> bool {
        self.owed.is_empty() || self.request_bytes < REQUEST_BYTES_MAX && self.owed.len() < OWED_MAX
    }

    /// Asks, with the next answer that is waited for at the latest.
    pub(crate) fn ask(&mut self, asked: Asked<'p>) {
        self.put(asked, 0);
    }

    /// The next answer; `None` where nothing was asked.
    pub(crate) fn answer(&mut self) -> Result<Option<(Asked<'p>, Outcome)>, NetError> {
        loop {
            self.send()?;
            let Some(owed) = self.owed.pop_front() else { return Ok(None) };
            self.request_bytes -= owed.request_bytes;
            match self.read(&owed)? {
                Some(outcome) => return Ok(Some((owed.asked, outcome))),
                None if owed.attempt < ATTEMPTS_MAX => {
                    self.asker.tally.asked_again += 1;
                    self.put(owed.asked, owed.attempt + 1);
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

    fn put(&mut self, asked: Asked<'p>, attempt: u32) {
        let id = self.next_id;
        self.next_id = id_after(id);
        let start = self.requests.len();
        let ask = Ask::Signature(asked.level);
        RangeRequest { id, path: asked.path.into(), range: asked.range, ask }.encode(&mut self.requests);
        let request_bytes = self.requests.len() - start;
        self.request_bytes += request_bytes;
        self.owed.push_back(Owed { id, asked, request_bytes, attempt });
        self.asker.tally.requests += 1;
        self.asker.tally.wire_bytes += request_bytes as u64;
    }

    fn send(&mut self) -> Result<(), NetError> {
        if !self.requests.is_empty() {
            self.asker.connection.write_all(&self.requests)?;
            self.requests.clear();
        }
        Ok(())
    }

    /// Reads one answer whole; `None` where it was damaged.
    fn read(&mut self, owed: &Owed<'_>) -> Result<Option<Outcome>, NetError> {
        let asked = &owed.asked;
        let header = self.header(owed)?;
        let is_offered = header.reply.file_bytes == asked.file_bytes && header.reply.mtime_ns == asked.mtime_ns;
        match header.reply.status {
            Status::Ok => {}
            Status::Changed => return Ok(Some(Outcome::Changed)),
            Status::BadRange if !is_offered => return Ok(Some(Outcome::Changed)),
            other => return Ok(Some(Outcome::Refused(other))),
        }
        let (body, trailer) = self.body(&header, asked)?;
        Ok(match trailer {
            Ok(Trailer { crc32, .. }) if crc32 != crc32fast::hash(&body) => None,
            // A status that is not known was damaged on its way: the checksum is not over it.
            Err(_) => None,
            _ if !is_offered => Some(Outcome::Changed),
            Ok(Trailer { status: Status::Ok, .. }) => Some(Outcome::List(self.list(asked, &body)?)),
            Ok(Trailer { status: Status::Changed, .. }) => Some(Outcome::Changed),
            Ok(Trailer { status, .. }) => Some(Outcome::Refused(status)),
        })
    }

    fn header(&mut self, owed: &Owed<'_>) -> Result<PieceHeader, NetError> {
        let mut awaited = Awaited::new(owed.id, owed.asked.range.len());
        let header = loop {
            let bytes = self.asker.inbox.take::<PIECE_HEADER_BYTES>(self.asker.connection)?;
            self.asker.tally.wire_bytes += PIECE_HEADER_BYTES as u64;
            let header = PieceHeader::decode(&bytes)?;
            if header.kind != BodyKind::Progress {
                break header;
            }
            hear(Some(&mut awaited), &header)?;
        };
        if header.id == ID_UNREADABLE && header.reply.status != Status::Ok {
            // A request was damaged on its way.
            return Err(NetError::Closed);
        }
        if header.id != owed.id {
            return Err(WireError::Value { field: "id", value: header.id.into() }.into());
        }
        Ok(header)
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
