//! What is said over the standard input and output of `fastcp-server --session` before lanes are opened.
//!
//! The client sends [`Opening`] as a frame and goes on at once; the server prints [`MARK`] on a line of its own, behind
//! whatever a login prints, and answers with [`Opened`] or a failure.

use crate::WireError;
use crate::limits::{SESSION_ADDRESS_BYTES_MAX, SESSION_PATH_BYTES_MAX, SESSION_TOKEN_BYTES_MAX};
use crate::reader::{Reader, put_short_bytes};

/// The line behind which the server speaks, with the line's end before it: a login may have left one open.
pub const MARK: &[u8] = b"\nfastcp-session 1\n";

/// The version that the mark says.
pub const MARK_VERSION: u32 = 1;

/// The version of sessions that a line says, if it is the mark of one.
pub fn version_of(line: &[u8]) -> Option<u32> {
    let digits = line.strip_prefix(b"fastcp-session ")?;
    let is_number = digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| is_number)?.parse().ok()
}

/// What the session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    /// The client fetches.
    Pull = 0,
    /// The client sends.
    Push = 1,
}

/// What a client opens a session with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// What it is for.
    pub purpose: Purpose,
    /// The directory to serve, or what is to be written to: as it was typed, relative to the home directory.
    pub path: Vec<u8>,
}

impl Opening {
    /// The payload of a [`crate::frame::FrameType::SessionOpen`] frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.purpose as u8];
        put_short_bytes(&mut out, &self.path);
        out
    }

    /// Decodes the payload.
    ///
    /// # Errors
    /// A field out of bounds.
    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(payload);
        let purpose = match reader.u8()? {
            0 => Purpose::Pull,
            1 => Purpose::Push,
            other => return Err(WireError::Value { field: "purpose", value: other.into() }),
        };
        let path = reader.short_bytes("path_len", SESSION_PATH_BYTES_MAX)?.to_vec();
        reader.finish()?;
        Ok(Self { purpose, path })
    }
}

/// The server's answer.
#[derive(Clone, PartialEq, Eq)]
pub struct Opened {
    /// What is to be written to, below what is served; empty for all of it and for a pull.
    pub into: Vec<u8>,
    /// Where the server takes connections that do not go through the session, if it does.
    pub direct: Option<Direct>,
}

/// Where a server takes connections, and what they need.
#[derive(Clone, PartialEq, Eq)]
pub struct Direct {
    /// The address, as the server knows itself: IP and port.
    pub address: Vec<u8>,
    /// The fingerprint of its key, as it is written.
    pub key: Vec<u8>,
    /// The session's token.
    pub token: Vec<u8>,
}

impl Opened {
    /// The payload of a [`crate::frame::FrameType::SessionOpened`] frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_short_bytes(&mut out, &self.into);
        let nothing = Direct { address: Vec::new(), key: Vec::new(), token: Vec::new() };
        let direct = self.direct.as_ref().unwrap_or(&nothing);
        for field in [&direct.address, &direct.key, &direct.token] {
            put_short_bytes(&mut out, field);
        }
        out
    }

    /// Decodes the payload.
    ///
    /// # Errors
    /// A field out of bounds.
    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(payload);
        let into = reader.short_bytes("into_len", SESSION_PATH_BYTES_MAX)?.to_vec();
        let address = reader.short_bytes("address_len", SESSION_ADDRESS_BYTES_MAX)?.to_vec();
        let key = reader.short_bytes("key_len", SESSION_ADDRESS_BYTES_MAX)?.to_vec();
        let token = reader.short_bytes("token_len", SESSION_TOKEN_BYTES_MAX)?.to_vec();
        reader.finish()?;
        let direct = (!address.is_empty()).then_some(Direct { address, key, token });
        Ok(Self { into, direct })
    }
}

impl std::fmt::Debug for Direct {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Direct(..)")
    }
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("direct", &self.direct).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::{Direct, MARK, MARK_VERSION, Opened, Opening, Purpose, version_of};

    #[test]
    fn the_mark_says_its_version() {
        assert_eq!(version_of(&MARK[1..MARK.len() - 1]), Some(MARK_VERSION));
        assert_eq!(version_of(b"fastcp-session 27"), Some(27));
        for line in
            ["fastcp-session 1\r", "fastcp-session ", "fastcp-session +1", " fastcp-session 1", "fastcp-session 1 "]
        {
            assert_eq!(version_of(line.as_bytes()), None, "{line:?}");
        }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let opening = Opening { purpose: Purpose::Push, path: b"/a b".to_vec() };
        assert_eq!(Opening::decode(&opening.encode()), Ok(opening.clone()));
        assert!(Opening::decode(&[2, 0, 0]).is_err() && Opening::decode(&[0, 0, 0, 0]).is_err());
        let direct = Direct { address: b"[::1]:7".to_vec(), key: b"sha256:".to_vec(), token: b"secret".to_vec() };
        for direct in [Some(direct), None] {
            let opened = Opened { into: b"x/y".to_vec(), direct };
            assert!(Opened::decode(&opened.encode()) == Ok(opened.clone()));
            assert!(!format!("{opened:?}").contains("secret"));
        }
    }
}
