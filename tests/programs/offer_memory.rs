//! What a server holds for receivers that ask for offers and do not read them: a bounded amount, whoever they are and
//! however many. Whoever reads beside them gets the whole tree.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use fastcp_model::RelPath;
use fastcp_wire::frame::FrameType;
use fastcp_wire::offer::{OfferRequest, Place, Scope};

use crate::support::client::Client;
use crate::support::memory::{peak_mib, resident_mib};
use crate::support::peer::{open_session, read_frame, send_frame};
use crate::support::server::Server;
use crate::support::sweep::is_long;
use crate::support::tree::noise;
use crate::support::{Workspace, say_skipped};

/// A file under so many names of 250 bytes, which do not compress well.
fn long_names(dir: &Path, count: usize) -> PathBuf {
    fs::create_dir_all(dir).expect("create");
    let name = |nth: usize| {
        let digits: String = noise(121, nth as u64).iter().map(|byte| format!("{byte:02x}")).collect();
        dir.join(format!("{nth:0>8}{digits}"))
    };
    for nth in 0..count {
        // A file has at most 65,000 names on ext4.
        match nth % 30_000 {
            0 => fs::write(name(nth), b""),
            _ => fs::hard_link(name(nth / 30_000 * 30_000), name(nth)),
        }
        .expect("a name");
    }
    dir.to_path_buf()
}

/// A session that has asked for an offer, has got the beginning of it, and reads no more.
fn stalled(server: &Server, path: &str) -> TcpStream {
    let mut control = server.connect();
    open_session(&mut control, 1);
    let request = Place { path: RelPath::new(path.as_bytes()).expect("lawful"), scope: Scope::Contents };
    send_frame(&mut control, FrameType::OfferRequest, &OfferRequest::from(request).encode().expect("few rules"));
    let (frame_type, _) = read_frame(&mut control).expect("a batch");
    assert_eq!(frame_type, FrameType::OfferBatch);
    control
}

/// Has `receivers` of them read nothing of a directory of so many names; what the server held at most.
fn attacked(names: usize, receivers: usize, offer_memory: &str) -> u64 {
    let workspace = Workspace::new();
    let source = long_names(&workspace.at("source"), names);
    // What malloc keeps for each thread is no matter of names.
    let variables = [("FASTCP_OFFER_MEMORY", offer_memory), ("MALLOC_ARENA_MAX", "2")];
    let server = Server::start_in_environment(&source, &variables);
    let before = resident_mib(server.pid());
    let stalled: Vec<TcpStream> = (0..receivers).map(|_| stalled(&server, "")).collect();
    let copy = workspace.at("copy");
    let run = Client::pull(server.url(""), &copy).options("--dry-run").run().expect_exit(0);
    assert_eq!(run.count("files_wanted"), names as u64);
    let peak = peak_mib(server.pid());
    let figures = format!("{before} MiB before, {peak} MiB at most: {receivers} receivers of {names} names\n");
    std::io::stderr().write_all(figures.as_bytes()).expect("write");
    drop(stalled);
    Client::pull(server.url(""), &copy).options("--dry-run").run().expect_exit(0);
    peak
}

#[test]
fn names_for_receivers_that_do_not_read_take_a_bounded_amount_of_memory() {
    let peak = attacked(30_000, 16, "16M");
    assert!(peak < 120, "{peak} MiB");
}

#[test]
fn the_same_of_a_hundred_thousand_names() {
    if !is_long() {
        return say_skipped("FASTCP_LONG_TESTS=1 runs it");
    }
    let peak = attacked(100_000, 30, "256M");
    assert!(peak < 400, "{peak} MiB");
}
