//! The receiving half of the bare loop.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use nix::fcntl::posix_fallocate;

use super::SLICE_BYTES;
use super::record::Record;
use crate::error::BenchError;

/// What to fetch.
#[derive(Debug, clap::Args)]
pub(crate) struct FetchWords {
    /// The server
    address: SocketAddr,

    /// Where to
    destination: PathBuf,

    /// Connections
    #[arg(long, default_value_t = 8)]
    conns: u16,
}

/// Fetches everything that the server has.
pub(crate) fn fetch(words: &FetchWords) -> Result<(), BenchError> {
    fetch_all(words.address, &words.destination, words.conns)
}

pub(super) fn fetch_all(address: SocketAddr, destination: &Path, connections: u16) -> Result<(), BenchError> {
    let shared = Shared { destination, large: Mutex::default() };
    let shared = &shared;
    thread::scope(|scope| {
        let receive = move |number| {
            let stream = TcpStream::connect(address).map_err(BenchError::system("connect"))?;
            shared.receive_all(stream, number)
        };
        let threads: Vec<_> = (0..connections).map(|number| scope.spawn(move || receive(number))).collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    if shared.lock().is_empty() { Ok(()) } else { Err(BenchError::BareStream("a file is not complete")) }
}

/// A file that comes in more than one slice.
struct Large {
    file: File,
    unnamed: PathBuf,
    left: AtomicU64,
}

struct Shared<'a> {
    destination: &'a Path,
    large: Mutex<HashMap<PathBuf, Arc<Large>>>,
}

impl Shared<'_> {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, Arc<Large>>> {
        self.large.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn receive_all(&self, stream: TcpStream, number: u16) -> Result<(), BenchError> {
        let partial = format!(".bare-{number}");
        let mut from = BufReader::with_capacity(SLICE_BYTES as usize, stream);
        while let Some(record) = Record::read(&mut from)? {
            if u64::from(record.slice_bytes) == record.file_bytes {
                self.receive_whole(&record, &partial, &mut from)?;
            } else {
                self.receive_slice(record, &mut from)?;
            }
        }
        Ok(())
    }

    fn receive_whole(&self, record: &Record, partial: &str, from: &mut impl BufRead) -> Result<(), BenchError> {
        let path = self.destination.join(&record.path);
        let unnamed = path.with_file_name(partial);
        let file = create(&unnamed)?;
        receive_body(record, &file, &unnamed, from)?;
        drop(file);
        fs::rename(&unnamed, &path).map_err(BenchError::file("rename", &unnamed))
    }

    fn receive_slice(&self, record: Record, from: &mut impl BufRead) -> Result<(), BenchError> {
        let large = self.large(&record)?;
        receive_body(&record, &large.file, &large.unnamed, from)?;
        let bytes = u64::from(record.slice_bytes);
        if large.left.fetch_sub(bytes, Ordering::AcqRel) == bytes {
            self.lock().remove(&record.path);
            let path = self.destination.join(&record.path);
            fs::rename(&large.unnamed, &path).map_err(BenchError::file("rename", &large.unnamed))?;
        }
        Ok(())
    }

    fn large(&self, record: &Record) -> Result<Arc<Large>, BenchError> {
        match self.lock().entry(record.path.clone()) {
            Entry::Occupied(known) => Ok(Arc::clone(known.get())),
            Entry::Vacant(place) => {
                let path = self.destination.join(&record.path);
                let mut name = std::ffi::OsString::from(".bare-");
                name.push(path.file_name().unwrap_or_default());
                let unnamed = path.with_file_name(name);
                let file = create(&unnamed)?;
                let bytes =
                    i64::try_from(record.file_bytes).map_err(|_| BenchError::BareStream("a file is too large"))?;
                posix_fallocate(&file, 0, bytes)
                    .map_err(|errno| BenchError::file("preallocate", &unnamed)(errno.into()))?;
                let large = Arc::new(Large { file, unnamed, left: AtomicU64::new(record.file_bytes) });
                Ok(Arc::clone(place.insert(large)))
            }
        }
    }
}

/// Creates a file, and first its directory where that is missing.
fn create(path: &Path) -> Result<File, BenchError> {
    match File::create_new(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let dir = path.parent().unwrap_or(path);
            fs::create_dir_all(dir).map_err(BenchError::file("make", dir))?;
            File::create_new(path).map_err(BenchError::file("create", path))
        }
        result => result.map_err(BenchError::file("create", path)),
    }
}

/// Writes what comes as it comes, from the buffer that it was received into.
fn receive_body(record: &Record, file: &File, path: &Path, from: &mut impl BufRead) -> Result<(), BenchError> {
    let mut crc = crc32fast::Hasher::new();
    let mut offset = record.offset;
    let end = record.offset + u64::from(record.slice_bytes);
    while offset < end {
        let received = from.fill_buf().map_err(BenchError::system("receive"))?;
        if received.is_empty() {
            return Err(BenchError::BareStream("it ends within a slice"));
        }
        let most = usize::try_from(end - offset).unwrap_or(usize::MAX);
        let piece = &received[..received.len().min(most)];
        crc.update(piece);
        file.write_all_at(piece, offset).map_err(BenchError::file("write", path))?;
        offset += piece.len() as u64;
        let taken = piece.len();
        from.consume(taken);
    }
    if crc.finalize() == record.crc { Ok(()) } else { Err(BenchError::BareStream("a slice has the wrong CRC-32")) }
}
