//! `push`: the client sends, and all that is told and done is what a pull of the same tree tells and does.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::client::{Client, Run, contents};
use crate::support::compare::{assert_rsync_agrees, assert_same, files_and_bytes, snapshot, walk};
use crate::support::journal::names_in_parts;
use crate::support::server::Server;
use crate::support::strace::Strace;
use crate::support::tree::{EVERYTHING_SPECIALS, Tree, everything, noise, plain, set_mtime, text};
use crate::support::way::{BOTH_WAYS, RECEIVES, Route, Way};
use crate::support::{Workspace, is_root};

/// What a run told, but for what depends on time and on who dialled: events in the order of their text, and the summary.
fn told(run: &Run) -> (Vec<String>, Value) {
    let mut events = run.events();
    let mut summary = events.pop().expect("a summary");
    let fields = summary.as_object_mut().expect("an object");
    for field in ["bytes_wire_in", "bytes_wire_out", "elapsed_ms", "limited_by"] {
        assert!(fields.remove(field).is_some(), "{field} is told");
    }
    let mut lines: Vec<String> =
        events.iter().filter(|event| event["event"] != "progress").map(ToString::to_string).collect();
    lines.sort();
    (lines, summary)
}

/// A source, and for each way a copy of it and a server.
struct Pair {
    source: PathBuf,
    ends: [(Route, Server, PathBuf); 2],
    _workspace: Workspace,
}

impl Pair {
    fn new(make: impl FnOnce(&Path) -> PathBuf) -> Self {
        let workspace = Workspace::new();
        let source = make(&workspace.at("source"));
        let ends = BOTH_WAYS.map(|way| {
            let route = Route::new(way, &source, &workspace);
            let server = route.serve();
            (route, server, workspace.at(&format!("{way:?}")))
        });
        Self { source, ends, _workspace: workspace }
    }

    fn copies(&self) -> [&Path; 2] {
        [&self.ends[0].2, &self.ends[1].2]
    }

    /// Runs both ways with the same options. Panics unless they tell the same; answers what the push told.
    fn run(&self, options: &str, exit: i32) -> Run {
        let [pull, push] = [0, 1].map(|nth| {
            let (route, server, copy) = &self.ends[nth];
            route.client(server.address, copy).options(options).run().expect_exit(exit)
        });
        assert_eq!(told(&push), told(&pull), "with {options}");
        push
    }

    /// Runs both ways, to tell people. Panics unless the lines are the same.
    fn run_in_text(&self, options: &str) -> Vec<String> {
        let [pull, push] = [0, 1].map(|nth| {
            let (route, server, copy) = &self.ends[nth];
            let mut lines = route.client_in_text(server.address, copy).options(options).run().expect_exit(0).lines;
            lines.sort();
            lines
        });
        assert_eq!(push, pull, "with {options}");
        push
    }

    fn assert_same(&self) {
        for copy in self.copies() {
            assert_same(&self.source, copy);
            assert_rsync_agrees(&self.source, copy);
            assert_eq!(names_in_parts(copy), Vec::<&Path>::new());
        }
    }
}

/// Changes a copy of [`everything`] in all the ways that a run puts right.
fn spoil(copy: &Path) {
    let at = |name: &str| copy.join(name);
    fs::write(at("many/17"), b"changed").expect("write");
    fs::write(at("sizes/noise-1048577"), noise(1_048_577, 77)).expect("write");
    set_mtime(&at("sizes/text-4096"), 5, 5);
    fs::set_permissions(at("names"), Permissions::from_mode(0o700)).expect("chmod");
    fs::remove_file(at("links/to file")).expect("remove");
    symlink("elsewhere", at("links/to file")).expect("link");
    fs::remove_file(at("many/18")).expect("remove");
    fs::create_dir(at("many/18")).expect("create");
    fs::create_dir_all(at("gone/below")).expect("create");
    fs::write(at("gone/below/file"), b"1").expect("write");
    fs::write(at("extra"), b"1").expect("write");
    fs::remove_dir_all(at("sparse")).expect("remove");
    // Times of directories are those of now, which differ from copy to copy only in what no line tells.
}

