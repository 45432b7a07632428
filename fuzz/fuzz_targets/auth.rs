//! Any bytes in place of what either end has to say before it is let in, or listened to.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fastcp_net::fuzzing::auth(bytes));
