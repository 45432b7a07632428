//! One file being brought over, shared by the connections that fetch its ranges.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use fastcp_model::{ByteRange, ChunkGrid, Entry, EntryKind, Metadata, Name, RelPath};

use crate::content::crc_runs::{CrcRuns, gaps, zeros_of};
use crate::content::zeros::crc_of_zeros;
use crate::lock::{Guard, Lock, Rank};
use crate::schedule::answered::{Proof, SenderCrc};
use crate::target::dirs::DirState;
use crate::target::journal::{Binding, Record};
use crate::target::part::{Mismatch, PartFile};
use crate::target::proof::Confirmed;

/// What is known of a file before its first byte, and what has become of it since.
#[derive(Debug)]
pub(crate) struct FileJob {
    pub(crate) dir: Arc<DirState>,
    pub(crate) name: Name,
    pub(crate) metadata: Metadata,
    pub(crate) grid: ChunkGrid,
    pub(crate) sparse: bool,
    /// Whether something has the target's name already.
    pub(crate) replaces: bool,
    /// How often it was offered before, and had changed by the time it was fetched.
    pub(crate) offered_before: u32,
    start: Start,
    /// Asked under the schedule's lock: nobody waits for the answer.
    failed: AtomicBool,
    /// A bit for each source that has something else under this name. Asked as `failed` is.
    barred: AtomicU16,
    /// A bit for each source that some of it came from.
    came_from: AtomicU16,
    /// The source that offered it, by its number.
    offered_by: u8,
    /// Held while the part file is made, which may wait for a descriptor.
    making: Lock<()>,
    progress: Lock<Progress>,
}

/// What there is of a file before anything is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// Nothing.
    Afresh,
    /// A part file with ranges in it, of which some may have to be checked.
    Resumed,
    /// Another version, in which some of it may be found; a part file as well, perhaps.
    Basis,
}

#[derive(Debug, Default)]
struct Progress {
    /// The source was longer than offered when it was looked at.
    grown: bool,
    is_distrusted: bool,
    part: Option<Arc<PartFile>>,
    runs: CrcRuns,
    /// Other versions are being looked through: until that has ended it is not complete.
    is_searched: bool,
    /// Of which ranges it is known what of them is to be fetched.
    decided: CrcRuns,
    /// Claims of an earlier run that nobody has checked yet.
    doubtful: Vec<Record>,
    confirmed: Confirmed,
    /// The source that has confirmed that much, by its number.
    confirmed_by: Option<u8>,
}

/// What becomes of the claims of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// They count.
    Taken,
    /// The bytes are read first.
    ToCheck,
}

/// What the arrival of a range leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// More ranges are to come.
    Partial,
    /// Every byte is there: time to ask the sender to confirm.
    Whole,
}

/// What a confirmed segment leads to.
#[derive(Debug)]
pub(crate) enum Confirmation<'w> {
    /// More segments are to come.
    Partial,
    /// The same, and another source has confirmed others before: that counts no more, since what several say of parts of a
    /// file proves nothing.
    Anew,
    /// Every segment is what the sender has. Of the part file, `written` is the CRC-32 of what was written to it.
    Whole { part: PartFile, written: u32, proof: Proof<'w> },
    /// The file was confirmed before, or given up. The answer was asked for twice.
    Settled,
    /// Somebody still has the part file in hand: it cannot get its name.
    Busy,
    /// The segment's bytes are not the sender's.
    Mismatch(Mismatch),
}

impl FileJob {
    pub(crate) fn new(
        dir: Arc<DirState>,
        name: Name,
        metadata: Metadata,
        grid: ChunkGrid,
        sparse: bool,
        replaces: bool,
    ) -> Self {
        let (offered_before, start) = (0, Start::Afresh);
        let failed = AtomicBool::new(false);
        let (making, progress) = (Lock::new(Rank::Making, ()), Lock::new(Rank::Job, Progress::default()));
        let barred = AtomicU16::new(0);
        Self {
            dir,
            name,
            metadata,
            grid,
            sparse,
            replaces,
            offered_before,
            start,
            failed,
            barred,
            came_from: AtomicU16::new(0),
            offered_by: 0,
            making,
            progress,
        }
    }

