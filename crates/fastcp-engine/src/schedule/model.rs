//! The schedule, its jobs and the groups of commits, run through interleavings that seeds stand for.
//!
//! The threads of a transfer do here what they do there, but for files and sockets: a planner, the thread that
//! searches old versions, connections, the one that commits, a tuner, and in some runs somebody who stops all of
//! them. Faults come at every step: a connection breaks with what it owes, a checksum is wrong, a source changes,
//! a file fails. The bounds are tiny, so that each is met in every run. Wanted of each run: it ends, no range is
//! answered twice, no bytes of a file are missing when it is committed, and every file ends exactly once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastcp_model::{ByteRange, ChunkGrid, Metadata, Name, RelPath, Timestamp};

use super::{Bounds, Bundling, Cut, Held, HoldBack, Next, Schedule};
use crate::commit::group::gathering::{Gathered, Gathering};
use crate::lock::model::{Actor, Random, Stuck, run};
use crate::schedule::job::{Arrival, FileJob, Start};
use crate::schedule::want::{Purpose, Want};
use crate::target::dirs::{Age, DirState};

/// Seeds that are run through each time.
const SEEDS: u64 = 400;
const FILES: usize = 14;
const CONNECTIONS: usize = 3;
const CHUNK: u64 = 4096;

/// How each file ended, and what was answered of it before.
#[derive(Default)]
struct Ends {
    by_name: HashMap<Vec<u8>, usize>,
    answered: HashMap<(usize, u64), Want>,
}

struct World {
    schedule: Schedule,
    groups: Gathering<Arc<FileJob>>,
    ends: Mutex<Ends>,
    connections_left: AtomicUsize,
    is_stopped: AtomicBool,
    stops: bool,
    seed: u64,
}

impl Gathered for Arc<FileJob> {
    fn file_bytes(&self) -> u64 {
        self.grid.file_bytes()
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let hold_back = if random.once_in(5) { HoldBack::UntilClosed } else { HoldBack::No };
        let cut = if random.once_in(2) { Cut::Evenly } else { Cut::AtChunks };
        let bundling = if random.once_in(2) { Bundling::Yes } else { Bundling::No };
        let bounds = Bounds { queued_max: 2 + random.below(4), prepared_max: 1 + random.below(3) };
        Self {
            schedule: Schedule::new(1 + random.below(CONNECTIONS) as u16, hold_back, cut, bundling, bounds),
            groups: Gathering::new(2 + random.below(3)),
            ends: Mutex::default(),
            connections_left: AtomicUsize::new(CONNECTIONS),
            is_stopped: AtomicBool::new(false),
            stops: random.once_in(6),
            seed,
        }
    }

    fn random(&self, actor: u64) -> Random {
        Random::new(self.seed ^ (actor << 40))
    }

    /// A file has come to its end: committed, or failed.
    fn ended(&self, job: &FileJob) {
        *self.ends.lock().expect("lock").by_name.entry(job.name.as_bytes().to_vec()).or_default() += 1;
    }

    fn fail(&self, job: &FileJob) {
        if job.fail() {
            self.ended(job);
        }
    }

    fn moved(&self, job: &Arc<FileJob>) {
        if job.offered_before > 2 {
            self.fail(job);
        } else if job.fail() {
            self.schedule.moved(Arc::clone(job));
        }
    }

    fn plan(&self) {
        let mut random = self.random(1);
        let mut jobs: Vec<_> = (0..FILES).map(|number| job(number, &mut random)).collect();
        while !jobs.is_empty() {
            let some = jobs.split_off(jobs.len() - (1 + random.below(4)).min(jobs.len()));
            if !self.schedule.add(some) {
                return;
            }
        }
        self.schedule.release();
        while let Some(moved) = self.schedule.wait_for_moved() {
            self.schedule.pause(Duration::ZERO);
            for job in moved {
                let again = (!random.once_in(4)).then(|| again(&job, &mut random));
                if again.is_none() {
                    self.ended(&job);
                }
                self.schedule.offered_anew(again);
            }
        }
        self.schedule.close();
    }

