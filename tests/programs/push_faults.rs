//! A push that goes wrong: ends that are killed, disks that are full, clients that meet, and peers that lie. What had
//! arrived is not sent again, nobody is given what is not his, and the server is there for the next.

use std::fs;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

use fastcp_model::{ByteRange, Capabilities, Status};
use fastcp_wire::bundle::{BundleForm, BundleRequest, BundledFile};
use fastcp_wire::frame::{FrameType, encode_frame};
use fastcp_wire::hello::{Attach, Failure, Hello, HelloReply, Lane, Role, Ticket};
use fastcp_wire::limits::{PUSH_BYTES_MAX, SETTING_VALUE_BYTES_MAX};
use fastcp_wire::offer::OfferBatch;
use fastcp_wire::request::{Ask, RangeRequest};
use fastcp_wire::signature::Level;
use nix::sys::signal::Signal;

use crate::support::client::{Client, Run, contents};
use crate::support::compare::{assert_same, files_and_bytes};
use crate::support::journal::{Leftover, names_in_parts};
use crate::support::lying_receiver::{LyingReceiver, Receiving, offer_request};
use crate::support::mount::SmallDisk;
use crate::support::peer::{attach, hello, plain_request, read_frame, read_to_end, send_frame};
use crate::support::port::ReservedPort;
use crate::support::server::Server;
use crate::support::stage::{ATTACH_REPLY_BYTES, Stage};
use crate::support::tree::{Tree, noise, plain};
use crate::support::valve::{Kind, Valve};
use crate::support::way::{Route, Way, wait_until_free};
use crate::support::{Workspace, wait_until};

const CHUNK_BYTES: u64 = 64 << 10;
const FILE_BYTES: u64 = 8 * (1 << 20) + 17;
const OPTIONS: &str = "--chunk-kb 64 --no-compress --conns 2";

/// One large file in a directory, to be pushed.
fn large() -> Stage {
    Stage::by(Way::Push, |tree| {
        tree.dir("dir").file("dir/large", &noise(FILE_BYTES as usize, 1));
    })
}

/// Panics unless the server is as good as new: no more descriptors than before, no panic, and the next push and pull
/// work.
fn expect_fit(server: &Server, workspace: &Workspace, descriptors: usize) {
    wait_until("the descriptors to be given back", || server.descriptors() <= descriptors);
    assert!(!server.log().contains("panicked"), "{}", server.log());
    let source = plain(&workspace.at("of another push"));
    Client::push(contents(&source), server.url("another/push")).options("--retry 5").run().expect_exit(0);
    Client::pull(server.url("another/push/"), workspace.at("pulled")).run().expect_exit(0);
    assert_same(&source, &workspace.at("pulled"));
}

#[test]
fn a_killed_client_does_not_stand_in_the_way_of_the_next() {
    let stage = large();
    let descriptors = stage.server.descriptors();
    for arrived in [1 << 20, 2 << 20, 3 << 20] {
        stage.stall_in_file("--chunk-kb 64", 2, CHUNK_BYTES, arrived).kill();
        stage.valve.renew();
    }
    let run = stage.direct_client("--retry 5").run().expect_exit(0).expect_counts(&[("reconnects", 0)]);
    let reused = run.count("bytes_reused");
    assert!(reused > 3 << 20 && run.count("bytes_fetched") + reused == FILE_BYTES, "{reused}");
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
            tree.dir("dir").file("dir/large", &noise(FILE_BYTES as usize, 1)).file("small", b"small");
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
        // The small file was counted by both receivers, or by neither, when the first was killed about to give it its name.
        let (bytes, small) = (run.count("bytes_fetched") + run.count("bytes_reused"), b"small".len() as u64);
        assert!([0, small, 2 * small].iter().any(|small| bytes == FILE_BYTES + small), "{bytes}");
        assert!(run.count("bytes_reused") >= 3 << 20, "{:?}", run.lines);
        assert_same(&site.route.source, &site.copy);
        assert_eq!(names_in_parts(&site.copy), Vec::<&Path>::new());
        // What was on its way was sent twice, and no more.
        let sent = site.valve.passed_ever(Kind::Data);
        let most = FILE_BYTES + (1 << 20) + conns * (1 << 20);
        assert!(sent < most, "{sent} of {FILE_BYTES} with {conns}");
        let again = site.client("").run().expect_exit(0);
        again.expect_counts(&[("bytes_fetched", 0), ("files_unchanged", 2)]);
    }
}

