//! Searches against a real server on loopback: what is found is true, and it took no more than it should.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastcp_model::{Capabilities, Status};
use fastcp_net::{Connection, Dialer, Endpoint, HANDSHAKE_TIMEOUT, Inbox, Live, Session, Terms};
use fastcp_sys::Stat;
use fastcp_wire::hello::Role;
use fastcp_wire::signature::StrongHash;
use tempfile::TempDir;

use super::asker::Tally;
use super::{Asker, DeltaEnd, DeltaFile, Found, Outcome, Reach, SMALL_BYTES_MAX, find, find_small};
use crate::content::cutter::Cutter;
use crate::reuse::basis::Basis;
use crate::settings::{Compression, PlainCrc, ServerSettings};
use crate::{Server, Source};

mod lies;

fn random(count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..count).map(|_| next()).collect()
}

/// A served directory, and one connection attached to its server.
struct Served {
    dir: TempDir,
    _session: Session,
    connection: Arc<Connection>,
}

impl Served {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let settings = ServerSettings {
            capabilities: Capabilities::SUPPORTED,
            connections: 4,
            chunk_kb: None,
            compression: Compression::Off,
            setuid: crate::SetUid::Dropped,
            writes: crate::settings::Writes::Refused,
            plain_crc: PlainCrc::Given,
            handshake_timeout: Duration::from_secs(60),
            ..ServerSettings::default()
        };
        let server = Arc::new(Server::new(Source::open(dir.path()).expect("open"), settings));
        let hear = Arc::new(move |stream| {
            let server = Arc::clone(&server);
            std::thread::Builder::new().spawn(move || server.serve(stream)).map(drop)
        });
        let dialer = Dialer::new(Endpoint::Embedded(hear), Arc::default());
        let terms = Terms { capabilities: Capabilities::SUPPORTED, connections: 4, chunk_kb: None };
        let (live, deadline) = (Live::default(), Instant::now() + HANDSHAKE_TIMEOUT);
        let control = dialer.dial(&live, deadline).expect("a connection");
        let session = Session::greet(control, Role::Receiver, &terms, &[], &[], deadline).expect("a session");
        let connection = dialer.dial(&live, deadline).expect("a connection");
        session.attach_right().greet(&connection, deadline).expect("a data connection");
        Self { dir, _session: session, connection }
    }

    /// Makes a file to serve; answers its length and time as an offer has them.
    fn put(&self, name: &str, bytes: &[u8]) -> (u64, u64) {
        let path = self.dir.path().join(name);
        std::fs::write(&path, bytes).expect("write");
        let stat = Stat::of_fd(File::open(&path).expect("open")).expect("stat");
        (stat.size_bytes(), stat.metadata.mtime.wire_ns())
    }

    /// Searches in what `bases` hold, which are the files of the basis.
    fn search(&self, file: &DeltaFile<'_>, bases: &[File]) -> (DeltaEnd, Vec<Found>, Tally) {
        let mut inbox = Inbox::new();
        let mut asker = Asker::new(&self.connection, &mut inbox);
        let mut all = Vec::new();
        let end = find(&mut asker, file, &mut |found, decided| {
            assert!(found.is_sorted_by_key(|found| found.range.start()));
            // Of what is decided nothing more will be found, and nothing was before.
            let is_within = |found: &Found| {
                decided.is_none_or(|range| range.start() <= found.range.start() && found.range.end() <= range.end())
            };
            assert!(found.iter().all(is_within) && (decided.is_some() || !found.is_empty()));
            let (right, wrong): (Vec<Found>, Vec<Found>) = found.iter().partition(|found| holds(bases, found));
            all.extend(right);
            Outcome { wrong: wrong.iter().map(|found| found.range).collect(), had: Vec::new() }
        });
        let tally = asker.tally;
        assert!(inbox.buffered().is_empty(), "an answer was left");
        (end.expect("a connection that holds"), all, tally)
    }
}

fn holds(bases: &[File], found: &Found) -> bool {
    let mut bytes = vec![0; found.range.len() as usize];
    let read = bases[found.file].read_exact_at(&mut bytes, found.offset);
    read.is_ok() && StrongHash::of(&bytes) == found.hash
}

/// A basis of files, and the same files for [`Served::search`].
fn basis_of(cutter: &Cutter, files: Vec<File>) -> (Basis<'_>, Vec<File>) {
    let same = files.iter().map(|file| file.try_clone().expect("another handle")).collect();
    (Basis::new(cutter, files).expect("stat"), same)
}

