//! The threads of one session of a push.
//!
//! What is this file's own is who dials: the control connection is made anew when it is lost, data connections are made as
//! the receiver calls for them, and what it reports is shown as if it had happened here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use fastcp_model::Status;
use fastcp_net::{Agreed, AttachRight, Attempt, Connection, Live, NetError, Session};
use fastcp_wire::WireError;
use fastcp_wire::frame::FrameType;
use fastcp_wire::hello::Lane;
use fastcp_wire::report::{Numbered, ReportEnd, ReportState, Told, encode_seen};

use super::Push;
use crate::error::{Ending, RunError};
use crate::interrupt::Listening;
use crate::link::patience::{Patience, absence_max, silence_max};
use crate::lock::Lock;
use crate::manifest::ManifestWriter;
use crate::report::{Limit, Report};
use crate::sender::answer::answer_ranges;
use crate::sender::offer::{OffersEnd, serve_offers};
use crate::threads::{Threads, spawn};

/// What an error says it happened during.
const HEARING: &str = "hearing from the receiver";
/// A receiver that has come to its end closes its connections, and says so on another one; so long it is waited for that.
const CLOSING_MAX: Duration = Duration::from_millis(500);
/// Events after which the receiver is told that they have arrived.
const SEEN_EVERY: u64 = 256;
/// So often the receiver hears that this end lives, even while whoever reads what is printed takes his time.
const ALIVE_EVERY: Duration = Duration::from_secs(1);
/// Of an interrupted run, how long the receiver may take to end it.
const ENDING_MAX: Duration = Duration::from_secs(30);

/// How a session ended.
pub(super) enum End {
    /// The receiver has come to its end.
    Ended,
    /// The receiver does not know it any more.
    Lost(NetError),
}

/// What the threads of one session share.
pub(super) struct Sending<'a> {
    push: &'a Push<'a>,
    report: &'a Report,
    manifest: Option<&'a ManifestWriter>,
    control: Lock<Option<Arc<Connection>>>,
    right: AttachRight,
    agreed: Agreed,
    live: Live,
    /// The connection that reports come on, while there is one.
    lane: Lock<Option<Arc<Connection>>>,
    /// The receiver is to end.
    is_cancelled: AtomicBool,
    /// The number of the last event that was heard.
    seen: AtomicU64,
    /// Why the session is lost.
    lost: Lock<Option<NetError>>,
    /// Threads that make or serve data connections.
    serving: AtomicU32,
    /// Data connections that were made, or are being made.
    dialled: AtomicU32,
}

impl<'a> Sending<'a> {
    pub(super) fn new(
        push: &'a Push<'a>,
        report: &'a Report,
        session: Session,
        manifest: Option<&'a ManifestWriter>,
    ) -> Self {
        let live = Live::default();
        live.adopt(&session.control);
        Self {
            push,
            report,
            manifest,
            right: session.attach_right(),
            agreed: session.agreed,
            control: Lock::leaf(Some(session.control)),
            live,
            lane: Lock::leaf(None),
            is_cancelled: AtomicBool::new(false),
            seen: AtomicU64::new(0),
            lost: Lock::leaf(None),
            serving: AtomicU32::new(0),
            dialled: AtomicU32::new(0),
        }
    }

    /// Serves the receiver until it has ended, or does not know the session any more.
    pub(super) fn run(&self, listening: &Listening) -> Result<End, RunError> {
        std::thread::scope(|threads| {
            let result = self.run_threads(threads, listening);
            self.live.end_all_but(None);
            listening.over();
            result
        })
    }

