//! A client that ends before its time: killed, or asked to end. No final name stands for less than the file, and
//! the rerun fetches what the journal does not have, to the byte.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::client::Run;
use crate::support::compare::assert_same;
use crate::support::journal::{Leftover, boot_id, names_in_parts};
use crate::support::launch::is_everywhere;
use crate::support::stage::{LARGE_BYTES, Stage};
use crate::support::sweep::{Draw, is_long};
use crate::support::tree::noise;
use crate::support::valve::Kind;
use crate::support::way::{BOTH_WAYS, Way};
use nix::sys::signal::Signal;

const CHUNK_BYTES: u64 = 64 << 10;
/// A run that is asked to end has to do so within a second; this is for machines that have others to run as well.
const PROMPT: Duration = Duration::from_secs(2);

/// Panics unless the tree is whole after this run and nothing is left of those before.
fn expect_whole(stage: &Stage, run: Run, reused_bytes: u64) {
    let fetched = LARGE_BYTES - reused_bytes;
    run.expect_exit(0).expect_counts(&[
        ("bytes_fetched", fetched),
        ("bytes_reused", reused_bytes),
        ("files_committed", 1),
        ("files_failed", 0),
    ]);
    assert_same(&stage.source, &stage.copy);
    assert_eq!(names_in_parts(&stage.copy), Vec::<&Path>::new());
}

/// The rest comes, whatever the way, and nothing of what the journal claims.
fn expect_rest(stage: &Stage, options: &str) {
    let claimed = Leftover::only(&stage.copy).claimed_bytes();
    assert!(!stage.copy.join("dir/large").exists(), "a name before the last byte");
    stage.valve.renew();
    let run = stage.client(options).run();
    expect_whole(stage, run, claimed);
}

#[test]
fn a_killed_client_leaves_all_that_had_come_whole() {
    for way in BOTH_WAYS {
        for (conns, options) in [
            (1, "--chunk-kb 64"),
            (4, "--chunk-kb 64"),
            (4, "--chunk-kb 64 --receive-path splice"),
            (3, "--chunk-kb 64 --durability file"),
            (2, "--chunk-kb 64 --durability none"),
        ] {
            let stage = Stage::large(way);
            let arrived = 5 << 20;
            stage.kill(stage.stall_in_file(options, conns, CHUNK_BYTES, arrived));
            let claimed = Leftover::only(&stage.copy).claimed_bytes();
            // All but what was on its way on each connection.
            assert!(claimed + (conns + 1) * CHUNK_BYTES >= arrived, "{claimed} with {options}");
            expect_rest(&stage, options);
        }
    }
}

/// A run that leaves a file out says nothing of what an earlier one had of it.
#[test]
fn a_run_that_leaves_a_file_out_keeps_what_had_come_of_it() {
    for way in BOTH_WAYS {
        for other in ["--exclude large", "--max-size 1K"] {
            let stage = Stage::large(way);
            stage.kill(stage.stall_in_file("--chunk-kb 64", 2, CHUNK_BYTES, 5 << 20));
            stage.valve.renew();
            stage.client(other).run().expect_exit(0).expect_counts(&[("files_committed", 0)]);
            expect_rest(&stage, "--chunk-kb 64");
        }
    }
}

#[test]
fn a_client_killed_at_any_byte_leaves_nothing_wrong() {
    for way in BOTH_WAYS {
        let mut draw = Draw::new();
        let stage = Stage::large(way);
        for nth in 0..if is_long() { 200 } else { 12 } {
            let copy = stage.workspace.at(&format!("copy {nth}"));
            stage.valve.limit(Kind::Data, draw.below(LARGE_BYTES));
            let client = stage.client_to(&copy, "--chunk-kb 64 --no-compress --conns 3").start();
            stage.valve.wait_until_stalled(Kind::Data);
            client.kill();
            stage.settle(&copy);
            assert!(!copy.join("dir/large").exists());
            let claimed: u64 = Leftover::all(&copy).iter().map(Leftover::claimed_bytes).sum();
            stage.valve.renew();
            let run = stage.client_to(&copy, "--no-compress").run().expect_exit(0);
            run.expect_counts(&[("bytes_fetched", LARGE_BYTES - claimed), ("bytes_reused", claimed)]);
            assert_same(&stage.source, &copy);
        }
    }
}

