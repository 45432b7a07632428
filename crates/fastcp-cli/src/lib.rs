//! The command line of fastcp: arguments in, progress and exit codes out.
//!
//! What was typed (`args`) becomes what it means (`from`, `overlap`) before anything is opened;
//! [`client`] and [`server`] then run it. `main` of each program only maps the result to an exit code.

pub mod client;
pub mod server;

mod address;
mod args;
#[cfg(feature = "counts")]
mod counts;
mod course;
mod events;
mod exit_code;
mod from;
mod get;
mod logging;
mod output;
mod overlap;
mod progress;
mod pull;
mod screen;
mod setup;
mod signals;
mod stderr;
mod stdout;
mod usage;
mod verify;
mod watched;
mod wording;

pub use fastcp_engine::ExitingAllocator;
