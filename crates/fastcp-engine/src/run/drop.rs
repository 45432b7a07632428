//! Handing a file to a server that takes drops, and hearing what has become of it.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crc32fast::Hasher;
use fastcp_model::Status;
use fastcp_net::{Connection, Dialer, Live, NetError};
use fastcp_sys::file::read_at;
use fastcp_sys::transfer::Moved;
use fastcp_sys::typed_path::open_to_read;
use fastcp_wire::drop::{DROP_REPLY_BYTES, DropHeader, DropReply};

/// One attempt to connect.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// How long the server may take nothing, or answer nothing once it has all of it: it syncs the file meanwhile.
const ANSWER_MAX: Duration = Duration::from_secs(300);
/// What is sent at a time.
const STEP_BYTES: u64 = 1 << 20;

/// Why a file was not handed over.
#[derive(Debug, thiserror::Error)]
pub enum DropError {
    /// The file cannot be read.
    #[error("cannot read it: {0}")]
    Read(io::Error),
    /// It is a directory, a device, or something else that has no bytes of its own.
    #[error("not a regular file")]
    NotAFile,
    /// It became longer or shorter, or other bytes were written to it.
    #[error("it changed while it was sent; what the server has kept is of no use")]
    Changed,
    /// The server was not reached, or did not take all of it.
    #[error("{0}")]
    Net(NetError),
    /// The server closed the connection without a word.
    #[error("the server closed without confirming that it has the file")]
    Unconfirmed,
    /// A server of this kind, which takes none.
    #[error("the server takes no drops; it has to be started with --inbox")]
    NotTaken,
    /// The server has refused it.
    #[error("refused by the server: {0}")]
    Refused(Status),
}

/// A file that the server has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dropped {
    /// How long it is.
    pub bytes: u64,
    /// The CRC-32 of its bytes, which the server has confirmed.
    pub crc32: u32,
}

/// Hands one file to the server that is dialled, under its own name.
///
/// # Errors
/// What went wrong; the server may have kept the file all the same where it said nothing.
pub fn drop_file(dialer: &Dialer, path: &Path, live: &Live) -> Result<Dropped, DropError> {
    let file = open_to_read(path).map_err(DropError::Read)?;
    let metadata = file.metadata().map_err(DropError::Read)?;
    if !metadata.is_file() {
        return Err(DropError::NotAFile);
    }
    let name = path.file_name().ok_or(DropError::NotAFile)?;
    let bytes = metadata.len();
    let header = DropHeader::encode(std::os::unix::ffi::OsStrExt::as_bytes(name), bytes);
    let header = header.map_err(|error| DropError::Net(error.into()))?;
    let connection = dialer.dial(live, Instant::now() + CONNECT_MAX).map_err(DropError::Net)?;
    connection.set_timeouts(Some(ANSWER_MAX), Some(ANSWER_MAX)).map_err(DropError::Net)?;
    let sent = send(&connection, &header, &file, bytes);
    // A server that has refused closes before it has all of it: what it said is worth more than that.
    let answer = hear(&connection);
    match (sent, answer) {
        (_, Ok(DropReply { status, .. })) if status != Status::Ok => Err(DropError::Refused(status)),
        (Err(_), Err(error @ DropError::Net(NetError::Refused(_) | NetError::Denied { .. }))) => Err(error),
        (Err(error), _) => Err(error),
        (Ok(crc32), Ok(reply)) if reply.crc32 == crc32 => Ok(Dropped { bytes, crc32 }),
        (Ok(_), Ok(_)) => Err(DropError::Changed),
        (Ok(_), Err(error)) => Err(error),
    }
}

/// Sends header and bytes; answers the CRC-32 of the bytes.
fn send(connection: &Connection, header: &[u8], file: &File, bytes: u64) -> Result<u32, DropError> {
    let net = DropError::Net;
    if bytes == 0 {
        connection.write_all(header).map_err(net)?;
        return Ok(0);
    }
    // In one segment with the first bytes.
    connection.write_more(header).map_err(net)?;
    let (mut at, mut crc, mut slice) = (0, Hasher::new(), vec![0; STEP_BYTES as usize]);
    while at < bytes {
        let len = STEP_BYTES.min(bytes - at);
        let moved = connection.send_file(file, at, len).map_err(net)?;
        let slice = &mut slice[..len as usize];
        let got = read_at(file, slice, at).map_err(DropError::Read)?;
        if (got as u64) < len || matches!(moved, Moved::Ended(_)) {
            return Err(DropError::Changed);
        }
        if let Moved::Unsupported(done) = moved {
            connection.write_all(&slice[done as usize..]).map_err(net)?;
        }
        crc.update(slice);
        at += len;
    }
    Ok(crc.finalize())
}

fn hear(connection: &Connection) -> Result<DropReply, DropError> {
    let mut reply = [0; DROP_REPLY_BYTES];
    match connection.read_first_by(&mut reply, Instant::now() + ANSWER_MAX) {
        Ok(()) => DropReply::decode(&reply).map_err(|error| DropError::Net(error.into())),
        Err(NetError::Closed) => Err(DropError::Unconfirmed),
        // To such a server it is no dialect at all.
        Err(NetError::Refused(Status::BadRequest) | NetError::Denied { status: Status::BadRequest, .. }) => {
            Err(DropError::NotTaken)
        }
        Err(error) => Err(DropError::Net(error)),
    }
}
