//! The plain form of FTQ1, bit for bit: spoken by hand to `fastcp-server`, and by `fastcp-client get`
//! to a server that is not ours.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::support::Workspace;
use crate::support::client::{Client, Run};
use crate::support::peer::{ask_plain, plain_request, split_reply};
use crate::support::plain_source::{PlainSource, reply, whole};
use crate::support::server::Server;
use crate::support::tree::{Tree, noise, set_mtime, text};
use fastcp_model::Status;
use fastcp_wire::request::FLAG_WANT_CRC;

/// 2020-09-13 and some nanoseconds, as FTR1 carries it.
const MTIME_NS: u64 = 1_600_000_000_000_000_007;

fn served(words: &str, bytes: &[u8]) -> (Workspace, Server) {
    let workspace = Workspace::new();
    let mut tree = Tree::new(&workspace.at("source"));
    tree.dir("sub").file("sub/file", bytes).mtime(1_600_000_000, 7).file("empty", b"").file(b"odd \xff\n", b"odd");
    tree.file("before 1970", b"old").mtime(-2, 999_999_999);
    let server = Server::start_with(&tree.finish(), &format!("127.0.0.1 0 {words}"));
    (workspace, server)
}

#[test]
fn the_reply_is_32_bytes_and_the_file_follows() {
    let bytes = noise(700_001, 3);
    let (_workspace, server) = served("", &bytes);
    let answer = ask_plain(server.connect(), &plain_request(b"sub/file", FLAG_WANT_CRC, 0));
    let mut wanted = b"FTR1\0\0\0\0".to_vec();
    wanted.extend_from_slice(&700_001u64.to_be_bytes());
    wanted.extend_from_slice(&MTIME_NS.to_be_bytes());
    wanted.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
    wanted.extend_from_slice(&[0; 4]);
    assert_eq!(answer[..32], wanted);
    assert!(answer[32..] == bytes, "the body is the file");
}

#[test]
fn the_body_starts_at_the_offset_and_the_crc_is_of_the_whole_file() {
    let bytes = text(100_000);
    let (_workspace, server) = served("", &bytes);
    for offset in [0u64, 1, 4096, 99_999, 100_000, 100_001, u64::MAX] {
        for (flags, crc32) in [(0, 0), (FLAG_WANT_CRC, crc32fast::hash(&bytes))] {
            let answer = ask_plain(server.connect(), &plain_request(b"sub/file", flags, offset));
            let (reply, body) = split_reply(&answer);
            assert_eq!((reply.status, reply.file_bytes, reply.crc32), (Status::Ok, 100_000, crc32), "at {offset}");
            assert!(body == &bytes[bytes.len().min(offset as usize)..], "body at {offset}");
        }
    }
}

#[test]
fn paths_may_have_a_leading_slash_and_any_bytes() {
    let (_workspace, server) = served("", b"bytes");
    for (path, body) in [(&b"/sub/file"[..], &b"bytes"[..]), (b"odd \xff\n", b"odd"), (b"/empty", b"")] {
        let answer = ask_plain(server.connect(), &plain_request(path, FLAG_WANT_CRC, 0));
        let (reply, got) = split_reply(&answer);
        assert_eq!((reply.status, got), (Status::Ok, body));
        assert_eq!(reply.crc32, crc32fast::hash(body));
    }
    let answer = ask_plain(server.connect(), &plain_request(b"before 1970", 0, 0));
    assert_eq!(split_reply(&answer).0.mtime_ns.cast_signed(), -1_000_000_001);
}

#[test]
fn a_server_can_withhold_crcs() {
    let (_workspace, server) = served("--ftq1-no-crc", b"bytes");
    let answer = ask_plain(server.connect(), &plain_request(b"sub/file", FLAG_WANT_CRC, 0));
    let (reply, body) = split_reply(&answer);
    assert_eq!((reply.status, reply.crc32, body), (Status::Ok, 0, &b"bytes"[..]));
}

#[test]
fn get_copies_one_file_with_its_time() {
    let bytes = noise(2 << 20, 6);
    let (workspace, server) = served("", &bytes);
    let out = workspace.at("out");
    let run = Client::get(server.port(), "sub/file", &out).run().expect_exit(0);
    run.expect_counts(&[("bytes_fetched", 2 << 20), ("bytes_reused", 0)]);
    assert_whole(&out, &bytes);
    let into = workspace.at("into");
    fs::create_dir(&into).expect("create");
    Client::get(server.port(), "/sub/file", &into).run().expect_exit(0);
    assert_whole(&into.join("file"), &bytes);
    Client::get(server.port(), "sub/file", &out).options("--require-crc").run().expect_exit(0);
    assert_whole(&out, &bytes);
}

/// The output is there, has the source's time, and is alone.
fn assert_whole(out: &Path, bytes: &[u8]) {
    assert!(fs::read(out).expect("the output") == bytes, "the output is the file");
    assert_eq!(mtime_of(out), MTIME_NS);
    assert_eq!(parts_beside(out), 0, "no part file is left");
}

fn mtime_of(path: &Path) -> u64 {
    let modified = path.metadata().expect("examine").modified().expect("a time");
    modified.duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_nanos() as u64
}

