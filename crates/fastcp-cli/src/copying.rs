//! What the options of a copy mean to it, whichever way it goes.

use std::path::Path;

use fastcp_engine::{
    Delta, Ending, Itemize, LinkSettings, ManifestFile, Placement, ReceiverSettings, Recording, RunError, SetUid,
    VerifyOver,
};
use fastcp_model::Capabilities;
use fastcp_model::rules::FilterRule;

use crate::args::PullOptions;
use crate::course::{Course, Way};
use crate::exit_code::{self, Failure};
use crate::output::Listing;
use crate::overlap;
use crate::setup::link_settings;
use crate::wording::shown;

/// As the options of the connection say, and those of copying.
pub(crate) fn link_settings_for(options: &PullOptions) -> LinkSettings {
    let settings = link_settings(&options.link);
    let unwanted = if options.copy.no_compress { Capabilities::COMPRESS } else { Capabilities::empty() };
    LinkSettings {
        capabilities: settings.capabilities.difference(unwanted),
        chunk_kb: options.copy.chunk_kb,
        ..settings
    }
}

/// An error with advice on what to do next.
/// `has_begun` says whether anything can have come of the run.
pub(crate) fn with_advice(error: &RunError, destination: &str, has_begun: bool) -> String {
    let kept = format!("complete files are in place in \"{destination}\"");
    match error {
        RunError::AtReceiver {
            ending: Ending::Destination | Ending::Net | Ending::NoAnswer | Ending::Other, ..
        } if has_begun => {
            format!("{error}; {kept}, run the command again for the rest")
        }
        RunError::Source { .. }
        | RunError::AtReceiver { .. }
        | RunError::TooLittle(_)
        | RunError::NoDestination { .. }
        | RunError::NotVerifiable { .. }
        | RunError::Backup { .. }
        | RunError::Locked { .. } => error.to_string(),
        // Nothing was done that could be resumed.
        RunError::Interrupted | RunError::NoAnswer { .. } | RunError::Net { .. } | RunError::Manifest(_)
            if !has_begun =>
        {
            error.to_string()
        }
        RunError::Interrupted => format!("{error}; {kept}, run the command again for the rest"),
        RunError::Manifest(_) => {
            format!("{error}; {kept}, but a rerun does not add those that are missing in the manifest")
        }
        RunError::NoAnswer { .. } => format!("{error}; run the command again to resume"),
        RunError::Exhausted { .. } | RunError::Net { .. } => {
            format!("{error}; {kept}, run the command again for the rest")
        }
        RunError::Destination { .. } => {
            format!("{error}; {kept}, part files are kept; fix the problem and run the command again")
        }
    }
}

pub(crate) fn listing(options: &PullOptions) -> Listing {
    match (options.changes.itemize_changes, options.output.log.verbose) {
        (true, _) => Listing::Changes,
        (false, 0) => Listing::None,
        (false, _) if options.changes.dry_run => Listing::Names,
        (false, _) => Listing::NamesWhenDone,
    }
}

pub(crate) fn receiver_settings(
    options: &PullOptions,
    from: Nearness,
    manifest: Option<Recording>,
    rules: &[FilterRule],
) -> ReceiverSettings {
    let PullOptions { copy, changes, output, .. } = options;
    // With --json, events are asked for by name.
    let listing = if output.json && !changes.itemize_changes { Listing::None } else { listing(options) };
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
        filter: rules.into(),
        sizes: options.sizes.limits(),
        backup_dir: changes.backup_dir.clone(),
        setuid: SetUid::Kept,
        itemize: if listing == Listing::None { Itemize::No } else { Itemize::Changes },
        tell_committed: listing == Listing::NamesWhenDone,
    }
}

/// Where the other end is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nearness {
    /// On this machine: reading the old version costs as much as reading the new one.
    Here,
    Elsewhere,
}

/// What a run does with files.
pub(crate) fn course_of(receiver: &ReceiverSettings, way: Way) -> Course {
    match receiver.verify {
        VerifyOver::Received if receiver.manifest.is_none() => Course::Copy(way),
        VerifyOver::Received | VerifyOver::Written | VerifyOver::Disk => Course::CopyAndReadBack(way),
    }
}

/// The manifest to append to. It must not lie where the run itself writes, if that is here.
pub(crate) fn manifest_to_write(options: &PullOptions, dst_dir: Option<&Path>) -> Result<Option<Recording>, Failure> {
    let Some(path) = options.copy.manifest.as_ref().filter(|_| !options.changes.dry_run) else { return Ok(None) };
    if dst_dir.is_some_and(|dst_dir| overlap::is_inside(path, dst_dir)) {
        let message = format!("the manifest \"{}\" must not be inside the destination", shown(path));
        return Err(Failure::new(exit_code::USAGE, message));
    }
    Ok(Some(Recording::File(ManifestFile { path: path.clone(), hash: options.copy.manifest_hash })))
}
