//! The state of a killed run, to be damaged before the next one: as often as it takes, each time in a destination of
//! its own.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::client::Run;
use super::compare::assert_same;
use super::journal::{Journal, Leftover, names_in_parts, parts_dir};
use super::stage::{Stage, bytes_of_answers};
use super::tree::noise;
use super::wait_until;
use super::way::Way;

pub(crate) const CHUNK_BYTES: u64 = 64 << 10;
/// Ten chunks and a short one.
pub(crate) const FILE_BYTES: u64 = 10 * CHUNK_BYTES + 5;
/// How many chunks the killed run had.
pub(crate) const CLAIMS: u64 = 7;
/// What somebody has who has nothing to do with all this.
const VICTIM: &[u8] = b"not yours";

/// What a run left that was killed with some chunks of a file.
#[derive(Debug)]
pub(crate) struct Killed {
    pub(crate) stage: Stage,
    /// The name of the part file.
    name: PathBuf,
    pub(crate) part: Vec<u8>,
    pub(crate) journal: Journal,
}

impl Killed {
    pub(crate) fn by(way: Way) -> Self {
        let mut stage = Stage::by(way, |tree| {
            tree.file("file", &noise(FILE_BYTES as usize, 1));
        });
        let bytes = bytes_of_answers(CLAIMS, CHUNK_BYTES);
        let client = stage.stall_in_file("--chunk-kb 64", 1, CHUNK_BYTES, bytes);
        let leftover = Leftover::only(&stage.copy);
        wait_until("the last whole chunk", || leftover.claimed_bytes() == CLAIMS * CHUNK_BYTES);
        stage.kill_receiver(client);
        let name = leftover.part.file_name().expect("a name").into();
        let part = fs::read(&leftover.part).expect("read the part file");
        let journal = leftover.read();
        assert_eq!(journal.encode(), fs::read(&leftover.journal).expect("read the journal"), "as documented");
        assert_eq!(journal.claims().len() as u64, CLAIMS);
        Self { stage, name, part, journal }
    }

    /// The same state in a destination of its own, after `damage`.
    pub(crate) fn damaged(&self, damage: impl FnOnce(&Scene)) -> Scene {
        let dir = tempfile::tempdir_in(self.stage.workspace.at("")).expect("temporary directory");
        let copy = dir.path().join("copy");
        fs::create_dir_all(parts_dir(&copy)).expect("create");
        let leftover = Leftover::named(&copy, &self.name);
        fs::write(&leftover.part, &self.part).expect("write");
        let victim = dir.path().join("victim");
        fs::write(&victim, VICTIM).expect("write");
        let scene = Scene { dir, copy, leftover, victim, journal: self.journal.clone() };
        scene.write_journal(|_| {});
        damage(&scene);
        scene
    }

    /// Runs after `damage`, which is to cost all but `reused` chunks.
    pub(crate) fn expect_reused(&self, what: &str, reused: u64, damage: impl FnOnce(&Scene)) {
        let scene = self.damaged(damage);
        let run = self.rerun(&scene);
        assert_eq!(run.code, Some(0), "{what}: {}", run.stderr);
        let counts = (run.count("bytes_fetched"), run.count("bytes_reused"));
        let reused_bytes = reused * CHUNK_BYTES;
        assert_eq!(counts, (FILE_BYTES - reused_bytes, reused_bytes), "{what}");
        self.expect_whole(what, &scene);
    }

    /// A run that takes nothing from other versions.
    pub(crate) fn rerun(&self, scene: &Scene) -> Run {
        self.rerun_with(scene, "--whole-file")
    }

    pub(crate) fn rerun_with(&self, scene: &Scene, options: &str) -> Run {
        let options = format!("--conns 2 --chunk-kb 64 {options}");
        self.stage.route.client(self.stage.server.address, &scene.copy).options(&options).run()
    }

    pub(crate) fn expect_whole(&self, what: &str, scene: &Scene) {
        assert_same(&self.stage.source, &scene.copy);
        assert_eq!(fs::read(&scene.victim).expect("still there"), VICTIM, "{what}");
        assert_eq!(scene.victim.metadata().expect("examine").nlink(), 1, "{what}");
        assert_eq!(names_in_parts(&scene.copy), Vec::<&Path>::new(), "{what}");
    }
}

/// A destination with that state in it.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) copy: PathBuf,
    pub(crate) leftover: Leftover,
    pub(crate) victim: PathBuf,
    pub(crate) journal: Journal,
}

impl Scene {
    /// The journal that belongs to the part file as it is, after `change`.
    pub(crate) fn journal(&self, change: impl FnOnce(&mut Journal)) -> Vec<u8> {
        let mut journal = self.journal.clone();
        journal.head.inode = fs::metadata(&self.leftover.part).expect("examine").ino();
        change(&mut journal);
        journal.encode()
    }

    pub(crate) fn write_journal(&self, change: impl FnOnce(&mut Journal)) {
        self.write_journal_bytes(&self.journal(change));
    }

    pub(crate) fn write_journal_bytes(&self, bytes: &[u8]) {
        fs::write(&self.leftover.journal, bytes).expect("write the journal");
    }

    pub(crate) fn flip_in_part(&self, at: u64) {
        let part = File::options().read(true).write(true).open(&self.leftover.part).expect("open the part file");
        let mut byte = [0];
        part.read_exact_at(&mut byte, at).expect("read");
        part.write_all_at(&[byte[0] ^ 1], at).expect("write");
    }

    pub(crate) fn set_part_len(&self, bytes: u64) {
        let part = File::options().write(true).open(&self.leftover.part).expect("open the part file");
        part.set_len(bytes).expect("set the length");
    }

    pub(crate) fn replace_part(&self, by: impl FnOnce(&Path, &Path)) {
        fs::remove_file(&self.leftover.part).expect("remove");
        by(&self.victim, &self.leftover.part);
    }

    pub(crate) fn replace_journal(&self, by: impl FnOnce(&Path, &Path)) {
        fs::remove_file(&self.leftover.journal).expect("remove");
        by(&self.victim, &self.leftover.journal);
    }
}
