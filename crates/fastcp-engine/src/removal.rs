//! Walks what is to go, depth first, and removes it; or counts it, or only tells of it.
//!
//! One walk for all three, so that what `--max-delete` counts and a dry run tells is what a run would
//! remove. Every step goes through a descriptor of the directory and a single name, and no link is
//! followed: a directory that is replaced by a link meanwhile cannot be entered. What is mounted
//! somewhere in it stays, and so do the directories above it. What fails is that entry's failure; the
//! others go on.

use std::io;

use fastcp_model::{Name, RelPath, Timestamp};
use fastcp_sys::{Dir, FileType, Root, Stat};

use crate::destination::Destination;
use crate::error::RunError;
use crate::itemize::{Item, ItemKind};
use crate::owners::Owners;
use crate::reach::ends_everything;
use crate::report::{Cause, Event, Report};
use crate::schedule::Schedule;
use crate::settings::Itemize;

/// What is done about each entry.
#[derive(Clone, Copy)]
pub(crate) enum Deed<'a> {
    /// Nothing is told either.
    Count,
    /// What a removal would tell.
    Preview,
    Remove(&'a Destination),
}

/// A walk.
pub(crate) struct Removal<'a> {
    pub(crate) deed: Deed<'a>,
    pub(crate) owners: &'a Owners,
    pub(crate) report: &'a Report,
    pub(crate) itemize: Itemize,
    /// The backup directory, which stays.
    pub(crate) backup: Option<&'a RelPath>,
    /// Whose stop ends the walk where it is; a dry run has none.
    pub(crate) schedule: Option<&'a Schedule>,
    /// Entries so far.
    pub(crate) count: u64,
}

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Gone,
    /// Something in it has to stay, or failed; that was told.
    Stays,
}

/// An open directory of the destination.
pub(crate) struct Place<'p> {
    dir: &'p Dir,
    path: &'p RelPath,
    mount: u64,
}

/// What was found under a name.
enum Found {
    /// With its own time, which changes as it is emptied, and what it holds.
    Dir(Dir, Timestamp, Vec<Vec<u8>>),
    MountPoint,
    Other,
}

