//! `verify`: every kind of difference is found and named, nothing else is, and nothing changes.

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use crate::support::client::{Client, Run, contents};
use crate::support::compare::{assert_same, files_and_bytes};
use crate::support::copied::Copied;
use crate::support::cut_proxy::{CutProxy, Fault};
use crate::support::mount::SmallDisk;
use crate::support::port::ReservedPort;
use crate::support::server::Server;
use crate::support::tree::{Tree, everything, noise, plain, set_mtime};
use crate::support::valve::{Kind, Valve};
use crate::support::{Workspace, is_root, say_skipped};
use fastcp_wire::frame::{FRAME_HEADER_BYTES, FRAME_SUM_BYTES};

impl Copied {
    /// A copy without anything of ours in it.
    fn clean_of(make: impl FnOnce(&Path) -> PathBuf) -> Self {
        let copied = Self::of(make);
        copied.keep_times(".", |copy| drop(fs::remove_dir_all(copy.join(".fastcp"))));
        copied
    }

    /// Changes something in the directory `dir` of the copy, whose own time stays.
    fn keep_times(&self, dir: &str, change: impl FnOnce(&Path)) {
        let dir = self.copy.join(dir);
        let before = fs::metadata(&dir).expect("examine");
        change(&dir);
        set_mtime(&dir, before.mtime(), before.mtime_nsec());
    }

    fn verify(&self) -> Run {
        Client::verify(&self.copy, contents(&self.source)).run()
    }
}

/// Flips a bit of a file and sets its time back.
fn flip(path: &Path, at: u64) {
    let before = fs::metadata(path).expect("examine");
    let file = fs::File::options().read(true).write(true).open(path).expect("open");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("read");
    file.write_all_at(&[byte[0] ^ 4], at).expect("write");
    set_mtime(path, before.mtime(), before.mtime_nsec());
}

#[test]
fn a_copy_of_everything_is_equal_and_stays_as_it_is() {
    let copied = Copied::clean_of(|root| everything(root).finish());
    let (files, bytes) = files_and_bytes(&copied.source);
    let server = Server::start(&copied.source);
    let state = |path: &Path| fs::metadata(path).map(|one| (one.ctime(), one.ctime_nsec(), one.ino())).ok();
    let before = [state(&copied.copy), state(&copied.source)];
    let froms =
        [(contents(&copied.source).into_os_string(), 4), (server.url("").into(), 1), (server.url("").into(), 64)];
    for (from, conns) in froms {
        let run = Client::verify(&copied.copy, from).options(&format!("--conns {conns}")).run();
        run.expect_differences(&[]).expect_counts(&[
            ("files", files),
            ("files_verified", files),
            ("bytes_verified", bytes),
            ("special_skipped", 2),
            ("reconnects", 0),
        ]);
    }
    // Who may not ask for hashes has the bytes come over, but for holes.
    let cases =
        [("--conns auto", true), ("--without 0x1f7", true), ("--without 0x8", false), ("--without 0x1ff", false)];
    for (options, is_hashed_there) in cases {
        let run = Client::verify(&copied.copy, server.url("")).options(options).run().expect_differences(&[]);
        let run = run.expect_counts(&[("files_verified", files), ("bytes_verified", bytes)]);
        assert_eq!(run.count("bytes_wire_in") < bytes / 4, is_hashed_there, "{options}");
    }
    assert_eq!(before, [state(&copied.copy), state(&copied.source)]);
    assert!(!copied.copy.join(".fastcp").exists());
    assert_same(&copied.source, &copied.copy);
}

fn tree_of_all_kinds(root: &Path) -> PathBuf {
    let mut tree = Tree::new(root);
    for dir in ["a", "b", "b/sub", "dir"] {
        tree.dir(dir);
    }
    tree.file("a/file", b"seven b").file("b/file", &noise(100_000, 1)).file("b/sub/one", b"1").file("b/sub/two", b"2");
    tree.file("dir/file", b"x").file("empty", b"").link("link", "to").link("a/link", "to");
    tree.finish()
}

