//! A server that takes a push and lies in what it reports: the client ends, or does what it may, and prints nothing that
//! a terminal would obey.

use std::io::Write;
use std::net::TcpStream;

use fastcp_model::{RelPath, SpecialKind};
use fastcp_wire::frame::FrameType;
use fastcp_wire::hello::Lane;
use fastcp_wire::limits::{REPORT_COUNTER_MAX, REPORT_COUNTERS_MAX};
use fastcp_wire::report::{Numbered, ReportEnd, ReportState, Told};

use crate::support::lying_receiver::{LyingReceiver, offer_request};
use crate::support::peer::{read_frame, send_frame};
use crate::support::secrets::{Secrets, expect_hung_up};
use crate::support::tree::noise;

fn event(number: u64, event: Told) -> Vec<u8> {
    Numbered { number, event }.encode()
}

fn skipped() -> Told {
    Told::Skipped { path: RelPath::new(b"pipe").expect("lawful"), kind: SpecialKind::Fifo }
}

fn state(called: u32, counters: Vec<u64>) -> Vec<u8> {
    ReportState { called, is_scan_done: false, counters }.encode()
}

fn end(events: u64, outcome: u8, text: &str) -> Vec<u8> {
    ReportEnd { events, outcome, text: text.to_owned(), limit: 0 }.encode()
}

#[test]
fn reports_that_break_the_rules_end_the_run() {
    let secrets = Secrets::new();
    let reports = [
        ("an event that is not the next", FrameType::ReportEvent, event(2, skipped())),
        ("an event without a number", FrameType::ReportEvent, event(0, skipped())),
        ("a part of an event", FrameType::ReportEvent, event(1, skipped())[..9].to_vec()),
        ("an end of more events", FrameType::ReportEnd, end(7, 0, "")),
        ("a part of an end", FrameType::ReportEnd, end(0, 0, "")[..5].to_vec()),
        ("a count beyond all", FrameType::ReportState, state(1, vec![REPORT_COUNTER_MAX + 1])),
        ("too many counts", FrameType::ReportState, state(1, vec![0; REPORT_COUNTERS_MAX + 1])),
        ("a part of a state", FrameType::ReportState, state(1, vec![1, 2])[..20].to_vec()),
        ("something behind a state", FrameType::ReportState, [state(1, vec![1]), vec![0]].concat()),
        ("a request", FrameType::OfferRequest, offer_request(0, b"")),
        ("a record that is none", FrameType::ReportEvent, event(1, Told::Recorded(b"dear diary\nxyz\n".to_vec()))),
    ];
    let manifest = secrets.workspace.at("manifest");
    let options = format!("--manifest {}", manifest.display());
    for (what, frame_type, payload) in reports {
        let receiver = LyingReceiver::new();
        let client = secrets.start("pushed", &receiver.url("copy"), &options);
        let (receiving, mut report) = receiver.take_in_to_report();
        send_frame(&mut report, frame_type, &payload);
        let run = client.finish();
        assert_eq!(run.code, Some(12), "{what}: {}", run.stderr);
        assert!(run.stderr.contains("protocol error"), "{what}: {}", run.stderr);
        drop((receiving, report));
    }
    let text = std::fs::read_to_string(&manifest).expect("a manifest");
    assert_eq!(text.lines().count(), 1, "nothing is recorded: {text}");
    let receiver = LyingReceiver::new();
    let client = secrets.start("pushed", &receiver.url("copy"), "");
    let (receiving, mut report) = receiver.take_in_to_report();
    report.write_all(&noise(4096, 1)).expect("send");
    drop((receiver, receiving));
    expect_hung_up(&client.finish());
}

/// Reads until the client says that it has this many events.
fn wait_until_seen(report: &mut TcpStream, events: u64) {
    loop {
        let (frame_type, payload) = read_frame(report).expect("a client that hears");
        assert_eq!(frame_type, FrameType::ReportSeen);
        if payload == events.to_be_bytes() {
            return;
        }
    }
}

#[test]
fn a_receiver_that_calls_for_any_number_of_connections_gets_a_few() {
    let secrets = Secrets::new();
    let receiver = LyingReceiver::new();
    let client = secrets.start("pushed", &receiver.url("copy"), "");
    let (receiving, mut report) = receiver.take_in_to_report();
    // Of one connection that was agreed, twice as many, and two.
    let mut others = Vec::new();
    for _ in 0..2 {
        send_frame(&mut report, FrameType::ReportState, &state(u32::MAX, Vec::new()));
    }
    while others.len() < 3 {
        let (lane, stream) = receiver.attach_next();
        assert_eq!(lane, Lane::Data);
        others.push(stream);
    }
    send_frame(&mut report, FrameType::ReportState, &state(u32::MAX, Vec::new()));
    for number in 1..=256 {
        send_frame(&mut report, FrameType::ReportEvent, &event(number, skipped()));
    }
    wait_until_seen(&mut report, 256);
    assert!(receiver.is_left_alone(), "as many connections as were called for");
    drop((receiver, receiving, report, others));
    expect_hung_up(&client.finish());
}

#[test]
fn what_a_receiver_tells_is_no_business_of_the_terminal() {
    let secrets = Secrets::new();
    let receiver = LyingReceiver::new();
    let client = secrets.start("pushed", &receiver.url("copy"), "");
    let (receiving, mut report) = receiver.take_in_to_report();
    let path = RelPath::new(b"a\x1b[2Jb").expect("lawful");
    let text = "gone\x1b]0;title\x07\n\rfor good".to_owned();
    let failed = Told::Failed { path, is_moving_source: false, kind: "other".to_owned(), text };
    send_frame(&mut report, FrameType::ReportEvent, &event(1, failed));
    send_frame(&mut report, FrameType::ReportEnd, &end(1, 250, "all\x1b[31m is lost"));
    let run = client.finish();
    assert!(run.code.is_some_and(|code| code != 0), "{:?}", run.code);
    let printed = [run.stderr.as_str(), &run.lines.concat()].concat();
    assert!(printed.contains("title") && printed.contains("is lost"), "{printed}");
    assert!(!printed.contains(['\x1b', '\x07', '\r']), "{printed:?}");
    assert_eq!(run.paths_of("failed").len(), 1);
    drop(receiving);
}
