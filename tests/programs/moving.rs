//! Sources that change while they are copied. A final name stands for what was there before, or for a state that
//! the source really had: never for two states sewn together.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use crate::support::client::Run;
use crate::support::compare::assert_same;
use crate::support::journal::names_in_parts;
use crate::support::stage::Stage;
use crate::support::sweep::{Draw, is_long};
use crate::support::tree::{noise, set_mtime};
use crate::support::valve::Kind;
use crate::support::wait_until;
use crate::support::way::{BOTH_WAYS, Way};

const FILE_BYTES: usize = (4 << 20) + 11;
/// How much has arrived when the source changes.
const ARRIVED: u64 = 2 << 20;

/// A file of which every word says which version it is of, and where it stands.
fn version(number: u8, bytes: usize) -> Vec<u8> {
    let words = (0..bytes.div_ceil(8) as u64).flat_map(|word| (u64::from(number) << 56 | word).to_le_bytes());
    words.take(bytes).collect()
}

/// The version that a file is, whole.
fn version_of(path: &Path) -> u8 {
    let bytes = fs::read(path).expect("read");
    let number = *bytes.get(7).expect("a word");
    assert!(bytes == version(number, bytes.len()), "{path:?} is sewn together");
    number
}

/// How a source changes.
type Change = fn(&Path);

/// A copy of version 1, and version 2 half on its way to replace it when the source changes.
struct Scene {
    stage: Stage,
}

impl Scene {
    fn new(way: Way) -> Self {
        let stage = Stage::by(way, |tree| {
            tree.file("file", &version(1, FILE_BYTES)).file("other", b"arrives");
        });
        stage.client("").run().expect_exit(0);
        fs::write(stage.source.join("file"), version(2, FILE_BYTES)).expect("write");
        set_mtime(&stage.source.join("file"), 1_700_000_000, 2);
        fs::write(stage.source.join("other"), b"arrives again").expect("write");
        Self { stage }
    }

    /// Changes the source after so many bytes, and lets the client end.
    fn change_after(&self, bytes: u64, options: &str, change: Change) -> Run {
        let client = self.stage.stall(&format!("--chunk-kb 64 --no-compress {options}"), bytes);
        change(&self.stage.source.join("file"));
        self.stage.valve.open();
        let run = client.finish();
        version_of(&self.stage.copy.join("file"));
        run
    }

    fn rerun(&self) -> Run {
        let run = self.stage.direct_client("").run().expect_exit(0);
        assert_same(&self.stage.source, &self.stage.copy);
        assert_eq!(names_in_parts(&self.stage.copy), Vec::<&Path>::new());
        run
    }
}

/// Other bytes in part of a file, as they stand in version 3.
fn edit(path: &Path) {
    let file = File::options().write(true).open(path).expect("open");
    file.write_all_at(&version(3, FILE_BYTES), 0).expect("write");
}

fn replace(path: &Path) {
    let new = path.with_extension("new");
    fs::write(&new, version(3, FILE_BYTES)).expect("write");
    fs::rename(new, path).expect("rename");
}

fn replace_by_longer(path: &Path) {
    let new = path.with_extension("new");
    fs::write(&new, version(3, 2 * FILE_BYTES)).expect("write");
    fs::rename(new, path).expect("rename");
}

fn truncate(path: &Path) {
    let file = File::options().write(true).open(path).expect("open");
    file.set_len(FILE_BYTES as u64 / 3).expect("truncate");
}

fn rewrite_shorter(path: &Path) {
    fs::write(path, version(3, FILE_BYTES / 2)).expect("write");
}

fn grow(path: &Path) {
    let more = &version(2, FILE_BYTES + 100_000)[FILE_BYTES..];
    File::options().append(true).open(path).and_then(|mut file| file.write_all(more)).expect("append");
}

#[test]
fn a_file_that_changes_on_its_way_arrives_as_it_is_then() {
    for way in BOTH_WAYS {
        let changes: [(&str, Change); 5] = [
            ("edited", edit),
            ("replaced", replace),
            ("replaced by a longer one", replace_by_longer),
            ("truncated", truncate),
            ("rewritten shorter", rewrite_shorter),
        ];
        for (what, change) in changes {
            for options in ["--conns 1", "--conns 3 --durability none"] {
                let scene = Scene::new(way);
                let run = scene.change_after(ARRIVED, options, change);
                assert_eq!(run.code, Some(0), "{what}: {}", run.stderr);
                assert_eq!((run.count("files_committed"), run.count("files_failed")), (2, 0), "{what}");
                assert_eq!(names_in_parts(&scene.stage.copy), Vec::<&Path>::new(), "{what}");
                // What is left for the next run is the time of the directory, where a name was made in it.
                scene.rerun().expect_counts(&[("files_unchanged", 2), ("bytes_fetched", 0)]);
            }
        }
    }
}

