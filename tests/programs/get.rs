//! `get` and the place of its output: what it may replace, who else may be at work there, what it leaves.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::Path;

use crate::support::Workspace;
use crate::support::client::{Client, contents};
use crate::support::journal::names_in_parts;
use crate::support::launch::can_restrict;
use crate::support::plain_source::{PlainSource, whole};
use crate::support::port::ReservedPort;
use crate::support::server::Server;
use crate::support::tree::{Tree, noise};
use crate::support::wait_until;
use nix::sys::stat::Mode;

const MTIME_NS: u64 = 1_600_000_000_000_000_005;

/// A source that gives these bytes.
fn source_of(bytes: &[u8]) -> PlainSource {
    let (bytes, crc32) = (bytes.to_vec(), crc32fast::hash(bytes));
    PlainSource::start(move |_, seen| whole(&bytes, MTIME_NS, crc32, seen.offset))
}

fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("read").flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn only_a_regular_file_is_replaced_and_that_is_seen_before_anything_is_fetched() {
    let workspace = Workspace::new();
    let source = source_of(b"bytes");
    fs::write(workspace.at("aim"), b"aim").expect("write");
    symlink("aim", workspace.at("link")).expect("link");
    symlink("nowhere", workspace.at("dangling")).expect("link");
    nix::unistd::mkfifo(&workspace.at("pipe"), Mode::S_IRWXU).expect("make a pipe");
    let before = names_in(&workspace.at(""));
    for out in ["link", "dangling", "pipe"] {
        let run = Client::get(source.port(), "a/path", workspace.at(out)).run().expect_exit(3);
        assert!(run.stderr.contains("not a regular file"), "{}", run.stderr);
    }
    for device in ["/dev/null", "/dev/stdout"] {
        Client::get(source.port(), "a/path", device).run().expect_exit(3);
    }
    assert_eq!(fs::read(workspace.at("aim")).expect("read"), b"aim");
    assert!(fs::symlink_metadata(workspace.at("pipe")).expect("examine").file_type().is_fifo());
    assert!(fs::symlink_metadata("/dev/null").expect("examine").file_type().is_char_device());
    assert_eq!(names_in(&workspace.at("")), before);
    assert!(source.seen().is_empty(), "nothing was asked for");
}

#[test]
fn a_directory_in_the_place_of_the_output_is_called_one() {
    let workspace = Workspace::new();
    let source = source_of(b"bytes");
    let taken = workspace.at("out/path");
    fs::create_dir_all(&taken).expect("create");
    let run = Client::get(source.port(), "a/path", workspace.at("out")).run().expect_exit(3);
    let shown = taken.display();
    let said = format!("\"{shown}\" is a directory; \"{shown}/\" as OUT puts the file in it");
    assert!(run.stderr.contains(&said), "{}", run.stderr);
    Client::get(source.port(), "a/path", taken.join("")).run().expect_exit(0);
    assert_eq!(fs::read(taken.join("path")).expect("read"), b"bytes");
}

#[test]
fn a_closing_slash_means_a_directory() {
    let workspace = Workspace::new();
    let source = source_of(b"bytes");
    let run = Client::get(source.port(), "a/path", workspace.at("sub/")).run().expect_exit(11);
    assert!(run.stderr.contains("no such directory"), "{}", run.stderr);
    assert!(source.seen().is_empty() && !workspace.at("sub").exists());
    fs::create_dir(workspace.at("sub")).expect("create");
    Client::get(source.port(), "a/path", workspace.at("sub/")).run().expect_exit(0);
    assert_eq!(fs::read(workspace.at("sub/path")).expect("read"), b"bytes");
}

#[test]
fn a_dash_is_standard_output() {
    let bytes: Vec<u8> = (0..300_000u32).map(|at| b'a' + (at % 23) as u8).collect();
    let (crc32, served) = (crc32fast::hash(&bytes), bytes.clone());
    let source = PlainSource::start(move |nth, seen| {
        let mut answer = whole(&served, MTIME_NS, crc32, seen.offset);
        answer.truncate([32 + 100_000, usize::MAX][nth.min(1)]);
        answer
    });
    let port = source.port().to_string();
    let run = Client::new(["get", "127.0.0.1", &port, "a/path", "-"]).run();
    assert_eq!((run.code, run.lines.join("").as_bytes() == bytes), (Some(0), true), "{}", run.stderr);
    assert_eq!(source.offsets(), [0, 100_000]);
    let wrong = PlainSource::start(|_, seen| whole(b"bytes", MTIME_NS, 7, seen.offset));
    let run = Client::new(["get", "127.0.0.1", &wrong.port().to_string(), "a/path", "-"]).run();
    assert_eq!((run.code, &run.lines[..]), (Some(23), &["bytes".to_owned()][..]));
    assert!(run.stderr.contains("CRC-32 mismatch"), "{}", run.stderr);
}

#[test]
fn what_was_copied_is_counted() {
    let workspace = Workspace::new();
    let source = source_of(b"bytes");
    let run = Client::get(source.port(), "a/path", workspace.at("out")).run().expect_exit(0);
    run.expect_counts(&[("files_committed", 1), ("bytes_fetched", 5)]);
}

