//! From the socket into a part file: by copy or by splice.
//!
//! Copy is `recv` into a buffer that stays in cache, CRC while it is hot, `pwrite`. Splice moves pages
//! through a pipe and reads them back for the CRC. Whatever the disk says, the body is taken off the
//! connection to its end, so that the next answer is found where it begins.

use std::fs::File;
use std::io;
use std::time::Instant;

use crc32fast::Hasher;
use fastcp_model::ByteRange;
use fastcp_net::{Connection, Inbox, NetError, SpliceFailure};
use fastcp_sys::file::read_range;
use fastcp_sys::process::thread_time;
use fastcp_sys::transfer::{Moved, SplicePipe};

use crate::fetch::receive_path::{Way, WayChoice};
use crate::report::Report;
use crate::settings::ReceivePath;
use crate::target::part::PartFile;

/// Shorter bodies are copied in any case: they come with their header in one receive.
const SPLICE_BYTES_MIN: u64 = 64 << 10;
/// The grain in which holes are kept.
const HOLE_BYTES: usize = 4096;

/// Where a body goes.
#[derive(Clone, Copy)]
pub(crate) enum Target<'a> {
    /// Into a file at an offset.
    File(&'a PartFile, u64),
    /// As before, but spans of zeros are left out: the file is new there and reads as zeros.
    SparseFile(&'a PartFile, u64),
    /// Nowhere: the file was given up.
    Nowhere,
}

/// What arrived, and whether it could be written.
pub(crate) struct Received {
    /// CRC-32 of the bytes; `None` where they could not be decoded or read back.
    pub(crate) crc: Option<u32>,
    pub(crate) written: io::Result<()>,
}

/// The receiving end of one connection.
pub(crate) struct BodyReader<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) inbox: Inbox,
    pub(crate) report: &'a Report,
    pipe: Option<SplicePipe>,
    choice: WayChoice,
}

impl<'a> BodyReader<'a> {
    pub(crate) fn new(connection: &'a Connection, report: &'a Report, path: ReceivePath) -> Self {
        Self { connection, inbox: Inbox::new(), report, pipe: None, choice: WayChoice::new(path) }
    }

    /// Receives a body of `len` bytes as it is.
    pub(crate) fn receive_raw(&mut self, len: u64, target: Target<'_>) -> Result<Received, NetError> {
        let Target::File(file, offset) = target else { return self.copy(len, target) };
        if len < SPLICE_BYTES_MIN {
            return self.copy(len, target);
        }
        let before = if self.choice.is_open() { thread_time().ok() } else { None };
        let (way, received) = match self.take_pipe() {
            Some(pipe) => (Way::Splice, self.splice(pipe, file, offset, len)),
            None => (Way::Copy, self.copy(len, target)),
        };
        if let (Some(before), Ok(after)) = (before, thread_time()) {
            self.choice.took(way, len, after.saturating_sub(before));
        }
        received
    }

    /// The pipe, where the next body is to be spliced.
    fn take_pipe(&mut self) -> Option<SplicePipe> {
        if self.choice.next() == Way::Copy {
            return None;
        }
        let pipe = self.pipe.take().or_else(|| SplicePipe::new().ok());
        if pipe.is_none() {
            self.choice.rule_out_splice();
        }
        pipe
    }

    /// Takes bytes that stand for the body, such as what was decompressed.
    pub(crate) fn write(&self, bytes: &[u8], target: Target<'_>) -> io::Result<()> {
        let start = Instant::now();
        let result = write_to(target, 0, bytes);
        self.report.counters.waited_destination.add_since(start);
        result
    }

    fn copy(&mut self, len: u64, target: Target<'_>) -> Result<Received, NetError> {
        let mut hasher = Hasher::new();
        let mut written = Ok(());
        let mut done = 0;
        while done < len {
            if self.inbox.buffered().is_empty() {
                self.receive()?;
            }
            let ready = self.inbox.buffered();
            let ready = &ready[..ready.len().min(usize::try_from(len - done).unwrap_or(usize::MAX))];
            hasher.update(ready);
            if written.is_ok() {
                let start = Instant::now();
                written = write_to(target, done, ready);
                self.report.counters.waited_destination.add_since(start);
            }
            let count = ready.len();
            self.inbox.consume(count);
            done += count as u64;
        }
        Ok(Received { crc: Some(hasher.finalize()), written })
    }

    fn receive(&mut self) -> Result<(), NetError> {
        let start = Instant::now();
        let count = self.inbox.receive(self.connection)?;
        self.report.counters.waited_network.add_since(start);
        if count == 0 { Err(NetError::Closed) } else { Ok(()) }
    }

    /// Splices what is not buffered yet. A pipe that failed is not used again.
    fn splice(&mut self, pipe: SplicePipe, file: &PartFile, offset: u64, len: u64) -> Result<Received, NetError> {
        let ready = self.inbox.buffered();
        let ready = &ready[..ready.len().min(usize::try_from(len).unwrap_or(usize::MAX))];
        let first = ready.len() as u64;
        if let Err(error) = file.write_at(ready, offset) {
            return self.give_up(len, error);
        }
        self.inbox.consume(first as usize);
        let moved_bytes = match self.connection.splice(&pipe, file.file(), offset + first, len - first) {
            Ok(Moved::All) => len - first,
            Ok(Moved::Ended(_)) => return Err(NetError::Closed),
            Ok(Moved::Unsupported(count)) => count,
            Err(SpliceFailure::Net(error)) => return Err(error),
            Err(SpliceFailure::File { taken, error }) => {
                return self.give_up(len - first - taken, error);
            }
        };
        let done = first + moved_bytes;
        if done < len {
            self.choice.rule_out_splice();
            let rest = self.copy(len - done, Target::File(file, offset + done))?;
            if rest.written.is_err() {
                return Ok(rest);
            }
        } else {
            self.pipe = Some(pipe);
        }
        Ok(match read_back(file.file(), offset, len) {
            Ok(crc) => Received { crc: Some(crc), written: Ok(()) },
            Err(error) => Received { crc: None, written: Err(error) },
        })
    }

    /// The file cannot be written: the rest of the body is taken off the connection all the same.
    fn give_up(&mut self, len: u64, error: io::Error) -> Result<Received, NetError> {
        let drained = self.copy(len, Target::Nowhere)?;
        Ok(Received { crc: drained.crc, written: Err(error) })
    }
}

fn write_to(target: Target<'_>, done: u64, bytes: &[u8]) -> io::Result<()> {
    match target {
        Target::File(file, offset) => file.write_at(bytes, offset + done),
        Target::SparseFile(file, offset) => write_sparse(file, offset + done, bytes),
        Target::Nowhere => Ok(()),
    }
}

/// Writes all but the aligned spans that are zero.
fn write_sparse(file: &PartFile, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let mut at = 0;
    while at < bytes.len() {
        let into_cell = ((offset + at as u64) % HOLE_BYTES as u64) as usize;
        let cell = &bytes[at..bytes.len().min(at + HOLE_BYTES - into_cell)];
        if cell.iter().any(|&byte| byte != 0) {
            file.write_at(cell, offset + at as u64)?;
        }
        at += cell.len();
    }
    Ok(())
}

fn read_back(file: &File, offset: u64, len: u64) -> io::Result<u32> {
    let mut hasher = Hasher::new();
    let range = ByteRange::new(offset, len).map_err(io::Error::other)?;
    read_range(file, range, &mut vec![0; crate::content::zeros::SLICE_BYTES], |bytes| {
        hasher.update(bytes);
        Ok(())
    })?;
    Ok(hasher.finalize())
}
