//! A source, its server and a valve between the server and clients: where interruptions are played.

use std::path::{Path, PathBuf};

use fastcp_wire::frame::{FRAME_HEADER_BYTES, FRAME_SUM_BYTES};
use fastcp_wire::hello::Ticket;
use fastcp_wire::reply::{PIECE_HEADER_BYTES, TRAILER_BYTES};

use super::client::{Client, Running};
use super::journal::Leftover;
use super::server::Server;
use super::tree::{Tree, noise};
use super::valve::{Kind, Valve};
use super::way::{Route, Way};
use super::{Workspace, wait_until};

/// What a data connection begins with: the answer to ATTACH.
pub(crate) const ATTACH_REPLY_BYTES: u64 = (FRAME_HEADER_BYTES + FRAME_SUM_BYTES) as u64;
/// What a data connection that is counted begins with, at most: a client that sends begins with ATTACH.
const ATTACH_BYTES_MAX: u64 = ATTACH_REPLY_BYTES + size_of::<Ticket>() as u64;
/// What an answer has around its body.
pub(crate) const AROUND_BODY_BYTES: u64 = (PIECE_HEADER_BYTES + TRAILER_BYTES) as u64;

/// Of a large file: chunks of 64 KiB, and a short one.
pub(crate) const LARGE_BYTES: u64 = 8 * (1 << 20) + 17;

/// A source and the way to it.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) route: Route,
    pub(crate) source: PathBuf,
    pub(crate) copy: PathBuf,
    pub(crate) valve: Valve,
    pub(crate) server: Server,
    pub(crate) workspace: Workspace,
}

impl Stage {
    /// What `put` puts into a tree, to be fetched.
    pub(crate) fn new(put: impl FnOnce(&mut Tree)) -> Self {
        Self::by(Way::Pull, put)
    }

    /// What `put` puts into a tree, to be brought over this way.
    pub(crate) fn by(way: Way, put: impl FnOnce(&mut Tree)) -> Self {
        let workspace = Workspace::new();
        let route = Route::of(way, &workspace, put);
        let server = route.serve();
        let valve = route.valve(server.address);
        Self { source: route.source.clone(), route, copy: workspace.at("copy"), valve, server, workspace }
    }

    /// One large file in a directory.
    pub(crate) fn large(way: Way) -> Self {
        Self::by(way, |tree| {
            tree.dir("dir").file("dir/large", &noise(LARGE_BYTES as usize, 1));
        })
    }

    /// A client of it that passes through the valve.
    pub(crate) fn client(&self, options: &str) -> Client {
        self.client_to(&self.copy, options)
    }

    /// The same, to somewhere else.
    pub(crate) fn client_to(&self, copy: &Path, options: &str) -> Client {
        self.route.client(self.valve.address(), copy).options(options)
    }

    /// A client that goes past the valve.
    pub(crate) fn direct_client(&self, options: &str) -> Client {
        self.route.client(self.server.address, &self.copy).options(options)
    }

    /// A client of whose data connections `bytes` have gone through the valve, and no more go.
    pub(crate) fn stall(&self, options: &str, bytes: u64) -> Running {
        self.valve.limit(Kind::Data, bytes);
        let client = self.client(options).start();
        self.valve.wait_until_stalled(Kind::Data);
        client
    }

    /// Kills a client, and waits until nobody writes to the copy any more.
    pub(crate) fn kill(&self, client: Running) {
        client.kill();
        self.settle(&self.copy);
    }

    /// Kills whoever receives where it stands, and the client in any case. The server is another one afterwards.
    pub(crate) fn kill_receiver(&mut self, client: Running) {
        if self.route.way == Way::Push {
            self.server = self.route.serve();
            self.valve = self.route.valve(self.server.address);
        }
        client.kill();
    }

    /// Ends all connections and waits until nobody writes to this copy any more.
    pub(crate) fn settle(&self, copy: &Path) {
        self.valve.renew();
        self.route.settle(self.server.address, copy);
    }

    /// As [`Stage::stall`], with one large file, whose journal has everything that came whole over `conns` connections.
    pub(crate) fn stall_in_file(&self, options: &str, conns: u64, chunk_bytes: u64, bytes: u64) -> Running {
        let claimed_bytes = || Leftover::all(&self.copy).iter().map(Leftover::claimed_bytes).sum::<u64>();
        let before = claimed_bytes();
        let client = self.stall(&format!("{options} --no-compress --conns {conns}"), bytes);
        let answers = bytes / chunk_bytes + conns;
        let incomplete = conns * (ATTACH_BYTES_MAX + chunk_bytes + AROUND_BODY_BYTES);
        let whole = bytes.saturating_sub(incomplete + answers * AROUND_BODY_BYTES);
        wait_until("the journal to follow", || claimed_bytes() >= before + whole);
        client
    }
}

/// How many bytes have to go through one data connection until it has `answers` of this length, and a little more.
pub(crate) fn bytes_of_answers(answers: u64, body_bytes: u64) -> u64 {
    ATTACH_REPLY_BYTES + answers * (body_bytes + AROUND_BODY_BYTES) + AROUND_BODY_BYTES
}
