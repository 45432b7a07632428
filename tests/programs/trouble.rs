//! Trouble that one file has is that file's: errors of the disk at either end name it and end with 23, and everything
//! else arrives.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::support::Workspace;
use crate::support::client::{Client, Run, contents};
use crate::support::compare::assert_same;
use crate::support::lied_to::LiedTo;
use crate::support::lying_sender::Lies;
use crate::support::said::{file, listing, offer, truth};
use crate::support::server::Server;
use crate::support::strace::Strace;
use crate::support::tree::{Tree, noise, text};
use crate::support::way::{BOTH_WAYS, Route, Way};
use fastcp_wire::request::RangeRequest;

/// The file that has the trouble, and small ones around it.
fn with_neighbours(root: &Path, bytes: &[u8]) -> PathBuf {
    let mut tree = Tree::new(root);
    tree.dir("dir").file("dir/bad", bytes);
    for nth in 0..20 {
        tree.file(format!("dir/small{nth}"), &noise(3000, nth));
    }
    tree.finish()
}

fn expect_only_bad_failed(run: Run) -> Run {
    let run = run.expect_exit(23);
    assert_eq!(run.paths_of("failed"), ["dir/bad"], "{}", run.stderr);
    assert_eq!(run.count("files_committed"), 20);
    assert!(run.stderr.contains("dir/bad"), "{}", run.stderr);
    run
}

#[test]
fn a_disk_error_while_a_file_is_committed_fails_that_file() {
    let Some(strace) = Strace::new() else { return };
    for way in BOTH_WAYS {
        for (call, options) in [("fchmod", ""), ("utimensat", ""), ("fchmod", "--durability file"), ("pwrite64", "")] {
            for round in 0..if way == Way::Pull { 3 } else { 1 } {
                let workspace = Workspace::new();
                let source = with_neighbours(&workspace.at("source"), &noise(4 << 20, 1));
                let route = Route::new(way, &source, &workspace);
                let copy = workspace.at("copy");
                // Each of several threads has its own count: whoever lands the file is on its first, or there are more.
                let strace = strace.clone().fails_at(call, "EIO", "1");
                let options = format!("--conns 4 --chunk-kb 256 {options}");
                let run = Route::new(way, &source, &workspace).receiver_strace(&strace).bring(&copy, &options);
                assert_eq!(run.code, Some(23), "{call} {round}: {}", run.stderr);
                let failed = run.paths_of("failed");
                assert!(!failed.is_empty() && run.stderr.contains("Input/output error"), "{call}: {}", run.stderr);
                let files = failed.iter().filter(|path| !["", "dir"].contains(&path.as_str())).count() as u64;
                assert_eq!(run.count("files_committed") + files, 21, "{call}: {failed:?}");
                route.bring(&copy, "").expect_exit(0);
                assert_same(&source, &copy);
            }
        }
    }
}

#[test]
fn a_full_disk_while_files_are_committed_ends_the_run_without_a_panic() {
    let Some(strace) = Strace::new() else { return };
    for way in BOTH_WAYS {
        let workspace = Workspace::new();
        let source = with_neighbours(&workspace.at("source"), &noise(4 << 20, 1));
        let route = Route::new(way, &source, &workspace).receiver_strace(&strace.clone().fails("fchmod", "ENOSPC"));
        for round in 0..4 {
            let copy = workspace.at(&format!("copy {round}"));
            let run = route.bring(&copy, "--conns 4 --chunk-kb 64").expect_exit(11);
            assert!(run.stderr.contains("No space left"), "{}", run.stderr);
        }
    }
}

#[test]
fn a_file_that_the_sender_cannot_read_fails_by_its_name() {
    let Some(strace) = Strace::new() else { return };
    let (noise, text) = (noise(4 << 20, 1), text(4 << 20));
    for (bytes, options, server_options) in [
        (&noise, "--no-compress", ""),
        (&noise, "--no-compress --chunk-kb 64 --conns 1", ""),
        (&noise, "--no-compress --conns 1 --receive-path splice", ""),
        (&text, "--conns 1", ""),
        (&text, "", "--compress-level 3"),
    ] {
        let workspace = Workspace::new();
        let source = with_neighbours(&workspace.at("source"), bytes);
        let strace = strace.clone().fails("pread64", "EIO").on_path(&source.join("dir/bad"));
        let server = Server::start_strace(&source, &format!("127.0.0.1 0 {server_options}"), &strace);
        let copy = workspace.at("copy");
        let run = expect_only_bad_failed(Client::pull(server.url(""), &copy).options(options).run());
        assert!(run.stderr.contains("input/output error"), "{}", run.stderr);
        assert_eq!(run.count("reconnects"), 0, "with {options}");
        drop(server);
        Client::pull(contents(&source), &copy).run().expect_exit(0);
        assert_same(&source, &copy);
    }
}

