//! From an address to a session: listening, dialling, greeting.
//!
//! - [`Connection`]: one TCP stream, with its peer's name, its timeouts and its byte counts.
//! - [`Inbox`]: what has arrived on one, taken with few calls.
//! - [`Dialer`] and [`Backoff`]: how a client gets one, over the network or to a server embedded in
//!   its own process.
//! - [`Live`]: the connections of one run, which can be ended together.
//! - [`ConnectionSource`]: what gives a receiver its connections, whoever dialled: a [`Dialer`], [`Replicas`] of
//!   one tree, or [`Callers`] where the peer did.
//! - [`Gate`] and [`Trust`]: what a server asks of whoever connects, and a client of the server that it dials.
//! - [`Tunnel`] and [`Far`]: several connections over one stream, and a server that is at its other end.
//! - [`greet`]: the server's first look at a connection, and which dialect it chose.
//! - [`Session`] and [`Sessions`]: what both sides agreed on, and the tickets that tie data
//!   connections to it.
//!
//! After the handshake nothing here knows or cares who sends and who receives.

mod backoff;
mod bounds;
mod callers;
mod connection;
mod dial;
mod error;
mod far;
mod foreign;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod greet;
mod inbox;
mod listen;
mod live;
mod replicas;
mod secure;
mod session;
mod sessions;
mod source;
mod tunnel;
mod wire_count;

pub use backoff::{BACKOFF_MAX, Backoff};
pub use bounds::{Bound, Bounds};
pub use callers::{Called, Callers};
pub use connection::{Connection, Incoming, SpliceFailure};
pub use dial::{Dialer, Endpoint, Hear};
pub use error::{NetError, RemoteProblem};
pub use far::{Explain, Far};
pub use fastcp_sys::resolve::addresses;
pub use foreign::Foreign;
pub use greet::{Greeting, HANDSHAKE_TIMEOUT, greet, greet_again};
pub use inbox::Inbox;
pub use listen::{
    Accepted, Admission, CONNECTIONS_PER_PEER_MAX, CONNECTIONS_TOTAL_MAX, ConnectionLimits, Listener, TURNED_AWAY_MAX,
};
pub use live::Live;
pub use replicas::{Replicas, SOURCES_MAX};
pub use secure::{
    Authorities, CertificateError, Fingerprint, Gate, Identity, OneTime, TlsError, Token, TokenError, Tokens, Trust,
    WRONG_TOKENS_MAX,
};
pub use session::{Agreed, AttachRight, Session, Terms};
pub use sessions::{Attached, Full, IDLE_MAX, Lanes, SessionGuard, Sessions};
pub use source::{Ahead, Attachment, Attempt, Choice, ConnectionSource, DataConnection};
pub use tunnel::{End, TakeLane, Tunnel};
pub use wire_count::WireCount;
