//! Peers that speak another protocol, told by the first bytes of what they say.
//!
//! A wrong port is a common mistake, and "unknown frame type 0x4854" a poor answer to it.

use std::fmt;

/// What a peer speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// A web server.
    Http,
    /// An ssh server greets first.
    Ssh,
    /// A TLS alert: the peer takes what it was told for a broken handshake.
    Tls,
    /// An rsync daemon greets first.
    Rsync,
    /// A mail or file server greets first.
    FtpOrSmtp,
    /// A server that knows plain requests only.
    PlainFtq1,
}

impl Foreign {
    /// What these first bytes belong to, if it is known and not fastcp.
    pub fn of(first: [u8; 4]) -> Option<Self> {
        match &first {
            b"HTTP" => Some(Self::Http),
            b"SSH-" => Some(Self::Ssh),
            b"@RSY" => Some(Self::Rsync),
            b"220 " | b"220-" => Some(Self::FtpOrSmtp),
            [0x15, 3, ..] => Some(Self::Tls),
            _ => None,
        }
    }
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "HTTP, not fastcp",
            Self::Ssh => "SSH, not fastcp",
            Self::Tls => "TLS, not fastcp",
            Self::Rsync => "the protocol of the rsync daemon, not fastcp",
            Self::FtpOrSmtp => "FTP or SMTP, not fastcp",
            Self::PlainFtq1 => "plain FTQ1 only; use get to fetch single files from it",
        })
    }
}
