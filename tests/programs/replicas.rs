//! Replicas of one tree behind a balancer: every connection may land on another server, which knows nothing of
//! the session that the last one opened.

use std::path::PathBuf;

use crate::support::Workspace;
use crate::support::balancer::Balancer;
use crate::support::client::Client;
use crate::support::compare::assert_same;
use crate::support::server::Server;
use crate::support::tree::{Tree, noise};
use crate::support::valve::{Kind, Valve};
use crate::support::versions::{NAME, put_old, rewritten};

/// What the destination has of a file, and the servers something newer.
fn old() -> Vec<u8> {
    noise(3 << 20, 2)
}

/// Servers of one tree.
struct Replicas {
    source: PathBuf,
    servers: Vec<Server>,
    workspace: Workspace,
}

impl Replicas {
    fn start(count: usize) -> Self {
        let workspace = Workspace::new();
        let mut tree = Tree::new(&workspace.at("source"));
        tree.dir("small").file("large", &noise((6 << 20) + 1, 1)).file(NAME, &rewritten(&old(), 50));
        for nth in 0..200 {
            tree.file(format!("small/{nth}"), &noise(2000, nth));
        }
        let source = tree.finish();
        let servers = (0..count).map(|_| Server::start(&source)).collect();
        Self { source, servers, workspace }
    }

    fn balancer(&self) -> Balancer {
        Balancer::start(self.servers.iter().map(|server| server.address).collect())
    }
}

#[test]
fn a_tree_comes_from_replicas_that_do_not_know_of_each_other() {
    for count in [2, 3] {
        let replicas = Replicas::start(count);
        for round in 0..10 {
            let balancer = replicas.balancer();
            let copy = replicas.workspace.at(&format!("copy {round}"));
            put_old(&copy, &old());
            let options = format!("--conns {} --durability none", 1 + round % 5);
            let run = Client::pull(balancer.url(), &copy).options(&options).run().expect_exit(0);
            assert_same(&replicas.source, &copy);
            let run = run.expect_counts(&[("files_committed", 202), ("reconnects", 0), ("files_failed", 0)]);
            assert!(run.count("bytes_reused") > 2 << 20, "{}", run.count("bytes_reused"));
            Client::verify(&copy, balancer.url()).options("--conns 3").run().expect_differences(&[]);
        }
        for server in &replicas.servers {
            assert_eq!(server.log(), "", "a ticket of another replica is nothing to warn of");
        }
    }
}

/// The replica with the session of the control connection goes away: the others have all that is needed.
#[test]
fn a_replica_that_is_lost_costs_what_was_on_its_way() {
    let mut replicas = Replicas::start(3);
    let balancer = replicas.balancer();
    let valve = Valve::start(balancer.address);
    let copy = replicas.workspace.at("copy");
    valve.limit(Kind::Data, 2 << 20);
    let client = Client::pull(valve.url(), &copy).options("--conns 4 --chunk-kb 64 --no-compress").start();
    valve.wait_until_stalled(Kind::Data);
    drop(replicas.servers.remove(0));
    valve.open();
    let run = client.finish().expect_exit(0);
    assert_same(&replicas.source, &copy);
    run.expect_counts(&[("files_committed", 202), ("files_failed", 0)]);
}
