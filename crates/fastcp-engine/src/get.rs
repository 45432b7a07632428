//! One file from any server that speaks plain FTQ1.
//!
//! The part file lies beside the output and carries the source's size and time in its name. So a
//! rerun knows from the name alone whether what is there belongs to the source as it is now; a part
//! of another state is removed, never added to. The name of the output appears when the CRC of the
//! whole file is proven.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastcp_model::{Status, Timestamp};
use fastcp_net::{Connection, Dialer, Live, NetError};
use fastcp_wire::WireError;
use fastcp_wire::range::{PlainRequest, REPLY_BYTES, Reply};
use xxhash_rust::xxh3::xxh3_64;

use crate::patience::{Patience, absence_max, silence_max};
use crate::report::Report;
use crate::source::SLICE_BYTES;

/// A server may have to read the whole file for its CRC before it answers.
const REPLY_TIMEOUT: Duration = Duration::from_secs(600);

/// What `get` is told.
#[derive(Debug, Clone, Copy)]
pub struct GetSettings {
    /// How long to keep trying while nothing arrives.
    pub retry: Duration,
    /// Fail where the server gives no CRC.
    pub require_crc: bool,
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
    #[error("cannot ask for this path: {0}")]
    Path(WireError),
    /// The server has it not, or will not give it.
    #[error("refused by the server: {0}")]
    Refused(Status),
    /// Nothing arrived in the time given.
    #[error("nothing arrived from {address} within {seconds} s: {source}; what is there is kept, rerun to resume")]
    NoAnswer {
        /// Who was dialled.
        address: String,
        /// The time given.
        seconds: u64,
        /// The last attempt's failure.
        source: NetError,
    },
    /// The server breaks the protocol.
    #[error("connection failed: {0}")]
    Net(NetError),
    /// The output cannot be written.
    #[error("cannot {operation} {path:?}: {source}")]
    Output {
        /// What was tried.
        operation: &'static str,
        /// Where.
        path: PathBuf,
        /// What came of it.
        source: io::Error,
    },
    /// What arrived is not what the server has.
    #[error("crc32 mismatch (want {want:08x}, got {got:08x}); part file removed, rerun to fetch anew")]
    Checksum {
        /// The server's.
        want: u32,
        /// Of what arrived.
        got: u32,
    },
    /// The server gave no CRC though one is required.
    #[error("the server gave no crc32, and --require-crc asks for one; part file removed")]
    NoChecksum,
}

/// Fetches `path` into the file `out`.
///
/// # Errors
/// See [`GetError`].
pub fn get(dialer: &Dialer, path: &[u8], out: &Path, settings: &GetSettings, report: &Report) -> Result<Got, GetError> {
    let request = PlainRequest { path: path.into(), offset: 0, want_crc: true };
    request.encode().map_err(GetError::Path)?;
    let part = PartOf::new(out)?;
    let live = Live::default();
    let mut line = Line {
        dialer,
        live: &live,
        patience: Patience::new(&live, report, dialer.endpoint().to_string(), settings.retry),
        retry: settings.retry,
    };
    loop {
        let error = match attempt(&mut line, &request, &part, settings, report) {
            Ok(got) => return Ok(got),
            Err(GetError::Net(error)) if error.is_transient() => error,
            Err(GetError::Refused(Status::Busy)) => NetError::Refused(Status::Busy),
            Err(error) => return Err(error),
        };
        line.patience.failed(error).map_err(|source| {
            let address = dialer.endpoint().to_string();
            GetError::NoAnswer { address, seconds: settings.retry.as_secs(), source }
        })?;
    }
}

/// The way to the server.
struct Line<'a> {
    dialer: &'a Dialer,
    live: &'a Live,
    patience: Patience<'a>,
    retry: Duration,
}

/// One connection's worth; a second one where the part file turns out to be of another state.
fn attempt(
    line: &mut Line<'_>,
    request: &PlainRequest,
    part: &PartOf,
    settings: &GetSettings,
    report: &Report,
) -> Result<Got, GetError> {
    let found = part.find()?;
    let offset = found.as_ref().map_or(0, |found| found.have_bytes);
    let (connection, reply) = ask(line, request, offset)?;
    let state = SourceState { file_bytes: reply.file_bytes, mtime_ns: reply.mtime_ns };
    let (connection, reply, have) = match found {
        Some(found) if found.state == state && offset <= reply.file_bytes => (connection, reply, offset),
        Some(found) => {
            remove(&found.path)?;
            drop(connection);
            let (connection, reply) = ask(line, request, 0)?;
            (connection, reply, 0)
        }
        None => (connection, reply, 0),
    };
    let state = SourceState { file_bytes: reply.file_bytes, mtime_ns: reply.mtime_ns };
    let path = part.path_of(state);
    let file = open_part(&path)?;
    report.counters.bytes_total.add(reply.file_bytes.saturating_sub(report.counters.bytes_total.now()));
    report.counters.bytes_reused.add(have);
    receive(&connection, &file, have, reply.file_bytes, &path, report)?;
    finish(&file, &path, &part.out, &reply, settings)
}

