//! What can be wrong with a peer's bytes.

use fastcp_model::PathError;

/// The rule that received bytes break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes end before the message does.
    #[error("message is truncated")]
    Truncated,
    /// Bytes are left over after the message.
    #[error("message is {0} bytes too long")]
    TrailingBytes(usize),
    /// The first four bytes are not the expected magic.
    #[error("wrong magic {0:08x}")]
    Magic(u32),
    /// A length or count above its limit.
    #[error("{field} is {value}, more than {max}")]
    TooLong {
        /// The field, as `docs/protocol.md` names it.
        field: &'static str,
        /// What was received.
        value: u64,
        /// The limit.
        max: u64,
    },
    /// The checksum does not match the bytes.
    #[error("checksum mismatch in {0}")]
    Checksum(&'static str),
    /// A frame type that is not known.
    #[error("unknown frame type {0:#06x}")]
    UnknownFrame(u16),
    /// A field holds a number without a meaning.
    #[error("{field} has the invalid value {value:#x}")]
    Value {
        /// The field, as `docs/protocol.md` names it.
        field: &'static str,
        /// What was received.
        value: u64,
    },
    /// A path or name that is not lawful.
    #[error("invalid path: {0}")]
    Path(#[from] PathError),
    /// A compressed body that does not decompress to what was said.
    #[error("compressed batch is damaged")]
    Compression,
}
