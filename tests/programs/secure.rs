//! Servers that ask who is there: keys, tokens, and what is told to whom.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{FileExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use fastcp_model::Status;

use crate::support::client::{Client, Run, contents};
use crate::support::compare::assert_same;
use crate::support::peer::{ask_plain, plain_request, read_to_end, split_reply};
use crate::support::server::Server;
use crate::support::tree::{Tree, noise};
use crate::support::way::RECEIVES;
use crate::support::{NOBODY, Workspace, is_root, say_skipped, wait_until};

const TOKEN: &str = "a-token-that-nobody-guesses";
const NAME: &str = "a-name-that-is-nobodys-business";
const BYTES: &[u8] = b"bytes that are nobody's business, and a few more of them";

/// A server that asks for a token, and a client's own configuration.
struct Scene {
    workspace: Workspace,
    source: PathBuf,
    server: Server,
    /// `fcp://` and all that a client has to know but the token.
    address: String,
}

impl Scene {
    fn new() -> Self {
        Self::with("")
    }

    fn with(words: &str) -> Self {
        let workspace = Workspace::new();
        let mut tree = Tree::new(&workspace.at("source"));
        tree.file(NAME, BYTES).dir("dir").file("dir/large", &noise(9 << 20, 1)).file("dir/empty", b"");
        (0..300).for_each(|nth| _ = tree.file(format!("dir/{nth}"), &noise(nth * 7, nth as u64)));
        let source = tree.finish();
        secret(&workspace.at("token"), TOKEN);
        let words = format!("127.0.0.1 0 {words} {}", given(&workspace));
        let mut server = Server::start_with(&source, &words);
        let address = server.announced("address: ");
        assert_eq!(address.split('#').next(), Some(format!("fcp://{}", server.address).as_str()));
        Self { workspace, source, server, address }
    }

    fn copy(&self) -> PathBuf {
        self.workspace.at("copy")
    }

    /// The same server where another address leads to it.
    fn address_by(&self, other: SocketAddr) -> String {
        self.address.replace(&self.server.address.to_string(), &other.to_string())
    }

    fn pull(&self, from: &str) -> Client {
        self.own(Client::pull(from, self.copy()))
    }

    /// With a configuration of its own.
    fn own(&self, client: Client) -> Client {
        client.variable("XDG_CONFIG_HOME", self.workspace.at("config"))
    }

    fn known_servers(&self) -> PathBuf {
        self.workspace.at("config/fastcp/known_servers")
    }

    fn assert_nothing_came(&self) {
        assert!(!self.copy().join(NAME).exists());
        assert!(!self.server.log().contains("session opened"), "{}", self.server.log());
    }
}

/// What a server is given: a key that is made where it is needed, and tokens.
fn given(workspace: &Workspace) -> String {
    format!("--token-file {} --tls-key {}", workspace.at("token").display(), workspace.at("key").display())
}

fn secret(path: &Path, text: &str) {
    fs::write(path, text).expect("write");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("for its owner alone");
}

fn expect_refused(run: Run, message: &str) {
    let run = run.expect_exit(5);
    assert!(run.stderr.contains(message), "\"{message}\" expected: {}", run.stderr);
}

#[test]
fn whoever_proves_the_token_is_served_and_the_key_is_known_from_then_on() {
    let scene = Scene::new();
    let key = fs::metadata(scene.workspace.at("key")).expect("a key was made");
    assert_eq!(key.permissions().mode() & 0o777, 0o600);
    let run = scene.pull(&scene.address).variable("FASTCP_TOKEN", TOKEN).run().expect_exit(0);
    assert_same(&scene.source, &scene.copy());
    assert_eq!(run.count("reconnects"), 0);
    let known = fs::read_to_string(scene.known_servers()).expect("the key is kept");
    let (address, key) = scene.address.trim_start_matches("fcp://").split_once('#').expect("a key");
    assert_eq!(known, format!("{address} {key}\n"));
    assert_eq!(fs::metadata(scene.known_servers()).expect("there").permissions().mode() & 0o777, 0o600);
    // From a file, and by the key that is known.
    let bare = scene.server.url("");
    let token_file = format!("--token-file {}", scene.workspace.at("token").display());
    let run = scene.pull(&bare).options(&token_file).run().expect_exit(0);
    assert_eq!(run.count("files_unchanged"), 303);
    scene.own(Client::verify(scene.copy(), &bare)).options(&token_file).run().expect_differences(&[]);
}

