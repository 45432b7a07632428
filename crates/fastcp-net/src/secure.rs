//! Who is at the other end, and that nobody in between can read or change what is said.
//!
//! A protected connection is TLS 1.3. The server shows a raw public key (RFC 7250) whose [`Fingerprint`] the client
//! knows, or a certificate. Where a server asks for one, the client proves a [`Token`] against the exporter of that
//! very connection, in a frame that comes before all others, and the server proves the same token back: what is proven
//! on one connection is worth nothing on another, so whoever ends TLS in the middle can pass on neither.
//!
//! - [`Gate`]: what a server asks of whoever connects.
//! - [`Trust`]: what a client asks of the server that it dials, and what it proves.
//! - `handshake.rs` drives rustls until both ends have keys; from then on `channel.rs` protects records with them.
//!
//! Tokens and keys are never logged, nor shown by `Debug`.

mod channel;
mod fingerprint;
mod gate;
mod handshake;
mod identity;
mod token;
mod trust;

pub(crate) use channel::{Channel, ChannelError};
pub use fingerprint::Fingerprint;
pub use gate::{Gate, OneTime, WRONG_TOKENS_MAX};
pub(crate) use handshake::{Line, Protected, shake};
pub use identity::{CertificateError, Identity};
pub(crate) use token::Exporter;
pub use token::{Token, TokenError, Tokens};
pub use trust::{Authorities, Trust};

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};

/// Why a connection is not protected as it has to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// The server has another key than the one that is known.
    #[error(
        "THE SERVER'S KEY IS NOT THE ONE THAT IS KNOWN. Either somebody is between you and the server, or it was given a new key.\n  \
         known: {known} ({place})\n  shown: {shown}\nAsk who runs it. If the new key is right, put it in place of the known one."
    )]
    OtherKey {
        /// What is known.
        known: Fingerprint,
        /// What it shows.
        shown: Fingerprint,
        /// Where the known one is written.
        place: String,
    },
    /// Nothing is known of the server by which its key could be told from another's.
    #[error(
        "the server's key is not known here. It shows {0}; if fastcp-server printed the same, put it behind the address: #{0}"
    )]
    UnknownKey(Fingerprint),
    /// The server does not know the token: it is another one, or somebody is in between.
    #[error("the server cannot prove that it knows the token")]
    Unproven,
    /// The peer does not speak TLS.
    #[error(
        "the other end does not speak TLS: it runs without protection, or is not a fastcp server; --insecure goes without"
    )]
    NotTls,
    /// The server takes clients with certificates alone, and this one has shown none, or one of no use.
    #[error("the server takes only clients that show a certificate from its authority: --tls-cert and --tls-key")]
    CertificateWanted,
    /// The peer's certificate is not from anybody who is believed here.
    #[error("the certificate is not from an authority of --tls-ca")]
    UnknownAuthority,
    /// It is of another host.
    #[error("the certificate is of another host: {0}")]
    OtherHost(String),
    /// The handshake failed.
    #[error("TLS: {0}")]
    Handshake(String),
    /// Records that are wrong, or damaged on the way.
    #[error("TLS: {0}")]
    Record(&'static str),
}

