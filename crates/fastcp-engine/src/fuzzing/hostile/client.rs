//! A client that says what it likes, to a server that may be written to.

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fastcp_model::{ByteRange, Name, RelPath};
use fastcp_net::{Connection, Dialer, Endpoint, Incoming, Live};
use fastcp_wire::frame::{FrameType, encode_frame};
use fastcp_wire::hello::{Attach, Hello, HelloReply, Lane, Role, Ticket, VERSION};
use fastcp_wire::offer::{OfferEnd, Place, Scope};
use fastcp_wire::push::{Push, Setting};
use fastcp_wire::request::{Ask, PlainRequest, RangeRequest};

use super::server::{listings, piece};
use super::{ACTS_MAX, END_MAX, SECRET, Script, World};
use crate::settings::orders::fuzzing::SETTINGS;
use crate::settings::{Compression, ServerSettings, Writes};
use crate::{Server, Source};

/// The most connections of one script.
const CONNECTIONS_MAX: usize = 6;
/// A server that does not read, because nobody takes what it writes, is not written to for long.
const WRITE_MAX: Duration = Duration::from_millis(50);
/// A server that does not answer waits for the rest of what was said before.
const ANSWER_MAX: Duration = Duration::from_millis(100);
/// What a server answers with is read up to here.
const ANSWERS_BYTES_MAX: usize = 8 << 20;

/// A server, and a client that does what the script says.
///
/// # Panics
/// Where something outside the tree is read, told or changed, or the server goes on when its clients are gone.
pub fn server(dir: &Path, bytes: &[u8]) {
    let world = World::new(dir);
    let serving = Serving::start(&world.tree);
    let mut client = Client { dialer: serving.dialer(), connections: Vec::new(), ticket: Ticket([0; 16]) };
    let mut script = Script::new(bytes);
    for _ in 0..ACTS_MAX {
        if script.is_over() {
            break;
        }
        client.act(&mut script);
    }
    client.connections.iter().for_each(|connection| connection.end_sending());
    serving.server.drain();
    let answers = client.answers();
    serving.expect_end();
    world.expect_untouched();
    let is_told = |answer: &Vec<u8>| answer.windows(SECRET.len()).any(|window| window == SECRET);
    assert!(!answers.iter().any(is_told), "it told what lies outside");
}

/// A server, and the threads that serve.
struct Serving {
    server: Arc<Server>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Serving {
    fn start(tree: &Path) -> Self {
        let settings = ServerSettings {
            compression: Compression::Off,
            writes: Writes::DeletionAllowed,
            handshake_timeout: END_MAX / 2,
            ..ServerSettings::default()
        };
        let server = Arc::new(Server::new(Source::open(tree).expect("open"), settings));
        Self { server, threads: Arc::default() }
    }

    fn dialer(&self) -> Dialer {
        let (server, threads) = (Arc::clone(&self.server), Arc::clone(&self.threads));
        let hear = move |incoming: Incoming| {
            let server = Arc::clone(&server);
            let thread = std::thread::spawn(move || server.serve(incoming));
            threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
            Ok(())
        };
        Dialer::new(Endpoint::Embedded(Arc::new(hear)), Arc::default())
    }

    /// Nothing is served any more, and nothing went wrong.
    fn expect_end(&self) {
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let (end, ended) = channel::<()>();
        let joining = std::thread::spawn(move || {
            let _end = end;
            threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        });
        assert_eq!(ended.recv_timeout(END_MAX), Err(RecvTimeoutError::Disconnected), "it is served for ever");
        joining.join().expect("no panic");
    }
}

struct Client {
    dialer: Dialer,
    connections: Vec<Arc<Connection>>,
    /// Of the last session that was opened.
    ticket: Ticket,
}

impl Client {
    fn act(&mut self, script: &mut Script) {
        // What cannot be said any more was not heard.
        let act = script.below(11);
        if act == 0 || self.connections.is_empty() {
            self.connect();
        }
        let Some(connection) = self.connections.last().map(Arc::clone) else { return };
        let send = |bytes: &[u8]| drop(connection.write_all(bytes));
        let send_frame = |frame_type, payload: &[u8]| drop(connection.write_frame(frame_type, payload));
        match act {
            1 => send(&script.bytes()),
            2 => {
                let frame_type = FrameType::from_code((script.byte() % 0x16).into());
                let payload = script.bytes();
                if let Ok(frame) = frame_type.and_then(|frame_type| encode_frame(frame_type, &payload)) {
                    send(&frame);
                }
            }
            3 => self.open_session(&connection, script),
            4 => {
                let lane = [Lane::Data, Lane::Control, Lane::Report { seen: 0 }][script.below(3)];
                send_frame(FrameType::Attach, &Attach { ticket: self.ticket, lane }.encode());
            }
            5 => send(&range(script)),
            6 => {
                let (path, offset, want_crc) = (script.path().into(), script.number(), script.is_set());
                if let Ok(request) = (PlainRequest { path, offset, want_crc }).encode() {
                    send(&request);
                }
            }
            7 => {
                if let Some(payload) = push(script) {
                    send_frame(FrameType::Push, &payload);
                }
            }
            8 => {
                if let Some(payload) = listings(script, &mut |_, _| ()) {
                    send_frame(FrameType::OfferBatch, &payload);
                }
            }
            9 => {
                let (entries, failures) = (script.number(), script.number());
                send_frame(FrameType::OfferEnd, &OfferEnd { entries, failures }.encode());
            }
            10 => {
                let id = script.below(4) as u32;
                send(&piece(script, id));
            }
            _ => {}
        }
    }

