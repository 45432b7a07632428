//! The tree that a receiver writes to, and where its part files lie.
//!
//! A rename works only within one volume, so part files lie in `.fastcp/parts` at the top of the
//! volume that holds their target: usually the destination's root, else the highest directory of the
//! tree on that volume. It has to be ours, and nobody else may have any right in it: whoever could exchange
//! names there could have his own file committed. Where it cannot be made, or belongs to somebody else, a part
//! file lies beside its target (`naming.rs`).

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use fastcp_model::{Name, RelPath, STATE_DIR, STATE_PARTS, Timestamp};
use fastcp_sys::{Dir, FileSystem, Root, Stat, SyncHandle, Volume};

use crate::content::strong_hash::hash_of_name;
use crate::error::RunError;
use crate::lock::Lock;
use crate::settings::ReceiverSettings;
use crate::target::backup::Backup;
use crate::target::backup_dirs;
use crate::target::destination_path::DestinationPath;
use crate::target::dirs::{Age, DirState};
use crate::target::kept_times::KeptTimes;
use crate::target::naming::{PartPlace, Shelter};
use crate::target::reach::may_reach_others;

/// The destination of a transfer.
#[derive(Debug)]
pub(crate) struct Destination {
    pub(crate) root: Root,
    /// Its path from the root of the file system, or beneath the root that a peer may write to; without a slash in front.
    pub(crate) above: Vec<u8>,
    /// Whether the directory itself was there before.
    pub(crate) age: Age,
    /// How many directories were made for it, itself and those above it.
    pub(crate) made: usize,
    pub(crate) kept_times: KeptTimes,
    backup: Option<Backup>,
    /// Device and inode of the directories of our own.
    own_dirs: RwLock<HashSet<(u64, u64)>>,
    /// Whether it was noted where that is.
    is_backup_noted: OnceLock<()>,
    mounts: Lock<HashMap<Volume, Arc<Mount>>>,
}

/// One mount of the destination, or a subvolume on it.
#[derive(Debug)]
pub(crate) struct Mount {
    /// Opened before the first file is written there.
    pub(crate) sync: SyncHandle,
    /// Whether a file without a name can be given one.
    pub(crate) names_unnamed: bool,
    /// The directory of part files, or `None` where it cannot be made. Made when first needed.
    parts: OnceLock<Option<Arc<Dir>>>,
}

impl Destination {
    /// Opens the directory, made where it is missing.
    pub(crate) fn open(path: &DestinationPath<'_>) -> io::Result<Self> {
        let (root, made) = path.open()?;
        Ok(Self {
            root,
            above: path.below_system_root(),
            age: if made > 0 { Age::New } else { Age::Old },
            made,
            kept_times: KeptTimes::default(),
            backup: None,
            own_dirs: RwLock::default(),
            is_backup_noted: OnceLock::new(),
            mounts: Lock::default(),
        })
    }

    /// The destination at `into` with a directory for what is deleted or replaced.
    pub(crate) fn with_backup(
        mut self,
        into: &DestinationPath<'_>,
        settings: &ReceiverSettings,
    ) -> Result<Self, RunError> {
        if let Some(dir) = &settings.backup_dir {
            let backup = into.backup(dir, settings.durability).inspect_err(|_| into.unmake(self.made))?;
            self.backup = Some(backup);
        }
        Ok(self)
    }

    /// Where deleted and replaced entries go.
    pub(crate) fn backup(&self) -> Option<&Backup> {
        self.backup.as_ref()
    }

    /// Keeps what has the name `name` in `dir`, the directory at `above`, before it is replaced.
    pub(crate) fn keep_backup(&self, dir: &Dir, name: &Name, above: &RelPath) -> io::Result<()> {
        match &self.backup {
            Some(backup) => {
                self.note_backup(backup);
                backup.keep(&self.root, dir, name, above)
            }
            None => Ok(()),
        }
    }

    /// Removes `name`, which is no directory, from `dir`, the directory at `above`.
    pub(crate) fn remove(&self, dir: &Dir, name: &Name, above: &RelPath) -> io::Result<()> {
        match &self.backup {
            Some(backup) => {
                self.note_backup(backup);
                backup.take(&self.root, dir, name, above)
            }
            None => dir.remove_file(name),
        }
    }

    /// Removes an empty directory, the one at `path`, which had this time before it was emptied.
    pub(crate) fn remove_dir(&self, dir: &Dir, name: &Name, path: &RelPath, mtime: Timestamp) -> io::Result<()> {
        if let Some(backup) = &self.backup {
            self.note_backup(backup);
            backup.take_dir(&self.root, path, mtime)?;
        }
        dir.remove_dir(name)
    }

    /// Later runs are to know it.
    fn note_backup(&self, backup: &Backup) {
        self.is_backup_noted.get_or_init(|| {
            let Some(within) = backup.within() else { return };
            if let Err(error) = self.state_dir().and_then(|state| backup_dirs::note(&state, within)) {
                tracing::debug!(%error, "later runs will not know the backup directory");
            }
        });
    }

