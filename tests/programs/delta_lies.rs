//! Senders that lie about the chunks of a changed file, or about the bytes between them. Whatever they say, the name
//! stands for what the sender confirms or for the old version, and a lie costs no more than fetching the file whole.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::client::Run;
use crate::support::journal::{Leftover, names_in_parts};
use crate::support::lied_to::LiedTo;
use crate::support::lying_sender::Lies;
use crate::support::peer::{attach, open_session, read_piece};
use crate::support::said::{body, file, header, listing, offer, truth};
use crate::support::server::Server;
use crate::support::tree::noise;
use crate::support::versions::{NAME, put_old, rewritten};
use crate::support::way::{BOTH_WAYS, Way};
use crate::support::{Workspace, wait_until};
use fastcp_model::{Capabilities, Status};
use fastcp_wire::reply::BodyKind;
use fastcp_wire::request::{Ask, RangeRequest};
use fastcp_wire::signature::{Level, SIGNED_CHUNK_BYTES};

const MIB: usize = 1 << 20;
/// Files that are only listed finely, and those that are listed coarsely first.
const LENGTHS: [usize; 2] = [2 * MIB + 3, 6 * MIB + 5];

/// Asks a server that tells the truth.
struct Lists {
    _server: Server,
    _control: TcpStream,
    data: Mutex<TcpStream>,
}

impl Lists {
    /// For the lists of a file that holds `bytes`.
    fn of(workspace: &Workspace, name: &str, bytes: &[u8]) -> Self {
        let root = workspace.at(name);
        put_old(&root, bytes);
        let server = Server::start(&root);
        let mut control = server.connect();
        let ticket = open_session(&mut control, 1).ticket;
        let mut data = server.connect();
        attach(&mut data, ticket);
        Self { _server: server, _control: control, data: Mutex::new(data) }
    }

    /// The list that a request asks for.
    fn list(&self, request: &RangeRequest) -> Vec<u8> {
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        let mut data = self.data.lock().expect("not poisoned");
        data.write_all(&bytes).expect("send");
        let (header, list, _) = read_piece(&mut data);
        assert_eq!((header.reply.status, header.kind), (Status::Ok, BodyKind::Signature));
        list
    }
}

/// An answer with this list from a file that holds `bytes`.
fn listed(request: &RangeRequest, bytes: &[u8], list: &[u8]) -> Vec<u8> {
    let mut header = header(request, bytes);
    (header.kind, header.body_bytes) = (BodyKind::Signature, u32::try_from(list.len()).expect("short"));
    [header.encode().to_vec(), body(list)].concat()
}

/// An old version, a new one and the lists of both, for a sender to lie with.
struct Lie {
    lied_to: LiedTo,
    copy: PathBuf,
    old: Vec<u8>,
    new: Arc<Vec<u8>>,
    lists: Arc<[Lists; 2]>,
}

impl Lie {
    fn by(way: Way, file_bytes: usize) -> Self {
        let lied_to = LiedTo::by(way);
        let old = noise(file_bytes, 20);
        let new = rewritten(&old, 50);
        let copy = lied_to.copy();
        put_old(&copy, &old);
        let of = |(name, bytes): (&str, &Vec<u8>)| Lists::of(&lied_to.workspace, name, bytes);
        let lists = Arc::new([("old", &old), ("new", &new)].map(of));
        Self { lied_to, copy, old, new: Arc::new(new), lists }
    }

    /// Hears a sender that answers as `answer` says, which gets the new version and both lists.
    fn hear(&self, answer: impl Fn(&RangeRequest, &[u8], &[Lists; 2]) -> Vec<u8> + Send + Sync + 'static) -> Run {
        self.hear_with("", answer)
    }

    fn hear_with(
        &self,
        options: &str,
        answer: impl Fn(&RangeRequest, &[u8], &[Lists; 2]) -> Vec<u8> + Send + Sync + 'static,
    ) -> Run {
        let offer = offer(vec![listing("", vec![file(NAME, &self.new)])]);
        let (new, lists) = (Arc::clone(&self.new), Arc::clone(&self.lists));
        let lies = Lies::new(offer, move |request| answer(request, &new, &lists));
        self.lied_to.hear_at(&self.copy, lies, &format!("--retry 1 --conns 1 {options}"))
    }

