//! Answers that take long: the sender says that it is at work, a lie about that ends the connection, and work that was
//! done is not done twice. What the sender remembers of a file is forgotten where it is wrong.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use crate::support::client::Client;
use crate::support::compare::assert_same;
use crate::support::lied_to::LiedTo;
use crate::support::lying_sender::Lies;
use crate::support::mount::SmallDisk;
use crate::support::peer::{attach, open_session};
use crate::support::said::{file, listing, offer, truth};
use crate::support::server::Server;
use crate::support::strace::Strace;
use crate::support::sweep::is_long;
use crate::support::tree::{Tree, noise};
use crate::support::way::BOTH_WAYS;
use crate::support::{Workspace, say_skipped, wait_until};
use fastcp_model::{ByteRange, Status};
use fastcp_wire::limits::PROGRESS_BYTES_MIN;
use fastcp_wire::progress::{Awaited, Progress};
use fastcp_wire::reply::{BodyKind, PIECE_HEADER_BYTES, PieceHeader};
use fastcp_wire::request::{Ask, RangeRequest};
use fastcp_wire::signature::Level;

const FILE_BYTES: usize = 3 << 20;

/// Asks one thing of a file; answers how often word came before the answer, and its header.
fn ask(server: &Server, path: &str, range: ByteRange, ask: Ask) -> (usize, PieceHeader) {
    let mut control = server.connect();
    let mut data = server.connect();
    attach(&mut data, open_session(&mut control, 1).ticket);
    let mut request = Vec::new();
    RangeRequest { id: 7, path: path.as_bytes().into(), range, ask }.encode(&mut request);
    data.write_all(&request).expect("send");
    let mut awaited = Awaited::new(7, range.len());
    let mut words = 0;
    loop {
        let header = read_header(&mut data);
        if header.kind != BodyKind::Progress {
            return (words, header);
        }
        awaited.hear(Progress::of(&header).expect("word")).expect("lawful word");
        words += 1;
    }
}

fn read_header(data: &mut TcpStream) -> PieceHeader {
    let mut bytes = [0; PIECE_HEADER_BYTES];
    data.read_exact(&mut bytes).expect("a header");
    PieceHeader::decode(&bytes).expect("lawful")
}

#[test]
fn an_answer_from_a_slow_disk_says_that_it_lives() {
    let Some(strace) = Strace::new() else { return };
    let workspace = Workspace::new();
    let mut tree = Tree::new(&workspace.at("source"));
    tree.file("file", &noise(FILE_BYTES, 1));
    let source = tree.finish();
    // A dozen reads, and time for two words.
    let strace = strace.delays("pread64", 800_000).on_path(&source.join("file"));
    let server = Server::start_strace(&source, "127.0.0.1 0", &strace);
    let range = ByteRange::new(0, FILE_BYTES as u64).expect("lawful");
    std::thread::scope(|threads| {
        let asks = [Ask::Confirm, Ask::Hash, Ask::Signature(Level::Coarse)];
        let server = &server;
        let asking = asks.map(|one| threads.spawn(move || ask(server, "file", range, one)));
        for (asked, answer) in asks.into_iter().zip(asking) {
            let (words, header) = answer.join().expect("an answer");
            assert_eq!(header.reply.status, Status::Ok, "{asked:?}");
            assert!(words >= 1, "{asked:?}: {words} words");
        }
    });
}

#[test]
fn word_of_an_answer_is_taken_and_lies_about_it_end_the_connection() {
    let bytes = noise(FILE_BYTES, 1);
    let word = |id: u32, done_bytes: u64| Progress { id, done_bytes }.header().encode();
    let mebi = PROGRESS_BYTES_MIN;
    let cases = [
        (vec![], 0, true),
        (vec![mebi, 2 * mebi], 0, true),
        (vec![mebi, mebi], 0, false),
        (vec![mebi - 1], 0, false),
        (vec![mebi, 9 * mebi], 0, false),
        (vec![mebi], 1, false),
    ];
    for way in BOTH_WAYS {
        let lied_to = LiedTo::by(way);
        for (words, off, is_taken) in cases.clone() {
            let (sent, said) = (bytes.clone(), words.clone());
            let offered = offer(vec![listing("", vec![file("file", &bytes)])]);
            let lies = Lies::new(offered, move |request| {
                let answer = truth(request, &sent);
                if !request.ask.is_confirmation() {
                    return answer;
                }
                let words = said.iter().flat_map(|&done| word(request.id + off, done));
                words.chain(answer).collect()
            });
            let run = lied_to.hear_at(&lied_to.copy(), lies, "--conns 1 --chunk-kb 64 --retry 1");
            assert_eq!(run.code == Some(0), is_taken, "{words:?} {off}: {:?} {}", run.code, run.stderr);
        }
        lied_to.finish();
    }
}

#[test]
fn word_about_an_answer_of_bytes_ends_the_connection() {
    for way in BOTH_WAYS {
        let bytes = noise(300_000, 1);
        let lied_to = LiedTo::by(way);
        let offered = offer(vec![listing("", vec![file("file", &bytes)])]);
        let lies = Lies::new(offered, move |request| {
            let word = Progress { id: request.id, done_bytes: PROGRESS_BYTES_MIN }.header().encode();
            word.into_iter().chain(truth(request, &bytes)).collect()
        });
        let run = lied_to.hear(lies).1;
        assert!(run.code != Some(0) && run.stderr.contains("protocol"), "{:?} {}", run.code, run.stderr);
    }
}

