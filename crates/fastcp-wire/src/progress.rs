//! Word that an answer is being worked on.
//!
//! A confirmation, a hash or a list of chunks may have a gigabyte to be read for it, from a slow disk. Until it is
//! there the sender says now and then how far it has come: a piece of kind *progress*, which is a header and nothing
//! else, with the id of the request. What it says must grow, by at least [`PROGRESS_BYTES_MIN`] each time and to no
//! more than [`work_bytes_max`], so nobody can be kept waiting by it for ever.

use crate::WireError;
use crate::limits::{PROGRESS_BYTES_MIN, SIGNATURE_CHUNK_BYTES_MAX};
use crate::reply::{BodyKind, PieceHeader, Reply};

/// How far the answer to one request has come. In the header `file_size` is that number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// That of the request.
    pub id: u32,
    /// Bytes read for it, counted as often as they were read.
    pub done_bytes: u64,
}

impl Progress {
    /// The header on the wire.
    pub fn header(self) -> PieceHeader {
        let reply = Reply { file_bytes: self.done_bytes, ..Reply::ok() };
        PieceHeader { reply, id: self.id, kind: BodyKind::Progress, body_bytes: 0 }
    }

    /// Reads such a header.
    ///
    /// # Errors
    /// A status other than ok, a body, or something in the fields that have no meaning here.
    pub fn of(header: &PieceHeader) -> Result<Self, WireError> {
        let progress = Self { id: header.id, done_bytes: header.reply.file_bytes };
        if *header == progress.header() {
            Ok(progress)
        } else {
            Err(WireError::Value { field: "kind", value: header.kind as u64 })
        }
    }
}

/// The most that can be read for the answer about a range of this length. Coarse lists go beyond the range by less
/// than a chunk, and take two readings.
pub fn work_bytes_max(range_bytes: u64) -> u64 {
    range_bytes.saturating_add(SIGNATURE_CHUNK_BYTES_MAX).saturating_mul(2)
}

/// What has been said of one answer.
#[derive(Debug, Clone, Copy)]
pub struct Awaited {
    id: u32,
    said_bytes: u64,
    max: u64,
}

impl Awaited {
    /// The answer to the request with this id, about a range of this length.
    pub fn new(id: u32, range_bytes: u64) -> Self {
        Self { id, said_bytes: 0, max: work_bytes_max(range_bytes) }
    }

    /// Takes word of it.
    ///
    /// # Errors
    /// It is of another request, has not come far enough since the last, or is past the end.
    pub fn hear(&mut self, progress: Progress) -> Result<(), WireError> {
        let is_further = progress.done_bytes >= self.said_bytes.saturating_add(PROGRESS_BYTES_MIN);
        if progress.id != self.id {
            return Err(WireError::Value { field: "id", value: progress.id.into() });
        }
        if !is_further || progress.done_bytes > self.max {
            return Err(WireError::Value { field: "done", value: progress.done_bytes });
        }
        self.said_bytes = progress.done_bytes;
        Ok(())
    }
}

/// Takes word of the answer that is awaited, where there may be word of it at all.
///
/// # Errors
/// The header is none of such word, or says what [`Awaited::hear`] refuses.
pub fn hear(awaited: Option<&mut Awaited>, header: &PieceHeader) -> Result<(), WireError> {
    let progress = Progress::of(header)?;
    match awaited {
        Some(awaited) => awaited.hear(progress),
        None => Err(WireError::Value { field: "kind", value: header.kind as u64 }),
    }
}

#[cfg(test)]
mod tests {
    use super::{Awaited, Progress, work_bytes_max};
    use crate::limits::PROGRESS_BYTES_MIN;

    #[test]
    fn word_must_tell_of_work_and_there_is_an_end_to_it() {
        let range_bytes = 10 * PROGRESS_BYTES_MIN;
        let word = |done_bytes| Progress { id: 3, done_bytes };
        let mut awaited = Awaited::new(3, range_bytes);
        assert!(awaited.hear(word(PROGRESS_BYTES_MIN - 1)).is_err());
        assert!(awaited.hear(word(PROGRESS_BYTES_MIN)).is_ok());
        for done in [0, PROGRESS_BYTES_MIN, 2 * PROGRESS_BYTES_MIN - 1, work_bytes_max(range_bytes) + 1, u64::MAX] {
            assert!(awaited.hear(word(done)).is_err(), "{done}");
        }
        assert!(awaited.hear(Progress { id: 4, ..word(3 * PROGRESS_BYTES_MIN) }).is_err());
        assert!(awaited.hear(word(2 * PROGRESS_BYTES_MIN)).is_ok());
        let mut heard = 0;
        let mut awaited = Awaited::new(3, range_bytes);
        while awaited.hear(word((heard + 1) * PROGRESS_BYTES_MIN)).is_ok() {
            heard += 1;
        }
        assert_eq!(heard, work_bytes_max(range_bytes) / PROGRESS_BYTES_MIN);
    }
}