#[test]
fn every_kind_of_difference_is_named() {
    type Case = (&'static str, fn(&Path), &'static [(&'static str, &'static str)]);
    let changes: [Case; 15] = [
        ("a", |dir| fs::remove_file(dir.join("file")).expect("remove"), &[("missing", "a/file")]),
        ("a", |dir| fs::remove_file(dir.join("link")).expect("remove"), &[("missing", "a/link")]),
        (
            "b",
            |dir| fs::remove_dir_all(dir.join("sub")).expect("remove"),
            &[("missing", "b/sub"), ("missing", "b/sub/one"), ("missing", "b/sub/two")],
        ),
        ("a", |dir| fs::write(dir.join("new"), "").expect("write"), &[("extraneous", "a/new")]),
        (".", |dir| fs::create_dir_all(dir.join("new/deep")).expect("create"), &[("extraneous", "new")]),
        ("dir", |dir| symlink("x", dir.join("a link")).expect("link"), &[("extraneous", "dir/a link")]),
        (
            "b",
            |dir| {
                fs::remove_dir_all(dir.join("sub")).expect("remove");
                symlink("../dir", dir.join("sub")).expect("link");
            },
            &[("type", "b/sub"), ("missing", "b/sub/one"), ("missing", "b/sub/two")],
        ),
        (
            "a",
            |dir| {
                fs::remove_file(dir.join("file")).expect("remove");
                fs::create_dir(dir.join("file")).expect("create");
            },
            &[("type", "a/file")],
        ),
        ("b", |dir| flip(&dir.join("file"), 99_999), &[("contents", "b/file")]),
        ("a", |dir| flip(&dir.join("file"), 0), &[("contents", "a/file")]),
        ("a", |dir| set_mtime(&dir.join("file"), 5, 6), &[("mtime", "a/file")]),
        (
            "a",
            |dir| {
                fs::write(dir.join("file"), "eight by").expect("write");
                set_mtime(&dir.join("file"), 5, 6);
            },
            &[("size", "a/file"), ("mtime", "a/file")],
        ),
        (
            ".",
            |dir| fs::set_permissions(dir.join("empty"), Permissions::from_mode(0o600)).expect("chmod"),
            &[("mode", "empty")],
        ),
        (
            ".",
            |dir| fs::set_permissions(dir.join("dir"), Permissions::from_mode(0o700)).expect("chmod"),
            &[("mode", "dir")],
        ),
        (
            "a",
            |dir| {
                let time = fs::symlink_metadata(dir.join("link")).expect("examine");
                fs::remove_file(dir.join("link")).expect("remove");
                symlink("ot", dir.join("link")).expect("link");
                set_mtime(&dir.join("link"), time.mtime(), time.mtime_nsec());
            },
            &[("target", "a/link")],
        ),
    ];
    for (dir, change, wanted) in changes {
        let copied = Copied::clean_of(tree_of_all_kinds);
        copied.verify().expect_differences(&[]);
        copied.keep_times(dir, change);
        copied.verify().expect_differences(wanted);
    }
}

#[test]
fn the_root_itself_is_compared_and_owners_as_far_as_they_would_be_set() {
    let copied = Copied::clean_of(plain);
    set_mtime(&copied.copy, 7, 7);
    fs::set_permissions(&copied.copy, Permissions::from_mode(0o775)).expect("chmod");
    copied.verify().expect_differences(&[("mtime", "."), ("mode", ".")]);
    if !is_root() {
        return say_skipped("only root gives files away");
    }
    chown(&copied.copy, Some(12_345), None).expect("chown");
    chown(copied.copy.join("noise"), None, Some(54_321)).expect("chown");
    let wanted = [("mtime", "."), ("mode", "."), ("owner", "."), ("owner", "noise")];
    copied.verify().expect_differences(&wanted);
    let run = Client::verify(&copied.copy, contents(&copied.source)).unprivileged(&copied.workspace).run();
    run.expect_differences(&wanted[..2]);
}

