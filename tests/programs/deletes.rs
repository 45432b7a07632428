//! `--delete` and what guards it: only what the source surely does not have goes, all of it or nothing,
//! through no link and across no mount; and `--backup-dir`, where it goes instead.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::support::client::{Client, contents};
use crate::support::compare::{assert_rsync_agrees, assert_same, differences};
use crate::support::copied::Copied;
use crate::support::extra::{EXTRA, put_extra, refusals};
use crate::support::mount::SmallDisk;
use crate::support::tree::{Tree, everything, noise, plain, set_mtime};
use crate::support::way::{BOTH_WAYS, Way};
use crate::support::{NOBODY, Workspace, is_root, say_skipped};

#[test]
fn what_the_source_does_not_have_goes_and_nothing_else() {
    for way in BOTH_WAYS {
        let copied = Copied::by(way, |root| everything(root).finish());
        let elsewhere = plain(&copied.workspace.at("elsewhere"));
        let before = copied.workspace.at("before");
        Client::pull(contents(&elsewhere), &before).run().expect_exit(0);
        fs::write(copied.copy.join("many/17x"), b"between others").expect("write");
        fs::write(copied.copy.join("names/new\nline!"), b"odd").expect("write");
        fs::create_dir_all(copied.copy.join("gone/a/b/c")).expect("create");
        fs::write(copied.copy.join("gone/a/b/file"), noise(100_000, 1)).expect("write");
        symlink(&elsewhere, copied.copy.join("gone/a/link out")).expect("link");
        symlink(&elsewhere, copied.copy.join("link out")).expect("link");
        symlink(&elsewhere, copied.copy.join("links/nowhere, extra")).expect("link");
        nix::unistd::mkfifo(&copied.copy.join("gone/pipe"), nix::sys::stat::Mode::S_IRWXU).expect("pipe");
        let run = copied.delete("").expect_exit(0);
        run.expect_counts(&[("deleted", 11), ("files_committed", 0), ("bytes_fetched", 0), ("files_failed", 0)]);
        assert_same(&copied.source, &copied.copy);
        assert_rsync_agrees(&copied.source, &copied.copy);
        assert_same(&before, &elsewhere);
        copied.delete("").expect_exit(0).expect_counts(&[("deleted", 0)]);
    }
}

#[test]
fn the_result_is_that_of_rsync() {
    for way in BOTH_WAYS {
        let copied = Copied::with_extra_by(way);
        fs::write(copied.source.join("new"), b"new").expect("write");
        fs::remove_file(copied.source.join("noise")).expect("remove");
        for (path, nth) in [("sub", 5), ("", 6)] {
            set_mtime(&copied.source.join(path), nth, nth);
        }
        let other = copied.workspace.at("other");
        let run = |program: &str, words: &[&str], from: &Path, to: &Path| {
            Command::new(program).args(words).arg(from).arg(to).status()
        };
        assert!(run("cp", &["-a"], &copied.copy, &other).expect("cp runs").success());
        match run("rsync", &["-a", "--delete", "--exclude=/.fastcp"], &contents(&copied.source), &other) {
            Ok(status) => assert!(status.success()),
            Err(error) => return say_skipped(&format!("rsync cannot be asked: {error}")),
        }
        copied.delete("").expect_exit(0).expect_counts(&[("deleted", EXTRA + 1), ("files_committed", 1)]);
        assert_same(&other, &copied.copy);
        assert_same(&copied.source, &copied.copy);
    }
}

#[test]
fn a_directory_listed_in_parts_and_an_offer_that_is_known_lose_nothing() {
    for way in BOTH_WAYS {
        let copied = Copied::by(way, |root| {
            let mut tree = Tree::new(root);
            tree.dir("large");
            for nth in 0..5000 {
                tree.file(format!("large/{:05}", nth * 2), b"");
            }
            tree.finish()
        });
        for run in 0..2 {
            for nth in (0..10_001).step_by(100) {
                File::create(copied.copy.join(format!("large/{nth:05}+"))).expect("create");
            }
            File::create(copied.copy.join("large/ first")).expect("create");
            let run = copied.delete(if run == 0 { "" } else { "--without 0x80" }).expect_exit(0);
            run.expect_counts(&[("deleted", 102), ("files_unchanged", 5000)]);
            assert_same(&copied.source, &copied.copy);
        }
    }
}

