//! The way in for whoever has a tree copied or compared: what, from where, to where, and under which settings.

use std::path::Path;

use fastcp_model::RelPath;
use fastcp_net::ConnectionSource;
use fastcp_wire::offer::{Place, Scope};

use crate::error::RunError;
use crate::interrupt::Interrupt;
use crate::report::Report;
use crate::run::receiver::Task;
use crate::run::{preview, receiver};
use crate::settings::{LinkSettings, ProcessSettings, ReceiverSettings};
use crate::target::destination_path::DestinationPath;

/// A tree to be brought into a directory.
///
/// Nothing is printed and nothing outside the destination is changed; what happens is in the [`Report`]. Several may
/// run at a time in one process, into different destinations.
///
/// ```
/// use std::sync::{Arc, mpsc::sync_channel};
///
/// use fastcp_engine::{Dialer, Pull, Report, Server, ServerSettings, Source};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let top = tempfile::tempdir()?;
/// # let (from, into) = (top.path().join("from"), top.path().join("into"));
/// # std::fs::create_dir(&from)?;
/// # std::fs::write(from.join("file"), "bytes")?;
/// let (events, told) = sync_channel(16);
/// let report = Report::new(events);
/// std::thread::spawn(move || told.iter().for_each(|event| eprintln!("{event:?}")));
/// let server = Arc::new(Server::new(Source::open(&from)?, ServerSettings::default()));
/// let dialer = Dialer::new(server.embedded(), Arc::clone(&report.wire));
/// Pull::new(&dialer, &into).run(&report)?;
/// assert_eq!(report.counters.files_committed.now(), 1);
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing happens before it is run"]
pub struct Pull<'a> {
    task: Task<'a>,
    interrupt: Option<&'a Interrupt>,
}

impl<'a> Pull<'a> {
    /// All of what `source` offers, into this directory, which is made where it is missing.
    pub fn new(source: &'a dyn ConnectionSource, into: impl AsRef<Path>) -> Self {
        let task = Task {
            source,
            request: Place { path: RelPath::root(), scope: Scope::Contents }.into(),
            into: DestinationPath::Typed(into.as_ref().to_path_buf()),
            receiver: ReceiverSettings::default(),
            link: LinkSettings::default(),
            process: ProcessSettings::default(),
        };
        Self { task, interrupt: None }
    }

    /// Only this path of the sender's tree, its contents or itself.
    pub fn part(mut self, path: RelPath, scope: Scope) -> Self {
        self.task.request.place = Place { path, scope };
        self
    }

    /// What the receiver is told. Its filter rules are the sender's, too.
    pub fn receiver(mut self, settings: ReceiverSettings) -> Self {
        self.task.request.rules = settings.filter.to_vec();
        self.task.receiver = settings;
        self
    }

    /// How the session is made.
    pub fn link(mut self, settings: LinkSettings) -> Self {
        self.task.link = settings;
        self
    }

    /// What there is to be had of the process.
    pub fn process(mut self, settings: ProcessSettings) -> Self {
        self.task.process = settings;
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
    /// What ended the run. Failures of single files are in the report instead.
    pub fn run(&self, report: &Report) -> Result<(), RunError> {
        let alone = Interrupt::default();
        receiver::receive(&self.task, self.interrupt.unwrap_or(&alone), report)
    }

    /// Tells what [`Pull::run`] would do, and does nothing.
    ///
    /// # Errors
    /// What would have ended the run. Failures of single entries are in the report instead.
    pub fn preview(&self, report: &Report) -> Result<(), RunError> {
        preview::preview(&self.task, self.interrupt.unwrap_or(&Interrupt::default()), report)
    }
}
