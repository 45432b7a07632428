//! What changes about an entry, in the letters of `rsync --itemize-changes`.
//!
//! Eleven characters, `YXcstpoguax`: how (`>` fetched, `c` made here, `.` only its attributes), what
//! (`f`, `d`, `L`), then a letter for each thing that differs, or `+` for all of them where the entry
//! is new. Source of the format: the manual page rsync(1). Times are compared to the nanosecond, as
//! everywhere in fastcp, or as the destination keeps them (`kept_times.rs`); rsync compares seconds unless it is told `--modify-window=-1`. What fastcp
//! does not preserve (`u`, `a`, `x`) never shows.

use fastcp_model::{EntryKind, Metadata};
use fastcp_sys::{FileType, Stat};

use crate::target::attributes::owner_to_set;
use crate::target::owners::Owners;

/// How an entry changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// Only what is known of it.
    Attributes,
    /// It is made, or fetched.
    Content,
}

/// The letters of a change to an entry of this kind and metadata where `there` is what has its name
/// now. `None` where nothing differs.
pub(crate) fn letters(
    kind: &EntryKind,
    wanted: &Metadata,
    how: How,
    there: Option<&Stat>,
    owners: &Owners,
) -> Option<[u8; 11]> {
    let (letter, own_type) = match kind {
        EntryKind::Dir => (b'd', FileType::Dir),
        EntryKind::Symlink { .. } => (b'L', FileType::Symlink),
        EntryKind::File { .. } | EntryKind::Special(_) => (b'f', FileType::File),
    };
    let first = match (how, own_type) {
        (How::Attributes, _) => b'.',
        (How::Content, FileType::File) => b'>',
        (How::Content, _) => b'c',
    };
    // What was of another kind is gone by the time the entry is made.
    let Some(stat) = there.filter(|stat| stat.file_type == own_type) else {
        let mut all = [b'+'; 11];
        (all[0], all[1]) = (first, letter);
        return Some(all);
    };
    let mut letters = [b'.'; 11];
    (letters[0], letters[1]) = (first, letter);
    letters[2..8].copy_from_slice(&differences(kind, wanted, how, stat, owners));
    let is_same = how == How::Attributes && letters[2..].iter().all(|&letter| letter == b'.');
    (!is_same).then_some(letters)
}

/// The letters `cstpog`.
fn differences(kind: &EntryKind, wanted: &Metadata, how: How, stat: &Stat, owners: &Owners) -> [u8; 6] {
    let now = &stat.metadata;
    let is_link = stat.file_type == FileType::Symlink;
    let new_size = matches!(kind, EntryKind::File { size_bytes, .. } if *size_bytes != stat.size_bytes());
    let (new_owner, new_group) = owner_to_set(stat, wanted, owners).unwrap_or_default();
    let letter = |differs: bool, letter: u8| if differs { letter } else { b'.' };
    [
        letter(is_link && how == How::Content, b'c'),
        letter(new_size, b's'),
        letter(now.mtime != wanted.mtime, b't'),
        letter(!is_link && now.mode != wanted.mode, b'p'),
        letter(new_owner.is_some(), b'o'),
        letter(new_group.is_some(), b'g'),
    ]
}

#[cfg(test)]
mod tests {
    use fastcp_model::{EntryKind, Metadata, Timestamp};
    use fastcp_sys::{FileType, Identity, Stat};

    use super::{How, letters};
    use crate::target::owners::Owners;

    fn metadata() -> Metadata {
        let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        Metadata { mode: 0o644, uid, gid, mtime: Timestamp::new(5, 5).expect("lawful") }
    }

    const DIR: EntryKind = EntryKind::Dir;

    fn file(size_bytes: u64) -> EntryKind {
        EntryKind::File { size_bytes, sparse: false }
    }

    fn link() -> EntryKind {
        EntryKind::Symlink { target: b"t".as_slice().into() }
    }

    fn stat(file_type: FileType, metadata: Metadata) -> Stat {
        let identity = Identity { device: 1, inode: 1, size_bytes: 7, mtime: metadata.mtime, ctime: metadata.mtime };
        Stat { file_type, metadata, identity, allocated_bytes: 0 }
    }

    fn shown(kind: &EntryKind, how: How, there: Option<Stat>) -> String {
        let letters = letters(kind, &metadata(), how, there.as_ref(), &Owners::new());
        letters.map_or_else(String::new, |letters| String::from_utf8_lossy(&letters).into_owned())
    }

    #[test]
    fn new_entries_have_a_plus_for_everything() {
        assert_eq!(shown(&file(7), How::Content, None), ">f+++++++++");
        assert_eq!(shown(&DIR, How::Content, None), "cd+++++++++");
        assert_eq!(shown(&link(), How::Content, None), "cL+++++++++");
        let other_kind = stat(FileType::Symlink, metadata());
        assert_eq!(shown(&file(7), How::Content, Some(other_kind)), ">f+++++++++");
    }

    #[test]
    fn each_difference_has_its_place() {
        let later = Metadata { mtime: Timestamp::new(5, 6).expect("lawful"), ..metadata() };
        assert_eq!(shown(&file(8), How::Content, Some(stat(FileType::File, later))), ">f.st......");
        let wider = Metadata { mode: 0o666, ..metadata() };
        assert_eq!(shown(&file(7), How::Attributes, Some(stat(FileType::File, wider))), ".f...p.....");
        assert_eq!(shown(&file(7), How::Attributes, Some(stat(FileType::File, metadata()))), "");
        assert_eq!(shown(&link(), How::Content, Some(stat(FileType::Symlink, wider))), "cLc........");
        assert_eq!(shown(&link(), How::Attributes, Some(stat(FileType::Symlink, later))), ".L..t......");
        let odd = Metadata { mode: 0o700, ..later };
        assert_eq!(shown(&DIR, How::Attributes, Some(stat(FileType::Dir, odd))), ".d..tp.....");
    }
}