    /// Panics unless the destination has the new version, of which so much was fetched and no more is left.
    fn expect_new(&self, what: &str, run: Run, fetched: u64) {
        let run = run.expect_exit(0).expect_counts(&[("files_committed", 1)]);
        assert_eq!(run.count("bytes_fetched"), fetched, "{what}");
        assert!(fs::read(self.copy.join(NAME)).expect("read") == *self.new, "{what}: wrong bytes");
        assert_eq!(names_in_parts(&self.copy), Vec::<&Path>::new(), "{what}");
    }

    fn expect_old(&self, what: &str, run: Run, code: i32) {
        run.expect_exit(code).expect_counts(&[("files_committed", 0), ("files_failed", 1)]);
        assert!(fs::read(self.copy.join(NAME)).expect("read") == self.old, "{what}: wrong bytes");
    }

    fn new_bytes(&self) -> u64 {
        self.new.len() as u64
    }
}

fn is_for_list(request: &RangeRequest) -> bool {
    matches!(request.ask, Ask::Signature(_))
}

/// An answer with the truth, but for a byte of the file.
fn nearly_true(request: &RangeRequest, bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if matches!(request.ask, Ask::Bytes | Ask::BytesOrZstd) {
        bytes[request.range.start() as usize] ^= 1;
    }
    truth(request, &bytes)
}

fn cases() -> impl Iterator<Item = (Way, usize)> {
    BOTH_WAYS.into_iter().flat_map(|way| LENGTHS.map(|len| (way, len)))
}

#[test]
fn a_sender_that_lists_the_truth_is_asked_for_little() {
    for (way, len) in cases() {
        let lie = Lie::by(way, len);
        let run = lie.hear(|request, new, [_, lists]| match is_for_list(request) {
            true => listed(request, new, &lists.list(request)),
            false => truth(request, new),
        });
        let fetched = run.count("bytes_fetched");
        assert!(fetched < lie.new_bytes() / 4, "{fetched}");
        lie.expect_new("the truth", run, fetched);
    }
}

/// A byte of the weak hash of a signed chunk, by which chunks are found.
const WEAK_HASH_BYTE: usize = 3;

#[test]
fn lists_of_another_content_lead_to_a_file_that_is_fetched_whole() {
    for (way, len) in cases() {
        let lie = Lie::by(way, len);
        let run = lie.hear(|request, new, [lists, _]| match is_for_list(request) {
            true => listed(request, new, &lists.list(request)),
            false => truth(request, new),
        });
        assert!(run.count("bytes_reused") > 0);
        lie.expect_new("the list of the old version", run, lie.new_bytes());
        // Every chunk becomes one that nobody has: it is not what it seemed to be.
        let lie = Lie::by(way, len);
        let run = lie.hear(|request, new, [_, lists]| with_wrong_lists(SIGNED_CHUNK_BYTES - 1, request, new, lists));
        let run = run.expect_counts(&[("bytes_reused", 0), ("chunks_refetched", 0)]);
        lie.expect_new("hashes of nothing", run, lie.new_bytes());
    }
}

#[test]
fn where_a_chunk_is_may_be_said_wrong() {
    for (way, len) in cases() {
        let lie = Lie::by(way, len);
        let run = lie.hear(|request, new, [_, lists]| with_wrong_lists(WEAK_HASH_BYTE, request, new, lists));
        let run = run.expect_counts(&[("chunks_refetched", 0)]);
        // What stands where it stood is found all the same, in a file that is long enough to be tried there.
        let reused = run.count("bytes_reused");
        assert_eq!(reused > 0, len > 4 * MIB, "{len} bytes: {reused}");
        lie.expect_new("weak hashes of nothing", run, lie.new_bytes() - reused);
    }
}

