//! What the system gives a process, and runs that get by with little of it: a transfer with few descriptors is
//! slower and as right as any other, and nothing that ran out is ever a file's failure.

mod support;

use std::path::{Path, PathBuf};

use support::Workspace;
use support::client::{Client, Run, contents};
use support::compare::assert_same;
use support::server::Server;
use support::tree::{Tree, noise};

/// Many small files in a few directories, and some that come in several ranges.
fn small_and_large(root: &Path, small: usize, large: usize) -> PathBuf {
    let mut tree = Tree::new(root);
    for dir in 0..10 {
        tree.dir(format!("dir {dir}"));
    }
    for number in 0..small {
        tree.file(format!("dir {}/small {number}", number % 10), format!("number {number}").as_bytes());
    }
    for number in 0..large {
        tree.file(format!("large {number}"), &noise(300_000 + number, number as u64));
    }
    tree.finish()
}

/// Directories of one file each.
fn directories(root: &Path, count: usize) -> PathBuf {
    let mut tree = Tree::new(root);
    for number in 0..count {
        tree.dir(format!("dir {number}")).file(format!("dir {number}/file"), format!("number {number}").as_bytes());
    }
    tree.finish()
}

/// A run that was told of a limit, went on with what that left it, and said so once.
fn expect_told_once(run: &Run, limit: &str) {
    let told = run.events().into_iter().filter(|event| event["event"] == "limited").collect::<Vec<_>>();
    assert_eq!(told.len(), 1, "{:?}", run.lines);
    assert!(told[0]["error"].as_str().is_some_and(|text| text.contains(limit)), "{told:?}");
}

#[test]
fn many_connections_and_few_descriptors() {
    let workspace = Workspace::new();
    let source = small_and_large(&workspace.at("source"), 400, 40);
    let server = Server::start(&source);
    for (limit, conns) in [(64, 16), (256, 64), (24, 4)] {
        for (form, from) in [("served", server.url("").into()), ("embedded", contents(&source))] {
            if form == "embedded" && limit < 40 {
                continue;
            }
            let copy = workspace.at(&format!("copy {limit} {form}"));
            let client = Client::pull(from, &copy).options(&format!("--conns {conns} --chunk-kb 64"));
            let run = client.restricted(&format!("descriptors={limit}")).run().expect_exit(0);
            assert_same(&source, &copy);
            expect_told_once(&run, &format!("open files are limited to {limit}"));
        }
    }
}

#[test]
fn many_directories_and_few_descriptors() {
    let workspace = Workspace::new();
    let source = directories(&workspace.at("source"), 3000);
    let server = Server::start(&source);
    let copy = workspace.at("copy");
    Client::pull(server.url(""), &copy).restricted("descriptors=512").run().expect_exit(0);
    assert_same(&source, &copy);
    Client::pull(server.url(""), &copy).options("--delete").restricted("descriptors=64").run().expect_exit(0);
    Client::verify(&copy, server.url("")).restricted("descriptors=64").run().expect_differences(&[]);
}

#[test]
fn a_server_with_few_descriptors() {
    let workspace = Workspace::new();
    let source = small_and_large(&workspace.at("source"), 400, 40);
    for limit in [128, 24] {
        let server = Server::start_restricted(&source, "127.0.0.1 0", &format!("descriptors={limit}"));
        let copy = workspace.at(&format!("copy {limit}"));
        Client::pull(server.url(""), &copy).options("--conns 64 --chunk-kb 64").run().expect_exit(0);
        assert_same(&source, &copy);
        Client::verify(&copy, server.url("")).options("--conns 64").run().expect_differences(&[]);
    }
}

/// Those for whom there is no room are told, and come back; nobody waits for an answer that does not come.
#[test]
fn more_clients_than_a_server_has_descriptors_for() {
    let workspace = Workspace::new();
    let source = small_and_large(&workspace.at("source"), 300, 10);
    let server = Server::start_restricted(&source, "127.0.0.1 0", "descriptors=24");
    let clients: Vec<_> = (0..6)
        .map(|number| {
            let copy = workspace.at(&format!("copy {number}"));
            (Client::pull(server.url(""), &copy).options("--conns 8").start(), copy)
        })
        .collect();
    for (client, copy) in clients {
        let run = client.finish().expect_exit(0);
        assert!(!run.stderr.contains("no byte for"), "{}", run.stderr);
        assert_same(&source, &copy);
    }
}
