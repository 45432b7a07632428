//! Changed files: what the destination has of them already is not fetched, wherever in the old version it is. All
//! that is asserted of the cost is asserted of counters: fetched and reused bytes together are the file.

use std::fs::{self, Permissions};
use std::ops::RangeInclusive;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use crate::support::client::{Client, Run, contents};
use crate::support::compare::{assert_same, files_and_bytes};
use crate::support::journal::names_in_parts;
use crate::support::mount::XfsDisk;
use crate::support::server::Server;
use crate::support::tree::{Tree, noise, set_mtime};
use crate::support::versions::{NAME, Versions, put_old, rewritten, rewritten_bytes};
use crate::support::way::{BOTH_WAYS, Route};
use crate::support::{NOBODY, Workspace, is_root};

const MIB: usize = 1 << 20;
/// Long enough for coarse lists and fine ones.
const FILE_BYTES: usize = 9 * MIB + 77;
/// The most that one change costs beside its own bytes, as measured and doubled: the chunks that it lies in.
const AROUND_CHANGE_BYTES: u64 = 32 << 10;
/// What the lists of chunks of such a file take at most, and all else that is said.
const TALK_BYTES: u64 = 128 << 10;

/// Options under which only what is missing is fetched.
const DELTA_BY_SERVER: [&str; 5] = [
    "",
    "--conns 1 --durability none",
    "--conns 8 --chunk-kb 64",
    "--whole-file --no-whole-file --receive-path splice",
    "--verify disk --durability file",
];
/// Options under which all is.
const WHOLE_BY_SERVER: [&str; 3] = ["--without 8", "--whole-file", "-W --conns 8 --chunk-kb 64"];

/// Panics unless one file was committed that came together in this way.
fn expect_fetched(run: &Run, what: &str, file_bytes: usize, fetched: &RangeInclusive<u64>) {
    let [fetched_bytes, reused] = ["bytes_fetched", "bytes_reused"].map(|name| run.count(name));
    let wire = run.count("bytes_wire_in").max(run.count("bytes_wire_out"));
    assert!(fetched.contains(&fetched_bytes), "{what}: {fetched_bytes} fetched and not {fetched:?}");
    assert_eq!(fetched_bytes + reused, file_bytes as u64, "{what}");
    assert!(wire < fetched_bytes + TALK_BYTES, "{what}: {wire} on the wire for {fetched_bytes}");
    assert_eq!((run.count("files_committed"), run.count("chunks_refetched")), (1, 0), "{what}");
}

/// Brings the old version up to date in every way there is.
fn expect_cost(old: &[u8], new: &[u8], fetched: RangeInclusive<u64>) {
    let whole = new.len() as u64..=new.len() as u64;
    for way in BOTH_WAYS {
        let versions = Versions::by(way, old, new);
        for options in DELTA_BY_SERVER {
            expect_fetched(&versions.update(options), &format!("{way:?} {options}"), new.len(), &fetched);
        }
        for options in WHOLE_BY_SERVER {
            expect_fetched(&versions.update(options), &format!("{way:?} {options}"), new.len(), &whole);
        }
    }
    let versions = Versions::new(old, new);
    expect_fetched(&versions.pull_here("--no-whole-file"), "here", new.len(), &fetched);
    expect_fetched(&versions.pull_here(""), "here, whole", new.len(), &whole);
}

#[test]
fn rewritten_pages_cost_themselves_and_the_chunks_around_them() {
    let old = noise(FILE_BYTES, 1);
    let new = rewritten(&old, 100);
    let rewritten = rewritten_bytes(&old, &new);
    assert!(rewritten > FILE_BYTES as u64 / 101);
    expect_cost(&old, &new, rewritten..=rewritten + rewritten / 4096 * AROUND_CHANGE_BYTES);
}

#[test]
fn bytes_put_in_at_the_front_do_not_move_the_cuts_of_the_others() {
    let old = noise(FILE_BYTES, 2);
    let new = [noise(1000, 3), old.clone()].concat();
    expect_cost(&old, &new, 1000..=1000 + AROUND_CHANGE_BYTES);
}

