//! A server that takes a push and lies: whatever it asks for, it is given what is pushed and nothing else.

use std::fs;
use std::io::Write;
use std::net::Shutdown;

use fastcp_model::{Capabilities, Status};
use fastcp_wire::frame::FrameType;
use fastcp_wire::hello::Failure;
use fastcp_wire::offer::OfferBatch;
use fastcp_wire::request::Ask;
use fastcp_wire::signature::Level;

use crate::support::client::Client;
use crate::support::lying_receiver::{LyingReceiver, bundle_request, offer_request, range_request};
use crate::support::peer::{plain_request, read_to_end};
use crate::support::secrets::{OPEN, SECRET, Secrets, expect_hung_up};
use crate::support::tree::noise;

/// What may be asked of a range.
const ASKS: [Ask; 5] =
    [Ask::Bytes, Ask::Confirm, Ask::Hash, Ask::Signature(Level::Coarse), Ask::Signature(Level::Fine)];

#[test]
fn a_receiver_is_given_ranges_of_what_is_pushed_and_of_nothing_else() {
    let secrets = Secrets::new();
    // What is pushed, what of it may be asked for, and what may not.
    let absolute = secrets.workspace.at("outside");
    let absolute = absolute.to_str().expect("plain");
    let around = ["..", "../outside", "../../etc/passwd", "/etc/passwd", absolute, "", ".", "./sibling", "sibling/"];
    let beside =
        ["sibling", "pushed too", "other/file", "other", "pushed/../sibling", "pushed/out", "pushed/up/sibling"];
    let above = ["../sibling", "out", "up/sibling", "sibling", "pushed/file"];
    for (what, to, lawful, unlawful) in [
        ("pushed", "copy", "pushed/file", &beside[..]),
        ("pushed/", "copy", "file", &above[..]),
        ("pushed/file", "copy/", "pushed/file", &["file too", "large", "sub/file", "sibling"][..]),
    ] {
        let (client, mut receiving) = secrets.push(what, to);
        let lawful = if what == "pushed/file" { "file" } else { lawful };
        let mut id = 0;
        for path in around.iter().chain(unlawful) {
            // No request can be made of an empty path.
            if path.is_empty() {
                continue;
            }
            for ask in ASKS {
                id += 1;
                let (header, body) = receiving.ask(&range_request(id, path.as_bytes(), 0, 1, ask));
                assert!(header.reply.status != Status::Ok, "{what}: {ask:?} of {path}");
                assert_eq!((header.id, header.reply.file_bytes, header.reply.mtime_ns), (id, 0, 0), "{what}: {path}");
                assert_eq!(body, b"", "{what}: {path}");
            }
            let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
            let (header, body) = receiving.ask(&bundle_request(dir.as_bytes(), name.as_bytes()));
            assert!(header.reply.status != Status::Ok && body.is_empty(), "{what}: a bundle of {path}");
        }
        let (header, body) = receiving.ask(&range_request(7000, lawful.as_bytes(), 0, OPEN.len() as u64, Ask::Bytes));
        assert_eq!((header.reply.status, &body[..]), (Status::Ok, OPEN), "{what}");
        for (start, len) in [(0, OPEN.len() as u64 + 1), (OPEN.len() as u64, 1), (1 << 40, 1), (u64::MAX >> 2, 1 << 20)]
        {
            for ask in ASKS {
                let (header, body) = receiving.ask(&range_request(7001, lawful.as_bytes(), start, len, ask));
                assert_eq!((header.reply.status, &body[..]), (Status::BadRange, &b""[..]), "{what}: {start}+{len}");
            }
        }
        drop(receiving);
        expect_hung_up(&client.finish());
    }
}

#[test]
fn the_name_that_a_file_is_to_have_gives_away_no_file_that_has_it() {
    let secrets = Secrets::new();
    // There is a file of that name beside the one that is pushed.
    fs::write(secrets.from.join("pushed/called"), SECRET).expect("write");
    let (client, mut receiving) = secrets.push("pushed/file", "copy/called");
    assert_eq!(receiving.push.new_name.as_ref().map(|name| name.as_bytes().to_vec()), Some(b"called".to_vec()));
    let (header, body) = receiving.ask(&range_request(1, b"called", 0, 1, Ask::Bytes));
    assert!(header.reply.status != Status::Ok || body == OPEN[..1], "{header:?}");
    let (header, body) = receiving.ask(&range_request(2, b"called", 0, SECRET.len() as u64, Ask::Bytes));
    assert!(header.reply.status != Status::Ok || body == OPEN[..SECRET.len()], "{header:?}");
    let (header, body) = receiving.ask(&bundle_request(b"", b"called"));
    assert!(header.reply.status != Status::Ok || body == OPEN[..1], "{header:?}");
    for path in ["large", "sub/file"] {
        let (header, body) = receiving.ask(&range_request(3, path.as_bytes(), 0, 1, Ask::Bytes));
        assert!(header.reply.status != Status::Ok && body.is_empty(), "{path}: {header:?}");
    }
    drop(receiving);
    expect_hung_up(&client.finish());
}

