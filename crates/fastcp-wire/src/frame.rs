//! The envelope of the control dialect: `msg_type | flags | payload_len | payload | crc32`.

use crate::WireError;
use crate::limits::FRAME_PAYLOAD_BYTES_MAX;
use crate::reader::{Reader, within};

/// The bytes before the payload.
pub const FRAME_HEADER_BYTES: usize = 8;
/// The checksum after the payload, in bytes.
pub const FRAME_SUM_BYTES: usize = 4;

/// What a frame's payload is. The first two numbers choose the dialect of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum FrameType {
    /// Client: a new session.
    Hello = 0x0001,
    /// Client: this connection carries data for a session.
    Attach = 0x0002,
    /// Server: the session's terms and ticket.
    HelloReply = 0x0003,
    /// Server: the connection is attached.
    AttachReply = 0x0004,
    /// Either: why the connection ends.
    Failure = 0x0005,
    /// Receiver: what to offer.
    OfferRequest = 0x0006,
    /// Sender: some listings.
    OfferBatch = 0x0007,
    /// Sender: there are no more listings.
    OfferEnd = 0x0008,
    /// Receiver: batches that it has from an earlier offer.
    OfferKnown = 0x0009,
    /// Sender: one of those batches stands here.
    OfferSame = 0x000A,
    /// Client that sends: what the server is to receive, and how.
    Push = 0x000B,
    /// Server that receives: something happened.
    ReportEvent = 0x000C,
    /// Server that receives: how far it is.
    ReportState = 0x000D,
    /// Server that receives: how it ended.
    ReportEnd = 0x000E,
    /// Client that sends: up to which event it has been told.
    ReportSeen = 0x000F,
    /// Client that sends: the run is to end.
    Cancel = 0x0010,
    /// Client, before all else, on a connection that is protected: that it knows the server's token.
    Auth = 0x0011,
    /// Server: that it knows it as well.
    AuthReply = 0x0012,
    /// Client, over a remote shell: what the session is of.
    SessionOpen = 0x0013,
    /// Server, over a remote shell: the session is open.
    SessionOpened = 0x0014,
}

impl FrameType {
    /// The frame type with this number.
    ///
    /// # Errors
    /// [`WireError::UnknownFrame`].
    pub fn from_code(code: u16) -> Result<Self, WireError> {
        Ok(match code {
            0x0001 => Self::Hello,
            0x0002 => Self::Attach,
            0x0003 => Self::HelloReply,
            0x0004 => Self::AttachReply,
            0x0005 => Self::Failure,
            0x0006 => Self::OfferRequest,
            0x0007 => Self::OfferBatch,
            0x0008 => Self::OfferEnd,
            0x0009 => Self::OfferKnown,
            0x000A => Self::OfferSame,
            0x000B => Self::Push,
            0x000C => Self::ReportEvent,
            0x000D => Self::ReportState,
            0x000E => Self::ReportEnd,
            0x000F => Self::ReportSeen,
            0x0010 => Self::Cancel,
            0x0011 => Self::Auth,
            0x0012 => Self::AuthReply,
            0x0013 => Self::SessionOpen,
            0x0014 => Self::SessionOpened,
            _ => return Err(WireError::UnknownFrame(code)),
        })
    }
}

/// The first 8 bytes of a frame, which say how much follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// What the payload is.
    pub frame_type: FrameType,
    payload_bytes: usize,
}

impl FrameHeader {
    /// Decodes the header.
    ///
    /// # Errors
    /// An unknown type, flags other than 0, or a payload over its limit.
    pub fn decode(bytes: &[u8; FRAME_HEADER_BYTES]) -> Result<Self, WireError> {
        Self::decode_within(bytes, FRAME_PAYLOAD_BYTES_MAX)
    }

    /// Decodes the header of a frame that may not be as long as others.
    ///
    /// # Errors
    /// As [`FrameHeader::decode`].
    pub fn decode_within(bytes: &[u8; FRAME_HEADER_BYTES], payload_bytes_max: usize) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let frame_type = FrameType::from_code(reader.u16()?)?;
        let flags = reader.u16()?;
        if flags != 0 {
            return Err(WireError::Value { field: "flags", value: flags.into() });
        }
        let payload_bytes = reader.u32()? as usize;
        within("payload_len", payload_bytes, payload_bytes_max.min(FRAME_PAYLOAD_BYTES_MAX))?;
        Ok(Self { frame_type, payload_bytes })
    }

    /// How many bytes follow the header: the payload and the checksum.
    pub fn rest_bytes(&self) -> usize {
        self.payload_bytes + FRAME_SUM_BYTES
    }
}

/// Encodes a whole frame.
///
/// # Errors
/// A payload over [`FRAME_PAYLOAD_BYTES_MAX`].
pub fn encode_frame(frame_type: FrameType, payload: &[u8]) -> Result<Vec<u8>, WireError> {
    within("payload_len", payload.len(), FRAME_PAYLOAD_BYTES_MAX)?;
    let mut out = Vec::with_capacity(FRAME_HEADER_BYTES + payload.len() + FRAME_SUM_BYTES);
    out.extend_from_slice(&(frame_type as u16).to_be_bytes());
    out.extend_from_slice(&0u16.to_be_bytes());
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    out.extend_from_slice(payload);
    let sum = crc32fast::hash(&out);
    out.extend_from_slice(&sum.to_be_bytes());
    Ok(out)
}

/// Checks what followed a header and yields the payload within it.
///
/// # Errors
/// A wrong checksum, or a length other than the header's.
pub fn decode_payload<'a>(header_bytes: &[u8; FRAME_HEADER_BYTES], rest: &'a [u8]) -> Result<&'a [u8], WireError> {
    let header = FrameHeader::decode(header_bytes)?;
    let mut reader = Reader::new(rest);
    let payload = reader.bytes(header.payload_bytes)?;
    let sum = reader.u32()?;
    reader.finish()?;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header_bytes);
    hasher.update(payload);
    if hasher.finalize() == sum { Ok(payload) } else { Err(WireError::Checksum("frame")) }
}
