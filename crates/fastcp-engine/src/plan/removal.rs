//! Walks what is to go, depth first, and removes it; or counts it, or only tells of it.
//!
//! One walk for all three, so that what `--max-delete` counts and a dry run tells is what a run would
//! remove. Every step goes through a descriptor of the directory and a single name, and no link is
//! followed: a directory that is replaced by a link meanwhile cannot be entered. What rules keep stays, too. What is mounted
//! somewhere in it stays, and so do the directories above it. What fails is that entry's failure; the
//! others go on. Whoever fills a destination may make its directories as deep as paths can be long, so the walk keeps a
//! list instead of calling itself.

use std::cell::{RefCell, RefMut};
use std::io;

use fastcp_model::{Name, RelPath, Timestamp};
use fastcp_sys::{Dir, FileType, Root, Stat};

use crate::error::RunError;
use crate::filter::Parent;
use crate::report::{Cause, Event, Item, ItemKind, Report};
use crate::schedule::Schedule;
use crate::settings::Itemize;
use crate::target::backup_dirs::BackupDirs;
use crate::target::destination::Destination;
use crate::target::owners::Owners;
use crate::target::protection::Protection;
use crate::target::reach::ends_everything;

/// What is done about each entry.
#[derive(Clone, Copy)]
pub(crate) enum Action<'a> {
    /// Nothing is told either.
    Count,
    /// What a removal would tell.
    Preview,
    Remove(&'a Destination),
}

/// A walk.
pub(crate) struct Removal<'a> {
    pub(crate) action: Action<'a>,
    pub(crate) owners: &'a Owners,
    pub(crate) report: &'a Report,
    pub(crate) itemize: Itemize,
    /// They stay.
    pub(crate) backups: &'a BackupDirs,
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

/// Directories are held open down to this depth. Further down a directory is closed while what is in it is walked,
/// and opened again if it is still the same, so that no depth takes all descriptors.
const HELD_DEPTH_MAX: usize = 16;

/// A directory of the destination.
pub(crate) struct OpenedDir<'p> {
    /// `None` while it is closed.
    dir: RefCell<Option<Dir>>,
    identity: (u64, u64),
    root: &'p Root,
    path: RelPath,
    /// The rules that stand in it.
    protection: Protection,
    mount: u64,
    depth: usize,
}

impl<'p> OpenedDir<'p> {
    fn new(root: &'p Root, path: RelPath, protection: Protection, dir: Dir) -> io::Result<Self> {
        let (mount, identity) = (dir.mount_id()?, place_of(&dir)?);
        Ok(Self { dir: RefCell::new(Some(dir)), identity, root, path, protection, mount, depth: 0 })
    }

    /// A directory in this one, on the same mount.
    fn below(&self, path: RelPath, dir: Dir) -> io::Result<Self> {
        let identity = place_of(&dir)?;
        let protection = self.protection.enter(&path, Some(self.root), Some(&dir)).map_err(io::Error::other)?;
        let (root, mount, depth) = (self.root, self.mount, self.depth + 1);
        Ok(Self { dir: RefCell::new(Some(dir)), identity, root, path, protection, mount, depth })
    }

    /// The directory, opened again where it was closed.
    fn dir(&self) -> io::Result<RefMut<'_, Dir>> {
        let mut held = self.dir.borrow_mut();
        if held.is_none() {
            let dir = self.root.dir(&self.path)?;
            if place_of(&dir)? != self.identity {
                return Err(io::Error::other("somebody else has replaced the directory"));
            }
            *held = Some(dir);
        }
        RefMut::filter_map(held, Option::as_mut).map_err(|_| io::ErrorKind::NotFound.into())
    }

    /// Nothing is done in it for a while.
    fn let_go(&self) {
        if self.depth >= HELD_DEPTH_MAX {
            self.dir.replace(None);
        }
    }
}

fn place_of(dir: &Dir) -> io::Result<(u64, u64)> {
    dir.stat().map(|stat| (stat.identity.device, stat.identity.inode))
}

/// A directory that is being emptied.
struct Level<'p> {
    name: Name,
    /// Its own, which changes as it is emptied.
    mtime: Timestamp,
    here: OpenedDir<'p>,
    /// What has not been visited yet.
    left: std::vec::IntoIter<Vec<u8>>,
    /// Of all that has been.
    fate: Fate,
}

impl Level<'_> {
    fn note(&mut self, fate: Fate) {
        if fate == Fate::Stays {
            self.fate = Fate::Stays;
        }
    }
}

/// What was found under a name.
enum Examined<'p> {
    Dir(Level<'p>),
    MountPoint,
    Other,
}

/// What a visit has led to so far.
enum Visit<'p> {
    Done(Fate),
    /// A directory, which has to be emptied before it goes.
    Entered(Level<'p>),
}

