//! A name stands for what the sender has said its bytes are, and for nothing else.

mod support;

use support::Workspace;
use support::client::{Client, contents};
use support::server::Server;
use support::strace::Strace;
use support::tree::{Tree, noise};

#[test]
fn a_file_that_fails_after_its_confirmation_fails_alone() {
    let Some(strace) = Strace::new() else { return };
    let workspace = Workspace::new();
    let mut tree = Tree::new(&workspace.at("source"));
    tree.file("file", &noise(4 << 20, 1));
    let server = Server::start(&tree.finish());
    let copy = workspace.at("copy");
    let run = Client::pull(server.url(""), contents(&copy)).strace(&strace.fails("fchmod", "EIO")).run();
    // The second connection that asks for the confirmation finds the file given up.
    assert!(matches!(run.code, Some(11 | 23)), "{:?} {}", run.code, run.stderr);
    assert!(run.stderr.contains("Input/output error"), "{}", run.stderr);
    assert!(!copy.join("file").exists());
}