#[test]
fn more_names_than_memory_is_for_are_deleted_too() {
    for way in BOTH_WAYS {
        let copied = Copied::by(way, plain);
        for dir in ["a", "b"] {
            fs::create_dir(copied.source.join(dir)).expect("create");
        }
        copied.run("").expect_exit(0);
        for nth in 0..70_000 {
            let dir = if nth % 7 == 0 { "a" } else { "b" };
            File::create(copied.copy.join(format!("{dir}/{nth}"))).expect("create");
        }
        copied.delete("--max-delete 69999").expect_exit(25).expect_counts(&[("deleted", 0)]);
        copied.delete("--max-delete 70000").expect_exit(0).expect_counts(&[("deleted", 70_000)]);
        assert_same(&copied.source, &copied.copy);
    }
}

#[test]
fn a_directory_that_cannot_be_read_at_the_source_keeps_everything() {
    let workspace = Workspace::for_nobody();
    let mut tree = Tree::new(&workspace.at("source"));
    tree.dir("closed").file("closed/file", b"1").dir("sub").file("sub/small", b"2");
    tree.give_to_nobody();
    let source = tree.finish();
    let copy = workspace.at("copy");
    let pull = |options: &str| Client::pull(contents(&source), &copy).options(options).unprivileged(&workspace).run();
    pull("").expect_exit(0);
    put_extra(&copy);
    if is_root() {
        let status = Command::new("chown").args(["-R", &format!("{NOBODY}:{NOBODY}")]).arg(&copy).status();
        assert!(status.expect("chown runs").success());
    }
    fs::set_permissions(source.join("closed"), Permissions::from_mode(0o000)).expect("chmod");
    let run = pull("--delete").expect_exit(23).expect_counts(&[("deleted", 0), ("files_failed", 1)]);
    assert_eq!(refusals(&run), ["source errors"]);
    assert!(run.stderr.contains("not deleting: the source could not be read completely"), "{}", run.stderr);
    assert!(copy.join("extra").exists() && copy.join("closed").exists());
    fs::set_permissions(source.join("closed"), Permissions::from_mode(0o755)).expect("chmod");
    pull("--delete").expect_exit(0).expect_counts(&[("deleted", EXTRA), ("files_committed", 0)]);
    assert_same(&source, &copy);
}

#[test]
fn an_empty_source_empties_nothing_unless_that_is_meant() {
    for itself in [false, true] {
        let copied = Copied::with_extra();
        let (from, copy) = match itself {
            false => (contents(&copied.source), copied.copy.clone()),
            true => (copied.source.clone(), copied.workspace.at("above")),
        };
        fs::create_dir_all(copied.workspace.at("above")).expect("create");
        let top = if itself { copy.join("source") } else { copy.clone() };
        if itself {
            fs::rename(&copied.copy, &top).expect("move");
            // That of an earlier destination is extraneous here.
            fs::remove_dir_all(top.join(".fastcp")).expect("remove");
        }
        fs::remove_dir_all(&copied.source).expect("remove");
        fs::create_dir(&copied.source).expect("create");
        let pull = |options: &str| Client::pull(&from, &copy).options(options).run();
        let run = pull("--delete").expect_exit(23).expect_counts(&[("deleted", 0), ("files_failed", 0)]);
        assert_eq!(refusals(&run), ["empty source"]);
        assert!(run.stderr.contains("--force-empty"), "{}", run.stderr);
        assert!(top.join("gone/below/deep").exists() && top.join("noise").exists());
        pull("--delete --force-empty").expect_exit(0).expect_counts(&[("deleted", EXTRA + 6)]);
        assert_same(&copied.source, &top);
        pull("--delete").expect_exit(0).expect_counts(&[("deleted", 0)]);
    }
}

#[test]
fn what_was_asked_for_by_name_leaves_its_neighbours_alone() {
    let copied = Copied::with_extra();
    let pull = |path: &str| Client::pull(copied.source.join(path), &copied.copy).options("--delete").run();
    pull("noise").expect_exit(0).expect_counts(&[("deleted", 0), ("files_unchanged", 1)]);
    copied.assert_extra_kept();
    pull("sub").expect_exit(0).expect_counts(&[("deleted", 1)]);
    assert!(!copied.copy.join("sub/extra").exists());
    assert!(copied.copy.join("extra").exists() && copied.copy.join("gone/below/deep").exists());
}

