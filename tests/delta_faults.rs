//! What goes wrong while a changed file is brought up to date: kills, connections that break or spoil what they
//! carry, senders that lie about chunks. The name never stands for a wrong byte, and what was copied or fetched
//! before is not fetched again.

mod support;

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use fastcp_model::Status;
use fastcp_wire::range::{Ask, BodyKind, RangeRequest};
use fastcp_wire::signature::SIGNED_CHUNK_BYTES;
use nix::sys::signal::Signal;
use support::client::{Client, Run};
use support::compare::assert_same;
use support::cut_proxy::{CutProxy, Fault};
use support::journal::{Leftover, names_in_parts};
use support::lying_sender::{LyingSender, body, file, header, listing, offer, truth};
use support::peer::{attach, open_session, read_piece};
use support::server::Server;
use support::stage::{ATTACH_REPLY_BYTES, Stage};
use support::sweep::{Draw, is_long};
use support::tree::{noise, set_mtime};
use support::valve::Kind;
use support::versions::{NAME, Versions, put_old, rewritten, rewritten_bytes};
use support::{Workspace, wait_until};

const MIB: usize = 1 << 20;
const CHUNK_BYTES: u64 = 64 << 10;
/// Of the new version: what the old one has of it, and what it lacks.
const OLD_BYTES: usize = 5 * MIB + 77;
const NEW_BYTES: usize = 5 * MIB;
const FILE_BYTES: u64 = (OLD_BYTES + NEW_BYTES) as u64;
/// What the lists of chunks take at most, the greetings, and what of new bytes is fetched with old ones.
const LISTS_BYTES: u64 = 256 << 10;

/// A source whose second half the destination lacks.
fn half_new() -> Stage {
    let new = [noise(OLD_BYTES, 1), noise(NEW_BYTES, 2)].concat();
    let stage = Stage::new(|tree| {
        tree.file(NAME, &new);
    });
    put_old(&stage.copy, &new[..OLD_BYTES]);
    stage
}

/// Panics unless the run ended well and nothing is left of those before.
fn expect_whole(stage: &Stage, run: Run) -> u64 {
    let run = run.expect_exit(0).expect_counts(&[("files_committed", 1), ("chunks_refetched", 0)]);
    assert_same(&stage.source, &stage.copy);
    assert_eq!(names_in_parts(&stage.copy), Vec::<&Path>::new());
    let fetched = run.count("bytes_fetched");
    assert_eq!(fetched + run.count("bytes_reused"), FILE_BYTES);
    fetched
}

fn names_of_stale(copy: &Path) -> Vec<PathBuf> {
    let mut names = names_in_parts(copy);
    names.retain(|name| name.as_os_str().as_bytes().ends_with(b".stale"));
    names
}

/// What a killed run may have received in vain.
fn on_its_way(conns: u64) -> u64 {
    conns * CHUNK_BYTES + LISTS_BYTES
}

/// Kills a client when it has copied all there is and fetched some. Answers how much its journal claims.
fn kill_half_way(stage: &Stage, options: &str, conns: u64) -> u64 {
    let arrived = 3 << 20;
    let client = stage.stall(&format!("{options} --no-compress --conns {conns}"), arrived);
    let claimed = || Leftover::all(&stage.copy).iter().map(Leftover::claimed_bytes).sum::<u64>();
    wait_until("the journal to follow", || claimed() + on_its_way(conns) >= OLD_BYTES as u64 + arrived);
    client.kill();
    claimed()
}

#[test]
fn a_run_killed_in_the_middle_has_copied_for_the_next_one() {
    for (conns, options) in [(1, "--chunk-kb 64"), (4, "--chunk-kb 64 --durability none")] {
        let stage = half_new();
        let old = fs::read(stage.copy.join(NAME)).expect("read");
        let claimed = kill_half_way(&stage, options, conns);
        assert!(fs::read(stage.copy.join(NAME)).expect("read") == old, "a name before its time");
        stage.valve.renew();
        let fetched = expect_whole(&stage, stage.pull(options).run());
        assert!(fetched <= FILE_BYTES - claimed, "{fetched} with {claimed} claimed");
        let ever = stage.valve.passed_ever(Kind::Data);
        assert!(ever < NEW_BYTES as u64 + on_its_way(conns) + LISTS_BYTES, "{ever}");
    }
}

