//! Comparing contents on one data connection: hashes of ranges are asked for, and taken here of the same.
//!
//! Requests are pipelined, so both ends hash at the same time. A window of them is kept full by half: while
//! the sender works on one half, this end does the other. What an answer says of the file's size and time
//! is compared with the offer first, for a source that has changed is no difference but a reason to look
//! again later. A connection that breaks gives its ranges back and is dialled again.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use fastcp_model::{ByteRange, RelPath};
use fastcp_net::{Attachment, Choice, Connection, DataConnection, Inbox, NetError};
use fastcp_sys::file::next_data_range;
use fastcp_sys::{Root, Stat};
use fastcp_wire::request::RangeRequest;
use fastcp_wire::signature::RangeHash;

use super::answer::{Answer, Hashing, take_answer};
use super::queue::{Check, CheckQueue, FileCheck, IfEmpty, NextCheck};
use crate::breaks::BREAKS_MAX;
use crate::content::strong_hash::{hash_of, hash_of_zeros};
use crate::content::zeros::SLICE_BYTES;
use crate::difference::Difference;
use crate::link::connections::{End, Work};
use crate::link::line::Line;
use crate::link::patience::Patience;
use crate::link::pipeline::Pipeline;
use crate::report::{Cause, Report};

/// Bytes of files that they ask about at most, one range excepted: so that connections share what is left.
const ASKED_BYTES_MAX: u64 = 64 << 20;
/// Ranges are cut no shorter than this where holes begin and end.
const CUT_BYTES_MIN: u64 = 1 << 20;
/// An answer that cannot be used is asked for again this often.
const ATTEMPTS_MAX: u32 = 5;

/// What all connections of a verification share.
pub(super) struct Verification<'a> {
    pub(super) line: &'a Line<'a>,
    /// The directory at the sender that offered paths are relative to.
    pub(super) base: RelPath,
    pub(super) root: &'a Root,
    pub(super) queue: &'a CheckQueue,
    pub(super) report: &'a Report,
    pub(super) hashing: Hashing,
}

impl Work for Verification<'_> {
    const CHOICE: Choice = Choice::Lead;
    const DURING: &'static str = "comparing contents";

    fn wait(&self, _: &mut Patience<'_>) -> bool {
        self.queue.wait_for_work()
    }

    fn run(&self, mut data: DataConnection) -> End {
        let connection = Arc::clone(&data.connection);
        match ContentAsker::new(self, &connection).run(&mut data) {
            Ok(()) => End::Done,
            Err(error) if data.is_answered() => End::Broken(error),
            Err(error) => End::Unanswered(error),
        }
    }

    fn is_over(&self) -> bool {
        self.queue.is_over()
    }
}

impl Verification<'_> {
    /// Says what became of a file, if nothing was said of it yet.
    fn settle(&self, file: &FileCheck, outcome: Fault) {
        if !file.settle() {
            return;
        }
        let path = file.path.clone();
        match outcome {
            Fault::Differs(what) => self.report.differs(path, what),
            Fault::Failed(cause) => self.report.failed(path, cause),
        }
    }
}

fn differ(there: RangeHash, here: RangeHash) -> Option<Fault> {
    (there != here).then_some(Fault::Differs(Difference::Contents))
}

/// What is in a range of a file here.
enum Here {
    Hole,
    Hash(RangeHash),
}

impl Here {
    fn hash(&self, range: ByteRange) -> RangeHash {
        match self {
            Self::Hole => hash_of_zeros(range.len()),
            Self::Hash(hash) => *hash,
        }
    }
}

/// What ends the comparison of a file early.
enum Fault {
    Differs(Difference),
    Failed(Cause),
}

/// One data connection at work.
struct ContentAsker<'a> {
    verification: &'a Verification<'a>,
    connection: &'a Connection,
    inbox: Inbox,
    owed: Pipeline<Check>,
    asked_bytes: u64,
    slice: Vec<u8>,
    /// The file of the last range: ranges of one file come one after the other.
    open: Option<(Arc<FileCheck>, File)>,
}

