//! What the schedule knows, and what follows from it: which want is next, and when all is done.
//!
//! No waiting and no locks: that is `schedule.rs`.

use std::collections::VecDeque;
use std::sync::Arc;

use fastcp_model::ByteRange;
use fastcp_wire::bundle::BundleRequest;
use fastcp_wire::limits::BUNDLE_LIST_BYTES_MAX;

use super::Cut;
use crate::schedule::job::{FileJob, Start};
use crate::schedule::share::Shares;
use crate::schedule::want::{Purpose, WANT_COST, Want, cut_short, gap_cost, next_range};

/// Files up to this size are bundled.
const BUNDLED_FILE_BYTES_MAX: u64 = 64 << 10;
/// The most files of one bundle, and the most bytes: enough to spare calls and to compress well, little
/// enough that the bytes are still in cache when they are written.
pub(super) const BUNDLE_FILES: usize = 64;
pub(super) const BUNDLE_BYTES: u64 = 192 << 10;
/// A file of which ranges are being fetched is among the first so many: one comes after the other.
const LOOKED_THROUGH: usize = 64;
/// In how many wants a connection takes its share, at least.
const WANTS_IN_SHARE: u64 = 4;

#[derive(Debug, Default)]
pub(super) struct State {
    /// Wants that exist already: those handed back, and confirmations.
    pub(super) urgent: VecDeque<Want>,
    pub(super) files: VecDeque<Queued>,
    /// Files of which something may be here already.
    pub(super) to_reuse: VecDeque<Arc<FileJob>>,
    /// How many of `files` have been looked at for that: each holds its part file open.
    pub(super) prepared: usize,
    /// Files that changed at the source, to be offered anew.
    pub(super) moved: Vec<Arc<FileJob>>,
    pub(super) cost_left: u64,
    pub(super) wants_done: u64,
    /// Wants that are being answered, and files that somebody has in hand: more wants may come of them.
    pub(super) in_flight: usize,
    /// Connections below this number work; the others rest.
    pub(super) active: usize,
    pub(super) shares: Shares,
    /// How many connections each source has, by its number.
    pub(super) connections: Vec<usize>,
    /// Whether there is more than one source.
    pub(super) has_others: bool,
    pub(super) held_back: bool,
    pub(super) closed: bool,
    pub(super) stopped: bool,
}

/// Who asks for wants.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asking {
    /// The number of the source that its connection leads to.
    pub(super) source: usize,
    /// The number of the one that leads: it may be asked for anything, the others for bytes.
    pub(super) lead: usize,
}

impl Asking {
    fn is_lead(self) -> bool {
        self.source == self.lead
    }

    fn may_have(self, want: &Want) -> bool {
        self.is_lead() || want.may_come_from(self.source)
    }

    fn may_have_of(self, job: &FileJob) -> bool {
        self.is_lead() || job.may_come_from(self.source)
    }
}

#[derive(Debug)]
pub(super) struct Queued {
    job: Arc<FileJob>,
    /// What of the file is being handed out, and from where on.
    gap: ByteRange,
    next_offset: u64,
    /// What comes after it.
    gaps: std::vec::IntoIter<ByteRange>,
    /// What was reckoned for it and not handed out yet.
    cost_left: u64,
}

impl Queued {
    /// `None` where nothing is missing.
    fn new(job: Arc<FileJob>, gaps: Vec<ByteRange>) -> Option<Self> {
        let cost_left = gaps.iter().fold(0, |cost: u64, gap| cost.saturating_add(gap_cost(&job, *gap)));
        let mut gaps = gaps.into_iter();
        let gap = gaps.next()?;
        Some(Self { job, gap, next_offset: gap.start(), gaps, cost_left })
    }

    /// Everything before `offset` has been handed out. `false` where that was all.
    fn advance(&mut self, offset: u64) -> bool {
        self.next_offset = offset;
        if offset >= self.gap.end() {
            let Some(gap) = self.gaps.next() else { return false };
            (self.gap, self.next_offset) = (gap, gap.start());
        }
        true
    }
}

impl State {
    /// How many files wait.
    pub(super) fn queued(&self) -> usize {
        self.files.len() + self.to_reuse.len()
    }

    /// Takes a file on.
    pub(super) fn add(&mut self, job: Arc<FileJob>) {
        let is_basis = job.start() == Start::Basis;
        if is_basis || job.is_doubtful() {
            self.in_flight += 1;
            self.to_reuse.push_back(Arc::clone(&job));
        }
        if !is_basis {
            self.add_gaps(job);
        }
    }

    /// What is missing of a file is to be fetched; where nothing is, it is to be confirmed.
    fn add_gaps(&mut self, job: Arc<FileJob>) {
        let gaps = job.gaps();
        if !self.fetch(&job, gaps) && job.is_whole() {
            self.urgent.extend(Want::confirmations(&job));
        }
    }

    /// These ranges of a file are to be fetched. `false` where there are none.
    pub(super) fn fetch(&mut self, job: &Arc<FileJob>, gaps: Vec<ByteRange>) -> bool {
        let Some(queued) = Queued::new(Arc::clone(job), gaps) else { return false };
        self.cost_left = self.cost_left.saturating_add(queued.cost_left);
        self.files.push_back(queued);
        true
    }

    /// These ranges of a file were not found in other versions of it.
    pub(super) fn fetch_lacking(&mut self, job: &Arc<FileJob>, gaps: Vec<ByteRange>) {
        self.prepared += usize::from(self.fetch(job, gaps));
    }

    /// Whether nothing is in hand but files that changed at the source.
    pub(super) fn is_settled(&self) -> bool {
        let is_idle = self.urgent.is_empty() && self.files.is_empty() && self.to_reuse.is_empty();
        is_idle && self.in_flight == self.moved.len()
    }