#[test]
fn a_file_of_which_some_ranges_cannot_be_read_fails_by_its_name() {
    let Some(strace) = Strace::new() else { return };
    let workspace = Workspace::new();
    let source = with_neighbours(&workspace.at("source"), &noise(8 << 20, 1));
    let strace = strace.fails_at("pread64", "EIO", "3+").on_path(&source.join("dir/bad"));
    let server = Server::start_strace(&source, "127.0.0.1 0", &strace);
    let copy = workspace.at("copy");
    let run = expect_only_bad_failed(Client::pull(server.url(""), &copy).options("--no-compress --conns 1").run());
    assert_eq!(run.count("reconnects"), 0);
}

#[test]
fn what_sendfile_cannot_send_is_sent_from_memory() {
    let Some(strace) = Strace::new() else { return };
    let workspace = Workspace::new();
    let source = with_neighbours(&workspace.at("source"), &noise(8 << 20, 1));
    for (nth, (error, when)) in [("EIO", "1+"), ("EIO", "3+"), ("ESTALE", "2"), ("ENOMEM", "1+")].iter().enumerate() {
        let strace = strace.clone().fails_at("sendfile", error, when);
        let server = Server::start_strace(&source, "127.0.0.1 0", &strace);
        let copy = workspace.at(&format!("copy {nth}"));
        let run = Client::pull(server.url(""), &copy).options("--no-compress --conns 2").run().expect_exit(0);
        assert_eq!((run.count("reconnects"), run.count("chunks_refetched")), (0, 0), "{error} {when}");
        assert_same(&source, &copy);
        if *when == "1+" {
            Client::get(server.port(), "dir/bad", workspace.at("got")).run().expect_exit(0);
            assert_eq!(std::fs::read(workspace.at("got")).expect("read"), noise(8 << 20, 1));
        }
    }
}

#[test]
fn a_small_file_in_a_bundle_that_cannot_be_read_fails_alone() {
    let Some(strace) = Strace::new() else { return };
    let workspace = Workspace::new();
    let source = with_neighbours(&workspace.at("source"), b"small as well");
    let cases = [("", ""), ("--no-compress", ""), ("--conns 1", "--compress-level 3")];
    for (nth, (options, server_options)) in cases.iter().enumerate() {
        let strace = strace.clone().fails("pread64", "EIO").on_path(&source.join("dir/bad"));
        let server = Server::start_strace(&source, &format!("127.0.0.1 0 {server_options}"), &strace);
        let copy = workspace.at(&format!("copy {nth}"));
        let run = expect_only_bad_failed(Client::pull(server.url(""), &copy).options(options).run());
        assert_eq!(run.count("reconnects"), 0);
    }
}

#[test]
fn an_old_version_is_updated_though_the_sender_cannot_list_its_chunks() {
    let Some(strace) = Strace::new() else { return };
    let workspace = Workspace::new();
    let source = with_neighbours(&workspace.at("source"), &noise(8 << 20, 1));
    let copy = workspace.at("copy");
    std::fs::create_dir_all(copy.join("dir")).expect("create");
    std::fs::write(copy.join("dir/bad"), &noise(8 << 20, 1)[1000..]).expect("write");
    let strace = strace.fails("pread64", "EIO").on_path(&source.join("dir/bad"));
    let server = Server::start_strace(&source, "127.0.0.1 0", &strace);
    expect_only_bad_failed(Client::pull(server.url(""), &copy).options("--no-whole-file").run());
    let run = Client::verify(&copy, server.url("")).run().expect_exit(23);
    assert!(run.differences().iter().all(|(_, path)| path == "dir/bad"), "{}", run.stderr);
}

#[test]
fn verify_names_a_file_that_the_sender_cannot_read() {
    let Some(strace) = Strace::new() else { return };
    let workspace = Workspace::new();
    let source = with_neighbours(&workspace.at("source"), &noise(8 << 20, 1));
    let copy = workspace.at("copy");
    Client::pull(contents(&source), &copy).run().expect_exit(0);
    let strace = strace.fails("pread64", "EIO").on_path(&source.join("dir/bad"));
    let server = Server::start_strace(&source, "127.0.0.1 0", &strace);
    let run = Client::verify(&copy, server.url("")).run().expect_exit(23);
    assert_eq!(run.paths_of("failed"), ["dir/bad"], "{}", run.stderr);
    assert_eq!(run.count("differences"), 0);
}

