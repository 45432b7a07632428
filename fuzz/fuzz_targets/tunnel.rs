//! Any bytes from the other end of a tunnel.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fastcp_net::fuzzing::tunnel(bytes));
