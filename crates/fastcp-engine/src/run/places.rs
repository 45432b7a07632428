//! Which directories of a served tree are being written to, and for whom.
//!
//! A directory takes one push at a time, and so does all that a push writes: one whose destination contains another's
//! could delete or replace what that one writes. A push of one entry by its name writes that entry alone; others may
//! write beside it, but not have the same destination, where the state of one push is. A push whose sender is gone waits
//! for him for a while; should he, or another, begin anew meanwhile, the one that waits ends and makes room.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastcp_model::{Name, RelPath};

use crate::interrupt::Interrupt;
use crate::lock::{Lock, News};
use crate::run::relay::Relay;

/// How long a push that nobody listens to may take to end.
const ENDING_MAX: Duration = Duration::from_secs(8);
/// How long a sender who was killed may seem to listen: whoever begins again at once may be here before the word of it.
const LEAVING_MAX: Duration = Duration::from_secs(1);
/// How often one that is in the way is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
pub(super) struct Places {
    held: Lock<Vec<Arc<Holder>>>,
    freed: News,
}

/// What a push writes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Extent {
    /// The directory with its state.
    into: RelPath,
    /// All that it may change, `into` or an entry of it.
    written: RelPath,
}

impl Extent {
    /// Everything in a directory.
    pub(super) fn whole(into: &RelPath) -> Self {
        Self { into: into.clone(), written: into.clone() }
    }

    /// One entry of a directory, whatever else is there.
    pub(super) fn entry(into: &RelPath, name: &Name) -> Self {
        Self { into: into.clone(), written: into.join(name) }
    }

    /// Whether two pushes could get in each other's way.
    fn meets(&self, other: &Self) -> bool {
        let is_within = |one: &Self, other: &Self| one.written.is_within(&other.written);
        self.into == other.into || is_within(self, other) || is_within(other, self)
    }
}

/// A push that is under way.
#[derive(Debug)]
pub(super) struct Holder {
    extent: Extent,
    peer: String,
    since: Instant,
    relay: Arc<Relay>,
    interrupt: Arc<Interrupt>,
}

/// The right to write, given back when dropped.
#[derive(Debug)]
pub(super) struct Place<'a> {
    places: &'a Places,
    holder: Arc<Holder>,
}

/// Somebody else writes there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{path}\" is being written to by {peer}, for {seconds} s now")]
pub(super) struct Occupied {
    path: RelPath,
    peer: String,
    seconds: u64,
}

impl Holder {
    pub(super) fn new(extent: Extent, peer: &str, relay: Arc<Relay>, interrupt: Arc<Interrupt>) -> Self {
        Self { extent, peer: peer.to_owned(), since: Instant::now(), relay, interrupt }
    }

    /// That it is in the way of a push of this extent.
    fn occupies(&self, wanted: &Extent) -> Occupied {
        // The directory is in use, whichever entries of it are written.
        let path = if self.extent.into == wanted.into { &self.extent.into } else { &self.extent.written };
        Occupied { path: path.clone(), peer: self.peer.clone(), seconds: self.since.elapsed().as_secs() }
    }
}

impl Places {
    /// Takes what the holder writes to, when pushes there that nobody listens to any more have ended.
    pub(super) fn take(&self, holder: Holder) -> Result<Place<'_>, Occupied> {
        let holder = Arc::new(holder);
        let begun = Instant::now();
        let mut held = self.held.lock();
        loop {
            let Some(other) = held.iter().find(|other| other.extent.meets(&holder.extent)).map(Arc::clone) else {
                held.push(Arc::clone(&holder));
                return Ok(Place { places: self, holder });
            };
            drop(held);
            let is_heard = other.relay.is_heard();
            if begun.elapsed() >= if is_heard { LEAVING_MAX } else { ENDING_MAX } {
                return Err(other.occupies(&holder.extent));
            }
            if !is_heard {
                // Every time anew: it may not have been at a point where it hears.
                other.interrupt.ask();
            }
            held = self.held.lock();
            if held.iter().any(|now| Arc::ptr_eq(now, &other)) {
                held = self.held.wait_at_most(&self.freed, held, Some(Instant::now() + LOOK_EVERY));
            }
        }
    }
}