fn ask(line: &mut Line<'_>, request: &PlainRequest, offset: u64) -> Result<(Arc<Connection>, Reply), GetError> {
    let Line { dialer, live, ref mut patience, retry } = *line;
    let connection = patience.attempt(|deadline| dialer.dial(live, deadline)).map_err(GetError::Net)?;
    let silence_max = Some(silence_max(retry));
    connection.end_without_peer(absence_max(retry)).map_err(GetError::Net)?;
    connection.set_timeouts(None, silence_max).map_err(GetError::Net)?;
    let bytes = PlainRequest { offset, ..request.clone() }.encode().map_err(GetError::Path)?;
    connection.write_all(&bytes).map_err(GetError::Net)?;
    let mut reply = [0; REPLY_BYTES];
    connection.read_first_by(&mut reply, Instant::now() + REPLY_TIMEOUT).map_err(GetError::Net)?;
    let reply = Reply::decode(&reply).map_err(|error| GetError::Net(error.into()))?;
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

fn receive(
    connection: &Connection,
    file: &File,
    have: u64,
    file_bytes: u64,
    path: &Path,
    report: &Report,
) -> Result<(), GetError> {
    let mut buffer = vec![0; SLICE_BYTES];
    let mut at = have;
    while at < file_bytes {
        let want = buffer.len().min(usize::try_from(file_bytes - at).unwrap_or(usize::MAX));
        let count = connection.read_some(&mut buffer[..want]).map_err(GetError::Net)?;
        if count == 0 {
            return Err(GetError::Net(NetError::Closed));
        }
        file.write_all_at(&buffer[..count], at).map_err(|source| output("write", path, source))?;
        at += count as u64;
        report.counters.bytes_fetched.add(count as u64);
    }
    Ok(())
}

/// Verify, then the time, then durable, then the name.
fn finish(file: &File, path: &Path, out: &Path, reply: &Reply, settings: &GetSettings) -> Result<Got, GetError> {
    let got = crc_of(file).map_err(|source| output("read back", path, source))?;
    let proven = got == reply.crc32;
    if !proven && reply.crc32 != 0 {
        remove(path)?;
        return Err(GetError::Checksum { want: reply.crc32, got });
    }
    if !proven && settings.require_crc {
        remove(path)?;
        return Err(GetError::NoChecksum);
    }
    let mtime = Timestamp::from_wire_ns(reply.mtime_ns);
    fastcp_sys::metadata::set_mtime(file, mtime).map_err(|source| output("set the time of", path, source))?;
    file.sync_all().map_err(|source| output("sync", path, source))?;
    std::fs::rename(path, out).map_err(|source| output("rename to", out, source))?;
    Ok(Got { file_bytes: reply.file_bytes, proven })
}

fn crc_of(file: &File) -> io::Result<u32> {
    let mut buffer = vec![0; SLICE_BYTES];
    let mut hasher = crc32fast::Hasher::new();
    let mut at = 0;
    loop {
        match fastcp_sys::file::read_at(file, &mut buffer, at)? {
            0 => return Ok(hasher.finalize()),
            count => {
                hasher.update(&buffer[..count]);
                at += count as u64;
            }
        }
    }
}

/// What a part file belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SourceState {
    file_bytes: u64,
    mtime_ns: u64,
}

/// Where part files of one output are.
struct PartOf {
    out: PathBuf,
    dir: PathBuf,
    prefix: String,
}

struct Found {
    path: PathBuf,
    state: SourceState,
    have_bytes: u64,
}

impl PartOf {
    fn new(out: &Path) -> Result<Self, GetError> {
        let Some(name) = out.file_name() else {
            return Err(output("use as the output", out, io::ErrorKind::IsADirectory.into()));
        };
        let dir = match out.parent() {
            Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
            Some(parent) => parent.to_path_buf(),
            None => PathBuf::from("/"),
        };
        let prefix = format!(".fastcp-get-{:016x}-", xxh3_64(name.as_bytes()));
        Ok(Self { out: out.to_path_buf(), dir, prefix })
    }

    fn path_of(&self, state: SourceState) -> PathBuf {
        self.dir.join(format!("{}{:x}-{:x}.part", self.prefix, state.file_bytes, state.mtime_ns))
    }

    /// The part file of an earlier run. Of several only one can be of the present state; the first
    /// found is tried and the others are left to later attempts.
    fn find(&self) -> Result<Option<Found>, GetError> {
        let entries = std::fs::read_dir(&self.dir).map_err(|source| output("read", &self.dir, source))?;
        for entry in entries {
            let entry = entry.map_err(|source| output("read", &self.dir, source))?;
            let Some(state) = entry.file_name().to_str().and_then(|name| self.parse(name)) else { continue };
            let metadata = entry.metadata().map_err(|source| output("examine", &entry.path(), source))?;
            return Ok(Some(Found { path: entry.path(), state, have_bytes: metadata.len() }));
        }
        Ok(None)
    }

    fn parse(&self, name: &str) -> Option<SourceState> {
        let (bytes, mtime) = name.strip_prefix(&self.prefix)?.strip_suffix(".part")?.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        Some(SourceState { file_bytes: number(bytes)?, mtime_ns: number(mtime)? })
    }
}

fn open_part(path: &Path) -> Result<File, GetError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o666)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(path)
        .map_err(|source| output("create", path, source))
}

fn remove(path: &Path) -> Result<(), GetError> {
    std::fs::remove_file(path).map_err(|source| output("remove", path, source))
}

fn output(operation: &'static str, path: &Path, source: io::Error) -> GetError {
    GetError::Output { operation, path: path.to_path_buf(), source }
}
