//! Where a push may write: at the path that was typed, as far as the server was started for it, and nowhere outside of its root.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::support::Workspace;
use crate::support::client::{Client, contents};
use crate::support::compare::{assert_same, files_and_bytes, snapshot, walk};
use crate::support::server::Server;
use crate::support::tree::{Tree, noise, plain};

#[test]
fn a_closing_slash_means_what_it_means_to_rsync() {
    let workspace = Workspace::new();
    let source = plain(&workspace.at("source"));
    for (nth, (from, to, found)) in [
        (contents(&source), "", ""),
        (contents(&source), "a/b", "a/b"),
        (contents(&source), "a/b/", "a/b"),
        (source.clone(), "", "source"),
        (source.clone(), "a/b", "a/b/source"),
        (source.clone(), "a/b/", "a/b/source"),
        (contents(&source.join("sub")), "a", "a"),
        (source.join("sub"), "a", "a/sub"),
    ]
    .into_iter()
    .enumerate()
    {
        let root = workspace.at(&format!("root {nth}"));
        fs::create_dir(&root).expect("create");
        let server = Server::start_receiving(&root);
        let wanted = if nth < 6 { source.clone() } else { source.join("sub") };
        for files in [files_and_bytes(&wanted).0, 0] {
            let run = Client::push(&from, server.url(to)).run().expect_exit(0);
            run.expect_counts(&[("files_committed", files), ("files_failed", 0)]);
            assert_same(&wanted, &root.join(found));
        }
    }
}

/// What is put where by a push of a file: the path that is typed, and the one that it gets.
const FILE_PLACES: [(&str, &str); 9] = [
    ("", "one"),
    ("new", "new"),
    ("new/", "new/one"),
    ("there", "there/one"),
    ("there/", "there/one"),
    ("there/name", "there/name"),
    ("there/old", "there/old"),
    ("there/dir", "there/dir/one"),
    ("not/there/yet", "not/there/yet"),
];

#[test]
fn a_single_file_gets_the_name_that_was_typed_or_goes_into_the_directory() {
    let workspace = Workspace::new();
    let mut tree = Tree::new(&workspace.at("source"));
    tree.file("one", &noise(3 << 20, 1)).file("two", b"not asked for").link("link", "two");
    let source = tree.finish();
    for (nth, (to, found)) in FILE_PLACES.into_iter().enumerate() {
        let root = workspace.at(&format!("root {nth}"));
        fs::create_dir_all(root.join("there/dir")).expect("create");
        fs::write(root.join("there/old"), b"old").expect("write");
        let server = Server::start_receiving(&root);
        let before = snapshot(&root);
        let push = |options: &str| Client::push(source.join("one"), server.url(to)).options(options).run();
        let dry = push("-n").expect_exit(0).expect_counts(&[("files_wanted", 1)]);
        assert_eq!((dry.count("files_committed"), snapshot(&root)), (0, before), "{to}: a dry run");
        push("").expect_exit(0).expect_counts(&[("files_committed", 1), ("bytes_total", 3 << 20)]);
        assert_same(&source.join("one"), &root.join(found));
        push("").expect_exit(0).expect_counts(&[("files_committed", 0), ("bytes_fetched", 0)]);
        let count = found.split('/').count() as u64;
        let names = walk(&root);
        let most = 4 + count;
        assert!(names.len() as u64 <= most && !names.iter().any(|name| name.ends_with("two")), "{to}: {names:?}");
        // A link is sent as a link, under such a name as well.
        Client::push(source.join("link"), server.url("other")).run().expect_exit(0).expect_counts(&[("links_made", 1)]);
        assert_eq!(fs::read_link(root.join("other")).expect("a link"), Path::new("two"));
    }
}