#[test]
fn connections_that_were_made_anew_are_counted() {
    let mut site = Site::new(|tree| {
        tree.file("large", &noise(FILE_BYTES as usize, 1));
    });
    site.valve.limit(Kind::Data, 4 << 20);
    let client = site.client(OPTIONS).start();
    site.valve.wait_until_stalled(Kind::Data);
    // The same server, on other connections.
    site.valve.renew();
    let run = client.finish().expect_exit(0).expect_counts(&[("bytes_fetched", FILE_BYTES), ("files_failed", 0)]);
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
        tree.dir("dir").file("dir/large", &noise(FILE_BYTES as usize, 1));
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
    run.expect_counts(&[("bytes_reused", claimed), ("bytes_fetched", FILE_BYTES - claimed), ("reconnects", 0)]);
    assert_same(&site.route.source, &site.copy);
}

#[test]
fn a_client_whose_server_stays_away_gives_up() {
    let mut site = Site::new(|tree| {
        tree.file("large", &noise(FILE_BYTES as usize, 1));
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
    let stage = large();
    let descriptors = stage.server.descriptors();
    let first = stage.stall_in_file("--chunk-kb 64", 2, CHUNK_BYTES, 3 << 20);
    let here = stage.valve.addresses_at_server();
    let journal = Leftover::only(&stage.copy).read();
    for options in ["", "--delete", "--retry 1"] {
        let second = stage.direct_client(options).run().expect_exit(3);
        let is_named = here.iter().any(|address| second.stderr.contains(&address.to_string()));
        assert!(is_named, "{here:?} are not in {}", second.stderr);
    }
    // Elsewhere there is room, also where the name begins in the same way.
    let other = plain(&stage.workspace.at("other"));
    for to in ["copy 2", "cop", "elsewhere/copy"] {
        Client::push(contents(&other), stage.server.url(to)).run().expect_exit(0);
        assert_same(&other, &stage.workspace.at(to));
    }
    let now = Leftover::only(&stage.copy).read();
    assert!(now.head == journal.head && now.records.starts_with(&journal.records), "{now:?} after {journal:?}");
    stage.valve.open();
    first.finish().expect_exit(0).expect_counts(&[("bytes_fetched", FILE_BYTES), ("reconnects", 0)]);
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
            tree.dir("a small").dir("z large").file("z large/file", &noise(FILE_BYTES as usize, 1));
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
        run.expect_counts(&[("bytes_reused", standing), ("bytes_fetched", FILE_BYTES - standing)]);
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

/// A directory of which one part is pushed, and what is no business of whoever receives that.
struct Secrets {
    workspace: Workspace,
    from: PathBuf,
}

const SECRET: &[u8] = b"not for you";
const OPEN: &[u8] = b"for everybody who asks";

impl Secrets {
    fn new() -> Self {
        let workspace = Workspace::new();
        fs::write(workspace.at("outside"), SECRET).expect("write");
        let mut tree = Tree::new(&workspace.at("from"));
        tree.dir("pushed").dir("pushed/sub").file("pushed/file", OPEN).file("pushed/sub/file", OPEN);
        tree.file("pushed/large", &noise(3 << 20, 1)).link("pushed/out", "../sibling").link("pushed/up", "..");
        tree.file("sibling", SECRET).file("pushed too", SECRET).dir("other").file("other/file", SECRET);
        tree.file("called", SECRET);
        let from = tree.finish();
        Self { workspace, from }
    }

    /// A client that pushes this, to a place of this name, and is in a session.
    fn push(&self, what: &str, to: &str) -> (crate::support::client::Running, Receiving) {
        let receiver = LyingReceiver::new();
        let mut src = self.from.join(what).into_os_string();
        if what.ends_with('/') && !src.to_str().expect("plain").ends_with('/') {
            src.push("/");
        }
        let client = Client::push(src, receiver.url(to)).options("--retry 1 --conns 1").start();
        (client, receiver.take_in())
    }
}

/// Panics unless the client ended with an error of its connection, and in good order.
fn expect_hung_up(run: &Run) {
    assert!(matches!(run.code, Some(10 | 12 | 30 | 35)), "{:?} {}", run.code, run.stderr);
    assert!(!run.stderr.is_empty() && !run.stderr.contains("panicked"), "{}", run.stderr);
}

fn range_request(id: u32, path: &[u8], start: u64, len: u64, ask: Ask) -> Vec<u8> {
    let mut bytes = Vec::new();
    let range = ByteRange::new(start, len).expect("lawful");
    RangeRequest { id, path: path.into(), range, ask }.encode(&mut bytes);
    bytes
}

fn bundle_request(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let files = vec![BundledFile { name: name.into(), len: 1 }];
    BundleRequest { id: 9, dir: dir.into(), accept: BundleForm::Pieces, files }.encode(&mut bytes);
    bytes
}

#[test]
fn a_receiver_is_given_ranges_of_what_is_pushed_and_of_nothing_else() {
    let secrets = Secrets::new();
    // What is pushed, what of it may be asked for, and what may not.
    let absolute = secrets.workspace.at("outside");
    let absolute = absolute.to_str().expect("plain");
    let around = ["..", "../outside", "../../etc/passwd", "/etc/passwd", absolute, "", ".", "./sibling", "sibling/"];
    let beside =
        ["sibling", "pushed too", "other/file", "other", "pushed/../sibling", "pushed/out", "pushed/up/sibling"];
    let above = ["../sibling", "out", "up/sibling", "sibling", "pushed/file"];
    for (what, to, lawful, unlawful) in [
        ("pushed", "copy", "pushed/file", &beside[..]),
        ("pushed/", "copy", "file", &above[..]),
        ("pushed/file", "copy/", "pushed/file", &["file too", "large", "sub/file", "sibling"][..]),
    ] {
        let (client, mut receiving) = secrets.push(what, to);
        let lawful = if what == "pushed/file" { "file" } else { lawful };
        let mut id = 0;
        for path in around.iter().chain(unlawful) {
            // No request can be made of an empty path.
            if path.is_empty() {
                continue;
            }
            for ask in [Ask::Bytes, Ask::Confirm, Ask::Hash, Ask::Signature(Level::Coarse), Ask::Signature(Level::Fine)]
            {
                id += 1;
                let (header, body) = receiving.ask(&range_request(id, path.as_bytes(), 0, 1, ask));
                assert!(header.reply.status != Status::Ok, "{what}: {ask:?} of {path}");
                assert_eq!((header.id, header.reply.file_bytes, header.reply.mtime_ns), (id, 0, 0), "{what}: {path}");
                assert_eq!(body, b"", "{what}: {path}");
            }
            let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
            let (header, body) = receiving.ask(&bundle_request(dir.as_bytes(), name.as_bytes()));
            assert!(header.reply.status != Status::Ok && body.is_empty(), "{what}: a bundle of {path}");
        }
        let (header, body) = receiving.ask(&range_request(7000, lawful.as_bytes(), 0, OPEN.len() as u64, Ask::Bytes));
        assert_eq!((header.reply.status, &body[..]), (Status::Ok, OPEN), "{what}");
        for (start, len) in [(0, OPEN.len() as u64 + 1), (OPEN.len() as u64, 1), (1 << 40, 1), (u64::MAX >> 2, 1 << 20)]
        {
            let (header, body) = receiving.ask(&range_request(7001, lawful.as_bytes(), start, len, Ask::Bytes));
            assert_eq!((header.reply.status, &body[..]), (Status::BadRange, &b""[..]), "{what}: {start}+{len}");
        }
        drop(receiving);
        expect_hung_up(&client.finish());
    }
}

#[test]
fn the_name_that_a_file_is_to_have_gives_away_no_file_that_has_it() {
    let secrets = Secrets::new();
    // There is a file of that name beside the one that is pushed.
    fs::write(secrets.from.join("pushed/called"), SECRET).expect("write");
    let (client, mut receiving) = secrets.push("pushed/file", "copy/called");
    assert_eq!(receiving.push.new_name.as_ref().map(|name| name.as_bytes().to_vec()), Some(b"called".to_vec()));
    let (header, body) = receiving.ask(&range_request(1, b"called", 0, 1, Ask::Bytes));
    assert!(header.reply.status != Status::Ok || body == OPEN[..1], "{header:?}");
    let (header, body) = receiving.ask(&range_request(2, b"called", 0, SECRET.len() as u64, Ask::Bytes));
    assert!(header.reply.status != Status::Ok || body == OPEN[..SECRET.len()], "{header:?}");
    let (header, body) = receiving.ask(&bundle_request(b"", b"called"));
    assert!(header.reply.status != Status::Ok || body == OPEN[..1], "{header:?}");
    for path in ["large", "sub/file"] {
        let (header, body) = receiving.ask(&range_request(3, path.as_bytes(), 0, 1, Ask::Bytes));
        assert!(header.reply.status != Status::Ok && body.is_empty(), "{path}: {header:?}");
    }
    drop(receiving);
    expect_hung_up(&client.finish());
}

/// Panics where an offer names anything but what is pushed: the one entry of its directory, or something in it.
fn expect_offered(what: &str, payload: &[u8]) {
    let batch = OfferBatch::decode(payload).expect("lawful");
    for listing in batch.listings {
        let names: Vec<_> =
            listing.entries.iter().map(|entry| entry.name.as_bytes().escape_ascii().to_string()).collect();
        let is_top = listing.dir.is_root();
        assert!(!is_top || names == ["pushed"] || names == ["file"], "{what}: {names:?} are offered");
        assert!(is_top || listing.dir.as_bytes().starts_with(b"pushed"), "{what}: {} is offered", listing.dir);
        let failures: Vec<_> = listing.failures.iter().map(|failure| &failure.name).collect();
        assert!(failures.is_empty(), "{what}: {failures:?} failed");
    }
}

#[test]
fn a_receiver_is_offered_what_is_pushed_and_nothing_else() {
    let secrets = Secrets::new();
    let unlawful: [(&str, u8, &[u8]); 14] = [
        ("pushed", 0, b""),
        ("pushed", 1, b"sibling"),
        ("pushed", 0, b"other"),
        ("pushed", 1, b"other"),
        ("pushed", 1, b"pushed too"),
        ("pushed", 0, b".."),
        ("pushed", 0, b"pushed/.."),
        ("pushed", 1, b"pushed/../sibling"),
        ("pushed", 0, b"/"),
        ("pushed", 9, b"pushed"),
        ("pushed/", 0, b".."),
        ("pushed/", 0, b"up"),
        ("pushed/file", 0, b""),
        ("pushed/file", 1, b"large"),
    ];
    for (what, scope, path) in unlawful {
        let (client, mut receiving) = secrets.push(what, "copy/");
        let shown = path.escape_ascii().to_string();
        match receiving.ask_for_offer(&offer_request(scope, path)) {
            None => {}
            Some((FrameType::Failure, payload)) => {
                assert!(Failure::decode(&payload).expect("a status").status != Status::Ok, "{what}: {shown}");
            }
            Some((FrameType::OfferBatch, payload)) => expect_offered(&format!("{what}: {shown}"), &payload),
            Some((frame_type, payload)) => panic!("{what}: {shown} is answered by {frame_type:?} {payload:?}"),
        }
        drop(receiving);
        let run = client.finish();
        assert!(run.code.is_some_and(|code| code != 0) && !run.stderr.is_empty(), "{what}: {shown}: {:?}", run.code);
        assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
    }
    let (client, mut receiving) = secrets.push("pushed", "copy/");
    let (frame_type, _) = receiving.ask_for_offer(&offer_request(1, b"pushed")).expect("an offer");
    assert_eq!(frame_type, FrameType::OfferBatch, "what is pushed is offered");
    drop(receiving);
    expect_hung_up(&client.finish());
}

#[test]
fn a_receiver_that_asks_without_end_is_answered_or_left() {
    let secrets = Secrets::new();
    for ask in [Ask::Signature(Level::Coarse), Ask::Signature(Level::Fine), Ask::Hash, Ask::ConfirmAnew] {
        let (client, receiving) = secrets.push("pushed", "copy");
        // Nothing of the answers is read: they fill the connection, and the rest of the requests with them.
        let mut data = receiving.data.try_clone().expect("clone");
        data.set_nonblocking(true).expect("set");
        let mut written = 0;
        for id in 0..20_000 {
            let request = range_request(id, b"pushed/large", 0, 3 << 20, ask);
            match data.write(&request) {
                Ok(count) if count == request.len() => written += 1,
                _ => break,
            }
        }
        assert!(written > 100, "{written}");
        receiving.data.shutdown(Shutdown::Both).expect("hang up");
        drop(receiving);
        expect_hung_up(&client.finish());
    }
}

#[test]
fn a_receiver_that_talks_nonsense_is_left() {
    let secrets = Secrets::new();
    let garbage = noise(4096, 5);
    let plain = plain_request(b"pushed/file", 0, 0);
    let unlawful = range_request(u32::MAX, b"pushed/file", 0, 1, Ask::Bytes);
    for bytes in [&garbage, &plain, &unlawful] {
        let (client, mut receiving) = secrets.push("pushed", "copy");
        receiving.data.write_all(bytes).expect("send");
        let answered = read_to_end(&mut receiving.data);
        assert!(!answered.windows(OPEN.len()).any(|bytes| bytes == OPEN), "a plain request is none of a session");
        drop(receiving);
        expect_hung_up(&client.finish());
    }
    let (client, mut receiving) = secrets.push("pushed", "copy");
    receiving.control.write_all(&garbage).expect("send");
    drop(receiving);
    expect_hung_up(&client.finish());
}

#[test]
fn a_receiver_with_other_capabilities_gets_no_more() {
    let secrets = Secrets::new();
    for capabilities in [Capabilities::empty(), Capabilities::SUPPORTED.difference(Capabilities::DELTA)] {
        let receiver = LyingReceiver::new();
        let options = "--retry 1 --conns 1";
        let client = Client::push(secrets.from.join("pushed"), receiver.url("copy")).options(options).start();
        let mut receiving = receiver.take_in_with(capabilities);
        let (header, _) = receiving.ask(&range_request(1, b"sibling", 0, 1, Ask::Bytes));
        assert!(header.reply.status != Status::Ok, "{header:?}");
        drop(receiving);
        expect_hung_up(&client.finish());
    }
}

/// A setting of a push: its name and its value.
type Setting<'a> = (&'a str, &'a [u8]);

/// A payload of PUSH, lawful or not: the contents of the sender's root go into this path, with these settings.
fn push_payload(version: u16, scope: u8, paths: [&[u8]; 3], settings: &[Setting<'_>]) -> Vec<u8> {
    let short = |bytes: &[u8]| [&u16::try_from(bytes.len()).expect("short").to_be_bytes()[..], bytes].concat();
    let mut out = [&version.to_be_bytes()[..], &[scope]].concat();
    paths.iter().for_each(|path| out.extend(short(path)));
    out.push(u8::try_from(settings.len()).expect("few"));
    settings.iter().for_each(|(name, value)| out.extend([short(name.as_bytes()), short(value)].concat()));
    out
}

fn into(path: &[u8], settings: &[Setting<'_>]) -> Vec<u8> {
    push_payload(1, 0, [b"", path, b""], settings)
}

fn sender() -> Hello {
    Hello { role: Role::Sender, ..hello(1) }
}

/// An honest push that has begun, and a server that is lied to beside it.
struct Beside {
    stage: Stage,
    honest: Option<crate::support::client::Running>,
    descriptors: usize,
}

impl Beside {
    fn start() -> Self {
        let stage = large();
        let descriptors = stage.server.descriptors();
        let honest = Some(stage.stall_in_file("--chunk-kb 64", 2, CHUNK_BYTES, 3 << 20));
        Self { stage, honest, descriptors }
    }

    /// A connection that has said that it sends.
    fn greeted(&self) -> TcpStream {
        let mut stream = self.stage.server.connect();
        send_frame(&mut stream, FrameType::Hello, &sender().encode());
        stream
    }

    /// Panics unless the server answers with a failure, closes, and has one line about it.
    fn expect_failure(&self, what: &str, mut stream: TcpStream) -> Failure {
        let address = stream.local_addr().expect("bound");
        let mut frames = Vec::new();
        while let Some(frame) = read_frame(&mut stream) {
            frames.push(frame);
        }
        let (frame_type, payload) = frames.pop().unwrap_or_else(|| panic!("{what}: no answer"));
        assert_eq!(frame_type, FrameType::Failure, "{what}");
        self.expect_one_line(what, address);
        Failure::decode(&payload).expect("a status")
    }

    fn expect_one_line(&self, what: &str, address: SocketAddr) {
        let lines = || self.stage.server.log_lines_about(address);
        wait_until(&format!("a line about {what}"), || !lines().is_empty());
        assert_eq!(lines().len(), 1, "{what}: {:?}", lines());
    }

    /// Panics unless the honest push goes on as if nothing had been.
    fn finish(mut self) {
        self.stage.valve.open();
        let run = self.honest.take().expect("begun").finish().expect_exit(0);
        run.expect_counts(&[("bytes_fetched", FILE_BYTES), ("reconnects", 0), ("files_failed", 0)]);
        assert_same(&self.stage.source, &self.stage.copy);
        for name in ["new", "fastcp-escaped"] {
            assert!(!self.stage.workspace.at(name).exists(), "{name}");
        }
        expect_fit(&self.stage.server, &self.stage.workspace, self.descriptors);
    }
}

#[test]
fn a_push_that_is_none_is_refused_and_the_one_beside_it_goes_on() {
    let beside = Beside::start();
    let long = vec![b'x'; SETTING_VALUE_BYTES_MAX + 1];
    let too_long = vec![0; PUSH_BYTES_MAX + 1];
    let many: Vec<Setting<'_>> = vec![("delete", b""); 65];
    let cut = into(b"new", &[]);
    let bad_request = [
        ("nothing in it", Vec::new()),
        ("a part of it", cut[..cut.len() - 1].to_vec()),
        ("something behind it", [&cut[..], b"x"].concat()),
        ("another version", push_payload(2, 0, [b"", b"new", b""], &[])),
        ("another scope", push_payload(1, 9, [b"", b"new", b""], &[])),
        ("a way up", into(b"new/../../fastcp-escaped", &[])),
        ("just a way up", into(b"..", &[])),
        ("an absolute path", into(b"/tmp/fastcp-escaped", &[])),
        ("a path with NUL", into(b"new\0", &[])),
        ("an empty part", into(b"new//x", &[])),
        ("a way up at the source", push_payload(1, 0, [b"../x", b"new", b""], &[])),
        ("a name with a slash", push_payload(1, 1, [b"x", b"new", b"a/b"], &[])),
        ("a name that leads up", push_payload(1, 1, [b"x", b"new", b".."], &[])),
        ("a setting twice", into(b"new", &[("delete", b""), ("verify", b"disk"), ("delete", b"")])),
        ("a long value", into(b"new", &[("backup-dir", &long)])),
        ("too many settings", into(b"new", &many)),
        ("a name in capitals", into(b"new", &[("Delete", b"")])),
        ("a name with a control character", into(b"new", &[("del\x1b", b"")])),
        ("more than fits", too_long),
    ];
    for (what, payload) in bad_request {
        let mut stream = beside.greeted();
        send_frame(&mut stream, FrameType::Push, &payload);
        let failure = beside.expect_failure(what, stream);
        assert_eq!(failure.status, Status::BadRequest, "{what}");
    }
    beside.finish();
}

#[test]
fn settings_that_are_not_known_or_not_allowed_are_refused_by_their_names() {
    let beside = Beside::start();
    let refused: [(&[Setting<'_>], &str); 12] = [
        (&[("hard-links", b"")], "hard-links"),
        (&[("durability", b"batch"), ("surprise", b"x")], "surprise"),
        (&[("durability", b"twice")], "durability"),
        (&[("verify", b"")], "verify"),
        (&[("delete", b"yes")], "delete"),
        (&[("delete", b""), ("max-delete", b"101%")], "max-delete"),
        (&[("retry", b"-1")], "retry"),
        (&[("conns", b"64")], "conns"),
        (&[("manifest-hash", b"md5")], "manifest-hash"),
        (&[("backup-dir", b"../x")], "backup-dir"),
        (&[("backup-dir", b"/tmp/x")], "backup-dir"),
        (&[("receive-path", b"\x1b[2J")], "receive-path"),
    ];
    for (settings, name) in refused {
        let mut stream = beside.greeted();
        send_frame(&mut stream, FrameType::Push, &into(b"new", settings));
        let failure = beside.expect_failure(name, stream);
        assert!(failure.detail.contains(name), "{name}: {failure:?}");
        assert!(!failure.detail.contains('\x1b') && !beside.stage.server.log().contains('\x1b'), "{failure:?}");
    }
    beside.finish();
}

#[test]
fn a_sender_that_says_something_else_than_what_to_do_is_refused() {
    let beside = Beside::start();
    let others = [
        (FrameType::OfferRequest, offer_request(0, b"")),
        (FrameType::Hello, sender().encode()),
        (FrameType::Attach, Attach { ticket: Ticket([7; 16]), lane: Lane::Control }.encode()),
        (FrameType::ReportSeen, vec![0; 8]),
        (FrameType::Cancel, Vec::new()),
        (FrameType::OfferEnd, vec![0; 16]),
    ];
    for (frame_type, payload) in others {
        let mut stream = beside.greeted();
        send_frame(&mut stream, frame_type, &payload);
        let failure = beside.expect_failure(&format!("{frame_type:?}"), stream);
        assert_eq!(failure.status, Status::BadRequest, "{frame_type:?}");
    }
    let mut stream = beside.greeted();
    stream.write_all(&noise(2048, 3)).expect("send");
    assert_eq!(beside.expect_failure("noise", stream).status, Status::BadRequest);
    // Whoever hangs up broke no rule, and there is nobody to answer.
    for bytes in [0, 5, 20] {
        let mut stream = beside.greeted();
        let frame = encode_frame(FrameType::Push, &into(b"new", &[])).expect("lawful");
        stream.write_all(&frame[..bytes]).expect("send");
        stream.shutdown(Shutdown::Write).expect("hang up");
        let address = stream.local_addr().expect("bound");
        read_to_end(&mut stream);
        assert!(beside.stage.server.log_lines_about(address).len() <= 1);
    }
    beside.finish();
}

/// A session of a sender that pushes into `new`; the connection for control, and the ticket.
fn open_push(beside: &Beside) -> (TcpStream, Ticket) {
    let mut stream = beside.greeted();
    send_frame(&mut stream, FrameType::Push, &into(b"pushed by hand", &[("retry", b"1")]));
    let (frame_type, payload) = read_frame(&mut stream).expect("terms");
    assert_eq!(frame_type, FrameType::HelloReply);
    (stream, HelloReply::decode(&payload).expect("lawful").ticket)
}

#[test]
fn garbage_in_place_of_acknowledgements_or_offers_ends_that_push_alone() {
    let beside = Beside::start();
    let frames = [
        (FrameType::ReportSeen, vec![0; 7]),
        (FrameType::ReportSeen, vec![0xff; 8]),
        (FrameType::ReportSeen, u64::to_be_bytes(1 << 40).to_vec()),
        (FrameType::OfferRequest, offer_request(0, b"")),
        (FrameType::ReportEnd, vec![0; 3]),
    ];
    let garbage = frames.map(|(frame_type, payload)| encode_frame(frame_type, &payload).expect("lawful"));
    for bytes in garbage.iter().chain([&noise(4096, 9)]) {
        let (control, ticket) = open_push(&beside);
        let mut report = beside.stage.server.connect();
        send_frame(&mut report, FrameType::Attach, &Attach { ticket, lane: Lane::Report { seen: 0 } }.encode());
        assert_eq!(read_frame(&mut report), Some((FrameType::AttachReply, Vec::new())));
        report.write_all(bytes).expect("send");
        let address = report.local_addr().expect("bound");
        read_to_end(&mut report);
        let lines = beside.stage.server.log_lines_about(address);
        assert!(lines.len() <= 1, "{lines:?}");
        drop(control);
    }
    for bytes in garbage.iter().chain([&noise(4096, 9)]) {
        let (mut control, _) = open_push(&beside);
        control.write_all(bytes).expect("send");
        read_to_end(&mut control);
    }
    // A data connection that answers before it is asked, and none that does what it is for.
    let (control, ticket) = open_push(&beside);
    let mut data = beside.stage.server.connect();
    attach(&mut data, ticket);
    data.write_all(&noise(4096, 9)).expect("send");
    drop((control, data));
    assert!(!beside.stage.server.log().contains("panicked"), "{}", beside.stage.server.log());
    beside.finish();
}

#[test]
fn lanes_of_a_push_need_its_ticket() {
    let beside = Beside::start();
    for lane in [Lane::Control, Lane::Report { seen: 0 }, Lane::Report { seen: 1 << 40 }] {
        let mut stream = beside.stage.server.connect();
        send_frame(&mut stream, FrameType::Attach, &Attach { ticket: Ticket([9; 16]), lane }.encode());
        let (frame_type, payload) = read_frame(&mut stream).expect("an answer");
        assert_eq!(frame_type, FrameType::Failure);
        assert_eq!(Failure::decode(&payload).expect("a status").status, Status::UnknownTicket);
    }
    // A session that only reads has no lanes but that for data.
    let mut control = beside.stage.server.connect();
    send_frame(&mut control, FrameType::Hello, &hello(1).encode());
    let (_, payload) = read_frame(&mut control).expect("terms");
    let ticket = HelloReply::decode(&payload).expect("lawful").ticket;
    for lane in [Lane::Control, Lane::Report { seen: 0 }] {
        let mut stream = beside.stage.server.connect();
        send_frame(&mut stream, FrameType::Attach, &Attach { ticket, lane }.encode());
        let (frame_type, _) = read_frame(&mut stream).expect("an answer");
        assert_eq!(frame_type, FrameType::Failure, "{lane:?}");
    }
    drop(control);
    beside.finish();
}

#[test]
fn a_server_that_does_not_take_anything_says_so_before_anything_else() {
    let workspace = Workspace::new();
    let source = plain(&workspace.at("source"));
    let server = Server::start(&source);
    let mut stream = server.connect();
    let address = stream.local_addr().expect("bound");
    send_frame(&mut stream, FrameType::Hello, &sender().encode());
    send_frame(&mut stream, FrameType::Push, &into(b"new", &[]));
    let (frame_type, payload) = read_frame(&mut stream).expect("an answer");
    assert_eq!(frame_type, FrameType::Failure);
    let failure = Failure::decode(&payload).expect("a status");
    assert!(failure.status == Status::Unauthorised && failure.detail.contains("--allow-write"), "{failure:?}");
    read_to_end(&mut stream);
    wait_until("the line", || !server.log_lines_about(address).is_empty());
    assert_eq!(server.log_lines_about(address).len(), 1, "{}", server.log());
    assert!(!source.join("new").exists());
    let (files, _) = files_and_bytes(&source);
    Client::pull(server.url(""), workspace.at("copy"))
        .run()
        .expect_exit(0)
        .expect_counts(&[("files_committed", files)]);
}

#[test]
fn a_push_through_slow_beginnings_is_no_other_push() {
    // Held before the first byte of data: the greeting of each kind of connection has come.
    let stage = large();
    stage.valve.limit(Kind::Data, ATTACH_REPLY_BYTES);
    let client = stage.client(&format!("{OPTIONS} --retry 20")).start();
    stage.valve.wait_until_stalled(Kind::Data);
    stage.valve.open();
    client.finish().expect_exit(0).expect_counts(&[("bytes_fetched", FILE_BYTES), ("reconnects", 0)]);
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
