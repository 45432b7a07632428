//! A server that is lied to by one client, by hand, while another one pushes.

use std::net::{SocketAddr, TcpStream};

use fastcp_wire::frame::FrameType;
use fastcp_wire::hello::{Failure, Hello, HelloReply, Role, Ticket};

use super::client::Running;
use super::compare::assert_same;
use super::fit::expect_fit;
use super::peer::{hello, read_frame, send_frame};
use super::stage::{LARGE_BYTES, Stage};
use super::wait_until;
use super::way::Way;

/// A setting of a push: its name and its value.
pub(crate) type Setting<'a> = (&'a str, &'a [u8]);

/// A payload of PUSH, lawful or not: the contents of the sender's root go into this path, with these settings.
pub(crate) fn push_payload(version: u16, scope: u8, paths: [&[u8]; 3], settings: &[Setting<'_>]) -> Vec<u8> {
    let short = |bytes: &[u8]| [&u16::try_from(bytes.len()).expect("short").to_be_bytes()[..], bytes].concat();
    let mut out = [&version.to_be_bytes()[..], &[scope]].concat();
    paths.iter().for_each(|path| out.extend(short(path)));
    out.push(u8::try_from(settings.len()).expect("few"));
    settings.iter().for_each(|(name, value)| out.extend([short(name.as_bytes()), short(value)].concat()));
    // No rules.
    out.extend([0; 4]);
    out
}

pub(crate) fn into(path: &[u8], settings: &[Setting<'_>]) -> Vec<u8> {
    push_payload(1, 0, [b"", path, b""], settings)
}

pub(crate) fn sender() -> Hello {
    Hello { role: Role::Sender, ..hello(1) }
}

const CHUNK_BYTES: u64 = 64 << 10;

/// An honest push that has begun, and a server that is lied to beside it.
pub(crate) struct Beside {
    pub(crate) stage: Stage,
    honest: Option<Running>,
    descriptors: usize,
}

impl Beside {
    pub(crate) fn start() -> Self {
        let stage = Stage::large(Way::Push);
        let descriptors = stage.server.descriptors();
        let honest = Some(stage.stall_in_file("--chunk-kb 64", 2, CHUNK_BYTES, 3 << 20));
        Self { stage, honest, descriptors }
    }

    /// A connection that has said that it sends.
    pub(crate) fn greeted(&self) -> TcpStream {
        let mut stream = self.stage.server.connect();
        send_frame(&mut stream, FrameType::Hello, &sender().encode());
        stream
    }

    /// Panics unless the server answers with a failure, closes, and has one line about it.
    pub(crate) fn expect_failure(&self, what: &str, mut stream: TcpStream) -> Failure {
        let address = stream.local_addr().expect("bound");
        let mut frames = Vec::new();
        while let Some(frame) = read_frame(&mut stream) {
            frames.push(frame);
        }
        let (frame_type, payload) = frames.pop().unwrap_or_else(|| panic!("{what}: no answer"));
        assert_eq!(frame_type, FrameType::Failure, "{what}");
        self.expect_one_line(what, address);
        Failure::decode(&payload).expect("a status")
    }

    pub(crate) fn expect_one_line(&self, what: &str, address: SocketAddr) {
        let lines = || self.stage.server.log_lines_about(address);
        wait_until(&format!("a line about {what}"), || !lines().is_empty());
        assert_eq!(lines().len(), 1, "{what}: {:?}", lines());
    }

    /// Panics unless the honest push goes on as if nothing had been.
    pub(crate) fn finish(mut self) {
        self.stage.valve.open();
        let run = self.honest.take().expect("begun").finish().expect_exit(0);
        run.expect_counts(&[("bytes_fetched", LARGE_BYTES), ("reconnects", 0), ("files_failed", 0)]);
        assert_same(&self.stage.source, &self.stage.copy);
        for name in ["new", "fastcp-escaped"] {
            assert!(!self.stage.workspace.at(name).exists(), "{name}");
        }
        expect_fit(&self.stage.server, &self.stage.workspace, self.descriptors);
    }
}

/// A session of a sender that pushes into `new`; the connection for control, and the ticket.
pub(crate) fn open_push(beside: &Beside) -> (TcpStream, Ticket) {
    let mut stream = beside.greeted();
    send_frame(&mut stream, FrameType::Push, &into(b"pushed by hand", &[("retry", b"1")]));
    let (frame_type, payload) = read_frame(&mut stream).expect("terms");
    assert_eq!(frame_type, FrameType::HelloReply);
    (stream, HelloReply::decode(&payload).expect("lawful").ticket)
}
