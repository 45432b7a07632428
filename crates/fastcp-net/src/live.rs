//! The connections of one run, and the waits between them: all of it can be ended at once, from any thread.
//!
//! A stream is known from before it is connected: connecting, being greeted and reading may each take a while, and
//! whoever ends the run need not wait for any of it.

use std::collections::VecDeque;
use std::net::Shutdown;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use socket2::Socket;

use crate::{Connection, NetError};

/// The connections that are open or being made.
#[derive(Debug, Default)]
pub struct Live {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    streams: Vec<Weak<Socket>>,
    /// Connections on their way that nobody has asked for yet. The first are those that a server has room for.
    begun: VecDeque<Begun>,
    is_ended: bool,
}

/// A connection on its way.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) stream: Arc<Socket>,
    pub(crate) since: Instant,
    /// The name of the endpoint that it leads to.
    to: String,
}

impl Live {
    /// Takes note of a stream, for as long as somebody uses it.
    pub(crate) fn keep(&self, stream: &Arc<Socket>) -> Result<(), NetError> {
        let mut state = self.lock();
        if state.is_ended {
            return Err(NetError::Closed);
        }
        state.streams.retain(|weak| weak.strong_count() > 0);
        state.streams.push(Arc::downgrade(stream));
        Ok(())
    }

    /// Takes note of a connection that was made elsewhere.
    pub fn adopt(&self, connection: &Connection) {
        // Where all is ended, it is ended with the next look at it.
        if self.keep(&connection.shared_stream()).is_err() {
            connection.hang_up();
        }
    }

    /// Keeps a connection that is on its way, for whoever asks next.
    pub(crate) fn keep_begun(&self, stream: Arc<Socket>, to: &str) {
        self.lock().begun.push_back(Begun { stream, since: Instant::now(), to: to.to_owned() });
    }

    /// The connection to this endpoint that was begun first of those that nobody has asked for.
    pub(crate) fn take_begun(&self, to: &str) -> Option<Begun> {
        let mut state = self.lock();
        let at = state.begun.iter().position(|begun| begun.to == to)?;
        state.begun.remove(at)
    }

    /// No more than this many will be asked for.
    pub(crate) fn drop_begun_beyond(&self, count: u16) {
        self.lock().begun.truncate(count.into());
    }

    /// Ends all connections but this one, those to come, and all waits.
    pub fn end_all_but(&self, kept: Option<&Connection>) {
        let mut state = self.lock();
        state.is_ended = true;
        state.begun.clear();
        self.ended.notify_all();
        for stream in state.streams.iter().filter_map(Weak::upgrade) {
            if kept.is_none_or(|kept| !Arc::ptr_eq(&kept.shared_stream(), &stream)) {
                // Also wakes whoever waits for it to be connected. One that is gone already needs no end.
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }

    /// Whether everything was ended.
    pub fn is_ended(&self) -> bool {
        self.lock().is_ended
    }

    /// Waits for a while. `false`, at once, where everything is ended.
    pub fn pause(&self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        let mut state = self.lock();
        while !state.is_ended {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            state = self.ended.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Live;

    #[test]
    fn an_end_ends_waits_and_those_to_come() {
        let live = Live::default();
        assert!(live.pause(Duration::ZERO));
        std::thread::scope(|threads| {
            let waiting = threads.spawn(|| live.pause(Duration::from_secs(600)));
            live.end_all_but(None);
            assert!(!waiting.join().expect("join"));
        });
        let start = Instant::now();
        assert!(!live.pause(Duration::from_secs(600)));
        assert!(live.is_ended() && start.elapsed() < Duration::from_secs(300));
    }
}
