//! Trees go to and from a machine that a remote shell leads to: through ssh, or through any pipe.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::client::{Client, Run, contents};
use crate::support::compare::{assert_same, files_and_bytes};
use crate::support::road::{PLAIN, Road, SINK, descendants, far};
use crate::support::tree::{Tree, everything, noise, plain};
use crate::support::{is_root, say_skipped, wait_until};

const ONLY_WAY: &str = "no direct connection to far: everything goes through the remote shell";

/// Pulls a tree, compares it, pulls it again and pushes it elsewhere. Answers what the first run was like.
fn expect_both_ways(road: &Road, source: &Path) -> Run {
    let (pulled, pushed) = (road.workspace.at("pulled"), road.workspace.at("pushed"));
    let (files, bytes) = files_and_bytes(source);
    let pull = || road.client(Client::pull(far(contents(source)), &pulled));
    let first = pull().run().expect_exit(0);
    let wanted = [("files_committed", files), ("bytes_fetched", bytes), ("files_failed", 0), ("reconnects", 0)];
    let first = first.expect_counts(&wanted);
    assert_same(source, &pulled);
    pull().run().expect_exit(0).expect_counts(&[("bytes_fetched", 0), ("files_unchanged", files)]);
    road.client(Client::verify(&pulled, far(contents(source)))).run().expect_differences(&[]);
    let push = road.client(Client::push(contents(source), far(contents(&pushed))));
    push.run().expect_exit(0).expect_counts(&wanted);
    assert_same(source, &pushed);
    road.wait_until_left();
    first
}

#[test]
fn a_tree_goes_both_ways_through_a_pipe() {
    let road = Road::piped();
    let run = expect_both_ways(&road, &everything(&road.workspace.at("source")).finish());
    assert_eq!(run.stderr.matches(ONLY_WAY).count(), 1, "{road:?} {run:?}");
}

#[test]
fn a_tree_goes_both_ways_through_ssh_and_directly() {
    let Some(road) = Road::ssh("") else { return };
    let run = expect_both_ways(&road, &everything(&road.workspace.at("source")).finish());
    assert!(!run.stderr.contains(ONLY_WAY), "{}", run.stderr);
    assert_eq!(road.sshd.expect("there").logins(), 4);
}

#[test]
fn nothing_but_one_login_and_one_channel_is_needed() {
    let config =
        "DisableForwarding yes\nAllowTcpForwarding no\nPermitTTY no\nMaxSessions 1\nMaxStartups 1\nMaxAuthTries 1";
    let Some(road) = Road::ssh(config) else { return };
    expect_both_ways(&road, &plain(&road.workspace.at("source")));
    assert_eq!(road.sshd.expect("there").logins(), 4);
}

#[test]
fn where_the_port_cannot_be_reached_all_goes_through_the_shell() {
    let unset = Road::ssh_by(&format!("unset SSH_CONNECTION; {PLAIN}"));
    // Addresses that cannot be had, and no addresses.
    let odd = ["203.0.113.1 9 203.0.113.2 22", "x"];
    let odd = odd.map(|value| Some(Road::piped_by(&format!("SSH_CONNECTION='{value}' {PLAIN}"))));
    for road in [unset].into_iter().chain(odd).flatten() {
        let run = expect_both_ways(&road, &everything(&road.workspace.at("source")).finish());
        assert_eq!(run.stderr.matches(ONLY_WAY).count(), 1, "{road:?} {run:?}");
    }
}

/// The address is that of another machine, as far as the client can tell.
#[test]
fn where_the_port_leads_elsewhere_all_goes_through_the_shell() {
    let apart = ["-n", "sh", "-c", "ip link set lo up"];
    if !is_root() || !Command::new("unshare").args(apart).stderr(Stdio::null()).status().is_ok_and(|end| end.success())
    {
        return say_skipped("no network of its own can be had here");
    }
    let road = Road::piped_by(
        "export SSH_CONNECTION='127.0.0.1 9 127.0.0.1 22'; exec unshare -n sh -c 'ip link set lo up; exec \"$@\"' x \"$@\"",
    );
    let run = expect_both_ways(&road, &everything(&road.workspace.at("source")).finish());
    assert_eq!(run.stderr.matches(ONLY_WAY).count(), 1, "{road:?} {run:?}");
}

