//! The sending half of the bare loop.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use nix::sys::sendfile::sendfile;

use super::record::Record;
use super::{CHUNK_BYTES, SLICE_BYTES};
use crate::census::{FoundFile, files_below};
use crate::error::BenchError;

/// Shorter slices are sent from the buffer that they were read into, many at once; the kernel
/// sends longer ones from its pages.
const COPIED_BYTES_MAX: u64 = 64 * 1024;

/// What to serve.
#[derive(Debug, clap::Args)]
pub(crate) struct ServeWords {
    /// The tree
    source: PathBuf,

    /// The address to listen on
    ip: IpAddr,
}

/// Serves a tree once: what one connection took, no other gets.
pub(crate) fn serve(words: &ServeWords) -> Result<(), BenchError> {
    let queue = Queue::of(&words.source)?;
    let listener = TcpListener::bind((words.ip, 0)).map_err(BenchError::system("listen"))?;
    let address = listener.local_addr().map_err(BenchError::system("listen"))?;
    crate::write_out(&format!("listening on {address}\n"))?;
    queue.serve(&listener)
}

/// A part of a file, at most [`CHUNK_BYTES`].
#[derive(Debug)]
struct Chunk {
    file: usize,
    offset: u64,
    bytes: u64,
}

/// Everything there is to send, and how much of it is taken.
#[derive(Debug)]
pub(super) struct Queue {
    root: PathBuf,
    files: Vec<FoundFile>,
    chunks: Vec<Chunk>,
    next: AtomicUsize,
}

impl Queue {
    pub(super) fn of(root: &Path) -> Result<Self, BenchError> {
        let mut files = files_below(root)?;
        files.sort();
        let mut chunks = Vec::new();
        for (index, file) in files.iter().enumerate() {
            let mut offset = 0;
            // An empty file is one chunk too.
            while offset < file.bytes || offset == 0 {
                let bytes = CHUNK_BYTES.min(file.bytes - offset);
                chunks.push(Chunk { file: index, offset, bytes });
                offset += CHUNK_BYTES;
            }
        }
        Ok(Self { root: root.to_path_buf(), files, chunks, next: AtomicUsize::new(0) })
    }

    /// Sends to every connection that comes, for ever.
    pub(super) fn serve(&self, listener: &TcpListener) -> Result<(), BenchError> {
        thread::scope(|scope| {
            loop {
                let (stream, _) = listener.accept().map_err(BenchError::system("accept"))?;
                scope.spawn(move || {
                    // A client that has gone says so itself.
                    if let Err(error) = self.send_all(&stream) {
                        crate::say(&format!("fastcp-bench: {error}"));
                    }
                });
            }
        })
    }

    fn send_all(&self, stream: &TcpStream) -> Result<(), BenchError> {
        let mut out = BufWriter::with_capacity(SLICE_BYTES as usize, stream);
        let mut buffer = vec![0; SLICE_BYTES as usize];
        while let Some(chunk) = self.chunks.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            self.send_chunk(chunk, &mut out, &mut buffer)?;
        }
        out.flush().map_err(BenchError::system("send"))?;
        stream.shutdown(Shutdown::Write).map_err(BenchError::system("end a stream"))
    }

    fn send_chunk(&self, chunk: &Chunk, out: &mut BufWriter<&TcpStream>, buffer: &mut [u8]) -> Result<(), BenchError> {
        let FoundFile { path, bytes: file_bytes } = &self.files[chunk.file];
        let file = File::open(path).map_err(BenchError::file("open", path))?;
        let name = path.strip_prefix(&self.root).unwrap_or(path);
        let end = chunk.offset + chunk.bytes;
        let mut offset = chunk.offset;
        while offset < end || offset == chunk.offset {
            let slice = &mut buffer[..SLICE_BYTES.min(end - offset) as usize];
            file.read_exact_at(slice, offset).map_err(BenchError::file("read", path))?;
            let record = Record {
                path: name.to_path_buf(),
                file_bytes: *file_bytes,
                offset,
                slice_bytes: slice.len() as u32,
                crc: crc32fast::hash(slice),
            };
            send_slice(&record, &file, slice, out)?;
            offset += SLICE_BYTES;
        }
        Ok(())
    }
}

fn send_slice(record: &Record, file: &File, slice: &[u8], out: &mut BufWriter<&TcpStream>) -> Result<(), BenchError> {
    record.write(out).map_err(BenchError::system("send"))?;
    if slice.len() as u64 <= COPIED_BYTES_MAX {
        return out.write_all(slice).map_err(BenchError::system("send"));
    }
    out.flush().map_err(BenchError::system("send"))?;
    let mut offset = i64::try_from(record.offset).map_err(|_| BenchError::BareStream("an offset is too large"))?;
    let mut left = slice.len();
    while left > 0 {
        let sent = sendfile(out.get_ref(), file, Some(&mut offset), left)
            .map_err(|errno| BenchError::system("send a file")(errno.into()))?;
        if sent == 0 {
            return Err(BenchError::BareStream("a file became shorter"));
        }
        left -= sent;
    }
    Ok(())
}
