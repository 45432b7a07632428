//! Trouble that one file has is that file's: errors of the disk at either end name it and end with 23, and everything
//! else arrives.

mod support;

use std::path::{Path, PathBuf};

use support::Workspace;
use support::client::{Client, Run, contents};
use support::compare::assert_same;
use support::server::Server;
use support::strace::Strace;
use support::tree::{Tree, noise, text};

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
    for (call, options) in [("fchmod", ""), ("utimensat", ""), ("fchmod", "--durability file"), ("pwrite64", "")] {
        for round in 0..3 {
            let workspace = Workspace::new();
            let source = with_neighbours(&workspace.at("source"), &noise(4 << 20, 1));
            let copy = workspace.at("copy");
            // Each of several threads has its own count: whoever lands the file is on its first, or there are more.
            let strace = strace.clone().fails_at(call, "EIO", "1");
            let options = format!("--conns 4 --chunk-kb 256 {options}");
            let run = Client::pull(contents(&source), &copy).options(&options).strace(&strace).run();
            assert_eq!(run.code, Some(23), "{call} {round}: {}", run.stderr);
            let failed = run.paths_of("failed");
            assert!(!failed.is_empty() && run.stderr.contains("Input/output error"), "{call}: {}", run.stderr);
            let files = failed.iter().filter(|path| !["", "dir"].contains(&path.as_str())).count() as u64;
            assert_eq!(run.count("files_committed") + files, 21, "{call}: {failed:?}");
            Client::pull(contents(&source), &copy).run().expect_exit(0);
            assert_same(&source, &copy);
        }
    }
}

#[test]
fn a_full_disk_while_files_are_committed_ends_the_run_without_a_panic() {
    let Some(strace) = Strace::new() else { return };
    let workspace = Workspace::new();
    let source = with_neighbours(&workspace.at("source"), &noise(4 << 20, 1));
    let strace = strace.fails("fchmod", "ENOSPC");
    for round in 0..4 {
        let copy = workspace.at(&format!("copy {round}"));
        let options = "--conns 4 --chunk-kb 64";
        let run = Client::pull(contents(&source), &copy).options(options).strace(&strace).run().expect_exit(11);
        assert!(run.stderr.contains("No space left"), "{}", run.stderr);
    }
}

#[test]
fn a_file_that_the_sender_cannot_read_fails_by_its_name() {
    let Some(strace) = Strace::new() else { return };
    let (noise, text) = (noise(4 << 20, 1), text(4 << 20));
    for (bytes, options) in [
        (&noise, "--no-compress"),
        (&noise, "--no-compress --chunk-kb 64 --conns 1"),
        (&noise, "--no-compress --conns 1 --receive-path splice"),
        (&text, "--conns 1"),
        (&text, "--compress-level 3"),
    ] {
        let workspace = Workspace::new();
        let source = with_neighbours(&workspace.at("source"), bytes);
        let strace = strace.clone().fails("pread64", "EIO").on_path(&source.join("dir/bad"));
        let server = Server::start_strace(&source, "127.0.0.1 0", &strace);
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
    for (nth, options) in ["", "--no-compress", "--compress-level 3 --conns 1"].iter().enumerate() {
        let strace = strace.clone().fails("pread64", "EIO").on_path(&source.join("dir/bad"));
        let server = Server::start_strace(&source, "127.0.0.1 0", &strace);
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