/// The truth, but for one byte of each chunk in lists.
fn with_wrong_lists(byte: usize, request: &RangeRequest, new: &[u8], lists: &Lists) -> Vec<u8> {
    if !is_for_list(request) {
        return truth(request, new);
    }
    let mut list = lists.list(request);
    list.chunks_mut(SIGNED_CHUNK_BYTES).for_each(|chunk| chunk[byte] ^= 1);
    listed(request, new, &list)
}

#[test]
fn wrong_bytes_between_right_chunks_are_found_out() {
    for (way, len) in cases() {
        let (lie, lies) = (Lie::by(way, len), AtomicUsize::new(0));
        let run = lie.hear(move |request, new, [_, lists]| match request.ask {
            Ask::Signature(_) => listed(request, new, &lists.list(request)),
            Ask::Bytes | Ask::BytesOrZstd if lies.fetch_add(1, Ordering::AcqRel) == 0 => nearly_true(request, new),
            _ => truth(request, new),
        });
        let fetched = run.count("bytes_fetched");
        assert!(fetched > lie.new_bytes() && fetched < lie.new_bytes() * 5 / 4, "{fetched}");
        lie.expect_new("a lie at first", run, fetched);
        let lie = Lie::by(way, len);
        let run = lie.hear(|request, new, [_, lists]| match is_for_list(request) {
            true => listed(request, new, &lists.list(request)),
            false => nearly_true(request, new),
        });
        lie.expect_old("nothing but lies", run, 23);
    }
}

#[test]
fn a_lie_in_place_is_mended_or_said_and_then_mended_by_the_next_run() {
    for (way, len) in cases() {
        let (lie, lies) = (Lie::by(way, len), AtomicUsize::new(0));
        let run = lie.hear_with("--inplace", move |request, new, [lists, _]| match is_for_list(request) {
            true if lies.fetch_add(1, Ordering::AcqRel) < 3 => listed(request, new, &lists.list(request)),
            _ => truth(request, new),
        });
        let run = run.expect_exit(0);
        assert!(run.count("bytes_reused") > 0);
        lie.expect_new("a lie at first", run, lie.new_bytes());
        put_old(&lie.copy, &lie.old);
        let run = lie.hear_with("--inplace", |request, new, [_, lists]| match is_for_list(request) {
            true => listed(request, new, &lists.list(request)),
            false => nearly_true(request, new),
        });
        run.expect_exit(23).expect_counts(&[("files_committed", 0), ("files_failed", 1)]);
        let run = lie.hear_with("--inplace", |request, new, [_, lists]| match is_for_list(request) {
            true => listed(request, new, &lists.list(request)),
            false => truth(request, new),
        });
        let fetched = run.count("bytes_fetched");
        lie.expect_new("the truth at last", run, fetched);
    }
}

#[test]
fn answers_that_are_no_lists_cost_the_delta_and_nothing_else() {
    type Answer = fn(&RangeRequest, &[u8], Vec<u8>) -> Vec<u8>;
    let answers: [(&str, Answer); 6] = [
        ("a list that is too short", |request, new, list| listed(request, new, &list[SIGNED_CHUNK_BYTES..])),
        ("a list that is torn", |request, new, list| listed(request, new, &list[1..])),
        ("a list that is too long", |request, new, list| listed(request, new, &[&list[..], &list].concat())),
        ("a list that is far too long", |request, new, list| listed(request, new, &list.repeat(1000))),
        ("bytes", |request, new, _| [header(request, new).encode().to_vec(), body(new)].concat()),
        ("a refusal", |request, new, _| {
            let mut header = header(request, new);
            (header.reply.status, header.body_bytes) = (Status::InputOutput, 0);
            header.encode().to_vec()
        }),
    ];
    for (way, len) in cases() {
        let lie = Lie::by(way, len);
        for (what, answer) in answers {
            put_old(&lie.copy, &lie.old);
            let run = lie.hear(move |request, new, [_, lists]| match is_for_list(request) {
                true => answer(request, new, lists.list(request)),
                false => truth(request, new),
            });
            lie.expect_new(what, run, lie.new_bytes());
        }
    }
}

