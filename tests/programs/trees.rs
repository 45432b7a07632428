//! The main job, whole: the tree that holds everything arrives as it is, whatever the number of
//! connections, the compression, the receive path, the chunk size, the form of the source and the
//! user, and with any capability switched off.

use std::ffi::{OsStr, OsString};
use std::fs::Permissions;
use std::net::{Ipv6Addr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use crate::support::client::{Client, Run, contents};
use crate::support::compare::{assert_rsync_agrees, assert_same, differences, files_and_bytes};
use crate::support::server::Server;
use crate::support::tree::{EVERYTHING_SPECIALS, Tree, everything, plain, set_mtime};
use crate::support::way::{BOTH_WAYS, Route, Way};
use crate::support::{Workspace, say_skipped};

/// Every combination of options; half of them through a server, half through the embedded one, and one of them by a push
/// as well.
fn everything_over(conns: u16) {
    let workspace = Workspace::new();
    let source = everything(&workspace.at("source")).finish();
    let server = Server::start(&source);
    let mut nth = 0;
    let small = if conns == 1 || conns == 8 { "--chunk-kb 4" } else { "--chunk-kb 64" };
    for chunk in [small, ""] {
        for compress in ["", "--no-compress"] {
            for path in ["copy", "splice"] {
                let copy = workspace.at(&format!("copy {nth}"));
                let is_served = (nth + nth / 2 + usize::from(conns > 4)).is_multiple_of(2);
                let from = if is_served { OsString::from(server.url("")) } else { contents(&source).into() };
                let options = format!("--conns {conns} --receive-path {path} {chunk} {compress}");
                let run = Client::pull(from, &copy).options(&options).run().expect_exit(0);
                assert_everything_arrived(&run, &source, &copy);
                if nth == usize::from(conns % 7) {
                    let pushed = workspace.at("pushed");
                    let run = Route::new(Way::Push, &source, &workspace).bring(&pushed, &options).expect_exit(0);
                    assert_everything_arrived(&run, &source, &pushed);
                }
                nth += 1;
            }
        }
    }
}

fn assert_everything_arrived(run: &Run, source: &Path, copy: &Path) {
    assert_same(source, copy);
    assert_rsync_agrees(source, copy);
    let (files, bytes) = files_and_bytes(source);
    assert_eq!((run.count("files_committed"), run.count("bytes_fetched")), (files, bytes));
    assert_eq!((run.count("bytes_total"), run.count("files_failed")), (bytes, 0));
    assert_eq!((run.count("chunks_refetched"), run.count("reconnects")), (0, 0));
    assert_eq!(run.count("special_skipped"), EVERYTHING_SPECIALS);
    assert_eq!(run.paths_of("skipped"), ["specials/pipe", "specials/socket"]);
}

#[test]
fn everything_over_1_connection() {
    everything_over(1);
}

#[test]
fn everything_over_4_connections() {
    everything_over(4);
}

#[test]
fn everything_over_8_connections() {
    everything_over(8);
}

#[test]
fn everything_over_64_connections() {
    everything_over(64);
}

#[test]
fn everything_over_as_many_connections_as_throughput_says() {
    let workspace = Workspace::new();
    let source = everything(&workspace.at("source")).finish();
    let server = Server::start_with(&source, "127.0.0.1 0 --conns 3");
    let copy = workspace.at("copy");
    let run = Client::pull(server.url(""), &copy).options("--conns auto").run().expect_exit(0);
    assert_everything_arrived(&run, &source, &copy);
    assert_eq!(run.count("reconnects"), 0);
}

/// Longer than what is confirmed at a time, in chunks that do not divide that.
#[test]
fn chunks_of_any_size_make_a_large_file() {
    let workspace = Workspace::new();
    let source = workspace.at("source");
    std::fs::create_dir(&source).expect("create");
    let file = std::fs::File::create(source.join("large")).expect("create");
    file.set_len((1 << 30) + (90 << 20)).expect("make sparse");
    std::os::unix::fs::FileExt::write_all_at(&file, b"across the border", (1 << 30) - 8).expect("write");
    for (way, chunk_kb, without) in [(Way::Pull, 5000, "0"), (Way::Pull, 7000, "0x10"), (Way::Push, 7000, "0")] {
        let copy = workspace.at(&format!("{way:?} {chunk_kb}"));
        let options = format!("--chunk-kb {chunk_kb} --conns 2 --without {without}");
        let run = Route::new(way, &source, &workspace).bring(&copy, &options).expect_exit(0);
        run.expect_counts(&[("files_committed", 1), ("bytes_fetched", (1 << 30) + (90 << 20))]);
        assert_same(&source, &copy);
    }
}

#[test]
fn any_capability_can_be_switched_off() {
    let workspace = Workspace::new();
    let source = everything(&workspace.at("source")).finish();
    let server = Server::start(&source);
    for bits in ["0x1", "0x2", "0x4", "0x10", "0x40", "0x80", "0x100", "0xffffffff"] {
        let copy = workspace.at(bits);
        let options = format!("--without {bits} --conns 3");
        let run = Client::pull(server.url(""), &copy).options(&options).run().expect_exit(0);
        assert_everything_arrived(&run, &source, &copy);
        Client::pull(server.url(""), &copy).options(&options).run().expect_exit(0).expect_counts(&[
            ("bytes_fetched", 0),
            ("files_committed", 0),
            ("links_made", 0),
            ("dirs_made", 0),
        ]);
    }
}

#[test]
fn compression_saves_bytes_on_the_wire_and_only_where_it_is_wanted() {
    let workspace = Workspace::new();
    let mut tree = Tree::new(&workspace.at("source"));
    tree.file("text", &crate::support::tree::text(2 << 20));
    let source = tree.finish();
    let server = Server::start_with(&source, "127.0.0.1 0 --compress-level 3");
    let wire_in = |options: &str, copy: &str| {
        let run = Client::pull(server.url(""), workspace.at(copy)).options(options).run().expect_exit(0);
        assert_same(&source, &workspace.at(copy));
        assert_eq!(run.count("bytes_fetched"), 2 << 20);
        run.count("bytes_wire_in")
    };
    assert!(wire_in("", "compressed") < 1 << 20);
    assert!(wire_in("--no-compress", "as it is") > 2 << 20);
    assert!(wire_in("--without 1", "not agreed") > 2 << 20);
    let refusing = Server::start_with(&source, "127.0.0.1 0 --no-compress");
    let run = Client::pull(refusing.url(""), workspace.at("refused")).run().expect_exit(0);
    assert!(run.count("bytes_wire_in") > 2 << 20);
}

#[test]
fn holes_are_not_sent() {
    for way in BOTH_WAYS {
        let workspace = Workspace::new();
        let route = Route::of(way, &workspace, |tree| _ = tree.sparse("sparse", 64 << 20, &[(32 << 20, b"island")]));
        let source = &route.source;
        if source.join("sparse").metadata().expect("examine").blocks() > 1024 {
            return say_skipped("this file system keeps no holes");
        }
        let copy = workspace.at("copy");
        let run = route.bring(&copy, "--no-compress").expect_exit(0);
        assert_same(source, &copy);
        let wire = run.count("bytes_wire_in") + run.count("bytes_wire_out");
        assert!(wire < 4 << 20, "{wire} bytes on the wire");
    }
}

#[test]
fn an_unprivileged_user_gets_everything_as_well() {
    let workspace = Workspace::for_nobody();
    let mut tree = everything(&workspace.at("source"));
    tree.give_to_nobody();
    let source = tree.finish();
    let server = Server::start(&source);
    for (nth, options) in [
        "--conns 1 --receive-path splice --no-compress",
        "--conns 4 --receive-path copy",
        "--conns 8 --receive-path copy --no-compress --chunk-kb 4",
        "--conns 64 --receive-path splice --chunk-kb 64",
    ]
    .into_iter()
    .enumerate()
    {
        for from in [contents(&source).into_os_string(), server.url("").into()] {
            let copy = workspace.at(&format!("copy {nth} {}", from.len()));
            let pull = || Client::pull(&from, &copy).options(options).unprivileged(&workspace).run().expect_exit(0);
            assert_everything_arrived(&pull(), &source, &copy);
            let rerun = pull().expect_counts(&[("bytes_fetched", 0), ("files_committed", 0), ("links_made", 0)]);
            assert_eq!(rerun.count("files_unchanged"), files_and_bytes(&source).0);
            assert_same(&source, &copy);
        }
    }
}

#[test]
fn what_an_unprivileged_user_cannot_read_is_named_and_the_rest_arrives() {
    let workspace = Workspace::for_nobody();
    let mut tree = Tree::new(&workspace.at("source"));
    tree.file("readable", b"yes").dir("dir").file("dir/unreadable", b"no").mode(0).file("dir/beside", b"yes");
    tree.file("large", &crate::support::tree::noise(3 << 20, 1)).mode(0);
    tree.dir("closed").mode(0).file("closed/within", b"no");
    tree.give_to_nobody();
    let source = tree.finish();
    let copy = workspace.at("copy");
    let run = Client::pull(contents(&source), &copy).unprivileged(&workspace).run().expect_exit(23);
    assert_eq!(run.paths_of("failed"), ["closed", "dir/unreadable", "large"]);
    assert_eq!((run.count("files_failed"), run.count("files_committed")), (3, 2));
    for name in ["closed", "dir/unreadable", "large"] {
        let is_named = run.stderr.lines().any(|line| line.contains(name) && line.contains("permission denied"));
        assert!(is_named, "{name} in:\n{}", run.stderr);
    }
    assert_eq!(std::fs::read(copy.join("readable")).expect("arrived"), b"yes");
    assert_eq!(std::fs::read(copy.join("dir/beside")).expect("arrived"), b"yes");
    assert!(!copy.join("dir/unreadable").exists() && !copy.join("large").exists());
}

#[test]
fn a_closing_slash_means_what_rsync_means_by_it() {
    let workspace = Workspace::new();
    let source = plain(&workspace.at("source"));
    let server = Server::start(&source);
    let pull = |from: &OsStr, copy: &Path| {
        Client::pull(from, copy).run().expect_exit(0);
    };
    let copy = |name: &str| workspace.at(name);
    pull(contents(&source).as_os_str(), &copy("contents"));
    assert_same(&source, &copy("contents"));
    pull(source.as_os_str(), &copy("itself"));
    assert_same(&source, &copy("itself/source"));
    pull(source.join("noise").as_os_str(), &copy("one file"));
    assert_same(&source.join("noise"), &copy("one file/noise"));
    pull(source.join("link").as_os_str(), &copy("one link"));
    assert_same(&source.join("link"), &copy("one link/link"));
    for (path, arrived) in [("", ""), ("sub", "sub"), ("sub/", ""), ("sub/text", "text"), ("link", "link")] {
        let into = copy(&format!("served {}", path.replace('/', "-")));
        pull(server.url(path).as_ref(), &into);
        let wanted = if path.is_empty() { source.clone() } else { source.join(path.trim_end_matches('/')) };
        let got = if arrived.is_empty() { into.clone() } else { into.join(arrived) };
        assert_same(&wanted, &got);
        let names = std::fs::read_dir(&into).expect("read").map(|entry| entry.expect("entry").file_name());
        let only = names.filter(|name| name != ".fastcp").count();
        assert!(arrived.is_empty() || only == 1, "nothing but {arrived}");
    }
}

#[test]
fn the_short_form_copies_the_contents() {
    let workspace = Workspace::new();
    let source = plain(&workspace.at("source"));
    let server = Server::start(&source);
    let (copy, port) = (workspace.at("copy"), server.port().to_string());
    let words = [copy.as_os_str(), "127.0.0.1".as_ref(), port.as_ref(), "--json".as_ref()];
    Client::new(words).run().expect_exit(0);
    assert_same(&source, &copy);
}

#[test]
fn addresses_of_ipv6_have_brackets() {
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        return say_skipped("no IPv6 here");
    }
    let workspace = Workspace::new();
    let source = plain(&workspace.at("source"));
    let server = Server::start_with(&source, "::1 0");
    Client::pull(server.url("sub/"), workspace.at("copy")).run().expect_exit(0);
    assert_same(&source.join("sub"), &workspace.at("copy"));
    let (short, port) = (workspace.at("short"), server.port().to_string());
    Client::new([short.as_os_str(), "[::1]".as_ref(), port.as_ref()]).run().expect_exit(0);
    assert_same(&source, &short);
}

