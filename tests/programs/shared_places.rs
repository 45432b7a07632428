//! Destinations that other users may write to: whatever they put there beforehand, or exchange meanwhile, they
//! neither read what is not for them nor get a file of theirs under a name that the run reports as copied.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use crate::support::compare::assert_same;
use crate::support::journal::{names_in_parts, parts_dir};
use crate::support::stage::{ATTACH_REPLY_BYTES, Stage};
use crate::support::strace::Strace;
use crate::support::tree::noise;
use crate::support::valve::Kind;
use crate::support::way::{BOTH_WAYS, Route};
use crate::support::{NOBODY, Workspace, is_root, say_skipped, wait_until};

const CHUNK_BYTES: u64 = 64 << 10;
const FILE_BYTES: usize = 20 * CHUNK_BYTES as usize + 5;
const OPTIONS: &str = "--chunk-kb 64 --conns 1 --no-compress";
/// Somebody who has nothing to do with any of it.
const STRANGER: u32 = 12_345;

/// Makes a directory of this user, with this mode.
fn dir_of(path: &Path, user: u32, mode: u32) {
    fs::create_dir(path).expect("create");
    chown(path, Some(user), Some(user)).expect("chown");
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("chmod");
}

/// A destination that belongs to an unprivileged user, who has made the state directory before anybody else.
fn taken_destination(path: &Path) {
    dir_of(path, NOBODY, 0o755);
    dir_of(&path.join(".fastcp"), NOBODY, 0o777);
    dir_of(&parts_dir(path), NOBODY, 0o777);
}

/// Waits for the part file in `dir`.
fn part_beside(dir: &Path) -> PathBuf {
    wait_until("a part file beside its target", || parts_beside(dir).len() == 1);
    parts_beside(dir).remove(0)
}

/// What lies in `dir` under names that only part files have.
fn parts_beside(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().map(|entry| entry.expect("read").path());
    entries.filter(|path| path.to_str().is_some_and(|text| text.ends_with(".part"))).collect()
}

fn mode_of(path: &Path) -> u32 {
    path.metadata().expect("examine").mode() & 0o7777
}

fn is_root_or_skipped() -> bool {
    if !is_root() {
        say_skipped("only root can give directories to others");
    }
    is_root()
}

#[test]
fn part_files_lie_in_no_directory_of_somebody_else() {
    if !is_root_or_skipped() {
        return;
    }
    for way in BOTH_WAYS {
        let stage = Stage::by(way, |tree| {
            tree.dir("private").mode(0o700).file("private/secret", &noise(FILE_BYTES, 1)).mode(0o644);
        });
        taken_destination(&stage.copy);
        let client = stage.stall(OPTIONS, ATTACH_REPLY_BYTES + 4 * CHUNK_BYTES);
        let private = stage.copy.join("private");
        let part = part_beside(&private);
        assert_eq!(names_in_parts(&stage.copy), Vec::<PathBuf>::new());
        assert_eq!((mode_of(&private), mode_of(&part)), (0o700, 0o600));
        stage.valve.open();
        client.finish().expect_exit(0);
        assert_same(&stage.source, &stage.copy);
        assert_eq!(parts_beside(&private), Vec::<PathBuf>::new());
    }
}

#[test]
fn a_state_directory_that_is_open_to_others_is_closed_to_them() {
    for way in BOTH_WAYS {
        let stage = Stage::by(way, |tree| {
            tree.file("file", &noise(FILE_BYTES, 1));
        });
        for dir in [&stage.copy, &stage.copy.join(".fastcp"), &parts_dir(&stage.copy)] {
            fs::create_dir(dir).expect("create");
            fs::set_permissions(dir, Permissions::from_mode(0o777)).expect("chmod");
        }
        stage.client(OPTIONS).run().expect_exit(0);
        assert_eq!(mode_of(&stage.copy.join(".fastcp")), 0o700);
        assert_eq!(mode_of(&parts_dir(&stage.copy)), 0o700);
        assert_same(&stage.source, &stage.copy);
    }
}

#[test]
fn a_part_file_beside_its_target_gets_its_name_whatever_else_has_its_old_one() {
    if !is_root_or_skipped() {
        return;
    }
    for way in BOTH_WAYS {
        for old in [None, Some("old")] {
            let stage = Stage::by(way, |tree| {
                tree.file("file", &noise(FILE_BYTES, 1));
            });
            taken_destination(&stage.copy);
            if let Some(old) = old {
                fs::write(stage.copy.join("file"), old).expect("write");
            }
            let client = stage.stall(&format!("{OPTIONS} -W"), ATTACH_REPLY_BYTES + 4 * CHUNK_BYTES);
            let part = part_beside(&stage.copy);
            let elsewhere = stage.copy.join("elsewhere");
            fs::rename(&part, &elsewhere).expect("exchange");
            fs::write(&part, "planted").expect("write");
            stage.valve.open();
            client.finish().expect_exit(0);
            assert_eq!(fs::read(&part).expect("read"), b"planted", "what is not ours is left alone");
            let [got, wanted] = [&stage.copy, &stage.source].map(|tree| fs::read(tree.join("file")).expect("read"));
            assert!(got == wanted, "the file is the source's");
        }
    }
}

