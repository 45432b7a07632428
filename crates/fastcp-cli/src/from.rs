//! What FROM means: a server's address and path, or a local directory to embed a server for.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use fastcp_model::{DEFAULT_PORT, Escaped, PathError, RelPath};
use fastcp_wire::offer::Scope;

/// Where a tree comes from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// A server.
    Server { host: String, port: u16, path: RelPath, scope: Scope },
    /// A directory here. `root` is what the embedded server serves.
    Local { root: PathBuf, path: RelPath, scope: Scope },
}

/// Why FROM is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FromError {
    #[error(
        "\"{0}\": sources over ssh (HOST:/PATH) are not supported yet; start fastcp-server there and use fcp://HOST:PORT/PATH"
    )]
    Ssh(String),
    #[error("\"{0}\": invalid address; expected fcp://HOST[:PORT][/PATH], an IPv6 address in brackets")]
    Address(String),
    #[error("\"{text}\": {error}")]
    Path { text: String, error: PathError },
    #[error("FROM is empty")]
    Empty,
}

impl From {
    /// Parses FROM as it was typed.
    pub(crate) fn parse(text: &OsStr) -> Result<Self, FromError> {
        let bytes = text.as_bytes();
        match bytes.strip_prefix(b"fcp://") {
            Some(rest) => parse_address(rest, bytes),
            None if bytes.is_empty() => Err(FromError::Empty),
            None if is_ssh(bytes) => Err(FromError::Ssh(shown(bytes))),
            None => parse_local(text),
        }
    }
}

/// rsync's rule: a colon before the first slash.
fn is_ssh(bytes: &[u8]) -> bool {
    bytes.iter().find(|&&byte| byte == b':' || byte == b'/') == Some(&b':')
}

fn parse_address(rest: &[u8], whole: &[u8]) -> Result<From, FromError> {
    let not_an_address = || FromError::Address(shown(whole));
    let cut = rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(cut);
    let authority = std::str::from_utf8(authority).map_err(|_| not_an_address())?;
    let (host, port) = split_authority(authority).ok_or_else(not_an_address)?;
    let trimmed = path.strip_prefix(b"/").unwrap_or(path);
    let (bare, scope) = scope_of(trimmed);
    let path = RelPath::new(bare).map_err(|error| FromError::Path { text: shown(whole), error })?;
    Ok(From::Server { host, port, path, scope })
}

fn split_authority(authority: &str) -> Option<(String, u16)> {
    let (host, port) = if let Some(bracketed) = authority.strip_prefix('[') {
        let (host, after) = bracketed.split_once(']')?;
        (host, after.strip_prefix(':').or(after.is_empty().then_some(""))?)
    } else {
        authority.split_once(':').unwrap_or((authority, ""))
    };
    let port = if port.is_empty() { DEFAULT_PORT } else { port.parse().ok()? };
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

/// A closing slash, or no path at all, means the contents.
fn scope_of(path: &[u8]) -> (&[u8], Scope) {
    let bare = path.iter().rposition(|&byte| byte != b'/').map_or(&path[..0], |last| &path[..=last]);
    let scope = if bare.is_empty() || bare.len() < path.len() { Scope::Contents } else { Scope::Itself };
    (bare, scope)
}

fn parse_local(text: &OsStr) -> Result<From, FromError> {
    let (bare, scope) = scope_of(text.as_bytes());
    let last = bare.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    if scope == Scope::Contents || matches!(last, b"" | b"." | b"..") {
        return Ok(From::Local { root: PathBuf::from(text), path: RelPath::root(), scope: Scope::Contents });
    }
    let parent = &bare[..bare.len() - last.len()];
    let root = if parent.is_empty() { Path::new(".") } else { Path::new(OsStr::from_bytes(parent)) };
    let path = RelPath::new(last).map_err(|error| FromError::Path { text: shown(text.as_bytes()), error })?;
    Ok(From::Local { root: root.to_path_buf(), path, scope })
}

fn shown(bytes: &[u8]) -> String {
    Escaped(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::path::PathBuf;

    use fastcp_model::RelPath;
    use fastcp_wire::offer::Scope;

    use super::{From, FromError};

    fn server(host: &str, port: u16, path: &[u8], scope: Scope) -> Result<From, FromError> {
        Ok(From::Server { host: host.to_owned(), port, path: RelPath::new(path).expect("valid"), scope })
    }

    fn local(root: &str, path: &[u8], scope: Scope) -> Result<From, FromError> {
        Ok(From::Local { root: PathBuf::from(root), path: RelPath::new(path).expect("valid"), scope })
    }

    fn parse(text: &str) -> Result<From, FromError> {
        From::parse(OsStr::new(text))
    }

    #[test]
    fn addresses() {
        assert_eq!(parse("fcp://host"), server("host", 9999, b"", Scope::Contents));
        assert_eq!(parse("fcp://host:1/"), server("host", 1, b"", Scope::Contents));
        assert_eq!(parse("fcp://host:1/a/b"), server("host", 1, b"a/b", Scope::Itself));
        assert_eq!(parse("fcp://host:1/a/b/"), server("host", 1, b"a/b", Scope::Contents));
        assert_eq!(parse("fcp://[::1]:7/x"), server("::1", 7, b"x", Scope::Itself));
        assert_eq!(parse("fcp://[::1]"), server("::1", 9999, b"", Scope::Contents));
        for text in ["fcp://", "fcp://:9", "fcp://h:port", "fcp://h:99999", "fcp://[::1", "fcp://[::1]9"] {
            assert!(matches!(parse(text), Err(FromError::Address(_))), "{text}");
        }
        assert!(matches!(parse("fcp://h/../x"), Err(FromError::Path { .. })));
    }

    #[test]
    fn local_paths_mean_what_rsync_means() {
        assert_eq!(parse("./a/b/"), local("./a/b/", b"", Scope::Contents));
        assert_eq!(parse("./a/b"), local("./a/", b"b", Scope::Itself));
        assert_eq!(parse("b"), local(".", b"b", Scope::Itself));
        assert_eq!(parse("/b"), local("/", b"b", Scope::Itself));
        assert_eq!(parse("/"), local("/", b"", Scope::Contents));
        assert_eq!(parse("."), local(".", b"", Scope::Contents));
        assert_eq!(parse("a/.."), local("a/..", b"", Scope::Contents));
        assert_eq!(parse("./odd:name"), local("./", b"odd:name", Scope::Itself));
        assert!(matches!(parse("user@host:/path"), Err(FromError::Ssh(_))));
        assert_eq!(parse(""), Err(FromError::Empty));
    }
}
