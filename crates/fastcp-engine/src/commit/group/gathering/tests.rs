use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use super::{GROUP_AGE_MAX, GROUP_BYTES_MAX, Gathered, Gathering};
use crate::budget::GROUP_FILES_MAX;
use crate::lock::model::{Random, run};

/// A file: its number, and how long it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sized(usize, u64);

impl Gathered for Sized {
    fn file_bytes(&self) -> u64 {
        self.1
    }
}

/// Hands `sizes` over on a thread of its own; answers the groups that came of it.
fn groups_of(files_max: usize, sizes: &[u64]) -> Vec<Vec<u64>> {
    let gathering = Gathering::new(files_max);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            sizes.iter().enumerate().for_each(|(number, size)| gathering.add(Sized(number, *size)));
            gathering.finish();
        });
        let groups = std::iter::from_fn(|| gathering.next());
        groups.map(|files| files.iter().map(|file| file.1).collect()).collect()
    })
}

#[test]
fn a_group_closes_when_it_is_full_and_not_before() {
    let half = GROUP_BYTES_MAX / 2;
    assert_eq!(groups_of(3, &[0; 7]), [vec![0; 3], vec![0; 3], vec![0]]);
    assert_eq!(groups_of(100, &[half, half - 1, 1, half]), [vec![half, half - 1, 1], vec![half]]);
    assert_eq!(groups_of(100, &[GROUP_BYTES_MAX, 1, 3 * GROUP_BYTES_MAX]).len(), 2);
    assert_eq!(groups_of(0, &[0; 3]), vec![vec![0]; 3], "one file is a group where none may wait");
    let many: Vec<usize> = groups_of(usize::MAX, &vec![0; GROUP_FILES_MAX + 1]).iter().map(Vec::len).collect();
    assert_eq!(many, [GROUP_FILES_MAX, 1]);
    assert_eq!(groups_of(3, &[]), Vec::<Vec<u64>>::new());
}

#[test]
fn a_group_that_nobody_fills_closes_at_its_age() {
    let gathering = Gathering::new(100);
    let start = Instant::now();
    gathering.add(Sized(0, 1));
    gathering.add(Sized(1, 1));
    assert_eq!(gathering.next(), Some(vec![Sized(0, 1), Sized(1, 1)]));
    assert!(start.elapsed() >= GROUP_AGE_MAX);
}

#[test]
fn nobody_waits_for_a_committing_thread_that_has_ended() {
    let (told, is_told) = channel();
    std::thread::spawn(move || {
        let gathering = Gathering::new(2);
        drop(gathering.committing());
        (0..10).for_each(|number| gathering.add(Sized(number, GROUP_BYTES_MAX)));
        told.send(()).expect("somebody listens");
    });
    is_told.recv_timeout(Duration::from_secs(20)).expect("every file was taken");
}

/// Connections, the committing thread and the end, in every order: each file is in one group, in the order in which its
/// connection handed it over, and no group is larger than it may be.
#[test]
fn every_file_is_in_one_group_whoever_comes_first() {
    const CONNECTIONS: usize = 3;
    const FILES: usize = 12;
    for seed in 0..300 {
        let files_max = 1 + Random::new(seed).below(5);
        let gathering = Gathering::new(files_max);
        let (left, taken) = (std::sync::atomic::AtomicUsize::new(CONNECTIONS), std::sync::Mutex::new(Vec::new()));
        let connection = |number: usize| {
            let mut random = Random::new(seed ^ ((1 + number as u64) << 32));
            for file in 0..FILES {
                let file_bytes = [0, 1, GROUP_BYTES_MAX / 3, GROUP_BYTES_MAX][random.below(4)];
                gathering.add(Sized(number * FILES + file, file_bytes));
            }
            if left.fetch_sub(1, std::sync::atomic::Ordering::Relaxed) == 1 {
                gathering.finish();
            }
        };
        let commit = || {
            let _over = gathering.committing();
            while let Some(group) = gathering.next() {
                taken.lock().expect("lock").push(group);
            }
        };
        let mut actors: Vec<crate::lock::model::Actor<'_>> = vec![("commit", Box::new(commit))];
        for number in 0..CONNECTIONS {
            let connection = &connection;
            actors.push(("connection", Box::new(move || connection(number))));
        }
        assert_eq!(run(seed, actors), Ok(()), "seed {seed}");
        let groups = taken.into_inner().expect("lock");
        for group in &groups {
            let (_, before) = group.split_last().expect("no group is empty");
            let is_full = before.iter().map(|file| file.1).sum::<u64>() >= GROUP_BYTES_MAX;
            assert!(group.len() <= files_max && !is_full, "seed {seed}: {group:?}");
        }
        for number in 0..CONNECTIONS {
            let own = groups.iter().flatten().map(|file| file.0).filter(|file| file / FILES == number);
            assert!(own.eq(number * FILES..(number + 1) * FILES), "seed {seed}");
        }
    }
}
