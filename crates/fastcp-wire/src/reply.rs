//! FTR1 replies.
//!
//! The plain form is fixed by programs that exist: 32 bytes, and the file from the offset on. The extended form adds an
//! id, what kind of body follows and how long it is, and a trailer behind the body.

use fastcp_model::{ByteRange, Status};

use crate::WireError;
use crate::limits::RANGE_BYTES_MAX;
use crate::reader::Reader;

/// `FTR1`: the first four bytes of a reply.
pub const REPLY_MAGIC: u32 = 0x4654_5231;
/// The plain reply, in bytes: 28 and the 4 that C's alignment adds.
pub const REPLY_BYTES: usize = 32;
/// The extended reply's header, in bytes.
pub const PIECE_HEADER_BYTES: usize = REPLY_BYTES + 16;
/// What follows the body of an extended reply, in bytes.
pub const TRAILER_BYTES: usize = 6;
/// Bytes of the body of a hole.
pub const HOLE_BODY_BYTES: usize = 8;

/// The 32 bytes that answer every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    /// How it went.
    pub status: Status,
    /// The file's length in bytes as opened.
    pub file_bytes: u64,
    /// The file's modification time: [`fastcp_model::Timestamp::wire_ns`].
    pub mtime_ns: u64,
    /// CRC-32 of the whole file where asked for, of the confirmed range in a confirmation, else 0.
    pub crc32: u32,
}

impl Reply {
    /// A reply that says only that all is well.
    pub(crate) fn ok() -> Self {
        Self::failed(Status::Ok)
    }

    /// A reply that says only why there is no other.
    pub fn failed(status: Status) -> Self {
        Self { status, file_bytes: 0, mtime_ns: 0, crc32: 0 }
    }

    /// The bytes on the wire. Reserved and padding bytes are zero.
    pub fn encode(&self) -> [u8; REPLY_BYTES] {
        let mut out = [0; REPLY_BYTES];
        out[0..4].copy_from_slice(&REPLY_MAGIC.to_be_bytes());
        out[4..6].copy_from_slice(&self.status.code().to_be_bytes());
        out[8..16].copy_from_slice(&self.file_bytes.to_be_bytes());
        out[16..24].copy_from_slice(&self.mtime_ns.to_be_bytes());
        out[24..28].copy_from_slice(&self.crc32.to_be_bytes());
        out
    }

    /// Decodes a reply. Reserved and padding bytes may hold anything: programs exist that send
    /// whatever their stack held.
    ///
    /// # Errors
    /// A wrong magic or an unknown status.
    pub fn decode(bytes: &[u8; REPLY_BYTES]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let magic = reader.u32()?;
        if magic != REPLY_MAGIC {
            return Err(WireError::Magic(magic));
        }
        let status = status(reader.u16()?)?;
        reader.u16()?;
        Ok(Self { status, file_bytes: reader.u64()?, mtime_ns: reader.u64()?, crc32: reader.u32()? })
    }
}

/// How the body of an extended reply is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum BodyKind {
    /// The bytes themselves.
    Raw = 0,
    /// One zstd frame of the bytes.
    Zstd = 1,
    /// Every byte of the range is zero. 8 bytes say how far the zeros go on: [`HoleEnd`].
    Hole = 2,
    /// One zstd frame of whole pieces, for a [`crate::bundle::BundleRequest`]: [`crate::bundle::Bundled`].
    Bundle = 3,
    /// A list of chunks: [`crate::signature`].
    Signature = 4,
    /// 32 bytes: the BLAKE3 of the range.
    Hash = 5,
    /// No body and no trailer: the answer is being worked on ([`crate::progress`]).
    Progress = 6,
}

impl BodyKind {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Raw, Self::Zstd, Self::Hole, Self::Bundle, Self::Signature, Self::Hash, Self::Progress];
}

/// The 48 bytes before the body of an extended reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PieceHeader {
    /// The plain reply. With a status other than [`Status::Ok`], and in a confirmation, neither body
    /// nor trailer follow.
    pub reply: Reply,
    /// The request's id.
    pub id: u32,
    /// How the body is encoded.
    pub kind: BodyKind,
    /// The body's length in bytes.
    pub body_bytes: u32,
}

