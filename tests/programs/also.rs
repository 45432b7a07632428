//! `--also`: several servers of one tree give ranges of it, and the first decides what is right.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::client::{Client, Run};
use crate::support::compare::assert_same;
use crate::support::port::ReservedPort;
use crate::support::server::Server;
use crate::support::tree::{Tree, noise, set_mtime};
use crate::support::valve::{Kind, Valve};
use crate::support::{Workspace, wait_until};

const LARGE_BYTES: usize = 24 << 20;

fn tree(root: &Path) -> std::path::PathBuf {
    let mut tree = Tree::new(root);
    tree.file("large", &noise(LARGE_BYTES, 1)).mtime(1_000_000, 0);
    tree.file("other", &noise(3 << 20, 2)).mtime(1_000_000, 0);
    tree.dir("small");
    for number in 0..100 {
        tree.file(format!("small/{number}"), &noise(number * 50, number as u64)).mtime(1_000_000, 0);
    }
    tree.finish()
}

fn pull(first: &str, also: &[std::net::SocketAddr], copy: &Path, options: &str) -> Client {
    let also: Vec<String> = also.iter().map(|address| format!("--also={address}")).collect();
    Client::pull(first, copy).words(&also).options("--no-compress").options(options)
}

/// Bytes by source.
fn sources(run: &Run) -> Vec<u64> {
    let summary = run.events().pop().expect("a summary");
    let sources = summary["sources"].as_array().expect("sources").clone();
    sources.iter().map(|source: &Value| source["bytes_wire_in"].as_u64().expect("a number")).collect()
}

#[test]
fn each_source_gives_a_share() {
    let workspace = Workspace::new();
    let trees = ["one", "two", "three"].map(|name| tree(&workspace.at(name)));
    let servers = trees.each_ref().map(|tree| Server::start(tree));
    let copy = workspace.at("copy");
    let also = [servers[1].address, servers[2].address];
    let run = pull(&servers[0].url(""), &also, &copy, "--conns 6").run().expect_exit(0);
    assert_same(&trees[0], &copy);
    let bytes = sources(&run);
    assert!(bytes.iter().all(|bytes| *bytes > 1 << 20), "{bytes:?}");
    assert_eq!(bytes.iter().sum::<u64>(), run.count("bytes_wire_in"));
    assert_eq!((run.count("files_failed"), run.count("chunks_refetched")), (0, 0));
}

#[test]
fn what_a_source_has_otherwise_comes_from_the_others_and_is_told() {
    for conns in ["--conns 2", "--conns 6", "--conns auto"] {
        let workspace = Workspace::new();
        let trees = ["one", "two"].map(|name| tree(&workspace.at(name)));
        // Another time, another length, another content under the same length and time, and one that is not there.
        set_mtime(&trees[1].join("other"), 2_000_000, 0);
        fs::write(trees[1].join("small/7"), b"longer than it was").expect("write");
        fs::remove_file(trees[1].join("small/8")).expect("remove");
        fs::write(trees[1].join("large"), noise(LARGE_BYTES, 9)).expect("write");
        set_mtime(&trees[1].join("large"), 1_000_000, 0);
        // The same of small files, which come in one answer each.
        for number in 20..60 {
            let file = trees[1].join(format!("small/{number}"));
            fs::write(&file, noise(number * 50, 1000 + number as u64)).expect("write");
            set_mtime(&file, 1_000_000, 0);
        }
        let servers = trees.each_ref().map(|tree| Server::start(tree));
        let copy = workspace.at("copy");
        let run = pull(&servers[0].url(""), &[servers[1].address], &copy, conns).run().expect_exit(0);
        assert_same(&trees[0], &copy);
        assert_eq!((run.count("files_committed"), run.count("files_failed")), (102, 0));
        let told = run.paths_of("disagrees");
        let mut once = told.clone();
        once.dedup();
        assert_eq!(told, once, "each is told once");
        let is_otherwise = |path: &str| match path.strip_prefix("small/") {
            Some(number) => ["7", "8"].contains(&number) || (20..60).contains(&number.parse().expect("a number")),
            None => ["other", "large"].contains(&path),
        };
        assert!(told.iter().all(|path| is_otherwise(path)), "{told:?}");
        assert!(told.contains(&"large".to_owned()), "{told:?}");
    }
}

