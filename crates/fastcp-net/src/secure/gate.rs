//! What a server asks of whoever connects.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use fastcp_model::Status;
use fastcp_wire::auth::{Auth, AuthReply};
use fastcp_wire::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameType};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{ServerConfig, ServerConnection, version};

use super::token::{Exporter, Proof, Prover, RunId, Token, Tokens};
use super::{Authorities, CertificateError, Identity, provider};
use crate::bounds::network_of;
use crate::connection::checked_frame;
use crate::{Bound, Bounds, Connection, NetError};

/// The first byte of a TLS record with a handshake, and the major version.
const TLS_FIRST: [u8; 2] = [0x16, 0x03];

/// What a server asks of whoever connects, before it hears what they want.
#[derive(Debug, Default)]
pub struct Gate {
    pub(crate) tls: Option<Arc<ServerConfig>>,
    tokens: Tokens,
    one_time: Option<OneTime>,
    asks_for_certificates: bool,
    attempts: Attempts,
    bounds: OnceLock<Arc<Bounds>>,
}

impl Gate {
    /// Nothing is asked for, and nothing is protected.
    pub fn open() -> Self {
        Self::default()
    }

    /// A server with an identity, that takes whoever comes: protected where the client wants it. With `clients`, only those
    /// with a certificate from one of these authorities.
    ///
    /// # Errors
    /// The identity or the authorities are of no use.
    pub fn protected(identity: &Identity, clients: Option<&Authorities>) -> Result<Self, CertificateError> {
        let unusable = |error: &dyn fmt::Display| CertificateError::Unusable(error.to_string());
        let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&version::TLS13]);
        let builder = builder.map_err(|error| unusable(&error))?;
        let builder = match clients {
            Some(authorities) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&authorities.0), provider());
                builder.with_client_cert_verifier(verifier.build().map_err(|error| unusable(&error))?)
            }
            None => builder.with_no_client_auth(),
        };
        let key = Arc::clone(&identity.key);
        let mut config = match identity.is_raw {
            true => builder.with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(key))),
            false => builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::unwrap_or_clone(key)))),
        };
        config.enable_secret_extraction = true;
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self { tls: Some(Arc::new(config)), asks_for_certificates: clients.is_some(), ..Self::default() })
    }

    /// Whoever knows one of these may come in, and nobody else.
    #[must_use]
    pub fn with_tokens(self, tokens: Tokens) -> Self {
        Self { tokens, ..self }
    }

    /// Whoever has the one-time token of the moment may come in.
    #[must_use]
    pub fn with_one_time(self, one_time: OneTime) -> Self {
        Self { one_time: Some(one_time), ..self }
    }

    /// One address may try so many wrong tokens in a minute.
    #[must_use]
    pub fn with_wrong_tokens_max(self, wrong_max: u32) -> Self {
        Self { attempts: Attempts { wrong_max, ..Attempts::default() }, ..self }
    }

    /// Has those that are not heard counted here. Only the first such count is heeded.
    pub fn count_into(&self, bounds: &Arc<Bounds>) {
        drop(self.bounds.set(Arc::clone(bounds)));
    }

    /// Whether a connection may be used as it is.
    pub fn takes(&self, connection: &Connection) -> bool {
        connection.is_protected() || !(self.asks_for_tokens() || self.asks_for_certificates)
    }

    fn asks_for_tokens(&self) -> bool {
        self.tokens.first().is_some() || self.one_time.is_some()
    }

    /// Lets a connection in, protected where its first bytes say so, and proven where that is asked for. Answers its first
    /// four bytes, by which the dialect is chosen.
    pub(crate) fn enter(&self, connection: &mut Connection, deadline: Instant) -> Result<[u8; 4], NetError> {
        let mut first = [0; 4];
        connection.read_exact_by(&mut first, deadline)?;
        let Some(tls) = self.tls.as_ref().filter(|_| first.starts_with(&TLS_FIRST)) else { return Ok(first) };
        let side = ServerConnection::new(Arc::clone(tls)).map_err(super::TlsError::from)?;
        let exporter = connection.protect(side, &first, deadline)?;
        if self.asks_for_tokens() {
            self.hear_proof(connection, &exporter, deadline)?;
        }
        connection.read_exact_by(&mut first, deadline)?;
        match first {
            [0, 0x11, ..] => Err(denied("this server asks for no token; leave it out")),
            first => Ok(first),
        }
    }

    fn hear_proof(&self, connection: &Connection, exporter: &Exporter, deadline: Instant) -> Result<(), NetError> {
        let peer = connection.peer_ip();
        let mut header = [0; FRAME_HEADER_BYTES];
        connection.read_exact_by(&mut header, deadline)?;
        let is_auth = header.starts_with(&(FrameType::Auth as u16).to_be_bytes());
        if !is_auth {
            return Err(denied("this server asks for a token: --token-file FILE, or FASTCP_TOKEN"));
        }
        let auth_bytes = fastcp_wire::auth::RUN_BYTES + fastcp_wire::auth::PROOF_BYTES;
        let mut rest = vec![0; FrameHeader::decode_within(&header, auth_bytes)?.rest_bytes()];
        connection.read_exact_by(&mut rest, deadline)?;
        let (_, payload) = checked_frame(&header, &rest)?;
        let Auth { run, proof } = Auth::decode(&payload)?;
        let heard = self.attempts.hear(peer, || match self.tokens.proven_by(exporter, &proof) {
            Some(token) => Some(token.clone()),
            None => self.one_time.as_ref().and_then(|one_time| one_time.proven_by(RunId(run), exporter, &proof)),
        });
        let token = match heard {
            Attempt::Proven(token) => token,
            Attempt::Wrong => {
                return Err(denied(match &self.one_time {
                    Some(_) => "the token is not right, or it was used: a one-time token is for one run",
                    None => "the token is not right",
                }));
            }
            Attempt::TooMany => {
                if let Some(bounds) = self.bounds.get() {
                    bounds.hit(Bound::WrongTokens, peer);
                }
                return Err(denied(TOO_MANY_WRONG));
            }
        };
        let reply = AuthReply { proof: token.prove(Prover::Server, exporter) };
        connection.write_frame(FrameType::AuthReply, &reply.encode())
    }
}

