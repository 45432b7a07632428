//! A server that is fed by a client which says what it likes.

#![no_main]

use std::sync::LazyLock;

use tempfile::TempDir;

static DIR: LazyLock<TempDir> = LazyLock::new(|| {
    // How long files may become is limited from outside: then that is an error like all others.
    fastcp_engine::ignore_file_size_signal().expect("ignore a signal");
    tempfile::tempdir().expect("temporary directory")
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fastcp_engine::fuzzing::server(DIR.path(), bytes));
