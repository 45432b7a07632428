//! `--inplace`: files are written where they are. They keep their inode and their other names, and are equal to the
//! source in the end, whatever was there and however often the client was killed meanwhile.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use crate::support::client::{Client, contents};
use crate::support::compare::{assert_same, assert_same_but_room};
use crate::support::journal::names_in_parts;
use crate::support::mount::SmallDisk;
use crate::support::tree::{Tree, noise};
use crate::support::valve::Kind;
use crate::support::versions::{NAME, Versions, put_old, rewritten, rewritten_bytes};
use crate::support::wait_until;
use crate::support::way::BOTH_WAYS;
use nix::sys::stat::SFlag;

const MIB: usize = 1 << 20;
const FILE_BYTES: usize = 9 * MIB + 77;
/// What a change costs beside its own bytes: the chunks that it lies in.
const AROUND_CHANGE_BYTES: u64 = 32 << 10;
/// By a server; whole; and without what delta needs.
const OPTIONS: [&str; 4] =
    ["--inplace", "--inplace --conns 8 --chunk-kb 64", "--inplace --whole-file", "--inplace --without 8 --conns 1"];

/// Of a file of which the rest is new: what the lists of chunks take at most, and what is fetched around changes.
const LISTS_BYTES: u64 = 256 << 10;
const OLD_BYTES: u64 = 3 << 20;
const CHUNK_BYTES: u64 = 64 << 10;

fn inode(copy: &Path) -> u64 {
    fs::metadata(copy.join(NAME)).expect("examine").ino()
}

/// How much of the new version is where it belongs, page by page.
fn standing_bytes(copy: &Path, new: &[u8]) -> u64 {
    let there = fs::read(copy.join(NAME)).expect("read");
    new.len() as u64 - rewritten_bytes(&there, new)
}

#[test]
fn a_file_keeps_its_inode_and_gets_the_new_content() {
    for way in BOTH_WAYS {
        let old = noise(FILE_BYTES, 1);
        let longer = [&old[..], &noise(MIB, 2)].concat();
        let moved = [b"in front", &old[..]].concat();
        for new in
            [&rewritten(&old, 100)[..], &longer, &old[..4 * MIB + 1], &moved, &noise(FILE_BYTES, 3), b"short", b""]
        {
            let versions = Versions::by(way, &old, new);
            for options in OPTIONS {
                let copy = versions.copy();
                let before = inode(&copy);
                let run = versions.update_copy(&copy, options);
                assert_eq!(inode(&copy), before, "{options}");
                assert_eq!(run.count("bytes_fetched") + run.count("bytes_reused"), new.len() as u64, "{options}");
            }
            let copy = versions.copy();
            let before = inode(&copy);
            let run = Client::pull(contents(&versions.source), &copy).options("--inplace").run();
            versions.expect_same(&copy, run).expect_counts(&[("bytes_fetched", new.len() as u64)]);
            assert_eq!(inode(&copy), before);
        }
    }
}

#[test]
fn what_stands_where_it_was_is_not_fetched() {
    for way in BOTH_WAYS {
        let old = noise(FILE_BYTES, 4);
        let new = rewritten(&old, 100);
        let rewritten = rewritten_bytes(&old, &new);
        let versions = Versions::by(way, &old, &new);
        for options in &OPTIONS[..2] {
            let fetched = versions.update(options).count("bytes_fetched");
            let dearest = rewritten + rewritten / 4096 * AROUND_CHANGE_BYTES;
            assert!(fetched >= rewritten && fetched < dearest, "{fetched} for {rewritten}");
        }
        Versions::by(way, &old, &old)
            .update("--inplace")
            .expect_counts(&[("bytes_fetched", 0), ("files_committed", 1)]);
    }
}

#[test]
fn short_files_are_written_where_they_are_too() {
    for way in BOTH_WAYS {
        for (old, new) in [(&b"old and longer"[..], &b"new"[..]), (b"", b"new"), (b"old", b""), (b"old", b"one more")] {
            let versions = Versions::put_by(way, old, |tree| {
                tree.file(NAME, new).file("beside", b"comes in a bundle");
            });
            for options in OPTIONS {
                let copy = versions.copy();
                let before = inode(&copy);
                versions.update_copy(&copy, options).expect_counts(&[("files_committed", 2)]);
                assert_eq!(inode(&copy), before, "{options}");
            }
        }
    }
}