#[test]
fn a_source_that_is_dead_gives_nothing_and_stops_nothing() {
    let workspace = Workspace::new();
    let source = tree(&workspace.at("one"));
    let server = Server::start(&source);
    let dead = {
        let gone = Server::start(&source);
        gone.address
    };
    let copy = workspace.at("copy");
    let run = pull(&server.url(""), &[dead], &copy, "--conns 4").run().expect_exit(0);
    assert_same(&source, &copy);
    assert_eq!(sources(&run)[1], 0);
}

#[test]
fn a_source_that_ends_half_way_leaves_its_share_to_the_others() {
    let workspace = Workspace::new();
    let trees = ["one", "two"].map(|name| tree(&workspace.at(name)));
    let servers = trees.each_ref().map(|tree| Server::start(tree));
    let valve = Valve::start(servers[1].address);
    valve.limit(Kind::Data, 2 << 20);
    let copy = workspace.at("copy");
    let running = pull(&servers[0].url(""), &[valve.address()], &copy, "--conns 4").start();
    valve.wait_until_stalled(Kind::Data);
    drop(valve);
    let run = running.finish().expect_exit(0);
    assert_same(&trees[0], &copy);
    assert!(sources(&run)[1] >= 1 << 20, "{:?}", sources(&run));
    assert_eq!(run.count("files_failed"), 0);
}

/// A run of two sources of which the first stops for good after this many bytes. What `otherwise` does to the tree of
/// the second is done before.
fn run_that_loses_its_first(bytes: u64, options: &str, otherwise: impl FnOnce(&Path)) -> (Workspace, Run) {
    let workspace = Workspace::new();
    let trees = ["one", "two"].map(|name| tree(&workspace.at(name)));
    otherwise(&trees[1]);
    let servers = trees.each_ref().map(|tree| Server::start(tree));
    let valves = servers.each_ref().map(|server| Valve::start(server.address));
    valves[0].limit(Kind::Data, bytes);
    valves[1].limit(Kind::Data, 1 << 20);
    let copy = workspace.at("copy");
    let running = pull(&valves[0].url(), &[valves[1].address()], &copy, options).start();
    valves[0].wait_until_stalled(Kind::Data);
    let [first, second] = valves;
    drop(first);
    second.open();
    (workspace, running.finish())
}

#[test]
fn when_the_first_source_ends_the_next_one_leads() {
    for (bytes, conns) in [(0, 2), (2 << 20, 4)] {
        let (workspace, run) = run_that_loses_its_first(bytes, &format!("--conns {conns}"), |_| {});
        let run = run.expect_exit(0).expect_counts(&[("files_failed", 0), ("files_committed", 102)]);
        assert_same(&workspace.at("one"), &workspace.at("copy"));
        let lost = run.events().into_iter().filter(|event| event["event"] == "source_lost").count();
        assert_eq!(lost, 1, "{:?}", run.lines);
        let summary = run.events().pop().expect("a summary");
        let breaks = summary["sources"][0]["breaks"].as_u64();
        assert!(breaks > Some(0) || bytes == 0, "{summary}");
    }
}

#[test]
fn a_first_source_that_is_not_there_is_done_without() {
    let workspace = Workspace::new();
    let source = tree(&workspace.at("one"));
    let server = Server::start(&source);
    let gone = Server::start(&source).address;
    let copy = workspace.at("copy");
    let run = pull(&format!("fcp://{gone}"), &[server.address], &copy, "--conns 4").run().expect_exit(0);
    assert_same(&source, &copy);
    assert_eq!(run.count("files_committed"), 102);
    assert_eq!((sources(&run)[0], sources(&run)[1] > LARGE_BYTES as u64), (0, true));
}

