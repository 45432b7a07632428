//! How a server is reached, and what it has to prove.
//!
//! A server whose key is known, from its address or from an earlier run, is asked for that key; one that a token is for has to
//! prove it. Others are talked to without protection where they are on this machine, or with `--insecure`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use fastcp_engine::{Dialer, Endpoint};
use fastcp_net::{Authorities, Fingerprint, Trust, WireCount};

use crate::address::ServerAddress;
use crate::args::options::TrustOptions;
use crate::exit_code::{self, Failure};
use crate::kept;
use crate::known;
use crate::secrets;
use crate::wording::shown;

/// The other end of a run.
#[derive(Debug)]
pub(crate) struct Reached {
    pub(crate) endpoint: Endpoint,
    trust: Option<Arc<Trust>>,
    /// Its key, as far as it was known in this place before.
    remembered: Option<Fingerprint>,
}

/// Whether a server elsewhere is talked to without protection unless it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unprotected {
    /// Only where the user says so.
    Refused,
    /// Yes: programs that speak no more than FTQ1 or drops know no other way.
    Usual,
}

impl From<Endpoint> for Reached {
    /// A server that needs no proof: it is in this process.
    fn from(endpoint: Endpoint) -> Self {
        Self { endpoint, trust: None, remembered: None }
    }
}

impl Reached {
    /// A server, with what was typed about it.
    pub(crate) fn server(
        address: &ServerAddress,
        options: &TrustOptions,
        unprotected: Unprotected,
    ) -> Result<Self, Failure> {
        let usage = |message: String| Failure::new(exit_code::USAGE, message);
        let ServerAddress { host, port, key } = address;
        let endpoint = Endpoint::Tcp { host: host.clone(), port: *port };
        let name = endpoint.to_string();
        let token = secrets::token(options.token_file.as_deref())?;
        if options.insecure {
            if key.is_some() || token.is_some() || options.tls_ca.is_some() {
                let message =
                    "--insecure leaves out what a key, a token or a certificate is for; leave one of them out";
                return Err(usage(message.to_owned()));
            }
            return Ok(endpoint.into());
        }
        if let Some(ca) = &options.tls_ca {
            if key.is_some() {
                return Err(usage("a key in the address and --tls-ca contradict each other".to_owned()));
            }
            let own = match (&options.tls_cert, &options.tls_key) {
                (Some(cert), Some(key)) => Some((secrets::read(cert)?, secrets::read_private(key)?)),
                (None, None) => None,
                _ => return Err(usage("--tls-cert and --tls-key belong together".to_owned())),
            };
            let unusable = |error| usage(format!("--tls-ca \"{}\": {error}", shown(ca)));
            let authorities = Authorities::read(&secrets::read(ca)?).map_err(unusable)?;
            let own = own.as_ref().map(|(cert, key)| (&cert[..], &key[..]));
            let trust = Trust::of_authorities(host, &authorities, own, token)
                .map_err(|error| usage(format!("certificates for \"{host}\": {error}")))?;
            return Ok(Self { endpoint, trust: Some(Arc::new(trust)), remembered: None });
        }
        if options.tls_cert.is_some() || options.tls_key.is_some() {
            return Err(usage("--tls-cert and --tls-key need --tls-ca".to_owned()));
        }
        let found = known::find(&name)?;
        let remembered = found.as_ref().map(|(key, _)| *key);
        let known = key.map(|key| (key, "its address".to_owned())).or(found);
        let is_elsewhere = !is_loopback(host) && unprotected == Unprotected::Refused;
        if known.is_none() && token.is_none() && !is_elsewhere {
            return Ok(endpoint.into());
        }
        let trust = Trust::of_key(known, token).map_err(|error| Failure::new(exit_code::RESOURCES, error))?;
        Ok(Self { endpoint, trust: Some(Arc::new(trust)), remembered })
    }

    /// What dials it.
    pub(crate) fn dialer(&self, count: Arc<WireCount>) -> Dialer {
        Dialer::new(self.endpoint.clone(), count).trusting(self.trust.clone())
    }

    /// One more server of the same tree.
    pub(crate) fn beside(&self, first: &Dialer, count: Arc<WireCount>) -> Dialer {
        first.elsewhere(self.endpoint.clone(), count).trusting(self.trust.clone())
    }

    /// Keeps the key that the server has proven to have, for the next run.
    pub(crate) fn remember(&self) {
        let proven = self.trust.as_ref().and_then(|trust| trust.proven());
        if let Some(key) = proven.filter(|key| self.remembered != Some(*key))
            && let Err(error) = known::remember(&self.endpoint.to_string(), key)
        {
            tracing::warn!("cannot keep the server's key for the next time: {error}");
        }
    }
}

impl Reached {
    /// Where its key is kept for the next run, if it may be.
    pub(crate) fn place_to_remember(&self) -> Option<PathBuf> {
        let learns = self.trust.as_ref().is_some_and(|trust| trust.is_of_key());
        let dir = kept::config_dir().filter(|_| learns)?;
        kept::make_config_dir(&dir).ok().map(|()| dir)
    }
}

/// Whether a host that was typed is this machine, as far as that is known without asking.
fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn what_is_on_this_machine() {
        for (host, is_here) in [
            ("localhost", true),
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("10.0.0.1", false),
            ("localhost.example.org", false),
        ] {
            assert_eq!(is_loopback(host), is_here, "{host}");
        }
    }
}
