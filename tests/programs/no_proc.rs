//! A client in a name space without `/proc`, such as a small container: descriptors are named by themselves where the
//! kernel can, and what it cannot name by a descriptor has a name from the start.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::Workspace;
use crate::support::client::{Client, contents};
use crate::support::compare::assert_same;
use crate::support::launch::can_restrict;
use crate::support::strace::Strace;
use crate::support::tree::{Tree, noise};

fn source(workspace: &Workspace) -> PathBuf {
    let mut tree = Tree::new(&workspace.at("source"));
    tree.dir("sub").mode(0o750).file("sub/small", b"small").mode(0o640).file("large", &noise(300_000, 1));
    tree.link("link", "large").file("touched", b"the same").mode(0o600);
    tree.finish()
}

/// A destination in which something is to be replaced, and something to be given its mode and time.
fn copy(workspace: &Workspace) -> PathBuf {
    let copy = workspace.at("copy");
    fs::create_dir_all(copy.join("sub")).expect("create");
    fs::write(copy.join("large"), b"old").expect("write");
    let touched = fs::copy(workspace.at("source/touched"), copy.join("touched"));
    touched.expect("copy");
    let times = fs::metadata(workspace.at("source/touched")).and_then(|metadata| metadata.modified()).expect("a time");
    fs::File::options().write(true).open(copy.join("touched")).and_then(|file| file.set_modified(times)).expect("set");
    fs::set_permissions(copy.join("touched"), std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("chmod");
    copy
}

fn pull(source: &Path, copy: &Path) -> Client {
    Client::pull(contents(source), copy).options("--conns 2 --chunk-kb 64").restricted("no-proc")
}

#[test]
fn nothing_is_missed() {
    if !can_restrict("no-proc") {
        return;
    }
    let workspace = Workspace::new();
    let (source, copy) = (source(&workspace), copy(&workspace));
    pull(&source, &copy).run().expect_exit(0).expect_counts(&[("files_failed", 0), ("files_committed", 2)]);
    assert_same(&source, &copy);
    let again = pull(&source, &workspace.at("again")).run();
    again.expect_exit(0);
    assert_same(&source, &workspace.at("again"));
}

#[test]
fn a_file_that_could_not_be_named_has_a_name_from_the_start() {
    let (true, Some(strace)) = (can_restrict("no-proc"), Strace::new()) else { return };
    let workspace = Workspace::new();
    let (source, copy) = (source(&workspace), copy(&workspace));
    // As a user without rights is answered by kernels before 6.10.
    let strace = strace.fails("linkat", "ENOENT");
    pull(&source, &copy).strace(&strace).run().expect_exit(0).expect_counts(&[("files_failed", 0)]);
    assert_same(&source, &copy);
}