    /// Where the part file of `name` in `dir` lies: the same place for the same target, run after run.
    pub(crate) fn part_place(&self, dir: &Arc<DirState>, target: &Dir, name: &Name) -> io::Result<PartPlace> {
        let path = dir.path.join(name);
        let hash = hash_of_name(path.as_bytes());
        Ok(match self.parts_dir(dir, target)? {
            Some(parts) => {
                PartPlace { dir: parts, name: lawful_name(&format!("{hash:032x}")), shelter: Shelter::StateDir }
            }
            None => PartPlace {
                dir: Arc::new(self.root.dir(&dir.path)?),
                name: lawful_name(&format!(".fastcp-{hash:032x}.part")),
                shelter: Shelter::Beside,
            },
        })
    }

    /// A directory that is ours alone, made where it is missing.
    fn sub_dir(&self, dir: &Dir, name: &Name) -> io::Result<Dir> {
        let made = match dir.make_dir(name) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => dir.own_dir(name)?,
        };
        self.own_dirs.write().unwrap_or_else(PoisonError::into_inner).insert(made.stat()?.place());
        Ok(made)
    }

    /// Fails for a directory of our own: whoever may rename it could have it take the place of one of the tree, and
    /// get the mode and owner that are meant for that.
    pub(crate) fn expect_not_own(&self, dir: &Stat) -> io::Result<()> {
        let own_dirs = self.own_dirs.read().unwrap_or_else(PoisonError::into_inner);
        if own_dirs.contains(&dir.place()) { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
    }

    /// Our own directory at the root, made where it is missing.
    ///
    /// # Errors
    /// `EPERM` where it belongs to somebody else.
    pub(crate) fn state_dir(&self) -> io::Result<Dir> {
        self.sub_dir(&self.root.dir(&RelPath::root())?, &lawful_name_of(STATE_DIR))
    }

    /// Our own directory at the root.
    pub(crate) fn state_dir_if_there(&self) -> io::Result<Dir> {
        self.root.dir(&RelPath::root())?.own_dir(&lawful_name_of(STATE_DIR))
    }

    /// Looks at what the destination is on, before the first file is written.
    pub(crate) fn look_at_file_system(&self) -> io::Result<()> {
        self.mount_of(&self.root.dir(&RelPath::root())?).map(drop)
    }

    /// The mount that a directory is on.
    pub(crate) fn mount_of(&self, dir: &Dir) -> io::Result<Arc<Mount>> {
        let volume = dir.volume()?;
        let mut mounts = self.mounts.lock();
        if let Some(known) = mounts.get(&volume) {
            return Ok(Arc::clone(known));
        }
        tell_of(FileSystem::of(dir)?);
        let mount =
            Arc::new(Mount { sync: dir.sync_handle()?, names_unnamed: dir.can_link_unnamed(), parts: OnceLock::new() });
        mounts.insert(volume, Arc::clone(&mount));
        Ok(mount)
    }

    /// The directories of part files of all mounts that are known by now, and of the root's in any case.
    pub(crate) fn parts_dirs(&self) -> Vec<Arc<Dir>> {
        let mounts = self.mounts.lock();
        let known = mounts.values().filter_map(|mount| mount.parts.get()?.clone());
        let of_root = self.state_dir_if_there().and_then(|dir| dir.own_dir(&lawful_name_of(STATE_PARTS)));
        known.chain(of_root.map(Arc::new)).collect()
    }

    fn parts_dir(&self, dir: &Arc<DirState>, target: &Dir) -> io::Result<Option<Arc<Dir>>> {
        let mount = self.mount_of(target)?;
        if let Some(made) = mount.parts.get() {
            return Ok(made.clone());
        }
        let top = self.top_of_volume(dir, target.volume()?)?;
        let made = match self.make_parts_dir(&top) {
            Ok(made) => Some(Arc::new(made)),
            Err(error) if may_reach_others(&error) => return Err(error),
            Err(error) => {
                tracing::debug!(%error, path = %top, "part files are created beside their targets");
                None
            }
        };
        Ok(mount.parts.get_or_init(|| made).clone())
    }

    fn top_of_volume(&self, dir: &Arc<DirState>, volume: Volume) -> io::Result<RelPath> {
        let mut top = dir;
        while let Some(above) = top.parent() {
            if self.root.dir(&above.path)?.volume()? != volume {
                break;
            }
            top = above;
        }
        Ok(top.path.clone())
    }

    fn make_parts_dir(&self, top: &RelPath) -> io::Result<Dir> {
        let state = self.sub_dir(&self.root.dir(top)?, &lawful_name_of(STATE_DIR))?;
        self.sub_dir(&state, &lawful_name_of(STATE_PARTS))
    }
}

/// Says what a file system cannot do of what is promised of others.
fn tell_of(file_system: FileSystem) {
    if !file_system.replaces_atomically() {
        tracing::warn!(
            ?file_system,
            "no atomic replacement here: a crash while a file gets its name may lose both versions"
        );
    }
}

fn lawful_name(text: &str) -> Name {
    lawful_name_of(text.as_bytes())
}

pub(crate) fn lawful_name_of(bytes: &[u8]) -> Name {
    Name::new(bytes).expect("our own names are lawful")
}
