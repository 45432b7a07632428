//! Connections from another address of this machine than everybody else's.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};

use super::HANG_TIMEOUT;

/// Where hostile peers come from: honest ones have 127.0.0.1.
pub(crate) const HOSTILE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A connection from that address; `None` where none can be made.
pub(crate) fn try_connect_from(source: Ipv4Addr, server: SocketAddr) -> Option<TcpStream> {
    let SocketAddr::V4(server) = server else { panic!("an address of IPv4 is expected") };
    let fd: OwnedFd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).ok()?;
    let [a, b, c, d] = source.octets();
    bind(fd.as_raw_fd(), &SockaddrIn::new(a, b, c, d, 0)).ok()?;
    connect(fd.as_raw_fd(), &SockaddrIn::from(server)).ok()?;
    let stream = TcpStream::from(fd);
    stream.set_read_timeout(Some(HANG_TIMEOUT)).ok()?;
    Some(stream)
}

pub(crate) fn connect_from(source: Ipv4Addr, server: SocketAddr) -> TcpStream {
    try_connect_from(source, server).expect("connect")
}

/// Passes on what it is told, from that address. After so many bytes of a client, which need not be all that it says, `then`
/// goes to the server instead.
pub(crate) fn relay_from(source: Ipv4Addr, server: SocketAddr, after: usize, then: Vec<u8>) -> SocketAddr {
    use std::io::{Read, Write};

    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let Some(mut to_server) = try_connect_from(source, server) else { continue };
            let (mut from_server, mut to_client) =
                (to_server.try_clone().expect("clone"), client.try_clone().expect("clone"));
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from_server, &mut to_client);
                let _ = to_client.shutdown(std::net::Shutdown::Both);
            });
            let then = then.clone();
            std::thread::spawn(move || {
                let (mut left, mut buffer) = (after, [0; 4096]);
                while left > 0 {
                    let count = left.min(buffer.len());
                    let Ok(count @ 1..) = client.read(&mut buffer[..count]) else { break };
                    if to_server.write_all(&buffer[..count]).is_err() {
                        break;
                    }
                    left -= count;
                }
                let _ = to_server.write_all(&then);
                let _ = to_server.shutdown(std::net::Shutdown::Write);
            });
        }
    });
    address
}
