//! Many small files of one directory, asked for in one request, and what comes back as one.
//!
//! A bundle is only a way of asking and of packing: each file has a want and an answer of its own, which
//! is taken like any other.

use fastcp_model::RelPath;
use fastcp_net::Inbox;
use fastcp_wire::WireError;
use fastcp_wire::bundle::{BundleForm, BundleRequest, Bundled, BundledFile};
use fastcp_wire::reply::{PieceHeader, TRAILER_BYTES, Trailer};

use super::{End, Fetcher, broken};
use crate::schedule::want::Want;

impl Fetcher<'_> {
    /// The request for these wants, which are all whole files of one directory.
    pub(super) fn bundle_request(&self, id: u32, wants: &[Want]) -> BundleRequest {
        let dir = wants.first().map_or_else(RelPath::root, |want| want.job.dir.path.clone());
        let accept = if self.may_compress() { BundleForm::PiecesOrZstd } else { BundleForm::Pieces };
        let file_of = |want: &Want| BundledFile { name: want.job.name.as_bytes().into(), len: want.range.len() };
        BundleRequest {
            id,
            dir: self.transfer.path_at_sender(&dir).as_bytes().into(),
            accept,
            files: wants.iter().map(file_of).collect(),
        }
    }

    /// Pieces that came compressed as one. They are taken out of memory like any others; where they were
    /// damaged on the way, all of them are asked for again.
    pub(super) fn take_bundle(&mut self, header: &PieceHeader) -> Result<(), End> {
        let bundled = Bundled::of(header).map_err(broken)?;
        if bundled.pieces > self.owed.len() {
            return Err(broken(WireError::Value { field: "pieces", value: bundled.pieces as u64 }));
        }
        self.scratch.resize(header.body_bytes as usize, 0);
        self.body.inbox.take_into(self.connection, &mut self.scratch).map_err(End::Broken)?;
        let trailer = self.body.inbox.take::<TRAILER_BYTES>(self.connection).map_err(End::Broken)?;
        let pieces = self.decompress(bundled.bytes)?;
        let crc32 = Trailer::decode(&trailer).map(|trailer| trailer.crc32);
        match pieces.filter(|pieces| crc32 == Ok(crc32fast::hash(pieces))) {
            Some(pieces) => self.take_pieces(pieces, bundled.pieces),
            None => {
                for _ in 0..bundled.pieces {
                    self.refetch_first()?;
                }
                Ok(())
            }
        }
    }

    fn take_pieces(&mut self, pieces: Vec<u8>, count: usize) -> Result<(), End> {
        let connection = std::mem::replace(&mut self.body.inbox, Inbox::of(pieces));
        for _ in 0..count {
            let header = self.take_header()?;
            self.take_answer(&header)?;
        }
        let left = std::mem::replace(&mut self.body.inbox, connection).buffered().len();
        if left > 0 { Err(broken(WireError::TrailingBytes(left))) } else { Ok(()) }
    }

    fn refetch_first(&mut self) -> Result<(), End> {
        let Some(want) = self.owed.first().cloned() else { return Err(broken(WireError::Truncated)) };
        let more = self.refetch(&want, 0, Err(WireError::Truncated))?;
        self.answered(&want, more);
        Ok(())
    }
}
