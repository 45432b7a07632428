//! The server goes, comes back, or loses a connection in the middle. The client goes on where it was: every file
//! once, every byte once but for what was on its way.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::Workspace;
use crate::support::client::{Client, Run};
use crate::support::compare::{assert_same, files_and_bytes};
use crate::support::cut_proxy::{CutProxy, Fault};
use crate::support::journal::{Leftover, names_in_parts};
use crate::support::launch::is_everywhere;
use crate::support::lied_to::LiedTo;
use crate::support::lying_sender::Lies;
use crate::support::port::ReservedPort;
use crate::support::said::{file, listing, offer, truth};
use crate::support::server::Server;
use crate::support::stage::{ATTACH_REPLY_BYTES, Stage};
use crate::support::sweep::{Draw, is_long};
use crate::support::tree::{Tree, noise};
use crate::support::valve::{Kind, Valve};
use crate::support::wait_until;
use crate::support::way::{BOTH_WAYS, Route, Way};

const CHUNK_BYTES: u64 = 64 << 10;

/// A server that can be killed and started again, and a valve before it.
struct Site {
    route: Route,
    source: PathBuf,
    copy: PathBuf,
    port: ReservedPort,
    server: Option<Server>,
    valve: Valve,
    workspace: Workspace,
}

impl Site {
    fn new(way: Way, put: impl FnOnce(&mut Tree)) -> Self {
        let workspace = Workspace::new();
        let route = Route::of(way, &workspace, put);
        let port = ReservedPort::new();
        let server = Some(route.serve_at(&port));
        let valve = route.valve(port.address());
        Self { source: route.source.clone(), route, copy: workspace.at("copy"), port, server, valve, workspace }
    }

    fn kill_server(&mut self) {
        drop(self.server.take());
    }

    fn start_server(&mut self) {
        self.server = Some(self.route.serve_at(&self.port));
    }

    fn client(&self, options: &str) -> Client {
        self.route.client(self.valve.address(), &self.copy).options(options)
    }

    /// A client that goes past the valve.
    fn direct_client(&self, options: &str) -> Client {
        self.route.client(self.port.address(), &self.copy).options(options)
    }

    /// Panics unless every file came once and every directory was offered.
    fn expect_each_once(&self, run: &Run) {
        assert_same(&self.source, &self.copy);
        let (files, bytes) = files_and_bytes(&self.source);
        let done = run.count("files_committed") + run.count("files_unchanged");
        // A server that receives, and was started again, has it from the run before.
        let again = if self.route.way == Way::Push { run.count("bytes_reused") } else { 0 };
        assert_eq!((done, run.count("bytes_fetched") + again, run.count("files_failed")), (files, bytes, 0));
        assert_eq!(names_in_parts(&self.copy), Vec::<&Path>::new());
    }
}

/// A large file.
fn large(way: Way) -> Site {
    Site::new(way, |tree| {
        tree.dir("dir").file("dir/large", &noise((8 << 20) + 17, 1));
    })
}

