//! Threads are woken by what concerns them: a run that has nothing to do wakes hardly anybody.
//!
//! Counted in system calls, which do not depend on how fast the machine is.

use std::fs;

use crate::support::client::{Client, contents};
use crate::support::copied::Copied;
use crate::support::strace::Strace;
use crate::support::tree::{Tree, noise};

/// Files in directories of a hundred.
const DIRS: u32 = 40;

#[test]
fn a_rerun_of_an_unchanged_tree_wakes_hardly_anybody() {
    let Some(strace) = Strace::new() else { return };
    let copied = Copied::of(|root| {
        let mut tree = Tree::new(root);
        for dir in 0..DIRS {
            tree.dir(format!("{dir}"));
            for file in 0..100 {
                tree.file(format!("{dir}/{file}"), &noise(10, u64::from(dir * 100 + file)));
            }
        }
        tree.finish()
    });
    let log = copied.workspace.at("calls");
    // Nothing is done to the calls but to write them down.
    let counted = strace.inject("futex", "delay_enter=0").logged_to(&log);
    let pull = Client::pull(contents(&copied.source), &copied.copy).options("--conns 8").strace(&counted);
    let run = pull.run().expect_exit(0).expect_counts(&[("files_unchanged", u64::from(DIRS) * 100)]);
    assert_eq!(run.count("bytes_fetched"), 0);
    let calls = fs::read_to_string(&log).expect("read").lines().filter(|line| line.contains("futex(")).count();
    assert!(calls < 1000, "{calls} futex calls for {} files", DIRS * 100);
}
