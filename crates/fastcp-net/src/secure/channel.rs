//! Records of TLS 1.3 (RFC 8446, section 5) once both ends have keys.
//!
//! rustls agrees on the keys and has the ciphers; what is here is the framing. Each direction is by itself: one thread may
//! read while another writes, and neither waits for the other. Bytes are sealed from wherever they lie, and opened where
//! they arrive.
//!
//! What ends or changes keys after the handshake is not used: no session tickets, no key updates. A key may seal 2^24
//! records (rustls' `confidentiality_limit` of AES-GCM), which is 256 GiB: a connection is [worn](Channel::is_worn) at half
//! of that, to be replaced by whoever uses it, and broken at the limit.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fastcp_model::Status;
use fastcp_wire::WireError;
use fastcp_wire::auth::AuthReply;
use fastcp_wire::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameType};
use fastcp_wire::limits::AUTH_PAYLOAD_BYTES_MAX;
use rustls::crypto::cipher::{
    InboundOpaqueMessage, MessageDecrypter, MessageEncrypter, OutboundChunks, OutboundPlainMessage,
};
use rustls::{ConnectionTrafficSecrets, ContentType, ExtractedSecrets, ProtocolVersion, Tls13CipherSuite};

use super::TlsError;
use super::token::{Exporter, Prover, Token};
use crate::NetError;
use crate::connection::checked_frame;

/// The most bytes of plain text in a record.
const PLAIN_BYTES_MAX: usize = 1 << 14;
/// The header of a record: type, version, length.
pub(super) const HEADER_BYTES: usize = 5;
/// The longest record with its header: the standard allows 256 bytes beyond the plain text.
pub(super) const RECORD_BYTES_MAX: usize = HEADER_BYTES + PLAIN_BYTES_MAX + 256;
/// Records that are sent with one call.
const RECORDS_AT_ONCE: usize = 16;
/// Bytes that are received with one call.
const INCOMING_BYTES: usize = 8 * RECORD_BYTES_MAX;
/// Records that a connection's keys are used for.
const RECORDS_MAX: u64 = 1 << 24;
const RECORDS_WORN: u64 = RECORDS_MAX / 2;
/// Records without a byte in them, one after the other, that are borne with.
const EMPTY_MAX: u32 = 32;

/// The keys of a connection, and what of it is under way.
pub(crate) struct Channel {
    sealer: Mutex<Sealer>,
    opener: Mutex<Opener>,
    /// Records so far, of the direction that has more of them.
    records: AtomicU64,
}

/// Why nothing came through.
#[derive(Debug)]
pub(crate) enum ChannelError {
    /// The socket.
    Io(io::Error),
    /// What came through it.
    Net(NetError),
}

impl From<io::Error> for ChannelError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<TlsError> for ChannelError {
    fn from(error: TlsError) -> Self {
        Self::Net(error.into())
    }
}

impl From<WireError> for ChannelError {
    fn from(error: WireError) -> Self {
        Self::Net(error.into())
    }
}

