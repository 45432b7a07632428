//! What becomes of the state of a killed run before the next one looks at it: a matrix of damages. Whatever it is,
//! the next run ends right, touches nothing that is not ours, and fetches what the damage costs and no more.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use crate::support::compare::assert_same;
use crate::support::journal::{Claim, Journal, Leftover, Mark, Record, boot_id};
use crate::support::killed::{CHUNK_BYTES, CLAIMS, FILE_BYTES, Killed, Scene};
use crate::support::launch::is_everywhere;
use crate::support::say_skipped;
use crate::support::stage::Stage;
use crate::support::sweep::is_long;
use crate::support::tree::noise;
use crate::support::way::BOTH_WAYS;

fn hard_link(victim: &Path, at: &Path) {
    fs::hard_link(victim, at).expect("link");
}

fn soft_link(victim: &Path, at: &Path) {
    symlink(victim, at).expect("link");
}

fn directory(_: &Path, at: &Path) {
    fs::create_dir(at).expect("create");
}

#[test]
fn a_journal_that_was_not_damaged_is_worth_all_its_claims() {
    for way in BOTH_WAYS {
        let killed = Killed::by(way);
        killed.expect_reused("nothing", CLAIMS, |_| {});
        killed.expect_reused("claims in another order", CLAIMS, |scene| {
            scene.write_journal(|journal| journal.records.reverse());
        });
    }
}

#[test]
fn a_torn_journal_is_worth_the_records_before_the_tear() {
    for way in BOTH_WAYS {
        let killed = Killed::by(way);
        let borders = killed.journal.borders();
        let whole = killed.journal.encode();
        let head = (0..borders[0]).step_by(if is_long() { 1 } else { 7 });
        let around = borders.iter().flat_map(|&border| [border - 1, border, border + 1]);
        for torn in head.chain(around).filter(|&torn| torn <= whole.len()) {
            let reused = borders[1..].iter().filter(|&&border| border <= torn).count() as u64;
            killed.expect_reused(&format!("torn at {torn}"), reused, |scene| {
                scene.write_journal_bytes(&scene.journal(|_| {})[..torn]);
            });
        }
    }
}

#[test]
fn a_flipped_bit_of_the_journal_is_found() {
    for way in BOTH_WAYS {
        let killed = Killed::by(way);
        let borders = killed.journal.borders();
        let bytes = killed.journal.encode().len();
        let in_records = (borders[0]..bytes).step_by(if is_long() { 1 } else { 13 });
        for at in (0..borders[0]).chain(in_records) {
            let intact = borders[1..].iter().filter(|&&border| border <= at).count() as u64;
            let bits = if is_long() { 0..8 } else { at % 8..at % 8 + 1 };
            for bit in bits {
                killed.expect_reused(&format!("bit {bit} of byte {at}"), intact, |scene| {
                    let mut bytes = scene.journal(|_| {});
                    bytes[at] ^= 1 << bit;
                    scene.write_journal_bytes(&bytes);
                });
            }
        }
    }
}

#[test]
fn a_journal_of_something_else_is_worth_nothing() {
    for way in BOTH_WAYS {
        let killed = Killed::by(way);
        let head = |what: &str, change: fn(&mut Journal)| {
            killed.expect_reused(what, 0, |scene| scene.write_journal(change));
            // As another version its bytes may be of use, once they are proven.
            let scene = killed.damaged(|scene| scene.write_journal(change));
            let run = killed.rerun_with(&scene, "").expect_exit(0);
            assert_eq!(run.count("bytes_fetched") + run.count("bytes_reused"), FILE_BYTES, "{what}");
            assert_same(&killed.stage.source, &scene.copy);
        };
        head("another length", |journal| journal.head.file_bytes += 1);
        head("a length below the claims", |journal| journal.head.file_bytes = CHUNK_BYTES);
        head("the longest length", |journal| journal.head.file_bytes = u64::MAX);
        head("another second", |journal| journal.head.mtime.0 -= 1);
        head("another nanosecond", |journal| journal.head.mtime.1 ^= 1);
        head("no lawful time", |journal| journal.head.mtime.1 = u32::MAX);
        head("another part file", |journal| journal.head.inode += 1);
        head("another path", |journal| journal.head.path = b"fole".to_vec());
        head("a path that leads out", |journal| journal.head.path = b"../victim".to_vec());
        head("an absolute path", |journal| journal.head.path = b"/file".to_vec());
        head("no path", |journal| journal.head.path.clear());
        head("no chunks", |journal| journal.head.chunk_kb = 0);
        head("the largest chunks", |journal| journal.head.chunk_kb = u32::MAX);
        killed.expect_reused("an empty journal", 0, |scene| scene.write_journal_bytes(b""));
        killed.expect_reused("zeros", 0, |scene| scene.write_journal_bytes(&[0; 4096]));
        killed.expect_reused("noise", 0, |scene| scene.write_journal_bytes(&noise(4096, 2)));
    }
}

