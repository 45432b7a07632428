//! Copies one local directory into another: `cargo run -p fastcp-engine --example embed -- FROM INTO`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is a program")]

use std::error::Error;
use std::sync::{Arc, mpsc::sync_channel};

use fastcp_engine::{Dialer, Pull, Report, Server, ServerSettings, Source};

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    let [from, into] = &words[..] else { return Err("expected FROM INTO".into()) };
    let (events, told) = sync_channel(16);
    let report = Report::new(events);
    std::thread::spawn(move || told.iter().for_each(|event| eprintln!("{event:?}")));
    let server = Arc::new(Server::new(Source::open(from.as_ref())?, ServerSettings::default()));
    let dialer = Dialer::new(server.embedded(), Arc::clone(&report.wire));
    Pull::new(&dialer, into).run(&report)?;
    println!("{} files copied", report.counters.files_committed.now());
    Ok(())
}
