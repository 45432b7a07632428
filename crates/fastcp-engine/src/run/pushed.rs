//! A receiver for whoever dials and sends: the other end of `push.rs`.
//!
//! The connection that said HELLO is the control connection. What was sent behind it says what is to be received, where
//! and how; what this server allows has the last word. From then on the receiver runs as it does anywhere. Its connections
//! come from the peer, and what it has to say goes to the peer.

use std::path::{Component, Path};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use fastcp_model::{Escaped, RelPath, STATE_DIR, Status};
use fastcp_net::{Callers, Connection, Lanes, NetError, SessionGuard, Sessions};
use fastcp_sys::Root;
use fastcp_wire::frame::FrameType;
use fastcp_wire::hello::{Failure, Hello, Lane};
use fastcp_wire::limits::PUSH_BYTES_MAX;
use fastcp_wire::offer::{self, Scope};
use fastcp_wire::push::Push;
use fastcp_wire::report::ReportEnd;

use crate::budget::{Budget, Limited, Limits};
use crate::error::{Ending, RunError};
use crate::interrupt::Interrupt;
use crate::report::{Event, Report};
use crate::run::places::{Extent, Holder, Place, Places};
use crate::run::preview::preview;
use crate::run::receiver::{Task, receive};
use crate::run::relay::Relay;
use crate::run::server::is_expected;
use crate::settings::orders::Orders;
use crate::settings::{Connections, LinkSettings, ProcessSettings, SetUid, Writes};
use crate::target::destination_path::DestinationPath;
use crate::threads::spawn;

/// Events that may wait to be told.
const EVENTS_AHEAD: usize = 256;

/// What a server has for those who push to it.
pub(super) struct Host<'a> {
    pub(super) root: &'a Root,
    pub(super) writes: Writes,
    pub(super) setuid: SetUid,
    pub(super) sessions: &'a Sessions,
    pub(super) places: &'a Places,
    pub(super) handshake_timeout: Duration,
}

/// Takes the connections of one push.
#[derive(Debug)]
struct Pushed {
    callers: Callers,
    relay: Arc<Relay>,
    report: Arc<Report>,
}

impl Lanes for Pushed {
    fn take(&self, connection: Arc<Connection>, lane: Lane) -> Result<(), NetError> {
        connection.count_into(&self.report.wire);
        match lane {
            Lane::Data => self.callers.give_data(connection),
            Lane::Control => self.callers.give_control(connection),
            Lane::Report { seen } => return self.relay.serve(connection, seen),
        }
        Ok(())
    }

    fn end(&self) {
        self.relay.set_last();
    }
}

