//! `ls`: what a server has, or a local directory.

use std::fs;
use std::path::Path;

use crate::support::Workspace;
use crate::support::client::{Client, Run};
use crate::support::server::Server;
use crate::support::tree::{Tree, everything};

fn ls(from: impl AsRef<std::ffi::OsStr>, options: &str) -> Run {
    Client::new(["ls".as_ref(), from.as_ref()]).options(options).run()
}

fn sample(root: &Path) -> std::path::PathBuf {
    let mut tree = Tree::new(root);
    tree.dir("dir").mtime(1_000_000_000, 0);
    tree.file("dir/a.log", b"12345").mtime(951_782_400, 5).mode(0o4755);
    tree.file("dir/b.log", b"").mode(0o600);
    tree.file("dir/.hidden", b"");
    tree.dir("dir/sub");
    tree.file("dir/sub/c.log", b"x");
    tree.link("link", "dir/a.log");
    tree.finish()
}

#[test]
fn a_directory_is_listed_by_one_level_or_all_of_it() {
    let workspace = Workspace::new();
    let source = sample(&workspace.at("source"));
    let server = Server::start(&source);
    for (path, options, lines) in [
        ("", "", &["dir/", "link"][..]),
        ("dir", "", &[".hidden", "a.log", "b.log", "sub/"]),
        ("dir/", "", &[".hidden", "a.log", "b.log", "sub/"]),
        ("dir/*.log", "", &["a.log", "b.log"]),
        ("dir/[!a]*", "", &["b.log", "sub/"]),
        ("dir/s*", "-R", &["sub/", "sub/c.log"]),
        ("dir", "-R", &[".hidden", "a.log", "b.log", "sub/", "sub/c.log"]),
        ("dir/a.log", "", &["a.log"]),
        ("link", "", &["link"]),
    ] {
        for from in [server.url(path), source.join(path).to_str().expect("text").to_owned()] {
            let run = ls(&from, options).expect_exit(0);
            let mut found = run.lines;
            found.sort();
            assert_eq!(found, lines, "{from} {options}");
        }
    }
    for path in ["nowhere", "dir/a.log/x", "dir/nowhere/*", "dir/x*"] {
        ls(server.url(path), "").expect_exit(3);
    }
}

#[test]
fn a_long_listing_and_objects_say_what_there_is_to_say() {
    let workspace = Workspace::new();
    let server = Server::start(&sample(&workspace.at("source")));
    let run = ls(server.url("dir/a*"), "-l").expect_exit(0);
    assert_eq!(run.lines, ["-rwsr-xr-x              5 2000-02-29 00:00:00Z a.log"]);
    let run = ls(server.url("l*"), "-l").expect_exit(0);
    assert!(run.lines[0].starts_with("lrwxrwxrwx") && run.lines[0].ends_with(" link -> dir/a.log"), "{:?}", run.lines);
    let run = Client::new(["ls", &server.url("dir/a*"), "--json"]).run();
    assert_eq!(run.code, Some(0));
    let entry = &run.events()[0];
    assert_eq!((&entry["kind"], &entry["size"], &entry["mode"]), (&"file".into(), &5.into(), &"4755".into()));
    assert_eq!(entry["mtime_ns"].as_i64(), Some(951_782_400_000_000_005));
}

/// No more is read than is listed, and nothing is left out.
#[test]
fn all_of_the_odd_tree_is_listed() {
    let workspace = Workspace::new();
    let source = everything(&workspace.at("source")).finish();
    let server = Server::start(&source);
    let run = Client::new(["ls", "-R", &server.url(""), "--json"]).run();
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let mut count = 0;
    let mut left = vec![source];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir).expect("read") {
            let entry = entry.expect("entry");
            count += 1;
            if entry.file_type().expect("a type").is_dir() {
                left.push(entry.path());
            }
        }
    }
    assert_eq!(run.events().len(), count);
}

/// A copy into any directory of a tree leaves something there for the next one; who fetches or lists the tree is not given it.
#[test]
fn what_receivers_keep_for_themselves_is_not_listed() {
    let workspace = Workspace::new();
    let source = sample(&workspace.at("source"));
    let served = workspace.at("served");
    fs::create_dir(&served).expect("make");
    let server = Server::start_with(&served, "127.0.0.1 0 --allow-write --allow-setuid");
    Client::push(&source, server.url("a/b")).run().expect_exit(0);
    assert!(served.join("a/b/.fastcp").is_dir());
    let run = ls(server.url(""), "-R").expect_exit(0);
    assert!(run.lines.iter().any(|line| line == "a/b/source/dir/sub/c.log"), "{:?}", run.lines);
    assert!(!run.lines.iter().any(|line| line.contains(".fastcp")), "{:?}", run.lines);
}
