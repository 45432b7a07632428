//! Bytes to messages and back, for everything that fastcp says on a connection.
//!
//! Pure: no socket, no clock, no file. Every decoder takes a slice and answers with a message, or
//! with the rule that the bytes break; a length is compared with its named limit before anything is
//! allocated by it. `docs/protocol.md` is the specification; tests compare its tables with this crate.
//!
//! - [`auth`]: that both ends know a token.
//! - [`request`] and [`reply`]: FTQ1 and FTR1, plain and extended: what data connections speak.
//! - [`bundle`]: many small files in one request.
//! - [`frame`]: the envelope of the control dialect.
//! - [`filter_rules`]: what of a tree takes part.
//! - [`hello`]: who is there, what both can do, and the ticket for data connections.
//! - [`known`]: batches of an offer that need not be sent again.
//! - [`offer`]: the sender's tree, directory by directory; [`unlisted`]: how far listings lag behind names.
//! - [`mod@drop`]: a file that a script hands over.
//! - [`session`]: a session over a remote shell.
//! - [`push`] and [`report`]: what a sender that dials asks for, and what it is told.

pub mod auth;
pub mod bundle;
pub mod drop;
pub mod filter_rules;
pub mod frame;
pub mod hello;
pub mod known;
pub mod limits;
pub mod offer;
pub mod progress;
pub mod push;
pub mod reply;
pub mod report;
pub mod request;
pub mod session;
pub mod signature;
pub mod unlisted;

mod error;
mod reader;

pub use error::WireError;
