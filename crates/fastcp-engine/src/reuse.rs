//! What is here already of a file that is to be fetched, found out beside the fetching of others.
//!
//! Two things are looked at. Claims of a journal that nobody vouches for: the bytes are read and compared with
//! their CRC-32 before they count. And other versions of the file, the old target or a part file whose source
//! has changed: what the sender's chunks have in common with them is copied (`delta.rs`, `copying.rs`). What
//! remains are the gaps of the file, and those are fetched like anything else. Should anything here fail, more
//! is fetched: it is never needed to be right.
//!
//! One thread, with a connection of its own once there is something to ask.
//!
//! May import: commit, schedule, link, target, content.
//! Never gives a file its name but through `commit`.

use std::fs::File;
use std::sync::Arc;
use std::time::Instant;

use fastcp_model::{ByteRange, Status};
use fastcp_net::{Choice, Connection, Inbox, NetError};

use crate::commit::leftover::open_bases;
use crate::commit::transfer::Transfer;
use crate::content::cutter::Cutter;
use crate::content::zeros::{SLICE_BYTES, crc_of_range};
use crate::error::RunError;
use crate::reuse::basis::Basis;
use crate::reuse::copying::Copier;
use crate::reuse::delta::{Asker, DeltaEnd, DeltaFile, Found, Outcome, Reach, SMALL_BYTES_MAX, find, find_small};
use crate::schedule::job::{Arrival, FileJob, Start};
use crate::schedule::want::Want;
use crate::settings::Placement;
use crate::target::journal::Record;

pub(crate) mod basis;
pub(crate) mod copying;
pub(crate) mod delta;
pub(crate) mod index;

/// A search that has broken so many connections is given up: it begins anew each time, so its bytes are no progress.
const SEARCHES_MAX: u32 = 10;

pub(crate) struct Reuse<'a> {
    transfer: &'a Transfer<'a>,
    copier: Copier<'a>,
    line: Option<AskingLine>,
    slice: Vec<u8>,
}

/// The connection that signatures come on.
struct AskingLine {
    connection: Arc<Connection>,
    inbox: Inbox,
}

/// What came of checking the claims about a file.
#[derive(Debug, Default)]
struct Checked {
    /// What has to be fetched after all.
    lacking: Vec<ByteRange>,
    /// What is to be asked.
    wants: Vec<Want>,
}

/// What of one claim stands, and what does not.
#[derive(Debug, Default)]
struct Seen {
    standing: Vec<Record>,
    lacking: Vec<Record>,
}

impl<'a> Reuse<'a> {
    pub(crate) fn new(transfer: &'a Transfer<'a>) -> Self {
        Self { transfer, copier: Copier::new(transfer), line: None, slice: vec![0; SLICE_BYTES] }
    }

    /// Looks at files until there are no more.
    pub(crate) fn run(mut self) -> Result<(), RunError> {
        let schedule = self.transfer.schedule;
        while let Some(job) = schedule.next_to_reuse() {
            if job.start() != Start::Basis {
                let Checked { lacking, wants } = self.check(&job);
                schedule.checked(&job, lacking, wants);
                continue;
            }
            // What does not stand is a gap like any other: nothing of the file has been asked for yet.
            self.check(&job);
            if is_small(&job) {
                let mut jobs = vec![job];
                while jobs.len() < self.transfer.budget.searched_files
                    && let Some(more) = schedule.more_to_reuse(|job| is_small(job) && !job.is_doubtful())
                {
                    jobs.push(more);
                }
                self.find_in_small(jobs)?;
            } else {
                self.find_in(&job)?;
                schedule.reused(&job);
            }
        }
        Ok(())
    }

    /// Checks claims, until the run is stopped or the file has failed.
    fn check(&mut self, job: &Arc<FileJob>) -> Checked {
        let mut checked = Checked::default();
        let doubtful = job.take_doubtful();
        let mut left = doubtful.len();
        for record in doubtful {
            let Some(Seen { standing, lacking }) = self.look_at(job, record) else { break };
            left -= usize::from(lacking.is_empty());
            if left == 0 {
                job.settle_doubt();
            }
            for Record { range, crc } in standing {
                // A record that is true in part is worth nothing once the rest has one of its own (`leftover.rs`).
                let arrival = if lacking.is_empty() { job.stands(range, crc) } else { job.arrived(range, crc) };
                if arrival == Arrival::Whole {
                    checked.wants.extend(Want::confirmations(job));
                }
            }
            checked.lacking.extend(lacking.iter().map(|record| record.range));
        }
        checked
    }

    /// Reads what a record claims, piece by piece: a record of zeros may be of any length. `None` where nobody needs it
    /// any more.
    fn look_at(&mut self, job: &FileJob, record: Record) -> Option<Seen> {
        let mut seen = Seen::default();
        for piece in record.pieces() {
            if job.has_failed() || self.transfer.schedule.is_stopped() {
                return None;
            }
            if job.has_part(|part| stands(part.file(), piece, &mut self.slice)) {
                self.transfer.report.counters.bytes_reused.add(piece.range.len());
                piece.join(&mut seen.standing);
            } else {
                piece.join(&mut seen.lacking);
            }
        }
        Some(seen)
    }

