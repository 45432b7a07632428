//! Power cuts. Whatever the moment, each final name stands for the old file or the new one, whole; the run after the
//! boot completes the tree and fetches what is missing and no more; and what a run called done is there.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::support::client::{Run, Running};
use crate::support::compare::{assert_same, files_and_bytes};
use crate::support::crash_disk::{CrashDisk, Snapshot};
use crate::support::journal::Leftover;
use crate::support::launch::is_everywhere;
use crate::support::server::Server;
use crate::support::sweep::{Draw, is_long};
use crate::support::tree::{Tree, noise, set_mtime};
use crate::support::valve::{Kind, Valve};
use crate::support::way::{BOTH_WAYS, Route, Way};
use crate::support::{HANG_TIMEOUT, Workspace, say_skipped};
use nix::sys::signal::Signal;

/// The ways, and how names are given.
const CASES: [(Way, &str); 3] =
    [(Way::Pull, "--durability batch"), (Way::Pull, "--durability file"), (Way::Push, "--durability batch")];
const SMALL_FILES: u64 = 120;
const LARGE_BYTES: usize = 12 << 20;

/// Names and contents of all files of one version of the source.
type Files = BTreeMap<PathBuf, Vec<u8>>;

/// A source in two versions, a disk with the old one, and the way between.
struct Scene {
    source: PathBuf,
    old: Files,
    new: Files,
    route: Route,
    valve: Valve,
    server: Server,
    // Before the directory that it lies in.
    disk: CrashDisk,
    workspace: Workspace,
}

impl Scene {
    fn by(way: Way) -> Option<Self> {
        let workspace = Workspace::new();
        let disk = CrashDisk::make(&workspace, 192)?;
        let mut tree = Tree::new(&workspace.at("source"));
        tree.dir("small").dir("new");
        for nth in 0..SMALL_FILES / 2 {
            tree.file(format!("small/{nth}"), &contents_of(1, nth));
        }
        tree.file("large", &noise(LARGE_BYTES / 2, 1));
        let source = tree.finish();
        let old = files_of(&source);
        let route = Route::new(way, &source, &workspace);
        let server = route.serve();
        let valve = route.valve(server.address);
        route.client(server.address, &disk.path().join("copy")).run().expect_exit(0);
        renew(&source);
        let new = files_of(&source);
        Some(Self { source, old, new, route, valve, server, disk, workspace })
    }

    fn start(&self, options: &str) -> Running {
        let options = format!("--conns 2 --chunk-kb 64 --no-compress --whole-file {options}");
        self.route.client(self.valve.address(), &self.disk.path().join("copy")).options(&options).start()
    }

    /// Mounts a disk after a power cut, looks at every name on it, and lets a run complete it.
    fn check(&self, what: &str, snapshot: &Snapshot) -> Booted {
        let disk = snapshot.boot(&self.workspace.at("booted"));
        let copy = disk.path.join("copy");
        let booted = self.look(what, &copy);
        let standing: u64 = Leftover::all(&copy).iter().map(Leftover::standing_bytes).sum();
        let run =
            self.route.client(self.server.address, &copy).options("--whole-file --chunk-kb 64").run().expect_exit(0);
        assert_same(&self.source, &copy);
        let fetched = run.count("bytes_fetched");
        assert_eq!(fetched + standing, booted.missing_bytes, "{what}: {standing} stood");
        booted
    }

    /// Panics where a name stands for what neither version had.
    fn look(&self, what: &str, copy: &Path) -> Booted {
        let mut booted = Booted { new_files: 0, missing_bytes: 0 };
        let found = files_of(copy);
        let missing = self.new.iter().filter(|(name, _)| !found.contains_key(*name));
        booted.missing_bytes += missing.map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
        for (name, bytes) in &found {
            let is_old = self.old.get(name) == Some(bytes);
            let is_new = self.new.get(name) == Some(bytes);
            assert!(is_old || is_new, "{what}: {name:?} is neither old nor new: {}", description(bytes));
            match is_new {
                true => booted.new_files += 1,
                false => booted.missing_bytes += bytes_of(&self.new, name),
            }
        }
        booted
    }
}