/// Until the state of a file is old enough to be remembered.
fn wait_until_it_rests(path: &Path) {
    wait_until("the file to rest", || {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time after 1970").as_secs();
        fs::metadata(path).expect("metadata").ctime() + 3 < now as i64
    });
}

#[test]
fn what_was_read_for_a_confirmation_is_not_read_again() {
    let Some(strace) = Strace::new() else { return };
    let workspace = Workspace::new();
    let mut tree = Tree::new(&workspace.at("source"));
    tree.file("file", &vec![7; 100 << 20]);
    let source = tree.finish();
    wait_until_it_rests(&source.join("file"));
    let log = workspace.at("log");
    let strace = strace.delays("pread64", 1).on_path(&source.join("file")).logged_to(&log);
    let server = Server::start_strace(&source, "127.0.0.1 0", &strace);
    let reads = || fs::read_to_string(&log).expect("read").lines().count();
    let range = |mebi: u64| ByteRange::new(0, mebi << 20).expect("lawful");
    ask(&server, "file", range(70), Ask::Confirm);
    let first = reads();
    let (_, whole) = ask(&server, "file", range(100), Ask::Confirm);
    let second = reads() - first;
    assert!(second <= (100 - 70) * 4 + 4, "{first} reads, then {second}");
    let (_, anew) = ask(&server, "file", range(100), Ask::ConfirmAnew);
    assert_eq!(whole.reply.crc32, anew.reply.crc32);
}

/// Changes a byte of a file, through a mapping that has been written through before, at each line that it reads.
const MAPPED_WRITER: &str = "
import mmap, sys
f = open(sys.argv[1], 'r+b')
m = mmap.mmap(f.fileno(), 0)
m[100] = m[100]
print('mapped', flush=True)
for line in sys.stdin:
    m[100] = (m[100] + 1) % 256
    print('written', flush=True)
";

#[test]
fn a_page_written_through_a_mapping_makes_the_sender_forget() {
    let workspace = Workspace::new();
    // In memory: once a page has been written to a disk, the next write to it is noticed.
    let Some(_disk) = SmallDisk::mount(&workspace.at("memory"), 8192) else { return };
    let mut tree = Tree::new(&workspace.at("memory/source"));
    tree.file("file", &noise(900_000, 1));
    let source = tree.finish();
    let file = source.join("file");
    let mut python = Command::new("python3");
    let writer = python.args(["-c", MAPPED_WRITER]).arg(&file).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut writer) = writer else { return say_skipped("python3 is not installed") };
    let mut said = BufReader::new(writer.stdout.take().expect("piped")).lines();
    let mut next = move || said.next().map(|line| line.expect("a line"));
    assert_eq!(next().as_deref(), Some("mapped"));
    wait_until_it_rests(&file);
    let server = Server::start(&source);
    let pull = |name: &str| {
        let copy = workspace.at(name);
        let run = Client::pull(server.url(""), &copy).options("--chunk-kb 64 --conns 1").run().expect_exit(0);
        assert!(fs::read(copy.join("file")).expect("read") == fs::read(&file).expect("read"), "{name}");
        run
    };
    pull("before");
    let state =
        |path: &Path| fs::metadata(path).map(|now| (now.mtime(), now.mtime_nsec(), now.ctime(), now.ctime_nsec()));
    let before = state(&file).expect("metadata");
    for name in ["after", "later"] {
        writer.stdin.as_mut().expect("piped").write_all(b"write\n").expect("write");
        assert_eq!(next().as_deref(), Some("written"));
        if state(&file).expect("metadata") != before {
            say_skipped("the kernel has taken note of the write");
            break;
        }
        // What was fetched is not fetched again: only the confirmation was wrong.
        pull(name).expect_counts(&[("bytes_fetched", 900_000), ("chunks_refetched", 0)]);
    }
    drop(writer.stdin.take());
    writer.wait().expect("wait for the writer");
}

#[test]
fn a_growing_log_on_a_slow_disk_is_confirmed() {
    let Some(strace) = Strace::new() else { return };
    if !is_long() {
        return say_skipped("FASTCP_LONG_TESTS=1 runs it");
    }
    let workspace = Workspace::new();
    let mut tree = Tree::new(&workspace.at("source"));
    tree.file("log", &noise(64 << 20, 1));
    let source = tree.finish();
    let log = source.join("log");
    // 256 reads, so 23 seconds: longer than a receiver waits for a byte.
    let strace = strace.delays("pread64", 90_000).on_path(&log);
    let server = Server::start_strace(&source, "127.0.0.1 0", &strace);
    let copy = workspace.at("copy");
    let mut client = Client::pull(server.url(""), &copy).options("--conns 4").start();
    let offered = fs::metadata(&log).expect("metadata").len();
    let mut appending = fs::File::options().append(true).open(&log).expect("open");
    while !client.has_ended() {
        appending.write_all(b"one more line\n").expect("append");
        std::thread::yield_now();
    }
    let run = client.finish();
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(fs::metadata(copy.join("log")).expect("metadata").len() >= offered);
    drop(server);
    Client::pull(source.join(""), &copy).run().expect_exit(0);
    assert_same(&source, &copy);
}
