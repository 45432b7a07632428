//! Claims of a journal that do not stand, or that nobody has looked at: a run that is broken off does not make them
//! any truer for the next one.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::support::compare::assert_same;
use crate::support::journal::Leftover;
use crate::support::stage::{ATTACH_REPLY_BYTES, Stage, bytes_of_answers};
use crate::support::tree::noise;
use crate::support::valve::Kind;
use crate::support::wait_until;
use crate::support::way::{BOTH_WAYS, Way};
use nix::sys::signal::Signal;

const CHUNK_BYTES: u64 = 64 << 10;
/// So long that its room is reserved.
const FILE_BYTES: u64 = 70 * CHUNK_BYTES + 5;
/// How many chunks the first run had.
const CLAIMS: u64 = 7;
const OPTIONS: &str = "--chunk-kb 64 --conns 1 --no-compress";

/// What a killed run left: a part file with some chunks.
fn killed(way: Way) -> Stage {
    let mut stage = Stage::by(way, |tree| {
        tree.file("file", &noise(FILE_BYTES as usize, 1));
    });
    let client = stage.stall_in_file("--chunk-kb 64", 1, CHUNK_BYTES, bytes_of_answers(CLAIMS, CHUNK_BYTES));
    wait_until("the last whole chunk", || Leftover::only(&stage.copy).claimed_bytes() == CLAIMS * CHUNK_BYTES);
    stage.kill_receiver(client);
    stage
}

/// A run that asks for the file, gets no whole answer, and is asked to end.
fn begin_and_end(stage: &Stage) {
    stage.valve.limit(Kind::Data, ATTACH_REPLY_BYTES + CHUNK_BYTES / 2);
    let client = stage.client(OPTIONS).start();
    stage.valve.wait_until_stalled(Kind::Data);
    client.signal(Signal::SIGINT);
    client.finish().expect_exit(20);
    stage.settle(&stage.copy);
}

fn open_part(stage: &Stage) -> File {
    File::options().read(true).write(true).open(Leftover::only(&stage.copy).part).expect("open the part file")
}

fn flip(stage: &Stage, at: u64) {
    let part = open_part(stage);
    let mut byte = [0];
    part.read_exact_at(&mut byte, at).expect("read");
    part.write_all_at(&[byte[0] ^ 1], at).expect("write");
}

#[test]
fn a_wrong_byte_is_not_believed_after_a_run_that_was_broken_off() {
    for way in BOTH_WAYS {
        let stage = killed(way);
        flip(&stage, 4 * CHUNK_BYTES - 1);
        begin_and_end(&stage);
        let reused = (CLAIMS - 1) * CHUNK_BYTES;
        let run = stage.client(OPTIONS).run().expect_exit(0);
        assert_same(&stage.source, &stage.copy);
        run.expect_counts(&[("bytes_fetched", FILE_BYTES - reused)]);
    }
}

#[test]
fn a_part_file_that_was_cut_off_is_not_believed_after_a_run_that_was_broken_off() {
    for way in BOTH_WAYS {
        let stage = killed(way);
        open_part(&stage).set_len(4 * CHUNK_BYTES).expect("cut off");
        for _ in 0..2 {
            begin_and_end(&stage);
        }
        stage.client(OPTIONS).run().expect_exit(0).expect_counts(&[("bytes_fetched", FILE_BYTES - 4 * CHUNK_BYTES)]);
        assert_same(&stage.source, &stage.copy);
    }
}

#[test]
fn a_range_that_was_fetched_in_place_of_a_wrong_one_is_not_fetched_again() {
    for way in BOTH_WAYS {
        let stage = killed(way);
        flip(&stage, 4 * CHUNK_BYTES - 1);
        // What is wrong comes first, and then some of the rest.
        let client = stage.stall_in_file("--chunk-kb 64", 1, CHUNK_BYTES, bytes_of_answers(9, CHUNK_BYTES));
        client.signal(Signal::SIGINT);
        let before = client.finish().expect_exit(20);
        stage.settle(&stage.copy);
        let there = (CLAIMS - 1) * CHUNK_BYTES + before.count("bytes_fetched");
        let run = stage.client(OPTIONS).run().expect_exit(0);
        assert_same(&stage.source, &stage.copy);
        run.expect_counts(&[("bytes_fetched", FILE_BYTES - there), ("bytes_reused", there)]);
    }
}