impl Host<'_> {
    /// Receives what the peer on this connection has to send.
    pub(super) fn receive(&self, control: &Arc<Connection>, hello: &Hello) -> Result<(), NetError> {
        if self.writes == Writes::Refused {
            let detail = "this server is read-only; it takes pushes only if it was started with --allow-write";
            return Err(denied(Status::Unauthorised, detail));
        }
        let push = read_push(control, self.handshake_timeout)?;
        let orders = self.lawful(&push)?;
        let (into, offer) = self.destination_of(push)?;
        let limits = Limits::of_process().halved();
        let budget = Budget::of(Connections::Fixed(hello.connections), &limits, false);
        if !self.sessions.can_receive() || (budget.connections == 0 && self.sessions.is_empty()) {
            let detail = "this server has too few open files, threads or too little memory to receive anything";
            return Err(denied(Status::Busy, detail));
        }
        if budget.connections == 0 {
            // Others have what it takes.
            return Err(NetError::Refused(Status::Busy));
        }
        let relay = Arc::new(Relay::new(control, orders.retry));
        let interrupt = Arc::new(Interrupt::default());
        let extent = extent_of(&into, &offer, &orders);
        let holder = Holder::new(extent, control.peer(), Arc::clone(&relay), Arc::clone(&interrupt));
        let occupied = |error: &dyn std::fmt::Display| denied(Status::InUse, error);
        let place = self.places.take(holder).map_err(|error| occupied(&error))?;
        if !control.is_established() {
            // It took long, and the sender has given up.
            return Err(NetError::Closed);
        }
        let session = self.sessions.agree(control, &Hello { connections: budget.connections, ..hello.clone() })?;
        let path = DestinationPath::Beneath(self.root, into);
        let limited = budget.limited;
        let run = Run { session, place: Some(place), path, offer, orders, limits, limited, relay, interrupt };
        run.run(control)
    }

    /// What the receiver is told, as far as this server allows it.
    fn lawful(&self, push: &Push) -> Result<Orders, NetError> {
        let mut orders = Orders::decode(&push.settings).map_err(|error| denied(Status::BadRequest, &error))?;
        orders.receiver.setuid = self.setuid;
        orders.receiver.filter = push.rules.clone().into();
        if orders.receiver.deletion.is_some() && self.writes != Writes::DeletionAllowed {
            let detail =
                "--delete is not allowed here; this server allows it only if it was started with --allow-delete";
            return Err(denied(Status::Unauthorised, detail));
        }
        let is_below = |dir: &Path| dir.components().all(|part| matches!(part, Component::Normal(_)));
        match &orders.receiver.backup_dir {
            Some(dir) if !is_below(dir) => {
                let detail = "--backup-dir has to be a relative path without \"..\": it is below the destination";
                Err(denied(Status::Unauthorised, detail))
            }
            _ => Ok(orders),
        }
    }

    /// Where it goes, and what the sender is asked for. A file that is to get a new name goes into a directory of that name
    /// where there is one.
    fn destination_of(
        &self,
        Push { mut into, mut offer, new_name, .. }: Push,
    ) -> Result<(RelPath, offer::Place), NetError> {
        if offer.scope == Scope::Level {
            return Err(denied(Status::BadRequest, "a push of one level of a tree is not possible"));
        }
        if let Some(name) = new_name {
            let named = into.join(&name);
            if self.root.beneath(&named).is_ok() {
                into = named;
            } else {
                let parent = offer.path.split().map_or_else(RelPath::root, |(parent, _)| parent);
                offer.path = parent.join(&name);
            }
        }
        if into.names().any(|name| name.as_bytes() == STATE_DIR) {
            return Err(denied(Status::BadRequest, "the destination is fastcp's own directory"));
        }
        Ok((into, offer))
    }
}

/// What a push writes to: the entry that it was given by name, or the directory that everything goes into. There lie the
/// backups, too.
fn extent_of(into: &RelPath, offer: &offer::Place, orders: &Orders) -> Extent {
    match (offer.scope, offer.path.split()) {
        (Scope::Itself, Some((_, name))) if orders.receiver.backup_dir.is_none() => Extent::entry(into, &name),
        _ => Extent::whole(into),
    }
}

/// One push.
struct Run<'a> {
    session: SessionGuard,
    place: Option<Place<'a>>,
    path: DestinationPath<'a>,
    offer: offer::Place,
    orders: Orders,
    limits: Limits,
    /// Where that is less than was asked for.
    limited: Option<Limited>,
    relay: Arc<Relay>,
    interrupt: Arc<Interrupt>,
}

