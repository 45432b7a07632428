//! Mode, owner and time, set in the one order that keeps them: owner, then mode (a change of owner
//! clears setuid), then time.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use fastcp_model::{Metadata, Name};
use fastcp_sys::{Dir, Stat, metadata};

use crate::target::naming::expect_same;
use crate::target::owners::Owners;

/// Sets everything on a file of ours that is still nameless or in the state directory. Looking first
/// costs less than setting what is right already: each change is one of the file system's journal.
pub(crate) fn set_on_file(file: &File, wanted: &Metadata, owners: &Owners) -> io::Result<()> {
    let now = Stat::of_fd(file)?;
    let new_owner = owner_to_set(&now, wanted, owners);
    if let Some((uid, gid)) = new_owner {
        metadata::set_owner(file, uid, gid)?;
    }
    if mode_must_be_set(&now, wanted, new_owner.is_some()) {
        metadata::set_mode(file, wanted.mode)?;
    }
    metadata::set_mtime(file, wanted.mtime)
}

/// A change of owner clears setuid and setgid.
fn mode_must_be_set(now: &Stat, wanted: &Metadata, has_new_owner: bool) -> bool {
    now.metadata.mode != wanted.mode || (has_new_owner && wanted.mode & 0o6000 != 0)
}

/// Sets what differs on an entry that is in place, a link excepted. Answers whether anything did.
pub(crate) fn mend(handle: impl AsFd, now: &Stat, wanted: &Metadata, owners: &Owners) -> io::Result<bool> {
    let new_owner = owner_to_set(now, wanted, owners);
    if let Some((uid, gid)) = new_owner {
        metadata::set_handle_owner(&handle, uid, gid)?;
    }
    let new_mode = mode_must_be_set(now, wanted, new_owner.is_some());
    if new_mode {
        metadata::set_handle_mode(&handle, wanted.mode)?;
    }
    let new_mtime = now.metadata.mtime != wanted.mtime;
    if new_mtime {
        metadata::set_handle_mtime(&handle, wanted.mtime)?;
    }
    Ok(new_owner.is_some() || new_mode || new_mtime)
}

/// Sets what differs on a symbolic link, which has no mode.
pub(crate) fn mend_link(dir: &Dir, name: &Name, wanted: &Metadata, owners: &Owners) -> io::Result<()> {
    let now = dir.stat_name(name)?;
    if let Some((uid, gid)) = owner_to_set(&now, wanted, owners) {
        let link = dir.handle(name)?;
        expect_same(&link, &now)?;
        metadata::set_handle_owner(link, uid, gid)?;
    }
    if now.metadata.mtime != wanted.mtime {
        metadata::set_link_mtime(dir, name, wanted.mtime)?;
    }
    Ok(())
}

/// Whether a file in place would be changed by [`mend`].
pub(crate) fn differ(now: &Stat, wanted: &Metadata, owners: &Owners) -> bool {
    now.metadata.mode != wanted.mode || owner_to_set(now, wanted, owners).is_some()
}

/// Whether a link in place would be changed by [`mend_link`].
pub(crate) fn link_differs(now: &Stat, wanted: &Metadata, owners: &Owners) -> bool {
    now.metadata.mtime != wanted.mtime || owner_to_set(now, wanted, owners).is_some()
}

/// The owner and group to set, as far as they differ and this process may.
pub(crate) fn owner_to_set(now: &Stat, wanted: &Metadata, owners: &Owners) -> Option<(Option<u32>, Option<u32>)> {
    let (uid, gid) = owners.wanted(wanted);
    let uid = uid.filter(|&uid| uid != now.metadata.uid);
    let gid = gid.filter(|&gid| gid != now.metadata.gid);
    (uid.is_some() || gid.is_some()).then_some((uid, gid))
}