#[test]
fn a_pipe_may_go_directly_as_well() {
    let road = Road::piped_by(&format!("export SSH_CONNECTION='127.0.0.1 9 127.0.0.1 22'; {PLAIN}"));
    let run = expect_both_ways(&road, &everything(&road.workspace.at("source")).finish());
    assert!(!run.stderr.contains(ONLY_WAY), "{}", run.stderr);
}

#[test]
fn a_command_that_takes_the_remote_command_as_it_is() {
    let mut road = Road::piped();
    let source = plain(&road.workspace.at("source"));
    let login = road.login().display().to_string();
    for rsh in [format!("sh {login} --"), format!("sh '{login}' \"\" --"), format!("  sh -e {login}\t-- ")] {
        road.set_script(if rsh.contains("\"\"") { "shift; exec \"$@\"" } else { PLAIN });
        road.set_rsh(&rsh);
        let copy = road.workspace.at("copy");
        let from = OsString::from(format!("whoever@[::1]:{}/", source.display()));
        road.client(Client::pull(from, &copy)).run().expect_exit(0);
        assert_same(&source, &copy);
        fs::remove_dir_all(&copy).expect("remove");
    }
    // Nobody takes quotes off it.
    road.set_script(PLAIN);
    road.set_rsh(&format!("sh {login} --"));
    let odd = road.workspace.at("a program's name");
    std::os::unix::fs::symlink(road.program(), &odd).expect("make a link");
    let copy = road.workspace.at("copy");
    road.client_of(Client::pull(far(contents(&source)), &copy), &odd).run().expect_exit(0);
    assert_same(&source, &copy);
}

#[test]
fn ssh_is_asked_for_a_host_as_it_is_called() {
    let mut road = Road::piped();
    let source = plain(&road.workspace.at("source"));
    let (ssh, calls) = (road.workspace.at("ssh"), road.workspace.at("calls"));
    let answer = "[ \"$1\" = -G ] && exec echo hostname 127.0.0.1; shift 7; exec \"$@\"";
    let text = format!("#!/bin/sh\necho \"$*\" >>{}\n{answer}\n", calls.display());
    // Not by this process: what is open for writing in a child that another test starts cannot be run.
    let made = Command::new("sh").args(["-c", "echo \"$1\" >\"$0\" && chmod +x \"$0\""]).arg(&ssh).arg(text).status();
    assert!(made.expect("sh runs").success());
    road.set_rsh(&format!("{} -F 'a config'", ssh.display()));
    let from = format!("ssh://user@far:22{}/", source.display());
    road.client(Client::pull(from, road.workspace.at("copy"))).run().expect_exit(0);
    assert_same(&source, &road.workspace.at("copy"));
    let calls = fs::read_to_string(calls).expect("read");
    // Nobody asks for the host's address where the far end has named none.
    // It never becomes the connection of sessions that others begin: it ends with the run.
    let login = "-F a config -T -oControlMaster=no -p 22 user@far";
    assert_eq!(calls, format!("{login} {} --session\n", road.program().display()));
}

#[test]
fn whatever_shell_there_is_reads_the_command() {
    for shell in ["sh", "dash", "bash", "zsh", "fish", "csh", "tcsh", "ksh", "busybox sh"] {
        let program = shell.split(' ').next().expect("a word");
        if Command::new(program).args(["-c", "exit"]).stderr(Stdio::null()).status().is_err() {
            say_skipped(&format!("{program} is not installed"));
            continue;
        }
        let road = Road::piped_by(&format!("exec {shell} -c \"exec $*\""));
        let source = plain(&road.workspace.at("source"));
        let copy = road.workspace.at("copy");
        for name in ["fastcp-server", "a b$c", "~x", "tab\there"] {
            let program = road.workspace.at(name);
            if name != "fastcp-server" {
                std::os::unix::fs::symlink(road.program(), &program).expect("make a link");
            }
            road.client_of(Client::pull(far(contents(&source)), &copy), &program).run().expect_exit(0);
            assert_same(&source, &copy);
            fs::remove_dir_all(&copy).expect("remove");
        }
    }
}

