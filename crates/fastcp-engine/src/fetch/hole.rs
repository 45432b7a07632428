//! Holes: ranges that the sender says are zeros, without the zeros.
//!
//! An answer says how far the hole goes on. What has not been handed out of that is taken out of the schedule and
//! brought about at once, so a hole costs a few requests whatever its length. The sender's word is proven like any
//! other: by the confirmation of the whole file.

use std::io;

use fastcp_model::ByteRange;
use fastcp_sys::file::{punch_hole, zero_range};
use fastcp_wire::reply::{HOLE_BODY_BYTES, HoleEnd, PieceHeader};

use super::{End, Fetcher, broken};
use crate::content::zeros::{crc_of_zeros, put_zeros};
use crate::fetch::body::Received;
use crate::report::Cause;
use crate::schedule::stop_watch::StopWatch;
use crate::schedule::want::Want;
use crate::target::part::PartFile;

/// What an answer says of a hole.
pub(super) struct Hole {
    pub(super) end: HoleEnd,
    /// What the trailer has to repeat.
    pub(super) body_crc: u32,
}

impl Fetcher<'_> {
    /// Takes the body of a hole, and has the range of the want read as zeros.
    pub(super) fn take_hole(
        &mut self,
        want: &Want,
        header: &PieceHeader,
        part: Option<&PartFile>,
    ) -> Result<(Received, Option<Hole>), End> {
        let body = self.body.inbox.take::<HOLE_BODY_BYTES>(self.connection).map_err(End::Broken)?;
        let body_crc = crc32fast::hash(&body);
        // As good as a wrong checksum: it is asked for anew.
        let Ok(end) = HoleEnd::decode(body, want.range, header.reply.file_bytes) else {
            return Ok((Received { crc: None, written: Ok(()) }, None));
        };
        let written = part.map_or(Ok(()), |part| self.make_zeros(want, want.range, part));
        if written.is_err() && self.transfer.schedule.is_stopped() {
            return Err(End::Done);
        }
        Ok((Received { crc: Some(crc_of_zeros(want.range.len())), written }, Some(Hole { end, body_crc })))
    }

    /// Has the file read as zeros up to the end of the hole, as far as nobody else has that in hand.
    pub(super) fn take_rest_of_hole(&mut self, want: &Want, part: &PartFile, end: HoleEnd) -> Result<(), End> {
        let job = &want.job;
        let end = end.offset().min(job.grid.file_bytes());
        let Some(rest) = end.checked_sub(want.range.end()).filter(|&rest| rest > 0) else { return Ok(()) };
        let rest = ByteRange::new(want.range.end(), rest).map_err(|_| broken(fastcp_wire::WireError::Truncated))?;
        for range in self.transfer.schedule.take_hole(job, rest) {
            let made = self.make_zeros(want, range, part);
            if self.transfer.schedule.is_stopped() {
                return Err(End::Done);
            }
            if job.has_failed() {
                return Ok(());
            }
            if let Err(source) = made {
                let cause = Cause::Destination { operation: "cannot write", source };
                self.transfer.give_up(job, cause).map_err(End::Fatal)?;
                return Ok(());
            }
            self.transfer.report.counters.bytes_fetched.add(range.len());
            job.hole_arrived(range);
        }
        Ok(())
    }

    /// Has a range of a part file read as zeros; where holes are to stay, as a hole. Where the file system has no way
    /// to do so they are written, until the run is stopped or the file has failed.
    fn make_zeros(&self, want: &Want, range: ByteRange, part: &PartFile) -> io::Result<()> {
        if range.is_empty() || (want.job.sparse && is_clean(want, range, part)) || zero_range(part.file(), range)? {
            return Ok(());
        }
        let mut stop = StopWatch::new(self.transfer.schedule);
        let mut at = range.start();
        put_zeros(range.len(), |zeros| {
            part.write_at(zeros, at)?;
            at += zeros.len() as u64;
            if want.job.has_failed() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            stop.passed(zeros.len() as u64)
        })
    }
}

/// Whether a range reads as zeros, so that zeros need not be written: it was never written to, or what
/// stood there, be it of an earlier attempt or of an old version, was taken away.
pub(super) fn is_clean(want: &Want, range: ByteRange, part: &PartFile) -> bool {
    let is_untouched = part.is_new() && (want.attempt == 0 || want.is_whole_file());
    is_untouched || punch_hole(part.file(), range.start(), range.len()).unwrap_or(false)
}

#[cfg(test)]
mod tests;
