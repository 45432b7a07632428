//! The tree at the destination: directories, part files and their journals, names, attributes, backups, the lock.
//!
//! The only place that makes, renames and changes things there, always below a held root and by name in a held directory.
//! Owns the proof that a name hangs on (`proof.rs`).
//!
//! May import: content, filter.
//! Never decides what is to be copied, and knows nothing of schedules.

pub(crate) mod across;
pub(crate) mod attributes;
pub(crate) mod backup;
pub(crate) mod backup_dirs;
pub(crate) mod destination;
pub(crate) mod destination_path;
pub(crate) mod dirs;
pub(crate) mod journal;
pub(crate) mod kept_times;
pub(crate) mod lock;
pub(crate) mod naming;
pub(crate) mod owners;
pub(crate) mod part;
pub(crate) mod proof;
pub(crate) mod protection;
pub(crate) mod reach;
pub(crate) mod read_back;
pub(crate) mod volume;
