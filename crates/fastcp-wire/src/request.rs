//! FTQ1 requests.
//!
//! The plain form is fixed by programs that exist: 16 bytes and a path. The extended form adds fields after the path,
//! chosen by flag bits that plain clients never set, so one decoder serves both. A connection reads the fixed 16 bytes,
//! learns from them how much follows, reads exactly that, and decodes the whole.

use fastcp_model::{ByteRange, PathError, RelPath};

use crate::WireError;
use crate::bundle::{BundleForm, BundleRequest};
use crate::limits::{
    BUNDLE_LIST_BYTES_MAX, FINE_SIGNATURE_BYTES_MAX, HASH_BYTES_MAX, RANGE_BYTES_MAX, REQUEST_PATH_BYTES_MAX,
    SIGNATURE_BYTES_MAX,
};
use crate::reader::{Reader, within};
use crate::signature::Level;

/// `FTQ1`: the first four bytes of a request.
pub const REQUEST_MAGIC: u32 = 0x4654_5131;
/// The fixed part of a request, in bytes.
pub const REQUEST_HEADER_BYTES: usize = 16;

/// Flag: the reply shall carry the CRC-32 of the whole file.
pub const FLAG_WANT_CRC: u16 = 0x0001;
/// Flag: the extended form; a length, an id and a checksum follow the path.
pub const FLAG_RANGE: u16 = 0x0002;
/// Flag, with [`FLAG_RANGE`]: the body may be zstd.
pub const FLAG_ACCEPT_ZSTD: u16 = 0x0004;
/// Flag, with [`FLAG_RANGE`]: no body; the reply's crc32 is that of the range's bytes.
pub const FLAG_CONFIRM: u16 = 0x0008;

/// Flag, with [`FLAG_RANGE`]: the path is a directory, and names of files in it follow ([`BundleRequest`]).
pub const FLAG_BUNDLE: u16 = 0x0010;

/// Flag, with [`FLAG_RANGE`]: the answer is the range's coarse signature.
pub const FLAG_SIGNATURE: u16 = 0x0020;

/// Flag, with [`FLAG_SIGNATURE`]: the fine signature instead.
pub const FLAG_FINE: u16 = 0x0040;

/// Flag, with [`FLAG_RANGE`]: the answer is the BLAKE3 of the range's bytes.
pub const FLAG_HASH: u16 = 0x0080;

/// Flag, with [`FLAG_CONFIRM`]: the bytes are read again, and what is remembered of the file is forgotten.
pub const FLAG_ANEW: u16 = 0x0100;

/// The id of the reply to a request that could not be read: the connection ends with it. No request
/// has it.
pub const ID_UNREADABLE: u32 = u32::MAX;

const EXTENSION_BYTES: usize = 16;
const FLAGS_PLAIN: u16 = FLAG_WANT_CRC;
const FLAGS_EXTENDED: u16 =
    FLAG_RANGE | FLAG_ACCEPT_ZSTD | FLAG_CONFIRM | FLAG_BUNDLE | FLAG_SIGNATURE | FLAG_FINE | FLAG_HASH | FLAG_ANEW;

/// The fixed first 16 bytes of a request, which say how much follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHeader {
    path_bytes: usize,
    flags: u16,
    offset: u64,
}

impl RequestHeader {
    /// Decodes the header.
    ///
    /// # Errors
    /// A wrong magic, an unknown flag, a path longer than [`REQUEST_PATH_BYTES_MAX`], or an empty one where
    /// that does not mean the root; a list of names longer than [`BUNDLE_LIST_BYTES_MAX`].
    pub fn decode(bytes: &[u8; REQUEST_HEADER_BYTES]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let magic = reader.u32()?;
        if magic != REQUEST_MAGIC {
            return Err(WireError::Magic(magic));
        }
        let path_bytes = usize::from(reader.u16()?);
        let flags = reader.u16()?;
        let offset = reader.u64()?;
        within("path_len", path_bytes, REQUEST_PATH_BYTES_MAX)?;
        let known = if flags & FLAG_RANGE == 0 { FLAGS_PLAIN } else { FLAGS_EXTENDED };
        if flags & !known != 0 {
            return Err(WireError::Value { field: "flags", value: flags.into() });
        }
        let header = Self { path_bytes, flags, offset };
        if header.is_bundle() {
            within("offset", usize::try_from(offset).unwrap_or(usize::MAX), BUNDLE_LIST_BYTES_MAX)?;
        } else if path_bytes == 0 {
            return Err(WireError::Value { field: "path_len", value: 0 });
        }
        Ok(header)
    }

