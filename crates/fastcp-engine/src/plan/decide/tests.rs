use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use fastcp_model::{Entry, EntryKind, RelPath, SpecialKind};
use fastcp_sys::{FileType, Root};
use tempfile::TempDir;

use super::{Decision, Ground, decide};
use crate::commit::transfer::tests::{metadata, name};
use crate::target::dirs::Age;
use crate::target::kept_times::KeptTimes;
use crate::target::owners::Owners;

/// The time of every entry that is offered, and of what is made here to be the same.
const SECS: i64 = 1000;

fn file(size_bytes: u64) -> EntryKind {
    EntryKind::File { size_bytes, sparse: false }
}

fn link(target: &str) -> EntryKind {
    EntryKind::Symlink { target: target.as_bytes().into() }
}

fn decide_in(ground: &Ground, age: Age, kind: EntryKind, mode: u16) -> Decision {
    let entry = Entry { name: name("entry"), kind, metadata: metadata(mode, SECS) };
    decide(ground, age, &entry, &Owners::new(), &KeptTimes::default()).expect("decided")
}

/// A directory with something of the name `entry`, as `make` makes it.
fn ground(make: impl FnOnce(&Path)) -> (TempDir, Ground) {
    let top = tempfile::tempdir().expect("temporary directory");
    make(&top.path().join("entry"));
    let dir = Root::open(top.path()).and_then(|root| root.dir(&RelPath::root())).expect("open");
    (top, Ground::Open(dir))
}

/// Five bytes with mode 0644, last modified then.
fn write(path: &Path, secs: i64) {
    fs::write(path, b"bytes").expect("write");
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("set");
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(secs.unsigned_abs());
    fs::File::options().write(true).open(path).and_then(|file| file.set_modified(time)).expect("set");
}

/// In few words.
fn word(decision: &Decision) -> &'static str {
    match decision {
        Decision::Unchanged => "unchanged",
        Decision::Mend(_) => "mend",
        Decision::Make(None) => "make",
        Decision::Make(Some(there)) if there.file_type == FileType::Dir => "make in place of a directory",
        Decision::Make(Some(_)) => "replace",
        Decision::InTheWay => "in the way",
        Decision::Skip(_) => "skip",
    }
}

#[test]
fn what_is_there_decides() {
    type Makes = fn(&Path);
    let nothing: Makes = |_| {};
    let same: Makes = |path| write(path, SECS);
    let later: Makes = |path| write(path, SECS + 1);
    let a_link: Makes = |path| symlink("target", path).expect("link");
    let empty_dir: Makes = |path| fs::create_dir(path).expect("create");
    let full_dir: Makes = |path| fs::create_dir_all(path.join("below")).expect("create");
    let cases: [(&str, Makes, EntryKind, u16, &str); 17] = [
        ("nothing, file", nothing, file(5), 0o644, "make"),
        ("nothing, link", nothing, link("target"), 0o777, "make"),
        ("same", same, file(5), 0o644, "unchanged"),
        ("mode", same, file(5), 0o600, "mend"),
        ("length", same, file(6), 0o644, "replace"),
        ("time", later, file(5), 0o644, "replace"),
        ("time and mode", later, file(5), 0o600, "replace"),
        ("file, link", same, link("target"), 0o777, "replace"),
        ("link, file", a_link, file(6), 0o644, "replace"),
        ("link, other link", a_link, link("other"), 0o777, "replace"),
        ("link, same but its time", a_link, link("target"), 0o777, "mend"),
        ("empty directory, file", empty_dir, file(5), 0o644, "make in place of a directory"),
        ("empty directory, link", empty_dir, link("target"), 0o777, "make in place of a directory"),
        ("full directory, file", full_dir, file(5), 0o644, "in the way"),
        ("full directory, link", full_dir, link("target"), 0o777, "in the way"),
        ("file, fifo", same, EntryKind::Special(SpecialKind::Fifo), 0o644, "skip"),
        ("nothing, socket", nothing, EntryKind::Special(SpecialKind::Socket), 0o644, "skip"),
    ];
    for (case, make, kind, mode, wanted) in cases {
        let (_top, ground) = ground(make);
        assert_eq!(word(&decide_in(&ground, Age::Old, kind, mode)), wanted, "{case}");
    }
}

#[test]
fn a_directory_that_is_new_or_not_there_is_not_looked_at() {
    let (_top, open) = ground(|path| write(path, SECS));
    assert_eq!(decide_in(&open, Age::New, file(5), 0o644), Decision::Make(None));
    for ground in [Ground::ToBeMade, Ground::Lost] {
        assert_eq!(decide_in(&ground, Age::Old, file(5), 0o644), Decision::Make(None));
        assert!(ground.dir().is_none());
    }
}

#[test]
fn nothing_is_done_about_what_is_decided() {
    let (top, ground) = ground(|path| fs::create_dir(path).expect("create"));
    for kind in [file(5), link("target"), EntryKind::Special(SpecialKind::Fifo)] {
        decide_in(&ground, Age::Old, kind, 0o600);
    }
    assert!(top.path().join("entry").is_dir());
    assert_eq!(fs::read_dir(top.path()).expect("read").count(), 1);
}
