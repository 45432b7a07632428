//! The receiver on one data connection: wants out, pieces in, and from the last piece to the commit.
//!
//! Requests are pipelined: several are on their way while an answer is read. A piece is written,
//! its CRC compared with the sender's; a small file is complete with one piece, a larger one when all
//! its ranges are there and the sender has confirmed them. A connection that breaks gives back what it
//! owed and is dialled again (`connections.rs`).
//!
//! May import: commit, schedule, link, target, content.
//! Never decides what is wanted.

use std::collections::VecDeque;
use std::time::Instant;

use fastcp_model::{Capabilities, Status};
use fastcp_net::{Connection, NetError};
use fastcp_wire::WireError;
use fastcp_wire::bundle::id_after;
use fastcp_wire::limits::ZSTD_RANGE_BYTES_MAX;
use fastcp_wire::progress::{Awaited, hear};
use fastcp_wire::reply::{BodyKind, HOLE_BODY_BYTES, PIECE_HEADER_BYTES, PieceHeader, Reply, Trailer};
use fastcp_wire::request::{Ask, ID_UNREADABLE, RangeRequest};

use crate::budget::Reach;
use crate::commit::landing::{Landing, Writing};
use crate::commit::transfer::Transfer;
use crate::error::RunError;
use crate::fetch::body::{BodyReader, Received, Target};
use crate::report::Cause;
use crate::schedule::answered::SenderCrc;
use crate::schedule::job::{Arrival, Confirmation, FileJob};
use crate::schedule::share::Pace;
use crate::schedule::want::{Purpose, Want};
use crate::schedule::{Held, Next};
use crate::settings::{Durability, ReceivePath};
use crate::target::part::PartFile;
use crate::target::proof::{Heard, RangeCrc};
use zstd::bulk::Decompressor;

pub(crate) mod body;
mod broken;
mod bundle;
mod connections;
mod hole;
pub(crate) mod receive_path;

pub(crate) use broken::BREAKS_MAX;

/// Bytes of requests on their way at most. The sender reads no requests while it writes; with more
/// than the sockets' buffers hold, both ends would wait for each other.
const REQUEST_BYTES_MAX: usize = 32 << 10;
/// A range whose checksum was wrong is fetched anew this often.
const REFETCH_MAX: u32 = 5;

/// Why a connection stopped fetching.
enum End {
    /// Nothing is left to fetch.
    Done,
    /// Fewer connections do.
    Rest,
    /// It broke; the rest may still work.
    Broken(NetError),
    /// The run is over.
    Fatal(RunError),
}

/// One data connection at work.
struct Fetcher<'a> {
    transfer: &'a Transfer<'a>,
    connection: &'a Connection,
    body: BodyReader<'a>,
    owed: VecDeque<Owed>,
    held: Held,
    pace: Pace,
    request_bytes: usize,
    next_id: u32,
    dialled: Instant,
    /// What had been fetched, over all connections, when it was dialled.
    fetched_before: u64,
    /// Something has come of the answer to the first that is owed.
    is_begun: bool,
    requests: Vec<u8>,
    /// What the schedule has just handed out.
    wants: Vec<Want>,
    scratch: Vec<u8>,
    /// Made when it is first needed.
    decompressor: Option<Decompressor<'static>>,
    landing: Landing<'a>,
}

struct Owed {
    id: u32,
    request_bytes: usize,
    want: Want,
}

impl<'a> Fetcher<'a> {
    fn new(transfer: &'a Transfer<'a>, connection: &'a Connection, number: usize) -> Self {
        Self {
            transfer,
            connection,
            body: BodyReader::new(connection, transfer.report, receive_path(transfer)),
            owed: VecDeque::new(),
            held: Held { connection: number, ..Held::default() },
            pace: Pace::new(Instant::now()),
            request_bytes: 0,
            next_id: 0,
            dialled: Instant::now(),
            fetched_before: transfer.report.counters.bytes_fetched.now(),
            is_begun: false,
            requests: Vec::new(),
            wants: Vec::new(),
            scratch: Vec::new(),
            decompressor: None,
            landing: Landing::new(transfer),
        }
    }

