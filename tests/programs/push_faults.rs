//! A push that goes wrong: ends that are killed, disks that are full, and clients that meet. What had
//! arrived is not sent again, nobody is given what is not his, and the server is there for the next.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use crate::support::client::{Client, Run, contents};
use crate::support::compare::assert_same;
use crate::support::fit::expect_fit;
use crate::support::journal::{Leftover, names_in_parts};
use crate::support::mount::SmallDisk;
use crate::support::port::ReservedPort;
use crate::support::server::Server;
use crate::support::stage::{ATTACH_REPLY_BYTES, LARGE_BYTES, Stage};
use crate::support::tree::{Tree, noise, plain};
use crate::support::valve::{Kind, Valve};
use crate::support::way::{Route, Way, wait_until_free};
use crate::support::{Workspace, wait_until};

const CHUNK_BYTES: u64 = 64 << 10;
const OPTIONS: &str = "--chunk-kb 64 --no-compress --conns 2";

#[test]
fn a_killed_client_does_not_stand_in_the_way_of_the_next() {
    let stage = Stage::large(Way::Push);
    let descriptors = stage.server.descriptors();
    for arrived in [1 << 20, 2 << 20, 3 << 20] {
        stage.stall_in_file("--chunk-kb 64", 2, CHUNK_BYTES, arrived).kill();
        stage.valve.renew();
    }
    let run = stage.direct_client("--retry 5").run().expect_exit(0).expect_counts(&[("reconnects", 0)]);
    let reused = run.count("bytes_reused");
    assert!(reused > 3 << 20 && run.count("bytes_fetched") + reused == LARGE_BYTES, "{reused}");
    assert_same(&stage.source, &stage.copy);
    expect_fit(&stage.server, &stage.workspace, descriptors);
}

/// A source, a server that can be killed and started again, and a valve before it.
struct Site {
    route: Route,
    copy: PathBuf,
    port: ReservedPort,
    server: Option<Server>,
    valve: Valve,
    _workspace: Workspace,
}

impl Site {
    fn new(put: impl FnOnce(&mut Tree)) -> Self {
        let workspace = Workspace::new();
        let route = Route::of(Way::Push, &workspace, put);
        let port = ReservedPort::new();
        let server = Some(route.serve_at(&port));
        let valve = route.valve(port.address());
        Self { route, copy: workspace.at("copy"), port, server, valve, _workspace: workspace }
    }

    fn client(&self, options: &str) -> Client {
        self.route.client(self.valve.address(), &self.copy).options(options)
    }

    fn kill_server(&mut self) {
        drop(self.server.take());
    }

    fn start_server(&mut self) {
        self.server = Some(self.route.serve_at(&self.port));
    }
}

#[test]
fn a_server_that_is_started_again_is_gone_on_with_by_the_same_client() {
    for conns in [1, 4] {
        let mut site = Site::new(|tree| {
            tree.dir("dir").file("dir/large", &noise(LARGE_BYTES as usize, 1)).file("small", b"small");
        });
        site.valve.limit(Kind::Data, 4 << 20);
        let client = site.client(&format!("--conns {conns} --chunk-kb 64 --no-compress --retry 50")).start();
        site.valve.wait_until_stalled(Kind::Data);
        wait_until("the journal to follow", || {
            Leftover::all(&site.copy).iter().map(Leftover::claimed_bytes).sum::<u64>() >= 3 << 20
        });
        site.kill_server();
        site.start_server();
        site.valve.open();
        let run = client.finish().expect_exit(0).expect_counts(&[("files_failed", 0)]);
        assert!(run.events().iter().any(|event| event["event"] == "retrying"), "{:?}", run.lines);
        // What the first receiver has fetched is not reused by the second, as far as this end knows: it counts once, but for
        // what had not reached the journal.
        let bytes = run.count("bytes_fetched") + run.count("bytes_reused");
        assert!((LARGE_BYTES..LARGE_BYTES + (1 + conns) * (1 << 20)).contains(&bytes), "{bytes}");
        assert_same(&site.route.source, &site.copy);
        assert_eq!(names_in_parts(&site.copy), Vec::<&Path>::new());
        // What was on its way was sent twice, and no more.
        let sent = site.valve.passed_ever(Kind::Data);
        let most = LARGE_BYTES + (1 << 20) + conns * (1 << 20);
        assert!(sent < most, "{sent} of {LARGE_BYTES} with {conns}");
        let again = site.client("").run().expect_exit(0);
        again.expect_counts(&[("bytes_fetched", 0), ("files_unchanged", 2)]);
    }
}

