//! For fuzz targets only: what holds of whatever somebody says who is not let in.

use std::io::{Cursor, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::LazyLock;
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use rustls::ServerConnection;
use socket2::Socket;

use crate::dial::pair;
use crate::{Connection, End, Gate, Identity, NetError, Token, Trust, Tunnel, WireCount, greet};

/// Longer than anything that ends by itself takes.
const END_MAX: Duration = Duration::from_secs(20);
/// Bytes of the header of a tunnel's frame: lane, kind, and how much follows.
const LANE_HEADER_BYTES: usize = 12;

/// A server's key and token.
struct Secrets {
    identity: Identity,
    token: Token,
}

static SECRETS: LazyLock<Secrets> = LazyLock::new(|| Secrets {
    identity: Identity::make().expect("a key").0,
    token: Token::make().expect("a token").0,
});

impl Secrets {
    fn gate(&self) -> Gate {
        Gate::protected(&self.identity, None).expect("a key of its own").with_tokens(self.token.clone().into())
    }

    /// Knows the server's key, and perhaps its token.
    fn trust(&self, token: Option<Token>) -> Trust {
        let key = self.identity.fingerprint().expect("a bare key");
        Trust::of_key(Some((key, String::new())), token).expect("random bytes")
    }
}

/// Says `bytes` in place of what either end of the AUTH exchange has to say.
///
/// # Panics
/// Where somebody is let in, or listened to, who has not proven the token.
pub fn auth(bytes: &[u8]) {
    stranger(bytes);
    client_without_token(bytes);
    server_without_token(bytes);
}

fn connected(stream: TcpStream) -> Connection {
    Connection::new(Socket::from(stream), WireCount::default().into()).expect("connected")
}

/// Bytes in place of the handshake.
fn stranger(bytes: &[u8]) {
    let gate = SECRETS.gate();
    let (mut here, there) = pair().expect("connect");
    here.write_all(bytes).expect("a few bytes");
    here.shutdown(Shutdown::Write).expect("that is all");
    let mut connection = connected(there);
    if greet(&mut connection, &gate, END_MAX).is_ok() {
        assert!(!gate.takes(&connection), "a stranger was let in");
    }
}

/// A client that knows the server's key alone: bytes behind the handshake.
fn client_without_token(bytes: &[u8]) {
    let (here, there) = pair().expect("connect");
    std::thread::scope(|threads| {
        let serving = threads.spawn(move || {
            let mut connection = connected(there);
            let greeting = greet(&mut connection, &SECRETS.gate(), END_MAX);
            connection.hang_up();
            greeting
        });
        let client = connected(here).trusted(&SECRETS.trust(None), Instant::now() + END_MAX).expect("the key is right");
        // The server may have hung up.
        let _ = client.write_all(bytes);
        client.end_sending();
        joined(serving).expect_err("a client without the token was let in");
    });
}

/// A server that has the key alone, as whoever stole it: bytes in place of its proof.
fn server_without_token(bytes: &[u8]) {
    let (here, there) = pair().expect("connect");
    std::thread::scope(|threads| {
        let serving = threads.spawn(move || {
            let mut connection = connected(there);
            let tls = SECRETS.gate().tls.expect("it is protected");
            let side = ServerConnection::new(tls).expect("a side");
            connection.protect(side, &[], Instant::now() + END_MAX).expect("the client begins");
            let _ = connection.write_all(bytes);
            connection.end_sending();
            // It has proven the token to whoever asked.
            let _ = connection.read_some(&mut [0; 256]);
        });
        let heard = client_hears(here);
        joined(serving);
        heard.expect_err("a server without the token was listened to");
    });
}

fn client_hears(stream: TcpStream) -> Result<(), NetError> {
    let trust = SECRETS.trust(Some(SECRETS.token.clone()));
    let client = connected(stream).trusted(&trust, Instant::now() + END_MAX)?;
    client.read_exact(&mut [0])
}

fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().expect("no panic")
}

/// A tunnel whose other end says `bytes`, as they are and as the bodies of lawful frames.
///
/// # Panics
/// Where it goes on when they are over.
pub fn tunnel(bytes: &[u8]) {
    tunnel_of(bytes.to_vec());
    // A byte for the lane, one for what it is, one for how much follows: lengths that mutations rarely keep.
    let (mut frames, mut rest) = (Vec::new(), bytes);
    while let Some(([lane, kind, len], after)) = rest.split_first_chunk() {
        let (body, after) = after.split_at(after.len().min((*len).into()));
        let mut header = [0; LANE_HEADER_BYTES];
        (header[3], header[4], header[11]) = (*lane, kind % 7, body.len() as u8);
        frames.extend_from_slice(&header);
        frames.extend_from_slice(body);
        rest = after;
    }
    tunnel_of(frames);
}

fn tunnel_of(bytes: Vec<u8>) {
    let echo = |mut lane: Socket| {
        std::thread::spawn(move || {
            let mut said = Vec::new();
            let _ = lane.read_to_end(&mut said);
            let _ = lane.write_all(&said);
        });
    };
    let tunnel = Tunnel::over(Cursor::new(bytes), std::io::sink(), Some(Box::new(echo))).expect("threads");
    assert!(matches!(tunnel.wait_for_end(), End::Closed | End::Broken));
}

#[cfg(test)]
mod tests {
    use fastcp_wire::frame::{FrameType, encode_frame};

    use super::{auth, tunnel};

    #[test]
    fn nobody_is_let_in_by_what_he_says() {
        let frame = |frame_type, payload: &[u8]| encode_frame(frame_type, payload).expect("lawful");
        let proofs = [frame(FrameType::Auth, &[1; 48]), frame(FrameType::AuthReply, &[1; 32])];
        let others: [&[u8]; 6] = [b"", b"FTQ1", &[0x16, 3, 3, 0xff, 0xff], &[0x16, 3, 1, 0, 0], &[0, 0x11], &[0; 64]];
        proofs.iter().map(Vec::as_slice).chain(others).for_each(auth);
    }

    #[test]
    fn a_tunnel_ends_with_what_its_peer_says() {
        let scripts: [&[u8]; 5] = [
            b"",
            &[1, 0, 0, 1, 1, 3, 7, 7, 7, 1, 2, 0],
            &[1, 0, 0, 1, 0, 0],
            &[1, 0, 0, 1, 3, 4, 0xff, 0xff, 0xff, 0xff],
            &[9, 1, 1, 0, 1, 5, 0],
        ];
        scripts.into_iter().for_each(tunnel);
    }
}