#[test]
fn a_tree_of_everything_arrives_as_by_a_pull_and_as_much_is_told() {
    let pair = Pair::new(|root| everything(root).finish());
    let (files, bytes) = files_and_bytes(&pair.source);
    let dry = pair.run("-n -i", 0).expect_counts(&[("files_committed", 0), ("bytes_fetched", 0)]);
    assert_eq!((dry.count("files_wanted"), dry.count("bytes_wanted")), (files, bytes));
    assert!(pair.copies().iter().all(|copy| !copy.exists()), "a dry run makes nothing");
    pair.run("-i", 0).expect_counts(&[
        ("files_committed", files),
        ("bytes_fetched", bytes),
        ("special_skipped", EVERYTHING_SPECIALS),
        ("files_failed", 0),
        ("reconnects", 0),
    ]);
    pair.assert_same();
    let rerun = pair.run("-i", 0).expect_counts(&[("bytes_fetched", 0), ("files_unchanged", files), ("dirs_made", 0)]);
    assert_eq!(rerun.paths_of("item"), Vec::<String>::new());
    pair.copies().into_iter().for_each(spoil);
    let before = pair.copies().map(snapshot);
    let dry = pair.run("-n -i --delete", 0).expect_counts(&[("bytes_fetched", 0), ("files_committed", 0)]);
    assert!(dry.count("deleted") == 4 && dry.count("files_wanted") > 4, "{:?}", dry.lines.last());
    assert_eq!(pair.copies().map(snapshot), before, "a dry run changes nothing");
    let run = pair.run("-i --delete", 0).expect_counts(&[("deleted", 4), ("files_failed", 0)]);
    assert_eq!(run.count("files_committed"), dry.count("files_wanted"));
    pair.assert_same();
}

#[test]
fn what_is_told_to_people_is_that_of_a_pull() {
    let pair = Pair::new(plain);
    for options in ["-n", "-n -v", "-n -i"] {
        let lines = pair.run_in_text(options);
        assert!(lines.iter().any(|line| line.ends_with("(dry run)")), "{lines:?}");
    }
    for (route, server, copy) in &pair.ends {
        let run = route.client_in_text(server.address, copy).options("-v").run().expect_exit(0);
        let (summary, names) = run.lines.split_last().expect("a summary");
        let done: Vec<_> = names.iter().filter_map(|line| line.split_once(" (")).collect();
        // What a receiver elsewhere counts may come later.
        let is_last = |far: &str| far.starts_with("4/4, ") || (route.way == Way::Push && far.starts_with("4/4+, "));
        assert!(done.iter().any(|(_, far)| is_last(far) && far.ends_with("/s)")), "{names:?}");
        let mut names: Vec<_> = names.iter().map(|line| line.split(" (").next().expect("a part")).collect();
        names.sort_unstable();
        let wanted = ["./", "empty", "link -> sub/text", "noise", "sub/", "sub/small", "sub/text"];
        assert_eq!(names, wanted, "{:?}", route.way);
        assert!(summary.starts_with("4 files copied, 1 link made, "), "{summary}");
        let word = if route.way == Way::Push { " sent in " } else { " fetched in " };
        assert!(summary.contains(word) && run.stderr.is_empty(), "{summary} {}", run.stderr);
    }
    pair.assert_same();
}

#[test]
fn every_option_travels_to_the_receiver() {
    let all = [
        "--durability none",
        "--durability batch",
        "--durability file",
        "--verify received",
        "--verify written",
        "--verify disk",
        "--inplace",
        "--whole-file",
        "--no-whole-file",
        "--conns 1",
        "--conns 8",
        "--conns 64",
        "--conns auto",
        "--chunk-kb 4",
        "--chunk-kb 64 --conns 64",
        "--chunk-kb 65536",
        "--no-compress",
        "--receive-path copy",
        "--receive-path splice --no-compress",
        "--backup-dir kept",
        "--delete --max-delete 100 --force-empty --backup-dir kept/deeper",
    ];
    let put = |root: &Path| {
        let mut tree = Tree::new(root);
        tree.dir("dir").file("dir/noise", &noise(3 << 20, 1)).file("dir/text", &text(2 << 20)).file("small", b"1");
        tree.sparse("sparse", 2 << 20, &[(1 << 20, b"island")]).link("link", "dir").dir("empty");
        tree.finish()
    };
    let pair = Pair::new(put);
    for options in all {
        for copy in pair.copies() {
            let _ = fs::remove_dir_all(copy);
        }
        pair.run(options, 0).expect_counts(&[("files_committed", 4), ("reconnects", 0)]);
        pair.assert_same();
    }
}