#[test]
fn a_limit_lets_all_go_or_nothing() {
    for way in BOTH_WAYS {
        let copied = Copied::with_extra_by(way);
        fs::write(copied.source.join("new"), b"new").expect("write");
        for max in ["0", "5", "46%", "0%"] {
            let run = copied.delete(&format!("--max-delete {max}")).expect_exit(25).expect_counts(&[("deleted", 0)]);
            assert_eq!(refusals(&run), ["max delete"]);
            let message = format!("6 entries would be deleted, more than --max-delete {max} allows");
            assert!(run.stderr.contains(&message), "{}", run.stderr);
            copied.assert_extra_kept();
        }
        assert_eq!(fs::read(copied.copy.join("new")).expect("fetched all the same"), b"new");
        // Six go; seven were offered and there: sub, its two files, noise, empty, link, new.
        copied.delete("--max-delete 47%").expect_exit(0).expect_counts(&[("deleted", EXTRA)]);
        assert_same(&copied.source, &copied.copy);
        copied.delete("--max-delete 0").expect_exit(0).expect_counts(&[("deleted", 0)]);
        put_extra(&copied.copy);
        copied.delete("--max-delete 6").expect_exit(0).expect_counts(&[("deleted", EXTRA)]);
    }
}

#[test]
fn entries_that_did_not_stand_before_do_not_raise_a_share() {
    for way in BOTH_WAYS {
        let copied = Copied::with_extra_by(way);
        for nth in 0..50 {
            fs::create_dir(copied.source.join(format!("new {nth}"))).expect("create");
            fs::write(copied.source.join(format!("new file {nth}")), b"").expect("write");
        }
        copied.delete("--max-delete 49%").expect_exit(25).expect_counts(&[("deleted", 0), ("dirs_made", 50)]);
        copied.delete("--max-delete 49%").expect_exit(0).expect_counts(&[("deleted", EXTRA)]);
    }
}

#[test]
fn a_directory_that_is_not_empty_gives_way_when_deletion_is_asked_for() {
    for way in BOTH_WAYS {
        for put in [
            (|path| fs::write(path, b"small").expect("write")) as fn(&Path),
            |path| fs::write(path, noise(2 << 20, 1)).expect("write"),
            |path| symlink("nowhere", path).expect("link"),
        ] {
            let copied = Copied::by(way, plain);
            fs::create_dir_all(copied.copy.join("sub/a/b")).expect("create");
            fs::remove_dir_all(copied.source.join("sub")).expect("remove");
            put(&copied.source.join("sub"));
            let run = copied.delete("--max-delete 3").expect_exit(25);
            run.expect_counts(&[("deleted", 0), ("files_failed", 1)]);
            assert_eq!(fs::read(copied.copy.join("sub/small")).expect("still there"), b"small");
            copied.delete("--max-delete 4").expect_exit(0).expect_counts(&[("deleted", 4), ("files_failed", 0)]);
            assert_same(&copied.source, &copied.copy);
            copied.delete("").expect_exit(0).expect_counts(&[("deleted", 0), ("files_committed", 0)]);
        }
    }
}

#[test]
fn our_own_files_are_never_deleted() {
    for way in BOTH_WAYS {
        let copied = Copied::with_extra_by(way);
        let part = format!("sub/.fastcp-{}.part", "0123456789abcdef".repeat(2));
        let mut kept = ["", ".journal", ".stale", ".stale.journal"].map(|end| format!("{part}{end}")).to_vec();
        kept.push(".fastcp/own".to_owned());
        for name in &kept {
            fs::write(copied.copy.join(name), b"ours").expect("write");
        }
        copied.delete("").expect_exit(0).expect_counts(&[("deleted", EXTRA)]);
        assert!(kept.iter().all(|name| copied.copy.join(name).exists()));
    }
}

