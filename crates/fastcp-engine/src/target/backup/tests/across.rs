//! Backups on another file system than the destination's.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use fastcp_model::RelPath;
use fastcp_sys::Root;
use tempfile::TempDir;

use super::{Backup, name, path};
use crate::settings::Durability;

/// Two directories, each on a file system of its own, where there are two at hand.
fn two_file_systems() -> Option<[TempDir; 2]> {
    let [here, there] = [std::env::temp_dir(), "/dev/shm".into()].map(|place| tempfile::tempdir_in(place).ok());
    let device = |dir: &TempDir| dir.path().metadata().map(|metadata| metadata.dev()).ok();
    let (here, there) = (here?, there?);
    (device(&here) != device(&there)).then_some([there, here])
}

#[test]
fn what_is_replaced_is_copied_to_another_file_system_and_keeps_its_name() {
    let Some([into, bak]) = two_file_systems() else { return };
    fs::create_dir(into.path().join("a")).expect("create");
    fs::write(into.path().join("a/file"), b"old").expect("write");
    symlink("old", into.path().join("a/link")).expect("link");
    let root = Root::open(into.path()).expect("open");
    let backup = Backup::new(into.path(), bak.path(), Durability::Batch).expect("lawful");
    let dir = root.dir(&path("a")).expect("open");
    for text in ["file", "link"] {
        backup.keep(&root, &dir, &name(text), &path("a")).expect("kept");
    }
    assert_eq!(fs::read(into.path().join("a/file")).expect("read"), b"old");
    assert_eq!(fs::read(bak.path().join("a/file")).expect("read"), b"old");
    assert_eq!(fs::read_link(bak.path().join("a/link")).expect("read"), Path::new("old"));
    assert_eq!(fs::read_dir(bak.path().join("a")).expect("read").count(), 2, "and nothing unfinished");
    // Nothing is there to be kept: the next one is none.
    fs::remove_file(into.path().join("a/file")).expect("remove");
    backup.keep(&root, &dir, &name("file"), &path("a")).expect("nothing to keep");
}

/// Somebody writes to the file as soon as its copy has its name. A copy that has been found to be whole by then is
/// not what is about to be replaced.
#[test]
fn a_backup_of_what_was_written_to_meanwhile_is_none() {
    let Some([into, bak]) = two_file_systems() else { return };
    let (file, copy) = (into.path().join("file"), bak.path().join("file"));
    let root = Root::open(into.path()).expect("open");
    // So that the copy's name is made durable before the file is looked at again, which takes a while.
    let backup = Backup::new(into.path(), bak.path(), Durability::File).expect("lawful");
    let dir = root.dir(&RelPath::root()).expect("open");
    // Who writes may come too late; not each time.
    for _ in 0..500 {
        let _ = fs::remove_file(&copy);
        fs::write(&file, b"old").expect("write");
        let is_over = AtomicBool::new(false);
        let kept = std::thread::scope(|threads| {
            threads.spawn(|| {
                while !copy.exists() && !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
                fs::write(&file, b"newer").expect("write");
            });
            let kept = backup.keep(&root, &dir, &name("file"), &RelPath::root());
            is_over.store(true, Ordering::Relaxed);
            kept
        });
        assert_eq!(fs::read(&file).expect("it stays"), b"newer");
        if kept.is_err() {
            return;
        }
    }
    panic!("what was written meanwhile would be replaced and is kept nowhere");
}
