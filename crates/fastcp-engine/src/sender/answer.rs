//! The sender on one data connection: requests in, pieces out, in order.
//!
//! Every request is answered by itself, from the path and the range it names. Short answers gather in
//! one buffer and leave together when no further request is waiting; long ones go slice by slice.
//! After the last byte the file is looked at once more: one that changed under the read is said to
//! have, in the trailer, and a body that could not be completed is padded to its announced length.

use std::time::{Duration, Instant};

use fastcp_model::{ByteRange, Capabilities, RelPath, Status};
use fastcp_net::{Agreed, Connection, Inbox, NetError};
use fastcp_sys::Stat;
use fastcp_sys::file::read_at;
use fastcp_sys::tcp::TcpInfo;
use fastcp_wire::WireError;
use fastcp_wire::limits::ZSTD_RANGE_BYTES_MAX;
use fastcp_wire::reply::{BodyKind, PieceHeader, Reply, TRAILER_BYTES, Trailer};
use fastcp_wire::request::{
    Ask, ExtendedRequest, ID_UNREADABLE, REQUEST_HEADER_BYTES, RangeRequest, Request, RequestHeader,
};

use crate::content::compress::{RangeCompressor, SAMPLE_BYTES};
use crate::content::zeros::SLICE_BYTES;
use crate::sender::adapt::{Adaptive, Answered, Carried};
use crate::sender::source::{OpenFile, Source};
use crate::settings::Compression;

mod bundle;
mod bytes;
mod computed;
mod pulse;

use computed::hole_end;

/// An attached connection may ask for nothing this long.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);
/// A file is kept open for as long. What is replaced, be it by a directory that takes the place of its own, keeps
/// being what was offered for whoever has it open. So this is less than the shortest wait before something is
/// offered again: what is offered again is opened again.
const KEPT_OPEN_MAX: Duration = Duration::from_millis(100);
/// A receiver may take nothing this long, for instance while its disk is busy.
pub(crate) const SEND_TIMEOUT: Duration = Duration::from_secs(300);
/// Gathered answers leave at this size even if more requests wait.
const FLUSH_BYTES: usize = 256 << 10;
/// Or at this age.
const GATHER_TIME_MAX: Duration = Duration::from_millis(500);
/// Longer bodies are not gathered.
const GATHER_BYTES_MAX: u64 = 128 << 10;

/// Answers range requests until the receiver closes.
pub(crate) fn answer_ranges(
    connection: &Connection,
    source: &Source,
    agreed: Agreed,
    compression: Compression,
) -> Result<(), NetError> {
    connection.set_timeouts(Some(IDLE_TIMEOUT), Some(SEND_TIMEOUT))?;
    connection.send_by_bbr();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let connections_for_each = f64::from(agreed.connections) / processors as f64;
    let compression = if agreed.capabilities.contains(Capabilities::COMPRESS) { compression } else { Compression::Off };
    let mut answerer = Answerer {
        connection,
        source,
        compression,
        inbox: Inbox::new(),
        out: Vec::with_capacity(FLUSH_BYTES + SLICE_BYTES),
        body: Vec::new(),
        open: None,
        compressor: None,
        adaptive: Adaptive::new(connection.is_long(), connections_for_each),
        busy_since: Instant::now(),
        left_at: Instant::now(),
        blocked: Duration::ZERO,
        wire_bytes: 0,
    };
    loop {
        match answerer.next_request() {
            Ok(Some(ExtendedRequest::Bundle(request))) => answerer.answer_bundle(&request)?,
            Ok(Some(ExtendedRequest::Range(request))) => answerer.answer(&request)?,
            Ok(None) => return answerer.flush(),
            Err(NetError::Request(error)) => {
                answerer.put_header(ID_UNREADABLE, Reply::failed(Status::BadRequest), BodyKind::Raw, 0);
                answerer.flush()?;
                return Err(NetError::Request(error));
            }
            Err(error) => return Err(error),
        }
    }
}

struct Answerer<'a> {
    connection: &'a Connection,
    source: &'a Source,
    compression: Compression,
    inbox: Inbox,
    /// Answers that have not left yet.
    out: Vec<u8>,
    /// A range on its way through the compressor, or a slice on its way to the CRC.
    body: Vec<u8>,
    /// The file of the last request: chunks of one file come one after the other.
    open: Option<KeptOpen>,
    compressor: Option<RangeCompressor>,
    adaptive: Adaptive,
    /// When the last answer was done, or the last wait for a request was over.
    busy_since: Instant,
    /// Time since then that went into waiting for the socket.
    blocked: Duration,
    /// What the last answer takes on the wire, as far as it is bytes of files.
    wire_bytes: u64,
    /// When answers last left, or the last wait for a request was over.
    left_at: Instant,
}