    fn run(mut self) -> End {
        let end = loop {
            if let Err(end) = self.step() {
                break end;
            }
        };
        let end = match end {
            End::Broken(error) => self.end_broken(error),
            end => end,
        };
        self.transfer.schedule.give_back(self.held.connection, self.owed.into_iter().map(|owed| owed.want));
        end
    }

    /// Asks for as much as may be in flight, then takes one answer. While answers wait in the buffer they
    /// come first, so that requests leave many at a time.
    fn step(&mut self) -> Result<(), End> {
        let has_answer = !self.owed.is_empty() && self.body.inbox.buffered().len() >= PIECE_HEADER_BYTES;
        if !has_answer {
            self.ask()?;
        }
        self.take_piece()
    }

    fn ask(&mut self) -> Result<(), End> {
        self.held.rate = self.pace.rate();
        let held_max = match self.transfer.budget.reach {
            Reach::Full => self.pace.held_max(),
            // What is in flight may each be of a file of its own.
            Reach::Short => 1,
        };
        while self.held.cost < held_max && (self.request_bytes < REQUEST_BYTES_MAX || self.owed.is_empty()) {
            if self.asks_alone() {
                break;
            }
            let start = Instant::now();
            let next = self.transfer.schedule.next(&self.held, &mut self.wants);
            match next {
                Next::Done => return Err(End::Done),
                Next::Rest => return Err(End::Rest),
                Next::Enough => break,
                Next::Wants => {
                    if self.owed.is_empty() {
                        self.transfer.report.counters.waited_source.add_since(start);
                        self.pace.resume(Instant::now());
                    }
                    self.put_requests();
                }
            }
        }
        if !self.requests.is_empty() {
            self.connection.write_all(&self.requests).map_err(End::Broken)?;
            self.requests.clear();
        }
        Ok(())
    }

    /// Asks for the wants that the schedule handed out: one alone, or several of one directory together.
    fn put_requests(&mut self) {
        let mut wants = std::mem::take(&mut self.wants);
        for failed in wants.extract_if(.., |want| want.job.has_failed()) {
            self.transfer.schedule.done(&failed, Vec::new());
        }
        let start = self.requests.len();
        let id = self.next_id;
        match &wants[..] {
            [] => {}
            [want] => self.range_request(id, want).encode(&mut self.requests),
            several => self.bundle_request(id, several).encode(&mut self.requests),
        }
        let mut request_bytes = self.requests.len() - start;
        self.request_bytes += request_bytes;
        for want in wants.drain(..) {
            self.held.add(&want);
            // What it takes to ask for a bundle is over with its first answer: they come together.
            let request_bytes = std::mem::take(&mut request_bytes);
            self.owed.push_back(Owed { id: self.next_id, request_bytes, want });
            self.next_id = id_after(self.next_id);
        }
        self.wants = wants;
    }

    fn range_request(&self, id: u32, want: &Want) -> RangeRequest {
        let ask = match want.purpose {
            Purpose::Confirm => Ask::Confirm,
            Purpose::ConfirmAnew => Ask::ConfirmAnew,
            Purpose::Fetch if self.may_compress() => Ask::BytesOrZstd,
            Purpose::Fetch => Ask::Bytes,
        };
        let path = self.transfer.path_at_sender(want.job.path());
        RangeRequest { id, path: path.as_bytes().into(), range: want.range, ask }
    }

    fn may_compress(&self) -> bool {
        self.transfer.agrees(Capabilities::COMPRESS)
    }

    fn take_piece(&mut self) -> Result<(), End> {
        let header = self.take_header()?;
        self.is_begun = true;
        match header.kind {
            BodyKind::Bundle => self.take_bundle(&header),
            _ => self.take_answer(&header),
        }
    }

