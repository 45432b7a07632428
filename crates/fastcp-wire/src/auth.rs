//! Proofs that both ends know a token: the first frames on a connection that is protected by TLS.
//!
//! What a proof is made of is not seen here; `fastcp-net` has it.

use crate::WireError;
use crate::reader::Reader;

/// Bytes of a proof: those of HMAC-SHA256.
pub const PROOF_BYTES: usize = 32;
/// Bytes of the number that the connections of a client's run have in common.
pub const RUN_BYTES: usize = 16;

/// The client's proof.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Auth {
    /// The run that the connection belongs to: random, the same on all of its connections.
    pub run: [u8; RUN_BYTES],
    /// The proof.
    pub proof: [u8; PROOF_BYTES],
}

impl Auth {
    /// The payload of a [`crate::frame::FrameType::Auth`] frame.
    pub fn encode(&self) -> Vec<u8> {
        [&self.run[..], &self.proof].concat()
    }

    /// Decodes the payload.
    ///
    /// # Errors
    /// Another length.
    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(payload);
        let auth = Self { run: reader.array()?, proof: reader.array()? };
        reader.finish()?;
        Ok(auth)
    }
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Auth(..)")
    }
}

/// The server's proof, which is another one: of the same token and connection, by the other end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AuthReply {
    /// The proof.
    pub proof: [u8; PROOF_BYTES],
}

impl AuthReply {
    /// The payload of a [`crate::frame::FrameType::AuthReply`] frame.
    pub fn encode(&self) -> Vec<u8> {
        self.proof.to_vec()
    }

    /// Decodes the payload.
    ///
    /// # Errors
    /// Another length.
    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(payload);
        let reply = Self { proof: reader.array()? };
        reader.finish()?;
        Ok(reply)
    }
}

impl std::fmt::Debug for AuthReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AuthReply(..)")
    }
}