/// Many directories and small files, whose names do not compress, so that the offer comes in many parts.
fn put_many(tree: &mut Tree, dirs: u64) {
    for dir in 0..dirs {
        let name = |number: u64| format!("{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ dir << 20);
        tree.dir(format!("dir {}", name(dir)));
        for file in 0..40 {
            tree.file(format!("dir {}/{}", name(dir), name(dir * 40 + file)), format!("{dir} {file}").as_bytes());
        }
    }
}

fn many(way: Way) -> Site {
    let dirs = if is_long() { 100 } else { 24 };
    Site::new(way, |tree| put_many(tree, dirs))
}

/// How many bytes the offer of a tree takes, the greeting included.
fn offer_bytes(site: &Site) -> u64 {
    site.valve.renew();
    site.route.client(site.valve.address(), &site.workspace.at("another copy")).run().expect_exit(0);
    site.valve.passed(Kind::Control)
}

#[test]
fn a_server_that_is_started_again_in_the_middle_of_a_file_is_gone_on_with() {
    for way in BOTH_WAYS {
        for conns in [1, 4] {
            let mut site = large(way);
            site.valve.limit(Kind::Data, 3 << 20);
            let client = site.client(&format!("--conns {conns} --chunk-kb 64 --no-compress")).start();
            site.valve.wait_until_stalled(Kind::Data);
            site.kill_server();
            site.start_server();
            site.valve.open();
            let run = client.finish().expect_exit(0);
            site.expect_each_once(&run);
            assert!(run.count("reconnects") > 0);
            // What was on its way came twice, and no more.
            let size = run.count("bytes_total");
            let spare = conns * (CHUNK_BYTES + 2 * ATTACH_REPLY_BYTES) + size / 500;
            let wire = run.count("bytes_wire_in");
            assert!(wire <= size + spare, "{wire} of {size}");
        }
    }
}

#[test]
fn a_server_that_is_away_for_a_while_is_waited_for() {
    for way in BOTH_WAYS {
        let mut site = large(way);
        site.valve.limit(Kind::Data, 3 << 20);
        let mut client = site.client("--conns 2 --chunk-kb 64 --no-compress").start();
        site.valve.wait_until_stalled(Kind::Data);
        site.kill_server();
        site.valve.open();
        client.wait_for_event("retrying");
        site.start_server();
        let run = client.finish().expect_exit(0);
        site.expect_each_once(&run);
    }
}

#[test]
fn a_server_that_is_started_again_in_the_middle_of_the_offer_offers_again() {
    let mut site = many(Way::Pull);
    let offer = offer_bytes(&site);
    for part in [1, 2, 3] {
        site.copy = site.workspace.at(&format!("copy {part}"));
        site.valve.limit(Kind::Control, offer * part / 4);
        let client = site.client("--conns 2").start();
        site.valve.wait_until_stalled(Kind::Control);
        site.kill_server();
        site.start_server();
        // What the server had sent by then is lost with its connections.
        site.valve.renew();
        let run = client.finish().expect_exit(0);
        site.expect_each_once(&run);
        assert!(run.count("reconnects") > 0);
    }
}

#[test]
fn a_control_connection_that_is_cut_in_the_middle_of_the_offer_is_made_anew() {
    let site = many(Way::Pull);
    let offer = offer_bytes(&site);
    let entries = {
        let whole = Client::pull(site.port.url(), site.workspace.at("a third copy")).run().expect_exit(0);
        whole.count("entries")
    };
    let server = site.server.as_ref().expect("running").address;
    let mut draw = Draw::new();
    let drawn = (0..if is_long() { 30 } else { 2 }).map(|_| draw.below(offer)).collect::<Vec<_>>();
    for (nth, at) in [20, offer / 2, offer - 1].into_iter().chain(drawn).enumerate() {
        let copy = site.workspace.at(&format!("copy {nth}"));
        let proxy = CutProxy::start_for(server, Kind::Control, 0, Fault::Cut(at as usize));
        let run = Client::pull(proxy.url(), &copy).options("--conns 2 --durability none").run();
        assert_eq!(run.code, Some(0), "cut at {at}: {}", run.stderr);
        assert_same(&site.source, &copy);
        let (files, bytes) = files_and_bytes(&site.source);
        let counts = [("files_committed", files), ("bytes_fetched", bytes), ("entries", entries), ("files_failed", 0)];
        run.expect_counts(&counts);
        assert!(proxy.control_connections() > 1, "cut at {at}");
    }
}

#[test]
fn a_cut_of_any_one_connection_costs_what_was_on_its_way() {
    let stage = Stage::new(|tree| {
        tree.file("large", &noise(4 << 20, 1));
    });
    for nth in 0..3 {
        for at in [0, 7, 100, 70_000, 400_000] {
            let copy = stage.workspace.at(&format!("copy {nth} {at}"));
            let proxy = CutProxy::start_for(stage.server.address, Kind::Data, nth, Fault::Cut(at));
            let options = "--conns 3 --chunk-kb 64 --no-compress";
            let run = Client::pull(proxy.url(), &copy).options(options).run().expect_exit(0);
            let counts = [("bytes_fetched", 4 << 20), ("chunks_refetched", 0), ("files_committed", 1)];
            let run = run.expect_counts(&counts);
            assert!(run.count("bytes_wire_in") < (4 << 20) + CHUNK_BYTES + 16_384);
            assert_same(&stage.source, &copy);
        }
    }
}

#[test]
fn a_byte_that_is_lost_or_out_of_order_never_makes_a_wrong_file() {
    let stage = Stage::new(|tree| {
        tree.file("large", &noise(2 << 20, 1)).dir("small");
        for nth in 0..50 {
            tree.file(format!("small/{nth}"), &noise(3000, nth));
        }
    });
    let mut draw = Draw::new();
    // A byte that is lost in the last answers is waited for, until the connection counts as dead.
    let end = if is_long() { 2 << 20 } else { 1 << 19 };
    for round in 0..if is_long() { 60 } else { 10 } {
        let at = draw.below(end) as usize;
        let fault = if round % 2 == 0 { Fault::Lose(at) } else { Fault::Swap(at) };
        let copy = stage.workspace.at(&format!("copy {round}"));
        let proxy = CutProxy::start(stage.server.address, fault);
        let options = "--conns 1 --chunk-kb 64 --no-compress";
        let run = Client::pull(proxy.url(), &copy).options(options).run();
        assert_eq!(run.code, Some(0), "{fault:?}: {}", run.stderr);
        assert_same(&stage.source, &copy);
        run.expect_counts(&[("files_committed", 51), ("files_failed", 0)]);
    }
}

#[test]
fn a_server_that_is_gone_for_good_ends_the_run_and_the_next_goes_on() {
    let mut site = large(Way::Pull);
    site.valve.limit(Kind::Data, 3 << 20);
    let client = site.client("--conns 2 --chunk-kb 64 --no-compress --retry 1").start();
    site.valve.wait_until_stalled(Kind::Data);
    wait_until("two chunks", || Leftover::all(&site.copy).iter().any(|one| one.claimed_bytes() > 2 * CHUNK_BYTES));
    site.kill_server();
    site.valve.open();
    let run = client.finish();
    // The valve still answers, and closes; without it nothing would.
    assert!(matches!(run.code, Some(12 | 30 | 35)), "{:?} {}", run.code, run.stderr);
    assert!(run.stderr.contains("run the command again"), "{}", run.stderr);
    let leftover = Leftover::only(&site.copy);
    let claimed = leftover.claimed_bytes();
    assert_eq!(claimed, run.count("bytes_fetched"));
    assert_eq!(leftover.read().mark().is_some(), !is_everywhere("no-proc"), "closed in good order");
    // Nobody is there: the state stays as it is.
    let run = site.direct_client("--retry 0").run().expect_exit(35);
    assert!(run.stderr.contains("no answer"), "{}", run.stderr);
    assert_eq!(leftover.claimed_bytes(), claimed);
    site.start_server();
    let run = site.direct_client("").run().expect_exit(0);
    let run = run.expect_counts(&[("bytes_reused", claimed), ("files_committed", 1)]);
    assert_eq!(run.count("bytes_fetched") + claimed, run.count("bytes_total"));
    assert_same(&site.source, &site.copy);
}

#[test]
fn a_server_that_is_gone_while_it_offers_ends_the_run_and_the_next_completes_it() {
    let mut site = many(Way::Pull);
    let offer = offer_bytes(&site);
    site.valve.limit(Kind::Control, offer / 2);
    let client = site.client("--conns 2 --retry 1").start();
    site.valve.wait_until_stalled(Kind::Control);
    site.kill_server();
    site.valve.open();
    let run = client.finish();
    assert!(matches!(run.code, Some(12 | 30 | 35)), "{:?} {}", run.code, run.stderr);
    let done = run.count("files_committed");
    site.start_server();
    let run = site.client("").run().expect_exit(0);
    let (files, _) = files_and_bytes(&site.source);
    run.expect_counts(&[("files_unchanged", done), ("files_committed", files - done)]);
    assert_same(&site.source, &site.copy);
}

#[test]
fn an_answer_that_is_lost_after_a_long_wait_is_asked_for_again() {
    for way in BOTH_WAYS {
        let lied_to = LiedTo::by(way);
        let is_lost = AtomicBool::new(false);
        let offer = offer(vec![listing("", vec![file("file", b"bytes")])]);
        let (_, run) = lied_to.hear(Lies::sending_bytes(offer, move |request, stream| {
            if !is_lost.swap(true, Ordering::AcqRel) {
                let start = Instant::now();
                wait_until("the receiver to lose its patience", || start.elapsed() > Duration::from_millis(1500));
                return Err(std::io::ErrorKind::ConnectionReset.into());
            }
            std::io::Write::write_all(stream, &truth(request, b"bytes"))
        }));
        run.expect_exit(0).expect_counts(&[("files_committed", 1), ("reconnects", 1)]);
        lied_to.finish();
    }
}