#[test]
fn a_name_that_stands_for_something_else_after_the_rename_is_a_failure() {
    if !is_root_or_skipped() {
        return;
    }
    let Some(strace) = Strace::new() else { return };
    for way in BOTH_WAYS {
        let workspace = Workspace::new();
        let route = Route::of(way, &workspace, |tree| _ = tree.file("file", b"the new one"));
        let route = route.receiver_strace(&strace.clone().delays("renameat", 3_000_000));
        let copy = workspace.at("copy");
        taken_destination(&copy);
        fs::write(copy.join("file"), b"old").expect("write");
        fs::write(workspace.at("planted"), b"planted").expect("write");
        let server = route.serve();
        let client = route.client(server.address, &copy).start();
        // The part file, and the name that it is to be renamed from.
        wait_until("a second name", || parts_beside(&copy).len() == 2);
        for part in parts_beside(&copy) {
            let planted = workspace.at("link");
            fs::hard_link(workspace.at("planted"), &planted).expect("link");
            fs::rename(&planted, part).expect("exchange");
        }
        let run = client.finish().expect_exit(23).expect_counts(&[("files_failed", 1), ("files_committed", 0)]);
        assert!(run.stderr.contains("replaced"), "{}", run.stderr);
    }
}

#[test]
fn an_old_directory_is_closed_before_anything_is_put_into_it() {
    if !is_root_or_skipped() {
        return;
    }
    for way in BOTH_WAYS {
        let stage = Stage::by(way, |tree| {
            tree.dir("private").mode(0o700).file("private/secret", &noise(FILE_BYTES, 1)).mode(0o644);
            tree.dir("read only").mode(0o500).file("read only/file", b"bytes");
        });
        for (path, mode) in [("", 0o755), ("private", 0o777), ("read only", 0o777)] {
            dir_of(&stage.copy.join(path), NOBODY, mode);
        }
        let client = stage.stall(OPTIONS, ATTACH_REPLY_BYTES + 4 * CHUNK_BYTES);
        let private = stage.copy.join("private");
        wait_until("the part file", || !names_in_parts(&stage.copy).is_empty());
        assert_eq!((mode_of(&private), private.metadata().expect("examine").uid()), (0o700, 0));
        assert_eq!(mode_of(&stage.copy.join("read only")) & 0o077, 0);
        stage.valve.open();
        client.finish().expect_exit(0);
        assert_same(&stage.source, &stage.copy);
    }
}

#[test]
fn a_state_directory_never_gets_what_is_meant_for_a_directory_of_the_tree() {
    if !is_root_or_skipped() {
        return;
    }
    for way in BOTH_WAYS {
        let stage = Stage::by(way, |tree| {
            tree.file("file", &noise(FILE_BYTES, 1)).dir("sub").file("sub/file", &noise(FILE_BYTES, 2)).mode(0o644);
        });
        chown(stage.source.join("sub"), Some(NOBODY), Some(NOBODY)).expect("chown");
        dir_of(&stage.copy, NOBODY, 0o755);
        let client = stage.stall(OPTIONS, ATTACH_REPLY_BYTES + 4 * CHUNK_BYTES);
        wait_until("the directories", || !names_in_parts(&stage.copy).is_empty() && stage.copy.join("sub").exists());
        fs::rename(stage.copy.join("sub"), stage.copy.join("moved")).expect("rename");
        fs::rename(stage.copy.join(".fastcp"), stage.copy.join("sub")).expect("rename");
        stage.valve.open();
        client.finish().expect_exit(23);
        let state = stage.copy.join("sub");
        assert_eq!((mode_of(&state), state.metadata().expect("examine").uid()), (0o700, 0));
    }
}

#[test]
fn a_lock_counts_where_its_owner_could_have_stopped_us_anyway() {
    if !is_root_or_skipped() {
        return;
    }
    for way in BOTH_WAYS {
        for (owner_of_copy, owner_of_state, code) in [(NOBODY, NOBODY, 3), (0, STRANGER, 0), (NOBODY, STRANGER, 0)] {
            let workspace = Workspace::new();
            let route = Route::of(way, &workspace, |tree| _ = tree.file("file", b"bytes"));
            let copy = workspace.at("copy");
            dir_of(&copy, owner_of_copy, 0o777);
            dir_of(&copy.join(".fastcp"), owner_of_state, 0o755);
            let lock = File::create(copy.join(".fastcp/lock")).expect("create");
            lock.lock().expect("lock");
            let before = lock.metadata().expect("examine").mtime_nsec();
            route.bring(&copy, "").expect_exit(code);
            assert_eq!(lock.metadata().expect("examine").mtime_nsec(), before, "what is not ours is not written to");
        }
    }
}

#[test]
fn what_somebody_else_kept_of_an_offer_is_not_believed() {
    if !is_root_or_skipped() {
        return;
    }
    for way in BOTH_WAYS {
        let stage = Stage::by(way, |tree| {
            // Names that hardly compress, so that the offer is worth keeping.
            for name in noise(1500 * 16, 1).chunks(16) {
                tree.file(name.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), b"");
            }
        });
        let offered = |kind| stage.valve.passed(kind);
        stage.client("").run().expect_exit(0);
        let whole = offered(Kind::Control);
        stage.client("").run().expect_exit(0);
        let known = offered(Kind::Control) - whole;
        assert!(known * 2 < whole, "an offer that is known is not sent: {known} of {whole} bytes");
        for path in [".fastcp", ".fastcp/tree"] {
            chown(stage.copy.join(path), Some(NOBODY), Some(NOBODY)).expect("chown");
        }
        stage.client("").run().expect_exit(0);
        assert!(offered(Kind::Control) - whole - known > known * 2, "the offer is sent again");
    }
}