impl<'a> ContentAsker<'a> {
    fn new(verification: &'a Verification<'a>, connection: &'a Connection) -> Self {
        Self {
            verification,
            connection,
            inbox: Inbox::new(),
            owed: Pipeline::default(),
            asked_bytes: 0,
            slice: vec![0; SLICE_BYTES],
            open: None,
        }
    }

    /// Works until nothing is left. Whatever is owed when the connection breaks is for others to ask for.
    fn run(mut self, data: &mut DataConnection) -> Result<(), NetError> {
        let dialled = Instant::now();
        let done_before = self.verification.queue.done_count();
        let result = self.begin(data).and_then(|()| self.work());
        let was_to_blame = self.owed.first().is_some_and(|check| check.breaks.is_suspect());
        let is_broken = data.is_answered() && matches!(&result, Err(error) if !error.is_shortage());
        if is_broken && (was_to_blame || self.verification.queue.done_count() > done_before) {
            self.blame_first(dialled);
        }
        if result.is_err() {
            self.verification.line.expect_breaks();
        }
        self.verification.queue.give_back(self.owed.into_owed());
        result
    }

    /// The connection broke while the answer to the first was awaited, though others got theirs. A range that does
    /// so again and again fails its file, as in `fetch/broken.rs`.
    fn blame_first(&mut self, dialled: Instant) {
        let Some(first) = self.owed.first_mut() else { return };
        first.breaks.add(dialled);
        if first.breaks.are_too_many()
            && let Some(check) = self.owed.pop()
        {
            let cause = Cause::Broken { connections: BREAKS_MAX };
            self.verification.settle(&check.file, Fault::Failed(cause));
            self.verification.queue.done();
        }
    }

    /// Asks on a connection of which the sender may not have said yet that it is one, and hears what it says of that.
    fn begin(&mut self, data: &mut DataConnection) -> Result<(), NetError> {
        if data.is_answered() {
            return Ok(());
        }
        let line = self.verification.line;
        self.ask(IfEmpty::WaitUntil(line.answer_due(data)))?;
        if line.hear_answer(data)? == Attachment::Anew {
            // What was asked for is lost: it is for whoever asks next.
            self.verification.queue.give_back(std::mem::take(&mut self.owed).into_owed());
            self.asked_bytes = 0;
        }
        Ok(())
    }

    fn work(&mut self) -> Result<(), NetError> {
        loop {
            self.ask(IfEmpty::Wait)?;
            let Some(check) = self.owed.first().cloned() else { return Ok(()) };
            if self.verification.queue.is_stopped() {
                return Ok(());
            }
            // Before the answer is waited for: the sender hashes the same at the same time.
            let here = if check.file.is_settled() { Ok(None) } else { self.look_here(&check) };
            let answer = self.take_answer(&check)?;
            self.compare(check, here, answer);
        }
    }

    /// Fills the window up once half of it is free.
    fn ask(&mut self, with_nothing_owed: IfEmpty) -> Result<(), NetError> {
        // One that may be to blame is asked about alone: what is answered before it could be lost with it.
        let asks_alone = self.owed.last().is_some_and(|check| check.breaks.is_suspect());
        if asks_alone || !self.owed.is_half_empty() || self.asked_bytes > ASKED_BYTES_MAX / 2 {
            return Ok(());
        }
        while self.owed.is_empty() || (self.owed.has_room() && self.asked_bytes < ASKED_BYTES_MAX) {
            let if_empty = if self.owed.is_empty() { with_nothing_owed } else { IfEmpty::Return };
            match self.verification.queue.next(if_empty) {
                NextCheck::Check(check) if check.breaks.is_suspect() => {
                    self.put_request(check);
                    break;
                }
                NextCheck::Check(check) => {
                    let check = self.cut_at_hole(check);
                    self.put_request(check);
                }
                NextCheck::Later | NextCheck::Over => break,
            }
        }
        self.owed.send(self.connection)
    }