#[test]
fn what_means_nothing_is_a_mistake_of_usage() {
    let workspace = Workspace::new();
    let source = plain(&workspace.at("source"));
    fs::create_dir(workspace.at("root")).expect("create");
    let server = Server::start_receiving(&workspace.at("root"));
    let [from, to] = [source.to_str().expect("plain").to_owned(), server.url("copy")];
    let wrong: [Vec<&str>; 9] = [
        vec!["push"],
        vec!["push", &from],
        vec!["push", &to, &to],
        vec!["push", &from, ""],
        vec!["push", "", &to],
        vec!["push", &from, "fcp://127.0.0.1:1/a/../b"],
        vec!["push", &from, "user@:/path"],
        vec!["push", &from, &to, "--max-delete", "1"],
        vec!["push", &from, &to, "--inplace", "--backup-dir", "kept"],
    ];
    for words in wrong {
        let run = Client::new(&words).run().expect_exit(1);
        assert!(!run.stderr.is_empty(), "{words:?} is told why");
    }
    let gone = workspace.at("gone");
    for from in [gone.clone(), contents(&gone), contents(&source.join("noise"))] {
        Client::push(from, &to).run().expect_exit(3);
    }
    assert_eq!(walk(&workspace.at("root")), Vec::<String>::new());
    assert_eq!(server.log(), "", "the server never heard of it");
}

#[test]
fn a_server_takes_and_deletes_only_what_it_was_started_for() {
    let workspace = Workspace::new();
    let source = plain(&workspace.at("source"));
    let root = workspace.at("root");
    fs::create_dir(&root).expect("create");
    Client::pull(contents(&source), root.join("copy")).run().expect_exit(0);
    fs::write(root.join("copy/extra"), b"1").expect("write");
    fs::write(source.join("noise"), b"changed").expect("write");
    let before = snapshot(&root);
    let refused = |server: &Server, to: &str, options: &str, words: &[&str]| {
        let run = Client::push(contents(&source), server.url(to)).options(options).run().expect_exit(5);
        for word in words {
            assert!(run.stderr.contains(word), "{word} is not in {}", run.stderr);
        }
        assert_eq!(snapshot(&root), before, "{to} {options}");
    };
    let reader = Server::start(&root);
    for to in ["", "copy", "new/deep"] {
        for options in ["", "-n", "--delete", "--backup-dir kept"] {
            refused(&reader, to, options, &["--allow-write"]);
        }
    }
    let writer = Server::start_with(&root, "127.0.0.1 0 --allow-write");
    for to in ["", "copy", "new/deep"] {
        for options in ["--delete", "--delete --max-delete 0", "--delete --backup-dir kept", "-n --delete"] {
            refused(&writer, to, options, &["--delete", "--allow-delete"]);
        }
    }
    Client::push(contents(&source), writer.url("copy")).run().expect_exit(0).expect_counts(&[("files_committed", 1)]);
    assert!(root.join("copy/extra").exists());
    let both = Server::start_receiving(&root);
    Client::push(contents(&source), both.url("copy")).options("--delete").run().expect_exit(0);
    assert_same(&source, &root.join("copy"));
    assert!(Server::try_start(&root, "127.0.0.1 0 --allow-delete").is_none(), "it needs --allow-write");
    for server in [&reader, &writer] {
        Client::pull(server.url("copy/"), workspace.at("pulled")).run().expect_exit(0);
    }
    assert_same(&source, &workspace.at("pulled"));
}

