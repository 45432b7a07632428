//! What goes wrong while a changed file is brought up to date: kills, sources that change meanwhile, connections that
//! break or spoil what they carry. The name never stands for a wrong byte, and what was copied or fetched before is
//! not fetched again.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::support::client::Run;
use crate::support::compare::assert_same;
use crate::support::cut_proxy::Fault;
use crate::support::journal::{Leftover, names_in_parts};
use crate::support::stage::{ATTACH_REPLY_BYTES, Stage};
use crate::support::sweep::{Draw, is_long};
use crate::support::tree::{noise, set_mtime};
use crate::support::valve::Kind;
use crate::support::versions::{NAME, Versions, put_old, rewritten, rewritten_bytes};
use crate::support::wait_until;
use crate::support::way::{BOTH_WAYS, Way};
use fastcp_wire::hello::Ticket;
use nix::sys::signal::Signal;

const MIB: usize = 1 << 20;
const CHUNK_BYTES: u64 = 64 << 10;
/// Of the new version: what the old one has of it, and what it lacks.
const OLD_BYTES: usize = 5 * MIB + 77;
const NEW_BYTES: usize = 5 * MIB;
const FILE_BYTES: u64 = (OLD_BYTES + NEW_BYTES) as u64;
/// What the lists of chunks take at most, the greetings, and what of new bytes is fetched with old ones.
const LISTS_BYTES: u64 = 256 << 10;

/// A source whose second half the destination lacks.
fn half_new(way: Way) -> Stage {
    let new = [noise(OLD_BYTES, 1), noise(NEW_BYTES, 2)].concat();
    let stage = Stage::by(way, |tree| {
        tree.file(NAME, &new);
    });
    put_old(&stage.copy, &new[..OLD_BYTES]);
    stage
}

/// Panics unless the run ended well and nothing is left of those before.
fn expect_whole(stage: &Stage, run: Run) -> u64 {
    let run = run.expect_exit(0).expect_counts(&[("files_committed", 1), ("chunks_refetched", 0)]);
    assert_same(&stage.source, &stage.copy);
    assert_eq!(names_in_parts(&stage.copy), Vec::<&Path>::new());
    let fetched = run.count("bytes_fetched");
    assert_eq!(fetched + run.count("bytes_reused"), FILE_BYTES);
    fetched
}

fn names_of_stale(copy: &Path) -> Vec<PathBuf> {
    let mut names = names_in_parts(copy);
    names.retain(|name| name.as_os_str().as_bytes().ends_with(b".stale"));
    names
}

/// What a killed run may have received in vain.
fn on_its_way(conns: u64) -> u64 {
    conns * CHUNK_BYTES + LISTS_BYTES
}

/// Kills a client when it has copied all there is and fetched some. Answers how much its journal claims.
fn kill_half_way(stage: &Stage, options: &str, conns: u64) -> u64 {
    let arrived = 3 << 20;
    let client = stage.stall(&format!("{options} --no-compress --conns {conns}"), arrived);
    let claimed = || Leftover::all(&stage.copy).iter().map(Leftover::claimed_bytes).sum::<u64>();
    wait_until("the journal to follow", || claimed() + on_its_way(conns) >= OLD_BYTES as u64 + arrived);
    stage.kill(client);
    claimed()
}

#[test]
fn a_run_killed_in_the_middle_has_copied_for_the_next_one() {
    for way in BOTH_WAYS {
        for (conns, options) in [(1, "--chunk-kb 64"), (4, "--chunk-kb 64 --durability none")] {
            let stage = half_new(way);
            let old = fs::read(stage.copy.join(NAME)).expect("read");
            let claimed = kill_half_way(&stage, options, conns);
            assert!(fs::read(stage.copy.join(NAME)).expect("read") == old, "a name before its time");
            stage.valve.renew();
            let fetched = expect_whole(&stage, stage.client(options).run());
            assert!(fetched <= FILE_BYTES - claimed, "{fetched} with {claimed} claimed");
            let ever = stage.valve.passed_ever(Kind::Data);
            assert!(ever < NEW_BYTES as u64 + on_its_way(conns) + LISTS_BYTES, "{ever}");
        }
    }
}

#[test]
fn a_run_may_be_killed_at_any_byte_of_it() {
    let mut draw = Draw::new();
    for way in BOTH_WAYS {
        for nth in 0..if is_long() { 100 } else { 8 } {
            let stage = half_new(way);
            // Half of them while chunks are listed.
            let bytes = draw.below(if nth % 2 == 0 { NEW_BYTES as u64 } else { 4096 });
            stage.kill(stage.stall("--chunk-kb 64 --no-compress --conns 2", bytes));
            let claimed: u64 = Leftover::all(&stage.copy).iter().map(Leftover::claimed_bytes).sum();
            stage.valve.renew();
            let fetched = expect_whole(&stage, stage.client("--conns 2").run());
            let missing = (NEW_BYTES as u64 + CHUNK_BYTES).min(FILE_BYTES - claimed);
            assert!(fetched <= missing, "{fetched} of {missing} after {bytes}");
        }
    }
}

