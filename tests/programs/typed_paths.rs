//! Symbolic links in the paths that the user types: those of root and his own are followed, others' are refused by
//! name, and nothing behind them is made or changed.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::PathBuf;
use std::process::Command;

use crate::support::client::{Client, Run, contents};
use crate::support::compare::assert_same;
use crate::support::server::Server;
use crate::support::tree::Tree;
use crate::support::{NOBODY, Workspace, is_root, say_skipped};

/// A source, and beside it a directory for everybody with links in it to the directory `real`.
struct Scene {
    workspace: Workspace,
    source: PathBuf,
    shared: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let workspace = Workspace::new();
        let source = Tree::new(&workspace.at("source")).file("file", b"the new one").finish();
        let shared = workspace.at("shared");
        fs::create_dir(&shared).expect("create");
        fs::set_permissions(&shared, Permissions::from_mode(0o1777)).expect("chmod");
        fs::create_dir(workspace.at("real")).expect("create");
        fs::write(workspace.at("real/kept"), b"kept").expect("write");
        symlink("../real", shared.join("link")).expect("link");
        Self { workspace, source, shared }
    }

    /// The same, where the links are somebody else's; `None` where they cannot be given away.
    fn of_others() -> Option<Self> {
        if !is_root() {
            say_skipped("only root can give links to others");
            return None;
        }
        let scene = Self::new();
        lchown(scene.shared.join("link"), Some(NOBODY), Some(NOBODY)).expect("chown");
        Some(scene)
    }

    fn link(&self, rest: &str) -> PathBuf {
        self.shared.join("link").join(rest)
    }

    fn pull(&self) -> Client {
        Client::pull(contents(&self.source), self.workspace.at("copy"))
    }

    fn assert_refused(&self, run: Run, code: i32, what: &str) {
        let run = run.expect_exit(code);
        let link = self.shared.join("link");
        let said = format!("\"{}\" is a symbolic link of user {NOBODY}", link.display());
        assert!(run.stderr.contains(&said), "{what}: {}", run.stderr);
        assert_eq!(fs::read_dir(self.workspace.at("real")).expect("read").count(), 1, "{what}");
    }
}

fn option(name: &str, value: PathBuf) -> [std::ffi::OsString; 2] {
    [name.into(), value.into()]
}

#[test]
fn no_destination_is_behind_a_link_of_others() {
    let Some(scene) = Scene::of_others() else { return };
    for dst in ["", "new"] {
        let dst = scene.link(dst);
        scene.assert_refused(Client::pull(contents(&scene.source), &dst).run(), 11, "pull");
        scene.assert_refused(Client::pull(contents(&scene.source), &dst).options("-n").run(), 11, "dry run");
        scene.assert_refused(Client::verify(&dst, contents(&scene.source)).run(), 11, "verify");
    }
}

#[test]
fn neither_backups_nor_manifests_are_behind_a_link_of_others() {
    let Some(scene) = Scene::of_others() else { return };
    for (name, value) in [("--backup-dir", "bak"), ("--backup-dir", ""), ("--manifest", "manifest")] {
        let run = scene.pull().words(&option(name, scene.link(value))).run();
        scene.assert_refused(run, 11, name);
    }
    let run = Client::new([OsStr::new("verify"), OsStr::new("--json"), scene.source.as_os_str()])
        .words(&option("--manifest", scene.link("manifest")))
        .run();
    scene.assert_refused(run, 11, "verify by a manifest");
    let manifest = scene.shared.join("manifest");
    fs::write(&manifest, b"").expect("write");
    lchown(&manifest, Some(NOBODY), None).expect("chown");
    let run = scene.pull().words(&option("--manifest", manifest.clone())).run().expect_exit(11);
    assert!(run.stderr.contains("was made by user"), "{}", run.stderr);
    assert_eq!(fs::read(&manifest).expect("read"), b"");
}

#[test]
fn no_output_of_get_is_behind_a_link_of_others() {
    let Some(scene) = Scene::of_others() else { return };
    let server = Server::start(&scene.source);
    for out in ["", "kept", "new"] {
        scene.assert_refused(Client::get(server.port(), "file", scene.link(out)).run(), 11, "get");
    }
    assert_eq!(fs::read(scene.workspace.at("real/kept")).expect("read"), b"kept");
}

#[test]
fn no_source_is_behind_a_link_of_others() {
    let Some(scene) = Scene::of_others() else { return };
    for from in [contents(&scene.link("")), scene.link("kept")] {
        scene.assert_refused(Client::pull(from, scene.workspace.at("copy")).run(), 3, "pull");
    }
    let server =
        Command::new(env!("CARGO_BIN_EXE_fastcp-server")).arg(scene.link("")).args(["127.0.0.1", "0"]).output();
    let server = server.expect("run the server");
    assert_eq!(server.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&server.stderr).contains("is a symbolic link of user"), "{server:?}");
}

#[test]
fn links_of_ones_own_are_followed_everywhere() {
    let scene = Scene::new();
    let copy = scene.link("copy");
    fs::create_dir(&copy).expect("create");
    fs::write(copy.join("file"), b"old").expect("write");
    let words = [option("--backup-dir", scene.link("bak")), option("--manifest", scene.link("manifest"))].concat();
    Client::pull(contents(&scene.source), &copy).words(&words).run().expect_exit(0);
    assert_same(&scene.source, &copy);
    assert_eq!(fs::read(scene.workspace.at("real/bak/file")).expect("read"), b"old");
    let words = option("--manifest", scene.link("manifest"));
    Client::new([OsStr::new("verify"), OsStr::new("--json"), copy.as_os_str()]).words(&words).run().expect_exit(0);
    let again = scene.workspace.at("again");
    Client::pull(contents(&copy), &again).run().expect_exit(0);
    assert_same(&scene.source, &again);
}
