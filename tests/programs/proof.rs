//! A name stands for what the sender has said its bytes are, and for nothing else.

use std::fs;

use crate::support::Workspace;
use crate::support::client::{Client, contents};
use crate::support::collision::colliding;
use crate::support::server::Server;
use crate::support::strace::Strace;
use crate::support::tree::{Tree, noise};
use crate::support::versions::{NAME, Versions, put_old};
use xxhash_rust::xxh3::xxh3_128;

#[test]
fn a_file_that_fails_after_its_confirmation_fails_alone() {
    let Some(strace) = Strace::new() else { return };
    let workspace = Workspace::new();
    let mut tree = Tree::new(&workspace.at("source"));
    tree.file("file", &noise(4 << 20, 1));
    let server = Server::start(&tree.finish());
    let copy = workspace.at("copy");
    let run = Client::pull(server.url(""), contents(&copy)).strace(&strace.fails("fchmod", "EIO")).run();
    // The second connection that asks for the confirmation finds the file given up.
    assert!(matches!(run.code, Some(11 | 23)), "{:?} {}", run.code, run.stderr);
    assert!(run.stderr.contains("Input/output error"), "{}", run.stderr);
    assert!(!copy.join("file").exists());
}

#[test]
fn a_version_with_the_hash_of_the_old_one_is_fetched_all_the_same() {
    // One that is only listed finely, and one that is listed coarsely first.
    for file_bytes in [3 << 20, 6 << 20] {
        let [old, new] = colliding(noise(file_bytes, 7));
        assert!(old != new && xxh3_128(&old[..1024]) == xxh3_128(&new[..1024]));
        assert!(xxh3_128(&old) == xxh3_128(&new) && crc32fast::hash(&old) == crc32fast::hash(&new));
        let run = Versions::new(&old, &new).update("");
        assert!(run.count("bytes_reused") > 0, "the rest was found in the old version");
    }
}

#[test]
fn verify_tells_two_files_apart_that_a_weak_hash_does_not() {
    let [old, new] = colliding(noise(100_000, 8));
    let versions = Versions::new(&old, &new);
    let copy = versions.workspace.at("copy");
    put_old(&copy, &old);
    let time = fs::metadata(versions.source.join(NAME)).expect("examine").modified().expect("a time");
    fs::File::options().write(true).open(copy.join(NAME)).expect("open").set_modified(time).expect("set the time");
    for options in ["", "--without 8"] {
        let run = Client::verify(&copy, versions.server.url("")).options(options).run();
        assert!(run.differences().contains(&("contents".to_owned(), NAME.to_owned())), "{:?}", run.differences());
    }
}
