//! What can go wrong between two machines and a remote shell.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fastcp_wire::frame::{FrameType, encode_frame};
use fastcp_wire::session::{MARK, Opened, Opening, Purpose};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::client::{Client, Run, Running, contents};
use crate::support::compare::assert_same;
use crate::support::journal::Leftover;
use crate::support::port::ReservedPort;
use crate::support::road::{PLAIN, Road, SINK, descendants, far};
use crate::support::tree::{Tree, noise, plain};
use crate::support::wait_until;
use crate::support::way::{BOTH_WAYS, Way};

const LARGE_BYTES: u64 = (8 << 20) + 5;
/// How much of the large file goes through a tunnel that is stopped in the middle.
const THROUGH_BYTES: u64 = 3_000_000;
/// How much of that is certainly recorded: the rest is on its way in one of the connections.
const RECORDED_BYTES: u64 = 1 << 20;
/// Whatever ends ends long before a peer would be given up for its silence.
const SOON: Duration = Duration::from_secs(20);

/// A login in which the stream from the source ends so in the middle.
fn cut_by(way: Way, then: &str) -> String {
    match way {
        Way::Pull => format!("unset SSH_CONNECTION; \"$@\" | {{ stdbuf -o0 head -c {THROUGH_BYTES}; {then}; }}"),
        Way::Push => format!("unset SSH_CONNECTION; {{ stdbuf -o0 head -c {THROUGH_BYTES}; {then}; }} | \"$@\""),
    }
}

/// A large file at one end, to be brought to the other.
struct Scene {
    road: Road,
    way: Way,
}

impl Scene {
    /// All scenes there are in which this is what the login does.
    fn all(script: impl Fn(Way) -> String) -> impl Iterator<Item = Self> {
        let of = move |way| Road::both_by(&script(way)).map(move |road| Self::new(road, way));
        BOTH_WAYS.into_iter().flat_map(of)
    }

    fn new(road: Road, way: Way) -> Self {
        Tree::new(&road.home().join("source")).file("large", &noise(LARGE_BYTES as usize, 1)).finish();
        Self { road, way }
    }

    fn client(&self) -> Client {
        let [source, copy] = ["source", "copy"].map(|name| self.road.home().join(name));
        let client = match self.way {
            Way::Pull => Client::pull("far:source/", copy),
            Way::Push => Client::push(contents(&source), "far:copy/"),
        };
        self.road.client(client).options("--chunk-kb 64 --no-compress")
    }

    fn start_and_stall(&self) -> Running {
        let client = self.client().start();
        let copy = self.road.home().join("copy");
        let recorded = || Leftover::all(&copy).iter().map(Leftover::claimed_bytes).sum::<u64>();
        wait_until("the middle of the file", || recorded() >= RECORDED_BYTES);
        client
    }

    fn expect_resumed(&self) {
        self.road.wait_until_left();
        self.road.set_script(PLAIN);
        let run = self.client().run().expect_exit(0);
        let (fetched, reused) = (run.count("bytes_fetched"), run.count("bytes_reused"));
        assert!(reused >= RECORDED_BYTES, "{reused}");
        assert_eq!(fetched + reused, LARGE_BYTES);
        self.expect_whole();
    }

    fn expect_whole(&self) {
        assert_same(&self.road.home().join("source"), &self.road.home().join("copy"));
        self.road.wait_until_left();
    }
}

/// Panics unless the run ended with this code, and said this once and in these words.
pub(crate) fn expect_told(run: Run, code: i32, message: &str) {
    let run = run.expect_exit(code);
    assert_eq!(run.stderr.matches(message).count(), 1, "\"{message}\" expected once: {}", run.stderr);
    assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
    let errors: Vec<_> = run.events().into_iter().filter(|event| event["event"] == "error").collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(errors[0]["exit"], code);
    assert!(errors[0]["message"].as_str().is_some_and(|said| said.contains(message)), "{errors:?}");
}

/// Every command that goes to a machine, with a place there.
fn every_command(road: &Road, place: &str) -> Vec<Client> {
    let here = road.workspace.at("here");
    if !here.exists() {
        plain(&here);
    }
    let copy = road.workspace.at("copy");
    let place = std::ffi::OsString::from(format!("far:{place}"));
    vec![
        Client::pull(&place, copy),
        Client::push(contents(&here), &place),
        Client::verify(&here, &place),
        Client::new(["ls".as_ref(), "--json".as_ref(), place.as_os_str()]),
    ]
}

