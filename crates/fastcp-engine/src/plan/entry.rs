//! Planning one entry: decided, told, counted, and then acted on where there is anybody that acts.

use std::io;
use std::sync::Arc;

use fastcp_model::{Entry, EntryKind, Metadata, RelPath};
use fastcp_sys::{FileType, Stat};
use fastcp_wire::limits::FILE_BYTES_MAX;
use rayon::prelude::*;

use super::{Placed, Planned, Planner};
use crate::error::RunError;
use crate::plan::act::prepare;
use crate::plan::decide::{Decision, Ground, decide, existing};
use crate::plan::itemize::{How, letters};
use crate::report::{Cause, Event, Item, ItemKind};
use crate::settings::Itemize;
use crate::target::dirs::{Age, DirState};

/// Entries of one directory planned on one thread before another is asked to help.
const ENTRIES_PER_THREAD_MIN: usize = 128;

impl Planner<'_> {
    /// The destination itself may be read-only from an earlier run.
    pub(super) fn look_at_root(&self, metadata: &Metadata) -> Result<(), RunError> {
        let path = RelPath::root();
        let opened = self.root.map_or(Ok(None), |root| {
            let dir = root.dir(&path)?;
            Ok(Some((self.kept_times.as_wanted(&dir, dir.stat()?, metadata.mtime), dir)))
        });
        let result = opened.and_then(|there| {
            let stat = there.as_ref().map(|(stat, _)| *stat).filter(|_| self.root_age == Age::Old);
            self.note_dir(metadata, stat.as_ref(), &path);
            match (there, &self.actor) {
                (Some((stat, dir)), Some(_)) => prepare(|| Ok(dir), &stat, metadata, self.owners),
                _ => Ok(()),
            }
        });
        result.or_else(|source| self.fail(&path, "cannot open directory", source))
    }

    /// Decides about a directory, and makes it where it is missing.
    pub(super) fn plan_dir(
        &self,
        parent: &DirState,
        ground: &Ground,
        entry: &Entry,
        path: &RelPath,
    ) -> io::Result<Age> {
        if matches!(ground, Ground::Lost) {
            return Ok(Age::Blocked);
        }
        if self.backups.has(&parent.path, &entry.name) {
            self.report.failed(path.clone(), Cause::BackupDirectory);
            return Ok(Age::Blocked);
        }
        let there = existing(ground, entry, parent.age, self.kept_times)?;
        self.there_before.add(u64::from(there.is_some()));
        let is_there = there.is_some_and(|stat| stat.file_type == FileType::Dir);
        self.report.counters.dirs_wanted.add(u64::from(!is_there));
        self.note_dir(&entry.metadata, there.as_ref(), path);
        match (&self.actor, ground.dir()) {
            (Some(actor), Some(dir)) => actor.make_dir(parent, dir, entry, there.as_ref()),
            _ => Ok(if is_there { Age::Old } else { Age::New }),
        }
    }

    pub(super) fn plan_entries(&self, placed: &Placed) -> Result<Vec<Planned>, RunError> {
        if matches!(placed.ground, Ground::Lost) {
            return Ok(Vec::new());
        }
        let outcomes: Vec<Planned> = placed
            .listing
            .entries
            .par_iter()
            .with_min_len(ENTRIES_PER_THREAD_MIN)
            .filter(|entry| match entry.kind {
                EntryKind::Dir => false,
                EntryKind::File { size_bytes, .. } => self.sizes.admit(size_bytes),
                _ => true,
            })
            .map(|entry| {
                self.count_offered(entry);
                self.plan_entry(&placed.state, &placed.ground, entry)
            })
            .collect::<Result<_, _>>()?;
        Ok(outcomes.into_iter().filter(|outcome| !matches!(outcome, Planned::Settled)).collect())
    }

    fn count_offered(&self, entry: &Entry) {
        if let EntryKind::File { size_bytes, .. } = &entry.kind {
            self.report.counters.files.add(1);
            self.report.counters.bytes_total.add(*size_bytes);
        }
    }

    /// Decides about a file or link, and acts on it.
    pub(super) fn plan_entry(
        &self,
        state: &Arc<DirState>,
        ground: &Ground,
        entry: &Entry,
    ) -> Result<Planned, RunError> {
        if self.backups.has(&state.path, &entry.name) {
            self.report.failed(state.path.join(&entry.name), Cause::BackupDirectory);
            return Ok(Planned::Settled);
        }
        if let Some(cause) = too_large(entry) {
            self.report.failed(state.path.join(&entry.name), cause);
            return Ok(Planned::Settled);
        }
        let result = decide(ground, state.age, entry, self.owners, self.kept_times)
            .map_err(|error| ("cannot examine", error))
            .and_then(|decision| self.carry_out(state, ground, entry, decision));
        match result {
            Ok(outcome) => Ok(outcome),
            Err((operation, source)) => {
                self.fail(&state.path.join(&entry.name), operation, source)?;
                Ok(Planned::Settled)
            }
        }
    }

    fn carry_out(
        &self,
        state: &Arc<DirState>,
        ground: &Ground,
        entry: &Entry,
        decision: Decision,
    ) -> Result<Planned, (&'static str, io::Error)> {
        let counters = &self.report.counters;
        let was_there = !matches!(decision, Decision::Make(None) | Decision::Skip(_));
        self.there_before.add(u64::from(was_there));
        let tell = |how, there| self.tell_entry(state, entry, how, there);
        match &decision {
            Decision::Skip(kind) => {
                counters.special_skipped.add(1);
                let path = state.path.join(&entry.name);
                self.report.tell(Event::Skipped { path, kind: *kind });
                return Ok(Planned::Settled);
            }
            Decision::InTheWay if self.extraneous.is_some() => return Ok(Planned::Displaces(entry.clone())),
            Decision::InTheWay => {
                return Err(("cannot create", io::Error::from_raw_os_error(nix::libc::ENOTEMPTY)));
            }
            Decision::Make(there) => tell(How::Content, there.as_ref()),
            Decision::Mend(there) => tell(How::Attributes, Some(there)),
            Decision::Unchanged => {}
        }
        self.count_decided(entry, &decision);
        let (Some(actor), Some(dir)) = (&self.actor, ground.dir()) else { return Ok(Planned::Settled) };
        let operation = match &entry.kind {
            EntryKind::Symlink { .. } => "cannot create link",
            _ => "cannot replace",
        };
        let job = actor.act(state, dir, entry, decision).map_err(|error| (operation, error))?;
        Ok(job.map_or(Planned::Settled, Planned::Fetch))
    }

    fn count_decided(&self, entry: &Entry, decision: &Decision) {
        let counters = &self.report.counters;
        match (&entry.kind, decision) {
            (_, Decision::Mend(_)) => counters.attributes_changed.add(1),
            (EntryKind::Symlink { .. }, Decision::Make(_)) => counters.links_wanted.add(1),
            _ => {}
        }
        let EntryKind::File { size_bytes, .. } = entry.kind else { return };
        let (files, bytes) = match decision {
            Decision::Make(_) => (&counters.files_wanted, &counters.bytes_wanted),
            _ => (&counters.files_unchanged, &counters.bytes_unchanged),
        };
        files.add(1);
        bytes.add(size_bytes);
    }

    fn tell_entry(&self, state: &DirState, entry: &Entry, how: How, there: Option<&Stat>) {
        if self.itemize == Itemize::Changes {
            self.tell_item(&entry.kind, &entry.metadata, how, there, &state.path.join(&entry.name));
        }
    }

    /// Counts and tells what changes about a directory.
    fn note_dir(&self, wanted: &Metadata, there: Option<&Stat>, path: &RelPath) {
        let is_there = there.is_some_and(|stat| stat.file_type == FileType::Dir);
        let how = if is_there { How::Attributes } else { How::Content };
        if let Some(change) = letters(&EntryKind::Dir, wanted, how, there, self.owners) {
            self.report.counters.attributes_changed.add(u64::from(is_there));
            self.tell_change(change, path, ItemKind::Dir);
        }
    }

    fn tell_item(&self, kind: &EntryKind, wanted: &Metadata, how: How, there: Option<&Stat>, path: &RelPath) {
        if let Some(change) = letters(kind, wanted, how, there, self.owners) {
            self.tell_change(change, path, ItemKind::of(kind));
        }
    }

    fn tell_change(&self, change: [u8; 11], path: &RelPath, kind: ItemKind) {
        if self.itemize == Itemize::Changes {
            self.report.tell(Event::Item(Item { change, path: path.clone(), kind }));
        }
    }
}

/// Why a file is not copied whose size no honest sender would name, however often it is offered.
pub(super) fn too_large(entry: &Entry) -> Option<Cause> {
    match entry.kind {
        EntryKind::File { size_bytes, .. } if size_bytes > FILE_BYTES_MAX => Some(Cause::TooLarge { size_bytes }),
        _ => None,
    }
}
