//! A port for servers that come and go.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, setsockopt, socket, sockopt};

use super::server::Server;

/// A port on which nobody listens and which nobody else can take.
#[derive(Debug)]
pub(crate) struct ReservedPort {
    pub(crate) port: u16,
    _socket: OwnedFd,
}

impl ReservedPort {
    pub(crate) fn new() -> Self {
        let reserved = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("socket");
        setsockopt(&reserved, sockopt::ReuseAddr, &true).expect("share the port with a later listener");
        bind(reserved.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).expect("bind");
        let port = getsockname::<SockaddrIn>(reserved.as_raw_fd()).expect("bound").port();
        Self { port, _socket: reserved }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub(crate) fn url(&self) -> String {
        format!("fcp://{}", self.address())
    }

    /// A server of `root` on this port: the same one again, as far as a client can tell.
    pub(crate) fn serve(&self, root: &Path) -> Server {
        self.serve_with(root, "")
    }

    /// As before, with these further words.
    pub(crate) fn serve_with(&self, root: &Path, words: &str) -> Server {
        Server::start_with(root, &format!("127.0.0.1 {} {words}", self.port))
    }
}