#[test]
fn what_was_offered_by_a_source_that_is_lost_is_not_replaced_by_another_version() {
    // Less than all of the file, and more than nothing: then it was offered.
    let (workspace, run) = run_that_loses_its_first(256 << 10, "--conns 2", |second| {
        fs::write(second.join("other"), b"an older version").expect("write");
        set_mtime(&second.join("other"), 900_000, 0);
    });
    let run = run.expect_exit(23).expect_counts(&[("files_failed", 1), ("files_committed", 101)]);
    assert_eq!(run.paths_of("failed"), ["other"]);
    let copy = workspace.at("copy");
    assert!(!copy.join("other").exists());
    let summary = run.events().pop().expect("a summary");
    assert_eq!(summary["failures"]["other version"], 1, "{summary}");
    fs::remove_file(workspace.at("one/other")).expect("remove");
    // Its directory has changed with that, at the source alone.
    set_mtime(&workspace.at("one"), 1_000_000, 0);
    set_mtime(&copy, 1_000_000, 0);
    assert_same(&workspace.at("one"), &copy);
}

/// The connection that signatures are asked for on is none of those that fetch.
#[test]
fn changed_files_need_no_more_connections() {
    let workspace = Workspace::new();
    let trees = ["one", "two", "three"].map(|name| tree(&workspace.at(name)));
    let servers = trees.each_ref().map(|tree| Server::start(tree));
    for (number, conns) in ["--conns 1", "--conns 2", "--conns 3"].into_iter().cycle().take(6).enumerate() {
        let copy = workspace.at(&format!("copy {number}"));
        fs::create_dir(&copy).expect("make");
        let mut old = noise(LARGE_BYTES, 1);
        old[5_000_000..5_000_004].copy_from_slice(b"XXXX");
        fs::write(copy.join("large"), &old).expect("write");
        let also = [servers[1].address, servers[2].address];
        let run = pull(&servers[0].url(""), &also, &copy, conns).run().expect_exit(0);
        assert_same(&trees[0], &copy);
        assert!(run.count("bytes_reused") > 20 << 20 && run.count("files_failed") == 0, "{:?}", run.lines);
    }
}

#[test]
fn a_source_that_comes_later_gets_a_share() {
    let workspace = Workspace::new();
    let trees = ["one", "two"].map(|name| tree(&workspace.at(name)));
    let (server, port) = (Server::start(&trees[0]), ReservedPort::new());
    let valves = [server.address, port.address()].map(Valve::start);
    valves[0].limit(Kind::Data, 1 << 20);
    let copy = workspace.at("copy");
    let running = pull(&valves[0].url(), &[valves[1].address()], &copy, "--conns 4 --chunk-kb 64").start();
    valves[0].wait_until_stalled(Kind::Data);
    assert_eq!(valves[1].passed_ever(Kind::Data), 0);
    let _late = port.serve(&trees[1]);
    // The first gives little enough that the run is not over before anybody looks again.
    wait_until("the second to be asked", || {
        valves[0].let_through(Kind::Data, 8 << 10);
        valves[1].passed_ever(Kind::Data) > 1 << 20
    });
    valves[0].open();
    let run = running.finish().expect_exit(0);
    assert_same(&trees[0], &copy);
    assert!(sources(&run)[1] > 1 << 20 && run.count("files_failed") == 0, "{:?}", run.lines);
    // A connection that is made anew so that another source has one did not break.
    assert_eq!(run.events().pop().expect("a summary")["sources"][0]["breaks"], 0);
}

#[test]
fn when_all_sources_are_gone_the_error_names_them() {
    let workspace = Workspace::new();
    let source = tree(&workspace.at("one"));
    let gone = [(); 2].map(|()| Server::start(&source).address);
    let run = pull(&format!("fcp://{}", gone[0]), &gone[1..], &workspace.at("copy"), "--retry 1").run();
    assert_eq!(run.code, Some(35), "{}", run.stderr);
    assert!(gone.iter().all(|address| run.stderr.contains(&address.to_string())), "{}", run.stderr);
}

#[test]
fn it_is_for_trees_of_servers() {
    let workspace = Workspace::new();
    let source = tree(&workspace.at("one"));
    let copy = workspace.at("copy");
    let run = Client::pull(crate::support::client::contents(&source), &copy).options("--also 127.0.0.1:9").run();
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(!copy.exists());
}
