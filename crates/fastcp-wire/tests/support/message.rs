//! Every message as one type, with one way to encode it and one to decode it.
//!
//! Decoding goes the way a connection goes: the fixed bytes first, then exactly what they announce.

use fastcp_wire::WireError;
use fastcp_wire::auth::{Auth, AuthReply};
use fastcp_wire::bundle::BundleRequest;
use fastcp_wire::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameType, decode_payload, encode_frame};
use fastcp_wire::hello::{Attach, Failure, Hello, HelloReply};
use fastcp_wire::known::{BatchId, decode_known, encode_known};
use fastcp_wire::offer::{BatchCodec, OfferBatch, OfferEnd, OfferRequest};
use fastcp_wire::push::Push;
use fastcp_wire::reply::{PieceHeader, Reply, Trailer};
use fastcp_wire::report::{Numbered, ReportEnd, ReportState, decode_seen, encode_seen};
use fastcp_wire::request::{ExtendedRequest, PlainRequest, REQUEST_HEADER_BYTES, RangeRequest, Request, RequestHeader};
use fastcp_wire::session::{Opened, Opening};

/// One message of any kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    Plain(PlainRequest),
    Range(RangeRequest),
    Bundle(BundleRequest),
    Reply(Reply),
    Piece(PieceHeader),
    Trailer(Trailer),
    Frame(FrameType, Vec<u8>),
    Hello(Hello),
    HelloReply(HelloReply),
    Attach(Attach),
    Failure(Failure),
    OfferRequest(OfferRequest),
    OfferBatch(BatchCodec, OfferBatch),
    OfferEnd(OfferEnd),
    Known(Vec<BatchId>),
    Same(BatchId),
    Push(Push),
    ReportEvent(Numbered),
    ReportState(ReportState),
    ReportEnd(ReportEnd),
    ReportSeen(u64),
    Auth(Auth),
    AuthReply(AuthReply),
    SessionOpen(Opening),
    SessionOpened(Opened),
}

impl Message {
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Plain(request) => request.encode().expect("within the limits"),
            Self::Range(request) => {
                let mut out = Vec::new();
                request.encode(&mut out);
                out
            }
            Self::Bundle(request) => {
                let mut out = Vec::new();
                request.encode(&mut out);
                out
            }
            Self::Reply(reply) => reply.encode().to_vec(),
            Self::Piece(header) => header.encode().to_vec(),
            Self::Trailer(trailer) => trailer.encode().to_vec(),
            Self::Frame(frame_type, payload) => encode_frame(*frame_type, payload).expect("within the limits"),
            Self::Hello(hello) => hello.encode(),
            Self::HelloReply(reply) => reply.encode(),
            Self::Attach(attach) => attach.encode(),
            Self::Failure(failure) => failure.encode(),
            Self::OfferRequest(request) => request.encode().expect("within the limits"),
            Self::OfferBatch(codec, batch) => batch.encode(*codec).expect("within the limits"),
            Self::OfferEnd(end) => end.encode(),
            Self::Known(ids) => encode_known(ids),
            Self::Same(id) => id.encode(),
            Self::Push(push) => push.encode().expect("within the limits"),
            Self::ReportEvent(event) => event.encode(),
            Self::ReportState(state) => state.encode(),
            Self::ReportEnd(end) => end.encode(),
            Self::ReportSeen(number) => encode_seen(*number),
            Self::Auth(auth) => auth.encode(),
            Self::AuthReply(reply) => reply.encode(),
            Self::SessionOpen(opening) => opening.encode(),
            Self::SessionOpened(opened) => opened.encode(),
        }
    }

    /// Decodes `bytes` as a message of the same kind as this one.
    pub(crate) fn decode_alike(&self, bytes: &[u8]) -> Result<Self, WireError> {
        match self {
            Self::Plain(_) | Self::Range(_) | Self::Bundle(_) => decode_request(bytes),
            Self::Reply(_) => Reply::decode(fixed(bytes)?).map(Self::Reply),
            Self::Piece(_) => PieceHeader::decode(fixed(bytes)?).map(Self::Piece),
            Self::Trailer(_) => Trailer::decode(fixed(bytes)?).map(Self::Trailer),
            Self::Frame(..) => decode_frame(bytes),
            Self::Hello(_) => Hello::decode(bytes).map(Self::Hello),
            Self::HelloReply(_) => HelloReply::decode(bytes).map(Self::HelloReply),
            Self::Attach(_) => Attach::decode(bytes).map(Self::Attach),
            Self::Failure(_) => Failure::decode(bytes).map(Self::Failure),
            Self::OfferRequest(_) => OfferRequest::decode(bytes).map(Self::OfferRequest),
            Self::OfferBatch(codec, _) => OfferBatch::decode(bytes).map(|batch| Self::OfferBatch(*codec, batch)),
            Self::OfferEnd(_) => OfferEnd::decode(bytes).map(Self::OfferEnd),
            Self::Known(_) => decode_known(bytes).map(Self::Known),
            Self::Same(_) => BatchId::decode(bytes).map(Self::Same),
            Self::Push(_) => Push::decode(bytes).map(Self::Push),
            Self::ReportEvent(_) => Numbered::decode(bytes).map(Self::ReportEvent),
            Self::ReportState(_) => ReportState::decode(bytes).map(Self::ReportState),
            Self::ReportEnd(_) => ReportEnd::decode(bytes).map(Self::ReportEnd),
            Self::ReportSeen(_) => decode_seen(bytes).map(Self::ReportSeen),
            Self::Auth(_) => Auth::decode(bytes).map(Self::Auth),
            Self::AuthReply(_) => AuthReply::decode(bytes).map(Self::AuthReply),
            Self::SessionOpen(_) => Opening::decode(bytes).map(Self::SessionOpen),
            Self::SessionOpened(_) => Opened::decode(bytes).map(Self::SessionOpened),
        }
    }
}

/// The bytes of a message of fixed size. The decoders take arrays, so only the caller can come short.
fn fixed<const N: usize>(bytes: &[u8]) -> Result<&[u8; N], WireError> {
    let (taken, extra) = bytes.split_first_chunk().ok_or(WireError::Truncated)?;
    if extra.is_empty() { Ok(taken) } else { Err(WireError::TrailingBytes(extra.len())) }
}

fn decode_request(bytes: &[u8]) -> Result<Message, WireError> {
    let (header_bytes, rest) = bytes.split_first_chunk::<REQUEST_HEADER_BYTES>().ok_or(WireError::Truncated)?;
    let header = RequestHeader::decode(header_bytes)?;
    Ok(match Request::decode(header_bytes, header, rest)? {
        Request::Plain(request) => Message::Plain(request),
        Request::Extended(ExtendedRequest::Range(request)) => Message::Range(request),
        Request::Extended(ExtendedRequest::Bundle(request)) => Message::Bundle(request),
    })
}

fn decode_frame(bytes: &[u8]) -> Result<Message, WireError> {
    let (header_bytes, rest) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>().ok_or(WireError::Truncated)?;
    let frame_type = FrameHeader::decode(header_bytes)?.frame_type;
    Ok(Message::Frame(frame_type, decode_payload(header_bytes, rest)?.to_vec()))
}