/// A file that is kept open from one request to the next.
struct KeptOpen {
    path: Box<[u8]>,
    open: OpenFile,
    /// From when on it, or its directory, may have lost its name.
    since: Instant,
}

impl<'a> Answerer<'a> {
    fn next_request(&mut self) -> Result<Option<ExtendedRequest>, NetError> {
        if self.inbox.buffered().len() < REQUEST_HEADER_BYTES || self.out.len() >= FLUSH_BYTES || self.is_late() {
            self.flush()?;
        }
        if self.inbox.buffered().len() < REQUEST_HEADER_BYTES {
            if !self.inbox.fill_to(self.connection, REQUEST_HEADER_BYTES)? {
                return Ok(None);
            }
            (self.busy_since, self.blocked) = (Instant::now(), Duration::ZERO);
            self.left_at = self.busy_since;
        }
        let header_bytes = self.inbox.take::<REQUEST_HEADER_BYTES>(self.connection)?;
        let header = RequestHeader::decode(&header_bytes).map_err(NetError::Request)?;
        if self.inbox.buffered().len() < header.rest_bytes() {
            self.flush()?;
        }
        if !self.inbox.fill_to(self.connection, header.rest_bytes())? {
            return Err(NetError::Closed);
        }
        let request = Request::decode(&header_bytes, header, &self.inbox.buffered()[..header.rest_bytes()]);
        self.inbox.consume(header.rest_bytes());
        match request.map_err(NetError::Request)? {
            // One flipped bit makes an extended request plain: it has no checksum that would tell.
            Request::Plain(_) => Err(NetError::Request(WireError::Value { field: "flags", value: 0 })),
            Request::Extended(request) => Ok(Some(request)),
        }
    }

    fn answer(&mut self, request: &RangeRequest) -> Result<(), NetError> {
        let (open, since) = match self.opened(request) {
            Ok(opened) => opened,
            Err(status) => {
                self.put_header(request.id, Reply::failed(status), BodyKind::Raw, 0);
                return Ok(());
            }
        };
        self.wire_bytes = 0;
        let result = self.answer_from(request, &open);
        self.open = Some(KeptOpen { path: request.path.clone(), open, since });
        if request.ask == Ask::BytesOrZstd {
            self.learn(request.range.len());
        } else {
            // What was computed for it tells nothing of what compression costs.
            (self.busy_since, self.blocked) = (Instant::now(), Duration::ZERO);
        }
        result
    }

    /// Time since the last answer goes to this one. What leaves later, with others, counts with those.
    fn learn(&mut self, file_bytes: u64) {
        if self.compression == Compression::Adaptive {
            let now = Instant::now();
            let blocked = std::mem::take(&mut self.blocked);
            let work = (now - self.busy_since).saturating_sub(blocked);
            let wire_bytes = std::mem::take(&mut self.wire_bytes);
            // A hole says nothing.
            if wire_bytes > 0 {
                let info = || self.connection.tcp_info();
                self.adaptive.answered(Answered { file_bytes, wire_bytes, work, blocked }, || carried(&info()));
            }
            self.busy_since = now;
        }
    }

    /// Whether this range is worth the compressor, which then stands ready at its level. A long range is
    /// sampled before it is read whole, so that what does not shrink still goes without a copy.
    fn may_shrink(&mut self, request: &RangeRequest, open: &OpenFile) -> bool {
        if request.ask != Ask::BytesOrZstd || request.range.len() > ZSTD_RANGE_BYTES_MAX {
            return false;
        }
        let Some(compressor) = self.ready_compressor() else { return false };
        if request.range.len() <= GATHER_BYTES_MAX {
            return true;
        }
        let mut sample = [0; SAMPLE_BYTES];
        let middle = request.range.start() + request.range.len() / 2;
        read_at(&open.file, &mut sample, middle).is_ok_and(|got| compressor.would_shrink(&sample[..got]))
    }

