//! Answers that are bytes of a file: gathered, compressed, or slice by slice.

use std::time::Instant;

use fastcp_model::{ByteRange, Status};
use fastcp_net::{Connection, NetError};
use fastcp_sys::file::{read_at, read_onto};
use fastcp_wire::reply::{BodyKind, PIECE_HEADER_BYTES, PieceHeader, Reply};
use fastcp_wire::request::RangeRequest;

use super::Answerer;
use crate::content::zeros::SLICE_BYTES;
use crate::sender::source::OpenFile;

impl Answerer<'_> {
    /// A short range: read straight behind its header.
    pub(super) fn answer_gathered(&mut self, id: u32, range: ByteRange, open: &OpenFile, reply: Reply) {
        let length = range.len() as usize;
        self.put_header(id, reply, BodyKind::Raw, length as u32);
        let start = self.out.len();
        let status = append_or_pad(open, range.start(), length, &mut self.out);
        self.wire_bytes += range.len();
        let crc32 = crc32fast::hash(&self.out[start..]);
        self.put_trailer(open, range, crc32, status);
    }

    /// A range that may shrink: read whole, and sent whichever way is shorter.
    pub(super) fn answer_compressed(&mut self, request: &RangeRequest, open: &OpenFile, reply: Reply) {
        let mut body = std::mem::take(&mut self.body);
        body.clear();
        let status = append_or_pad(open, request.range.start(), request.range.len() as usize, &mut body);
        let crc32 = crc32fast::hash(&body);
        let header_at = self.out.len();
        self.put_header(request.id, reply, BodyKind::Raw, body.len() as u32);
        match self.compressor.as_mut().and_then(|compressor| compressor.compress(&body, &mut self.out)) {
            Some(length) => {
                self.wire_bytes += length as u64;
                let header =
                    PieceHeader { reply, id: request.id, kind: BodyKind::Zstd, body_bytes: length as u32 }.encode();
                self.out[header_at..header_at + PIECE_HEADER_BYTES].copy_from_slice(&header);
            }
            None => {
                self.wire_bytes += request.range.len();
                self.out.extend_from_slice(&body);
            }
        }
        self.put_trailer(open, request.range, crc32, status);
        self.body = body;
    }

    /// A long range: a slice at a time, read for its CRC and sent by the kernel while it is in cache.
    pub(super) fn answer_slices(
        &mut self,
        request: &RangeRequest,
        open: &OpenFile,
        reply: Reply,
    ) -> Result<(), NetError> {
        self.put_header(request.id, reply, BodyKind::Raw, request.range.len() as u32);
        self.send_out_before_body()?;
        self.wire_bytes += request.range.len();
        self.body.resize(SLICE_BYTES, 0);
        let mut hasher = crc32fast::Hasher::new();
        let mut status = Status::Ok;
        let mut at = request.range.start();
        while at < request.range.end() {
            let length = SLICE_BYTES.min((request.range.end() - at) as usize);
            let slice = &mut self.body[..length];
            status = worse(status, read_or_pad(open, at, slice));
            hasher.update(slice);
            let start = Instant::now();
            send_slice(self.connection, open, at, slice, status)?;
            self.blocked += start.elapsed();
            at += length as u64;
        }
        self.put_trailer(open, request.range, hasher.finalize(), status);
        Ok(())
    }
}

/// Reads a slice; what cannot be read becomes zeros and a status that says so.
fn read_or_pad(open: &OpenFile, offset: u64, slice: &mut [u8]) -> Status {
    let (got, status) = match read_at(&open.file, slice, offset) {
        Ok(got) if got == slice.len() => return Status::Ok,
        Ok(got) => (got, Status::Changed),
        Err(_) => (0, Status::InputOutput),
    };
    slice[got..].fill(0);
    status
}

/// The same, behind what there is.
fn append_or_pad(open: &OpenFile, offset: u64, length: usize, out: &mut Vec<u8>) -> Status {
    let end = out.len() + length;
    let status = match read_onto(&open.file, out, length, offset) {
        Ok(got) if got == length => Status::Ok,
        Ok(_) => Status::Changed,
        Err(_) => Status::InputOutput,
    };
    out.resize(end, 0);
    status
}

/// The first failure is the one that is told.
fn worse(before: Status, now: Status) -> Status {
    if before == Status::Ok { now } else { before }
}

fn send_slice(
    connection: &Connection,
    open: &OpenFile,
    offset: u64,
    slice: &[u8],
    status: Status,
) -> Result<(), NetError> {
    let mut sent = 0;
    if status == Status::Ok {
        // Where it was cut off just now, the rest is sent from memory, and the last look at the file tells.
        sent = connection.send_file(&open.file, offset, slice.len() as u64)?.bytes_of(slice.len() as u64);
    }
    connection.write_all(&slice[sent as usize..])
}
