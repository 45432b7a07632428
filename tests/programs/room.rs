//! Destinations that take no more: a disk that fills while a journaled file is fetched, and a limit of the length of
//! files. No signal, no half-made name, and once there is room the next run goes on with what had arrived.

use std::fs;
use std::path::Path;

use crate::support::Workspace;
use crate::support::client::{Client, Run};
use crate::support::compare::{assert_same, files_and_bytes};
use crate::support::journal::{Leftover, names_in_parts};
use crate::support::mount::SmallDisk;
use crate::support::server::Server;
use crate::support::tree::{Tree, noise};
use crate::support::way::{BOTH_WAYS, Route};

const CHUNK_BYTES: u64 = 64 << 10;

#[test]
fn a_disk_that_fills_in_the_middle_of_a_file_keeps_what_had_arrived() {
    for way in BOTH_WAYS {
        for options in ["", "--receive-path splice", "--durability none", "--durability file"] {
            let workspace = Workspace::new();
            let Some(disk) = SmallDisk::mount(&workspace.at("disk"), 2048) else { return };
            let mut tree = Tree::new(&workspace.at("source"));
            // Short of the length from which on room is reserved before the first byte.
            tree.file("large", &noise((4 << 20) - 1, 1));
            let source = tree.finish();
            let route = Route::new(way, &source, &workspace);
            let server = route.serve();
            let copy = workspace.at("disk/copy");
            let pull = |more: &str| {
                let options = format!("--chunk-kb 64 --conns 2 --no-compress {options} {more}");
                route.client(server.address, &copy).options(&options).run()
            };
            let run = pull("").expect_exit(11);
            assert!(
                run.stderr.contains("No space left") && run.stderr.contains("run the command again"),
                "{}",
                run.stderr
            );
            assert!(!copy.join("large").exists());
            let claimed = Leftover::only(&copy).claimed_bytes();
            assert!(claimed > 1 << 20, "{claimed}");
            // Still full: nothing is lost by trying.
            pull("").expect_exit(11);
            assert!(Leftover::only(&copy).claimed_bytes() >= claimed);
            disk.remount("size=64m");
            let standing = Leftover::only(&copy).standing_bytes();
            let run = pull("").expect_exit(0);
            assert_eq!(run.count("bytes_reused"), standing);
            assert_eq!(run.count("bytes_fetched") + standing, (4 << 20) - 1);
            assert_same(&source, &copy);
            assert_eq!(names_in_parts(&copy), Vec::<&Path>::new());
        }
    }
}

#[test]
fn a_disk_without_room_for_a_file_is_found_full_before_its_bytes_are_fetched() {
    for way in BOTH_WAYS {
        let workspace = Workspace::new();
        let Some(disk) = SmallDisk::mount(&workspace.at("disk"), 4096) else { return };
        let mut tree = Tree::new(&workspace.at("source"));
        tree.file("large", &noise(8 << 20, 1));
        let source = tree.finish();
        let route = Route::new(way, &source, &workspace);
        let server = route.serve();
        let copy = workspace.at("disk/copy");
        let run = route.client(server.address, &copy).options("--chunk-kb 64 --no-compress").run().expect_exit(11);
        assert!(run.stderr.contains("No space left"), "{}", run.stderr);
        run.expect_counts(&[("bytes_fetched", 0), ("files_committed", 0)]);
        disk.remount("size=64m");
        route.client(server.address, &copy).run().expect_exit(0).expect_counts(&[("bytes_fetched", 8 << 20)]);
        assert_same(&source, &copy);
    }
}

#[test]
fn a_full_disk_leaves_old_versions_as_they_are() {
    for way in BOTH_WAYS {
        let workspace = Workspace::new();
        let Some(disk) = SmallDisk::mount(&workspace.at("disk"), 4096) else { return };
        let mut tree = Tree::new(&workspace.at("source"));
        for nth in 0..30 {
            tree.file(format!("{nth}"), &noise(100_000, nth));
        }
        let source = tree.finish();
        let copy = workspace.at("disk/copy");
        let route = Route::new(way, &source, &workspace);
        let server = route.serve();
        route.client(server.address, &copy).run().expect_exit(0);
        let read = |root: &Path, nth: u64| fs::read(root.join(nth.to_string())).expect("read");
        let old: Vec<_> = (0..30).map(|nth| read(&source, nth)).collect();
        for nth in 0..30 {
            fs::write(source.join(nth.to_string()), noise(120_000, 100 + nth)).expect("write");
        }
        let run = route.client(server.address, &copy).options("--whole-file").run().expect_exit(11);
        assert!(run.stderr.contains("No space left"), "{}", run.stderr);
        for nth in 0..30 {
            let found = read(&copy, nth);
            assert!(found == old[nth as usize] || found == read(&source, nth), "{nth} is neither old nor new");
        }
        disk.remount("size=64m");
        route.client(server.address, &copy).run().expect_exit(0);
        assert_same(&source, &copy);
        assert_eq!(names_in_parts(&copy), Vec::<&Path>::new());
    }
}