/// What is said to those who are not heard.
const TOO_MANY_WRONG: &str = "too many wrong tokens from this address; wait a minute";

fn denied(detail: &str) -> NetError {
    NetError::Denied { status: Status::Unauthorised, detail: detail.to_owned() }
}

/// Runs whose one-time token is remembered.
const RUNS_MAX: usize = 1024;

/// Hears each new token.
type Announce = Box<dyn Fn(&str) + Send + Sync>;

/// Tokens that are good for one run of a client each: once one is taken, the next one is announced.
pub struct OneTime {
    state: Mutex<OneTimeState>,
    announce: Announce,
}

struct OneTimeState {
    next: Token,
    /// How the next one is written, until it is announced.
    unannounced: Option<String>,
    taken: VecDeque<(RunId, Token)>,
}

impl OneTime {
    /// Makes the first token, which is announced when it is asked for.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn new(announce: impl Fn(&str) + Send + Sync + 'static) -> io::Result<Self> {
        let (next, text) = Token::make()?;
        let state = OneTimeState { next, unannounced: Some(text), taken: VecDeque::new() };
        Ok(Self { state: Mutex::new(state), announce: Box::new(announce) })
    }

    /// Announces the token of the moment, once.
    fn announce(&self) {
        let text = self.state.lock().unwrap_or_else(PoisonError::into_inner).unannounced.take();
        if let Some(text) = text {
            (self.announce)(&text);
        }
    }

    fn proven_by(&self, run: RunId, exporter: &Exporter, proof: &Proof) -> Option<Token> {
        let token = self.taken_by(run, exporter, proof)?;
        self.announce();
        Some(token)
    }

    fn taken_by(&self, run: RunId, exporter: &Exporter, proof: &Proof) -> Option<Token> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_proven = |token: &Token| token.is_proven(Prover::Client, exporter, proof);
        if let Some((_, token)) = state.taken.iter().find(|(of, _)| *of == run) {
            return is_proven(token).then(|| token.clone());
        }
        if !is_proven(&state.next) {
            return None;
        }
        // Without random bytes for another token this one is not given up.
        let (next, text) = Token::make().ok()?;
        let token = std::mem::replace(&mut state.next, next);
        state.unannounced = Some(text);
        if state.taken.len() == RUNS_MAX {
            state.taken.pop_front();
        }
        state.taken.push_back((run, token.clone()));
        Some(token)
    }
}