#[test]
fn a_flipped_byte_is_found_wherever_it_is() {
    let copied = Copied::clean_of(|root| {
        let mut tree = Tree::new(root);
        tree.file("large", &noise(3_000_000, 1)).sparse("sparse", 5_000_000, &[(2_000_000, b"island")]);
        tree.finish()
    });
    for (path, at) in [("large", 0), ("large", 1_500_000), ("large", 2_999_999), ("sparse", 2_000_003), ("sparse", 9)] {
        flip(&copied.copy.join(path), at);
        copied.verify().expect_differences(&[("contents", path)]);
        let run = Client::verify(&copied.copy, contents(&copied.source)).options("--without 0x8").run();
        run.expect_differences(&[("contents", path)]);
        flip(&copied.copy.join(path), at);
    }
    copied.verify().expect_differences(&[]);
}

#[test]
fn large_directories_are_compared_to_their_end() {
    let copied = Copied::clean_of(|root| {
        let mut tree = Tree::new(root);
        tree.dir("many");
        for nth in 0..5000 {
            tree.file(format!("many/{nth:05}"), b"");
        }
        tree.finish()
    });
    copied.verify().expect_differences(&[]).expect_counts(&[("files_verified", 5000)]);
    copied.keep_times("many", |many| {
        for gone in ["00000", "03000", "04999"] {
            fs::remove_file(many.join(gone)).expect("remove");
        }
        for new in ["", "00000a", "02047a", "04000a", "z"] {
            fs::write(many.join(new.to_owned() + "_"), "").expect("write");
        }
    });
    copied.verify().expect_differences(&[
        ("missing", "many/00000"),
        ("missing", "many/03000"),
        ("missing", "many/04999"),
        ("extraneous", "many/_"),
        ("extraneous", "many/00000a_"),
        ("extraneous", "many/02047a_"),
        ("extraneous", "many/04000a_"),
        ("extraneous", "many/z_"),
    ]);
    // More differences than are held before they are printed.
    let empty = copied.workspace.at("empty");
    fs::create_dir(&empty).expect("create");
    let run = Client::verify(&empty, contents(&copied.source)).run().expect_exit(23);
    assert_eq!(run.differences().iter().filter(|(what, _)| what == "missing").count(), 5001);
}

#[test]
fn a_closing_slash_means_what_it_means_for_pull() {
    let workspace = Workspace::new();
    let source = plain(&workspace.at("source"));
    let copy = workspace.at("copy");
    Client::pull(&source, &copy).run().expect_exit(0);
    fs::write(copy.join("beside it"), "").expect("write");
    Client::verify(&copy, &source).run().expect_differences(&[]);
    fs::write(copy.join("source/new"), "").expect("write");
    set_mtime(&copy.join("source/noise"), 1, 1);
    let time = fs::metadata(&source).expect("examine");
    set_mtime(&copy.join("source"), time.mtime(), time.mtime_nsec());
    let wanted = [("extraneous", "source/new"), ("mtime", "source/noise")];
    Client::verify(&copy, &source).run().expect_differences(&wanted);
    Client::verify(copy.join("source"), contents(&source))
        .run()
        .expect_differences(&[("extraneous", "new"), ("mtime", "noise")]);
    let server = Server::start(&workspace.at("."));
    Client::verify(&copy, server.url("source")).run().expect_differences(&wanted);
    Client::verify(copy.join("source"), server.url("source/noise")).run().expect_differences(&[("mtime", "noise")]);
}

#[test]
fn the_state_of_a_destination_is_no_difference_but_only_where_it_is_ours() {
    let copied = Copied::clean_of(tree_of_all_kinds);
    copied.keep_times(".", |root| fs::create_dir(root.join(".fastcp")).expect("create"));
    copied.verify().expect_differences(&[]);
    let part_file = format!(".fastcp-{}.part", "0a".repeat(16));
    copied.keep_times("b", |dir| fs::write(dir.join(part_file), "a beginning").expect("write"));
    copied.verify().expect_differences(&[]);
    copied.keep_times("a", |dir| fs::create_dir(dir.join(".fastcp")).expect("create"));
    copied.verify().expect_differences(&[("extraneous", "a/.fastcp")]);
}

