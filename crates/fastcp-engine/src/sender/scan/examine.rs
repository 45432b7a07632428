//! What an entry of a directory is, in the words of an offer.

use std::io;

use fastcp_model::{EntryKind, Escaped, Metadata, NAME_BYTES_MAX, Name, SpecialKind, Status};
use fastcp_sys::{Dir, FileType, Stat};
use fastcp_wire::limits::LINK_TARGET_BYTES_MAX;

use crate::sender::source::status_of;

/// What an entry is; `None` where it vanished since the directory was read.
pub(super) fn examine(dir: &Dir, name: &Name) -> Result<Option<(EntryKind, Metadata)>, Status> {
    let result = dir.stat_name(name).and_then(|stat| Ok((stat, kind_of(dir, name, &stat)?)));
    match result {
        Ok((stat, kind)) => Ok(Some((kind, stat.metadata))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(status_of(&error)),
    }
}

fn kind_of(dir: &Dir, name: &Name, stat: &Stat) -> io::Result<EntryKind> {
    Ok(match stat.file_type {
        FileType::File => {
            let size_bytes = stat.size_bytes();
            EntryKind::File { size_bytes, sparse: stat.allocated_bytes < size_bytes }
        }
        FileType::Dir => EntryKind::Dir,
        FileType::Symlink => {
            let target = dir.read_link(name)?;
            if target.len() > LINK_TARGET_BYTES_MAX {
                return Err(io::Error::from_raw_os_error(nix::libc::ENAMETOOLONG));
            }
            EntryKind::Symlink { target: target.into() }
        }
        FileType::Fifo => EntryKind::Special(SpecialKind::Fifo),
        FileType::Socket => EntryKind::Special(SpecialKind::Socket),
        FileType::CharDevice => EntryKind::Special(SpecialKind::CharDevice),
        FileType::BlockDevice => EntryKind::Special(SpecialKind::BlockDevice),
    })
}

/// A name that cannot be carried, made into one that can be shown.
pub(super) fn shown(raw: &[u8]) -> Name {
    let mut text = Escaped(raw).to_string().replace('/', "\\x2f");
    while text.len() > NAME_BYTES_MAX {
        text.pop();
    }
    Name::new(text.as_bytes()).unwrap_or_else(|_| Name::new(b"?").expect("lawful"))
}
