//! The sender's tree as batches of listings.
//!
//! A batch is bounded before it is decompressed, while it is decompressed and in its entry count.
//! A listing's unit is one directory, or a part of one: only [`ListingEnd::Complete`] closes it.

use fastcp_model::{
    Entry, EntryFailure, EntryKind, Listing, ListingEnd, Metadata, NAME_BYTES_MAX, Name, PATH_BYTES_MAX, RelPath,
    SpecialKind, Status, Timestamp,
};

use crate::WireError;
use crate::limits::{
    BATCH_BYTES_MAX, BATCH_ENTRIES_MAX, FRAME_PAYLOAD_BYTES_MAX, LINK_TARGET_BYTES_MAX, OWNER_NAME_BYTES_MAX,
};
use crate::reader::{Reader, put_short_bytes, within};

/// Whether an owner is a user or a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum OwnerClass {
    /// A user id.
    User = 0,
    /// A group id.
    Group = 1,
}

/// The name that a numeric id has at the sender. Sent once, in or before the batch that uses the id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerName {
    /// User or group.
    pub class: OwnerClass,
    /// The numeric id at the sender.
    pub id: u32,
    /// Its name there; 1 to [`OWNER_NAME_BYTES_MAX`] bytes.
    pub name: Box<[u8]>,
}

/// Whether batches are compressed: the agreed COMPRESSED_TREE bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum BatchCodec {
    /// As they are.
    Raw = 0,
    /// One zstd frame.
    Zstd = 1,
}

/// Some listings, and the names of owners they use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OfferBatch {
    /// Owners named for the first time.
    pub owners: Vec<OwnerName>,
    /// Listings, parents before children.
    pub listings: Vec<Listing>,
}

/// Level of the batches: on file names about as small as level 3 and half its time.
const BATCH_ZSTD_LEVEL: i32 = 1;

impl OfferBatch {
    /// The payload of an [`crate::frame::FrameType::OfferBatch`] frame.
    ///
    /// # Errors
    /// A batch that is over one of the limits of its receiver, or has an empty owner name or link target.
    pub fn encode(&self, codec: BatchCodec) -> Result<Vec<u8>, WireError> {
        let entries: usize = self.listings.iter().map(|listing| listing.entries.len() + listing.failures.len()).sum();
        within("entry_count", entries, BATCH_ENTRIES_MAX)?;
        within("owner_count", self.owners.len(), BATCH_ENTRIES_MAX)?;
        within("listing_count", self.listings.len(), BATCH_ENTRIES_MAX)?;
        let mut raw = Vec::with_capacity(64 * entries + 64);
        put_count(&mut raw, self.owners.len());
        for owner in &self.owners {
            put_owner(&mut raw, owner)?;
        }
        put_count(&mut raw, self.listings.len());
        for listing in &self.listings {
            put_listing(&mut raw, listing)?;
        }
        within("raw_len", raw.len(), BATCH_BYTES_MAX)?;
        let mut out = vec![codec as u8];
        out.extend_from_slice(&(raw.len() as u32).to_be_bytes());
        match codec {
            BatchCodec::Raw => out.extend_from_slice(&raw),
            BatchCodec::Zstd => {
                out.extend(zstd::bulk::compress(&raw, BATCH_ZSTD_LEVEL).map_err(|_| WireError::Compression)?);
            }
        }
        within("payload_len", out.len(), FRAME_PAYLOAD_BYTES_MAX)?;
        Ok(out)
    }

    /// Decodes the payload.
    ///
    /// # Errors
    /// Anything over its limit, an unlawful name, or a batch that does not decompress to its length.
    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(payload);
        let codec = reader.u8()?;
        let raw_bytes = reader.u32()? as usize;
        within("raw_len", raw_bytes, BATCH_BYTES_MAX)?;
        let body = reader.rest();
        match codec {
            0 if body.len() < raw_bytes => Err(WireError::Truncated),
            0 if body.len() > raw_bytes => Err(WireError::TrailingBytes(body.len() - raw_bytes)),
            0 => decode_batch(body),
            1 => match zstd::bulk::decompress(body, raw_bytes) {
                Ok(raw) if raw.len() == raw_bytes => decode_batch(&raw),
                _ => Err(WireError::Compression),
            },
            other => Err(WireError::Value { field: "codec", value: other.into() }),
        }
    }
}

/// An upper bound on what a listing's entry adds to a batch, in bytes, beside its name and target.
pub const ENTRY_FIXED_BYTES_MAX: usize = 36;

