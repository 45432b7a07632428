//! Several sources in one run: they are merged, and of what several have under one path the first counts.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::Workspace;
use crate::support::client::{Client, Run, contents};
use crate::support::compare::{assert_rsync_agrees, assert_same};
use crate::support::server::Server;
use crate::support::tree::Tree;
use crate::support::way::RECEIVES;

struct Several {
    workspace: Workspace,
    parts: [PathBuf; 3],
    server: Server,
    /// Serves all of the sources.
    above: Server,
}

impl Several {
    fn new() -> Self {
        let workspace = Workspace::new();
        let part = |name: &str, files: &[(&str, &str)]| {
            let mut tree = Tree::new(&workspace.at(name));
            let mut dirs = std::collections::BTreeSet::new();
            for (path, text) in files {
                if let Some((dir, _)) = path.split_once('/')
                    && dirs.insert(dir.to_owned())
                {
                    tree.dir(dir);
                }
                tree.file(path, text.as_bytes());
            }
            tree.finish()
        };
        let parts = [
            part("first", &[("same", "first"), ("dir/one", "1"), ("kind", "file")]),
            part("second", &[("same", "second"), ("dir/two", "2"), ("dir/one", "second")]),
            part("third", &[("three", "3")]),
        ];
        let served = workspace.at("served");
        fs::create_dir(&served).expect("make");
        let server = Server::start_with(&served, &format!("127.0.0.1 0 {RECEIVES}"));
        let above = Server::start(&workspace.at(""));
        Self { workspace, parts, server, above }
    }

    /// Brings the sources to a directory by each way that there is.
    fn run(&self, sources: &[PathBuf], options: &str, prepare: impl Fn(&Path), check: impl Fn(&Run, &Path)) {
        for way in ["pull", "push", "local push", "server's pull"] {
            let copy = self.workspace.at("served").join(way);
            prepare(&copy);
            let to: OsString = match way {
                "push" => self.server.url("push/").into(),
                _ => copy.clone().into(),
            };
            let command = way.split(' ').next_back().expect("a word");
            let sources: Vec<OsString> = match way {
                "server's pull" => sources.iter().map(|source| self.url_of(source)).collect(),
                _ => sources.iter().map(|source| source.clone().into_os_string()).collect(),
            };
            let run = Client::new([command, "--json"]).words(&sources).words(&[to]).options(options).run();
            let run = run.expect_exit(0);
            check(&run, &copy);
            fs::remove_dir_all(&copy).expect("remove");
        }
    }
}

impl Several {
    /// Where a server has it, with the slash that it has.
    fn url_of(&self, source: &Path) -> OsString {
        let text = source.to_str().expect("plain");
        let above = self.workspace.at("");
        self.above.url(text.strip_prefix(above.to_str().expect("plain")).expect("below").trim_start_matches('/')).into()
    }
}

#[test]
fn the_first_counts_and_directories_have_what_any_has() {
    let several = Several::new();
    let [first, second, third] = &several.parts;
    let wanted = several.workspace.at("wanted");
    let mut tree = Tree::new(&wanted);
    tree.file("same", b"first").file("kind", b"file").dir("dir").file("dir/one", b"1").file("dir/two", b"2");
    tree.dir("third").file("third/three", b"3");
    tree.finish();
    let sources = [contents(first), contents(second), third.clone()];
    several.run(
        &sources,
        "",
        |_| (),
        |run, copy| {
            let read = |path: &str| fs::read_to_string(copy.join(path)).expect("there");
            assert_eq!((read("same"), read("dir/one"), read("dir/two")), ("first".into(), "1".into(), "2".into()));
            assert_eq!((read("kind"), read("third/three")), ("file".into(), "3".into()));
            assert_eq!((run.count("files_committed"), run.count("files_failed")), (5, 0));
            assert_same(third, &copy.join("third"));
            let again = Client::new(["pull", "--json"]).words(&sources).words(&[copy]).run().expect_exit(0);
            assert_eq!((again.count("files_committed"), again.count("files_unchanged")), (0, 5));
        },
    );
    assert_rsync_agrees(third, third);
}

/// What is beside sources that are named is nobody's business; a source of which the contents are copied stands for the whole.
#[test]
fn deletion_concerns_what_the_sources_stand_for() {
    let several = Several::new();
    let [first, second, third] = &several.parts;
    let prepare = |copy: &Path| {
        for path in ["extra", "third/extra"] {
            let file = copy.join(path);
            fs::create_dir_all(file.parent().expect("below")).expect("make");
            fs::write(file, b"x").expect("write");
        }
    };
    let named = [first.clone(), third.clone()];
    several.run(&named, "--delete", prepare, |run, copy| {
        assert_eq!(run.count("deleted"), 1);
        assert!(copy.join("extra").exists() && !copy.join("third/extra").exists());
    });
    several.run(&[contents(second), third.clone()], "--delete", prepare, |run, copy| {
        assert_eq!(run.count("deleted"), 2);
        assert!(
            !copy.join("extra").exists() && !copy.join("third/extra").exists() && copy.join("third/three").exists()
        );
    });
}

#[test]
fn single_files_are_sources_as_well() {
    let several = Several::new();
    let [first, second, _] = &several.parts;
    let sources = [first.join("same"), second.join("dir/two"), second.join("same")];
    several.run(
        &sources,
        "",
        |_| (),
        |run, copy| {
            assert_eq!(run.count("files_committed"), 2);
            assert_eq!(fs::read_to_string(copy.join("same")).expect("there"), "first");
            assert_eq!(fs::read_to_string(copy.join("two")).expect("there"), "2");
        },
    );
}

#[test]
fn what_cannot_be_merged_is_refused_before_anything_is_done() {
    let several = Several::new();
    let [first, _, _] = &several.parts;
    let copy = several.workspace.at("copy");
    let run =
        Client::new(["pull"]).words(&[first.as_os_str(), several.server.url("x").as_ref(), copy.as_os_str()]).run();
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("several sources have to be of one server"), "{}", run.stderr);
    let other = [several.server.url("x"), several.above.url("x")];
    let run = Client::new(["pull"]).words(&other).words(&[&copy]).run();
    assert!(run.code == Some(1) && run.stderr.contains("several sources"), "{}", run.stderr);
    // Of a server, too, one that is not there is named.
    let run =
        Client::new(["pull"]).words(&[several.url_of(first)]).words(&[several.above.url("gone")]).words(&[&copy]).run();
    assert_eq!(run.code, Some(3), "{}", run.stderr);
    assert!(run.stderr.contains("gone") && !copy.exists(), "{}", run.stderr);
    let missing = several.workspace.at("missing");
    let run = Client::new(["pull"]).words(&[first, &missing, &copy]).run();
    assert_eq!(run.code, Some(3), "{}", run.stderr);
    assert!(run.stderr.contains("missing") && !copy.exists(), "{}", run.stderr);
}
