//! What a server says of names behind symbolic links: one answer for all of them, whatever is there, and by whichever
//! request. Nothing behind a link is looked at, so that nobody learns names outside the root or has a thread wait
//! for a file system that does not answer.

use std::fs;
use std::io::Write;

use crate::support::Workspace;
use crate::support::launch::can_restrict;
use crate::support::peer::{
    ask_plain, attach, open_session, plain_request, read_frame, read_piece, send_frame, split_reply,
};
use crate::support::server::Server;
use crate::support::strace::Strace;
use crate::support::tree::Tree;
use fastcp_model::{ByteRange, RelPath, Status};
use fastcp_wire::bundle::{BundleForm, BundleRequest, BundledFile};
use fastcp_wire::frame::FrameType;
use fastcp_wire::hello::Failure;
use fastcp_wire::offer::{OfferRequest, Place, Scope};
use fastcp_wire::request::{Ask, RangeRequest};
use fastcp_wire::signature::Level;

/// Paths through links: to a directory outside and inside, to a file, to nothing, to themselves.
const PATHS: [&str; 12] = [
    "out/file",
    "out/dir",
    "out/dir/below",
    "out/nothing",
    "out/file/below",
    "out/closed/below",
    "sub/up/outside/file",
    "in/file",
    "to file/below",
    "dangling/below",
    "loop/below",
    "root/etc/passwd",
];
/// Links by themselves: requests for files are refused as well, and for their contents as directories.
const LINKS: [&str; 6] = ["out", "in", "to file", "dangling", "loop", "root"];

fn source() -> (Workspace, std::path::PathBuf) {
    let workspace = Workspace::new();
    let outside = workspace.at("outside");
    for dir in ["", "dir", "closed"] {
        fs::create_dir(outside.join(dir)).expect("create");
    }
    fs::write(outside.join("file"), b"secret").expect("write");
    let mut tree = Tree::new(&workspace.at("source"));
    tree.file("file", b"bytes").dir("sub").file("sub/file", b"bytes").link("sub/up", "../..");
    tree.link("out", "../outside").link("in", "sub").link("to file", "file").link("dangling", "nowhere");
    tree.link("loop", "loop").link("root", "/");
    let source = tree.finish();
    (workspace, source)
}

/// What is said of `path` by each kind of request.
fn statuses(server: &Server, path: &str) -> Vec<(&'static str, Status)> {
    let bytes = path.as_bytes();
    let mut control = server.connect();
    let ticket = open_session(&mut control, 1).ticket;
    let mut data = server.connect();
    attach(&mut data, ticket);
    let mut ask = |request: Vec<u8>| {
        data.write_all(&request).expect("send");
        read_piece(&mut data).0.reply.status
    };
    let range = |ask| {
        let mut request = Vec::new();
        let range = ByteRange::new(0, 1).expect("lawful");
        RangeRequest { id: 1, path: bytes.into(), range, ask }.encode(&mut request);
        request
    };
    let mut bundle = Vec::new();
    let files = vec![BundledFile { name: b"name"[..].into(), len: 1 }];
    BundleRequest { id: 1, dir: bytes.into(), accept: BundleForm::Pieces, files }.encode(&mut bundle);
    let mut all = vec![
        ("bytes", ask(range(Ask::Bytes))),
        ("confirm", ask(range(Ask::Confirm))),
        ("hash", ask(range(Ask::Hash))),
        ("signature", ask(range(Ask::Signature(Level::Coarse)))),
        ("bundle", ask(bundle)),
        ("plain", split_reply(&ask_plain(server.connect(), &plain_request(bytes, 0, 0))).0.status),
    ];
    let request = Place { path: RelPath::new(bytes).expect("lawful"), scope: Scope::Contents };
    send_frame(&mut control, FrameType::OfferRequest, &OfferRequest::from(request).encode().expect("few rules"));
    let (frame_type, payload) = read_frame(&mut control).expect("an answer");
    assert_eq!(frame_type, FrameType::Failure, "{path}");
    all.push(("offer", Failure::decode(&payload).expect("a status").status));
    all
}

fn assert_one_answer(server: &Server) {
    for path in PATHS.iter().chain(&LINKS) {
        for (kind, status) in statuses(server, path) {
            assert_eq!(status, Status::OutsideRoot, "{kind} of {path}");
        }
    }
}

#[test]
fn one_answer_stands_for_all_that_is_behind_a_link() {
    let (_workspace, source) = source();
    assert_one_answer(&Server::start(&source));
}

#[test]
fn it_is_the_same_where_paths_are_walked_by_hand() {
    for restriction in ["no-openat2", "forbid-openat2"] {
        if can_restrict(restriction) {
            let (_workspace, source) = source();
            assert_one_answer(&Server::start_restricted(&source, "127.0.0.1 0", restriction));
        }
    }
}

#[test]
fn nothing_behind_a_link_is_looked_at() {
    let Some(strace) = Strace::new() else { return };
    let (workspace, source) = source();
    let log = workspace.at("log");
    // All but openat2, which the kernel stops at the link.
    let strace = strace.delays("newfstatat,statx,openat", 1).logged_to(&log);
    let server = Server::start_strace(&source, "127.0.0.1 0", &strace);
    assert_one_answer(&server);
    drop(server);
    let log = fs::read_to_string(&log).expect("read the log");
    assert!(log.contains("\"name\"") || log.contains("\"out\""), "calls are logged with their paths");
    let looked_at: Vec<&str> = log.lines().filter(|line| PATHS.iter().any(|path| line.contains(path))).collect();
    assert_eq!(looked_at, Vec::<&str>::new());
}