fn decode_batch(raw: &[u8]) -> Result<OfferBatch, WireError> {
    let mut reader = Reader::new(raw);
    let mut batch = OfferBatch::default();
    for _ in 0..count(&mut reader, "owner_count")? {
        batch.owners.push(owner(&mut reader)?);
    }
    let mut room = BATCH_ENTRIES_MAX;
    for _ in 0..count(&mut reader, "listing_count")? {
        batch.listings.push(listing(&mut reader, &mut room)?);
    }
    reader.finish()?;
    Ok(batch)
}

/// A count is bounded, and what it counts is pushed one by one as it is found to be there: a lying
/// count costs its sender bytes, not its receiver memory.
fn count(reader: &mut Reader<'_>, field: &'static str) -> Result<usize, WireError> {
    let value = reader.u32()? as usize;
    within(field, value, BATCH_ENTRIES_MAX)?;
    Ok(value)
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&(count as u32).to_be_bytes());
}

fn put_owner(out: &mut Vec<u8>, owner: &OwnerName) -> Result<(), WireError> {
    within("owner_name_len", owner.name.len(), OWNER_NAME_BYTES_MAX)?;
    check_text("owner_name", &owner.name)?;
    out.push(owner.class as u8);
    out.extend_from_slice(&owner.id.to_be_bytes());
    put_short_bytes(out, &owner.name);
    Ok(())
}

fn owner(reader: &mut Reader<'_>) -> Result<OwnerName, WireError> {
    let class = match reader.u8()? {
        0 => OwnerClass::User,
        1 => OwnerClass::Group,
        other => return Err(WireError::Value { field: "owner_class", value: other.into() }),
    };
    let id = reader.u32()?;
    let name = reader.short_bytes("owner_name_len", OWNER_NAME_BYTES_MAX)?;
    check_text("owner_name", name)?;
    Ok(OwnerName { class, id, name: name.into() })
}

fn put_listing(out: &mut Vec<u8>, listing: &Listing) -> Result<(), WireError> {
    let (end, cause) = match listing.end {
        ListingEnd::More => (0, Status::Ok),
        ListingEnd::Complete => (1, Status::Ok),
        ListingEnd::Selected => (2, Status::Ok),
        ListingEnd::Broken(cause) => (3, cause),
    };
    out.push(end);
    out.extend_from_slice(&cause.code().to_be_bytes());
    put_short_bytes(out, listing.dir.as_bytes());
    out.push(listing.root.is_some().into());
    if let Some(metadata) = listing.root {
        put_metadata(out, metadata);
    }
    put_count(out, listing.entries.len());
    for entry in &listing.entries {
        put_entry(out, entry)?;
    }
    put_count(out, listing.failures.len());
    for failure in &listing.failures {
        put_name(out, &failure.name);
        out.extend_from_slice(&failure.cause.code().to_be_bytes());
    }
    Ok(())
}

fn listing(reader: &mut Reader<'_>, room: &mut usize) -> Result<Listing, WireError> {
    let end = reader.u8()?;
    let cause = status(reader.u16()?)?;
    let end = match end {
        0 => ListingEnd::More,
        1 => ListingEnd::Complete,
        2 => ListingEnd::Selected,
        3 => ListingEnd::Broken(cause),
        other => return Err(WireError::Value { field: "end", value: other.into() }),
    };
    let dir = RelPath::new(reader.short_bytes("path_len", PATH_BYTES_MAX)?)?;
    let root = match reader.u8()? {
        0 => None,
        1 => Some(metadata(reader)?),
        other => return Err(WireError::Value { field: "has_root", value: other.into() }),
    };
    let mut listing = Listing { dir, root, entries: Vec::new(), failures: Vec::new(), end };
    for _ in 0..counted(reader, room)? {
        listing.entries.push(entry(reader)?);
    }
    for _ in 0..counted(reader, room)? {
        let name = name(reader)?;
        listing.failures.push(EntryFailure { name, cause: status(reader.u16()?)? });
    }
    Ok(listing)
}

/// Takes a count out of what the batch has left.
fn counted(reader: &mut Reader<'_>, room: &mut usize) -> Result<usize, WireError> {
    let value = count(reader, "entry_count")?;
    within("entry_count", value, *room)?;
    *room -= value;
    Ok(value)
}

fn put_name(out: &mut Vec<u8>, name: &Name) {
    out.push(name.as_bytes().len() as u8);
    out.extend_from_slice(name.as_bytes());
}

fn name(reader: &mut Reader<'_>) -> Result<Name, WireError> {
    const { assert!(NAME_BYTES_MAX == u8::MAX as usize) };
    let length = reader.u8()?;
    Ok(Name::new(reader.bytes(length.into())?)?)
}

