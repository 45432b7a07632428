//! What a server shows: a key of its own, or a certificate.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::signature::Ed25519KeyPair;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SigningKey};

use super::{Fingerprint, TlsError, provider};

/// The key of a server, and what it is shown as.
#[derive(Clone)]
pub struct Identity {
    pub(super) key: Arc<CertifiedKey>,
    pub(super) is_raw: bool,
    fingerprint: Option<Fingerprint>,
}

/// Why what was read is no key or no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// There is none in it.
    #[error("there is no {0} in PEM form in it")]
    None(&'static str),
    /// It is of no use.
    #[error("{0}")]
    Unusable(String),
}

impl Identity {
    /// A new key, and how it is written: PKCS #8 in PEM.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn make() -> std::io::Result<(Self, String)> {
        let failed = || std::io::Error::other("cannot make a key");
        let document = Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new()).map_err(|_| failed())?;
        let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(document.as_ref().to_vec()));
        let text = pem(document.as_ref());
        Ok((Self::of_key(&der).map_err(|_| failed())?, text))
    }

    /// The key in a PEM file.
    ///
    /// # Errors
    /// There is none, or it cannot sign.
    pub fn read(pem: &[u8]) -> Result<Self, CertificateError> {
        Self::of_key(&private_key(pem)?)
    }

    /// The same key, shown with these certificates: a PEM file, the server's own first.
    ///
    /// # Errors
    /// There are none, or they are not of this key.
    pub fn with_certificates(pem: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let (chain, signing) = (certificates(pem)?, signing_key(&private_key(key)?)?);
        let key = CertifiedKey::new(chain, signing);
        key.keys_match().map_err(|error| CertificateError::Unusable(error.to_string()))?;
        Ok(Self { key: Arc::new(key), is_raw: false, fingerprint: None })
    }

    /// What clients know it by; `None` where it has certificates.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.fingerprint
    }

    fn of_key(key: &PrivateKeyDer<'_>) -> Result<Self, CertificateError> {
        let signing = signing_key(key)?;
        let public = signing.public_key();
        let public = public.ok_or_else(|| CertificateError::Unusable("a key without a public part".to_owned()))?;
        let fingerprint = Fingerprint::of(&public);
        let shown = CertificateDer::from(public.to_vec());
        Ok(Self {
            key: Arc::new(CertifiedKey::new(vec![shown], signing)),
            is_raw: true,
            fingerprint: Some(fingerprint),
        })
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

/// The certificates of a PEM file.
pub(super) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(certificates) if certificates.is_empty() => Err(CertificateError::None("certificate")),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(CertificateError::Unusable(error.to_string())),
    }
}

/// The private key of a PEM file.
pub(super) fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, CertificateError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| CertificateError::None("private key"))
}

fn signing_key(key: &PrivateKeyDer<'_>) -> Result<Arc<dyn SigningKey>, CertificateError> {
    let provider: Arc<CryptoProvider> = provider();
    let loaded = provider.key_provider.load_private_key(key.clone_key());
    loaded.map_err(|error| CertificateError::Unusable(TlsError::from(error).to_string()))
}

/// A PKCS #8 document in PEM (RFC 7468).
fn pem(document: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(document);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::{CertificateError, Identity};

    #[test]
    fn a_key_that_is_made_is_read_again() {
        let (made, text) = Identity::make().expect("a key");
        let read = Identity::read(text.as_bytes()).expect("the same");
        assert!(made.fingerprint().is_some());
        assert_eq!(made.fingerprint(), read.fingerprint());
        assert_ne!(Identity::make().expect("another").0.fingerprint(), made.fingerprint());
        assert!(!format!("{made:?}").contains("PRIVATE"));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        assert!(matches!(Identity::read(b"nothing"), Err(CertificateError::None("private key"))));
        let (_, text) = Identity::make().expect("a key");
        let error = Identity::with_certificates(b"nothing", text.as_bytes()).expect_err("no certificate");
        assert_eq!(error.to_string(), "there is no certificate in PEM form in it");
    }
}
