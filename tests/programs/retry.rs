//! `--retry N` means N seconds without progress, whatever it is that does not answer; and what no wait helps is said
//! at once.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::support::client::{Client, Run, contents};
use crate::support::journal::Leftover;
use crate::support::link::Link;
use crate::support::port::ReservedPort;
use crate::support::silence::{Port, Speaks};
use crate::support::stage::Stage;
use crate::support::strace::Strace;
use crate::support::tree::{noise, plain};
use crate::support::valve::Kind;
use crate::support::way::{BOTH_WAYS, Route, Way};
use crate::support::{Workspace, wait_until};
use nix::sys::signal::Signal;

/// What a machine with other work may add.
const SPARE: f64 = 3.0;

/// The run, and how many seconds it took.
fn timed(client: Client) -> (Run, f64) {
    let start = Instant::now();
    let run = client.run();
    (run, start.elapsed().as_secs_f64())
}

/// Panics unless the client gave up after this many seconds.
fn expect_given_up(client: Client, seconds: f64) -> Run {
    expect_given_up_within(client, seconds..seconds + SPARE)
}

fn expect_given_up_within(client: Client, seconds: Range<f64>) -> Run {
    let (run, took) = timed(client);
    assert!(matches!(run.code, Some(30 | 35)), "{:?} {}", run.code, run.stderr);
    assert!(seconds.contains(&took), "{took} s and not {seconds:?}: {}", run.stderr);
    run
}

/// Runs all of them at once. Panics unless each gave up after this many seconds.
fn expect_all_given_up(clients: Vec<Client>, options: &str, seconds: f64) -> Vec<Run> {
    std::thread::scope(|threads| {
        let start = |client: Client| threads.spawn(move || expect_given_up(client.options(options), seconds));
        let running: Vec<_> = clients.into_iter().map(start).collect();
        running.into_iter().map(|run| run.join().expect("given up in time")).collect()
    })
}

/// What dials: copies, dry runs, a comparison, a fetched file.
fn clients(address: SocketAddr, workspace: &Workspace) -> Vec<Client> {
    let url = format!("fcp://{address}");
    let copy = |name: &str| plain(&workspace.at(name));
    vec![
        Client::pull(&url, copy("pulled")),
        Client::pull(&url, copy("previewed")).options("-n"),
        Client::push(contents(&copy("pushed")), format!("{url}/to/")),
        Client::push(contents(&copy("offered")), format!("{url}/to/")).options("-n"),
        Client::verify(copy("verified"), &url),
        Client::get(address.port(), "file", workspace.at("out")),
    ]
}

#[test]
fn a_port_that_refuses_is_waited_for_as_long_as_was_said() {
    let port = ReservedPort::new();
    let workspace = Workspace::new();
    for run in expect_all_given_up(clients(port.address(), &workspace), "--retry 3", 3.0) {
        assert_eq!(run.code, Some(35));
    }
}

#[test]
fn a_port_that_says_nothing_is_waited_for_as_long_as_was_said() {
    let port = Port::silent();
    let workspace = Workspace::new();
    expect_all_given_up(clients(port.address, &workspace), "--retry 5", 5.0);
}

#[test]
fn a_port_whose_packets_vanish_is_waited_for_as_long_as_was_said() {
    let port = Port::vanished();
    let workspace = Workspace::new();
    expect_all_given_up(clients(port.address, &workspace), "--retry 4", 4.0);
}

/// A source of one large file, whose server falls silent.
fn silenced(way: Way) -> Stage {
    Stage::by(way, |tree| _ = tree.file("large", &noise(4 << 20, 1)))
}

