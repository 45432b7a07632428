//! The command line of fastcp: arguments in, progress and exit codes out.
//!
//! What was typed (`args`) becomes what it means (`from`, `reach`, `overlap`) before anything is opened;
//! [`client`] and [`server`] then run it. `main` of each program only maps the result to an exit code.

pub mod client;
pub mod server;

mod address;
mod args;
mod chatter;
mod copying;
#[cfg(feature = "counts")]
mod counts;
mod course;
mod deploy;
mod drop;
mod events;
mod exit_code;
mod filters;
mod from;
mod get;
mod guard;
mod kept;
mod known;
mod logging;
mod ls;
mod output;
mod overlap;
mod pattern;
mod progress;
mod pull;
mod push;
mod reach;
mod remote;
mod sandbox;
mod screen;
mod secrets;
mod session;
mod setup;
mod shell;
mod signals;
mod sources;
mod stderr;
mod stdout;
mod time;
mod usage;
mod verify;
mod watched;
mod wording;

pub use fastcp_engine::ExitingAllocator;