#[test]
fn connections_that_were_made_anew_are_counted() {
    let mut site = Site::new(|tree| {
        tree.file("large", &noise(LARGE_BYTES as usize, 1));
    });
    site.valve.limit(Kind::Data, 4 << 20);
    let client = site.client(OPTIONS).start();
    site.valve.wait_until_stalled(Kind::Data);
    // The same server, on other connections.
    site.valve.renew();
    let run = client.finish().expect_exit(0).expect_counts(&[("bytes_fetched", LARGE_BYTES), ("files_failed", 0)]);
    assert!(run.count("reconnects") > 0, "{:?}", run.lines);
    assert_same(&site.route.source, &site.copy);
    // Another one, which knows nothing of the run.
    fs::remove_dir_all(&site.copy).expect("remove");
    site.valve.limit(Kind::Data, 4 << 20);
    let client = site.client(OPTIONS).start();
    site.valve.wait_until_stalled(Kind::Data);
    site.kill_server();
    site.start_server();
    site.valve.open();
    let run = client.finish().expect_exit(0);
    assert!(run.count("reconnects") > 0, "{:?}", run.lines);
    assert_same(&site.route.source, &site.copy);
}

#[test]
fn a_killed_server_leaves_what_the_next_push_reuses() {
    let mut site = Site::new(|tree| {
        tree.dir("dir").file("dir/large", &noise(LARGE_BYTES as usize, 1));
    });
    site.valve.limit(Kind::Data, 4 << 20);
    let client = site.client(OPTIONS).start();
    site.valve.wait_until_stalled(Kind::Data);
    let claimed = || Leftover::all(&site.copy).iter().map(Leftover::claimed_bytes).sum::<u64>();
    wait_until("the journal to follow", || claimed() >= 3 << 20);
    site.kill_server();
    client.kill();
    wait_until_free(&site.copy);
    let claimed = Leftover::only(&site.copy).claimed_bytes();
    assert!(claimed >= 3 << 20 && !site.copy.join("dir/large").exists());
    site.start_server();
    site.valve.renew();
    let run = site.client(OPTIONS).run().expect_exit(0);
    run.expect_counts(&[("bytes_reused", claimed), ("bytes_fetched", LARGE_BYTES - claimed), ("reconnects", 0)]);
    assert_same(&site.route.source, &site.copy);
}

#[test]
fn a_client_whose_server_stays_away_gives_up() {
    let mut site = Site::new(|tree| {
        tree.file("large", &noise(LARGE_BYTES as usize, 1));
    });
    site.valve.limit(Kind::Data, 1 << 20);
    let client = site.client(&format!("{OPTIONS} --retry 1")).start();
    site.valve.wait_until_stalled(Kind::Data);
    site.kill_server();
    site.valve.open();
    let run = client.finish();
    assert!(matches!(run.code, Some(10 | 12 | 30 | 35)), "{:?} {}", run.code, run.stderr);
    assert!(run.stderr.contains("run the command again"), "{}", run.stderr);
    site.start_server();
    site.client("").run().expect_exit(0);
    assert_same(&site.route.source, &site.copy);
}