#[test]
fn names_of_any_bytes_are_found_through_any_shell() {
    let names: [&[u8]; 5] = [b"with space", b"a'b\"c`d$HOME", b"new\nline ", b"not utf-8 \xff", b"-rf *~;&|<>(){}!#\\"];
    for road in Road::both_by("exec sh -c \"exec $*\"") {
        let above = road.workspace.at("above");
        fs::create_dir(&above).expect("make");
        for name in names.map(OsStr::from_bytes) {
            let source = Tree::new(&above.join(name)).file(name.as_bytes(), name.as_bytes()).finish();
            let (pulled, pushed) = (road.workspace.at("pulled"), road.workspace.at("pushed"));
            road.client(Client::pull(far(&source), &pulled)).run().expect_exit(0);
            assert_same(&source, &pulled.join(name));
            let to = far(contents(&pushed.join(name)));
            road.client(Client::push(contents(&source), to)).run().expect_exit(0);
            assert_same(&source, &pushed.join(name));
            road.client(Client::verify(&source, far(contents(&pushed.join(name))))).run().expect_differences(&[]);
        }
    }
}

#[test]
fn paths_begin_at_home_unless_they_begin_at_the_root() {
    for road in Road::both_by(PLAIN) {
        let source = plain(&road.home().join("tree"));
        let copy = road.workspace.at("copy");
        for from in ["far:tree/", "far:~/tree/", "far:./tree/.", "far:~//tree//", "far:tree/sub/../"] {
            road.client(Client::pull(from, &copy)).run().expect_exit(0);
            assert_same(&source, &copy);
            fs::remove_dir_all(&copy).expect("remove");
        }
        for from in ["far:tree", "far:", "far:~", "far:~/", "far:."] {
            road.client(Client::pull(from, &copy)).run().expect_exit(0);
            assert_same(&source, &copy.join("tree"));
            fs::remove_dir_all(&copy).expect("remove");
        }
        for (to, made) in [("far:one", "one/tree"), ("far:~/a/b/", "a/b/tree"), ("far:", "tree"), ("far:~/x/../y", "y")]
        {
            if made == "y" {
                // A way back is not written to.
                let run = road.client(Client::push(&source, to)).run();
                assert_ne!(run.code, Some(0));
                continue;
            }
            road.client(Client::push(&source, to)).run().expect_exit(0);
            assert_same(&source, &road.home().join(made));
        }
    }
}

#[test]
fn several_sources_of_one_host_are_merged() {
    for road in Road::both_by(PLAIN) {
        let first = Tree::new(&road.home().join("first")).file("same", b"first").file("one", b"1").finish();
        let second =
            Tree::new(&road.home().join("second")).file("same", b"second, and last").file("two", b"2").finish();
        let copy = road.workspace.at("copy");
        let pull = |from: &[OsString], copy: &Path| {
            let words = [OsStr::new("pull"), OsStr::new("--json")].into_iter().map(OsStr::to_owned);
            road.client(Client::new(words.chain(from.iter().cloned()).chain([copy.into()])))
        };
        for from in [[far(contents(&first)), far(contents(&second))], ["far:first/".into(), "far:~/second/".into()]] {
            pull(&from, &copy).run().expect_exit(0).expect_counts(&[("files_committed", 3)]);
            for (name, text) in [("same", "first"), ("one", "1"), ("two", "2")] {
                assert_eq!(fs::read_to_string(copy.join(name)).expect("read"), text);
            }
            fs::remove_dir_all(&copy).expect("remove");
        }
        pull(&["far:first".into(), "far:second/two".into()], &copy).run().expect_exit(0);
        assert_same(&first, &copy.join("first"));
        assert_eq!(fs::read(copy.join("two")).expect("read"), b"2");
        for (from, message) in [
            (vec!["far:first/".into(), far(&second)], "either all paths from the root or all from the home directory"),
            (vec!["far:first/".into(), "near:second".into()], "several sources have to be of one server"),
            (vec!["far:first/".into(), second.clone().into()], "several sources have to be of one server"),
            (vec!["far:first/".into(); 65], "at most 64 paths of a server"),
        ] {
            let run = pull(&from, &copy).run().expect_exit(1);
            assert!(run.stderr.contains(message), "{}", run.stderr);
        }
    }
}

