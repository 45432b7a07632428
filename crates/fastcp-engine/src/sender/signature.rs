//! The sender's signatures: which chunks a range of a file is made of.
//!
//! Coarse lists are worth remembering: each takes up to 256 MiB of reading, and clients that sync the same
//! change ask for the same. They are bound to the exact state of the file, as the CRCs in `served.rs` are and
//! for the same reasons. CRCs are taken and remembered there by the way: whoever asks for a list will have the
//! file confirmed, and it need not be read once more for that. Fine lists are cheap to make and never asked for
//! twice by one client.

use std::collections::{HashMap, HashSet, VecDeque};
use std::slice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastcp_model::{ByteRange, Status};
use fastcp_sys::Identity;
use fastcp_wire::signature::{Level, SignedChunk, encode_signature};

use crate::content::crc_runs::CONFIRM_BYTES;
use crate::content::cutter::{CutError, CutFile, Cutter, fine_chunks};
use crate::lock::{Guard, Lock, News};
use crate::sender::served::{ServedCrcs, changed_recently};
use crate::sender::source::{OpenFile, status_of};

/// The most coarse lists remembered.
const LISTS_MAX: usize = 512;
/// The most bytes of them, together.
const LIST_BYTES_MAX: usize = 4 << 20;

/// A list that somebody else makes is waited for so long. A receiver hears nothing meanwhile, and gives up in the end.
const AWAITED_MAX: Duration = Duration::from_secs(2);

/// Makes lists, and remembers the coarse ones. One for all connections.
#[derive(Debug, Default)]
pub(crate) struct Signatures {
    cutter: Cutter,
    remembered: Lock<Remembered>,
    /// A list was made, or was not.
    made: News,
}

/// The right to make a list; given back when dropped.
#[derive(Debug)]
struct Making<'a> {
    signatures: &'a Signatures,
    /// `None` where somebody else is making it, too.
    key: Option<Key>,
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        let mut remembered = self.signatures.lock();
        if let Some(key) = &self.key {
            remembered.being_made.remove(key);
        }
        self.signatures.made.tell_all();
    }
}

/// The coarse list of one range of a file in one state.
type Key = (Identity, ByteRange);

#[derive(Debug, Default)]
struct Remembered {
    lists: HashMap<Key, Arc<[u8]>>,
    oldest_first: VecDeque<Key>,
    bytes: usize,
    being_made: HashSet<Key>,
    /// How many were answered from here.
    recalled: u64,
}

impl Signatures {
    /// The list for a range that lies within the file, as it goes on the wire. `buffer` is lent for reading,
    /// `on_read` is told of the bytes read.
    pub(crate) fn list(
        &self,
        served: &ServedCrcs,
        open: &OpenFile,
        level: Level,
        range: ByteRange,
        buffer: &mut Vec<u8>,
        on_read: &(dyn Fn(u64) + Sync),
    ) -> Result<Arc<[u8]>, Status> {
        let file = CutFile::new(&open.file, &open.stat).telling(on_read);
        let list = match level {
            Level::Coarse => self.coarse(served, open, &file, range),
            Level::Fine => fine(&file, range, buffer),
        };
        list.map_err(|error| match error {
            CutError::Ended => Status::Changed,
            CutError::Io(error) => status_of(&error),
        })
    }

    fn coarse(
        &self,
        served: &ServedCrcs,
        open: &OpenFile,
        file: &CutFile<'_>,
        range: ByteRange,
    ) -> Result<Arc<[u8]>, CutError> {
        let key = (open.stat.identity, range);
        let is_shared = !changed_recently(&key.0);
        let _making = match is_shared {
            true => match self.recall_or_make(key) {
                Ok(list) => return Ok(list),
                Err(making) => Some(making),
            },
            false => None,
        };
        let chunks = self.cutter.coarse(file, range)?;
        let summed = self.cutter.map(&chunks, |slice, chunk| summed(file, *chunk, slice))?;
        let mut list = Vec::new();
        summed.iter().for_each(|(signed, _)| encode_signature(slice::from_ref(signed), &mut list));
        let list: Arc<[u8]> = list.into();
        if open.is_unchanged() && is_shared {
            summed.iter().flat_map(|(_, crcs)| crcs).for_each(|(part, crc)| served.remember(key.0, *part, *crc));
            self.lock().remember(key, Arc::clone(&list));
        }
        Ok(list)
    }