#[test]
fn every_command_goes_through_a_protected_server() {
    let scene = Scene::with(&format!("{RECEIVES} --inbox {}", std::env::temp_dir().display()));
    let with_token = |client: Client| scene.own(client).variable("FASTCP_TOKEN", TOKEN);
    let below = |path: &str| scene.address.replace('#', &format!("/{path}#"));
    let out = scene.workspace.at("out");
    let got = with_token(Client::new(["get", "--json", &below("dir/large"), out.to_str().expect("text")])).run();
    got.expect_exit(0);
    assert!(fs::read(&out).expect("read") == noise(9 << 20, 1));
    // Of an empty one nothing follows the reply.
    let empty = scene.workspace.at("empty");
    with_token(Client::new(["get", "--json", &below("dir/empty"), empty.to_str().expect("text")])).run().expect_exit(0);
    assert_eq!(fs::metadata(&empty).expect("it is there").len(), 0);
    let untold = scene.own(Client::new(["get", "--json", &below("dir/large"), out.to_str().expect("text")])).run();
    expect_refused(untold, "this server asks for a token");
    let listed = with_token(Client::new(["ls", &below("")])).run().expect_exit(0);
    assert!(listed.lines.iter().any(|line| line.contains(NAME)), "{:?}", listed.lines);
    // What has come that way goes back.
    let pushed = with_token(Client::push(contents(&scene.source.join("dir")), below("pushed/"))).run().expect_exit(0);
    assert_eq!(pushed.count("files_committed"), 302);
    assert_same(&scene.source.join("dir"), &scene.source.join("pushed"));
    let host = format!("127.0.0.1#{}", scene.address.split_once('#').expect("a key").1);
    let port = scene.server.port().to_string();
    let dropped = with_token(Client::new(["drop", "--json", out.to_str().expect("text"), &host, &port])).run();
    assert_eq!(dropped.expect_exit(0).count("files_taken"), 1);
    let untold = scene.own(Client::new(["drop", "--json", out.to_str().expect("text"), &host, &port])).run();
    assert!(untold.stderr.contains("this server asks for a token"), "{}", untold.stderr);
    let _ = fs::remove_file(std::env::temp_dir().join("RECV_out"));
}

#[test]
fn nobody_else_is_served_and_each_is_told_why() {
    let scene = Scene::new();
    let (wrong_token, no_token) = ("another-token-of-some-length", "");
    for (from, token, message) in [
        (scene.address.clone(), wrong_token, "the token is not right"),
        (scene.address.clone(), no_token, "this server asks for a token"),
        (scene.server.url(""), no_token, "protected connections alone"),
        (scene.server.url(""), wrong_token, "the token is not right"),
        (
            scene.address.replace("#sha256:", "#sha256:00").split_at(scene.address.len()).0.to_owned(),
            TOKEN,
            "KEY IS NOT THE ONE",
        ),
    ] {
        let run = scene.pull(&from).variable("FASTCP_TOKEN", token).options("--retry 9").run();
        expect_refused(run, message);
        scene.assert_nothing_came();
        // A key that the address had and the server has is known by now, though not more.
        assert_eq!(scene.known_servers().exists(), from == scene.address);
        let _ = fs::remove_file(scene.known_servers());
    }
    let answer = ask_plain(scene.server.connect(), &plain_request(NAME.as_bytes(), 1, 0));
    let (reply, body) = split_reply(&answer);
    assert_eq!((reply.status, body), (Status::Unauthorised, &b""[..]));
}

#[test]
fn a_key_that_has_changed_is_said_loudly_and_nothing_is_sent() {
    let scene = Scene::new();
    scene.pull(&scene.address).variable("FASTCP_TOKEN", TOKEN).run().expect_exit(0);
    let known = fs::read_to_string(scene.known_servers()).expect("read");
    let other = known.replace("sha256:", "sha256:00");
    fs::write(scene.known_servers(), format!("# mine\n{}\n", &other[..known.len() - 1])).expect("write");
    let run = scene.pull(&scene.server.url("")).variable("FASTCP_TOKEN", TOKEN).run();
    let place = format!("(line 2 of {})", scene.known_servers().display());
    expect_refused(run, &place);
    // The operator's word counts for more, and is kept.
    scene.pull(&scene.address).variable("FASTCP_TOKEN", TOKEN).run().expect_exit(0);
    let kept = fs::read_to_string(scene.known_servers()).expect("read");
    assert_eq!(kept, format!("# mine\n{known}"));
}