#[test]
fn a_file_gets_there_however_often_the_client_is_killed() {
    for way in BOTH_WAYS {
        let stage = Stage::large(way);
        let conns = 2;
        let mut before = 0;
        let mut runs = 0;
        while before + (2 << 20) < LARGE_BYTES {
            stage.kill(stage.stall_in_file("--chunk-kb 64", conns, CHUNK_BYTES, 1 << 20));
            let claimed = Leftover::only(&stage.copy).claimed_bytes();
            assert!(claimed >= before + (1 << 20) - (conns + 1) * CHUNK_BYTES, "{claimed} after {before}");
            before = claimed;
            runs += 1;
        }
        assert!(runs >= 6, "{runs}");
        expect_rest(&stage, "--chunk-kb 64");
        // Each run lost what was on its way, and the greeting of its connections.
        let lost = runs * (conns + 1) * CHUNK_BYTES;
        assert!(stage.valve.passed_ever(Kind::Data) < LARGE_BYTES + lost + (64 << 10));
    }
}

#[test]
fn a_signal_ends_the_run_in_good_order() {
    for way in BOTH_WAYS {
        for (signal, conns) in [(Signal::SIGINT, 1), (Signal::SIGTERM, 4)] {
            let stage = Stage::large(way);
            let client = stage.stall_in_file("--chunk-kb 64", conns, CHUNK_BYTES, 3 << 20);
            let asked = Instant::now();
            client.signal(signal);
            let run = client.finish().expect_exit(20);
            assert!(asked.elapsed() < PROMPT, "{:?}", asked.elapsed());
            assert!(run.stderr.contains("run the command again"), "{}", run.stderr);
            let leftover = Leftover::only(&stage.copy);
            let journal = leftover.read();
            assert_eq!(journal.claimed_bytes(), run.count("bytes_fetched"), "no claim is lost");
            // A client that cannot tell this boot from another leaves no mark.
            let mark = journal.mark().map(|mark| (mark.boot, mark.ctime));
            assert_eq!(mark, (!is_everywhere("no-proc")).then(|| (boot_id(), leftover.ctime())));
            expect_rest(&stage, "--chunk-kb 64");
        }
    }
}

#[test]
fn a_second_signal_does_no_harm() {
    for way in BOTH_WAYS {
        let stage = Stage::large(way);
        let client = stage.stall_in_file("--chunk-kb 64", 2, CHUNK_BYTES, 3 << 20);
        let asked = Instant::now();
        client.signal(Signal::SIGINT);
        client.signal(Signal::SIGTERM);
        assert_eq!(client.finish().code, Some(20));
        assert!(asked.elapsed() < PROMPT, "{:?}", asked.elapsed());
        stage.settle(&stage.copy);
        expect_rest(&stage, "");
    }
}

#[test]
fn a_signal_while_nothing_answers_ends_the_wait() {
    for way in BOTH_WAYS {
        let stage = Stage::large(way);
        stage.valve.limit(Kind::Control, 3);
        let client = stage.client("--retry 60").start();
        stage.valve.wait_until_stalled(Kind::Control);
        let asked = Instant::now();
        client.signal(Signal::SIGTERM);
        // Nothing was begun: there may be no summary either.
        assert_eq!(client.finish().code, Some(20));
        assert!(asked.elapsed() < PROMPT, "{:?}", asked.elapsed());
    }
}

#[test]
fn a_second_client_is_sent_away_and_the_first_goes_on() {
    let stage = Stage::large(Way::Pull);
    let first = stage.stall_in_file("--chunk-kb 64", 2, CHUNK_BYTES, 3 << 20);
    let claimed = Leftover::only(&stage.copy).read();
    for from in [stage.server.url(""), stage.server.url("dir")] {
        let second = crate::support::client::Client::pull(from, &stage.copy).run().expect_exit(3);
        assert!(second.stderr.contains("another"), "{}", second.stderr);
        assert!(second.stderr.contains(stage.copy.to_str().expect("plain")), "{}", second.stderr);
    }
    // The first may have had an answer to write down yet.
    let now = Leftover::only(&stage.copy).read();
    assert!(now.head == claimed.head && now.records.starts_with(&claimed.records), "{now:?} after {claimed:?}");
    stage.valve.open();
    expect_whole(&stage, first.finish(), 0);
}

