//! The tools, by the names they have on the command line and in the report.

use std::fmt;
use std::str::FromStr;

use crate::site::End;
use crate::variant::{Access, Variant, VariantError};
use crate::workload::Workload;

/// Something that copies a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    /// `fastcp-server` and `fastcp-client`.
    Fastcp(Variant),
    /// `cp -a`, which needs no network.
    Cp,
    /// Two tars and two socats.
    Tar,
    /// An rsync daemon and `rsync -a`.
    Rsync,
    /// The same with `-z`.
    RsyncZ,
    /// `rsync -a` through ssh.
    RsyncSsh,
    /// `scp -r`.
    Scp,
    /// Two tars and an ssh.
    TarSsh,
    /// `rclone serve http` and `rclone copy`.
    Rclone,
    /// `syq cp` from a `syq` that a remote shell starts, with encryption or without.
    Syq { is_plain: bool },
    /// The least that a copy over TCP with checksums can be: our own loop, see `bare.rs`.
    Bare,
    /// The least that making the files can be: our own loop, see `create.rs`.
    Create,
}

/// Why a name is no tool's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ToolError {
    #[error("\"{0}\" is no tool; see --list")]
    Unknown(String),
    #[error("\"{name}\": {error}")]
    Variant { name: String, error: VariantError },
}

const SYQ: Tool = Tool::Syq { is_plain: false };
const SYQ_PLAIN: Tool = Tool::Syq { is_plain: true };

/// The tools that run when none is named.
pub(crate) fn usual_tools() -> Vec<Tool> {
    vec![
        Tool::Fastcp(Variant::default()),
        Tool::Fastcp(Variant { is_push: true, ..Variant::default() }),
        Tool::Fastcp(Variant { access: Access::Tls, ..Variant::default() }),
        Tool::Fastcp(Variant { access: Access::Ssh, ..Variant::default() }),
        Tool::Cp,
        Tool::Tar,
        Tool::Rsync,
        Tool::RsyncZ,
        Tool::RsyncSsh,
        Tool::Scp,
        Tool::TarSsh,
        Tool::Rclone,
        SYQ,
        SYQ_PLAIN,
        Tool::Bare,
        Tool::Create,
    ]
}

impl Tool {
    /// What it does, in a line.
    pub(crate) fn about(self) -> &'static str {
        match self {
            Self::Fastcp(Variant { is_push: true, .. }) => {
                "the same the other way round: a client that pushes to a server"
            }
            Self::Fastcp(Variant { access: Access::Tls, .. }) => "a pull over TLS, with a token and the server's key",
            Self::Fastcp(Variant { access: Access::Ssh, .. }) => "a pull from a server that ssh starts",
            Self::Fastcp(_) => {
                "fastcp, a pull; variants: -push, -tls, -ssh, -cN, -auto, -raw, -whole, -nosync, -nobbr, joined by +, as fastcp-c4+raw"
            }
            Self::Cp => "cp -a, without a network",
            Self::Tar => "tar over one TCP connection by socat",
            Self::Rsync => "rsync -a from a daemon",
            Self::RsyncZ => "rsync -a -z from a daemon",
            Self::RsyncSsh => "rsync -a through ssh",
            Self::Scp => "scp -r",
            Self::TarSsh => "tar through ssh",
            Self::Rclone => "rclone copy from rclone serve http",
            Self::Syq { is_plain: false } => "syq cp, encrypted; its remote shell runs here",
            Self::Syq { is_plain: true } => "the same with --tcp-plain",
            Self::Bare => "the limit: read, CRC-32, send, receive, CRC-32, write; no metadata",
            Self::Create => "the limit without a network: create, write, rename",
        }
    }

    /// Whether it is one of ours that shows a limit rather than a tool anybody would use.
    pub(crate) fn is_limit(self) -> bool {
        matches!(self, Self::Bare | Self::Create)
    }

    /// Where its server is; its client is at the other end.
    pub(crate) fn server_end(self) -> End {
        match self {
            Self::Fastcp(Variant { is_push: true, .. }) => End::Destination,
            _ => End::Source,
        }
    }

    /// Whether it has a part to play: over a network or not, for this workload.
    pub(crate) fn takes_part(self, workload: Workload, is_link: bool) -> bool {
        match self {
            Self::Fastcp(_) | Self::Rsync | Self::RsyncZ | Self::RsyncSsh | Self::Rclone => true,
            // These copy everything again.
            Self::Cp => workload != Workload::Unchanged && !is_link,
            // Its remote shell runs at this end.
            Self::Syq { .. } => !is_link,
            // It follows links, and fails with those that lead nowhere.
            Self::Scp => !matches!(workload, Workload::Unchanged | Workload::UsrShare),
            Self::Tar | Self::TarSsh => workload != Workload::Unchanged,
            Self::Bare => !matches!(workload, Workload::Unchanged | Workload::Million),
            Self::Create => workload == Workload::Small && !is_link,
        }
    }
}