fn file_of(bytes: &[u8]) -> File {
    let file = tempfile::tempfile().expect("file");
    file.write_all_at(bytes, 0).expect("write");
    file
}

/// Checks that everything found is true; answers how many bytes were not found.
fn not_found(new: &[u8], bases: &[&[u8]], found: &[Found]) -> usize {
    let mut found = found.to_vec();
    found.sort_by_key(|found| found.range.start());
    let mut at = 0;
    for one in &found {
        let (start, end) = (one.range.start() as usize, one.range.end() as usize);
        assert!(start >= at, "ranges overlap");
        at = end;
        let offset = one.offset as usize;
        assert!(new[start..end] == bases[one.file][offset..offset + end - start], "{one:?} is not true");
        assert_eq!(one.hash, StrongHash::of(&new[start..end]));
    }
    new.len() - found.iter().map(|found| found.range.len() as usize).sum::<usize>()
}

/// Searches for `new` in files that hold `bases`; answers how many bytes were not found, and what it took.
fn searched(new: &[u8], bases: &[&[u8]]) -> (usize, Tally) {
    let (missed, tally, _) = searched_within(Reach::Anywhere, new, bases);
    (missed, tally)
}

/// The same, and whether all of the basis had to be cut for it.
fn searched_within(reach: Reach, new: &[u8], bases: &[&[u8]]) -> (usize, Tally, bool) {
    let served = Served::start();
    let (file_bytes, mtime_ns) = served.put("file", new);
    let cutter = Cutter::default();
    let (basis, files) = basis_of(&cutter, bases.iter().map(|bytes| file_of(bytes)).collect());
    let file = DeltaFile { path: b"file", file_bytes, mtime_ns, basis, reach };
    let (end, found, tally) = served.search(&file, &files);
    assert!(matches!(end, DeltaEnd::Done), "{end:?}");
    (not_found(new, bases, &found), tally, file.basis.is_cut())
}

/// The most of a coarse chunk, and of a fine one.
const COARSE: usize = 1 << 20;
const FINE: usize = 64 << 10;

#[test]
fn what_did_not_change_is_found_by_coarse_chunks_alone() {
    let bytes = random(20 << 20, 1);
    let (missed, tally) = searched(&bytes, &[&bytes]);
    assert_eq!((missed, tally.fine_bytes, tally.requests), (0, 0, 1));
    assert_eq!(tally.coarse_bytes, bytes.len() as u64);
}

#[test]
fn rewritten_pages_cost_little_more_than_themselves() {
    let old = random(40 << 20, 2);
    let mut new = old.clone();
    for page in [5, 1000, 1001, 4000, 9999] {
        new[page << 12..(page + 1) << 12].copy_from_slice(&random(4096, page as u64));
    }
    let (missed, tally) = searched(&new, &[&old]);
    assert!((5 * 4096..5 * 32_768).contains(&missed), "{missed} bytes");
    assert!(tally.fine_bytes <= (5 * COARSE) as u64 && tally.wire_bytes < 30_000, "{tally:?}");
}

#[test]
fn an_insertion_at_the_front_costs_the_first_chunk() {
    let old = random(20 << 20, 3);
    let new = [random(1000, 4), old.clone()].concat();
    let (missed, tally) = searched(&new, &[&old]);
    assert!((1000..1000 + FINE).contains(&missed), "{missed} bytes");
    assert!(tally.fine_bytes <= 2 * COARSE as u64, "{tally:?}");
}

#[test]
fn halves_that_changed_places_are_found() {
    let old = random(24 << 20, 5);
    let (first, second) = old.split_at(11 << 20);
    let (missed, tally) = searched(&[second, first].concat(), &[&old]);
    assert!(missed <= 2 * FINE, "{missed} bytes");
    assert!(tally.fine_bytes <= 3 * COARSE as u64, "{tally:?}");
}

#[test]
fn a_file_that_was_cut_off_or_grew() {
    let long = random(24 << 20, 6);
    let short = &long[..(13 << 20) + 77];
    let (missed, _) = searched(short, &[&long]);
    assert!(missed <= FINE, "{missed} bytes");
    let (missed, _) = searched(&long, &[short]);
    assert!((long.len() - short.len()..long.len() - short.len() + FINE).contains(&missed), "{missed} bytes");
}

