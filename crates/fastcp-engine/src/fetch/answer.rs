//! One answer: its bytes into the part file, and whether they are what the sender has.

use fastcp_model::Status;
use fastcp_wire::WireError;
use fastcp_wire::limits::ZSTD_RANGE_BYTES_MAX;
use fastcp_wire::reply::{BodyKind, HOLE_BODY_BYTES, PieceHeader, Trailer};
use zstd::bulk::Decompressor;

use super::arrival::{SourceState, state_of_source};
use super::body::{Received, Target};
use super::hole::Hole;
use super::{End, Fetcher, broken, hole};
use crate::commit::landing::Writing;
use crate::error::RunError;
use crate::report::Cause;
use crate::schedule::answered::SenderCrc;
use crate::schedule::job::FileJob;
use crate::schedule::want::Want;
use crate::target::part::PartFile;
use crate::target::proof::RangeCrc;

impl Fetcher<'_> {
    pub(super) fn take_bytes(&mut self, want: &Want, header: &PieceHeader) -> Result<Vec<Want>, End> {
        if header.reply.status != Status::Ok {
            if let Some(elsewhere) = self.disagrees(want) {
                return Ok(elsewhere);
            }
            self.transfer.moved(&want.job, header.reply.status).map_err(End::Fatal)?;
            return Ok(Vec::new());
        }
        check_body(want, header).map_err(broken)?;
        let state = match state_of_source(&want.job, &header.reply) {
            // What another source has more of is not this file.
            SourceState::Grown if !self.is_of_lead() => SourceState::Changed,
            state => state,
        };
        if state == SourceState::Grown {
            want.job.set_grown();
        }
        let is_of_use = state != SourceState::Changed && !want.job.has_failed();
        let part = if is_of_use { self.landing.part_for(want).map_err(End::Fatal)? } else { None };
        let (received, hole) = match header.kind {
            BodyKind::Hole => self.take_hole(want, header, part.as_deref())?,
            _ => (self.take_body(want, header, part.as_deref())?, None),
        };
        let trailer = RangeCrc::take_trailer(want.range, &mut self.body.inbox, self.connection).map_err(End::Broken)?;
        let job = &want.job;
        let Some(part) = part else {
            if state == SourceState::Changed {
                if let Some(elsewhere) = self.disagrees(want) {
                    return Ok(elsewhere);
                }
                self.transfer.moved(job, Status::Changed).map_err(End::Fatal)?;
            }
            return Ok(Vec::new());
        };
        if let Err(source) = received.written {
            self.transfer.give_up(job, Cause::Destination { operation: "cannot write", source }).map_err(End::Fatal)?;
            return Ok(Vec::new());
        }
        self.judge(want, part, (received.crc, hole), trailer)
    }

    /// Compares what was written with what the sender says of it.
    fn judge(
        &mut self,
        want: &Want,
        part: Writing,
        (crc, hole): (Option<u32>, Option<Hole>),
        trailer: Result<(RangeCrc, Status), WireError>,
    ) -> Result<Vec<Want>, End> {
        let trailer = trailer.map(|(crc, status)| {
            let crc = hole.as_ref().map_or(crc, |hole| crc.of_hole(hole.body_crc));
            (SenderCrc::new(want, crc), status)
        });
        match (crc, trailer) {
            (Some(crc), Ok((sender, status))) if crc == sender.crc() && is_as_sent(&want.job, status) => {
                self.transfer.report.counters.bytes_fetched.add(want.range.len());
                self.transfer.report.run.add_proven();
                if let Some(hole) = hole {
                    self.take_rest_of_hole(want, &part, hole.end)?;
                }
                self.arrived(part, crc, sender)
            }
            // The body or its trailer were damaged, or the source changed under the read. In the last
            // case the next answer's header will tell.
            (crc, trailer) => {
                drop(part);
                let trailer = trailer.map(|(sender, status)| Trailer { crc32: sender.crc(), status });
                self.refetch(want, crc.unwrap_or(0), trailer)
            }
        }
    }

    fn take_body(&mut self, want: &Want, header: &PieceHeader, part: Option<&PartFile>) -> Result<Received, End> {
        let target = match part {
            None => Target::Nowhere,
            Some(part) if want.job.sparse && hole::is_clean(want, want.range, part) => {
                Target::SparseFile(part, want.range.start())
            }
            Some(part) => Target::File(part, want.range.start()),
        };
        match header.kind {
            BodyKind::Raw => self.body.receive_raw(want.range.len(), target).map_err(End::Broken),
            BodyKind::Zstd => self.take_zstd(want, header, target),
            BodyKind::Hole | BodyKind::Bundle | BodyKind::Signature | BodyKind::Hash | BodyKind::Progress => {
                Err(broken(WireError::Value { field: "kind", value: header.kind as u64 }))
            }
        }
    }

    /// What was compressed to the bytes in `scratch`; `None` where that was not so, or more than `bytes_max`.
    pub(super) fn decompress(&mut self, bytes_max: usize) -> Result<Option<Vec<u8>>, End> {
        let mut decompressor = match self.decompressor.take() {
            Some(decompressor) => decompressor,
            None => Decompressor::new()
                .map_err(|source| End::Fatal(RunError::Exhausted { operation: "decompress", source }))?,
        };
        let bytes = decompressor.decompress(&self.scratch, bytes_max).ok();
        self.decompressor = Some(decompressor);
        Ok(bytes)
    }

    fn take_zstd(&mut self, want: &Want, header: &PieceHeader, target: Target<'_>) -> Result<Received, End> {
        self.scratch.resize(header.body_bytes as usize, 0);
        self.body.inbox.take_into(self.connection, &mut self.scratch).map_err(End::Broken)?;
        Ok(match self.decompress(want.range.len() as usize)? {
            Some(bytes) if bytes.len() as u64 == want.range.len() => {
                Received { crc: Some(crc32fast::hash(&bytes)), written: self.body.write(&bytes, target) }
            }
            // As good as a wrong checksum: the range is fetched anew.
            _ => Received { crc: None, written: Ok(()) },
        })
    }
}

/// Whether a body may be kept whose checksum is right: one that is still growing is confirmed by a second
/// reading, and says "changed" at every look.
fn is_as_sent(job: &FileJob, status: Status) -> bool {
    status == Status::Ok || (status == Status::Changed && job.has_grown())
}

/// A body that does not fit its range is a peer's mistake, whatever its bytes.
fn check_body(want: &Want, header: &PieceHeader) -> Result<(), WireError> {
    let (len, body_bytes) = (want.range.len(), u64::from(header.body_bytes));
    let fits = match header.kind {
        BodyKind::Raw => body_bytes == len,
        BodyKind::Hole => body_bytes == HOLE_BODY_BYTES as u64,
        BodyKind::Zstd => body_bytes < len && len <= ZSTD_RANGE_BYTES_MAX,
        BodyKind::Bundle | BodyKind::Signature | BodyKind::Hash | BodyKind::Progress => {
            return Err(WireError::Value { field: "kind", value: header.kind as u64 });
        }
    };
    if fits { Ok(()) } else { Err(WireError::Value { field: "body_len", value: body_bytes }) }
}
