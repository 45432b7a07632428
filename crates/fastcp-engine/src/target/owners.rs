//! Whose a file shall be: the sender's ids, through names, to ours.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use fastcp_model::Metadata;
use fastcp_sys::process;
use fastcp_wire::offer::{OwnerClass, OwnerName};
use nix::unistd::{Group, User};

/// The owners that this process may give, and the mapping learnt from the sender.
///
/// As rsync does: an id goes by its name where both sides know it, else by its number; id 0 stays 0.
/// Only root gives files away; others may choose among their own groups.
#[derive(Debug)]
pub(crate) struct Owners {
    is_root: bool,
    groups: Vec<u32>,
    mapped: RwLock<HashMap<(OwnerClass, u32), u32>>,
}

impl Owners {
    pub(crate) fn new() -> Self {
        Self { is_root: process::is_root(), groups: process::groups(), mapped: RwLock::default() }
    }

    /// Whether permission bits bind this process.
    pub(crate) fn is_root(&self) -> bool {
        self.is_root
    }

    /// Learns a name; ids without one keep their number.
    pub(crate) fn learn(&self, owner: &OwnerName) {
        let Ok(name) = std::str::from_utf8(&owner.name) else { return };
        if owner.id == 0 {
            return;
        }
        let local = match owner.class {
            OwnerClass::User => User::from_name(name).ok().flatten().map(|user| user.uid.as_raw()),
            OwnerClass::Group => Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw()),
        };
        if let Some(local) = local {
            self.mapped.write().unwrap_or_else(PoisonError::into_inner).insert((owner.class, owner.id), local);
        }
    }

    /// The owner and group to set, as far as this process may.
    pub(crate) fn wanted(&self, metadata: &Metadata) -> (Option<u32>, Option<u32>) {
        let mapped = self.mapped.read().unwrap_or_else(PoisonError::into_inner);
        let local = |class, id| mapped.get(&(class, id)).copied().unwrap_or(id);
        let gid = local(OwnerClass::Group, metadata.gid);
        if self.is_root {
            (Some(local(OwnerClass::User, metadata.uid)), Some(gid))
        } else {
            (None, Some(gid).filter(|gid| self.groups.contains(gid)))
        }
    }
}