impl Places {
    /// From now on nobody can come back who is gone.
    pub(super) fn drain(&self) {
        let holders: Vec<_> = self.held.lock().iter().map(Arc::clone).collect();
        holders.iter().for_each(|holder| holder.relay.set_last());
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut held = self.places.held.lock();
        held.retain(|holder| !Arc::ptr_eq(holder, &self.holder));
        self.places.freed.tell_all();
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;
    use std::time::Duration;

    use fastcp_model::{Name, RelPath};
    use fastcp_net::Connection;

    use super::{Extent, Holder, Places};
    use crate::interrupt::Interrupt;
    use crate::run::relay::Relay;

    fn whole(into: &str) -> Extent {
        Extent::whole(&RelPath::new(into.as_bytes()).expect("lawful"))
    }

    fn entry(into: &str, name: &str) -> Extent {
        let name = Name::new(name.as_bytes()).expect("lawful");
        Extent::entry(&RelPath::new(into.as_bytes()).expect("lawful"), &name)
    }

    /// Both ends of a connection.
    fn connection() -> (Arc<Connection>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let there = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
        let (here, _) = listener.accept().expect("accept");
        (Arc::new(Connection::accept(here.into()).expect("connected")), there)
    }

    fn holder(extent: Extent, control: &Arc<Connection>, interrupt: &Arc<Interrupt>) -> Holder {
        let relay = Arc::new(Relay::new(control, Duration::from_secs(30)));
        Holder::new(extent, "peer", relay, Arc::clone(interrupt))
    }

    /// A push whose sender is gone.
    fn left(extent: Extent, interrupt: &Arc<Interrupt>) -> Holder {
        let (control, there) = connection();
        drop(there);
        // The end of the connection has arrived when it can be read.
        assert!(control.read_exact(&mut [0]).is_err());
        holder(extent, &control, interrupt)
    }

    #[test]
    fn one_that_nobody_listens_to_is_ended_for_the_next() {
        for (held, wanted) in [("a", "a"), ("a/b", "a"), ("a", "a/b"), ("", "a")] {
            let places = Places::default();
            let interrupt = Arc::new(Interrupt::default());
            let first = places.take(left(whole(held), &interrupt)).expect("free");
            std::thread::scope(|threads| {
                let listening = interrupt.listen();
                let next = threads.spawn(|| places.take(left(whole(wanted), &Arc::default())).map(drop));
                assert!(listening.wait(), "it is asked to end");
                drop(first);
                next.join().expect("join").expect("it has made room");
            });
        }
    }

    #[test]
    fn what_lies_in_one_another_is_taken_once_and_what_lies_apart_by_all() {
        let cases = [
            (whole("a"), whole("a"), Some("a")),
            (whole("a"), whole("a/b"), Some("a")),
            (whole("a/b/c"), whole("a"), Some("a/b/c")),
            (whole("a"), whole(""), Some("a")),
            (whole(""), whole("a/b"), Some(".")),
            (whole("a"), entry("", "a"), Some("a")),
            (entry("", "a"), whole("a/b"), Some("a")),
            (entry("a", "b"), whole(""), Some("a/b")),
            // One directory keeps the state of one push.
            (entry("a", "b"), entry("a", "c"), Some("a")),
            (whole("a"), whole("b"), None),
            (whole("a/b"), whole("a/c"), None),
            (whole("a"), whole("ab"), None),
            (entry("", "a"), whole("b"), None),
            (whole("a/b"), entry("a", "c"), None),
            (whole("a/b"), entry("", "b"), None),
        ];
        let check = |(held, wanted, occupied): (Extent, Extent, Option<&str>)| {
            let places = Places::default();
            let (control, _there) = connection();
            let place = |extent: &Extent| places.take(holder(extent.clone(), &control, &Arc::default()));
            let first = place(&held).expect("free");
            let second = place(&wanted).map(drop).map_err(|error| error.path.to_string());
            assert_eq!(second.err().as_deref(), occupied, "{held:?}, {wanted:?}");
            drop(first);
            place(&wanted).expect("free again");
        };
        // Each waits for a while before it is sure.
        std::thread::scope(|threads| cases.into_iter().for_each(|case| drop(threads.spawn(move || check(case)))));
    }

    #[test]
    fn a_sender_who_seems_to_listen_may_just_have_left() {
        let (places, interrupt) = (Places::default(), Arc::new(Interrupt::default()));
        let (control, there) = connection();
        let first = places.take(holder(whole("a"), &control, &interrupt)).expect("free");
        std::thread::scope(|threads| {
            let listening = interrupt.listen();
            let next = threads.spawn(|| places.take(left(whole("a"), &Arc::default())).map(drop));
            drop(there);
            assert!(listening.wait(), "it is asked to end once its sender is gone");
            drop(first);
            next.join().expect("join").expect("it has made room");
        });
    }
}