impl Channel {
    /// Takes the keys that were agreed on. `arrived` is what came behind the handshake.
    pub(super) fn new(
        suite: &'static Tls13CipherSuite,
        secrets: ExtractedSecrets,
        arrived: &[u8],
    ) -> Result<Self, TlsError> {
        let ((sent, tx), (received, rx)) = (secrets.tx, secrets.rx);
        let keys = |secrets| match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv }
            | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
            | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => Ok((key, iv)),
            _ => Err(TlsError::Record("unknown keys")),
        };
        let ((tx_key, tx_iv), (rx_key, rx_iv)) = (keys(tx)?, keys(rx)?);
        let mut buffer = vec![0; INCOMING_BYTES.max(arrived.len())];
        buffer[..arrived.len()].copy_from_slice(arrived);
        Ok(Self {
            sealer: Mutex::new(Sealer {
                encrypter: suite.aead_alg.encrypter(tx_key, tx_iv),
                sequence: sent,
                waiting: Vec::new(),
            }),
            opener: Mutex::new(Opener {
                decrypter: suite.aead_alg.decrypter(rx_key, rx_iv),
                sequence: received,
                buffer: buffer.into(),
                filled: 0..arrived.len(),
                plain: 0..0,
                empty: 0,
                is_ended: false,
                awaited: None,
            }),
            records: AtomicU64::new(0),
        })
    }

    /// Seals bytes and sends them with `send`, which answers how many bytes of the slices it took. With `more`, what does
    /// not fill a record may wait for the next call.
    pub(crate) fn send(
        &self,
        bytes: &[u8],
        more: bool,
        send: impl FnMut(&[io::IoSlice<'_>]) -> io::Result<usize>,
    ) -> Result<(), ChannelError> {
        let mut sealer = lock(&self.sealer);
        sealer.send(bytes, more, send)?;
        self.records.fetch_max(sealer.sequence, Ordering::Relaxed);
        Ok(())
    }

    /// Says that nothing more will be sent.
    pub(crate) fn end(&self, send: impl FnMut(&[io::IoSlice<'_>]) -> io::Result<usize>) -> Result<(), ChannelError> {
        lock(&self.sealer).end(send)
    }

    /// Fills the beginning of `into` with what the peer has sent; receives with `receive` as long as there is nothing.
    /// Answers how much it is: nothing where the peer has ended its side.
    pub(crate) fn receive(
        &self,
        into: &mut [u8],
        mut receive: impl FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> Result<usize, ChannelError> {
        let mut opener = lock(&self.opener);
        opener.hear_proof(&mut receive)?;
        let count = opener.receive(into, receive)?;
        self.records.fetch_max(opener.sequence, Ordering::Relaxed);
        Ok(count)
    }

    /// The first that the peer says is its proof; until then nothing it says is handed over.
    pub(super) fn expect_proof(&self, token: Token, exporter: Exporter) {
        lock(&self.opener).awaited = Some(Awaited { token, exporter, heard: Vec::new() });
    }

    /// Waits for the proof.
    pub(super) fn hear_proof(
        &self,
        mut receive: impl FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> Result<(), ChannelError> {
        lock(&self.opener).hear_proof(&mut receive)
    }

    /// Whether it had better be replaced before its keys have to be.
    pub(crate) fn is_worn(&self) -> bool {
        self.records.load(Ordering::Relaxed) > RECORDS_WORN
    }
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel").field("records", &self.records).finish_non_exhaustive()
    }
}

fn lock<T>(half: &Mutex<T>) -> MutexGuard<'_, T> {
    half.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The direction to the peer.
struct Sealer {
    encrypter: Box<dyn MessageEncrypter>,
    sequence: u64,
    /// Less than a record, sent with what comes next.
    waiting: Vec<u8>,
}

impl Sealer {
    fn send(
        &mut self,
        bytes: &[u8],
        more: bool,
        mut send: impl FnMut(&[io::IoSlice<'_>]) -> io::Result<usize>,
    ) -> Result<(), ChannelError> {
        let total = self.waiting.len() + bytes.len();
        let whole = if more { total - total % PLAIN_BYTES_MAX } else { total };
        if whole == 0 {
            self.waiting.extend_from_slice(bytes);
            return Ok(());
        }
        let waiting = std::mem::take(&mut self.waiting);
        let now = whole - waiting.len();
        let mut records = Vec::with_capacity(RECORDS_AT_ONCE.min(whole.div_ceil(PLAIN_BYTES_MAX)));
        let mut at = 0;
        while at < whole {
            let end = whole.min(at + PLAIN_BYTES_MAX);
            // Only the first record has anything of what waited.
            let chunks =
                [&waiting[at.min(waiting.len())..], &bytes[at.saturating_sub(waiting.len())..end - waiting.len()]];
            records.push(self.seal(ContentType::ApplicationData, OutboundChunks::new(&chunks))?);
            at = end;
            if records.len() == RECORDS_AT_ONCE || at == whole {
                send_all(&records, &mut send)?;
                records.clear();
            }
        }
        self.waiting = waiting;
        self.waiting.clear();
        self.waiting.extend_from_slice(&bytes[now..]);
        Ok(())
    }

    fn end(&mut self, mut send: impl FnMut(&[io::IoSlice<'_>]) -> io::Result<usize>) -> Result<(), ChannelError> {
        self.send(&[], false, &mut send)?;
        /// A warning, `close_notify`.
        const CLOSE_NOTIFY: [u8; 2] = [1, 0];
        let record = self.seal(ContentType::Alert, OutboundChunks::Single(&CLOSE_NOTIFY))?;
        send_all(&[record], &mut send)
    }

    fn seal(&mut self, typ: ContentType, payload: OutboundChunks<'_>) -> Result<Vec<u8>, ChannelError> {
        if self.sequence >= RECORDS_MAX {
            return Err(TlsError::Record("the keys of one connection are good for 256 GiB").into());
        }
        let message = OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_2, payload };
        let sealed = self.encrypter.encrypt(message, self.sequence);
        self.sequence += 1;
        sealed.map(|sealed| sealed.encode()).map_err(|_| TlsError::Record("cannot seal a record").into())
    }
}

fn send_all(
    records: &[Vec<u8>],
    mut send: impl FnMut(&[io::IoSlice<'_>]) -> io::Result<usize>,
) -> Result<(), ChannelError> {
    let mut slices: Vec<_> = records.iter().map(|record| io::IoSlice::new(record)).collect();
    let mut left = &mut slices[..];
    while !left.is_empty() {
        match send(left) {
            Ok(count) => io::IoSlice::advance_slices(&mut left, count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The direction from the peer.
struct Opener {
    decrypter: Box<dyn MessageDecrypter>,
    sequence: u64,
    buffer: Box<[u8]>,
    /// What has arrived and is not opened, of the buffer.
    filled: std::ops::Range<usize>,
    /// What is opened and not handed over, of the buffer.
    plain: std::ops::Range<usize>,
    /// Records without a byte, in a row.
    empty: u32,
    is_ended: bool,
    /// What the peer has to prove before anything else it says counts.
    awaited: Option<Awaited>,
}

/// The peer's proof, which is to come.
struct Awaited {
    token: Token,
    exporter: Exporter,
    /// What has come of it.
    heard: Vec<u8>,
}

impl Opener {
    fn receive(
        &mut self,
        into: &mut [u8],
        mut receive: impl FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> Result<usize, ChannelError> {
        let mut done = 0;
        while done < into.len() {
            let count = self.plain.len().min(into.len() - done);
            if count > 0 {
                into[done..done + count].copy_from_slice(&self.buffer[self.plain.start..self.plain.start + count]);
                self.plain.start += count;
                done += count;
                continue;
            }
            match self.next_record() {
                _ if self.is_ended => break,
                Ok(Some(len)) => self.open(len)?,
                // What is here already is handed over first.
                _ if done > 0 => break,
                Ok(None) => {
                    self.make_room();
                    match receive(&mut self.buffer[self.filled.end..])? {
                        0 if self.filled.is_empty() => self.is_ended = true,
                        0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                        count => self.filled.end += count,
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// The length of the next record behind its header, once all of it is here.
    fn next_record(&self) -> Result<Option<usize>, ChannelError> {
        let filled = &self.buffer[self.filled.clone()];
        let Some(header) = filled.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let len = record_bytes(header)?;
        if ContentType::from(header[0]) != ContentType::ApplicationData {
            return Err(TlsError::Record("a record that is not protected").into());
        }
        Ok((filled.len() >= HEADER_BYTES + len).then_some(len))
    }

    fn open(&mut self, len: usize) -> Result<(), ChannelError> {
        let tls = |what| Err(TlsError::Record(what).into());
        let start = self.filled.start + HEADER_BYTES;
        self.filled.start = start + len;
        let payload = &mut self.buffer[start..start + len];
        let sealed = InboundOpaqueMessage::new(ContentType::ApplicationData, ProtocolVersion::TLSv1_2, payload);
        if self.sequence >= RECORDS_MAX {
            return tls("a key was used for too long");
        }
        let Ok(opened) = self.decrypter.decrypt(sealed, self.sequence) else {
            return tls("a record that was changed on the way");
        };
        self.sequence += 1;
        match (opened.typ, opened.payload) {
            (ContentType::ApplicationData, []) => {
                self.empty += 1;
                if self.empty > EMPTY_MAX {
                    return tls("nothing but empty records");
                }
            }
            // It is opened in place, from the beginning.
            (ContentType::ApplicationData, plain) => {
                self.plain = start..start + plain.len();
                self.empty = 0;
            }
            (ContentType::Alert, [_, 0]) => self.is_ended = true,
            (ContentType::Alert, _) => return tls("the peer gave the connection up"),
            _ => return tls("a record that has no place here"),
        }
        Ok(())
    }

    /// Whatever is not opened moves to the front, where all of a record has room.
    fn make_room(&mut self) {
        if self.filled.is_empty() {
            self.filled = 0..0;
        } else if self.filled.start > 0 && self.buffer.len() - self.filled.end < RECORD_BYTES_MAX {
            self.buffer.copy_within(self.filled.clone(), 0);
            self.filled = 0..self.filled.len();
        }
    }

    /// Takes the peer's proof, if it owes one. What is heard of it stays heard, should the wait be over before the end.
    fn hear_proof(&mut self, receive: &mut impl FnMut(&mut [u8]) -> io::Result<usize>) -> Result<(), ChannelError> {
        let Some(mut awaited) = self.awaited.take() else { return Ok(()) };
        let heard = loop {
            let wanted = match awaited.wanted() {
                Ok(0) => break Ok(()),
                Ok(wanted) => wanted,
                Err(error) => break Err(error),
            };
            let mut piece = vec![0; wanted];
            match self.receive(&mut piece, &mut *receive) {
                Ok(0) => break Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(count) => awaited.heard.extend_from_slice(&piece[..count]),
                Err(error) => break Err(error),
            }
        };
        let heard = heard.and_then(|()| awaited.judge());
        if heard.is_err() {
            // What was not proven stays so, whoever asks again.
            self.awaited = Some(awaited);
        }
        heard
    }
}

impl Awaited {
    /// How many bytes are to come of the frame, as far as that is known.
    fn wanted(&self) -> Result<usize, ChannelError> {
        match self.heard.first_chunk::<FRAME_HEADER_BYTES>() {
            None => Ok(FRAME_HEADER_BYTES - self.heard.len()),
            Some(header) => {
                let header = FrameHeader::decode_within(header, AUTH_PAYLOAD_BYTES_MAX)?;
                Ok(FRAME_HEADER_BYTES + header.rest_bytes() - self.heard.len())
            }
        }
    }

    /// What the frame says.
    fn judge(&self) -> Result<(), ChannelError> {
        let (header, rest) = self.heard.split_first_chunk().expect("all of it has come");
        let (frame_type, payload) = checked_frame(header, rest).map_err(|error| match error {
            // Whoever refuses need not prove anything, and says nothing else by it.
            NetError::Denied { status: Status::Unauthorised | Status::Busy, .. }
            | NetError::Refused(Status::Unauthorised | Status::Busy) => ChannelError::Net(error),
            _ => TlsError::Unproven.into(),
        })?;
        let is_proven = frame_type == FrameType::AuthReply
            && self.token.is_proven(Prover::Server, &self.exporter, &AuthReply::decode(&payload)?.proof);
        if is_proven { Ok(()) } else { Err(TlsError::Unproven.into()) }
    }
}

/// The length that a record's header names, behind the header.
pub(super) fn record_bytes(header: &[u8; HEADER_BYTES]) -> Result<usize, TlsError> {
    let [_, major, _, high, low] = *header;
    let len = usize::from(u16::from_be_bytes([high, low]));
    match (major, len) {
        (3, 1..=LEN_MAX) => Ok(len),
        _ => Err(TlsError::Record("what is no record")),
    }
}

const LEN_MAX: usize = RECORD_BYTES_MAX - HEADER_BYTES;
