//! A transfer without its threads, for tests of what they call.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use fastcp_model::{ChunkGrid, Metadata, Name, RelPath, Timestamp};
use fastcp_net::{Ahead, Dialer, Endpoint};
use fastcp_sys::Dir;
use tempfile::TempDir;

use super::Transfer;
use crate::commit::group::Groups;
use crate::content::cutter::Cutter;
use crate::link::line::Line;
use crate::manifest::Recorder;
use crate::schedule::job::FileJob;
use crate::schedule::{Bounds, Bundling, Cut, HoldBack, Schedule};
use crate::settings::{
    Connections, LinkSettings, ManifestFile, ReceivePath, ReceiverSettings, Recording, ServerSettings,
};
use crate::target::destination::Destination;
use crate::target::destination_path::DestinationPath;
use crate::target::dirs::{Age, DirState};
use crate::target::owners::Owners;
use crate::{Event, Limits, Report, Server, Source};

pub(crate) fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).expect("lawful")
}

pub(crate) fn path(text: &str) -> RelPath {
    RelPath::new(text.as_bytes()).expect("lawful")
}

/// Metadata with this mode and whole seconds; the owner is whoever runs the test.
pub(crate) fn metadata(mode: u16, secs: i64) -> Metadata {
    let own = fs::metadata("/proc/self").expect("examine");
    Metadata { mode, uid: own.uid(), gid: own.gid(), mtime: Timestamp::new(secs, 0).expect("lawful") }
}

/// A destination, and a sender with an empty tree at the other end of a session.
pub(crate) struct Stage {
    /// Has the destination `into`, and room for what lies outside of it.
    pub(crate) top: TempDir,
    pub(crate) settings: ReceiverSettings,
    pub(crate) link: LinkSettings,
    pub(crate) report: Report,
    /// The most files of a group.
    pub(crate) group_files: usize,
    /// The most directories that are planned at a time, where it is not the budget's.
    pub(crate) listings: Option<usize>,
    events: Receiver<Event>,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self::below(&std::env::temp_dir())
    }

    /// One whose destination is on the file system of `place`.
    pub(crate) fn below(place: &Path) -> Self {
        let top = tempfile::tempdir_in(place).expect("temporary directory");
        fs::create_dir(top.path().join("into")).expect("create");
        // More than any test here tells.
        let (events, heard) = sync_channel(10_000);
        Self {
            top,
            settings: ReceiverSettings::default(),
            link: LinkSettings { connections: Connections::Fixed(1), chunk_kb: Some(64), ..LinkSettings::default() },
            report: Report::new(events),
            group_files: 1000,
            listings: None,
            events: heard,
        }
    }

    /// A path below the destination.
    pub(crate) fn at(&self, below: &str) -> PathBuf {
        self.top.path().join("into").join(below)
    }

    /// Has what is committed recorded in `manifest`, beside the destination.
    pub(crate) fn with_manifest(mut self) -> Self {
        let path = self.top.path().join("manifest");
        self.settings.manifest = Some(Recording::File(ManifestFile { path, hash: crate::ManifestHash::Xxh3 }));
        self
    }

    /// Runs `act` over a transfer that was just opened.
    pub(crate) fn transfer<T>(&self, act: impl FnOnce(&Transfer<'_>) -> T) -> T {
        let into = self.at("");
        let into = DestinationPath::Typed(into);
        let destination = Destination::open(&into).expect("open").with_backup(&into, &self.settings).expect("lawful");
        let dialer = Dialer::new(serve_nothing(self.top.path()), Arc::default());
        let line = Line::open(&dialer, &self.link, &Limits::NONE, &self.report, Arc::default(), Ahead::NONE)
            .expect("a session");
        let open = |to| Recorder::open(to, &self.report).expect("open");
        let manifest = self.settings.manifest.as_ref().map(open);
        let mut budget = line.budget;
        budget.listings = self.listings.unwrap_or(budget.listings);
        act(&Transfer {
            line: &line,
            base: RelPath::root(),
            destination: &destination,
            owners: &Owners::new(),
            schedule: &Schedule::new(1, HoldBack::No, Cut::AtChunks, Bundling::No, Bounds::default()),
            groups: &Groups::new(self.group_files),
            report: &self.report,
            settings: &self.settings,
            receive_path: ReceivePath::Auto,
            manifest: manifest.as_ref(),
            cutter: &Cutter::default(),
            budget,
        })
    }

    /// What was reported as failed since this was asked last: the paths and kinds, in order of the paths.
    pub(crate) fn failed(&self) -> Vec<(String, &'static str)> {
        let failed = |event| match event {
            // Kept for good, so that tests compare it with words: they are few.
            Event::Failed { path, cause } => Some((path.to_string(), &*cause.kind().to_owned().leak())),
            _ => None,
        };
        let mut failed: Vec<_> = self.events.try_iter().filter_map(failed).collect();
        failed.sort_unstable();
        failed
    }
}

/// A server of an empty tree beside the destination.
fn serve_nothing(top: &Path) -> Endpoint {
    let from = top.join("from");
    fs::create_dir_all(&from).expect("create");
    Arc::new(Server::new(Source::open(&from).expect("open"), ServerSettings::default())).embedded()
}

/// The destination's root, as it waits for what is put into it; and open.
pub(crate) fn root(transfer: &Transfer<'_>) -> (Arc<DirState>, Arc<Dir>) {
    let dir = transfer.destination.root.dir(&RelPath::root()).expect("open");
    (DirState::new(RelPath::root(), Age::Old, None, None), Arc::new(dir))
}

/// What makes jobs for the files of one directory.
pub(crate) struct Jobs {
    pub(crate) dir: Arc<DirState>,
    pub(crate) metadata: Metadata,
    pub(crate) chunk_kb: u32,
    pub(crate) sparse: bool,
    pub(crate) replaces: bool,
}

impl Jobs {
    pub(crate) fn new(dir: &Arc<DirState>) -> Self {
        let metadata = metadata(0o644, 1000);
        Self { dir: Arc::clone(dir), metadata, chunk_kb: 64, sparse: false, replaces: false }
    }

    /// The directory waits for it from now on.
    pub(crate) fn job(&self, text: &str, file_bytes: u64) -> FileJob {
        self.dir.expect(1);
        let grid = ChunkGrid::new(file_bytes, self.chunk_kb).expect("lawful");
        FileJob::new(Arc::clone(&self.dir), name(text), self.metadata, grid, self.sparse, self.replaces)
    }
}
