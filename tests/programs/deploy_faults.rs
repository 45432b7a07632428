//! What can go wrong while a program is sent to a host, and who may not meddle with it.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

use crate::deploy::{BARE, SENDING, cached, deploying, expect_sent, hosts, hosts_by, names_in, small_program};
use crate::remote_faults::expect_told;
use crate::support::client::Client;
use crate::support::compare::assert_same;
use crate::support::road::{LOGIN, Road};
use crate::support::tree::plain;
use crate::support::{NOBODY, is_root, say_skipped, wait_until};

/// How much of the program arrives where its way is cut.
const ARRIVING_BYTES: u64 = 3_000_000;

/// A login whose input goes through this.
fn through(filter: &str) -> String {
    format!("{BARE}\n{{ {filter}; }} | sh -c \"${{SSH_ORIGINAL_COMMAND:-$*}}\"")
}

/// Panics unless nothing is left of a program, and the next run brings one.
fn expect_nothing_kept(road: &Road) {
    wait_until("the far end to clean up", || cached(road).is_empty());
    road.set_script(&format!("{BARE}\n{LOGIN}"));
    let copy = road.workspace.at("copy");
    expect_sent(&deploying(road, Client::pull("far:tree/", &copy)).run().expect_exit(0), 1);
    assert_same(&road.home().join("tree"), &copy);
    assert_eq!(cached(road).len(), 1);
}

#[test]
fn a_program_that_arrives_cut_or_changed_is_not_kept() {
    let cut = format!("stdbuf -o0 head -c {ARRIVING_BYTES}");
    let changed = format!("stdbuf -o0 head -c {ARRIVING_BYTES}; head -c 8 >/dev/null; printf OTHERWIS; cat");
    for filter in [cut, changed] {
        for road in Road::both_by(&through(&filter)) {
            plain(&road.home().join("tree"));
            let run = deploying(&road, Client::pull("far:tree/", road.workspace.at("copy"))).run();
            expect_told(run, 12, "the program did not arrive at far as it was sent; nothing of it was kept");
            assert!(!road.workspace.at("config/fastcp/deployed_hosts").exists());
            expect_nothing_kept(&road);
        }
    }
}

#[test]
fn a_client_that_is_killed_half_way_leaves_no_program() {
    for road in Road::both_by(&through(&format!("stdbuf -o0 head -c {ARRIVING_BYTES}; cat >/dev/null"))) {
        plain(&road.home().join("tree"));
        let client = deploying(&road, Client::pull("far:tree/", road.workspace.at("copy"))).start();
        let arrived = || {
            let sizes = cached(&road).into_iter().filter_map(|path| fs::metadata(path).ok());
            sizes.map(|metadata| metadata.len()).sum::<u64>() > ARRIVING_BYTES / 2
        };
        wait_until("a part of the program", arrived);
        let is_part = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("part."));
        assert!(cached(&road).iter().all(|path| is_part(path)), "{:?}", cached(&road));
        client.kill();
        expect_nothing_kept(&road);
    }
}

#[test]
fn a_login_that_ends_half_way_is_told() {
    for road in Road::both_by(&format!("{BARE}\n(sleep 1000 & echo; echo 'fastcp-deploy 1 need x86_64'; kill $!)")) {
        let run = deploying(&road, Client::pull("far:tree/", road.workspace.at("copy"))).run();
        expect_told(run, 12, "the connection to far ended while fastcp was being sent; nothing of it was kept");
    }
}

#[test]
fn two_clients_may_send_it_at_once() {
    for road in hosts() {
        let source = plain(&road.home().join("tree"));
        let copies = ["one", "two", "three"].map(|name| road.workspace.at(name));
        let clients = copies.each_ref().map(|copy| deploying(&road, Client::pull("far:tree/", copy)).start());
        for (client, copy) in clients.into_iter().zip(&copies) {
            client.finish().expect_exit(0);
            assert_same(&source, copy);
        }
        assert_eq!(cached(&road).len(), 1);
        assert_eq!(
            fs::read_to_string(road.workspace.at("config/fastcp/deployed_hosts")).expect("kept").lines().count(),
            1
        );
    }
}

#[test]
fn a_processor_of_another_kind_is_told() {
    for road in
        hosts_by("mkdir bin; printf '#!/bin/sh\\necho vax\\n' >bin/uname; chmod +x bin/uname; PATH=$HOME/bin:$PATH")
    {
        let run = deploying(&road, Client::pull("far:tree/", road.workspace.at("copy"))).run();
        assert!(run.stderr.contains("--deploy-bin FILE") && !run.stderr.contains(SENDING), "{}", run.stderr);
        expect_told(run, 3, "far has another kind of processor (vax) than");
        wait_until("the far end to clean up", || cached(&road).is_empty());
    }
}

