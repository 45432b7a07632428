//! `fastcp-server`: from arguments to an exit code.

use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use fastcp_engine::{Inbox, Limits, PlainCrc, STACK_BYTES, Served, Server, ServerSettings, SetUid, Source, Writes};
use fastcp_model::{Capabilities, DEFAULT_PORT, Escaped};
use fastcp_net::{Accepted, Bound, ConnectionLimits, Full, Listener};

use crate::address::{Address, AddressError};
use crate::args::{self, ServerArgs, compression};
use crate::exit_code::Failure;
use crate::guard::{self, Guard};
use crate::sandbox::{self, Allowed};
use crate::setup::raise_descriptor_limit;
use crate::signals::Heard;
use crate::stderr::complain;
use crate::stdout::Stdout;
use crate::wording::counted;
use crate::{exit_code, logging, secrets, session, signals, usage};

const USUAL_HOST: &str = "127.0.0.1";

/// Parses the process's arguments and serves until it is told to end.
pub fn main() -> ExitCode {
    exit_code::exit_when_out_of_memory();
    fastcp_engine::ask_built_in_services();
    secrets::take_from_environment();
    let words = std::env::args_os().collect();
    let args: ServerArgs = match args::parse(args::server(), words, |name| std::env::var_os(name)) {
        Ok(args) => args,
        Err(error) => return exit_code::exit(usage::print("fastcp-server", &error)),
    };
    logging::start_for_server(&args.log);
    args::mistaken_variables(std::env::vars_os()).iter().for_each(|mistake| tracing::warn!("{mistake}"));
    let ended = if args.session { session::serve(&args) } else { run(&args).map(|()| exit_code::DONE) };
    match ended {
        Ok(code) => exit_code::exit(code),
        Err((code, message)) => {
            complain(&format!("fastcp-server: {message}"));
            exit_code::exit(code)
        }
    }
}

fn run(args: &ServerArgs) -> Result<(), (u8, String)> {
    if args.allow_setuid && !args.allow_write {
        return Err((exit_code::USAGE, "--allow-setuid needs --allow-write".to_owned()));
    }
    if args.allow_delete && !args.allow_write {
        return Err((exit_code::USAGE, "--allow-delete needs --allow-write".to_owned()));
    }
    let failed = |failure: Failure| (failure.code, failure.message);
    guard::check(args).map_err(failed)?;
    let addresses = addresses(args)?;
    let Some(src_dir) = &args.src_dir else { return Err((exit_code::USAGE, "no directory to serve".to_owned())) };
    let source = Source::open(src_dir).map_err(|error| {
        let path = Escaped(src_dir.as_os_str().as_bytes());
        (exit_code::of_io_error(&error, exit_code::NOTHING_USABLE), format!("cannot serve \"{path}\": {error}"))
    })?;
    raise_descriptor_limit();
    let limits = Limits::of_process();
    let connections_total = served_connections(&limits, args)?;
    let limits_of_connections = ConnectionLimits { total: connections_total, per_address: args.limits.per_address() };
    let listener = listener(&addresses, limits_of_connections)?;
    let bound = listener.local_addr().map_err(|error| (exit_code::SOCKET, error.to_string()))?;
    let stdout = Arc::new(Stdout::of("fastcp-server"));
    let Guard { gate, address } = guard::guard(args, bound, &stdout).map_err(failed)?;
    let gate = Arc::new(gate.with_wrong_tokens_max(args.limits.max_wrong_tokens));
    let inbox = inbox(args)?;
    if !args.no_sandbox {
        // Before there are threads: they inherit it.
        sandbox::enter(&allowed(args, src_dir));
    }
    let server = Server::new(source, settings(args, limits_of_connections)).behind(Arc::clone(&gate));
    let server = Arc::new(match inbox {
        Some(inbox) => server.with_inbox(inbox),
        None => server,
    });
    let listener = Arc::new(listener);
    let (closing, draining) = (Arc::clone(&listener), Arc::clone(&server));
    if let Err(error) = signals::on_signal(move || drain(&closing, &draining), || ()) {
        tracing::debug!(%error, "cannot handle signals");
    }
    // After the signals, which are blocked in every thread that starts from here on.
    fastcp_engine::start_pool(&limits)
        .map_err(|error| (exit_code::RESOURCES, format!("cannot start a thread: {error}")))?;
    stdout.line(&format!("listening on {bound}"));
    if let Some(address) = address {
        stdout.line(&format!("address: {address}"));
    }
    gate.announce();
    if stdout.exit_code(exit_code::DONE) != exit_code::DONE {
        return Err((exit_code::FILE_IO, format!("cannot announce {bound}")));
    }
    accept_all(&listener, &server).map_err(|error| (exit_code::SOCKET, format!("cannot accept: {error}")))?;
    listener.wait_for_end();
    let bounds = server.bounds();
    if Bound::ALL.into_iter().any(|bound| bounds.count(bound) > 0) {
        tracing::warn!("limits reached: {bounds}");
    }
    Ok(())
}

/// What the server needs to open from now on.
fn allowed(args: &ServerArgs, src_dir: &Path) -> Allowed {
    let mut allowed = Allowed::default();
    let served = if args.allow_write { &mut allowed.write } else { &mut allowed.read };
    served.push(src_dir.to_owned());
    allowed.write.extend(args.inbox.clone());
    allowed
}

