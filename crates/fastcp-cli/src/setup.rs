//! What every command of the client needs before it runs: threads, the source's end point, settings from options.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fastcp_engine::{
    Delta, Durability, Itemize, Limits, Placement, PlainCrc, ReceivePath, ReceiverSettings, STACK_BYTES, Server,
    ServerSettings, Source, VerifyOver,
};
use fastcp_model::{Capabilities, Escaped};
use fastcp_net::{Endpoint, HANDSHAKE_TIMEOUT};
use fastcp_wire::limits::CONNECTIONS_MAX;

use crate::address::Address;
use crate::args::compression;
use crate::args::options::{LinkOptions, OutputOptions};
use crate::exit_code::{self, Failure};
use crate::output::Format;
use crate::wording::shown;

/// Starts the threads that scan, plan and hash.
pub(crate) fn start_pool() -> Result<(), Failure> {
    let cannot_start = |error| Failure::new(exit_code::RESOURCES, format!("cannot start a thread: {error}"));
    fastcp_engine::start_pool(&Limits::of_process()).map_err(cannot_start)
}

/// The server at a host and a port that were typed apart.
pub(crate) fn server_at(host: &str, port: u16) -> Result<(String, u16), Failure> {
    let usage = |error: &dyn std::fmt::Display| {
        Failure::new(exit_code::USAGE, format!("\"{}\": {error}", Escaped(host.as_bytes())))
    };
    match Address::to_dial(host).map_err(|error| usage(&error))? {
        Address { port: Some(_), .. } => Err(usage(&"the port is given twice")),
        Address { host, port: None } => Ok((host, port)),
    }
}

/// A server within this process, one thread for each connection.
pub(crate) fn embedded(root: &Path, compress_level: Option<i32>) -> Result<Endpoint, Failure> {
    let source = Source::open(root).map_err(|error| {
        Failure::new(
            exit_code::of_io_error(&error, exit_code::NOTHING_USABLE),
            format!("cannot open the source \"{}\": {error}", shown(root)),
        )
    })?;
    let settings = ServerSettings {
        capabilities: Capabilities::SUPPORTED,
        connections: CONNECTIONS_MAX,
        // The client knows what there is for both.
        connections_total: usize::MAX,
        chunk_kb: None,
        // Both ends are here: there is no link that fewer bytes could be faster on.
        compression: compression(compress_level.is_none(), compress_level),
        plain_crc: PlainCrc::Given,
        handshake_timeout: HANDSHAKE_TIMEOUT,
    };
    let server = Arc::new(Server::new(source, settings));
    Ok(Endpoint::Embedded(Arc::new(move |stream| {
        let server = Arc::clone(&server);
        let thread = std::thread::Builder::new().name("serve".to_owned()).stack_size(STACK_BYTES);
        thread.spawn(move || server.serve(stream)).map(drop)
    })))
}

pub(crate) fn format(options: &OutputOptions) -> Format {
    match (options.json, options.log.quiet) {
        (true, _) => Format::Json,
        (false, true) => Format::Quiet,
        (false, false) => Format::Text,
    }
}

/// Settings of a receiver that is given no options but those of the connection.
pub(crate) fn settings_of_link(link: &LinkOptions) -> ReceiverSettings {
    ReceiverSettings {
        capabilities: Capabilities::SUPPORTED.difference(Capabilities::from_bits_truncate(link.without)),
        connections: link.conns,
        chunk_kb: None,
        retry: Duration::from_secs(link.retry.retry),
        receive_path: ReceivePath::Auto,
        durability: Durability::Batch,
        delta: Delta::Unused,
        placement: Placement::PartFile,
        verify: VerifyOver::Received,
        manifest: None,
        limits: Limits::of_process(),
        deletion: None,
        backup_dir: None,
        itemize: Itemize::No,
    }
}