#[test]
fn halves_that_change_places_are_found_where_they_were() {
    let old = noise(FILE_BYTES, 4);
    let (first, second) = old.split_at(FILE_BYTES / 2);
    // Two seams, and the ends: what was the end lies in the middle now.
    expect_cost(&old, &[second, first].concat(), 1..=3 * AROUND_CHANGE_BYTES);
}

#[test]
fn a_file_that_was_cut_short_costs_its_new_end() {
    let old = noise(FILE_BYTES, 5);
    expect_cost(&old, &old[..FILE_BYTES - 3 * MIB - 5], 0..=AROUND_CHANGE_BYTES);
    // Down to where only fine chunks are asked for.
    expect_cost(&old, &old[..2 * MIB + 5], 0..=AROUND_CHANGE_BYTES);
}

#[test]
fn a_file_that_grew_costs_what_it_grew_by() {
    let old = noise(FILE_BYTES, 6);
    let more = MIB as u64 + 3;
    expect_cost(&old, &[&old[..], &noise(more as usize, 7)].concat(), more..=more + AROUND_CHANGE_BYTES);
}

#[test]
fn the_same_content_under_another_time_is_not_fetched() {
    let old = noise(FILE_BYTES, 8);
    expect_cost(&old, &old, 0..=0);
}

#[test]
fn another_content_is_fetched_once() {
    let all = FILE_BYTES as u64;
    expect_cost(&noise(FILE_BYTES, 9), &noise(FILE_BYTES, 10), all..=all);
}

#[test]
fn files_that_come_in_one_answer_are_not_looked_through() {
    for way in BOTH_WAYS {
        let old = noise(80 << 10, 19);
        let mut new = old.clone();
        new[1000] ^= 1;
        for (len, reused) in [(64 << 10, 0), ((64 << 10) + 1, 20 << 10)] {
            let run = Versions::by(way, &old[..len], &new[..len]).update("");
            expect_fetched(&run, "short", len, &(1..=len as u64 - reused));
            assert_eq!(run.count("bytes_reused") > 0, reused > 0);
        }
    }
}

/// So long that coarse chunks are most of what is the same.
#[test]
fn a_long_file_with_few_changes_costs_little() {
    for way in BOTH_WAYS {
        let old = noise(24 * MIB, 11);
        let new = rewritten(&old, 400);
        let rewritten = rewritten_bytes(&old, &new);
        let run = Versions::by(way, &old, &new).update("");
        expect_fetched(&run, "long", old.len(), &(rewritten..=rewritten + rewritten / 4096 * AROUND_CHANGE_BYTES));
    }
}

/// The path and the old content of one of many files.
fn old_of_many(nth: usize) -> (String, Vec<u8>) {
    let len = if nth.is_multiple_of(20) { MIB } else { (100 << 10) + nth * 7919 % (150 << 10) };
    (format!("dir {}/file {nth}", nth % 6), noise(len, nth as u64))
}

#[test]
fn hundreds_of_changed_files_are_looked_through() {
    for way in BOTH_WAYS {
        let workspace = Workspace::new();
        let mut tree = Tree::new(&workspace.at("source"));
        for dir in 0..6 {
            tree.dir(format!("dir {dir}"));
        }
        let copies = ["", "--conns 1 --chunk-kb 64"].map(|options| (options, workspace.at(&format!("copy {options}"))));
        for nth in 0..240 {
            let (path, mut bytes) = old_of_many(nth);
            for (_, copy) in &copies {
                fs::create_dir_all(copy.join(&path).parent().expect("a directory")).expect("create");
                // Of one in eight there is no old version, and of one in eight it is empty.
                match nth % 8 {
                    0 => {}
                    1 => fs::write(copy.join(&path), b"").expect("write"),
                    _ => fs::write(copy.join(&path), &bytes).expect("write"),
                }
            }
            bytes[nth * 97..][..50].fill(7);
            tree.file(&path, &bytes);
        }
        let source = tree.finish();
        let route = Route::new(way, &source, &workspace);
        let server = route.serve();
        let (files, bytes) = files_and_bytes(&source);
        let new: u64 = (0..240).filter(|nth| nth % 8 < 2).map(|nth| old_of_many(nth).1.len() as u64).sum();
        for (options, copy) in copies {
            let run = route.client(server.address, &copy).options(options).run().expect_exit(0);
            let run = run.expect_counts(&[("files_committed", files), ("files_failed", 0), ("chunks_refetched", 0)]);
            let fetched = run.count("bytes_fetched");
            assert!(
                fetched > new && fetched < new + files * AROUND_CHANGE_BYTES,
                "{fetched} of {bytes}, {new} of it new"
            );
            assert_eq!(fetched + run.count("bytes_reused"), bytes);
            assert_same(&source, &copy);
            assert_eq!(names_in_parts(&copy), Vec::<&Path>::new());
        }
    }
}

