//! Output that cannot be written is reported: exit code 11. A reader that has gone is no error.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::Workspace;
use crate::support::client::{Client, contents};
use crate::support::server::Server;
use crate::support::tree::Tree;

/// A tree of a few files, and a copy of it that differs.
fn differing(workspace: &Workspace) -> (PathBuf, PathBuf) {
    let mut tree = Tree::new(&workspace.at("source"));
    tree.dir("sub").file("sub/one", b"1").file("two", b"22").link("link", "two");
    let source = tree.finish();
    let copy = workspace.at("copy");
    Client::pull(contents(&source), &copy).run().expect_exit(0);
    fs::write(copy.join("two"), b"else").expect("write");
    fs::write(copy.join("extraneous"), b"").expect("write");
    (source, copy)
}

fn full() -> Stdio {
    OpenOptions::new().write(true).open("/dev/full").expect("open /dev/full").into()
}

/// A pipe that nobody reads.
fn closed_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("make a pipe");
    drop(reader);
    writer.into()
}

/// The exit code, and what was said on stderr.
fn run<W: AsRef<OsStr>>(program: &str, words: &[W], stdout: Stdio) -> (Option<i32>, String) {
    let mut command = Command::new(program);
    let output = command.args(words).stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped()).output();
    let output = output.expect("run the program");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

const CLIENT: &str = env!("CARGO_BIN_EXE_fastcp-client");
const SERVER: &str = env!("CARGO_BIN_EXE_fastcp-server");

/// All that writes to stdout, by the code that it ends with where that can be written.
fn writers(source: &Path, copy: &Path, port: u16, out: &Path) -> Vec<(i32, Vec<String>)> {
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let (from, to) = (text(&contents(source)), text(copy));
    let pull = |options: &[&str]| [&["pull"], options, &[&from, &to]].concat().iter().map(|&w| w.to_owned()).collect();
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    vec![
        (0, pull(&["-n"])),
        (0, pull(&["-n", "-i"])),
        (0, pull(&["-n", "-i", "--json"])),
        (0, pull(&["-n", "-i", "--delete"])),
        (23, words(&["verify", &to, &from])),
        (23, words(&["verify", "--json", &to, &from])),
        (0, words(&["get", "127.0.0.1", &port.to_string(), "two", &text(out)])),
        (0, words(&["--help"])),
        (0, words(&["--version"])),
        (0, words(&["pull", "--help"])),
        (0, pull(&["--json"])),
        (0, pull(&["-i", "--delete"])),
    ]
}

#[test]
fn lost_output_is_reported_and_changes_the_exit_code() {
    let workspace = Workspace::new();
    let (source, copy) = differing(&workspace);
    let server = Server::start(&source);
    for (code, words) in writers(&source, &copy, server.port(), &workspace.at("out")) {
        let (ended, said) = run(CLIENT, &words, full());
        // A failure that is worse than lost output keeps its code.
        assert_eq!(ended, Some(if code == 0 { 11 } else { code }), "{words:?}: {said}");
        assert_eq!(said.matches("cannot write to standard output: No space left").count(), 1, "{words:?}: {said}");
    }
    assert_eq!(fs::read(copy.join("two")).expect("read"), b"22", "the copy itself went on");
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    let workspace = Workspace::new();
    let (source, copy) = differing(&workspace);
    let server = Server::start(&source);
    for (code, words) in writers(&source, &copy, server.port(), &workspace.at("out")) {
        let (ended, said) = run(CLIENT, &words, closed_pipe());
        assert_eq!((ended, said.as_str()), (Some(code), ""), "{words:?}");
    }
}

#[test]
fn quiet_runs_write_nothing_that_could_be_lost() {
    let workspace = Workspace::new();
    let (source, copy) = differing(&workspace);
    let words =
        [OsStr::new("pull"), OsStr::new("-q"), contents(&source).as_os_str(), copy.as_os_str()].map(OsStr::to_owned);
    assert_eq!(run(CLIENT, &words, full()), (Some(0), String::new()));
}

