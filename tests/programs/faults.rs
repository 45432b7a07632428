//! What goes wrong on the way: bytes that change, connections that die, servers that come late,
//! destinations that take no more. Either the tree arrives right, or what happened is said and a rerun
//! ends it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::support::client::{Client, Run, contents};
use crate::support::compare::{assert_same, assert_same_but_room};
use crate::support::cut_proxy::{CutProxy, Fault};
use crate::support::mount::SmallDisk;
use crate::support::port::ReservedPort;
use crate::support::server::Server;
use crate::support::tree::{Tree, everything, noise, plain, text};
use crate::support::way::{BOTH_WAYS, Route, Way};
use crate::support::{Workspace, is_root, say_skipped};
use fastcp_wire::frame::{FRAME_HEADER_BYTES, FRAME_SUM_BYTES};
use fastcp_wire::hello::Ticket;
use fastcp_wire::reply::PIECE_HEADER_BYTES;

/// What a sender's side of a data connection begins with: ATTACH where it dials, and the answer to it where not.
fn greeting_bytes(way: Way) -> usize {
    let frame = FRAME_HEADER_BYTES + FRAME_SUM_BYTES;
    if way == Way::Push { frame + size_of::<Ticket>() } else { frame }
}

/// What precedes the first body on it.
fn before_body(way: Way) -> usize {
    greeting_bytes(way) + PIECE_HEADER_BYTES
}

/// A source, its server, and what is between.
struct Faulty {
    route: Route,
    server: Server,
    source: PathBuf,
    workspace: Workspace,
}

impl Faulty {
    fn by(way: Way, put: impl FnOnce(&mut Tree)) -> Self {
        let workspace = Workspace::new();
        let route = Route::of(way, &workspace, put);
        Self { server: route.serve(), source: route.source.clone(), route, workspace }
    }

    fn copy(&self, name: &str) -> PathBuf {
        self.workspace.at(&format!("copy {name}"))
    }

    fn proxy(&self, fault: Fault) -> CutProxy {
        self.route.cut_proxy(self.server.address, 0, fault)
    }

    /// A run whose first data connection has this fault in what the source sends.
    fn run(&self, fault: Fault, copy: &Path, options: &str) -> Run {
        let proxy = self.proxy(fault);
        let run = self.route.client(proxy.address, copy).options(options).run();
        assert!(proxy.data_connections() > 0);
        run
    }
}

#[test]
fn a_flipped_byte_of_a_body_is_fetched_again_alone() {
    for way in BOTH_WAYS {
        let faulty = Faulty::by(way, |tree| _ = tree.file("file", &noise(900_000, 1)));
        for (nth, options) in
            ["", "--no-compress", "--chunk-kb 64", "--receive-path splice --no-compress --chunk-kb 256"]
                .iter()
                .enumerate()
        {
            for at in [0, 1000, 60_000] {
                let copy = faulty.copy(&format!("{nth} {at}"));
                let options = format!("--conns 1 {options}");
                let run = faulty.run(Fault::Flip(before_body(way) + at), &copy, &options).expect_exit(0);
                assert_same(&faulty.source, &copy);
                run.expect_counts(&[
                    ("chunks_refetched", 1),
                    ("bytes_fetched", 900_000),
                    ("files_committed", 1),
                    ("reconnects", 0),
                ]);
            }
        }
    }
}

#[test]
fn a_flipped_byte_of_a_compressed_body_is_fetched_again() {
    for way in BOTH_WAYS {
        let faulty = Faulty::by(way, |tree| _ = tree.file("file", &text(900_000)));
        for at in [0, 7, 500] {
            let copy = faulty.copy(&at.to_string());
            let run = faulty.run(Fault::Flip(before_body(way) + at), &copy, "--conns 1").expect_exit(0);
            assert_same(&faulty.source, &copy);
            run.expect_counts(&[("chunks_refetched", 1), ("bytes_fetched", 900_000), ("files_failed", 0)]);
        }
    }
}

#[test]
fn a_flipped_byte_around_a_body_costs_a_chunk_or_a_connection() {
    for way in BOTH_WAYS {
        let faulty = Faulty::by(way, |tree| _ = tree.file("file", &noise(100_000, 1)));
        let header = greeting_bytes(way)..before_body(way);
        let trailer = before_body(way) + 100_000..before_body(way) + 100_006;
        for at in header.step_by(4).chain(trailer) {
            let copy = faulty.copy(&at.to_string());
            let run = faulty.run(Fault::Flip(at), &copy, "--conns 1 --no-compress");
            assert_eq!(run.code, Some(0), "byte {at}: {}", run.stderr);
            assert_same(&faulty.source, &copy);
            assert_eq!(run.count("chunks_refetched") + run.count("reconnects"), 1, "byte {at}");
        }
    }
}

#[test]
fn a_flipped_byte_of_the_handshake_never_leaves_a_wrong_tree() {
    for way in BOTH_WAYS {
        let faulty =
            Faulty::by(way, |tree| _ = tree.file("file", &noise(300_000, 1)).dir("sub").file("sub/small", b"1"));
        // All but the bytes of the length, which make the other end wait for more until its time is up.
        for at in (0..5).chain(8..greeting_bytes(way)) {
            let copy = faulty.copy(&at.to_string());
            let run = faulty.run(Fault::Flip(at), &copy, "--conns 1 --retry 2");
            assert!(matches!(run.code, Some(0 | 12 | 30)), "byte {at}: {:?} {}", run.code, run.stderr);
            faulty.route.client(faulty.server.address, &copy).run().expect_exit(0);
            assert_same(&faulty.source, &copy);
        }
    }
}

