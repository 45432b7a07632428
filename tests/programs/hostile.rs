//! Clients that attack a server. Beside each of them, an honest client pulls and another one pushes: both finish, nothing
//! outside of the root is read or written, the server lives, and its memory is bounded.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use fastcp_wire::frame::{FrameType, encode_frame};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::support::client::{Client, contents};
use crate::support::compare::{assert_same, snapshot};
use crate::support::lying_receiver::offer_request;
use crate::support::memory::peak_mib;
use crate::support::peer::{hello, plain_request, send_frame};
use crate::support::server::Server;
use crate::support::source_address::{HOSTILE, connect_from, relay_from, try_connect_from};
use crate::support::sweep::is_long;
use crate::support::tree::{Tree, noise, plain};
use crate::support::way::RECEIVES;
use crate::support::{Workspace, wait_until};

const TOKEN: &str = "a-token-that-nobody-guesses";
const SECRET: &[u8] = b"what is beside the root is nobody's business";
/// More than this is not needed for anything that is done here.
const PEAK_MIB_MAX: u64 = 300;

/// A server that takes pushes, with something beside its root.
struct Scene {
    workspace: Workspace,
    server: Server,
    /// Of a server that asks for a token.
    address: Option<String>,
    rounds: AtomicUsize,
}

impl Scene {
    fn open(words: &str) -> Self {
        Self::new(words, false)
    }

    fn protected(words: &str) -> Self {
        Self::new(words, true)
    }

    fn new(words: &str, is_protected: bool) -> Self {
        let workspace = Workspace::new();
        let mut tree = Tree::new(&workspace.at("root"));
        tree.dir("source").dir("source/dir").file("source/large", &noise(3 << 20, 1));
        (0..100).for_each(|nth| _ = tree.file(format!("source/dir/{nth}"), &noise(nth * 50, nth as u64)));
        let root = tree.finish();
        fs::create_dir(workspace.at("outside")).expect("create");
        fs::write(workspace.at("outside/secret"), SECRET).expect("write");
        symlink("../outside", root.join("out")).expect("link");
        plain(&workspace.at("pushed"));
        fs::create_dir(workspace.at("inbox")).expect("create");
        let mut words = format!("127.0.0.1 0 {RECEIVES} --inbox {} {words}", workspace.at("inbox").display());
        if is_protected {
            fs::write(workspace.at("token"), TOKEN).expect("write");
            fs::set_permissions(workspace.at("token"), fs::Permissions::from_mode(0o600)).expect("chmod");
            let (token, key) = (workspace.at("token"), workspace.at("key"));
            words = format!("{words} --token-file {} --tls-key {}", token.display(), key.display());
        }
        let mut server = Server::start_with(&root, &words);
        let address = is_protected.then(|| server.announced("address: "));
        Self { workspace, server, address, rounds: AtomicUsize::new(0) }
    }

    fn url(&self, path: &str) -> String {
        match &self.address {
            Some(address) => address.replace('#', &format!("/{path}#")),
            None => self.server.url(path),
        }
    }

    fn own(&self, client: Client) -> Client {
        let client = client.variable("XDG_CONFIG_HOME", self.workspace.at("config"));
        if self.address.is_some() { client.variable("FASTCP_TOKEN", TOKEN) } else { client }
    }

    /// A pull and a push, at once.
    fn honest(&self) {
        let round = self.rounds.fetch_add(1, Ordering::Relaxed);
        let (copy, source) = (self.workspace.at(&format!("copy{round}")), self.workspace.at("pushed"));
        let pull = self.own(Client::pull(self.url("source/"), &copy)).start();
        let push = self.own(Client::push(contents(&source), self.url(&format!("pushed{round}/")))).start();
        pull.finish().expect_exit(0);
        push.finish().expect_exit(0);
        assert_same(&self.root().join("source"), &copy);
        assert_same(&source, &self.root().join(format!("pushed{round}")));
    }

    fn root(&self) -> PathBuf {
        self.workspace.at("root")
    }

    /// Has a peer do its worst, again and again, until an honest pull and an honest push have finished beside it.
    fn beside(&self, what: &str, attack: impl Fn(&Self, &dyn Fn() -> bool) + Sync) {
        let outside = snapshot(&self.workspace.at("outside"));
        let (is_begun, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|threads| {
            threads.spawn(|| {
                let goes_on = || {
                    is_begun.store(true, Ordering::Release);
                    !is_over.load(Ordering::Acquire)
                };
                attack(self, &goes_on);
                is_begun.store(true, Ordering::Release);
            });
            wait_until(what, || is_begun.load(Ordering::Acquire));
            let honest = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.honest()));
            is_over.store(true, Ordering::Release);
            honest.unwrap_or_else(|_| panic!("beside one that {what}: {}", self.server.log()));
        });
        self.honest();
        assert_eq!(snapshot(&self.workspace.at("outside")), outside, "{what}");
        for entry in fs::read_dir(self.workspace.at("inbox")).expect("read").flatten() {
            assert!(entry.file_name().to_string_lossy().starts_with("RECV_"), "{what}: {entry:?}");
        }
        assert!(!self.server.log().contains("panicked"), "{what}: {}", self.server.log());
        let peak = peak_mib(self.server.pid());
        assert!(peak < PEAK_MIB_MAX, "one that {what} took it to {peak} MiB");
    }

    fn connect(&self) -> TcpStream {
        connect_from(HOSTILE, self.server.address)
    }

    /// Sends bytes and reads all that is answered; nothing of it is what lies beside the root.
    fn say(&self, bytes: &[u8]) {
        let mut stream = self.connect();
        // It may be closed before all of it is said.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(!answer.windows(SECRET.len()).any(|window| window == SECRET));
    }
}

