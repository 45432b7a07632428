//! Offers of the last run, kept at the receiver so that an unchanged tree is not offered again.
//!
//! `.fastcp/tree` holds the batches as they came: `FCPTREE1`, then for each `length u32` (big-endian) and
//! payload. A batch is known to the sender by a hash that is taken anew when the file is read, so a
//! damaged one is merely unknown, and a torn end is dropped. Nothing is lost with the file but bytes on
//! the wire: it saves the offer, never this side's own look at the destination. Whatever goes wrong with
//! it is logged and otherwise ignored.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};

use fastcp_model::Name;
use fastcp_sys::Dir;
use fastcp_wire::known::BatchId;
use fastcp_wire::limits::{FRAME_PAYLOAD_BYTES_MAX, KNOWN_BATCHES_MAX};

use crate::destination::Destination;

const MAGIC: &[u8; 8] = b"FCPTREE1";
const CACHE_NAME: &[u8] = b"tree";
const NEW_NAME: &[u8] = b"tree.new";
/// Offers shorter than this are not worth a file.
const KEPT_BYTES_MIN: u64 = 16 << 10;

/// The batches of the last offer, and those of the one that is coming in.
pub(crate) struct TreeCache<'a> {
    destination: &'a Destination,
    old: HashMap<BatchId, Place>,
    file: Option<File>,
    /// The batches of this offer so far that came from the cache.
    recalled: Vec<BatchId>,
    /// Those that were sent, until there is enough to be worth a file.
    pending: Vec<Vec<u8>>,
    new: Option<BufWriter<File>>,
    /// Of all batches of this offer.
    bytes: u64,
}

/// Where a payload lies in the file.
#[derive(Clone, Copy)]
struct Place {
    offset: u64,
    bytes: u32,
}

impl<'a> TreeCache<'a> {
    /// Reads what the last run kept, if anything.
    pub(crate) fn open(destination: &'a Destination) -> Self {
        let mut cache = Self {
            destination,
            old: HashMap::new(),
            file: None,
            recalled: Vec::new(),
            pending: Vec::new(),
            new: None,
            bytes: 0,
        };
        let file = destination.state_dir_if_there().and_then(|dir| dir.open_own_file(&name(CACHE_NAME)));
        match file.and_then(|file| Ok((read_places(&file)?, file))) {
            Ok((old, file)) => (cache.old, cache.file) = (old, Some(file)),
            Err(error) => tracing::debug!(%error, "no offer was kept"),
        }
        cache
    }

    /// The batches that the sender need not send.
    pub(crate) fn known(&self) -> Vec<BatchId> {
        self.old.keys().copied().collect()
    }

    /// The payload of a batch that the sender says is the same; `None` where it is not to be had.
    pub(crate) fn recall(&mut self, id: BatchId) -> Option<Vec<u8>> {
        let payload = self.read(id)?;
        match &self.new {
            Some(_) => self.write(&payload),
            None => self.recalled.push(id),
        }
        self.grown(payload.len());
        Some(payload)
    }

    /// Takes note of a batch that was sent.
    pub(crate) fn sent(&mut self, payload: &[u8]) {
        match &self.new {
            Some(_) => self.write(payload),
            None => self.pending.push(payload.to_vec()),
        }
        self.grown(payload.len());
    }

    /// The offer is complete: the next run finds it. Where every batch was known, the file is right as it is
    /// but for batches that are no more.
    pub(crate) fn finish(mut self) {
        let Some(new) = self.new.take() else { return };
        let result = self.destination.state_dir_if_there().and_then(|dir| {
            new.into_inner().map_err(io::IntoInnerError::into_error)?;
            dir.rename(&name(NEW_NAME), &dir, &name(CACHE_NAME))
        });
        if let Err(error) = result {
            tracing::debug!(%error, "the offer is not kept");
        }
    }

    /// Begins a file as soon as there is something new and enough of it all.
    fn grown(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        if self.pending.is_empty() || self.bytes < KEPT_BYTES_MIN {
            return;
        }
        match self.begin() {
            Ok(new) => self.new = Some(new),
            Err(error) => tracing::debug!(%error, "the offer is not kept"),
        }
        self.pending.clear();
    }

    fn read(&self, id: BatchId) -> Option<Vec<u8>> {
        let place = self.old.get(&id)?;
        let mut payload = vec![0; place.bytes as usize];
        let got = fastcp_sys::file::read_at(self.file.as_ref()?, &mut payload, place.offset).ok()?;
        // The file may have changed since it was read.
        (got == payload.len() && BatchId::of(&payload) == id).then_some(payload)
    }