/// A sender of ten files, one of which ends every connection that it is asked for on.
fn sender_that_breaks(on: impl Fn(&RangeRequest) -> Breaks + Send + Sync + 'static) -> Lies {
    let files: Vec<_> = (0..10).map(|nth| (format!("{nth}"), noise(300_000, nth))).collect();
    let entries = files.iter().map(|(name, bytes)| file(name, bytes)).collect();
    Lies::sending_bytes(offer(vec![listing("", entries)]), move |request, stream| {
        let nth: usize = std::str::from_utf8(&request.path).expect("plain").parse().expect("a number");
        let answer = truth(request, &files[nth].1);
        let sent = match on(request) {
            Breaks::Not => answer.len(),
            Breaks::AtOnce => 0,
            Breaks::After(bytes) => bytes,
        };
        stream.write_all(&answer[..sent])?;
        if sent < answer.len() { Err(std::io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    })
}

enum Breaks {
    Not,
    AtOnce,
    After(usize),
}

#[test]
fn a_file_that_breaks_every_connection_fails_by_its_name() {
    for way in BOTH_WAYS {
        let lied_to = LiedTo::by(way);
        for options in ["--conns 1", "--conns 4", "--conns 1 --chunk-kb 64", "--conns 2 --no-compress"] {
            for begins in [false, true] {
                let sender = sender_that_breaks(move |request| match (&request.path[..], begins) {
                    (b"4", true) => Breaks::After(60),
                    (b"4", false) => Breaks::AtOnce,
                    _ => Breaks::Not,
                });
                let run = lied_to.hear_at(&lied_to.copy(), sender, options).expect_exit(23);
                assert_eq!(run.paths_of("failed"), ["4"], "{}", run.stderr);
                assert!(run.stderr.contains("connections broke"), "{}", run.stderr);
                assert_eq!(run.count("files_committed"), 9);
            }
        }
        lied_to.finish();
    }
}

#[test]
fn a_file_that_breaks_every_connection_does_so_in_verify_too() {
    let workspace = Workspace::new();
    let copy = workspace.at("copy");
    let honest = sender_that_breaks(|_| Breaks::Not).listen();
    Client::pull(honest.url(), &copy).run().expect_exit(0);
    for options in ["--conns 1", "--conns 4"] {
        let sender =
            sender_that_breaks(|request| if request.path[..] == b"4"[..] { Breaks::AtOnce } else { Breaks::Not })
                .listen();
        let run = Client::verify(&copy, sender.url()).options(options).run().expect_exit(23);
        assert_eq!(run.paths_of("failed"), ["4"], "{}", run.stderr);
        assert_eq!(run.count("files_verified"), 9);
    }
}

#[test]
fn a_sender_that_breaks_every_connection_is_not_the_fault_of_files() {
    for way in BOTH_WAYS {
        let lied_to = LiedTo::by(way);
        let run = lied_to.hear_at(&lied_to.copy(), sender_that_breaks(|_| Breaks::AtOnce), "--retry 2");
        assert_eq!(run.code, Some(12), "{}", run.stderr);
        assert_eq!(run.count("files_failed"), 0);
    }
}

#[test]
fn a_range_that_broke_two_connections_may_still_come() {
    for way in BOTH_WAYS {
        let lied_to = LiedTo::by(way);
        let broken = AtomicU32::new(0);
        let sender = sender_that_breaks(move |request| {
            let is_bad = request.path[..] == b"4"[..] && broken.fetch_add(1, Ordering::Relaxed) < BREAKS_BEFORE;
            if is_bad { Breaks::After(60) } else { Breaks::Not }
        });
        let run = lied_to.hear_at(&lied_to.copy(), sender, "--conns 1").expect_exit(0);
        assert_eq!(run.count("reconnects"), u64::from(BREAKS_BEFORE));
    }
}

const BREAKS_BEFORE: u32 = 2;

#[test]
fn a_leased_file_is_waited_for_and_fails_by_its_name_where_the_lease_is_kept() {
    let Some(strace) = Strace::new() else { return };
    let workspace = Workspace::new();
    let source = with_neighbours(&workspace.at("source"), &noise(300_000, 1));
    let pull = |strace: &Strace, copy: &Path| {
        let strace = strace.clone().on_path(Path::new("bad"));
        let server = Server::start_strace(&source, "127.0.0.1 0", &strace);
        Client::pull(server.url(""), copy).options("--conns 1").run()
    };
    let run = pull(&strace.clone().fails_at("openat", "EAGAIN", "1..20"), &workspace.at("given up")).expect_exit(0);
    assert_eq!(run.count("files_failed"), 0);
    assert_same(&source, &workspace.at("given up"));
    let log = workspace.at("log");
    let run = pull(&strace.fails("openat", "EAGAIN").logged_to(&log), &workspace.at("kept"));
    let run = expect_only_bad_failed(run);
    assert!(run.stderr.contains("lease"), "{}", run.stderr);
    let attempts = std::fs::read_to_string(&log).expect("read").lines().count();
    assert!((10..400).contains(&attempts), "{attempts} attempts");
}

#[test]
fn leased_files_of_one_directory_do_not_keep_a_connection_silent() {
    let Some(strace) = Strace::new() else { return };
    let workspace = Workspace::new();
    let source = with_neighbours(&workspace.at("source"), b"small as well");
    let leased = ["small1", "small2", "small3", "small4"];
    let strace = leased.iter().fold(strace.fails("openat", "EAGAIN"), |strace, name| strace.on_path(Path::new(name)));
    let server = Server::start_strace(&source, "127.0.0.1 0", &strace);
    // A peer that says nothing for three seconds is given up; these leases take eight.
    let run = Client::pull(server.url(""), workspace.at("copy")).options("--retry 6").run().expect_exit(23);
    assert_eq!(run.paths_of("failed"), leased.map(|name| format!("dir/{name}")), "{}", run.stderr);
    assert_eq!((run.count("files_committed"), run.count("reconnects")), (17, 0));
}
