//! A file of which the destination has another version than the source, and clients that bring it up to date.
//! Every client gets a destination of its own, so that all of them start from the same old version.

use std::cell::Cell;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::Workspace;
use super::client::{Client, Run, contents};
use super::compare::assert_same;
use super::cut_proxy::{CutProxy, Fault};
use super::journal::names_in_parts;
use super::server::Server;
use super::tree::{Tree, set_mtime};
use super::valve::Valve;
use super::way::{Route, Way};

/// What the file is called.
pub(crate) const NAME: &str = "file";

/// A source with the new version, and the old version.
#[derive(Debug)]
pub(crate) struct Versions {
    route: Route,
    pub(crate) source: PathBuf,
    pub(crate) server: Server,
    pub(crate) workspace: Workspace,
    old: Vec<u8>,
    copies: Cell<u32>,
}

impl Versions {
    /// To be fetched.
    pub(crate) fn new(old: &[u8], new: &[u8]) -> Self {
        Self::by(Way::Pull, old, new)
    }

    /// To be brought over this way.
    pub(crate) fn by(way: Way, old: &[u8], new: &[u8]) -> Self {
        Self::put_by(way, old, |tree| {
            tree.file(NAME, new);
        })
    }

    /// The new version is what `put` makes of it; to be fetched.
    pub(crate) fn put(old: &[u8], put: impl FnOnce(&mut Tree)) -> Self {
        Self::put_by(Way::Pull, old, put)
    }

    /// The same, to be brought over this way.
    pub(crate) fn put_by(way: Way, old: &[u8], put: impl FnOnce(&mut Tree)) -> Self {
        let workspace = Workspace::new();
        let route = Route::of(way, &workspace, put);
        let server = route.serve();
        let source = route.source.clone();
        Self { route, source, server, workspace, old: old.to_vec(), copies: Cell::new(0) }
    }

    /// A destination that has the old version.
    pub(crate) fn copy(&self) -> PathBuf {
        self.copies.set(self.copies.get() + 1);
        let copy = self.workspace.at(&format!("copy {}", self.copies.get()));
        put_old(&copy, &self.old);
        copy
    }

    /// Brings a copy up to date by the server.
    pub(crate) fn update(&self, options: &str) -> Run {
        self.update_copy(&self.copy(), options)
    }

    pub(crate) fn update_copy(&self, copy: &Path, options: &str) -> Run {
        self.expect_same(copy, self.client(copy, options).run())
    }

    /// A client that is to bring a copy up to date.
    pub(crate) fn client(&self, copy: &Path, options: &str) -> Client {
        self.client_at(self.server.address, copy, options)
    }

    /// The same, through a valve before the server.
    pub(crate) fn client_by(&self, valve: &Valve, copy: &Path, options: &str) -> Client {
        self.client_at(valve.address(), copy, options)
    }

    /// A valve before the server, which holds what comes from the source.
    pub(crate) fn valve(&self) -> Valve {
        self.route.valve(self.server.address)
    }

    /// A proxy before the server, which spoils what comes from the source on the data connection after `nth` others.
    pub(crate) fn cut_proxy(&self, nth: usize, fault: Fault) -> CutProxy {
        self.route.cut_proxy(self.server.address, nth, fault)
    }

    /// The same as [`Versions::client`], at another address.
    pub(crate) fn client_at(&self, address: SocketAddr, copy: &Path, options: &str) -> Client {
        self.route.client(address, copy).options(options)
    }

    /// Waits until nobody writes to a copy whose client is gone.
    pub(crate) fn settle(&self, copy: &Path) {
        self.route.settle(self.server.address, copy);
    }

    /// Brings a copy up to date from the local directory.
    pub(crate) fn pull_here(&self, options: &str) -> Run {
        let copy = self.copy();
        self.expect_same(&copy, Client::pull(contents(&self.source), &copy).options(options).run())
    }

    /// Panics unless all went well and nothing is left of it.
    pub(crate) fn expect_same(&self, copy: &Path, run: Run) -> Run {
        let run = run.expect_exit(0).expect_counts(&[("files_failed", 0)]);
        assert_same(&self.source, copy);
        assert_eq!(names_in_parts(copy), Vec::<&Path>::new());
        run
    }
}

/// A destination at `copy` that has this version of the file.
pub(crate) fn put_old(copy: &Path, old: &[u8]) {
    fs::create_dir_all(copy).expect("create a destination");
    fs::write(copy.join(NAME), old).expect("write the old version");
    set_mtime(&copy.join(NAME), 1_500_000_000, 7);
}

/// With every `every`th page of 4 KiB rewritten.
pub(crate) fn rewritten(old: &[u8], every: usize) -> Vec<u8> {
    let mut new = old.to_vec();
    for page in new.chunks_mut(4 << 10).skip(every / 2).step_by(every) {
        page.iter_mut().for_each(|byte| *byte ^= 0x5A);
    }
    new
}

/// How many bytes two versions of one length do not have in common, page by page.
pub(crate) fn rewritten_bytes(old: &[u8], new: &[u8]) -> u64 {
    let pages = old.chunks(4 << 10).zip(new.chunks(4 << 10));
    pages.filter(|(old, new)| old != new).map(|(_, new)| new.len() as u64).sum()
}
