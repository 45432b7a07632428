//! One file from any server that speaks plain FTQ1.
//!
//! The bytes go to a part file beside the output, which a rerun resumes if the source is still what it was, or to a
//! stream. The name of the output appears when the CRC of the whole file is proven.

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastcp_model::{Escaped, Status, Timestamp};
use fastcp_net::{Connection, Dialer, Live, NetError};
use fastcp_wire::WireError;
use fastcp_wire::request::PlainRequest;

use crate::content::zeros::SLICE_BYTES;
use crate::link::patience::{Patience, absence_max, silence_max};
use crate::report::Report;
use crate::target::part::Mismatch;
use crate::target::proof::HeardPlain;

mod sink;

use sink::{FileSink, Finished, Sink, SourceState, StreamSink};

/// What `get` is told.
#[derive(Debug, Clone, Copy)]
pub struct GetSettings {
    /// How long to keep trying while nothing arrives. A server may have to read the whole file for its CRC before it
    /// answers: that has to fit.
    pub retry: Duration,
    /// Fail where the server gives no CRC.
    pub require_crc: bool,
}

/// Where a file goes.
pub enum GetOutput<'a> {
    /// To this path, which is free or names a regular file.
    File(&'a Path),
    /// Into this stream, byte by byte as they come: what is wrong shows only after the last one.
    Stream(&'a mut dyn Write),
}

/// A file that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Got {
    /// Its length.
    pub file_bytes: u64,
    /// Whether the server's CRC proved it. A server that gives none leaves only the length to check.
    pub proven: bool,
}

/// Why a file did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum GetError {
    /// The path cannot be asked for.
    #[error("invalid path: {0}")]
    Path(WireError),
    /// The server has it not, or will not give it.
    #[error("refused by the server: {0}")]
    Refused(Status),
    /// Nothing arrived in the time given.
    #[error("gave up on {address} after {seconds} s without progress: {source}{kept}")]
    NoAnswer {
        /// Who was dialled.
        address: String,
        /// The time given.
        seconds: u64,
        /// The last attempt's failure.
        source: NetError,
        /// What a rerun finds.
        kept: Kept,
    },
    /// The server breaks the protocol.
    #[error("connection failed: {0}")]
    Net(NetError),
    /// The output cannot be written.
    #[error("cannot {operation} \"{}\": {source}", shown(.path))]
    Output {
        /// What was tried.
        operation: &'static str,
        /// Where.
        path: PathBuf,
        /// What came of it.
        source: io::Error,
    },
    /// The stream cannot be written to.
    #[error("cannot write to standard output: {0}")]
    Stream(io::Error),
    /// The output is a device, a pipe or a link.
    #[error("\"{}\" is not a regular file; use - for standard output", shown(.path))]
    NotAFile {
        /// The output.
        path: PathBuf,
    },
    /// The output is a directory.
    #[error("\"{0}\" is a directory; \"{0}/\" as OUT puts the file in it", shown(.path))]
    Directory {
        /// The output.
        path: PathBuf,
    },
    /// Another process copies to the same output.
    #[error("another fastcp-client is already copying to \"{}\"", shown(.path))]
    Busy {
        /// The output.
        path: PathBuf,
    },
    /// The source changed when some of it had been handed on.
    #[error("the file changed at the server while it was copied")]
    Changed,
    /// What arrived is not what the server has.
    #[error("CRC-32 mismatch (expected {want:08x}, got {got:08x}); received data is discarded, run the command again")]
    Checksum {
        /// The server's.
        want: u32,
        /// Of what arrived.
        got: u32,
    },
    /// The server gave no CRC though one is required.
    #[error("the server did not give a CRC-32, which --require-crc demands")]
    NoChecksum,
}

fn shown(path: &Path) -> Escaped<'_> {
    Escaped(path.as_os_str().as_bytes())
}

/// What a `get` that gave up leaves for the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Nothing.
    Nothing,
    /// The beginning of the file.
    Beginning,
}

impl std::fmt::Display for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nothing => "",
            Self::Beginning => "; received data is kept, run the command again to resume",
        })
    }
}

/// Fetches `path` into `out`.
///
/// # Errors
/// See [`GetError`].
pub fn get(
    dialer: &Dialer,
    path: &[u8],
    out: GetOutput<'_>,
    settings: &GetSettings,
    report: &Report,
) -> Result<Got, GetError> {
    let request = PlainRequest { path: path.into(), offset: 0, want_crc: true };
    request.encode().map_err(GetError::Path)?;
    let mut sink = match out {
        GetOutput::File(path) => Sink::File(FileSink::new(path)?),
        GetOutput::Stream(stream) => Sink::Stream(StreamSink::new(stream)),
    };
    let live = Live::default();
    let mut line = PlainLine {
        dialer,
        live: &live,
        patience: Patience::new(&live, report, dialer.endpoint().to_string(), settings.retry),
        retry: settings.retry,
        is_first: true,
    };
    loop {
        let error = match attempt(&mut line, &request, &mut sink, settings, report) {
            Ok(got) => {
                report.counters.files_committed.add(1);
                return Ok(got);
            }
            Err(GetError::Net(error)) if error.is_transient() => error,
            Err(GetError::Refused(Status::Busy)) => NetError::Refused(Status::Busy),
            Err(error) => return Err(error),
        };
        line.patience.failed(error).map_err(|source| {
            let address = dialer.endpoint().to_string();
            GetError::NoAnswer { address, seconds: settings.retry.as_secs(), source, kept: sink.kept() }
        })?;
    }
}