#[test]
fn the_basis_is_cut_only_where_something_is_not_where_it_is_expected() {
    let old = random(40 << 20, 23);
    let mut rewritten = old.clone();
    (0..40).for_each(|at| rewritten[at << 20..][..4096].copy_from_slice(&random(4096, at as u64)));
    let put_in =
        [&old[..9 << 20], &random(5000, 24), &old[9 << 20..30 << 20], &random(77, 25), &old[30 << 20..]].concat();
    let taken_out = [&old[..11 << 20], &old[13 << 20..]].concat();
    let longer = [&old[..], &random(9 << 20, 26)].concat();
    let swapped = [&old[20 << 20..], &old[..20 << 20]].concat();
    let cases: [(&str, &[u8], bool, usize); 8] = [
        ("the same", &old, false, 0),
        ("pages rewritten", &rewritten, false, 40 * 4096),
        ("bytes put in", &put_in, false, 5077),
        ("bytes taken out", &taken_out, false, 0),
        ("longer", &longer, true, 9 << 20),
        ("a little longer", &longer[..(40 << 20) + 200_000], false, 200_000),
        ("halves that changed places", &swapped, true, 0),
        ("another", &random(40 << 20, 27), true, 40 << 20),
    ];
    for (what, new, is_cut, new_bytes) in cases {
        let (missed, _, was_cut) = searched_within(Reach::Anywhere, new, &[&old]);
        assert_eq!(was_cut, is_cut, "{what}");
        // The last byte of a file may be a chunk, and some other chunk's too.
        assert!((new_bytes.saturating_sub(1)..new_bytes + 42 * FINE / 2).contains(&missed), "{what}: {missed} bytes");
    }
}

#[test]
fn what_was_moved_within_a_file_is_found_by_fine_chunks() {
    let old = random(40 << 20, 28);
    let mut new = old.clone();
    new[7 << 20..8 << 20].copy_from_slice(&old[30 << 20..31 << 20]);
    new[30 << 20..31 << 20].copy_from_slice(&old[7 << 20..8 << 20]);
    let (missed, tally, was_cut) = searched_within(Reach::Anywhere, &new, &[&old]);
    assert!(missed <= 4 * FINE && was_cut, "{missed} bytes");
    assert!(tally.fine_bytes <= 4 << 20, "{tally:?}");
    // Blocks shorter than a coarse chunk, so that something is still where it was in each.
    let mut new = old.clone();
    for at in (0..320).step_by(8) {
        let (one, other) = ((2 * at) << 16, (2 * at + 9) << 16);
        new[one..][..1 << 15].copy_from_slice(&old[other..][..1 << 15]);
        new[other..][..1 << 15].copy_from_slice(&old[one..][..1 << 15]);
    }
    let (missed, ..) = searched_within(Reach::Anywhere, &new, &[&old]);
    // The chunks across the ends of a block are new: about half of a block of 32 KiB.
    assert!(missed <= 80 * 20_000, "{missed} bytes");
}

#[test]
fn what_is_there_twice_is_found_twice() {
    let old = random(40 << 20, 31);
    let twice = [&old[..], &old[10 << 20..30 << 20]].concat();
    let mut over = old.clone();
    (0..16).for_each(|at| over[at << 21..][..1 << 20].copy_from_slice(&old[(at << 21) + (1 << 20)..][..1 << 20]));
    for new in [&twice, &over] {
        let (missed, ..) = searched_within(Reach::Anywhere, new, &[&old]);
        assert!(missed <= 40 * FINE, "{missed} bytes");
    }
}

#[test]
fn many_small_insertions_cost_little_more_than_themselves() {
    let old = random(20 << 20, 32);
    let new: Vec<u8> = old.chunks(50_000).flat_map(|part| part.iter().copied().chain([7])).collect();
    let (missed, ..) = searched_within(Reach::Anywhere, &new, &[&old]);
    assert!(missed <= 420 * 12_000, "{missed} bytes");
}

#[test]
fn what_had_arrived_of_a_newer_version_is_found_at_its_place() {
    let old = random(40 << 20, 33);
    let mut new = old.clone();
    (0..640).for_each(|at| new[at << 16..][..1 << 14].copy_from_slice(&random(1 << 14, at as u64)));
    let mut arrived = new.clone();
    arrived[20 << 20..].fill(0);
    let (missed, _, was_cut) = searched_within(Reach::Anywhere, &new, &[&old, &arrived]);
    assert!(missed <= 320 * 40_000 && !was_cut, "{missed} bytes");
}