    /// Begins a new file with what came so far.
    fn begin(&self) -> io::Result<BufWriter<File>> {
        let dir = self.destination.state_dir()?;
        remove_if_there(&dir, NEW_NAME)?;
        let mut new = BufWriter::new(dir.create_file(&name(NEW_NAME))?);
        new.write_all(MAGIC)?;
        for payload in self.recalled.iter().filter_map(|id| self.read(*id)) {
            put_record(&mut new, &payload)?;
        }
        self.pending.iter().try_for_each(|payload| put_record(&mut new, payload))?;
        Ok(new)
    }

    fn write(&mut self, payload: &[u8]) {
        if let Some(new) = &mut self.new
            && let Err(error) = put_record(new, payload)
        {
            tracing::debug!(%error, "the offer is not kept");
            self.new = None;
        }
    }
}

fn put_record(to: &mut impl Write, payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
    to.write_all(&length.to_be_bytes())?;
    to.write_all(payload)
}

fn read_places(file: &File) -> io::Result<HashMap<BatchId, Place>> {
    let mut places = HashMap::new();
    let mut reader = BufReader::new(file);
    let mut magic = [0; MAGIC.len()];
    reader.read_exact(&mut magic)?;
    if magic != *MAGIC {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    let mut offset = MAGIC.len() as u64;
    let mut payload = Vec::new();
    while places.len() < KNOWN_BATCHES_MAX {
        let mut length = [0; 4];
        if reader.read_exact(&mut length).is_err() {
            break;
        }
        let bytes = u32::from_be_bytes(length);
        if bytes as usize > FRAME_PAYLOAD_BYTES_MAX {
            break;
        }
        payload.resize(bytes as usize, 0);
        if reader.read_exact(&mut payload).is_err() {
            break;
        }
        places.insert(BatchId::of(&payload), Place { offset: offset + 4, bytes });
        offset += 4 + u64::from(bytes);
    }
    Ok(places)
}

fn remove_if_there(dir: &Dir, bytes: &[u8]) -> io::Result<()> {
    match dir.remove_file(&name(bytes)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn name(bytes: &[u8]) -> Name {
    Name::new(bytes).expect("our own names are lawful")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use fastcp_wire::known::BatchId;

    use super::{Destination, KEPT_BYTES_MIN, TreeCache};

    /// Offers batches of one byte repeated; answers how many were sent.
    fn offer(destination: &Destination, batches: &[u8]) -> usize {
        let mut cache = TreeCache::open(destination);
        let known = cache.known();
        let mut sent = 0;
        for &byte in batches {
            let payload = vec![byte; KEPT_BYTES_MIN as usize];
            let id = BatchId::of(&payload);
            if known.contains(&id) {
                assert_eq!(cache.recall(id), Some(payload));
            } else {
                cache.sent(&payload);
                sent += 1;
            }
        }
        cache.finish();
        sent
    }

    #[test]
    fn what_was_offered_is_known_the_next_time() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let destination = Destination::open(dir.path()).expect("open");
        assert_eq!(offer(&destination, b"abc"), 3);
        assert_eq!(offer(&destination, b"abc"), 0);
        assert_eq!(offer(&destination, b"abcd"), 1);
        assert_eq!(offer(&destination, b"xbcd"), 1);
        assert_eq!(offer(&destination, b"xbcd"), 0);
        assert_eq!(offer(&destination, b"a"), 1, "what was not offered the last time is not kept");
        assert_eq!(fs::read_dir(dir.path().join(".fastcp")).expect("read").count(), 1);
    }

    #[test]
    fn a_damaged_or_torn_file_costs_what_was_damaged() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let destination = Destination::open(dir.path()).expect("open");
        let path = dir.path().join(".fastcp/tree");
        assert_eq!(offer(&destination, b"abc"), 3);
        let whole = fs::read(&path).expect("read");
        let mut flipped = whole.clone();
        flipped[8 + 4 + 1000] ^= 1;
        for (bytes, sent) in
            [(&flipped[..], 1), (&whole[..whole.len() - 1], 1), (&whole[..20], 3), (b"other", 3), (b"", 3)]
        {
            fs::write(&path, bytes).expect("write");
            assert_eq!(offer(&destination, b"abc"), sent);
        }
    }

    #[test]
    fn a_small_offer_leaves_nothing() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let destination = Destination::open(dir.path()).expect("open");
        let mut cache = TreeCache::open(&destination);
        cache.sent(b"small");
        cache.finish();
        assert!(!dir.path().join(".fastcp").exists());
    }
}
