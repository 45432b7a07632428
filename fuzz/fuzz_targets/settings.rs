//! Any bytes as what a receiver is told to do.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fastcp_engine::fuzzing::settings(bytes));