#[test]
fn where_only_the_same_place_counts_nothing_is_looked_for_elsewhere() {
    let old = random(24 << 20, 29);
    let new = [&old[..12 << 20], &random(1000, 30), &old[12 << 20..]].concat();
    let (missed, _, was_cut) = searched_within(Reach::SamePlace, &new, &[&old]);
    assert!(((12 << 20) + 1000..(12 << 20) + 1000 + FINE).contains(&missed) && !was_cut, "{missed} bytes");
}

#[test]
fn several_files_are_one_basis() {
    let new = random(20 << 20, 7);
    let (missed, _) = searched(&new, &[&new[..9 << 20], &[], &new[7 << 20..]]);
    assert!(missed <= FINE, "{missed} bytes");
}

#[test]
fn a_sparse_basis_is_searched_where_it_has_data() {
    let new = random(16 << 20, 8);
    let served = Served::start();
    let (file_bytes, mtime_ns) = served.put("file", &new);
    let part = tempfile::tempfile().expect("file");
    part.set_len(new.len() as u64).expect("grow");
    part.write_all_at(&new[4 << 20..6 << 20], 4 << 20).expect("write");
    part.write_all_at(&new[9 << 20..15 << 20], 9 << 20).expect("write");
    let mut held = vec![0; new.len()];
    part.read_exact_at(&mut held, 0).expect("read");
    let cutter = Cutter::default();
    let (basis, files) = basis_of(&cutter, vec![part]);
    let file = DeltaFile { path: b"file", file_bytes, mtime_ns, basis, reach: Reach::Anywhere };
    let (end, found, _) = served.search(&file, &files);
    assert!(matches!(end, DeltaEnd::Done), "{end:?}");
    let missed = not_found(&new, &[&held], &found);
    assert!((8 << 20..(8 << 20) + 4 * FINE).contains(&missed), "{missed} bytes");
}

#[test]
fn without_a_basis_nothing_is_asked() {
    for bases in [&[][..], &[&[][..]], &[&[], &[]]] {
        let (missed, tally) = searched(&random(10_000, 9), bases);
        assert_eq!((missed, tally), (10_000, Tally::default()));
    }
}

#[test]
fn files_at_the_border_of_the_small_ones() {
    for length in [1, 100, SMALL_BYTES_MAX as usize, SMALL_BYTES_MAX as usize + 1] {
        let old = random(length, 12);
        let mut new = old.clone();
        new[length / 2] ^= 1;
        let (missed, tally) = searched(&new, &[&old]);
        assert!(missed <= FINE, "{length} bytes: {missed}");
        assert_eq!(tally.coarse_bytes == 0, length <= SMALL_BYTES_MAX as usize, "{length} bytes");
    }
}

#[test]
fn a_small_file_is_found_in_a_larger_one() {
    let old = random(12 << 20, 13);
    let (missed, tally) = searched(&old[5 << 20..8 << 20], &[&old]);
    assert!(missed <= 2 * FINE, "{missed} bytes");
    assert_eq!(tally.requests, 1);
}

#[test]
fn many_small_files_share_the_round_trips() {
    let served = Served::start();
    let cutter = Cutter::default();
    let old: Vec<Vec<u8>> = (0..300).map(|number| random(20_000, number)).collect();
    let mut new = old.clone();
    new.iter_mut().for_each(|bytes| bytes[10_000] ^= 1);
    let offered: Vec<(String, (u64, u64))> = (0..)
        .zip(&new)
        .map(|(number, bytes)| (format!("file {number}"), served.put(&format!("file {number}"), bytes)))
        .collect();
    let files = offered.iter().zip(&old).map(|((name, (file_bytes, mtime_ns)), old)| DeltaFile {
        path: name.as_bytes(),
        file_bytes: *file_bytes,
        mtime_ns: *mtime_ns,
        basis: Basis::new(&cutter, vec![file_of(old)]).expect("stat"),
        reach: Reach::Anywhere,
    });
    let mut inbox = Inbox::new();
    let mut asker = Asker::new(&served.connection, &mut inbox);
    let (mut seen, mut missed) = (Vec::new(), 0);
    find_small(&mut asker, files, &mut |number, found, end| {
        assert!(matches!(end, DeltaEnd::Done), "{end:?}");
        missed += not_found(&new[number], &[&old[number]], found);
        seen.push(number);
    })
    .expect("a connection that holds");
    assert_eq!(seen, (0..300).collect::<Vec<_>>());
    assert!(missed < 300 * 12_000, "{missed} bytes");
    assert_eq!(asker.tally.requests, 300);
}

