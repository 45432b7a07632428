//! What the system gives a process, and runs that get by with little of it: a transfer with few descriptors is
//! slower and as right as any other, and nothing that ran out is ever a file's failure.

use std::path::{Path, PathBuf};

use std::process::{Command, Stdio};

use crate::support::client::{Client, Run, contents};
use crate::support::compare::assert_same;
use crate::support::launch::{Launch, is_everywhere};
use crate::support::server::Server;
use crate::support::tree::{Tree, noise};
use crate::support::way::{BOTH_WAYS, RECEIVES, Route, Way};
use crate::support::{Workspace, say_skipped};

/// The codes that a run may end with where the system allows it little: done, no socket, too little of something.
const CODES: [i32; 3] = [0, 10, 22];

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
    // Some programs run in a name space where there is no root.
    tree.give_to_nobody();
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
        let restriction = format!("descriptors={limit}");
        for (form, from) in [("served", server.url("").into()), ("embedded", contents(&source))] {
            if form == "embedded" && limit < 40 {
                continue;
            }
            let copy = workspace.at(&format!("copy {limit} {form}"));
            let client = Client::pull(from, &copy).options(&format!("--conns {conns} --chunk-kb 64"));
            let run = client.restricted(&restriction).run().expect_exit(0);
            assert_same(&source, &copy);
            expect_told_once(&run, &format!("open files are limited to {limit}"));
        }
    }
}

/// A server keeps half of what it has for others than the one that pushes.
#[test]
fn many_connections_to_a_receiver_with_few_descriptors() {
    let workspace = Workspace::new();
    let source = small_and_large(&workspace.at("source"), 400, 40);
    for (limit, conns) in [(64, 16), (256, 64), (40, 4)] {
        let copy = workspace.at(&format!("copy {limit}"));
        let route = Route::new(Way::Push, &source, &workspace).receiver_restricted(&format!("descriptors={limit}"));
        route.bring(&copy, &format!("--conns {conns} --chunk-kb 64")).expect_exit(0);
        assert_same(&source, &copy);
    }
}

#[test]
fn many_directories_and_few_descriptors() {
    let workspace = Workspace::new();
    let source = directories(&workspace.at("source"), 3000);
    for way in BOTH_WAYS {
        let server = Server::start(&source);
        let copy = workspace.at(&format!("copy {way:?}"));
        let bring = |options: &str, restriction: &str| {
            let route = Route::new(way, &source, &workspace).receiver_restricted(restriction);
            let receiver = route.serve();
            route.client(receiver.address, &copy).options(options).run().expect_exit(0)
        };
        bring("", "descriptors=512");
        assert_same(&source, &copy);
        bring("--delete", "descriptors=64");
        Client::verify(&copy, server.url("")).restricted("descriptors=64").run().expect_differences(&[]);
    }
}

/// A chain of directories that is longer than there are descriptors.
#[test]
fn a_deep_tree_goes_with_few_descriptors() {
    for way in BOTH_WAYS {
        let workspace = Workspace::new();
        let mut tree = Tree::new(&workspace.at("source"));
        let mut path = String::from("deep");
        for level in 0..100 {
            tree.dir(&path).file(format!("{path}/file"), b"here");
            path += &format!("/level {level}");
        }
        let source = tree.file("stays", b"there").finish();
        let copy = workspace.at("copy");
        let route = Route::new(way, &source, &workspace).receiver_restricted("descriptors=64");
        route.bring(&copy, "--delete").expect_exit(0);
        assert_same(&source, &copy);
        std::fs::remove_dir_all(source.join("deep")).expect("remove");
        route.bring(&copy, "--delete").expect_exit(0).expect_counts(&[("deleted", 200)]);
        assert!(!copy.join("deep").exists());
    }
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
        assert!(!run.stderr.contains("nothing received for"), "{}", run.stderr);
        assert_same(&source, &copy);
    }
}

/// What a user of a name space of its own may have of threads: others of the machine do not count.
fn threads_max(count: u32) -> Vec<String> {
    ["unshare", "--user", "--map-current-user", "prlimit", &format!("--nproc={count}")].map(str::to_owned).to_vec()
}

fn can_limit_threads() -> bool {
    let words = threads_max(9);
    let status = Command::new(&words[0]).args(&words[1..]).arg("true").stderr(Stdio::null()).status();
    let can = status.is_ok_and(|status| status.success());
    let can = can && !is_everywhere("no-proc");
    if !can {
        say_skipped("no name space of users can be made here");
    }
    can
}

/// Whatever a limit hits, a run ends as it should: with a code of the table and no panic, and, where it says that
/// all was done, with the right tree.
fn expect_sound(run: &Run, what: &str, source: &Path, copy: &Path) {
    assert!(!run.stderr.contains("panicked"), "{what}: {}", run.stderr);
    assert!(
        run.code.is_some_and(|code| CODES.contains(&code)),
        "{what}: {:?} {} {:?}",
        run.code,
        run.stderr,
        run.lines
    );
    if run.code == Some(0) {
        assert_same(source, copy);
    }
}

