//! What a copy may do that its original could: files that run with the rights of others, devices, attributes of security
//! modules. docs/security.md has the policy.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use nix::sys::stat::SFlag;

use crate::support::client::{Client, contents};
use crate::support::server::Server;
use crate::support::tree::Tree;
use crate::support::{Workspace, is_root, say_skipped};

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("it is there").permissions().mode() & 0o7777
}

/// A source with files that run with the rights of their owner or group, and a directory that gives its group on.
fn tree(workspace: &Workspace) -> Tree {
    let mut tree = Tree::new(&workspace.at("source"));
    tree.file("plain", b"1").mode(0o755).file("user", b"2").mode(0o4755).file("group", b"3").mode(0o2711);
    tree.dir("shared").mode(0o2775).file("shared/both", b"4").mode(0o6555);
    tree
}

const WITH_SETUID: [(&str, u32); 3] = [("user", 0o4755), ("group", 0o2711), ("shared/both", 0o6555)];

fn server(root: &Path, words: &str) -> Server {
    fs::create_dir(root).expect("make");
    Server::start_with(root, &format!("127.0.0.1 0 --allow-write {words}"))
}

#[test]
fn a_push_brings_no_setuid_unless_the_server_says_so() {
    let workspace = Workspace::new();
    let source = contents(&tree(&workspace).finish());
    let (wary, trusting) = (workspace.at("wary"), workspace.at("trusting"));
    let server_of = [server(&wary, ""), server(&trusting, "--allow-setuid")];
    // What is there already is as the server lets it be: nothing is set again.
    for files_committed in [4, 0] {
        let run = Client::push(&source, server_of[0].url("")).options("--json").run().expect_exit(23);
        assert_eq!(run.count("files_committed"), files_committed);
        let mut told = run.paths_of("failed");
        told.sort_unstable();
        assert_eq!(told, ["group", "shared/both", "user"]);
        assert!(run.lines.iter().any(|line| line.contains("--allow-setuid")), "{:?}", run.lines);
        for (name, with) in WITH_SETUID {
            assert_eq!(mode(&wary.join(name)), with & 0o777, "{name}");
        }
    }
    assert_eq!(mode(&wary.join("shared")), 0o2775, "a directory's gives nobody rights");
    let preview = Client::push(&source, server_of[0].url("")).options("-n").run().expect_exit(23);
    assert!(preview.stderr.contains("--allow-setuid"), "{}", preview.stderr);
    Client::push(&source, server_of[1].url("")).run().expect_exit(0);
    for (name, with) in WITH_SETUID {
        assert_eq!(mode(&trusting.join(name)), with, "{name}");
    }
}

#[test]
fn a_pull_keeps_modes_as_they_are() {
    let workspace = Workspace::new();
    let source = tree(&workspace).finish();
    let server = Server::start(&source);
    Client::pull(server.url(""), workspace.at("copy")).run().expect_exit(0);
    for (name, with) in WITH_SETUID {
        assert_eq!(mode(&workspace.at("copy").join(name)), with, "{name}");
    }
}

/// Nothing that is no file, directory or link is made or opened: who opens a pipe waits for ever.
#[test]
fn devices_and_pipes_are_named_and_neither_made_nor_opened() {
    let workspace = Workspace::new();
    let mut tree = Tree::new(&workspace.at("source"));
    tree.file("file", b"1").special("pipe", SFlag::S_IFIFO);
    let mut wanted = vec!["pipe"];
    if is_root() {
        tree.special("device", SFlag::S_IFCHR);
        wanted.insert(0, "device");
    }
    let source = tree.finish();
    let into = workspace.at("into");
    let server = server(&into, "");
    let push = Client::push(contents(&source), server.url("")).options("--json").run().expect_exit(0);
    let pull =
        Client::pull(Server::start(&source).url(""), workspace.at("copy")).options("--json").run().expect_exit(0);
    for (run, copy) in [(push, into), (pull, workspace.at("copy"))] {
        let mut skipped = run.paths_of("skipped");
        skipped.sort_unstable();
        assert_eq!(skipped, wanted);
        assert!(wanted.iter().all(|name| fs::symlink_metadata(copy.join(name)).is_err()));
        assert_eq!(fs::symlink_metadata(copy.join("file")).expect("copied").len(), 1);
    }
}

/// Attributes are not copied, and so none by which a file gets rights, in neither direction.
#[test]
fn attributes_of_security_modules_do_not_travel() {
    if !is_root() {
        return say_skipped("attributes of security modules are root's");
    }
    let workspace = Workspace::new();
    let source = Tree::new(&workspace.at("source")).file("file", b"1").finish();
    // cap_net_raw+ep, as `setcap` writes it: linux/capability.h, version 2.
    let set = "import os, sys\n\
               os.setxattr(sys.argv[1], 'security.capability', bytes([1,0,0,2,0,32,0,0]) + bytes(12))\n\
               os.setxattr(sys.argv[1], 'trusted.fastcp', b'1')";
    let done = Command::new("python3").args(["-c", set]).arg(source.join("file")).status().expect("run");
    if !done.success() {
        return say_skipped("the file system has no such attributes");
    }
    let into = workspace.at("into");
    let server = server(&into, "--allow-setuid");
    Client::push(contents(&source), server.url("")).run().expect_exit(0);
    Client::pull(Server::start(&source).url(""), workspace.at("copy")).run().expect_exit(0);
    for copy in [into, workspace.at("copy")] {
        let list = "import os, sys; print(os.listxattr(sys.argv[1]))";
        let listed = Command::new("python3").args(["-c", list]).arg(copy.join("file")).output().expect("run");
        assert_eq!(String::from_utf8_lossy(&listed.stdout).trim(), "[]");
        assert_eq!(fs::metadata(copy.join("file")).expect("copied").size(), 1);
    }
}
