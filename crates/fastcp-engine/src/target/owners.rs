//! Whose a file shall be: the sender's ids, through names, to ours.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
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
    /// Names so far.
    heard: AtomicUsize,
}

/// The most names of users and groups that one run takes: an offer names each once, and comes again after a lost connection.
const NAMES_MAX: usize = 1 << 20;

/// More names than any tree has owners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooManyNames;

impl Owners {
    pub(crate) fn new() -> Self {
        Self {
            is_root: process::is_root(),
            groups: process::groups(),
            mapped: RwLock::default(),
            heard: AtomicUsize::new(0),
        }
    }

    /// Whether permission bits bind this process.
    pub(crate) fn is_root(&self) -> bool {
        self.is_root
    }

    /// Learns a name; ids without one keep their number.
    ///
    /// # Errors
    /// More names than [`NAMES_MAX`].
    pub(crate) fn learn(&self, owner: &OwnerName) -> Result<(), TooManyNames> {
        if self.heard.fetch_add(1, Ordering::Relaxed) >= NAMES_MAX {
            return Err(TooManyNames);
        }
        let Ok(name) = std::str::from_utf8(&owner.name) else { return Ok(()) };
        if owner.id == 0 {
            return Ok(());
        }
        let local = match owner.class {
            OwnerClass::User => User::from_name(name).ok().flatten().map(|user| user.uid.as_raw()),
            OwnerClass::Group => Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw()),
        };
        if let Some(local) = local.filter(|local| *local != owner.id) {
            self.mapped.write().unwrap_or_else(PoisonError::into_inner).insert((owner.class, owner.id), local);
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use std::sync::PoisonError;

    use fastcp_wire::offer::{OwnerClass, OwnerName};

    use super::{NAMES_MAX, Owners, TooManyNames};

    #[test]
    fn names_are_taken_up_to_a_bound() {
        let owners = Owners::new();
        let named = |id: usize| OwnerName { class: OwnerClass::User, id: id as u32, name: b"nobody-has-it"[..].into() };
        for id in 1..=NAMES_MAX {
            // Nothing is kept of a name that nobody has here, and looking it up takes long.
            let unnamed = OwnerName { name: b"\xff"[..].into(), ..named(id) };
            assert_eq!(owners.learn(&unnamed), Ok(()));
        }
        assert_eq!(owners.learn(&named(1)), Err(TooManyNames));
        assert!(owners.mapped.read().unwrap_or_else(PoisonError::into_inner).is_empty());
    }
}
