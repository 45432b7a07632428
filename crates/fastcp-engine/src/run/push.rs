//! The way in for whoever has a tree brought to a server: this end dials and sends, and the other one receives and drives.
//!
//! The sender answers here as it does anywhere (`sender/`). One session after another is opened until the receiver has come
//! to its end; the threads of one are in `push/sending.rs`.

use std::sync::Arc;

use fastcp_model::{Name, RelPath};
use fastcp_net::{Ahead, Attempt, Dialer, Live, NetError, Session, Terms};
use fastcp_wire::frame::{FrameType, encode_frame};
use fastcp_wire::hello::Role;
use fastcp_wire::limits::CONNECTIONS_MAX;
use fastcp_wire::offer::Place;
use fastcp_wire::push;

use crate::error::RunError;
use crate::interrupt::Interrupt;
use crate::link::patience::{Patience, absence_max};
use crate::manifest::ManifestWriter;
use crate::report::Report;
use crate::run::push::sending::{End, Sending};
use crate::schedule::tune::Tuner;
use crate::sender::source::Source;
use crate::settings::orders::Orders;
use crate::settings::{Compression, Connections, LinkSettings, ReceivePath, ReceiverSettings, Recording};

mod sending;

/// A tree to be brought to a server that takes it.
#[must_use = "nothing happens before it is run"]
pub struct Push<'a> {
    dialer: &'a Dialer,
    source: &'a Source,
    offer: Place,
    into: RelPath,
    new_name: Option<Name>,
    receiver: ReceiverSettings,
    receive_path: ReceivePath,
    link: LinkSettings,
    compression: Compression,
    interrupt: Option<&'a Interrupt>,
}

impl<'a> Push<'a> {
    /// This part of a tree, to be brought to `into` beneath the root of the server that is dialled.
    pub fn new(dialer: &'a Dialer, source: &'a Source, offer: Place, into: RelPath) -> Self {
        Self {
            dialer,
            source,
            offer,
            into,
            new_name: None,
            receiver: ReceiverSettings::default(),
            receive_path: ReceivePath::Auto,
            link: LinkSettings::default(),
            compression: Compression::Adaptive,
            interrupt: None,
        }
    }

    /// The one file that is sent gets this name, unless that is a directory there. The source has to know it by that name,
    /// too ([`Source::also_called`]).
    pub fn renamed(mut self, name: Name) -> Self {
        self.new_name = Some(name);
        self
    }

    /// What the receiver is told. A manifest is kept here.
    pub fn receiver(mut self, settings: ReceiverSettings) -> Self {
        self.receiver = settings;
        self
    }

    /// How the receiver takes bodies.
    pub fn receive_path(mut self, receive_path: ReceivePath) -> Self {
        self.receive_path = receive_path;
        self
    }

    /// How the session is made.
    pub fn link(mut self, settings: LinkSettings) -> Self {
        self.link = settings;
        self
    }

    /// How ranges are compressed.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// What may end the run from outside.
    pub fn interrupt(mut self, interrupt: &'a Interrupt) -> Self {
        self.interrupt = Some(interrupt);
        self
    }

    /// Brings the tree over.
    ///
    /// # Errors
    /// What ended the run, here or at the receiver. Failures of single files are in the report instead.
    pub fn run(&self, report: &Report) -> Result<(), RunError> {
        self.run_as(report, false)
    }

    /// Tells what [`Push::run`] would do, and does nothing.
    ///
    /// # Errors
    /// What would have ended the run.
    pub fn preview(&self, report: &Report) -> Result<(), RunError> {
        report.set_dry_run();
        self.run_as(report, true)
    }

    fn run_as(&self, report: &Report, is_dry_run: bool) -> Result<(), RunError> {
        let manifest = match &self.receiver.manifest {
            Some(Recording::File(file)) if !is_dry_run => Some(ManifestWriter::open(file)?),
            _ => None,
        };
        let told = ReceiverSettings {
            manifest: manifest.as_ref().map(|manifest| Recording::Told(manifest.hash())),
            ..self.receiver.clone()
        };
        let orders = Orders {
            receiver: told,
            is_dry_run,
            is_tuned: self.link.connections == Connections::Auto,
            retry: self.link.retry,
            receive_path: self.receive_path,
        };
        let frame = push::Push {
            offer: self.offer.clone(),
            into: self.into.clone(),
            new_name: self.new_name.clone(),
            settings: orders.encode(),
            rules: self.receiver.filter.to_vec(),
        };
        let encoded = frame.encode().and_then(|payload| encode_frame(FrameType::Push, &payload));
        let frame = encoded.map_err(|error| opening(error.into()))?;
        let alone = Interrupt::default();
        let interrupt = self.interrupt.unwrap_or(&alone);
        let result = self.run_sessions(report, &frame, interrupt, manifest.as_ref());
        let recorded = manifest.as_ref().map_or(Ok(()), ManifestWriter::finish);
        result.and(recorded.map_err(RunError::from))
    }

    /// One session after another: a server that was started again knows nothing of the one before.
    fn run_sessions(
        &self,
        report: &Report,
        frame: &[u8],
        interrupt: &Interrupt,
        manifest: Option<&ManifestWriter>,
    ) -> Result<(), RunError> {
        let listening = interrupt.listen();
        let mut is_incomplete = false;
        let retry = self.link.retry;
        let opening_live = Arc::new(Live::default());
        let address = self.dialer.endpoint().to_string();
        let mut patience = Patience::new(&opening_live, report, address.clone(), retry);
        loop {
            let open = || {
                let attempt = |deadline| Attempt { live: &opening_live, deadline, absence_max: absence_max(retry) };
                let open = |deadline| self.open(frame, attempt(deadline));
                patience.persist(open).map_err(|source| match source.is_transient() {
                    true => RunError::NoAnswer { address: address.clone(), seconds: retry.as_secs(), source },
                    false => opening(source),
                })
            };
            let session = listening.while_opening(&opening_live, open)?;
            let sending = Sending::new(self, report, session, manifest);
            let watching = interrupt.listen();
            if listening.was_asked() {
                return Err(RunError::Interrupted);
            }
            match sending.run(&watching)? {
                End::Ended if is_incomplete => {
                    return manifest.map_or(Ok(()), |manifest| Err(manifest.incomplete().into()));
                }
                End::Ended => return Ok(()),
                End::Lost(error) => {
                    // What has its name by now is unchanged to the next receiver, and no record is made of it.
                    is_incomplete = manifest.is_some();
                    report.begin_again();
                    tracing::debug!(%error, "the server does not know the session any more");
                    report.reconnected();
                    patience.failed(error).map_err(|error| RunError::Net { during: "sending", source: error })?;
                }
            }
        }
    }

    fn open(&self, frame: &[u8], attempt: Attempt<'_>) -> Result<Session, NetError> {
        let connections = match self.link.connections {
            Connections::Fixed(connections) => connections,
            Connections::Auto => CONNECTIONS_MAX,
        };
        let terms = Terms { capabilities: self.link.capabilities, connections, chunk_kb: self.link.chunk_kb };
        let ahead = Ahead { frames: frame, connections: self.begin_with(connections) };
        self.dialer.session_as(Role::Sender, &terms, ahead, attempt)
    }

    /// How many data connections are made before they are called for.
    fn begin_with(&self, agreed: u16) -> u16 {
        match self.link.connections {
            Connections::Fixed(_) => agreed,
            Connections::Auto => Tuner::new(agreed).active(),
        }
    }
}

fn opening(source: NetError) -> RunError {
    RunError::Net { during: "opening the session", source }
}