/// What options ask for is done where the files are written, as its system calls show.
#[test]
fn the_server_syncs_and_splices_as_the_client_was_told() {
    let Some(strace) = Strace::new() else { return };
    let workspace = Workspace::new();
    let mut tree = Tree::new(&workspace.at("source"));
    tree.file("large", &noise(4 << 20, 1)).file("small", b"small");
    let source = tree.finish();
    for (nth, (options, made, not_made)) in [
        ("--durability none", "", "sync"),
        ("--durability batch", "syncfs(", ""),
        ("--durability file", " fsync(", ""),
        ("--durability none --receive-path splice --no-compress", "splice(", "sync"),
        ("--durability none --receive-path copy --no-compress", "", "splice("),
    ]
    .into_iter()
    .enumerate()
    {
        let [root, log] = ["root", "log"].map(|name| workspace.at(&format!("{name} {nth}")));
        fs::create_dir(&root).expect("create");
        let calls = "fsync,fdatasync,syncfs,sync_file_range,splice";
        let strace = strace.clone().delays(calls, 1).logged_to(&log);
        let server = Server::start_strace(&root, &format!("127.0.0.1 0 {RECEIVES}"), &strace);
        Client::push(contents(&source), server.url("copy")).options(options).run().expect_exit(0);
        assert_same(&source, &root.join("copy"));
        drop(server);
        let log = fs::read_to_string(&log).expect("read the log");
        assert!(log.contains(made), "{options}: {log}");
        assert!(not_made.is_empty() || !log.contains(not_made), "{options}: {log}");
    }
}

#[test]
fn a_run_without_a_capability_brings_the_same() {
    let pair = Pair::new(|root| everything(root).finish());
    for bit in 0..9 {
        for copy in pair.copies() {
            let _ = fs::remove_dir_all(copy);
        }
        pair.run(&format!("--without {}", 1 << bit), 0).expect_counts(&[("reconnects", 0), ("files_failed", 0)]);
        for copy in pair.copies() {
            assert_same(&pair.source, copy);
        }
    }
    for copy in pair.copies() {
        let _ = fs::remove_dir_all(copy);
    }
    pair.run("--without 0x1ff", 0);
    pair.assert_same();
}

#[test]
fn compression_is_the_senders() {
    let workspace = Workspace::new();
    let mut tree = Tree::new(&workspace.at("source"));
    tree.file("text", &text(4 << 20));
    let source = tree.finish();
    fs::create_dir(workspace.at("root")).expect("create");
    let server = Server::start_receiving(&workspace.at("root"));
    for (nth, (options, is_compressed)) in
        [("--no-compress", false), ("--compress-level 19", true), ("--without 1", false)].into_iter().enumerate()
    {
        let to = server.url(&format!("copy {nth}"));
        let run = Client::push(contents(&source), to).options(options).run().expect_exit(0);
        let wire = run.count("bytes_wire_out");
        assert_eq!(wire < 1 << 20, is_compressed, "{wire} with {options}");
        assert!(run.count("bytes_wire_in") < 64 << 10, "nothing comes back but requests and reports");
    }
}

#[test]
fn other_names_of_the_commands_and_a_push_to_here_do_the_same() {
    let workspace = Workspace::new();
    let source = plain(&workspace.at("source"));
    fs::create_dir(workspace.at("root")).expect("create");
    let server = Server::start_receiving(&workspace.at("root"));
    let from = contents(&source);
    for word in ["push", "upload", "up"] {
        Client::new([word.as_ref(), from.as_os_str(), server.url(word).as_ref()]).run().expect_exit(0);
        assert_same(&source, &workspace.at("root").join(word));
        // To a local directory, it is a pull.
        for (nth, from) in [&from, &source].into_iter().enumerate() {
            let [pushed, pulled] = ["pushed", "pulled"].map(|name| workspace.at(&format!("{name} {word} {nth}")));
            let words = ["--json".as_ref(), "-i".as_ref(), from.as_os_str()];
            let push = Client::new([word.as_ref()].into_iter().chain(words)).words(&[&pushed]).run().expect_exit(0);
            let pull = Client::pull(from, &pulled).options("-i").run().expect_exit(0);
            assert_eq!(told(&push), told(&pull));
            let name = if nth == 0 { "" } else { "source" };
            assert_same(&source, &pushed.join(name));
            assert_same(&pulled.join(name), &pushed.join(name));
        }
    }
    let other = Server::start(&source);
    for word in ["pull", "download", "down"] {
        let copy = workspace.at(word);
        Client::new([word.as_ref(), other.url("").as_ref(), copy.as_os_str()]).run().expect_exit(0);
        assert_same(&source, &copy);
    }
}