/// The way to the server.
struct PlainLine<'a> {
    dialer: &'a Dialer,
    live: &'a Live,
    patience: Patience<'a>,
    retry: Duration,
    /// Nothing has come over it yet.
    is_first: bool,
}

/// One connection's worth; a second one where what is there turns out to be of another state.
fn attempt(
    line: &mut PlainLine<'_>,
    request: &PlainRequest,
    sink: &mut Sink<'_>,
    settings: &GetSettings,
    report: &Report,
) -> Result<Got, GetError> {
    let has = sink.has();
    let (mut connection, mut heard) = ask(line, request, has.map_or(0, |(_, have)| have))?;
    if has.is_some_and(|(state, have)| state != state_of(&heard) || have > heard.file_bytes) {
        sink.restart()?;
        drop(connection);
        (connection, heard) = ask(line, request, 0)?;
    }
    sink.begin(state_of(&heard))?;
    let counters = &report.counters;
    if std::mem::take(&mut line.is_first) {
        // Of an earlier run: this one has fetched nothing yet.
        counters.bytes_reused.add(sink.has().map_or(0, |(_, have)| have));
    }
    counters.bytes_total.add(heard.file_bytes.saturating_sub(counters.bytes_total.now()));
    let received = receive(&connection, sink, heard.file_bytes, report);
    sink.pause();
    received?;
    finish(sink, &heard, settings)
}

fn state_of(heard: &HeardPlain) -> SourceState {
    SourceState { file_bytes: heard.file_bytes, mtime: Timestamp::from_wire_ns(heard.mtime_ns) }
}

fn ask(
    line: &mut PlainLine<'_>,
    request: &PlainRequest,
    offset: u64,
) -> Result<(Arc<Connection>, HeardPlain), GetError> {
    let PlainLine { dialer, live, ref mut patience, retry, .. } = *line;
    let connection = patience.attempt(|deadline| dialer.dial(live, deadline)).map_err(GetError::Net)?;
    let silence_max = Some(silence_max(retry));
    connection.end_without_peer(absence_max(retry)).map_err(GetError::Net)?;
    connection.set_timeouts(None, silence_max).map_err(GetError::Net)?;
    let bytes = PlainRequest { offset, ..request.clone() }.encode().map_err(GetError::Path)?;
    connection.write_all(&bytes).map_err(GetError::Net)?;
    let reply = HeardPlain::take_by(&connection, Instant::now() + absence_max(retry)).map_err(GetError::Net)?;
    if reply.status != Status::Ok {
        return Err(GetError::Refused(reply.status));
    }
    if i64::try_from(reply.file_bytes).is_err() {
        let error = WireError::Value { field: "file_size", value: reply.file_bytes };
        return Err(GetError::Net(error.into()));
    }
    connection.set_timeouts(silence_max, silence_max).map_err(GetError::Net)?;
    Ok((connection, reply))
}

fn receive(connection: &Connection, sink: &mut Sink<'_>, file_bytes: u64, report: &Report) -> Result<(), GetError> {
    let mut buffer = vec![0; SLICE_BYTES];
    let mut left = file_bytes - sink.has().map_or(0, |(_, have)| have);
    while left > 0 {
        let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = connection.read_some(&mut buffer[..want]).map_err(GetError::Net)?;
        if count == 0 {
            return Err(GetError::Net(NetError::Closed));
        }
        sink.write(&buffer[..count])?;
        left -= count as u64;
        report.counters.bytes_fetched.add(count as u64);
    }
    Ok(())
}

/// Compares what arrived with what the server says, then gives it its name.
fn finish(sink: &mut Sink<'_>, heard: &HeardPlain, settings: &GetSettings) -> Result<Got, GetError> {
    let file_bytes = heard.file_bytes;
    match sink {
        Sink::Stream(stream) => {
            stream.flush()?;
            let got = stream.crc.clone().finalize();
            let proven = got == heard.whole().crc();
            match heard.not_given() {
                _ if proven => {}
                None => return Err(GetError::Checksum { want: heard.whole().crc(), got }),
                Some(_) if settings.require_crc => return Err(GetError::NoChecksum),
                Some(_) => {}
            }
            Ok(Got { file_bytes, proven })
        }
        Sink::File(file) => {
            let Finished { part, _lock, crc } = file.take()?;
            let proven = crc == heard.whole().crc();
            let sealed = part.seal(crc);
            let verified = match heard.not_given() {
                Some(_) if !proven && settings.require_crc => {
                    sealed.discard();
                    return Err(GetError::NoChecksum);
                }
                Some(not_given) if !proven => sealed.accept(not_given),
                _ => sealed.verify(heard.whole()).map_err(|Mismatch { want, got }| GetError::Checksum { want, got })?,
            };
            file.commit(verified, Timestamp::from_wire_ns(heard.mtime_ns))?;
            Ok(Got { file_bytes, proven })
        }
    }
}

fn output(operation: &'static str, path: &Path, source: io::Error) -> GetError {
    GetError::Output { operation, path: path.to_path_buf(), source }
}
