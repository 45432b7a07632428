//! Whoever receives from a sender that lies: a client that fetches, or a server that is pushed to.
//!
//! Whatever is said, what lies beside the destination stays as it is. Of a server more is asked: another client pushes to
//! it meanwhile, and notices nothing; its descriptors come back; and it logs one line about a session that it ends.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use super::client::{Client, Run, Running, contents};
use super::compare::{Snapshot, assert_same, snapshot};
use super::fit::expect_fit;
use super::lying_sender::{Lies, LyingSender};
use super::server::Server;
use super::tree::{Tree, noise, plain};
use super::valve::{Kind, Valve};
use super::way::{Route, Way};
use super::{Workspace, wait_until};

/// Of the file that is pushed honestly, and how much of it has arrived when the lies begin.
const HONEST_BYTES: usize = 300_000;
const HONEST_BEFORE: u64 = 100_000;

/// A receiver, and what is around it.
#[derive(Debug)]
pub(crate) struct LiedTo {
    pub(crate) workspace: Workspace,
    route: Route,
    neighbour: (PathBuf, Snapshot),
    beside: Option<Beside>,
    copies: Cell<u32>,
}

/// The server that receives, and whoever pushes to it honestly.
#[derive(Debug)]
struct Beside {
    server: Server,
    descriptors: usize,
    source: PathBuf,
}

/// A run that is lied to, until it is finished.
#[derive(Debug)]
pub(crate) struct Hearing<'a> {
    lied_to: &'a LiedTo,
    sender: LyingSender,
    client: Running,
    honest: Option<Honest>,
}

/// A push that has begun.
#[derive(Debug)]
struct Honest {
    valve: Valve,
    client: Running,
    copy: PathBuf,
}

impl LiedTo {
    /// One that is lied to by whoever dials, or is dialled.
    pub(crate) fn by(way: Way) -> Self {
        let workspace = Workspace::new();
        let route = Route::of(way, &workspace, |_| {});
        let neighbour = plain(&workspace.at("neighbour"));
        let before = snapshot(&neighbour);
        let beside = (way == Way::Push).then(|| Beside::start(&route, &workspace));
        Self { workspace, route, neighbour: (neighbour, before), beside, copies: Cell::new(0) }
    }

    /// Where nothing was copied to yet.
    pub(crate) fn copy(&self) -> PathBuf {
        self.copies.set(self.copies.get() + 1);
        self.workspace.at(&format!("copy{}", self.copies.get()))
    }

    /// What becomes of these lies, in a directory of their own.
    pub(crate) fn hear(&self, lies: Lies) -> (PathBuf, Run) {
        let copy = self.copy();
        let run = self.hear_at(&copy, lies, "--retry 1 --conns 1");
        (copy, run)
    }

    /// What becomes of these lies at `copy`.
    pub(crate) fn hear_at(&self, copy: &Path, lies: Lies, options: &str) -> Run {
        self.start(copy, lies, options).finish()
    }

    /// Begins to hear these lies at `copy`.
    pub(crate) fn start(&self, copy: &Path, lies: Lies, options: &str) -> Hearing<'_> {
        let sender = match &self.beside {
            None => lies.listen(),
            Some(beside) => lies.push_to(beside.server.address),
        };
        let honest = self.beside.as_ref().map(|beside| beside.begin(&self.route, &self.copy()));
        let client = self.route.client(sender.address, copy).options(options).start();
        Hearing { lied_to: self, sender, client, honest }
    }

    /// Panics unless whoever received is as good as new.
    pub(crate) fn finish(self) {
        let Some(beside) = &self.beside else { return };
        expect_fit(&beside.server, &self.workspace, beside.descriptors);
    }

    /// Panics where anything was made but copies, or anything was changed.
    fn expect_nothing_outside(&self) {
        let (neighbour, before) = &self.neighbour;
        assert_eq!(&snapshot(neighbour), before, "the neighbour of a destination");
        for entry in fs::read_dir(self.workspace.at("")).expect("read").flatten() {
            let name = entry.file_name();
            let is_ours = ["source", "honest", "neighbour", "old", "new"].iter().any(|ours| name == *ours);
            assert!(is_ours || name.to_str().is_some_and(|name| name.starts_with("copy")), "{name:?} is new");
        }
    }
}

impl Beside {
    fn start(route: &Route, workspace: &Workspace) -> Self {
        let source = Tree::new(&workspace.at("honest")).file("file", &noise(HONEST_BYTES, 77)).finish();
        let server = route.serve();
        Self { descriptors: server.descriptors(), server, source }
    }

    fn begin(&self, route: &Route, copy: &Path) -> Honest {
        let valve = route.valve(self.server.address);
        valve.limit(Kind::Data, HONEST_BEFORE);
        let to = format!("{}/{}", valve.url(), copy.file_name().and_then(|name| name.to_str()).expect("plain"));
        let client = Client::push(contents(&self.source), to).options("--no-compress --conns 1").start();
        valve.wait_until_stalled(Kind::Data);
        Honest { valve, client, copy: copy.to_path_buf() }
    }

    /// Panics unless the server is done with a sender, and has told of it what it should.
    fn expect_done(&self, sender: &LyingSender, run: &Run) {
        wait_until("the descriptors to be given back", || self.server.descriptors() <= self.descriptors);
        assert!(!self.server.log().contains("panicked"), "{}", self.server.log());
        // A connection that is lost is nobody's fault.
        let is_ended = run.code == Some(12) && run.stderr.contains("protocol error");
        for address in sender.addresses_at_server() {
            let lines = self.server.log_lines_about(address);
            assert_eq!(lines.len(), usize::from(is_ended), "{:?} {}: {lines:?}", run.code, run.stderr);
        }
    }
}

impl Honest {
    fn finish(self, source: &Path) {
        self.valve.open();
        let run = self.client.finish().expect_exit(0);
        run.expect_counts(&[("bytes_fetched", HONEST_BYTES as u64), ("reconnects", 0), ("chunks_refetched", 0)]);
        assert_same(source, &self.copy);
    }
}

impl Hearing<'_> {
    /// The process that receives.
    pub(crate) fn receiver_pid(&self) -> u32 {
        match &self.lied_to.beside {
            None => self.client.pid(),
            Some(beside) => beside.server.pid(),
        }
    }

    /// Waits for the end of the run. Panics where it left a trace outside of its destination.
    pub(crate) fn finish(self) -> Run {
        let run = self.client.finish();
        self.lied_to.expect_nothing_outside();
        if let (Some(beside), Some(honest)) = (&self.lied_to.beside, self.honest) {
            honest.finish(&beside.source);
            beside.expect_done(&self.sender, &run);
        }
        run
    }
}
