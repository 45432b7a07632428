//! Any bytes as the journal of a part file. What it claims is of its file, it reads as it was written, and damage costs no
//! more than what it touched.

#![no_main]

use std::sync::LazyLock;

use tempfile::TempDir;

static DIR: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("temporary directory"));

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fastcp_engine::fuzzing::journal(DIR.path(), bytes));