#[test]
fn small_files_end_each_for_itself() {
    let served = Served::start();
    let cutter = Cutter::default();
    let (file_bytes, mtime_ns) = served.put("there", b"some bytes");
    let file = |path: &'static [u8], mtime_ns, basis: &[u8]| {
        let basis = Basis::new(&cutter, vec![file_of(basis)]).expect("stat");
        DeltaFile { path, file_bytes, mtime_ns, basis, reach: Reach::Anywhere }
    };
    let files = [
        file(b"gone", mtime_ns, b"some bytes"),
        file(b"there", mtime_ns + 1, b"some bytes"),
        file(b"there", mtime_ns, b""),
        file(b"there", mtime_ns, b"some bytes"),
    ];
    let mut inbox = Inbox::new();
    let mut ends = Vec::new();
    find_small(&mut Asker::new(&served.connection, &mut inbox), files, &mut |number, found, end| {
        ends.push((number, found.len(), format!("{end:?}")));
    })
    .expect("a connection that holds");
    ends.sort();
    let expected = [(0, 0, "Refused(NotFound)"), (1, 0, "Changed"), (2, 0, "Done"), (3, 1, "Done")];
    assert_eq!(ends, expected.map(|(number, count, end)| (number, count, end.to_owned())));
}

#[test]
fn a_source_that_is_not_what_was_offered_ends_the_search_and_not_the_connection() {
    let served = Served::start();
    let cutter = Cutter::default();
    let bytes = random(6 << 20, 14);
    let (file_bytes, mtime_ns) = served.put("file", &bytes);
    let file = |path: &'static [u8], file_bytes, mtime_ns| {
        let basis = Basis::new(&cutter, vec![file_of(&bytes)]).expect("stat");
        DeltaFile { path, file_bytes, mtime_ns, basis, reach: Reach::Anywhere }
    };
    let ends = |file: DeltaFile<'_>| served.search(&file, &[file_of(&bytes)]).0;
    assert!(matches!(ends(file(b"file", file_bytes, mtime_ns + 1)), DeltaEnd::Changed));
    assert!(matches!(ends(file(b"file", file_bytes - 1, mtime_ns)), DeltaEnd::Changed));
    assert!(matches!(ends(file(b"file", file_bytes + 1, mtime_ns)), DeltaEnd::Changed));
    assert!(matches!(ends(file(b"file", 5, mtime_ns)), DeltaEnd::Changed));
    assert!(matches!(ends(file(b"gone", file_bytes, mtime_ns)), DeltaEnd::Refused(Status::NotFound)));
    assert!(matches!(ends(file(b"file", file_bytes, mtime_ns)), DeltaEnd::Done));
}

#[test]
fn a_basis_that_cannot_be_read_ends_the_search_and_not_the_connection() {
    let served = Served::start();
    let cutter = Cutter::default();
    let bytes = random(6 << 20, 15);
    let (file_bytes, mtime_ns) = served.put("file", &bytes);
    for (file_bytes, len) in [(file_bytes, 6 << 20), (1000, 1000)] {
        let path = served.dir.path().join("basis");
        std::fs::write(&path, &bytes[..len]).expect("write");
        // Open for writing only.
        let basis = std::fs::OpenOptions::new().append(true).open(&path).expect("open");
        let (basis, files) = basis_of(&cutter, vec![basis]);
        let (file_bytes, mtime_ns) =
            if file_bytes == 1000 { served.put("file", &bytes[..1000]) } else { (file_bytes, mtime_ns) };
        let file = DeltaFile { path: b"file", file_bytes, mtime_ns, basis, reach: Reach::Anywhere };
        let (end, found, _) = served.search(&file, &files);
        assert!(matches!(&end, DeltaEnd::Basis(error) if error.raw_os_error() == Some(nix::libc::EBADF)), "{end:?}");
        assert!(found.is_empty());
    }
}
