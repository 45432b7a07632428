//! What a client asks of the server that it dials, and what it proves to it.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use fastcp_wire::auth::Auth;
use fastcp_wire::frame::{FrameType, encode_frame};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::{CertificateError as Refusal, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore};
use rustls::{Error, PeerMisbehaved, SignatureScheme, version};
use socket2::Socket;

use super::handshake::{Line, Protected, shake};
use super::identity::{certificates, private_key};
use super::token::{Prover, RunId, Token};
use super::{CertificateError, Channel, ChannelError, Fingerprint, TlsError, provider};
use crate::{NetError, WireCount};

/// Certificates of those whose word counts.
#[derive(Debug, Clone)]
pub struct Authorities(pub(super) Arc<RootCertStore>);

impl Authorities {
    /// Those of a PEM file.
    ///
    /// # Errors
    /// There are none, or they are of no use.
    pub fn read(pem: &[u8]) -> Result<Self, CertificateError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(pem)? {
            roots.add(certificate).map_err(|error| CertificateError::Unusable(error.to_string()))?;
        }
        Ok(Self(Arc::new(roots)))
    }
}

/// What is known of a server, and what this end proves.
pub struct Trust {
    config: Arc<ClientConfig>,
    /// Whom a certificate has to be of.
    name: ServerName<'static>,
    /// `None` where certificates count instead.
    key: Option<Arc<KnownKey>>,
    token: Option<Token>,
    run: RunId,
}

impl Trust {
    /// Trust in a server with this key, and where it is said that the server has it. Where none is known, its first key is
    /// taken if it proves the token.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn of_key(known: Option<(Fingerprint, String)>, token: Option<Token>) -> io::Result<Self> {
        let (known, place) = known.unzip();
        let key = Arc::new(KnownKey {
            known: Mutex::new(known),
            place: place.unwrap_or_default(),
            proven: AtomicBool::new(false),
            shown: Mutex::new(None),
            takes_unknown: token.is_some(),
            algorithms: provider().signature_verification_algorithms,
        });
        let verifier: Arc<dyn ServerCertVerifier> = Arc::clone(&key) as _;
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&version::TLS13]);
        let config = builder.map_err(io::Error::other)?.dangerous().with_custom_certificate_verifier(verifier);
        // Nobody along the way is told a name.
        let name = ServerName::try_from("fastcp.invalid").map_err(io::Error::other)?;
        Self::over(config.with_no_client_auth(), name, Some(key), token)
    }

    /// Trust in a server that has a certificate of this host from one of these authorities. `own` is the PEM of what this
    /// end shows: its certificates, and their key.
    ///
    /// # Errors
    /// A host that no certificate can be of, what is wrong with the certificates; or the system gives no random bytes.
    pub fn of_authorities(
        host: &str,
        authorities: &Authorities,
        own: Option<(&[u8], &[u8])>,
        token: Option<Token>,
    ) -> Result<Self, CertificateError> {
        let unusable = |error: &dyn fmt::Display| CertificateError::Unusable(error.to_string());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::clone(&authorities.0), provider()).build();
        let verifier = verifier.map_err(|error| unusable(&error))?;
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&version::TLS13]);
        let builder = builder.map_err(|error| unusable(&error))?.with_webpki_verifier(verifier);
        let config = match own {
            Some((certificate, key)) => builder
                .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
                .map_err(|error| unusable(&error))?,
            None => builder.with_no_client_auth(),
        };
        let name = ServerName::try_from(host.to_owned()).map_err(|error| unusable(&error))?;
        Self::over(config, name, None, token).map_err(|error| unusable(&error))
    }

    fn over(
        mut config: ClientConfig,
        name: ServerName<'static>,
        key: Option<Arc<KnownKey>>,
        token: Option<Token>,
    ) -> io::Result<Self> {
        config.enable_secret_extraction = true;
        config.enable_sni = key.is_none();
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Self { config: Arc::new(config), name, key, token, run: RunId::make()? })
    }

    /// Whether it is a bare key that counts, and not a certificate.
    pub fn is_of_key(&self) -> bool {
        self.key.is_some()
    }

    /// The key that the server has proven to have: the one that was known before, or the one that it showed first, with a
    /// proof of the token.
    pub fn proven(&self) -> Option<Fingerprint> {
        let key = self.key.as_ref()?;
        lock(&key.known).filter(|_| key.proven.load(Ordering::Relaxed))
    }

    /// Protects a new connection. Whatever the server's proof is owed for, nothing it says counts before it.
    pub(crate) fn enter(&self, socket: &Socket, count: &WireCount, deadline: Instant) -> Result<Channel, NetError> {
        let line = Line { socket, count, deadline };
        let was_known = self.key.as_ref().is_none_or(|key| lock(&key.known).is_some());
        let side = ClientConnection::new(Arc::clone(&self.config), self.name.clone()).map_err(TlsError::from)?;
        let start = Instant::now();
        let Protected { channel, exporter, shown } = shake(side, &[], &line).map_err(|error| self.explained(error))?;
        if was_known && let Some(key) = &self.key {
            key.proven.store(true, Ordering::Relaxed);
        }
        let Some(token) = &self.token else { return Ok(channel) };
        let auth = Auth { run: self.run.0, proof: token.prove(Prover::Client, &exporter) };
        let frame = encode_frame(FrameType::Auth, &auth.encode())?;
        let broken = |error| match error {
            ChannelError::Net(error) => error,
            ChannelError::Io(error) if error.kind() == io::ErrorKind::WouldBlock => NetError::TimedOut(start.elapsed()),
            ChannelError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => NetError::Closed,
            ChannelError::Io(error) => NetError::Socket(error),
        };
        channel.send(&frame, false, |slices| line.send(slices)).map_err(broken)?;
        channel.expect_proof(token.clone(), exporter);
        if !was_known && let Some(key) = &self.key {
            channel.hear_proof(|into| line.receive(into)).map_err(broken)?;
            key.learn(shown)?;
        }
        Ok(channel)
    }

    /// A failed handshake, told by the key that was shown.
    fn explained(&self, error: NetError) -> NetError {
        let (NetError::Tls(TlsError::Handshake(_)), Some(key)) = (&error, &self.key) else { return error };
        match (*lock(&key.known), *lock(&key.shown)) {
            (Some(known), Some(shown)) if known != shown => key.other(known, shown).into(),
            (None, Some(shown)) if !key.takes_unknown => TlsError::UnknownKey(shown).into(),
            _ => error,
        }
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("proven", &self.proven()).finish_non_exhaustive()
    }
}

