//! A server at the other end of a tunnel, such as one that a remote shell has started.
//!
//! The tunnel itself carries the control connection and one data connection from the start. Whether the server can be
//! reached directly is found out meanwhile. Where it can, the other data connections go there, and the one in the tunnel is
//! replaced; where it cannot, all of them go through the tunnel.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use socket2::Socket;

use crate::connection::Passage;
use crate::{Live, NetError, Trust, Tunnel};

/// How long data connections wait to learn whether they can go directly. The first one does not.
const DECISION_MAX: Duration = Duration::from_secs(4);
/// Direct connections that may fail one after the other.
const FAILURES_MAX: u32 = 3;
/// How often those that wait look whether anybody still wants them.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Says why the tunnel has ended.
pub type Explain = Box<dyn Fn() -> NetError + Send + Sync>;

/// A server at the other end of a tunnel.
pub struct Far {
    name: String,
    tunnel: Arc<Tunnel>,
    explain: Explain,
    state: Mutex<State>,
    decided: Condvar,
    passage: Arc<Passage>,
}

#[derive(Debug, Default)]
struct State {
    way: Way,
    has_lane: bool,
    /// When the first data connection was asked for: before that a login may take as long as it likes.
    begun: Option<Instant>,
    /// Direct connections that failed, one after the other.
    failures: u32,
}

/// How data connections get there.
#[derive(Debug, Default, Clone)]
enum Way {
    #[default]
    Unknown,
    Directly(SocketAddr, Arc<Trust>),
    Through,
}

/// What a data connection is made of.
pub(crate) enum Path {
    Lane(Socket),
    Direct(SocketAddr, Arc<Trust>),
}

impl State {
    /// How long connections wait for a decision; `now` is when the first of them is asked for.
    fn decision_ends(&mut self, now: Instant) -> Instant {
        *self.begun.get_or_insert(now) + DECISION_MAX
    }
}

impl Far {
    /// The server that people call `name`. What has become of a tunnel that has ended is what `explain` says.
    pub fn new(name: String, tunnel: Arc<Tunnel>, explain: Explain) -> Self {
        Self { name, tunnel, explain, state: Mutex::default(), decided: Condvar::new(), passage: Arc::default() }
    }

    /// Where it can be reached directly; `None` where it cannot.
    pub fn decide(&self, direct: Option<(SocketAddr, Arc<Trust>)>) {
        let mut state = self.lock();
        self.passage.set_better(direct.is_some());
        state.way = direct.map_or(Way::Through, |(address, trust)| Way::Directly(address, trust));
        self.decided.notify_all();
    }

    /// A lane of the tunnel.
    pub(crate) fn lane(&self) -> Result<Socket, NetError> {
        self.tunnel.open().map_err(|error| match self.tunnel.end() {
            Some(_) => (self.explain)(),
            None => NetError::Connect { address: self.name.clone(), source: error },
        })
    }

    /// What a data connection is to be made of.
    pub(crate) fn path(&self, live: &Live, deadline: Instant) -> Result<Path, NetError> {
        let mut state = self.lock();
        let until = deadline.min(state.decision_ends(Instant::now()));
        loop {
            match state.way.clone() {
                Way::Directly(address, trust) => return Ok(Path::Direct(address, trust)),
                Way::Unknown if state.has_lane && Instant::now() < until && self.tunnel.end().is_none() => {
                    if live.is_ended() {
                        return Err(NetError::Closed);
                    }
                    state = self.decided.wait_timeout(state, LOOK_EVERY).unwrap_or_else(PoisonError::into_inner).0;
                }
                Way::Unknown | Way::Through => {
                    state.has_lane = true;
                    drop(state);
                    return self.lane().map(Path::Lane);
                }
            }
        }
    }

    /// A direct connection has failed. After some the tunnel is taken instead.
    pub(crate) fn failed_directly(&self, error: &NetError) {
        let failures = {
            let mut state = self.lock();
            state.failures += 1;
            state.failures
        };
        if failures >= FAILURES_MAX {
            tracing::warn!(%error, "no more direct connections to {}: everything goes through the remote shell", self.name);
            self.decide(None);
        }
    }

    /// A direct connection was made.
    pub(crate) fn was_reached(&self) {
        self.lock().failures = 0;
    }

    /// What its lanes have in common.
    pub(crate) fn passage(&self) -> Arc<Passage> {
        Arc::clone(&self.passage)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Far {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for Far {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Far").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{DECISION_MAX, State};

    #[test]
    fn the_decision_has_its_time_from_the_first_connection_on() {
        let (mut state, first) = (State::default(), Instant::now());
        assert_eq!(state.decision_ends(first), first + DECISION_MAX);
        assert_eq!(state.decision_ends(first + Duration::from_secs(1)), first + DECISION_MAX);
    }
}
