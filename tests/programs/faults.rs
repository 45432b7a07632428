//! What goes wrong on the way: bytes that change, connections that die, servers that come late,
//! destinations that take no more. Either the tree arrives right, or what happened is said and a rerun
//! ends it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::support::client::{Client, Run, contents};
use crate::support::compare::{assert_same, assert_same_but_room};
use crate::support::cut_proxy::{CutProxy, Fault};
use crate::support::mount::SmallDisk;
use crate::support::port::ReservedPort;
use crate::support::server::Server;
use crate::support::tree::{Tree, everything, noise, plain, text};
use crate::support::{Workspace, is_root, say_skipped};
use fastcp_wire::frame::{FRAME_HEADER_BYTES, FRAME_SUM_BYTES};
use fastcp_wire::reply::PIECE_HEADER_BYTES;

/// What a data connection begins with: the answer to ATTACH.
const ATTACH_REPLY_BYTES: usize = FRAME_HEADER_BYTES + FRAME_SUM_BYTES;
/// What precedes the first body on it.
const BEFORE_BODY: usize = ATTACH_REPLY_BYTES + PIECE_HEADER_BYTES;

fn pull_through(fault: Fault, source: &Path, copy: &Path, options: &str) -> Run {
    let server = Server::start(source);
    let proxy = CutProxy::start(server.address, fault);
    let run = Client::pull(proxy.url(), copy).options(options).run();
    assert!(proxy.data_connections() > 0);
    run
}

#[test]
fn a_flipped_byte_of_a_body_is_fetched_again_alone() {
    let workspace = Workspace::new();
    let mut tree = Tree::new(&workspace.at("source"));
    tree.file("file", &noise(900_000, 1));
    let source = tree.finish();
    for (nth, options) in
        ["", "--no-compress", "--chunk-kb 64", "--receive-path splice --no-compress --chunk-kb 256"].iter().enumerate()
    {
        for at in [0, 1000, 60_000] {
            let copy = workspace.at(&format!("copy {nth} {at}"));
            let options = format!("--conns 1 {options}");
            let run = pull_through(Fault::Flip(BEFORE_BODY + at), &source, &copy, &options).expect_exit(0);
            assert_same(&source, &copy);
            run.expect_counts(&[
                ("chunks_refetched", 1),
                ("bytes_fetched", 900_000),
                ("files_committed", 1),
                ("reconnects", 0),
            ]);
        }
    }
}

#[test]
fn a_flipped_byte_of_a_compressed_body_is_fetched_again() {
    let workspace = Workspace::new();
    let mut tree = Tree::new(&workspace.at("source"));
    tree.file("file", &text(900_000));
    let source = tree.finish();
    for at in [0, 7, 500] {
        let copy = workspace.at(&format!("copy {at}"));
        let run = pull_through(Fault::Flip(BEFORE_BODY + at), &source, &copy, "--conns 1").expect_exit(0);
        assert_same(&source, &copy);
        run.expect_counts(&[("chunks_refetched", 1), ("bytes_fetched", 900_000), ("files_failed", 0)]);
    }
}

#[test]
fn a_flipped_byte_around_a_body_costs_a_chunk_or_a_connection() {
    let workspace = Workspace::new();
    let mut tree = Tree::new(&workspace.at("source"));
    tree.file("file", &noise(100_000, 1));
    let source = tree.finish();
    let header = ATTACH_REPLY_BYTES..BEFORE_BODY;
    let trailer = BEFORE_BODY + 100_000..BEFORE_BODY + 100_006;
    for at in header.step_by(4).chain(trailer) {
        let copy = workspace.at(&format!("copy {at}"));
        let run = pull_through(Fault::Flip(at), &source, &copy, "--conns 1 --no-compress");
        assert_eq!(run.code, Some(0), "byte {at}: {}", run.stderr);
        assert_same(&source, &copy);
        assert_eq!(run.count("chunks_refetched") + run.count("reconnects"), 1, "byte {at}");
    }
}

#[test]
fn a_flipped_byte_of_the_handshake_never_leaves_a_wrong_tree() {
    let workspace = Workspace::new();
    let source = plain(&workspace.at("source"));
    // All but the bytes of the length, which make the client wait for more until its time is up.
    for at in (0..5).chain(8..ATTACH_REPLY_BYTES) {
        let copy = workspace.at(&format!("copy {at}"));
        let run = pull_through(Fault::Flip(at), &source, &copy, "--conns 1 --retry 2");
        assert!(matches!(run.code, Some(0 | 12 | 30)), "byte {at}: {:?} {}", run.code, run.stderr);
        Client::pull(contents(&source), &copy).run().expect_exit(0);
        assert_same(&source, &copy);
    }
}

#[test]
fn a_connection_cut_anywhere_is_dialled_again() {
    let workspace = Workspace::new();
    let source = everything(&workspace.at("source")).finish();
    let server = Server::start(&source);
    let body = BEFORE_BODY;
    for (at, conns) in [(0, 1), (5, 2), (12, 1), (30, 2), (body, 1), (body + 1, 2), (100_000, 1), (1_000_000, 2)] {
        let proxy = CutProxy::start(server.address, Fault::Cut(at));
        let copy = workspace.at(&format!("copy {at}"));
        let options = format!("--conns {conns} --no-compress");
        let run = Client::pull(proxy.url(), &copy).options(&options).run().expect_exit(0);
        assert_same_but_room(&source, &copy);
        // Of two, the other may have done all that was left before it was time to dial again.
        if conns == 1 {
            assert!(proxy.data_connections() > 1, "cut at {at}");
            // One that ended before it was attached was not in use yet.
            assert!(run.count("reconnects") > 0 || at < ATTACH_REPLY_BYTES, "cut at {at}");
        }
        assert_eq!((run.count("files_failed"), run.count("chunks_refetched")), (0, 0), "cut at {at}");
    }
}