#[test]
fn links_planted_in_the_destination_are_removed_and_not_followed() {
    for way in BOTH_WAYS {
        let copied = Copied::by(way, plain);
        let elsewhere = plain(&copied.workspace.at("elsewhere"));
        let before = copied.workspace.at("before");
        Client::pull(contents(&elsewhere), &before).run().expect_exit(0);
        fs::remove_dir_all(copied.copy.join("sub")).expect("remove");
        symlink(&elsewhere, copied.copy.join("sub")).expect("link");
        symlink(&elsewhere, copied.copy.join("planted")).expect("link");
        fs::create_dir(copied.copy.join("gone")).expect("create");
        symlink("..", copied.copy.join("gone/up")).expect("link");
        copied.delete("").expect_exit(0).expect_counts(&[("deleted", 3)]);
        assert_same(&copied.source, &copied.copy);
        assert_same(&before, &elsewhere);
    }
}

#[test]
fn what_is_deleted_or_replaced_goes_to_the_backup_directory() {
    for (way, option, place) in [
        (Way::Pull, "bak/today", "copy/bak/today"),
        (Way::Push, "bak/today", "copy/bak/today"),
        (Way::Pull, "../elsewhere/bak", "elsewhere/bak"),
    ] {
        let copied = Copied::with_extra_by(way);
        let bak = copied.workspace.at(place);
        let old = fs::read(copied.copy.join("noise")).expect("read");
        let inode = copied.copy.join("noise").metadata().expect("examine").ino();
        fs::set_permissions(copied.copy.join("gone"), Permissions::from_mode(0o710)).expect("chmod");
        set_mtime(&copied.copy.join("gone"), 77, 7);
        fs::write(copied.source.join("noise"), b"changed").expect("write");
        fs::write(copied.source.join("sub/text"), noise(2 << 20, 9)).expect("write");
        fs::remove_file(copied.source.join("link")).expect("remove");
        symlink("elsewhere", copied.source.join("link")).expect("link");
        fs::remove_file(copied.source.join("empty")).expect("remove");
        fs::create_dir(copied.source.join("empty")).expect("create");
        let options = format!("--backup-dir {option}");
        let run = copied.delete(&options).expect_exit(0);
        run.expect_counts(&[("deleted", EXTRA), ("files_committed", 2), ("links_made", 1)]);
        assert_eq!(fs::read(bak.join("noise")).expect("kept"), old);
        assert_eq!(bak.join("noise").metadata().expect("examine").ino(), inode, "not a copy");
        assert_eq!(fs::read(bak.join("sub/extra")).expect("kept"), b"extra in sub");
        assert_eq!(fs::read(bak.join("gone/below/deep")).expect("kept"), b"deep");
        assert_eq!(fs::read_link(bak.join("gone/link")).expect("kept"), Path::new("below"));
        assert_eq!(fs::read_link(bak.join("link")).expect("kept"), Path::new("sub/text"));
        assert_eq!(bak.join("empty").metadata().expect("kept").len(), 0);
        let gone = bak.join("gone").metadata().expect("kept");
        assert_eq!((gone.mode() & 0o7777, gone.mtime(), gone.mtime_nsec()), (0o710, 77, 7));
        // A second time: the backup directory itself stays, and newer backups replace older ones.
        fs::write(copied.source.join("noise"), b"changed again").expect("write");
        fs::remove_dir(copied.source.join("empty")).expect("remove");
        put_extra(&copied.copy);
        fs::write(copied.copy.join("extra"), b"newer").expect("write");
        copied.delete(&options).expect_exit(0).expect_counts(&[("deleted", EXTRA + 1), ("files_committed", 1)]);
        assert_eq!(fs::read(bak.join("noise")).expect("kept"), b"changed");
        assert_eq!(fs::read(bak.join("extra")).expect("kept"), b"newer");
        assert!(bak.join("empty").is_dir(), "an older backup that was a file made way");
        let found = differences(&copied.source, &copied.copy);
        assert!(found.iter().all(|line| line.starts_with("\"bak") && option.starts_with("bak")), "{found:?}");
    }
}

#[test]
fn a_backup_directory_is_lawful_without_deletion_and_keeps_what_a_directory_held() {
    let copied = Copied::of(plain);
    fs::write(copied.source.join("noise"), b"changed").expect("write");
    put_extra(&copied.copy);
    copied.run("--backup-dir ../bak").expect_exit(0).expect_counts(&[("deleted", 0), ("files_committed", 1)]);
    let bak = copied.workspace.at("bak");
    assert_eq!(bak.join("noise").metadata().expect("kept").len(), 300 << 10);
    assert_eq!(fs::read_dir(&bak).expect("read").count(), 1);
    copied.assert_extra_kept();
    fs::remove_dir_all(copied.source.join("sub")).expect("remove");
    fs::write(copied.source.join("sub"), b"a file now").expect("write");
    copied.delete("--backup-dir ../bak").expect_exit(0).expect_counts(&[("deleted", EXTRA + 2)]);
    assert_eq!(fs::read(bak.join("sub/small")).expect("kept"), b"small");
    assert_same(&copied.source, &copied.copy);
}