#[test]
fn holes_stay_holes_whatever_the_old_version_has_there() {
    for way in BOTH_WAYS {
        let islands = noise(2 * MIB, 12);
        let (one, other) = islands.split_at(MIB);
        let new_islands = [(MIB, one), (5 * MIB + 3, other), (9 * MIB, b"end")];
        // With the same islands elsewhere and other holes; with none; all zeros that take room; and without anything.
        let zeros = vec![0; 12 * MIB];
        let mut moved = zeros.clone();
        moved[2 * MIB..3 * MIB].copy_from_slice(one);
        moved[5 * MIB + 3..6 * MIB + 3].copy_from_slice(other);
        let full = noise(12 * MIB, 13);
        for (what, old, reused) in [("moved", &moved, MIB), ("zeros", &zeros, 0), ("full", &full, 0)] {
            let versions = Versions::put_by(way, old, |tree| {
                tree.sparse(NAME, 12 * MIB, &new_islands);
            });
            for options in ["", "--conns 1 --chunk-kb 64", "--without 8"] {
                let run = versions.update(options);
                let counts = (run.count("bytes_fetched"), run.count("bytes_reused"));
                assert_eq!(counts.0 + counts.1, 12 * MIB as u64, "{what}");
                assert!(options == "--without 8" || counts.1 >= reused as u64, "{what}: {counts:?}");
            }
            // An old version with holes of its own.
            let copy = versions.copy();
            let mut tree = Tree::new(&versions.workspace.at(what));
            tree.sparse(NAME, 12 * MIB, &[(3 * MIB, one), (5 * MIB + 3, other)]).mtime(1_500_000_000, 7);
            fs::rename(tree.finish().join(NAME), copy.join(NAME)).expect("rename");
            let run = versions.update_copy(&copy, "");
            assert!(run.count("bytes_reused") >= MIB as u64, "{what}: {}", run.count("bytes_reused"));
        }
    }
}

#[test]
fn a_link_in_the_place_of_the_old_version_is_no_basis() {
    for way in BOTH_WAYS {
        let bytes = noise(FILE_BYTES, 14);
        let versions = Versions::by(way, b"", &bytes);
        let victim = versions.workspace.at("victim");
        fs::write(&victim, &bytes).expect("write");
        set_mtime(&victim, 1_500_000_000, 7);
        for target in [victim.as_path(), Path::new("nowhere"), Path::new(NAME)] {
            let copy = versions.copy();
            fs::remove_file(copy.join(NAME)).expect("remove");
            symlink(target, copy.join(NAME)).expect("link");
            let run = versions.update_copy(&copy, "");
            run.expect_counts(&[("bytes_fetched", FILE_BYTES as u64), ("bytes_reused", 0)]);
            assert_eq!(fs::read(&victim).expect("read"), bytes);
            assert_eq!(fs::metadata(&victim).expect("examine").mtime(), 1_500_000_000);
        }
    }
}

#[test]
fn a_directory_in_the_place_of_the_old_version_is_no_basis() {
    for way in BOTH_WAYS {
        let versions = Versions::by(way, b"", &noise(FILE_BYTES, 15));
        let copy = versions.copy();
        fs::remove_file(copy.join(NAME)).expect("remove");
        fs::create_dir(copy.join(NAME)).expect("create");
        versions.update_copy(&copy, "").expect_counts(&[("bytes_fetched", FILE_BYTES as u64), ("bytes_reused", 0)]);
        let copy = versions.copy();
        fs::remove_file(copy.join(NAME)).expect("remove");
        put_old(&copy.join(NAME), b"within");
        let run = versions.client(&copy, "").run().expect_exit(23);
        run.expect_counts(&[("files_failed", 1), ("bytes_fetched", 0)]);
        assert_eq!(fs::read(copy.join(NAME).join(NAME)).expect("kept"), b"within");
    }
}