#[test]
fn a_one_time_token_is_for_one_run_and_the_next_one_is_printed() {
    let workspace = Workspace::new();
    let mut tree = Tree::new(&workspace.at("source"));
    let source = tree.file("file", &noise(3 << 20, 1)).finish();
    let key = workspace.at("key");
    let mut server = Server::start_with(&source, &format!("0.0.0.0 0 --tls-key {}", key.display()));
    let address = server.announced("address: ");
    let key = address.split_once('#').expect("a key").1;
    let url = format!("fcp://127.0.0.1:{}#{key}", server.port());
    let pull = |token: &str, copy: &str| {
        Client::pull(&url, workspace.at(copy)).variable("FASTCP_TOKEN", token).options("--conns 4 --chunk-kb 64").run()
    };
    let mut next = || {
        let line = server.announced("for one run: FASTCP_TOKEN=");
        let (token, command) = line.split_once(' ').expect("a command");
        assert_eq!(command, format!("fastcp-client pull '{address}' DIR"));
        token.to_owned()
    };
    let first = next();
    pull(&first, "copy").expect_exit(0);
    let second = next();
    assert_ne!(first, second);
    expect_refused(pull(&first, "other"), "a one-time token is for one run");
    assert!(!workspace.at("other/file").exists());
    pull(&second, "other").expect_exit(0);
    assert_same(&source, &workspace.at("other"));
}

/// Passes bytes on and keeps them.
fn recorder(server: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    recorder_of(server, usize::MAX)
}

/// The same; once there are so many it passes nothing on.
fn recorder_of(server: SocketAddr, bytes_max: usize) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    let record = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&record);
    std::thread::spawn(move || {
        while let Ok((client, _)) = listener.accept() {
            let server = TcpStream::connect(server).expect("connect");
            for (mut from, mut to) in
                [(client.try_clone().expect("clone"), server.try_clone().expect("clone")), (server, client)]
            {
                let kept = Arc::clone(&kept);
                std::thread::spawn(move || {
                    let mut buffer = [0; 65536];
                    while let Ok(count @ 1..) = from.read(&mut buffer) {
                        let mut kept = kept.lock().expect("lock");
                        kept.extend_from_slice(&buffer[..count]);
                        if kept.len() > bytes_max {
                            continue;
                        }
                        drop(kept);
                        if to.write_all(&buffer[..count]).is_err() {
                            break;
                        }
                    }
                    let _ = to.shutdown(std::net::Shutdown::Write);
                });
            }
        }
    });
    (address, record)
}

#[test]
fn whoever_listens_learns_no_token_no_name_and_no_byte() {
    let scene = Scene::new();
    let (address, record) = recorder(scene.server.address);
    let from = scene.address_by(address);
    scene.pull(&from).variable("FASTCP_TOKEN", TOKEN).options("--no-compress").run().expect_exit(0);
    assert_same(&scene.source, &scene.copy());
    let recorded = record.lock().expect("lock").clone();
    assert!(recorded.len() > 9 << 20, "all of it went through");
    let has = |text: &[u8]| recorded.windows(text.len()).any(|window| window == text);
    assert!(!has(TOKEN.as_bytes()) && !has(NAME.as_bytes()) && !has(BYTES));
    // The same without protection would show.
    let open = Server::start(&scene.source);
    let (address, record) = recorder(open.address);
    Client::pull(format!("fcp://{address}"), scene.workspace.at("open")).options("--no-compress").run().expect_exit(0);
    let recorded = record.lock().expect("lock").clone();
    assert!(recorded.windows(BYTES.len()).any(|window| window == BYTES));
}