    /// How many bytes follow the header.
    pub fn rest_bytes(&self) -> usize {
        self.path_bytes + self.list_bytes() + if self.is_extended() { EXTENSION_BYTES } else { 0 }
    }

    fn list_bytes(&self) -> usize {
        // Checked when it was decoded.
        if self.is_bundle() { self.offset as usize } else { 0 }
    }

    fn is_bundle(&self) -> bool {
        self.flags & FLAG_BUNDLE != 0
    }

    /// Whether this is the extended form.
    pub fn is_extended(&self) -> bool {
        self.flags & FLAG_RANGE != 0
    }
}

/// A request of either form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// The plain form: from the offset to the end of the file, then close.
    Plain(PlainRequest),
    /// The extended form, answered with its id; the connection stays open.
    Extended(ExtendedRequest),
}

/// A request of the extended form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExtendedRequest {
    /// One range.
    Range(RangeRequest),
    /// Many small files of one directory.
    Bundle(BundleRequest),
}

impl Request {
    /// Decodes what followed `header` on the connection. `header_bytes` are the raw bytes of it.
    ///
    /// # Errors
    /// A wrong checksum, or a range out of bounds. An unlawful path is not an error here: it has a
    /// reply of its own.
    pub fn decode(
        header_bytes: &[u8; REQUEST_HEADER_BYTES],
        header: RequestHeader,
        rest: &[u8],
    ) -> Result<Self, WireError> {
        let mut reader = Reader::new(rest);
        let path = reader.bytes(header.path_bytes)?;
        if !header.is_extended() {
            reader.finish()?;
            let want_crc = header.flags & FLAG_WANT_CRC != 0;
            return Ok(Self::Plain(PlainRequest { path: path.into(), offset: header.offset, want_crc }));
        }
        let list = reader.bytes(header.list_bytes())?;
        let len = reader.u64()?;
        let id = reader.u32()?;
        let sum = reader.u32()?;
        reader.finish()?;
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(header_bytes);
        hasher.update(&rest[..rest.len() - 4]);
        if hasher.finalize() != sum {
            return Err(WireError::Checksum("request"));
        }
        if id == ID_UNREADABLE {
            return Err(WireError::Value { field: "id", value: id.into() });
        }
        if !header.is_bundle() {
            return RangeRequest::from_fields(id, path, header, len).map(ExtendedRequest::Range).map(Self::Extended);
        }
        let accept = match header.flags & !FLAG_RANGE & !FLAG_BUNDLE {
            0 => BundleForm::Pieces,
            FLAG_ACCEPT_ZSTD => BundleForm::PiecesOrZstd,
            _ => return Err(WireError::Value { field: "flags", value: header.flags.into() }),
        };
        BundleRequest::decode(id, path, accept, list, len).map(ExtendedRequest::Bundle).map(Self::Extended)
    }
}

impl BundleRequest {
    /// Appends the bytes on the wire to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let flags = FLAG_RANGE
            | FLAG_BUNDLE
            | match self.accept {
                BundleForm::Pieces => 0,
                BundleForm::PiecesOrZstd => FLAG_ACCEPT_ZSTD,
            };
        let list = self.encode_list();
        put_request_header(out, &self.dir, flags, list.len() as u64);
        out.extend_from_slice(&list);
        put_request_end(out, start, self.files.len() as u64, self.id);
    }
}

/// A plain FTQ1 request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainRequest {
    /// The path as sent. A lawful one comes from [`PlainRequest::rel_path`].
    pub path: Box<[u8]>,
    /// The first byte wanted.
    pub offset: u64,
    /// Whether the reply shall carry the whole file's CRC-32.
    pub want_crc: bool,
}

impl PlainRequest {
    /// The path within the tree; a leading `/` is dropped.
    ///
    /// # Errors
    /// The rule that the path breaks.
    pub fn rel_path(&self) -> Result<RelPath, PathError> {
        RelPath::new(self.path.strip_prefix(b"/").unwrap_or(&self.path))
    }

    /// The bytes on the wire.
    ///
    /// # Errors
    /// A path that is empty or longer than [`REQUEST_PATH_BYTES_MAX`].
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        within("path_len", self.path.len(), REQUEST_PATH_BYTES_MAX)?;
        if self.path.is_empty() {
            return Err(WireError::Value { field: "path_len", value: 0 });
        }
        let mut out = Vec::with_capacity(REQUEST_HEADER_BYTES + self.path.len());
        let flags = if self.want_crc { FLAG_WANT_CRC } else { 0 };
        put_request_header(&mut out, &self.path, flags, self.offset);
        Ok(out)
    }
}

