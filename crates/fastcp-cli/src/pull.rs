//! `fastcp-client pull`: a tree, from a server or a local directory.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use fastcp_engine::{
    Delta, Endpoint, Interrupt, Itemize, LinkSettings, ManifestFile, Placement, ProcessSettings, Pull,
    ReceiverSettings, Report, RunError, VerifyOver,
};
use fastcp_model::{Capabilities, RelPath};

use crate::args::PullOptions;
use crate::course::Course;
use crate::exit_code::{self, Failure};
use crate::from::From;
use crate::output::{Listing, Output};
use crate::overlap;
use crate::screen::Screen;
use crate::setup::{embedded, format, link_settings, start_pool};
use crate::watched::watched_copy;
use crate::wording::shown;

pub(crate) fn pull(
    from: From,
    dst_dir: &Path,
    options: &PullOptions,
    interrupt: &Interrupt,
    screen: &Arc<Screen>,
) -> Result<u8, Failure> {
    options.changes.check().map_err(|message| Failure::new(exit_code::USAGE, message))?;
    let (endpoint, path, scope) = match from {
        From::Server { host, port, path, scope } => (Endpoint::Tcp { host, port }, path, scope),
        From::Local { root, path, scope } => {
            check_overlap(&root, &path, dst_dir)?;
            if options.copy.compress && options.copy.compress_level.is_none() {
                tracing::warn!("-z does nothing for a local source; --compress-level N compresses");
            }
            (embedded(&root, options.copy.compress_level)?, path, scope)
        }
    };
    let from = match endpoint {
        Endpoint::Embedded(_) => Nearness::Here,
        Endpoint::Tcp { .. } => Nearness::Elsewhere,
    };
    let manifest = if options.changes.dry_run { None } else { manifest_to_write(options, dst_dir)? };
    start_pool()?;
    let receiver = receiver_settings(options, from, manifest);
    let course = match receiver.verify {
        VerifyOver::Received if receiver.manifest.is_none() => Course::Copy,
        VerifyOver::Received | VerifyOver::Written | VerifyOver::Disk => Course::CopyAndReadBack,
    };
    let process = ProcessSettings { receive_path: options.copy.receive_path, ..ProcessSettings::default() };
    let output = Output { listing: listing(options), ..Output::new(format(&options.output), screen) };
    Ok(watched_copy(endpoint, &output, course, |dialer, report| {
        let run = Pull::new(dialer, dst_dir)
            .part(path, scope)
            .receiver(receiver)
            .link(link_settings_for(options))
            .process(process)
            .interrupt(interrupt);
        let result = if options.changes.dry_run { run.preview(report) } else { run.run(report) };
        match result {
            Ok(()) => (exit_code::of_report(report), None),
            Err(error) => (exit_code::of_run_error(&error), Some(with_advice(&error, dst_dir, report))),
        }
    }))
}

/// As the options of the connection say, and those of copying.
fn link_settings_for(options: &PullOptions) -> LinkSettings {
    let settings = link_settings(&options.link);
    let unwanted = if options.copy.no_compress { Capabilities::COMPRESS } else { Capabilities::empty() };
    LinkSettings {
        capabilities: settings.capabilities.difference(unwanted),
        chunk_kb: options.copy.chunk_kb,
        ..settings
    }
}

/// An error with advice on what to do next.
fn with_advice(error: &RunError, dst_dir: &Path, report: &Report) -> String {
    let kept = format!("complete files are in place in \"{}\"", shown(dst_dir));
    match error {
        RunError::Source { .. }
        | RunError::TooLittle(_)
        | RunError::NoDestination { .. }
        | RunError::NotVerifiable { .. }
        | RunError::Backup { .. }
        | RunError::Locked { .. } => error.to_string(),
        // Nothing was done that could be resumed.
        RunError::Interrupted | RunError::NoAnswer { .. } | RunError::Net { .. } | RunError::Manifest(_)
            if report.counters.entries.now() == 0 =>
        {
            error.to_string()
        }
        RunError::Interrupted => format!("{error}; {kept}, run the command again to fetch the rest"),
        RunError::Manifest(_) => {
            format!("{error}; {kept}, but a rerun does not add those that are missing in the manifest")
        }
        RunError::NoAnswer { .. } => format!("{error}; run the command again to resume"),
        RunError::Exhausted { .. } | RunError::Net { .. } => {
            format!("{error}; {kept}, run the command again to fetch the rest")
        }
        RunError::Destination { .. } => {
            format!("{error}; {kept}, part files are kept; fix the problem and run the command again")
        }
    }
}

fn listing(options: &PullOptions) -> Listing {
    match (options.changes.itemize_changes, options.output.log.verbose) {
        (true, _) => Listing::Changes,
        (false, 0) => Listing::None,
        (false, _) => Listing::Names,
    }
}

fn receiver_settings(options: &PullOptions, from: Nearness, manifest: Option<ManifestFile>) -> ReceiverSettings {
    let PullOptions { copy, changes, output, .. } = options;
    ReceiverSettings {
        durability: copy.durability,
        delta: match (copy.whole_file, copy.no_whole_file, from) {
            (true, ..) | (false, false, Nearness::Here) => Delta::Unused,
            (false, true, _) | (false, false, Nearness::Elsewhere) => Delta::Used,
        },
        placement: if copy.inplace { Placement::InPlace } else { Placement::PartFile },
        verify: copy.verify,
        manifest,
        deletion: changes.deletion(),
        backup_dir: changes.backup_dir.clone(),
        itemize: match listing(options) {
            // With --json, events are asked for by name.
            Listing::Names if output.json => Itemize::No,
            Listing::None => Itemize::No,
            Listing::Names | Listing::Changes => Itemize::Changes,
        },
    }
}

/// Where the source is.
#[derive(Clone, Copy)]
enum Nearness {
    /// On this machine: reading the old version costs as much as reading the new one.
    Here,
    Elsewhere,
}

/// The manifest to append to. It must not lie where the run itself writes.
fn manifest_to_write(options: &PullOptions, dst_dir: &Path) -> Result<Option<ManifestFile>, Failure> {
    let Some(path) = &options.copy.manifest else { return Ok(None) };
    if overlap::is_inside(path, dst_dir) {
        let message = format!("the manifest \"{}\" must not be inside the destination", shown(path));
        return Err(Failure::new(exit_code::USAGE, message));
    }
    Ok(Some(ManifestFile { path: path.clone(), hash: options.copy.manifest_hash }))
}

/// Refuses to copy a local tree into itself. A source that cannot be read is told when it is opened.
fn check_overlap(root: &Path, path: &RelPath, dst_dir: &Path) -> Result<(), Failure> {
    let name = OsStr::from_bytes(path.as_bytes());
    let (source, target) = if path.is_root() {
        (root.to_path_buf(), dst_dir.to_path_buf())
    } else {
        (root.join(name), dst_dir.join(name))
    };
    match overlap::between(&source, &target) {
        Some(overlap) => Err(Failure::new(
            exit_code::USAGE,
            format!("cannot copy \"{}\" to \"{}\": {overlap}", shown(&source), shown(&target)),
        )),
        None => Ok(()),
    }
}
