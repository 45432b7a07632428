//! What is typed wrongly, and what is asked for that is not there: a clear word, rsync's exit code, and
//! nothing changed.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use crate::support::Workspace;
use crate::support::client::{Client, Run, contents};
use crate::support::compare::assert_same;
use crate::support::peer::{ask_plain, plain_request, split_reply};
use crate::support::server::Server;
use crate::support::tree::plain;
use fastcp_model::Status;

#[test]
fn words_that_mean_nothing_exit_with_1() {
    let workspace = Workspace::new();
    let copy = workspace.at("copy").into_os_string().into_string().expect("plain");
    let wrong: [&[&str]; 12] = [
        &[],
        &["pull"],
        &["pull", "fcp://localhost:1"],
        &["pull", "", &copy],
        &["pull", "fcp://", &copy],
        &["pull", "fcp://host:port", &copy],
        &["pull", "fcp://host/../etc", &copy],
        &["pull", "-user@host:/path", &copy],
        &["pull", "fcp://localhost:1", &copy, "--conns", "0"],
        &["pull", "fcp://localhost:1", &copy, "--conns", "65"],
        &["pull", "fcp://localhost:1", &copy, "--chunk-kb", "3"],
        &["get", "localhost", "1", ".."],
    ];
    for words in wrong {
        let run = Client::new(words).run().expect_exit(1);
        assert!(!run.stderr.is_empty(), "{words:?} is told why");
        assert!(!Path::new(&copy).exists(), "{words:?} makes nothing");
    }
}

#[test]
fn help_and_version_are_no_mistakes() {
    for word in ["--help", "--version"] {
        assert!(!Client::new([word]).run().expect_exit(0).lines.is_empty());
    }
}

#[test]
fn a_tree_is_not_copied_into_itself() {
    let workspace = Workspace::new();
    let source = plain(&workspace.at("source"));
    let before = workspace.at("before");
    Client::pull(contents(&source), &before).run().expect_exit(0);
    let refused = |from: &Path, into: &Path| {
        let run = Client::pull(from, into).run().expect_exit(1);
        assert!(run.stderr.contains("cannot copy"), "{}", run.stderr);
    };
    refused(&contents(&source), &source);
    refused(&contents(&source), &source.join("sub"));
    refused(&contents(&source), &source.join("sub/new"));
    refused(&contents(&source.join("sub")), &source);
    refused(&source, &workspace.at("."));
    refused(&source, &source.join("sub"));
    std::os::unix::fs::symlink(&source, workspace.at("alias")).expect("link");
    refused(&contents(&source), &workspace.at("alias"));
    refused(&contents(&workspace.at("alias")), &source.join("sub"));
    assert_same(&before, &source);
}

#[test]
fn a_source_that_is_not_there_exits_with_3() {
    let workspace = Workspace::new();
    let source = plain(&workspace.at("source"));
    let server = Server::start(&source);
    let missing = |from: &OsStr| -> Run {
        let run = Client::pull(from, workspace.at("copy")).run().expect_exit(3);
        assert!(run.stderr.contains("gone") || run.stderr.contains("noise"), "{}", run.stderr);
        run
    };
    missing(workspace.at("gone").as_os_str());
    missing(workspace.at("gone/").as_os_str());
    missing(source.join("noise/").as_os_str());
    missing(server.url("gone").as_ref());
    missing(server.url("gone/").as_ref());
    missing(server.url("sub/gone/deeper").as_ref());
    missing(server.url("noise/").as_ref());
}

#[test]
fn a_link_out_of_the_served_tree_leads_nowhere() {
    let workspace = Workspace::new();
    let source = plain(&workspace.at("source"));
    std::os::unix::fs::symlink("/etc", source.join("out")).expect("link");
    let server = Server::start(&source);
    for path in ["out/", "out/passwd"] {
        Client::pull(server.url(path), workspace.at("copy")).run().expect_exit(3);
        assert!(!workspace.at("copy/passwd").exists());
    }
}

#[test]
fn a_server_says_what_is_wrong_and_ends() {
    let workspace = Workspace::new();
    fs::write(workspace.at("file"), b"").expect("write");
    fs::create_dir(workspace.at("dir")).expect("create");
    assert!(Server::try_start(&workspace.at("gone"), "127.0.0.1 0").is_none());
    assert!(Server::try_start(&workspace.at("file"), "127.0.0.1 0").is_none());
    assert!(Server::try_start(&workspace.at("dir"), "127.0.0.1 0 --conns 65").is_none());
    let first = Server::start(&workspace.at("dir"));
    let taken = format!("127.0.0.1 {}", first.port());
    assert!(Server::try_start(&workspace.at("dir"), &taken).is_none(), "the port is taken");
    Server::start_with(&workspace.at("dir"), "0.0.0.0 0 --insecure");
}

#[test]
fn plain_requests_that_are_malformed_are_refused() {
    let workspace = Workspace::new();
    let server = Server::start(&plain(&workspace.at("source")));
    let header = |path_bytes: u16, flags: u16| {
        let fields = [b"FTQ1".to_vec(), path_bytes.to_be_bytes().to_vec(), flags.to_be_bytes().to_vec()];
        [fields.concat(), vec![0; 8]].concat()
    };
    for bytes in [header(0, 0), header(4097, 0), header(u16::MAX, 1), header(1, 0x8000), header(1, 0x0004)] {
        let answer = ask_plain(server.connect(), &bytes);
        let (reply, body) = split_reply(&answer);
        assert_eq!((reply.status, body), (Status::BadRequest, &b""[..]), "{bytes:?}");
    }
    assert_eq!(ask_plain(server.connect(), &plain_request(b"sub/small", 0, 0))[32..], *b"small");
}

#[test]
fn json_on_stdout_is_nothing_but_json() {
    let workspace = Workspace::new();
    let source = plain(&workspace.at("source"));
    nix::unistd::mkfifo(&source.join("pi\npe"), nix::sys::stat::Mode::S_IRWXU).expect("make a pipe");
    let run = Client::pull(contents(&source), workspace.at("copy")).run().expect_exit(0);
    let events = run.events();
    assert_eq!(events.last().expect("a summary")["event"], "summary");
    assert_eq!(events.iter().filter(|event| event["event"] == "summary").count(), 1);
    assert_eq!(run.paths_of("skipped"), ["pi\npe"]);
    for name in ["entries", "files_committed", "files_unchanged", "files_failed", "deleted", "bytes_total"] {
        run.count(name);
    }
    for name in ["bytes_fetched", "bytes_reused", "bytes_wire_in", "bytes_wire_out", "elapsed_ms", "reconnects"] {
        run.count(name);
    }
    let summary = events.last().expect("a summary");
    let is_short = summary["elapsed_ms"].as_u64().expect("a number") < 1000;
    assert_eq!(summary["limited_by"].is_null(), is_short, "{summary}");
}

#[test]
fn quiet_says_nothing_when_all_is_well() {
    let workspace = Workspace::new();
    let source = contents(&plain(&workspace.at("source")));
    let words = [OsStr::new("pull"), OsStr::new("-q"), source.as_os_str()];
    let run = Client::new(words.into_iter().chain([workspace.at("copy").as_os_str()])).run().expect_exit(0);
    assert!(run.lines.is_empty() && run.stderr.is_empty(), "{:?} {}", run.lines, run.stderr);
}
