//! What the kernel refuses to a program that serves or receives, beside what the program keeps itself from.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::Workspace;
use crate::support::client::{Client, Run, contents};
use crate::support::compare::assert_same;
use crate::support::server::Server;
use crate::support::tree::{Tree, noise};

/// Logged where a directory that nobody needs was refused.
const ENTERED: &str = "in a sandbox";

fn server(source: &Path, words: &str) -> Server {
    Server::start_with(source, &format!("127.0.0.1 0 -vv {words}"))
}

/// A source with a few files, and what is there already.
fn source(workspace: &Workspace) -> PathBuf {
    let mut tree = Tree::new(&workspace.at("source"));
    tree.file("file", &noise(300_000, 1)).dir("dir").file("dir/inner", b"inner").link("link", "file");
    tree.finish()
}

fn pull(server: &Server, workspace: &Workspace) -> Client {
    Client::pull(server.url(""), workspace.at("copy")).options("-vv")
}

fn is_in_sandbox(run: &Run) -> bool {
    run.stderr.contains(ENTERED)
}

#[test]
fn a_server_and_a_receiver_are_refused_what_lies_elsewhere() {
    let workspace = Workspace::new();
    let source = source(&workspace);
    let server = server(&source, "");
    assert!(server.log().contains(ENTERED), "{}", server.log());
    let run = pull(&server, &workspace).run().expect_exit(0);
    assert!(is_in_sandbox(&run), "{}", run.stderr);
    assert_same(&source, &workspace.at("copy"));
}

#[test]
fn one_file_is_got_from_within_it() {
    let workspace = Workspace::new();
    let source = source(&workspace);
    let server = server(&source, "");
    let out = workspace.at("got");
    let run = Client::get(server.port(), "file", &out).options("-vv").run().expect_exit(0);
    assert!(is_in_sandbox(&run), "{}", run.stderr);
    assert_eq!(fs::read(&out).expect("read"), fs::read(source.join("file")).expect("read"));
}

#[test]
fn it_can_be_left_out() {
    let workspace = Workspace::new();
    let source = source(&workspace);
    let server = server(&source, "--no-sandbox");
    assert!(!server.log().contains(ENTERED), "{}", server.log());
    let run = pull(&server, &workspace).options("--no-sandbox").run().expect_exit(0);
    assert!(!is_in_sandbox(&run), "{}", run.stderr);
}

/// What is written beside the destination is written from within the sandbox.
#[test]
fn a_receiver_writes_wherever_it_was_told_to() {
    let workspace = Workspace::new();
    let source = source(&workspace);
    let server = server(&source, "");
    let copy = workspace.at("copy");
    fs::create_dir_all(copy.join("dir")).expect("make");
    fs::write(copy.join("dir/inner"), b"older").expect("write");
    fs::write(copy.join("gone"), b"gone").expect("write");
    let (backups, manifest) = (workspace.at("backups/of/today"), workspace.at("manifest"));
    let words = ["--backup-dir", backups.to_str().expect("text"), "--manifest", manifest.to_str().expect("text")];
    let run = pull(&server, &workspace).options("--delete").words(&words).run().expect_exit(0);
    assert!(is_in_sandbox(&run), "{}", run.stderr);
    assert_same(&source, &contents(&copy));
    assert_eq!(fs::read(backups.join("dir/inner")).expect("kept"), b"older");
    assert_eq!(fs::read(backups.join("gone")).expect("kept"), b"gone");
    assert!(fs::read_to_string(&manifest).expect("a manifest").contains("dir/inner"));
    let run = pull(&server, &workspace).options("-n").run().expect_exit(0);
    assert!(is_in_sandbox(&run), "{}", run.stderr);
}
