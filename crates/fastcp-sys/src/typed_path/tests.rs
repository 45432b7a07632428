//! Walks through links of one's own and of others.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, chown, lchown, symlink};
use std::path::Path;

use nix::errno::Errno;

use super::{Foreign, check_links, make_dir, make_dirs, open_dir, open_parent, open_to_append, open_to_read};
use crate::{Stat, process};

const STRANGER: u32 = 12_345;

/// `dir/file` and `dir/deep`, and links to them.
fn tree() -> tempfile::TempDir {
    let tree = tempfile::tempdir().expect("temporary directory");
    let at = |name: &str| tree.path().join(name);
    fs::create_dir_all(at("dir/deep")).expect("create");
    fs::write(at("dir/file"), b"bytes").expect("write");
    for (name, target) in [("to dir", "dir"), ("chain", "to dir"), ("to file", "chain/file"), ("loop", "loop")] {
        symlink(target, at(name)).expect("link");
    }
    symlink(at("dir"), at("absolute")).expect("link");
    symlink("../../dir/deep/../..", at("dir/deep/up")).expect("link");
    tree
}

fn inode(path: &Path) -> u64 {
    path.metadata().expect("examine").ino()
}

fn owner_of_link(error: &io::Error) -> Option<u32> {
    match error.get_ref()?.downcast_ref::<Foreign>()? {
        Foreign::Link { owner, .. } => Some(*owner),
        Foreign::File { .. } => None,
    }
}

#[test]
fn own_links_lead_where_the_kernel_goes() {
    let tree = tree();
    for path in [".", "dir", "to dir/", "chain/deep", "absolute/deep/..", "dir/deep/up", "dir/deep/up/chain/./deep"] {
        let path = tree.path().join(path);
        let opened = Stat::of_fd(open_dir(&path).expect("open")).expect("examine");
        assert_eq!(opened.identity.inode, inode(&path), "{path:?}");
    }
    for (path, errno) in
        [("loop", Errno::ELOOP), ("to file", Errno::ENOTDIR), ("dir/file/x", Errno::ENOTDIR), ("no", Errno::ENOENT)]
    {
        let error = open_dir(&tree.path().join(path)).expect_err("refused");
        assert_eq!(error.raw_os_error(), Some(errno as i32), "{path}");
    }
    let mut text = String::new();
    open_to_read(&tree.path().join("to file")).expect("open").read_to_string(&mut text).expect("read");
    assert_eq!(text, "bytes");
    let (dir, name) = open_parent(&tree.path().join("chain/loop")).expect("open");
    assert_eq!(
        (dir.stat().expect("examine").identity.inode, name.as_bytes()),
        (inode(&tree.path().join("dir")), &b"loop"[..])
    );
}

#[test]
fn links_of_others_are_refused_by_name() {
    if !process::is_root() {
        return;
    }
    let tree = tree();
    let at = |name: &str| tree.path().join(name);
    lchown(at("to dir"), Some(STRANGER), None).expect("chown");
    for path in ["to dir", "to dir/deep", "chain", "chain/deep", "to file", "to dir/new"] {
        for refused in [open_dir(&at(path)).err(), make_dirs(&at(path)).err(), check_links(&at(path)).err()] {
            assert_eq!(refused.as_ref().and_then(owner_of_link), Some(STRANGER), "{path}");
        }
    }
    assert_eq!(make_dir(&at("chain/new")).err().as_ref().and_then(owner_of_link), Some(STRANGER));
    let error = open_to_append(&at("to file")).expect_err("refused");
    let link = at("to dir");
    assert!(error.to_string().starts_with(&format!("\"{}\" is a symbolic link of user 12345", link.display())));
    assert_eq!(fs::read_dir(at("dir")).expect("read").count(), 2, "nothing is made");
}

#[test]
fn what_is_missing_is_made_where_the_links_lead() {
    let tree = tree();
    let at = |name: &str| tree.path().join(name);
    make_dirs(&at("chain/a/b")).expect("make");
    make_dir(&at("absolute/c/")).expect("make");
    assert!(at("dir/a/b").is_dir() && at("dir/c").is_dir());
    assert_eq!(make_dir(&at("dir")).expect_err("there").kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(make_dir(&at("no/d")).expect_err("no parent").kind(), io::ErrorKind::NotFound);
    symlink("dir/made", at("dangling")).expect("link");
    let opened = open_to_append(&at("dangling")).expect("open");
    (&opened.file).write_all(b"text").expect("write");
    assert_eq!(fs::read(at("dir/made")).expect("read"), b"text");
    assert_eq!(opened.dir.stat().expect("examine").identity.inode, inode(&at("dir")));
    check_links(&at("nothing/at/all")).expect("no link on the way");
}

#[test]
fn a_file_planted_by_somebody_else_is_not_appended_to() {
    if !process::is_root() {
        return;
    }
    let tree = tree();
    let file = tree.path().join("dir/file");
    chown(&file, Some(STRANGER), None).expect("chown");
    let error = open_to_append(&file).expect_err("refused");
    let foreign = error.get_ref().and_then(|source| source.downcast_ref::<Foreign>());
    assert_eq!(foreign, Some(&Foreign::File { path: file.clone(), owner: STRANGER }));
    chown(tree.path().join("dir"), Some(STRANGER), None).expect("chown");
    open_to_append(&file).expect("his own file in his own directory");
}

#[test]
fn links_of_proc_lead_to_what_is_open() {
    let tree = tree();
    let dir = File::open(tree.path().join("dir")).expect("open");
    let path = format!("/proc/self/fd/{}", dir.as_raw_fd());
    let Ok(opened) = open_dir(Path::new(&path)) else { return assert!(!Path::new("/proc/self").exists()) };
    assert_eq!(Stat::of_fd(opened).expect("examine").identity.inode, inode(&tree.path().join("dir")));
    open_dir(&Path::new(&path).join("deep")).expect("open");
    let file = File::open(tree.path().join("dir/file")).expect("open");
    open_to_read(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd()))).expect("open");
}
