use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;

use fastcp_net::{Ahead, Attempt, Choice, ConnectionSource, DataConnection, Dialer, NetError, Session, Terms};

use super::{Line, Nth};
use crate::budget::{Allowance, Limits};
use crate::error::RunError;
use crate::settings::{Connections, LinkSettings, ServerSettings};
use crate::{Report, Server, Source};

/// A server of an empty tree in this process, and how often it was asked for what.
struct Counted {
    dialer: Dialer,
    sessions: AtomicUsize,
    /// Sessions that fail before the first that does not.
    failing: AtomicUsize,
    begun_ahead: AtomicU16,
}

impl Counted {
    fn new(failing: usize, report: &Report) -> Self {
        let tree = tempfile::tempdir().expect("temporary directory");
        let server = Arc::new(Server::new(Source::open(tree.path()).expect("open"), ServerSettings::default()));
        Self {
            dialer: Dialer::new(server.embedded(), Arc::clone(&report.wire)),
            sessions: AtomicUsize::new(0),
            failing: AtomicUsize::new(failing),
            begun_ahead: AtomicU16::new(0),
        }
    }
}

impl ConnectionSource for Counted {
    fn peer_name(&self) -> String {
        "the counted server".to_owned()
    }

    fn is_in_this_process(&self) -> bool {
        false
    }

    fn session(&self, terms: &Terms, ahead: Ahead<'_>, attempt: Attempt<'_>) -> Result<Session, NetError> {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        self.begun_ahead.store(ahead.connections, Ordering::Relaxed);
        if self.failing.load(Ordering::Relaxed) > 0 {
            self.failing.fetch_sub(1, Ordering::Relaxed);
            return Err(NetError::Closed);
        }
        self.dialer.session(terms, ahead, attempt)
    }

    fn data(&self, session: &Session, choice: Choice, attempt: Attempt<'_>) -> Result<DataConnection, NetError> {
        self.dialer.data(session, choice, attempt)
    }
}

fn report() -> Report {
    Report::new(sync_channel(1000).0)
}

fn opened<'a>(source: &'a Counted, report: &'a Report) -> Line<'a> {
    Line::open(source, &LinkSettings::default(), &Limits::NONE, report, Arc::default(), Ahead::NONE).expect("open")
}

fn lost() -> RunError {
    RunError::Net { during: "a test", source: NetError::Closed }
}

#[test]
fn a_session_is_tried_for_until_it_is_there() {
    let report = report();
    let source = Counted::new(2, &report);
    let line = opened(&source, &report);
    assert_eq!(source.sessions.load(Ordering::Relaxed), 3);
    assert_eq!(report.counters.reconnects.now(), 0, "there was nothing to connect again");
    assert_eq!(line.agreed.connections, 4);
}

#[test]
fn what_breaks_with_its_session_is_tried_again_on_a_new_one() {
    let report = report();
    let source = Counted::new(0, &report);
    let line = opened(&source, &report);
    let first = line.session();
    let mut seen = Vec::new();
    let tried = line.on_session(&mut line.patience(), |_, nth| {
        seen.push(nth);
        if seen.len() < 3 { Err(lost()) } else { Ok(7) }
    });
    assert_eq!(tried.expect("the third is the last"), 7);
    assert_eq!(seen, [Nth::First, Nth::Again, Nth::Again]);
    assert_eq!((source.sessions.load(Ordering::Relaxed), report.counters.reconnects.now()), (3, 2));
    assert!(!Arc::ptr_eq(&first, &line.session()));
    assert_eq!(first.agreed, line.session().agreed, "on the same terms");
}

#[test]
fn what_no_session_helps_is_not_tried_again() {
    let report = report();
    let source = Counted::new(0, &report);
    let line = opened(&source, &report);
    let mut tried = 0;
    let failed: Result<(), _> = line.on_session(&mut line.patience(), |_, _| {
        tried += 1;
        Err(RunError::Interrupted)
    });
    assert!(matches!(failed, Err(RunError::Interrupted)));
    assert_eq!((tried, source.sessions.load(Ordering::Relaxed)), (1, 1));
}

#[test]
fn no_more_connections_are_begun_ahead_than_there_are_descriptors_for() {
    let report = report();
    let source = Counted::new(0, &report);
    let settings = LinkSettings { connections: Connections::Fixed(8), ..LinkSettings::default() };
    let ahead = Ahead { frames: &[], connections: 8 };
    let limits = Limits { open_files: Allowance { max: 64, left: 40 }, ..Limits::NONE };
    let line = Line::open(&source, &settings, &limits, &report, Arc::default(), ahead).expect("open");
    let begun = source.begun_ahead.load(Ordering::Relaxed);
    assert!(begun < 8 && begun == line.budget.connections, "{begun}");
}