/// What is used of cryptography. AES-128-GCM comes first: it is the fastest where the processor has instructions for it.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![
        aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
        aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
        aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(provider)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use fastcp_model::Status;
    use fastcp_wire::frame::FrameType;
    use fastcp_wire::hello::Failure;

    use super::{Gate, Identity, TlsError, Token, Tokens, Trust};
    use crate::{Connection, NetError, WireCount};

    fn deadline() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn tokens() -> Tokens {
        Tokens::read(b"a-token-of-sixteen-characters-or-more").expect("lawful")
    }

    fn token() -> Token {
        tokens().first().expect("one").clone()
    }

    /// Both ends of a TCP connection: of the client, and of the server.
    fn streams() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let here = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
        (here, listener.accept().expect("accept").0)
    }

    /// A client that knows the key of the server, and what the server's end makes of the connection.
    fn met<T: Send>(
        identity: &Identity,
        token: Option<Token>,
        server: impl FnOnce(Connection) -> T + Send,
        client: impl FnOnce(Result<Connection, NetError>) + Send,
    ) -> T {
        let (here, there) = streams();
        let known = identity.fingerprint().map(|key| (key, "a test".to_owned()));
        let trust = Trust::of_key(known, token).expect("random bytes");
        std::thread::scope(|threads| {
            let served = threads.spawn(|| server(Connection::accept(there.into()).expect("connected")));
            let connection = Connection::new(socket2::Socket::from(here), Arc::<WireCount>::default());
            client(connection.expect("connected").trusted(&trust, deadline()));
            served.join().expect("join")
        })
    }

    #[test]
    fn bytes_arrive_in_order_whatever_pieces_they_are_written_in() {
        let (identity, _) = Identity::make().expect("a key");
        let gate = Gate::protected(&identity, None).expect("lawful").with_tokens(tokens());
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let pieces = [1, 7, 16_383, 16_384, 16_385, 100, 0, 300_000, 40_000, 3, 2_000_000];
        let received = met(
            &identity,
            Some(token()),
            |mut connection| {
                let first = gate.enter(&mut connection, deadline()).expect("let in");
                let mut all = first.to_vec();
                let mut buffer = vec![0; 100_000];
                while let Ok(count @ 1..) = connection.read_some(&mut buffer) {
                    all.extend_from_slice(&buffer[..count]);
                }
                connection.write_all(b"thanks").expect("sent");
                all
            },
            |connection| {
                let connection = connection.expect("a server that is known");
                let mut rest = &bytes[..];
                for (nth, len) in pieces.into_iter().enumerate() {
                    let (now, later) = rest.split_at(len.min(rest.len()));
                    rest = later;
                    match nth % 3 {
                        0 => connection.write_all(now).expect("sent"),
                        _ => connection.write_more(now).expect("sent"),
                    }
                }
                connection.write_more(rest).expect("sent");
                connection.end_sending();
                let mut thanks = [0; 6];
                connection.read_exact(&mut thanks).expect("an answer");
                assert_eq!(&thanks, b"thanks");
            },
        );
        assert!(received == bytes);
    }

    #[test]
    fn whatever_a_server_says_that_proves_nothing_does_not_count() {
        let (identity, _) = Identity::make().expect("a key");
        // It has the key, and knows no token.
        let gate = Gate::protected(&identity, None).expect("lawful");
        let refuse = Failure::from(Status::UnknownTicket);
        met(
            &identity,
            Some(token()),
            |mut connection| {
                let _ = gate.enter(&mut connection, deadline());
                connection.write_frame(FrameType::Failure, &refuse.encode()).expect("sent");
                connection.write_frame(FrameType::AttachReply, &[]).expect("sent");
            },
            |connection| {
                let connection = connection.expect("a server that is known");
                for _ in 0..3 {
                    let error = connection.read_frame().expect_err("unproven");
                    assert!(matches!(error, NetError::Tls(TlsError::Unproven)), "{error:?}");
                }
            },
        );
    }

    #[test]
    fn a_client_that_proves_nothing_is_told_so_and_not_let_in() {
        let (identity, _) = Identity::make().expect("a key");
        let gate = Gate::protected(&identity, None).expect("lawful").with_tokens(tokens());
        let entered = met(
            &identity,
            None,
            |mut connection| {
                let entered = gate.enter(&mut connection, deadline()).map(drop);
                assert!(gate.takes(&connection), "it is protected; that it was not let in is an error");
                entered
            },
            |connection| {
                let connection = connection.expect("a server that is known");
                connection.write_frame(FrameType::Hello, &[]).expect("sent");
            },
        );
        assert!(matches!(entered, Err(NetError::Denied { status: Status::Unauthorised, .. })), "{entered:?}");
    }

    #[test]
    fn a_record_that_was_changed_or_cut_ends_the_connection() {
        let (identity, _) = Identity::make().expect("a key");
        let gate = Gate::protected(&identity, None).expect("lawful").with_tokens(tokens());
        for is_cut in [false, true] {
            let read = met(
                &identity,
                Some(token()),
                |mut connection| {
                    gate.enter(&mut connection, deadline()).expect("let in");
                    let mut byte = [0];
                    connection.read_exact(&mut byte)
                },
                |connection| {
                    let connection = connection.expect("a server that is known");
                    connection.write_all(b"four").expect("sent");
                    let stream = connection.shared_stream();
                    // Behind it, what no key has sealed.
                    let record = [&[0x17, 3, 3, 0, 40][..], &[7; 40]].concat();
                    let sent = if is_cut { &record[..20] } else { &record };
                    std::io::Write::write_all(&mut &*stream, sent).expect("sent");
                    stream.shutdown(std::net::Shutdown::Write).expect("that is all");
                },
            );
            match is_cut {
                true => assert!(matches!(read, Err(NetError::Closed)), "{read:?}"),
                false => assert!(matches!(read, Err(NetError::Tls(TlsError::Record(_)))), "{read:?}"),
            }
        }
    }
}
