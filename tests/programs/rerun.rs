//! The second run: what is there already costs nothing, what changed costs itself, and whatever stands
//! in the way is replaced, or named, but never followed.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::support::client::{Client, Run, contents};
use crate::support::compare::{assert_rsync_agrees, assert_same, files_and_bytes};
use crate::support::copied::Copied;
use crate::support::server::Server;
use crate::support::stage::Stage;
use crate::support::tree::{Tree, everything, noise, plain, set_mtime, text};
use crate::support::valve::Kind;
use crate::support::way::{BOTH_WAYS, Way};
use crate::support::{NOBODY, Workspace, is_root};

const NOTHING_DONE: [(&str, u64); 7] = [
    ("bytes_fetched", 0),
    ("files_committed", 0),
    ("files_failed", 0),
    ("links_made", 0),
    ("dirs_made", 0),
    ("chunks_refetched", 0),
    ("exit", 0),
];

impl Copied {
    fn plain() -> Self {
        Self::plain_by(Way::Pull)
    }

    fn plain_by(way: Way) -> Self {
        Self::by(way, plain)
    }

    /// A rerun after which the copy is equal again.
    fn run_and_compare(&self) -> Run {
        let run = self.run("").expect_exit(0);
        assert_same(&self.source, &self.copy);
        assert_rsync_agrees(&self.source, &self.copy);
        run
    }
}

#[test]
fn nothing_changed_means_nothing_done() {
    for way in BOTH_WAYS {
        let copied = Copied::by(way, |root| everything(root).finish());
        let (files, _) = files_and_bytes(&copied.source);
        let run = copied.run_and_compare().expect_counts(&NOTHING_DONE);
        assert_eq!(run.count("files_unchanged"), files);
        assert!(run.count("bytes_wire_in") < 64 << 10, "no bodies on the wire");
        let server = Server::start(&copied.source);
        let run = Client::pull(server.url(""), &copied.copy).options("--conns 64").run();
        run.expect_exit(0).expect_counts(&NOTHING_DONE);
    }
}

#[test]
fn one_changed_file_is_all_that_is_fetched() {
    for way in BOTH_WAYS {
        let copied = Copied::by(way, |root| everything(root).finish());
        let changed = noise(123_456, 77);
        fs::write(copied.source.join("many/17"), &changed).expect("write");
        copied.run_and_compare().expect_counts(&[
            ("bytes_fetched", 123_456),
            ("files_committed", 1),
            ("links_made", 0),
        ]);
        copied.run_and_compare().expect_counts(&NOTHING_DONE);
    }
}

#[test]
fn a_large_file_that_grew_or_shrank_is_replaced_whole() {
    for way in BOTH_WAYS {
        let copied = Copied::plain_by(way);
        for size in [3 << 20, (1 << 20) + 1, 1 << 20, 5, 0] {
            fs::write(copied.source.join("noise"), noise(size, size as u64)).expect("write");
            let counts = [("bytes_fetched", size as u64), ("files_committed", 1)];
            copied.run_and_compare().expect_counts(&counts);
        }
    }
}

#[test]
fn the_same_size_with_another_time_is_fetched_anew() {
    let copied = Copied::plain();
    let path = copied.source.join("noise");
    let size = path.metadata().expect("examine").len();
    set_mtime(&path, 1_600_000_000, 1);
    copied.run_and_compare().expect_counts(&[("bytes_fetched", size), ("files_committed", 1)]);
    set_mtime(&path, 1_600_000_000, 2);
    copied.run_and_compare().expect_counts(&[("bytes_fetched", size), ("files_committed", 1)]);
}