#[test]
fn a_second_client_is_told_who_is_there() {
    let stage = Stage::large(Way::Push);
    let descriptors = stage.server.descriptors();
    let first = stage.stall_in_file("--chunk-kb 64", 2, CHUNK_BYTES, 3 << 20);
    let here = stage.valve.addresses_at_server();
    let journal = Leftover::only(&stage.copy).read();
    let expect_refused = |second: Run| {
        let second = second.expect_exit(3);
        let is_named = here.iter().any(|address| second.stderr.contains(&address.to_string()));
        assert!(is_named, "{here:?} are not in {}", second.stderr);
        assert!(second.stderr.contains("\"copy\" is being written to by"), "{}", second.stderr);
    };
    for options in ["", "--delete", "--retry 1"] {
        expect_refused(stage.direct_client(options).run());
    }
    // Around it, within it, and by the name of what is there.
    fs::create_dir(stage.workspace.at("apart")).expect("create");
    let other = plain(&stage.workspace.at("apart/other"));
    for to in ["", "copy/dir", "copy/new/dir"] {
        expect_refused(Client::push(contents(&other), stage.server.url(to)).options("--delete").run());
        expect_refused(Client::push(contents(&other), stage.server.url(to)).options("-n").run());
    }
    let namesake = plain(&stage.workspace.at("apart/copy"));
    expect_refused(Client::push(&namesake, stage.server.url("")).run());
    expect_refused(Client::push(&other, stage.server.url("")).options("--backup-dir kept").run());
    // Elsewhere there is room, also where the name begins in the same way, and beside it in the directory above.
    for to in ["copy 2", "cop", "elsewhere/copy"] {
        Client::push(contents(&other), stage.server.url(to)).run().expect_exit(0);
        assert_same(&other, &stage.workspace.at(to));
    }
    Client::push(&other, stage.server.url("")).options("--delete").run().expect_exit(0);
    assert_same(&other, &stage.workspace.at("other"));
    let now = Leftover::only(&stage.copy).read();
    assert!(now.head == journal.head && now.records.starts_with(&journal.records), "{now:?} after {journal:?}");
    stage.valve.open();
    first.finish().expect_exit(0).expect_counts(&[("bytes_fetched", LARGE_BYTES), ("reconnects", 0)]);
    assert_same(&stage.source, &stage.copy);
    expect_fit(&stage.server, &stage.workspace, descriptors);
}

#[test]
fn two_clients_side_by_side_both_arrive() {
    let workspace = Workspace::new();
    fs::create_dir(workspace.at("root")).expect("create");
    let server = Server::start_receiving(&workspace.at("root"));
    let descriptors = server.descriptors();
    let sources: Vec<PathBuf> = (0..6)
        .map(|nth| {
            let mut tree = Tree::new(&workspace.at(&format!("source {nth}")));
            tree.file("large", &noise(3 << 20, nth)).dir("dir");
            (0..50).for_each(|file| {
                tree.file(format!("dir/{file}"), &noise(1000, nth * 50 + file));
            });
            tree.finish()
        })
        .collect();
    let to = |nth: usize| ["a", "b", "deep/c", "deep/d", "e/f", "e/g"][nth];
    let start = |(nth, source): (usize, &PathBuf)| Client::push(contents(source), server.url(to(nth))).start();
    let clients: Vec<_> = sources.iter().enumerate().map(start).collect();
    for (nth, client) in clients.into_iter().enumerate() {
        client.finish().expect_exit(0).expect_counts(&[("files_committed", 51)]);
        assert_same(&sources[nth], &workspace.at("root").join(to(nth)));
    }
    expect_fit(&server, &workspace, descriptors);
}