    /// After a small file that was just taken, those of its directory that come next.
    pub(super) fn take_bundle(&mut self, wants: &mut Vec<Want>, cost_max: u64, asking: Asking) {
        let Some(first) = wants.last().filter(|want| want.is_whole_file() && want.attempt == 0) else { return };
        let dir = Arc::clone(&first.job.dir);
        let (mut bytes, mut cost) = (first.range.len(), first.cost());
        let mut list_bytes = BundleRequest::listed_bytes(first.job.name.as_bytes());
        if !is_bundled(bytes) || first.purpose != Purpose::Fetch {
            return;
        }
        for _ in 1..BUNDLE_FILES {
            let Some(next) = self.files.front() else { return };
            let file_bytes = next.job.grid.file_bytes();
            bytes += file_bytes;
            cost += file_bytes + WANT_COST;
            list_bytes += BundleRequest::listed_bytes(next.job.name.as_bytes());
            let fits = bytes <= BUNDLE_BYTES && cost <= cost_max && list_bytes <= BUNDLE_LIST_BYTES_MAX;
            let is_untouched = next.next_offset == 0 && next.job.start() == Start::Afresh;
            let may_be = asking.may_have_of(&next.job);
            if !fits || !may_be || !is_bundled(file_bytes) || !is_untouched || !Arc::ptr_eq(&next.job.dir, &dir) {
                return;
            }
            let Some(queued) = self.files.pop_front() else { return };
            let range = ByteRange::new(0, file_bytes).expect("within the grid's file");
            let want = Want::fetch(queued.job, range);
            self.cost_left = self.cost_left.saturating_sub(queued.cost_left.saturating_sub(want.cost()));
            wants.push(want);
        }
    }

    /// Takes out what has not been handed out of a file and lies in a hole, up to the first that does not.
    pub(super) fn take_hole(&mut self, job: &Arc<FileJob>, hole: ByteRange) -> Vec<ByteRange> {
        let mut taken = Vec::new();
        // There may be two of one file: one of its gaps, and one of what was claimed and does not stand.
        let is_in_hole =
            |queued: &Queued| Arc::ptr_eq(&queued.job, job) && (hole.start()..hole.end()).contains(&queued.next_offset);
        let Some(position) = self.files.iter().take(LOOKED_THROUGH).position(is_in_hole) else { return taken };
        let queued = &mut self.files[position];
        let reckoned = queued.cost_left;
        let mut is_left = true;
        while is_left && (hole.start()..hole.end()).contains(&queued.next_offset) {
            let end = hole.end().min(queued.gap.end());
            let Ok(range) = ByteRange::new(queued.next_offset, end - queued.next_offset) else { break };
            queued.cost_left = queued.cost_left.saturating_sub(gap_cost(job, range));
            taken.push(range);
            is_left = queued.advance(end);
        }
        let left = if is_left { queued.cost_left } else { 0 };
        self.cost_left = self.cost_left.saturating_sub(reckoned - left);
        if !is_left {
            self.prepared -= usize::from(job.start() == Start::Basis);
            self.files.remove(position);
        }
        taken
    }

    /// Whether this source has no connection.
    pub(super) fn is_away(&self, source: usize) -> bool {
        self.connections.get(source).is_none_or(|&count| count == 0)
    }

    /// Whether a connection that has nothing to ask for would have, if it led to the source that leads, which has none.
    pub(super) fn lacks_lead(&self, asking: Asking) -> bool {
        self.is_away(asking.lead)
            && (self.urgent.iter().any(|want| !asking.may_have(want))
                || self.files.iter().any(|queued| !asking.may_have_of(&queued.job)))
    }

    pub(super) fn is_finished(&self) -> bool {
        self.stopped || (self.closed && self.is_settled())
    }

    /// The next want, for a connection that has this share of what is left.
    pub(super) fn take(&mut self, cut: Cut, share: u64, asking: Asking) -> Option<Want> {
        if let Some(at) = self.urgent.iter().position(|want| asking.may_have(want)) {
            return self.urgent.remove(at);
        }
        if self.held_back {
            return None;
        }
        while let Some(failed) = self.files.pop_front_if(|queued| queued.job.has_failed()) {
            self.cost_left = self.cost_left.saturating_sub(failed.cost_left);
            self.prepared -= usize::from(failed.job.start() == Start::Basis);
        }
        let at = self.files.iter().take(LOOKED_THROUGH).position(|queued| asking.may_have_of(&queued.job))?;
        let queued = self.files.get_mut(at)?;
        let whole = next_range(&queued.job, queued.next_offset, queued.gap);
        let range = match cut {
            Cut::Evenly if queued.job.grid.chunk_count() > 1 => cut_short(whole, share / WANTS_IN_SHARE),
            Cut::Evenly | Cut::AtChunks => whole,
        };
        let want = Want::fetch(Arc::clone(&queued.job), range);
        // In how many wants a file is fetched shows only now.
        let reckoned = queued.cost_left;
        queued.cost_left = reckoned.saturating_sub(want.cost());
        let mut unused = 0;
        if !queued.advance(range.end()) {
            unused = queued.cost_left;
            self.prepared -= usize::from(want.job.start() == Start::Basis);
            self.files.remove(at);
        }
        let missing = want.cost().saturating_sub(reckoned);
        self.cost_left = self.cost_left.saturating_add(missing).saturating_sub(unused);
        Some(want)
    }
}

/// Whether a file may be part of a bundle.
fn is_bundled(file_bytes: u64) -> bool {
    file_bytes <= BUNDLED_FILE_BYTES_MAX
}