/// The file as it is in `stage`, changed here and there.
fn change(stage: &Stage, secs: i64) -> u64 {
    let path = stage.source.join(NAME);
    let before = fs::read(&path).expect("read");
    let after = rewritten(&before, 200);
    fs::write(&path, &after).expect("write");
    set_mtime(&path, secs, 5);
    // Each page, and the chunks that it lies in.
    rewritten_bytes(&before, &after) * 9
}

#[test]
fn what_was_fetched_of_a_version_that_is_gone_is_a_basis_of_the_next() {
    for way in BOTH_WAYS {
        let stage = half_new(way);
        let options = "--chunk-kb 64 --conns 2 --no-compress";
        let claimed = kill_half_way(&stage, "--chunk-kb 64", 2);
        assert_eq!(names_of_stale(&stage.copy), Vec::<&Path>::new());
        let changed = change(&stage, 1_650_000_000);
        // Killed once more: what was set aside stays for the next.
        stage.kill(stage.stall(options, 1 << 20));
        assert_eq!(names_of_stale(&stage.copy).len(), 1, "{:?}", names_in_parts(&stage.copy));
        stage.valve.renew();
        let passed = stage.valve.passed_ever(Kind::Data);
        let fetched = expect_whole(&stage, stage.client(options).run());
        assert!(fetched < FILE_BYTES - claimed + changed, "{fetched} after {claimed} of {FILE_BYTES}");
        assert!(passed + fetched < NEW_BYTES as u64 + changed + (2 << 20), "{passed} and {fetched}");
    }
}

#[test]
fn a_new_file_whose_source_changed_begins_with_what_had_come() {
    for way in BOTH_WAYS {
        let stage = half_new(way);
        fs::remove_file(stage.copy.join(NAME)).expect("remove");
        stage.kill(stage.stall_in_file("--chunk-kb 64", 2, CHUNK_BYTES, 6 << 20));
        let claimed = Leftover::only(&stage.copy).claimed_bytes();
        let changed = change(&stage, 1_650_000_000);
        stage.valve.renew();
        let fetched = expect_whole(&stage, stage.client("--conns 2").run());
        assert!(fetched < FILE_BYTES - claimed + changed, "{fetched} after {claimed} of {FILE_BYTES}");
        // Whole files need no basis, and clear it away all the same.
        let stage = half_new(way);
        kill_half_way(&stage, "--chunk-kb 64", 2);
        change(&stage, 1_650_000_000);
        stage.valve.renew();
        assert_eq!(expect_whole(&stage, stage.client("--whole-file").run()), FILE_BYTES);
    }
}

#[test]
fn a_signal_ends_a_run_that_waits_for_lists() {
    for way in BOTH_WAYS {
        for conns in [1, 4] {
            let stage = half_new(way);
            // The greetings of all connections, and a little of the first list.
            let client = stage.stall(&format!("--conns {conns}"), (conns + 1) * ATTACH_REPLY_BYTES + 100);
            client.signal(Signal::SIGINT);
            client.finish().expect_exit(20).expect_counts(&[("bytes_fetched", 0), ("files_committed", 0)]);
            stage.valve.renew();
            let fetched = expect_whole(&stage, stage.client("").run());
            assert!(fetched <= NEW_BYTES as u64 + CHUNK_BYTES, "{fetched}");
        }
    }
}

/// A little into the first answers of a connection: around the greeting, a header, a list and its trailer.
fn offsets(way: Way) -> Vec<usize> {
    match way {
        Way::Pull => {
            let greeting = ATTACH_REPLY_BYTES as usize;
            let into = [10, 47, 48, 60, 200, 1500, 3000].map(|into| greeting + into);
            [&[1, greeting][..], &into].concat()
        }
        Way::Push => {
            let greeting = ATTACH_REPLY_BYTES as usize + size_of::<Ticket>();
            [0, 47, 60, 1500].map(|into| greeting + into).to_vec()
        }
    }
}

#[test]
fn connections_may_break_or_spoil_what_they_carry() {
    for way in BOTH_WAYS {
        let old = noise(9 * MIB, 3);
        let versions = Versions::by(way, &old, &rewritten(&old, 60));
        let undisturbed = versions.update("--conns 1").count("bytes_fetched");
        let faults: [fn(usize) -> Fault; 2] = [Fault::Cut, Fault::Flip];
        for offset in offsets(way) {
            for fault in faults {
                // One is for data and one for lists; which comes first is nobody's affair.
                for nth in [0, 1] {
                    let proxy = versions.cut_proxy(nth, fault(offset));
                    let copy = versions.copy();
                    let client = versions.client_at(proxy.address, &copy, "--conns 1 --chunk-kb 64 --no-compress");
                    let run = versions.expect_same(&copy, client.run());
                    let (fetched, refetched) = (run.count("bytes_fetched"), run.count("chunks_refetched"));
                    let what = format!("{:?} of connection {nth}", fault(offset));
                    assert!(refetched <= 1 && fetched <= undisturbed + CHUNK_BYTES, "{fetched} after {what}");
                    assert!(proxy.data_connections() >= 2, "{what}");
                }
            }
        }
    }
}