/// A server that somebody else runs in place of the right one, with his own key, and that passes on what it is told.
#[test]
fn a_relay_that_ends_protection_in_between_gets_nowhere() {
    let scene = Scene::new();
    let relay_words = format!(
        "127.0.0.1 0 --token-file {0} --tls-key {1}",
        scene.workspace.at("relays").display(),
        scene.workspace.at("relay-key").display()
    );
    secret(&scene.workspace.at("relays"), "a-token-of-its-own-that-is-long");
    let relay = Server::start_with(&scene.workspace.at("."), &relay_words);
    // It does not know the token, so whoever knows no key learns that by its proof.
    let run = scene.pull(&relay.url("")).variable("FASTCP_TOKEN", TOKEN).run();
    expect_refused(run, "the token is not right");
    // Whoever knows the key does not even begin.
    let run = scene.pull(&scene.address_by(relay.address)).variable("FASTCP_TOKEN", TOKEN).run();
    expect_refused(run, "KEY IS NOT THE ONE");
    scene.assert_nothing_came();
}

#[test]
fn a_token_is_in_no_environment_no_words_no_memory_and_no_log() {
    let scene = Scene::new();
    let (address, record) = recorder_of(scene.server.address, 1 << 20);
    let client = scene.pull(&scene.address_by(address)).variable("FASTCP_TOKEN", TOKEN);
    let running = client.options("-vvv --no-compress").start();
    wait_until("a transfer in the middle", || record.lock().expect("lock").len() > 1 << 20);
    for pid in [running.pid(), scene.server.pid()] {
        let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).expect("read");
        for name in ["environ", "cmdline"] {
            assert!(!contains(&read(name), TOKEN.as_bytes()), "{name}");
        }
        assert!(!memory_contains(pid, TOKEN.as_bytes()), "process {pid}");
    }
    running.signal(nix::sys::signal::Signal::SIGTERM);
    let run = running.finish().expect_exit(20);
    assert!(!run.stderr.contains(TOKEN) && !scene.server.log().contains(TOKEN));
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

/// Whether a process has this anywhere in the memory that a core dump would have.
fn memory_contains(pid: u32, text: &[u8]) -> bool {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("read");
    let memory = File::open(format!("/proc/{pid}/mem")).expect("open");
    maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|rights| rights.starts_with("rw"))).any(|line| {
        let (start, end) = line.split(' ').next().and_then(|range| range.split_once('-')).expect("a range");
        let [start, end] = [start, end].map(|at| u64::from_str_radix(at, 16).expect("a number"));
        let mut bytes = vec![0; usize::try_from(end - start).expect("it fits")];
        // It may be gone by now.
        memory.read_at(&mut bytes, start).is_ok_and(|count| contains(&bytes[..count], text))
    })
}

#[test]
fn secrets_that_others_may_read_are_not_used() {
    let scene = Scene::new();
    let open = scene.workspace.at("open");
    fs::write(&open, TOKEN).expect("write");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o640)).expect("open it");
    let run = scene.pull(&scene.address).options(&format!("--token-file {}", open.display())).run().expect_exit(1);
    assert!(run.stderr.contains("chmod 600"), "{}", run.stderr);
    let words = format!("127.0.0.1 0 --token-file {}", open.display());
    assert!(Server::try_start(&scene.source, &words).is_none());
}

/// Whoever owns a file can change it, whatever its mode is now.
#[test]
fn what_another_user_owns_is_neither_a_secret_nor_believed() {
    let scene = Scene::new();
    if !is_root() {
        return say_skipped("only root can give files away");
    }
    let theirs = scene.workspace.at("theirs");
    secret(&theirs, TOKEN);
    chown(&theirs, Some(NOBODY), None).expect("chown");
    let run = scene.pull(&scene.address).options(&format!("--token-file {}", theirs.display())).run().expect_exit(1);
    assert!(run.stderr.contains("belongs to another user (id 65534)"), "{}", run.stderr);
    let known = scene.known_servers();
    fs::create_dir_all(known.parent().expect("a directory")).expect("make");
    let (address, key) = scene.address.trim_start_matches("fcp://").split_once('#').expect("a key");
    let line = format!("{address} {key}\n");
    let bare = scene.server.url("");
    let of = |owner, mode, dir_mode| {
        secret(&known, &line);
        chown(&known, Some(owner), None).expect("chown");
        fs::set_permissions(&known, fs::Permissions::from_mode(mode)).expect("chmod");
        let dir = known.parent().expect("a directory");
        fs::set_permissions(dir, fs::Permissions::from_mode(dir_mode)).expect("chmod");
        scene.pull(&bare).variable("FASTCP_TOKEN", TOKEN).run()
    };
    for (owner, mode, dir_mode) in [(NOBODY, 0o600, 0o700), (0, 0o666, 0o700), (0, 0o600, 0o777)] {
        let run = of(owner, mode, dir_mode).expect_exit(11);
        assert!(run.stderr.contains("others can write to"), "{}", run.stderr);
        scene.assert_nothing_came();
    }
    of(0, 0o644, 0o755).expect_exit(0);
}