#[test]
fn a_client_that_is_killed_leaves_no_server_and_the_next_one_resumes() {
    for scene in Scene::all(|way| cut_by(way, SINK)) {
        scene.start_and_stall().kill();
        scene.expect_resumed();
    }
}

#[test]
fn a_client_that_is_told_to_end_leaves_no_server_and_the_next_one_resumes() {
    for scene in Scene::all(|way| cut_by(way, SINK)) {
        let client = scene.start_and_stall();
        let begun = Instant::now();
        client.signal(Signal::SIGTERM);
        client.finish().expect_exit(20);
        assert!(begun.elapsed() < SOON);
        scene.expect_resumed();
    }
}

#[test]
fn a_shell_that_ends_in_the_middle_ends_the_run() {
    for scene in Scene::all(|way| cut_by(way, "exit 7")) {
        let begun = Instant::now();
        expect_told(scene.client().run(), 12, "the connection to far ended");
        assert!(begun.elapsed() < SOON, "{:?} {:?}", scene.way, begun.elapsed());
        scene.expect_resumed();
    }
}

#[test]
fn a_shell_that_is_killed_in_the_middle_ends_the_run() {
    for scene in Scene::all(|way| cut_by(way, SINK)) {
        let client = scene.start_and_stall();
        let begun = Instant::now();
        for pid in descendants(client.pid()) {
            // What the first one held may be gone with it.
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
        }
        expect_told(client.finish(), 12, "the connection to far ended");
        assert!(begun.elapsed() < SOON, "{:?} {:?}", scene.way, begun.elapsed());
        scene.expect_resumed();
    }
}

#[test]
fn a_shell_is_told_to_end_as_any_program_is() {
    for scene in Scene::all(|way| cut_by(way, SINK)) {
        let client = scene.start_and_stall();
        let begun = Instant::now();
        for pid in descendants(client.pid()) {
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM);
        }
        expect_told(client.finish(), 12, "the connection to far ended");
        assert!(begun.elapsed() < SOON, "{:?} {:?}", scene.way, begun.elapsed());
        scene.road.wait_until_left();
    }
}

#[test]
fn a_far_end_that_is_stopped_for_a_while_is_waited_for() {
    // It stops itself in the middle, so to speak: as soon as it is there.
    let script = "\"$@\" & server=$!; kill -STOP $server; echo $server >stopped; wait $server";
    for scene in Scene::all(|_| format!("exec 3<&0; {}", script.replace("\"$@\" &", "\"$@\" <&3 &"))) {
        let client = scene.client().start();
        let server = || fs::read_to_string(scene.road.home().join("stopped")).ok()?.trim().parse().ok();
        wait_until("a server that is stopped", || server().is_some());
        let server: i32 = server().expect("written");
        wait_until("it to stand", || is_stopped(server));
        kill(Pid::from_raw(server), Signal::SIGCONT).expect("go on");
        client.finish().expect_exit(0).expect_counts(&[("reconnects", 0), ("chunks_refetched", 0)]);
        scene.expect_whole();
    }
}

#[test]
fn a_far_end_that_stays_stopped_is_told_with_the_time_that_it_was_waited_for() {
    const RETRY_SECS: u64 = 4;
    for scene in Scene::all(|way| cut_by(way, SINK)) {
        let mut client = scene.client().options(&format!("--retry {RETRY_SECS}")).start();
        wait_until("a server", || !scene.road.servers().is_empty());
        let copy = scene.road.home().join("copy");
        wait_until("the middle of the file", || Leftover::all(&copy).iter().any(|left| left.claimed_bytes() > 0));
        let begun = Instant::now();
        let servers = scene.road.servers();
        for &server in &servers {
            kill(Pid::from_raw(server.cast_signed()), Signal::SIGSTOP).expect("stop");
        }
        wait_until("the client to give up", || client.has_ended());
        let waited = begun.elapsed().as_secs_f64();
        // They may hold what the client prints to.
        for server in servers {
            let _ = kill(Pid::from_raw(server.cast_signed()), Signal::SIGKILL);
        }
        let run = client.finish().expect_exit(30);
        let error = run.events().into_iter().find(|event| event["event"] == "error").expect("an error");
        let said = error["message"].as_str().and_then(|said| said.split("nothing received for ").nth(1)).expect("why");
        let seconds: f64 = said.split(' ').next().and_then(|number| number.parse().ok()).expect("a number");
        assert!(seconds >= RETRY_SECS as f64 && seconds <= waited + 2.0, "{said}; {waited} s");
    }
}

