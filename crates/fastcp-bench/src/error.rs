//! Why the benchmark, or one run of it, could not be done.
//!
//! An error of a run is told and the tool left out of that case; the benchmark goes on with the
//! others. Everything else ends it.

use std::io;
use std::path::PathBuf;

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// A call on a path failed.
    #[error("cannot {operation} \"{}\": {source}", path.display())]
    File { operation: &'static str, path: PathBuf, source: io::Error },
    /// A call that has no path failed.
    #[error("cannot {operation}: {source}")]
    System { operation: &'static str, source: io::Error },
    /// stdout does not take the report.
    #[error("cannot write the report: {source}")]
    Output { source: io::Error },
    /// A program could not be started.
    #[error("cannot start {program}: {source}")]
    Spawn { program: String, source: io::Error },
    /// A program ended with a failure.
    #[error("{program} ended with {ended}: {said}")]
    Program { program: String, ended: String, said: String },
    /// A server ended, or said nothing, before it listened.
    #[error("{program} does not listen: {said}")]
    NotListening { program: String, said: String },
    /// The copy is not what was to be copied.
    #[error("wrong copy: {found_files} files of {found_bytes} bytes, not {files} of {bytes}")]
    WrongCopy { files: u64, bytes: u64, found_files: u64, found_bytes: u64 },
    /// The copy has as many bytes as it should have, but not the same ones.
    #[error("wrong copy: \"{}\" has other bytes than the source", path.display())]
    WrongContents { path: PathBuf },
    /// rsync was asked how many bytes it sent and received, and did not say.
    #[error("\"{}\" does not say how many bytes rsync sent and received", path.display())]
    NoStats { path: PathBuf },
    /// A file holds something else than what is expected.
    #[error("\"{}\" is not {expected}: {source}", path.display())]
    Json { expected: &'static str, path: PathBuf, source: serde_json::Error },
    /// A peer of the bare loop sent something else than a record.
    #[error("the bare stream is broken: {0}")]
    BareStream(&'static str),
    /// Something is missing without which nothing is counted.
    #[error("cannot count: {0}")]
    CannotCount(String),
    /// fastcp is not built.
    #[error("{} is missing; build it: cargo build --release", path.display())]
    NotBuilt { path: PathBuf },
    /// Something is asked for that makes no sense.
    #[error("{0}")]
    Usage(&'static str),
    /// A link's settings mean nothing.
    #[error(transparent)]
    LinkSettings(#[from] crate::link::SettingsError),
    /// The link could not be made.
    #[error(transparent)]
    Link(#[from] crate::link::LinkError),
    /// A command around which a link was to be did not run to its end.
    #[error(transparent)]
    LinkCommand(#[from] crate::link_command::LinkCommandError),
    /// Somebody wants it to end.
    #[error("interrupted")]
    Interrupted,
}

impl BenchError {
    /// For `map_err`: a call on a path.
    pub(crate) fn file(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { operation, path, source }
    }

    /// For `map_err`: a call without a path.
    pub(crate) fn system(operation: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { operation, source }
    }
}
