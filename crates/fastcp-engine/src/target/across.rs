//! What is done where the kernel refuses a rename (`EXDEV`): copied beside the target, compared, synced.
//!
//! Between volumes that is always so, but also within one: where project quotas or keys of an encrypted directory
//! differ. Whoever renames tries that first. The original is for the caller to remove, when the copy has its name.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use fastcp_model::{ByteRange, Name};
use fastcp_sys::file::{clone_from, next_data_range, read_range};
use fastcp_sys::{Dir, FileType, Stat, metadata};

use crate::content::crc_runs::combine;
use crate::content::strong_hash::hash_of_name;
use crate::content::zeros::{SLICE_BYTES, crc_of_zeros};
use crate::settings::Durability;
use crate::target::naming::expect_named;

/// Whether a rename or link failed since it cannot leave a volume.
pub(crate) fn is_refused(error: &io::Error) -> bool {
    error.raw_os_error() == Some(nix::libc::EXDEV)
}

/// The name of an unfinished copy in the directory where it is to be called `name`.
pub(crate) fn name_beside(name: &Name) -> Name {
    let hash = hash_of_name(name.as_bytes());
    Name::new(format!(".fastcp-{hash:032x}.part").as_bytes()).expect("our own names are lawful")
}

/// Makes `to`, which is empty, hold what `from` holds, holes included, and shares the bytes where the file system
/// can. Answers the CRC-32 of what was read.
pub(crate) fn copy_bytes(from: &File, to: &File) -> io::Result<u32> {
    let length = Stat::of_fd(from)?.size_bytes();
    if clone_from(to, from)? {
        return crc_of(to);
    }
    to.set_len(length)?;
    walk(from, length, |bytes, offset| to.write_all_at(bytes, offset))
}

/// The CRC-32 of all of a file.
fn crc_of(file: &File) -> io::Result<u32> {
    walk(file, Stat::of_fd(file)?.size_bytes(), |_, _| Ok(()))
}

/// Hands all of a file but its holes to `take`, with the offsets. Answers the CRC-32 of the whole.
fn walk(file: &File, length: u64, mut take: impl FnMut(&[u8], u64) -> io::Result<()>) -> io::Result<u32> {
    let mut slice = vec![0; SLICE_BYTES];
    let (mut crc, mut at) = (0, 0);
    while at < length {
        let rest = ByteRange::new(at, length - at).map_err(io::Error::other)?;
        let data = next_data_range(file, rest)?;
        let (start, end) = data.map_or((length, length), |data| (data.start(), data.end()));
        crc = combine(crc, crc_of_zeros(start - at), start - at);
        at = start;
        if let Some(data) = data {
            read_range(file, data, &mut slice, |bytes| {
                crc = combine(crc, crc32fast::hash(bytes), bytes.len() as u64);
                take(bytes, at)?;
                at += bytes.len() as u64;
                Ok(())
            })?;
        }
        debug_assert_eq!(at, end);
    }
    Ok(crc)
}

/// Gives what `part` holds, of which the CRC-32 is proven, the name `name` in `dir`. `InvalidData` where it holds
/// something else.
pub(crate) fn commit_copy(part: &File, proven: u32, dir: &Dir, name: &Name) -> io::Result<()> {
    let beside = name_beside(name);
    dir.remove_if_there(&beside)?;
    let copy = dir.create_file(&beside)?;
    let committed = prove_copy(part, proven, &copy).and_then(|()| dir.rename(&beside, dir, name));
    if committed.is_err() {
        let _ = dir.remove_file(&beside);
        return committed;
    }
    expect_named(copy, dir, name)
}

fn prove_copy(part: &File, proven: u32, copy: &File) -> io::Result<()> {
    if copy_bytes(part, copy)? != proven {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "crc32 mismatch: the part file is not what was proven"));
    }
    dress(copy, &Stat::of_fd(part)?)?;
    copy.sync_all()
}

/// Makes `name` in `to` what it is in `from`. Nothing may have that name in `to`.
pub(crate) fn copy_entry(from: &Dir, name: &Name, to: &Dir, durability: Durability) -> io::Result<()> {
    let stat = from.stat_name(name)?;
    let beside = name_beside(name);
    to.remove_if_there(&beside)?;
    let made = match stat.file_type {
        FileType::File => copy_file(from, name, to, &beside, durability),
        FileType::Symlink => copy_link(from, name, to, &beside, &stat),
        _ => from.copy_node(name, to, &beside).and_then(|()| dress(to.handle(&beside)?, &stat)),
    };
    let made = made.and_then(|()| to.rename(&beside, to, name));
    if made.is_err() {
        let _ = to.remove_file(&beside);
        return made;
    }
    match durability {
        Durability::None => Ok(()),
        Durability::Batch | Durability::File => to.sync_handle()?.sync_dir(),
    }
}

fn copy_file(from: &Dir, name: &Name, to: &Dir, beside: &Name, durability: Durability) -> io::Result<()> {
    let source = from.open_file(name)?;
    let before = Stat::of_fd(&source)?;
    if before.file_type != FileType::File {
        return Err(io::Error::other("it has become something else"));
    }
    let copy = to.create_file(beside)?;
    let read = copy_bytes(&source, &copy)?;
    if Stat::of_fd(&source)?.identity != before.identity {
        return Err(io::Error::other("it changed while it was copied"));
    }
    if crc_of(&copy)? != read {
        return Err(io::Error::other("the copy is not what was written"));
    }
    dress(&copy, &before)?;
    match durability {
        Durability::None => Ok(()),
        Durability::Batch | Durability::File => copy.sync_all(),
    }
}

fn copy_link(from: &Dir, name: &Name, to: &Dir, beside: &Name, stat: &Stat) -> io::Result<()> {
    to.make_link(&from.read_link(name)?, beside)?;
    let _ = metadata::set_handle_owner(to.handle(beside)?, Some(stat.metadata.uid), Some(stat.metadata.gid));
    metadata::set_link_mtime(to, beside, stat.metadata.mtime)
}

/// Gives a copy the owner, mode and time of its original.
fn dress(handle: impl AsFd, like: &Stat) -> io::Result<()> {
    // Only root gives files away. The mode comes after it, and does without setuid where it is another's.
    let given = metadata::set_handle_owner(&handle, Some(like.metadata.uid), Some(like.metadata.gid));
    let kept = if given.is_ok() { 0o7777 } else { 0o777 };
    metadata::set_handle_mode(&handle, like.metadata.mode & kept)?;
    metadata::set_handle_mtime(&handle, like.metadata.mtime)
}