#[test]
fn a_million_guesses_are_not_heard() {
    let scene = Scene::new();
    for nth in 0..12 {
        let run = scene.pull(&scene.address).variable("FASTCP_TOKEN", format!("guess-number-{nth:020}")).run();
        expect_refused(run, if nth < 10 { "the token is not right" } else { "too many wrong tokens" });
    }
    scene.assert_nothing_came();
    assert_eq!(scene.server.log().matches("--max-wrong-tokens is reached").count(), 1, "{}", scene.server.log());
}

#[test]
fn records_of_every_wrong_shape_end_their_connection_and_nothing_else() {
    let scene = Scene::new();
    let record = |kind: u8, version: u16, bytes: &[u8]| {
        [&[kind][..], &version.to_be_bytes(), &(bytes.len() as u16).to_be_bytes(), bytes].concat()
    };
    let mut hello = record(0x16, 0x0301, &noise(200, 1));
    hello[5..9].copy_from_slice(&[1, 0, 0, 196]);
    for bytes in [
        record(0x16, 0x0301, b""),
        record(0x16, 0x0303, &noise(100, 1)),
        hello,
        [0x16, 0x03, 0x01, 0xff, 0xff].to_vec(),
        record(0x16, 0x0303, &[0; 16384]),
        record(0x16, 0x0303, &[1, 0xff, 0xff, 0xff]),
        record(0x16, 0x0303, &[2, 0, 0, 0]),
        [record(0x16, 0x0301, &[1]), record(0x17, 0x0303, &noise(64, 3))].concat(),
        [record(0x16, 0x0301, &[1]), record(0x15, 0x0303, &[2, 40])].concat(),
        vec![0x16, 0x03],
    ] {
        let mut stream = scene.server.connect();
        stream.write_all(&bytes).expect("send");
        let _ = stream.shutdown(std::net::Shutdown::Write);
        read_to_end(&mut stream);
    }
    scene.pull(&scene.address).variable("FASTCP_TOKEN", TOKEN).run().expect_exit(0);
    assert_same(&scene.source, &scene.copy());
}

#[test]
fn what_contradicts_itself_is_refused() {
    let scene = Scene::new();
    let token_file = format!("--token-file {}", scene.workspace.at("token").display());
    let with_key = scene.address.as_str();
    let bare = scene.server.url("");
    for (from, options, message) in [
        (with_key, "--insecure", "--insecure leaves out"),
        (bare.as_str(), &*format!("--insecure {token_file}"), "--insecure leaves out"),
        (bare.as_str(), "--tls-cert x", "need --tls-ca"),
        (bare.as_str(), "--tls-ca /nowhere", "cannot read \"/nowhere\""),
        ("fcp://host#sha256:12", "", "64 hexadecimal digits"),
    ] {
        let run = scene.pull(from).options(options).run();
        assert!(matches!(run.code, Some(1 | 11)), "{options}: {:?}", run.code);
        assert!(run.stderr.contains(message), "{options}: {}", run.stderr);
    }
    for words in ["--insecure --token-file x", "--tls-cert x", "--tls-ca x"] {
        assert!(Server::try_start(&scene.source, &format!("127.0.0.1 0 {words}")).is_none(), "{words}");
    }
}

#[test]
fn a_server_elsewhere_is_not_talked_to_without_protection_unless_one_says_so() {
    let workspace = Workspace::new();
    let source = Tree::new(&workspace.at("source")).file("file", b"bytes").finish();
    let server = Server::start_with(&source, "0.0.0.0 0 --insecure");
    // An address of this machine that does not look like one.
    let Some(own) = own_address() else {
        return say_skipped("this machine has no address but loopback");
    };
    let from = format!("fcp://{own}:{}", server.port());
    let pull = || Client::pull(&from, workspace.at("copy"));
    expect_refused(pull().run(), "does not speak TLS");
    pull().options("--insecure").run().expect_exit(0);
    assert_same(&source, &workspace.at("copy"));
}

/// An address by which other machines would reach this one; nothing is sent for it.
fn own_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}