#[test]
fn the_state_of_a_destination_is_not_offered_when_it_becomes_a_source() {
    let workspace = Workspace::new();
    let source = plain(&workspace.at("source"));
    let first = workspace.at("first");
    Client::pull(contents(&source), &first).options("--chunk-kb 4").run().expect_exit(0);
    std::fs::create_dir_all(first.join(".fastcp")).expect("create");
    std::fs::write(first.join(".fastcp/state"), b"of the first").expect("write");
    set_mtime(&first, 1_600_000_000, 123_456_789);
    let second = workspace.at("second");
    Client::pull(contents(&first), &second).run().expect_exit(0);
    assert!(!second.join(".fastcp/state").exists());
    assert_same(&source, &second);
}

#[test]
fn the_comparer_of_these_tests_notices_any_difference() {
    let workspace = Workspace::new();
    let source = everything(&workspace.at("source")).finish();
    type Change = fn(&Path);
    let changes: [(&str, Change); 8] = [
        ("bytes", |copy| std::fs::write(copy.join("many/7"), b"file 8").expect("write")),
        ("mode", |copy| std::fs::set_permissions(copy.join("many/7"), Permissions::from_mode(0o640)).expect("chmod")),
        ("mtime", |copy| set_mtime(&copy.join("empty"), 1_600_000_000, 1)),
        ("mtime", |copy| set_mtime(&copy.join("links/dangling"), 1_600_000_000, 1)),
        ("missing", |copy| std::fs::remove_file(copy.join("names/.hidden")).expect("remove")),
        ("too much", |copy| std::fs::write(copy.join("names/more"), b"").expect("write")),
        ("room", |copy| std::fs::write(copy.join("sparse/all hole"), vec![0; 3 << 20]).expect("write")),
        ("became", |copy| {
            std::fs::remove_file(copy.join("many/7")).expect("remove");
            std::fs::create_dir(copy.join("many/7")).expect("create");
        }),
    ];
    for (nth, (what, change)) in changes.into_iter().enumerate() {
        let copy = workspace.at(&format!("copy {nth}"));
        Client::pull(contents(&source), &copy).run().expect_exit(0);
        change(&copy);
        let found = differences(&source, &copy);
        assert!(found.iter().any(|line| line.contains(what)), "{what} in {found:?}");
    }
}
