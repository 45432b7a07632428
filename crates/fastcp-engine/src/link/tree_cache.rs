//! Offers of the last run, kept at the receiver so that an unchanged tree is not offered again.
//!
//! `.fastcp/tree` holds the batches as they came: `FCPTREE1`, then for each `length u32` (big-endian) and
//! payload. A batch is known to the sender by a hash that is taken anew when the file is read, so a
//! damaged one is merely unknown, and a torn end is dropped. Nothing is lost with the file but bytes on
//! the wire: it saves the offer, never this side's own look at the destination. Whatever goes wrong with
//! it is logged and otherwise ignored.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::Range;

use fastcp_model::Name;
use fastcp_sys::FileBytes;
use fastcp_wire::known::BatchId;
use fastcp_wire::limits::{FRAME_PAYLOAD_BYTES_MAX, KNOWN_BATCHES_MAX};

use crate::target::destination::Destination;

const MAGIC: &[u8; 8] = b"FCPTREE1";
const CACHE_NAME: &[u8] = b"tree";
const NEW_NAME: &[u8] = b"tree.new";
/// Offers shorter than this are not worth a file.
const KEPT_BYTES_MIN: u64 = 16 << 10;

/// What is read of a file at most: far more than any tree needs.
const READ_BYTES_MAX: u64 = 1 << 30;

/// The batches of the last offer, and those of the one that is coming in.
pub(crate) struct TreeCache<'a> {
    old: Option<OldOffer>,
    new: Next<'a>,
}

/// The batches of the last offer.
struct OldOffer {
    bytes: FileBytes,
    places: HashMap<BatchId, Range<u64>>,
}

/// What will be kept of this offer.
struct Next<'a> {
    destination: &'a Destination,
    /// The batches so far that came from the cache.
    recalled: Vec<BatchId>,
    /// Those that were sent, until there is enough to be worth a file.
    pending: Vec<Vec<u8>>,
    file: Option<BufWriter<File>>,
    /// Of all batches of this offer.
    bytes: u64,
}

impl<'a> TreeCache<'a> {
    /// Looks through what the last run kept, if anything.
    pub(crate) fn open(destination: &'a Destination) -> Self {
        let file = destination.state_dir_if_there().and_then(|dir| dir.open_own_file(&name(CACHE_NAME)));
        let old = match file.and_then(|file| FileBytes::of(file, READ_BYTES_MAX)) {
            Ok(bytes) => Some(OldOffer::new(bytes)),
            Err(error) => {
                tracing::debug!(%error, "there is no cached offer");
                None
            }
        };
        let new = Next { destination, recalled: Vec::new(), pending: Vec::new(), file: None, bytes: 0 };
        Self { old, new }
    }

    /// The batches that the sender need not send.
    pub(crate) fn known(&self) -> Vec<BatchId> {
        self.old.iter().flat_map(|old| old.places.keys().copied()).collect()
    }

    /// The payload of a batch that the sender says is the same; `None` where it is not to be had.
    pub(crate) fn recall(&mut self, id: BatchId) -> Option<&[u8]> {
        let payload = self.old.as_ref()?.get(id)?;
        match &self.new.file {
            Some(_) => self.new.write(payload),
            None => self.new.recalled.push(id),
        }
        self.new.grown(payload.len(), self.old.as_ref());
        Some(payload)
    }

    /// Takes note of a batch that was sent.
    pub(crate) fn sent(&mut self, payload: &[u8]) {
        match &self.new.file {
            Some(_) => self.new.write(payload),
            None => self.new.pending.push(payload.to_vec()),
        }
        self.new.grown(payload.len(), self.old.as_ref());
    }

    /// The offer is complete: the next run finds it. Where every batch was known, the file is right as it is
    /// but for batches that are no more.
    pub(crate) fn finish(self) {
        let Some(file) = self.new.file else { return };
        let result = self.new.destination.state_dir_if_there().and_then(|dir| {
            file.into_inner().map_err(io::IntoInnerError::into_error)?;
            dir.rename(&name(NEW_NAME), &dir, &name(CACHE_NAME))
        });
        if let Err(error) = result {
            tracing::debug!(%error, "the offer is not cached");
        }
    }
}