#[test]
fn a_run_may_be_killed_at_any_byte_of_it() {
    let mut draw = Draw::new();
    for nth in 0..if is_long() { 100 } else { 8 } {
        let stage = half_new();
        // Half of them while chunks are listed.
        let bytes = draw.below(if nth % 2 == 0 { NEW_BYTES as u64 } else { 4096 });
        stage.stall("--chunk-kb 64 --no-compress --conns 2", bytes).kill();
        let claimed: u64 = Leftover::all(&stage.copy).iter().map(Leftover::claimed_bytes).sum();
        stage.valve.renew();
        let fetched = expect_whole(&stage, stage.pull("--conns 2").run());
        let missing = (NEW_BYTES as u64 + CHUNK_BYTES).min(FILE_BYTES - claimed);
        assert!(fetched <= missing, "{fetched} of {missing} after {bytes}");
    }
}

/// The file as it is in `stage`, changed here and there.
fn change(stage: &Stage, secs: i64) -> u64 {
    let path = stage.source.join(NAME);
    let before = fs::read(&path).expect("read");
    let after = rewritten(&before, 200);
    fs::write(&path, &after).expect("write");
    set_mtime(&path, secs, 5);
    // Each page, and the chunks that it lies in.
    rewritten_bytes(&before, &after) * 9
}

#[test]
fn what_was_fetched_of_a_version_that_is_gone_is_a_basis_of_the_next() {
    let stage = half_new();
    let options = "--chunk-kb 64 --conns 2 --no-compress";
    let claimed = kill_half_way(&stage, "--chunk-kb 64", 2);
    assert_eq!(names_of_stale(&stage.copy), Vec::<&Path>::new());
    let changed = change(&stage, 1_650_000_000);
    // Killed once more: what was set aside stays for the next.
    stage.stall(options, 1 << 20).kill();
    assert_eq!(names_of_stale(&stage.copy).len(), 1, "{:?}", names_in_parts(&stage.copy));
    stage.valve.renew();
    let passed = stage.valve.passed_ever(Kind::Data);
    let fetched = expect_whole(&stage, stage.pull(options).run());
    assert!(fetched < FILE_BYTES - claimed + changed, "{fetched} after {claimed} of {FILE_BYTES}");
    assert!(passed + fetched < NEW_BYTES as u64 + changed + (2 << 20), "{passed} and {fetched}");
}

#[test]
fn a_new_file_whose_source_changed_begins_with_what_had_come() {
    let stage = half_new();
    fs::remove_file(stage.copy.join(NAME)).expect("remove");
    stage.stall_in_file("--chunk-kb 64", 2, CHUNK_BYTES, 6 << 20).kill();
    let claimed = Leftover::only(&stage.copy).claimed_bytes();
    let changed = change(&stage, 1_650_000_000);
    stage.valve.renew();
    let fetched = expect_whole(&stage, stage.pull("--conns 2").run());
    assert!(fetched < FILE_BYTES - claimed + changed, "{fetched} after {claimed} of {FILE_BYTES}");
    // Whole files need no basis, and clear it away all the same.
    let stage = half_new();
    kill_half_way(&stage, "--chunk-kb 64", 2);
    change(&stage, 1_650_000_000);
    stage.valve.renew();
    assert_eq!(expect_whole(&stage, stage.pull("--whole-file").run()), FILE_BYTES);
}

