//! Answers that say something of a file's bytes: their CRC-32, their hash, their chunks, that they are zeros.

use std::sync::Arc;

use fastcp_model::{ByteRange, Status};
use fastcp_net::NetError;
use fastcp_sys::file::next_data;
use fastcp_wire::reply::{BodyKind, HOLE_BODY_BYTES, HoleEnd, Reply, Trailer};
use fastcp_wire::request::{Ask, RangeRequest};
use fastcp_wire::signature::{Level, RANGE_HASH_BYTES, RangeHash, encode_hash};

use super::pulse::Pulse;
use super::{Answerer, reply_of};
use crate::content::crc_runs::CONFIRM_BYTES;
use crate::content::strong_hash::hash_of;
use crate::content::zeros::{SLICE_BYTES, crc_of_zeros};
use crate::sender::source::{OpenFile, STEP_BYTES};

impl<'a> Answerer<'a> {
    pub(super) fn confirm(
        &mut self,
        request: &RangeRequest,
        open: &OpenFile,
        mut reply: Reply,
    ) -> Result<(), NetError> {
        if request.ask == Ask::ConfirmAnew {
            self.source.forget(open);
        }
        self.body.resize(SLICE_BYTES, 0);
        let pulse = self.pulse(request)?;
        let crc = self.source.crc_of(open, request.range, &mut self.body, &mut |bytes| pulse.read(bytes));
        self.out = pulse.end()?;
        match crc {
            Ok(crc32) if open.is_unchanged() => reply.crc32 = crc32,
            // What is only added to, such as a log, never holds still: its beginning was read all the same.
            Ok(crc32) => match open.grown() {
                Some(now) => reply = Reply { crc32, ..reply_of(&now) },
                None => reply.status = Status::Changed,
            },
            Err(status) => reply.status = status,
        }
        self.put_header(request.id, reply, BodyKind::Raw, 0);
        Ok(())
    }

    /// An answer that may take long begins; until it ends, what is gathered is the pulse's.
    pub(super) fn pulse(&mut self, request: &RangeRequest) -> Result<Pulse<'a>, NetError> {
        if request.range.len() > STEP_BYTES {
            // Others may wait for what is computed now: it must not wait for a receiver that does not read.
            self.flush()?;
        }
        Ok(Pulse::new(self.connection, request.id, std::mem::take(&mut self.out)))
    }

    pub(super) fn answer_hash(
        &mut self,
        request: &RangeRequest,
        open: &OpenFile,
        reply: Reply,
    ) -> Result<(), NetError> {
        self.body.resize(SLICE_BYTES, 0);
        let pulse = self.pulse(request)?;
        let hash = hash_of(&open.file, request.range, &mut self.body, |bytes| pulse.read(bytes));
        self.out = pulse.end()?;
        let (hash, status) = match hash {
            Ok(Some(hash)) => (hash, Status::Ok),
            Ok(None) => (RangeHash([0; RANGE_HASH_BYTES]), Status::Changed),
            Err(_) => (RangeHash([0; RANGE_HASH_BYTES]), Status::InputOutput),
        };
        self.answer_computed(request.id, BodyKind::Hash, &encode_hash(hash), status, open, reply);
        Ok(())
    }

    pub(super) fn answer_signature(
        &mut self,
        request: &RangeRequest,
        level: Level,
        open: &OpenFile,
        reply: Reply,
    ) -> Result<(), NetError> {
        let mut buffer = std::mem::take(&mut self.body);
        let (source, pulse) = (self.source, self.pulse(request)?);
        // What is asked for at once is short enough to be read to its end.
        let on_read = |bytes| drop(pulse.read(bytes));
        let list = source.signatures.list(&source.served, open, level, request.range, &mut buffer, &on_read);
        self.out = pulse.end()?;
        let (list, status) = list.map_or_else(|status| (Arc::default(), status), |list| (list, Status::Ok));
        self.body = buffer;
        self.answer_computed(request.id, BodyKind::Signature, &list, status, open, reply);
        Ok(())
    }

    /// A body that is not of the file's bytes but says something of them.
    pub(super) fn answer_computed(
        &mut self,
        id: u32,
        kind: BodyKind,
        body: &[u8],
        status: Status,
        open: &OpenFile,
        reply: Reply,
    ) {
        self.put_header(id, reply, kind, body.len() as u32);
        self.out.extend_from_slice(body);
        let status = if status == Status::Ok && !open.is_unchanged() { Status::Changed } else { status };
        self.out.extend_from_slice(&Trailer { crc32: crc32fast::hash(body), status }.encode());
    }

    pub(super) fn answer_hole(&mut self, id: u32, range: ByteRange, end: HoleEnd, open: &OpenFile, reply: Reply) {
        self.answer_computed(id, BodyKind::Hole, &end.encode(), Status::Ok, open, reply);
        // What the receiver need not ask for any more counts as served. Of the middle there is nothing to remember:
        // a segment that is all hole is confirmed as quickly.
        let segment_end = (range.start() / CONFIRM_BYTES + 1) * CONFIRM_BYTES;
        let last_start = end.offset() / CONFIRM_BYTES * CONFIRM_BYTES;
        let known = [(range.start(), end.offset().min(segment_end)), (last_start.max(segment_end), end.offset())];
        for (start, end) in known.into_iter().filter(|(start, end)| start < end) {
            if let Ok(zeros) = ByteRange::new(start, end - start)
                && zeros.len() < open.stat.size_bytes()
            {
                self.source.served.remember(open.stat.identity, zeros, crc_of_zeros(zeros.len()));
            }
        }
    }
}

/// Where the hole ends that a range lies in; `None` where it lies in none. To say so costs more than a few bytes.
pub(super) fn hole_end(open: &OpenFile, range: ByteRange) -> Option<HoleEnd> {
    let file_bytes = open.stat.size_bytes();
    if open.stat.allocated_bytes >= file_bytes || range.len() <= HOLE_BODY_BYTES as u64 {
        return None;
    }
    let data = next_data(&open.file, range.start()).ok()?.unwrap_or(file_bytes).min(file_bytes);
    (data >= range.end()).then(|| HoleEnd::new(range, data))
}
