//! The receiver on one data connection: wants out, pieces in, and from the last piece to the commit.
//!
//! Requests are pipelined: several are on their way while an answer is read. A piece is written,
//! its CRC compared with the sender's; a small file is complete with one piece, a larger one when all
//! its ranges are there and the sender has confirmed them. A connection that breaks gives back what it
//! owed and is dialled again (`connections.rs`).
//!
//! May import: commit, schedule, link, target, content.
//! Never decides what is wanted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastcp_model::Capabilities;
use fastcp_net::{Attachment, Choice, Connection, DataConnection, NetError};
use fastcp_wire::WireError;
use fastcp_wire::reply::{BodyKind, PIECE_HEADER_BYTES};
use fastcp_wire::request::{Ask, RangeRequest};
use zstd::bulk::Decompressor;

use crate::budget::Reach;
use crate::commit::landing::Landing;
use crate::commit::transfer::Transfer;
use crate::error::RunError;
use crate::fetch::body::BodyReader;
use crate::link::connections::{End, Spare, Work};
use crate::link::patience::Patience;
use crate::link::pipeline::Pipeline;
use crate::schedule::share::Pace;
use crate::schedule::want::{Purpose, Want};
use crate::schedule::{Held, Next, Turn};
use crate::settings::ReceivePath;
use crate::target::proof::Heard;

mod answer;
mod arrival;
pub(crate) mod body;
mod broken;
mod bundle;
mod hole;
pub(crate) mod receive_path;

/// How often it is looked whether another of several sources lacks connections.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Transfer<'_> {
    /// Fetches until nothing is left. `connection` is a number that tells those that work at a time apart.
    pub(crate) fn run_connection(&self, connection: usize) -> Result<(), RunError> {
        self.line.keep_working(&Fetching { transfer: self, connection }, Spare::of(connection))
    }
}

/// The work of one data connection after another, by its number.
struct Fetching<'a> {
    transfer: &'a Transfer<'a>,
    connection: usize,
}

impl Work for Fetching<'_> {
    const DURING: &'static str = "fetching";
    const CHOICE: Choice = Choice::Any;

    fn wait(&self, patience: &mut Patience<'_>) -> bool {
        self.transfer.schedule.set_lead(self.transfer.line.lead());
        match self.transfer.schedule.wait_for_turn(self.connection) {
            None => false,
            Some(Turn::AtOnce) => true,
            Some(Turn::AfterRest) => {
                patience.renew();
                true
            }
        }
    }

    fn run(&self, mut data: DataConnection) -> End {
        let connection = Arc::clone(&data.connection);
        Fetcher::new(self.transfer, &connection, self.connection, data.source).run(&mut data)
    }

    fn is_over(&self) -> bool {
        self.transfer.schedule.is_finished()
    }
}

/// One data connection at work.
struct Fetcher<'a> {
    transfer: &'a Transfer<'a>,
    connection: &'a Connection,
    body: BodyReader<'a>,
    owed: Pipeline<Want>,
    held: Held,
    pace: Pace,
    dialled: Instant,
    /// Ranges proven over all connections, when it was dialled.
    proven_before: u64,
    /// When it was last looked whether another source lacks the connection.
    looked: Instant,
    /// It is made anew as soon as nothing is owed.
    is_leaving: bool,
    /// Something has come of the answer to the first that is owed.
    is_begun: bool,
    /// What the schedule has just handed out.
    wants: Vec<Want>,
    scratch: Vec<u8>,
    /// Made when it is first needed.
    decompressor: Option<Decompressor<'static>>,
    landing: Landing<'a>,
}

impl<'a> Fetcher<'a> {
    fn new(transfer: &'a Transfer<'a>, connection: &'a Connection, number: usize, source: usize) -> Self {
        Self {
            transfer,
            connection,
            body: BodyReader::new(connection, transfer.report, receive_path(transfer)),
            owed: Pipeline::default(),
            held: Held { connection: number, source, ..Held::default() },
            pace: Pace::new(Instant::now()),
            dialled: Instant::now(),
            proven_before: transfer.report.run.proven(),
            looked: Instant::now(),
            is_leaving: false,
            is_begun: false,
            wants: Vec::new(),
            scratch: Vec::new(),
            decompressor: None,
            landing: Landing::new(transfer),
        }
    }

    fn run(mut self, data: &mut DataConnection) -> End {
        self.transfer.schedule.joined(self.held.source);
        let end = match self.begin(data) {
            Err(end) => end,
            Ok(()) => loop {
                if let Err(end) = self.step() {
                    break end;
                }
            },
        };
        let end = match end {
            End::Broken(error) => self.end_broken(error),
            end => end,
        };
        if let End::Broken(error) | End::Unanswered(error) = &end {
            self.transfer.line.note_broken(self.held.source, error);
        }
        self.transfer.schedule.left(self.held.source);
        self.transfer.schedule.give_back(self.held.connection, self.owed.into_owed());
        end
    }

    /// Whether the source decides what is right.
    fn is_of_lead(&self) -> bool {
        self.transfer.schedule.is_lead(self.held.source)
    }