impl FromStr for Tool {
    type Err = ToolError;

    fn from_str(name: &str) -> Result<Self, ToolError> {
        Ok(match name {
            "fastcp" => Self::Fastcp(Variant::default()),
            "cp" => Self::Cp,
            "tar" => Self::Tar,
            "rsync" => Self::Rsync,
            "rsync-z" => Self::RsyncZ,
            "rsync-ssh" => Self::RsyncSsh,
            "scp" => Self::Scp,
            "tar-ssh" => Self::TarSsh,
            "rclone" => Self::Rclone,
            "syq" => SYQ,
            "syq-plain" => SYQ_PLAIN,
            "bare" => Self::Bare,
            "create" => Self::Create,
            _ => {
                let parts = name.strip_prefix("fastcp-").ok_or_else(|| ToolError::Unknown(name.to_owned()))?;
                let variant = parts.parse();
                Self::Fastcp(variant.map_err(|error| ToolError::Variant { name: name.to_owned(), error })?)
            }
        })
    }
}

impl fmt::Display for Tool {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Fastcp(variant) if *variant == Variant::default() => "fastcp",
            Self::Fastcp(variant) => &format!("fastcp-{variant}"),
            Self::Cp => "cp",
            Self::Tar => "tar",
            Self::Rsync => "rsync",
            Self::RsyncZ => "rsync-z",
            Self::RsyncSsh => "rsync-ssh",
            Self::Scp => "scp",
            Self::TarSsh => "tar-ssh",
            Self::Rclone => "rclone",
            Self::Syq { is_plain: false } => "syq",
            Self::Syq { is_plain: true } => "syq-plain",
            Self::Bare => "bare",
            Self::Create => "create",
        };
        out.pad(name)
    }
}

#[cfg(test)]
mod tests {
    use super::{Tool, ToolError, usual_tools};
    use crate::site::End;
    use crate::variant::{Access, Connections, Variant, VariantError};

    #[test]
    fn names_are_understood_and_shown_again() {
        for tool in usual_tools() {
            assert_eq!(tool.to_string().parse(), Ok(tool));
        }
        for name in [
            "fastcp-c1",
            "fastcp-c64",
            "fastcp-auto",
            "fastcp-raw",
            "fastcp-nosync",
            "fastcp-push+tls+c4+raw+whole+nobbr",
        ] {
            let tool: Tool = name.parse().expect(name);
            assert_eq!(tool.to_string(), name);
        }
    }

    #[test]
    fn parts_come_in_any_order() {
        let variant =
            Variant { connections: Connections::Count(4), is_raw: true, is_without_bbr: true, ..Variant::default() };
        assert_eq!("fastcp-nobbr+raw+c4".parse(), Ok(Tool::Fastcp(variant)));
        assert_eq!(Tool::Fastcp(variant).to_string(), "fastcp-c4+raw+nobbr");
        let pushed = Tool::Fastcp(Variant { is_push: true, ..variant });
        assert_eq!("fastcp-nobbr+raw+push+c4".parse(), Ok(pushed));
        let pushed_over_tls = Variant { is_push: true, access: Access::Tls, ..Variant::default() };
        assert_eq!("fastcp-tls+push".parse(), Ok(Tool::Fastcp(pushed_over_tls)));
        assert_eq!([Tool::Fastcp(variant), pushed].map(Tool::server_end), [End::Source, End::Destination]);
    }

    #[test]
    fn nonsense_is_refused() {
        let error = |name: &str| name.parse::<Tool>().expect_err(name);
        let variant = |name: &str, error| ToolError::Variant { name: name.to_owned(), error };
        for name in ["", "sftp", "fastcpraw", "Rsync", "rsync-"] {
            assert_eq!(error(name), ToolError::Unknown(name.to_owned()));
        }
        for (name, part) in
            [("fastcp-", ""), ("fastcp-c", "c"), ("fastcp-raw+", ""), ("fastcp-c+4", "c"), ("fastcp-cx", "cx")]
        {
            assert_eq!(error(name), variant(name, VariantError::Unknown(part.to_owned())));
        }
        for (name, part) in [
            ("fastcp-push+push", "push"),
            ("fastcp-tls+tls", "tls"),
            ("fastcp-tls+ssh", "ssh"),
            ("fastcp-raw+raw", "raw"),
            ("fastcp-c4+auto", "auto"),
            ("fastcp-c4+c4", "c4"),
        ] {
            assert_eq!(error(name), variant(name, VariantError::Twice(part.to_owned())));
        }
        for (name, part) in [("fastcp-c0", "c0"), ("fastcp-c65", "c65"), ("fastcp-c99999999999", "c99999999999")] {
            assert_eq!(error(name), variant(name, VariantError::Count(part.to_owned())));
        }
    }
}
