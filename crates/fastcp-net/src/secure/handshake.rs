//! The handshake of TLS over a blocking socket, within a deadline.
//!
//! rustls is given one record at a time, so that what comes behind its last one is still here when the keys are.

use std::io::{self, Read, Write};
use std::time::Instant;

use rustls::client::ClientConnectionData;
use rustls::server::ServerConnectionData;
use rustls::{ConnectionCommon, SideData};
use socket2::Socket;

use super::channel::{Channel, HEADER_BYTES, record_bytes};
use super::token::{EXPORTER_BYTES, EXPORTER_LABEL, Exporter};
use super::{Fingerprint, TlsError};
use crate::{NetError, WireCount};

/// What a handshake leads to.
pub(crate) struct Protected {
    pub(crate) channel: Channel,
    pub(crate) exporter: Exporter,
    /// What the peer has shown: a raw public key, or a certificate.
    pub(super) shown: Option<Fingerprint>,
}

/// A socket with the time that is left for it.
pub(crate) struct Line<'a> {
    pub(crate) socket: &'a Socket,
    pub(crate) count: &'a WireCount,
    pub(crate) deadline: Instant,
}

impl Line<'_> {
    /// Sets how long the next call may take.
    fn limit(&self) -> io::Result<()> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.socket.set_read_timeout(Some(left))?;
        self.socket.set_write_timeout(Some(left))
    }

    /// Receives what there is.
    pub(super) fn receive(&self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            self.limit()?;
            match (&mut &*self.socket).read(into) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(count) => {
                    self.count.add(count as u64, 0);
                    return Ok(count);
                }
            }
        }
    }

    /// Sends some of the slices.
    pub(super) fn send(&self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        loop {
            self.limit()?;
            match (&mut &*self.socket).write_vectored(slices) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(count) => {
                    self.count.add(0, count as u64);
                    return Ok(count);
                }
            }
        }
    }
}

/// Either side of a TLS connection, so that one loop drives both.
pub(crate) trait Side: Sized {
    type Data: SideData;

    fn common(&mut self) -> &mut ConnectionCommon<Self::Data>;
    fn secrets(self) -> Result<rustls::ExtractedSecrets, rustls::Error>;
}

impl Side for rustls::ClientConnection {
    type Data = ClientConnectionData;

    fn common(&mut self) -> &mut ConnectionCommon<Self::Data> {
        self
    }

    fn secrets(self) -> Result<rustls::ExtractedSecrets, rustls::Error> {
        self.dangerous_extract_secrets()
    }
}

impl Side for rustls::ServerConnection {
    type Data = ServerConnectionData;

    fn common(&mut self) -> &mut ConnectionCommon<Self::Data> {
        self
    }

    fn secrets(self) -> Result<rustls::ExtractedSecrets, rustls::Error> {
        self.dangerous_extract_secrets()
    }
}

/// Shakes hands; `first` has arrived already.
///
/// # Errors
/// The socket's; [`NetError::TimedOut`] with the time since the call; what rustls finds wrong.
pub(crate) fn shake(mut side: impl Side, first: &[u8], line: &Line<'_>) -> Result<Protected, NetError> {
    let start = Instant::now();
    let broken = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => NetError::TimedOut(start.elapsed()),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => NetError::Closed,
        _ => NetError::Socket(error),
    };
    let mut arrived = first.to_vec();
    while side.common().is_handshaking() || side.common().wants_write() {
        while side.common().wants_write() {
            side.common().write_tls(&mut Sending(line)).map_err(broken)?;
        }
        if !side.common().is_handshaking() {
            break;
        }
        let record = next_record(&mut arrived, line, broken)?;
        let mut unread = &record[..];
        while !unread.is_empty() {
            side.common().read_tls(&mut unread).map_err(broken)?;
        }
        if let Err(error) = side.common().process_new_packets() {
            // The peer learns why, if it still listens.
            while side.common().wants_write() && side.common().write_tls(&mut Sending(line)).is_ok() {}
            return Err(TlsError::from(error).into());
        }
    }
    let shown = side.common().peer_certificates().and_then(|all| all.first()).map(|shown| Fingerprint::of(shown));
    let mut exporter = [0; EXPORTER_BYTES];
    side.common().export_keying_material(&mut exporter, EXPORTER_LABEL, None).map_err(TlsError::from)?;
    let secrets = side.secrets().map_err(TlsError::from)?;
    Ok(Protected { channel: Channel::new(secrets, &arrived)?, exporter, shown })
}

/// The next record, whole; what arrives behind it stays.
fn next_record(
    arrived: &mut Vec<u8>,
    line: &Line<'_>,
    broken: impl Fn(io::Error) -> NetError,
) -> Result<Vec<u8>, NetError> {
    loop {
        if let Some(header) = arrived.first_chunk::<HEADER_BYTES>() {
            let end = HEADER_BYTES + record_bytes(header).map_err(|_| TlsError::NotTls)?;
            if arrived.len() >= end {
                let rest = arrived.split_off(end);
                return Ok(std::mem::replace(arrived, rest));
            }
        }
        let mut piece = [0; 4096];
        match line.receive(&mut piece).map_err(&broken)? {
            0 => return Err(NetError::Closed),
            count => arrived.extend_from_slice(&piece[..count]),
        }
    }
}

/// What rustls writes to.
struct Sending<'a>(&'a Line<'a>);

impl Write for Sending<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(&[io::IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.send(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        use rustls::CertificateError as Refusal;
        use rustls::Error;
        match error {
            // Of an authority of the same name it is the signature that is wrong.
            Error::InvalidCertificate(Refusal::UnknownIssuer | Refusal::BadSignature) => Self::UnknownAuthority,
            Error::InvalidCertificate(Refusal::NotValidForName) => Self::OtherHost(error.to_string()),
            Error::InvalidCertificate(Refusal::NotValidForNameContext { expected, presented }) => {
                Self::OtherHost(format!("not of {}, but of {}", expected.to_str(), presented.join(", ")))
            }
            other => Self::Handshake(other.to_string()),
        }
    }
}
