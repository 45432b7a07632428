//! What a receiver tells the sender that dialled it, over connections that come and go.
//!
//! Events wait here until the sender says that it has them, so none is lost with a connection. There is room for so many and
//! no more: then whoever tells waits, as he does for a terminal. A sender that does not come back in time ends the run, and
//! what is told from then on is dropped.
//!
//! Who waits: the thread that tells, for room; the one that reports, for something to say and somebody to say it to. Both
//! are let go when the sender stays away for too long.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use fastcp_model::Status;
use fastcp_net::{Connection, NetError};
use fastcp_wire::frame::FrameType;
use fastcp_wire::report::{Numbered, ReportEnd, ReportState, Told, decode_seen};

use crate::interrupt::Interrupt;
use crate::link::patience::silence_max;
use crate::lock::{Lock, News};
use crate::report::{Event, Report, told};

/// Events that the sender has not seen, and their bytes.
const UNSEEN_MAX: usize = 4096;
const UNSEEN_BYTES_MAX: usize = 1 << 20;
/// How often it is told how far the receiver is, where that has changed.
const STATE_EVERY: Duration = Duration::from_millis(200);
/// And where it has not: so often it hears that the receiver lives.
const STATE_AT_LEAST_EVERY: Duration = Duration::from_secs(1);
/// How long a sender may take that was greeted, and has not come to hear anything yet.
const UNHEARD_MAX: Duration = Duration::from_secs(20);
/// The longest frame of a sender here: the number of an event.
const SENDER_FRAME_BYTES_MAX: usize = 16;

#[derive(Debug)]
pub(super) struct Relay {
    /// The first connection of the sender.
    control: Arc<Connection>,
    retry: Duration,
    outbox: Lock<Outbox>,
    /// For the thread that reports.
    work: News,
    /// For the thread that tells.
    room: News,
}

#[derive(Debug)]
struct Outbox {
    /// Payloads of events that the sender has not said it has, by their numbers.
    unseen: VecDeque<(u64, Vec<u8>)>,
    unseen_bytes: usize,
    /// The number of the last event.
    last: u64,
    lane: Option<Lane>,
    /// Since when there is no lane, where there is none.
    alone_since: Instant,
    was_heard: bool,
    /// Data connections that were asked for.
    called: u32,
    end: Option<Vec<u8>>,
    has_seen_end: bool,
    /// Nobody listens any more.
    is_deaf: bool,
    is_cancelled: bool,
    /// A sender that is gone cannot come back.
    is_last: bool,
}

/// The connection that reports leave by.
#[derive(Debug)]
struct Lane {
    connection: Arc<Connection>,
    /// The number of the last event that went out on it.
    sent: u64,
    told_called: u32,
    has_end: bool,
}

/// What is to be done next.
enum Next {
    Event(Arc<Connection>, Vec<u8>),
    State(Arc<Connection>, u32),
    /// After a last state.
    End(Arc<Connection>, u32, Vec<u8>),
    /// The run is to end.
    Interrupt,
    Over,
}

impl Relay {
    /// Nobody listens yet but whoever is at the other end of `control`; `retry` says how long somebody is waited for.
    pub(super) fn new(control: &Arc<Connection>, retry: Duration) -> Self {
        let outbox = Outbox {
            unseen: VecDeque::new(),
            unseen_bytes: 0,
            last: 0,
            lane: None,
            alone_since: Instant::now(),
            was_heard: false,
            called: 0,
            end: None,
            has_seen_end: false,
            is_deaf: false,
            is_cancelled: false,
            is_last: false,
        };
        Self {
            control: Arc::clone(control),
            retry,
            outbox: Lock::leaf(outbox),
            work: News::default(),
            room: News::default(),
        }
    }

    /// Whether the sender is there to hear, or, where it never was, about to be.
    pub(super) fn is_heard(&self) -> bool {
        let outbox = self.outbox.lock();
        outbox.lane.is_some() || (!outbox.was_heard && self.control.is_established())
    }

    /// A sender that is gone, or goes, will not be waited for.
    pub(super) fn set_last(&self) {
        let mut outbox = self.outbox.lock();
        outbox.is_last = true;
        self.work.tell(1);
    }

    /// So many data connections have been asked for.
    pub(super) fn called(&self, called: u32) {
        let mut outbox = self.outbox.lock();
        outbox.called = outbox.called.max(called);
        self.work.tell(1);
    }

    /// Takes events until their end.
    pub(super) fn tell_all(&self, events: &Receiver<Event>) {
        events.iter().filter_map(told).for_each(|event| self.tell(event));
    }

