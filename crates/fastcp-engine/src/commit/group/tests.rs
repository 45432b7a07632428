use std::fs;
use std::sync::Arc;

use super::{Landed, commit_groups, commit_one};
use crate::commit::transfer::Transfer;
use crate::commit::transfer::tests::{Jobs, Stage, root};
use crate::content::content_hash::ContentHash;
use crate::manifest::Record;
use crate::target::dirs::DirState;
use crate::target::part::PartFile;
use crate::target::proof::WholeCrc;

/// A file with these bytes, complete but for its name. `dir` waits for it.
fn landed(transfer: &Transfer<'_>, jobs: &Jobs, name: &str, bytes: &[u8]) -> Landed {
    let job = Arc::new(jobs.job(name, bytes.len() as u64));
    let dir = Arc::new(transfer.destination.root.dir(&jobs.dir.path).expect("open"));
    let place = transfer.destination.part_place(&jobs.dir, &dir, &job.name).expect("a place");
    let part = PartFile::journaled(place, &job.binding()).expect("create");
    part.write_at(bytes, 0).expect("write");
    let crc = crc32fast::hash(bytes);
    let verified = part.seal(crc).verify(WholeCrc::claimed(crc)).expect("equal");
    let part = verified.set_metadata(&job.metadata, transfer.owners).expect("set");
    let record = transfer.manifest.map(|_| Record {
        hash: ContentHash::Xxh3(7),
        size_bytes: bytes.len() as u64,
        mtime: job.metadata.mtime,
        path: job.path(),
    });
    let mount = transfer.destination.mount_of(&dir).expect("a mount");
    Landed { part, job, dir, mount, record }
}

/// The listing of the root is complete: it waits for its files alone.
fn listed(transfer: &Transfer<'_>, dir: &Arc<DirState>) {
    transfer.finisher().release(dir);
}

/// What lies in the directory of part files, in order.
fn parts(stage: &Stage) -> Vec<String> {
    let names = fs::read_dir(stage.at(".fastcp/parts")).expect("read");
    let mut names: Vec<_> = names.map(|entry| entry.expect("entry").file_name().into_string().expect("text")).collect();
    names.sort_unstable();
    names
}

#[test]
fn files_have_their_names_when_their_group_is_committed_and_not_before() {
    let mut stage = Stage::new();
    stage.group_files = 2;
    stage.transfer(|transfer| {
        let (dir, _) = root(transfer);
        let jobs = Jobs::new(&dir);
        for name in ["a", "b"] {
            transfer.groups.add(landed(transfer, &jobs, name, name.as_bytes()));
        }
        listed(transfer, &dir);
        assert!(!stage.at("a").exists() && !stage.at("b").exists());
        assert_eq!(parts(&stage).len(), 4, "two part files and their journals");
        transfer.groups.finish();
        commit_groups(transfer).expect("committed");
    });
    assert_eq!(stage.report.counters.files_committed.now(), 2);
    assert_eq!(fs::read(stage.at("a")).expect("read"), b"a");
    assert_eq!(fs::read(stage.at("b")).expect("read"), b"b");
    assert_eq!(parts(&stage), Vec::<String>::new());
    assert!(stage.report.run.is_root_finished());
}

#[test]
fn every_file_of_many_groups_is_committed_once() {
    let mut stage = Stage::new();
    // Some of the groups are named by several threads, and the last one by one.
    stage.group_files = 70;
    stage.transfer(|transfer| {
        let (dir, _) = root(transfer);
        let jobs = Jobs::new(&dir);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                for number in 0..150 {
                    transfer.groups.add(landed(transfer, &jobs, &number.to_string(), b"some"));
                }
                listed(transfer, &dir);
                transfer.groups.finish();
            });
            commit_groups(transfer).expect("committed");
        });
    });
    assert_eq!(stage.report.counters.files_committed.now(), 150);
    assert_eq!(stage.report.counters.files_failed.now(), 0);
    assert!(stage.report.run.is_root_finished());
    let is_there = |number: u32| fs::read(stage.at(&number.to_string())).is_ok_and(|bytes| bytes == b"some");
    assert!((0..150).all(is_there));
}

#[test]
fn a_file_that_cannot_have_its_name_fails_alone_and_is_not_recorded() {
    let stage = Stage::new().with_manifest();
    fs::create_dir_all(stage.at("b/full")).expect("create");
    stage.transfer(|transfer| {
        let (dir, _) = root(transfer);
        let jobs = Jobs::new(&dir);
        for name in ["a", "b", "c"] {
            transfer.groups.add(landed(transfer, &jobs, name, b"new"));
        }
        listed(transfer, &dir);
        transfer.groups.finish();
        commit_groups(transfer).expect("the run goes on");
        // Records leave with their group, and not at the end of the run.
        let manifest = fs::read_to_string(stage.top.path().join("manifest")).expect("read");
        let paths: Vec<_> = manifest.lines().skip(1).filter_map(|line| line.split(' ').next_back()).collect();
        assert_eq!(paths, ["a", "c"]);
    });
    assert_eq!(stage.failed(), [("b".to_owned(), "failed at the destination")]);
    assert_eq!(stage.report.counters.files_committed.now(), 2);
    assert!(stage.report.run.is_root_finished(), "its directory waits for it no longer");
    assert!(stage.at("b/full").is_dir());
    assert_eq!(parts(&stage).len(), 2, "it may be resumed");
}

#[test]
fn what_is_replaced_is_kept_and_what_is_not_kept_is_not_replaced() {
    for is_refused in [false, true] {
        let mut stage = Stage::new();
        stage.settings.backup_dir = Some(stage.top.path().join("backups"));
        fs::write(stage.at("old"), b"old").expect("write");
        stage.transfer(|transfer| {
            let (dir, _) = root(transfer);
            let mut jobs = Jobs::new(&dir);
            if is_refused {
                fs::write(stage.top.path().join("backups"), b"no directory").expect("write");
            }
            commit_one(transfer, landed(transfer, &jobs, "new", b"new")).expect("committed");
            jobs.replaces = true;
            commit_one(transfer, landed(transfer, &jobs, "old", b"new")).expect("the run goes on");
        });
        assert_eq!(fs::read(stage.at("new")).expect("read"), b"new", "of which there is nothing to keep");
        let now = fs::read(stage.at("old")).expect("read");
        if is_refused {
            assert_eq!(now, b"old");
            assert_eq!(stage.failed(), [("old".to_owned(), "failed at the destination")]);
        } else {
            assert_eq!(now, b"new");
            assert_eq!(fs::read(stage.top.path().join("backups/old")).expect("read"), b"old");
            assert_eq!(fs::read_dir(stage.top.path().join("backups")).expect("read").count(), 1);
        }
        assert_eq!(stage.report.counters.files_committed.now(), if is_refused { 1 } else { 2 });
    }
}