fn bytes_of(files: &Files, name: &Path) -> u64 {
    files.get(name).map_or(0, |bytes| bytes.len() as u64)
}

fn description(bytes: &[u8]) -> String {
    let zeros = bytes.iter().filter(|&&byte| byte == 0).count();
    format!("{} bytes, {zeros} of them zero", bytes.len())
}

/// What a disk held.
struct Booted {
    new_files: usize,
    missing_bytes: u64,
}

fn contents_of(version: u64, nth: u64) -> Vec<u8> {
    noise(2000 + (nth * 977 % 20_000) as usize, version * 1000 + nth)
}

/// Every file gets another content and another time; new ones come.
fn renew(source: &Path) {
    for nth in 0..SMALL_FILES {
        let dir = if nth < SMALL_FILES / 2 { "small" } else { "new" };
        let path = source.join(dir).join(nth.to_string());
        fs::write(&path, contents_of(2, nth)).expect("write");
        set_mtime(&path, 1_700_000_000, 5);
    }
    let large = source.join("large");
    fs::write(&large, noise(LARGE_BYTES, 2)).expect("write");
    set_mtime(&large, 1_700_000_000, 6);
    fs::write(source.join("new large"), noise(LARGE_BYTES / 2, 3)).expect("write");
    set_mtime(&source.join("new large"), 1_700_000_000, 7);
}

fn files_of(root: &Path) -> Files {
    let mut files = Files::new();
    let mut dirs = vec![PathBuf::new()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(root.join(&dir)).expect("read a directory") {
            let entry = entry.expect("read a directory");
            let path = dir.join(entry.file_name());
            match entry.file_type().expect("examine").is_dir() {
                true if path == Path::new(".fastcp") => {}
                true => dirs.push(path),
                false => _ = files.insert(path, fs::read(entry.path()).expect("read a file")),
            }
        }
    }
    files
}

/// Waits until the first new name shows, or the client has ended: the moment at which a name may come before its
/// bytes. Looks without a pause.
fn wait_for_first_name(copy: &Path, source: &Path, client: &mut Running) {
    let until = Instant::now() + HANG_TIMEOUT;
    let new = source.join("small/0").metadata().and_then(|stat| stat.modified()).expect("examine");
    let is_new = |name: &str| copy.join(name).metadata().and_then(|stat| stat.modified()).is_ok_and(|time| time >= new);
    while !is_new("small/0") && !is_new("new/100") && !client.has_ended() {
        assert!(Instant::now() < until, "no name ever came");
    }
}

/// Has ext4 write its log, and the names that were given with it, but none of the bytes that wait in memory: what it
/// does by itself sooner or later, or when anybody syncs a file.
fn write_log(disk: &Path) {
    let mut other = fs::File::create(disk.join("other")).expect("create");
    other.write_all(b"synced").and_then(|()| other.sync_all()).expect("sync");
}

#[test]
fn a_power_cut_at_any_byte_leaves_old_files_and_new_ones() {
    let mut draw = Draw::new();
    for (way, durability) in CASES {
        let Some(mut scene) = Scene::by(way) else { return };
        let (_, bytes) = files_and_bytes(&scene.source);
        let client = scene.start(durability);
        let count = if is_long() { 20 } else { 2 };
        let mut marks: Vec<u64> = (0..count).map(|_| draw.below(bytes)).collect();
        marks.sort_unstable();
        let mut snapshots = Vec::new();
        for mark in marks {
            scene.valve.wait_until_passed(Kind::Data, mark);
            snapshots.push((format!("{way:?} {durability}, after {mark} bytes"), scene.disk.snapshot()));
        }
        client.finish().expect_exit(0);
        for (what, snapshot) in snapshots {
            scene.check(&what, &snapshot);
        }
    }
}