#[test]
fn the_output_has_the_mode_of_a_new_file_also_where_none_can_be_without_a_name() {
    let workspace = Workspace::new();
    let source = source_of(b"bytes");
    for restrictions in ["", "no-tmpfile"].into_iter().filter(|restrictions| can_restrict(restrictions)) {
        for (umask, mode) in [("022", 0o644), ("077", 0o600), ("002", 0o664)] {
            let out = workspace.at(&format!("out {restrictions} {umask}"));
            let masked = ["sh", "-c", &format!("umask {umask}; exec \"$@\""), "sh"];
            let client = Client::get(source.port(), "a/path", &out).under(&masked).restricted(restrictions);
            client.run().expect_exit(0);
            assert_eq!(fs::metadata(&out).expect("made").mode() & 0o7777, mode, "{umask} {restrictions}");
        }
    }
    assert!(names_in(&workspace.at("")).iter().all(|name| name.starts_with("out")), "nothing is left behind");
}

#[test]
fn a_second_one_for_the_same_output_is_told() {
    let workspace = Workspace::new();
    let bytes = noise(5 << 20, 3);
    let (crc32, served) = (crc32fast::hash(&bytes), bytes.clone());
    let (out, beside) = (workspace.at("to/out"), workspace.at("to"));
    fs::create_dir(&beside).expect("create");
    let retried = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let may_end = std::sync::Arc::clone(&retried);
    let source = PlainSource::start(move |nth, seen| {
        let mut answer = whole(&served, MTIME_NS, crc32, seen.offset);
        match nth {
            0 => answer.truncate(32 + 1000),
            _ => wait_until("the second client", || may_end.load(std::sync::atomic::Ordering::Acquire)),
        }
        answer
    });
    let first = Client::get(source.port(), "a/path", &out).start();
    wait_until("a part file", || names_in(&beside).len() == 2 && source.seen().len() == 2);
    let run = Client::get(source.port(), "a/path", &out).run().expect_exit(3);
    assert!(run.stderr.contains("another fastcp-client"), "{}", run.stderr);
    retried.store(true, std::sync::atomic::Ordering::Release);
    first.finish().expect_exit(0);
    assert!(fs::read(&out).expect("read") == bytes);
    assert_eq!(names_in(&beside), ["out"]);
}

#[test]
fn what_is_left_beside_the_output_belongs_to_nobody_else_and_is_not_deleted() {
    let workspace = Workspace::new();
    let mut tree = Tree::new(&workspace.at("source"));
    tree.file("file", b"bytes");
    let tree = tree.finish();
    let bytes = noise(900_000, 2);
    let crc32 = crc32fast::hash(&bytes);
    let source = PlainSource::start(move |nth, seen| {
        let mut answer = whole(&bytes, MTIME_NS, crc32, seen.offset);
        answer.truncate([32 + 123_456, usize::MAX][nth.min(1)]);
        answer
    });
    let copy = workspace.at("copy");
    let server = Server::start(&tree);
    Client::pull(server.url(""), &copy).run().expect_exit(0);
    Client::get(source.port(), "a/path", copy.join("out")).options("--retry 0").run().expect_exit(35);
    let run = Client::pull(contents(&tree), &copy).options("--delete").run().expect_exit(0);
    run.expect_counts(&[("deleted", 0)]);
    assert_eq!(names_in_parts(&copy), Vec::<&Path>::new());
    let run = Client::get(source.port(), "a/path", copy.join("out")).run().expect_exit(0);
    run.expect_counts(&[("bytes_reused", 123_456)]);
}

#[test]
fn what_is_said_of_the_end_is_so() {
    let workspace = Workspace::new();
    let nobody = ReservedPort::new();
    let run = Client::get(nobody.port, "a/path", workspace.at("out")).options("--retry 0").run().expect_exit(35);
    assert!(!run.stderr.contains("kept") && !run.stderr.contains("no answer"), "{}", run.stderr);
    let source = PlainSource::start(|_, seen| {
        let mut answer = whole(b"bytes", MTIME_NS, 7, seen.offset);
        answer.truncate(32 + 2);
        answer
    });
    let run = Client::get(source.port(), "a/path", workspace.at("out")).options("--retry 0").run().expect_exit(35);
    assert!(run.stderr.contains("received data is kept"), "{}", run.stderr);
    let (source, out) = (source_of(b"bytes"), workspace.at("other"));
    let port = source.port().to_string();
    let run = Client::new(["get", "127.0.0.1", &port, "a/path", out.to_str().expect("plain")]).run().expect_exit(0);
    assert!(
        run.lines.join("").contains("1 file copied") && !run.lines.join("").contains("unchanged"),
        "{:?}",
        run.lines
    );
}

#[test]
fn a_directory_is_for_pull() {
    let workspace = Workspace::new();
    let mut tree = Tree::new(&workspace.at("source"));
    tree.dir("sub").file("sub/file", b"bytes");
    let server = Server::start(&tree.finish());
    let run = Client::get(server.port(), "sub", workspace.at("out")).run().expect_exit(3);
    assert!(run.stderr.contains("is a directory; to copy a directory: fastcp-client pull fcp://"), "{}", run.stderr);
}