#[test]
fn a_single_file_gets_a_new_name_and_parents_that_are_missing() {
    for road in Road::both_by(PLAIN) {
        let bytes = noise(3 << 20, 1);
        let file = Tree::new(&road.home().join("tree")).file("file", &bytes).finish().join("file");
        let at = |name: &str| road.home().join(name);
        let copy = road.workspace.at("not there yet");
        road.client(Client::pull("far:tree/file", &copy)).run().expect_exit(0).expect_counts(&[("files_committed", 1)]);
        assert_same(&file, &copy.join("file"));
        for (to, made) in [("far:new", "new"), ("far:a/b/c/new", "a/b/c/new"), ("far:d/e/", "d/e/file")] {
            road.client(Client::push(&file, to)).run().expect_exit(0).expect_counts(&[("files_committed", 1)]);
            assert_same(&file, &at(made));
        }
        // Once more, into a directory that is there.
        road.client(Client::push(&file, "far:a/b")).run().expect_exit(0);
        assert_same(&file, &at("a/b/file"));
    }
}

#[test]
fn what_is_there_is_listed() {
    for road in Road::both_by(PLAIN) {
        plain(&road.home().join("tree"));
        let ls = |words: &[&str]| {
            let run = road.client(Client::new([&["ls"], words].concat())).run().expect_exit(0);
            let mut lines = run.lines;
            lines.sort();
            lines
        };
        assert_eq!(ls(&["far:tree"]), ["empty", "link", "noise", "sub/"]);
        assert_eq!(ls(&["far:"]), ["tree/"]);
        assert_eq!(ls(&["far:~/tree/s*"]), ["sub/"]);
        assert_eq!(ls(&["-R", &far(road.home()).into_string().expect("plain")]).len(), 7);
    }
}

/// No word of what is to be kept secret is where others on either machine see it.
#[test]
fn no_secret_is_in_a_command_or_an_environment() {
    let hold = format!("\"$@\" | {{ stdbuf -o0 head -c 3000000; {SINK}; }}");
    for road in Road::both_by(&hold) {
        let token = "a-token-that-nobody-guesses";
        Tree::new(&road.home().join("a secret name")).file("large", &noise(8 << 20, 1)).finish();
        let copy = road.workspace.at("copy");
        let client = road.client(Client::pull("far:a secret name/", &copy)).options("--no-compress --chunk-kb 64");
        let running = client.variable("FASTCP_TOKEN", token).start();
        wait_until("a session", || copy.join(".fastcp").exists() && !road.servers().is_empty());
        let mut seen = descendants(running.pid());
        let servers = road.servers();
        seen.extend(&servers);
        assert!(seen.len() >= 2, "a shell and a server");
        let read = |pid: u32, name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        for pid in seen {
            for name in ["cmdline", "environ"] {
                let bytes = read(pid, name);
                let text = String::from_utf8_lossy(&bytes);
                assert!(!text.contains(token) && !text.contains("FASTCP_TOKEN"), "{text}");
                assert!(name == "environ" || !text.contains("secret"), "{text}");
            }
        }
        let line = [road.program().as_os_str().as_bytes(), b"\0--session\0"].concat();
        assert!(servers.iter().all(|&pid| read(pid, "cmdline") == line));
        running.kill();
        road.wait_until_left();
    }
}
