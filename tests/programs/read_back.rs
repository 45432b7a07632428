//! `--verify`: a byte goes wrong between the kernel and the disk, after its checksum was taken. Only who
//! reads back what was written can know.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crate::support::client::Run;
use crate::support::compare::assert_same;
use crate::support::lied_to::LiedTo;
use crate::support::lying_sender::Lies;
use crate::support::said::{Offer, file, listing, offer, truth};
use crate::support::tree::{everything, noise};
use crate::support::way::{BOTH_WAYS, Route};
use crate::support::{HANG_TIMEOUT, Workspace};
use fastcp_wire::reply::TRAILER_BYTES;
use fastcp_wire::request::Ask;

/// Where the byte goes wrong.
const WRONG_AT: u64 = 33_333;

/// What the option is, and whether what went wrong is found.
const CASES: [(&str, bool); 4] =
    [("", false), ("--verify received", false), ("--verify written", true), ("--verify disk", true)];

fn one_file(bytes: &[u8]) -> Offer {
    offer(vec![listing("", vec![file("file", bytes)])])
}

fn flip(path: &Path) {
    let file = File::options().read(true).write(true).open(path).expect("open the part file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, WRONG_AT).expect("read");
    file.write_all_at(&[byte[0] ^ 1], WRONG_AT).expect("write");
}

/// Panics unless the fault was found, and the file not committed, exactly where it had to be.
fn expect_found(run: Run, is_found: bool, target: &Path, bytes: &[u8], before: Option<&[u8]>) {
    if is_found {
        let run = run.expect_exit(23).expect_counts(&[("files_failed", 1), ("files_committed", 0)]);
        assert!(run.stderr.contains("CRC-32 mismatch"), "{}", run.stderr);
        assert_eq!(fs::read(target).ok().as_deref(), before, "what was there stays");
    } else {
        run.expect_exit(0).expect_counts(&[("files_committed", 1)]);
        let mut wrong = bytes.to_vec();
        wrong[WRONG_AT as usize] ^= 1;
        assert!(fs::read(target).expect("committed") == wrong, "the fault happened");
    }
}

#[test]
fn a_large_file_that_went_wrong_on_its_way_to_the_disk_is_not_committed() {
    for way in BOTH_WAYS {
        let lied_to = LiedTo::by(way);
        for (options, is_found) in CASES {
            let bytes = Arc::new(noise(3 << 20, 1));
            let copy = lied_to.copy();
            let (parts, sent) = (copy.join(".fastcp/parts"), Arc::clone(&bytes));
            let lies = Lies::new(one_file(&bytes), move |request| {
                if request.ask == Ask::Confirm {
                    // All is written by now, and its CRC known.
                    let mut parts = fs::read_dir(&parts).expect("part files").flatten().map(|entry| entry.path());
                    flip(&parts.find(|path| path.extension().is_none()).expect("one"));
                }
                truth(request, &sent)
            });
            let run = lied_to.hear_at(&copy, lies, &format!("--retry 1 {options}"));
            expect_found(run, is_found, &copy.join("file"), &bytes, None);
            // Nothing is kept that a rerun could go on from.
            assert_eq!(fs::read_dir(copy.join(".fastcp/parts")).expect("part files").count(), 0);
        }
        lied_to.finish();
    }
}

/// The part file of this size that whoever receives has open, whether it has a name or not.
fn open_part(pid: u32, copy: &Path, size: usize) -> PathBuf {
    let start = Instant::now();
    loop {
        for fd in fs::read_dir(format!("/proc/{pid}/fd")).expect("a receiver").flatten() {
            let Ok(path) = fs::read_link(fd.path()) else { continue };
            let name = path.to_string_lossy();
            let is_part = name.ends_with(" (deleted)") || name.contains("/.fastcp/parts/");
            let is_whole = || fs::metadata(fd.path()).is_ok_and(|metadata| metadata.len() == size as u64);
            if path.starts_with(copy) && is_part && is_whole() {
                return fd.path();
            }
        }
        assert!(start.elapsed() < HANG_TIMEOUT, "nobody opens a part file");
        std::thread::yield_now();
    }
}

#[test]
fn a_small_file_that_went_wrong_on_its_way_to_the_disk_is_not_committed() {
    for way in BOTH_WAYS {
        let lied_to = LiedTo::by(way);
        for old in [None, Some(&b"old"[..])] {
            for (options, is_found) in CASES {
                let copy = lied_to.copy();
                if let Some(old) = old {
                    fs::create_dir(&copy).expect("create");
                    fs::write(copy.join("file"), old).expect("write");
                }
                let bytes = Arc::new(noise(50_000, 1));
                let receiver = Arc::new(OnceLock::new());
                let (pid, sent, place) = (Arc::clone(&receiver), Arc::clone(&bytes), copy.clone());
                let lies = Lies::sending_bytes(one_file(&bytes), move |request, stream| {
                    let answer = truth(request, &sent);
                    let (body, trailer) = answer.split_at(answer.len() - TRAILER_BYTES);
                    stream.write_all(body)?;
                    flip(&open_part(*pid.wait(), &place, sent.len()));
                    stream.write_all(trailer)
                });
                let running = lied_to.start(&copy, lies, &format!("--retry 1 {options}"));
                receiver.set(running.receiver_pid()).expect("set once");
                expect_found(running.finish(), is_found, &copy.join("file"), &bytes, old);
            }
        }
        lied_to.finish();
    }
}

#[test]
fn everything_arrives_whatever_is_read_back() {
    let workspace = Workspace::new();
    let source = everything(&workspace.at("source")).finish();
    for way in BOTH_WAYS {
        for options in ["--verify written", "--verify disk", "--verify disk --durability file --receive-path splice"] {
            let copy = workspace.at(&format!("{way:?} {options}"));
            Route::new(way, &source, &workspace).bring(&copy, options).expect_exit(0);
            assert_same(&source, &copy);
        }
    }
}
