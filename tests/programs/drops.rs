//! Drops: files that scripts hand to a server, and the client's own way of doing so.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use fastcp_model::Status;
use fastcp_wire::drop::{DROP_REPLY_BYTES, DropHeader, DropReply};

use crate::support::Workspace;
use crate::support::client::Client;
use crate::support::launch::can_restrict;
use crate::support::peer::read_to_end;
use crate::support::server::Server;
use crate::support::tree::noise;

/// A server with an inbox, in which there is nothing else.
struct Inbox {
    server: Server,
    dir: PathBuf,
    workspace: Workspace,
}

impl Inbox {
    fn start(words: &str) -> Self {
        Self::start_restricted(words, "")
    }

    /// As before, under restrictions of `tests/under`.
    fn start_restricted(words: &str, restrictions: &str) -> Self {
        let workspace = Workspace::new();
        let (served, dir) = (workspace.at("served"), workspace.at("inbox"));
        for path in [&served, &dir] {
            fs::create_dir(path).expect("make");
        }
        let words = format!("127.0.0.1 0 {words} --inbox {}", dir.display());
        Self { server: Server::start_restricted(&served, &words, restrictions), dir, workspace }
    }

    /// Sends a header and bytes; answers what the server says until it closes.
    fn drop(&self, name: &[u8], file_bytes: u64, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.server.connect();
        let header = [&(name.len() as u32).to_be_bytes()[..], &file_bytes.to_be_bytes(), name].concat();
        stream.write_all(&[&header, bytes].concat()).expect("sent");
        stream.shutdown(Shutdown::Write).expect("that is all");
        read_to_end(&mut stream)
    }

    fn status(&self, name: &[u8], file_bytes: u64, bytes: &[u8]) -> Option<Status> {
        let answer = self.drop(name, file_bytes, bytes);
        let reply = <[u8; DROP_REPLY_BYTES]>::try_from(&answer[..]).ok()?;
        let reply = DropReply::decode(&reply).expect("a reply");
        let kept = if reply.status == Status::Ok { crc32fast::hash(bytes) } else { 0 };
        assert_eq!(reply.crc32, kept);
        Some(reply.status)
    }

    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(&self.dir).expect("list").map(|entry| entry.expect("entry").file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().expect("text")).collect();
        names.sort();
        names
    }
}

#[test]
fn what_a_script_hands_over_is_kept_whole_or_not_at_all() {
    let inbox = Inbox::start("--inbox-max 1G");
    for number in 0..993 {
        let (name, bytes) = (format!("f{number}.txt"), noise(number, number as u64));
        assert_eq!(inbox.status(name.as_bytes(), bytes.len() as u64, &bytes), Some(Status::Ok));
    }
    let before = inbox.server.descriptors();
    for (name, file_bytes, bytes, status) in [
        (&b"cut"[..], 100, &b"half of it"[..], None),
        (b"../x", 1, b"1", Some(Status::Ok)),
        (b"a/b", 1, b"2", Some(Status::Ok)),
        (b"..", 1, b"3", Some(Status::BadPath)),
        (b"", 1, b"4", Some(Status::BadPath)),
        (b"nul\0", 1, b"5", Some(Status::BadPath)),
        (b"huge", 4 << 30, b"6", Some(Status::TooLarge)),
        (b"beyond", u64::MAX, b"", Some(Status::TooLarge)),
        (&[b'x'; 255], 0, b"", Some(Status::NameTooLong)),
    ] {
        assert_eq!(inbox.status(name, file_bytes, bytes), status, "{name:?}");
    }
    let names = inbox.names();
    assert_eq!(names.len(), 995, "nothing is left behind");
    assert!(names.iter().all(|name| name.starts_with("RECV_")));
    assert_eq!(fs::read(inbox.dir.join("RECV_x")).expect("kept"), b"1");
    assert_eq!(fs::read(inbox.dir.join("RECV_b")).expect("kept"), b"2");
    for number in [0, 1, 992] {
        let kept = fs::read(inbox.dir.join(format!("RECV_f{number}.txt"))).expect("kept");
        assert_eq!(kept, noise(number, number as u64));
    }
    crate::support::wait_until("the last connections to end", || inbox.server.descriptors() <= before);
    // A name over the longest that is read is refused by its length alone.
    assert_eq!(inbox.status(&[b'x'; 5000], 1, b"1"), Some(Status::NameTooLong));
    assert!(!inbox.server.log().contains("panicked"));
}

