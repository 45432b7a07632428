//! Clients that push and break the rules of it. They are refused and reported, and whoever pushes beside them notices nothing.

use std::io::Write;
use std::net::Shutdown;

use fastcp_model::Status;
use fastcp_wire::frame::{FrameType, encode_frame};
use fastcp_wire::hello::{Attach, Failure, HelloReply, Lane, Ticket};
use fastcp_wire::limits::{PUSH_BYTES_MAX, SETTING_VALUE_BYTES_MAX};

use crate::support::beside::{Beside, Setting, into, open_push, push_payload, sender};
use crate::support::client::Client;
use crate::support::compare::files_and_bytes;
use crate::support::lying_receiver::offer_request;
use crate::support::peer::{attach, hello, read_frame, read_to_end, send_frame};
use crate::support::server::Server;
use crate::support::tree::{noise, plain};
use crate::support::{Workspace, wait_until};

#[test]
fn a_push_that_is_none_is_refused_and_the_one_beside_it_goes_on() {
    let beside = Beside::start();
    let long = vec![b'x'; SETTING_VALUE_BYTES_MAX + 1];
    let too_long = vec![0; PUSH_BYTES_MAX + 1];
    let many: Vec<Setting<'_>> = vec![("delete", b""); 65];
    let cut = into(b"new", &[]);
    let bad_request = [
        ("nothing in it", Vec::new()),
        ("a part of it", cut[..cut.len() - 1].to_vec()),
        ("something behind it", [&cut[..], b"x"].concat()),
        ("another version", push_payload(2, 0, [b"", b"new", b""], &[])),
        ("another scope", push_payload(1, 9, [b"", b"new", b""], &[])),
        ("a way up", into(b"new/../../fastcp-escaped", &[])),
        ("just a way up", into(b"..", &[])),
        ("an absolute path", into(b"/tmp/fastcp-escaped", &[])),
        ("a path with NUL", into(b"new\0", &[])),
        ("an empty part", into(b"new//x", &[])),
        ("a way up at the source", push_payload(1, 0, [b"../x", b"new", b""], &[])),
        ("a name with a slash", push_payload(1, 1, [b"x", b"new", b"a/b"], &[])),
        ("a name that leads up", push_payload(1, 1, [b"x", b"new", b".."], &[])),
        ("a setting twice", into(b"new", &[("delete", b""), ("verify", b"disk"), ("delete", b"")])),
        ("a long value", into(b"new", &[("backup-dir", &long)])),
        ("too many settings", into(b"new", &many)),
        ("a name in capitals", into(b"new", &[("Delete", b"")])),
        ("a name with a control character", into(b"new", &[("del\x1b", b"")])),
        ("rules of no kind", [&cut[..cut.len() - 4], &[0, 0, 0, 5, 9, 0, 6, 0, 0]].concat()),
        ("more rules than fit", [&cut[..cut.len() - 4], &[0, 0x10, 0, 1]].concat()),
        ("more than fits", too_long),
    ];
    for (what, payload) in bad_request {
        let mut stream = beside.greeted();
        send_frame(&mut stream, FrameType::Push, &payload);
        let failure = beside.expect_failure(what, stream);
        assert_eq!(failure.status, Status::BadRequest, "{what}");
    }
    beside.finish();
}