/// Panics where an offer names anything but what is pushed: the one entry of its directory, or something in it.
fn expect_offered(what: &str, payload: &[u8]) {
    let batch = OfferBatch::decode(payload).expect("lawful");
    for listing in batch.listings {
        let names: Vec<_> =
            listing.entries.iter().map(|entry| entry.name.as_bytes().escape_ascii().to_string()).collect();
        let is_top = listing.dir.is_root();
        assert!(!is_top || names == ["pushed"] || names == ["file"], "{what}: {names:?} are offered");
        assert!(is_top || listing.dir.as_bytes().starts_with(b"pushed"), "{what}: {} is offered", listing.dir);
        let failures: Vec<_> = listing.failures.iter().map(|failure| &failure.name).collect();
        assert!(failures.is_empty(), "{what}: {failures:?} failed");
    }
}

#[test]
fn a_receiver_is_offered_what_is_pushed_and_nothing_else() {
    let secrets = &Secrets::new();
    let unlawful: [(&str, u8, &[u8]); 14] = [
        ("pushed", 0, b""),
        ("pushed", 1, b"sibling"),
        ("pushed", 0, b"other"),
        ("pushed", 1, b"other"),
        ("pushed", 1, b"pushed too"),
        ("pushed", 0, b".."),
        ("pushed", 0, b"pushed/.."),
        ("pushed", 1, b"pushed/../sibling"),
        ("pushed", 0, b"/"),
        ("pushed", 9, b"pushed"),
        ("pushed/", 0, b".."),
        ("pushed/", 0, b"up"),
        ("pushed/file", 0, b""),
        ("pushed/file", 1, b"large"),
    ];
    let asking = |what, scope, path: &[u8]| {
        let (client, mut receiving) = secrets.push(what, "copy/");
        let shown = path.escape_ascii().to_string();
        match receiving.ask_for_offer(&offer_request(scope, path)) {
            None => {}
            Some((FrameType::Failure, payload)) => {
                assert!(Failure::decode(&payload).expect("a status").status != Status::Ok, "{what}: {shown}");
            }
            Some((FrameType::OfferBatch, payload)) => expect_offered(&format!("{what}: {shown}"), &payload),
            Some((frame_type, payload)) => panic!("{what}: {shown} is answered by {frame_type:?} {payload:?}"),
        }
        drop(receiving);
        let run = client.finish();
        assert!(run.code.is_some_and(|code| code != 0) && !run.stderr.is_empty(), "{what}: {shown}: {:?}", run.code);
        assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
    };
    // Each of these clients tries again for a second.
    std::thread::scope(|threads| {
        for (what, scope, path) in unlawful {
            threads.spawn(move || asking(what, scope, path));
        }
    });
    let (client, mut receiving) = secrets.push("pushed", "copy/");
    let (frame_type, _) = receiving.ask_for_offer(&offer_request(1, b"pushed")).expect("an offer");
    assert_eq!(frame_type, FrameType::OfferBatch, "what is pushed is offered");
    drop(receiving);
    expect_hung_up(&client.finish());
}

#[test]
fn a_receiver_that_asks_without_end_is_answered_or_left() {
    let secrets = Secrets::new();
    for ask in [Ask::Signature(Level::Coarse), Ask::Signature(Level::Fine), Ask::Hash, Ask::ConfirmAnew] {
        let (client, receiving) = secrets.push("pushed", "copy");
        // Nothing of the answers is read: they fill the connection, and the rest of the requests with them.
        let mut data = receiving.data.try_clone().expect("clone");
        data.set_nonblocking(true).expect("set");
        let mut written = 0;
        for id in 0..20_000 {
            let request = range_request(id, b"pushed/large", 0, 3 << 20, ask);
            match data.write(&request) {
                Ok(count) if count == request.len() => written += 1,
                _ => break,
            }
        }
        assert!(written > 100, "{written}");
        receiving.data.shutdown(Shutdown::Both).expect("hang up");
        drop(receiving);
        expect_hung_up(&client.finish());
    }
}

#[test]
fn a_receiver_that_talks_nonsense_is_left() {
    let secrets = Secrets::new();
    let garbage = noise(4096, 5);
    let plain = plain_request(b"pushed/file", 0, 0);
    let unlawful = range_request(u32::MAX, b"pushed/file", 0, 1, Ask::Bytes);
    for bytes in [&garbage, &plain, &unlawful] {
        let (client, mut receiving) = secrets.push("pushed", "copy");
        receiving.data.write_all(bytes).expect("send");
        let answered = read_to_end(&mut receiving.data);
        assert!(!answered.windows(OPEN.len()).any(|bytes| bytes == OPEN), "a plain request is none of a session");
        drop(receiving);
        expect_hung_up(&client.finish());
    }
    let (client, mut receiving) = secrets.push("pushed", "copy");
    receiving.control.write_all(&garbage).expect("send");
    drop(receiving);
    expect_hung_up(&client.finish());
}

#[test]
fn a_receiver_with_other_capabilities_gets_no_more() {
    let secrets = Secrets::new();
    for capabilities in [Capabilities::empty(), Capabilities::SUPPORTED.difference(Capabilities::DELTA)] {
        let receiver = LyingReceiver::new();
        let options = "--retry 1 --conns 1";
        let client = Client::push(secrets.from.join("pushed"), receiver.url("copy")).options(options).start();
        let mut receiving = receiver.take_in_with(capabilities);
        let (header, _) = receiving.ask(&range_request(1, b"sibling", 0, 1, Ask::Bytes));
        assert!(header.reply.status != Status::Ok, "{header:?}");
        drop(receiving);
        expect_hung_up(&client.finish());
    }
}
