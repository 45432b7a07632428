//! What the far end prints until the tunnel begins.

use std::io::{self, Read};
use std::sync::Arc;

use fastcp_wire::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameType, decode_payload};
use fastcp_wire::hello::Failure as Refusal;
use fastcp_wire::limits::SESSION_BYTES_MAX;
use fastcp_wire::session::{MARK, Opened};

use super::Shared;

/// What a login may print before the server speaks.
const CHATTER_BYTES_MAX: usize = 1 << 20;

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
        // As if a line had ended before the first.
        let mut last = vec![b'\n'];
        for _ in 0..CHATTER_BYTES_MAX {
            let mut byte = [0];
            self.input.read_exact(&mut byte)?;
            if last.len() == MARK.len() {
                last.remove(0);
            }
            last.push(byte[0]);
            if last == MARK {
                return Ok(());
            }
        }
        Err(io::ErrorKind::InvalidData.into())
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