    fn tell(&self, event: Told) {
        let mut outbox = self.outbox.lock();
        while outbox.is_full() && !outbox.is_deaf {
            outbox = self.outbox.wait(&self.room, outbox);
        }
        outbox.last += 1;
        let number = outbox.last;
        if !outbox.is_deaf {
            let event = Numbered { number, event }.encode();
            outbox.unseen_bytes += event.len();
            outbox.unseen.push_back((number, event));
            self.work.tell(1);
        }
    }

    /// All was told; the run has come to this end. Only the first end counts.
    pub(super) fn end(&self, end: ReportEnd) {
        let mut outbox = self.outbox.lock();
        let end = ReportEnd { events: outbox.last, ..end };
        outbox.end.get_or_insert_with(|| end.encode());
        self.work.tell(1);
    }

    /// Sends what there is to be sent until the sender has seen the end, or stays away.
    pub(super) fn report(&self, report: &Report, interrupt: &Interrupt) {
        let mut pace = Pace { next: Instant::now(), sent: None, at: Instant::now() };
        loop {
            let sent = match self.next(pace.next) {
                Next::Over => return,
                Next::Interrupt => {
                    // Asked again for as long as there is no run yet that could hear it.
                    interrupt.ask();
                    continue;
                }
                Next::Event(lane, event) => sent(lane, |lane| lane.write_frame(FrameType::ReportEvent, &event)),
                Next::State(lane, called) => {
                    let state = report.state(called);
                    if pace.passes(&state) { sent(lane, |lane| pace.send(lane, state)) } else { Ok(()) }
                }
                Next::End(lane, called, end) => sent(lane, |lane| {
                    pace.send(lane, report.state(called))?;
                    lane.write_frame(FrameType::ReportEnd, &end)
                }),
            };
            if let Err((lane, error)) = sent {
                tracing::debug!(%error, "cannot report");
                self.lost(&lane);
            }
        }
    }

    /// What is to be sent, at the latest the state at this time.
    fn next(&self, state_due: Instant) -> Next {
        let mut outbox = self.outbox.lock();
        loop {
            let now = Instant::now();
            if outbox.has_seen_end {
                return Next::Over;
            }
            let alone_until = outbox.alone_since + outbox.alone_max(self.retry);
            let until = match outbox.next_on_lane(now >= state_due) {
                Some(next) => return next,
                // Whoever hears nothing more of a sender that has the end need not wait for ever.
                None if outbox.lane.is_some() => Some(state_due.max(now + STATE_EVERY)),
                None if now < alone_until => Some(alone_until),
                None if outbox.end.is_some() => return Next::Over,
                None if !outbox.is_deaf => {
                    tracing::info!("the sender has not come back; ending its run");
                    outbox.is_deaf = true;
                    (outbox.unseen, outbox.unseen_bytes) = (VecDeque::new(), 0);
                    self.room.tell(1);
                    return Next::Interrupt;
                }
                None => Some(now + STATE_EVERY),
            };
            outbox = self.outbox.wait_at_most(&self.work, outbox, until);
            if (outbox.is_cancelled || outbox.is_deaf) && outbox.end.is_none() {
                return Next::Interrupt;
            }
        }
    }

    /// Serves a connection that reports go out by, of a sender that has seen the events up to this one, until it ends.
    pub(super) fn serve(&self, connection: Arc<Connection>, seen: u64) -> Result<(), NetError> {
        let silence_max = Some(silence_max(self.retry));
        connection.set_timeouts(silence_max, None)?;
        self.attach(&connection, seen)?;
        let result = loop {
            match connection.read_frame_within(SENDER_FRAME_BYTES_MAX) {
                Ok((FrameType::ReportSeen, payload)) => match decode_seen(&payload) {
                    Ok(seen) => {
                        if let Err(error) = self.seen(seen) {
                            break Err(error);
                        }
                    }
                    Err(error) => break Err(error.into()),
                },
                Ok((FrameType::Cancel, _)) => {
                    let mut outbox = self.outbox.lock();
                    outbox.is_cancelled = true;
                    self.work.tell(1);
                }
                Ok((other, _)) => break Err(NetError::UnexpectedFrame(other)),
                Err(error) => break Err(error),
            }
        };
        // A sender that has broken a rule is told so before it is hung up on.
        self.detach(&connection);
        result
    }

