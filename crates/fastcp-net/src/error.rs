//! What can go wrong between two ends.

use std::io;

use fastcp_model::Status;
use fastcp_sys::scarce::is_exhaustion;
use fastcp_wire::WireError;

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
    /// The peer closed the connection in the middle of a message.
    #[error("connection closed by the peer")]
    Closed,
    /// The peer was silent for too long.
    #[error("no byte for {0} seconds")]
    TimedOut(u64),
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
    #[error("protocol error: the offer has {0}")]
    Offer(&'static str),
    /// A frame that has no place here.
    #[error("protocol error: unexpected frame {0:?}")]
    UnexpectedFrame(fastcp_wire::frame::FrameType),
    /// The first bytes belong to no dialect.
    #[error("protocol error: first bytes {0:02x?} are of no known dialect")]
    UnknownDialect([u8; 4]),
    /// The peer said no.
    #[error("refused by the peer: {0}")]
    Refused(Status),
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
    /// is wrong in itself does not.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Connect { .. }
                | Self::Closed
                | Self::TimedOut(_)
                | Self::Socket(_)
                | Self::Refused(Status::Busy | Status::TooManyConnections)
                | Self::Protocol(WireError::Checksum(_))
        )
    }
}