    /// The same, offered by this one of several sources.
    pub(crate) fn of_source(self, source: usize) -> Self {
        Self { offered_by: source as u8, ..self }
    }

    /// Which source offered it.
    pub(crate) fn offered_by(&self) -> usize {
        self.offered_by.into()
    }

    /// Whether this entry is of the version that was offered.
    pub(crate) fn is_version_of(&self, entry: &Entry) -> bool {
        let is_size = matches!(entry.kind, EntryKind::File { size_bytes, .. } if size_bytes == self.grid.file_bytes());
        is_size && entry.metadata.mtime == self.metadata.mtime
    }

    /// A source that does not lead has something else under this name. Answers whether that is new.
    pub(crate) fn bar(&self, source: usize) -> bool {
        let bit = 1 << source;
        self.barred.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    /// Some of it has come from this source.
    pub(crate) fn note_source(&self, source: usize) {
        let bit = 1 << source;
        // Looked at first: many connections may be at it.
        if self.came_from.load(Ordering::Relaxed) & bit == 0 {
            self.came_from.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// What came of it is not what this source has, which leads: no other is to be asked from now on. Answers the others
    /// that some of it came from.
    pub(crate) fn bar_all_but(&self, lead: usize) -> impl Iterator<Item = usize> {
        let others = !(1u16 << lead);
        self.barred.store(others, Ordering::Relaxed);
        let came_from = self.came_from.load(Ordering::Relaxed) & others;
        (0..u16::BITS as usize).filter(move |source| came_from & (1 << source) != 0)
    }

    /// Whether this source may be asked for it, where it does not lead.
    pub(crate) fn may_come_from(&self, source: usize) -> bool {
        self.barred.load(Ordering::Relaxed) & (1 << source) == 0
    }

    /// The file as offered anew, after it had changed since it was offered before.
    pub(crate) fn again(mut self, before: &Self) -> Self {
        self.offered_before = before.offered_before + 1;
        self.barred = AtomicU16::new(before.barred.load(Ordering::Relaxed));
        if before.lock().is_distrusted {
            // Whatever led there is not to lead there again.
            self.start = Start::Afresh;
            self.lock().is_searched = false;
        }
        self
    }

    /// What was brought together of it is not what the sender has.
    pub(crate) fn distrust(&self) {
        self.lock().is_distrusted = true;
    }

    /// Goes on with the part file of an earlier run. What `records` claim counts at once, or has to be checked
    /// first.
    pub(crate) fn resumed(mut self, part: PartFile, grid: ChunkGrid, records: Vec<Record>, trust: Trust) -> Self {
        let mut progress = Progress { part: Some(Arc::new(part)), ..Progress::default() };
        match trust {
            Trust::Taken => records.iter().for_each(|record| progress.runs.insert(record.range, record.crc)),
            Trust::ToCheck => progress.doubtful = records,
        }
        (self.start, self.grid, self.progress) = (Start::Resumed, grid, Lock::new(Rank::Job, progress));
        self
    }

    /// Another version of the file may hold some of it.
    pub(crate) fn with_basis(mut self) -> Self {
        self.start = Start::Basis;
        self.lock().is_searched = true;
        self
    }

    /// Nothing more will be found of a range in other versions. Answers what of it is to be fetched, once.
    pub(crate) fn decided(&self, range: ByteRange) -> Vec<ByteRange> {
        let mut progress = self.lock();
        if progress.decided.overlaps(range) {
            return Vec::new();
        }
        progress.decided.insert(range, 0);
        progress.runs.gaps_in(range)
    }

    /// Nothing more will be found at all. Answers what is still to be fetched, and whether that was the last that
    /// the file waited for: then it is time to have it confirmed.
    pub(crate) fn end_search(&self) -> (Vec<ByteRange>, Arrival) {
        let mut progress = self.lock();
        progress.is_searched = false;
        let covered = progress.runs.ranges().chain(progress.decided.ranges());
        let gaps = gaps(self.grid.file_bytes(), covered);
        (gaps, self.arrival(&progress))
    }

    /// What there was of it before anything was fetched. Unless that is nothing, unproven bytes may stand
    /// anywhere in its part file.
    pub(crate) fn start(&self) -> Start {
        self.start
    }

    /// What is neither there nor claimed to be.
    pub(crate) fn gaps(&self) -> Vec<ByteRange> {
        let progress = self.lock();
        let doubtful = progress.doubtful.iter().map(|record| record.range);
        gaps(self.grid.file_bytes(), progress.runs.ranges().chain(doubtful))
    }

    /// Whether there are claims to check.
    pub(crate) fn is_doubtful(&self) -> bool {
        !self.lock().doubtful.is_empty()
    }

    /// Whether a range may be copied from other versions: no byte of it stands in the part file, and none is being
    /// fetched. Only the thread that copies decides what is fetched meanwhile, so it stays true while it copies.
    pub(crate) fn may_be_copied(&self, range: ByteRange) -> bool {
        let progress = self.lock();
        !progress.runs.overlaps(range) && !progress.decided.overlaps(range)
    }

    /// The claims to check; they are the caller's from now on.
    pub(crate) fn take_doubtful(&self) -> Vec<Record> {
        std::mem::take(&mut self.lock().doubtful)
    }

    /// All claims were checked, and they stand: a mark may vouch for them.
    pub(crate) fn settle_doubt(&self) {
        if let Some(part) = &self.lock().part {
            part.settle_doubt();
        }
    }

    /// How many of its bytes are there already.
    pub(crate) fn reused_bytes(&self) -> u64 {
        self.lock().runs.ranges().map(ByteRange::len).sum()
    }

    /// What `look` finds in the part file; `false` where there is none.
    pub(crate) fn has_part(&self, look: impl FnOnce(&PartFile) -> bool) -> bool {
        let part = self.lock().part.clone();
        part.is_some_and(|part| look(&part))
    }

    /// The source is longer than it was when it was offered.
    pub(crate) fn set_grown(&self) {
        self.lock().grown = true;
    }

    /// Whether the source has been seen longer than it was when it was offered.
    pub(crate) fn has_grown(&self) -> bool {
        self.lock().grown
    }

    /// Takes a part file that was written in one piece, to have it confirmed.
    pub(crate) fn adopt(&self, part: PartFile) {
        let mut progress = self.lock();
        let part = match self.has_failed() {
            true => Some(Arc::new(part)),
            false => progress.part.replace(Arc::new(part)),
        };
        // What it was to take the place of, or is not needed, ends outside of the lock.
        drop(progress);
        drop(part);
    }

    /// What its journal is bound to.
    pub(crate) fn binding(&self) -> Binding {
        Binding {
            path: self.path(),
            file_bytes: self.grid.file_bytes(),
            mtime: self.metadata.mtime,
            chunk_kb: self.grid.chunk_kb(),
        }
    }

    /// The file's path below the destination. The planner made sure that it fits.
    pub(crate) fn path(&self) -> RelPath {
        self.dir.path.join(&self.name)
    }

    /// The part file that all ranges are written to, made by whoever asks first.
    ///
    /// # Errors
    /// Those of `make`, and one for a file that has failed meanwhile: what it left must not be made anew.
    pub(crate) fn part(&self, make: impl FnOnce() -> io::Result<PartFile>) -> io::Result<Arc<PartFile>> {
        if let Some(part) = &self.lock().part {
            return Ok(Arc::clone(part));
        }
        let _making = self.making.lock();
        if let Some(part) = &self.lock().part {
            return Ok(Arc::clone(part));
        }
        if self.has_failed() {
            return Err(io::Error::other("the file has failed already"));
        }
        let made = Arc::new(make()?);
        let mut progress = self.lock();
        if !self.has_failed() {
            progress.part = Some(Arc::clone(&made));
        }
        Ok(made)
    }

    /// A range was written and its CRC proven; the journal learns of it.
    pub(crate) fn arrived(&self, range: ByteRange, crc: u32) -> Arrival {
        self.all_arrived(&[Record { range, crc }])
    }

    /// As [`FileJob::arrived`], for several.
    pub(crate) fn all_arrived(&self, ranges: &[Record]) -> Arrival {
        let part = self.lock().part.clone();
        if let Some(part) = part {
            part.record(ranges.iter().copied());
        }
        let mut progress = self.lock();
        ranges.iter().for_each(|record| progress.runs.insert(record.range, record.crc));
        self.arrival(&progress)
    }

    /// This range is a hole of the sender's file, and reads as zeros. More is to arrive.
    pub(crate) fn hole_arrived(&self, hole: ByteRange) {
        let part = self.lock().part.clone();
        for range in zeros_of(hole) {
            let crc = crc_of_zeros(range.len());
            if let Some(part) = &part {
                part.record([Record { range, crc }]);
            }
            self.lock().runs.insert(range, crc);
        }
    }

    /// A range stands in the part file, as the journal has known all along.
    pub(crate) fn stands(&self, range: ByteRange, crc: u32) -> Arrival {
        let mut progress = self.lock();
        progress.runs.insert(range, crc);
        self.arrival(&progress)
    }

    fn arrival(&self, progress: &Progress) -> Arrival {
        if !self.has_failed() && !progress.is_searched && progress.runs.is_whole(self.grid.file_bytes()) {
            Arrival::Whole
        } else {
            Arrival::Partial
        }
    }

    /// Whether every byte stands in the part file.
    pub(crate) fn is_whole(&self) -> bool {
        !self.has_failed() && self.lock().runs.is_whole(self.grid.file_bytes())
    }

    /// This one of several sources has said what a segment of its file is.
    pub(crate) fn confirmed(sender: SenderCrc<'_>, source: usize) -> Confirmation<'_> {
        let job = sender.job();
        let mut progress = job.lock();
        if job.has_failed() || progress.part.is_none() {
            return Confirmation::Settled;
        }
        match progress.runs.crc_of(sender.range()) {
            Some(crc) if crc == sender.crc() => {}
            other => {
                let part = progress.part.clone();
                drop(progress);
                part.iter().for_each(|part| part.discard());
                return Confirmation::Mismatch(Mismatch { want: sender.crc(), got: other.unwrap_or(0) });
            }
        }
        let is_another =
            progress.confirmed_by.replace(source as u8).is_some_and(|before| usize::from(before) != source);
        if is_another {
            progress.confirmed = Confirmed::default();
        }
        let Some(proof) = sender.add_to(&mut progress.confirmed) else {
            return if is_another { Confirmation::Anew } else { Confirmation::Partial };
        };
        let Some(written) = progress.runs.whole(job.grid.file_bytes()) else { return Confirmation::Partial };
        // Writers let go of the part file before they report their last range.
        match progress.part.take().map(Arc::try_unwrap) {
            Some(Ok(part)) => Confirmation::Whole { part, written, proof },
            Some(Err(_)) => Confirmation::Busy,
            None => Confirmation::Settled,
        }
    }

    /// Whether what the sender says of a range is not what is here.
    pub(crate) fn differs(&self, sender: &SenderCrc<'_>) -> bool {
        !self.has_failed() && self.lock().runs.crc_of(sender.range()).is_some_and(|crc| crc != sender.crc())
    }

    /// Gives the file up; `true` for whoever does so first. A named part file stays where it is.
    pub(crate) fn fail(&self) -> bool {
        let mut progress = self.lock();
        let is_first = !self.failed.swap(true, Ordering::Relaxed);
        let part = progress.part.take();
        // Closing its journal takes a while.
        drop(progress);
        drop(part);
        is_first
    }

    /// Whether it was given up.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    fn lock(&self) -> Guard<'_, Progress> {
        self.progress.lock()
    }
}

#[cfg(test)]
pub(crate) mod tests;
