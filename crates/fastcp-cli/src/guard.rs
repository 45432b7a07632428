//! What the server asks of whoever connects, from what was typed.
//!
//! On loopback nothing is asked for unless something is given to ask for: whoever is on the machine has other ways. Anywhere
//! else a token or certificates are needed; without either, a token for one run is made and printed.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fastcp_model::Escaped;
use fastcp_net::{Authorities, CertificateError, Gate, Identity, OneTime};

use crate::args::ServerArgs;
use crate::exit_code::{self, Failure};
use crate::kept::{config_dir, make_config_dir};
use crate::secrets;
use crate::stdout::Stdout;
use crate::wording::shown;

/// What a server is started with.
pub(crate) struct Guard {
    pub(crate) gate: Gate,
    /// What clients dial, where they need more than host and port.
    pub(crate) address: Option<String>,
}

/// Whether what was typed leaves a server open to all who reach it.
pub(crate) fn check(args: &ServerArgs) -> Result<(), Failure> {
    let usage = |message: &str| Err(Failure::new(exit_code::USAGE, message));
    if args.insecure && (args.token_file.is_some() || args.tls_ca.is_some() || secrets::tokens(None)?.is_some()) {
        return usage("--insecure asks nobody who connects; leave it out, or --token-file, FASTCP_TOKEN and --tls-ca");
    }
    if args.tls_cert.is_some() && args.tls_key.is_none() {
        return usage("--tls-cert needs --tls-key");
    }
    if args.tls_ca.is_some() && args.tls_cert.is_none() {
        return usage("--tls-ca needs --tls-cert and --tls-key: clients that show certificates ask for one as well");
    }
    Ok(())
}

/// Makes the gate of a server that listens on this address.
pub(crate) fn guard(args: &ServerArgs, bound: SocketAddr, stdout: &Arc<Stdout>) -> Result<Guard, Failure> {
    let tokens = if args.insecure { None } else { secrets::tokens(args.token_file.as_deref())? };
    let is_reachable = !bound.ip().to_canonical().is_loopback();
    let is_asked = tokens.is_some() || args.tls_ca.is_some();
    let is_protected = is_asked || args.tls_key.is_some() || (is_reachable && !args.insecure);
    if !is_protected {
        return Ok(Guard { gate: Gate::open(), address: None });
    }
    let identity = identity(args)?;
    let clients = args.tls_ca.as_deref().map(authorities).transpose()?;
    let wrong = |error: CertificateError| Failure::new(exit_code::USAGE, error);
    let mut gate = Gate::protected(&identity, clients.as_ref()).map_err(wrong)?;
    let key = identity.fingerprint().map(|key| format!("#{key}")).unwrap_or_default();
    let address = format!("fcp://{}{key}", host_of(args, bound));
    if let Some(tokens) = tokens {
        gate = gate.with_tokens(tokens);
    } else if is_reachable && !is_asked && !args.insecure {
        let (stdout, address) = (Arc::clone(stdout), address.clone());
        let one_time = OneTime::new(move |token| {
            stdout.line(&format!("for one run: {}={token} fastcp-client pull '{address}' DIR", secrets::VARIABLE));
        });
        let no_token = |error| Failure::new(exit_code::RESOURCES, format!("cannot make a token: {error}"));
        gate = gate.with_one_time(one_time.map_err(no_token)?);
    }
    Ok(Guard { gate, address: Some(address) })
}

/// How clients may call the server: by the address that was typed, unless it is that of all.
fn host_of(args: &ServerArgs, bound: SocketAddr) -> String {
    if !bound.ip().is_unspecified() {
        return bound.to_string();
    }
    let typed = args.host.rsplit_once(':').map_or(args.host.as_str(), |(host, _)| host);
    let is_name = typed.parse::<IpAddr>().is_err() && typed.bytes().any(|byte| byte.is_ascii_alphabetic());
    let name = if is_name { Some(typed.to_owned()) } else { fastcp_engine::host_name() };
    format!("{}:{}", name.as_deref().unwrap_or("HOST"), bound.port())
}

fn authorities(path: &Path) -> Result<Authorities, Failure> {
    Authorities::read(&secrets::read(path)?).map_err(|error| of_file(path, &error))
}

fn of_file(path: &Path, error: &CertificateError) -> Failure {
    Failure::new(exit_code::USAGE, format!("\"{}\": {error}", shown(path)))
}

/// The server's key: what was typed, or the user's own. One that does not exist yet is made.
fn identity(args: &ServerArgs) -> Result<Identity, Failure> {
    let path = match &args.tls_key {
        Some(path) => path.clone(),
        None => match config_dir() {
            Some(dir) => {
                make_config_dir(&dir).map_err(|error| cannot_make(&dir, &error))?;
                dir.join("server.key")
            }
            None => {
                tracing::warn!(
                    "there is no home directory to keep a key in: clients will find another key the next time"
                );
                let made = Identity::make().map_err(|error| cannot_make(Path::new("a key"), &error))?;
                return Ok(made.0);
            }
        },
    };
    if let Some(certificates) = &args.tls_cert {
        let (certificates, key) = (secrets::read(certificates)?, secrets::read_private(&path)?);
        return Identity::with_certificates(&certificates, &key).map_err(|error| of_file(&path, &error));
    }
    match std::fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => make_key(&path),
        _ => Identity::read(&secrets::read_private(&path)?).map_err(|error| of_file(&path, &error)),
    }
}

/// Makes a key and keeps it for its user alone. It has its name when it is whole.
fn make_key(path: &Path) -> Result<Identity, Failure> {
    let (identity, text) = Identity::make().map_err(|error| cannot_make(path, &error))?;
    let keep = || {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut part = path.as_os_str().to_owned();
        part.push(OsStr::new(&format!(".{}", std::process::id())));
        let part = PathBuf::from(part);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
        let kept = file
            .write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            // Not over one that another server has made meanwhile.
            .and_then(|()| std::fs::hard_link(&part, path))
            .and_then(|()| File::open(dir)?.sync_all());
        std::fs::remove_file(&part).and(kept)
    };
    match keep() {
        Ok(()) => Ok(identity),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Identity::read(&secrets::read_private(path)?).map_err(|error| of_file(path, &error))
        }
        Err(error) => Err(cannot_make(path, &error)),
    }
}

fn cannot_make(path: &Path, error: &io::Error) -> Failure {
    Failure::new(
        exit_code::of_io_error(error, exit_code::FILE_IO),
        format!("cannot make \"{}\": {error}", Escaped(path.as_os_str().as_encoded_bytes())),
    )
}