/// Takes raw public keys, and one of them alone.
#[derive(Debug)]
struct KnownKey {
    known: Mutex<Option<Fingerprint>>,
    /// Where it is said.
    place: String,
    /// Whether the server has shown that it has the known key.
    proven: AtomicBool,
    /// The one that was shown last, for messages.
    shown: Mutex<Option<Fingerprint>>,
    takes_unknown: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl KnownKey {
    fn other(&self, known: Fingerprint, shown: Fingerprint) -> TlsError {
        TlsError::OtherKey { known, shown, place: self.place.clone() }
    }

    /// The key that was shown on a connection has proven itself by the token, so no other one is taken from now on.
    fn learn(&self, shown: Option<Fingerprint>) -> Result<(), NetError> {
        let mut known = lock(&self.known);
        match (*known, shown) {
            (Some(known), Some(shown)) if known != shown => Err(self.other(known, shown).into()),
            (None, shown) => {
                *known = shown;
                self.proven.store(true, Ordering::Relaxed);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl ServerCertVerifier for KnownKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = Fingerprint::of(end_entity);
        *lock(&self.shown) = Some(shown);
        match *lock(&self.known) {
            Some(known) if known == shown => Ok(ServerCertVerified::assertion()),
            None if self.takes_unknown => Ok(ServerCertVerified::assertion()),
            _ => Err(Error::InvalidCertificate(Refusal::ApplicationVerificationFailure)),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerMisbehaved(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(cert.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
