//! Any bytes to every decoder of the wire crate. None may panic, and what decodes must encode again
//! to something that decodes equal.

#![no_main]

use std::fmt::Debug;

use fastcp_wire::WireError;
use fastcp_wire::auth::{Auth, AuthReply};
use fastcp_wire::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameType, decode_payload, encode_frame};
use fastcp_wire::hello::{Attach, Failure, Hello, HelloReply};
use fastcp_wire::known::{BatchId, decode_known, encode_known};
use fastcp_wire::offer::{BatchCodec, OfferBatch, OfferEnd, OfferRequest};
use fastcp_wire::push::Push;
use fastcp_wire::reply::{PIECE_HEADER_BYTES, PieceHeader, REPLY_BYTES, Reply, TRAILER_BYTES, Trailer};
use fastcp_wire::report::{Numbered, ReportEnd, ReportState, decode_seen, encode_seen};
use fastcp_wire::request::{ExtendedRequest, REQUEST_HEADER_BYTES, Request, RequestHeader};
use fastcp_wire::session::{Opened, Opening};
use fastcp_wire::signature::{Level, decode_hash, decode_signature, encode_hash, encode_signature};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    request(bytes);
    answers(bytes);
    signatures(bytes);
    frame(bytes);
    handshake(bytes);
    offers(bytes);
    reports(bytes);
});

/// Decodes, and if that works encodes and decodes again.
fn again<T: PartialEq + Debug>(
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, WireError>,
    encode: impl Fn(&T) -> Vec<u8>,
) {
    if let Ok(message) = decode(bytes) {
        assert_eq!(decode(&encode(&message)).as_ref(), Ok(&message));
    }
}

fn request(bytes: &[u8]) {
    again(bytes, decode_request, encode_request);
    again(&with_sum(bytes), decode_request, encode_request);
}

fn encode_request(request: &Request) -> Vec<u8> {
    match request {
        Request::Plain(plain) => {
            let _ = plain.rel_path();
            plain.encode().expect("as short as it came")
        }
        Request::Extended(ExtendedRequest::Range(range)) => {
            let _ = range.rel_path();
            let mut out = Vec::new();
            range.encode(&mut out);
            out
        }
        Request::Extended(ExtendedRequest::Bundle(bundle)) => {
            let _ = bundle.rel_path();
            let mut out = Vec::new();
            bundle.encode(&mut out);
            out
        }
    }
}

fn decode_request(bytes: &[u8]) -> Result<Request, WireError> {
    let (header_bytes, rest) = bytes.split_first_chunk::<REQUEST_HEADER_BYTES>().ok_or(WireError::Truncated)?;
    let header = RequestHeader::decode(header_bytes)?;
    Request::decode(header_bytes, header, rest.get(..header.rest_bytes()).unwrap_or(rest))
}

fn answers(bytes: &[u8]) {
    if let Some(first) = bytes.first_chunk::<REPLY_BYTES>() {
        again(first, |bytes| Reply::decode(fixed(bytes)?), |reply| reply.encode().to_vec());
    }
    if let Some(first) = bytes.first_chunk::<TRAILER_BYTES>() {
        again(first, |bytes| Trailer::decode(fixed(bytes)?), |trailer| trailer.encode().to_vec());
    }
    if let Some(first) = bytes.first_chunk::<PIECE_HEADER_BYTES>() {
        again(first, |bytes| PieceHeader::decode(fixed(bytes)?), |header| header.encode().to_vec());
    }
    if let Some(first) = bytes.first_chunk::<{ PIECE_HEADER_BYTES - 4 }>() {
        again(&with_sum(first), |bytes| PieceHeader::decode(fixed(bytes)?), |header| header.encode().to_vec());
    }
}

fn signatures(bytes: &[u8]) {
    for level in [Level::Coarse, Level::Fine] {
        let encode = |chunks: &Vec<_>| {
            let mut out = Vec::new();
            encode_signature(chunks, &mut out);
            out
        };
        again(bytes, |bytes| decode_signature(level, bytes), encode);
    }
    again(bytes, decode_hash, |hash| encode_hash(*hash).to_vec());
}

fn frame(bytes: &[u8]) {
    let encode = |(frame_type, payload): &(FrameType, Vec<u8>)| encode_frame(*frame_type, payload).expect("as it came");
    again(bytes, decode_frame, encode);
    again(&with_sum(bytes), decode_frame, encode);
}

fn decode_frame(bytes: &[u8]) -> Result<(FrameType, Vec<u8>), WireError> {
    let (header_bytes, rest) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>().ok_or(WireError::Truncated)?;
    let header = FrameHeader::decode(header_bytes)?;
    let payload = decode_payload(header_bytes, rest.get(..header.rest_bytes()).unwrap_or(rest))?;
    Ok((header.frame_type, payload.to_vec()))
}

fn handshake(bytes: &[u8]) {
    again(bytes, Hello::decode, Hello::encode);
    again(bytes, HelloReply::decode, HelloReply::encode);
    again(bytes, Attach::decode, Attach::encode);
    again(bytes, Failure::decode, Failure::encode);
    again(bytes, Auth::decode, Auth::encode);
    again(bytes, AuthReply::decode, AuthReply::encode);
    again(bytes, Opening::decode, Opening::encode);
    again(bytes, Opened::decode, Opened::encode);
    again(bytes, Push::decode, |push| push.encode().expect("as short as it came"));
}

fn offers(bytes: &[u8]) {
    again(bytes, OfferRequest::decode, |request| request.encode().expect("as it came"));
    again(bytes, OfferEnd::decode, OfferEnd::encode);
    again(bytes, decode_known, |ids| encode_known(ids));
    again(bytes, BatchId::decode, |id| id.encode());
    batch(bytes);
    // The same bytes as the body of a raw batch whose length is right, which mutations rarely keep.
    batch(&[&[0][..], &(bytes.len() as u32).to_be_bytes(), bytes].concat());
}

fn reports(bytes: &[u8]) {
    again(bytes, Numbered::decode, Numbered::encode);
    again(bytes, ReportState::decode, ReportState::encode);
    again(bytes, ReportEnd::decode, ReportEnd::encode);
    again(bytes, decode_seen, |number| encode_seen(*number));
}

fn batch(bytes: &[u8]) {
    for codec in [BatchCodec::Raw, BatchCodec::Zstd] {
        let Ok(batch) = OfferBatch::decode(bytes) else { return };
        // A batch that came compressed may be too long to go raw.
        let Ok(encoded) = batch.encode(codec) else { continue };
        assert_eq!(OfferBatch::decode(&encoded).as_ref(), Ok(&batch));
    }
}

/// `bytes` and their right checksum, which mutations would never find.
fn with_sum(bytes: &[u8]) -> Vec<u8> {
    [bytes, &crc32fast::hash(bytes).to_be_bytes()].concat()
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<&[u8; N], WireError> {
    bytes.try_into().map_err(|_| WireError::Truncated)
}