#[test]
fn a_directory_that_is_swapped_for_another_arrives_as_it_is_then() {
    for way in BOTH_WAYS {
        let stage = Stage::by(way, |tree| {
            tree.dir("dir")
                .file("dir/file", &version(1, FILE_BYTES))
                .dir("next")
                .file("next/file", &version(2, FILE_BYTES));
        });
        let at = |name: &str| stage.source.join(name);
        set_mtime(&at("next/file"), 1_700_000_000, 2);
        fs::rename(at("next"), stage.workspace.at("next")).expect("rename");
        let client = stage.stall("--chunk-kb 64 --no-compress --conns 3", ARRIVED);
        fs::rename(at("dir"), stage.workspace.at("before")).expect("rename");
        fs::rename(stage.workspace.at("next"), at("dir")).expect("rename");
        stage.valve.open();
        client.finish().expect_exit(0);
        assert_eq!(version_of(&stage.copy.join("dir/file")), 2);
    }
}

#[test]
fn a_change_at_any_byte_never_sews_a_file_together() {
    for way in BOTH_WAYS {
        let changes: [Change; 6] = [edit, replace, replace_by_longer, truncate, rewrite_shorter, grow];
        let mut draw = Draw::new();
        for _ in 0..if is_long() { 200 } else { 8 } {
            let scene = Scene::new(way);
            let change = changes[draw.below(6) as usize];
            let options = if draw.is_heads() { "--conns 1" } else { "--conns 3" };
            let run = scene.change_after(draw.below(FILE_BYTES as u64), options, change);
            assert!(matches!(run.code, Some(0 | 24)), "{:?} {}", run.code, run.stderr);
            assert_eq!(fs::read(scene.stage.copy.join("other")).expect("arrived"), b"arrives again");
            scene.rerun();
        }
    }
}

#[test]
fn a_file_that_vanishes_on_its_way_leaves_the_old_one_and_the_others_arrive() {
    for way in BOTH_WAYS {
        let scene = Scene::new(way);
        let run = scene.change_after(ARRIVED, "--conns 2", |path| fs::remove_file(path).expect("remove"));
        let run = run.expect_exit(24);
        assert_eq!(run.paths_of("failed"), ["file"]);
        assert_eq!(version_of(&scene.stage.copy.join("file")), 1);
        assert_eq!(fs::read(scene.stage.copy.join("other")).expect("arrived"), b"arrives again");
        // Back again, as it was: what had arrived counts.
        let path = scene.stage.source.join("file");
        fs::write(&path, version(2, FILE_BYTES)).expect("write");
        set_mtime(&path, 1_700_000_000, 2);
        let run = scene.rerun();
        assert!(run.count("bytes_reused") > ARRIVED / 2);
        assert_eq!(run.count("bytes_fetched") + run.count("bytes_reused"), FILE_BYTES as u64);
    }
}

#[test]
fn a_file_that_became_something_else_leaves_the_old_one() {
    for way in BOTH_WAYS {
        let changes: [Change; 2] = [
            |path| fs::remove_file(path).and_then(|()| fs::create_dir(path)).expect("replace"),
            |path| fs::remove_file(path).and_then(|()| std::os::unix::fs::symlink("other", path)).expect("replace"),
        ];
        for change in changes {
            let scene = Scene::new(way);
            let run = scene.change_after(ARRIVED, "--conns 2", change);
            assert!(matches!(run.code, Some(23 | 24)), "{:?} {}", run.code, run.stderr);
            assert_eq!(run.paths_of("failed"), ["file"]);
            assert_eq!(version_of(&scene.stage.copy.join("file")), 1);
            scene.rerun();
        }
    }
}

#[test]
fn of_a_file_that_only_grew_the_offered_beginning_arrives() {
    for way in BOTH_WAYS {
        let scene = Scene::new(way);
        let run = scene.change_after(ARRIVED, "--conns 2", grow).expect_exit(0);
        let copy = scene.stage.copy.join("file");
        assert!(fs::read(&copy).expect("read") == version(2, FILE_BYTES));
        let metadata = copy.metadata().expect("examine");
        assert_eq!(
            (metadata.mtime(), metadata.mtime_nsec()),
            (1_700_000_000, 2),
            "as offered, so that the next run looks"
        );
        run.expect_counts(&[("files_committed", 2), ("files_failed", 0)]);
        scene.rerun();
    }
}