    /// The compressor at the level that is right now; `None` where nothing is to be compressed.
    fn ready_compressor(&mut self) -> Option<&mut RangeCompressor> {
        let level = match self.compression {
            Compression::Off => None,
            Compression::Level(level) => Some(level),
            Compression::Adaptive => self.adaptive.level(),
        }?;
        if self.compressor.is_none() {
            self.compressor = RangeCompressor::new(level);
        }
        let compressor = self.compressor.as_mut()?;
        compressor.set_level(level);
        Some(compressor)
    }

    /// The file of the request. A confirmation opens it anew: it must speak of what has the name now. So does
    /// whoever finds that it has not been opened for a while.
    fn opened(&mut self, request: &RangeRequest) -> Result<(OpenFile, Instant), Status> {
        if let Some(KeptOpen { path, mut open, since }) = self.open.take()
            && path == request.path
            && !request.ask.is_confirmation()
            && since.elapsed() < KEPT_OPEN_MAX
        {
            open.stat = Stat::of_fd(&open.file).map_err(|_| Status::InputOutput)?;
            return Ok((open, since));
        }
        let since = Instant::now();
        let path: RelPath = request.rel_path().map_err(|_| Status::BadPath)?;
        Ok((self.source.open_file(&path)?, since))
    }

    fn answer_from(&mut self, request: &RangeRequest, open: &OpenFile) -> Result<(), NetError> {
        let mut reply = reply_of(&open.stat);
        if request.range.end() > reply.file_bytes {
            reply.status = Status::BadRange;
            self.put_header(request.id, reply, BodyKind::Raw, 0);
            return Ok(());
        }
        match request.ask {
            Ask::Confirm | Ask::ConfirmAnew => self.confirm(request, open, reply),
            Ask::Signature(level) => self.answer_signature(request, level, open, reply),
            ask => self.answer_bytes_or_hash(request, ask, open, reply),
        }
    }

    fn answer_bytes_or_hash(
        &mut self,
        request: &RangeRequest,
        ask: Ask,
        open: &OpenFile,
        reply: Reply,
    ) -> Result<(), NetError> {
        if let Some(end) = hole_end(open, request.range) {
            self.answer_hole(request.id, request.range, end, open, reply);
            return Ok(());
        }
        match ask {
            Ask::Hash => self.answer_hash(request, open, reply),
            _ if self.may_shrink(request, open) => {
                self.answer_compressed(request, open, reply);
                Ok(())
            }
            _ if request.range.len() <= GATHER_BYTES_MAX => {
                self.answer_gathered(request.id, request.range, open, reply);
                Ok(())
            }
            _ => self.answer_slices(request, open, reply),
        }
    }

    fn put_header(&mut self, id: u32, reply: Reply, kind: BodyKind, body_bytes: u32) {
        self.out.extend_from_slice(&PieceHeader { reply, id, kind, body_bytes }.encode());
    }

    fn put_trailer(&mut self, open: &OpenFile, range: ByteRange, crc32: u32, status: Status) {
        const { assert!(TRAILER_BYTES == 6) };
        let status = if status == Status::Ok && !open.is_unchanged() { Status::Changed } else { status };
        if status == Status::Ok && range.len() < open.stat.size_bytes() {
            self.source.served.remember(open.stat.identity, range, crc32);
        }
        self.out.extend_from_slice(&Trailer { crc32, status }.encode());
    }

    fn flush(&mut self) -> Result<(), NetError> {
        if !self.out.is_empty() {
            let start = Instant::now();
            self.connection.write_all(&self.out)?;
            self.left_at = Instant::now();
            self.blocked += self.left_at - start;
            self.out.clear();
        }
        Ok(())
    }

    /// Whether gathered answers have waited for so long that they should not wait for more: what comes next may be
    /// slow as well, such as another file that is leased.
    fn is_late(&self) -> bool {
        !self.out.is_empty() && self.left_at.elapsed() >= GATHER_TIME_MAX
    }

    /// Sends what is gathered, telling the kernel that a body follows at once.
    fn send_out_before_body(&mut self) -> Result<(), NetError> {
        self.connection.write_more(&self.out)?;
        self.left_at = Instant::now();
        self.out.clear();
        Ok(())
    }
}

fn carried(info: &TcpInfo) -> Carried {
    Carried { bytes: info.acked_bytes, time: info.network_limited(), waiting_bytes: info.unsent_bytes }
}

/// The reply about a file in a state.
fn reply_of(stat: &Stat) -> Reply {
    Reply { status: Status::Ok, file_bytes: stat.size_bytes(), mtime_ns: stat.metadata.mtime.wire_ns(), crc32: 0 }
}
