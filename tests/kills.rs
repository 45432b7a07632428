//! Client and server are killed again and again, at any moment, until the tree is there. Nothing is lost, nothing is
//! wrong, and what was fetched in vain is no more than was on its way at each kill.
//!
//! What was fetched is what the server sent on data connections, as a proxy counts it: the bodies of answers, which
//! do not compress here, and what is around them. A client that is killed prints no summary.

mod support;

use std::io::Write;
use std::path::Path;

use support::Workspace;
use support::client::{Client, Running};
use support::compare::{assert_same, files_and_bytes};
use support::journal::names_in_parts;
use support::port::ReservedPort;
use support::server::Server;
use support::stage::AROUND_BODY_BYTES;
use support::sweep::{Draw, is_long};
use support::tree::{Tree, noise};
use support::valve::{Kind, Valve};
use support::wait_until;

const CHUNK_BYTES: u64 = 64 << 10;
/// A bundle of small files and what belongs to it.
const BUNDLE_BYTES: u64 = 256 << 10;
/// What a group of files that wait for their sync may hold: they have no names yet, and are gone with the client.
const GROUP_BYTES: u64 = 32 << 20;
/// What a connection and the proxy may have in their buffers: it was sent, and never read.
const BUFFERED_BYTES: u64 = 4 << 20;

/// What is killed, and how.
struct Plan {
    kills: u64,
    conns: u64,
    options: &'static str,
    large_files: u64,
    large_bytes: usize,
    small_files: u64,
    /// What may be fetched in vain for each kill.
    lost_bytes: u64,
}

fn put(tree: &mut Tree, plan: &Plan) {
    tree.dir("a").dir("a/b").dir("a/b/c").dir("small").link("link", "a/b").link("a/dangling", "nowhere");
    for nth in 0..plan.large_files {
        let dir = ["", "a/", "a/b/c/"][nth as usize % 3];
        let odd = nth as usize * 4099;
        tree.file(format!("{dir}large {nth}"), &noise(plan.large_bytes + odd, nth));
    }
    for nth in 0..plan.small_files {
        if nth % 50 == 0 {
            tree.dir(format!("small/{}", nth / 50));
        }
        tree.file(format!("small/{}/{nth}", nth / 50), &noise(nth as usize * 37 % 9000, nth));
    }
    tree.file("empty", b"").sparse("a/sparse", 128 << 10, &[(30_000, b"island")]);
}

/// The two ends, and what stands between them.
struct Ends {
    source: std::path::PathBuf,
    copy: std::path::PathBuf,
    port: ReservedPort,
    server: Option<Server>,
    valve: Valve,
    _workspace: Workspace,
}

impl Ends {
    fn new(plan: &Plan) -> Self {
        let workspace = Workspace::new();
        let mut tree = Tree::new(&workspace.at("source"));
        put(&mut tree, plan);
        let source = tree.finish();
        let port = ReservedPort::new();
        let server = Some(port.serve(&source));
        let valve = Valve::start(port.address());
        Self { source, copy: workspace.at("copy"), port, server, valve, _workspace: workspace }
    }

    fn start_client(&self, plan: &Plan) -> Running {
        let options = format!("--chunk-kb 64 --no-compress --conns {} {}", plan.conns, plan.options);
        Client::pull(self.valve.url(), &self.copy).options(&options).start()
    }

    fn restart_server(&mut self) {
        drop(self.server.take());
        self.server = Some(self.port.serve(&self.source));
    }

    /// Panics where a name stands for anything but the whole file.
    fn expect_nothing_wrong(&self) {
        let wrong: Vec<String> = support::compare::differences(&self.source, &self.copy)
            .into_iter()
            .filter(|line| line.contains(": bytes ") || line.contains(": too much") || line.contains(": target "))
            .collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    }
}

/// Kills until all kills are used up or the tree is there, then lets one run end.
fn kill_until_complete(plan: &Plan, mut draw: Draw) {
    let mut ends = Ends::new(plan);
    let (files, bytes) = files_and_bytes(&ends.source);
    let mut client = ends.start_client(plan);
    let mut kills = 0;
    for _ in 0..plan.kills {
        let mark = ends.valve.passed_ever(Kind::Data) + draw.below(3 * bytes / plan.kills);
        wait_until("the moment, or the end", || ends.valve.passed_ever(Kind::Data) >= mark || client.has_ended());
        if client.has_ended() {
            break;
        }
        kills += 1;
        if draw.is_heads() {
            client.kill_or_finish();
            ends.valve.renew();
            if kills % 4 == 0 {
                ends.expect_nothing_wrong();
            }
            client = ends.start_client(plan);
        } else {
            ends.restart_server();
        }
    }
    client.finish().expect_exit(0);
    let run = ends.start_client(plan).finish().expect_exit(0).expect_counts(&[("bytes_fetched", 0)]);
    assert_eq!(run.count("files_unchanged"), files);
    assert_same(&ends.source, &ends.copy);
    assert_eq!(names_in_parts(&ends.copy), Vec::<&Path>::new());
    let fetched = ends.valve.passed_ever(Kind::Data);
    let around = (files + bytes / CHUNK_BYTES + 1) * (AROUND_BODY_BYTES + 16);
    let most = bytes + around + kills * (plan.lost_bytes + plan.conns * 4096);
    let _ = writeln!(std::io::stderr(), "{kills} kills: fetched {fetched} of {bytes}, {most} allowed");
    assert!(fetched <= most, "{fetched} of {bytes} after {kills} kills, {most} allowed");
    assert!(kills >= plan.kills / 3, "{kills} kills are too few to tell");
}

#[test]
fn a_tree_gets_there_whatever_is_killed() {
    let conns = 3;
    // Names are given at once: lost is what was on its way, and the small files beside it.
    let on_its_way = conns * (CHUNK_BYTES.max(BUNDLE_BYTES) + (512 << 10));
    let plan = Plan {
        kills: 12,
        conns,
        options: "--durability none",
        large_files: 5,
        large_bytes: 6 << 20,
        small_files: 300,
        lost_bytes: on_its_way,
    };
    kill_until_complete(&plan, Draw::new());
}

#[test]
fn a_tree_gets_there_with_durable_names_whatever_is_killed() {
    let conns = 3;
    let small_files = 300;
    // All small files may wait for their names at each kill.
    let on_its_way = conns * (BUNDLE_BYTES + (512 << 10)) + small_files * 4500;
    let plan = Plan {
        kills: 12,
        conns,
        options: "",
        large_files: 4,
        large_bytes: 6 << 20,
        small_files,
        lost_bytes: on_its_way,
    };
    kill_until_complete(&plan, Draw::new());
}

#[test]
fn a_large_tree_gets_there_whatever_is_killed() {
    if !is_long() {
        return support::say_skipped("FASTCP_LONG_TESTS=1 runs it");
    }
    let conns = 4;
    let plan = Plan {
        kills: 200,
        conns,
        options: "",
        large_files: 12,
        large_bytes: 48 << 20,
        small_files: 4000,
        lost_bytes: conns * (CHUNK_BYTES + BUFFERED_BYTES) + GROUP_BYTES,
    };
    kill_until_complete(&plan, Draw::new());
}
