//! What an earlier run left in `.fastcp/parts`, and what becomes of it.
//!
//! A part file whose journal is bound to the file as it is offered now is gone on with. What belongs to no file
//! of the offer is removed when a run has seen all of it: those that the run had to do with are newer than its
//! lock, since even opening them for resumption writes to their journals.

use std::io;

use fastcp_model::{Capabilities, ChunkGrid, Name, RelPath, Timestamp};
use fastcp_sys::{Dir, Stat};
use fastcp_wire::offer::Scope;

use crate::crc_runs::CONFIRM_BYTES;
use crate::destination::Destination;
use crate::fetch::Transfer;
use crate::job::{FileJob, Trust};
use crate::journal::{Journal, Record};
use crate::landing::make_room;
use crate::part::PartFile;
use crate::want::CUT_BYTES_MIN;

/// The job with what there is of the file already.
pub(crate) fn begin(job: FileJob, transfer: &Transfer<'_>, target: &Dir) -> io::Result<FileJob> {
    // Files that come in one answer leave nothing that could be gone on with.
    if job.grid.file_bytes() <= CUT_BYTES_MIN || !transfer.agrees(Capabilities::CHUNK_RESUME) {
        return Ok(job);
    }
    let (parts, name) = transfer.destination.part_place(&job.dir, target, &job.name)?;
    let Some((part, replayed, stat)) = PartFile::resume(&parts, &name) else { return Ok(job) };
    let grid = ChunkGrid::new(job.grid.file_bytes(), replayed.binding.chunk_kb);
    let (Ok(grid), true) = (grid, replayed.binding.is_same_but_grid(&job.binding())) else { return Ok(job) };
    let trust = if replayed.is_untouched(&stat) { Trust::Taken } else { Trust::ToCheck };
    let records = usable(replayed.records, &stat);
    if records.is_empty() {
        return Ok(job);
    }
    // What stands behind the end would stand there under the final name as well.
    if stat.size_bytes() > job.grid.file_bytes() {
        part.file().set_len(job.grid.file_bytes())?;
    }
    make_room(&job, part.file())?;
    let job = job.resumed(part, grid, records, trust);
    transfer.report.counters.bytes_reused.add(job.reused_bytes());
    Ok(job)
}

/// The claims that can be true of a part file as it is, none twice, and none across what is confirmed at a time.
fn usable(mut records: Vec<Record>, part: &Stat) -> Vec<Record> {
    records.sort_unstable_by_key(|record| record.range.start());
    let mut end = 0;
    records.retain(|record| {
        let range = record.range;
        let is_in_segment = range.start() / CONFIRM_BYTES == (range.end() - 1) / CONFIRM_BYTES;
        let is_usable = is_in_segment && range.start() >= end && range.end() <= part.size_bytes();
        if is_usable {
            end = range.end();
        }
        is_usable
    });
    records
}

/// Removes what no file of a complete offer has any use for. Whatever goes wrong with it is no failure of the run.
pub(crate) fn clear(destination: &Destination, path: &RelPath, scope: Scope, since: Timestamp) {
    for parts in destination.parts_dirs() {
        if let Err(error) = clear_dir(&parts, &top_of(path, scope), since) {
            tracing::debug!(%error, "part files of earlier runs are left behind");
        }
    }
}

/// The name that everything offered is beneath, where that is not the destination itself.
fn top_of(path: &RelPath, scope: Scope) -> Option<Name> {
    match scope {
        Scope::Contents => None,
        Scope::Itself => path.split().map(|(_, name)| name),
    }
}

fn clear_dir(parts: &Dir, top: &Option<Name>, since: Timestamp) -> io::Result<()> {
    for bytes in parts.names()? {
        let bytes = bytes?;
        let Ok(name) = Name::new(&bytes) else { continue };
        let part = Journal::part_of(&bytes).map_or_else(|| Ok(name.clone()), Name::new);
        let Ok(part) = part else { continue };
        if newest(parts, &part) < Some(since) && is_beneath(parts, &part, top) {
            tracing::debug!(part = %fastcp_model::Escaped(&bytes), "a leftover of an earlier run is removed");
            parts.remove_file(&name)?;
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