    fn take_header(&mut self) -> Result<Heard, End> {
        let confirming = self.owed.front().filter(|owed| owed.want.purpose != Purpose::Fetch);
        let mut awaited = confirming.map(|owed| Awaited::new(owed.id, owed.want.range.len()));
        loop {
            let start = Instant::now();
            let header = Heard::take(&mut self.body.inbox, self.connection).map_err(End::Broken)?;
            self.transfer.report.counters.waited_network.add_since(start);
            if header.reply.status == Status::Busy {
                // Nothing is said of the file: it is asked for again, a little later.
                return Err(End::Broken(NetError::Refused(Status::Busy)));
            }
            if header.id == ID_UNREADABLE && header.reply.status != Status::Ok {
                // A request was damaged on its way: all that is owed is asked for again.
                return Err(End::Broken(NetError::Closed));
            }
            if header.kind != BodyKind::Progress {
                return Ok(header);
            }
            hear(awaited.as_mut(), &header).map_err(broken)?;
        }
    }

    fn take_answer(&mut self, header: &Heard) -> Result<(), End> {
        let Some(owed) = self.owed.front().filter(|owed| owed.id == header.id) else {
            return Err(broken(WireError::Value { field: "id", value: header.id.into() }));
        };
        let want = owed.want.clone();
        let more = match want.purpose {
            Purpose::Confirm | Purpose::ConfirmAnew => self.take_confirmation(&want, header)?,
            Purpose::Fetch => self.take_bytes(&want, header)?,
        };
        self.answered(&want, more);
        Ok(())
    }

    /// The first of what is owed has been answered, and leads to `more`.
    fn answered(&mut self, want: &Want, more: Vec<Want>) {
        self.is_begun = false;
        if let Some(owed) = self.owed.pop_front() {
            self.request_bytes -= owed.request_bytes;
            self.held.remove(&owed.want);
        }
        self.pace.brought(want.cost(), Instant::now());
        self.transfer.report.wire.progressed();
        self.transfer.schedule.done(want, more);
    }

