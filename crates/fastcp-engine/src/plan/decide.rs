//! What would change about an entry: the destination is looked at and nothing is done.
//!
//! A run decides and then acts (`act.rs`); a dry run only decides. So what a dry run tells cannot
//! differ from what a run would do for any reason but time. An entry of a directory that is new, or
//! would be, costs no look at all.

use std::io;

use fastcp_model::{Entry, EntryKind, Metadata, Name, SpecialKind};
use fastcp_sys::{Dir, FileType, Stat};

use crate::target::attributes;
use crate::target::dirs::Age;
use crate::target::kept_times::KeptTimes;
use crate::target::owners::Owners;

/// The directory that a listing is about, as far as it can be worked in.
pub(crate) enum Ground {
    Open(Dir),
    /// A dry run does not make it.
    ToBeMade,
    /// It cannot be entered; that was told.
    Lost,
}

impl Ground {
    /// The directory, where it is there.
    pub(crate) fn dir(&self) -> Option<&Dir> {
        match self {
            Self::Open(dir) => Some(dir),
            Self::ToBeMade | Self::Lost => None,
        }
    }
}

/// What is to be done about one entry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It is as it shall be.
    Unchanged,
    /// Only its mode, its owner or the time of a link differ.
    Mend(Stat),
    /// It is made, in the place of what is there.
    Make(Option<Stat>),
    /// A directory that is not empty has its name.
    InTheWay,
    /// It is of a kind that is not copied.
    Skip(SpecialKind),
}

/// Decides about an entry that is not a directory.
pub(crate) fn decide(
    ground: &Ground,
    age: Age,
    entry: &Entry,
    owners: &Owners,
    kept_times: &KeptTimes,
) -> io::Result<Decision> {
    if let EntryKind::Special(kind) = entry.kind {
        return Ok(Decision::Skip(kind));
    }
    let (Some(dir), Some(there)) = (ground.dir(), existing(ground, entry, age, kept_times)?) else {
        return Ok(Decision::Make(None));
    };
    let differs = match &entry.kind {
        EntryKind::File { size_bytes, .. } if is_unchanged(&there, *size_bytes, &entry.metadata) => {
            attributes::differ(&there, &entry.metadata, owners)
        }
        EntryKind::Symlink { target } if points_there(dir, &entry.name, &there, target)? => {
            attributes::link_differs(&there, &entry.metadata, owners)
        }
        _ if there.file_type == FileType::Dir && !is_empty(&dir.dir(&entry.name)?)? => return Ok(Decision::InTheWay),
        _ => return Ok(Decision::Make(Some(there))),
    };
    Ok(if differs { Decision::Mend(there) } else { Decision::Unchanged })
}

/// What has the entry's name, where the directory is old enough to hold anything. Its time is the entry's where it
/// is all that is kept of that.
pub(crate) fn existing(ground: &Ground, entry: &Entry, age: Age, kept_times: &KeptTimes) -> io::Result<Option<Stat>> {
    let Some(dir) = ground.dir().filter(|_| age != Age::New) else { return Ok(None) };
    match dir.stat_name(&entry.name) {
        Ok(stat) => Ok(Some(kept_times.as_wanted(dir, stat, entry.metadata.mtime))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// rsync's quick check, to the nanosecond or what is kept of it.
fn is_unchanged(there: &Stat, size_bytes: u64, wanted: &Metadata) -> bool {
    there.file_type == FileType::File && there.size_bytes() == size_bytes && there.metadata.mtime == wanted.mtime
}

fn points_there(dir: &Dir, name: &Name, there: &Stat, target: &[u8]) -> io::Result<bool> {
    Ok(there.file_type == FileType::Symlink && dir.read_link(name)? == target)
}

fn is_empty(dir: &Dir) -> io::Result<bool> {
    Ok(dir.names()?.next().transpose()?.is_none())
}

#[cfg(test)]
mod tests;