    /// Cuts a range where a hole begins or ends here, so that zeros need not be hashed where both ends have a hole.
    /// What is cut off is for whoever comes next.
    fn cut_at_hole(&mut self, check: Check) -> Check {
        let Some(cut) = check.file.has_holes.then(|| self.first_cut(&check)).flatten() else { return check };
        let (start, end) = (check.range.start(), check.range.end());
        let (Ok(first), Ok(rest)) = (ByteRange::new(start, cut - start), ByteRange::new(cut, end - cut)) else {
            return check;
        };
        self.verification.queue.split_off(Check { range: rest, ..check.clone() });
        Check { range: first, ..check }
    }

    /// Where the first hole within a range ends, or its first bytes do; `None` where there is nothing worth a cut. What
    /// goes wrong with the file is found when it is read.
    fn first_cut(&mut self, check: &Check) -> Option<u64> {
        let file = self.file_of(check).ok()?;
        let data = next_data_range(&file, check.range);
        self.open = Some((Arc::clone(&check.file), file));
        let data = data.ok()??;
        let least = check.range.start() + CUT_BYTES_MIN;
        let cut = if data.start() >= least { data.start() } else { data.end().max(least) };
        (cut < check.range.end()).then_some(cut)
    }

    fn file_of(&mut self, check: &Check) -> io::Result<File> {
        match self.open.take() {
            Some((of, file)) if Arc::ptr_eq(&of, &check.file) => Ok(file),
            _ => self.verification.root.open_file(&check.file.path),
        }
    }

    fn put_request(&mut self, check: Check) {
        let path = self.verification.base.join_path(&check.file.path);
        let (id, ask) = (self.owed.next_id(), self.verification.hashing.ask());
        let request = RangeRequest { id, path: path.as_bytes().into(), range: check.range, ask };
        self.asked_bytes += check.range.len();
        self.owed.put(check, |out| request.encode(out));
    }

    /// What is in the range here; `None` where the file is not as long as it was.
    fn look_here(&mut self, check: &Check) -> io::Result<Option<Here>> {
        let file = self.file_of(check)?;
        let stat = Stat::of_fd(&file)?;
        let here = if stat.size_bytes() != check.file.size_bytes {
            None
        } else if stat.allocated_bytes < stat.size_bytes() && next_data_range(&file, check.range)?.is_none() {
            Some(Here::Hole)
        } else {
            hash_of(&file, check.range, &mut self.slice, |_| Ok(()))?.map(Here::Hash)
        };
        self.open = Some((Arc::clone(&check.file), file));
        Ok(here)
    }

    fn take_answer(&mut self, check: &Check) -> Result<Answer, NetError> {
        let start = Instant::now();
        let header = self.owed.header(&mut self.inbox, self.connection, Some(check.range.len()))?;
        self.verification.report.counters.waited_network.add_since(start);
        take_answer(&header, check, self.verification.hashing, &mut self.inbox, self.connection)
    }

    fn compare(&mut self, check: Check, here: io::Result<Option<Here>>, answer: Answer) {
        if let Some(owed) = self.owed.pop() {
            self.asked_bytes -= owed.range.len();
        }
        let verification = self.verification;
        let outcome = match (answer, here) {
            (Answer::Again(_), _) if check.attempt < ATTEMPTS_MAX => {
                verification.report.counters.chunks_refetched.add(1);
                return verification.queue.give_back([Check { attempt: check.attempt + 1, ..check }]);
            }
            (Answer::Again(status) | Answer::Failed(status), _) => Some(Fault::Failed(Cause::Source(status))),
            (_, Err(source)) => Some(Fault::Failed(Cause::Destination { operation: "cannot read", source })),
            (Answer::Hash(_) | Answer::Hole, Ok(None)) => Some(Fault::Differs(Difference::Size)),
            (Answer::Hole, Ok(Some(Here::Hole))) => None,
            (Answer::Hash(there), Ok(Some(here))) => differ(there, here.hash(check.range)),
            (Answer::Hole, Ok(Some(here))) => differ(hash_of_zeros(check.range.len()), here.hash(check.range)),
        };
        match outcome {
            Some(outcome) => verification.settle(&check.file, outcome),
            None => {
                verification.report.counters.bytes_verified.add(check.range.len());
                if check.file.equal(check.range) {
                    verification.report.counters.files_verified.add(1);
                }
            }
        }
        verification.report.wire.progressed();
        verification.queue.done();
    }
}