/// Files around a limit of 1 MiB, and one far beyond it.
fn around_the_limit(root: &Path) -> std::path::PathBuf {
    let mut tree = Tree::new(root);
    tree.dir("dir").file("dir/small", b"small").file("dir/just", &noise(1 << 20, 1));
    tree.file("dir/over", &noise((1 << 20) + 1, 2)).file("dir/large", &noise(3 << 20, 3));
    tree.file("dir/huge", &noise(6 << 20, 4));
    tree.finish()
}

fn expect_too_large(run: Run, names: &[&str]) -> Run {
    let run = run.expect_exit(23);
    assert_eq!(run.paths_of("failed"), names);
    assert!(run.stderr.contains("File too large"), "{}", run.stderr);
    run
}

#[test]
fn a_limit_of_the_length_of_files_fails_those_and_no_others() {
    for options in ["--chunk-kb 64 --conns 2", "--conns 1", "--receive-path splice --chunk-kb 64"] {
        let workspace = Workspace::new();
        let source = around_the_limit(&workspace.at("source"));
        let server = Server::start(&source);
        let copy = workspace.at("copy");
        let pull = || Client::pull(server.url(""), &copy).options("--no-compress").options(options);
        let run = expect_too_large(pull().file_bytes_max(1 << 20).run(), &["dir/huge", "dir/large", "dir/over"]);
        assert_eq!(run.count("files_committed"), 2);
        for name in ["over", "large", "huge"] {
            assert!(!copy.join("dir").join(name).exists(), "{name}");
        }
        let standing: u64 = Leftover::all(&copy).iter().map(Leftover::standing_bytes).sum();
        let run = pull().run().expect_exit(0);
        let (_, bytes) = files_and_bytes(&source);
        let arrived_before = (1 << 20) + 5;
        assert_eq!(run.count("bytes_reused"), standing, "with {options}");
        assert_eq!(run.count("bytes_fetched") + standing + arrived_before, bytes, "with {options}");
        assert_same(&source, &copy);
        assert_eq!(names_in_parts(&copy), Vec::<&Path>::new());
    }
}

#[test]
fn what_was_journaled_below_a_limit_of_the_length_is_gone_on_with() {
    let workspace = Workspace::new();
    let mut tree = Tree::new(&workspace.at("source"));
    tree.file("large", &noise(3 << 20, 3));
    let source = tree.finish();
    let server = Server::start(&source);
    let copy = workspace.at("copy");
    let pull = || Client::pull(server.url(""), &copy).options("--chunk-kb 64 --no-compress --conns 1");
    expect_too_large(pull().file_bytes_max(1 << 20).run(), &["large"]);
    let claimed = Leftover::only(&copy).claimed_bytes();
    assert!(claimed >= (1 << 20) - CHUNK_BYTES, "{claimed}");
    expect_too_large(pull().file_bytes_max(2 << 20).run(), &["large"]);
    let more = Leftover::only(&copy).claimed_bytes();
    assert!(more >= (2 << 20) - CHUNK_BYTES, "{more}");
    pull().run().expect_exit(0).expect_counts(&[("bytes_reused", more), ("bytes_fetched", (3 << 20) - more)]);
    assert_same(&source, &copy);
}

#[test]
fn a_limit_too_short_for_our_own_files_is_said() {
    let workspace = Workspace::new();
    let source = around_the_limit(&workspace.at("source"));
    let server = Server::start(&source);
    let copy = workspace.at("copy");
    let run = Client::pull(server.url(""), &copy).options("--chunk-kb 64").file_bytes_max(0).run();
    assert!(matches!(run.code, Some(11 | 23)), "{:?} {}", run.code, run.stderr);
    assert!(run.stderr.contains("File too large"), "{}", run.stderr);
    Client::pull(server.url(""), &copy).run().expect_exit(0);
    assert_same(&source, &copy);
}