#[test]
fn holes_read_as_zeros_whatever_was_there() {
    for way in BOTH_WAYS {
        let island = noise(MIB, 5);
        for size in [50 << 10, 3 * MIB + 5, 9 * MIB] {
            let islands = [(size / 3, &island[..size / 4 % MIB])];
            for old in [noise(size, 6), noise(size / 2, 7), vec![0; size + 1]] {
                let versions = Versions::put_by(way, &old, |tree| {
                    tree.sparse(NAME, size, &islands);
                });
                for options in OPTIONS {
                    let copy = versions.copy();
                    let before = inode(&copy);
                    versions.client(&copy, options).run().expect_exit(0);
                    assert_same_but_room(&versions.source, &copy);
                    assert_eq!(inode(&copy), before, "{options}");
                }
            }
        }
    }
}

#[test]
fn other_names_of_the_file_see_the_change() {
    for way in BOTH_WAYS {
        let old = noise(FILE_BYTES, 8);
        let new = rewritten(&old, 50);
        let versions = Versions::by(way, &old, &new);
        for options in OPTIONS {
            let copy = versions.copy();
            let elsewhere = versions.workspace.at(&format!("elsewhere {options}"));
            fs::hard_link(copy.join(NAME), &elsewhere).expect("link");
            versions.client(&copy, options).run().expect_exit(0);
            assert_eq!(fs::metadata(&elsewhere).expect("examine").ino(), inode(&copy));
            assert!(fs::read(&elsewhere).expect("read") == new, "the other name has another content");
        }
    }
}

#[test]
fn what_is_no_file_is_replaced_and_nothing_behind_it_touched() {
    for way in BOTH_WAYS {
        let new = noise(2 * MIB, 9);
        let versions = Versions::by(way, b"", &new);
        let victim = versions.workspace.at("victim");
        fs::write(&victim, b"not yours").expect("write");
        for options in OPTIONS {
            for target in [victim.as_path(), Path::new("nowhere"), Path::new(NAME)] {
                let copy = versions.copy();
                fs::remove_file(copy.join(NAME)).expect("remove");
                symlink(target, copy.join(NAME)).expect("link");
                versions.update_copy(&copy, options).expect_counts(&[("bytes_fetched", new.len() as u64)]);
                assert_eq!(fs::read(&victim).expect("read"), b"not yours");
            }
            for kind in [SFlag::S_IFIFO, SFlag::S_IFSOCK] {
                let copy = versions.copy();
                fs::remove_file(copy.join(NAME)).expect("remove");
                let mut tree = Tree::new(&versions.workspace.at(&format!("special {options} {}", kind.bits())));
                tree.special(NAME, kind);
                fs::rename(tree.finish().join(NAME), copy.join(NAME)).expect("rename");
                versions.update_copy(&copy, options).expect_counts(&[("bytes_fetched", new.len() as u64)]);
            }
            let copy = versions.copy();
            fs::remove_file(copy.join(NAME)).expect("remove");
            versions.update_copy(&copy, options).expect_counts(&[("bytes_fetched", new.len() as u64)]);
            fs::remove_file(copy.join(NAME)).expect("remove");
            put_old(&copy.join(NAME), b"within");
            let run = versions.client(&copy, options).run().expect_exit(23);
            run.expect_counts(&[("files_failed", 1), ("bytes_fetched", 0)]);
            assert_eq!(fs::read(copy.join(NAME).join(NAME)).expect("kept"), b"within");
        }
    }
}