#[test]
fn a_source_that_falls_silent_is_waited_for_as_long_as_was_said() {
    std::thread::scope(|threads| {
        for (way, conns) in [(Way::Pull, 1), (Way::Pull, 4), (Way::Push, 4)] {
            for (kind, bytes) in [(Kind::Data, 1 << 20), (Kind::Control, 60)] {
                threads.spawn(move || {
                    let stage = silenced(way);
                    let client = stage.client(&format!("--retry 4 --no-compress --conns {conns}"));
                    expect_given_up_once_silent(&stage, kind, bytes, client);
                });
            }
        }
        for (kind, bytes) in [(Kind::Data, 20), (Kind::Control, 60)] {
            threads.spawn(move || {
                let stage = silenced(Way::Pull);
                stage.direct_client("").run().expect_exit(0);
                let client = Client::verify(&stage.copy, stage.valve.url()).options("--retry 4");
                expect_given_up_once_silent(&stage, kind, bytes, client);
            });
        }
    });
}

fn expect_given_up_once_silent(stage: &Stage, kind: Kind, bytes: u64, client: Client) {
    stage.valve.limit(kind, bytes);
    let client = client.start();
    stage.valve.wait_until_stalled(kind);
    let start = Instant::now();
    let run = client.finish();
    let took = start.elapsed().as_secs_f64();
    expect_lost(stage.route.way, &run);
    assert!((3.0..4.0 + SPARE).contains(&took), "{kind:?}: {took} s: {}", run.stderr);
}

/// Panics unless a run ended for want of an answer. Of a receiver at the other end only that its connection failed is told.
fn expect_lost(way: Way, run: &Run) {
    let is_lost = matches!(run.code, Some(30 | 35)) || way == Way::Push && run.code == Some(12);
    assert!(is_lost, "{way:?}: {:?} {}", run.code, run.stderr);
}

/// A link that goes dead in the middle of a file, without a word to either end.
#[test]
fn packets_that_vanish_end_a_run_after_as_long_as_was_said() {
    let Some(slow) = Strace::new() else { return };
    let slow = slow.delays("pwrite64", 50_000).words();
    std::thread::scope(|threads| {
        for way in BOTH_WAYS {
            let Some(link) = Link::make() else { return };
            let slow = &slow;
            threads.spawn(move || cut_in_a_file(way, &link, slow));
        }
    });
}

fn cut_in_a_file(way: Way, link: &Link, slow: &[String]) {
    let workspace = Workspace::new();
    let route = Route::of(way, &workspace, |tree| _ = tree.file("large", &noise(64 << 20, 1)));
    let [near, far] = match way {
        Way::Pull => [[&link.near_words(), slow].concat(), link.far_words()],
        Way::Push => [link.near_words(), [&link.far_words(), slow].concat()],
    };
    let server = route.serve_under(&format!("{} 0 --insecure", link.far_address()), far);
    let near: Vec<&str> = near.iter().map(String::as_str).collect();
    let copy = workspace.at("copy");
    let options = "--retry 6 --conns 2 --no-compress --receive-path copy --chunk-kb 256 --insecure";
    let client = route.client(server.address, &copy).options(options).under(&near).start();
    wait_until("the first bytes", || Leftover::all(&copy).iter().any(|one| one.claimed_bytes() > 0));
    link.cut();
    let start = Instant::now();
    let run = client.finish();
    let took = start.elapsed().as_secs_f64();
    assert!(matches!(run.code, Some(30 | 35)), "{:?} {}", run.code, run.stderr);
    assert!((5.0..6.0 + SPARE).contains(&took), "{took} s: {}", run.stderr);
}

#[test]
fn what_is_waited_for_is_said_after_two_seconds() {
    let workspace = Workspace::new();
    let (refusing, vanished) = (ReservedPort::new(), Port::vanished());
    let waits = [(refusing.address(), "connection refused"), (vanished.address, "timed out")];
    for (address, reason) in waits {
        let copy = workspace.at("copy");
        let words = ["pull", &format!("fcp://{address}"), copy.to_str().expect("plain"), "--retry", "4"];
        let run = expect_given_up(Client::new(words), 4.0);
        let said = format!("fastcp-client: waiting for {address} ({reason}), giving up in ");
        assert!(run.stderr.contains(&said), "{}", run.stderr);
    }
    let copy = workspace.at("copy");
    let words = ["pull", &refusing.url(), copy.to_str().expect("plain"), "--retry", "1"];
    let run = expect_given_up(Client::new(words), 1.0);
    assert!(!run.stderr.contains("waiting"), "too short to wonder: {}", run.stderr);
}