fn is_stopped(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("read");
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
}

#[test]
fn a_client_that_is_told_to_end_does_not_wait_for_a_login() {
    for road in Road::both_by(&format!("touch begun; {SINK}")) {
        for client in every_command(&road, "tree/") {
            let running = road.client(client).start();
            wait_until("the login to begin", || road.home().join("begun").exists());
            let begun = Instant::now();
            running.signal(Signal::SIGTERM);
            let run = running.finish();
            assert_eq!(run.code, Some(20), "{} {:?}", run.stderr, run.lines);
            assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
            fs::remove_file(road.home().join("begun")).expect("remove");
        }
    }
}

#[test]
fn a_place_that_is_not_there_is_named_once() {
    for road in Road::both_by(PLAIN) {
        let source = plain(&road.home().join("tree"));
        for (place, message) in [
            ("missing/", "cannot read \"missing/\": No such file or directory"),
            ("missing/deep", "cannot read \"missing/\": No such file or directory"),
            ("tree/noise/", "cannot read \"tree/noise/\": Not a directory"),
            ("tree/missing", "\"missing\""),
        ] {
            for (nth, client) in every_command(&road, place).into_iter().enumerate() {
                // What is pushed makes its place.
                if nth == 1 {
                    continue;
                }
                let run = road.client(client).run();
                assert_eq!(run.code, Some(3), "{place} {nth}: {}{:?}", run.stderr, run.lines);
                expect_told(run, 3, message);
                assert!(!road.workspace.at("copy").exists(), "{place} {nth}");
            }
        }
        let into = road.client(Client::push(contents(&source), "far:tree/noise/below/")).run();
        assert_ne!(into.code, Some(0), "a file is no directory");
        assert!(into.stderr.contains("noise"), "{}", into.stderr);
        let path = "p/".repeat(40_000);
        let run = road.client(Client::pull(far(&path), road.workspace.at("copy"))).run();
        expect_told(run, 1, "too long");
    }
}

#[test]
fn a_far_end_without_the_program_is_told_so() {
    let unknown = "fastcp-server is not found on far";
    for road in Road::both_by("exec sh -c \"exec $*\"") {
        for client in every_command(&road, "tree/") {
            let run = road.client_of(client, "/nowhere/fastcp-server").run();
            assert!(run.stderr.contains("--remote-bin") && run.stderr.contains("--deploy"), "{}", run.stderr);
            expect_told(run, 3, unknown);
        }
        // A directory, and a file that is no program.
        let data = road.workspace.at("data");
        fs::write(&data, b"no program").expect("write");
        for program in [road.workspace.at(""), data] {
            let client = Client::pull("far:tree/", road.workspace.at("copy"));
            expect_told(road.client_of(client, program).run(), 3, unknown);
        }
        assert!(!road.workspace.at("copy").exists());
    }
}

#[test]
fn whatever_else_answers_is_told_from_a_server() {
    let own = env!("CARGO_PKG_VERSION");
    let older = format!("is it older than this client ({own})? --deploy runs this client's own program there");
    let other = format!("what answers on far is no fastcp-server of this client's version ({own})");
    let newer = format!("on far speaks version 2 of the session, this client ({own}) version 1. --deploy");
    let (older, other, newer) = (older.as_str(), other.as_str(), newer.as_str());
    for (script, message) in [
        ("echo 'error: unexpected argument --session' >&2; exit 1", older),
        ("echo 'error: unexpected argument --session'; exit 2", older),
        ("exit 0", older),
        ("exec true", older),
        ("kill -9 $$", other),
        ("exec yes", other),
        ("printf '\\nfastcp-session 2\\n'; exit 0", newer),
        ("printf 'fastcp-session 2\\n'; exec yes", newer),
        ("printf '\\nfastcp-session 1'; exit 0", older),
        ("exec head -c 3000000 /dev/zero", other),
    ] {
        let road = Road::piped_by(script);
        for client in every_command(&road, "tree/") {
            let begun = Instant::now();
            expect_told(road.client(client).run(), 3, message);
            assert!(begun.elapsed() < SOON, "{script}: {:?}", begun.elapsed());
        }
    }
}

