//! Both ways to bring a tree to the other end: the client fetches it, or sends it. What is promised of a copy holds for
//! both, so one test tries it twice.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::client::{Client, contents};
use super::port::ReservedPort;
use super::server::Server;
use super::tree::Tree;
use super::{Workspace, valve, wait_until};

/// Which end dials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// The receiver: the client fetches.
    Pull,
    /// The sender: the client sends.
    Push,
}

/// Each way there is.
pub(crate) const BOTH_WAYS: [Way; 2] = [Way::Pull, Way::Push];

/// What a server is told that receives, whatever is asked of it.
pub(crate) const RECEIVES: &str = "--allow-write --allow-delete";

/// A source, and the directory in which copies of it are made by the way.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) way: Way,
    pub(crate) source: PathBuf,
    /// What a server that receives serves.
    above: PathBuf,
}

impl Route {
    /// From `source`, to anywhere in the workspace.
    pub(crate) fn new(way: Way, source: &Path, workspace: &Workspace) -> Self {
        Self { way, source: source.to_path_buf(), above: workspace.at("") }
    }

    /// From what `put` puts into a tree, to anywhere in the workspace.
    pub(crate) fn of(way: Way, workspace: &Workspace, put: impl FnOnce(&mut Tree)) -> Self {
        let mut tree = Tree::new(&workspace.at("source"));
        put(&mut tree);
        Self::new(way, &tree.finish(), workspace)
    }

    /// The server at the end that does not dial.
    pub(crate) fn serve(&self) -> Server {
        self.serve_with("")
    }

    /// The same, with these further words.
    pub(crate) fn serve_with(&self, words: &str) -> Server {
        Server::start_with(self.served(), &format!("127.0.0.1 0 {} {words}", self.told()))
    }

    /// The same, on this port.
    pub(crate) fn serve_at(&self, port: &ReservedPort) -> Server {
        port.serve_with(self.served(), self.told())
    }

    /// A valve before that server, which holds what comes from the source.
    pub(crate) fn valve(&self, server: SocketAddr) -> valve::Valve {
        match self.way {
            Way::Pull => valve::Valve::start(server),
            Way::Push => valve::Valve::start_toward_server(server),
        }
    }

    /// Brings the contents of the source to `copy`, which is in the workspace, by the server at this address.
    pub(crate) fn client(&self, address: SocketAddr, copy: &Path) -> Client {
        match self.way {
            Way::Pull => Client::pull(format!("fcp://{address}"), copy),
            Way::Push => Client::push(contents(&self.source), self.url_of(address, copy)),
        }
    }

    /// The same, without `--json`.
    pub(crate) fn client_in_text(&self, address: SocketAddr, copy: &Path) -> Client {
        let url = format!("fcp://{address}");
        match self.way {
            Way::Pull => Client::new(["pull".as_ref(), url.as_ref(), copy.as_os_str()]),
            Way::Push => {
                let from = contents(&self.source);
                Client::new(["push".as_ref(), from.as_os_str(), self.url_of(address, copy).as_ref()])
            }
        }
    }

    /// Waits until nobody writes to `copy` whose client is gone. A server that receives takes what was on its way, and then
    /// waits for its client, or for another one in its place.
    pub(crate) fn settle(&self, server: SocketAddr, copy: &Path) {
        if self.way == Way::Push {
            self.client(server, copy).options("-n --retry 9").run().expect_exit(0);
        }
        wait_until_free(copy);
    }

    fn url_of(&self, address: SocketAddr, copy: &Path) -> String {
        let path = copy.strip_prefix(&self.above).expect("in the workspace");
        format!("fcp://{address}/{}/", path.to_str().expect("plain"))
    }

    fn served(&self) -> &Path {
        match self.way {
            Way::Pull => &self.source,
            Way::Push => &self.above,
        }
    }

    fn told(&self) -> &'static str {
        match self.way {
            Way::Pull => "",
            Way::Push => RECEIVES,
        }
    }
}

/// Waits until no run works in the destination at `copy`.
pub(crate) fn wait_until_free(copy: &Path) {
    wait_until("the run to leave its destination", || {
        File::open(copy.join(".fastcp/lock")).map_or(true, |lock| lock.try_lock().is_ok())
    });
}