#[test]
fn each_mount_of_a_destination_has_a_state_of_its_own() {
    let workspace = Workspace::new();
    let mut tree = Tree::new(&workspace.at("source"));
    tree.dir("disk").file("disk/file", &noise(300_000, 1));
    let source = tree.finish();
    let copy = workspace.at("copy");
    fs::create_dir(&copy).expect("create");
    let Some(_disk) = SmallDisk::mount(&copy.join("disk"), 4096) else { return };
    fs::write(copy.join("disk/file"), "to be replaced").expect("write");
    Client::pull(contents(&source), &copy).run().expect_exit(0);
    assert!(copy.join("disk/.fastcp").exists());
    Client::verify(&copy, contents(&source)).run().expect_differences(&[]);
}

#[test]
fn differences_are_lines_on_stdout_whatever_their_names_hold() {
    let copied = Copied::clean_of(|root| {
        let mut tree = Tree::new(root);
        tree.file(b"new\nline", b"1").file(b"\xff\xfe", b"2").file("plain", b"3");
        tree.finish()
    });
    for name in [&b"new\nline"[..], b"\xff\xfe", b"plain"] {
        let name: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(name);
        flip(&copied.copy.join(name), 0);
    }
    let words =
        ["verify".as_ref(), copied.copy.as_os_str(), contents(&copied.source).as_os_str()].map(ToOwned::to_owned);
    // Under few descriptors or threads more connections are told of on stderr.
    let run = Client::new(&words).options("--conns 1").run().expect_exit(23);
    let (summary, lines) = run.lines.split_last().expect("a summary");
    let mut lines = lines.to_vec();
    lines.sort();
    let wanted = ["\"\\xff\\xfe\"", "\"new\\x0aline\"", "\"plain\""].map(|name| format!("differs: contents {name}"));
    assert_eq!(lines, wanted);
    assert!(summary.starts_with("0 files verified") && summary.contains("; 3 DIFFERENCES: 3 contents"), "{summary}");
    // A run with few descriptors says so.
    let said = run.stderr.lines().filter(|line| !line.contains("open files are limited")).collect::<Vec<_>>();
    assert!(said.is_empty(), "{said:?}");
    let quiet = Client::new(&words).options("-q").run().expect_exit(23);
    assert!(quiet.lines.is_empty() && quiet.stderr.is_empty(), "{quiet:?}");
}

#[test]
fn what_cannot_be_read_is_named_and_the_rest_is_compared() {
    let copied = Copied::clean_of(tree_of_all_kinds);
    let unreadable = |path: &Path| fs::set_permissions(path, Permissions::from_mode(0o000)).expect("chmod");
    unreadable(&copied.source.join("a/file"));
    unreadable(&copied.copy.join("a/file"));
    unreadable(&copied.copy.join("b/file"));
    let verify = || Client::verify(&copied.copy, contents(&copied.source)).unprivileged(&copied.workspace).run();
    let run = verify().expect_exit(23);
    assert_eq!(run.paths_of("failed"), ["a/file", "b/file"]);
    assert_eq!(run.differences(), [("mode".to_owned(), "b/file".to_owned())]);
    assert_eq!(run.count("files_verified"), 4);
    unreadable(&copied.source.join("dir"));
    unreadable(&copied.copy.join("dir"));
    let run = verify().expect_exit(23);
    // At the source it is not listed; so here it does not matter what is in it.
    assert_eq!(run.paths_of("failed"), ["a/file", "b/file", "dir"]);
    assert_eq!(run.count("files_verified"), 3);
}