#[test]
fn a_signal_ends_a_run_that_waits_for_lists() {
    for conns in [1, 4] {
        let stage = half_new();
        // The greetings of all connections, and a little of the first list.
        let client = stage.stall(&format!("--conns {conns}"), (conns + 1) * ATTACH_REPLY_BYTES + 100);
        client.signal(Signal::SIGINT);
        client.finish().expect_exit(20).expect_counts(&[("bytes_fetched", 0), ("files_committed", 0)]);
        stage.valve.renew();
        let fetched = expect_whole(&stage, stage.pull("").run());
        assert!(fetched <= NEW_BYTES as u64 + CHUNK_BYTES, "{fetched}");
    }
}

/// A little into the first answers of a connection: around the greeting, a header, a list and its trailer.
fn offsets() -> Vec<usize> {
    let greeting = ATTACH_REPLY_BYTES as usize;
    let mut offsets = vec![1, greeting, greeting + 10, greeting + 47, greeting + 48, greeting + 60, greeting + 200];
    offsets.extend([greeting + 1500, greeting + 3000]);
    offsets
}

#[test]
fn connections_may_break_or_spoil_what_they_carry() {
    let old = noise(9 * MIB, 3);
    let versions = Versions::new(&old, &rewritten(&old, 60));
    let undisturbed = versions.pull("--conns 1").count("bytes_fetched");
    let faults: [fn(usize) -> Fault; 2] = [Fault::Cut, Fault::Flip];
    for offset in offsets() {
        for fault in faults {
            // One is for data and one for lists; which comes first is nobody's affair.
            for nth in [0, 1] {
                let proxy = CutProxy::start_for(versions.server.address, Kind::Data, nth, fault(offset));
                let copy = versions.copy();
                let client = Client::pull(proxy.url(), &copy).options("--conns 1 --chunk-kb 64 --no-compress");
                let run = versions.expect_same(&copy, client.run());
                let (fetched, refetched) = (run.count("bytes_fetched"), run.count("chunks_refetched"));
                let what = format!("{:?} of connection {nth}", fault(offset));
                assert!(refetched <= 1 && fetched <= undisturbed + CHUNK_BYTES, "{fetched} after {what}");
                assert!(proxy.data_connections() >= 2, "{what}");
            }
        }
    }
}

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
    _workspace: Workspace,
    copy: PathBuf,
    old: Vec<u8>,
    new: Arc<Vec<u8>>,
    lists: Arc<[Lists; 2]>,
}

impl Lie {
    fn new(file_bytes: usize) -> Self {
        let workspace = Workspace::new();
        let old = noise(file_bytes, 20);
        let new = rewritten(&old, 50);
        let copy = workspace.at("copy");
        put_old(&copy, &old);
        let lists = Arc::new([("old", &old), ("new", &new)].map(|(name, bytes)| Lists::of(&workspace, name, bytes)));
        Self { _workspace: workspace, copy, old, new: Arc::new(new), lists }
    }

    /// Pulls from a sender that answers as `answer` says, which gets the new version and both lists.
    fn pull(&self, answer: impl Fn(&RangeRequest, &[u8], &[Lists; 2]) -> Vec<u8> + Send + Sync + 'static) -> Run {
        self.pull_with("", answer)
    }