#[test]
fn a_killed_run_leaves_no_state_and_the_rerun_uses_what_stands() {
    for way in BOTH_WAYS {
        let old = noise(FILE_BYTES, 10);
        let mut new = old.clone();
        new[OLD_BYTES as usize..].copy_from_slice(&noise(FILE_BYTES - OLD_BYTES as usize, 11));
        let versions = Versions::by(way, &old, &new);
        let (copy, arrived) = (versions.copy(), 3 << 20);
        let before = inode(&copy);
        let valve = versions.valve();
        valve.limit(Kind::Data, arrived);
        let options = "--inplace --conns 2 --chunk-kb 64 --no-compress";
        let client = versions.client_by(&valve, &copy, options).start();
        valve.wait_until_stalled(Kind::Data);
        // All but what each connection has in hand, and the lists of chunks.
        let least = OLD_BYTES + arrived - 2 * CHUNK_BYTES - LISTS_BYTES;
        wait_until("what arrived to be written", || standing_bytes(&copy, &new) >= least);
        client.kill();
        valve.renew();
        versions.settle(&copy);
        let standing = standing_bytes(&copy, &new);
        assert_eq!(names_in_parts(&copy), Vec::<&Path>::new());
        valve.renew();
        let run = versions.expect_same(&copy, versions.client_by(&valve, &copy, options).run());
        assert_eq!(inode(&copy), before);
        let fetched = run.count("bytes_fetched");
        assert!(fetched < FILE_BYTES as u64 - standing + LISTS_BYTES, "{fetched} with {standing} standing");
        assert_eq!(fetched + run.count("bytes_reused"), FILE_BYTES as u64);
    }
}

#[test]
fn a_run_that_is_killed_again_and_again_gets_there() {
    for way in BOTH_WAYS {
        let old = noise(FILE_BYTES, 12);
        let new = noise(FILE_BYTES, 13);
        let versions = Versions::by(way, &old, &new);
        let copy = versions.copy();
        let valve = versions.valve();
        for options in ["--inplace", "--inplace --whole-file", "--inplace --chunk-kb 64 --conns 8"] {
            valve.limit(Kind::Data, 2 << 20);
            let client = versions.client_by(&valve, &copy, options).options("--no-compress").start();
            valve.wait_until_stalled(Kind::Data);
            wait_until("something to be written", || standing_bytes(&copy, &new) >= MIB as u64);
            client.kill();
            valve.renew();
            versions.settle(&copy);
        }
        let standing = standing_bytes(&copy, &new);
        valve.renew();
        let run = versions.expect_same(&copy, versions.client_by(&valve, &copy, "--inplace").run());
        let (reused, fetched) = (run.count("bytes_reused"), run.count("bytes_fetched"));
        assert!(reused > standing / 2 && reused + fetched == FILE_BYTES as u64, "{reused} of {standing}, {fetched}");
    }
}

#[test]
fn a_disk_that_has_no_room_for_a_second_version_is_enough() {
    for way in BOTH_WAYS {
        let old = noise(6 * MIB, 15);
        let versions = Versions::by(way, &old, &rewritten(&old, 20));
        let Some(_disk) = SmallDisk::mount(&versions.workspace.at("disk"), 8 << 10) else { return };
        let copy = versions.workspace.at("disk/copy");
        put_old(&copy, &old);
        let run = versions.client(&copy, "").run().expect_exit(11);
        run.expect_counts(&[("files_committed", 0)]);
        assert!(fs::read(copy.join(NAME)).expect("read") == old, "neither old nor new");
        fs::remove_dir_all(copy.join(".fastcp/parts")).expect("make room");
        let run = versions.update_copy(&copy, "--inplace");
        assert!(run.count("bytes_reused") > 3 << 20, "{}", run.count("bytes_reused"));
    }
}

#[test]
fn in_place_there_is_nothing_to_back_up() {
    for way in BOTH_WAYS {
        let versions = Versions::by(way, b"old", b"new");
        let copy = versions.copy();
        for options in ["--inplace --backup-dir kept", "--backup-dir kept --inplace --whole-file"] {
            let run = versions.client(&copy, options).run().expect_exit(1);
            assert!(run.stderr.contains("--backup-dir"), "{}", run.stderr);
            assert_eq!(fs::read(copy.join(NAME)).expect("read"), b"old");
            assert!(!copy.join(".fastcp").exists() && !copy.join("kept").exists());
        }
    }
}

#[test]
fn a_tree_of_everything_arrives_in_place_twice() {
    for way in BOTH_WAYS {
        let versions = Versions::put_by(way, b"", |tree| {
            tree.dir("dir").file("dir/large", &noise(FILE_BYTES, 14)).file("dir/small", b"small").file(NAME, b"");
            tree.sparse("sparse", 3 * MIB, &[(MIB, b"island")]).link("link", "dir");
        });
        let copy = versions.workspace.at("new");
        for committed in [4, 0] {
            let run = versions.client(&copy, "--inplace").run().expect_exit(0);
            run.expect_counts(&[("files_committed", committed)]);
            assert_same(&versions.source, &copy);
        }
    }
}
