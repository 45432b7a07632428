//! Hosts and ports as they are typed, the same in every place where one can be typed.
//!
//! A host is a name, an IPv4 address, or an IPv6 address: in brackets, or bare where nothing follows it. `:PORT` may
//! follow the host.

/// A host and the port typed with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// Without brackets.
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
}

/// Why an address means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AddressError {
    #[error("expected HOST[:PORT], with an IPv6 address in brackets")]
    Form,
    #[error("expected a port from 1 to 65535 after the last colon")]
    Port,
    #[error("fcp:// takes no user name; write the host alone")]
    User,
}

impl Address {
    /// Understands `HOST[:PORT]`.
    pub(crate) fn parse(text: &str) -> Result<Self, AddressError> {
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
        let port = match port {
            // As in other addresses: a colon with nothing after it is the usual port.
            None | Some("") => None,
            Some(port) => Some(parse_port(port)?),
        };
        Ok(Self { host: host.to_owned(), port })
    }
}

fn parse_port(text: &str) -> Result<u16, AddressError> {
    match text.parse() {
        Ok(0) | Err(_) => Err(AddressError::Port),
        Ok(port) => Ok(port),
    }
}

#[cfg(test)]
mod tests {
    use super::{Address, AddressError};

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
            ("host:0", AddressError::Port),
            ("host:99999", AddressError::Port),
            ("me@host", AddressError::User),
        ] {
            assert_eq!(Address::parse(text), Err(error), "{text}");
        }
    }
}
