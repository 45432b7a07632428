//! What the programs promise, tried on the programs themselves.
//!
//! One test program: `cargo test --test programs`, or `cargo test --test programs trees::` for one module of it. All
//! tests may run at once and in any order.

mod support;

mod addresses;
mod also;
mod as_found;
mod backups;
mod bad_input;
mod bundle_lies;
mod coarse_times;
mod crash;
mod damage;
mod deletes;
mod deletion_lies;
mod delta;
mod delta_faults;
mod delta_lies;
mod display;
mod drops;
mod dry_run;
mod faults;
mod get;
mod holes;
mod in_place;
mod kills;
mod lies;
mod limits;
mod list;
mod manifest;
mod mounts_below;
mod moving;
mod no_proc;
mod options;
mod output;
mod outside;
mod plain;
mod proof;
mod push;
mod push_faults;
mod push_places;
mod push_refusals;
mod read_back;
mod receiver_lies;
mod reconnect;
mod replicas;
mod report_lies;
mod rerun;
mod resume;
mod retry;
mod room;
mod sessions;
mod several;
mod shared_places;
mod signatures;
mod slow_answers;
mod steps;
mod trees;
mod trouble;
mod typed_paths;
mod unproven;
mod verify;
mod verify_lies;
mod volumes;
mod wakeups;