    fn run_threads<'scope>(
        &'scope self,
        threads: &'scope Threads<'scope, '_>,
        listening: &'scope Listening,
    ) -> Result<End, RunError> {
        let no_thread = RunError::no_thread;
        spawn(threads, "interrupt", || self.cancel_when_asked(listening)).map_err(no_thread)?;
        spawn(threads, "control", || self.serve_control()).map_err(no_thread)?;
        spawn(threads, "alive", || self.say_alive()).map_err(no_thread)?;
        let mut hearing = Hearing { seen: 0, unsaid: 0 };
        self.serve_data(threads, self.push.begin_with(self.agreed.connections).into());
        let mut patience = self.patience();
        loop {
            let heard = self.hear(threads, &mut hearing, &mut patience);
            *self.lane.lock() = None;
            if let Some(error) = self.lost.lock().take() {
                return Ok(End::Lost(error));
            }
            match heard {
                Ok(end) => return self.ended(&end).map(|()| End::Ended),
                Err(_) if self.is_cancelled.load(Ordering::Relaxed) => return Err(RunError::Interrupted),
                Err(RunError::Net { source, .. }) if source.is_transient() => {
                    self.report.reconnected();
                    if let Err(source) = patience.failed(source) {
                        // Another thread may have found out why.
                        return self
                            .lost
                            .lock()
                            .take()
                            .map_or_else(|| Err(self.gave_up(source)), |lost| Ok(End::Lost(lost)));
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn ended(&self, end: &ReportEnd) -> Result<(), RunError> {
        if let Some(limit) = Limit::from_code(end.limit) {
            self.report.set_limit(limit);
        }
        match (end.outcome, Ending::from_code(end.outcome)) {
            (0, _) => Ok(()),
            (_, Some(Ending::Interrupted)) if self.is_cancelled.load(Ordering::Relaxed) => Err(RunError::Interrupted),
            (_, ending) => {
                Err(RunError::AtReceiver { ending: ending.unwrap_or(Ending::Other), text: end.text.clone() })
            }
        }
    }

    fn say_alive(&self) {
        while self.live.pause(ALIVE_EVERY) {
            let lane = self.lane.lock().clone();
            // Whoever hears finds out what is wrong with it.
            drop(lane.map(|lane| self.say_seen(&lane, self.seen.load(Ordering::Relaxed))));
        }
    }

    fn say_seen(&self, lane: &Connection, seen: u64) -> Result<(), NetError> {
        lane.write_frame(FrameType::ReportSeen, &encode_seen(seen))
    }

    /// What ends a run that has tried for long enough.
    fn gave_up(&self, source: NetError) -> RunError {
        match source {
            source @ (NetError::Connect { .. } | NetError::Lookup { .. }) if source.is_transient() => {
                let address = self.push.dialer.endpoint().to_string();
                RunError::NoAnswer { address, seconds: self.push.link.retry.as_secs(), source }
            }
            source => RunError::Net { during: HEARING, source },
        }
    }

    /// Has the receiver end, once the run is asked to end; where it cannot be told, the run ends here.
    fn cancel_when_asked(&self, listening: &Listening) {
        if !listening.wait() {
            return;
        }
        self.is_cancelled.store(true, Ordering::Relaxed);
        let lane = self.lane.lock().clone();
        match lane.map(|lane| lane.write_frame(FrameType::Cancel, &[])) {
            Some(Ok(())) => {
                if self.live.pause(ENDING_MAX) {
                    self.live.end_all_but(None);
                }
            }
            _ => self.live.end_all_but(None),
        }
    }

    fn patience(&self) -> Patience<'_> {
        Patience::new(&self.live, self.report, self.push.dialer.endpoint().to_string(), self.push.link.retry)
    }

    fn attach(&self, lane: Lane, patience: &mut Patience<'_>) -> Result<Arc<Connection>, NetError> {
        let absence_max = absence_max(self.push.link.retry);
        let attached = patience.persist(|deadline| {
            let attempt = Attempt { live: &self.live, deadline, absence_max };
            self.push.dialer.lane(self.right, lane, attempt)
        });
        attached.inspect_err(|error| self.note_lost(error))
    }

    /// Whoever finds that the session is not known ends it for all.
    fn note_lost(&self, error: &NetError) {
        if matches!(error, NetError::Refused(Status::UnknownTicket)) {
            self.lost.lock().get_or_insert(NetError::Closed);
            self.live.end_all_but(None);
        }
    }

    /// Offers what the receiver asks for, over one control connection after another.
    fn serve_control(&self) {
        let mut patience = self.patience();
        loop {
            let kept = self.control.lock().take();
            let control = match kept.map_or_else(|| self.attach(Lane::Control, &mut patience), Ok) {
                Ok(control) => control,
                Err(error) => {
                    tracing::debug!(%error, "no control connection");
                    return;
                }
            };
            let served = serve_offers(&control, self.push.source, self.agreed);
            if self.live.is_ended() {
                return;
            }
            let error = match served {
                Ok(OffersEnd::Closed) if self.live.pause(CLOSING_MAX) => NetError::Closed,
                Ok(OffersEnd::Closed) => return,
                Ok(OffersEnd::Attach(_)) => NetError::UnexpectedFrame(FrameType::Attach),
                Err(error) => error,
            };
            tracing::debug!(%error, "control connection lost");
            if patience.failed(error).is_err() {
                return;
            }
        }
    }

    /// Makes data connections until there are as many as were called for.
    fn serve_data<'scope>(&'scope self, threads: &'scope Threads<'scope, '_>, called: u32) {
        // A receiver lets connections rest, and some are dead before it knows; more than these it does not need.
        let serving_max = 2 * u32::from(self.agreed.connections) + 2;
        while self.dialled.load(Ordering::Relaxed) < called && self.serving.load(Ordering::Relaxed) < serving_max {
            self.serving.fetch_add(1, Ordering::Relaxed);
            self.dialled.fetch_add(1, Ordering::Relaxed);
            let started = spawn(threads, "serve", || {
                self.serve_one();
                self.serving.fetch_sub(1, Ordering::Relaxed);
            });
            if let Err(error) = started {
                self.serving.fetch_sub(1, Ordering::Relaxed);
                self.dialled.fetch_sub(1, Ordering::Relaxed);
                tracing::warn!(%error, "cannot start a thread for one more connection");
                return;
            }
        }
    }

    fn serve_one(&self) {
        let attached = self.attach(Lane::Data, &mut self.patience());
        if attached.is_err() {
            // It is still called for.
            self.dialled.fetch_sub(1, Ordering::Relaxed);
        }
        let served = attached.and_then(|connection| {
            connection.set_timeouts(None, None)?;
            answer_ranges(&connection, self.push.source, self.agreed, self.push.compression)
        });
        if let Err(error) = served {
            tracing::debug!(%error, "data connection ended");
        }
    }

    /// Hears what the receiver reports, until its end or that of the connection.
    fn hear<'scope>(
        &'scope self,
        threads: &'scope Threads<'scope, '_>,
        hearing: &mut Hearing,
        patience: &mut Patience<'_>,
    ) -> Result<ReportEnd, RunError> {
        let failed = |source| RunError::Net { during: HEARING, source };
        let lane = self.attach(Lane::Report { seen: hearing.seen }, patience).map_err(failed)?;
        let silence_max = Some(silence_max(self.push.link.retry));
        lane.set_timeouts(silence_max, silence_max).map_err(failed)?;
        *self.lane.lock() = Some(Arc::clone(&lane));
        if self.is_cancelled.load(Ordering::Relaxed) {
            lane.write_frame(FrameType::Cancel, &[]).map_err(failed)?;
        }
        loop {
            let (frame_type, payload) = lane.read_frame().inspect_err(|error| self.note_lost(error)).map_err(failed)?;
            let invalid = |error: WireError| failed(error.into());
            match frame_type {
                FrameType::ReportEvent => {
                    let Numbered { number, event } = Numbered::decode(&payload).map_err(invalid)?;
                    if number != hearing.seen + 1 {
                        return Err(invalid(WireError::Value { field: "number", value: number }));
                    }
                    hearing.seen = number;
                    self.seen.store(number, Ordering::Relaxed);
                    hearing.unsaid += 1;
                    self.take(event)?;
                }
                FrameType::ReportState => {
                    let state = ReportState::decode(&payload).map_err(invalid)?;
                    if self.report.take_state(&state) {
                        self.report.wire.progressed();
                    }
                    self.serve_data(threads, state.called);
                }
                FrameType::ReportEnd => {
                    let end = ReportEnd::decode(&payload).map_err(invalid)?;
                    if end.events != hearing.seen {
                        return Err(invalid(WireError::Value { field: "events", value: end.events }));
                    }
                    // Should it get lost, the receiver waits for this end in vain, and no more.
                    drop(self.say_seen(&lane, end.events + 1));
                    return Ok(end);
                }
                other => return Err(failed(NetError::UnexpectedFrame(other))),
            }
            if hearing.unsaid >= SEEN_EVERY {
                hearing.unsaid = 0;
                self.say_seen(&lane, hearing.seen).map_err(failed)?;
            }
        }
    }

    fn take(&self, told: Told) -> Result<(), RunError> {
        let (manifest, line) = match (self.manifest, told) {
            (Some(manifest), Told::Recorded(line)) => (manifest, line),
            (None, Told::Recorded(_)) => return Ok(()),
            (_, told) => {
                self.report.take_told(told);
                return Ok(());
            }
        };
        match manifest.put_line(&line) {
            Some(put) => put.map_err(RunError::from),
            None => {
                let source = WireError::Value { field: "record", value: 0 }.into();
                Err(RunError::Net { during: "recording", source })
            }
        }
    }
}

/// What was heard so far.
struct Hearing {
    /// The number of the last event.
    seen: u64,
    /// Events since the receiver was told.
    unsaid: u64,
}