#[test]
fn a_host_that_cannot_be_reached_is_told_so() {
    let message = "the remote shell could not reach far (exit code 255)";
    let mut road = Road::piped_by("echo 'ssh: no route to host' >&2; exit 255");
    for client in every_command(&road, "tree/") {
        expect_told(road.client(client).run(), 35, message);
    }
    for (rsh, code, message) in [
        ("/nowhere/ssh", 3, "cannot run \"/nowhere/ssh\""),
        ("", 1, "--rsh is empty"),
        ("ssh 'x", 1, "a quote is not closed"),
    ] {
        road.set_rsh(rsh);
        for client in every_command(&road, "tree/") {
            expect_told(road.client(client).run(), code, message);
        }
    }
    let Some(road) = Road::ssh("") else { return };
    let (nobody, sshd) = (ReservedPort::new(), road.sshd.as_ref().expect("there"));
    for place in [format!("ssh://far:{}/tree/", nobody.port), "ssh://nobody-of-that-name@far/tree/".to_owned()] {
        let client = road.client(Client::pull(&place, road.workspace.at("copy")));
        let run = client.run().expect_exit(35);
        assert!(run.stderr.contains("the remote shell could not reach"), "{}", run.stderr);
    }
    // The port that is written counts.
    let place = format!("ssh://far:{}{}/", sshd.port(), plain(&road.home().join("tree")).display());
    road.client(Client::pull(&place, road.workspace.at("copy"))).run().expect_exit(0);
}

#[test]
fn whatever_a_login_prints_is_passed_over() {
    for chatter in [
        "head -c 100000 /dev/zero | tr '\\0' x",
        "yes 'a line of a banner' | head -c 100000",
        "printf '\\nfastcp-session 2\\n'",
        "printf '\\nfastcp-session 1\\r\\n'",
        "printf '\\n\\nfastcp-session 11'",
        "printf '\\nfastcp-sess'",
        "head -c 1000000 /dev/urandom | tr -d f",
        "printf '\\033[2J\\n'; echo a complaint >&2",
    ] {
        let road = Road::piped_by(&format!("{chatter}; {PLAIN}"));
        let source = plain(&road.home().join("tree"));
        let (pulled, pushed) = (road.workspace.at("pulled"), road.workspace.at("pushed"));
        road.client(Client::pull("far:tree/", &pulled)).run().expect_exit(0);
        assert_same(&source, &pulled);
        road.client(Client::push(contents(&source), far(contents(&pushed)))).run().expect_exit(0);
        assert_same(&source, &pushed);
    }
    let Some(road) = Road::ssh_by(&format!("head -c 100000 /dev/zero | tr '\\0' x; {PLAIN}")) else { return };
    let source = plain(&road.home().join("tree"));
    let pulled = road.workspace.at("pulled");
    road.client(Client::pull("far:tree/", &pulled)).run().expect_exit(0);
    assert_same(&source, &pulled);
}

fn frame(frame_type: FrameType, payload: &[u8]) -> Vec<u8> {
    encode_frame(frame_type, payload).expect("short enough")
}

fn tunnelled(lane: u32, kind: u8, len: u32, bytes: &[u8]) -> Vec<u8> {
    [&lane.to_be_bytes()[..], &[kind, 0, 0, 0], &len.to_be_bytes(), bytes].concat()
}

/// What neither end of a tunnel may say.
fn nonsense() -> Vec<Vec<u8>> {
    vec![
        tunnelled(1, 9, 0, b""),
        tunnelled(1, 1, u32::MAX, b""),
        tunnelled(1, 1, (64 << 10) + 1, &noise((64 << 10) + 1, 1)),
        tunnelled(1, 3, 4, &u32::MAX.to_be_bytes()),
        tunnelled(1, 3, 4, &1_u32.to_be_bytes()),
        tunnelled(1, 3, 3, b"abc"),
        [tunnelled(1, 2, 0, b""), tunnelled(1, 1, 1, b"x")].concat(),
        noise(100_000, 7),
        b"rm: cannot remove 'x': No such file or directory\n".repeat(100),
    ]
}

