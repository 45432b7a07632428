//! A tree and a copy of it that a first run made.

use std::path::{Path, PathBuf};

use super::Workspace;
use super::client::{Client, Run, contents};
use super::lying_sender::Lies;
use super::server::Server;
use super::way::{Route, Way};

/// A tree and its copy, in a workspace of their own. Test programs add what they do with it.
#[derive(Debug)]
pub(crate) struct Copied {
    pub(crate) workspace: Workspace,
    pub(crate) source: PathBuf,
    pub(crate) copy: PathBuf,
    /// Where the source is pushed to a server.
    pushed: Option<(Route, Server)>,
}

impl Copied {
    /// What `make` makes at the path that it is given, copied without a server.
    pub(crate) fn of(make: impl FnOnce(&Path) -> PathBuf) -> Self {
        Self::by(Way::Pull, make)
    }

    /// What `make` makes at the path that it is given: pulled without a server, or pushed to one.
    pub(crate) fn by(way: Way, make: impl FnOnce(&Path) -> PathBuf) -> Self {
        let workspace = Workspace::new();
        let source = make(&workspace.at("source"));
        let route = (way == Way::Push).then(|| Route::new(way, &source, &workspace));
        let pushed = route.map(|route| {
            let server = route.serve();
            (route, server)
        });
        let copied = Self { source, copy: workspace.at("copy"), pushed, workspace };
        copied.run("").expect_exit(0);
        copied
    }

    /// Copies what a sender says.
    pub(crate) fn hear(&self, lies: Lies, options: &str) -> Run {
        match &self.pushed {
            None => {
                let sender = lies.listen();
                Client::pull(sender.url(), &self.copy).options(options).run()
            }
            Some((route, server)) => {
                let sender = lies.push_to(server.address);
                route.client(sender.address, &self.copy).options(options).run()
            }
        }
    }

    /// Copies once more.
    pub(crate) fn run(&self, options: &str) -> Run {
        let client = match &self.pushed {
            None => Client::pull(contents(&self.source), &self.copy),
            Some((route, server)) => route.client(server.address, &self.copy),
        };
        client.options(options).run()
    }
}
