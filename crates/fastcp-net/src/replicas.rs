//! Several sources of one tree: data connections are spread over them.
//!
//! The first is the one that offers and confirms; the others give ranges. A connection goes to the source that has the
//! fewest, of those that are not known to be dead. Where the first has none it goes there in any case: without it nothing
//! can be confirmed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::{Ahead, Attempt, Choice, Connection, ConnectionSource, DataConnection, Dialer, NetError, Session, Terms};

/// The most sources, the first among them.
pub const SOURCES_MAX: usize = 16;

/// A source that could not be reached, or that lost a connection as soon as it was made, is left alone for so long; longer
/// each time.
const DEAD_MIN: Duration = Duration::from_secs(2);
const DEAD_MAX: Duration = Duration::from_secs(60);
/// A connection that has lived for so long was of use.
const LIVED: Duration = Duration::from_secs(10);

/// The sources of a tree.
#[derive(Debug)]
pub struct Replicas {
    first: Replica,
    others: Vec<Replica>,
}

#[derive(Debug)]
struct Replica {
    dialer: Dialer,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Connections that were handed out, and when.
    live: Vec<(Weak<Connection>, Instant)>,
    /// How often in a row it was of no use.
    failures: u32,
    dead_until: Option<Instant>,
}

impl State {
    fn fail(&mut self) {
        let wait = DEAD_MIN.saturating_mul(2u32.saturating_pow(self.failures)).min(DEAD_MAX);
        self.failures += 1;
        self.dead_until = Some(Instant::now() + wait);
    }

    /// Forgets connections that have ended. One that ended soon speaks against its source.
    fn look(&mut self) {
        let (mut has_failed, mut has_lived) = (false, false);
        self.live.retain(|(connection, since)| {
            let is_live = connection.strong_count() > 0;
            let is_old = since.elapsed() >= LIVED;
            has_failed |= !is_live && !is_old;
            has_lived |= is_old;
            is_live
        });
        if has_lived {
            (self.failures, self.dead_until) = (0, None);
        } else if has_failed {
            self.fail();
        }
    }
}

impl Replica {
    fn new(dialer: Dialer) -> Self {
        Self { dialer, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many connections it has; `None` where it is to be left alone.
    fn load(&self) -> Option<usize> {
        let mut state = self.lock();
        state.look();
        let is_dead = state.dead_until.is_some_and(|until| Instant::now() < until);
        (!is_dead).then_some(state.live.len())
    }

    fn data(&self, session: &Session, attempt: Attempt<'_>) -> Result<DataConnection, NetError> {
        let made = self.dialer.data(session, Choice::Any, attempt);
        let mut state = self.lock();
        match &made {
            Ok(data) => state.live.push((Arc::downgrade(&data.connection), Instant::now())),
            Err(error) => {
                tracing::debug!(source = %self.dialer.endpoint(), %error, "source not reached");
                state.fail();
            }
        }
        made
    }
}

impl Replicas {
    /// The source that decides, and others that have the same.
    pub fn new(first: Dialer, others: Vec<Dialer>) -> Self {
        Self { first: Replica::new(first), others: others.into_iter().map(Replica::new).collect() }
    }

    /// The number of the source that the next connection goes to; 0 is the first.
    fn next(&self) -> usize {
        self.first.lock().look();
        let first = self.first.lock().live.len();
        if first == 0 {
            return 0;
        }
        let others = self.others.iter().enumerate().filter_map(|(at, replica)| Some((replica.load()?, at + 1)));
        others.chain([(first, 0)]).min().map_or(0, |(_, number)| number)
    }
}

impl ConnectionSource for Replicas {
    fn peer_name(&self) -> String {
        self.first.dialer.peer_name()
    }

    fn is_in_this_process(&self) -> bool {
        self.first.dialer.is_in_this_process()
    }

    fn session(&self, terms: &Terms, ahead: Ahead<'_>, attempt: Attempt<'_>) -> Result<Session, NetError> {
        // Of those that go ahead, the others have their share.
        let connections = ahead.connections.div_ceil(u16::try_from(self.others.len() + 1).unwrap_or(1));
        self.first.dialer.session(terms, Ahead { connections, ..ahead }, attempt)
    }

    fn data(&self, session: &Session, choice: Choice, attempt: Attempt<'_>) -> Result<DataConnection, NetError> {
        let number = match choice {
            Choice::First => 0,
            Choice::Any => self.next(),
        };
        match number.checked_sub(1).and_then(|at| self.others.get(at)) {
            None => self.first.data(session, attempt),
            Some(replica) => replica.data(session, attempt).map(|data| data.of_source(number)),
        }
    }
}
