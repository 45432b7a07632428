//! What holds of any bytes that are read as a kept offer. For the fuzz target and for tests.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use fastcp_wire::known::BatchId;

use super::{FRAME_PAYLOAD_BYTES_MAX, KEPT_BYTES_MIN, KNOWN_BATCHES_MAX, MAGIC, TreeCache};
use crate::target::destination::Destination;
use crate::target::destination_path::DestinationPath;

/// The payloads of a kept offer, by their hash.
type Payloads = HashMap<BatchId, Vec<u8>>;

/// Reads `bytes` as the offer that the destination `dir` keeps, as they are and behind a right beginning, and keeps
/// another one.
///
/// # Panics
/// Where a batch is recalled that is not what its name says, a torn end costs more than itself, or an offer is not kept
/// as it came.
pub fn tree_cache(dir: &Path, bytes: &[u8]) {
    let destination = Destination::open(&DestinationPath::Typed(dir.into())).expect("open");
    destination.state_dir().expect("make");
    let path = dir.join(".fastcp/tree");
    check(&destination, &path, bytes);
    check(&destination, &path, &[&MAGIC[..], bytes].concat());
    check(&destination, &path, &with_lengths(bytes));
}

fn check(destination: &Destination, path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("write");
    let payloads = expected(bytes);
    expect_known(destination, &payloads);
    // With one byte less, the last batch may be torn: the others are still known.
    if let Some((_, shorter)) = bytes.split_last() {
        fs::write(path, shorter).expect("write");
        let fewer = expected(shorter);
        assert!(fewer.len() + 1 >= payloads.len() && fewer.keys().all(|id| payloads.contains_key(id)));
        expect_known(destination, &fewer);
        fs::write(path, bytes).expect("write");
    }
    check_kept(destination, path, bytes, payloads);
}

/// What the bytes hold, told in the plainest way.
fn expected(bytes: &[u8]) -> Payloads {
    let mut payloads = Payloads::new();
    let Some(mut rest) = bytes.strip_prefix(&MAGIC[..]) else { return payloads };
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        let Some((payload, after)) = after.split_at_checked(length) else { break };
        if length > FRAME_PAYLOAD_BYTES_MAX || payloads.len() == KNOWN_BATCHES_MAX {
            break;
        }
        payloads.insert(BatchId::of(payload), payload.to_vec());
        rest = after;
    }
    payloads
}

/// What is known is what is there, and is recalled as it is.
fn expect_known(destination: &Destination, payloads: &Payloads) {
    let mut cache = TreeCache::open(destination);
    let known = cache.known();
    assert_eq!(known.len(), payloads.len());
    for id in known {
        assert_eq!(cache.recall(id), payloads.get(&id).map(|payload| &payload[..]));
        assert!(payloads.contains_key(&id));
    }
    let other = BatchId::of(b"a batch that no file here holds");
    assert!(payloads.contains_key(&other) || cache.recall(other).is_none());
}

/// An offer of all that is known and one batch that is sent is what the next run knows, if there is enough of it.
fn check_kept(destination: &Destination, path: &Path, bytes: &[u8], mut payloads: Payloads) {
    let sent = [bytes, &vec![0; bytes.len() * 64 % (2 * KEPT_BYTES_MIN as usize)]].concat();
    let offered_bytes = payloads.values().map(Vec::len).sum::<usize>() + sent.len();
    let mut cache = TreeCache::open(destination);
    let known = cache.known();
    // It makes no difference when it comes.
    let before = sent.len() % (known.len() + 1);
    for id in &known[..before] {
        cache.recall(*id).expect("known");
    }
    cache.sent(&sent);
    for id in &known[before..] {
        cache.recall(*id).expect("known");
    }
    cache.finish();
    if (offered_bytes as u64) < KEPT_BYTES_MIN {
        assert_eq!(fs::read(path).expect("read"), bytes, "too little to be kept");
        return;
    }
    payloads.insert(BatchId::of(&sent), sent);
    assert_eq!(expected(&fs::read(path).expect("read")), payloads);
    expect_known(destination, &payloads);
}

/// The same bytes as batches whose lengths are right, which mutations rarely keep: a byte says how long each is.
fn with_lengths(bytes: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (MAGIC.to_vec(), bytes);
    while let Some((&length, after)) = rest.split_first() {
        let (payload, after) = after.split_at(usize::from(length).min(after.len()));
        out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        out.extend_from_slice(payload);
        rest = after;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{MAGIC, tree_cache};

    /// Whatever is done to these bytes is done from the same seeds in every run.
    #[test]
    fn any_bytes_that_a_kept_offer_can_become_are_known_by_what_they_are() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let whole = [&MAGIC[..], &[0, 0, 0, 3], b"abc", &[0, 0, 0, 0], &[0, 0, 1, 0], &[7; 256]].concat();
        crate::fuzzing::mutated(&[&whole, b"\x03abc\x00\x01x", b""], 300, |bytes| tree_cache(dir.path(), bytes));
    }
}
