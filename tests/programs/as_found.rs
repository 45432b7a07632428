//! What a run leaves behind that did nothing: nothing. No directory of ours, and no time that has changed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::support::Workspace;
use crate::support::client::{Client, contents};
use crate::support::port::ReservedPort;
use crate::support::server::Server;
use crate::support::tree::{plain, set_mtime};

/// Runs that fail before anything is copied, each with its exit code.
fn failing(workspace: &Workspace, copy: &Path) -> Vec<(i32, Client)> {
    let source = plain(&workspace.at("source"));
    let nobody = ReservedPort::new();
    vec![
        (3, Client::pull(source.join("missing"), copy)),
        (3, Client::pull(source.join("missing/"), copy)),
        (35, Client::pull(format!("fcp://127.0.0.1:{}/", nobody.port), copy).options("--retry 0")),
        (
            1,
            Client::pull(contents(&source), copy)
                .options("--backup-dir")
                .options(workspace.at("").to_str().expect("UTF-8")),
        ),
        (1, Client::pull(contents(&source), copy).options("--inplace --backup-dir kept")),
    ]
}

#[test]
fn a_run_that_fails_leaves_nothing_where_nothing_was() {
    let workspace = Workspace::new();
    let copy = workspace.at("copy");
    for (code, client) in failing(&workspace, &copy) {
        client.run().expect_exit(code);
        assert!(!copy.exists(), "exit code {code}");
    }
}

#[test]
fn a_run_that_fails_leaves_a_directory_as_it_was() {
    let workspace = Workspace::new();
    let copy = workspace.at("copy");
    fs::create_dir(&copy).expect("create");
    set_mtime(&copy, 7, 7);
    for (code, client) in failing(&workspace, &copy) {
        client.run().expect_exit(code);
        assert_eq!(fs::read_dir(&copy).expect("read").count(), 0, "exit code {code}");
        let now = fs::metadata(&copy).expect("examine");
        assert_eq!((now.mtime(), now.mtime_nsec()), (7, 7), "exit code {code}");
    }
}

#[test]
fn what_an_earlier_run_left_stays() {
    let workspace = Workspace::new();
    let source = plain(&workspace.at("source"));
    let copy = workspace.at("copy");
    Client::pull(contents(&source), &copy).run().expect_exit(0);
    assert!(copy.join(".fastcp").exists());
    Client::pull(source.join("missing"), &copy).run().expect_exit(3);
    assert!(copy.join(".fastcp/lock").exists() && copy.join("sub").exists());
}

#[test]
fn a_run_over_an_equal_tree_changes_nothing_and_says_what_a_dry_run_says() {
    let workspace = Workspace::new();
    let source = plain(&workspace.at("source"));
    let copy = workspace.at("copy");
    let server = Server::start(&source);
    Client::pull(server.url(""), &copy).run().expect_exit(0);
    fs::remove_dir_all(copy.join(".fastcp")).expect("remove");
    let about = fs::metadata(&source).expect("examine");
    set_mtime(&copy, about.mtime(), about.mtime_nsec());
    for options in ["-n -i", "-i", "-i"] {
        let run = Client::pull(server.url(""), &copy).options(options).run().expect_exit(0);
        assert!(run.paths_of("item").is_empty(), "{options}: {:?}", run.lines);
        run.expect_counts(&[("attributes_changed", 0), ("files_committed", 0)]);
    }
    let changed = fs::metadata(&copy).expect("examine");
    assert_eq!((changed.mtime(), changed.mtime_nsec()), (about.mtime(), about.mtime_nsec()));
}