#[test]
fn the_journal_of_another_file_is_worth_nothing() {
    for way in BOTH_WAYS {
        let mut stage = Stage::by(way, |tree| {
            tree.file("one", &noise(FILE_BYTES as usize, 1)).mtime(1_600_000_000, 1);
            tree.file("two", &noise(FILE_BYTES as usize, 2)).mtime(1_600_000_000, 1);
        });
        let client = stage.stall_in_file("--chunk-kb 64", 1, CHUNK_BYTES, FILE_BYTES / 2);
        stage.kill_receiver(client);
        let leftover = Leftover::only(&stage.copy);
        // Only the path tells them apart.
        let mut journal = leftover.read();
        assert!(journal.claimed_bytes() > 0);
        journal.head.path = if journal.head.path == b"one" { b"two".to_vec() } else { b"one".to_vec() };
        fs::write(&leftover.journal, journal.encode()).expect("write");
        stage.valve.renew();
        let run = stage.client("--whole-file").run().expect_exit(0);
        assert_same(&stage.source, &stage.copy);
        run.expect_counts(&[("bytes_fetched", 2 * FILE_BYTES), ("bytes_reused", 0), ("files_committed", 2)]);
    }
}

#[test]
fn a_claim_that_cannot_be_true_costs_itself() {
    for way in BOTH_WAYS {
        let killed = Killed::by(way);
        let claim = |start: u64, len: u64| Record::Range(Claim { start, len, crc: 7 });
        // A record that no run writes ends what can be read, or is one claim less.
        for (what, record) in [
            ("beyond the end", claim(FILE_BYTES, 1)),
            ("across the end", claim(FILE_BYTES - 1, 2)),
            ("of nothing", claim(0, 0)),
            ("past all numbers", claim(u64::MAX, u64::MAX)),
            ("around all numbers", claim(u64::MAX - 4, 5)),
            ("as long as all", claim(0, u64::MAX)),
        ] {
            killed.expect_reused(&format!("{what}, last"), CLAIMS, |scene| {
                scene.write_journal(|journal| journal.records.push(record));
            });
            killed.expect_reused(&format!("{what}, first"), 0, |scene| {
                scene.write_journal(|journal| journal.records.insert(0, record));
            });
        }
        killed.expect_reused("a claim made twice", CLAIMS, |scene| {
            scene.write_journal(|journal| journal.records.push(journal.records[2]));
        });
        killed.expect_reused("a claim with a wrong sum of its bytes", CLAIMS - 1, |scene| {
            scene.write_journal(|journal| {
                let Record::Range(claim) = &mut journal.records[3] else { panic!("a range") };
                claim.crc ^= 1;
            });
        });
        killed.expect_reused("a claim of what was never written", CLAIMS, |scene| {
            scene.write_journal(|journal| journal.records.push(claim(9 * CHUNK_BYTES, CHUNK_BYTES)));
        });
    }
}

