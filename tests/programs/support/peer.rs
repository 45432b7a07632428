//! The wire, spoken by hand: what a peer sends and hears on one connection.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use fastcp_model::{Capabilities, Status};
use fastcp_wire::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameType, decode_payload, encode_frame};
use fastcp_wire::hello::{Attach, Failure, Hello, HelloReply, Lane, Role, Ticket, VERSION};
use fastcp_wire::reply::{PIECE_HEADER_BYTES, PieceHeader, REPLY_BYTES, Reply, TRAILER_BYTES, Trailer};

/// The first frame of a client that can do everything.
pub(crate) fn hello(connections: u16) -> Hello {
    let capability_bits = Capabilities::SUPPORTED.bits();
    Hello { version: VERSION, role: Role::Receiver, capability_bits, connections, chunk_kb: 0, places: Vec::new() }
}

pub(crate) fn send_frame(stream: &mut TcpStream, frame_type: FrameType, payload: &[u8]) {
    stream.write_all(&encode_frame(frame_type, payload).expect("lawful")).expect("send a frame");
}

/// Reads a frame; `None` where the other end has closed.
pub(crate) fn read_frame(stream: &mut TcpStream) -> Option<(FrameType, Vec<u8>)> {
    let mut header = [0; FRAME_HEADER_BYTES];
    stream.read_exact(&mut header).ok()?;
    let decoded = FrameHeader::decode(&header).expect("a lawful frame");
    let mut rest = vec![0; decoded.rest_bytes()];
    stream.read_exact(&mut rest).ok()?;
    let payload = decode_payload(&header, &rest).expect("a whole frame");
    Some((decoded.frame_type, payload.to_vec()))
}

/// Reads the failure that the other end closes with.
pub(crate) fn read_failure(stream: &mut TcpStream) -> Status {
    let (frame_type, payload) = read_frame(stream).expect("a frame before the end");
    assert_eq!(frame_type, FrameType::Failure);
    assert_eq!(read_to_end(stream), b"", "nothing follows a failure");
    Failure::decode(&payload).expect("a known status").status
}

/// Everything until the other end closes; a reset is an end as well.
pub(crate) fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => bytes,
        Err(error) => panic!("the other end does not close: {error}"),
    }
}

/// Opens a session on a fresh connection.
pub(crate) fn open_session(stream: &mut TcpStream, connections: u16) -> HelloReply {
    send_frame(stream, FrameType::Hello, &hello(connections).encode());
    let (frame_type, payload) = read_frame(stream).expect("an answer to HELLO");
    assert_eq!(frame_type, FrameType::HelloReply);
    HelloReply::decode(&payload).expect("lawful")
}

/// Attaches a fresh connection to a session.
pub(crate) fn attach(stream: &mut TcpStream, ticket: Ticket) {
    send_frame(stream, FrameType::Attach, &Attach { ticket, lane: Lane::Data }.encode());
    assert_eq!(read_frame(stream), Some((FrameType::AttachReply, Vec::new())));
}

/// Reads one extended answer: its header, and body and trailer where it has them.
pub(crate) fn read_piece(stream: &mut TcpStream) -> (PieceHeader, Vec<u8>, Option<Trailer>) {
    let mut header = [0; PIECE_HEADER_BYTES];
    stream.read_exact(&mut header).expect("a header");
    let header = PieceHeader::decode(&header).expect("lawful");
    if header.reply.status != Status::Ok {
        return (header, Vec::new(), None);
    }
    let mut body = vec![0; header.body_bytes as usize];
    stream.read_exact(&mut body).expect("a body");
    let mut trailer = [0; TRAILER_BYTES];
    stream.read_exact(&mut trailer).expect("a trailer");
    (header, body, Some(Trailer::decode(&trailer).expect("lawful")))
}

/// Sends the bytes of a plain request, whatever they are, and reads all that is answered.
pub(crate) fn ask_plain(mut stream: TcpStream, request: &[u8]) -> Vec<u8> {
    stream.write_all(request).expect("send a request");
    stream.shutdown(Shutdown::Write).expect("say that this was all");
    read_to_end(&mut stream)
}

/// An FTQ1 request from its fields, lawful or not.
pub(crate) fn plain_request(path: &[u8], flags: u16, offset: u64) -> Vec<u8> {
    let mut bytes = b"FTQ1".to_vec();
    bytes.extend_from_slice(&u16::try_from(path.len()).expect("short").to_be_bytes());
    bytes.extend_from_slice(&flags.to_be_bytes());
    bytes.extend_from_slice(&offset.to_be_bytes());
    bytes.extend_from_slice(path);
    bytes
}

/// Splits an answer to a plain request.
pub(crate) fn split_reply(answer: &[u8]) -> (Reply, &[u8]) {
    let (reply, body) = answer.split_first_chunk::<REPLY_BYTES>().expect("a whole reply");
    (Reply::decode(reply).expect("lawful"), body)
}