    fn search(&self) {
        let mut random = self.random(2);
        while let Some(job) = self.schedule.next_to_reuse() {
            let mut jobs = vec![job];
            while random.once_in(2)
                && let Some(more) = self.schedule.more_to_reuse(|job| job.grid.file_bytes() <= CHUNK)
            {
                jobs.push(more);
            }
            for job in jobs {
                self.search_in(&job, &mut random);
                self.schedule.reused(&job);
            }
        }
    }

    fn search_in(&self, job: &Arc<FileJob>, random: &mut Random) {
        let mut at = 0;
        while at < job.grid.file_bytes() {
            let range = ByteRange::new(at, CHUNK.min(job.grid.file_bytes() - at)).expect("in the file");
            at = range.end();
            match random.below(8) {
                0 => return self.moved(job),
                1 => return self.fail(job),
                2 => return,
                3 | 4 => {
                    job.stands(range, 0);
                }
                _ => self.schedule.lacking(job, job.decided(range)),
            }
        }
    }

    fn fetch(&self, number: usize) {
        let mut random = self.random(10 + number as u64);
        while self.schedule.wait_for_turn(number).is_some() && self.connect(number, &mut random) {
            // One that cannot be made anew. The last one always can.
            if number > 0 && random.once_in(4) {
                break;
            }
        }
        if self.connections_left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.groups.finish();
        }
    }

    /// One connection to its end; `true` where another is to be made.
    fn connect(&self, number: usize, random: &mut Random) -> bool {
        let mut owed: Vec<Want> = Vec::new();
        let mut held = Held { connection: number, rate: 1, ..Held::default() };
        let goes_on = loop {
            let mut wants = Vec::new();
            match self.schedule.next(&held, &mut wants) {
                Next::Done => break false,
                Next::Rest | Next::Lead => break true,
                Next::Enough => {}
                Next::Wants => {
                    for failed in wants.extract_if(.., |want| want.job.has_failed()) {
                        self.schedule.done(&failed, Vec::new());
                    }
                    wants.iter().for_each(|want| held.add(want));
                    owed.append(&mut wants);
                    if random.once_in(3) {
                        continue;
                    }
                }
            }
            if random.once_in(25) {
                break true;
            }
            if !owed.is_empty() {
                let want = owed.remove(0);
                held.remove(&want);
                let more = self.answer(&want, random);
                self.schedule.done(&want, more);
            }
        };
        self.schedule.give_back(number, owed.into_iter());
        goes_on
    }

    /// What an answer leads to.
    fn answer(&self, want: &Want, random: &mut Random) -> Vec<Want> {
        let job = &want.job;
        if job.has_failed() {
            return Vec::new();
        }
        match random.below(30) {
            0 => self.moved(job),
            1 => self.fail(job),
            2 if want.attempt < 3 => return vec![Want { attempt: want.attempt + 1, ..want.clone() }],
            _ if want.purpose == Purpose::Confirm => self.groups.add(Arc::clone(job)),
            _ => {
                self.once(want);
                if want.is_whole_file() {
                    self.groups.add(Arc::clone(job));
                } else if job.arrived(want.range, 0) == Arrival::Whole {
                    return Want::confirmations(job);
                }
            }
        }
        Vec::new()
    }

    fn once(&self, want: &Want) {
        let key = (Arc::as_ptr(&want.job).addr(), want.range.start());
        let before = self.ends.lock().expect("lock").answered.insert(key, want.clone());
        assert!(before.is_none(), "seed {}: answered twice: {:?}", self.seed, want.range);
    }

    fn commit(&self) {
        let _over = self.groups.committing();
        while let Some(files) = self.groups.next() {
            for job in files {
                assert!(job.start() == Start::Afresh || job.is_whole() || job.has_failed(), "bytes are missing");
                // As where a file gets its name: by then nobody may have given it up.
                if !job.has_failed() {
                    self.fail(&job);
                }
            }
        }
    }

    fn tune(&self) {
        let mut random = self.random(4);
        for _ in 0..8 {
            if self.schedule.watch(Duration::ZERO).is_none() {
                return;
            }
            self.schedule.set_active(1 + random.below(CONNECTIONS) as u16);
        }
        self.schedule.set_active(CONNECTIONS as u16);
    }

    fn stop(&self) {
        if self.stops {
            self.schedule.pause(Duration::ZERO);
            self.is_stopped.store(true, Ordering::Relaxed);
            self.schedule.stop();
        }
    }

    fn run(&self) -> Result<(), Stuck> {
        let mut actors: Vec<Actor<'_>> = vec![
            ("planner", Box::new(|| self.plan())),
            ("search", Box::new(|| self.search())),
            ("commit", Box::new(|| self.commit())),
            ("tuner", Box::new(|| self.tune())),
            ("stopper", Box::new(|| self.stop())),
        ];
        for number in 0..CONNECTIONS {
            actors.push(("connection", Box::new(move || self.fetch(number))));
        }
        run(self.seed, actors)
    }
}