#[test]
fn claims_that_overlap_never_make_a_wrong_file() {
    for way in BOTH_WAYS {
        let killed = Killed::by(way);
        for (start, len) in
            [(1, CHUNK_BYTES), (0, 2 * CHUNK_BYTES), (CHUNK_BYTES / 2, 10), (0, CLAIMS * CHUNK_BYTES), (0, 1)]
        {
            let crc = crc32fast::hash(&killed.part[start as usize..(start + len) as usize]);
            let overlapping = Record::Range(Claim { start, len, crc });
            let scene = killed.damaged(|scene| scene.write_journal(|journal| journal.records.push(overlapping)));
            let run = killed.rerun(&scene).expect_exit(0);
            let sum = run.count("bytes_fetched") + run.count("bytes_reused");
            assert_eq!(sum, FILE_BYTES, "each byte comes from one place");
            killed.expect_whole("overlapping claims", &scene);
        }
    }
}

#[test]
fn a_journal_that_is_no_file_of_ours_is_left_alone() {
    for way in BOTH_WAYS {
        let killed = Killed::by(way);
        killed.expect_reused("no journal", 0, |scene| scene.replace_journal(|_, _| {}));
        killed.expect_reused("a link", 0, |scene| scene.replace_journal(soft_link));
        killed.expect_reused("a hard link", 0, |scene| scene.replace_journal(hard_link));
        killed.expect_reused("a good journal with a second name", 0, |scene| {
            let second = scene.dir.path().join("second name");
            fs::hard_link(&scene.leftover.journal, second).expect("link");
        });
        killed.expect_reused("a link to a good journal", 0, |scene| {
            let elsewhere = scene.dir.path().join("elsewhere");
            fs::rename(&scene.leftover.journal, &elsewhere).expect("rename");
            symlink(&elsewhere, &scene.leftover.journal).expect("link");
        });
    }
}

#[test]
fn a_damaged_part_file_costs_the_chunks_that_are_damaged() {
    for way in BOTH_WAYS {
        let killed = Killed::by(way);
        for (chunk, within) in [(0, 0), (3, 12_345), (CLAIMS - 1, CHUNK_BYTES - 1)] {
            killed.expect_reused(&format!("a bit of chunk {chunk}"), CLAIMS - 1, |scene| {
                scene.flip_in_part(chunk * CHUNK_BYTES + within);
            });
        }
        killed.expect_reused("two bits of two chunks", CLAIMS - 2, |scene| {
            scene.flip_in_part(CHUNK_BYTES);
            scene.flip_in_part(5 * CHUNK_BYTES + 1);
        });
        for (bytes, reused) in [(0, 0), (CHUNK_BYTES - 1, 0), (CHUNK_BYTES, 1), (3 * CHUNK_BYTES + 1, 3)] {
            killed.expect_reused(&format!("cut to {bytes}"), reused, |scene| scene.set_part_len(bytes));
        }
        for bytes in [7 * CHUNK_BYTES + 1, FILE_BYTES - 1, FILE_BYTES, FILE_BYTES + 1, 3 * FILE_BYTES] {
            killed.expect_reused(&format!("extended to {bytes}"), CLAIMS, |scene| scene.set_part_len(bytes));
        }
    }
}

#[test]
fn a_part_file_that_is_no_file_of_ours_is_left_alone() {
    for way in BOTH_WAYS {
        let killed = Killed::by(way);
        type Replace = fn(&Path, &Path);
        let kinds: [(&str, Replace); 3] = [("nothing", |_, _| {}), ("a link", soft_link), ("a hard link", hard_link)];
        for (what, replace) in kinds {
            killed.expect_reused(what, 0, |scene| scene.replace_part(replace));
            // With a journal that was made for it.
            killed.expect_reused(&format!("{what}, and the journal knows it"), 0, |scene| {
                scene.replace_part(replace);
                let Ok(stat) = fs::metadata(&scene.leftover.part) else { return };
                scene.write_journal(|journal| journal.head.inode = stat.ino());
            });
        }
        killed.expect_reused("a copy of it", 0, |scene| {
            let copy = scene.dir.path().join("copy of it");
            fs::copy(&scene.leftover.part, &copy).expect("copy");
            fs::rename(copy, &scene.leftover.part).expect("rename");
        });
        killed.expect_reused("a second name", 0, |scene| {
            fs::hard_link(&scene.leftover.part, scene.dir.path().join("second name")).expect("link");
        });
    }
}

