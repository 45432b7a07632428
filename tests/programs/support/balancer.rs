//! A TCP balancer: every connection goes to the next of several servers, whatever it is for.

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A listening balancer; stops listening when dropped.
#[derive(Debug)]
pub(crate) struct Balancer {
    pub(crate) address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Balancer {
    /// Passes connections on to these servers in turn.
    pub(crate) fn start(servers: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind");
        let address = listener.local_addr().expect("bound");
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&stop);
        std::thread::spawn(move || {
            for (client, &server) in listener.incoming().flatten().zip(servers.iter().cycle()) {
                if is_over.load(Ordering::Acquire) {
                    return;
                }
                if let Ok(server) = TcpStream::connect(server) {
                    relay(client, server);
                }
            }
        });
        Self { address, stop }
    }

    pub(crate) fn url(&self) -> String {
        format!("fcp://{}", self.address)
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        drop(TcpStream::connect(self.address));
    }
}

fn relay(client: TcpStream, server: TcpStream) {
    let copies = [&client, &server].map(|stream| stream.try_clone().expect("clone"));
    let [client_copy, server_copy] = copies;
    for (mut from, mut to) in [(client, server), (server_copy, client_copy)] {
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
    }
}
