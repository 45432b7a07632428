//! Hosts where fastcp is not installed: the client sends itself there, once.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use crate::support::client::{Client, Run, contents};
use crate::support::compare::{assert_same, files_and_bytes};
use crate::support::road::{LOGIN, Road, far};
use crate::support::tree::{everything, plain};
use crate::support::{Workspace, say_skipped};

/// A login on a host that has nothing of fastcp, and places of its own for what is sent there.
pub(crate) const BARE: &str =
    "unset XDG_CACHE_HOME XDG_RUNTIME_DIR; PATH=/usr/bin:/bin; TMPDIR=$HOME/../tmp; export PATH TMPDIR";
/// What is said where something is sent.
pub(crate) const SENDING: &str = "sending fastcp (";

/// Such a host, at the end of each kind of road.
pub(crate) fn hosts() -> impl Iterator<Item = Road> {
    hosts_by("")
}

/// The same; the login does this first.
pub(crate) fn hosts_by(first: &str) -> impl Iterator<Item = Road> + use<> {
    Road::both_by(&format!("{BARE}; {first}\n{LOGIN}"))
}

/// The programs in the cache of a host.
pub(crate) fn cached(road: &Road) -> Vec<PathBuf> {
    names_in(&road.home().join(".cache/fastcp"))
}

pub(crate) fn names_in(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

/// The client's program, without what debuggers need: that is a sixth of it.
pub(crate) fn small_program() -> &'static Path {
    static SMALL: LazyLock<(Workspace, PathBuf)> = LazyLock::new(|| {
        let (workspace, own) = (Workspace::new(), PathBuf::from(env!("CARGO_BIN_EXE_fastcp-client")));
        let small = workspace.at("small");
        let stripped = Command::new("strip").arg("-o").arg(&small).arg(&own).stderr(Stdio::null()).status();
        let program = if stripped.is_ok_and(|status| status.success()) { small } else { own };
        (workspace, program)
    });
    &SMALL.1
}

/// A client that deploys that.
pub(crate) fn deploying(road: &Road, client: Client) -> Client {
    road.plain_client(client).words(&["--deploy-bin".as_ref(), small_program().as_os_str()])
}

pub(crate) fn expect_sent(run: &Run, times: usize) {
    assert_eq!(run.stderr.matches(SENDING).count(), times, "{}", run.stderr);
}

#[test]
fn a_host_takes_the_program_once_and_is_remembered() {
    for road in hosts() {
        let source = everything(&road.home().join("tree")).finish();
        let (pulled, pushed) = (road.workspace.at("pulled"), road.home().join("pushed"));
        let pull = || road.plain_client(Client::pull("far:tree/", &pulled));
        let run = pull().run().expect_exit(3);
        assert!(run.stderr.contains("--deploy sends it there"), "{}", run.stderr);
        assert!(cached(&road).is_empty() && !pulled.exists());

        let run = pull().options("--deploy").run().expect_exit(0);
        expect_sent(&run, 1);
        let (files, bytes) = files_and_bytes(&source);
        run.expect_counts(&[("files_committed", files), ("bytes_fetched", bytes)]);
        assert_same(&source, &pulled);
        let programs = cached(&road);
        let [program] = &programs[..] else { panic!("one program: {programs:?}") };
        let client = Path::new(env!("CARGO_BIN_EXE_fastcp-client"));
        assert!(fs::read(program).expect("read") == fs::read(client).expect("read"));
        let sum = Command::new("sha256sum").arg(client).output().expect("sha256sum runs").stdout;
        let hash = String::from_utf8(sum).expect("text").split(' ').next().expect("a hash").to_owned();
        assert_eq!(program.file_name().and_then(|name| name.to_str()), Some(&*format!("fastcp-{hash}")));
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o7777;
        let dir = program.parent().expect("a directory");
        assert_eq!((mode(program), mode(dir), mode(dir.parent().expect("one more"))), (0o700, 0o700, 0o700));

        // From here on nothing is sent, and nothing has to be asked for.
        let inode = fs::metadata(program).expect("there").ino();
        expect_sent(&pull().options("--deploy").run().expect_exit(0), 0);
        let run = road.plain_client(Client::push(contents(&source), "far:pushed/")).run().expect_exit(0);
        expect_sent(&run.expect_counts(&[("files_committed", files)]), 0);
        assert_same(&source, &pushed);
        road.plain_client(Client::verify(&pulled, "far:pushed/")).run().expect_differences(&[]);
        let listed = road.plain_client(Client::new(["ls", "far:"])).run().expect_exit(0);
        assert_eq!(listed.lines.len(), 3);
        assert_eq!((cached(&road), fs::metadata(program).expect("there").ino()), (programs.clone(), inode));
        let kept = road.workspace.at("config/fastcp/deployed_hosts");
        assert!(fs::read_to_string(&kept).expect("kept").ends_with(" far\n"));
        assert_eq!(mode(&kept), 0o600);
        if let Some(sshd) = &road.sshd {
            assert_eq!(sshd.logins(), 6, "one for each run");
        }

        // What is installed is used where somebody says so, once or from then on.
        road.client(Client::pull("far:tree/", &pulled)).run().expect_exit(0);
        let named = road.client_of(Client::pull("far:tree/", &pulled), "/nowhere/fastcp-server").run();
        assert!(named.expect_exit(3).stderr.contains("is not found on far"));
        expect_sent(&pull().run().expect_exit(0), 0);
        for options in ["--no-deploy", ""] {
            let run = pull().options(options).run().expect_exit(3);
            assert!(run.stderr.contains("fastcp-server is not found on far"), "{}", run.stderr);
        }
        assert_eq!(fs::read_to_string(&kept).expect("kept"), "");
    }
}