#[test]
fn a_directory_in_the_way_is_said_and_nothing_else_suffers() {
    for way in BOTH_WAYS {
        let killed = Killed::by(way);
        for (what, damage) in [
            ("a journal", (|scene: &Scene| scene.replace_journal(directory)) as fn(&Scene)),
            ("a part file", |scene| scene.replace_part(directory)),
        ] {
            let scene = killed.damaged(damage);
            let run = killed.rerun(&scene);
            match run.code {
                Some(0) => assert_same(&killed.stage.source, &scene.copy),
                Some(23) => assert!(!scene.copy.join("file").exists() && !run.paths_of("failed").is_empty(), "{what}"),
                other => panic!("{what}: {other:?} {}", run.stderr),
            }
        }
    }
}

/// What a mark may say, beside the truth.
fn false_marks(scene: &Scene) -> Vec<(&'static str, Mark)> {
    let ctime = scene.leftover.ctime();
    let boot = boot_id();
    vec![
        ("of another boot", Mark { boot: boot ^ 1, ctime }),
        ("of no boot", Mark { boot: 0, ctime }),
        ("of another second", Mark { boot, ctime: (ctime.0 - 1, ctime.1) }),
        ("of another nanosecond", Mark { boot, ctime: (ctime.0, (ctime.1 + 1) % 1_000_000_000) }),
        ("of no lawful time", Mark { boot, ctime: (ctime.0, u32::MAX) }),
    ]
}

#[test]
fn claims_behind_a_false_mark_are_read_before_they_count() {
    for way in BOTH_WAYS {
        let killed = Killed::by(way);
        for nth in 0..5 {
            let damage = |scene: &Scene| {
                scene.flip_in_part(2 * CHUNK_BYTES + 9);
                let (_, mark) = false_marks(scene)[nth];
                scene.write_journal(|journal| journal.records.push(Record::Mark(mark)));
            };
            killed.expect_reused(&format!("mark {nth}"), CLAIMS - 1, damage);
        }
        killed.expect_reused("a range after the mark", CLAIMS - 1, |scene| {
            scene.flip_in_part(2 * CHUNK_BYTES + 9);
            let mark = Record::Mark(Mark { boot: boot_id(), ctime: scene.leftover.ctime() });
            let last = CLAIMS as usize - 1;
            scene.write_journal(|journal| journal.records.insert(last, mark));
        });
    }
}

#[test]
fn a_true_mark_is_believed() {
    for way in BOTH_WAYS {
        let killed = Killed::by(way);
        killed.expect_reused("a mark", CLAIMS, |scene| {
            let mark = Record::Mark(Mark { boot: boot_id(), ctime: scene.leftover.ctime() });
            scene.write_journal(|journal| journal.records.push(mark));
        });
    }
}

#[test]
fn a_wrong_claim_behind_a_true_mark_is_found_by_the_confirmation() {
    if is_everywhere("no-proc") {
        return say_skipped("without /proc a journal has no mark");
    }
    for way in BOTH_WAYS {
        let killed = Killed::by(way);
        let scene = killed.damaged(|scene| {
            let mark = Record::Mark(Mark { boot: boot_id(), ctime: scene.leftover.ctime() });
            scene.write_journal(|journal| {
                let Record::Range(claim) = &mut journal.records[3] else { panic!("a range") };
                claim.crc ^= 1;
                journal.records.push(mark);
            });
        });
        // The confirmation finds it, and the file is fetched once more, whole.
        let run = killed.rerun(&scene).expect_exit(0);
        run.expect_counts(&[("bytes_fetched", 2 * FILE_BYTES - CLAIMS * CHUNK_BYTES), ("files_committed", 1)]);
        killed.expect_whole("a wrong claim", &scene);
    }
}