impl PieceHeader {
    /// The bytes on the wire.
    pub fn encode(&self) -> [u8; PIECE_HEADER_BYTES] {
        let mut out = [0; PIECE_HEADER_BYTES];
        out[..32].copy_from_slice(&self.reply.encode());
        out[32..36].copy_from_slice(&self.id.to_be_bytes());
        out[36..38].copy_from_slice(&(self.kind as u16).to_be_bytes());
        out[38..40].copy_from_slice(&self.reply.status.code().to_be_bytes());
        out[40..44].copy_from_slice(&self.body_bytes.to_be_bytes());
        let sum = crc32fast::hash(&out[..44]);
        out[44..48].copy_from_slice(&sum.to_be_bytes());
        out
    }

    /// Decodes the header.
    ///
    /// # Errors
    /// A wrong magic, checksum, status or kind, or a body longer than [`RANGE_BYTES_MAX`].
    pub fn decode(bytes: &[u8; PIECE_HEADER_BYTES]) -> Result<Self, WireError> {
        let (reply_bytes, rest) = bytes.split_first_chunk::<REPLY_BYTES>().ok_or(WireError::Truncated)?;
        let mut reader = Reader::new(rest);
        let id = reader.u32()?;
        let kind = reader.u16()?;
        let repeated = reader.u16()?;
        let body_bytes = reader.u32()?;
        // First of all, so that damage on the way is told from a peer's mistake.
        if crc32fast::hash(&bytes[..44]) != reader.u32()? {
            return Err(WireError::Checksum("reply"));
        }
        let reply = Reply::decode(reply_bytes)?;
        if repeated != reply.status.code() {
            return Err(WireError::Value { field: "status", value: repeated.into() });
        }
        if u64::from(body_bytes) > RANGE_BYTES_MAX {
            return Err(WireError::TooLong { field: "body_len", value: body_bytes.into(), max: RANGE_BYTES_MAX });
        }
        Ok(Self { reply, id, kind: body_kind(kind)?, body_bytes })
    }
}

/// The body of a hole: where the next byte may be that is not zero, or where the file ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoleEnd(u64);

impl HoleEnd {
    /// The hole that `range` lies in ends at `end`; at the end of the range where that is not beyond it.
    pub fn new(range: ByteRange, end: u64) -> Self {
        Self(end.max(range.end()))
    }

    /// Its offset in the file.
    pub fn offset(self) -> u64 {
        self.0
    }

    /// The bytes on the wire.
    pub fn encode(self) -> [u8; HOLE_BODY_BYTES] {
        self.0.to_be_bytes()
    }

    /// Decodes the body of a hole, the answer to a request for `range` of a file of this length.
    ///
    /// # Errors
    /// An offset before the end of the range or beyond the end of the file.
    pub fn decode(bytes: [u8; HOLE_BODY_BYTES], range: ByteRange, file_bytes: u64) -> Result<Self, WireError> {
        match u64::from_be_bytes(bytes) {
            end if (range.end()..=file_bytes).contains(&end) => Ok(Self(end)),
            value => Err(WireError::Value { field: "hole_end", value }),
        }
    }
}

/// The 6 bytes after the body of an extended reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// CRC-32 of the range's bytes, uncompressed; of the body in a hole, a signature or a hash.
    pub crc32: u32,
    /// [`Status::Ok`], or why the body is padding: the file changed or failed under the read.
    pub status: Status,
}

impl Trailer {
    /// The bytes on the wire.
    pub fn encode(&self) -> [u8; TRAILER_BYTES] {
        let mut out = [0; TRAILER_BYTES];
        out[..4].copy_from_slice(&self.crc32.to_be_bytes());
        out[4..].copy_from_slice(&self.status.code().to_be_bytes());
        out
    }

    /// Decodes a trailer.
    ///
    /// # Errors
    /// An unknown status.
    pub fn decode(bytes: &[u8; TRAILER_BYTES]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        Ok(Self { crc32: reader.u32()?, status: status(reader.u16()?)? })
    }
}

fn status(code: u16) -> Result<Status, WireError> {
    Status::from_code(code).ok_or(WireError::Value { field: "status", value: code.into() })
}

fn body_kind(code: u16) -> Result<BodyKind, WireError> {
    let kind = BodyKind::ALL.into_iter().find(|kind| *kind as u16 == code);
    kind.ok_or(WireError::Value { field: "kind", value: code.into() })
}
