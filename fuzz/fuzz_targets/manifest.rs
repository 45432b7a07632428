//! Any bytes as a manifest. A record reads as it was written, a damaged line costs no more than itself, and what a run
//! appends is found.

#![no_main]

use std::sync::LazyLock;

use tempfile::TempDir;

static DIR: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("temporary directory"));

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fastcp_engine::fuzzing::manifest(DIR.path(), bytes));