#[test]
fn an_unchanged_tree_is_not_offered_again() {
    let workspace = Workspace::new();
    let mut tree = Tree::new(&workspace.at("source"));
    for dir in 0..100 {
        tree.dir(format!("dir {dir}"));
        for file in 0..50 {
            let number = (dir * 50 + file) as u64;
            tree.file(format!("dir {dir}/{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15)), b"");
        }
    }
    let source = tree.finish();
    let copy = workspace.at("copy");
    let server = Server::start(&source);
    let pull = |options: &str| Client::pull(server.url(""), &copy).options(options).run().expect_exit(0);
    pull("");
    let unchanged = pull("").expect_counts(&[("files_unchanged", 5000), ("bytes_fetched", 0)]);
    let offered = pull("--without 0x80").expect_counts(&[("files_unchanged", 5000)]);
    assert!(unchanged.count("bytes_wire_in") < offered.count("bytes_wire_in") / 10);
    fs::write(source.join("dir 7/new"), b"new").expect("write");
    pull("").expect_counts(&[("files_committed", 1), ("files_unchanged", 5000)]);
    assert_same(&source, &copy);
    fs::write(copy.join(".fastcp/tree"), b"FCPTREE1 damaged").expect("write");
    pull("").expect_counts(&[("files_unchanged", 5001)]);
    assert_same(&source, &copy);
}

#[test]
fn what_is_kept_of_an_offer_may_vanish_while_it_is_used() {
    let stage = Stage::new(|tree| {
        for dir in 0..40 {
            tree.dir(format!("dir {dir}"));
            for file in 0..200u64 {
                tree.file(format!("dir {dir}/{:016x}", file.wrapping_mul(0x9e37_79b9_7f4a_7c15 + dir)), b"");
            }
        }
    });
    stage.client("").run().expect_exit(0);
    let kept = fs::read(stage.copy.join(".fastcp/tree")).expect("an offer was kept");
    for left_bytes in [0, kept.len() as u64 / 2] {
        fs::write(stage.copy.join(".fastcp/tree"), &kept).expect("write");
        // The greeting has come, and the answer to what is known has begun.
        stage.valve.limit(Kind::Control, 60);
        let client = stage.client("").start();
        stage.valve.wait_until_stalled(Kind::Control);
        let file = fs::File::options().write(true).open(stage.copy.join(".fastcp/tree")).expect("open");
        file.set_len(left_bytes).expect("cut off");
        stage.valve.open();
        let run = client.finish();
        assert!(run.code.is_some(), "ended by a signal");
        fs::remove_file(stage.copy.join(".fastcp/tree")).expect("remove");
        stage.client("").run().expect_exit(0).expect_counts(&[("files_unchanged", 8000)]);
    }
}

#[test]
fn mode_and_owner_are_mended_without_fetching() {
    for way in BOTH_WAYS {
        let copied = Copied::plain_by(way);
        let chmod = |path: PathBuf, mode| fs::set_permissions(path, Permissions::from_mode(mode)).expect("chmod");
        chmod(copied.source.join("noise"), 0o4600);
        chmod(copied.source.join("sub"), 0o750);
        chmod(copied.copy.join("sub/small"), 0o777);
        if is_root() {
            std::os::unix::fs::lchown(copied.source.join("link"), Some(5), Some(6)).expect("chown");
            std::os::unix::fs::chown(copied.copy.join("empty"), Some(NOBODY), Some(NOBODY)).expect("chown");
        }
        set_mtime(&copied.copy.join("sub"), 1, 1);
        set_mtime(&copied.copy.join("link"), 1, 1);
        set_mtime(&copied.copy, 1, 1);
        copied.run_and_compare().expect_counts(&NOTHING_DONE);
    }
}

#[test]
fn new_entries_in_old_directories_arrive_and_what_is_gone_stays() {
    for way in BOTH_WAYS {
        let copied = Copied::plain_by(way);
        fs::create_dir(copied.source.join("sub/new")).expect("create");
        fs::write(copied.source.join("sub/new/file"), b"new").expect("write");
        fs::remove_file(copied.source.join("sub/small")).expect("remove");
        let run = copied.run("").expect_exit(0);
        run.expect_counts(&[("bytes_fetched", 3), ("files_committed", 1), ("dirs_made", 1), ("deleted", 0)]);
        assert_eq!(fs::read(copied.copy.join("sub/new/file")).expect("arrived"), b"new");
        assert!(copied.copy.join("sub/small").exists(), "nothing is deleted unless asked for");
    }
}

#[test]
fn an_entry_may_become_another_kind() {
    for way in BOTH_WAYS {
        let copied = Copied::by(way, |root| {
            let mut tree = Tree::new(root);
            tree.file("file to dir", b"1").dir("dir to file").dir("dir to link").link("link to file", "nowhere");
            tree.file("file to link", b"2").link("link to dir", "file to dir").link("link to link", "old target");
            tree.file("small to large", b"3").dir("dir to large");
            tree.finish()
        });
        let at = |name: &str| copied.source.join(name);
        for name in ["file to dir", "link to file", "file to link", "link to dir", "link to link", "small to large"] {
            fs::remove_file(at(name)).expect("remove");
        }
        for name in ["dir to file", "dir to link", "dir to large"] {
            fs::remove_dir(at(name)).expect("remove");
        }
        for name in ["file to dir", "link to dir"] {
            fs::create_dir(at(name)).expect("create");
            fs::write(at(name).join("within"), b"4").expect("write");
        }
        for name in ["dir to file", "link to file"] {
            fs::write(at(name), b"5").expect("write");
        }
        for name in ["dir to link", "file to link", "link to link"] {
            symlink("new target", at(name)).expect("link");
        }
        for name in ["small to large", "dir to large"] {
            fs::write(at(name), noise(2 << 20, 8)).expect("write");
        }
        copied.run_and_compare();
        copied.run_and_compare().expect_counts(&NOTHING_DONE);
    }
}

#[test]
fn a_directory_that_is_not_empty_never_gives_way() {
    for way in BOTH_WAYS {
        for put in [
            (|path| fs::write(path, b"small").expect("write")) as fn(&Path),
            |path| fs::write(path, noise(2 << 20, 1)).expect("write"),
            |path| symlink("nowhere", path).expect("link"),
        ] {
            let copied = Copied::plain_by(way);
            fs::remove_dir_all(copied.source.join("sub")).expect("remove");
            put(&copied.source.join("sub"));
            fs::write(copied.source.join("other"), b"arrives").expect("write");
            let run = copied.run("").expect_exit(23);
            assert_eq!(run.paths_of("failed"), ["sub"]);
            assert!(run.stderr.contains("sub") && run.stderr.contains("non-empty"), "{}", run.stderr);
            assert_eq!(run.count("files_failed"), 1);
            assert_eq!(fs::read(copied.copy.join("sub/small")).expect("still there"), b"small");
            assert_eq!(fs::read(copied.copy.join("other")).expect("arrived"), b"arrives");
        }
    }
}

#[test]
fn links_planted_in_the_destination_are_replaced_and_not_followed() {
    for options in ["", "--chunk-kb 4", "--chunk-kb 4 --receive-path splice --no-compress"] {
        let workspace = Workspace::new();
        let source = plain(&workspace.at("source"));
        let (copy, elsewhere) = (workspace.at("copy"), workspace.at("elsewhere"));
        let mut tree = Tree::new(&elsewhere);
        tree.file("text", b"not yours").file("small", b"not yours").file("noise", b"not yours");
        tree.finish();
        let before = workspace.at("elsewhere before");
        Client::pull(contents(&elsewhere), &before).run().expect_exit(0);
        fs::create_dir(&copy).expect("create");
        symlink(&elsewhere, copy.join("sub")).expect("link");
        symlink(elsewhere.join("noise"), copy.join("noise")).expect("link");
        symlink(elsewhere.join("text"), copy.join("empty")).expect("link");
        symlink(&elsewhere, copy.join(".fastcp")).expect("link");
        Client::pull(contents(&source), &copy).options(options).run().expect_exit(0);
        assert_same(&source, &copy);
        assert_same(&before, &elsewhere);
    }
}

#[test]
fn a_hard_link_planted_in_the_destination_is_left_alone() {
    for way in BOTH_WAYS {
        let copied = Copied::plain_by(way);
        let outside = copied.workspace.at("outside");
        fs::hard_link(copied.copy.join("noise"), &outside).expect("link");
        let before = fs::read(&outside).expect("read");
        fs::write(copied.source.join("noise"), text(400_000)).expect("write");
        copied.run_and_compare();
        assert_eq!(fs::read(&outside).expect("read"), before);
        assert_eq!(outside.metadata().expect("examine").nlink(), 1);
    }
}

#[test]
fn read_only_directories_take_changes_from_an_unprivileged_user() {
    let workspace = Workspace::for_nobody();
    let mut tree = Tree::new(&workspace.at("source"));
    tree.dir("sub").mode(0o555).file("sub/file", b"1").mode(0o444).dir("sub/below").mode(0o555);
    tree.give_to_nobody();
    let source = tree.finish();
    let copy = workspace.at("copy");
    let pull = || Client::pull(contents(&source), &copy).unprivileged(&workspace).run().expect_exit(0);
    pull();
    set_mtime(&source.join("sub/file"), 5, 5);
    pull().expect_counts(&[("bytes_fetched", 1), ("files_committed", 1)]);
    assert_same(&source, &copy);
}

#[test]
fn a_read_only_root_takes_changes_from_an_unprivileged_user() {
    let workspace = Workspace::for_nobody();
    let mut tree = Tree::new(&workspace.at("source"));
    tree.mode(0o555).file("small", b"1").mode(0o444).file("large", &noise(3 << 20, 2)).dir("sub");
    tree.give_to_nobody();
    let source = tree.finish();
    let copy = workspace.at("copy");
    let pull = || Client::pull(contents(&source), &copy).unprivileged(&workspace).run().expect_exit(0);
    pull();
    assert_same(&source, &copy);
    set_mtime(&source.join("small"), 5, 5);
    set_mtime(&source.join("large"), 5, 5);
    pull().expect_counts(&[("bytes_fetched", 1 + (3 << 20)), ("files_committed", 2)]);
    assert_same(&source, &copy);
}