#[test]
fn a_program_that_is_there_costs_a_script_and_no_wait() {
    let road = Road::piped_by(&format!("{BARE}\ntee ../sent | sh -c \"$*\""));
    plain(&road.home().join("tree"));
    let sent = || fs::metadata(road.workspace.at("sent")).expect("written").len();
    let program_bytes = fs::metadata(small_program()).expect("there").len();
    for nth in 0..2 {
        deploying(&road, Client::pull("far:tree/", road.workspace.at("copy"))).run().expect_exit(0);
        assert_eq!(sent() > program_bytes, nth == 0, "{} of {program_bytes}", sent());
    }
    assert!(sent() < 64 << 10, "{}", sent());
}

#[test]
fn another_program_is_sent_where_one_is_named_and_that_is_remembered() {
    for road in hosts() {
        plain(&road.home().join("tree"));
        let link = road.workspace.at("a program");
        // The server can be the far end as well.
        symlink(env!("CARGO_BIN_EXE_fastcp-server"), &link).expect("make a link");
        let pull = || road.plain_client(Client::pull("far:tree/", road.workspace.at("copy")));
        let named = ["--deploy-bin".as_ref(), link.as_os_str()];
        expect_sent(&pull().words(&named).run().expect_exit(0), 1);
        expect_sent(&pull().run().expect_exit(0), 0);
        // It is another version now, so to speak.
        fs::remove_file(&link).expect("remove");
        symlink(small_program(), &link).expect("make a link");
        expect_sent(&pull().run().expect_exit(0), 1);
        expect_sent(&pull().run().expect_exit(0), 0);
        assert_eq!(cached(&road).len(), 2);
        fs::remove_file(&link).expect("remove");
        let run = pull().run().expect_exit(11);
        assert!(run.stderr.contains("a program\", which is to be sent: No such file"), "{}", run.stderr);
        // Its own again.
        expect_sent(&pull().options("--deploy").run().expect_exit(0), 1);
        expect_sent(&pull().run().expect_exit(0), 0);
    }
}

#[test]
fn what_a_push_makes_has_the_rights_that_the_login_gives() {
    for road in hosts_by("umask 027") {
        let source = plain(&road.workspace.at("source"));
        deploying(&road, Client::push(&source, "far:a/b/")).run().expect_exit(0);
        let mode = |name: &str| fs::metadata(road.home().join(name)).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode("a"), mode("a/b"), mode(".cache")), (0o750, 0o750, 0o700));
    }
}

#[test]
fn whatever_shell_there_is_takes_it() {
    for shell in ["sh", "dash", "bash", "zsh", "fish", "csh", "tcsh", "ksh", "busybox sh"] {
        let program = shell.split(' ').next().expect("a word");
        if Command::new(program).args(["-c", "exit"]).stderr(Stdio::null()).status().is_err() {
            say_skipped(&format!("{program} is not installed"));
            continue;
        }
        let login = LOGIN.replace("sh -c", &format!("{shell} -c"));
        let road = Road::piped_by(&format!("{BARE}\n{login}"));
        let source = plain(&road.home().join("tree"));
        let copy = road.workspace.at("copy");
        for times in [1, 0] {
            let run = deploying(&road, Client::pull("far:tree/", &copy)).run().expect_exit(0);
            expect_sent(&run, times);
            assert_same(&source, &copy);
        }
        assert_eq!(cached(&road).len(), 1, "{shell}");
    }
}

#[test]
fn a_command_that_takes_words_takes_it_too() {
    let mut road = Road::piped_by(&format!("{BARE}\nexec \"$@\""));
    let source = plain(&road.home().join("tree"));
    road.set_rsh(&format!("sh {} --", road.login().display()));
    for times in [1, 0] {
        let from = far(contents(&source));
        let run = deploying(&road, Client::pull(from, road.workspace.at("copy"))).run().expect_exit(0);
        expect_sent(&run, times);
    }
    // Another way is another host.
    road.set_rsh(&format!("sh -e {} --", road.login().display()));
    let run = road.plain_client(Client::pull("far:tree/", road.workspace.at("copy"))).run();
    assert!(run.expect_exit(3).stderr.contains("--deploy sends it there"));
}

/// The programs that the script of the far end uses; the others are of the shell, or may be missing.
const TOOLS: [&str; 11] = ["sh", "ls", "id", "mkdir", "mktemp", "chmod", "head", "wc", "mv", "rm", "uname"];

#[test]
fn few_programs_are_needed_there() {
    let road = Road::piped();
    let source = plain(&road.home().join("tree"));
    let busybox = Command::new("busybox").arg("true").status().is_ok_and(|status| status.success());
    for of_busybox in [false, true] {
        if of_busybox && !busybox {
            say_skipped("busybox is not installed");
            continue;
        }
        let bin = road.workspace.at(if of_busybox { "of busybox" } else { "bin" });
        fs::create_dir(&bin).expect("make");
        // Without these two the far end could not pass over what came too early.
        for tool in TOOLS.into_iter().chain(["dd", "sync"]) {
            let at = ["/usr/bin", "/bin"].map(|dir| Path::new(dir).join(tool)).into_iter().find(|path| path.exists());
            let target = if of_busybox { PathBuf::from("/usr/bin/busybox") } else { at.expect("a tool") };
            symlink(target, bin.join(tool)).expect("make a link");
        }
        road.set_script(&format!("{BARE}; rm -rf .cache; PATH='{}'\n{LOGIN}", bin.display()));
        let copy = road.workspace.at("copy");
        expect_sent(&deploying(&road, Client::pull("far:tree/", &copy)).run().expect_exit(0), 1);
        assert_same(&source, &copy);
    }
}
