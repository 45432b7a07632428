//! Connections that the peer makes, for a receiver that was dialled.
//!
//! The receiver asks its source for connections as ever. Here it waits for them: the peer is told how many data
//! connections were asked for so far, and makes those that it has not made yet. It makes the first ones unasked, since it
//! knows how many were agreed. A control connection that was lost it makes anew by itself.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fastcp_wire::hello::Ticket;

use crate::{Agreed, Ahead, Attempt, Choice, Connection, ConnectionSource, DataConnection, NetError, Session, Terms};

/// How often whoever waits looks whether anybody still wants what he waits for.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Is told how many data connections were asked for so far.
pub type Called = Box<dyn Fn(u32) + Send + Sync>;

/// A source of connections that the peer makes.
pub struct Callers {
    peer: String,
    agreed: Agreed,
    ticket: Ticket,
    state: Mutex<State>,
    given: Condvar,
    called: Called,
}

#[derive(Default)]
struct State {
    control: Option<Arc<Connection>>,
    data: VecDeque<Arc<Connection>>,
    /// Data connections that were handed out.
    taken: u32,
    /// Those who wait for one.
    waiting: u32,
    /// No connection will be wanted any more.
    is_over: bool,
}

impl std::fmt::Debug for Callers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Callers").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Callers {
    /// The connections of a session that was agreed on over `control`.
    pub fn new(control: Arc<Connection>, agreed: Agreed, ticket: Ticket, called: Called) -> Self {
        let peer = control.peer().to_owned();
        let state = State { control: Some(control), ..State::default() };
        Self { peer, agreed, ticket, state: Mutex::new(state), given: Condvar::new(), called }
    }

    /// Takes a control connection in place of one that was lost.
    pub fn give_control(&self, connection: Arc<Connection>) {
        let mut state = self.lock();
        if !state.is_over {
            state.control = Some(connection);
            self.given.notify_all();
        }
    }

    /// Takes a data connection.
    pub fn give_data(&self, connection: Arc<Connection>) {
        let mut state = self.lock();
        if !state.is_over {
            state.data.push_back(connection);
            self.given.notify_all();
        }
    }

    /// Ends all connections that nobody has taken, and those to come.
    pub fn end(&self) {
        let mut state = self.lock();
        state.is_over = true;
        (state.control, state.data) = (None, VecDeque::new());
        self.given.notify_all();
    }

    /// Waits until `take` finds something.
    fn wait_for<T>(&self, attempt: Attempt<'_>, mut take: impl FnMut(&mut State) -> Option<T>) -> Result<T, NetError> {
        let start = Instant::now();
        let mut state = self.lock();
        loop {
            if attempt.live.is_ended() || state.is_over {
                return Err(NetError::Closed);
            }
            if let Some(found) = take(&mut state) {
                return Ok(found);
            }
            let left = attempt.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(NetError::TimedOut(start.elapsed()));
            }
            let wait = self.given.wait_timeout(state, left.min(LOOK_EVERY));
            state = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the peer for one more connection, where those that it has made do not do.
    fn call(&self) {
        let mut state = self.lock();
        state.waiting += 1;
        let called = state.taken + state.waiting;
        drop(state);
        (self.called)(called);
    }
}

impl ConnectionSource for Callers {
    fn peer_name(&self) -> String {
        self.peer.clone()
    }

    fn is_in_this_process(&self) -> bool {
        false
    }

    /// The terms are those that the peer was told when it dialled.
    fn session(&self, _: &Terms, ahead: Ahead<'_>, attempt: Attempt<'_>) -> Result<Session, NetError> {
        let control = self.wait_for(attempt, |state| state.control.take())?;
        ready(&control, attempt)?;
        if !ahead.frames.is_empty() {
            control.write_all(ahead.frames)?;
        }
        Ok(Session::given(control, self.agreed, self.ticket))
    }