#[test]
fn a_file_that_is_always_another_when_it_is_listed_keeps_its_old_version() {
    for way in BOTH_WAYS {
        let lie = Lie::by(way, LENGTHS[0]);
        let run = lie.hear(|request, new, [_, lists]| {
            if !is_for_list(request) {
                return truth(request, new);
            }
            let list = lists.list(request);
            let mut header = header(request, new);
            header.reply.mtime_ns += 1;
            (header.kind, header.body_bytes) = (BodyKind::Signature, u32::try_from(list.len()).expect("short"));
            [header.encode().to_vec(), body(&list)].concat()
        });
        lie.expect_old("another time", run, 24);
    }
}

/// Lists that nothing has anything of, until a range has been asked for because of them; then the connection breaks,
/// and the fine lists are those of the new version. The range is answered once some of the file has been copied.
struct SecondThoughts {
    copy: PathBuf,
    coarse_lists: AtomicUsize,
    is_fetching: AtomicBool,
}

impl SecondThoughts {
    /// Whether a range is asked for. The client looks at a list when it has cut its old version, and not before the
    /// next list has come: so none is held back for long.
    fn is_fetched_soon(&self) -> bool {
        let until = Instant::now() + Duration::from_millis(100);
        while !self.is_fetching.load(Ordering::Acquire) && Instant::now() < until {
            std::thread::yield_now();
        }
        self.is_fetching.load(Ordering::Acquire)
    }

    fn answer(&self, request: &RangeRequest, new: &[u8], lists: &Lists, stream: &mut TcpStream) -> std::io::Result<()> {
        let answer = match request.ask {
            Ask::Signature(level) => {
                let attempt = self.coarse_lists.fetch_add(usize::from(level == Level::Coarse), Ordering::AcqRel);
                let is_first = attempt <= 1 && level == Level::Fine;
                if is_first && self.is_fetched_soon() {
                    return Err(std::io::ErrorKind::ConnectionReset.into());
                }
                let mut list = lists.list(request);
                if is_first || level == Level::Coarse {
                    list.chunks_mut(SIGNED_CHUNK_BYTES).for_each(|chunk| chunk[WEAK_HASH_BYTE] ^= 1);
                }
                listed(request, new, &list)
            }
            Ask::Bytes | Ask::BytesOrZstd => {
                if !self.is_fetching.swap(true, Ordering::AcqRel) {
                    wait_until("something that is copied", || {
                        Leftover::all(&self.copy).iter().any(|left| left.claimed_bytes() > 0)
                    });
                }
                truth(request, new)
            }
            _ => truth(request, new),
        };
        stream.write_all(&answer)
    }
}

#[test]
fn nothing_is_copied_into_a_range_that_is_being_fetched() {
    for way in BOTH_WAYS {
        let lie = Lie::by(way, LENGTHS[1]);
        let thoughts = SecondThoughts {
            copy: lie.copy.clone(),
            coarse_lists: AtomicUsize::new(0),
            is_fetching: AtomicBool::new(false),
        };
        let offer = offer(vec![listing("", vec![file(NAME, &lie.new)])]);
        let (new, lists) = (Arc::clone(&lie.new), Arc::clone(&lie.lists));
        let capabilities = Capabilities::SUPPORTED.difference(Capabilities::BUNDLE);
        let lies = Lies::sending(offer, capabilities, move |request, stream| {
            thoughts.answer(request, &new, &lists[1], stream)
        });
        let run = lie.lied_to.hear_at(&lie.copy, lies, "--retry 30 --conns 1 --no-compress").expect_exit(0);
        let (fetched, reused) = (run.count("bytes_fetched"), run.count("bytes_reused"));
        assert!(reused > 0, "the second lists were of use");
        assert_eq!(fetched + reused, lie.new_bytes(), "no byte came twice");
        lie.expect_new("second thoughts", run, fetched);
    }
}