#[test]
fn a_signal_leaves_complete_files_in_place() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let stage = Stage::by(Way::Push, |tree| {
            tree.dir("a small").dir("z large").file("z large/file", &noise(LARGE_BYTES as usize, 1));
            (0..20).for_each(|nth| {
                tree.file(format!("a small/{nth}"), &noise(1000, nth));
            });
        });
        let descriptors = stage.server.descriptors();
        let client = stage.stall(OPTIONS, 3 << 20);
        wait_until("the small files", || (0..20).all(|nth| stage.copy.join(format!("a small/{nth}")).exists()));
        client.signal(signal);
        let run = client.finish().expect_exit(20);
        assert!(run.stderr.contains("run the command again"), "{}", run.stderr);
        assert_eq!(run.count("files_committed"), 20);
        stage.settle(&stage.copy);
        let standing = Leftover::only(&stage.copy).claimed_bytes();
        assert!(standing > 1 << 20 && !stage.copy.join("z large/file").exists(), "{standing}");
        let run = stage.client("--retry 5").run().expect_exit(0);
        run.expect_counts(&[("bytes_reused", standing), ("bytes_fetched", LARGE_BYTES - standing)]);
        assert_same(&stage.source, &stage.copy);
        expect_fit(&stage.server, &stage.workspace, descriptors);
    }
}

#[test]
fn a_full_disk_at_the_server_is_told_to_the_client() {
    let workspace = Workspace::new();
    let Some(disk) = SmallDisk::mount(&workspace.at("disk"), 2048) else { return };
    let mut tree = Tree::new(&workspace.at("source"));
    tree.file("large", &noise((4 << 20) - 1, 1));
    let source = tree.finish();
    let server = Server::start_receiving(&workspace.at("disk"));
    let descriptors = server.descriptors();
    let push = || Client::push(contents(&source), server.url("copy")).options(OPTIONS).run();
    for _ in 0..2 {
        let run = push().expect_exit(11);
        assert!(run.stderr.contains("No space left"), "{}", run.stderr);
        assert!(run.stderr.contains("run the command again"), "{}", run.stderr);
    }
    let copy = workspace.at("disk/copy");
    let standing = Leftover::only(&copy).standing_bytes();
    assert!(standing > 1 << 20 && !copy.join("large").exists(), "{standing}");
    disk.remount("size=64m");
    push().expect_exit(0).expect_counts(&[("bytes_reused", standing), ("bytes_fetched", (4 << 20) - 1 - standing)]);
    assert_same(&source, &copy);
    expect_fit(&server, &workspace, descriptors);
}

#[test]
fn a_push_through_slow_beginnings_is_no_other_push() {
    // Held before the first byte of data: the greeting of each kind of connection has come.
    let stage = Stage::large(Way::Push);
    stage.valve.limit(Kind::Data, ATTACH_REPLY_BYTES);
    let client = stage.client(&format!("{OPTIONS} --retry 20")).start();
    stage.valve.wait_until_stalled(Kind::Data);
    stage.valve.open();
    client.finish().expect_exit(0).expect_counts(&[("bytes_fetched", LARGE_BYTES), ("reconnects", 0)]);
    assert_same(&stage.source, &stage.copy);
}

/// Records that a server made and could not tell any more are lost with it: that is said, and no manifest passes for whole.
#[test]
fn a_manifest_that_may_lack_records_is_told() {
    let workspace = Workspace::new();
    let route = Route::of(Way::Push, &workspace, |tree| {
        for number in 0..200 {
            tree.file(format!("small{number}"), &noise(number, number as u64));
        }
        tree.file("large", &noise(8 << 20, 7));
    });
    let copy = workspace.at("copy");
    let port = ReservedPort::new();
    let server = route.serve_at(&port);
    let valve = route.valve(server.address);
    valve.limit(Kind::Data, 4 << 20);
    let manifest = workspace.at("manifest");
    let options = format!("--no-compress --conns 2 --manifest {}", manifest.display());
    let running = route.client(valve.address(), &copy).options(&options).start();
    valve.wait_until_stalled(Kind::Data);
    drop(server);
    let server = route.serve_at(&port);
    valve.open();
    let run = running.finish().expect_exit(23);
    assert!(run.stderr.contains("may lack files"), "{}", run.stderr);
    assert_same(&route.source, &copy);
    assert_eq!(run.count("files_committed") + run.count("files_unchanged"), 201, "of both receivers together");
    assert!(!server.log().contains("panicked"));
}