fn frame(frame_type: FrameType, payload: &[u8]) -> Vec<u8> {
    encode_frame(frame_type, payload).expect("lawful")
}

/// HELLO that names this place, lawful or not.
fn hello_at(path: &[u8]) -> Vec<u8> {
    use fastcp_model::RelPath;
    use fastcp_wire::offer::{Place, Scope};

    let stand_in = vec![b'~'; path.len()];
    let place = Place { path: RelPath::new(&stand_in).expect("lawful"), scope: Scope::Contents };
    let mut payload = fastcp_wire::hello::Hello { places: vec![place], ..hello(1) }.encode();
    let at = payload.windows(path.len()).position(|window| window == stand_in).expect("there");
    payload[at..at + path.len()].copy_from_slice(path);
    frame(FrameType::Hello, &payload)
}

/// Paths that lead out.
const PATHS: [&[u8]; 6] = [b"../outside/secret", b"/etc/passwd", b"out/secret", b"source/../../outside", b"..", b"out"];

#[test]
fn one_that_asks_for_what_lies_outside() {
    Scene::open("").beside("asks for what lies outside", |scene, goes_on| {
        while goes_on() {
            for path in PATHS {
                let greeted = frame(FrameType::Hello, &hello(1).encode());
                let asked = frame(FrameType::OfferRequest, &offer_request(0, path));
                scene.say(&[greeted, asked].concat());
                scene.say(&[hello_at(path), frame(FrameType::OfferRequest, &offer_request(0, b""))].concat());
                scene.say(&plain_request(path, 1, 0));
                let name_len = u32::try_from(path.len()).expect("short").to_be_bytes();
                scene.say(&[&[0, 0, 0, 0][..], &name_len, &9u64.to_be_bytes(), path].concat());
            }
        }
    });
}

#[test]
fn one_that_says_numbers_of_any_size() {
    Scene::open("").beside("says numbers of any size", |scene, goes_on| {
        let lawful = [
            frame(FrameType::Hello, &hello(1).encode()),
            hello_at(b"source"),
            plain_request(b"source/large", 1, 0),
            frame(FrameType::Attach, &[7; 17]),
            [&[0, 0, 0, 0][..], &[0, 0, 0, 4], &9u64.to_be_bytes(), b"name"].concat(),
        ];
        let numbers = [u64::MAX, 1 << 63, 1 << 32, i64::MAX as u64].map(u64::to_be_bytes);
        while goes_on() {
            for (bytes, number) in lawful.iter().flat_map(|bytes| numbers.iter().map(move |number| (bytes, number))) {
                for width in [2, 4, 8] {
                    for at in (2..bytes.len().saturating_sub(width).min(20)).step_by(2) {
                        let mut bytes = bytes.clone();
                        bytes[at..at + width].copy_from_slice(&number[..width]);
                        scene.say(&bytes);
                    }
                }
                // Behind a good beginning, with a checksum that is right.
                let mut known = number[..4].to_vec();
                known.extend_from_slice(&[0; 16]);
                let greeted = frame(FrameType::Hello, &hello(1).encode());
                scene.say(&[greeted, frame(FrameType::OfferKnown, &known)].concat());
            }
        }
    });
}

/// Holds them until the end.
fn hold(goes_on: &dyn Fn() -> bool, mut held: Vec<TcpStream>, bytes: &[u8]) {
    let mut bytes = bytes.iter().cycle();
    wait_until("the honest ones", || {
        if let Some(byte) = bytes.next() {
            held.iter_mut().for_each(|stream| _ = stream.write_all(&[*byte]));
        }
        !goes_on()
    });
}

