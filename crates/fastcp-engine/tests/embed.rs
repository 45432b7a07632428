//! The engine within another program: two runs at a time, ended from outside, and begun again.

use std::fs;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use fastcp_engine::{
    Dialer, Durability, Endpoint, Event, Interrupt, Itemize, Pull, ReceiverSettings, Report, RunError, Server,
    ServerSettings, Source,
};

fn served(root: &Path) -> Endpoint {
    Arc::new(Server::new(Source::open(root).expect("open"), ServerSettings::default())).embedded()
}

/// Power cuts are no subject here.
fn unsynced() -> ReceiverSettings {
    ReceiverSettings { durability: Durability::None, ..ReceiverSettings::default() }
}

/// As many files as `files`, with their number for their contents.
fn tree(at: &Path, files: usize) {
    fs::create_dir_all(at).expect("create");
    for number in 0..files {
        fs::write(at.join(number.to_string()), number.to_string()).expect("write");
    }
}

fn assert_same(from: &Path, into: &Path) {
    let names = |dir: &Path| -> Vec<_> {
        let names = fs::read_dir(dir).expect("list").map(|entry| entry.expect("entry").file_name());
        let mut names: Vec<_> = names.filter(|name| name != ".fastcp").collect();
        names.sort();
        names
    };
    assert_eq!(names(from), names(into));
    for name in names(from) {
        assert_eq!(fs::read(from.join(&name)).expect("read"), fs::read(into.join(&name)).expect("read"));
    }
}

#[test]
fn two_runs_at_a_time_each_have_a_report_of_their_own() {
    let top = tempfile::tempdir().expect("temporary directory");
    let both_begin = Barrier::new(2);
    std::thread::scope(|threads| {
        for files in [300, 700] {
            let (top, both_begin) = (top.path(), &both_begin);
            threads.spawn(move || {
                let (from, into) = (top.join(format!("from{files}")), top.join(format!("into{files}")));
                tree(&from, files);
                let report = Report::new(sync_channel(1).0);
                let dialer = Dialer::new(served(&from), Arc::clone(&report.wire));
                both_begin.wait();
                Pull::new(&dialer, &into).receiver(unsynced()).run(&report).expect("a run to its end");
                assert_eq!(report.counters.files_committed.now(), files as u64);
                assert_eq!(report.counters.files.now(), files as u64);
                assert_same(&from, &into);
            });
        }
    });
}

#[test]
fn a_run_that_was_ended_from_outside_is_begun_again_with_the_same_interrupt() {
    let top = tempfile::tempdir().expect("temporary directory");
    let (from, into) = (top.path().join("from"), top.path().join("into"));
    tree(&from, 2000);
    let interrupt = Interrupt::default();
    assert!(!interrupt.ask(), "nothing is under way");
    let run = |report: &Report| {
        let dialer = Dialer::new(served(&from), Arc::clone(&report.wire));
        let changes = ReceiverSettings { itemize: Itemize::Changes, ..unsynced() };
        Pull::new(&dialer, &into).receiver(changes).interrupt(&interrupt).run(report)
    };
    // Nobody reads events before it is ended: the run cannot get further than they can wait.
    let (events, told) = sync_channel(1);
    let report = Report::new(events);
    std::thread::scope(|threads| {
        let running = threads.spawn(|| run(&report));
        let first = told.recv().expect("an event");
        assert!(matches!(first, Event::Item(_)), "{first:?}");
        assert!(interrupt.ask(), "it is under way");
        while !running.is_finished() {
            drop(told.recv_timeout(Duration::from_millis(10)));
        }
        assert!(matches!(running.join().expect("join"), Err(RunError::Interrupted)));
    });
    let before = report.counters.files_committed.now();
    assert!(before < 2000, "it was ended");
    let report = Report::new(sync_channel(1).0);
    run(&report).expect("a run to its end");
    let counters = &report.counters;
    assert_eq!(counters.files_committed.now() + counters.files_unchanged.now(), 2000);
    assert!(counters.files_unchanged.now() >= before, "what was committed is not fetched again");
    assert_same(&from, &into);
}
