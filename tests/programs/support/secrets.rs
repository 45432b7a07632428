//! A client that pushes a part of a directory to a server that lies, and what of that directory is not for the server.

use std::fs;
use std::path::PathBuf;

use super::Workspace;
use super::client::{Client, Run, Running};
use super::lying_receiver::{LyingReceiver, Receiving};
use super::tree::{Tree, noise};

/// A directory of which one part is pushed, and what is no business of whoever receives that.
pub(crate) struct Secrets {
    pub(crate) workspace: Workspace,
    pub(crate) from: PathBuf,
}

pub(crate) const SECRET: &[u8] = b"not for you";

pub(crate) const OPEN: &[u8] = b"for everybody who asks";

impl Secrets {
    pub(crate) fn new() -> Self {
        let workspace = Workspace::new();
        fs::write(workspace.at("outside"), SECRET).expect("write");
        let mut tree = Tree::new(&workspace.at("from"));
        tree.dir("pushed").dir("pushed/sub").file("pushed/file", OPEN).file("pushed/sub/file", OPEN);
        tree.file("pushed/large", &noise(3 << 20, 1)).link("pushed/out", "../sibling").link("pushed/up", "..");
        tree.file("sibling", SECRET).file("pushed too", SECRET).dir("other").file("other/file", SECRET);
        tree.file("called", SECRET);
        let from = tree.finish();
        Self { workspace, from }
    }

    /// A client that pushes this, to a place of this name, and is in a session.
    pub(crate) fn push(&self, what: &str, to: &str) -> (Running, Receiving) {
        let receiver = LyingReceiver::new();
        let client = self.start(what, &receiver.url(to), "");
        (client, receiver.take_in())
    }

    /// A client that pushes this to somebody who listens.
    pub(crate) fn start(&self, what: &str, url: &str, options: &str) -> Running {
        let mut src = self.from.join(what).into_os_string();
        if what.ends_with('/') && !src.to_str().expect("plain").ends_with('/') {
            src.push("/");
        }
        Client::push(src, url).options(&format!("--retry 1 --conns 1 {options}")).start()
    }
}

/// Panics unless the client ended with an error of its connection, and in good order.
pub(crate) fn expect_hung_up(run: &Run) {
    assert!(matches!(run.code, Some(10 | 12 | 30 | 35)), "{:?} {}", run.code, run.stderr);
    assert!(!run.stderr.is_empty() && !run.stderr.contains("panicked"), "{}", run.stderr);
}
