use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use fastcp_model::{EntryKind, ListingEnd, RelPath};
use fastcp_wire::offer::{Place, Scope};

use super::{Scan, Step};
use crate::link::listing_order::ListingOrder;
use crate::sender::offer_memory::Kind;
use crate::sender::source::Source;

/// What a scan lists: the names of each directory, in their order.
fn listed(source: &Source) -> BTreeMap<Vec<u8>, Vec<Vec<u8>>> {
    let mut found: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
    let mut ended = Vec::new();
    for batch in
        Scan::new(source, &Place { path: RelPath::root(), scope: Scope::Contents }.into()).expect("a directory")
    {
        for listing in &batch.listings {
            let dir = listing.dir.as_bytes().to_vec();
            if let Some((parent, name)) = listing.dir.split() {
                let names = found.get(parent.as_bytes()).expect("a directory is named before it is listed");
                assert!(names.iter().any(|known| known == name.as_bytes()));
            }
            assert!(!ended.contains(&dir), "nothing follows the end of {}", listing.dir);
            let names = found.entry(dir.clone()).or_default();
            names.extend(listing.entries.iter().map(|entry| entry.name.as_bytes().to_vec()));
            assert!(listing.failures.is_empty());
            match listing.end {
                ListingEnd::More => {}
                ListingEnd::Complete => ended.push(dir),
                other => panic!("{other:?}"),
            }
            assert!(listing.entries.iter().all(|entry| !matches!(entry.kind, EntryKind::Special(_))));
        }
    }
    assert_eq!(ended.len(), found.len(), "each directory ends");
    assert!(found.values().all(|names| names.is_sorted_by(|one, next| one < next)));
    found
}

fn make(top: &Path) {
    for nth in 0..3000 {
        fs::create_dir(top.join(format!("{nth:0>200}"))).expect("create");
    }
    for dir in [0, 1500, 2999] {
        let dir = top.join(format!("{dir:0>200}"));
        (0..700).for_each(|nth| fs::write(dir.join(format!("{nth:0>200}")), b"").expect("write"));
        fs::create_dir_all(dir.join("sub/sub")).expect("create");
    }
}

/// Long paths, and many directories in many of them: a receiver takes what a sender offers, however little room there is.
#[test]
fn no_step_names_more_than_a_receiver_takes() {
    let top = tempfile::tempdir().expect("temporary directory");
    let deep = (0..12).fold(top.path().to_path_buf(), |path, nth| path.join(format!("{nth:0>250}")));
    for dir in 0..48 {
        let dir = deep.join(format!("{dir:0>200}"));
        fs::create_dir_all(&dir).expect("create");
        (0..700).for_each(|nth| fs::create_dir(dir.join(format!("{nth:0>250}"))).expect("create"));
    }
    for (bytes_max, peak_max) in [(256 << 20, 144 << 20), (16 << 20, 10 << 20)] {
        let source = Source::open(top.path()).expect("open").within(bytes_max, 2, &Arc::default());
        let (mut order, mut dirs, mut peak) = (ListingOrder::default(), 0, 0);
        let mut scan =
            Scan::new(&source, &Place { path: RelPath::root(), scope: Scope::Contents }.into()).expect("a directory");
        while let Some(batch) = scan.next() {
            for listing in &batch.listings {
                order.check(listing).expect("within the limits of a receiver");
                dirs += usize::from(listing.end == ListingEnd::Complete);
            }
            peak = peak.max(scan.stack.iter().map(Step::bytes).sum());
            assert!(scan.unlisted.step_bytes_max() > 0);
        }
        assert_eq!(dirs, 1 + 12 + 48 * 701);
        assert!(peak <= peak_max, "{peak} of {bytes_max}");
        drop(scan);
        assert!(source.offers.hold(Kind::Names).grow(bytes_max), "all of it is given back");
    }
}

#[test]
fn however_little_room_there_is_all_is_listed_once() {
    let top = tempfile::tempdir().expect("temporary directory");
    make(top.path());
    let source = || Source::open(top.path()).expect("open");
    let all = listed(&source());
    assert_eq!((all.len(), all.values().map(Vec::len).sum::<usize>()), (3007, 3000 + 3 * 701 + 3));
    for bytes_max in [0, 300 << 10, 3 << 20, 5 << 20] {
        let source = source().within(bytes_max, 2, &Arc::default());
        assert!(listed(&source) == all, "{bytes_max}");
        assert!(source.offers.hold(Kind::Names).grow(bytes_max >> 16 << 16), "all of it is given back");
    }
}
