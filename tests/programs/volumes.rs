//! Destinations of more than one file system, and renames that the kernel refuses (`EXDEV`): mounts, subvolumes of
//! btrfs, and backup directories elsewhere.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::support::Workspace;
use crate::support::client::{Client, Run, contents};
use crate::support::compare::differences;
use crate::support::copied::Copied;
use crate::support::journal::names_in_parts;
use crate::support::mount::{LoopDisk, Overlay, SmallDisk, make_project, make_subvolume};
use crate::support::strace::Strace;
use crate::support::tree::{Tree, noise, set_mtime};
use crate::support::way::{BOTH_WAYS, Route, Way};

/// Files of every way of arriving, in `sub` and beside it, of which a second version replaces the first.
fn version(root: &Path, nth: u64) -> PathBuf {
    let _ = fs::remove_dir_all(root);
    let mut tree = Tree::new(root);
    let noise = |count: usize| noise(count + nth as usize, nth);
    tree.dir("sub").file("sub/small", &noise(5000)).file("sub/large", &noise(3 << 20));
    tree.file("sub/many chunks", &noise(9_000_000)).link("sub/link", format!("version {nth}"));
    tree.file(format!("sub/new in {nth}"), &noise(70_000)).file("beside", &noise(5000));
    tree.sparse("sub/sparse", (4 << 20) + nth as usize, &[(1 << 20, &noise(5000))]);
    tree.finish()
}

