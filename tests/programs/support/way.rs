//! Both ways to bring a tree to the other end: the client fetches it, or sends it. What is promised of a copy holds for
//! both, so one test tries it twice.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::client::{Client, Run, contents};
use super::cut_proxy::{CutProxy, Fault};
use super::launch::Launch;
use super::port::ReservedPort;
use super::server::Server;
use super::strace::Strace;
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
pub(crate) const RECEIVES: &str = "--allow-write --allow-delete --allow-setuid";

/// A source, and the directory in which copies of it are made by the way.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) way: Way,
    pub(crate) source: PathBuf,
    /// What a server that receives serves.
    above: PathBuf,
    /// How the program that receives is started: the client, or the server.
    receiver: Launch,
}

impl Route {
    /// From `source`, to anywhere in the workspace.
    pub(crate) fn new(way: Way, source: &Path, workspace: &Workspace) -> Self {
        Self { way, source: source.to_path_buf(), above: workspace.at(""), receiver: Launch::default() }
    }

    /// From what `put` puts into a tree, to anywhere in the workspace.
    pub(crate) fn of(way: Way, workspace: &Workspace, put: impl FnOnce(&mut Tree)) -> Self {
        let mut tree = Tree::new(&workspace.at("source"));
        put(&mut tree);
        Self::new(way, &tree.finish(), workspace)
    }

    /// Whoever receives runs under restrictions of `tests/under`, separated by spaces.
    pub(crate) fn receiver_restricted(mut self, restrictions: &str) -> Self {
        self.receiver.restrict(restrictions);
        self
    }

    /// Whoever receives runs with these faults.
    pub(crate) fn receiver_strace(mut self, strace: &Strace) -> Self {
        self.receiver.set_under(strace.words());
        self
    }

    /// The server at the end that does not dial.
    pub(crate) fn serve(&self) -> Server {
        self.serve_with("")
    }

    /// The same, with these further words.
    pub(crate) fn serve_with(&self, words: &str) -> Server {
        let launch = match self.way {
            Way::Pull => &Launch::default(),
            Way::Push => &self.receiver,
        };
        let words = format!("127.0.0.1 0 {} {words}", self.told());
        Server::try_launch(self.served(), &words, launch).expect("a server that listens")
    }

    /// The same, with these words for the place where it listens, run by another program.
    pub(crate) fn serve_under(&self, place: &str, words: Vec<String>) -> Server {
        let mut launch = Launch::default();
        launch.set_under(words);
        let place = format!("{place} {}", self.told());
        Server::try_launch(self.served(), &place, &launch).expect("a server that listens")
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

    /// A proxy before that server, which spoils what comes from the source on the data connection after `nth` others.
    pub(crate) fn cut_proxy(&self, server: SocketAddr, nth: usize, fault: Fault) -> CutProxy {
        match self.way {
            Way::Pull => CutProxy::start_for(server, valve::Kind::Data, nth, fault),
            Way::Push => CutProxy::start_toward_server(server, nth, fault),
        }
    }

    /// Brings the contents of the source to `copy`, which is in the workspace, by the server at this address.
    pub(crate) fn client(&self, address: SocketAddr, copy: &Path) -> Client {
        match self.way {
            Way::Pull => Client::pull(format!("fcp://{address}"), copy).launched(&self.receiver),
            Way::Push => Client::push(contents(&self.source), self.url_of(address, copy)),
        }
    }

    /// Brings the contents of the source to `copy`: fetched without a server, or sent to one that ends with the run.
    pub(crate) fn bring(&self, copy: &Path, options: &str) -> Run {
        self.try_bring(copy, options).expect("a server that listens")
    }

    /// The same; `None` where the server ends without listening.
    pub(crate) fn try_bring(&self, copy: &Path, options: &str) -> Option<Run> {
        match self.way {
            Way::Pull => {
                Some(Client::pull(contents(&self.source), copy).launched(&self.receiver).options(options).run())
            }
            Way::Push => {
                let words = format!("127.0.0.1 0 {}", self.told());
                let server = Server::try_launch(self.served(), &words, &self.receiver)?;
                Some(self.client(server.address, copy).options(options).run())
            }
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
