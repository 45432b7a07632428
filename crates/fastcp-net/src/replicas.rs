//! Several sources of one tree: data connections are spread over them.
//!
//! One of them *leads*: it offers and confirms, and the others give ranges. The first that was named leads for as long as
//! it can be reached, then the next that can be. A data connection goes to the source that has the fewest, of those that
//! are not known to be dead. Where the one that leads has none it goes there in any case: without it nothing can be
//! confirmed.
//!
//! Nobody waits here but for a connection that is being made, and no longer than its attempt may take.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::{Ahead, Attempt, Choice, Connection, ConnectionSource, DataConnection, Dialer, NetError, Session, Terms};

/// The most sources, the first among them.
pub const SOURCES_MAX: usize = 16;

/// A source that could not be reached, or whose connections break, is left alone for so long; longer each time.
const DEAD_MIN: Duration = Duration::from_secs(2);
const DEAD_MAX: Duration = Duration::from_secs(60);
/// A connection that has lived for so long was of use.
const LIVED: Duration = Duration::from_secs(10);
/// A source that can be reached and loses connections so often in a row does not lead any longer.
const BREAKS_MAX: u32 = 3;

/// The sources of a tree.
#[derive(Debug)]
pub struct Replicas {
    /// At least one.
    sources: Vec<Replica>,
    /// The number of the one that leads.
    lead: AtomicUsize,
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
    /// Connections that are being made.
    dialling: usize,
    /// How often in a row it was of no use.
    failures: u32,
    dead_until: Option<Instant>,
}

impl State {
    fn fail(&mut self) {
        let wait = DEAD_MIN.saturating_mul(2u32.saturating_pow(self.failures)).min(DEAD_MAX);
        self.failures = self.failures.saturating_add(1);
        self.dead_until = Some(Instant::now() + wait);
    }

    fn work(&mut self) {
        (self.failures, self.dead_until) = (0, None);
    }

    fn is_dead(&self) -> bool {
        self.dead_until.is_some_and(|until| Instant::now() < until)
    }

    /// How many connections it has, or is about to have.
    fn load(&self) -> usize {
        self.live.len() + self.dialling
    }

    /// Forgets connections that have ended.
    fn look(&mut self) {
        self.live.retain(|(connection, _)| connection.strong_count() > 0);
        if self.live.iter().any(|(_, since)| since.elapsed() >= LIVED) {
            self.work();
        }
    }
}

impl Replica {
    fn new(dialer: Dialer) -> Self {
        Self { dialer, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.look();
        state
    }

    /// Makes the connection that it was chosen for.
    fn data(&self, session: &Session, choice: Choice, attempt: Attempt<'_>) -> Result<DataConnection, NetError> {
        let made = self.dialer.data(session, choice, attempt);
        let mut state = self.lock();
        state.dialling -= usize::from(choice != Choice::Beside);
        match &made {
            Ok(_) if choice == Choice::Beside => {}
            Ok(data) => state.live.push((Arc::downgrade(&data.connection), Instant::now())),
            Err(error) => {
                drop(state);
                self.note(error);
            }
        }
        made
    }

    fn note(&self, error: &NetError) {
        tracing::debug!(source = %self.dialer.endpoint(), %error, "source not reached");
        self.lock().fail();
    }
}

impl Replicas {
    /// The source that leads while it can, and others that have the same, the next to lead first.
    pub fn new(first: Dialer, others: Vec<Dialer>) -> Self {
        let sources = std::iter::once(first).chain(others).map(Replica::new).collect();
        Self { sources, lead: AtomicUsize::new(0) }
    }