#[test]
fn a_connection_cut_anywhere_is_dialled_again() {
    for way in BOTH_WAYS {
        let workspace = Workspace::new();
        let source = everything(&workspace.at("source")).finish();
        let route = Route::new(way, &source, &workspace);
        let faulty = Faulty { server: route.serve(), source, route, workspace };
        let (body, greeting) = (before_body(way), greeting_bytes(way));
        for (at, conns) in
            [(0, 1), (5, 2), (greeting, 1), (30, 2), (body, 1), (body + 1, 2), (100_000, 1), (1_000_000, 2)]
        {
            let proxy = faulty.proxy(Fault::Cut(at));
            let copy = faulty.copy(&at.to_string());
            let options = format!("--conns {conns} --no-compress");
            let run = faulty.route.client(proxy.address, &copy).options(&options).run().expect_exit(0);
            assert_same_but_room(&faulty.source, &copy);
            // Of two, the other may have done all that was left before it was time to dial again.
            if conns == 1 {
                assert!(proxy.data_connections() > 1, "cut at {at}");
                // One that ended before it was attached was not in use yet.
                assert!(run.count("reconnects") > 0 || at < greeting, "cut at {at}");
            }
            assert_eq!((run.count("files_failed"), run.count("chunks_refetched")), (0, 0), "cut at {at}");
        }
    }
}

#[test]
fn holes_stay_holes_when_a_connection_was_cut() {
    for way in BOTH_WAYS {
        let faulty = Faulty::by(way, |tree| {
            tree.file("first", &noise(200_000, 1)).sparse("whole", 900_000, &[(500_000, b"island")]);
            tree.sparse("chunks", 6 << 20, &[(2 << 20, &noise(100_000, 2))]);
        });
        for at in [before_body(way) + 100, before_body(way) + 190_000] {
            let copy = faulty.copy(&at.to_string());
            let run = faulty.run(Fault::Cut(at), &copy, "--conns 1 --no-compress").expect_exit(0);
            assert!(run.count("reconnects") > 0);
            assert_same(&faulty.source, &copy);
        }
    }
}

#[test]
fn a_connection_that_only_the_receiver_knows_is_dead_is_dialled_again() {
    for way in BOTH_WAYS {
        let faulty = Faulty::by(way, |tree| _ = tree.file("file", &noise(300_000, 1)));
        let copy = faulty.copy("");
        let run = faulty.run(Fault::CutUnseen(10_000), &copy, "--conns 1 --no-compress").expect_exit(0);
        assert_same(&faulty.source, &copy);
        assert!(run.count("reconnects") > 0);
    }
}

#[test]
fn a_server_that_never_comes_ends_the_wait() {
    for way in BOTH_WAYS {
        let reserved = ReservedPort::new();
        let workspace = Workspace::new();
        let route = Route::of(way, &workspace, |tree| _ = tree.file("file", b"bytes"));
        let run = route.client(reserved.address(), &workspace.at("copy")).options("--retry 1").run().expect_exit(35);
        assert!(run.stderr.contains(&format!("127.0.0.1:{}", reserved.port)), "{}", run.stderr);
        assert!(run.events().iter().any(|event| event["event"] == "retrying"));
        Client::get(reserved.port, "file", workspace.at("out")).options("--retry 0").run().expect_exit(35);
    }
}

#[test]
fn a_server_that_comes_late_is_waited_for() {
    for way in BOTH_WAYS {
        let reserved = ReservedPort::new();
        let workspace = Workspace::new();
        let source = plain(&workspace.at("source"));
        let copy = workspace.at("copy");
        let route = Route::new(way, &source, &workspace);
        let mut client = route.client(reserved.address(), &copy).start();
        client.wait_for_event("retrying");
        let server = route.serve_at(&reserved);
        client.finish().expect_exit(0);
        drop(server);
        assert_same(&source, &copy);
    }
}

#[test]
fn a_full_destination_ends_the_run_and_a_rerun_completes_it() {
    for way in BOTH_WAYS {
        let workspace = Workspace::new();
        let Some(disk) = SmallDisk::mount(&workspace.at("disk"), 2048) else { return };
        let mut tree = Tree::new(&workspace.at("source"));
        tree.dir("small").file("large", &noise(5 << 20, 1)).file("middle", &noise(1 << 20, 2));
        for nth in 0..400 {
            tree.file(format!("small/{nth}"), &noise(8000, nth));
        }
        let source = tree.finish();
        let route = Route::new(way, &source, &workspace);
        let copy = workspace.at("disk/copy");
        for options in ["--no-compress", "--receive-path splice --no-compress --chunk-kb 64", "--conns 1"] {
            let run = route.bring(&copy, options).expect_exit(11);
            let is_said = run.stderr.contains("No space left") && run.stderr.contains("run the command again");
            assert!(is_said, "{}", run.stderr);
        }
        disk.remount("size=64m");
        let run = route.bring(&copy, "").expect_exit(0);
        assert_same(&source, &copy);
        assert_eq!(run.count("files_committed") + run.count("files_unchanged"), 402);
    }
}

#[test]
fn a_read_only_destination_exits_with_11() {
    for way in BOTH_WAYS {
        let workspace = Workspace::new();
        let Some(disk) = SmallDisk::mount(&workspace.at("disk"), 4096) else { return };
        let source = plain(&workspace.at("source"));
        let route = Route::new(way, &source, &workspace);
        let copy = workspace.at("disk/copy");
        fs::create_dir(&copy).expect("create");
        disk.remount("ro");
        for options in ["", "--chunk-kb 4"] {
            let run = route.bring(&copy, options).expect_exit(11);
            assert!(run.stderr.contains("Read-only file system"), "{}", run.stderr);
        }
        disk.remount("rw");
        route.bring(&copy, "").expect_exit(0);
        assert_same(&source, &copy);
    }
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