#[test]
fn the_grid_of_the_journal_stays_whatever_is_asked_for() {
    for way in BOTH_WAYS {
        let stage = Stage::large(way);
        stage.kill(stage.stall_in_file("--chunk-kb 64", 1, CHUNK_BYTES, 2 << 20));
        for (chunk_kb, conns) in [(1024, 8), (4, 2), (65_536, 1)] {
            let before = Leftover::only(&stage.copy).claimed_bytes();
            stage.kill(stage.stall_in_file(&format!("--chunk-kb {chunk_kb}"), conns, CHUNK_BYTES, 1 << 20));
            let journal = Leftover::only(&stage.copy).read();
            assert_eq!(journal.head.chunk_kb, 64);
            assert!(journal.claims().iter().all(|claim| claim.len <= CHUNK_BYTES));
            assert!(journal.claimed_bytes() > before || conns == 8, "{} after {before}", journal.claimed_bytes());
        }
        expect_rest(&stage, "--chunk-kb 4096 --conns 3");
    }
}

#[test]
fn without_the_capability_nothing_is_journaled_and_all_still_arrives() {
    for way in BOTH_WAYS {
        let stage = Stage::large(way);
        let client = stage.stall("--without 0x20 --chunk-kb 64 --no-compress", 3 << 20);
        stage.kill(client);
        assert_eq!(Leftover::all(&stage.copy), []);
        stage.valve.renew();
        let run = stage.client("--without 0x20").run();
        expect_whole(&stage, run, 0);
        // One with, after one without: what is there is nobody's.
        let stage = Stage::large(way);
        stage.kill(stage.stall("--without 0x20 --chunk-kb 64 --no-compress", 3 << 20));
        stage.valve.renew();
        let run = stage.client("").run();
        expect_whole(&stage, run, 0);
    }
}

#[test]
fn holes_stay_holes_in_a_file_that_is_gone_on_with() {
    for way in BOTH_WAYS {
        let island = noise(1 << 20, 3);
        let stage = Stage::by(way, |tree| {
            tree.sparse("file", 12 << 20, &[(1 << 20, &island), (4 << 20, &island), (9 << 20, &island)]);
        });
        for bytes in [700 << 10, 1500 << 10, 2500 << 10] {
            stage.kill(stage.stall("--chunk-kb 64 --no-compress --conns 2", bytes / 2));
            assert!(!stage.copy.join("file").exists());
        }
        let claimed = Leftover::only(&stage.copy).claimed_bytes();
        stage.valve.renew();
        let run = stage.client("").run().expect_exit(0);
        run.expect_counts(&[("bytes_fetched", (12 << 20) - claimed), ("bytes_reused", claimed)]);
        assert_same(&stage.source, &stage.copy);
    }
}

#[test]
fn a_dry_run_leaves_what_was_begun() {
    for way in BOTH_WAYS {
        let stage = Stage::large(way);
        stage.kill(stage.stall_in_file("--chunk-kb 64", 1, CHUNK_BYTES, 2 << 20));
        let leftover = Leftover::only(&stage.copy);
        let before = leftover.read();
        stage.valve.renew();
        stage.client("--dry-run").run().expect_exit(0).expect_counts(&[("bytes_fetched", 0), ("files_committed", 0)]);
        assert_eq!(leftover.read(), before);
        expect_rest(&stage, "");
    }
}

#[test]
fn what_was_begun_of_a_file_that_is_gone_is_cleared_away() {
    for way in BOTH_WAYS {
        let stage = Stage::large(way);
        stage.kill(stage.stall_in_file("--chunk-kb 64", 1, CHUNK_BYTES, 2 << 20));
        assert_eq!(names_in_parts(&stage.copy).len(), 2);
        std::fs::remove_file(stage.source.join("dir/large")).expect("remove");
        stage.valve.renew();
        stage.client("").run().expect_exit(0).expect_counts(&[("bytes_fetched", 0), ("files_failed", 0)]);
        assert_same(&stage.source, &stage.copy);
        assert_eq!(names_in_parts(&stage.copy), Vec::<&Path>::new());
    }
}
