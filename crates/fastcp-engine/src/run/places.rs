//! Which directories of a served tree are being written to, and for whom.
//!
//! A directory takes one push at a time. A push whose sender is gone waits for him for a while; should he, or another,
//! begin anew meanwhile, the one that waits ends and makes room.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastcp_model::RelPath;

use crate::interrupt::Interrupt;
use crate::lock::{Lock, News};
use crate::run::relay::Relay;

/// How long a push that nobody listens to may take to end.
const ENDING_MAX: Duration = Duration::from_secs(8);

#[derive(Debug, Default)]
pub(super) struct Places {
    held: Lock<HashMap<RelPath, Arc<Holder>>>,
    freed: News,
}

/// A push that is under way.
#[derive(Debug)]
pub(super) struct Holder {
    peer: String,
    since: Instant,
    relay: Arc<Relay>,
    interrupt: Arc<Interrupt>,
}

/// The right to write to a directory, given back when dropped.
#[derive(Debug)]
pub(super) struct Place<'a> {
    places: &'a Places,
    path: RelPath,
}

/// Somebody else writes there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{path}\" is being written to by {peer}, for {seconds} s now")]
pub(super) struct Occupied {
    path: String,
    peer: String,
    seconds: u64,
}

impl Holder {
    pub(super) fn new(peer: &str, relay: Arc<Relay>, interrupt: Arc<Interrupt>) -> Self {
        Self { peer: peer.to_owned(), since: Instant::now(), relay, interrupt }
    }
}

impl Places {
    /// Takes a directory, when a push there that nobody listens to any more has ended.
    pub(super) fn take(&self, path: &RelPath, holder: Holder) -> Result<Place<'_>, Occupied> {
        let holder = Arc::new(holder);
        let until = Instant::now() + ENDING_MAX;
        let mut held = self.held.lock();
        loop {
            let Some(other) = held.get(path).map(Arc::clone) else {
                held.insert(path.clone(), holder);
                return Ok(Place { places: self, path: path.clone() });
            };
            drop(held);
            if other.relay.is_heard() || Instant::now() >= until {
                let path = if path.is_root() { ".".to_owned() } else { path.to_string() };
                return Err(Occupied { path, peer: other.peer.clone(), seconds: other.since.elapsed().as_secs() });
            }
            other.interrupt.ask();
            held = self.held.lock();
            if held.get(path).is_some_and(|now| Arc::ptr_eq(now, &other)) {
                // Asked again after a while: it may not have been at a point where it hears.
                held = self.held.wait_at_most(&self.freed, held, Some(Instant::now() + Duration::from_millis(200)));
            }
        }
    }
}

impl Places {
    /// From now on nobody can come back who is gone.
    pub(super) fn drain(&self) {
        let holders: Vec<_> = self.held.lock().values().map(Arc::clone).collect();
        holders.iter().for_each(|holder| holder.relay.set_last());
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut held = self.places.held.lock();
        held.remove(&self.path);
        self.places.freed.tell_all();
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;
    use std::time::Duration;

    use fastcp_model::RelPath;
    use fastcp_net::Connection;

    use super::{Holder, Places};
    use crate::interrupt::Interrupt;
    use crate::run::relay::Relay;

    fn path(text: &str) -> RelPath {
        RelPath::new(text.as_bytes()).expect("lawful")
    }

    /// A push whose sender is gone.
    fn holder(interrupt: &Arc<Interrupt>) -> Holder {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let there = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
        let (here, _) = listener.accept().expect("accept");
        let control = Arc::new(Connection::accept(here.into()).expect("connected"));
        drop(there);
        // The end of the connection has arrived when it can be read.
        assert!(control.read_exact(&mut [0]).is_err());
        Holder::new("peer", Arc::new(Relay::new(&control, Duration::from_secs(30))), Arc::clone(interrupt))
    }

    #[test]
    fn one_that_nobody_listens_to_is_ended_for_the_next() {
        let places = Places::default();
        let interrupt = Arc::new(Interrupt::default());
        let first = places.take(&path("a"), holder(&interrupt)).expect("free");
        drop(places.take(&path("b"), holder(&interrupt)).expect("another place"));
        drop(places.take(&path("a/b"), holder(&interrupt)).expect("another place"));
        std::thread::scope(|threads| {
            let listening = interrupt.listen();
            let next = threads.spawn(|| places.take(&path("a"), holder(&Arc::default())).map(drop));
            assert!(listening.wait(), "it is asked to end");
            drop(first);
            next.join().expect("join").expect("it has made room");
        });
    }
}
