//! The addresses of a host name, by the system's resolver.
//!
//! The standard library has the same call, and its error does not say whether the name does not exist or the name
//! server did not answer: the first is for good, the second may be mended by waiting.

use std::ffi::CString;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ptr;

/// Why a name has no address.
#[derive(Debug)]
pub enum ResolveError {
    /// The name does not exist, or has no address.
    Unknown,
    /// No name server answered, or not yet.
    NoAnswer,
    /// The resolver failed, by its own number (`EAI_*` of `netdb.h`).
    Failed(i32),
    /// A system call failed.
    System(io::Error),
}

impl std::fmt::Display for ResolveError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unknown => f.write_str("no such host name"),
            Self::NoAnswer => f.write_str("no answer from the name server"),
            Self::Failed(code) => write!(f, "the resolver failed (error {code})"),
            Self::System(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ResolveError {}

/// The results of one lookup, given back to the resolver when dropped.
struct Results(*mut libc::addrinfo);

impl Drop for Results {
    fn drop(&mut self) {
        // SAFETY: the list comes from getaddrinfo and is freed once.
        unsafe { libc::freeaddrinfo(self.0) }
    }
}

/// All addresses of `host` for a TCP connection, in the order in which they are to be tried. It may take as long as
/// the resolver is patient.
///
/// # Errors
/// [`ResolveError`].
pub fn addresses(host: &str, port: u16) -> Result<Vec<SocketAddr>, ResolveError> {
    let host = CString::new(host).map_err(|_| ResolveError::Unknown)?;
    // SAFETY: zeros are a lawful addrinfo: null pointers and no wishes.
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    hints.ai_socktype = libc::SOCK_STREAM;
    let mut list = ptr::null_mut();
    // SAFETY: the name ends with a NUL, hints and list outlive the call.
    let code = unsafe { libc::getaddrinfo(host.as_ptr(), ptr::null(), &raw const hints, &raw mut list) };
    if code != 0 {
        return Err(error_of(code));
    }
    let results = Results(list);
    let mut found = Vec::new();
    let mut at = results.0;
    while !at.is_null() {
        // SAFETY: the resolver's list is valid until `results` is dropped.
        let entry = unsafe { &*at };
        found.extend(address_of(entry, port));
        at = entry.ai_next;
    }
    if found.is_empty() { Err(ResolveError::Unknown) } else { Ok(found) }
}

fn address_of(entry: &libc::addrinfo, port: u16) -> Option<SocketAddr> {
    match entry.ai_family {
        libc::AF_INET => {
            // SAFETY: of this family the resolver gives a sockaddr_in, wherever it may lie.
            let raw = unsafe { entry.ai_addr.cast::<libc::sockaddr_in>().read_unaligned() };
            let ip = Ipv4Addr::from(u32::from_be(raw.sin_addr.s_addr));
            Some(SocketAddrV4::new(ip, port).into())
        }
        libc::AF_INET6 => {
            // SAFETY: of this family the resolver gives a sockaddr_in6, wherever it may lie.
            let raw = unsafe { entry.ai_addr.cast::<libc::sockaddr_in6>().read_unaligned() };
            let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
            Some(SocketAddrV6::new(ip, port, raw.sin6_flowinfo, raw.sin6_scope_id).into())
        }
        _ => None,
    }
}

fn error_of(code: i32) -> ResolveError {
    match code {
        // The name exists without an address in the second case.
        libc::EAI_NONAME | libc::EAI_NODATA => ResolveError::Unknown,
        // As glibc says it also where no name server can be reached.
        libc::EAI_AGAIN => ResolveError::NoAnswer,
        libc::EAI_SYSTEM => ResolveError::System(io::Error::last_os_error()),
        other => ResolveError::Failed(other),
    }
}

#[cfg(test)]
mod tests {
    use super::{ResolveError, addresses};

    #[test]
    fn addresses_and_names_of_this_machine() {
        assert_eq!(addresses("127.0.0.1", 7).expect("an address"), ["127.0.0.1:7".parse().expect("lawful")]);
        assert_eq!(addresses("::1", 7).expect("an address"), ["[::1]:7".parse().expect("lawful")]);
        assert!(addresses("localhost", 7).expect("a name").iter().all(|address| address.ip().is_loopback()));
    }

    #[test]
    fn a_name_that_cannot_exist_is_unknown() {
        for name in ["no such host", "zero\0inside"] {
            assert!(matches!(addresses(name, 1), Err(ResolveError::Unknown)), "{name:?}");
        }
    }
}