/// A copy of the client that asks for a loader which no host has.
fn without_loader(road: &Road) -> std::path::PathBuf {
    let mut bytes = fs::read(small_program()).expect("read");
    let loader = b"/lib64/ld-linux";
    if let Some(at) = bytes.windows(loader.len()).position(|window| window == loader) {
        bytes[at..at + loader.len()].copy_from_slice(b"/lib64/no-linux");
    }
    let path = road.workspace.at("program");
    fs::write(&path, bytes).expect("write");
    path
}

#[test]
fn a_program_that_does_not_run_there_is_not_kept() {
    for road in hosts() {
        plain(&road.home().join("tree"));
        let pull = |program: &Path| {
            let client = road.plain_client(Client::pull("far:tree/", road.workspace.at("copy")));
            client.words(&["--deploy-bin".as_ref(), program.as_os_str()]).run()
        };
        if cfg!(all(target_arch = "x86_64", not(target_feature = "crt-static"))) {
            let run = pull(&without_loader(&road));
            assert!(run.stderr.contains("./static") && run.stderr.contains("(127 "), "{}", run.stderr);
            expect_told(run, 3, "does not run on far");
        }
        for (program, code, message) in [
            ("/bin/false", 3, "\"/bin/false\" does not run on far (1 )"),
            ("/bin/true", 3, "the program that was sent to far did not begin a session (exit code 0)"),
            ("/etc/passwd", 1, "\"/etc/passwd\", which is to be sent, is no program"),
            ("/", 11, "cannot read \"/\", which is to be sent: Is a directory"),
            ("/nowhere/fastcp", 11, "cannot read \"/nowhere/fastcp\", which is to be sent: No such file or directory"),
        ] {
            expect_told(pull(Path::new(program)), code, message);
        }
        assert!(!road.workspace.at("config/fastcp/deployed_hosts").exists());
        // One of them runs, whatever it does.
        assert_eq!(cached(&road).len(), 1);
    }
}

#[test]
fn a_login_without_a_shell_is_told() {
    for (script, message) in [
        ("exit 127", "far has no shell (sh) that could take a program; install fastcp-server there"),
        (
            "echo 'This account is not available.'; exit 1",
            "far does not let a login run the commands that take a program (exit code 1)",
        ),
        ("exit 255", "the remote shell could not reach far"),
        ("exec yes", "far does not let a login run the commands that take a program"),
    ] {
        // Of one that is ended for what it prints ssh says no more than that.
        let roads = Road::both_by(script).filter(|road| road.sshd.is_none() || !script.ends_with("yes"));
        for road in roads {
            let code = if script.ends_with("255") { 35 } else { 3 };
            expect_told(deploying(&road, Client::pull("far:tree/", road.workspace.at("copy"))).run(), code, message);
        }
    }
}

/// A login in whose home no program can be run, and that has a `/var/tmp` of its own.
const NOEXEC: &str = "exec unshare --mount --propagation slave sh -c '
    mount --bind \"$HOME\" \"$HOME\" && mount -o remount,bind,noexec \"$HOME\" && mount --bind ../var /var/tmp || exit 9
    exec sh -c \"$0\"' \"${SSH_ORIGINAL_COMMAND:-$*}\"";

/// A host whose home takes no programs. Others can write to `var`, which is its `/var/tmp`, and `tmp`, as they can everywhere.
fn noexec_host() -> Option<Road> {
    let apart = Command::new("unshare").args(["--mount", "sh", "-c", "mount --bind /var /var"]).output();
    if !is_root() || !apart.is_ok_and(|output| output.status.success()) {
        say_skipped("no mounts of its own can be had here");
        return None;
    }
    let road = Road::piped_by(&format!("{BARE}; XDG_RUNTIME_DIR=$HOME/../run; export XDG_RUNTIME_DIR\n{NOEXEC}"));
    plain(&road.home().join("tree"));
    for (name, mode) in [("var", 0o1777), ("tmp", 0o1777), ("run", 0o700)] {
        fs::create_dir(road.workspace.at(name)).expect("make");
        fs::set_permissions(road.workspace.at(name), Permissions::from_mode(mode)).expect("chmod");
    }
    Some(road)
}

#[test]
fn where_home_takes_no_programs_another_directory_does() {
    let Some(road) = noexec_host() else { return };
    for times in [1, 0] {
        let run = deploying(&road, Client::pull("far:tree/", road.workspace.at("copy"))).run().expect_exit(0);
        expect_sent(&run, times);
    }
    assert!(cached(&road).is_empty());
    assert_eq!(names_in(&road.workspace.at("var/fastcp-0")).len(), 1);
    let mode = fs::metadata(road.workspace.at("var/fastcp-0")).expect("there").permissions().mode();
    assert_eq!(mode & 0o7777, 0o700);
}

