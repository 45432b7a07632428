//! Removing an older backup that is in the way of a new one.
//!
//! A backup directory may hold trees of any depth, and the one who fills it may be somebody else. So the walk keeps a
//! list instead of calling itself, and one directory open instead of one for each level: up it goes by `..`, which
//! counts only if that leads to the directory that the walk came from. No link is followed. What is mounted below
//! stays, and so do the directories above it.

use std::io;

use fastcp_model::Name;
use fastcp_sys::{Dir, FileType};
use nix::libc::EISDIR;

/// A directory that is being emptied.
struct Level {
    name: Name,
    /// Device and inode.
    place: (u64, u64),
    /// What is still in it.
    left: Vec<Vec<u8>>,
}

impl Level {
    fn of(dir: &Dir, name: Name) -> io::Result<Self> {
        let place = dir.stat()?.place();
        Ok(Self { name, place, left: dir.names()?.collect::<io::Result<_>>()? })
    }
}

/// Removes `name` in `place`, whatever it is, if it is there.
pub(super) fn clear(place: &Dir, name: &Name) -> io::Result<()> {
    match place.remove_file(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.raw_os_error() == Some(EISDIR) => clear_dir(place, name),
        result => result,
    }
}

fn clear_dir(place: &Dir, name: &Name) -> io::Result<()> {
    let mount = place.mount_id()?;
    let mut at = place.dir(name)?;
    if at.mount_id()? != mount {
        return place.remove_dir(name);
    }
    let mut levels = vec![Level::of(&at, name.clone())?];
    while let Some(level) = levels.last_mut() {
        if let Some(raw) = level.left.pop() {
            let name = Name::new(&raw).map_err(io::Error::other)?;
            if let Some(below) = enter_or_remove(&at, &name, mount)? {
                levels.push(Level::of(&below, name)?);
                at = below;
            }
        } else if let Some(emptied) = levels.pop() {
            match levels.last() {
                None => place.remove_dir(&emptied.name)?,
                Some(above) => {
                    at = leave(&at, above.place)?;
                    at.remove_dir(&emptied.name)?;
                }
            }
        }
    }
    Ok(())
}

/// Removes `name`; a directory that is to be emptied first is answered instead.
fn enter_or_remove(at: &Dir, name: &Name, mount: u64) -> io::Result<Option<Dir>> {
    if at.stat_name(name)?.file_type != FileType::Dir {
        return at.remove_file(name).map(|()| None);
    }
    let below = at.dir(name)?;
    if below.mount_id()? == mount { Ok(Some(below)) } else { at.remove_dir(name).map(|()| None) }
}

fn leave(at: &Dir, above: (u64, u64)) -> io::Result<Dir> {
    let dir = at.parent()?;
    if dir.stat()?.place() == above {
        Ok(dir)
    } else {
        Err(io::Error::other("another process has moved the directory meanwhile"))
    }
}
