//! Many small files of one directory, answered in one go.
//!
//! The directory is opened once and its files by name in it, which spares the walk along the path. Each
//! file is looked at before and after it is read, and the two looks must show one and the same file: so
//! opening it needs no look of its own. The pieces gather in the connection's buffer like any others;
//! where they are worth compressing they are replaced there by one compressed bundle.

use fastcp_model::{ByteRange, Name, Status};
use fastcp_net::NetError;
use fastcp_wire::bundle::{BundleForm, BundleRequest, Bundled, BundledFile, id_after};
use fastcp_wire::reply::{BodyKind, Reply, Trailer};

use super::{Answerer, hole_end, reply_of};
use crate::sender::source::{OpenFile, ServedDir};

impl Answerer<'_> {
    pub(super) fn answer_bundle(&mut self, request: &BundleRequest) -> Result<(), NetError> {
        let mut start = Some(self.out.len());
        let dir = request.rel_path().map_err(|_| Status::BadPath).and_then(|path| self.source.open_dir(&path));
        let mut id = request.id;
        self.wire_bytes = 0;
        for file in &request.files {
            if self.is_late() {
                // Pieces may come one by one as well.
                self.flush()?;
                start = None;
            }
            match dir.as_ref().map_err(|status| *status).and_then(|dir| open_bundled(dir, file)) {
                Ok((open, range)) => self.answer_bundled(id, &open, range),
                Err(status) => self.put_header(id, Reply::failed(status), BodyKind::Raw, 0),
            }
            id = id_after(id);
        }
        if request.accept == BundleForm::PiecesOrZstd
            && let Some(start) = start
        {
            self.compress_bundle(request, start);
            self.learn(request.bytes());
        }
        Ok(())
    }

    fn answer_bundled(&mut self, id: u32, open: &OpenFile, range: ByteRange) {
        let reply = reply_of(&open.stat);
        if range.end() > reply.file_bytes {
            let reply = Reply { status: Status::BadRange, ..reply };
            self.put_header(id, reply, BodyKind::Raw, 0);
        } else if let Some(end) = hole_end(open, range) {
            self.answer_hole(id, range, end, open, reply);
        } else {
            self.answer_gathered(id, range, open, reply);
        }
    }

    /// Replaces the pieces from `start` on by one compressed piece, where that is shorter.
    fn compress_bundle(&mut self, request: &BundleRequest, start: usize) {
        let mut body = std::mem::take(&mut self.body);
        body.clear();
        let pieces = std::mem::take(&mut self.out);
        let shrunk = self.ready_compressor().and_then(|compressor| compressor.compress(&pieces[start..], &mut body));
        self.out = pieces;
        if let Some(length) = shrunk {
            self.wire_bytes = length as u64;
            let crc32 = crc32fast::hash(&self.out[start..]);
            let bundled = Bundled { pieces: request.files.len(), bytes: self.out.len() - start };
            self.out.truncate(start);
            self.out.extend_from_slice(&bundled.header(request.id, length as u32).encode());
            self.out.extend_from_slice(&body);
            self.out.extend_from_slice(&Trailer { crc32, status: Status::Ok }.encode());
        }
        self.body = body;
    }
}

fn open_bundled(dir: &ServedDir<'_>, file: &BundledFile) -> Result<(OpenFile, ByteRange), Status> {
    let name = Name::new(&file.name).map_err(|_| Status::BadPath)?;
    let range = ByteRange::new(0, file.len).map_err(|_| Status::BadRange)?;
    Ok((dir.open_file(&name)?, range))
}