#[test]
fn settings_that_are_not_known_or_not_allowed_are_refused_by_their_names() {
    let beside = Beside::start();
    let refused: [(&[Setting<'_>], &str); 12] = [
        (&[("hard-links", b"")], "hard-links"),
        (&[("durability", b"batch"), ("surprise", b"x")], "surprise"),
        (&[("durability", b"twice")], "durability"),
        (&[("verify", b"")], "verify"),
        (&[("delete", b"yes")], "delete"),
        (&[("delete", b""), ("max-delete", b"101%")], "max-delete"),
        (&[("retry", b"-1")], "retry"),
        (&[("conns", b"64")], "conns"),
        (&[("manifest-hash", b"md5")], "manifest-hash"),
        (&[("backup-dir", b"../x")], "backup-dir"),
        (&[("backup-dir", b"/tmp/x")], "backup-dir"),
        (&[("receive-path", b"\x1b[2J")], "receive-path"),
    ];
    for (settings, name) in refused {
        let mut stream = beside.greeted();
        send_frame(&mut stream, FrameType::Push, &into(b"new", settings));
        let failure = beside.expect_failure(name, stream);
        assert!(failure.detail.contains(name), "{name}: {failure:?}");
        assert!(!failure.detail.contains('\x1b') && !beside.stage.server.log().contains('\x1b'), "{failure:?}");
    }
    beside.finish();
}

#[test]
fn a_sender_that_says_something_else_than_what_to_do_is_refused() {
    let beside = Beside::start();
    let others = [
        (FrameType::OfferRequest, offer_request(0, b"")),
        (FrameType::Hello, sender().encode()),
        (FrameType::Attach, Attach { ticket: Ticket([7; 16]), lane: Lane::Control }.encode()),
        (FrameType::ReportSeen, vec![0; 8]),
        (FrameType::Cancel, Vec::new()),
        (FrameType::OfferEnd, vec![0; 16]),
    ];
    for (frame_type, payload) in others {
        let mut stream = beside.greeted();
        send_frame(&mut stream, frame_type, &payload);
        let failure = beside.expect_failure(&format!("{frame_type:?}"), stream);
        assert_eq!(failure.status, Status::BadRequest, "{frame_type:?}");
    }
    let mut stream = beside.greeted();
    stream.write_all(&noise(2048, 3)).expect("send");
    assert_eq!(beside.expect_failure("noise", stream).status, Status::BadRequest);
    // Whoever hangs up broke no rule, and there is nobody to answer.
    for bytes in [0, 5, 20] {
        let mut stream = beside.greeted();
        let frame = encode_frame(FrameType::Push, &into(b"new", &[])).expect("lawful");
        stream.write_all(&frame[..bytes]).expect("send");
        stream.shutdown(Shutdown::Write).expect("hang up");
        let address = stream.local_addr().expect("bound");
        read_to_end(&mut stream);
        assert!(beside.stage.server.log_lines_about(address).len() <= 1);
    }
    beside.finish();
}

#[test]
fn garbage_in_place_of_acknowledgements_or_offers_ends_that_push_alone() {
    let beside = Beside::start();
    let frames = [
        (FrameType::ReportSeen, vec![0; 7]),
        (FrameType::ReportSeen, vec![0xff; 8]),
        (FrameType::ReportSeen, u64::to_be_bytes(1 << 40).to_vec()),
        (FrameType::OfferRequest, offer_request(0, b"")),
        (FrameType::ReportEnd, vec![0; 3]),
    ];
    let garbage = frames.map(|(frame_type, payload)| encode_frame(frame_type, &payload).expect("lawful"));
    for bytes in garbage.iter().chain([&noise(4096, 9)]) {
        let (control, ticket) = open_push(&beside);
        let mut report = beside.stage.server.connect();
        send_frame(&mut report, FrameType::Attach, &Attach { ticket, lane: Lane::Report { seen: 0 } }.encode());
        assert_eq!(read_frame(&mut report), Some((FrameType::AttachReply, Vec::new())));
        report.write_all(bytes).expect("send");
        let address = report.local_addr().expect("bound");
        read_to_end(&mut report);
        let lines = beside.stage.server.log_lines_about(address);
        assert!(lines.len() <= 1, "{lines:?}");
        drop(control);
    }
    for bytes in garbage.iter().chain([&noise(4096, 9)]) {
        let (mut control, _) = open_push(&beside);
        control.write_all(bytes).expect("send");
        read_to_end(&mut control);
    }
    // A data connection that answers before it is asked, and none that does what it is for.
    let (control, ticket) = open_push(&beside);
    let mut data = beside.stage.server.connect();
    attach(&mut data, ticket);
    data.write_all(&noise(4096, 9)).expect("send");
    drop((control, data));
    assert!(!beside.stage.server.log().contains("panicked"), "{}", beside.stage.server.log());
    beside.finish();
}

#[test]
fn lanes_of_a_push_need_its_ticket() {
    let beside = Beside::start();
    for lane in [Lane::Control, Lane::Report { seen: 0 }, Lane::Report { seen: 1 << 40 }] {
        let mut stream = beside.stage.server.connect();
        send_frame(&mut stream, FrameType::Attach, &Attach { ticket: Ticket([9; 16]), lane }.encode());
        let (frame_type, payload) = read_frame(&mut stream).expect("an answer");
        assert_eq!(frame_type, FrameType::Failure);
        assert_eq!(Failure::decode(&payload).expect("a status").status, Status::UnknownTicket);
    }
    // A session that only reads has no lanes but that for data.
    let mut control = beside.stage.server.connect();
    send_frame(&mut control, FrameType::Hello, &hello(1).encode());
    let (_, payload) = read_frame(&mut control).expect("terms");
    let ticket = HelloReply::decode(&payload).expect("lawful").ticket;
    for lane in [Lane::Control, Lane::Report { seen: 0 }] {
        let mut stream = beside.stage.server.connect();
        send_frame(&mut stream, FrameType::Attach, &Attach { ticket, lane }.encode());
        let (frame_type, _) = read_frame(&mut stream).expect("an answer");
        assert_eq!(frame_type, FrameType::Failure, "{lane:?}");
    }
    drop(control);
    beside.finish();
}

#[test]
fn a_server_that_does_not_take_anything_says_so_before_anything_else() {
    let workspace = Workspace::new();
    let source = plain(&workspace.at("source"));
    let server = Server::start(&source);
    let mut stream = server.connect();
    let address = stream.local_addr().expect("bound");
    send_frame(&mut stream, FrameType::Hello, &sender().encode());
    send_frame(&mut stream, FrameType::Push, &into(b"new", &[]));
    let (frame_type, payload) = read_frame(&mut stream).expect("an answer");
    assert_eq!(frame_type, FrameType::Failure);
    let failure = Failure::decode(&payload).expect("a status");
    assert!(failure.status == Status::Unauthorised && failure.detail.contains("--allow-write"), "{failure:?}");
    read_to_end(&mut stream);
    wait_until("the line", || !server.log_lines_about(address).is_empty());
    assert_eq!(server.log_lines_about(address).len(), 1, "{}", server.log());
    assert!(!source.join("new").exists());
    let (files, _) = files_and_bytes(&source);
    Client::pull(server.url(""), workspace.at("copy"))
        .run()
        .expect_exit(0)
        .expect_counts(&[("files_committed", files)]);
}
