//! Hosts and ports as they are typed, the same in every place where one can be typed.
//!
//! A host is a name, an IPv4 address, or an IPv6 address: in brackets, or bare where nothing follows it. `:PORT` may
//! follow the host, and `#sha256:` with the fingerprint of the server's key.

use fastcp_model::DEFAULT_PORT;
use fastcp_net::Fingerprint;

const SCHEME: &str = "fcp://";

/// A host and the port typed with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// Without brackets.
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
}

/// A server to dial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerAddress {
    /// Name or address, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// What its key is known by, where the address says so.
    pub(crate) key: Option<Fingerprint>,
}

/// Why an address means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AddressError {
    #[error("expected HOST[:PORT], with an IPv6 address in brackets")]
    Form,
    #[error("expected a port after the last colon: a number from 1 to 65535")]
    Port,
    #[error("a number alone is a port; expected HOST[:PORT]")]
    Number,
    #[error("expected an IPv4 address of four numbers from 0 to 255")]
    Ipv4,
    #[error("fcp:// takes no user name; write the host alone")]
    User,
    #[error("expected 64 hexadecimal digits after #sha256:")]
    Key,
}

impl Address {
    /// Understands `HOST[:PORT]`, and the same behind `fcp://`. Port 0 is for those who listen.
    pub(crate) fn parse(text: &str) -> Result<Self, AddressError> {
        let text = match text.get(..SCHEME.len()) {
            Some(scheme) if scheme.eq_ignore_ascii_case(SCHEME) => {
                text[SCHEME.len()..].strip_suffix('/').unwrap_or(&text[SCHEME.len()..])
            }
            _ => text,
        };
        if text.contains('@') {
            return Err(AddressError::User);
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(bracketed) => {
                let (host, after) = bracketed.split_once(']').ok_or(AddressError::Form)?;
                let port =
                    if after.is_empty() { None } else { Some(after.strip_prefix(':').ok_or(AddressError::Form)?) };
                (host, port)
            }
            // More than one colon without brackets: an IPv6 address, after which no port can be told apart.
            None if text.matches(':').count() > 1 && text.parse::<std::net::Ipv6Addr>().is_ok() => (text, None),
            None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        };
        if host.is_empty() {
            return Err(AddressError::Form);
        }
        check_numbers(host)?;
        let port = match port {
            // As in other addresses: a colon with nothing after it is the usual port.
            None | Some("") => None,
            Some(port) => Some(parse_port(port)?),
        };
        Ok(Self { host: host.to_owned(), port })
    }

    /// As before, for those who dial.
    pub(crate) fn to_dial(text: &str) -> Result<Self, AddressError> {
        match Self::parse(text)? {
            Self { port: Some(0), .. } => Err(AddressError::Port),
            address => Ok(address),
        }
    }

    /// The address that a word is without any doubt: `HOST:PORT`, with nothing but slashes after it.
    pub(crate) fn with_port(text: &str) -> Option<Self> {
        let bare = text.trim_end_matches('/');
        Self::to_dial(bare).ok().filter(|address| !bare.contains('/') && address.port.is_some())
    }
}

impl ServerAddress {
    /// Understands `HOST[:PORT][#sha256:...]`.
    pub(crate) fn parse(text: &str) -> Result<Self, AddressError> {
        let (rest, key) = split_key(text.as_bytes())?;
        let rest = std::str::from_utf8(&rest).map_err(|_| AddressError::Form)?;
        Ok(Self::new(Address::to_dial(rest)?, key))
    }

    pub(crate) fn new(address: Address, key: Option<Fingerprint>) -> Self {
        Self { host: address.host, port: address.port.unwrap_or(DEFAULT_PORT), key }
    }
}

/// Takes the fingerprint of a key out of an address: it stands at its end, or behind the port.
pub(crate) fn split_key(text: &[u8]) -> Result<(Vec<u8>, Option<Fingerprint>), AddressError> {
    const MARK: &[u8] = b"#sha256:";
    let Some(at) = text.windows(MARK.len()).position(|window| window == MARK) else { return Ok((text.to_vec(), None)) };
    let end = text[at..].iter().position(|&byte| byte == b'/').map_or(text.len(), |slash| at + slash);
    let key = std::str::from_utf8(&text[at + 1..end]).ok().and_then(|key| key.parse().ok());
    let key = key.ok_or(AddressError::Key)?;
    Ok(([&text[..at], &text[end..]].concat(), Some(key)))
}

fn parse_port(text: &str) -> Result<u16, AddressError> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number).ok_or(AddressError::Port)
}

/// Numbers and dots are an IPv4 address or a mistake. The system's resolver would make an address of any of them.
fn check_numbers(host: &str) -> Result<(), AddressError> {
    match host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        true if !host.contains('.') => Err(AddressError::Number),
        true if host.parse::<std::net::Ipv4Addr>().is_err() => Err(AddressError::Ipv4),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Address, AddressError, ServerAddress, split_key};

    #[test]
    fn hosts_and_ports() {
        for (text, host, port) in [
            ("host", "host", None),
            ("host:7", "host", Some(7)),
            ("localhost:", "localhost", None),
            ("10.0.0.1:7", "10.0.0.1", Some(7)),
            ("[::1]", "::1", None),
            ("[::1]:7", "::1", Some(7)),
            ("::1", "::1", None),
            ("fcp://host:7/", "host", Some(7)),
            ("FCP://[::1]", "::1", None),
            ("host:0", "host", Some(0)),
            ("fe80::1:2", "fe80::1:2", None),
        ] {
            assert_eq!(Address::parse(text), Ok(Address { host: host.to_owned(), port }), "{text}");
        }
        for (text, error) in [
            ("", AddressError::Form),
            (":7", AddressError::Form),
            ("[]", AddressError::Form),
            ("[::1", AddressError::Form),
            ("[::1]7", AddressError::Form),
            ("host:port", AddressError::Port),
            ("9999", AddressError::Number),
            ("1.2.3", AddressError::Ipv4),
            ("1.2.3.256:7", AddressError::Ipv4),
            ("host:+1", AddressError::Port),
            ("host:99999", AddressError::Port),
            ("me@host", AddressError::User),
        ] {
            assert_eq!(Address::parse(text), Err(error), "{text}");
        }
        assert_eq!(Address::to_dial("host:0"), Err(AddressError::Port));
    }

    #[test]
    fn keys_stand_at_the_end_or_behind_the_port() {
        let key = format!("sha256:{}", "0f".repeat(32));
        for (text, rest) in [
            (format!("host:7#{key}"), "host:7"),
            (format!("host:7#{key}/a/b"), "host:7/a/b"),
            (format!("host:7/a/b#{key}"), "host:7/a/b"),
            (format!("host:7/a/#{key}"), "host:7/a/"),
        ] {
            let (left, found) = split_key(text.as_bytes()).expect("an address");
            assert_eq!((left.as_slice(), found.map(|key| key.to_string())), (rest.as_bytes(), Some(key.clone())));
        }
        assert_eq!(split_key(b"host/a#b"), Ok((b"host/a#b".to_vec(), None)), "a name may have it");
        for wrong in ["host#sha256:", "host#sha256:00", &format!("host#{key}0")] {
            assert_eq!(ServerAddress::parse(wrong), Err(AddressError::Key), "{wrong}");
        }
        let address = ServerAddress::parse(&format!("[::1]#{key}")).expect("an address");
        assert_eq!((address.host.as_str(), address.port), ("::1", 9999));
    }
}
