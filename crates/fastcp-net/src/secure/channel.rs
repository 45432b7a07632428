//! Records of TLS 1.3 (RFC 8446, section 5) once both ends have keys.
//!
//! rustls agrees on the keys, aws-lc has the ciphers; what is here is the framing. Each direction is by itself: one thread may
//! read while another writes, and neither waits for the other. Bytes are sealed from wherever they lie, and opened into the
//! memory that they are for.
//!
//! What ends or changes keys after the handshake is not used: no session tickets, no key updates. A key may seal 2^24
//! records (rustls' `confidentiality_limit` of AES-GCM), which is 256 GiB: a connection is [worn](Channel::is_worn) at half
//! of that, to be replaced by whoever uses it, and broken at the limit.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use fastcp_model::Status;
use fastcp_wire::WireError;
use fastcp_wire::auth::AuthReply;
use fastcp_wire::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameType};
use fastcp_wire::limits::AUTH_PAYLOAD_BYTES_MAX;
use rustls::{ConnectionTrafficSecrets, ContentType, ExtractedSecrets};

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
/// What is encrypted with the plain text: what it is.
const TYPE_BYTES: usize = 1;
/// What shows that it was not changed; of all ciphers of TLS 1.3.
const TAG_BYTES: usize = 16;
/// A warning, `close_notify`.
const CLOSE_NOTIFY: [u8; 2] = [1, 0];
/// Bytes of records that are sent with one call.
const OUT_BYTES_MAX: usize = 8 * RECORD_BYTES_MAX;
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
    pub(super) fn new(secrets: ExtractedSecrets, arrived: &[u8]) -> Result<Self, TlsError> {
        let mut buffer = vec![0; INCOMING_BYTES.max(arrived.len())];
        buffer[..arrived.len()].copy_from_slice(arrived);
        let key = Key::new(secrets.tx.0, secrets.tx.1)?;
        Ok(Self {
            sealer: Mutex::new(Sealer { key, waiting: Vec::new(), out: Vec::new() }),
            opener: Mutex::new(Opener {
                key: Key::new(secrets.rx.0, secrets.rx.1)?,
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
        self.records.fetch_max(sealer.key.sequence, Ordering::Relaxed);
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
        self.records.fetch_max(opener.key.sequence, Ordering::Relaxed);
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

/// The key of one direction, and how many records it was used for.
struct Key {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    sequence: u64,
}

impl Key {
    fn new(sequence: u64, secrets: ConnectionTrafficSecrets) -> Result<Self, TlsError> {
        let (algorithm, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(TlsError::Record("unknown keys")),
        };
        let unusable = TlsError::Record("unusable keys");
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| unusable.clone())?;
        let iv = iv.as_ref().try_into().map_err(|_| unusable)?;
        Ok(Self { key: LessSafeKey::new(key), iv, sequence })
    }

    /// What the next record is protected with (RFC 8446, section 5.3): no two are alike.
    fn next_nonce(&mut self) -> Result<Nonce, TlsError> {
        if self.sequence >= RECORDS_MAX {
            return Err(TlsError::Record("the keys of one connection are good for 256 GiB"));
        }
        let mut nonce = self.iv;
        let (_, last) = nonce.split_last_chunk_mut::<8>().expect("a nonce is longer");
        *last = (u64::from_be_bytes(*last) ^ self.sequence).to_be_bytes();
        self.sequence += 1;
        Ok(Nonce::assume_unique_for_key(nonce))
    }
}

/// The direction to the peer.
struct Sealer {
    key: Key,
    /// Less than a record, sent with what comes next.
    waiting: Vec<u8>,
    /// Records that are being sent. Kept, since memory that is given back has to be asked for again.
    out: Vec<u8>,
}

impl Sealer {
    fn send(
        &mut self,
        bytes: &[u8],
        more: bool,
        mut send: impl FnMut(&[io::IoSlice<'_>]) -> io::Result<usize>,
    ) -> Result<(), ChannelError> {
        let total = self.waiting.len() + bytes.len();
        let mut left = if more { total - total % PLAIN_BYTES_MAX } else { total };
        let mut rest = bytes;
        if left > 0 && !self.waiting.is_empty() {
            let (now, later) = rest.split_at((PLAIN_BYTES_MAX - self.waiting.len()).min(rest.len()));
            let mut first = std::mem::take(&mut self.waiting);
            first.extend_from_slice(now);
            rest = later;
            left -= first.len();
            self.seal(ContentType::ApplicationData, &first)?;
            first.clear();
            self.waiting = first;
        }
        while left > 0 {
            let (now, later) = rest.split_at(PLAIN_BYTES_MAX.min(left));
            (rest, left) = (later, left - now.len());
            if self.out.len() + RECORD_BYTES_MAX > OUT_BYTES_MAX {
                self.send_out(&mut send)?;
            }
            self.seal(ContentType::ApplicationData, now)?;
        }
        self.waiting.extend_from_slice(rest);
        self.send_out(send)
    }

    fn end(&mut self, mut send: impl FnMut(&[io::IoSlice<'_>]) -> io::Result<usize>) -> Result<(), ChannelError> {
        self.send(&[], false, &mut send)?;
        self.seal(ContentType::Alert, &CLOSE_NOTIFY)?;
        self.send_out(send)
    }

    /// Puts a record behind those that are to be sent.
    fn seal(&mut self, typ: ContentType, plain: &[u8]) -> Result<(), TlsError> {
        let len = plain.len() + TYPE_BYTES + TAG_BYTES;
        let [high, low] = (len as u16).to_be_bytes();
        let header = [ContentType::ApplicationData.into(), 3, 3, high, low];
        let nonce = self.key.next_nonce()?;
        self.out.extend_from_slice(&header);
        let start = self.out.len();
        self.out.resize(start + len, 0);
        let (sealed, tail) = self.out[start..].split_at_mut(plain.len());
        let sealing =
            self.key.key.seal_out_of_place_scatter(nonce, Aad::from(header), plain, sealed, &[typ.into()], tail);
        sealing.map_err(|_| TlsError::Record("cannot seal a record"))
    }

    fn send_out(&mut self, mut send: impl FnMut(&[io::IoSlice<'_>]) -> io::Result<usize>) -> Result<(), ChannelError> {
        let mut left = &self.out[..];
        while !left.is_empty() {
            match send(&[io::IoSlice::new(left)]) {
                Ok(count) => left = &left[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.out.clear();
        Ok(())
    }
}

/// The direction from the peer.
struct Opener {
    key: Key,
    buffer: Box<[u8]>,
    /// What has arrived and is not opened, of the buffer.
    filled: Range<usize>,
    /// What is opened and not handed over, of the buffer.
    plain: Range<usize>,
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
                Ok(Some(len)) => done += self.open(len, &mut into[done..])?,
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
        if len < TYPE_BYTES + TAG_BYTES {
            return Err(TlsError::Record("a record that is too short").into());
        }
        Ok((filled.len() >= HEADER_BYTES + len).then_some(len))
    }

    /// Opens a record: into the caller's memory where all of it has room there, and answers how much that is; else where it
    /// lies.
    fn open(&mut self, len: usize, into: &mut [u8]) -> Result<usize, ChannelError> {
        let nonce = self.key.next_nonce()?;
        let start = self.filled.start + HEADER_BYTES;
        let (before, record) = self.buffer.split_at_mut(start);
        let (_, header) = before.split_last_chunk::<HEADER_BYTES>().expect("the header is before it");
        let (sealed, tag) = record[..len].split_at_mut(len - TAG_BYTES);
        self.filled.start = start + len;
        let aad = Aad::from(*header);
        let is_direct = into.len() >= sealed.len();
        let opened = match into.get_mut(..sealed.len()) {
            Some(into) => self.key.key.open_separate_gather(nonce, aad, sealed, tag, into).map(|()| &*into),
            None => self.key.key.open_in_place(nonce, aad, &mut record[..len]).map(|opened| &*opened),
        };
        let opened = opened.map_err(|_| TlsError::Record("a record that was changed on the way"))?;
        // Behind what was sent comes what it is, and then as many zeros as the sender likes.
        let end = opened.iter().rposition(|&byte| byte != 0).ok_or(TlsError::Record("a record of no kind"))?;
        match (ContentType::from(opened[end]), &opened[..end]) {
            (ContentType::ApplicationData, []) => {
                self.empty += 1;
                if self.empty > EMPTY_MAX {
                    return Err(TlsError::Record("nothing but empty records").into());
                }
                Ok(0)
            }
            (ContentType::ApplicationData, _) => {
                self.empty = 0;
                if !is_direct {
                    self.plain = start..start + end;
                }
                Ok(if is_direct { end } else { 0 })
            }
            (ContentType::Alert, [_, 0]) => {
                self.is_ended = true;
                Ok(0)
            }
            // As soon as it has its keys a client may speak, and learns only then that it is not welcome.
            (ContentType::Alert, [_, alert]) if is_about_certificates(*alert) => {
                Err(TlsError::CertificateWanted.into())
            }
            (ContentType::Alert, _) => Err(TlsError::Record("the peer gave the connection up").into()),
            _ => Err(TlsError::Record("a record that has no place here").into()),
        }
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

/// From bad_certificate to decrypt_error, which is about a signature, but for what is about messages; and
/// certificate_required (RFC 8446, B.2).
fn is_about_certificates(alert: u8) -> bool {
    matches!(alert, 42..=46 | 48 | 49 | 51 | 116)
}
