//! What can go wrong between two ends.

use std::fmt;
use std::io;
use std::time::Duration;

use fastcp_model::{Escaped, Status};
use fastcp_sys::resolve::ResolveError;
use fastcp_sys::scarce::is_exhaustion;
use fastcp_wire::WireError;
use fastcp_wire::hello::Failure;

use crate::{Foreign, TlsError};

/// A connection that could not be made, or did not last.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// No address, or nobody there.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Host and port as dialled.
        address: String,
        /// The last address's failure.
        source: io::Error,
    },
    /// The host has no address, or none that could be found out.
    #[error("cannot find \"{host}\": {source}")]
    Lookup {
        /// The name.
        host: String,
        /// What the resolver says.
        source: ResolveError,
    },
    /// The peer closed the connection in the middle of a message.
    #[error("connection closed by the peer")]
    Closed,
    /// The peer was silent for too long.
    #[error("nothing received for {}", Seconds(*.0))]
    TimedOut(Duration),
    /// The socket failed.
    #[error("connection failed: {0}")]
    Socket(#[source] io::Error),
    /// The peer broke the protocol.
    #[error("protocol error: {0}")]
    Protocol(#[from] WireError),
    /// The peer's FTQ1 request is malformed.
    #[error("malformed request: {0}")]
    Request(#[source] WireError),
    /// The peer's offer makes no sense as a whole.
    #[error("protocol error: invalid offer: {0}")]
    Offer(&'static str),
    /// A frame that has no place here.
    #[error("protocol error: unexpected frame {0:?}")]
    UnexpectedFrame(fastcp_wire::frame::FrameType),
    /// Another kind of server answers.
    #[error("the peer speaks {0}")]
    Foreign(Foreign),
    /// The first bytes belong to no dialect.
    #[error("the peer does not speak the fastcp protocol (first bytes {0:02x?})")]
    UnknownDialect([u8; 4]),
    /// The connection is not protected as it has to be.
    #[error("{0}")]
    Tls(#[from] TlsError),
    /// The server that a remote shell was to start is not there, or no longer.
    #[error("{detail}")]
    Remote {
        /// What it is.
        problem: RemoteProblem,
        /// In words.
        detail: String,
    },
    /// The peer said no.
    #[error("refused by the peer: {0}")]
    Refused(Status),
    /// The peer said no, and why in words of its own.
    #[error("refused by the peer: {}", Escaped(detail.as_bytes()))]
    Denied {
        /// What it is.
        status: Status,
        /// The words.
        detail: String,
    },
}

/// What can be wrong with a server that a remote shell is to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteProblem {
    /// The shell did not get there.
    NoLogin,
    /// The program is not there, or another version of it.
    NoProgram,
    /// The place is not there, or cannot be used.
    NoPlace,
    /// It was there, and ended.
    Ended,
}

impl From<Failure> for NetError {
    fn from(Failure { status, detail }: Failure) -> Self {
        if detail.is_empty() { Self::Refused(status) } else { Self::Denied { status, detail } }
    }
}

impl NetError {
    /// Whether one end has too little left for one more connection: descriptors, threads or memory.
    pub fn is_shortage(&self) -> bool {
        match self {
            Self::Refused(status) => matches!(status, Status::Busy | Status::TooManyConnections),
            Self::Connect { source, .. } | Self::Socket(source) => {
                is_exhaustion(source) || source.kind() == io::ErrorKind::WouldBlock
            }
            _ => false,
        }
    }

    /// Whether a new connection may fare better. Bytes that were damaged on the way count; a message that
    /// is wrong in itself does not, and neither do a name that does not exist and an address that nobody can have.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { source, .. } => !is_of_the_address(source),
            Self::Lookup { source, .. } => matches!(source, ResolveError::NoAnswer | ResolveError::System(_)),
            Self::Closed
            | Self::TimedOut(_)
            | Self::Socket(_)
            | Self::Refused(Status::Busy | Status::TooManyConnections)
            | Self::Protocol(WireError::Checksum(_))
            | Self::Tls(TlsError::Record(_)) => true,
            _ => false,
        }
    }

    /// What is the matter, in few words, where it is said elsewhere with whom.
    pub fn reason(&self) -> String {
        match self {
            Self::Connect { source, .. } if source.raw_os_error().is_some() => source.kind().to_string(),
            Self::Connect { source, .. } => source.to_string(),
            Self::Lookup { source, .. } => source.to_string(),
            Self::Refused(status) => status.to_string(),
            Self::Denied { detail, .. } => Escaped(detail.as_bytes()).to_string(),
            other => other.to_string(),
        }
    }
}

/// A duration in words, to the nearest second.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs_f64().round() {
            0.0 => f.write_str("less than a second"),
            1.0 => f.write_str("1 second"),
            seconds => write!(f, "{seconds} seconds"),
        }
    }
}

/// A broadcast address, or one of a family that this machine does not have: no wait helps.
fn is_of_the_address(error: &io::Error) -> bool {
    const EACCES: i32 = 13;
    const EINVAL: i32 = 22;
    const EAFNOSUPPORT: i32 = 97;
    matches!(error.raw_os_error(), Some(EACCES | EINVAL | EAFNOSUPPORT))
}

#[cfg(test)]
mod tests {
    use std::io;

    use fastcp_sys::resolve::ResolveError;

    use super::NetError;
    use crate::Foreign;

    #[test]
    fn what_no_wait_helps_is_not_waited_for() {
        let connect = |errno| NetError::Connect { address: String::new(), source: io::Error::from_raw_os_error(errno) };
        let lookup = |source| NetError::Lookup { host: String::new(), source };
        for (error, is_transient) in [
            (connect(111), true),
            (connect(110), true),
            (connect(113), true),
            (connect(13), false),
            (connect(97), false),
            (lookup(ResolveError::NoAnswer), true),
            (lookup(ResolveError::Unknown), false),
            (lookup(ResolveError::Failed(-4)), false),
            (NetError::Foreign(Foreign::Http), false),
        ] {
            assert_eq!(error.is_transient(), is_transient, "{error}");
        }
        assert_eq!(connect(111).reason(), "connection refused");
    }
}