/// What an extended request asks of its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// The bytes, as they are.
    Bytes,
    /// The bytes, compressed where that makes them fewer.
    BytesOrZstd,
    /// Only their CRC-32, with the file's size and time as they are now.
    Confirm,
    /// The same, by reading the bytes again: what is remembered of them may be wrong, and is forgotten.
    ConfirmAnew,
    /// The list of content-defined chunks that they are made of ([`crate::signature`]).
    Signature(Level),
    /// Only their BLAKE3.
    Hash,
}

impl Ask {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Bytes,
        Self::BytesOrZstd,
        Self::Confirm,
        Self::ConfirmAnew,
        Self::Signature(Level::Coarse),
        Self::Signature(Level::Fine),
        Self::Hash,
    ];

    /// Whether only the CRC-32 is asked for.
    pub fn is_confirmation(self) -> bool {
        matches!(self, Self::Confirm | Self::ConfirmAnew)
    }

    /// The flags that stand for it, beside [`FLAG_RANGE`].
    fn flags(self) -> u16 {
        match self {
            Self::Bytes => 0,
            Self::BytesOrZstd => FLAG_ACCEPT_ZSTD,
            Self::Confirm => FLAG_CONFIRM,
            Self::ConfirmAnew => FLAG_CONFIRM | FLAG_ANEW,
            Self::Signature(Level::Coarse) => FLAG_SIGNATURE,
            Self::Signature(Level::Fine) => FLAG_SIGNATURE | FLAG_FINE,
            Self::Hash => FLAG_HASH,
        }
    }

    /// The longest range that may be asked for.
    fn range_bytes_max(self) -> u64 {
        match self {
            Self::Bytes | Self::BytesOrZstd => RANGE_BYTES_MAX,
            Self::Confirm | Self::ConfirmAnew => u64::MAX,
            Self::Signature(Level::Coarse) => SIGNATURE_BYTES_MAX,
            Self::Signature(Level::Fine) => FINE_SIGNATURE_BYTES_MAX,
            Self::Hash => HASH_BYTES_MAX,
        }
    }
}

/// An extended request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeRequest {
    /// Chosen by the receiver; the reply repeats it.
    pub id: u32,
    /// The file, as sent.
    pub path: Box<[u8]>,
    /// The span wanted.
    pub range: ByteRange,
    /// What is wanted of it.
    pub ask: Ask,
}

impl RangeRequest {
    fn from_fields(id: u32, path: &[u8], header: RequestHeader, len: u64) -> Result<Self, WireError> {
        let ask = Ask::ALL.into_iter().find(|ask| ask.flags() | FLAG_RANGE == header.flags);
        let ask = ask.ok_or(WireError::Value { field: "flags", value: header.flags.into() })?;
        let max = ask.range_bytes_max();
        if len > max {
            return Err(WireError::TooLong { field: "length", value: len, max });
        }
        let range = ByteRange::new(header.offset, len).map_err(|_| WireError::Value { field: "length", value: len })?;
        Ok(Self { id, path: path.into(), range, ask })
    }

    /// The path within the tree.
    ///
    /// # Errors
    /// The rule that the path breaks.
    pub fn rel_path(&self) -> Result<RelPath, PathError> {
        RelPath::new(&self.path)
    }

    /// Appends the bytes on the wire to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        put_request_header(out, &self.path, FLAG_RANGE | self.ask.flags(), self.range.start());
        put_request_end(out, start, self.range.len(), self.id);
    }
}

/// Ends the extended request that began at `start` of `out`.
fn put_request_end(out: &mut Vec<u8>, start: usize, length: u64, id: u32) {
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&id.to_be_bytes());
    let sum = crc32fast::hash(&out[start..]);
    out.extend_from_slice(&sum.to_be_bytes());
}

fn put_request_header(out: &mut Vec<u8>, path: &[u8], flags: u16, offset: u64) {
    let length = u16::try_from(path.len()).expect("a request's path is bounded");
    out.extend_from_slice(&REQUEST_MAGIC.to_be_bytes());
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&flags.to_be_bytes());
    out.extend_from_slice(&offset.to_be_bytes());
    out.extend_from_slice(path);
}