#[test]
fn only_places_beneath_the_root_are_written_to() {
    let workspace = Workspace::new();
    let source = plain(&workspace.at("source"));
    let outside = plain(&workspace.at("outside"));
    let root = workspace.at("root");
    fs::create_dir_all(root.join("real")).expect("create");
    symlink("../outside", root.join("out")).expect("link");
    symlink("real", root.join("in")).expect("link");
    symlink("nowhere", root.join("dangling")).expect("link");
    symlink(&outside, root.join("real/absolute")).expect("link");
    fs::write(root.join("file"), b"in the way").expect("write");
    let server = Server::start_receiving(&root);
    let (before, outside_before) = (snapshot(&root), snapshot(&outside));
    let paths = ["out", "out/sub", "in", "in/new", "dangling", "dangling/new", "real/absolute", "file", "file/new"];
    for to in paths {
        for options in ["", "-n", "--delete --force-empty"] {
            let run = Client::push(contents(&source), server.url(to)).options(options).run();
            assert!(run.code.is_some_and(|code| code != 0), "{to} {options}: {:?} {}", run.code, run.stderr);
            assert!(!run.stderr.is_empty() && !run.stderr.contains("panic"), "{}", run.stderr);
            assert_eq!(snapshot(&root), before, "{to} {options}");
            assert_eq!(snapshot(&outside), outside_before, "{to} {options}");
        }
    }
    // A link in the place of a file is no directory to put it into.
    for to in ["out", "in"] {
        let run = Client::push(source.join("noise"), server.url(to)).run();
        assert!(matches!(run.code, Some(0..)), "{to}: {}", run.stderr);
        assert_eq!(snapshot(&outside), outside_before, "{to}");
        assert!(!root.join("real/noise").exists(), "{to}");
    }
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

#[test]
fn backups_stay_below_the_destination() {
    let workspace = Workspace::new();
    let source = plain(&workspace.at("source"));
    let outside = workspace.at("outside");
    fs::create_dir(&outside).expect("create");
    let root = workspace.at("root");
    fs::create_dir(&root).expect("create");
    let server = Server::start_receiving(&root);
    let push = |options: &str| Client::push(contents(&source), server.url("a/copy")).options(options).run();
    let refuse = |dir: &str| {
        let before = snapshot(&root);
        for options in ["", "-n", "--delete"] {
            let run = push(&format!("--backup-dir {dir} {options}")).expect_exit(5);
            assert!(run.stderr.contains("--backup-dir"), "{dir}: {}", run.stderr);
            assert_eq!(snapshot(&root), before, "{dir}");
        }
    };
    let absolute = outside.to_str().expect("plain").to_owned();
    let dirs = ["..", "../kept", "kept/../../x", "a/..", "/kept", &absolute];
    dirs.into_iter().for_each(&refuse);
    push("").expect_exit(0);
    dirs.into_iter().for_each(&refuse);
    let old = fs::read(root.join("a/copy/noise")).expect("read");
    fs::write(source.join("noise"), b"changed").expect("write");
    // Through a link that somebody put there, nothing leaves.
    symlink(&outside, root.join("a/copy/way out")).expect("link");
    for dir in ["way out", "way out/below"] {
        let run = Client::push(contents(&source), server.url("a/copy")).words(&["--backup-dir", dir]).run();
        assert!(run.code != Some(0), "{dir}: {}", run.stderr);
        assert_eq!(fs::read_dir(&outside).expect("list").count(), 0, "{dir}");
        assert_eq!(fs::read(root.join("a/copy/noise")).expect("read"), old, "{dir}");
    }
    push("--backup-dir kept/here").expect_exit(0).expect_counts(&[("files_committed", 1)]);
    assert_eq!(fs::read(root.join("a/copy/kept/here/noise")).expect("the backup"), old);
    assert_eq!(fs::read(root.join("a/copy/noise")).expect("read"), b"changed");
}

#[test]
fn names_of_any_bytes_can_be_pushed_to() {
    let workspace = Workspace::new();
    let source = plain(&workspace.at("source"));
    let root = workspace.at("root");
    fs::create_dir(&root).expect("create");
    let server = Server::start_receiving(&root);
    for name in [&b"with space"[..], b"not utf-8 \xff\xfe", b"new\nline", b"-n", &[b'n'; 255]] {
        let name = std::ffi::OsStr::from_bytes(name);
        let mut to = std::ffi::OsString::from(server.url(""));
        to.push(name);
        Client::push(contents(&source), &to).run().expect_exit(0).expect_counts(&[("files_committed", 4)]);
        assert_same(&source, &root.join(name));
    }
    let mut to = std::ffi::OsString::from(server.url(""));
    to.push(std::ffi::OsStr::from_bytes(&[b'n'; 256]));
    let run = Client::push(contents(&source), &to).run();
    assert!(run.code.is_some_and(|code| code != 0) && !run.stderr.is_empty(), "{:?}", run.code);
}
