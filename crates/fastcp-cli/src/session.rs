//! `fastcp-server --session`: one client's server, over standard input and output, for as long as they last.
//!
//! Whoever started it has logged in as this user, so it does whatever that user may do, and asks no more. Beside the tunnel
//! it takes connections at the address that the login came to, protected by a key and a token that live in memory and end
//! with it. It ends when its input does, or when nothing is heard for a while.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fastcp_engine::{Limits, STACK_BYTES, Served, Server, ServerSettings, SetUid, Source, Writes};
use fastcp_model::{Escaped, Status};
use fastcp_net::{
    Accepted, CONNECTIONS_PER_PEER_MAX, CONNECTIONS_TOTAL_MAX, ConnectionLimits, End, Gate, Identity, Incoming,
    Listener, Token, Tunnel,
};
use fastcp_wire::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameType, decode_payload, encode_frame};
use fastcp_wire::hello::Failure as Refusal;
use fastcp_wire::limits::SESSION_BYTES_MAX;
use fastcp_wire::session::{Direct, MARK, Opened, Opening, Purpose};

use crate::args::{ServerArgs, compression};
use crate::exit_code;
use crate::sandbox::{self, Allowed};
use crate::setup::raise_descriptor_limit;

/// The option of the server, and the first word of a client that is to be one.
pub(crate) const SESSION: &str = "--session";
/// Whoever starts a session has so long to say what it is of.
const OPENING_MAX: Duration = Duration::from_secs(60);
/// How long what is being served may take to end when the client is gone.
const ENDING_MAX: Duration = Duration::from_secs(8);

/// Serves the client at the other end.
pub(crate) fn serve(args: &ServerArgs) -> Result<u8, (u8, String)> {
    let stream = |error: io::Error| (exit_code::STREAM, format!("the session: {error}"));
    let mut input = io::stdin().as_fd().try_clone_to_owned().map(File::from).map_err(stream)?;
    let mut output = io::stdout().as_fd().try_clone_to_owned().map(File::from).map_err(stream)?;
    let opening = within(OPENING_MAX, || read_opening(&mut input)).map_err(stream)?;
    raise_descriptor_limit();
    let (source, into, root) = match place(&opening) {
        Ok(place) => place,
        Err(detail) => {
            say(&mut output, FrameType::Failure, &Refusal { status: Status::NotFound, detail }.encode())
                .map_err(stream)?;
            // The client says it.
            return Ok(exit_code::NOTHING_USABLE);
        }
    };
    let limits = Limits::of_process();
    let connections_total = Served::of(&limits, CONNECTIONS_TOTAL_MAX).connections;
    let resources = |error: io::Error| (exit_code::RESOURCES, format!("the session: {error}"));
    let limits_of_connections = ConnectionLimits { total: connections_total, per_address: CONNECTIONS_PER_PEER_MAX };
    let (direct, listener, gate) = match direct(limits_of_connections) {
        Ok(Some((direct, listener, gate))) => (Some(direct), Some(Arc::new(listener)), gate),
        Ok(None) => (None, None, Gate::open()),
        Err(error) => {
            tracing::debug!(%error, "no direct connections");
            (None, None, Gate::open())
        }
    };
    if !args.no_sandbox {
        let is_push = opening.purpose == Purpose::Push;
        let (read, write) = if is_push { (Vec::new(), vec![root]) } else { (vec![root], Vec::new()) };
        sandbox::enter(&Allowed { read, write });
    }
    fastcp_engine::start_pool(&limits).map_err(resources)?;
    let settings = ServerSettings {
        connections: args.conns,
        limits: limits_of_connections,
        chunk_kb: args.chunk_kb,
        compression: compression(args.no_compress, args.compress_level),
        writes: if opening.purpose == Purpose::Push { Writes::DeletionAllowed } else { Writes::Refused },
        // As in all else, it may do what the user may.
        setuid: SetUid::Kept,
        ..ServerSettings::default()
    };
    let server = Arc::new(Server::new(source, settings).behind(Arc::new(gate)));
    say(&mut output, FrameType::SessionOpened, &Opened { into, direct }.encode()).map_err(stream)?;
    let busy = Arc::new(Busy::default());
    if let Some(listener) = &listener {
        let (listener, server, busy) = (Arc::clone(listener), Arc::clone(&server), Arc::clone(&busy));
        let thread = std::thread::Builder::new().name("accept".to_owned());
        thread.spawn(move || accept_all(&listener, &server, &busy)).map_err(resources)?;
    }
    let (serving, client, at_work) = (Arc::clone(&server), client_name(), Arc::clone(&busy));
    let take_lane = move |lane| {
        let incoming = Incoming::through(lane, &client);
        serve_one(&serving, &at_work, move |server| server.serve(incoming));
    };
    let tunnel = Tunnel::over(input, output, Some(Box::new(take_lane))).map_err(resources)?;
    let end = tunnel.wait_for_end();
    // Nobody can come back.
    server.drain();
    if let Some(listener) = listener {
        listener.close();
    }
    busy.wait_for_end(Instant::now() + ENDING_MAX);
    match end {
        End::Broken => Err((exit_code::STREAM, "the session: the client broke the rules of the tunnel".to_owned())),
        End::Closed | End::Silence | End::HungUp => Ok(exit_code::DONE),
    }
}

/// Does something that must not take longer; the process ends where it does.
fn within<T>(max: Duration, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let (done, waiting) = channel::<()>();
    std::thread::Builder::new().name("opening".to_owned()).spawn(move || {
        if waiting.recv_timeout(max) == Err(RecvTimeoutError::Timeout) {
            std::process::exit(exit_code::TIMED_OUT.into());
        }
    })?;
    let result = work();
    drop(done);
    result
}