#[test]
fn a_name_that_is_taken_gets_a_number_and_nothing_is_overwritten() {
    let inbox = Inbox::start("");
    std::thread::scope(|threads| {
        for number in 0..8u8 {
            let inbox = &inbox;
            threads.spawn(move || assert_eq!(inbox.status(b"log.tar.gz", 1000, &[number; 1000]), Some(Status::Ok)));
        }
    });
    let numbered = |number| format!("RECV_log.tar ({number}).gz");
    let mut wanted: Vec<String> = (2..=8).map(numbered).chain(["RECV_log.tar.gz".to_owned()]).collect();
    wanted.sort();
    assert_eq!(inbox.names(), wanted);
    let mut firsts: Vec<u8> = wanted
        .iter()
        .map(|name| {
            let bytes = fs::read(inbox.dir.join(name)).expect("kept");
            assert!(bytes.len() == 1000 && bytes.iter().all(|byte| *byte == bytes[0]), "of one drop each");
            bytes[0]
        })
        .collect();
    firsts.sort_unstable();
    assert_eq!(firsts, [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn a_file_has_the_mode_of_a_new_file_also_where_none_can_be_without_a_name() {
    if !can_restrict("no-tmpfile") {
        return;
    }
    let inboxes = ["", "no-tmpfile"].map(|restrictions| Inbox::start_restricted("", restrictions));
    let modes = inboxes.each_ref().map(|inbox| {
        assert_eq!(inbox.status(b"file", 5, b"bytes"), Some(Status::Ok));
        assert_eq!(inbox.status(b"cut", 5, b"by"), None);
        assert_eq!(inbox.names(), ["RECV_file"], "nothing is left behind");
        assert_eq!(fs::read(inbox.dir.join("RECV_file")).expect("kept"), b"bytes");
        fs::metadata(inbox.dir.join("RECV_file")).expect("kept").mode() & 0o7777
    });
    // As of any file that a program makes here.
    let plain = inboxes[0].workspace.at("plain");
    fs::write(&plain, b"").expect("write");
    let mode = fs::metadata(&plain).expect("made").mode() & 0o7777;
    assert_eq!(modes, [mode, mode]);
}

#[test]
fn a_server_without_an_inbox_takes_nothing() {
    let workspace = Workspace::new();
    let served = workspace.at("served");
    fs::create_dir(&served).expect("make");
    let server = Server::start(&served);
    fs::write(workspace.at("file"), b"bytes").expect("write");
    let run = drop_files(server.port(), &[&workspace.at("file")]);
    assert_eq!(run.code, Some(23), "{}", run.stderr);
    assert!(run.stderr.contains("has to be started with --inbox"), "{}", run.stderr);
    assert_eq!(fs::read_dir(&served).expect("list").count(), 0);
}

/// `drop --json FILE... 127.0.0.1 PORT`.
fn drop_files(port: u16, files: &[&Path]) -> crate::support::client::Run {
    let port = port.to_string();
    let words = ["drop".as_ref(), "--json".as_ref()].into_iter().chain(files.iter().map(|file| file.as_os_str()));
    Client::new(words.chain(["127.0.0.1".as_ref(), port.as_ref()])).run()
}

#[test]
fn the_client_hands_over_files_and_hears_that_they_are_kept() {
    let inbox = Inbox::start("");
    let at = |name: &str| inbox.workspace.at(name);
    fs::write(at("empty"), b"").expect("write");
    fs::write(at("large"), noise(5_000_000, 1)).expect("write");
    fs::create_dir(at("dir")).expect("make");
    let run = drop_files(inbox.server.port(), &[&at("empty"), &at("large"), &at("dir"), &at("missing"), &at("large")]);
    let run = run.expect_exit(23).expect_counts(&[("files_taken", 3), ("bytes_sent", 10_000_000), ("files_failed", 2)]);
    assert_eq!(inbox.names(), ["RECV_empty", "RECV_large", "RECV_large (2)"]);
    for name in ["RECV_large", "RECV_large (2)"] {
        assert!(fs::read(inbox.dir.join(name)).expect("kept") == noise(5_000_000, 1));
    }
    let taken: Vec<_> = run.events().into_iter().filter(|event| event["event"] == "taken").collect();
    let crc = format!("{:08x}", crc32fast::hash(&noise(5_000_000, 1)));
    assert_eq!(taken.iter().filter(|event| event["crc32"] == crc.as_str()).count(), 2);
}

/// A server of one drop that answers with these bytes once it has all of it.
fn answering(answer: Vec<u8>) -> (u16, std::thread::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("bound").port();
    let serving = std::thread::spawn(move || {
        let (mut stream, _): (TcpStream, _) = listener.accept().expect("accept");
        let mut header = [0; 12];
        stream.read_exact(&mut header).expect("a header");
        let DropHeader { name_bytes, file_bytes } = DropHeader::decode(&header).expect("lawful");
        let mut rest = vec![0; name_bytes + file_bytes as usize];
        stream.read_exact(&mut rest).expect("name and bytes");
        stream.write_all(&answer).expect("answered");
        rest
    });
    (port, serving)
}

#[test]
fn what_a_server_says_of_a_drop_is_not_taken_on_trust() {
    let workspace = Workspace::new();
    let file = workspace.at("file");
    fs::write(&file, b"bytes").expect("write");
    let kept = DropReply { status: Status::Ok, crc32: crc32fast::hash(b"bytes") }.encode().to_vec();
    let other = DropReply { status: Status::Ok, crc32: 1 }.encode().to_vec();
    let refused = DropReply { status: Status::TooLarge, crc32: 0 }.encode().to_vec();
    for (answer, code, words) in [
        (kept.clone(), 0, ""),
        (other, 23, "changed while it was sent"),
        (refused, 23, "too large"),
        (Vec::new(), 23, "without confirming"),
        (kept[..11].to_vec(), 23, "without confirming"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), 23, "the peer speaks HTTP"),
    ] {
        let (port, serving) = answering(answer);
        let run = drop_files(port, &[&file]).expect_exit(code);
        assert!(run.stderr.contains(words), "{}", run.stderr);
        assert_eq!(serving.join().expect("join"), b"filebytes");
    }
    let unused = TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("bound").port();
    let run = drop_files(unused, &[&file]).expect_exit(10);
    assert!(run.stderr.contains("refused"), "{}", run.stderr);
}