#[test]
fn an_old_version_with_another_name_elsewhere_stays_what_it_was() {
    for way in BOTH_WAYS {
        let old = noise(FILE_BYTES, 16);
        let new = rewritten(&old, 50);
        let versions = Versions::by(way, &old, &new);
        for options in ["", "--whole-file"] {
            let copy = versions.copy();
            let elsewhere = versions.workspace.at(&format!("elsewhere{options}"));
            fs::hard_link(copy.join(NAME), &elsewhere).expect("link");
            let run = versions.update_copy(&copy, options);
            assert_eq!(run.count("bytes_reused") > 0, options.is_empty());
            let stat = fs::metadata(&elsewhere).expect("examine");
            assert_eq!((stat.mtime(), stat.nlink()), (1_500_000_000, 1));
            assert!(fs::read(&elsewhere).expect("read") == old, "the other name has the new content");
        }
    }
}

#[test]
fn an_old_version_that_may_not_be_read_is_replaced() {
    let workspace = Workspace::for_nobody();
    let mut tree = Tree::new(&workspace.at("source"));
    let bytes = noise(FILE_BYTES, 17);
    tree.file(NAME, &bytes).give_to_nobody();
    let source = tree.finish();
    let server = Server::start(&source);
    for mode in [0o000, 0o200] {
        let copy = workspace.at(&format!("copy {mode:o}"));
        put_old(&copy, &bytes);
        for path in [&copy.join(NAME), &copy] {
            if is_root() {
                chown(path, Some(NOBODY), Some(NOBODY)).expect("chown");
            }
        }
        fs::set_permissions(copy.join(NAME), Permissions::from_mode(mode)).expect("chmod");
        let run = Client::pull(server.url(""), &copy).unprivileged(&workspace).run().expect_exit(0);
        run.expect_counts(&[("bytes_fetched", FILE_BYTES as u64), ("bytes_reused", 0)]);
        assert_same(&source, &copy);
    }
}

/// On a file system where files can share their bytes the part file begins as a clone of the old version.
#[test]
fn a_clone_of_the_old_version_becomes_the_new_one() {
    let old = noise(24 * MIB, 18);
    let new = rewritten(&old, 100);
    let versions = Versions::new(&old, &new);
    let Some(disk) = XfsDisk::mount(&versions.workspace.at("disk")) else { return };
    let rewritten = rewritten_bytes(&old, &new);
    let dearest = rewritten + rewritten / 4096 * AROUND_CHANGE_BYTES;
    for options in ["", "--conns 1 --durability none", "--verify disk"] {
        let copy = disk.path().join(format!("copy{options}"));
        put_old(&copy, &old);
        // The old version stays, so that what both have can be shared.
        fs::hard_link(copy.join(NAME), disk.path().join(format!("old{options}"))).expect("link");
        let free_before = disk.free_bytes();
        let run = versions.update_copy(&copy, options);
        expect_fetched(&run, options, old.len(), &(rewritten..=dearest));
        let taken = free_before.saturating_sub(disk.free_bytes());
        assert!(taken < old.len() as u64 / 2, "{options}: {taken} bytes of room for {dearest} at most");
    }
    // What is zero in the old version takes room there, and in the clone. It is a hole in the new one.
    let versions = Versions::put(&vec![0; 12 * MIB], |tree| {
        tree.sparse(NAME, 12 * MIB, &[(5 * MIB, b"island")]);
    });
    let copy = disk.path().join("copy of holes");
    put_old(&copy, &vec![0; 12 * MIB]);
    assert!(versions.update_copy(&copy, "").count("bytes_reused") > 8 << 20);
    // Longer, shorter and moved.
    for new in [[&old[..], b"more"].concat(), old[..old.len() - MIB].to_vec(), [b"before", &old[..]].concat()] {
        let versions = Versions::new(&old, &new);
        let copy = disk.path().join(format!("copy of {}", new.len()));
        put_old(&copy, &old);
        let run = Client::pull(contents(&versions.source), &copy).options("--no-whole-file").run();
        let run = versions.expect_same(&copy, run);
        expect_fetched(&run, "here", new.len(), &(0..=3 * AROUND_CHANGE_BYTES));
    }
}
