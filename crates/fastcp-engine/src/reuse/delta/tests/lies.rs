//! Searches against a sender that lies, or whose answers are damaged on their way.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use fastcp_model::Status;
use fastcp_net::{Connection, Inbox, NetError};
use fastcp_wire::WireError;
use fastcp_wire::reply::{BodyKind, PieceHeader, Reply, Trailer};
use fastcp_wire::request::{
    Ask, ExtendedRequest, ID_UNREADABLE, REQUEST_HEADER_BYTES, RangeRequest, Request, RequestHeader,
};
use fastcp_wire::signature::{Level, SignedChunk, encode_signature};

use super::{file_of, holds, not_found, random};
use crate::content::cutter::{Cutter, fine_chunks};
use crate::reuse::basis::Basis;
use crate::reuse::delta::asker::Tally;
use crate::reuse::delta::{Asker, DeltaEnd, DeltaFile, Found, Outcome, Reach, find};

/// The truth about a file of `bytes`, as a body.
fn list(request: &RangeRequest, bytes: &[u8]) -> Vec<SignedChunk> {
    let part = &bytes[request.range.start() as usize..request.range.end() as usize];
    match request.ask {
        Ask::Signature(Level::Fine) => fine_chunks(part, SignedChunk::of),
        _ => part.chunks(1 << 20).map(SignedChunk::of).collect(),
    }
}

fn header(request: &RangeRequest, file_bytes: usize, body_bytes: usize) -> PieceHeader {
    let reply = Reply { status: Status::Ok, file_bytes: file_bytes as u64, mtime_ns: 7, crc32: 0 };
    PieceHeader { reply, id: request.id, kind: BodyKind::Signature, body_bytes: body_bytes as u32 }
}

fn answer(header: PieceHeader, chunks: &[SignedChunk], status: Status) -> Vec<u8> {
    let mut body = Vec::new();
    encode_signature(chunks, &mut body);
    let trailer = Trailer { crc32: crc32fast::hash(&body), status };
    [&PieceHeader { body_bytes: body.len() as u32, ..header }.encode()[..], &body, &trailer.encode()].concat()
}

fn read_request(stream: &mut TcpStream) -> Option<RangeRequest> {
    let mut header = [0; REQUEST_HEADER_BYTES];
    stream.read_exact(&mut header).ok()?;
    let decoded = RequestHeader::decode(&header).expect("a lawful request");
    let mut rest = vec![0; decoded.rest_bytes()];
    stream.read_exact(&mut rest).ok()?;
    match Request::decode(&header, decoded, &rest).expect("a lawful request") {
        Request::Extended(ExtendedRequest::Range(request)) => Some(request),
        other => panic!("not asked by a search: {other:?}"),
    }
}

/// Searches for a file of `bytes` in a basis of the same, at a sender that answers the requests one by one with
/// what `answer` makes of them.
fn search_at(
    bytes: &[u8],
    mut answer: impl FnMut(usize, &RangeRequest) -> Vec<u8> + Send,
) -> (Result<DeltaEnd, NetError>, Tally) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind");
    let stream = TcpStream::connect(listener.local_addr().expect("bound")).expect("connect");
    let (mut there, _) = listener.accept().expect("accept");
    let connection = Connection::accept(stream.into()).expect("connected");
    connection.set_timeouts(Some(Duration::from_secs(60)), Some(Duration::from_secs(60))).expect("timeouts");
    let cutter = Cutter::default();
    std::thread::scope(|threads| {
        threads.spawn(move || {
            for count in 0.. {
                let Some(request) = read_request(&mut there) else { return };
                if there.write_all(&answer(count, &request)).is_err() {
                    return;
                }
            }
        });
        let basis = Basis::new(&cutter, vec![file_of(bytes)]).expect("stat");
        let file =
            DeltaFile { path: b"file", file_bytes: bytes.len() as u64, mtime_ns: 7, basis, reach: Reach::Anywhere };
        let mut inbox = Inbox::new();
        let mut asker = Asker::new(&connection, &mut inbox);
        let bases = [file_of(bytes)];
        let end = find(&mut asker, &file, &mut |found, _| {
            let (right, wrong): (Vec<Found>, Vec<Found>) = found.iter().partition(|found| holds(&bases, found));
            not_found(bytes, &[bytes], &right);
            Outcome { wrong: wrong.iter().map(|found| found.range).collect(), had: Vec::new() }
        });
        let tally = asker.tally;
        drop(connection);
        (end, tally)
    })
}

