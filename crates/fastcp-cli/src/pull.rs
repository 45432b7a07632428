//! `fastcp-client pull`: a tree, from a server or a local directory.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use fastcp_engine::{Endpoint, Interrupt, ProcessSettings, Pull};
use fastcp_model::RelPath;

use crate::args::PullOptions;
use crate::copying::{
    Nearness, course_of, link_settings_for, listing, manifest_to_write, receiver_settings, with_advice,
};
use crate::course::Way;
use crate::exit_code::{self, Failure};
use crate::from::From;
use crate::output::Output;
use crate::overlap;
use crate::screen::Screen;
use crate::setup::{embedded, format, start_pool};
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
    let manifest = manifest_to_write(options, Some(dst_dir))?;
    start_pool()?;
    let receiver = receiver_settings(options, from, manifest);
    let course = course_of(&receiver, Way::Here);
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
            Err(error) => (
                exit_code::of_run_error(&error),
                Some(with_advice(&error, &shown(dst_dir), report.counters.entries.now() > 0)),
            ),
        }
    }))
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