impl OldOffer {
    /// Finds the batches in a file, up to the first that is torn.
    fn new(bytes: FileBytes) -> Self {
        let mut places = HashMap::new();
        let mut at = MAGIC.len() as u64;
        if bytes.get(0..at) == Some(MAGIC) {
            while let Some(place) = place_at(&bytes, at).filter(|_| places.len() < KNOWN_BATCHES_MAX) {
                let Some(payload) = bytes.get(place.clone()) else { break };
                at = place.end;
                places.insert(BatchId::of(payload), place);
            }
        }
        Self { bytes, places }
    }

    fn get(&self, id: BatchId) -> Option<&[u8]> {
        let payload = self.bytes.get(self.places.get(&id)?.clone())?;
        // The file may have changed since it was read.
        (BatchId::of(payload) == id).then_some(payload)
    }
}

impl Next<'_> {
    /// Begins a file as soon as there is something new and enough of it all.
    fn grown(&mut self, bytes: usize, old: Option<&OldOffer>) {
        self.bytes += bytes as u64;
        if self.pending.is_empty() || self.bytes < KEPT_BYTES_MIN {
            return;
        }
        match self.begin(old) {
            Ok(file) => self.file = Some(file),
            Err(error) => tracing::debug!(%error, "the offer is not cached"),
        }
        self.pending.clear();
    }

    /// Begins a file with what came so far.
    fn begin(&self, old: Option<&OldOffer>) -> io::Result<BufWriter<File>> {
        let dir = self.destination.state_dir()?;
        dir.remove_if_there(&name(NEW_NAME))?;
        let mut file = BufWriter::new(dir.create_file(&name(NEW_NAME))?);
        file.write_all(MAGIC)?;
        for payload in self.recalled.iter().filter_map(|id| old?.get(*id)) {
            put_record(&mut file, payload)?;
        }
        self.pending.iter().try_for_each(|payload| put_record(&mut file, payload))?;
        Ok(file)
    }

    fn write(&mut self, payload: &[u8]) {
        if let Some(file) = &mut self.file
            && let Err(error) = put_record(file, payload)
        {
            tracing::debug!(%error, "the offer is not cached");
            self.file = None;
        }
    }
}

fn put_record(to: &mut impl Write, payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
    to.write_all(&length.to_be_bytes())?;
    to.write_all(payload)
}

/// Where the payload of the record at this offset lies, if one does.
fn place_at(bytes: &FileBytes, at: u64) -> Option<Range<u64>> {
    let start = at + 4;
    let length = u32::from_be_bytes(bytes.get(at..start)?.try_into().ok()?);
    (length as usize <= FRAME_PAYLOAD_BYTES_MAX).then(|| start..start + u64::from(length))
}

fn name(bytes: &[u8]) -> Name {
    Name::new(bytes).expect("our own names are lawful")
}

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
#[cfg(test)]
mod tests {
    use std::fs;

    use fastcp_wire::known::BatchId;

    use super::{Destination, KEPT_BYTES_MIN, TreeCache};
    use crate::target::destination_path::DestinationPath;

    /// Offers batches of one byte repeated; answers how many were sent.
    fn offer(destination: &Destination, batches: &[u8]) -> usize {
        let mut cache = TreeCache::open(destination);
        let known = cache.known();
        let mut sent = 0;
        for &byte in batches {
            let payload = vec![byte; KEPT_BYTES_MIN as usize];
            let id = BatchId::of(&payload);
            if known.contains(&id) {
                assert_eq!(cache.recall(id), Some(&payload[..]));
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
        let destination = Destination::open(&DestinationPath::Typed(dir.path().into())).expect("open");
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
        let destination = Destination::open(&DestinationPath::Typed(dir.path().into())).expect("open");
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
        let destination = Destination::open(&DestinationPath::Typed(dir.path().into())).expect("open");
        let mut cache = TreeCache::open(&destination);
        cache.sent(b"small");
        cache.finish();
        assert!(!dir.path().join(".fastcp").exists());
    }
}
