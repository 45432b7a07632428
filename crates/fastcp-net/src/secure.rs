//! Who is at the other end, and that nobody in between can read or change what is said.
//!
//! A protected connection is TLS 1.3. The server shows a raw public key (RFC 7250) whose [`Fingerprint`] the client
//! knows, or a certificate. Where a server asks for one, the client proves a [`Token`] against the exporter of that
//! very connection, in a frame that comes before all others, and the server proves the same token back: what is proven
//! on one connection is worth nothing on another, so whoever ends TLS in the middle can pass on neither.
//!
//! - [`Gate`]: what a server asks of whoever connects.
//! - [`Trust`]: what a client asks of the server that it dials, and what it proves.
//! - `handshake.rs` drives rustls until both ends have keys; from then on `channel.rs` protects records with them.
//!
//! Tokens and keys are never logged, nor shown by `Debug`.

mod channel;
mod fingerprint;
mod gate;
mod handshake;
mod identity;
mod token;
mod trust;

pub(crate) use channel::{Channel, ChannelError};
pub use fingerprint::Fingerprint;
pub use gate::{Gate, OneTime};
pub(crate) use handshake::{Line, Protected, shake};
pub use identity::{CertificateError, Identity};
pub(crate) use token::Exporter;
pub use token::{Token, TokenError, Tokens};
pub use trust::{Authorities, Trust};

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};

/// Why a connection is not protected as it has to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// The server has another key than the one that is known.
    #[error(
        "THE SERVER'S KEY IS NOT THE ONE THAT IS KNOWN. Either somebody is between you and the server, or it was given a new key.\n  \
         known: {known} ({place})\n  shown: {shown}\nAsk who runs it. If the new key is right, put it in place of the known one."
    )]
    OtherKey {
        /// What is known.
        known: Fingerprint,
        /// What it shows.
        shown: Fingerprint,
        /// Where the known one is written.
        place: String,
    },
    /// Nothing is known of the server by which its key could be told from another's.
    #[error(
        "the server's key is not known here. It shows {0}; if fastcp-server printed the same, put it behind the address: #{0}"
    )]
    UnknownKey(Fingerprint),
    /// The server does not know the token: it is another one, or somebody is in between.
    #[error("the server cannot prove that it knows the token")]
    Unproven,
    /// The peer does not speak TLS.
    #[error("the server does not speak TLS: it runs without protection, or is none of fastcp; --insecure goes without")]
    NotTls,
    /// The handshake failed.
    #[error("TLS: {0}")]
    Handshake(String),
    /// Records that are wrong, or damaged on the way.
    #[error("TLS: {0}")]
    Record(&'static str),
}

/// What is used of cryptography. AES-128-GCM comes first: it is the fastest where the processor has instructions for it.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![
        aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
        aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
        aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(provider)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
