//! `fastcp-client push`: a tree or a file, to a server that takes it or to a local directory.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fastcp_engine::{Interrupt, Push, Report};
use fastcp_model::{Name, RelPath};
use fastcp_wire::filter_rules::bytes_of;
use fastcp_wire::limits::{PUSH_BYTES_MAX, RULES_BYTES_MAX};
use fastcp_wire::offer::Scope;
use fastcp_wire::session::Purpose;

use crate::args::{PushArgs, compression};
use crate::copying::{
    Nearness, course_of, link_settings_for, listing, manifest_to_write, receiver_settings, with_advice,
};
use crate::course::Way;
use crate::exit_code::{self, Failure};
use crate::filters;
use crate::from::From;
use crate::output::Output;
use crate::pull::pull;
use crate::reach::{Reached, Unprotected};
use crate::screen::Screen;
use crate::setup::{format, start_pool};
use crate::shell;
use crate::sources::{LocalPlace, Sources, open_places};
use crate::watched::watched_copy;
use crate::wording::shown;

pub(crate) fn push(args: &PushArgs, interrupt: &Interrupt, screen: &Arc<Screen>) -> Result<u8, Failure> {
    let PushArgs { src, to, options } = args;
    let usage = |message: &dyn std::fmt::Display| Failure::new(exit_code::USAGE, message.to_string());
    let places = match Sources::parse(src)? {
        Sources::Here(places) => places,
        Sources::Server { .. } | Sources::Shell(_) => {
            return Err(usage(&"what is pushed has to be on this machine; use pull to fetch it"));
        }
    };
    let to_place = match From::parse(to).map_err(|error| usage(&error))? {
        From::Local { .. } => return pull(Sources::Here(places), Path::new(to), options, interrupt, screen),
        elsewhere => elsewhere,
    };
    options.changes.check().map_err(|message| usage(&message))?;
    let rules = filters::rules(&options.filters, options.changes.unqualified())?;
    if !options.also.is_empty() {
        return Err(usage(&"--also is for pull: it names servers to fetch from"));
    }
    // Ended when the run is.
    let mut _shell = None;
    let (reached, into, into_scope) = match to_place {
        From::Server { server, path, scope } => {
            (Reached::server(&server, &options.trust, Unprotected::Refused)?, path, scope)
        }
        From::Shell(remote) => {
            let (reached, shell) =
                shell::start(&remote, &shell::opening(Purpose::Push, remote.path.clone()), &options.shell)?;
            let into = shell.destination()?;
            let scope = if remote.path.ends_with(b"/") { Scope::Contents } else { Scope::Itself };
            _shell = Some(shell);
            (reached, into, scope)
        }
        From::Local { .. } => unreachable!("it is copied to above"),
    };
    let (into, new_name) = named(&places, into, into_scope);
    let (source, offer) = open_places(&places, new_name.as_ref())?;
    let source = source.selected(&offer, &rules);
    let manifest = manifest_to_write(options, None)?;
    start_pool()?;
    let receiver = receiver_settings(options, Nearness::Elsewhere, manifest, &rules);
    // More than a session is opened with.
    let opening_bytes = PUSH_BYTES_MAX - RULES_BYTES_MAX + bytes_of(&rules);
    let course = course_of(&receiver, Way::There);
    let output = Output::new(format(&options.output), screen).listing(listing(options));
    let compression = compression(options.copy.no_compress, options.copy.compress_level);
    let destination = shown(Path::new(to)).to_string();
    Ok(watched_copy(&reached, &output, course, |dialer, report| {
        let mut run = Push::new(dialer, &source, offer, into)
            .receiver(receiver)
            .receive_path(options.copy.receive_path)
            .link(link_settings_for(options))
            .compression(compression)
            .interrupt(interrupt);
        if let Some(name) = new_name {
            run = run.renamed(name);
        }
        let result = if options.changes.dry_run { run.preview(report) } else { run.run(report) };
        match result {
            Ok(()) => (exit_code::of_report(report), None),
            Err(error) => (
                exit_code::of_run_error(&error),
                Some(with_advice(&error, &destination, has_begun(report, opening_bytes))),
            ),
        }
    }))
}

/// Whether anything can have come of the run: more was sent than a session is opened with, or the receiver has said so.
fn has_begun(report: &Report, opening_bytes: usize) -> bool {
    report.counters.entries.now() > 0 || report.wire.bytes_out.load(Ordering::Relaxed) > opening_bytes as u64
}

/// Where it goes: a single file to a path without a closing slash may get that name.
fn named(places: &[LocalPlace], into: RelPath, into_scope: Scope) -> (RelPath, Option<Name>) {
    let is_single = matches!(places, [place] if place.is_no_directory());
    match into.split().filter(|_| is_single && into_scope == Scope::Itself) {
        Some((parent, name)) => (parent, Some(name)),
        None => (into, None),
    }
}