impl Run<'_> {
    /// Agrees on the session, receives, and reports until the sender knows the end.
    fn run(mut self, control: &Arc<Connection>) -> Result<(), NetError> {
        let (events, heard) = sync_channel(EVENTS_AHEAD);
        let report = Arc::new(Report::new(events));
        control.count_into(&report.wire);
        let relay = Arc::clone(&self.relay);
        let called = Box::new(move |called| relay.called(called));
        let callers = Callers::new(Arc::clone(control), self.session.agreed, self.session.ticket(), called);
        let pushed = Arc::new(Pushed { callers, relay: Arc::clone(&self.relay), report: Arc::clone(&report) });
        let lanes: Arc<dyn Lanes> = Arc::clone(&pushed) as Arc<dyn Lanes>;
        self.session.received_by(&lanes);
        self.session.reply(control)?;
        let (relay, interrupt) = (&Arc::clone(&self.relay), &Arc::clone(&self.interrupt));
        tracing::info!(into = self.path.shown(), connections = self.session.agreed.connections, "receiving");
        let result = std::thread::scope(|threads| {
            let telling = spawn(threads, "tell", move || relay.tell_all(&heard));
            let reporting = spawn(threads, "report", || relay.report(&report, interrupt));
            let (Ok(telling), Ok(_reporting)) = (telling, reporting) else {
                report.close();
                relay.end(failed());
                return Err(NetError::Refused(Status::Busy));
            };
            let _ended = EndOnPanic(relay);
            let result = {
                let _closing = Closing(&report);
                if let Some(limited) = self.limited {
                    report.tell(Event::Limited(limited));
                }
                self.receive(&pushed.callers, &report)
            };
            // The sender may be told of the end later, or never; others need not wait for that.
            self.place = None;
            drop(telling.join());
            relay.end(ended(&result, &report));
            Ok(result)
        });
        pushed.callers.end();
        match &result {
            Ok(Ok(())) => tracing::info!(files = report.counters.files_committed.now(), "received"),
            Ok(Err(error @ RunError::Net { source, .. })) if !is_expected(source) => {
                tracing::warn!(%error, "receiving ended");
            }
            Ok(Err(error)) => tracing::info!(%error, "receiving ended"),
            Err(_) => {}
        }
        result.map(drop)
    }

    fn receive(&self, source: &Callers, report: &Report) -> Result<(), RunError> {
        let agreed = self.session.agreed;
        let connections = match self.orders.is_tuned {
            true => Connections::Auto,
            false => Connections::Fixed(agreed.connections),
        };
        let task = Task {
            source,
            request: self.offer.clone().into(),
            into: self.path.clone(),
            receiver: self.orders.receiver.clone(),
            link: LinkSettings {
                capabilities: agreed.capabilities,
                connections,
                chunk_kb: Some(agreed.chunk_kb),
                retry: self.orders.retry,
            },
            process: ProcessSettings { limits: self.limits, receive_path: self.orders.receive_path },
        };
        match self.orders.is_dry_run {
            true => preview(&task, &self.interrupt, report),
            false => receive(&task, &self.interrupt, report),
        }
    }
}

/// However a run ends, be it by a panic, whoever hears of it gets to the end.
struct Closing<'a>(&'a Report);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// A receiver that panics has come to an end like any other, as far as its sender is concerned.
struct EndOnPanic<'a>(&'a Relay);

impl Drop for EndOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.end(failed());
        }
    }
}

/// What a run ends with that has failed through no fault of the sender.
fn failed() -> ReportEnd {
    let text = "the receiver failed; its log says more".to_owned();
    ReportEnd { events: 0, outcome: Ending::Other.code(), text, limit: 0 }
}

fn ended(result: &Result<(), RunError>, report: &Report) -> ReportEnd {
    let (outcome, text) = match result {
        Ok(()) => (0, String::new()),
        Err(error) => (error.ending().code(), error.to_string()),
    };
    ReportEnd { events: 0, outcome, text, limit: report.limited_by().code() }
}

fn read_push(control: &Connection, timeout: Duration) -> Result<Push, NetError> {
    control.set_timeouts(Some(timeout), Some(timeout))?;
    match control.read_frame_within_by(PUSH_BYTES_MAX, Instant::now() + timeout) {
        Ok((FrameType::Push, payload)) => {
            Push::decode(&payload).map_err(|error| denied(Status::BadRequest, format!("invalid push: {error}")))
        }
        Ok((other, _)) => Err(NetError::UnexpectedFrame(other)),
        Err(error) => Err(error),
    }
}

fn denied(status: Status, detail: impl std::fmt::Display) -> NetError {
    Failure { status, detail: Escaped(detail.to_string().as_bytes()).to_string() }.into()
}