    /// A list that is remembered, or that somebody else is making; or the right to make it.
    fn recall_or_make(&self, key: Key) -> Result<Arc<[u8]>, Making<'_>> {
        let until = Instant::now() + AWAITED_MAX;
        let mut remembered = self.lock();
        loop {
            if let Some(list) = remembered.recall(&key) {
                return Ok(list);
            }
            if remembered.being_made.insert(key) {
                return Err(Making { signatures: self, key: Some(key) });
            }
            if Instant::now() >= until {
                return Err(Making { signatures: self, key: None });
            }
            // Whoever makes it waits for the disk alone.
            remembered = self.remembered.wait_at_most(&self.made, remembered, Some(until));
        }
    }

    /// What is remembered of a file may be wrong.
    pub(crate) fn forget(&self, identity: Identity) {
        self.lock().forget(identity);
    }

    fn lock(&self) -> Guard<'_, Remembered> {
        self.remembered.lock()
    }
}

impl Remembered {
    fn recall(&mut self, key: &Key) -> Option<Arc<[u8]>> {
        let list = self.lists.get(key)?;
        self.recalled += 1;
        Some(Arc::clone(list))
    }

    fn forget(&mut self, identity: Identity) {
        let (lists, bytes) = (&mut self.lists, &mut self.bytes);
        self.oldest_first.retain(|key| {
            let is_kept = key.0 != identity;
            if !is_kept {
                *bytes -= lists.remove(key).map_or(0, |list| list.len());
            }
            is_kept
        });
    }

    fn remember(&mut self, key: Key, list: Arc<[u8]>) {
        // Of two connections that made the same list the first has remembered it.
        if self.lists.contains_key(&key) || list.len() > LIST_BYTES_MAX {
            return;
        }
        while self.oldest_first.len() >= LISTS_MAX || self.bytes + list.len() > LIST_BYTES_MAX {
            let Some(oldest) = self.oldest_first.pop_front() else { break };
            self.bytes -= self.lists.remove(&oldest).map_or(0, |list| list.len());
        }
        self.bytes += list.len();
        self.oldest_first.push_back(key);
        self.lists.insert(key, list);
    }
}

fn summed(file: &CutFile<'_>, chunk: ByteRange, slice: &mut Vec<u8>) -> Result<Summed, CutError> {
    let mut crcs = SegmentCrcs::from(chunk.start());
    let signed = file.signed(chunk, slice, |bytes| crcs.update(bytes))?;
    crcs.end_part();
    Ok((signed, crcs.parts))
}

/// A chunk, and the CRC-32s of its parts: one, unless a segment of confirmation ends within it.
type Summed = (SignedChunk, Vec<(ByteRange, u32)>);

/// CRC-32s of bytes that follow each other, none across the border of two segments of confirmation.
struct SegmentCrcs {
    start: u64,
    at: u64,
    crc: crc32fast::Hasher,
    parts: Vec<(ByteRange, u32)>,
}

impl SegmentCrcs {
    fn from(start: u64) -> Self {
        Self { start, at: start, crc: crc32fast::Hasher::new(), parts: Vec::new() }
    }

