//! What an earlier run left in `.fastcp/parts`, and what becomes of it.
//!
//! A part file whose journal is bound to the file as it is offered now is gone on with. One of another version
//! is set aside: much of it may be in the new one, too (`reuse.rs`). What belongs to no file
//! of the offer is removed when a run has seen all of it. Where files have failed, those that the run had to do
//! with stay: they are newer than its lock, since even opening them for resumption writes to their journals.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;

use fastcp_model::{Capabilities, ChunkGrid, Name, RelPath, Timestamp};
use fastcp_sys::{Dir, FileType, Stat};
use fastcp_wire::offer::Scope;

use crate::commit::landing::make_room;
use crate::commit::transfer::Transfer;
use crate::content::crc_runs::is_confirmed_alone;
use crate::schedule::job::{FileJob, Trust};
use crate::settings::{Delta, Placement};
use crate::target::destination::Destination;
use crate::target::journal::{Journal, Record};
use crate::target::part::PartFile;

/// Files up to this length are fetched whole: that costs less than to look.
const REUSED_BYTES_MIN: u64 = 64 << 10;
/// An old version of a sparse file is looked through where at least one byte in so many takes room.
const HELD_SHARE_MIN: u64 = 16;
/// What follows the name of a part file that was set aside.
const STALE_SUFFIX: &[u8] = b".stale";

/// The job with what there is of the file already: `there` is what has its name now.
pub(crate) fn begin(job: FileJob, transfer: &Transfer<'_>, target: &Dir, there: Option<&Stat>) -> io::Result<FileJob> {
    // Files that come in one answer leave nothing that could be gone on with.
    if job.grid.file_bytes() <= REUSED_BYTES_MIN {
        return Ok(job);
    }
    let has_old = there.is_some_and(|stat| is_worth_cutting(&job, stat));
    let (job, has_stale) = match transfer.settings.placement {
        Placement::PartFile => resume(job, transfer, target)?,
        Placement::InPlace => (job, false),
    };
    let uses_delta = transfer.settings.delta == Delta::Used && transfer.agrees(Capabilities::DELTA);
    Ok(if uses_delta && (has_old || has_stale) { job.with_basis() } else { job })
}

/// Whether to look through an old version. Holes are cut and hashed as the zeros that they are: of a file that is
/// nearly all hole, fetching the rest costs less.
fn is_worth_cutting(job: &FileJob, old: &Stat) -> bool {
    let is_nearly_hole = job.sparse && old.allocated_bytes < old.size_bytes() / HELD_SHARE_MIN;
    old.file_type == FileType::File && old.size_bytes() > 0 && !is_nearly_hole
}

/// Goes on with a part file of the same version. One of another version is set aside; whether there is such a
/// one is answered too.
fn resume(job: FileJob, transfer: &Transfer<'_>, target: &Dir) -> io::Result<(FileJob, bool)> {
    if !transfer.agrees(Capabilities::CHUNK_RESUME) {
        return Ok((job, false));
    }
    let place = transfer.destination.part_place(&job.dir, target, &job.name)?;
    let stale_name = stale_name_of(&place.name);
    let Some((part, replayed, stat)) = PartFile::resume(&place) else {
        return Ok((job, place.dir.stat_name(&stale_name).is_ok()));
    };
    let grid = ChunkGrid::new(job.grid.file_bytes(), replayed.binding.chunk_kb);
    let (Ok(grid), true) = (grid, replayed.binding.is_same_but_grid(&job.binding())) else {
        part.set_aside(&stale_name)?;
        return Ok((job, true));
    };
    let trust = if replayed.is_untouched(&stat) { Trust::Taken } else { Trust::ToCheck };
    let claimed = replayed.records.len();
    let records = usable(replayed.records, &stat);
    if records.len() < claimed {
        // The journal keeps saying it, and once the part file is longer it would be heard.
        part.doubt();
    }
    if records.is_empty() {
        return Ok((job, false));
    }
    // What stands behind the end would stand there under the final name as well.
    if stat.size_bytes() > job.grid.file_bytes() {
        part.file().set_len(job.grid.file_bytes())?;
    }
    make_room(&job, part.file())?;
    let job = job.resumed(part, grid, records, trust);
    transfer.report.counters.bytes_reused.add(job.reused_bytes());
    Ok((job, place.dir.stat_name(&stale_name).is_ok()))
}

