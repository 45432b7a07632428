//! How fastcp is run: what follows `fastcp` in a tool's name.
//!
//! `fastcp-push+c4+raw+nobbr` is a push instead of a pull, with four connections, nothing compressed, over a link that
//! allows no congestion control but cubic. The parts come in any order and are shown in one; a part that is there twice,
//! or says the opposite of another, is refused.

use std::fmt;
use std::str::FromStr;

/// The most that `--conns` takes.
const CONNECTIONS_MAX: u16 = 64;

/// How many connections a variant asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Connections {
    /// The benchmark's `--conns`.
    #[default]
    Usual,
    /// `--conns N`.
    Count(u16),
    /// `--conns auto`.
    Auto,
}

/// How a client gets to its server, and what protects the bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Access {
    /// TCP, without encryption; nobody is asked for anything.
    #[default]
    Open,
    /// TLS, with a token and the server's key.
    Tls,
    /// ssh starts the server; data goes over TLS beside it.
    Ssh,
}

/// A way to run fastcp.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Variant {
    /// `push` instead of `pull`: the server is at the destination.
    pub(crate) is_push: bool,
    pub(crate) access: Access,
    pub(crate) connections: Connections,
    /// `--no-compress`.
    pub(crate) is_raw: bool,
    /// `--whole-file`.
    pub(crate) is_whole: bool,
    /// `--durability none`.
    pub(crate) is_unsynced: bool,
    /// The link allows cubic only.
    pub(crate) is_without_bbr: bool,
}

/// Why a variant's name means nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum VariantError {
    #[error(
        "\"{0}\" is no part of a variant; they are push, tls, ssh, cN, auto, raw, whole, nosync and nobbr, joined by +"
    )]
    Unknown(String),
    #[error("\"{0}\" says again, or otherwise, what an earlier part says")]
    Twice(String),
    #[error("\"{0}\": from 1 to 64 connections")]
    Count(String),
}

impl Variant {
    fn add(&mut self, part: &str) -> Result<(), VariantError> {
        let flag = match part {
            "push" => &mut self.is_push,
            "tls" => return self.add_access(part, Access::Tls),
            "ssh" => return self.add_access(part, Access::Ssh),
            "raw" => &mut self.is_raw,
            "whole" => &mut self.is_whole,
            "nosync" => &mut self.is_unsynced,
            "nobbr" => &mut self.is_without_bbr,
            _ => return self.add_connections(part),
        };
        if std::mem::replace(flag, true) { Err(VariantError::Twice(part.to_owned())) } else { Ok(()) }
    }

    fn add_access(&mut self, part: &str, access: Access) -> Result<(), VariantError> {
        if self.access != Access::Open {
            return Err(VariantError::Twice(part.to_owned()));
        }
        self.access = access;
        Ok(())
    }

    fn add_connections(&mut self, part: &str) -> Result<(), VariantError> {
        let connections = connections(part)?;
        if self.connections != Connections::Usual {
            return Err(VariantError::Twice(part.to_owned()));
        }
        self.connections = connections;
        Ok(())
    }
}

fn connections(part: &str) -> Result<Connections, VariantError> {
    if part == "auto" {
        return Ok(Connections::Auto);
    }
    let digits = part.strip_prefix('c').filter(|digits| !digits.is_empty());
    let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let digits = digits.ok_or_else(|| VariantError::Unknown(part.to_owned()))?;
    match digits.parse() {
        Ok(count) if (1..=CONNECTIONS_MAX).contains(&count) => Ok(Connections::Count(count)),
        _ => Err(VariantError::Count(part.to_owned())),
    }
}

impl FromStr for Variant {
    type Err = VariantError;

    /// Understands what follows `fastcp-`.
    fn from_str(text: &str) -> Result<Self, VariantError> {
        let mut variant = Self::default();
        for part in text.split('+') {
            variant.add(part)?;
        }
        Ok(variant)
    }
}

impl fmt::Display for Variant {
    /// The parts, joined by `+`; nothing for plain fastcp.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connections = match self.connections {
            Connections::Usual => None,
            Connections::Count(count) => Some(format!("c{count}")),
            Connections::Auto => Some("auto".to_owned()),
        };
        let access = match self.access {
            Access::Open => None,
            Access::Tls => Some("tls".to_owned()),
            Access::Ssh => Some("ssh".to_owned()),
        };
        let flag = |is_set: bool, name: &str| is_set.then(|| name.to_owned());
        let parts = [
            flag(self.is_push, "push"),
            access,
            connections,
            flag(self.is_raw, "raw"),
            flag(self.is_whole, "whole"),
            flag(self.is_unsynced, "nosync"),
            flag(self.is_without_bbr, "nobbr"),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        out.write_str(&parts.join("+"))
    }
}