    fn find_in(&mut self, job: &Arc<FileJob>) -> Result<(), RunError> {
        let bases = open_bases(self.transfer, job);
        let path = self.transfer.path_at_sender(&job.path());
        let Some(basis) = basis_of(self.transfer.cutter, &bases) else { return Ok(()) };
        let file = delta_file(self.transfer, job, path.as_bytes(), basis);
        let (copier, line, transfer) = (&mut self.copier, &mut self.line, self.transfer);
        let mut failed = Ok(());
        let mut take = |found: &[Found], decided: Option<ByteRange>| {
            let mut outcome = Outcome::default();
            if failed.is_ok() && !job.has_failed() && !found.is_empty() {
                failed = copier.copy(job, &bases, found).map(|of_found| outcome = of_found);
            }
            // Fetched while the search goes on: on a slow link that takes longer than the search.
            if let Some(gaps) = decided.map(|range| job.decided(range)).filter(|gaps| !gaps.is_empty()) {
                transfer.schedule.lacking(job, gaps);
            }
            outcome
        };
        let end = asking(transfer, line, |asker| find(asker, &file, &mut take));
        failed?;
        end.map_or(Ok(()), |end| ended(transfer, job, end))
    }

    /// Many small files at a time, so that each does not cost a round trip.
    fn find_in_small(&mut self, jobs: Vec<Arc<FileJob>>) -> Result<(), RunError> {
        let paths: Vec<_> = jobs.iter().map(|job| self.transfer.path_at_sender(&job.path())).collect();
        let mut left: Vec<usize> = (0..jobs.len()).collect();
        let (copier, line, transfer, cutter) = (&mut self.copier, &mut self.line, self.transfer, self.transfer.cutter);
        let mut failed = Ok(());
        let mut done = vec![false; jobs.len()];
        let found_all = asking(transfer, line, |asker| {
            left.retain(|&number| !done[number]);
            let files = left.iter().map(|&number| {
                let bases = open_bases(transfer, &jobs[number]);
                let basis = basis_of(cutter, &bases).unwrap_or_else(|| Basis::empty(cutter));
                delta_file(transfer, &jobs[number], paths[number].as_bytes(), basis)
            });
            find_small(asker, files, &mut |position, found, end| {
                let number = left[position];
                let job = &jobs[number];
                if failed.is_ok() && !found.is_empty() {
                    failed = copier.copy(job, &open_bases(transfer, job), found).map(drop);
                }
                if failed.is_ok() {
                    failed = ended(transfer, job, end);
                }
                done[number] = true;
                transfer.schedule.reused(job);
            })
        });
        if found_all.is_none() {
            // The others are fetched whole.
            let others = jobs.iter().zip(&done).filter(|(_, done)| !**done);
            others.for_each(|(job, _)| transfer.schedule.reused(job));
        }
        failed
    }
}

/// Asks over the connection. `None` where what would be found is fetched.
fn asking<T>(
    transfer: &Transfer<'_>,
    line: &mut Option<AskingLine>,
    mut search: impl FnMut(&mut Asker<'_>) -> Result<T, NetError>,
) -> Option<T> {
    let open = |deadline| open(transfer, deadline);
    let search = |line: &mut AskingLine| search(&mut Asker::new(&line.connection, &mut line.inbox));
    let searched = transfer.line.over_kept(line, SEARCHES_MAX, open, search);
    searched.inspect_err(|error| tracing::debug!(%error, "no signatures")).ok()
}

fn open(transfer: &Transfer<'_>, deadline: Instant) -> Result<AskingLine, NetError> {
    let mut data = transfer.line.data(Choice::Beside, deadline)?;
    transfer.line.hear_answer(&mut data)?;
    Ok(AskingLine { connection: data.connection, inbox: Inbox::new() })
}

fn is_small(job: &FileJob) -> bool {
    job.start() == Start::Basis && job.grid.file_bytes() <= SMALL_BYTES_MAX
}

/// The basis cuts handles of its own: the others are copied from. `None` where there is nothing to cut.
fn basis_of<'c>(cutter: &'c Cutter, bases: &[File]) -> Option<Basis<'c>> {
    let handles = bases.iter().map(File::try_clone).collect::<Result<Vec<_>, _>>().ok()?;
    Basis::new(cutter, handles).ok().filter(|basis| !basis.is_empty())
}

fn delta_file<'p>(transfer: &Transfer<'_>, job: &FileJob, path: &'p [u8], basis: Basis<'p>) -> DeltaFile<'p> {
    let reach = match transfer.settings.placement {
        Placement::PartFile => Reach::Anywhere,
        Placement::InPlace => Reach::SamePlace,
    };
    DeltaFile { path, file_bytes: job.grid.file_bytes(), mtime_ns: job.metadata.mtime.wire_ns(), basis, reach }
}

fn ended(transfer: &Transfer<'_>, job: &Arc<FileJob>, end: DeltaEnd) -> Result<(), RunError> {
    match end {
        DeltaEnd::Done => {}
        DeltaEnd::Changed => return transfer.moved(job, Status::Changed),
        DeltaEnd::Refused(status) => tracing::debug!(path = %job.path(), %status, "the sender refuses the signature"),
        DeltaEnd::Basis(error) => tracing::debug!(path = %job.path(), %error, "cannot read the old version"),
    }
    Ok(())
}

/// Whether the bytes of a claim are there. What cannot be read is fetched.
fn stands(file: &File, record: Record, slice: &mut [u8]) -> bool {
    crc_of_range(file, record.range, slice).is_ok_and(|crc| crc == record.crc)
}
