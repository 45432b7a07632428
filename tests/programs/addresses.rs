//! Server and client take the same names and addresses.

use std::fs;

use crate::support::client::Client;
use crate::support::compare::assert_same;
use crate::support::server::Server;
use crate::support::tree::plain;
use crate::support::{Workspace, say_skipped};

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

#[test]
fn a_server_and_its_clients_agree_on_names_and_addresses() {
    let workspace = Workspace::new();
    let source = plain(&workspace.at("source"));
    for (nth, host) in ["127.0.0.1", "localhost", "::1", "[::1]"].into_iter().enumerate() {
        let typed = format!("{host} 0");
        let Some(server) = Server::try_start(&source, &typed) else {
            assert!(host.contains("::"), "{typed}");
            say_skipped("no IPv6 on loopback");
            continue;
        };
        let dialled = if host.contains("::") { "[::1]" } else { host };
        let port = server.port();
        let copy = workspace.at(&format!("copy {nth}"));
        Client::pull(format!("fcp://{dialled}:{port}"), &copy).run().expect_exit(0);
        assert_same(&source, &copy);
        let short = workspace.at(&format!("short {nth}"));
        let port = port.to_string();
        Client::new([short.as_os_str(), host.as_ref(), port.as_ref()]).run().expect_exit(0);
        assert_same(&source, &short);
    }
}

#[test]
fn get_takes_an_address_in_either_form() {
    let workspace = Workspace::new();
    fs::create_dir_all(workspace.at("source/dir")).expect("create");
    fs::write(workspace.at("source/dir/file"), b"bytes").expect("write");
    let server = Server::start(&workspace.at("source"));
    let (port, out) = (server.port(), workspace.at("out"));
    let out_word = out.to_str().expect("plain");
    for line in [
        format!("get fcp://127.0.0.1:{port}/dir/file {out_word}"),
        format!("get fcp://localhost:{port}/dir/file {out_word}"),
        format!("get localhost {port} dir/file {out_word}"),
        format!("get fcp://127.0.0.1 {port} dir/file {out_word}"),
    ] {
        Client::new(words(&line)).run().expect_exit(0);
        assert_eq!(fs::read(&out).expect("fetched"), b"bytes", "{line}");
        fs::remove_file(&out).expect("remove");
    }
}

#[test]
fn what_is_no_address_is_said_at_once() {
    let workspace = Workspace::new();
    let copy = workspace.at("copy");
    let copy = copy.to_str().expect("plain");
    for (line, message) in [
        (format!("pull rsync://host/module {copy}"), "rsync daemon"),
        (format!("pull host::module {copy}"), "rsync daemon"),
        (format!("pull http://host/ {copy}"), "http:// is not supported"),
        (format!("pull fcp://me@host {copy}"), "takes no user name"),
        (format!("pull fcp://host:99999 {copy}"), "port"),
        (format!("{copy} me@host 9999"), "takes no user name"),
        (format!("{copy} host:1 9999"), "given twice"),
        (format!("{copy} 9999 9999"), "a number alone is a port"),
        (format!("pull 127.0.0.1:5999/ {copy}"), "did you mean \"fcp://127.0.0.1:5999/\"?"),
        (format!("{copy} 127.0.0.1:5999"), "pull fcp://127.0.0.1:5999 "),
        ("get host 9999".to_owned(), "expected <HOST> <PORT> <PATH>"),
        ("get host 0 file".to_owned(), "PORT"),
        ("get fcp://host file out more".to_owned(), "PORT"),
    ] {
        let run = Client::new(words(&line)).run().expect_exit(1);
        assert!(run.stderr.contains(message), "{line}: {}", run.stderr);
    }
    assert!(!workspace.at("copy").exists());
}

#[test]
fn a_server_says_what_is_no_address_of_its_own() {
    let workspace = Workspace::new();
    let source = plain(&workspace.at("source"));
    for typed in [":0", "0", "localhost:0", "fcp://127.0.0.1:0"] {
        let server = Server::try_start(&source, typed).expect("a server that listens");
        assert!(server.address.ip().is_loopback(), "{typed}");
    }
    for typed in [
        "1.2.3 0",
        "--insecure 1.2.3 0",
        "99999",
        "no-such-host.invalid 0",
        "me@localhost 0",
        "localhost:1 2",
        "[::1 0",
    ] {
        assert!(Server::try_start(&source, typed).is_none(), "{typed}");
    }
}
