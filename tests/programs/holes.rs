//! Files that are mostly holes: what a hole costs does not grow with its length, at neither end and in no step.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::support::Workspace;
use crate::support::client::{Client, contents};
use crate::support::journal::{Leftover, names_in_parts};
use crate::support::say_skipped;
use crate::support::stage::Stage;
use crate::support::strace::Strace;
use crate::support::tree::{Tree, noise, set_mtime};
use crate::support::way::{BOTH_WAYS, Route, Way};

const TIB: u64 = 1 << 40;
/// Where there are bytes in the large file: next to both ends of the segments that are confirmed, and alone.
const DATA: [u64; 5] = [0, (1 << 30) - 2000, 300 << 30, (300 << 30) + (20 << 20), TIB - 5000];

/// A file of 1 TiB with data of this length at each place of [`DATA`]; `false` where the file system has no such
/// files.
fn make_large(path: &Path, data_bytes: usize) -> bool {
    let file = File::create(path).expect("create");
    if file.set_len(TIB).is_err() {
        say_skipped("no files of 1 TiB here");
        return false;
    }
    for (nth, at) in (1..).zip(DATA) {
        file.write_all_at(&noise(data_bytes.min((TIB - at) as usize), nth), at).expect("write");
    }
    true
}

fn assert_large(path: &Path, data_bytes: usize) {
    let file = File::open(path).expect("open");
    let metadata = file.metadata().expect("examine");
    assert_eq!(metadata.len(), TIB);
    let room = metadata.blocks() * 512;
    assert!(room < (DATA.len() * data_bytes) as u64 + (4 << 20), "{room} bytes of room");
    for (nth, at) in (1..).zip(DATA) {
        let wanted = noise(data_bytes.min((TIB - at) as usize), nth);
        let mut found = vec![0; wanted.len()];
        file.read_exact_at(&mut found, at).expect("read");
        assert!(found == wanted, "the data at {at}");
    }
    let mut hole = [1; 4096];
    file.read_exact_at(&mut hole, 700 << 30).expect("read");
    assert_eq!(hole, [0; 4096]);
}

/// A source with the large file and a small one.
fn large_source(workspace: &Workspace) -> Option<PathBuf> {
    let source = workspace.at("source");
    Tree::new(&source).file("small", b"small").finish();
    make_large(&source.join("large"), 3000).then_some(source)
}

#[test]
fn a_file_of_a_tebibyte_costs_what_its_data_cost() {
    let workspace = Workspace::new();
    let Some(source) = large_source(&workspace) else { return };
    for way in BOTH_WAYS {
        let route = Route::new(way, &source, &workspace);
        let server = route.serve();
        for options in
            ["", "--verify written", "--conns 8 --chunk-kb 64 --no-compress", "--verify disk --durability file"]
        {
            let copy = workspace.at("copy");
            let run = route.client(server.address, &copy).options(options).run().expect_exit(0);
            assert_large(&copy.join("large"), 3000);
            run.expect_counts(&[("files_committed", 2), ("bytes_fetched", TIB + 5), ("chunks_refetched", 0)]);
            // A request for each GiB has it confirmed; for its bytes there are a few for each hole and connection.
            let run = route.client(server.address, &copy).run().expect_exit(0);
            assert!(
                run.count("bytes_wire_out") < 10_000 && run.count("bytes_wire_in") < 10_000,
                "nothing is asked for again"
            );
            fs::remove_dir_all(&copy).expect("remove");
        }
    }
}

#[test]
fn few_requests_bring_a_tebibyte_over() {
    let workspace = Workspace::new();
    let Some(source) = large_source(&workspace) else { return };
    for way in BOTH_WAYS {
        let copy = workspace.at(&format!("copy {way:?}"));
        let run = Route::new(way, &source, &workspace).bring(&copy, "--conns 4").expect_exit(0);
        // 37 bytes and the path for each of 1,024 segments, and less than half as much for all of the rest.
        let mut wire = [run.count("bytes_wire_out"), run.count("bytes_wire_in")];
        if way == Way::Push {
            wire.reverse();
        }
        assert!(wire[0] < 80_000, "{} bytes of requests", wire[0]);
        assert!(wire[1] < 60 << 20, "{} bytes of answers", wire[1]);
        let run = Client::verify(&copy, contents(&source)).run().expect_differences(&[]);
        assert!(run.count("bytes_wire_out") < 80_000);
        assert_eq!(run.count("bytes_verified"), TIB + 5);
    }
}

#[test]
fn a_run_that_was_killed_is_resumed_without_reading_holes() {
    let bytes = 2 << 20;
    for way in BOTH_WAYS {
        let stage = Stage::by(way, |tree| {
            tree.file("small", b"small");
        });
        if !make_large(&stage.source.join("large"), bytes) {
            return;
        }
        for stalled_at in [5 << 19, 5 << 20] {
            stage.kill(stage.stall("--chunk-kb 64 --conns 2 --no-compress", stalled_at));
            stage.valve.renew();
            let run = stage.client("--chunk-kb 64 --conns 2").run().expect_exit(0);
            assert!(run.count("bytes_reused") > 0);
            assert_large(&stage.copy.join("large"), bytes);
            assert_eq!(names_in_parts(&stage.copy), Vec::<&Path>::new());
            fs::remove_dir_all(&stage.copy).expect("remove");
        }
    }
}

