//! File systems below the destination that take nothing: what is on them fails by name, everything else arrives.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::Workspace;
use crate::support::client::Run;
use crate::support::compare::assert_same;
use crate::support::mount::{LoopDisk, SmallDisk, limit_subvolume, make_subvolume, set_subvolume_read_only};
use crate::support::strace::Strace;
use crate::support::tree::{Tree, noise};
use crate::support::way::{BOTH_WAYS, Route, Way};

const BELOW_FILES: u64 = 30;

/// Files, a directory, a link and a large file in `below`, and files beside it.
fn source_at(root: &Path) -> PathBuf {
    let mut tree = Tree::new(root);
    tree.dir("beside").dir("below").dir("below/dir").link("below/link", "0");
    for nth in 0..BELOW_FILES - 1 {
        tree.file(format!("below/{nth}"), &noise(20_000, nth)).file(format!("beside/{nth}"), &noise(20_000, nth));
    }
    tree.file("below/large", &noise(6 << 20, 1)).file("beside/large", &noise(6 << 20, 2));
    tree.finish()
}

/// All that is beside arrived, and nothing failed but what is below.
fn expect_beside(run: Run, source: &Path, copy: &Path) -> Run {
    let run = run.expect_exit(23);
    assert_same(&source.join("beside"), &copy.join("beside"));
    let failed = run.paths_of("failed");
    assert!(failed.iter().all(|path| path.starts_with("below")), "{failed:?}");
    run
}

/// A source, and an empty directory for a copy of it.
fn begun(way: Way) -> (Workspace, Route, PathBuf) {
    let workspace = Workspace::new();
    let source = source_at(&workspace.at("source"));
    let route = Route::new(way, &source, &workspace);
    let copy = workspace.at("copy");
    fs::create_dir(&copy).expect("create");
    (workspace, route, copy)
}

/// The trees are the same, but for the directory of part files that a file system has at its top.
fn assert_all_there(route: &Route, copy: &Path) {
    let source = &route.source;
    fs::remove_dir_all(copy.join("below/.fastcp")).expect("remove");
    route.bring(copy, "--dry-run").expect_exit(0).expect_counts(&[("files_wanted", 0)]);
    assert_same(&source.join("below/dir"), &copy.join("below/dir"));
    for name in ["link", "large", "0"] {
        let read = |root: &Path| fs::read(root.join("below").join(name)).expect("read");
        assert!(read(source) == read(copy), "{name}");
    }
}

#[test]
fn a_read_only_mount_below_the_destination_fails_what_is_on_it() {
    for way in BOTH_WAYS {
        let (_workspace, route, copy) = begun(way);
        let Some(disk) = SmallDisk::mount(&copy.join("below"), 32 << 10) else { return };
        fs::write(copy.join("below/extra"), b"not at the source").expect("write");
        fs::write(copy.join("below/0"), b"old").expect("write");
        disk.remount("ro");
        for options in ["", "--chunk-kb 64 --conns 1", "--durability file", "--whole-file --durability none"] {
            let run = route.bring(&copy, options);
            let run = expect_beside(run, &route.source, &copy);
            // Its files, the directory, the link, and itself, whose attributes cannot be set.
            assert_eq!(run.count("files_failed"), BELOW_FILES + 3, "{options}: {}", run.stderr);
            assert!(run.stderr.contains("Read-only file system"), "{}", run.stderr);
        }
        disk.remount("rw");
        route.bring(&copy, "--delete").expect_exit(0);
        assert_all_there(&route, &copy);
        fs::write(copy.join("below/extra"), b"not at the source").expect("write");
        fs::write(copy.join("beside/extra"), b"not at the source").expect("write");
        disk.remount("ro");
        let run = route.bring(&copy, "--delete").expect_exit(23);
        assert!(!copy.join("beside/extra").exists(), "{}", run.stderr);
        assert!(run.paths_of("failed").contains(&"below/extra".to_owned()), "{}", run.stderr);
        drop(disk);
    }
}

#[test]
fn a_full_mount_below_the_destination_fails_what_does_not_fit() {
    for way in BOTH_WAYS {
        let (_workspace, route, copy) = begun(way);
        let Some(disk) = SmallDisk::mount(&copy.join("below"), 512) else { return };
        for options in ["", "--chunk-kb 64 --no-compress"] {
            let run = route.bring(&copy, options);
            let run = expect_beside(run, &route.source, &copy);
            assert!(run.stderr.contains("No space left"), "{}", run.stderr);
        }
        disk.remount("size=64m");
        route.bring(&copy, "").expect_exit(0);
        assert_all_there(&route, &copy);
    }
}

#[test]
fn a_subvolume_below_the_destination_that_is_read_only_or_full_fails_what_is_in_it() {
    for way in BOTH_WAYS {
        let workspace = Workspace::new();
        let source = source_at(&workspace.at("source"));
        let route = Route::new(way, &source, &workspace);
        let Some(_disk) = LoopDisk::mount(&workspace.at("disk"), &["mkfs.btrfs", "-q"], "loop", 256) else { return };
        let copy = workspace.at("disk/copy");
        fs::create_dir(&copy).expect("create");
        make_subvolume(&copy.join("below"));
        set_subvolume_read_only(&copy.join("below"), "true");
        let run = route.bring(&copy, "");
        let run = expect_beside(run, &source, &copy);
        assert!(run.stderr.contains("Read-only file system"), "{}", run.stderr);
        set_subvolume_read_only(&copy.join("below"), "false");
        limit_subvolume(&copy.join("below"), "512k");
        let run = route.bring(&copy, "");
        let run = expect_beside(run, &source, &copy);
        assert!(run.stderr.contains("quota"), "{}", run.stderr);
    }
}

#[test]
fn a_mount_below_the_destination_that_cannot_be_synced_fails_what_is_on_it() {
    let Some(strace) = Strace::new() else { return };
    for way in BOTH_WAYS {
        let (_workspace, route, copy) = begun(way);
        let Some(_disk) = SmallDisk::mount(&copy.join("below"), 32 << 10) else { return };
        let strace =
            strace.clone().fails("syncfs", "EIO").on_path(&copy.join("below")).on_path(&copy.join("below/dir"));
        let route = route.receiver_strace(&strace);
        let run = route.bring(&copy, "");
        let run = expect_beside(run, &route.source, &copy);
        assert_eq!(run.count("files_failed"), BELOW_FILES, "{}", run.stderr);
        assert!(!copy.join("below/large").exists());
    }
}
