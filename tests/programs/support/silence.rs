//! Ports behind which nobody answers, each in its own way.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::socket::{Backlog, listen};

/// A port that takes connections and says nothing, or what it was told to.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) address: SocketAddr,
    _listener: TcpListener,
    /// Connections that fill the queue.
    _queued: Vec<TcpStream>,
}

impl Port {
    /// Connections are made, and nothing is ever read or said.
    pub(crate) fn silent() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind");
        Self { address: listener.local_addr().expect("bound"), _listener: listener, _queued: Vec::new() }
    }

    /// No connection is made: packets vanish, as far as a client can tell. The queue is full, and Linux then drops
    /// what would begin another connection.
    pub(crate) fn vanished() -> Self {
        let port = Self::silent();
        listen(&port._listener.as_fd(), Backlog::new(0).expect("lawful")).expect("listen");
        let mut queued = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&port.address, Duration::from_millis(300)) {
            queued.push(stream);
        }
        Self { _queued: queued, ..port }
    }

    /// Everybody is told this, once they have said something where `speaks` says so.
    pub(crate) fn speaking(speaks: Speaks, words: &'static [u8]) -> Self {
        let port = Self::silent();
        let listener = port._listener.try_clone().expect("clone");
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let heard = match speaks {
                    Speaks::First => Ok(0),
                    Speaks::WhenAsked => stream.read(&mut [0; 64]),
                };
                if heard.is_err() || stream.write_all(words).is_err() {
                    continue;
                }
                // The connection stays until the client ends it.
                std::thread::spawn(move || stream.read_to_end(&mut Vec::new()));
            }
        });
        port
    }

    pub(crate) fn url(&self) -> String {
        format!("fcp://{}", self.address)
    }
}

/// Who says the first word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    First,
    WhenAsked,
}