fn parts_beside(out: &Path) -> usize {
    let entries = fs::read_dir(out.parent().expect("a parent")).expect("read");
    entries.flatten().filter(|entry| entry.file_name().to_string_lossy().ends_with(".part")).count()
}

fn get(source: &PlainSource, out: &Path, options: &str) -> Run {
    Client::get(source.port(), "a/path", out).options(options).run()
}

#[test]
fn bytes_that_mean_nothing_are_not_read() {
    let workspace = Workspace::new();
    let bytes = text(50_000);
    let crc32 = crc32fast::hash(&bytes);
    let served = bytes.clone();
    let source = PlainSource::start(move |_, seen| whole(&served, MTIME_NS, crc32, seen.offset));
    let run = get(&source, &workspace.at("out"), "--require-crc").expect_exit(0);
    assert_whole(&workspace.at("out"), &bytes);
    assert!(!run.stderr.contains("warning"), "{}", run.stderr);
    let seen = source.seen();
    assert_eq!((seen.len(), &seen[0].path[..], seen[0].flags), (1, &b"a/path"[..], FLAG_WANT_CRC));
}

#[test]
fn a_crc_of_0_is_one_that_was_not_given() {
    let workspace = Workspace::new();
    let bytes = text(50_000);
    let served = bytes.clone();
    let source = PlainSource::start(move |_, seen| whole(&served, MTIME_NS, 0, seen.offset));
    let run = get(&source, &workspace.at("out"), "").expect_exit(0);
    assert!(run.stderr.contains("warning") && run.stderr.contains("CRC-32"), "{}", run.stderr);
    assert_whole(&workspace.at("out"), &bytes);
    let strict = workspace.at("strict");
    let run = get(&source, &strict, "--require-crc").expect_exit(23);
    assert!(run.stderr.contains("--require-crc"), "{}", run.stderr);
    assert!(!strict.exists());
}

#[test]
fn a_crc_of_0_that_is_right_proves_the_file() {
    let workspace = Workspace::new();
    let source = PlainSource::start(|_, seen| whole(b"", MTIME_NS, 0, seen.offset));
    let run = get(&source, &workspace.at("out"), "--require-crc").expect_exit(0);
    assert!(!run.stderr.contains("warning"), "{}", run.stderr);
    assert_whole(&workspace.at("out"), b"");
}

#[test]
fn a_wrong_crc_leaves_nothing_under_the_name() {
    let workspace = Workspace::new();
    let out = workspace.at("out");
    fs::write(&out, b"older").expect("write");
    let source = PlainSource::start(|_, seen| whole(&text(50_000), MTIME_NS, 0x1234_5678, seen.offset));
    let run = get(&source, &out, "").expect_exit(23);
    assert!(run.stderr.contains("CRC-32 mismatch (expected 12345678"), "{}", run.stderr);
    assert_eq!(fs::read(&out).expect("still there"), b"older");
    assert_eq!(parts_beside(&out), 0);
}

#[test]
fn a_body_that_ends_early_is_resumed_where_it_ended() {
    let workspace = Workspace::new();
    let bytes = noise(900_000, 2);
    let (crc32, served) = (crc32fast::hash(&bytes), bytes.clone());
    let source = PlainSource::start(move |nth, seen| {
        let mut answer = whole(&served, MTIME_NS, crc32, seen.offset);
        answer.truncate([32 + 300_000, 32 + 1, 32, 10, usize::MAX][nth.min(4)]);
        answer
    });
    let run = get(&source, &workspace.at("out"), "").expect_exit(0);
    assert_whole(&workspace.at("out"), &bytes);
    assert_eq!(source.offsets(), [0, 300_000, 300_001, 300_001, 300_001]);
    run.expect_counts(&[("bytes_fetched", 900_000)]);
}

/// A source whose first answer ends after `cut` bytes of the body; from then on `later` is served.
fn cut_once(first: Vec<u8>, cut: usize, later: (Vec<u8>, u64)) -> PlainSource {
    PlainSource::start(move |nth, seen| {
        if nth == 0 {
            let mut answer = whole(&first, MTIME_NS, crc32fast::hash(&first), seen.offset);
            answer.truncate(32 + cut);
            return answer;
        }
        whole(&later.0, later.1, crc32fast::hash(&later.0), seen.offset)
    })
}

#[test]
fn a_later_run_fetches_only_what_is_missing() {
    let workspace = Workspace::new();
    let bytes = noise(900_000, 2);
    let source = cut_once(bytes.clone(), 123_456, (bytes.clone(), MTIME_NS));
    let out = workspace.at("out");
    get(&source, &out, "--retry 0").expect_exit(35);
    assert!(!out.exists());
    assert_eq!(parts_beside(&out), 1);
    let run = get(&source, &out, "--retry 0").expect_exit(0);
    assert_whole(&out, &bytes);
    assert_eq!(source.offsets(), [0, 123_456]);
    run.expect_counts(&[("bytes_fetched", 900_000 - 123_456), ("bytes_reused", 123_456)]);
}