    fn data(&self, _: &Session, _: Choice, attempt: Attempt<'_>) -> Result<DataConnection, NetError> {
        self.call();
        let found = self.wait_for(attempt, |state| state.data.pop_front());
        let mut state = self.lock();
        state.waiting -= 1;
        state.taken += u32::from(found.is_ok());
        drop(state);
        let connection = found?;
        ready(&connection, attempt)?;
        Ok(DataConnection::answered(connection, self.agreed))
    }
}

/// It ends with the others of the run, and where its peer is gone.
fn ready(connection: &Connection, attempt: Attempt<'_>) -> Result<(), NetError> {
    attempt.live.keep(&connection.shared_stream())?;
    connection.end_without_peer(attempt.absence_max)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::{Arc, mpsc};
    use std::time::{Duration, Instant};

    use fastcp_model::Capabilities;
    use fastcp_wire::hello::Ticket;

    use super::Callers;
    use crate::{Agreed, Ahead, Attempt, Choice, Connection, ConnectionSource, Live, NetError, Terms};

    const AGREED: Agreed = Agreed { capabilities: Capabilities::SUPPORTED, connections: 2, chunk_kb: 64 };

    fn connected() -> (Arc<Connection>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let there = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
        let (here, _) = listener.accept().expect("accept");
        (Arc::new(Connection::accept(here.into()).expect("connected")), there)
    }

    fn terms() -> Terms {
        AGREED.terms()
    }

    #[test]
    fn each_one_that_is_lacking_is_called_for_and_no_more() {
        let (control, _peer) = connected();
        let (calls, heard) = mpsc::channel();
        let called = Box::new(move |called| calls.send(called).expect("heard"));
        let callers = Callers::new(control, AGREED, Ticket([0; 16]), called);
        let live = Live::default();
        let attempt = Attempt {
            live: &live,
            deadline: Instant::now() + Duration::from_secs(60),
            absence_max: Duration::from_secs(9),
        };
        let session = callers.session(&terms(), Ahead::NONE, attempt).expect("it is there");
        let (first, _first_peer) = connected();
        callers.give_data(first);
        let data = callers.data(&session, Choice::Any, attempt).expect("it is there");
        assert!(data.is_answered());
        assert_eq!(heard.recv(), Ok(1), "which the peer has made already");
        std::thread::scope(|threads| {
            let waiting = threads.spawn(|| callers.data(&session, Choice::Any, attempt).map(drop));
            assert_eq!(heard.recv(), Ok(2));
            let (second, _peer) = connected();
            callers.give_data(second);
            waiting.join().expect("join").expect("given");
        });
        let at_once = Attempt { deadline: Instant::now(), ..attempt };
        for _ in 0..3 {
            assert!(matches!(callers.data(&session, Choice::Any, at_once), Err(NetError::TimedOut(_))));
            assert_eq!(heard.recv(), Ok(3), "an attempt in vain is no call for another one");
        }
    }

    #[test]
    fn whoever_waits_is_let_go_when_the_run_ends_or_nobody_will_come() {
        let (control, _peer) = connected();
        let called = Arc::new(AtomicU32::new(0));
        let counting = Arc::clone(&called);
        let count = Box::new(move |called| counting.store(called, Ordering::Relaxed));
        let callers = Callers::new(control, AGREED, Ticket([0; 16]), count);
        let live = Live::default();
        let attempt = Attempt {
            live: &live,
            deadline: Instant::now() + Duration::from_secs(600),
            absence_max: Duration::from_secs(9),
        };
        let session = callers.session(&terms(), Ahead::NONE, attempt).expect("it is there");
        std::thread::scope(|threads| {
            let waiting = threads.spawn(|| callers.session(&terms(), Ahead::NONE, attempt).map(drop));
            live.end_all_but(None);
            assert!(matches!(waiting.join().expect("join"), Err(NetError::Closed)));
        });
        callers.end();
        let other = Live::default();
        let data = callers.data(&session, Choice::Any, Attempt { live: &other, ..attempt });
        assert!(matches!(data, Err(NetError::Closed)));
    }
}