#[test]
fn runs_that_cannot_be_end_as_those_of_pull_and_make_nothing() {
    let workspace = Workspace::new();
    let source = plain(&workspace.at("source"));
    let missing = workspace.at("missing");
    let run = Client::verify(&missing, contents(&source)).run().expect_exit(11);
    assert!(run.stderr.contains("missing") && !missing.exists(), "{}", run.stderr);
    Client::verify(&source, contents(&missing)).run().expect_exit(3);
    let server = Server::start(&source);
    Client::verify(&source, server.url("missing")).run().expect_exit(3);
    Client::new(["verify"]).run().expect_exit(1);
    Client::verify(&source, contents(&source)).options("--delete").run().expect_exit(1);
    let source = source.as_os_str();
    Client::new(["verify".as_ref(), source]).run().expect_exit(1);
    Client::new(["verify".as_ref(), source, source, "--manifest".as_ref(), source]).run().expect_exit(1);
}

#[test]
fn a_server_that_is_started_again_is_asked_for_the_rest() {
    let copied = Copied::clean_of(|root| everything(root).finish());
    let (files, bytes) = files_and_bytes(&copied.source);
    let port = ReservedPort::new();
    let mut server = Some(port.serve(&copied.source));
    let valve = Valve::start(port.address());
    for options in ["--conns 1", "--conns 3", "--conns 2 --without 0x8"] {
        let verify = || Client::verify(&copied.copy, valve.url()).options(options);
        valve.renew();
        verify().run().expect_differences(&[]);
        let (offer, answers) = (valve.passed(Kind::Control), valve.passed(Kind::Data));
        valve.limit(Kind::Data, answers / 2);
        let client = verify().start();
        valve.wait_until_stalled(Kind::Data);
        valve.wait_until_passed(Kind::Control, offer);
        drop(server.take());
        server = Some(port.serve(&copied.source));
        valve.open();
        let run = client.finish().expect_differences(&[]);
        let run = run.expect_counts(&[("files_verified", files), ("bytes_verified", bytes)]);
        assert!(run.count("reconnects") > 0);
    }
}

#[test]
fn an_offer_that_breaks_off_is_asked_for_again_and_nothing_is_compared_twice() {
    let copied = Copied::clean_of(|root| {
        let mut tree = Tree::new(root);
        for dir in 0..30u64 {
            let dir = format!("dir {dir:02}");
            tree.dir(&dir);
            for nth in 0..100u64 {
                tree.file(format!("{dir}/{:016x}", (nth + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)), b"");
            }
        }
        tree.dir("many");
        for nth in 0..5000u64 {
            tree.file(format!("many/{:016x}", (nth + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)), b"");
        }
        tree.finish()
    });
    copied.keep_times("many", |many| fs::write(many.join("8_"), "").expect("write"));
    let server = Server::start(&copied.source);
    let valve = Valve::start(server.address);
    let verify = || Client::verify(&copied.copy, valve.url());
    let wanted = [("extraneous", "many/8_")];
    verify().run().expect_differences(&wanted);
    let offer = valve.passed(Kind::Control);
    for part in 1..8 {
        valve.limit(Kind::Control, offer * part / 8);
        let client = verify().start();
        valve.wait_until_stalled(Kind::Control);
        valve.renew();
        let run = client.finish().expect_differences(&wanted);
        let run = run.expect_counts(&[("entries", 8032), ("files", 8000), ("files_verified", 8000)]);
        assert!(run.count("reconnects") > 0);
    }
}

#[test]
fn a_connection_that_breaks_is_dialled_again() {
    let copied = Copied::clean_of(plain);
    let server = Server::start(&copied.source);
    let greeting = FRAME_HEADER_BYTES + FRAME_SUM_BYTES;
    for at in [greeting, greeting + 48, greeting + 60] {
        for fault in [Fault::Cut(at), Fault::Flip(at)] {
            let proxy = CutProxy::start(server.address, fault);
            let run = Client::verify(&copied.copy, proxy.url()).options("--conns 1").run().expect_differences(&[]);
            let (files, bytes) = files_and_bytes(&copied.source);
            let run = run.expect_counts(&[("files_verified", files), ("bytes_verified", bytes)]);
            // Damage within an answer costs that answer, any other the connection.
            assert!(
                run.count("reconnects") == 1
                    || fault == Fault::Flip(greeting + 48)
                    || fault == Fault::Flip(greeting + 60)
            );
        }
    }
}