#[test]
fn a_part_of_another_state_of_the_source_is_thrown_away() {
    let before = noise(900_000, 2);
    let same_size = (noise(900_000, 3), MTIME_NS + 1);
    let shorter = (noise(100_000, 4), MTIME_NS);
    for (bytes, mtime_ns) in [same_size, shorter] {
        let workspace = Workspace::new();
        let source = cut_once(before.clone(), 400_000, (bytes.clone(), mtime_ns));
        let out = workspace.at("out");
        get(&source, &out, "--retry 0").expect_exit(35);
        let run = get(&source, &out, "--retry 0").expect_exit(0);
        assert_eq!(source.offsets(), [0, 400_000, 0]);
        run.expect_counts(&[("bytes_fetched", bytes.len() as u64), ("bytes_reused", 0)]);
        assert!(fs::read(&out).expect("the output") == bytes);
        assert_eq!((mtime_of(&out), parts_beside(&out)), (mtime_ns, 0));
    }
}

/// The part file that a run left beside its output.
fn part_beside(out: &Path) -> PathBuf {
    let entries = fs::read_dir(out.parent().expect("a parent")).expect("read");
    let mut paths = entries.flatten().map(|entry| entry.path());
    paths.find(|path| path.extension().is_some_and(|end| end == "part")).expect("a part file")
}

#[test]
fn a_part_that_was_damaged_meanwhile_is_fetched_again_whether_or_not_a_crc_would_tell() {
    let bytes = noise(9 << 20, 2);
    let flip = |part: &File| {
        let mut byte = [0];
        part.read_exact_at(&mut byte, 5 << 20).expect("read");
        part.write_all_at(&[byte[0] ^ 1], 5 << 20).expect("write");
    };
    let shorten = |part: &File| part.set_len(5 << 20).expect("shorten");
    let lengthen = |part: &File| part.set_len(10 << 20).expect("lengthen");
    // What is kept ends with a step of the journal.
    let (half, all) = (4 << 20..=5 << 20, 8 << 20..=8 << 20);
    let damages: [(fn(&File), _); 3] = [(flip, half.clone()), (shorten, half), (lengthen, all)];
    let crcs = [0, crc32fast::hash(&bytes)];
    for (crc32, (damage, kept)) in crcs.into_iter().flat_map(|crc| damages.clone().map(|one| (crc, one))) {
        let workspace = Workspace::new();
        let served = bytes.clone();
        let source = PlainSource::start(move |nth, seen| {
            let mut answer = whole(&served, MTIME_NS, crc32, seen.offset);
            answer.truncate([32 + (8 << 20), 32 + 1000, usize::MAX][nth.min(2)]);
            answer
        });
        let out = workspace.at("out");
        get(&source, &out, "--retry 0").expect_exit(35);
        damage(&File::options().read(true).write(true).open(part_beside(&out)).expect("open"));
        // What did not stand is no more trusted after the next run than before it.
        get(&source, &out, "--retry 0").expect_exit(35);
        let run = get(&source, &out, "--retry 0").expect_exit(0);
        assert_whole(&out, &bytes);
        let [0, second, third] = source.offsets()[..] else { panic!("{:?}", source.offsets()) };
        assert!(kept.contains(&second) && third == second + 1000, "{second}, {third}");
        run.expect_counts(&[("bytes_reused", third)]);
    }
}

#[test]
fn a_refusal_is_told_and_not_retried() {
    let workspace = Workspace::new();
    let (_other, server) = served("", b"bytes");
    let run = Client::get(server.port(), "gone", workspace.at("out")).run().expect_exit(3);
    assert!(run.stderr.contains("gone") && run.stderr.contains("no such file"), "{}", run.stderr);
    let run = Client::get(server.port(), "sub", workspace.at("out")).run().expect_exit(3);
    assert!(run.stderr.contains("is a directory"), "{}", run.stderr);
    Client::get(server.port(), "sub/file", workspace.at("no/such/directory")).run().expect_exit(11);
    assert!(!workspace.at("out").exists());
}

#[test]
fn an_answer_that_is_no_answer_breaks_the_stream() {
    let http = b"HTTP/1.1 400 Bad Request\r\n\r\n and more than 32".to_vec();
    for (bytes, code) in [(http, 2), (reply(u64::MAX, 0, 0), 12)] {
        let workspace = Workspace::new();
        let source = PlainSource::start(move |_, _| bytes.clone());
        get(&source, &workspace.at("out"), "").expect_exit(code);
        assert!(!workspace.at("out").exists());
        assert_eq!(source.seen().len(), 1, "not retried");
    }
}

#[test]
fn a_change_at_the_source_between_two_gets_is_fetched() {
    let (workspace, server) = served("", b"first");
    let out = workspace.at("out");
    Client::get(server.port(), "sub/file", &out).run().expect_exit(0);
    let path = workspace.at("source").join("sub/file");
    fs::write(&path, b"other").expect("write");
    set_mtime(&path, 1_600_000_001, 0);
    Client::get(server.port(), "sub/file", &out).run().expect_exit(0);
    assert_eq!(fs::read(&out).expect("the output"), b"other");
}