/// Where drops go, if they are taken.
fn inbox(args: &ServerArgs) -> Result<Option<Inbox>, (u8, String)> {
    let Some(dir) = &args.inbox else {
        return match args.inbox_max {
            Some(_) => Err((exit_code::USAGE, "--inbox-max needs --inbox".to_owned())),
            None => Ok(None),
        };
    };
    let inbox = Inbox::open(dir, args.inbox_max.unwrap_or(INBOX_MAX_DEFAULT));
    inbox.map(Some).map_err(|error| {
        let path = Escaped(dir.as_os_str().as_bytes());
        (exit_code::of_io_error(&error, exit_code::NOTHING_USABLE), format!("cannot use the inbox \"{path}\": {error}"))
    })
}

/// The largest file that an inbox takes where nobody says so: 1 TiB.
const INBOX_MAX_DEFAULT: u64 = 1 << 40;

/// The address that was typed; a port alone is one of the usual host.
fn listening_address(text: &str) -> Result<Address, AddressError> {
    let port = text.strip_prefix(':').unwrap_or(text);
    let is_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    if is_port { Address::parse(&format!("{USUAL_HOST}:{port}")) } else { Address::parse(text) }
}

/// What to listen on: the addresses of the host, IPv4 first, as the usual one is.
fn addresses(args: &ServerArgs) -> Result<Vec<SocketAddr>, (u8, String)> {
    let usage = |what: &str| (exit_code::USAGE, format!("\"{}\": {what}", Escaped(args.host.as_bytes())));
    let Address { host, port } = listening_address(&args.host).map_err(|error| usage(&error.to_string()))?;
    let port = match (port, args.port) {
        (Some(_), Some(_)) => return Err(usage("the port is given twice")),
        (port, other) => port.or(other).unwrap_or(DEFAULT_PORT),
    };
    let mut found = fastcp_net::addresses(&host, port)
        .map_err(|error| (exit_code::SOCKET, format!("cannot listen on \"{}\": {error}", Escaped(host.as_bytes()))))?;
    found.sort_by_key(SocketAddr::is_ipv6);
    Ok(found)
}

/// Listens on the first address that can be listened on.
fn listener(addresses: &[SocketAddr], limits: ConnectionLimits) -> Result<Listener, (u8, String)> {
    let mut failed = (exit_code::SOCKET, "no address to listen on".to_owned());
    for &address in addresses {
        match Listener::bind(address, limits) {
            Ok(listener) => return Ok(listener),
            Err(error) => {
                let code = exit_code::of_io_error(&error, exit_code::SOCKET);
                failed = (code, format!("cannot listen on {address}: {error}"));
            }
        }
    }
    Err(failed)
}

/// Accepts no new connections and lets the open ones finish. The next signal does not wait for them.
fn drain(listener: &Listener, server: &Server) -> Heard {
    let served = listener.close();
    server.drain();
    if served > 0 {
        complain(&format!(
            "fastcp-server: draining: {} open; signal again to stop now",
            counted(served as u64, "connection")
        ));
    }
    Heard::Yes
}

/// How many connections can be served at a time; said where one client could want more.
fn served_connections(limits: &Limits, args: &ServerArgs) -> Result<usize, (u8, String)> {
    let served = Served::of(limits, args.limits.max_connections);
    if served.connections == 0 {
        return Err((exit_code::RESOURCES, served.to_string()));
    }
    if served.connections < usize::from(args.conns) + 2 {
        complain(&format!("fastcp-server: {served}"));
    }
    Ok(served.connections)
}

fn settings(args: &ServerArgs, limits: ConnectionLimits) -> ServerSettings {
    ServerSettings {
        capabilities: Capabilities::SUPPORTED,
        connections: args.conns,
        limits,
        idle_timeout: Duration::from_secs(args.limits.idle_timeout),
        offer_bytes_max: args.limits.offer_memory,
        sums_max: args.limits.max_sums as usize,
        chunk_kb: args.chunk_kb,
        compression: compression(args.no_compress, args.compress_level),
        writes: match (args.allow_write, args.allow_delete) {
            (false, _) => Writes::Refused,
            (true, false) => Writes::Allowed,
            (true, true) => Writes::DeletionAllowed,
        },
        setuid: if args.allow_setuid { SetUid::Kept } else { SetUid::Dropped },
        plain_crc: if args.ftq1_no_crc { PlainCrc::Withheld } else { PlainCrc::Given },
        handshake_timeout: Duration::from_secs(args.limits.handshake_timeout),
    }
}

/// Serves each connection on a thread of its own. One that there is no thread for is turned away on this one.
fn accept_all(listener: &Listener, server: &Arc<Server>) -> std::io::Result<()> {
    while let Some(accepted) = listener.accept()? {
        if let Accepted::Dropped(full) = accepted {
            // No thread for that.
            full.count(server.bounds());
            continue;
        }
        let thread = std::thread::Builder::new().name("serve".to_owned()).stack_size(STACK_BYTES);
        // Handed over only when the thread is there: else it would be lost with what was to run.
        let (hand_over, handed_over) = sync_channel(1);
        let serving = Arc::clone(server);
        match thread.spawn(move || handed_over.recv().map(|accepted| serve(&serving, accepted))) {
            // The thread waits for it.
            Ok(_) => drop(hand_over.send(accepted)),
            Err(error) => {
                tracing::warn!(%error, "connection turned away: cannot start a thread");
                if let Accepted::Admitted(incoming) | Accepted::TurnedAway(incoming, _) = accepted {
                    server.turn_away(incoming, Full::Server);
                }
            }
        }
    }
    Ok(())
}

fn serve(server: &Server, accepted: Accepted) {
    match accepted {
        Accepted::Admitted(incoming) => server.serve(incoming),
        Accepted::TurnedAway(incoming, full) => server.turn_away(incoming, full),
        Accepted::Dropped(full) => full.count(server.bounds()),
    }
}
