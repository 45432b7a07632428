//! `--dry-run` and `--itemize-changes`: the same lines as rsync, the same lines as the run that follows,
//! and not a trace at the destination.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::client::{Client, Run, contents};
use crate::support::compare::{assert_same, snapshot};
use crate::support::server::Server;
use crate::support::tree::{Tree, everything, noise, plain, set_mtime};
use crate::support::way::{BOTH_WAYS, Route};
use crate::support::{NOBODY, Workspace, is_root, say_skipped};

/// The lines of `--itemize-changes`, sorted: what a run says on stdout but for its summary.
fn items(client: Client) -> Vec<String> {
    let run = client.run().expect_exit(0);
    let (summary, lines) = run.lines.split_last().expect("a summary");
    assert!(summary.contains("unchanged"), "{summary}");
    let mut lines = lines.to_vec();
    lines.sort();
    lines
}

/// What rsync lists; `None` where it is not installed.
fn rsync_items(words: &[&str], source: &Path, copy: &Path) -> Option<Vec<String>> {
    let mut command = Command::new("rsync");
    command.args(["-ai", "--no-D", "--modify-window=-1", "--exclude=/.fastcp", "--info=nonreg0"]).args(words);
    match command.arg(source).arg(copy).output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let said = String::from_utf8(output.stdout).expect("plain names");
            let is_item = |line: &&str| !line.starts_with("created directory ");
            let mut lines: Vec<String> = said.lines().filter(is_item).map(str::to_owned).collect();
            lines.sort();
            Some(lines)
        }
        Err(error) => {
            say_skipped(&format!("rsync cannot be asked: {error}"));
            None
        }
    }
}