/// A file of some kind: of one range or of several, new or with an old version.
fn job(number: usize, random: &mut Random) -> Arc<FileJob> {
    let file_bytes = [1, 10, CHUNK, 3 * CHUNK, 6 * CHUNK][random.below(5)];
    let made = made(&DirState::new(RelPath::root(), Age::New, None, None), &number.to_string(), file_bytes);
    Arc::new(if random.once_in(2) { made.with_basis() } else { made })
}

/// The same file, offered anew: by now it may have another size.
fn again(job: &Arc<FileJob>, random: &mut Random) -> Arc<FileJob> {
    let file_bytes = [1, CHUNK, 3 * CHUNK][random.below(3)];
    let name = String::from_utf8(job.name.as_bytes().to_vec()).expect("a number");
    let made = made(&job.dir, &name, file_bytes);
    let made = if random.once_in(2) { made.with_basis() } else { made };
    Arc::new(made.again(job))
}

fn made(dir: &Arc<DirState>, name: &str, file_bytes: u64) -> FileJob {
    let metadata = Metadata { mode: 0o644, uid: 0, gid: 0, mtime: Timestamp::default() };
    let grid = ChunkGrid::new(file_bytes, 4).expect("a grid");
    FileJob::new(Arc::clone(dir), Name::new(name.as_bytes()).expect("a name"), metadata, grid, false, false)
}

#[test]
fn every_run_ends_and_so_does_every_file_once() {
    for seed in 0..SEEDS {
        let world = World::new(seed);
        if let Err(stuck) = world.run() {
            panic!("seed {seed}: {stuck:?}: {:?}", world.schedule);
        }
        let ends = world.ends.into_inner().expect("lock");
        assert!(ends.by_name.values().all(|&count| count == 1), "seed {seed}: {:?}", ends.by_name);
        if !world.is_stopped.into_inner() {
            assert_eq!(ends.by_name.len(), FILES, "seed {seed}: a file has no end");
        }
    }
}

/// What one connection has answered, or owed, is for another that waits, though the first never comes back.
#[test]
fn whoever_waits_for_wants_is_told_of_them() {
    type Leaves = fn(&Schedule, Want);
    let leaves: [Leaves; 3] = [
        |schedule, want| {
            let more = vec![Want { attempt: 1, ..want.clone() }];
            schedule.done(&want, more);
        },
        |schedule, want| schedule.give_back(0, std::iter::once(want)),
        |schedule, want| {
            schedule.done(&want, Vec::new());
            assert!(schedule.add(vec![Arc::clone(&want.job)]));
        },
    ];
    for (seed, leave) in (0..60).flat_map(|seed| leaves.map(|leave| (seed, leave))) {
        let schedule = Schedule::new(2, HoldBack::No, Cut::AtChunks, Bundling::No, Bounds::default());
        let dir = DirState::new(RelPath::root(), Age::New, None, None);
        assert!(schedule.add(vec![Arc::new(made(&dir, "file", 1))]));
        let take = |connection| {
            let mut wants = Vec::new();
            schedule.next(&Held { connection, rate: 1, ..Held::default() }, &mut wants);
            wants.pop().expect("a want")
        };
        let first = take(0);
        let result = run(
            seed,
            vec![
                ("first", Box::new(|| leave(&schedule, first))),
                ("second", Box::new(|| assert_eq!(take(1).range.len(), 1))),
            ],
        );
        assert_eq!(result, Ok(()), "seed {seed}");
    }
}
