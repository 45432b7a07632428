//! What a sender says of a range: its hash, or, of a sender that does not hash, the bytes to hash here.
//!
//! Every answer is taken off the connection to its end, so that the next one is found where it begins. An
//! answer that has another form than was asked for ends the connection; one that arrived damaged is told
//! from a source that has changed, since only the first is worth asking for again at once.

use crc32fast::Hasher;
use fastcp_model::{Capabilities, Status};
use fastcp_net::{Connection, Inbox, NetError};
use fastcp_wire::WireError;
use fastcp_wire::limits::{HASH_BYTES_MAX, ZSTD_RANGE_BYTES_MAX};
use fastcp_wire::reply::{BodyKind, HOLE_BODY_BYTES, HoleEnd, PieceHeader, TRAILER_BYTES, Trailer};
use fastcp_wire::request::Ask;
use fastcp_wire::signature::{RANGE_HASH_BYTES, RangeHash, decode_hash};

use super::queue::Check;
use crate::content::strong_hash::StrongHasher;

/// Who hashes what the sender has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hashing {
    AtSender,
    /// All bytes come over: right, but slower.
    Here,
}

impl Hashing {
    pub(super) fn agreed(capabilities: Capabilities) -> Self {
        if capabilities.contains(Capabilities::DELTA) { Self::AtSender } else { Self::Here }
    }

    pub(super) fn ask(self) -> Ask {
        match self {
            Self::AtSender => Ask::Hash,
            Self::Here => Ask::Bytes,
        }
    }

    /// The longest range to ask about at once.
    pub(super) fn range_bytes_max(self) -> u64 {
        match self {
            Self::AtSender => HASH_BYTES_MAX,
            // As when a tree is fetched: connections share the end of a large file, and one that breaks
            // costs little.
            Self::Here => ZSTD_RANGE_BYTES_MAX,
        }
    }
}

/// What the sender says of a range.
pub(super) enum Answer {
    Hash(RangeHash),
    /// All of it is zeros: nobody has to hash them.
    Hole,
    Failed(Status),
    /// It arrived damaged, or its trailer says that it is not to be used. Where the source has changed, the
    /// header of the next answer tells so.
    Again(Status),
}

/// What a body came to: the hash of the range, and the CRC-32 that its trailer has to repeat.
struct Hashed {
    /// `None` of a hole.
    hash: Option<RangeHash>,
    crc: u32,
}

/// Takes the rest of an answer whose header has been read.
pub(super) fn take_answer(
    header: &PieceHeader,
    check: &Check,
    hashing: Hashing,
    inbox: &mut Inbox,
    connection: &Connection,
) -> Result<Answer, NetError> {
    if header.reply.status != Status::Ok {
        return Ok(Answer::Failed(header.reply.status));
    }
    let hashed = match (hashing, header.kind) {
        (Hashing::AtSender, BodyKind::Hash) => take_hash(header, inbox, connection)?,
        (Hashing::Here, BodyKind::Raw) => take_bytes(header, check.range.len(), inbox, connection)?,
        (_, BodyKind::Hole) => take_hole(header, check, inbox, connection)?,
        _ => return Err(WireError::Value { field: "kind", value: header.kind as u64 }.into()),
    };
    let trailer = Trailer::decode(&inbox.take::<TRAILER_BYTES>(connection)?);
    if header.reply.file_bytes != check.file.size_bytes || header.reply.mtime_ns != check.file.mtime.wire_ns() {
        return Ok(Answer::Failed(Status::Changed));
    }
    Ok(match trailer {
        Ok(Trailer { status: Status::Ok, crc32 }) if crc32 == hashed.crc => {
            hashed.hash.map_or(Answer::Hole, Answer::Hash)
        }
        Ok(Trailer { status: Status::Ok, .. }) | Err(_) => Answer::Again(Status::InputOutput),
        Ok(Trailer { status, .. }) => Answer::Again(status),
    })
}

fn take_hash(header: &PieceHeader, inbox: &mut Inbox, connection: &Connection) -> Result<Hashed, NetError> {
    check_body_bytes(header, RANGE_HASH_BYTES as u64)?;
    let body = inbox.take::<RANGE_HASH_BYTES>(connection)?;
    Ok(Hashed { hash: Some(decode_hash(&body)?), crc: crc32fast::hash(&body) })
}

fn take_bytes(header: &PieceHeader, len: u64, inbox: &mut Inbox, connection: &Connection) -> Result<Hashed, NetError> {
    check_body_bytes(header, len)?;
    let (mut hasher, mut crc) = (StrongHasher::new(), Hasher::new());
    let mut left = len;
    while left > 0 {
        if inbox.buffered().is_empty() && inbox.receive(connection)? == 0 {
            return Err(NetError::Closed);
        }
        let ready = inbox.buffered();
        let ready = &ready[..ready.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
        hasher.update(ready);
        crc.update(ready);
        let count = ready.len();
        inbox.consume(count);
        left -= count as u64;
    }
    Ok(Hashed { hash: Some(hasher.range()), crc: crc.finalize() })
}

fn take_hole(
    header: &PieceHeader,
    check: &Check,
    inbox: &mut Inbox,
    connection: &Connection,
) -> Result<Hashed, NetError> {
    check_body_bytes(header, HOLE_BODY_BYTES as u64)?;
    let body = inbox.take::<HOLE_BODY_BYTES>(connection)?;
    let crc = crc32fast::hash(&body);
    // Damaged on its way, where the trailer does not say the same.
    let is_lawful = HoleEnd::decode(body, check.range, header.reply.file_bytes).is_ok();
    Ok(Hashed { hash: None, crc: if is_lawful { crc } else { !crc } })
}

fn check_body_bytes(header: &PieceHeader, wanted: u64) -> Result<(), WireError> {
    match u64::from(header.body_bytes) {
        found if found == wanted => Ok(()),
        found => Err(WireError::Value { field: "body_len", value: found }),
    }
}
