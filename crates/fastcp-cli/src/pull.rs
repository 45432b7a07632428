//! `fastcp-client pull`: a tree, from a server or a local directory.

use std::path::Path;
use std::sync::Arc;

use fastcp_engine::{
    ConnectionSource, Dialer, Endpoint, Interrupt, ProcessSettings, Pull, Replicas, Report, SOURCES_MAX,
};
use fastcp_model::RelPath;
use fastcp_wire::offer::{Place, Scope};

use crate::address::ServerAddress;
use crate::args::PullOptions;
use crate::copying::{
    Nearness, course_of, link_settings_for, listing, manifest_to_write, receiver_settings, with_advice,
};
use crate::course::Way;
use crate::exit_code::{self, Failure};
use crate::filters;
use crate::output::Output;
use crate::overlap;
use crate::reach::{Reached, Unprotected};
use crate::sandbox::{self, Allowed};
use crate::screen::Screen;
use crate::setup::{embedded, format, start_pool};
use crate::shell;
use crate::sources::{LocalPlace, Sources, open_places};
use crate::watched::watched_copy;
use crate::wording::shown;

pub(crate) fn pull(
    from: Sources,
    dst_dir: &Path,
    options: &PullOptions,
    interrupt: &Interrupt,
    screen: &Arc<Screen>,
) -> Result<u8, Failure> {
    options.changes.check().map_err(|message| Failure::new(exit_code::USAGE, message))?;
    let rules = filters::rules(&options.filters, options.changes.unqualified())?;
    // Ended when the run is.
    let mut _shell = None;
    let only = |mut places: Vec<Place>| {
        let only = if places.len() == 1 { places.pop() } else { None };
        (places, only.unwrap_or_else(|| Place { path: RelPath::root(), scope: Scope::Contents }))
    };
    let (reached, (places, Place { path, scope })) = match from {
        Sources::Shell(remotes) => {
            let (reached, shell, places) = shell::source(&remotes, &options.shell)?;
            _shell = Some(shell);
            (reached, only(places))
        }
        Sources::Server { server, places } => {
            (Reached::server(&server, &options.trust, Unprotected::Refused)?, only(places))
        }
        Sources::Here(places) => {
            places.iter().try_for_each(|place| check_overlap(place, dst_dir))?;
            if options.copy.compress && options.copy.compress_level.is_none() {
                tracing::warn!("-z does nothing for a local source; --compress-level N compresses");
            }
            let (source, offer) = open_places(&places, None)?;
            (embedded(source, options.copy.compress_level).into(), (Vec::new(), offer))
        }
    };
    let from = match reached.endpoint {
        Endpoint::Embedded(_) => Nearness::Here,
        Endpoint::Tcp { .. } | Endpoint::Far(_) => Nearness::Elsewhere,
    };
    let also = also(options, from)?;
    let manifest = manifest_to_write(options, Some(dst_dir))?;
    if from == Nearness::Elsewhere && !options.sandbox.no_sandbox {
        // Before there are threads that receive: they inherit it.
        sandbox::enter(&allowed(dst_dir, options, std::iter::once(&reached).chain(&also)));
    }
    start_pool()?;
    let receiver = receiver_settings(options, from, manifest, &rules);
    let course = course_of(&receiver, Way::Here);
    let process = ProcessSettings { receive_path: options.copy.receive_path, ..ProcessSettings::default() };
    let output = Output::new(format(&options.output), screen).listing(listing(options));
    let code = watched_copy(&reached, &output, course, |dialer, report| {
        let dialer = dialer.clone().of_places(places);
        let replicas = replicas(&dialer, &also, report);
        let source: &dyn ConnectionSource = replicas.as_ref().map_or(&dialer, |replicas| replicas);
        let run = Pull::new(source, dst_dir)
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
    });
    also.iter().for_each(Reached::remember);
    Ok(code)
}

/// What a run needs to open from now on.
fn allowed<'a>(dst_dir: &Path, options: &PullOptions, servers: impl Iterator<Item = &'a Reached>) -> Allowed {
    // A relative path starts at the destination.
    let backups = options.changes.backup_dir.as_ref().map(|dir| dst_dir.join(dir));
    let places = [Some(dst_dir), backups.as_deref(), options.copy.manifest.as_deref()];
    let places = places.into_iter().flatten().map(sandbox::place_of).collect();
    let own = servers.filter_map(Reached::place_to_remember);
    match options.changes.dry_run {
        true => Allowed { read: places, write: own.collect() },
        false => Allowed { read: Vec::new(), write: own.chain(places).collect() },
    }
}

/// Other servers of the same tree.
fn also(options: &PullOptions, from: Nearness) -> Result<Vec<Reached>, Failure> {
    let usage = |message: String| Failure::new(exit_code::USAGE, message);
    if !options.also.is_empty() && from == Nearness::Here {
        return Err(usage("--also names servers of a tree that is copied from a server".to_owned()));
    }
    if options.also.len() >= SOURCES_MAX {
        return Err(usage(format!("--also: at most {} other servers", SOURCES_MAX - 1)));
    }
    let server = |text: &String| {
        let address = ServerAddress::parse(text).map_err(|error| usage(format!("--also \"{text}\": {error}")))?;
        Reached::server(&address, &options.trust, Unprotected::Refused)
    };
    options.also.iter().map(server).collect()
}

/// The source and its replicas, each with a count of its own.
fn replicas(first: &Dialer, others: &[Reached], report: &Report) -> Option<Replicas> {
    if others.is_empty() {
        return None;
    }
    let count = |endpoint: &Endpoint| report.add_source(endpoint.to_string());
    let leading = first.clone().counting(count(first.endpoint()));
    let others = others.iter().map(|other| other.beside(first, count(&other.endpoint)));
    Some(Replicas::new(leading, others.collect()))
}

/// Refuses to copy a local tree into itself. A source that cannot be read is told when it is opened.
fn check_overlap(place: &LocalPlace, dst_dir: &Path) -> Result<(), Failure> {
    let source = place.typed();
    let target = place.name().map_or_else(|| dst_dir.to_path_buf(), |name| dst_dir.join(name));
    match overlap::between(&source, &target) {
        Some(overlap) => Err(Failure::new(
            exit_code::USAGE,
            format!("cannot copy \"{}\" to \"{}\": {overlap}", shown(&source), shown(&target)),
        )),
        None => Ok(()),
    }
}