    fn attach(&self, connection: &Arc<Connection>, seen: u64) -> Result<(), NetError> {
        let mut outbox = self.outbox.lock();
        let first = outbox.unseen.front().map_or(outbox.last + 1, |(number, _)| *number);
        if outbox.is_deaf {
            // Its run is ending, and what it had to tell is gone: whoever comes back begins anew.
            return Err(NetError::Refused(Status::UnknownTicket));
        }
        if seen + 1 < first || seen > outbox.last + u64::from(outbox.end.is_some()) {
            return Err(NetError::Refused(Status::BadRequest));
        }
        let lane = Lane { connection: Arc::clone(connection), sent: seen, told_called: 0, has_end: false };
        outbox.was_heard = true;
        if let Some(before) = outbox.lane.replace(lane) {
            before.connection.hang_up();
        }
        drop(outbox);
        self.seen(seen)
    }

    /// The sender has the events up to this one. The end counts as one behind the last.
    fn seen(&self, seen: u64) -> Result<(), NetError> {
        let mut outbox = self.outbox.lock();
        let is_end_out = outbox.end.is_some();
        if seen > outbox.last + u64::from(is_end_out) {
            return Err(NetError::Refused(Status::BadRequest));
        }
        outbox.has_seen_end |= is_end_out && seen > outbox.last;
        while outbox.unseen.front().is_some_and(|(number, _)| *number <= seen) {
            let event = outbox.unseen.pop_front();
            outbox.unseen_bytes -= event.map_or(0, |(_, event)| event.len());
        }
        self.room.tell(1);
        self.work.tell(1);
        Ok(())
    }

    fn lost(&self, connection: &Arc<Connection>) {
        self.detach(connection);
        connection.hang_up();
    }

    fn detach(&self, connection: &Arc<Connection>) {
        let mut outbox = self.outbox.lock();
        if outbox.lane.as_ref().is_some_and(|lane| Arc::ptr_eq(&lane.connection, connection)) {
            outbox.lane = None;
            outbox.alone_since = Instant::now();
            self.work.tell(1);
        }
    }
}

impl Outbox {
    fn is_full(&self) -> bool {
        self.unseen.len() >= UNSEEN_MAX || self.unseen_bytes >= UNSEEN_BYTES_MAX
    }

    /// How long the sender may be away.
    fn alone_max(&self, retry: Duration) -> Duration {
        match (self.is_last, self.was_heard) {
            (true, _) => Duration::ZERO,
            (false, true) => retry.max(STATE_AT_LEAST_EVERY),
            // It is owed no patience that has never shown any.
            (false, false) => retry.clamp(STATE_AT_LEAST_EVERY, UNHEARD_MAX),
        }
    }

    fn next_on_lane(&mut self, is_state_due: bool) -> Option<Next> {
        let called = self.called;
        let lane = self.lane.as_mut()?;
        let connection = || Arc::clone(&lane.connection);
        if lane.told_called < called {
            lane.told_called = called;
            return Some(Next::State(connection(), called));
        }
        // Before events, however many there are: they are shown with it.
        if is_state_due && self.end.is_none() {
            return Some(Next::State(connection(), called));
        }
        // Their numbers follow one another.
        let at = self.unseen.front().map_or(0, |(first, _)| (lane.sent + 1).saturating_sub(*first));
        if let Some((number, event)) = self.unseen.get(usize::try_from(at).unwrap_or(usize::MAX)) {
            lane.sent = *number;
            return Some(Next::Event(connection(), event.clone()));
        }
        match &self.end {
            Some(end) if !lane.has_end => {
                lane.has_end = true;
                Some(Next::End(connection(), called, end.clone()))
            }
            _ => None,
        }
    }
}

/// When the sender was last told how far the receiver is.
struct Pace {
    next: Instant,
    sent: Option<ReportState>,
    at: Instant,
}

impl Pace {
    /// Whether the state is worth telling now.
    fn passes(&mut self, state: &ReportState) -> bool {
        self.next = Instant::now() + STATE_EVERY;
        self.sent.as_ref() != Some(state) || self.at.elapsed() >= STATE_AT_LEAST_EVERY
    }

    fn send(&mut self, lane: &Connection, state: ReportState) -> Result<(), NetError> {
        self.at = Instant::now();
        lane.write_frame(FrameType::ReportState, &state.encode())?;
        self.sent = Some(state);
        Ok(())
    }
}

/// Sends, and names the connection where that fails.
fn sent(
    lane: Arc<Connection>,
    send: impl FnOnce(&Connection) -> Result<(), NetError>,
) -> Result<(), (Arc<Connection>, NetError)> {
    send(&lane).map_err(|error| (lane, error))
}