#[test]
fn a_sender_that_cuts_in_its_own_way_is_believed_as_far_as_its_hashes_go() {
    let bytes = random(5 << 20, 16);
    let (end, tally) =
        search_at(&bytes, |_, request| answer(header(request, bytes.len(), 0), &list(request, &bytes), Status::Ok));
    assert!(matches!(end, Ok(DeltaEnd::Done)), "{end:?}");
    assert_eq!((tally.coarse_bytes, tally.asked_again), (bytes.len() as u64, 0));
}

#[test]
fn lists_that_are_not_of_the_range_end_the_connection() {
    let long = random(5 << 20, 17);
    let short = random(100_000, 18);
    type Change = fn(&mut Vec<SignedChunk>);
    let changes: [(&str, Change); 5] = [
        ("short", |chunks| chunks.truncate(chunks.len() - 1)),
        ("one byte short", |chunks| chunks.iter_mut().for_each(|chunk| chunk.len -= 1)),
        ("long", |chunks| chunks.push(chunks[0])),
        ("empty", Vec::clear),
        ("of a chunk that is too long", |chunks| chunks[0].len = u32::MAX),
    ];
    for bytes in [&long, &short] {
        for (what, change) in changes {
            let (end, _) = search_at(bytes, |_, request| {
                let mut chunks = list(request, bytes);
                change(&mut chunks);
                answer(header(request, bytes.len(), 0), &chunks, Status::Ok)
            });
            assert!(matches!(end, Err(NetError::Protocol(_))), "a list that is {what}: {end:?}");
        }
    }
}

#[test]
fn answers_that_break_a_rule_end_the_connection() {
    let bytes = random(100_000, 19);
    type Change = fn(&mut PieceHeader);
    let changes: [(&str, Change); 3] = [
        ("another id", |header| header.id += 1),
        ("another kind", |header| header.kind = BodyKind::Raw),
        ("a body over its limit", |header| header.body_bytes = 60 << 20),
    ];
    for (what, change) in changes {
        let (end, _) = search_at(&bytes, |_, request| {
            let mut header = header(request, bytes.len(), 40);
            change(&mut header);
            header.encode().to_vec()
        });
        assert!(
            matches!(&end, Err(NetError::Protocol(error)) if !matches!(error, WireError::Checksum(_))),
            "{what}: {end:?}"
        );
    }
    let (end, _) = search_at(&bytes, |_, request| {
        let reply = Reply::failed(Status::BadRequest);
        PieceHeader { reply, id: ID_UNREADABLE, ..header(request, 0, 0) }.encode().to_vec()
    });
    assert!(matches!(end, Err(NetError::Closed)), "{end:?}");
}

#[test]
fn damaged_lists_are_asked_for_again_a_few_times() {
    let bytes = random(5 << 20, 20);
    let damaged = |request: &RangeRequest, at_end: usize| {
        let mut answer = answer(header(request, bytes.len(), 0), &list(request, &bytes), Status::Ok);
        let at = answer.len() - at_end;
        answer[at] ^= 0x40;
        answer
    };
    // In the status of the trailer, in its checksum, and in the body.
    for at_end in [1, 4, 12] {
        let (end, tally) = search_at(&bytes, |count, request| match count {
            0 => damaged(request, at_end),
            _ => answer(header(request, bytes.len(), 0), &list(request, &bytes), Status::Ok),
        });
        assert!(matches!(end, Ok(DeltaEnd::Done)), "{end:?}");
        assert_eq!(tally.asked_again, 1);
        let (end, tally) = search_at(&bytes, |_, request| damaged(request, at_end));
        assert!(matches!(&end, Err(error) if error.is_transient()), "{end:?}");
        assert_eq!(tally.requests, 6);
    }
}

#[test]
fn a_sender_that_says_that_its_file_changed_is_heard() {
    let bytes = random(5 << 20, 21);
    let changed_late = |status| {
        search_at(&bytes, move |count, request| match (count, request.ask) {
            (0, _) => answer(header(request, 5 << 20, 0), &list(request, &random(5 << 20, 22)), Status::Ok),
            _ => answer(header(request, 5 << 20, 0), &[], status),
        })
    };
    assert!(matches!(changed_late(Status::Changed).0, Ok(DeltaEnd::Changed)));
    let (end, tally) = changed_late(Status::InputOutput);
    assert!(matches!(end, Ok(DeltaEnd::Refused(Status::InputOutput))), "{end:?}");
    assert!(tally.requests > 2, "the answers on their way were taken: {tally:?}");
}