    /// The number of the source that the next connection goes to, which counts as its from now on.
    fn choose(&self, choice: Choice) -> usize {
        let lead = self.lead();
        // All at once: threads that begin together are not to choose the same.
        let mut states: Vec<_> = self.sources.iter().map(Replica::lock).collect();
        let number = match choice {
            Choice::Lead | Choice::Beside => lead,
            Choice::Any if states[lead].load() == 0 => lead,
            Choice::Any => {
                let able = states.iter().enumerate().filter(|(_, state)| !state.is_dead());
                // Of those that have as few, the one that leads comes last: it has to confirm as well.
                let loads = able.map(|(number, state)| (state.load(), number == lead, number));
                loads.min().map_or(lead, |(.., number)| number)
            }
        };
        states[number].dialling += usize::from(choice != Choice::Beside);
        number
    }

    /// The numbers of all sources, the one that leads first, those that are known to be dead last.
    fn in_turn(&self) -> Vec<usize> {
        let (lead, count) = (self.lead(), self.sources.len());
        let mut numbers: Vec<_> = (0..count).map(|step| (lead + step) % count).collect();
        numbers.sort_by_key(|&number| self.sources[number].lock().is_dead());
        numbers
    }

    /// This source does not lead any longer, where another can be expected to.
    fn depose(&self, number: usize) {
        let next = self.in_turn().into_iter().find(|&other| other != number && !self.sources[other].lock().is_dead());
        if let Some(next) = next {
            // Another thread may have been faster.
            let _ = self.lead.compare_exchange(number, next, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

impl ConnectionSource for Replicas {
    fn peer_name(&self) -> String {
        let names: Vec<_> = self.sources.iter().map(|replica| replica.dialer.peer_name()).collect();
        names.join(" or ")
    }

    fn is_in_this_process(&self) -> bool {
        self.sources.iter().any(|replica| replica.dialer.is_in_this_process())
    }

    fn session(&self, terms: &Terms, ahead: Ahead<'_>, attempt: Attempt<'_>) -> Result<Session, NetError> {
        // Of those that go ahead, the others have their share.
        let connections = ahead.connections.div_ceil(u16::try_from(self.sources.len()).unwrap_or(1));
        let ahead = Ahead { connections, ..ahead };
        let mut first_error = None;
        for number in self.in_turn() {
            let replica = &self.sources[number];
            match replica.dialer.session(terms, ahead, attempt) {
                Ok(session) => {
                    self.lead.store(number, Ordering::Relaxed);
                    replica.lock().work();
                    return Ok(session.of_source(number));
                }
                Err(error) if error.is_transient() && !attempt.live.is_ended() => {
                    replica.note(&error);
                    first_error.get_or_insert(error);
                    if Instant::now() >= attempt.deadline {
                        break;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err(first_error.unwrap_or(NetError::Closed))
    }

    fn data(&self, session: &Session, choice: Choice, attempt: Attempt<'_>) -> Result<DataConnection, NetError> {
        let number = self.choose(choice);
        let data = self.sources[number].data(session, choice, attempt);
        if matches!(&data, Err(error) if error.is_transient() && !error.is_shortage()) {
            self.depose(number);
        }
        data.map(|data| data.of_source(number))
    }

    fn lead(&self) -> usize {
        self.lead.load(Ordering::Relaxed)
    }

    fn name_of(&self, number: usize) -> String {
        self.sources.get(number).map_or_else(String::new, |replica| replica.dialer.peer_name())
    }

    fn is_crowded(&self, number: usize) -> bool {
        let Some(load) = self.sources.get(number).map(|replica| replica.lock().load()) else { return false };
        self.sources.iter().any(|other| {
            let other = other.lock();
            !other.is_dead() && other.load() + 2 <= load
        })
    }

    fn broke(&self, number: usize, error: &NetError) {
        let Some(replica) = self.sources.get(number) else { return };
        let mut state = replica.lock();
        // Those that break together count as one.
        if !state.is_dead() {
            state.fail();
        }
        // Whoever is alive is not silent for so long.
        let is_of_no_use = state.failures >= BREAKS_MAX || matches!(error, NetError::TimedOut(_));
        drop(state);
        if is_of_no_use {
            self.depose(number);
        }
    }
}