/// Runs each kind of client under the restriction that `restrict` gives it. Those of `enough` must succeed.
fn sweep(workspace: &Workspace, limits: &[u32], enough: u32, restrict: impl Fn(Client, u32) -> Client) {
    let source = small_and_large(&workspace.at("source"), 60, 4);
    let whole = workspace.at("whole");
    Client::pull(contents(&source), &whole).run().expect_exit(0);
    let server = Server::start(&source);
    for &limit in limits {
        let copy = |kind: &str| workspace.at(&format!("copy {kind} {limit}"));
        let options = "--conns 8 --retry 3";
        let runs = [
            ("pull", Client::pull(server.url(""), copy("pull")), &source, copy("pull")),
            ("embedded", Client::pull(contents(&source), copy("embedded")), &source, copy("embedded")),
            ("verify", Client::verify(&whole, server.url("")), &source, whole.clone()),
        ];
        for (kind, client, source, copy) in runs {
            let run = restrict(client.options(options), limit).run();
            expect_sound(&run, &format!("{kind} {limit}"), source, &copy);
            assert!(limit < enough || run.code == Some(0), "{kind} {limit}: {:?} {}", run.code, run.stderr);
        }
        let out = copy("got");
        let run = restrict(Client::get(server.port(), "large 1", &out).options("--retry 3"), limit).run();
        assert!(run.code.is_some_and(|code| CODES.contains(&code)), "get {limit}: {:?} {}", run.code, run.stderr);
        assert!(!run.stderr.contains("panicked"), "get {limit}: {}", run.stderr);
        if run.code == Some(0) {
            let [got, wanted] = [&out, &source.join("large 1")].map(|path| std::fs::read(path).expect("read"));
            assert_eq!(got, wanted);
        }
    }
}

#[test]
fn every_number_of_descriptors() {
    let limits = [8, 10, 12, 14, 16, 17, 18, 20, 22, 24, 28, 32, 40, 56, 80, 128, 200, 300];
    sweep(&Workspace::new(), &limits, 24, |client, limit| client.restricted(&format!("descriptors={limit}")));
}

#[test]
fn every_amount_of_memory() {
    let limits = [40, 48, 56, 64, 80, 100, 125, 150, 200, 300];
    sweep(&Workspace::new(), &limits, 64, |client, limit| client.restricted(&format!("memory={limit}")));
}

#[test]
fn every_number_of_threads() {
    if !can_limit_threads() {
        return;
    }
    let workspace = Workspace::for_nobody();
    sweep(&workspace, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 16, 24, 40], 12, |client, limit| {
        let words = threads_max(limit);
        client.unprivileged(&workspace).under(&words.iter().map(String::as_str).collect::<Vec<_>>())
    });
}

/// A server that starts serves; one that cannot says so.
#[test]
fn a_server_under_every_limit() {
    let workspace = Workspace::new();
    let source = small_and_large(&workspace.at("source"), 60, 4);
    let restrictions = [
        "descriptors=10",
        "descriptors=16",
        "descriptors=20",
        "descriptors=40",
        "memory=40",
        "memory=64",
        "memory=150",
    ];
    for (number, restriction) in restrictions.into_iter().enumerate() {
        let mut launch = Launch::default();
        launch.restrict(restriction);
        let copy = workspace.at(&format!("copy {number}"));
        let Some(server) = Server::try_launch(&workspace.at(""), &format!("127.0.0.1 0 {RECEIVES}"), &launch) else {
            let program = env!("CARGO_BIN_EXE_fastcp-server");
            let ended = launch.command(program.as_ref()).arg(&source).arg("127.0.0.1").arg("0").output();
            let ended = ended.expect("it runs");
            assert_eq!(ended.status.code(), Some(22), "{restriction}: {}", String::from_utf8_lossy(&ended.stderr));
            continue;
        };
        let options = "--conns 8 --retry 20";
        let run = Client::pull(server.url("source/"), &copy).options(options).run().expect_exit(0);
        expect_sound(&run, restriction, &source, &copy);
        let pushed = format!("pushed {number}");
        let run = Client::push(contents(&source), server.url(&pushed)).options(options).run();
        let is_enough = ["descriptors=40", "memory=150"].contains(&restriction);
        // Where it can never be done that is said, and not waited for.
        assert_eq!(run.code, Some(if is_enough { 0 } else { 22 }), "{restriction}: {run:?}");
        let limited = run.events().iter().filter(|event| event["event"] == "limited").count();
        assert_eq!(limited, usize::from(is_enough), "{restriction}: {run:?}");
        assert!(!server.log().contains("panicked"), "{restriction}: {}", server.log());
        if is_enough {
            assert_same(&source, &workspace.at(&pushed));
        }
    }
}

/// Clients may have more connections than a server has threads for them.
#[test]
fn a_server_with_few_threads() {
    if !can_limit_threads() {
        return;
    }
    let workspace = Workspace::new();
    let source = small_and_large(&workspace.at("source"), 100, 4);
    for threads in [7, 12] {
        let mut words = threads_max(threads);
        if crate::support::is_root() {
            let user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"].map(str::to_owned);
            words = user.into_iter().chain(words).collect();
        }
        let mut launch = Launch::default();
        launch.set_under(words);
        let Some(server) = Server::try_launch(&source, "127.0.0.1 0", &launch) else {
            return say_skipped("an unprivileged user cannot reach the program");
        };
        let copy = workspace.at(&format!("copy {threads}"));
        Client::pull(server.url(""), &copy).options("--conns 16").run().expect_exit(0);
        assert_same(&source, &copy);
    }
}
