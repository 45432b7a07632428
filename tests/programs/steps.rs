//! Killed between any two steps of a commit: strace ends the client in the middle of its n-th call of a kind.
//! Whatever has a final name by then is the old file or the new one, whole; a rerun ends it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::support::Workspace;
use crate::support::compare::assert_same;
use crate::support::strace::Strace;
use crate::support::tree::{Tree, noise};
use crate::support::way::{BOTH_WAYS, Route, Way};

/// The calls that change the destination, and at which of each the client is killed. At least one of each kind is
/// made.
const STEPS: [(&str, &[u32]); 10] = [
    ("mkdirat", &[1, 2, 3]),
    ("openat", &[12, 16, 20, 24, 30]),
    ("pwrite64", &[1, 2, 4, 6]),
    ("write", &[1, 2, 4]),
    ("utimensat", &[1, 2, 4, 6]),
    ("syncfs", &[1, 2]),
    ("linkat", &[1, 2, 3]),
    ("renameat", &[1, 2]),
    ("unlinkat", &[1, 2, 3]),
    ("symlinkat", &[1]),
];

/// A source, and what the destination has of it before.
struct Case {
    workspace: Workspace,
    source: PathBuf,
    /// By path: what may be there.
    lawful: BTreeMap<&'static str, Vec<Vec<u8>>>,
}

impl Case {
    fn new() -> Self {
        let workspace = Workspace::new();
        let (large, old_large) = (noise(400_000, 1), noise(350_000, 2));
        let mut tree = Tree::new(&workspace.at("source"));
        tree.file("new", &noise(5000, 3)).file("replaced", b"the new one").file("large", &large);
        tree.dir("sub").file("sub/other", &noise(70_000, 4)).link("sub/link", "other");
        let lawful = BTreeMap::from([
            ("new", vec![noise(5000, 3)]),
            ("replaced", vec![b"the new one".to_vec(), b"the old one, longer".to_vec()]),
            ("large", vec![large, old_large.clone()]),
            ("sub/other", vec![noise(70_000, 4)]),
        ]);
        let source = tree.finish();
        fs::create_dir(workspace.at("old")).expect("create");
        fs::write(workspace.at("old/replaced"), b"the old one, longer").expect("write");
        fs::write(workspace.at("old/large"), old_large).expect("write");
        Self { workspace, source, lawful }
    }

    /// A destination as it was before.
    fn copy(&self) -> PathBuf {
        let copy = self.workspace.at("copy");
        let _ = fs::remove_dir_all(&copy);
        fs::create_dir(&copy).expect("create");
        for name in ["replaced", "large"] {
            fs::copy(self.workspace.at("old").join(name), copy.join(name)).expect("copy");
        }
        copy
    }

    fn route(&self, way: Way) -> Route {
        Route::new(way, &self.source, &self.workspace)
    }

    /// Panics where a final name stands for anything but a whole file.
    fn assert_whole(&self, copy: &Path, when: &str) {
        for (path, lawful) in &self.lawful {
            let Ok(bytes) = fs::read(copy.join(path)) else {
                assert!(lawful.len() == 1, "{when}: {path} is gone");
                continue;
            };
            assert!(lawful.contains(&bytes), "{when}: {path} has {} bytes of neither version", bytes.len());
            if bytes == lawful[0] {
                let times = [&self.source, copy].map(|root| {
                    let metadata = fs::metadata(root.join(path)).expect("metadata");
                    (metadata.mtime(), metadata.mtime_nsec(), metadata.mode())
                });
                assert_eq!(times[0], times[1], "{when}: {path} has its name before its time and mode");
            }
        }
    }
}

const OPTIONS: &str = "--conns 2 --chunk-kb 64 --no-whole-file";

#[test]
fn killed_at_any_step_leaves_whole_files_and_a_rerun_completes() {
    let Some(strace) = Strace::new() else { return };
    let case = Case::new();
    for way in BOTH_WAYS {
        for (call, numbers) in STEPS {
            let mut kills = 0;
            for number in numbers {
                let copy = case.copy();
                let when = format!("{call} {number}");
                let route = case.route(way).receiver_strace(&strace.clone().kills_at(call, *number));
                let Some(run) = route.try_bring(&copy, &format!("{OPTIONS} --retry 0")) else { continue };
                let is_killed =
                    if way == Way::Pull { run.code.is_none() } else { matches!(run.code, Some(10 | 12 | 35)) };
                assert!(is_killed || run.code == Some(0), "{when}: {:?} {}", run.code, run.stderr);
                kills += usize::from(is_killed);
                case.assert_whole(&copy, &when);
                let rerun = case.route(way).bring(&copy, OPTIONS);
                assert_eq!(rerun.code, Some(0), "{when}: {}", rerun.stderr);
                assert_same(&case.source, &copy);
                assert_eq!(fs::read_dir(copy.join(".fastcp/parts")).expect("read").count(), 0, "{when}: leftovers");
            }
            // A server opens more before it listens than any of its threads need open afterwards.
            assert!(kills > 0 || (way == Way::Push && call == "openat"), "{way:?}: {call} is never made");
        }
    }
}
