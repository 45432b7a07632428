//! The bare loop: the least that a copy over TCP with checksums can be, as a limit to compare with.
//!
//! The server lists the tree before it listens, cuts files of more than 4 MiB into chunks and puts
//! everything into one queue. Each connection has a thread at either end. A sending one takes from
//! the queue, reads a slice, computes its CRC-32 and sends it; a receiving one reads a slice from
//! the socket, computes the CRC-32 while it writes, and compares. Files get their names by a
//! rename when the last byte is there. There is no metadata, no comparison with what is there, no
//! sync and no second try: the client asks for nothing, and everything is sent.

mod fetch;
mod record;
mod serve;

pub(crate) use fetch::{FetchWords, fetch};
pub(crate) use serve::{ServeWords, serve};

/// A slice is read, proven and sent at once.
const SLICE_BYTES: u64 = 256 * 1024;

/// A thread takes so much of a large file at a time.
const CHUNK_BYTES: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::TcpListener;
    use std::thread;

    use super::fetch::fetch_all;
    use super::serve::Queue;
    use crate::census::Census;
    use crate::generate;
    use crate::workload::Recipe;

    #[test]
    fn a_tree_arrives_whole() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (source, destination) = (dir.path().join("source"), dir.path().join("destination"));
        fs::create_dir(&source).expect("make");
        fs::create_dir(&destination).expect("make");
        generate::make(Recipe::Small { files: 200, dirs: 3 }, &source).expect("make");
        generate::make(Recipe::Big { bytes: 9_000_001 }, &source).expect("make");
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let address = listener.local_addr().expect("an address");
        let queue = Queue::of(&source).expect("list");
        thread::spawn(move || queue.serve(&listener));
        fetch_all(address, &destination, 3).expect("fetch");
        assert_eq!(Census::of(&source).expect("count"), Census::of(&destination).expect("count"));
        for name in ["big.bin", "d0001/f0000001.bin", "d0000/f0000000.bin"] {
            assert!(fs::read(source.join(name)).expect("read") == fs::read(destination.join(name)).expect("read"));
        }
    }
}
