//! What the programs need before they run, above all the commands of the client: threads, the source's end point,
//! settings from options.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fastcp_engine::{Endpoint, Limits, LinkSettings, Server, ServerSettings, Source};
use fastcp_model::{Capabilities, Escaped};

use crate::address::{Address, ServerAddress, split_key};
use crate::args::compression;
use crate::args::options::{LinkOptions, OutputOptions};
use crate::exit_code::{self, Failure};
use crate::output::Format;
use crate::wording::shown;

/// Has the process use as many descriptors as it may have: most systems allow many more than they begin with.
pub(crate) fn raise_descriptor_limit() {
    if let Err(error) = fastcp_engine::raise_descriptor_limit() {
        tracing::debug!(%error, "cannot raise the limit of open files");
    }
}

/// Starts the threads that scan, plan and hash.
pub(crate) fn start_pool() -> Result<(), Failure> {
    let cannot_start = |error| Failure::new(exit_code::RESOURCES, format!("cannot start a thread: {error}"));
    fastcp_engine::start_pool(&Limits::of_process()).map_err(cannot_start)
}

/// The server at a host and a port that were typed apart.
pub(crate) fn server_at(host: &[u8], port: u16) -> Result<ServerAddress, Failure> {
    let usage =
        |error: &dyn std::fmt::Display| Failure::new(exit_code::USAGE, format!("\"{}\": {error}", Escaped(host)));
    let (name, key) = split_key(host).map_err(|error| usage(&error))?;
    match Address::to_dial(&String::from_utf8_lossy(&name)).map_err(|error| usage(&error))? {
        Address { port: Some(_), .. } => Err(usage(&"the port is given twice")),
        address => Ok(ServerAddress { port, ..ServerAddress::new(address, key) }),
    }
}

/// A server within this process, one thread for each connection.
pub(crate) fn embedded(source: Source, compress_level: Option<i32>) -> Endpoint {
    // There is no link that fewer bytes could be faster on.
    let compression = compression(compress_level.is_none(), compress_level);
    let settings = ServerSettings { compression, ..ServerSettings::default() };
    Arc::new(Server::new(source, settings)).embedded()
}

/// A source that the user named.
pub(crate) fn open_source(root: &Path) -> Result<Source, Failure> {
    Source::open(root).map_err(|error| {
        Failure::new(
            exit_code::of_io_error(&error, exit_code::NOTHING_USABLE),
            format!("cannot open the source \"{}\": {error}", shown(root)),
        )
    })
}

pub(crate) fn format(options: &OutputOptions) -> Format {
    match (options.json, options.log.quiet) {
        (true, _) => Format::Json,
        (false, true) => Format::Quiet,
        (false, false) => Format::Text,
    }
}

/// A way to the server over which no file is copied.
pub(crate) fn retry_only(seconds: u64) -> LinkSettings {
    LinkSettings { retry: Duration::from_secs(seconds), ..LinkSettings::default() }
}

/// What the options say of the way to the server.
pub(crate) fn link_settings(link: &LinkOptions) -> LinkSettings {
    LinkSettings {
        capabilities: Capabilities::SUPPORTED.difference(Capabilities::from_bits_truncate(link.without)),
        connections: link.conns,
        retry: Duration::from_secs(link.retry.retry),
        ..LinkSettings::default()
    }
}