    fn take_bytes(&mut self, want: &Want, header: &PieceHeader) -> Result<Vec<Want>, End> {
        if header.reply.status != Status::Ok {
            self.transfer.moved(&want.job, header.reply.status).map_err(End::Fatal)?;
            return Ok(Vec::new());
        }
        check_body(want, header).map_err(broken)?;
        let state = state_of_source(&want.job, &header.reply);
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
                self.transfer.moved(job, Status::Changed).map_err(End::Fatal)?;
            }
            return Ok(Vec::new());
        };
        if let Err(source) = received.written {
            self.transfer.give_up(job, Cause::Destination { operation: "cannot write", source }).map_err(End::Fatal)?;
            return Ok(Vec::new());
        }
        let trailer = trailer.map(|(crc, status)| {
            let crc = hole.as_ref().map_or(crc, |hole| crc.of_hole(hole.body_crc));
            (SenderCrc::new(want, crc), status)
        });
        match (received.crc, trailer) {
            (Some(crc), Ok((sender, status))) if crc == sender.crc() && is_as_sent(job, status) => {
                self.transfer.report.counters.bytes_fetched.add(want.range.len());
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
    fn decompress(&mut self, bytes_max: usize) -> Result<Option<Vec<u8>>, End> {
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

    /// A range was written, and `crc` of what was written is the sender's.
    fn arrived(&mut self, part: Writing, crc: u32, sender: SenderCrc<'_>) -> Result<Vec<Want>, End> {
        let (job, range) = (sender.job(), sender.range());
        let arrival = match (part, sender.of_whole()) {
            (Writing::Whole(part), Some(proof)) if !job.has_grown() => {
                self.landing.land(part, crc, proof).map_err(End::Fatal)?;
                return Ok(Vec::new());
            }
            (Writing::Whole(part), _) => {
                job.adopt(part);
                job.stands(range, crc)
            }
            (Writing::Shared(part), _) => {
                if self.transfer.settings.durability != Durability::None {
                    fastcp_sys::file::start_write_back(part.file(), range.start(), range.len());
                }
                drop(part);
                job.arrived(range, crc)
            }
        };
        match arrival {
            Arrival::Partial => Ok(Vec::new()),
            Arrival::Whole => Ok(Want::confirmations(job)),
        }
    }

    fn take_confirmation(&mut self, want: &Want, header: &Heard) -> Result<Vec<Want>, End> {
        let job = &want.job;
        let reply = header.reply;
        if job.has_failed() {
            return Ok(Vec::new());
        }
        let state = state_of_source(job, &reply);
        let confirmed = header.confirms(want.range).map(|crc| SenderCrc::new(want, crc));
        let ended = match confirmed {
            None => self.transfer.moved(job, reply.status),
            Some(_) if state == SourceState::Changed => self.transfer.moved(job, Status::Changed),
            // What the sender remembers may be of bytes that were since written through a mapping.
            Some(sender)
                if want.purpose == Purpose::Confirm && state == SourceState::Offered && job.differs(&sender) =>
            {
                return Ok(vec![Want { purpose: Purpose::ConfirmAnew, ..want.clone() }]);
            }
            Some(sender) => match FileJob::confirmed(sender) {
                Confirmation::Partial => return Ok(want.next_confirmation().into_iter().collect()),
                Confirmation::Settled => Ok(()),
                Confirmation::Whole { part, written, proof } => self.landing.land(part, written, proof),
                Confirmation::Busy => {
                    let source = std::io::ErrorKind::ResourceBusy.into();
                    self.transfer.give_up(job, Cause::Destination { operation: "cannot commit", source })
                }
                // What was there before it grew is not what is there now.
                Confirmation::Mismatch(_) if state == SourceState::Grown => self.transfer.moved(job, Status::Changed),
                Confirmation::Mismatch(mismatch) => self.transfer.mismatched(job, mismatch),
            },
        };
        ended.map_err(End::Fatal)?;
        Ok(Vec::new())
    }

    fn refetch(&mut self, want: &Want, got: u32, trailer: Result<Trailer, WireError>) -> Result<Vec<Want>, End> {
        if want.attempt < REFETCH_MAX {
            self.transfer.report.counters.chunks_refetched.add(1);
            return Ok(vec![Want { attempt: want.attempt + 1, ..want.clone() }]);
        }
        let ended = match trailer {
            Ok(Trailer { crc32, status: Status::Ok }) => {
                self.transfer.give_up(&want.job, Cause::Checksum { want: crc32, got })
            }
            Ok(Trailer { status, .. }) => self.transfer.moved(&want.job, status),
            Err(_) => self.transfer.give_up(&want.job, Cause::Source(Status::InputOutput)),
        };
        ended.map_err(End::Fatal)?;
        Ok(Vec::new())
    }
}

/// A pipe takes two descriptors.
fn receive_path(transfer: &Transfer<'_>) -> ReceivePath {
    match (transfer.budget.reach, transfer.settings.receive_path) {
        (Reach::Short, ReceivePath::Auto) => ReceivePath::Copy,
        (_, path) => path,
    }
}

/// The source beside what was offered of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SourceState {
    Offered,
    /// Longer. What was offered may still be its beginning: the confirmation will tell.
    Grown,
    Changed,
}

fn state_of_source(job: &FileJob, reply: &Reply) -> SourceState {
    let offered_bytes = job.grid.file_bytes();
    if reply.file_bytes > offered_bytes {
        SourceState::Grown
    } else if reply.file_bytes == offered_bytes && reply.mtime_ns == job.metadata.mtime.wire_ns() {
        SourceState::Offered
    } else {
        SourceState::Changed
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

fn broken(error: WireError) -> End {
    End::Broken(NetError::Protocol(error))
}
