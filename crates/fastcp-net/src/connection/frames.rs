//! Frames on a connection, and the first that a server says.

use std::time::Instant;

use fastcp_wire::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameType, decode_payload, encode_frame};
use fastcp_wire::hello::Failure;
use fastcp_wire::limits::{AUTH_PAYLOAD_BYTES_MAX, FRAME_PAYLOAD_BYTES_MAX};
use fastcp_wire::reply::REPLY_MAGIC;

use super::Connection;
use crate::{Foreign, NetError};

/// The first bytes of a frame that says why the peer refuses.
const FAILURE_FIRST: [u8; 4] = [0, FrameType::Failure as u8, 0, 0];

impl Connection {
    /// Sends a frame.
    ///
    /// # Errors
    /// As [`Connection::write_all`]; a payload over its limit.
    pub fn write_frame(&self, frame_type: FrameType, payload: &[u8]) -> Result<(), NetError> {
        self.write_all(&encode_frame(frame_type, payload)?)
    }

    /// Receives a frame. A failure frame from the peer is [`NetError::Refused`].
    ///
    /// # Errors
    /// A frame that breaks the protocol, or as [`Connection::read_exact`].
    pub fn read_frame(&self) -> Result<(FrameType, Vec<u8>), NetError> {
        self.read_frame_within(FRAME_PAYLOAD_BYTES_MAX)
    }

    /// Receives a frame of a peer that has no use for longer payloads.
    ///
    /// # Errors
    /// As [`Connection::read_frame`].
    pub fn read_frame_within(&self, payload_bytes_max: usize) -> Result<(FrameType, Vec<u8>), NetError> {
        let mut header = [0; FRAME_HEADER_BYTES];
        self.read_exact(&mut header)?;
        let mut rest = vec![0; FrameHeader::decode_within(&header, payload_bytes_max)?.rest_bytes()];
        self.read_exact(&mut rest)?;
        checked_frame(&header, &rest)
    }

    /// Receives a frame of a peer that has no use for longer payloads, all of it before `deadline`.
    ///
    /// # Errors
    /// As [`Connection::read_frame`] and [`Connection::read_exact_by`].
    pub fn read_frame_within_by(
        &self,
        payload_bytes_max: usize,
        deadline: Instant,
    ) -> Result<(FrameType, Vec<u8>), NetError> {
        let mut header = [0; FRAME_HEADER_BYTES];
        self.read_exact_by(&mut header, deadline)?;
        let mut rest = vec![0; FrameHeader::decode_within(&header, payload_bytes_max)?.rest_bytes()];
        self.read_exact_by(&mut rest, deadline)?;
        checked_frame(&header, &rest)
    }

    /// Receives the first frame of a server, all of it before `deadline`.
    ///
    /// # Errors
    /// As [`Connection::read_frame`]; [`NetError::Foreign`] where the peer speaks another protocol.
    pub fn read_frame_by(&self, deadline: Instant) -> Result<(FrameType, Vec<u8>), NetError> {
        let mut header = [0; FRAME_HEADER_BYTES];
        self.read_first_by(&mut header, deadline)?;
        if header.starts_with(&REPLY_MAGIC.to_be_bytes()) {
            return Err(NetError::Foreign(Foreign::PlainFtq1));
        }
        let mut rest = vec![0; FrameHeader::decode(&header)?.rest_bytes()];
        self.read_exact_by(&mut rest, deadline)?;
        checked_frame(&header, &rest)
    }

    /// As [`Connection::read_exact_by`], for the first that a server says.
    ///
    /// # Errors
    /// [`NetError::Foreign`] where the peer speaks another protocol, however short its greeting is.
    pub fn read_first_by<const N: usize>(&self, buffer: &mut [u8; N], deadline: Instant) -> Result<(), NetError> {
        let (first, rest) = buffer.split_first_chunk_mut::<4>().expect("every first message is longer");
        self.read_exact_by(first, deadline)?;
        if *first == FAILURE_FIRST {
            return Err(self.read_failure_by(*first, deadline)?);
        }
        match Foreign::of(*first) {
            Some(foreign) => Err(NetError::Foreign(foreign)),
            None => self.read_exact_by(rest, deadline),
        }
    }

    /// The rest of a frame that says why the peer refuses, whatever else it speaks.
    fn read_failure_by(&self, first: [u8; 4], deadline: Instant) -> Result<NetError, NetError> {
        let mut header = [0; FRAME_HEADER_BYTES];
        let (begun, rest) = header.split_at_mut(first.len());
        begun.copy_from_slice(&first);
        self.read_exact_by(rest, deadline)?;
        let mut rest = vec![0; FrameHeader::decode_within(&header, AUTH_PAYLOAD_BYTES_MAX)?.rest_bytes()];
        self.read_exact_by(&mut rest, deadline)?;
        match checked_frame(&header, &rest) {
            Err(error) => Ok(error),
            Ok((frame_type, _)) => Err(NetError::UnexpectedFrame(frame_type)),
        }
    }
}

/// Decodes a frame that has been read whole; a failure frame becomes an error.
pub(crate) fn checked_frame(header: &[u8; FRAME_HEADER_BYTES], rest: &[u8]) -> Result<(FrameType, Vec<u8>), NetError> {
    let frame_type = FrameHeader::decode(header)?.frame_type;
    let payload = decode_payload(header, rest)?;
    if frame_type == FrameType::Failure {
        return Err(Failure::decode(payload)?.into());
    }
    Ok((frame_type, payload.to_vec()))
}
