//! Filter rules: what they leave out is not looked at, not copied, and not deleted, whoever dials.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::support::client::{Client, contents};
use crate::support::compare::walk;
use crate::support::server::Server;
use crate::support::strace::Strace;
use crate::support::tree::Tree;
use crate::support::way::{BOTH_WAYS, Route};
use crate::support::{Workspace, say_skipped};

/// The names in a copy, without what fastcp keeps for itself.
fn names(copy: &Path) -> BTreeSet<String> {
    walk(copy).into_iter().filter(|name| !name.is_empty() && !name.starts_with(".fastcp")).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Files in a source, of which these options let some pass.
fn expect_passes(files: &[(&str, &str)], options: &str, expected: &[&str]) {
    for way in BOTH_WAYS {
        let workspace = Workspace::new();
        let route = Route::of(way, &workspace, |tree| put(tree, files));
        let copy = workspace.at("copy");
        let run = route.bring(&copy, options).expect_exit(0);
        assert_eq!(names(&copy), set(expected), "{options} {way:?}");
        // What is left out is not even offered; the root counts.
        assert_eq!(run.count("entries"), 1 + expected.len() as u64, "{options} {way:?}");
        let again = route.bring(&copy, options).expect_exit(0);
        again.expect_counts(&[("files_committed", 0), ("bytes_fetched", 0)]);
    }
}

fn put(tree: &mut Tree, files: &[(&str, &str)]) {
    let mut dirs = BTreeSet::new();
    for (file, text) in files {
        for (at, _) in file.match_indices('/') {
            if dirs.insert(&file[..at]) {
                tree.dir(&file[..at]);
            }
        }
        tree.file(file, text.as_bytes());
    }
}

#[test]
fn the_first_rule_that_matches_counts_in_the_order_that_was_typed() {
    let files = [("a.o", ""), ("keep.o", ""), ("dir/b.o", ""), ("dir/c", "")];
    expect_passes(&files, "--include keep.o --exclude *.o", &["dir", "dir/c", "keep.o"]);
    expect_passes(&files, "--exclude *.o --include keep.o", &["dir", "dir/c"]);
    expect_passes(&files, "-f -_*.o --filter=+_dir/", &["dir", "dir/c"]);
}

#[test]
fn an_included_file_in_an_excluded_directory_does_not_come() {
    let files = [("out/file", ""), ("in/file", "")];
    expect_passes(&files, "--include file --exclude out/", &["in", "in/file"]);
}

#[test]
fn a_pattern_with_a_slash_inside_matches_at_the_end_of_a_path() {
    let files = [("x/a/b", ""), ("a/b", ""), ("xa/b", "")];
    expect_passes(&files, "--exclude a/b", &["a", "x", "x/a", "xa", "xa/b"]);
    expect_passes(&files, "--exclude /a/b", &["a", "x", "x/a", "x/a/b", "xa", "xa/b"]);
}

/// The slash of `: /.rsync-filter` says where the file is searched for, and anchors nothing.
#[test]
fn the_slash_of_a_capital_f_does_not_anchor() {
    let files = [(".rsync-filter", "- x\n"), ("x", ""), ("sub/x", ""), ("sub/y", "")];
    expect_passes(&files, "-F", &[".rsync-filter", "sub", "sub/y"]);
    expect_passes(&files, "-FF", &["sub", "sub/y"]);
}

#[test]
fn rules_of_a_directory_are_inherited_and_stand_before_those_of_its_parent() {
    let files = [
        (".rules", "- *.o\n- /top\n"),
        ("top", ""),
        ("sub/.rules", "+ special.o\n"),
        ("sub/special.o", ""),
        ("sub/other.o", ""),
        ("sub/top", ""),
        ("sub/deep/special.o", ""),
    ];
    let expected = [".rules", "sub", "sub/.rules", "sub/deep", "sub/deep/special.o", "sub/special.o", "sub/top"];
    expect_passes(&files, "--filter=:_.rules", &expected);
    expect_passes(&files, "--filter=:n_.rules", &[&expected[..], &["sub/other.o"]].concat());
    expect_passes(&files, "--filter=:e_.rules", &["sub", "sub/deep", "sub/deep/special.o", "sub/special.o", "sub/top"]);
}

/// The modifier `/` holds patterns against paths from the root, and changes nothing else about them.
#[test]
fn a_slash_behind_a_colon_holds_patterns_against_whole_paths() {
    let workspace = Workspace::new();
    let mut tree = Tree::new(&workspace.at("source"));
    put(&mut tree, &[("tree/.rules", "- /tree/x\n- y\n"), ("tree/x", ""), ("tree/sub/x", ""), ("tree/sub/y", "")]);
    let server = Server::start(&tree.finish());
    let copy = workspace.at("copy");
    Client::pull(server.url("tree/"), &copy).words(&["--filter=:/ .rules"]).run().expect_exit(0);
    assert_eq!(names(&copy), set(&[".rules", "sub", "sub/x"]));
}

#[test]
fn what_is_left_out_is_not_deleted_unless_that_is_asked_for() {
    let files = [("kept", "new"), ("dir/file", "")];
    for way in BOTH_WAYS {
        for (options, expected) in [
            ("--delete --exclude *.log", &["a.log", "dir", "dir/b.log", "dir/file", "kept", "old", "old/c.log"][..]),
            ("--delete-excluded --exclude *.log", &["dir", "dir/file", "kept"]),
            ("--delete --filter=H_*.log", &["dir", "dir/file", "kept"]),
            ("--delete --filter=P_/old", &["dir", "dir/file", "kept", "old", "old/c.log", "old/d"]),
            ("--delete --filter=-p_*.log", &["a.log", "dir", "dir/b.log", "dir/file", "kept"]),
            // Files of rules in the destination rule what is deleted there.
            ("--delete --filter=:_.rules", &["dir", "dir/.rules", "dir/b.log", "dir/file", "kept"]),
        ] {
            let workspace = Workspace::new();
            let route = Route::of(way, &workspace, |tree| put(tree, &files));
            let copy = workspace.at("copy");
            let mut old = Tree::new(&copy);
            put(&mut old, &[("a.log", ""), ("dir/b.log", ""), ("old/c.log", ""), ("old/d", ""), ("kept", "before")]);
            if options.contains(":_") {
                old.file("dir/.rules", b"- b.log\n- .rules\n");
            }
            old.finish();
            let wanted = route.bring(&copy, &format!("-n {options}")).expect_exit(0).count("deleted");
            let run = route.bring(&copy, options).expect_exit(0);
            assert_eq!(names(&copy), set(expected), "{options} {way:?}");
            assert_eq!(run.count("deleted"), wanted, "as the dry run said");
            assert_eq!(fs::read(copy.join("kept")).expect("read"), b"new");
        }
    }
}

/// What cannot be known must not let anything pass, nor take anything away.
#[test]
fn a_file_of_rules_that_makes_no_sense_closes_its_directory() {
    for way in BOTH_WAYS {
        let workspace = Workspace::new();
        let files = [("good/file", ""), ("bad/.rules", "nonsense\n"), ("bad/secret", ""), ("bad/below/secret", "")];
        let route = Route::of(way, &workspace, |tree| put(tree, &files));
        let copy = workspace.at("copy");
        let mut old = Tree::new(&copy);
        put(&mut old, &[("bad/old", ""), ("other", "")]);
        old.finish();
        let run = route.bring(&copy, "--delete --filter=:_.rules").expect_exit(23);
        assert_eq!(names(&copy), set(&["bad", "bad/old", "good", "good/file", "other"]), "{way:?}");
        assert!(run.stderr.contains("\"bad\": its file of filter rules cannot be used"), "{}", run.stderr);
        // At the destination nothing is deleted where they cannot be known; the rest is.
        fs::write(route.source.join("bad/.rules"), "- secret\n").expect("write");
        fs::write(copy.join("bad/.rules"), "nonsense, and longer\n").expect("write");
        let run = route.bring(&copy, "--delete --filter=:_.rules").expect_exit(23);
        assert!(run.stderr.contains("\"bad\": nothing is deleted in it"), "{}", run.stderr);
        let expected = ["bad", "bad/.rules", "bad/below", "bad/old", "good", "good/file"];
        assert_eq!(names(&copy), set(&expected), "{way:?}");
        route.bring(&copy, "--delete --filter=:_.rules").expect_exit(0).expect_counts(&[("deleted", 1)]);
    }
}

#[test]
fn what_is_left_out_is_not_opened() {
    let workspace = Workspace::new();
    let mut tree = Tree::new(&workspace.at("source"));
    put(&mut tree, &[("in/file", "x"), ("out/deep/file", "x"), ("out/other", "x")]);
    let source = tree.finish();
    let log = workspace.at("calls");
    let Some(strace) = Strace::new() else { return say_skipped("strace cannot be used") };
    let strace = ["openat", "openat2", "statx", "newfstatat"]
        .iter()
        .fold(strace, |all, call| all.delays(call, 1))
        .logged_to(&log);
    let copy = workspace.at("copy");
    Client::pull(contents(&source), &copy).options("--exclude out").strace(&strace).run().expect_exit(0);
    let calls = fs::read_to_string(&log).expect("read");
    assert!(calls.contains("\"in\"") || calls.contains("\"in/file\"") || calls.contains("\"file\""), "{calls}");
    assert!(!calls.contains("\"out") && !calls.contains("\"deep") && !calls.contains("\"other\""), "{calls}");
}

#[test]
fn verify_and_list_take_the_same_rules() {
    let workspace = Workspace::new();
    let mut tree = Tree::new(&workspace.at("source"));
    put(&mut tree, &[("a", "same"), ("b.o", "one"), ("dir/c", ""), ("dir/d.o", "")]);
    let source = tree.finish();
    let mut other = Tree::new(&workspace.at("other"));
    put(&mut other, &[("a", "same"), ("b.o", "two!"), ("dir/c", ""), ("e.o", "")]);
    let other = other.finish();
    let verify = |options: &str| Client::verify(&other, contents(&source)).options(options).run();
    verify("").expect_exit(23);
    verify("--exclude *.o").expect_differences(&[]);
    let listed = Client::new(["ls", "-R", "--exclude=*.o"]).words(&[contents(&source)]).run().expect_exit(0);
    assert_eq!(listed.lines, ["a", "dir/", "dir/c"]);
}

#[test]
fn files_of_other_sizes_are_left_as_they_are() {
    for way in BOTH_WAYS {
        let workspace = Workspace::new();
        let files = [("small", "1"), ("middle", "12345"), ("large", "1234567890")];
        let route = Route::of(way, &workspace, |tree| put(tree, &files));
        let copy = workspace.at("copy");
        let mut old = Tree::new(&copy);
        put(&mut old, &[("large", "old"), ("extra", "")]);
        old.finish();
        let run = route.bring(&copy, "--delete --min-size 2 --max-size=10-1").expect_exit(0);
        run.expect_counts(&[("files_committed", 1), ("deleted", 1), ("bytes_fetched", 5)]);
        assert_eq!(names(&copy), set(&["large", "middle"]));
        assert_eq!(fs::read(copy.join("large")).expect("read"), b"old");
    }
}

#[test]
fn rules_that_make_no_sense_are_told_before_anything_is_done() {
    let workspace = Workspace::new();
    let source = Tree::new(&workspace.at("source")).file("a", b"").finish();
    let copy = workspace.at("copy");
    for (words, message) in [
        (&["--filter=what"][..], "--filter \"what\": a filter rule begins with"),
        (&["--filter=-z x"], "the modifier 'z' is not for this filter rule"),
        (&["--filter=. /nonexistent"], "cannot read the filter rules in \"/nonexistent\""),
        (&["--exclude="], "a pattern is empty"),
        (&["--max-size=many"], "expected a number of bytes"),
    ] {
        let run = Client::pull(contents(&source), &copy).words(words).run();
        assert!(run.stderr.contains(message), "{words:?}: {}", run.stderr);
        assert!(!copy.exists());
    }
}