#[test]
fn a_backup_directory_that_cannot_be_used_is_refused_before_anything_is_done() {
    let copied = Copied::with_extra();
    fs::write(copied.source.join("noise"), b"changed").expect("write");
    symlink("..", copied.copy.join("out")).expect("link");
    for dir in [".", "..", ".fastcp/bak", "out/bak"] {
        let run = copied.delete(&format!("--backup-dir {dir}")).expect_exit(1);
        assert!(run.stderr.contains("backup directory"), "{}", run.stderr);
        copied.assert_extra_kept();
    }
}

#[test]
fn a_mount_point_is_never_deleted_nor_crossed() {
    for way in BOTH_WAYS {
        let copied = Copied::with_extra_by(way);
        let Some(_disk) = SmallDisk::mount(&copied.copy.join("gone/disk"), 1024) else { return };
        fs::write(copied.copy.join("gone/disk/file"), b"mounted").expect("write");
        let run = copied.delete("").expect_exit(23);
        assert_eq!(run.paths_of("failed"), ["gone/disk"]);
        run.expect_counts(&[("deleted", EXTRA - 1), ("files_failed", 1)]);
        assert_eq!(fs::read(copied.copy.join("gone/disk/file")).expect("kept"), b"mounted");
        assert!(!copied.copy.join("gone/below").exists(), "what is not mounted goes");
    }
}

#[test]
fn our_own_directory_on_a_mount_within_the_destination_stays() {
    for way in BOTH_WAYS {
        let copied = Copied::by(way, plain);
        fs::create_dir(copied.source.join("disk")).expect("create");
        fs::create_dir(copied.source.join("sub/.fastcp")).expect("create");
        let Some(_disk) = SmallDisk::mount(&copied.copy.join("disk"), 4096) else { return };
        fs::create_dir_all(copied.copy.join("disk/.fastcp/parts")).expect("create");
        fs::write(copied.copy.join("disk/extra"), b"extra").expect("write");
        copied.delete("").expect_exit(0).expect_counts(&[("deleted", 1)]);
        assert!(copied.copy.join("disk/.fastcp/parts").exists());
        fs::remove_dir(copied.source.join("sub/.fastcp")).expect("remove");
        copied.delete("").expect_exit(0).expect_counts(&[("deleted", 1)]);
        assert!(!copied.copy.join("sub/.fastcp").exists(), "that one was the source's");
    }
}

#[test]
fn an_unprivileged_user_deletes_read_only_directories_of_their_own() {
    let workspace = Workspace::for_nobody();
    let mut tree = Tree::new(&workspace.at("source"));
    tree.dir("kept").mode(0o555).file("kept/file", b"1").dir("kept/gone").mode(0o555);
    tree.file("kept/gone/file", b"2").mode(0o400).dir("kept/gone/closed").mode(0o500);
    tree.give_to_nobody();
    let source = tree.finish();
    let copy = workspace.at("copy");
    let pull = |options: &str| Client::pull(contents(&source), &copy).options(options).unprivileged(&workspace).run();
    pull("").expect_exit(0);
    fs::set_permissions(source.join("kept"), Permissions::from_mode(0o755)).expect("chmod");
    fs::set_permissions(source.join("kept/gone"), Permissions::from_mode(0o755)).expect("chmod");
    fs::remove_dir_all(source.join("kept/gone")).expect("remove");
    fs::set_permissions(source.join("kept"), Permissions::from_mode(0o555)).expect("chmod");
    pull("--delete").expect_exit(0).expect_counts(&[("deleted", 3)]);
    assert_same(&source, &copy);
}