impl Removal<'_> {
    /// Removes `name` and all that is in it.
    pub(crate) fn visit(&mut self, place: &Place<'_>, name: &Name) -> Result<Fate, RunError> {
        let path = match place.path.join(name) {
            Ok(path) => path,
            Err(error) => return self.fail(place.path, io::Error::other(error)),
        };
        let is_stopped = self.schedule.is_some_and(Schedule::is_stopped);
        if is_stopped || self.backup == Some(&path) {
            return Ok(Fate::Stays);
        }
        match self.examine(place, name) {
            Err(source) => self.fail(&path, source),
            Ok(Found::MountPoint) => {
                self.tell_failed(&path, Cause::MountPoint);
                Ok(Fate::Stays)
            }
            Ok(Found::Other) => match self.remove_other(place, name) {
                Err(source) => self.fail(&path, source),
                Ok(()) => Ok(self.gone(path, ItemKind::Other)),
            },
            Ok(Found::Dir(dir, mtime, names)) => {
                let below = Place { dir: &dir, path: &path, mount: place.mount };
                if self.visit_all(&below, &names)? == Fate::Stays {
                    return Ok(Fate::Stays);
                }
                match self.remove_dir(place, name, &path, mtime) {
                    Err(source) => self.fail(&path, source),
                    Ok(()) => Ok(self.gone(path, ItemKind::Dir)),
                }
            }
        }
    }

    /// Empties the directory `name`, which something else is to replace. Like an empty directory that
    /// gives way, it does not count itself.
    pub(crate) fn displace(&mut self, place: &Place<'_>, name: &Name) -> Result<(), RunError> {
        let path = place.path.join(name).unwrap_or_else(|_| place.path.clone());
        if self.backup == Some(&path) {
            return Ok(());
        }
        // Whoever wants the name finds out what else is wrong with it, and says so.
        let Ok(Found::Dir(dir, mtime, names)) = self.examine(place, name) else { return Ok(()) };
        match self.visit_all(&Place { dir: &dir, path: &path, mount: place.mount }, &names)? {
            Fate::Gone => {
                self.remove_dir(place, name, &path, mtime).or_else(|source| self.fail(&path, source).map(drop))
            }
            Fate::Stays => Ok(()),
        }
    }

    fn visit_all(&mut self, place: &Place<'_>, names: &[Vec<u8>]) -> Result<Fate, RunError> {
        let mut all = Fate::Gone;
        for raw in names {
            let fate = match Name::new(raw) {
                Ok(name) => self.visit(place, &name)?,
                Err(error) => self.fail(place.path, io::Error::other(error))?,
            };
            if fate == Fate::Stays {
                all = Fate::Stays;
            }
        }
        Ok(all)
    }

    fn examine(&self, place: &Place<'_>, name: &Name) -> io::Result<Found> {
        if place.dir.stat_name(name)?.file_type != FileType::Dir {
            return Ok(Found::Other);
        }
        let dir = place.dir.dir(name)?;
        if dir.mount_id()? != place.mount {
            return Ok(Found::MountPoint);
        }
        let stat = dir.stat()?;
        let mut names = dir.names()?.collect::<io::Result<Vec<_>>>()?;
        names.sort_unstable();
        if let Deed::Remove(_) = self.deed {
            let_write(&dir, &stat, self.owners)?;
        }
        Ok(Found::Dir(dir, stat.metadata.mtime, names))
    }

    fn remove_other(&self, place: &Place<'_>, name: &Name) -> io::Result<()> {
        match self.deed {
            Deed::Remove(destination) => destination.remove(place.dir, name, place.path),
            Deed::Count | Deed::Preview => Ok(()),
        }
    }

    fn remove_dir(&self, place: &Place<'_>, name: &Name, path: &RelPath, mtime: Timestamp) -> io::Result<()> {
        match self.deed {
            Deed::Remove(destination) => destination.remove_dir(place.dir, name, path, mtime),
            Deed::Count | Deed::Preview => Ok(()),
        }
    }

    fn gone(&mut self, path: RelPath, kind: ItemKind) -> Fate {
        self.count += 1;
        if !matches!(self.deed, Deed::Count) {
            self.report.counters.deleted.add(1);
            if self.itemize == Itemize::Changes {
                self.report.tell(Event::Item(Item::deleted(path, kind)));
            }
        }
        Fate::Gone
    }

    fn fail(&self, path: &RelPath, source: io::Error) -> Result<Fate, RunError> {
        if source.kind() == io::ErrorKind::NotFound {
            // Somebody else removed it.
            return Ok(Fate::Gone);
        }
        if let Deed::Remove(destination) = self.deed
            && ends_everything(&destination.root, path, &source)
        {
            return Err(RunError::Destination { operation: "delete", path: path.to_string(), source });
        }
        self.tell_failed(path, Cause::Destination { operation: "cannot delete", source });
        Ok(Fate::Stays)
    }

    /// Does something in the directory at `path`, if it can still be entered.
    pub(crate) fn enter(
        &mut self,
        root: &Root,
        path: &RelPath,
        work: impl FnOnce(&mut Self, &Place<'_>) -> Result<(), RunError>,
    ) -> Result<(), RunError> {
        match root.dir(path).and_then(|dir| Ok((dir.mount_id()?, dir))) {
            Ok((mount, dir)) => work(self, &Place { dir: &dir, path, mount }),
            Err(source) => self.fail(path, source).map(drop),
        }
    }

    fn tell_failed(&self, path: &RelPath, cause: Cause) {
        if !matches!(self.deed, Deed::Count) {
            self.report.failed(path.clone(), cause);
        }
    }
}

/// Lets the owner of a read-only directory empty it. One that cannot be read fails when it is counted as
/// well as when it is to go: so never more goes than was counted.
fn let_write(dir: &Dir, stat: &Stat, owners: &Owners) -> io::Result<()> {
    if owners.is_root() || stat.metadata.mode & 0o200 != 0 {
        return Ok(());
    }
    fastcp_sys::metadata::set_handle_mode(dir, stat.metadata.mode | 0o200)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc::sync_channel;

    use fastcp_model::{Name, RelPath};

    use super::{Deed, Removal};
    use crate::destination::Destination;
    use crate::owners::Owners;
    use crate::report::Report;
    use crate::schedule::{Bounds, Bundling, Cut, HoldBack, Schedule};
    use crate::settings::Itemize;

    #[test]
    fn a_run_that_was_stopped_removes_nothing_more() {
        let tree = tempfile::tempdir().expect("temporary directory");
        fs::create_dir_all(tree.path().join("gone/below")).expect("create");
        let destination = Destination::open(tree.path()).expect("open");
        let (report, owners) = (Report::new(sync_channel(1).0), Owners::new());
        let schedule = Schedule::new(1, HoldBack::No, Cut::Evenly, Bundling::No, Bounds::default());
        let walk = |deed| {
            let (owners, report, schedule) = (&owners, &report, Some(&schedule));
            let mut removal = Removal { deed, owners, report, itemize: Itemize::No, backup: None, schedule, count: 0 };
            let name = Name::new(b"gone").expect("lawful");
            let entered = removal
                .enter(&destination.root, &RelPath::root(), |removal, place| removal.visit(place, &name).map(drop));
            entered.expect("no failure of all");
            removal.count
        };
        assert_eq!(walk(Deed::Count), 2);
        assert_eq!(report.counters.deleted.now(), 0);
        schedule.stop();
        assert_eq!(walk(Deed::Remove(&destination)), 0);
        assert!(tree.path().join("gone/below").exists());
        assert_eq!(report.counters.files_failed.now(), 0);
    }
}