/// The entries that are deleted by a push, and where they go.
#[test]
fn deletion_has_its_limits_as_in_a_pull() {
    let pair = Pair::new(plain);
    pair.run("", 0);
    let put_extra = |copy: &Path| {
        fs::create_dir_all(copy.join("gone/below")).expect("create");
        fs::write(copy.join("gone/below/file"), b"deep").expect("write");
        fs::write(copy.join("extra"), b"extra").expect("write");
    };
    pair.copies().into_iter().for_each(put_extra);
    let before = pair.copies().map(snapshot);
    let refused = pair.run("--delete --max-delete 3", 25).expect_counts(&[("deleted", 0)]);
    assert!(refused.stderr.contains("--max-delete"), "{}", refused.stderr);
    pair.run("--delete --max-delete 10%", 25).expect_counts(&[("deleted", 0)]);
    pair.run("-n -i --delete", 0).expect_counts(&[("deleted", 4)]);
    assert!(pair.copies().iter().all(|copy| copy.join("gone/below/file").exists() && copy.join("extra").exists()));
    pair.run("--delete --max-delete 4 --backup-dir kept", 0).expect_counts(&[("deleted", 4)]);
    for copy in pair.copies() {
        assert_eq!(fs::read(copy.join("kept/gone/below/file")).expect("kept"), b"deep");
        assert_eq!(fs::read(copy.join("kept/extra")).expect("kept"), b"extra");
    }
    pair.run("--delete", 0).expect_counts(&[("deleted", 0)]);
    drop(before);
    fs::remove_dir_all(&pair.source).expect("remove");
    fs::create_dir(&pair.source).expect("create");
    // The servers of pulls have the old directory open.
    let (route, server, copy) = &pair.ends[1];
    let run = |options: &str| route.client(server.address, copy).options(options).run();
    let refused = run("--delete").expect_exit(23).expect_counts(&[("deleted", 0)]);
    assert!(refused.events().iter().any(|event| event["reason"] == "empty source"), "{:?}", refused.lines);
    run("--delete --force-empty").expect_exit(0).expect_counts(&[("deleted", 6)]);
    assert_eq!(walk(copy).iter().filter(|path| !path.starts_with("kept")).count(), 0);
}

#[test]
fn in_place_a_file_keeps_its_inode() {
    let workspace = Workspace::new();
    let mut tree = Tree::new(&workspace.at("source"));
    let old = noise(9 << 20, 1);
    tree.file("file", &old);
    let source = tree.finish();
    let root = workspace.at("root");
    fs::create_dir(&root).expect("create");
    let server = Server::start_receiving(&root);
    let push = |options: &str| Client::push(contents(&source), server.url("copy")).options(options).run();
    push("").expect_exit(0).expect_counts(&[("bytes_fetched", 9 << 20)]);
    let inode = || fs::metadata(root.join("copy/file")).expect("examine").ino();
    let mut new = old;
    for (options, is_kept, is_reused) in
        [("--inplace", true, true), ("", false, true), ("--whole-file", false, false), ("--inplace -W", true, false)]
    {
        // One page of it.
        new[5 << 20..][..4096].iter_mut().for_each(|byte| *byte ^= 0x5a);
        fs::write(source.join("file"), &new).expect("write");
        let before = inode();
        let run = push(options).expect_exit(0).expect_counts(&[("files_committed", 1)]);
        assert_same(&source, &root.join("copy"));
        assert_eq!(inode() == before, is_kept, "{options}");
        let (fetched, reused) = (run.count("bytes_fetched"), run.count("bytes_reused"));
        assert_eq!(fetched + reused, 9 << 20, "{options}");
        assert_eq!(fetched < 256 << 10, is_reused, "{fetched} with {options}");
        let wire = run.count("bytes_wire_out");
        assert!(!is_reused || wire < 512 << 10, "{wire} went over the wire with {options}");
    }
}

#[test]
fn what_the_sender_may_not_read_fails_as_in_a_pull() {
    let workspace = Workspace::for_nobody();
    let mut tree = Tree::new(&workspace.at("source"));
    tree.dir("dir").file("dir/fine", b"1").file("secret", b"small").mode(0).file("large", &noise(3 << 20, 1)).mode(0);
    tree.dir("closed").mode(0).link("link", "dir").special("pipe", nix::sys::stat::SFlag::S_IFIFO);
    tree.give_to_nobody();
    let source = tree.finish();
    let server = Server::start_receiving(&workspace.at(""));
    let before = server.descriptors();
    let [pull, push] = [
        Client::pull(contents(&source), workspace.at("pulled")),
        Client::push(contents(&source), server.url("pushed")),
    ]
    .map(|client| client.options("--delete").unprivileged(&workspace).run().expect_exit(23));
    assert_eq!(push.paths_of("failed"), ["closed", "large", "secret"]);
    assert_eq!(told(&push), told(&pull));
    for path in ["dir/fine", "link"] {
        assert!(workspace.at("pushed").join(path).symlink_metadata().is_ok(), "{path}");
    }
    if is_root() {
        // Where it may be read, it arrives.
        Client::push(contents(&source), server.url("pushed")).run().expect_exit(0);
        assert_same(&source, &workspace.at("pushed"));
    }
    crate::support::wait_until("the descriptors to be given back", || server.descriptors() <= before);
    assert!(!server.log().contains("panicked"), "{}", server.log());
}