impl Removal<'_> {
    /// Removes `name` and all that is in it.
    pub(crate) fn visit(&mut self, place: &OpenedDir<'_>, name: &Name) -> Result<Fate, RunError> {
        match self.begin(place, name)? {
            Visit::Done(fate) => Ok(fate),
            Visit::Entered(level) => {
                let emptied = self.empty(level)?;
                self.finish(place, emptied)
            }
        }
    }

    /// Empties the directory `name`, which something else is to replace. Like an empty directory that
    /// gives way, it does not count itself.
    pub(crate) fn displace(&mut self, place: &OpenedDir<'_>, name: &Name) -> Result<(), RunError> {
        let path = place.path.join(name);
        if path.is_too_long() || self.backups.has_path(&path) {
            return Ok(());
        }
        // Whoever wants the name finds out what else is wrong with it, and says so.
        let Ok(Examined::Dir(level)) = self.examine(place, name, &path) else { return Ok(()) };
        let emptied = self.empty(level)?;
        if emptied.fate == Fate::Gone
            && let Err(source) = self.remove_dir(place, &emptied)
        {
            self.fail(&path, source)?;
        }
        Ok(())
    }

    /// Visits all that is in a directory.
    fn empty<'p>(&mut self, top: Level<'p>) -> Result<Level<'p>, RunError> {
        let (mut level, mut above) = (top, Vec::new());
        loop {
            while let Some(raw) = level.left.next() {
                let visit = match Name::new(&raw) {
                    Ok(name) if self.is_kept(&level.here, &name) => Visit::Done(Fate::Stays),
                    Ok(name) => self.begin(&level.here, &name)?,
                    Err(error) => Visit::Done(self.fail(&level.here.path, io::Error::other(error))?),
                };
                match visit {
                    Visit::Done(fate) => level.note(fate),
                    Visit::Entered(below) => above.push(std::mem::replace(&mut level, below)),
                }
            }
            let Some(next) = above.pop() else { return Ok(level) };
            let emptied = std::mem::replace(&mut level, next);
            let fate = self.finish(&level.here, emptied)?;
            level.note(fate);
        }
    }

    /// Whether rules keep something in a directory that is to go.
    fn is_kept(&self, here: &OpenedDir<'_>, name: &Name) -> bool {
        // In doubt.
        !here.protection.is_of_nothing()
            && here.dir().map_or(true, |dir| here.protection.keeps(&dir, &here.path, name, Parent::Goes))
    }

    /// Removes `name`, unless it is a directory: that is entered.
    fn begin<'p>(&mut self, place: &OpenedDir<'p>, name: &Name) -> Result<Visit<'p>, RunError> {
        let path = place.path.join(name);
        if path.is_too_long() {
            // Each level would hold its own, and none could be opened again.
            return self.fail(&place.path, io::Error::from_raw_os_error(nix::libc::ENAMETOOLONG)).map(Visit::Done);
        }
        let is_stopped = self.schedule.is_some_and(Schedule::is_stopped);
        if is_stopped || self.backups.has_path(&path) {
            return Ok(Visit::Done(Fate::Stays));
        }
        let fate = match self.examine(place, name, &path) {
            Ok(Examined::Dir(level)) => return Ok(Visit::Entered(level)),
            Ok(Examined::MountPoint) => {
                self.tell_failed(&path, Cause::MountPoint);
                Fate::Stays
            }
            Ok(Examined::Other) => match self.remove_other(place, name) {
                Ok(()) => self.gone(path, ItemKind::Other),
                Err(source) => self.fail(&path, source)?,
            },
            Err(source) => self.fail(&path, source)?,
        };
        Ok(Visit::Done(fate))
    }

    /// Removes a directory in `place` of which all has been visited.
    fn finish(&mut self, place: &OpenedDir<'_>, emptied: Level<'_>) -> Result<Fate, RunError> {
        if emptied.fate == Fate::Stays {
            return Ok(Fate::Stays);
        }
        match self.remove_dir(place, &emptied) {
            Err(source) => self.fail(&emptied.here.path, source),
            Ok(()) => Ok(self.gone(emptied.here.path, ItemKind::Dir)),
        }
    }

    fn examine<'p>(&self, place: &OpenedDir<'p>, name: &Name, path: &RelPath) -> io::Result<Examined<'p>> {
        let above = place.dir()?;
        if above.stat_name(name)?.file_type != FileType::Dir {
            return Ok(Examined::Other);
        }
        let dir = above.dir(name)?;
        drop(above);
        if dir.mount_id()? != place.mount {
            return Ok(Examined::MountPoint);
        }
        let stat = dir.stat()?;
        let mut names = dir.names()?.collect::<io::Result<Vec<_>>>()?;
        names.sort_unstable();
        if let Action::Remove(_) = self.action {
            let_write(&dir, &stat, self.owners)?;
        }
        place.let_go();
        let here = place.below(path.clone(), dir)?;
        let (mtime, left) = (stat.metadata.mtime, names.into_iter());
        Ok(Examined::Dir(Level { name: name.clone(), mtime, here, left, fate: Fate::Gone }))
    }

    fn remove_other(&self, place: &OpenedDir<'_>, name: &Name) -> io::Result<()> {
        match self.action {
            Action::Remove(destination) => destination.remove(&*place.dir()?, name, &place.path),
            Action::Count | Action::Preview => Ok(()),
        }
    }

    fn remove_dir(&self, place: &OpenedDir<'_>, emptied: &Level<'_>) -> io::Result<()> {
        let Level { name, mtime, here, .. } = emptied;
        match self.action {
            Action::Remove(destination) => destination.remove_dir(&*place.dir()?, name, &here.path, *mtime),
            Action::Count | Action::Preview => Ok(()),
        }
    }

    fn gone(&mut self, path: RelPath, kind: ItemKind) -> Fate {
        self.count += 1;
        if !matches!(self.action, Action::Count) {
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
        if let Action::Remove(destination) = self.action
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
        protection: &Protection,
        work: impl FnOnce(&mut Self, &OpenedDir<'_>) -> Result<(), RunError>,
    ) -> Result<(), RunError> {
        match root.dir(path).and_then(|dir| OpenedDir::new(root, path.clone(), protection.clone(), dir)) {
            Ok(place) => work(self, &place),
            Err(source) => self.fail(path, source).map(drop),
        }
    }

    fn tell_failed(&self, path: &RelPath, cause: Cause) {
        if !matches!(self.action, Action::Count) {
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

    use fastcp_model::{Name, PATH_BYTES_MAX, RelPath};

    use super::{Action, Removal};
    use crate::report::Report;
    use crate::schedule::{Bounds, Bundling, Cut, HoldBack, Schedule};
    use crate::settings::Itemize;
    use crate::target::backup_dirs::BackupDirs;
    use crate::target::destination::Destination;
    use crate::target::destination_path::DestinationPath;
    use crate::target::owners::Owners;
    use crate::target::protection::Protection;

    #[test]
    fn a_run_that_was_stopped_removes_nothing_more() {
        let tree = tempfile::tempdir().expect("temporary directory");
        fs::create_dir_all(tree.path().join("gone/below")).expect("create");
        let destination = Destination::open(&DestinationPath::Typed(tree.path().into())).expect("open");
        let (report, owners) = (Report::new(sync_channel(1).0), Owners::new());
        let schedule = Schedule::new(1, HoldBack::No, Cut::Evenly, Bundling::No, Bounds::default());
        let walk = |action| {
            let (owners, report, schedule) = (&owners, &report, Some(&schedule));
            let mut removal = Removal {
                action,
                owners,
                report,
                itemize: Itemize::No,
                backups: &BackupDirs::default(),
                schedule,
                count: 0,
            };
            let name = Name::new(b"gone").expect("lawful");
            let entered =
                removal.enter(&destination.root, &RelPath::root(), &Protection::default(), |removal, place| {
                    removal.visit(place, &name).map(drop)
                });
            entered.expect("no failure of all");
            removal.count
        };
        assert_eq!(walk(Action::Count), 2);
        assert_eq!(report.counters.deleted.now(), 0);
        schedule.stop();
        assert_eq!(walk(Action::Remove(&destination)), 0);
        assert!(tree.path().join("gone/below").exists());
        assert_eq!(report.counters.files_failed.now(), 0);
    }

    /// What cannot be opened by its path is not gone through: it could be of any depth.
    #[test]
    fn a_directory_that_is_too_deep_to_be_named_is_a_failure() {
        let tree = tempfile::tempdir().expect("temporary directory");
        let destination = Destination::open(&DestinationPath::Typed(tree.path().into())).expect("open");
        let name = Name::new(b"gone").expect("lawful");
        let mut at = destination.root.dir(&RelPath::root()).expect("open");
        for _ in 0..PATH_BYTES_MAX / 5 + 100 {
            at.make_dir(&name).expect("create");
            at = at.dir(&name).expect("enter");
        }
        let (report, owners) = (Report::new(sync_channel(10).0), Owners::new());
        let mut removal = Removal {
            action: Action::Count,
            owners: &owners,
            report: &report,
            itemize: Itemize::No,
            backups: &BackupDirs::default(),
            schedule: None,
            count: 0,
        };
        let entered = removal.enter(&destination.root, &RelPath::root(), &Protection::default(), |removal, place| {
            removal.visit(place, &name).map(drop)
        });
        entered.expect("no failure of all");
        assert!(removal.count <= PATH_BYTES_MAX as u64 / 5 + 1, "{}", removal.count);
        assert_eq!(report.counters.deleted.now(), 0);
    }
}