/// Panics where the trees differ by more than what is kept for reruns in `sub`.
fn assert_same_but_state(source: &Path, copy: &Path) {
    let mut found = differences(source, copy);
    found.retain(|line| !line.contains("sub/.fastcp"));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

fn bring(route: &Route, copy: &Path, options: &str) -> Run {
    route.bring(copy, &format!("--chunk-kb 64 --conns 2 {options}"))
}

#[test]
fn files_in_a_subvolume_arrive_and_are_replaced() {
    for way in BOTH_WAYS {
        let workspace = Workspace::new();
        let disk = workspace.at("disk");
        let Some(_mounted) = LoopDisk::mount(&disk, &["mkfs.btrfs", "-q"], "loop", 256) else { return };
        let (source, copy) = (workspace.at("source"), disk.join("copy"));
        let route = Route::new(way, &source, &workspace);
        fs::create_dir(&copy).expect("create");
        make_subvolume(&copy.join("sub"));
        for (nth, options) in [(1, "--whole-file"), (2, "--whole-file"), (3, "--no-whole-file")] {
            version(&source, nth);
            let run = bring(&route, &copy, &format!("--delete {options}")).expect_exit(0);
            assert_eq!(run.count("files_failed"), 0);
            assert_same_but_state(&source, &copy);
            assert_eq!(fs::read_dir(copy.join("sub/.fastcp/parts")).expect("made in the subvolume").count(), 0);
            bring(&route, &copy, "").expect_exit(0).expect_counts(&[("bytes_fetched", 0), ("files_committed", 0)]);
            Client::verify(&copy, contents(&source)).run().expect_exit(0);
        }
    }
}

#[test]
fn what_is_below_another_layer_is_replaced_and_removed() {
    for way in BOTH_WAYS {
        let workspace = Workspace::new();
        let Some(_upper) = SmallDisk::mount(&workspace.at("upper"), 64 << 10) else { return };
        let (lower, copy) = (version(&workspace.at("lower"), 1), workspace.at("copy"));
        let Some(_overlay) = Overlay::mount(&copy, &lower, &workspace.at("upper")) else { return };
        for (nth, options) in [(2, "--whole-file"), (3, "--no-whole-file"), (4, "--inplace")] {
            let source = version(&workspace.at("source"), nth);
            let route = Route::new(way, &source, &workspace);
            let run = bring(&route, &copy, &format!("--delete {options}")).expect_exit(0);
            assert_eq!(run.count("files_failed"), 0);
            assert_same_but_state(&source, &copy);
            bring(&route, &copy, "").expect_exit(0).expect_counts(&[("bytes_fetched", 0), ("files_committed", 0)]);
            Client::verify(&copy, contents(&source)).run().expect_differences(&[]);
        }
    }
}

#[test]
fn projects_of_xfs_keep_renames_apart_and_files_arrive() {
    for way in BOTH_WAYS {
        let workspace = Workspace::new();
        let disk = workspace.at("disk");
        let Some(_mounted) = LoopDisk::mount(&disk, &["mkfs.xfs", "-q"], "loop", 320) else { return };
        let (source, copy) = (workspace.at("source"), disk.join("copy"));
        let route = Route::new(way, &source, &workspace);
        fs::create_dir_all(copy.join("sub")).expect("create");
        if !make_project(&copy.join("sub")) {
            return;
        }
        for nth in 1..=2 {
            version(&source, nth);
            // What is pushed leaves its backups below the destination.
            let backups = if way == Way::Pull { "--backup-dir ../bak" } else { "" };
            let run = bring(&route, &copy, &format!("--delete --whole-file {backups}")).expect_exit(0);
            assert_eq!(run.count("files_failed"), 0);
            assert_same_but_state(&source, &copy);
            assert_eq!(names_in_parts(&copy), Vec::<&Path>::new());
        }
        let bak = disk.join("bak/sub/large");
        assert_eq!(bak.exists(), way == Way::Pull);
        assert!(way == Way::Push || bak.metadata().expect("kept").len() == (3 << 20) + 1);
    }
}

#[test]
fn where_a_rename_is_refused_a_copy_gets_the_name() {
    let Some(strace) = Strace::new() else { return };
    for way in BOTH_WAYS {
        // The second of each two renames is that of the copy.
        let strace = strace.clone().fails_at("renameat", "EXDEV", "1+2");
        let workspace = Workspace::new();
        let (source, copy) = (workspace.at("source"), workspace.at("copy"));
        let route = Route::new(way, &source, &workspace).receiver_strace(&strace);
        for durability in ["none", "batch", "file"] {
            for nth in 1..=2 {
                version(&source, nth);
                let options = format!("--chunk-kb 64 --conns 2 --delete --whole-file --durability {durability}");
                let run = route.bring(&copy, &options).expect_exit(0);
                assert!(run.count("files_committed") >= 5);
                assert_same_but_state(&source, &copy);
                assert_eq!(names_in_parts(&copy), Vec::<&Path>::new(), "what was copied from is gone");
            }
        }
    }
}

/// A tree with all that a backup directory may have to take, and a change of each of it.
fn changed_everywhere() -> Copied {
    let copied = Copied::of(|root| {
        let mut tree = Tree::new(root);
        tree.dir("sub")
            .file("sub/replaced", &noise(300_000, 1))
            .link("sub/link", "old")
            .file("sub/deleted", b"deleted");
        tree.sparse("sub/holes", 8 << 20, &[(4 << 20, b"data")]);
        tree.finish()
    });
    let at = |name: &str| copied.source.join("sub").join(name);
    fs::write(at("replaced"), b"new").expect("write");
    fs::remove_file(at("link")).and_then(|()| symlink("new", at("link"))).expect("link");
    fs::remove_file(at("deleted")).and_then(|()| fs::remove_file(at("holes"))).expect("remove");
    let gone = copied.copy.join("gone");
    fs::create_dir(&gone).expect("create");
    symlink("nowhere", gone.join("link")).expect("link");
    nix::unistd::mkfifo(&gone.join("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("pipe");
    fs::write(gone.join("file"), b"extra").expect("write");
    fs::set_permissions(gone.join("file"), Permissions::from_mode(0o741)).expect("chmod");
    set_mtime(&gone.join("file"), 77, 7);
    copied
}

fn assert_all_kept(bak: &Path) {
    assert_eq!(fs::read(bak.join("sub/replaced")).expect("kept"), noise(300_000, 1));
    assert_eq!(fs::read_link(bak.join("sub/link")).expect("kept"), Path::new("old"));
    assert_eq!(fs::read(bak.join("sub/deleted")).expect("kept"), b"deleted");
    let holes = File::open(bak.join("sub/holes")).and_then(|file| file.metadata()).expect("kept");
    assert!(holes.len() == 8 << 20 && holes.blocks() * 512 < 1 << 20, "holes stay holes");
    assert_eq!(fs::read_link(bak.join("gone/link")).expect("kept"), Path::new("nowhere"));
    assert!(bak.join("gone/pipe").symlink_metadata().expect("kept").file_type().is_fifo());
    let file = bak.join("gone/file").metadata().expect("kept");
    assert_eq!((file.mode() & 0o7777, file.mtime(), file.mtime_nsec()), (0o741, 77, 7));
    let left_over = |name: &str| fs::read_dir(bak.join(name)).expect("read").count();
    assert_eq!((left_over("sub"), left_over("gone")), (4, 3), "no unfinished copies");
}

#[test]
fn a_backup_directory_may_be_on_another_file_system() {
    for options in ["", "--durability none"] {
        let copied = changed_everywhere();
        let Some(_disk) = SmallDisk::mount(&copied.workspace.at("disk"), 4096) else { return };
        let bak = copied.workspace.at("disk/bak");
        copied.run(&format!("--delete --backup-dir ../disk/bak {options} -n")).expect_exit(0);
        assert!(!bak.exists());
        let run = copied.run(&format!("--delete --backup-dir ../disk/bak {options}")).expect_exit(0);
        run.expect_counts(&[("files_committed", 1), ("links_made", 1), ("deleted", 6), ("files_failed", 0)]);
        assert_all_kept(&bak);
        assert!(differences(&copied.source, &copied.copy).is_empty());
    }
}

#[test]
fn a_backup_that_cannot_be_renamed_nor_linked_is_copied_within_a_file_system_too() {
    let Some(strace) = Strace::new() else { return };
    let copied = changed_everywhere();
    let bak = copied.workspace.at("bak");
    // Project quotas do this, and keys of encrypted directories. Copies get their names by a rename in one directory.
    let strace = strace.fails("linkat", "EXDEV").fails_at("renameat", "EXDEV", "1+2");
    let pull = Client::pull(contents(&copied.source), &copied.copy).options("--delete --backup-dir ../bak");
    let run = pull.options("--conns 1").strace(&strace).run();
    assert!(run.code == Some(0) || run.code == Some(23), "{}", run.stderr);
    let kept = |name: &str| bak.join(name).symlink_metadata().is_ok();
    assert!(kept("gone/pipe") && kept("gone/link") && kept("gone/file") && kept("sub/deleted"), "{}", run.stderr);
    assert!(!copied.copy.join("gone").exists());
}

#[test]
fn a_copy_that_cannot_be_completed_leaves_the_original() {
    let copied = Copied::of(|root| Tree::new(root).file("kept", b"kept").finish());
    fs::write(copied.copy.join("large"), noise(4 << 20, 1)).expect("write");
    let Some(_disk) = SmallDisk::mount(&copied.workspace.at("disk"), 1024) else { return };
    let run = copied.run("--delete --backup-dir ../disk").expect_exit(11);
    assert!(run.stderr.contains("No space left"), "{}", run.stderr);
    assert_eq!(fs::read(copied.copy.join("large")).expect("kept"), noise(4 << 20, 1));
    assert_eq!(fs::read_dir(copied.workspace.at("disk")).expect("read").count(), 0, "no half of a copy");
}