#[test]
fn a_file_that_grew_and_changed_before_its_end_is_not_taken_for_one_that_grew() {
    for way in BOTH_WAYS {
        let scene = Scene::new(way);
        let run = scene.change_after(ARRIVED, "--conns 2", |path| {
            fs::write(path, version(3, FILE_BYTES + 4096)).expect("write");
        });
        run.expect_exit(0);
        assert_same(&scene.stage.source, &scene.stage.copy);
        assert_eq!(version_of(&scene.stage.copy.join("file")), 3);
    }
}

/// Other bytes, and the time as it was.
fn edit_secretly(path: &Path) {
    edit(path);
    set_mtime(path, 1_700_000_000, 2);
}

#[test]
fn a_change_that_hides_behind_the_old_time_is_found_and_the_next_run_mends_it() {
    for way in BOTH_WAYS {
        for options in ["--conns 1", "--conns 3"] {
            let scene = Scene::new(way);
            let run = scene.change_after(ARRIVED, options, edit_secretly);
            if run.code != Some(0) {
                let run = run.expect_exit(23);
                assert_eq!(run.paths_of("failed"), ["file"]);
                assert_eq!(version_of(&scene.stage.copy.join("file")), 1);
            }
            scene.rerun();
            assert_eq!(version_of(&scene.stage.copy.join("file")), 3);
        }
    }
}

#[test]
fn a_change_between_two_runs_that_hides_behind_the_old_time_is_found() {
    for way in BOTH_WAYS {
        let scene = Scene::new(way);
        scene.stage.kill(scene.stage.stall("--chunk-kb 64 --no-compress --conns 2", ARRIVED));
        edit_secretly(&scene.stage.source.join("file"));
        scene.stage.valve.renew();
        let run = scene.stage.client("").run();
        if run.code != Some(0) {
            run.expect_exit(23);
            assert_eq!(version_of(&scene.stage.copy.join("file")), 1);
        }
        scene.rerun();
        assert_eq!(version_of(&scene.stage.copy.join("file")), 3);
    }
}

#[test]
fn a_change_between_two_runs_begins_the_file_anew() {
    for way in BOTH_WAYS {
        for change in [edit as Change, replace, replace_by_longer, truncate, rewrite_shorter, grow] {
            let scene = Scene::new(way);
            scene.stage.kill(scene.stage.stall("--chunk-kb 64 --no-compress --conns 2", ARRIVED));
            assert_eq!(version_of(&scene.stage.copy.join("file")), 1);
            change(&scene.stage.source.join("file"));
            scene.stage.valve.renew();
            scene.rerun();
        }
    }
}

#[test]
fn a_small_file_that_changes_before_it_is_read_arrives_as_it_is_then() {
    for way in BOTH_WAYS {
        let stage = Stage::by(way, |tree| {
            tree.file("a large one", &noise(4 << 20, 1)).file("b", &version(1, 4096)).file("c", &version(1, 200_000));
            tree.file("d", &version(1, 5000)).file("e", &version(1, 5000));
        });
        let client = stage.stall("--conns 1 --no-compress", 1 << 20);
        for (name, bytes) in [("b", 4096), ("c", 200_001), ("d", 100)] {
            fs::write(stage.source.join(name), version(2, bytes)).expect("write");
        }
        fs::remove_file(stage.source.join("e")).expect("remove");
        stage.valve.open();
        let run = client.finish().expect_exit(24);
        assert_eq!(run.paths_of("failed"), ["e"]);
        for name in ["b", "d"] {
            assert_eq!(version_of(&stage.copy.join(name)), 2);
        }
        version_of(&stage.copy.join("c"));
        stage.direct_client("").run().expect_exit(0);
        assert_same(&stage.source, &stage.copy);
    }
}

#[test]
fn a_file_that_changes_at_every_look_is_given_up_and_the_others_arrive() {
    for way in BOTH_WAYS {
        let scene = Scene::new(way);
        let Scene { stage } = &scene;
        let path = stage.source.join("file");
        let step = 256 << 10;
        let mut client = stage.stall("--conns 2 --chunk-kb 64 --no-compress", step);
        let mut number = 10;
        while !client.has_ended() {
            fs::write(&path, version(number, FILE_BYTES)).expect("write");
            number = 10 + (number - 9) % 200;
            stage.valve.let_through(Kind::Data, step);
            wait_until("the next step, or the end", || stage.valve.is_stalled(Kind::Data) || client.has_ended());
        }
        let run = client.finish().expect_exit(24);
        assert_eq!(run.paths_of("failed"), ["file"]);
        assert_eq!(version_of(&stage.copy.join("file")), 1);
        assert_eq!(fs::read(stage.copy.join("other")).expect("arrived"), b"arrives again");
        run.expect_counts(&[("files_committed", 1), ("files_failed", 1)]);
        stage.valve.open();
        scene.rerun();
    }
}