fn read_opening(input: &mut impl Read) -> io::Result<Opening> {
    let mut header = [0; FRAME_HEADER_BYTES];
    input.read_exact(&mut header)?;
    let decoded = FrameHeader::decode_within(&header, SESSION_BYTES_MAX).map_err(io::Error::other)?;
    let mut rest = vec![0; decoded.rest_bytes()];
    input.read_exact(&mut rest)?;
    let payload = decode_payload(&header, &rest).map_err(io::Error::other)?;
    match decoded.frame_type {
        FrameType::SessionOpen => Opening::decode(payload).map_err(io::Error::other),
        other => Err(io::Error::other(format!("unexpected frame {other:?}"))),
    }
}

fn say(output: &mut impl Write, frame_type: FrameType, payload: &[u8]) -> io::Result<()> {
    let frame = encode_frame(frame_type, payload).map_err(io::Error::other)?;
    output.write_all(&[MARK, &frame].concat())?;
    output.flush()
}

/// What is served, and what of it is to be written to.
fn place(opening: &Opening) -> Result<(Source, Vec<u8>, PathBuf), String> {
    let typed = PathBuf::from(std::ffi::OsString::from_vec(opening.path.clone()));
    let failed = |path: &Path, error: &io::Error| {
        let what = if opening.purpose == Purpose::Pull { "read" } else { "write to" };
        format!("cannot {what} \"{}\": {error}", Escaped(path.as_os_str().as_bytes()))
    };
    if opening.purpose == Purpose::Pull {
        // The name that was typed last is looked for below; an empty path is the home directory.
        let root = if typed.as_os_str().is_empty() { Path::new(".") } else { &typed };
        return Source::open(root)
            .map(|source| (source, Vec::new(), root.to_owned()))
            .map_err(|error| failed(root, &error));
    }
    for root in typed.ancestors() {
        let root = if root.as_os_str().is_empty() { Path::new(".") } else { root };
        match Source::open(root) {
            Ok(source) => {
                // Below the root, name by name: a closing slash, and what stands for the directory itself, is no name.
                let of_root = root.components().filter(|part| *part != Component::CurDir).count();
                let below = typed.components().filter(|part| *part != Component::CurDir).skip(of_root);
                let is_name = |part: &Component<'_>| matches!(part, Component::Normal(_));
                let names: Option<Vec<_>> =
                    below.map(|part| is_name(&part).then(|| part.as_os_str().as_bytes().to_vec())).collect();
                let no_name = || failed(&typed, &io::ErrorKind::InvalidFilename.into());
                return Ok((source, names.ok_or_else(no_name)?.join(&b'/'), root.to_owned()));
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(error) => return Err(failed(root, &error)),
        }
    }
    Err(failed(&typed, &io::ErrorKind::NotFound.into()))
}

/// Where connections are taken that do not go through the tunnel: at the address that the login came to.
fn direct(limits: ConnectionLimits) -> io::Result<Option<(Direct, Listener, Gate)>> {
    let Some(own) = login_address() else { return Ok(None) };
    let listener = Listener::bind(SocketAddr::new(own, 0), limits)?;
    let (identity, _) = Identity::make()?;
    let (token, text) = Token::make()?;
    let gate = Gate::protected(&identity, None).map_err(io::Error::other)?.with_tokens(token.into());
    let key = identity.fingerprint().map(|key| key.to_string().into_bytes()).unwrap_or_default();
    let address = listener.local_addr()?.to_string().into_bytes();
    Ok(Some((Direct { address, key, token: text.into_bytes() }, listener, gate)))
}

/// The address of this machine that sshd took the login on, which is the third word of `SSH_CONNECTION`.
fn login_address() -> Option<IpAddr> {
    let connection = std::env::var("SSH_CONNECTION").ok()?;
    connection.split(' ').nth(2)?.parse().ok()
}

/// What the client is called in messages.
fn client_name() -> String {
    let connection = std::env::var("SSH_CONNECTION").unwrap_or_default();
    connection.split(' ').next().filter(|address| !address.is_empty()).unwrap_or("the session").to_owned()
}

fn accept_all(listener: &Listener, server: &Arc<Server>, busy: &Arc<Busy>) {
    while let Ok(Some(accepted)) = listener.accept() {
        serve_one(server, busy, move |server| match accepted {
            Accepted::Admitted(incoming) => server.serve(incoming),
            Accepted::TurnedAway(incoming, full) => server.turn_away(incoming, full),
            Accepted::Dropped(full) => full.count(server.bounds()),
        });
    }
}

/// Serves something on a thread of its own. Without one it is dropped, and its client notices.
fn serve_one(server: &Arc<Server>, busy: &Arc<Busy>, work: impl FnOnce(&Server) + Send + 'static) {
    let (server, at_work) = (Arc::clone(server), Working::of(busy));
    let thread = std::thread::Builder::new().name("serve".to_owned()).stack_size(STACK_BYTES);
    if let Err(error) = thread.spawn(move || {
        let _at_work = at_work;
        work(&server);
    }) {
        tracing::warn!(%error, "a connection was dropped: cannot start a thread");
    }
}

/// How much is being served.
#[derive(Debug, Default)]
struct Busy {
    count: Mutex<usize>,
    ended: Condvar,
}

impl Busy {
    fn wait_for_end(&self, until: Instant) {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        while *count > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            count = self.ended.wait_timeout(count, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// One that is.
struct Working(Arc<Busy>);

impl Working {
    fn of(busy: &Arc<Busy>) -> Self {
        *busy.count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Self(Arc::clone(busy))
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        *self.0.count.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.ended.notify_all();
    }
}