impl fmt::Debug for OneTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OneTime")
    }
}

impl Gate {
    /// Announces the first one-time token, if there is to be one.
    pub fn announce(&self) {
        if let Some(one_time) = &self.one_time {
            one_time.announce();
        }
    }
}

/// Wrong tokens that one address may try in a minute, where nobody says so.
pub const WRONG_TOKENS_MAX: u32 = 10;
const WRONG_WITHIN: Duration = Duration::from_secs(60);
/// Addresses that are remembered.
const ADDRESSES_MAX: usize = 4096;

/// Wrong tokens of late, by address.
#[derive(Debug)]
struct Attempts {
    wrong_max: u32,
    wrong: Mutex<HashMap<Option<IpAddr>, (Instant, u32)>>,
}

impl Default for Attempts {
    fn default() -> Self {
        Self { wrong_max: WRONG_TOKENS_MAX, wrong: Mutex::default() }
    }
}

/// What became of an attempt.
#[derive(Debug, PartialEq, Eq)]
enum Attempt<T> {
    Proven(T),
    Wrong,
    /// It was not looked at.
    TooMany,
}

impl Attempts {
    /// Has `look` look at what a peer has to show. Peers are looked at one after another: of many attempts at once no
    /// more are heard than of attempts in a row.
    fn hear<T>(&self, peer: Option<IpAddr>, look: impl FnOnce() -> Option<T>) -> Attempt<T> {
        let peer = peer.map(network_of);
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        let of_late = wrong.get(&peer).filter(|(since, _)| since.elapsed() < WRONG_WITHIN);
        if of_late.is_some_and(|(_, count)| *count >= self.wrong_max) {
            return Attempt::TooMany;
        }
        if let Some(found) = look() {
            return Attempt::Proven(found);
        }
        if wrong.len() >= ADDRESSES_MAX {
            wrong.retain(|_, (since, _)| since.elapsed() < WRONG_WITHIN);
        }
        if wrong.len() >= ADDRESSES_MAX {
            wrong.clear();
        }
        let (since, count) = wrong.entry(peer).or_insert((Instant::now(), 0));
        if since.elapsed() >= WRONG_WITHIN {
            (*since, *count) = (Instant::now(), 0);
        }
        *count += 1;
        Attempt::Wrong
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::{Attempt, Attempts, OneTime, WRONG_TOKENS_MAX};
    use crate::secure::token::{Prover, RunId, Token};

    #[test]
    fn a_one_time_token_is_for_one_run() {
        let announced = Arc::new(Mutex::new(Vec::new()));
        let hears = Arc::clone(&announced);
        let one_time = OneTime::new(move |text| hears.lock().expect("lock").push(text.to_owned())).expect("a token");
        one_time.announce();
        one_time.announce();
        let token = |nth: usize| Token::new(announced.lock().expect("lock")[nth].as_bytes()).expect("a token");
        let proof = |token: &Token| token.prove(Prover::Client, &[1; 32]);
        let (first, run, other) = (token(0), RunId([1; 16]), RunId([2; 16]));
        let takes = |run, token: &Token| one_time.proven_by(run, &[1; 32], &proof(token)).is_some();
        assert!(one_time.proven_by(other, &[2; 32], &proof(&first)).is_none(), "of another connection");
        assert!(takes(run, &first) && takes(run, &first), "for each of its connections");
        assert_eq!(announced.lock().expect("lock").len(), 2);
        assert!(!takes(other, &first));
        assert!(takes(other, &token(1)) && !takes(run, &token(1)));
    }

    #[test]
    fn who_tries_too_often_is_not_heard() {
        let attempts = Attempts::default();
        let at = |text: &str| Some(text.parse().expect("an address"));
        let wrong = |peer| attempts.hear(peer, || None::<()>);
        let peer = at("2001:db8::1");
        for _ in 0..WRONG_TOKENS_MAX {
            assert_eq!(attempts.hear(peer, || Some(1)), Attempt::Proven(1));
            assert_eq!(wrong(peer), Attempt::Wrong);
        }
        assert_eq!(attempts.hear(at("2001:db8::2"), || Some(1)), Attempt::TooMany, "of the same network");
        assert_eq!(wrong(at("192.0.2.1")), Attempt::Wrong);
    }
}