    fn pull_with(
        &self,
        options: &str,
        answer: impl Fn(&RangeRequest, &[u8], &[Lists; 2]) -> Vec<u8> + Send + Sync + 'static,
    ) -> Run {
        let offer = offer(vec![listing("", vec![file(NAME, &self.new)])]);
        let (new, lists) = (Arc::clone(&self.new), Arc::clone(&self.lists));
        let sender = LyingSender::start(offer, move |request| answer(request, &new, &lists));
        Client::pull(sender.url(), &self.copy).options("--retry 1 --conns 1").options(options).run()
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

/// Those that are only listed finely, and those that are listed coarsely first.
const LENGTHS: [usize; 2] = [2 * MIB + 3, 6 * MIB + 5];

#[test]
fn a_sender_that_lists_the_truth_is_asked_for_little() {
    for len in LENGTHS {
        let lie = Lie::new(len);
        let run = lie.pull(|request, new, [_, lists]| match is_for_list(request) {
            true => listed(request, new, &lists.list(request)),
            false => truth(request, new),
        });
        let fetched = run.count("bytes_fetched");
        assert!(fetched < lie.new_bytes() / 4, "{fetched}");
        lie.expect_new("the truth", run, fetched);
    }
}

#[test]
fn lists_of_another_content_lead_to_a_file_that_is_fetched_whole() {
    for len in LENGTHS {
        let lie = Lie::new(len);
        let run = lie.pull(|request, new, [lists, _]| match is_for_list(request) {
            true => listed(request, new, &lists.list(request)),
            false => truth(request, new),
        });
        assert!(run.count("bytes_reused") > 0);
        lie.expect_new("the list of the old version", run, lie.new_bytes());
        let lie = Lie::new(len);
        let run = lie.pull(|request, new, [_, lists]| {
            let mut list = if is_for_list(request) { lists.list(request) } else { return truth(request, new) };
            // Every hash becomes that of something that nobody has.
            list.chunks_mut(SIGNED_CHUNK_BYTES).for_each(|chunk| chunk[SIGNED_CHUNK_BYTES - 1] ^= 1);
            listed(request, new, &list)
        });
        let run = run.expect_counts(&[("bytes_reused", 0), ("chunks_refetched", 0)]);
        lie.expect_new("hashes of nothing", run, lie.new_bytes());
    }
}

#[test]
fn wrong_bytes_between_right_chunks_are_found_out() {
    for len in LENGTHS {
        let (lie, lies) = (Lie::new(len), AtomicUsize::new(0));
        let run = lie.pull(move |request, new, [_, lists]| match request.ask {
            Ask::Signature(_) => listed(request, new, &lists.list(request)),
            Ask::Bytes | Ask::BytesOrZstd if lies.fetch_add(1, Ordering::AcqRel) == 0 => nearly_true(request, new),
            _ => truth(request, new),
        });
        let fetched = run.count("bytes_fetched");
        assert!(fetched > lie.new_bytes() && fetched < lie.new_bytes() * 5 / 4, "{fetched}");
        lie.expect_new("a lie at first", run, fetched);
        let lie = Lie::new(len);
        let run = lie.pull(|request, new, [_, lists]| match is_for_list(request) {
            true => listed(request, new, &lists.list(request)),
            false => nearly_true(request, new),
        });
        lie.expect_old("nothing but lies", run, 23);
    }
}

#[test]
fn a_lie_in_place_is_mended_or_said_and_then_mended_by_the_next_run() {
    for len in LENGTHS {
        let (lie, lies) = (Lie::new(len), AtomicUsize::new(0));
        let run = lie.pull_with("--inplace", move |request, new, [lists, _]| match is_for_list(request) {
            true if lies.fetch_add(1, Ordering::AcqRel) < 3 => listed(request, new, &lists.list(request)),
            _ => truth(request, new),
        });
        let run = run.expect_exit(0);
        assert!(run.count("bytes_reused") > 0);
        lie.expect_new("a lie at first", run, lie.new_bytes());
        put_old(&lie.copy, &lie.old);
        let run = lie.pull_with("--inplace", |request, new, [_, lists]| match is_for_list(request) {
            true => listed(request, new, &lists.list(request)),
            false => nearly_true(request, new),
        });
        run.expect_exit(23).expect_counts(&[("files_committed", 0), ("files_failed", 1)]);
        let run = lie.pull_with("--inplace", |request, new, [_, lists]| match is_for_list(request) {
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
    for len in LENGTHS {
        let lie = Lie::new(len);
        for (what, answer) in answers {
            put_old(&lie.copy, &lie.old);
            let run = lie.pull(move |request, new, [_, lists]| match is_for_list(request) {
                true => answer(request, new, lists.list(request)),
                false => truth(request, new),
            });
            lie.expect_new(what, run, lie.new_bytes());
        }
    }
}

#[test]
fn a_file_that_is_always_another_when_it_is_listed_keeps_its_old_version() {
    let lie = Lie::new(LENGTHS[0]);
    let run = lie.pull(|request, new, [_, lists]| {
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