    fn update(&mut self, bytes: &[u8]) {
        let left = CONFIRM_BYTES - self.at % CONFIRM_BYTES;
        let (here, beyond) = bytes.split_at(bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
        self.crc.update(here);
        self.at += here.len() as u64;
        if !beyond.is_empty() {
            self.end_part();
            self.update(beyond);
        }
    }

    fn end_part(&mut self) {
        let crc = std::mem::take(&mut self.crc).finalize();
        self.parts.extend(ByteRange::new(self.start, self.at - self.start).map(|range| (range, crc)));
        self.start = self.at;
    }
}

fn fine(file: &CutFile<'_>, range: ByteRange, buffer: &mut Vec<u8>) -> Result<Arc<[u8]>, CutError> {
    // At most 4 MiB: the request was checked when it was decoded.
    buffer.resize(range.len() as usize, 0);
    file.read(buffer, range.start())?;
    let mut list = Vec::new();
    encode_signature(&fine_chunks(buffer, SignedChunk::of), &mut list);
    Ok(list.into())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;
    use std::sync::Arc;

    use fastcp_model::{ByteRange, Status, Timestamp};
    use fastcp_sys::{Identity, Stat};
    use fastcp_wire::signature::Level;

    use super::{LIST_BYTES_MAX, LISTS_MAX, Remembered, SegmentCrcs, Signatures};
    use crate::content::crc_runs::CONFIRM_BYTES;
    use crate::sender::served::ServedCrcs;
    use crate::sender::source::OpenFile;

    fn range(start: u64, len: u64) -> ByteRange {
        ByteRange::new(start, len).expect("lawful")
    }

    fn file_of(bytes: &[u8]) -> OpenFile {
        let file = tempfile::tempfile().expect("file");
        file.write_all_at(bytes, 0).expect("write");
        open(file)
    }

    fn open(file: File) -> OpenFile {
        let stat = Stat::of_fd(&file).expect("stat");
        OpenFile { file, stat }
    }

    #[test]
    fn a_file_that_changed_just_now_is_read_again() {
        let open = file_of(&[7; 100_000]);
        let (signatures, served) = (Signatures::default(), ServedCrcs::default());
        for _ in 0..2 {
            signatures
                .list(&served, &open, Level::Coarse, range(0, 100_000), &mut Vec::new(), &|_| {})
                .expect("a list");
        }
        assert_eq!(signatures.lock().recalled, 0);
        assert!(signatures.lock().lists.is_empty());
        assert_eq!(served.recall(open.stat.identity, range(0, 100_000)), None);
    }

    #[test]
    fn a_list_is_made_once_of_a_file_that_rests() {
        // Older than this test program, which was made from it.
        let open = open(File::open(concat!(env!("CARGO_MANIFEST_DIR"), "/src/lib.rs")).expect("open"));
        let whole = range(0, open.stat.size_bytes());
        let (signatures, served) = (Signatures::default(), ServedCrcs::default());
        let lists = [(); 3]
            .map(|()| signatures.list(&served, &open, Level::Coarse, whole, &mut Vec::new(), &|_| {}).expect("a list"));
        assert_eq!(signatures.lock().recalled, 2);
        let bytes = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/src/lib.rs")).expect("read");
        assert_eq!(served.recall(open.stat.identity, whole), Some((bytes.len() as u64, crc32fast::hash(&bytes))));
        assert!(lists.iter().all(|list| *list == lists[0] && !list.is_empty()));
    }

    #[test]
    fn of_those_who_ask_at_once_one_makes_the_list() {
        let open = open(File::open(concat!(env!("CARGO_MANIFEST_DIR"), "/src/lib.rs")).expect("open"));
        let signatures = Signatures::default();
        let key = (open.stat.identity, range(0, open.stat.size_bytes()));
        let making = signatures.recall_or_make(key).expect_err("nobody has made it");
        std::thread::scope(|threads| {
            let other = threads.spawn(|| signatures.recall_or_make(key).ok());
            signatures.lock().remember(key, Arc::from([1; 20]));
            drop(making);
            assert!(other.join().expect("join").is_some());
        });
        assert!(signatures.lock().being_made.is_empty());
    }

    #[test]
    fn a_file_that_ends_early_has_changed() {
        let open = file_of(&[7; 100_000]);
        open.file.set_len(10).expect("cut off");
        for level in [Level::Coarse, Level::Fine] {
            let list = Signatures::default().list(
                &ServedCrcs::default(),
                &open,
                level,
                range(0, 100_000),
                &mut Vec::new(),
                &|_| {},
            );
            assert_eq!(list, Err(Status::Changed));
        }
    }

    #[test]
    fn crcs_end_with_their_segments() {
        let bytes: Vec<u8> = (0..=255).collect();
        for before in [1, 100, 255, 256, 300] {
            let start = 3 * CONFIRM_BYTES - before;
            let mut crcs = SegmentCrcs::from(start);
            bytes.chunks(90).for_each(|slice| crcs.update(slice));
            crcs.end_part();
            let border = (before as usize).min(bytes.len());
            let part = |from: usize, to: usize| {
                (from < to).then(|| (range(start + from as u64, (to - from) as u64), crc32fast::hash(&bytes[from..to])))
            };
            let expected: Vec<_> = [part(0, border), part(border, bytes.len())].into_iter().flatten().collect();
            assert_eq!(crcs.parts, expected, "{before} bytes before the border");
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let identity = |inode| Identity {
            device: 1,
            inode,
            size_bytes: 1,
            mtime: Timestamp::default(),
            ctime: Timestamp::default(),
        };
        let mut remembered = Remembered::default();
        for inode in 0..2 * LISTS_MAX as u64 {
            remembered.remember((identity(inode), range(0, 1)), Arc::from([0; 20]));
        }
        assert_eq!((remembered.lists.len(), remembered.bytes), (LISTS_MAX, 20 * LISTS_MAX));
        assert_eq!(remembered.recall(&(identity(0), range(0, 1))), None);
        assert!(remembered.recall(&(identity(2 * LISTS_MAX as u64 - 1), range(0, 1))).is_some());
        remembered.remember((identity(0), range(0, 1)), vec![0; LIST_BYTES_MAX - 5].into());
        assert_eq!((remembered.lists.len(), remembered.bytes), (1, LIST_BYTES_MAX - 5));
        remembered.remember((identity(0), range(0, 2)), vec![0; LIST_BYTES_MAX + 1].into());
        assert_eq!((remembered.lists.len(), remembered.oldest_first.len()), (1, 1));
    }
}
