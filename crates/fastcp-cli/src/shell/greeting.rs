//! What the far end prints until the tunnel begins.

use std::io::{self, Read};
use std::sync::Arc;

use fastcp_wire::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameType, decode_payload};
use fastcp_wire::hello::Failure as Refusal;
use fastcp_wire::limits::SESSION_BYTES_MAX;
use fastcp_wire::session::{MARK_VERSION, Opened, version_of};

use super::Shared;
use crate::chatter::Chatter;

/// What the far end prints: passed on from where the tunnel begins.
pub(super) struct Greeting<R> {
    pub(super) input: R,
    pub(super) shared: Arc<Shared>,
    pub(super) is_marked: bool,
}

impl<R: Read> Greeting<R> {
    /// Passes over whatever a login prints, and takes the server's answer.
    fn hear(&mut self) -> io::Result<()> {
        self.find_mark()?;
        self.is_marked = true;
        self.shared.lock().is_marked = true;
        let mut header = [0; FRAME_HEADER_BYTES];
        self.input.read_exact(&mut header)?;
        let decoded = FrameHeader::decode_within(&header, SESSION_BYTES_MAX).map_err(io::Error::other)?;
        let mut rest = vec![0; decoded.rest_bytes()];
        self.input.read_exact(&mut rest)?;
        let payload = decode_payload(&header, &rest).map_err(io::Error::other)?;
        let opened = match decoded.frame_type {
            FrameType::SessionOpened => Ok(Opened::decode(payload).map_err(io::Error::other)?),
            FrameType::Failure => Err(Refusal::decode(payload).map_err(io::Error::other)?),
            other => return Err(io::Error::other(format!("{other:?}"))),
        };
        let is_refused = opened.is_err();
        self.shared.lock().opened = Some(opened);
        self.shared.heard.notify_all();
        if is_refused { Err(io::ErrorKind::ConnectionRefused.into()) } else { Ok(()) }
    }

    fn find_mark(&mut self) -> io::Result<()> {
        let shared = &self.shared;
        Chatter::default().find(&mut self.input, |line| match version_of(line)? {
            MARK_VERSION => Some(()),
            other => {
                // It may be a login that prints this, so it counts only where nothing better comes.
                shared.lock().other_version = Some(other);
                None
            }
        })
    }
}

impl<R: Read> Read for Greeting<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if !self.is_marked {
            self.hear()?;
        }
        self.input.read(into)
    }
}