#[test]
fn a_server_that_cannot_tell_its_address_does_not_serve() {
    let workspace = Workspace::new();
    let source = Tree::new(&workspace.at("source")).finish();
    let words = [source.as_os_str(), OsStr::new("127.0.0.1"), OsStr::new("0")];
    let (code, said) = run(SERVER, &words, full());
    assert_eq!(code, Some(11), "{said}");
    assert!(said.contains("cannot write to standard output"), "{said}");
    for word in ["--help", "--version"] {
        assert_eq!(run(SERVER, &[word], full()).0, Some(11));
        assert_eq!(run(SERVER, &[word], closed_pipe()), (Some(0), String::new()));
    }
}

#[test]
fn a_slow_reader_loses_nothing() {
    let workspace = Workspace::new();
    let source = workspace.at("source");
    fs::create_dir(&source).expect("create");
    // More lines than the pipe and the events that may wait can hold.
    let names: Vec<String> = (0..12_000).map(|number| format!("{number:05}-{}", "n".repeat(100))).collect();
    for name in &names {
        File::create(source.join(name)).expect("create");
    }
    let mut client = Client::new([
        OsStr::new("pull"),
        OsStr::new("-ni"),
        contents(&source).as_os_str(),
        workspace.at("copy").as_os_str(),
    ])
    .start();
    crate::support::wait_until("the pipe to be full", || client.is_writing_to_a_full_pipe());
    assert!(!client.has_ended());
    let run = client.finish().expect_exit(0);
    assert_eq!(run.lines.iter().filter(|line| line.starts_with(">f+++++++++ ")).count(), names.len());
}

/// A script can open what an event names, whatever bytes the name has.
#[test]
fn paths_in_events_are_names_as_they_are() {
    let workspace = Workspace::new();
    let mut tree = Tree::new(&workspace.at("source"));
    tree.dir("new\nline").file("new\nline/a\\b\"c'\u{e9}", b"1").link("link", "new\nline");
    let source = tree.finish();
    let odd = OsStr::from_bytes(b"odd\xff\xfe");
    fs::write(source.join(odd), b"2").expect("write");
    let copy = workspace.at("copy");
    let run = Client::pull(contents(&source), &copy).options("-i").run().expect_exit(0);
    let items = run.events().into_iter().filter(|event| event["event"] == "item");
    let mut bytes_beside = 0;
    for item in items {
        let path = item["path"].as_str().expect("a path");
        match item["path_base64"].as_str() {
            Some(bytes) => {
                assert_eq!((path, bytes), ("odd\u{fffd}\u{fffd}", "b2Rk//4="));
                bytes_beside += 1;
            }
            None => assert!(copy.join(path).symlink_metadata().is_ok(), "{item}"),
        }
        assert!(item["target"].is_null() || item["target"] == "new\nline", "{item}");
    }
    assert_eq!(bytes_beside, 1);
    fs::write(copy.join(odd), b"other").expect("write");
    let verified = Client::verify(&copy, contents(&source)).run().expect_exit(23);
    assert!(verified.events().iter().any(|event| event["what"] == "size" && event["path_base64"] == "b2Rk//4="));
}

#[test]
fn the_error_that_ends_a_run_is_an_event() {
    let workspace = Workspace::new();
    let missing = workspace.at("missing");
    for client in [
        Client::pull("host:/path", workspace.at("copy")),
        Client::pull(missing.join("dir"), workspace.at("copy")),
        Client::pull(contents(&missing), workspace.at("copy")),
        Client::verify(workspace.at("copy"), contents(&missing)),
    ] {
        let run = client.run();
        let errors: Vec<_> = run.events().into_iter().filter(|event| event["event"] == "error").collect();
        assert_eq!(errors.len(), 1, "{:?}", run.lines);
        assert_eq!(errors[0]["exit"].as_i64(), run.code.map(i64::from));
        let message = errors[0]["message"].as_str().expect("a message");
        assert!(run.stderr.contains(message), "{message}: {}", run.stderr);
    }
}