    /// What the source says of a file is not what was offered. Where another one leads, this one is asked for that file no
    /// more.
    fn disagrees(&self, want: &Want) -> Option<Vec<Want>> {
        if self.is_of_lead() {
            return None;
        }
        if want.job.bar(self.held.source) {
            self.transfer.disagrees(&want.job, self.held.source);
        }
        Some(vec![Want { attempt: 1, ..want.clone() }])
    }

    /// Asks on a connection of which the sender may not have said yet that it is one, and hears what it says of that.
    fn begin(&mut self, data: &mut DataConnection) -> Result<(), End> {
        if !data.is_answered() {
            self.ask(Some(self.transfer.line.answer_due(data)))?;
            if self.transfer.line.hear_answer(data).map_err(End::Unanswered)? == Attachment::Anew {
                self.forget();
            }
        }
        Ok(())
    }

    /// What was asked for is lost: it is for whoever asks next.
    fn forget(&mut self) {
        let owed = std::mem::take(&mut self.owed);
        self.transfer.schedule.give_back(self.held.connection, owed.into_owed());
        let Held { connection, source, .. } = self.held;
        self.held = Held { connection, source, ..Held::default() };
    }

    /// Asks for as much as may be in flight, then takes one answer. While answers wait in the buffer they
    /// come first, so that requests leave many at a time.
    fn step(&mut self) -> Result<(), End> {
        let has_answer = !self.owed.is_empty() && self.body.inbox.buffered().len() >= PIECE_HEADER_BYTES;
        if !has_answer {
            self.ask(None)?;
        }
        self.take_piece()
    }

    /// With nothing on its way it waits until there is something to ask for, or until the time given.
    fn ask(&mut self, until: Option<Instant>) -> Result<(), End> {
        self.held.rate = self.pace.rate();
        let held_max = match self.transfer.budget.reach {
            Reach::Full => self.pace.held_max(),
            // What is in flight may each be of a file of its own.
            Reach::Short => 1,
        };
        if self.leaves() && self.owed.is_empty() {
            return Err(End::Rest(Choice::Any));
        }
        while !self.is_leaving && self.held.cost < held_max && self.owed.has_room() {
            if self.asks_alone() {
                break;
            }
            let start = Instant::now();
            let next = self.transfer.schedule.next_until(&self.held, &mut self.wants, until);
            match next {
                Next::Done => return Err(End::Done),
                Next::Rest => return Err(End::Rest(Choice::Any)),
                Next::Lead => return Err(End::Rest(Choice::Lead)),
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
        self.owed.send(self.connection).map_err(End::Broken)
    }

    /// Whether the connection ends for the sake of a source that has too few, or since its keys are worn. Looked at now and then: it changes rarely.
    fn leaves(&mut self) -> bool {
        if self.looked.elapsed() >= LOOK_EVERY {
            self.looked = Instant::now();
            self.is_leaving |= self.connection.is_worn() || self.transfer.line.is_crowded(self.held.source);
        }
        self.is_leaving
    }

    /// Asks for the wants that the schedule handed out: one alone, or several of one directory together.
    fn put_requests(&mut self) {
        let mut wants = std::mem::take(&mut self.wants);
        for failed in wants.extract_if(.., |want| want.job.has_failed()) {
            self.transfer.schedule.done(&failed, Vec::new());
        }
        wants.iter().for_each(|want| self.held.add(want));
        let id = self.owed.next_id();
        match &wants[..] {
            [] => {}
            [want] => {
                let request = self.range_request(id, want);
                self.owed.put_together(wants.drain(..), |out| request.encode(out));
            }
            several => {
                let request = self.bundle_request(id, several);
                self.owed.put_together(wants.drain(..), |out| request.encode(out));
            }
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
        let path = self.transfer.path_at_sender(&want.job.path());
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
        let start = Instant::now();
        let confirming = self.owed.first().filter(|want| want.purpose != Purpose::Fetch);
        let read_bytes = confirming.map(|want| want.range.len());
        let header = self.owed.header(&mut self.body.inbox, self.connection, read_bytes).map_err(End::Broken)?;
        self.transfer.report.counters.waited_network.add_since(start);
        Ok(header)
    }

    fn take_answer(&mut self, header: &Heard) -> Result<(), End> {
        // A header is that of the answer to the first.
        let Some(want) = self.owed.first().cloned() else { return Err(broken(WireError::Truncated)) };
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
        if let Some(owed) = self.owed.pop() {
            self.held.remove(&owed);
        }
        self.pace.brought(want.cost(), Instant::now());
        self.transfer.report.wire.progressed();
        self.transfer.schedule.done(want, more);
    }
}

/// A pipe takes two descriptors.
fn receive_path(transfer: &Transfer<'_>) -> ReceivePath {
    match (transfer.budget.reach, transfer.receive_path) {
        (Reach::Short, ReceivePath::Auto) => ReceivePath::Copy,
        (_, path) => path,
    }
}

fn broken(error: WireError) -> End {
    End::Broken(NetError::Protocol(error))
}