#[test]
fn one_that_connects_and_says_nothing() {
    let scene = Scene::open("--handshake-timeout 1 --max-connections-per-address 300");
    scene.beside("says nothing", |scene, goes_on| {
        let held: Vec<_> = (0..200).map(|_| scene.connect()).collect();
        hold(goes_on, Vec::new(), b"");
        for mut stream in held {
            // The server ends it.
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    assert_eq!(scene.server.log().matches("--handshake-timeout").count(), 1, "one line for one address");
}

#[test]
fn one_that_sends_byte_by_byte() {
    let hello = frame(FrameType::Hello, &hello(1).encode());
    Scene::open("").beside("sends byte by byte", |scene, goes_on| {
        hold(goes_on, (0..50).map(|_| scene.connect()).collect(), &hello[..hello.len() - 2]);
    });
    Scene::protected("").beside("sends byte by byte", |scene, goes_on| {
        hold(goes_on, (0..50).map(|_| scene.connect()).collect(), &[0x16, 3, 1, 2, 0, 1]);
    });
}

#[test]
fn one_that_opens_as_many_connections_as_it_can() {
    let count = if is_long() { 10_000 } else { 2_500 };
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("raise it");
    let count = count.min(usize::try_from(hard).unwrap_or(usize::MAX).saturating_sub(500));
    let scene = Scene::open("");
    scene.beside("opens connections", |scene, goes_on| {
        let mut held = Vec::new();
        while held.len() < count {
            held.extend(try_connect_from(HOSTILE, scene.server.address));
        }
        hold(goes_on, held, b"");
    });
    let log = scene.server.log();
    assert_eq!(log.matches("--max-connections-per-address is reached").count(), 1, "{log}");
}

#[test]
fn one_that_opens_sessions_and_leaves_them_idle() {
    Scene::open("--max-connections 64").beside("leaves sessions idle", |scene, goes_on| {
        let mut held = Vec::new();
        while held.len() < 40 {
            let mut stream = scene.connect();
            send_frame(&mut stream, FrameType::Hello, &hello(1).encode());
            held.push(stream);
        }
        hold(goes_on, held, b"");
    });
}

#[test]
fn one_that_tries_tokens_without_end() {
    let scene = Scene::protected("--max-wrong-tokens 3");
    let tried = AtomicUsize::new(0);
    scene.beside("tries tokens", |scene, goes_on| {
        let relay = relay_from(HOSTILE, scene.server.address, usize::MAX, Vec::new());
        let address = scene.url("").replace(&scene.server.address.to_string(), &relay.to_string());
        while goes_on() || tried.load(Ordering::Relaxed) < 5 {
            let nth = tried.fetch_add(1, Ordering::Relaxed);
            let client = Client::pull(&address, scene.workspace.at("stolen")).options("--retry 5 --conns 1");
            let client = client.variable("FASTCP_TOKEN", format!("guess-number-{nth:020}"));
            let run = client.variable("XDG_CONFIG_HOME", scene.workspace.at("other config")).run().expect_exit(5);
            let message = if nth < 3 { "the token is not right" } else { "too many wrong tokens" };
            assert!(run.stderr.contains(message), "{nth}: {}", run.stderr);
        }
    });
    assert_eq!(scene.server.log().matches("--max-wrong-tokens").count(), 1, "{}", scene.server.log());
    assert!(!scene.workspace.at("stolen/large").exists());
}

/// A record of TLS, lawful or not.
fn record(kind: u8, version: u16, bytes: &[u8]) -> Vec<u8> {
    [&[kind][..], &version.to_be_bytes(), &(bytes.len() as u16).to_be_bytes(), bytes].concat()
}

fn wrong_records() -> Vec<Vec<u8>> {
    let client_hello = [&[1, 0, 0, 196][..], &noise(196, 1)].concat();
    vec![
        record(0x17, 0x0303, &[]),
        record(0x17, 0x0303, &noise(64, 3)),
        record(0x17, 0x0303, &noise(16_384 + 256, 4)),
        record(0x17, 0x0303, &noise(16_384 + 257, 5)),
        record(0x17, 0x0200, &noise(64, 6)),
        record(0x99, 0x0303, &noise(64, 7)),
        record(0x15, 0x0303, &[2, 40]),
        record(0x14, 0x0303, &[1]),
        // It begins anew.
        record(0x16, 0x0303, &client_hello),
        // A request for other keys, which nobody has sealed.
        record(0x16, 0x0303, &[24, 0, 0, 1, 1]),
        record(0x17, 0x0303, &noise(64, 8))[..30].to_vec(),
        [0x17, 3, 3, 0xff, 0xff].to_vec(),
        frame(FrameType::Hello, &hello(1).encode()),
        noise(5000, 9),
    ]
}

#[test]
fn one_that_sends_records_of_every_wrong_shape() {
    Scene::protected("").beside("sends wrong records", |scene, goes_on| {
        while goes_on() {
            wrong_records().iter().for_each(|bytes| scene.say(bytes));
        }
    });
}

/// The same in place of what an honest client says: within the handshake, and behind it.
#[test]
fn one_that_sends_them_behind_a_good_beginning() {
    let scene = Scene::protected("--handshake-timeout 5");
    scene.beside("sends wrong records later", |scene, _| {
        for (nth, bytes) in wrong_records().into_iter().enumerate() {
            for after in [100, 700] {
                let relay = relay_from(HOSTILE, scene.server.address, after, bytes.clone());
                let address = scene.url("source/").replace(&scene.server.address.to_string(), &relay.to_string());
                let copy = scene.workspace.at(&format!("hostile{nth}-{after}"));
                let run = scene.own(Client::pull(&address, copy)).options("--retry 0 --conns 1").run();
                assert!(run.code.is_some_and(|code| code != 0), "{}", run.stderr);
            }
        }
    });
}
