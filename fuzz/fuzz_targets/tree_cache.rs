//! Any bytes as the offer that a receiver keeps. Batches are what their names say, and an offer is kept as it came.

#![no_main]

use std::sync::LazyLock;

use tempfile::TempDir;

static DIR: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("temporary directory"));

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fastcp_engine::fuzzing::tree_cache(DIR.path(), bytes));