#[test]
fn a_name_never_comes_before_its_bytes() {
    let mut draw = Draw::new();
    for (way, durability) in CASES {
        for _ in 0..if is_long() { 10 } else { 1 } {
            let Some(mut scene) = Scene::by(way) else { return };
            // Beyond the large files, which come first, and short of the end.
            scene.valve.limit(Kind::Data, LARGE_BYTES as u64 * 3 / 2 + (200 << 10) + draw.below(1 << 20));
            let mut client = scene.start(durability);
            wait_for_first_name(&scene.disk.path().join("copy"), &scene.source, &mut client);
            let at_once = scene.disk.snapshot();
            write_log(scene.disk.path());
            let later = scene.disk.snapshot();
            scene.valve.open();
            client.finish().expect_exit(0);
            scene.check(&format!("{way:?} {durability}, at the first name"), &at_once);
            let booted = scene.check(&format!("{way:?} {durability}, after a commit of the log"), &later);
            assert!(booted.new_files > 0, "some names were given by then");
        }
    }
}

#[test]
fn what_a_run_calls_done_is_there_after_a_power_cut() {
    for (way, durability) in CASES {
        let Some(mut scene) = Scene::by(way) else { return };
        let run: Run = scene.start(durability).finish().expect_exit(0);
        let snapshot = scene.disk.snapshot();
        assert_eq!(run.count("files_committed"), scene.new.len() as u64);
        let booted = scene.check(&format!("{way:?} {durability}, done"), &snapshot);
        assert_eq!((booted.missing_bytes, booted.new_files), (0, scene.new.len()), "{durability}");
    }
}

#[test]
fn what_was_journaled_and_written_is_not_fetched_again_after_a_power_cut() {
    for way in BOTH_WAYS {
        let Some(mut scene) = Scene::by(way) else { return };
        scene.valve.limit(Kind::Data, LARGE_BYTES as u64 / 2);
        let client = scene.start("");
        scene.valve.wait_until_stalled(Kind::Data);
        crate::support::wait_until("a journal", || {
            let found = Leftover::all(&scene.disk.path().join("copy"));
            found.iter().any(|leftover| leftover.claimed_bytes() > 1 << 20)
        });
        // Whatever syncs the disk by then, be it somebody else.
        let synced = std::process::Command::new("sync").arg("-f").arg(scene.disk.path()).status();
        if !synced.is_ok_and(|status| status.success()) {
            return say_skipped("no sync -f here");
        }
        let snapshot = scene.disk.snapshot();
        client.kill();
        let disk = snapshot.boot(&scene.workspace.at("booted before"));
        let standing: u64 = Leftover::all(&disk.path.join("copy")).iter().map(Leftover::standing_bytes).sum();
        assert!(standing > 1 << 20);
        drop(disk);
        scene.check("synced while it was fetched", &snapshot);
    }
}

#[test]
fn a_disk_that_is_lost_without_a_boot_is_not_taken_at_its_word() {
    if is_everywhere("no-proc") {
        return say_skipped("without /proc a journal has no mark");
    }
    for way in BOTH_WAYS {
        let Some(mut scene) = Scene::by(way) else { return };
        let copy = scene.disk.path().join("copy");
        scene.valve.limit(Kind::Data, LARGE_BYTES as u64 / 2);
        let client = scene.start("--durability none");
        scene.valve.wait_until_stalled(Kind::Data);
        crate::support::wait_until("a journal", || {
            Leftover::all(&copy).iter().any(|one| one.claimed_bytes() > 1 << 20)
        });
        client.signal(Signal::SIGTERM);
        client.finish().expect_exit(20);
        scene.valve.renew();
        crate::support::way::wait_until_free(&copy);
        // The journal gets to the disk, with the mark that vouches for its claims, and the bytes do not.
        let journal = Leftover::fullest(&copy).journal;
        fs::File::open(journal).and_then(|file| file.sync_all()).expect("sync");
        let snapshot = scene.disk.snapshot();
        let disk = snapshot.boot(&scene.workspace.at("booted before"));
        let leftover = Leftover::fullest(&disk.path.join("copy"));
        assert!(leftover.claimed_bytes() > 1 << 20 && leftover.read().mark().is_some());
        drop(disk);
        scene.check("a disk that was taken away", &snapshot);
    }
}