/// The name of the part file that was set aside under this name, if it is such a one.
pub(crate) fn part_of(name: &[u8]) -> Option<&[u8]> {
    name.strip_suffix(STALE_SUFFIX)
}

/// Other versions of a file: the old target first, if there is one, then a part file that was set aside. What
/// cannot be opened is of no use.
pub(crate) fn open_bases(transfer: &Transfer<'_>, job: &FileJob) -> Vec<File> {
    let Ok(dir) = transfer.destination.root.dir(&job.dir.path) else { return Vec::new() };
    let target = dir.open_file(&job.name).ok().filter(is_regular);
    let stale = transfer
        .destination
        .part_place(&job.dir, &dir, &job.name)
        .and_then(|place| place.dir.open_own_file(&stale_name_of(&place.name)))
        .ok();
    target.into_iter().chain(stale).collect()
}

fn is_regular(file: &File) -> bool {
    Stat::of_fd(file).is_ok_and(|stat| stat.file_type == FileType::File)
}

/// The name of a part file that another version has to be fetched in place of.
fn stale_name_of(part: &Name) -> Name {
    Name::new(&[part.as_bytes(), STALE_SUFFIX].concat()).expect("our own names are lawful")
}

/// The claims that can be true of a part file as it is, and none across what is confirmed at a time but of zeros. Of
/// two that overlap it is the later: what did not stand was fetched again.
fn usable(records: Vec<Record>, part: &Stat) -> Vec<Record> {
    let mut usable: BTreeMap<u64, Record> = BTreeMap::new();
    for record in records.into_iter().rev() {
        let range = record.range;
        let before = usable.range(..range.end()).next_back();
        let is_apart = before.is_none_or(|(_, other)| other.range.end() <= range.start());
        if is_confirmed_alone(range, record.crc) && is_apart && range.end() <= part.size_bytes() {
            usable.insert(range.start(), record);
        }
    }
    usable.into_values().collect()
}

/// What of the part files may still be of use after a run that saw a complete offer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Useful {
    /// None: every file is in its place.
    Nothing,
    /// Those that the run had to do with: it wrote to them, or to their journals, since it began.
    WrittenSince(Timestamp),
}

/// Removes what no file of a complete offer has any use for. Whatever goes wrong with it is no failure of the run.
pub(crate) fn clear(destination: &Destination, path: &RelPath, scope: Scope, useful: Useful) {
    for parts in destination.parts_dirs() {
        if let Err(error) = clear_dir(&parts, &top_of(path, scope), useful) {
            tracing::debug!(%error, "cannot remove part files of earlier runs");
        }
    }
}

/// The name that everything offered is beneath, where that is not the destination itself.
fn top_of(path: &RelPath, scope: Scope) -> Option<Name> {
    match scope {
        Scope::Contents | Scope::Level => None,
        Scope::Itself => path.split().map(|(_, name)| name),
    }
}

fn clear_dir(parts: &Dir, top: &Option<Name>, useful: Useful) -> io::Result<()> {
    for bytes in parts.names()? {
        let bytes = bytes?;
        let Ok(name) = Name::new(&bytes) else { continue };
        let part = Journal::part_of(&bytes).map_or_else(|| Ok(name.clone()), Name::new);
        let Ok(part) = part else { continue };
        let is_useful = match useful {
            Useful::Nothing => false,
            Useful::WrittenSince(since) => newest(parts, &part) >= Some(since),
        };
        if !is_useful && is_beneath(parts, &part, top) {
            tracing::debug!(part = %fastcp_model::Escaped(&bytes), "removing a part file of an earlier run");
            if let Err(error) = parts.remove_file(&name) {
                tracing::debug!(%error, "cannot remove it");
            }
        }
    }
    Ok(())
}

/// When a part file or its journal was last written to.
fn newest(parts: &Dir, part: &Name) -> Option<Timestamp> {
    let mtime = |name: &Name| parts.stat_name(name).ok().map(|stat| stat.metadata.mtime);
    mtime(part).max(mtime(&Journal::name_of(part)))
}

/// Whether the file that a part file was for could have been offered. Without a journal nobody knows, and nobody
/// can go on with it either.
fn is_beneath(parts: &Dir, part: &Name, top: &Option<Name>) -> bool {
    match (top, Journal::bound_path(parts, part)) {
        (Some(top), Some(path)) => path.names().next().is_some_and(|first| first == *top),
        _ => true,
    }
}

#[cfg(test)]
mod tests;
