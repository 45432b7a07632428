//! Whether the server can be reached beside the shell, and where.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastcp_engine::{Dialer, Endpoint};
use fastcp_net::{Live, Token, Trust};
use fastcp_wire::session::Direct;

use super::Shared;

/// How long one address may take to answer directly.
const PROBE_MAX: Duration = Duration::from_secs(3);

fn name_said(mut asked: Command) -> Option<String> {
    let said = asked.output().ok()?.stdout;
    let text = String::from_utf8(said).ok()?;
    text.lines().find_map(|line| line.strip_prefix("hostname ")).map(|name| name.trim_matches(['[', ']']).to_owned())
}

/// Finds out whether the server can be reached directly.
pub(super) fn direct_way(shared: &Shared, asked: Option<Command>) -> Option<(SocketAddr, Arc<Trust>)> {
    let direct = shared.opened().ok()?.direct;
    let found = direct.as_ref().and_then(|direct| probe(direct, asked));
    if found.is_none() && shared.lock().end.is_none() {
        let host = &shared.host;
        tracing::warn!("no direct connection to {host}: everything goes through the remote shell, which is slower");
    }
    found
}

fn probe(direct: &Direct, asked: Option<Command>) -> Option<(SocketAddr, Arc<Trust>)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    let own: SocketAddr = text(&direct.address)?.parse().ok()?;
    let key = text(&direct.key)?.parse().ok()?;
    let token = Token::new(&direct.token).ok()?;
    let trust = Arc::new(Trust::of_key(Some((key, "the session".to_owned())), Some(token)).ok()?);
    let others = || asked.and_then(name_said).and_then(|name| fastcp_net::addresses(&name, own.port()).ok());
    let others = std::iter::once_with(others).flatten().flatten().filter(|address| *address != own);
    let found = std::iter::once(own).chain(others).find(|address| {
        let endpoint = Endpoint::Tcp { host: address.ip().to_string(), port: address.port() };
        let dialer = Dialer::new(endpoint, Arc::default()).trusting(Arc::clone(&trust));
        let answered = dialer.dial(&Live::default(), Instant::now() + PROBE_MAX);
        if let Err(error) = &answered {
            tracing::debug!(%error, "not reached directly");
        }
        answered.is_ok()
    });
    found.map(|address| (address, trust))
}
