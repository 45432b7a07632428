//! Bytes between a file and a socket without a copy through this process.
//!
//! Every call ends in one of three ways that cannot be confused: all was moved; the source ended
//! early; or this pair of descriptors does not support it and the caller goes on by hand. A refusal
//! is known after the first byte was asked for, so nothing is ever moved twice.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::sys::sendfile::sendfile64;
use nix::unistd::pipe2;

/// How much of what was asked for was moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// All of it.
    All,
    /// The source ended after this many bytes.
    Ended(u64),
    /// This many bytes, and then the kernel declined: go on from there by hand.
    Unsupported(u64),
}

impl Moved {
    /// How many bytes of `len` that is.
    pub fn bytes_of(self, len: u64) -> u64 {
        match self {
            Self::All => len,
            Self::Ended(bytes) | Self::Unsupported(bytes) => bytes,
        }
    }
}

/// Sends `len` bytes of `file` from `offset` to `socket`.
///
/// The kernel sends pages, not a copy: whoever writes to the file before they have left changes what
/// arrives. The receiver's checksum finds that.
///
/// # Errors
/// Those of the socket; a send timeout is `WouldBlock`. A file that cannot be read is [`Moved::Unsupported`]: reading
/// it by hand tells what is wrong with it.
pub fn send_file(socket: impl AsFd, file: &File, offset: u64, len: u64) -> io::Result<Moved> {
    let mut at = offset.cast_signed();
    let mut left = len;
    while left > 0 {
        match sendfile64(&socket, file, Some(&mut at), chunk(left)) {
            Ok(0) => return Ok(Moved::Ended(len - left)),
            Ok(count) => left -= count as u64,
            Err(Errno::EINTR) => {}
            // EAGAIN: the send timeout. The others: the connection is gone.
            Err(errno @ (Errno::EAGAIN | Errno::EPIPE | Errno::ECONNRESET)) => return Err(errno.into()),
            // EINVAL: the file system cannot feed pages (some FUSE and proc files). ENOSYS: filtered. EIO, ESTALE and
            // whatever else a file system answers: the file cannot be read. Should it have been the socket after
            // all, the next write to it tells.
            Err(_) => return Ok(Moved::Unsupported(len - left)),
        }
    }
    Ok(Moved::All)
}

/// Which end of a splice failed.
#[derive(Debug)]
pub enum SpliceError {
    /// Reading from the socket; a receive timeout is `WouldBlock`.
    Socket(io::Error),
    /// Writing to the file, after `taken` bytes had left the socket.
    File {
        /// Bytes that are no longer in the socket, written or not.
        taken: u64,
        /// Why the rest of them was not written.
        error: io::Error,
    },
}

/// A pipe through which bytes go from a socket to a file. One for each thread; empty between calls.
#[derive(Debug)]
pub struct SplicePipe {
    read: OwnedFd,
    write: OwnedFd,
    capacity: u64,
}

/// What a pipe is asked to hold; an unprivileged process may get less.
const PIPE_BYTES_WANTED: i32 = 1 << 20;

impl SplicePipe {
    /// Makes the pipe.
    ///
    /// # Errors
    /// As `pipe2(2)`.
    pub fn new() -> io::Result<Self> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
        // Refused with EPERM past the user's quota; the default of 64 KiB works too.
        let granted = match fcntl(&write, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES_WANTED)) {
            Ok(granted) => granted,
            Err(_) => fcntl(&write, FcntlArg::F_GETPIPE_SZ)?,
        };
        Ok(Self { read, write, capacity: u64::from(granted.unsigned_abs()) })
    }

    /// Moves `len` bytes from `socket` to `file` at `offset`.
    ///
    /// # Errors
    /// Which end failed. After an error the pipe may hold bytes and must not be used again.
    pub fn receive(&self, socket: impl AsFd, file: &File, offset: u64, len: u64) -> Result<Moved, SpliceError> {
        let mut moved = 0;
        while moved < len {
            let want = chunk((len - moved).min(self.capacity));
            let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_MORE;
            match splice(&socket, None, &self.write, None, want, flags) {
                Ok(0) => return Ok(Moved::Ended(moved)),
                Ok(count) => {
                    let drained = self.drain(file, offset + moved, count as u64);
                    moved += count as u64;
                    drained.map_err(|error| SpliceError::File { taken: moved, error })?;
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EINVAL | Errno::ENOSYS) => return Ok(Moved::Unsupported(moved)),
                Err(errno) => return Err(SpliceError::Socket(errno.into())),
            }
        }
        Ok(Moved::All)
    }

    /// Writes what is in the pipe. Where the file takes no spliced bytes they are copied out of the
    /// pipe, so that nothing is lost.
    fn drain(&self, file: &File, offset: u64, len: u64) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        let mut at = offset.cast_signed();
        let mut left = len;
        while left > 0 {
            match splice(&self.read, None, file, Some(&mut at), chunk(left), SpliceFFlags::SPLICE_F_MOVE) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => left -= count as u64,
                Err(Errno::EINTR) => {}
                Err(Errno::EINVAL | Errno::ENOSYS) => {
                    let mut buffer = vec![0; chunk(left.min(64 << 10))];
                    let count = nix::unistd::read(&self.read, &mut buffer)?;
                    file.write_all_at(&buffer[..count], at.cast_unsigned())?;
                    at += count as i64;
                    left -= count as u64;
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}

/// One call moves at most what `ssize_t` and the kernel's own cap of 2 GiB less a page allow.
fn chunk(len: u64) -> usize {
    len.min(1 << 30) as usize
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};
    use std::net::{TcpListener, TcpStream};

    use super::{Moved, SplicePipe, send_file};

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind");
        let here = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
        (here, listener.accept().expect("accept").0)
    }

    fn sample(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at * 31 % 251) as u8).collect()
    }

    #[test]
    fn a_file_arrives_through_sendfile_and_splice() {
        let bytes = sample(300_000);
        let mut source = tempfile::tempfile().expect("file");
        source.write_all(&bytes).expect("write");
        let mut target = tempfile::tempfile().expect("file");
        let (here, there) = pair();
        let sender = std::thread::spawn(move || send_file(&here, &source, 1000, 299_000).expect("send"));
        let pipe = SplicePipe::new().expect("pipe");
        assert_eq!(pipe.receive(&there, &target, 7, 299_000).expect("receive"), Moved::All);
        assert_eq!(sender.join().expect("join"), Moved::All);
        let mut written = Vec::new();
        target.rewind().expect("rewind");
        target.read_to_end(&mut written).expect("read");
        assert!(written[..7].iter().all(|&byte| byte == 0));
        assert!(written[7..] == bytes[1000..]);
    }

    #[test]
    fn a_source_that_ends_early_is_told_with_its_length() {
        let mut source = tempfile::tempfile().expect("file");
        source.write_all(&sample(5000)).expect("write");
        let (here, there) = pair();
        assert_eq!(send_file(&here, &source, 1000, 9000).expect("send"), Moved::Ended(4000));
        drop(here);
        let target = tempfile::tempfile().expect("file");
        let pipe = SplicePipe::new().expect("pipe");
        assert_eq!(pipe.receive(&there, &target, 0, 9000).expect("receive"), Moved::Ended(4000));
    }
}