fn put_metadata(out: &mut Vec<u8>, metadata: Metadata) {
    out.extend_from_slice(&metadata.mode.to_be_bytes());
    out.extend_from_slice(&metadata.uid.to_be_bytes());
    out.extend_from_slice(&metadata.gid.to_be_bytes());
    out.extend_from_slice(&metadata.mtime.secs().to_be_bytes());
    out.extend_from_slice(&metadata.mtime.nanos().to_be_bytes());
}

fn metadata(reader: &mut Reader<'_>) -> Result<Metadata, WireError> {
    let mode = reader.u16()?;
    if mode > 0o7777 {
        return Err(WireError::Value { field: "mode", value: mode.into() });
    }
    let (uid, gid) = (reader.u32()?, reader.u32()?);
    let (secs, nanos) = (reader.i64()?, reader.u32()?);
    let mtime = Timestamp::new(secs, nanos).ok_or(WireError::Value { field: "mtime_nanos", value: nanos.into() })?;
    Ok(Metadata { mode, uid, gid, mtime })
}

const KIND_FILE: u8 = 0;
const KIND_SPARSE_FILE: u8 = 1;
const KIND_DIR: u8 = 2;
const KIND_SYMLINK: u8 = 3;
const KIND_FIFO: u8 = 4;
const KIND_SOCKET: u8 = 5;
const KIND_CHAR_DEVICE: u8 = 6;
const KIND_BLOCK_DEVICE: u8 = 7;

fn put_entry(out: &mut Vec<u8>, entry: &Entry) -> Result<(), WireError> {
    out.push(match &entry.kind {
        EntryKind::File { sparse: false, .. } => KIND_FILE,
        EntryKind::File { sparse: true, .. } => KIND_SPARSE_FILE,
        EntryKind::Dir => KIND_DIR,
        EntryKind::Symlink { .. } => KIND_SYMLINK,
        EntryKind::Special(SpecialKind::Fifo) => KIND_FIFO,
        EntryKind::Special(SpecialKind::Socket) => KIND_SOCKET,
        EntryKind::Special(SpecialKind::CharDevice) => KIND_CHAR_DEVICE,
        EntryKind::Special(SpecialKind::BlockDevice) => KIND_BLOCK_DEVICE,
    });
    put_name(out, &entry.name);
    put_metadata(out, entry.metadata);
    match &entry.kind {
        EntryKind::File { size_bytes, .. } => out.extend_from_slice(&size_bytes.to_be_bytes()),
        EntryKind::Symlink { target } => {
            within("target_len", target.len(), LINK_TARGET_BYTES_MAX)?;
            check_text("target", target)?;
            put_short_bytes(out, target);
        }
        EntryKind::Dir | EntryKind::Special(_) => {}
    }
    Ok(())
}

fn entry(reader: &mut Reader<'_>) -> Result<Entry, WireError> {
    let kind = reader.u8()?;
    let name = name(reader)?;
    let metadata = metadata(reader)?;
    let kind = match kind {
        KIND_FILE => EntryKind::File { size_bytes: file_size(reader)?, sparse: false },
        KIND_SPARSE_FILE => EntryKind::File { size_bytes: file_size(reader)?, sparse: true },
        KIND_DIR => EntryKind::Dir,
        KIND_SYMLINK => EntryKind::Symlink { target: link_target(reader)? },
        KIND_FIFO => EntryKind::Special(SpecialKind::Fifo),
        KIND_SOCKET => EntryKind::Special(SpecialKind::Socket),
        KIND_CHAR_DEVICE => EntryKind::Special(SpecialKind::CharDevice),
        KIND_BLOCK_DEVICE => EntryKind::Special(SpecialKind::BlockDevice),
        other => return Err(WireError::Value { field: "entry_kind", value: other.into() }),
    };
    Ok(Entry { name, kind, metadata })
}

fn file_size(reader: &mut Reader<'_>) -> Result<u64, WireError> {
    let size = reader.u64()?;
    if i64::try_from(size).is_ok() { Ok(size) } else { Err(WireError::Value { field: "file_size", value: size }) }
}

fn link_target(reader: &mut Reader<'_>) -> Result<Box<[u8]>, WireError> {
    let target = reader.short_bytes("target_len", LINK_TARGET_BYTES_MAX)?;
    check_text("target", target)?;
    Ok(target.into())
}

/// Names of owners and targets of links are any bytes but NUL, and never empty.
fn check_text(field: &'static str, bytes: &[u8]) -> Result<(), WireError> {
    if bytes.is_empty() || bytes.contains(&0) { Err(WireError::Value { field, value: 0 }) } else { Ok(()) }
}

fn status(code: u16) -> Result<Status, WireError> {
    Status::from_code(code).ok_or(WireError::Value { field: "status", value: code.into() })
}