#[test]
fn of_a_hole_that_is_none_any_more_only_the_segment_is_fetched_again() {
    let bytes = 2 << 20;
    for way in BOTH_WAYS {
        let mut stage = Stage::by(way, |tree| {
            tree.file("small", b"small");
        });
        if !make_large(&stage.source.join("large"), bytes) {
            return;
        }
        let client = stage.stall("--chunk-kb 64 --conns 2 --no-compress", 5 << 20);
        stage.kill_receiver(client);
        stage.valve.renew();
        let left = Leftover::fullest(&stage.copy);
        assert!(left.read().claims().iter().any(|claim| claim.len > 100 << 30), "segments of zeros are one claim");
        let part = File::options().write(true).open(&left.part).expect("open");
        part.write_all_at(b"no hole", (100 << 30) + 12_345).expect("write");
        let run = stage.client("--chunk-kb 64 --conns 2").run().expect_exit(0);
        assert!(run.count("bytes_reused") > 290 << 30);
        assert_eq!(run.count("bytes_reused") + run.count("bytes_fetched"), TIB + 5);
        assert_eq!(run.count("chunks_refetched"), 0);
        let requests = if way == Way::Pull { "bytes_wire_out" } else { "bytes_wire_in" };
        assert!(run.count(requests) < 100_000, "{} bytes of requests", run.count(requests));
        assert_large(&stage.copy.join("large"), bytes);
    }
}

#[test]
fn verify_tells_zeros_from_bytes_whether_they_are_holes_or_not() {
    let workspace = Workspace::new();
    let mut tree = Tree::new(&workspace.at("source"));
    let size = 8 << 20;
    tree.sparse("hole here and there", size, &[]).sparse("hole there", size, &[]).sparse("bytes here", size, &[]);
    tree.file("hole here", &vec![0; size]).sparse("bytes there", size, &[(5 << 20, b"data")]);
    let source = tree.finish();
    let copy = workspace.at("copy");
    Client::pull(contents(&source), &copy).run().expect_exit(0);
    let rewrite = |name: &str, bytes: &[(u64, Vec<u8>)]| {
        let path = copy.join(name);
        let modified = path.metadata().and_then(|metadata| metadata.modified()).expect("examine");
        let file = File::options().write(true).open(&path).expect("open");
        file.set_len(0).and_then(|()| file.set_len(size as u64)).expect("empty");
        for (at, bytes) in bytes {
            file.write_all_at(bytes, *at).expect("write");
        }
        file.set_modified(modified).expect("set the time");
    };
    rewrite("hole there", &[(0, vec![0; size])]);
    rewrite("hole here", &[]);
    rewrite("bytes here", &[(3 << 20, b"data".to_vec())]);
    rewrite("bytes there", &[]);
    for options in ["", "--without 0x8"] {
        let run = Client::verify(&copy, contents(&source)).options(options).run();
        run.expect_differences(&[("contents", "bytes here"), ("contents", "bytes there")]);
    }
}

#[test]
fn a_hole_in_place_of_old_bytes_is_one_afterwards() {
    for way in BOTH_WAYS {
        for options in ["--whole-file", "--no-whole-file", "--inplace", "--inplace --whole-file"] {
            let workspace = Workspace::new();
            let size = 48 << 20;
            let route = Route::of(way, &workspace, |tree| {
                tree.sparse("file", size + 1, &[(9 << 20, &noise(100_000, 1)), (30 << 20, &noise(100_000, 2))]);
            });
            let copy = workspace.at("copy");
            fs::create_dir(&copy).expect("create");
            fs::write(copy.join("file"), noise(size, 3)).expect("write");
            route.bring(&copy, options).expect_exit(0);
            if way == Way::Pull || options != "--inplace" {
                crate::support::compare::assert_same(&route.source, &copy);
                continue;
            }
            // The edges of what is asked for lie where the file is cut, and blocks are only given back whole.
            crate::support::compare::assert_same_but_room(&route.source, &copy);
            let room = copy.join("file").metadata().expect("examine").blocks() * 512;
            assert!(room < 2 << 20, "{room} bytes of room");
        }
    }
}

#[test]
fn a_signal_is_no_reason_to_write_zeros() {
    let Some(strace) = Strace::new() else { return };
    for way in BOTH_WAYS {
        let workspace = Workspace::new();
        let size = 48 << 20;
        let route = Route::of(way, &workspace, |tree| _ = tree.sparse("file", size, &[(9 << 20, &noise(100_000, 1))]));
        let copy = workspace.at("copy");
        fs::create_dir(&copy).expect("create");
        fs::write(copy.join("file"), noise(size, 3)).expect("write");
        let strace = strace.clone().fails_at("fallocate", "EINTR", "1+2");
        let route = route.receiver_strace(&strace);
        route.bring(&copy, "--inplace --whole-file").expect_exit(0);
        crate::support::compare::assert_same(&route.source, &copy);
        let room = copy.join("file").metadata().expect("examine").blocks() * 512;
        assert!(room < 4 << 20, "{room} bytes of room");
    }
}

#[test]
fn an_old_version_that_is_nearly_all_hole_is_not_looked_through() {
    let workspace = Workspace::new();
    let Some(source) = large_source(&workspace) else { return };
    for way in BOTH_WAYS {
        let copy = workspace.at(&format!("copy {way:?}"));
        fs::create_dir(&copy).expect("create");
        if !make_large(&copy.join("large"), 5000) {
            return;
        }
        set_mtime(&copy.join("large"), 7, 0);
        let run = Route::new(way, &source, &workspace).bring(&copy, "--no-whole-file").expect_exit(0);
        run.expect_counts(&[("bytes_fetched", TIB + 5), ("bytes_reused", 0)]);
        assert_large(&copy.join("large"), 3000);
    }
}
