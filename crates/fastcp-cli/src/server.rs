//! `fastcp-server`: from arguments to an exit code.

use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;
use std::sync::Arc;

use fastcp_engine::{Limits, PlainCrc, Server, ServerSettings, Source};
use fastcp_model::{Capabilities, Escaped};
use fastcp_net::{HANDSHAKE_TIMEOUT, Listener};
use tracing::level_filters::LevelFilter;

use crate::args::{self, ServerArgs, compression};
use crate::output::complain;
use crate::signals::Heard;
use crate::stdout::Stdout;
use crate::{exit_code, logging, signals, usage};

/// Parses the process's arguments and serves until it is told to end.
pub fn main() -> ExitCode {
    let words = std::env::args_os().collect();
    let args: ServerArgs = match args::parse(args::server(), words, |name| std::env::var_os(name)) {
        Ok(args) => args,
        Err(error) => return exit_code::exit(usage::print("fastcp-server", &error)),
    };
    logging::start(&args.log, LevelFilter::WARN, std::io::stderr);
    match run(&args) {
        Ok(()) => exit_code::exit(exit_code::DONE),
        Err((code, message)) => {
            complain(&format!("fastcp-server: {message}"));
            exit_code::exit(code)
        }
    }
}

fn run(args: &ServerArgs) -> Result<(), (u8, String)> {
    if !args.ip.is_loopback() && !args.insecure {
        return Err((
            exit_code::USAGE,
            format!(
                "{} can be reached from other machines and there is no authentication; use 127.0.0.1, or --insecure on a network you trust",
                args.ip
            ),
        ));
    }
    let source = Source::open(&args.src_dir).map_err(|error| {
        let path = Escaped(args.src_dir.as_os_str().as_bytes());
        (exit_code::NOTHING_USABLE, format!("cannot serve \"{path}\": {error}"))
    })?;
    let address = SocketAddr::new(args.ip, args.port);
    let listener =
        Listener::bind(address).map_err(|error| (exit_code::SOCKET, format!("cannot listen on {address}: {error}")))?;
    let bound = listener.local_addr().map_err(|error| (exit_code::SOCKET, error.to_string()))?;
    let server = Arc::new(Server::new(source, settings(args)));
    let listener = Arc::new(listener);
    let closing = Arc::clone(&listener);
    if let Err(error) = signals::on_signal(move || drain(&closing), || ()) {
        tracing::debug!(%error, "signals end the process at once");
    }
    // After the signals, which are blocked in every thread that starts from here on.
    fastcp_engine::start_pool(&Limits::of_process())
        .map_err(|error| (exit_code::RESOURCES, format!("cannot start a thread: {error}")))?;
    let stdout = Stdout::of("fastcp-server");
    stdout.line(&format!("listening on {bound}"));
    if stdout.exit_code(exit_code::DONE) != exit_code::DONE {
        return Err((exit_code::FILE_IO, format!("nobody can learn that it listens on {bound}")));
    }
    accept_all(&listener, &server).map_err(|error| (exit_code::SOCKET, format!("cannot accept: {error}")))?;
    listener.wait_for_end();
    Ok(())
}

/// Nobody new is served. Those that are may come to their end; the next signal does not wait for that.
fn drain(listener: &Listener) -> Heard {
    let served = listener.close();
    if served > 0 {
        complain(&format!(
            "fastcp-server: taking no more connections; {served} are still served, a second signal ends them"
        ));
    }
    Heard::Yes
}

fn settings(args: &ServerArgs) -> ServerSettings {
    ServerSettings {
        capabilities: Capabilities::SUPPORTED,
        connections: args.conns,
        chunk_kb: args.chunk_kb,
        compression: compression(args.no_compress, args.compress_level),
        plain_crc: if args.ftq1_no_crc { PlainCrc::Withheld } else { PlainCrc::Given },
        handshake_timeout: HANDSHAKE_TIMEOUT,
    }
}

fn accept_all(listener: &Listener, server: &Arc<Server>) -> std::io::Result<()> {
    while let Some((stream, admission)) = listener.accept()? {
        let server = Arc::clone(server);
        let spawned = std::thread::Builder::new().spawn(move || {
            server.serve(stream);
            drop(admission);
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "connection closed: cannot make a thread for it");
        }
    }
    Ok(())
}