#[test]
fn a_far_end_that_talks_nonsense_ends_the_run() {
    let opened = Opened { into: Vec::new(), direct: None }.encode();
    let answer = [MARK, &frame(FrameType::SessionOpened, &opened)].concat();
    let mut spoiled = answer.clone();
    *spoiled.last_mut().expect("a byte") ^= 1;
    let mut said: Vec<_> = nonsense().into_iter().map(|bytes| [&answer[..], &bytes].concat()).collect();
    said.extend([
        [&answer[..], &tunnelled(7, 0, 0, b"")].concat(),
        spoiled,
        [MARK, &frame(FrameType::SessionOpen, &opened)].concat(),
        [MARK, &frame(FrameType::SessionOpened, b"\xff")].concat(),
        [MARK, &[0xff; 100]].concat(),
        [MARK, b"bash: warning: something\n".repeat(10).as_slice()].concat(),
    ]);
    let road = Road::piped_by("cat ../said; exec cat >/dev/null");
    for bytes in said {
        fs::write(road.workspace.at("said"), &bytes).expect("write");
        for client in every_command(&road, "tree/") {
            let begun = Instant::now();
            expect_told(road.client(client).run(), 12, "the connection to far ended");
            assert!(begun.elapsed() < SOON, "{:?}: {:?}", begun.elapsed(), &bytes[..bytes.len().min(60)]);
        }
    }
}

#[test]
fn what_a_far_end_says_does_not_move_the_cursor() {
    let refusal = fastcp_wire::hello::Failure {
        status: fastcp_model::Status::NotFound,
        detail: "\x1b[2Jcannot read \"x\n\"".to_owned(),
    };
    let road = Road::piped_by("cat ../said; exec cat >/dev/null");
    fs::write(road.workspace.at("said"), [MARK, &frame(FrameType::Failure, &refusal.encode())].concat())
        .expect("write");
    for client in every_command(&road, "tree/") {
        let run = road.client(client).run().expect_exit(3);
        assert!(run.stderr.contains("[2Jcannot read") && !run.stderr.contains('\x1b'), "{:?}", run.stderr);
    }
}

/// `fastcp-server --session` with these bytes to read, and then the end.
fn session_of(road: &Road, bytes: &[u8]) -> (Option<i32>, Vec<u8>, String) {
    let mut command = Command::new(road.program());
    command.arg("--session").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.current_dir(road.home()).env_remove("SSH_CONNECTION").spawn().expect("start");
    // It may have heard enough before the end.
    let _ = child.stdin.take().expect("piped").write_all(bytes);
    let output = child.wait_with_output().expect("the end");
    (output.status.code(), output.stdout, String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_session_that_hears_garbage_ends() {
    let road = Road::piped();
    let opening = |path: &[u8]| Opening { purpose: Purpose::Push, path: path.to_vec() }.encode();
    let open = frame(FrameType::SessionOpen, &opening(b"."));
    let mut spoiled = open.clone();
    *spoiled.last_mut().expect("a byte") ^= 1;
    for bytes in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        b"help\n".repeat(1000),
        noise(1 << 20, 3),
        vec![0xff; 64],
        open[..open.len() - 1].to_vec(),
        spoiled,
        frame(FrameType::Hello, b"x"),
        frame(FrameType::SessionOpen, b"\x09"),
        frame(FrameType::SessionOpen, b""),
    ] {
        let begun = Instant::now();
        let (code, said, complaint) = session_of(&road, &bytes);
        assert_eq!(code, Some(12), "{complaint}");
        assert!(said.is_empty(), "{said:?}");
        assert!(complaint.contains("the session: ") && !complaint.contains("panicked"), "{complaint}");
        assert!(begun.elapsed() < SOON);
    }
    for bytes in nonsense() {
        let begun = Instant::now();
        let open_lane = tunnelled(1, 0, 0, b"");
        let (code, said, complaint) = session_of(&road, &[&open[..], &open_lane, &bytes].concat());
        assert!(said.starts_with(MARK));
        assert!(code == Some(12) || bytes.starts_with(b"rm"), "{code:?} {complaint}");
        assert!(complaint.contains("broke the rules of the tunnel") || code == Some(0), "{complaint}");
        assert!(!complaint.contains("panicked"), "{complaint}");
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    }
}

#[test]
fn a_session_that_nobody_opens_ends_at_once() {
    let road = Road::piped();
    let begun = Instant::now();
    let (code, said, complaint) = session_of(&road, b"");
    assert_eq!(code, Some(12), "{complaint}");
    assert!(said.is_empty() && !complaint.is_empty() && !complaint.contains("panicked"), "{complaint}");
    // Whoever opens one and goes is not missed.
    let open = frame(FrameType::SessionOpen, &Opening { purpose: Purpose::Pull, path: b".".to_vec() }.encode());
    let (code, said, complaint) = session_of(&road, &open);
    assert_eq!((code, said.starts_with(MARK)), (Some(0), true), "{complaint}");
    assert!(begun.elapsed() < SOON);
}
