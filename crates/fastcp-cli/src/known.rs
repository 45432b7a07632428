//! The keys of servers that were proven before: `known_servers`.
//!
//! A line has the server's address and its key: `host:port sha256:...`. Whoever connects for the first time with a key in the
//! address, or with a token that the server proves, adds a line.

use std::io;

use fastcp_net::Fingerprint;

use crate::exit_code::{self, Failure};
use crate::kept;

const FILE_NAME: &str = "known_servers";

/// The key that is known of a server, and where it says so.
pub(crate) fn find(server: &str) -> Result<Option<(Fingerprint, String)>, Failure> {
    let Some((key, place)) = kept::find(FILE_NAME, |line| key_of(line, server).map(str::to_owned))? else {
        return Ok(None);
    };
    match key.parse() {
        Ok(key) => Ok(Some((key, place))),
        Err(error) => Err(Failure::new(exit_code::USAGE, format!("{place}: {error}"))),
    }
}

/// Keeps a key in place of any that was known.
pub(crate) fn remember(server: &str, key: Fingerprint) -> io::Result<()> {
    kept::replace(FILE_NAME, |line| key_of(line, server).is_some(), Some(&format!("{server} {key}")))
}

/// The key that a line has for a server.
fn key_of<'a>(line: &'a str, server: &str) -> Option<&'a str> {
    let (name, key) = line.trim().split_once(char::is_whitespace)?;
    name.eq_ignore_ascii_case(server).then(|| key.trim())
}

#[cfg(test)]
mod tests {
    use super::key_of;

    #[test]
    fn lines() {
        assert_eq!(key_of("host:9999  sha256:00 ", "host:9999"), Some("sha256:00"));
        assert_eq!(key_of("HOST:9999 sha256:00", "host:9999"), Some("sha256:00"));
        for line in ["# host:9999 sha256:00", "", "host:9999", "host:999 sha256:00", "[::1]:9999 sha256:00"] {
            assert_eq!(key_of(line, "host:9999"), None, "{line}");
        }
    }
}