#[test]
fn what_no_wait_helps_is_said_at_once() {
    let workspace = Workspace::new();
    let (source, copy) = (plain(&workspace.at("source")), workspace.at("copy"));
    let http = Port::speaking(Speaks::WhenAsked, b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
    let ssh = Port::speaking(Speaks::First, b"SSH-2.0-OpenSSH_9.9\r\n");
    let rsync = Port::speaking(Speaks::First, b"@RSYNCD: 31.0\n");
    let tls = Port::speaking(Speaks::WhenAsked, b"\x15\x03\x01\x00\x02\x02\x46");
    let plain = Port::speaking(Speaks::WhenAsked, b"FTR1\0\x07\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    let cases = [
        (http.url(), 2, "the peer speaks HTTP, not fastcp"),
        (ssh.url(), 2, "the peer speaks SSH, not fastcp"),
        (rsync.url(), 2, "rsync daemon, not fastcp"),
        (tls.url(), 2, "the peer speaks TLS, not fastcp"),
        (plain.url(), 2, "plain FTQ1 only; use get"),
        ("fcp://no such host".to_owned(), 10, "no such host name"),
    ];
    for (url, code, message) in cases {
        let push = Client::push(contents(&source), format!("{url}/to"));
        for client in [Client::pull(&url, &copy), Client::pull(&url, &copy).options("-n"), push] {
            let (run, took) = timed(client.options("--retry 20"));
            assert_eq!(run.code, Some(code), "{url}: {}", run.stderr);
            assert!(run.stderr.contains(message), "{url}: {}", run.stderr);
            assert!(took < SPARE, "{url}: {took} s");
        }
    }
    for port in [&http, &ssh] {
        let (run, took) = timed(Client::get(port.address.port(), "file", &copy).options("--retry 20"));
        assert_eq!(run.code, Some(2), "{}", run.stderr);
        assert!(run.stderr.contains("not fastcp") && took < SPARE, "{took} s: {}", run.stderr);
    }
}

#[test]
fn a_signal_ends_the_wait_at_once() {
    let workspace = Workspace::new();
    let (refusing, silent, vanished) = (ReservedPort::new(), Port::silent(), Port::vanished());
    for (nth, url) in [refusing.url(), silent.url(), vanished.url()].iter().enumerate() {
        let (copy, present) = (workspace.at(&format!("copy {nth}")), workspace.at(&format!("present {nth}")));
        std::fs::create_dir(&present).expect("create");
        for copy in [&copy, &present] {
            let client = Client::pull(url, copy).start();
            wait_until("the client to dial", || copy.join(".fastcp/lock").exists());
            interrupt(client);
        }
        assert!(!copy.exists(), "there was no such directory before");
        assert_eq!(std::fs::read_dir(&present).expect("read").count(), 0);
    }
}

#[test]
fn a_signal_ends_the_wait_for_a_lost_server_at_once() {
    let stage = Stage::new(|tree| {
        tree.file("large", &noise(4 << 20, 1));
    });
    let mut client = stage.stall("--conns 3 --no-compress --retry 100", 1 << 20);
    stage.valve.renew();
    stage.valve.limit(Kind::Data, 0);
    client.wait_for_event("retrying");
    stage.valve.wait_until_stalled(Kind::Data);
    interrupt(client);
}

fn interrupt(client: crate::support::client::Running) {
    let start = Instant::now();
    client.signal(Signal::SIGINT);
    assert_eq!(client.finish().code, Some(20));
    assert!(start.elapsed() < Duration::from_secs_f64(SPARE), "{:?}", start.elapsed());
}