/// What another user, or a user who was careless, has put where the directory would be.
#[derive(Debug, Clone, Copy)]
enum Planted {
    OfAnother,
    Link,
    Writable,
    InOpenDirectory,
    /// What is above is dealt with elsewhere.
    Below,
    ProgramOfAnother,
}

fn plant(road: &Road, name: &str, planted: Planted) {
    let dir = road.workspace.at(name).join("fastcp-0");
    let elsewhere = road.workspace.at(&format!("elsewhere {name}"));
    let at = if matches!(planted, Planted::Link) { &elsewhere } else { &dir };
    fs::create_dir(at).expect("make");
    fs::set_permissions(at, Permissions::from_mode(0o700)).expect("chmod");
    let sum = Command::new("sha256sum").arg(small_program()).output().expect("sha256sum runs").stdout;
    let hash = String::from_utf8(sum).expect("text")[..64].to_owned();
    let (program, text) =
        (at.join(format!("fastcp-{hash}")), format!("#!/bin/sh\necho >>'{}'\n", road.workspace.at("run by").display()));
    fs::write(&program, text).expect("write");
    fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("chmod");
    match planted {
        Planted::OfAnother => chown(&dir, Some(NOBODY), None).expect("chown"),
        Planted::Link => symlink(&elsewhere, &dir).expect("make a link"),
        Planted::Writable => fs::set_permissions(&dir, Permissions::from_mode(0o777)).expect("chmod"),
        Planted::InOpenDirectory => {
            fs::set_permissions(road.workspace.at(name), Permissions::from_mode(0o777)).expect("chmod");
        }
        Planted::Below => {}
        Planted::ProgramOfAnother => chown(&program, Some(NOBODY), None).expect("chown"),
    }
}

#[test]
fn what_others_have_put_in_the_way_is_not_run() {
    for planted in [Planted::OfAnother, Planted::Link, Planted::Writable, Planted::InOpenDirectory] {
        let Some(road) = noexec_host() else { return };
        plant(&road, "var", planted);
        plant(&road, "tmp", planted);
        expect_sent(&deploying(&road, Client::pull("far:tree/", road.workspace.at("copy"))).run().expect_exit(0), 1);
        assert_eq!(names_in(&road.workspace.at("run/fastcp")).len(), 1, "{planted:?}");
        assert!(!road.workspace.at("run by").exists(), "{planted:?}");
        // Where nothing is left, it is said what was tried.
        fs::remove_dir_all(road.workspace.at("run")).expect("remove");
        fs::write(road.workspace.at("run"), b"").expect("write");
        let run = deploying(&road, Client::pull("far:tree/", road.workspace.at("copy"))).run();
        assert!(run.stderr.contains("/var/tmp/fastcp-0") && run.stderr.contains("tmp/fastcp-0 "), "{}", run.stderr);
        expect_told(run, 3, "no directory on far takes a program");
        assert!(!road.workspace.at("run by").exists(), "{planted:?}");
    }
}

/// Whoever owns a directory further up, or a link that leads there, can put another thing in its place at any moment.
#[test]
fn what_lies_beneath_a_directory_of_another_user_is_not_run() {
    for is_behind_a_link in [false, true] {
        let Some(road) = noexec_host() else { return };
        plant(&road, "var", Planted::OfAnother);
        plant(&road, "tmp", Planted::Below);
        let (tmp, theirs) = (road.workspace.at("tmp"), road.workspace.at("theirs"));
        fs::create_dir(&theirs).expect("make");
        fs::rename(&tmp, theirs.join("tmp")).expect("rename");
        symlink(theirs.join("tmp"), &tmp).expect("make a link");
        if is_behind_a_link {
            std::os::unix::fs::lchown(&tmp, Some(NOBODY), None).expect("chown");
        }
        chown(&theirs, Some(NOBODY), None).expect("chown");
        expect_sent(&deploying(&road, Client::pull("far:tree/", road.workspace.at("copy"))).run().expect_exit(0), 1);
        assert_eq!(names_in(&road.workspace.at("run/fastcp")).len(), 1);
        assert!(!road.workspace.at("run by").exists());
    }
}

#[test]
fn a_program_of_another_user_is_replaced_and_not_run() {
    let Some(road) = noexec_host() else { return };
    plant(&road, "var", Planted::ProgramOfAnother);
    expect_sent(&deploying(&road, Client::pull("far:tree/", road.workspace.at("copy"))).run().expect_exit(0), 1);
    let programs = names_in(&road.workspace.at("var/fastcp-0"));
    assert_eq!(programs.len(), 1);
    assert!(fs::read(&programs[0]).expect("read") == fs::read(small_program()).expect("read"));
    assert!(!road.workspace.at("run by").exists());
}