#[test]
fn holes_stay_holes_when_a_connection_was_cut() {
    let workspace = Workspace::new();
    let mut tree = Tree::new(&workspace.at("source"));
    tree.file("first", &noise(200_000, 1)).sparse("whole", 900_000, &[(500_000, b"island")]);
    tree.sparse("chunks", 6 << 20, &[(2 << 20, &noise(100_000, 2))]);
    let source = tree.finish();
    for at in [BEFORE_BODY + 100, BEFORE_BODY + 190_000] {
        let copy = workspace.at(&format!("copy {at}"));
        let run = pull_through(Fault::Cut(at), &source, &copy, "--conns 1 --no-compress").expect_exit(0);
        assert!(run.count("reconnects") > 0);
        assert_same(&source, &copy);
    }
}

#[test]
fn a_connection_that_only_the_client_knows_is_dead_is_dialled_again() {
    let workspace = Workspace::new();
    let source = plain(&workspace.at("source"));
    let copy = workspace.at("copy");
    let run = pull_through(Fault::CutUnseen(10_000), &source, &copy, "--conns 1 --no-compress").expect_exit(0);
    assert_same(&source, &copy);
    assert!(run.count("reconnects") > 0);
}

#[test]
fn a_server_that_never_comes_ends_the_wait() {
    let reserved = ReservedPort::new();
    let workspace = Workspace::new();
    let run = Client::pull(reserved.url(), workspace.at("copy")).options("--retry 1").run().expect_exit(35);
    assert!(run.stderr.contains(&format!("127.0.0.1:{}", reserved.port)), "{}", run.stderr);
    assert!(run.events().iter().any(|event| event["event"] == "retrying"));
    Client::get(reserved.port, "file", workspace.at("out")).options("--retry 0").run().expect_exit(35);
}

#[test]
fn a_server_that_comes_late_is_waited_for() {
    let reserved = ReservedPort::new();
    let workspace = Workspace::new();
    let source = plain(&workspace.at("source"));
    let copy = workspace.at("copy");
    let mut client = Client::pull(reserved.url(), &copy).start();
    client.wait_for_event("retrying");
    let server = reserved.serve(&source);
    client.finish().expect_exit(0);
    drop(server);
    assert_same(&source, &copy);
}

#[test]
fn a_full_destination_ends_the_run_and_a_rerun_completes_it() {
    let workspace = Workspace::new();
    let Some(disk) = SmallDisk::mount(&workspace.at("disk"), 2048) else { return };
    let mut tree = Tree::new(&workspace.at("source"));
    tree.dir("small").file("large", &noise(5 << 20, 1)).file("middle", &noise(1 << 20, 2));
    for nth in 0..400 {
        tree.file(format!("small/{nth}"), &noise(8000, nth));
    }
    let source = tree.finish();
    let copy = workspace.at("disk/copy");
    for options in ["--no-compress", "--receive-path splice --no-compress --chunk-kb 64", "--conns 1"] {
        let run = Client::pull(contents(&source), &copy).options(options).run().expect_exit(11);
        let is_said = run.stderr.contains("No space left") && run.stderr.contains("run the command again");
        assert!(is_said, "{}", run.stderr);
    }
    disk.remount("size=64m");
    let run = Client::pull(contents(&source), &copy).run().expect_exit(0);
    assert_same(&source, &copy);
    assert_eq!(run.count("files_committed") + run.count("files_unchanged"), 402);
}

#[test]
fn a_read_only_destination_exits_with_11() {
    let workspace = Workspace::new();
    let Some(disk) = SmallDisk::mount(&workspace.at("disk"), 4096) else { return };
    let source = plain(&workspace.at("source"));
    let copy = workspace.at("disk/copy");
    fs::create_dir(&copy).expect("create");
    disk.remount("ro");
    for options in ["", "--chunk-kb 4"] {
        let run = Client::pull(contents(&source), &copy).options(options).run().expect_exit(11);
        assert!(run.stderr.contains("Read-only file system"), "{}", run.stderr);
    }
    disk.remount("rw");
    Client::pull(contents(&source), &copy).run().expect_exit(0);
    assert_same(&source, &copy);
}

#[test]
fn a_destination_that_is_not_ours_to_write_names_each_entry_and_exits_with_23() {
    if !is_root() {
        return say_skipped("only root can make a directory that is not ours");
    }
    let workspace = Workspace::new();
    let source = plain(&workspace.at("source"));
    let copy = workspace.at("copy");
    fs::create_dir(&copy).expect("create");
    fs::set_permissions(&copy, Permissions::from_mode(0o755)).expect("chmod");
    let run = Client::pull(contents(&source), &copy).unprivileged(&workspace).run().expect_exit(23);
    assert!(run.stderr.contains("Permission denied"), "{}", run.stderr);
    assert_eq!(fs::read_dir(&copy).expect("read").count(), 0);
}

#[test]
fn a_destination_that_is_no_directory_exits_with_11() {
    let workspace = Workspace::new();
    let source = plain(&workspace.at("source"));
    let server = Server::start(&source);
    let occupied = workspace.at("file");
    fs::write(&occupied, b"mine").expect("write");
    for from in [contents(&source).into_os_string(), server.url("").into()] {
        for dst in [occupied.clone(), occupied.join("below"), workspace.at("no/parent")] {
            let run = Client::pull(&from, &dst).run().expect_exit(11);
            assert!(run.stderr.contains(dst.to_str().expect("plain")), "{}", run.stderr);
        }
    }
    assert_eq!(fs::read(&occupied).expect("still there"), b"mine");
}
