//! Many small files of one directory, asked for in one request.
//!
//! The request is an extended one with the flag BUNDLE: its path is the directory, its offset says how
//! long the list of names is that follows the path, its length how many names there are. It is answered
//! like as many single requests, with ascending ids. Where the receiver accepts zstd the pieces may come
//! compressed as one, inside a piece of kind *bundle*: what small files have in common is then sent once.

use fastcp_model::{RelPath, Status};

use crate::WireError;
use crate::limits::{BUNDLE_BYTES_MAX, BUNDLE_FILES_MAX, BUNDLE_LIST_BYTES_MAX};
use crate::reader::{Reader, put_short_bytes, within};
use crate::reply::{BodyKind, PIECE_HEADER_BYTES, PieceHeader, Reply, TRAILER_BYTES};
use crate::request::ID_UNREADABLE;

/// The longest bundle once decompressed, in bytes: its files, and a header and a trailer for each.
pub const BUNDLE_PIECES_BYTES_MAX: u64 =
    BUNDLE_BYTES_MAX + (BUNDLE_FILES_MAX * (PIECE_HEADER_BYTES + TRAILER_BYTES)) as u64;

/// A request for whole files of one directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleRequest {
    /// The id of the first file's piece; the others follow by [`id_after`].
    pub id: u32,
    /// The directory, as sent; empty for the root.
    pub dir: Box<[u8]>,
    /// Whether the pieces may come compressed as one.
    pub accept: BundleForm,
    /// The files, in the order of their pieces.
    pub files: Vec<BundledFile>,
}

/// How the pieces of a bundle may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BundleForm {
    /// One by one.
    Pieces,
    /// One by one, or compressed as one.
    PiecesOrZstd,
}

/// One file of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundledFile {
    /// Its name in the directory, as sent. It may be unlawful: that has a reply of its own.
    pub name: Box<[u8]>,
    /// How many of its bytes are wanted, from its beginning.
    pub len: u64,
}

impl BundleRequest {
    /// The directory within the tree.
    ///
    /// # Errors
    /// The rule that the path breaks.
    pub fn rel_path(&self) -> Result<RelPath, fastcp_model::PathError> {
        if self.dir.is_empty() { Ok(RelPath::root()) } else { RelPath::new(&self.dir) }
    }

    /// The bytes of all files together.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.len).sum()
    }

    /// How many bytes a file of this name adds to the list.
    pub fn listed_bytes(name: &[u8]) -> usize {
        2 + name.len() + 8
    }

    /// The list of names on the wire.
    pub(crate) fn encode_list(&self) -> Vec<u8> {
        let mut list = Vec::with_capacity(self.files.iter().map(|file| Self::listed_bytes(&file.name)).sum());
        for file in &self.files {
            put_short_bytes(&mut list, &file.name);
            list.extend_from_slice(&file.len.to_be_bytes());
        }
        list
    }

    pub(crate) fn decode(id: u32, dir: &[u8], accept: BundleForm, list: &[u8], count: u64) -> Result<Self, WireError> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        within("length", count, BUNDLE_FILES_MAX)?;
        within("offset", list.len(), BUNDLE_LIST_BYTES_MAX)?;
        if count == 0 {
            return Err(WireError::Value { field: "length", value: 0 });
        }
        let mut reader = Reader::new(list);
        let mut files = Vec::with_capacity(count);
        let mut bytes: u64 = 0;
        for _ in 0..count {
            let name = reader.short_bytes("name_len", fastcp_model::NAME_BYTES_MAX)?.into();
            let len = reader.u64()?;
            bytes = bytes.saturating_add(len);
            files.push(BundledFile { name, len });
        }
        reader.finish()?;
        if bytes > BUNDLE_BYTES_MAX {
            return Err(WireError::TooLong { field: "length", value: bytes, max: BUNDLE_BYTES_MAX });
        }
        Ok(Self { id, dir: dir.into(), accept, files })
    }
}

/// The id after this one.
pub fn id_after(id: u32) -> u32 {
    id.wrapping_add(1) % ID_UNREADABLE
}

/// What a piece of kind *bundle* holds, by its header. In it `file_size` is the length of the pieces
/// once decompressed and `mtime_ns` their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bundled {
    /// How many pieces.
    pub pieces: usize,
    /// Their length in bytes, decompressed.
    pub bytes: usize,
}

impl Bundled {
    /// The header of a bundle whose first piece has this id.
    pub fn header(self, id: u32, body_bytes: u32) -> PieceHeader {
        let reply = Reply { file_bytes: self.bytes as u64, mtime_ns: self.pieces as u64, ..Reply::ok() };
        PieceHeader { reply, id, kind: BodyKind::Bundle, body_bytes }
    }

    /// Reads the header of a bundle.
    ///
    /// # Errors
    /// More pieces than a request may have names, more bytes than those may have, a body that is no shorter,
    /// or a failure, which has no body.
    pub fn of(header: &PieceHeader) -> Result<Self, WireError> {
        let too_long = |field, value, max| WireError::TooLong { field, value, max };
        let (bytes, pieces) = (header.reply.file_bytes, header.reply.mtime_ns);
        if pieces == 0 || pieces > BUNDLE_FILES_MAX as u64 {
            return Err(too_long("mtime_ns", pieces, BUNDLE_FILES_MAX as u64));
        }
        if bytes > BUNDLE_PIECES_BYTES_MAX {
            return Err(too_long("file_size", bytes, BUNDLE_PIECES_BYTES_MAX));
        }
        if u64::from(header.body_bytes) >= bytes {
            return Err(WireError::Value { field: "body_len", value: header.body_bytes.into() });
        }
        if header.reply.status != Status::Ok {
            return Err(WireError::Value { field: "status", value: header.reply.status.code().into() });
        }
        Ok(Self { pieces: pieces as usize, bytes: bytes as usize })
    }
}
