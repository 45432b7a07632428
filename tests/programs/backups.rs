//! A backup directory below the destination: what is kept there stays, whatever the source has under its name, and
//! later runs know it.

use std::fs;

use crate::support::client::{Client, Run, contents};
use crate::support::copied::Copied;
use crate::support::tree::plain;
use crate::support::way::BOTH_WAYS;

fn verify(copied: &Copied) -> Run {
    Client::verify(&copied.copy, contents(&copied.source)).run()
}

fn changed(copied: &Copied, bytes: &[u8]) {
    fs::write(copied.source.join("noise"), bytes).expect("write");
}

#[test]
fn what_the_source_has_under_its_name_is_left_out_and_that_is_told() {
    for way in BOTH_WAYS {
        for (nth, is_dir) in [false, true].into_iter().enumerate() {
            let copied = Copied::by(way, plain);
            let old = fs::read(copied.copy.join("noise")).expect("read");
            changed(&copied, b"changed");
            if is_dir {
                fs::create_dir(copied.source.join("bak")).expect("create");
                fs::write(copied.source.join("bak/noise"), b"of the source").expect("write");
            } else {
                fs::write(copied.source.join("bak"), b"of the source").expect("write");
            }
            for delete in ["", "--delete"] {
                let run = copied.run(&format!("--backup-dir bak {delete}")).expect_exit(23);
                assert_eq!(run.paths_of("failed"), ["bak"], "{nth} {delete}");
                assert!(run.stderr.contains("backup") || run.lines.join("").contains("backup"), "{}", run.stderr);
                assert_eq!(fs::read(copied.copy.join("noise")).expect("read"), b"changed");
                assert_eq!(fs::read(copied.copy.join("bak/noise")).expect("the backup"), old);
            }
            let dry = copied.run("--backup-dir bak --dry-run").expect_exit(23);
            assert_eq!(dry.paths_of("failed"), ["bak"]);
        }
    }
}

#[test]
fn later_runs_neither_delete_nor_miss_it() {
    for way in BOTH_WAYS {
        for (dir, top) in [("bak", "bak"), ("old/today", "old")] {
            let copied = Copied::by(way, plain);
            let old = fs::read(copied.copy.join("noise")).expect("read");
            changed(&copied, b"changed");
            copied.run(&format!("--backup-dir {dir}")).expect_exit(0).expect_counts(&[("files_committed", 1)]);
            verify(&copied).expect_differences(&[]);
            copied.run("--delete").expect_exit(0).expect_counts(&[("deleted", 0)]);
            copied.run("--delete --backup-dir elsewhere").expect_exit(0).expect_counts(&[("deleted", 0)]);
            let kept = copied.copy.join(dir).join("noise");
            assert_eq!(fs::read(&kept).expect("the backup"), old);
            // Also without the option the source's entry of that name is not mixed with backups.
            fs::create_dir_all(copied.source.join(dir)).expect("create");
            fs::write(copied.source.join(dir).join("noise"), b"of the source").expect("write");
            let run = copied.run("").expect_exit(23);
            assert_eq!(run.paths_of("failed"), [dir]);
            assert_eq!(fs::read(&kept).expect("the backup"), old);
            // When it has been moved away, it is a name like any other.
            fs::remove_dir_all(copied.copy.join(top)).expect("remove");
            copied.run("").expect_exit(0);
            assert_eq!(fs::read(&kept).expect("the source's"), b"of the source");
            verify(&copied).expect_differences(&[]);
        }
    }
}

/// The one who fills the backup directory may be somebody else, and make it as deep as he likes.
#[test]
fn an_older_backup_of_any_depth_makes_way() {
    for gone in [false, true] {
        let copied = Copied::of(plain);
        let old = fs::read(copied.copy.join("noise")).expect("read");
        fs::create_dir_all(copied.workspace.at("bak/noise").join("d/".repeat(1900))).expect("create");
        if gone {
            fs::remove_file(copied.source.join("noise")).expect("remove");
        } else {
            changed(&copied, b"changed");
        }
        let backups = format!("--delete --backup-dir {}", copied.workspace.at("bak").display());
        Client::pull(contents(&copied.source), &copied.copy)
            .options(&backups)
            .under(&["prlimit", "--nofile=128"])
            .run()
            .expect_exit(0);
        assert_eq!(fs::read(copied.workspace.at("bak/noise")).expect("the backup"), old);
    }
}