#[test]
fn one_entry_that_cannot_be_deleted_does_not_keep_the_others() {
    let workspace = Workspace::for_nobody();
    let mut tree = Tree::new(&workspace.at("source"));
    tree.file("file", b"1");
    tree.give_to_nobody();
    let source = tree.finish();
    let copy = workspace.at("copy");
    let pull = |options: &str| Client::pull(contents(&source), &copy).options(options).unprivileged(&workspace).run();
    pull("").expect_exit(0);
    if !is_root() {
        return say_skipped("only root can make what another user cannot delete");
    }
    fs::create_dir_all(copy.join("foreign/below")).expect("create");
    fs::write(copy.join("extra"), b"in a directory of their own").expect("write");
    let run = pull("--delete").expect_exit(23);
    assert_eq!(run.paths_of("failed"), ["foreign/below"]);
    run.expect_counts(&[("deleted", 1), ("files_failed", 1)]);
    assert!(copy.join("foreign/below").exists() && !copy.join("extra").exists());
}

#[test]
fn options_that_mean_nothing_alone_are_refused() {
    let copied = Copied::with_extra();
    for options in ["--max-delete 5", "--force-empty", "--delete --max-delete many", "--delete --max-delete 101%"] {
        copied.run(options).expect_exit(1);
        copied.assert_extra_kept();
    }
    Client::get(9, "file", copied.workspace.at("out")).options("--delete").run().expect_exit(1);
}

#[test]
fn what_may_not_be_linked_is_kept_by_renaming_it() {
    if !is_root() {
        return say_skipped("only root can make a file that another user may not link");
    }
    let workspace = Workspace::for_nobody();
    let mut tree = Tree::new(&workspace.at("source"));
    tree.file("file", b"new");
    tree.give_to_nobody();
    let source = tree.finish();
    let copy = workspace.at("copy");
    let pull = |options: &str| Client::pull(contents(&source), &copy).options(options).unprivileged(&workspace).run();
    pull("").expect_exit(0);
    fs::remove_file(copy.join("file")).expect("remove");
    fs::write(copy.join("file"), b"root's").expect("write");
    pull("--backup-dir ../bak").expect_exit(0).expect_counts(&[("files_committed", 1)]);
    assert_eq!(fs::read(workspace.at("bak/file")).expect("kept"), b"root's");
    assert_same(&source, &copy);
}

#[test]
fn what_cannot_be_kept_is_not_replaced() {
    let copied = Copied::of(plain);
    fs::create_dir(copied.source.join("disk")).expect("create");
    fs::write(copied.source.join("disk/file"), b"newer").expect("write");
    fs::create_dir(copied.copy.join("disk")).expect("create");
    fs::write(copied.copy.join("disk/file"), b"old").expect("write");
    fs::write(copied.copy.join("disk/extra"), b"extra").expect("write");
    // Older backups that cannot make way: something is mounted there.
    let tops = ["file", "extra"].map(|name| copied.workspace.at("bak").join("disk").join(name));
    fs::create_dir_all(copied.workspace.at("bak/disk")).expect("create");
    let disks = tops.map(|top| SmallDisk::mount(&top, 1024));
    if disks.iter().any(Option::is_none) {
        return;
    }
    let run = copied.delete("--backup-dir ../bak").expect_exit(23);
    assert_eq!(run.paths_of("failed"), ["disk/extra", "disk/file"]);
    run.expect_counts(&[("deleted", 0), ("files_committed", 0), ("files_failed", 2)]);
    assert_eq!(fs::read(copied.copy.join("disk/file")).expect("kept"), b"old");
    copied.delete("").expect_exit(0).expect_counts(&[("deleted", 1), ("files_committed", 1)]);
}

/// Whoever fills the destination may make a directory as deep as paths can be long.
#[test]
fn a_directory_of_any_depth_goes_with_a_small_stack() {
    for (options, is_displaced) in
        [("--delete", false), ("--delete", true), ("--delete --max-delete 9999", false), ("--delete --dry-run", false)]
    {
        let copied = Copied::of(plain);
        fs::create_dir_all(copied.copy.join("gone").join("d/".repeat(1900))).expect("create");
        if is_displaced {
            fs::write(copied.source.join("gone"), b"a file now").expect("write");
        }
        Client::pull(contents(&copied.source), &copied.copy)
            .options(options)
            .under(&["prlimit", "--stack=524288"])
            .run()
            .expect_exit(0)
            .expect_counts(&[("deleted", if is_displaced { 1900 } else { 1901 })]);
        assert_eq!(copied.copy.join("gone").is_dir(), options.contains("dry"), "{options}");
    }
}