/// The names that `rsync -v` lists, sorted; `None` where it is not installed.
fn rsync_names(words: &[&str], source: &Path, copy: &Path) -> Option<Vec<String>> {
    let mut command = Command::new("rsync");
    command.args(["-av", "--no-D", "--modify-window=-1", "--exclude=/.fastcp", "--info=nonreg0,flist0,stats0"]);
    let Ok(output) = command.args(words).arg(source).arg(copy).output() else {
        say_skipped("rsync cannot be asked");
        return None;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut lines: Vec<String> =
        String::from_utf8(output.stdout).expect("plain names").lines().map(str::to_owned).collect();
    lines.retain(|line| !line.starts_with("created directory ") && !line.is_empty());
    lines.sort();
    Some(lines)
}

fn pull_text(source: &Path, copy: &Path, options: &str) -> Client {
    Client::new([Path::new("pull"), source, copy]).options(options)
}

/// A source and an older copy of it, in which everything is different that can be.
fn differing(workspace: &Workspace) -> (PathBuf, PathBuf) {
    let mut tree = Tree::new(&workspace.at("source"));
    tree.dir("same").file("same/file", b"1").link("same/link", "file").dir("same/dir");
    tree.file("size", b"12").file("time", b"12").file("mode", b"12").mode(0o640).file("all", b"1");
    tree.dir("dir").dir("dir mode").mode(0o750).dir("dir time").link("link", "a").link("link time", "a");
    tree.file("file was dir", b"1")
        .file("file was full dir", b"1")
        .file("file was link", b"1")
        .file("became large", b"");
    tree.link("link was file", "x").link("link was dir", "x").link("link was full dir", "x").dir("dir was file");
    tree.dir("dir was link").file("dir was file/new", b"1").dir("new").dir("new/below").file("new/below/file", b"2");
    tree.link("new/link", "below").file("ownership", b"1").owner(NOBODY, 0).file("group", b"1").owner(0, NOBODY);
    tree.dir("dir owner").owner(NOBODY, NOBODY).link("link owner", "x").owner(NOBODY, NOBODY);
    let source = tree.finish();
    let copy = workspace.at("copy");
    Client::pull(contents(&source), &copy).run().expect_exit(0);
    spoil(&copy);
    fs::write(source.join("became large"), noise(2 << 20, 1)).expect("write");
    (source, copy)
}

fn spoil(copy: &Path) {
    let at = |name: &str| copy.join(name);
    let keep_time = |name: &str, change: &dyn Fn()| {
        let about = at(name).symlink_metadata().expect("examine");
        change();
        set_mtime(&at(name), about.mtime(), about.mtime_nsec());
    };
    keep_time("size", &|| fs::write(at("size"), b"1").expect("write"));
    set_mtime(&at("time"), 5, 5);
    fs::set_permissions(at("mode"), Permissions::from_mode(0o666)).expect("chmod");
    fs::write(at("all"), b"1234").expect("write");
    fs::set_permissions(at("all"), Permissions::from_mode(0o600)).expect("chmod");
    keep_time("dir mode", &|| fs::set_permissions(at("dir mode"), Permissions::from_mode(0o700)).expect("chmod"));
    set_mtime(&at("dir time"), 5, 5);
    set_mtime(&at("link time"), 5, 5);
    for (name, target) in [("link", "b"), ("file was link", "b"), ("dir was link", "b")] {
        fs::remove_file(at(name)).or_else(|_| fs::remove_dir(at(name))).expect("remove");
        symlink(target, at(name)).expect("link");
    }
    for name in ["file was dir", "file was full dir", "link was dir", "link was full dir"] {
        fs::remove_file(at(name)).expect("remove");
        fs::create_dir(at(name)).expect("create");
    }
    for name in ["file was full dir", "link was full dir"] {
        fs::create_dir_all(at(name).join("a/b")).expect("create");
        fs::write(at(name).join("a/file"), b"1").expect("write");
    }
    fs::remove_file(at("link was file")).expect("remove");
    fs::remove_dir_all(at("dir was file")).expect("remove");
    for name in ["link was file", "dir was file", "extra", "same/dir/extra"] {
        fs::write(at(name), b"1").expect("write");
    }
    fs::remove_dir_all(at("new")).expect("remove");
    fs::create_dir_all(at("gone/below")).expect("create");
    symlink("..", at("gone/below/link")).expect("link");
    for name in ["ownership", "group", "dir owner", "link owner"] {
        std::os::unix::fs::lchown(at(name), Some(nix::unistd::geteuid().as_raw()), Some(0)).ok();
    }
}

#[test]
fn a_dry_run_and_a_run_list_what_rsync_lists() {
    for way in BOTH_WAYS {
        let workspace = Workspace::new();
        let (source, copy) = differing(&workspace);
        let from = contents(&source);
        let route = Route::new(way, &source, &workspace);
        let server = route.serve();
        let listed = |options: &str| items(route.client_in_text(server.address, &copy).options(options));
        let Some(wanted) = rsync_items(&["-n", "--delete"], &from, &copy) else { return };
        for line in [
            ">f.s....... size",
            ">f..t...... time",
            ".f...p..... mode",
            ".d...p..... dir mode/",
            ".d..t...... dir time/",
            "cLc.t...... link -> a",
            ".L..t...... link time -> a",
            ">f+++++++++ file was full dir",
            "*deleting   file was full dir/a/b/",
            "*deleting   gone/below/",
            "cd+++++++++ dir was file/",
        ] {
            assert!(wanted.iter().any(|one| one == line), "the tree lacks {line}: {wanted:#?}");
        }
        let before = snapshot(&copy);
        assert_eq!(listed("-n -i --delete"), wanted);
        assert_eq!(snapshot(&copy), before, "a dry run changes nothing");
        assert_eq!(listed("-i --delete"), wanted);
        assert_same(&source, &copy);
        assert_eq!(listed("-i --delete"), Vec::<String>::new(), "only changes are listed");
    }
}

#[test]
fn with_v_the_files_are_listed_that_rsync_lists() {
    for way in BOTH_WAYS {
        let workspace = Workspace::new();
        let (source, copy) = differing(&workspace);
        let from = contents(&source);
        let route = Route::new(way, &source, &workspace);
        let server = route.serve();
        let listed = |options: &str| items(route.client_in_text(server.address, &copy).options(options));
        let Some(wanted) = rsync_names(&["-n", "--delete"], &from, &copy) else { return };
        for line in ["size", "link -> a", "dir time/", "deleting gone/below/", "new/below/file"] {
            assert!(wanted.iter().any(|one| one == line), "the tree lacks {line}: {wanted:#?}");
        }
        assert_eq!(listed("-n -v --delete"), wanted);
        // Files have their lines when they have their names, with how far the run is by then.
        let done = listed("-v --delete");
        let mut names: Vec<_> = done.iter().map(|line| line.split(" (").next().expect("a part")).collect();
        names.sort_unstable();
        let mut wanted: Vec<_> = wanted.iter().map(String::as_str).collect();
        wanted.sort_unstable();
        assert_eq!(names, wanted);
        assert!(done.iter().any(|line| line.starts_with("size (") && line.ends_with("/s)")), "{done:#?}");
        assert_eq!(listed("-v --delete"), Vec::<String>::new());
    }
}

#[test]
fn owners_have_letters_of_their_own() {
    if !is_root() {
        return say_skipped("only root gives files away");
    }
    let workspace = Workspace::new();
    let (source, copy) = differing(&workspace);
    let lines = items(pull_text(&contents(&source), &copy, "-n -i --delete"));
    for line in [".f....o.... ownership", ".f.....g... group", ".d....og... dir owner/", ".L....og... link owner -> x"]
    {
        assert!(lines.iter().any(|one| one == line), "{line} is not in {lines:#?}");
    }
}

#[test]
fn a_new_copy_is_listed_as_rsync_lists_it_and_not_made() {
    let workspace = Workspace::new();
    let source = plain(&workspace.at("source"));
    for from in [contents(&source), source.clone()] {
        let (copy, rsyncs) = (workspace.at("copy"), workspace.at("copy of rsync"));
        let Some(wanted) = rsync_items(&["-n"], &from, &rsyncs) else { return };
        assert_eq!(items(pull_text(&from, &copy, "-ni")), wanted);
        assert!(!copy.exists(), "a dry run makes nothing");
        assert_eq!(items(pull_text(&from, &copy, "-i")), wanted);
        fs::remove_dir_all(&copy).expect("remove");
    }
}

#[test]
fn a_dry_run_fetches_nothing_and_counts_what_would_be_done() {
    let workspace = Workspace::new();
    let source = everything(&workspace.at("source")).finish();
    let copy = workspace.at("copy");
    let server = Server::start(&source);
    let pull = |options: &str| Client::pull(server.url(""), &copy).options(options).run();
    let dry = pull("-n").expect_exit(0);
    let none = [("files_committed", 0), ("bytes_fetched", 0), ("links_made", 0), ("dirs_made", 0), ("deleted", 0)];
    let dry = dry.expect_counts(&none);
    assert!(dry.count("bytes_wire_in") < 64 << 10, "no bodies on the wire");
    assert_eq!(dry.events().last().expect("a summary")["dry_run"], true);
    assert!(dry.paths_of("item").is_empty(), "-n implies nothing about -i");
    assert!(!copy.exists());
    let run = pull("").expect_exit(0);
    assert_eq!(run.events().last().expect("a summary")["dry_run"], false);
    assert_eq!(dry.count("files_wanted"), run.count("files_committed"));
    assert_eq!(dry.count("bytes_wanted"), run.count("bytes_total"));
    fs::create_dir_all(copy.join("gone/below")).expect("create");
    let before = snapshot(&copy);
    pull("-n --delete").expect_exit(0).expect_counts(&[("deleted", 2), ("files_wanted", 0)]);
    pull("-n --delete --max-delete 1").expect_exit(25).expect_counts(&[("deleted", 0)]);
    assert_eq!(snapshot(&copy), before);
}

#[test]
fn a_dry_run_says_so_and_refuses_what_a_run_refuses() {
    let workspace = Workspace::new();
    let source = plain(&workspace.at("source"));
    let copy = workspace.at("copy");
    let said = pull_text(&contents(&source), &copy, "-n").run().expect_exit(0);
    assert!(said.lines.iter().any(|line| line.ends_with("(dry run)")), "{:?}", said.lines);
    let nowhere = workspace.at("no/such/directory");
    let code = |run: Run| run.code;
    for options in ["", "-n"] {
        assert_eq!(code(Client::pull(contents(&source), &nowhere).options(options).run()), Some(11));
    }
    Client::pull(contents(&source), &copy).run().expect_exit(0);
    fs::remove_dir_all(&source).expect("remove");
    fs::create_dir(&source).expect("create");
    let before = snapshot(&copy);
    let run = Client::pull(contents(&source), &copy).options("-n --delete").run().expect_exit(23);
    assert!(run.events().iter().any(|event| event["reason"] == "empty source"));
    let run = Client::pull(contents(&source), &copy).options("-n -i --delete --force-empty").run().expect_exit(0);
    run.expect_counts(&[("deleted", 6)]);
    assert_eq!(snapshot(&copy), before);
}

#[test]
fn items_are_events_with_json() {
    let workspace = Workspace::new();
    let source = plain(&workspace.at("source"));
    let copy = workspace.at("copy");
    let run = Client::pull(contents(&source), &copy).options("-i").run().expect_exit(0);
    assert_eq!(run.paths_of("item"), [".", "empty", "link", "noise", "sub", "sub/small", "sub/text"]);
    let events = run.events();
    let link = events.iter().find(|event| event["path"] == "link").expect("told");
    assert_eq!((&link["change"], &link["target"]), (&"cL+++++++++".into(), &"sub/text".into()));
}