    fn connect(&mut self) {
        if self.connections.len() == CONNECTIONS_MAX {
            return;
        }
        let connection = self.dialer.dial(&Live::default(), Instant::now() + END_MAX).expect("dial");
        connection.set_timeouts(Some(END_MAX), Some(WRITE_MAX)).expect("set");
        self.connections.push(connection);
    }

    /// Greets; learns the ticket, where there is an answer.
    fn open_session(&mut self, connection: &Connection, script: &mut Script) {
        let role = if script.is_set() { Role::Sender } else { Role::Receiver };
        let capability_bits = u32::from(script.byte()) | u32::from(script.byte()) << 8;
        let connections = u16::from(script.byte());
        let place =
            |script: &mut Script| RelPath::new(&script.path()).ok().map(|path| Place { path, scope: Scope::Itself });
        let places = if script.byte() == 1 { place(script).into_iter().collect() } else { Vec::new() };
        let hello = Hello { version: VERSION, role, capability_bits, connections, chunk_kb: 0, places };
        let _ = connection.write_frame(FrameType::Hello, &hello.encode());
        if role == Role::Sender {
            // It is not answered before its PUSH has come.
            if let Some(payload) = push(script) {
                let _ = connection.write_frame(FrameType::Push, &payload);
            }
        }
        if let Ok((FrameType::HelloReply, payload)) = connection.read_frame_by(Instant::now() + ANSWER_MAX) {
            self.ticket = HelloReply::decode(&payload).expect("a lawful answer").ticket;
        }
    }

    /// What came on each connection until its end.
    fn answers(&self) -> Vec<Vec<u8>> {
        std::thread::scope(|threads| {
            let readers: Vec<_> =
                self.connections.iter().map(|connection| threads.spawn(|| all_of(connection))).collect();
            readers.into_iter().map(|reader| reader.join().expect("read")).collect()
        })
    }
}

fn all_of(connection: &Connection) -> Vec<u8> {
    let (mut all, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    while let Ok(count) = connection.read_some(&mut buffer) {
        if count == 0 || all.len() > ANSWERS_BYTES_MAX {
            break;
        }
        all.extend_from_slice(&buffer[..count]);
    }
    connection.hang_up();
    all
}

fn range(script: &mut Script) -> Vec<u8> {
    let (path, ask) = (script.path().into(), Ask::ALL[script.below(Ask::ALL.len())]);
    let (start, len) = (script.number(), script.number());
    let mut out = Vec::new();
    if let Ok(range) = ByteRange::new(start, len) {
        RangeRequest { id: script.byte().into(), path, range, ask }.encode(&mut out);
    }
    out
}

fn push(script: &mut Script) -> Option<Vec<u8>> {
    let offer = Place { path: RelPath::new(&script.path()).ok()?, scope: Scope::Contents };
    let into = RelPath::new(&script.path()).ok()?;
    let new_name = if script.byte() == 1 { Name::new(&script.bytes()).ok() } else { None };
    let mut settings = Vec::new();
    for _ in 0..script.below(5) {
        let (name, value) = SETTINGS[script.below(SETTINGS.len())];
        let value = if script.is_set() { script.bytes() } else { value.to_vec() };
        settings.push(Setting { name: name.to_owned(), value });
    }
    let rules = Vec::new();
    Push { offer, into, new_name, settings, rules }.encode().ok()
}
