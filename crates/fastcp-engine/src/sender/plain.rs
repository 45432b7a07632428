//! The sender's answer to one plain FTQ1 request: 32 bytes, the file from the offset on, close.

use std::io;

use fastcp_model::{ByteRange, Status};
use fastcp_net::{Connection, NetError};
use fastcp_sys::transfer::Moved;
use fastcp_wire::reply::Reply;
use fastcp_wire::request::PlainRequest;

use crate::content::zeros::SLICE_BYTES;
use crate::sender::source::{OpenFile, Source};
use crate::settings::PlainCrc;

/// Answers one request; the caller closes the connection.
///
/// A file that gets shorter meanwhile ends the body early: the receiver knows the length it was told.
pub(crate) fn answer_plain(
    connection: &Connection,
    source: &Source,
    request: &PlainRequest,
    plain_crc: PlainCrc,
) -> Result<Status, NetError> {
    let opened = request.rel_path().map_err(|_| Status::BadPath).and_then(|path| source.open_file(&path));
    let (open, reply) = match opened.and_then(|open| reply_for(connection, source, open, request, plain_crc)) {
        Ok(ready) => ready,
        Err(status) => {
            connection.write_all(&Reply::failed(status).encode())?;
            return Ok(status);
        }
    };
    connection.write_more(&reply.encode())?;
    send_rest(connection, &open, request.offset.min(reply.file_bytes), reply.file_bytes)?;
    // The reply goes out also where nothing has come behind it.
    connection.write_all(&[])?;
    Ok(Status::Ok)
}

fn reply_for(
    connection: &Connection,
    source: &Source,
    open: OpenFile,
    request: &PlainRequest,
    plain_crc: PlainCrc,
) -> Result<(OpenFile, Reply), Status> {
    let file_bytes = open.stat.size_bytes();
    let crc32 = if request.want_crc && plain_crc == PlainCrc::Given {
        let whole = ByteRange::new(0, file_bytes).map_err(|_| Status::InputOutput)?;
        // Whoever has hung up meanwhile is not read for.
        let mut goes_on = |_| if connection.is_gone() { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) };
        source.crc_of(&open, whole, &mut vec![0; SLICE_BYTES], &mut goes_on)?
    } else {
        0
    };
    let mtime_ns = open.stat.metadata.mtime.wire_ns();
    Ok((open, Reply { status: Status::Ok, file_bytes, mtime_ns, crc32 }))
}

fn send_rest(connection: &Connection, open: &OpenFile, start: u64, end: u64) -> Result<(), NetError> {
    match connection.send_file(&open.file, start, end - start)? {
        Moved::All | Moved::Ended(_) => Ok(()),
        Moved::Unsupported(sent) => send_by_hand(connection, open, start + sent, end),
    }
}

fn send_by_hand(connection: &Connection, open: &OpenFile, mut at: u64, end: u64) -> Result<(), NetError> {
    let mut slice = vec![0; SLICE_BYTES];
    while at < end {
        let want = SLICE_BYTES.min(usize::try_from(end - at).unwrap_or(SLICE_BYTES));
        match fastcp_sys::file::read_at(&open.file, &mut slice[..want], at) {
            Ok(0) | Err(_) => return Ok(()),
            Ok(got) => {
                connection.write_all(&slice[..got])?;
                at += got as u64;
            }
        }
    }
    Ok(())
}
