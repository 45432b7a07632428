//! Destinations that do not keep a time as it is offered: they round it, or have no such year. Run on ext4 with small
//! inodes (whole seconds from 1901 to 2038), and with a kernel that answers so.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::support::client::{Client, Run, contents};
use crate::support::mount::LoopDisk;
use crate::support::strace::Strace;
use crate::support::tree::{Tree, noise, set_mtime};
use crate::support::{Workspace, say_skipped};

/// Files, links and directories with times of all kinds. Those out of range depend on what the source keeps.
fn source(root: &Path) -> PathBuf {
    let mut tree = Tree::new(root);
    tree.dir("dir").mtime(1_600_000_001, 999_999_999);
    tree.file("dir/small", b"small").mtime(1_500_000_000, 1);
    tree.file("large", &noise(300_000, 1)).mtime(1_500_000_001, 500_000_000);
    tree.file("whole second", b"12").mtime(1_400_000_000, 0);
    tree.file("before 1970", b"old").mtime(-5, 7).file("before 1901", b"older").mtime(-3_000_000_000, 7);
    tree.file("after 2038", b"new").mtime(4_000_000_000, 8).dir("dir after 2038").mtime(4_000_000_000, 8);
    tree.link("link", "large").mtime(1_500_000_001, 123_456_789);
    tree.finish()
}

struct Scene {
    source: PathBuf,
    copy: PathBuf,
    _disk: LoopDisk,
    _workspace: Workspace,
}

impl Scene {
    fn new() -> Option<Self> {
        let workspace = Workspace::new();
        let mkfs = ["mkfs.ext4", "-q", "-I", "128"];
        let disk = LoopDisk::mount(&workspace.at("disk"), &mkfs, "loop", 64)?;
        let (source, copy) = (source(&workspace.at("source")), workspace.at("disk/copy"));
        Some(Self { source, copy, _disk: disk, _workspace: workspace })
    }

    fn pull(&self, options: &str) -> Run {
        Client::pull(contents(&self.source), &self.copy).options(options).run()
    }
}

#[test]
fn a_rerun_copies_nothing_and_verify_finds_no_difference() {
    let Some(scene) = Scene::new() else { return };
    scene.pull("").expect_exit(0);
    assert_eq!(scene.copy.join("large").metadata().expect("copied").mtime_nsec(), 0, "rounded");
    let quiet = [("files_unchanged", 6), ("files_committed", 0), ("bytes_fetched", 0), ("links_made", 0)];
    for options in ["-i", "-i -v", "-i --delete"] {
        let run = scene.pull(options).expect_exit(0).expect_counts(&quiet);
        assert!(run.events().iter().all(|event| event["event"] != "item"), "{:?}", run.lines);
        let told = run.stderr.lines().filter(|line| line.contains("rounds or limits times")).count();
        assert_eq!(told, usize::from(options.contains("-v")), "{}", run.stderr);
    }
    let run = scene.pull("-n -i").expect_exit(0);
    assert_eq!(run.count("files_wanted"), 0);
    assert!(run.events().iter().all(|event| event["event"] != "item"), "{:?}", run.lines);
    Client::verify(&scene.copy, contents(&scene.source)).run().expect_differences(&[]);
}

#[test]
fn a_time_that_differs_by_what_is_kept_is_still_a_change() {
    let Some(scene) = Scene::new() else { return };
    scene.pull("").expect_exit(0);
    for (name, secs) in [("large", 1_500_000_002), ("whole second", 1_399_999_999), ("after 2038", 2_147_483_646)] {
        set_mtime(&scene.source.join(name), secs, 999_999_999);
    }
    set_mtime(&scene.source.join("dir"), 1_600_000_000, 999_999_999);
    let differ = [("mtime", "dir"), ("mtime", "large"), ("mtime", "whole second"), ("mtime", "after 2038")];
    Client::verify(&scene.copy, contents(&scene.source)).run().expect_differences(&differ);
    scene.pull("").expect_exit(0).expect_counts(&[("files_committed", 3), ("files_unchanged", 3)]);
    Client::verify(&scene.copy, contents(&scene.source)).run().expect_differences(&[]);
}

#[test]
fn fat_is_said_to_replace_without_care_and_keeps_even_seconds() {
    let Some(strace) = Strace::new() else { return };
    // No FAT can be mounted everywhere: what the kernel says of the file system is changed on its way.
    let strace = strace.inject("fstatfs", "poke_exit=@arg2=444d000000000000");
    let workspace = Workspace::new();
    let (source, copy) = (source(&workspace.at("source")), workspace.at("copy"));
    let pull = || Client::pull(contents(&source), &copy).strace(&strace).run();
    let run = pull().expect_exit(0);
    if !run.stderr.contains("no atomic replacement") {
        return say_skipped("this strace changes no results");
    }
    let round = |name: &str| {
        let metadata = copy.join(name).symlink_metadata().expect("copied");
        set_mtime(&copy.join(name), metadata.mtime() - metadata.mtime().rem_euclid(2), 0);
    };
    ["dir/small", "large", "whole second", "before 1970", "after 2038", "link"].into_iter().for_each(round);
    pull().expect_exit(0).expect_counts(&[("files_committed", 0), ("links_made", 0), ("files_unchanged", 6)]);
    set_mtime(&copy.join("large"), 1_499_999_998, 0);
    pull().expect_exit(0).expect_counts(&[("files_committed", 1), ("files_unchanged", 5)]);
}
