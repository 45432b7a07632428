//! Which directories below a destination hold backups: not of the source, and so neither compared, nor deleted, nor
//! replaced by what the source has under the same name.
//!
//! Only the run that keeps a backup is told where its directory is. So the path is noted in `.fastcp/backups`, each
//! with a NUL behind it, before the first entry goes there, and every later run and `verify` read it. A directory
//! that has gone is no backup directory any more. A note that cannot be made or read costs nothing but this.

use std::io::{self, Read, Write};

use fastcp_model::{Name, RelPath, STATE_DIR};
use fastcp_sys::{Dir, FileType, Root};

const NOTE_NAME: &[u8] = b"backups";
/// What is read of the note at most.
const NOTE_BYTES_MAX: u64 = 1 << 20;

/// The backup directories of one destination.
#[derive(Debug, Default, Clone)]
pub(crate) struct BackupDirs {
    paths: Vec<RelPath>,
    /// The same, as the directory above each and its name there.
    places: Vec<(RelPath, Name)>,
}

impl BackupDirs {
    /// Those that earlier runs noted, and the one of this run.
    pub(crate) fn of(root: Option<&Root>, current: Option<&RelPath>) -> Self {
        let mut paths = root.map_or_else(Vec::new, noted);
        paths.extend(current.cloned());
        paths.sort_unstable();
        paths.dedup();
        let places = paths.iter().filter_map(RelPath::split).collect();
        Self { paths, places }
    }

    /// Whether one of them has the name `name` in the directory at `above`.
    pub(crate) fn has(&self, above: &RelPath, name: &Name) -> bool {
        self.places.iter().any(|(dir, own)| own == name && dir == above)
    }

    /// Whether one of them is at this path or below it.
    pub(crate) fn has_below(&self, path: &RelPath) -> bool {
        let is_below = |own: &RelPath| own.as_bytes().strip_prefix(path.as_bytes()).is_some_and(is_end_of_name);
        self.paths.iter().any(is_below)
    }

    /// Whether one of them is at this path.
    pub(crate) fn has_path(&self, path: &RelPath) -> bool {
        self.paths.contains(path)
    }
}

fn is_end_of_name(rest: &[u8]) -> bool {
    rest.is_empty() || rest.starts_with(b"/")
}

/// Notes a backup directory in the state directory, unless that has been done.
pub(crate) fn note(state: &Dir, path: &RelPath) -> io::Result<()> {
    let name = note_name();
    let mut file = match state.create_file(&name) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => state.open_own_file(&name)?,
        result => result?,
    };
    let mut bytes = Vec::new();
    (&file).take(NOTE_BYTES_MAX).read_to_end(&mut bytes)?;
    if paths_in(&bytes).any(|noted| noted == *path) {
        return Ok(());
    }
    let torn = if bytes.last().is_none_or(|last| *last == 0) { &b""[..] } else { b"\0" };
    file.write_all(&[torn, path.as_bytes(), b"\0"].concat())
}

fn noted(root: &Root) -> Vec<RelPath> {
    let mut bytes = Vec::new();
    let read = root
        .dir(&RelPath::root())
        .and_then(|top| top.own_dir(&Name::new(STATE_DIR).map_err(io::Error::other)?))
        .and_then(|state| state.open_own_file(&note_name()))
        .and_then(|file| file.take(NOTE_BYTES_MAX).read_to_end(&mut bytes));
    if read.is_err() {
        return Vec::new();
    }
    paths_in(&bytes).filter(|path| is_dir(root, path)).collect()
}

fn paths_in(bytes: &[u8]) -> impl Iterator<Item = RelPath> {
    let whole = bytes.split_inclusive(|byte| *byte == 0).filter_map(|path| path.strip_suffix(b"\0"));
    whole.filter(|path| !path.is_empty()).filter_map(|path| RelPath::new(path).ok())
}

fn is_dir(root: &Root, path: &RelPath) -> bool {
    let Some((above, name)) = path.split() else { return false };
    let stat = root.dir(&above).and_then(|dir| dir.stat_name(&name));
    stat.is_ok_and(|stat| stat.file_type == FileType::Dir)
}

fn note_name() -> Name {
    Name::new(NOTE_NAME).expect("our own names are lawful")
}

#[cfg(test)]
mod tests {
    use fastcp_model::{Name, RelPath};
    use fastcp_sys::Root;

    use super::{BackupDirs, note};

    #[test]
    fn what_was_noted_is_found_as_long_as_it_is_there() {
        let tree = tempfile::tempdir().expect("temporary directory");
        let root = Root::open(tree.path()).expect("open");
        let [one, other] = [&b"bak"[..], b"old/bak"].map(|path| RelPath::new(path).expect("lawful"));
        for dir in [".fastcp", "bak", "old/bak"] {
            std::fs::create_dir_all(tree.path().join(dir)).expect("create");
        }
        let state = root.dir(&RelPath::new(b".fastcp").expect("lawful")).expect("open");
        for path in [&one, &other, &one] {
            note(&state, path).expect("noted");
        }
        assert_eq!(std::fs::read(tree.path().join(".fastcp/backups")).expect("read"), b"bak\0old/bak\0");
        // The end of a write that was cut off.
        std::fs::write(tree.path().join(".fastcp/backups"), b"bak\0old/bak\0ba").expect("write");
        let name = Name::new(b"bak").expect("lawful");
        let found = BackupDirs::of(Some(&root), None);
        assert!(found.has(&RelPath::root(), &name) && found.has_path(&other) && found.paths.len() == 2);
        let above = |text: &[u8]| found.has_below(&RelPath::new(text).expect("lawful"));
        assert!(above(b"old") && above(b"old/bak") && !above(b"ol") && !above(b"old/bak/x"));
        std::fs::remove_dir(tree.path().join("bak")).expect("remove");
        assert!(!BackupDirs::of(Some(&root), None).has_path(&one));
        assert!(BackupDirs::of(None, Some(&one)).has_path(&one));
    }
}
