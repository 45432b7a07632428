//! What FROM means: a server's address and path, or a local directory to embed a server for.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use fastcp_model::{Escaped, PathError, RelPath};
use fastcp_wire::offer::Scope;

use crate::address::{Address, AddressError, ServerAddress, split_key};
use crate::remote::Remote;

/// Where a tree comes from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// A server.
    Server { server: ServerAddress, path: RelPath, scope: Scope },
    /// A place that a remote shell leads to.
    Shell(Remote),
    /// A directory here. `root` is what the embedded server serves.
    Local { root: PathBuf, path: RelPath, scope: Scope },
}

/// Why FROM is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FromError {
    #[error("\"{text}\": did you mean \"fcp://{text}\"? (a path on a host that ssh leads to is HOST:/PATH)")]
    NoScheme { text: String },
    #[error("\"{0}\": expected [USER@]HOST:PATH")]
    Host(String),
    #[error("\"{0}\": the home directory of another user cannot be told; write its path")]
    OtherHome(String),
    #[error(
        "\"{0}\": fastcp does not speak the protocol of the rsync daemon; run fastcp-server there and use fcp://HOST:PORT/PATH"
    )]
    Rsync(String),
    #[error("\"{text}\": {scheme}:// is not supported; expected fcp://HOST[:PORT][/PATH] or a local path")]
    Scheme { text: String, scheme: String },
    #[error("\"{text}\": write the path alone: \"{path}\"")]
    File { text: String, path: String },
    #[error("\"{text}\": {error}")]
    Address { text: String, error: AddressError },
    #[error("\"{text}\": {error}")]
    Path { text: String, error: PathError },
    #[error("FROM is empty")]
    Empty,
}

impl From {
    /// Parses FROM as it was typed.
    pub(crate) fn parse(text: &OsStr) -> Result<Self, FromError> {
        let bytes = text.as_bytes();
        if bytes.is_empty() {
            return Err(FromError::Empty);
        }
        if let Some((scheme, rest)) = split_scheme(bytes) {
            return parse_url(scheme, rest, bytes);
        }
        match place_of_colon(bytes) {
            None => parse_local(text),
            Some(_) if is_bare_address(bytes) => Err(FromError::NoScheme { text: shown(bytes) }),
            Some(at) if bytes[at..].starts_with(b"::") => Err(FromError::Rsync(shown(bytes))),
            Some(at) => parse_shell(&bytes[..at], None, &bytes[at + 1..], bytes),
        }
    }
}

/// Whether this is what follows `fcp://`: a host and a port, and perhaps a path.
fn is_bare_address(bytes: &[u8]) -> bool {
    let authority = bytes.split(|&byte| byte == b'/').next().unwrap_or_default();
    std::str::from_utf8(authority).is_ok_and(|authority| Address::with_port(authority).is_some())
}

/// Why DST_DIR is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a local directory: what goes to another machine is pushed (fastcp-client push); write \"./{0}\" for that name"
)]
pub(crate) struct NotLocal(String);

/// A directory of this machine, where what was typed does not look like a place on another one.
pub(crate) fn local_directory(path: PathBuf) -> Result<PathBuf, NotLocal> {
    match place_of_colon(path.as_os_str().as_bytes()) {
        Some(_) => Err(NotLocal(shown(path.as_os_str().as_bytes()))),
        None => Ok(path),
    }
}

/// Why the directory to verify is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a local directory, before what to compare it with; write \"./{0}\" for that name")]
pub(crate) struct NotLocalToVerify(String);

/// As [`local_directory`], for a directory that nothing is copied to.
pub(crate) fn directory_to_verify(path: PathBuf) -> Result<PathBuf, NotLocalToVerify> {
    local_directory(path).map_err(|NotLocal(shown)| NotLocalToVerify(shown))
}

/// The name before `://`, and what follows.
fn split_scheme(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let at = bytes.windows(3).position(|three| three == b"://")?;
    let scheme = std::str::from_utf8(&bytes[..at]).ok()?;
    let is_scheme =
        !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    is_scheme.then_some((scheme, &bytes[at + 3..]))
}

fn parse_url(scheme: &str, rest: &[u8], whole: &[u8]) -> Result<From, FromError> {
    let text = || shown(whole);
    match scheme.to_ascii_lowercase().as_str() {
        "fcp" => parse_address(rest, whole),
        "rsync" => Err(FromError::Rsync(text())),
        "ssh" => parse_ssh_url(rest, whole),
        "file" => Err(FromError::File { text: text(), path: shown(rest) }),
        other => Err(FromError::Scheme { text: text(), scheme: other.to_owned() }),
    }
}

/// `[user@]host` and a path there, relative to the home directory.
fn parse_shell(login: &[u8], port: Option<u16>, path: &[u8], whole: &[u8]) -> Result<From, FromError> {
    let host = || FromError::Host(shown(whole));
    let login = std::str::from_utf8(login).map_err(|_| host())?;
    let (user, name) = login.rsplit_once('@').map_or((None, login), |(user, name)| (Some(user), name));
    // ssh takes an IPv6 address as it is. What begins with a dash would be an option of it.
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let login = user.map_or_else(|| bare.to_owned(), |user| format!("{user}@{bare}"));
    if bare.is_empty() || bare.starts_with('-') || login.starts_with(['-', '@']) || login.contains(char::is_whitespace)
    {
        return Err(host());
    }
    let path = match path {
        b"~" => &b""[..],
        [b'~', b'/', rest @ ..] => {
            let slashes = rest.iter().take_while(|&&byte| byte == b'/').count();
            &rest[slashes..]
        }
        [b'~', ..] => return Err(FromError::OtherHome(shown(whole))),
        path => path,
    };
    Ok(From::Shell(Remote { login, port, path: path.to_vec() }))
}

/// `ssh://[user@]host[:port]/path`.
fn parse_ssh_url(rest: &[u8], whole: &[u8]) -> Result<From, FromError> {
    let cut = rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(cut);
    let authority = std::str::from_utf8(authority).map_err(|_| FromError::Host(shown(whole)))?;
    let (user, address) = authority.rsplit_once('@').map_or((None, authority), |(user, address)| (Some(user), address));
    let address = Address::to_dial(address).map_err(|error| FromError::Address { text: shown(whole), error })?;
    let login = user.map_or_else(|| address.host.clone(), |user| format!("{user}@{}", address.host));
    parse_shell(login.as_bytes(), address.port, path, whole)
}

/// As rsync tells it: a colon before the first slash is that of a host.
fn place_of_colon(bytes: &[u8]) -> Option<usize> {
    let passed = end_of_brackets(bytes).unwrap_or(0);
    let at = passed + bytes[passed..].iter().position(|&byte| byte == b':' || byte == b'/')?;
    (bytes[at] == b':').then_some(at)
}

/// Where an IPv6 address in brackets ends, which has colons of its own.
fn end_of_brackets(bytes: &[u8]) -> Option<usize> {
    let user = bytes.iter().position(|byte| b"@[:/".contains(byte)).filter(|&at| bytes[at] == b'@');
    let host = user.map_or(0, |at| at + 1);
    let end = host + bytes[host..].iter().position(|byte| b"]/".contains(byte))?;
    (bytes[host] == b'[' && bytes[end] == b']').then_some(end)
}

fn parse_address(rest: &[u8], whole: &[u8]) -> Result<From, FromError> {
    let not_an_address = |error| FromError::Address { text: shown(whole), error };
    let (rest, key) = split_key(rest).map_err(not_an_address)?;
    let cut = rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(cut);
    let authority = std::str::from_utf8(authority).map_err(|_| not_an_address(AddressError::Form))?;
    let server = ServerAddress::new(Address::to_dial(authority).map_err(not_an_address)?, key);
    let trimmed = path.strip_prefix(b"/").unwrap_or(path);
    let (bare, scope) = scope_of(trimmed);
    let path = RelPath::new(bare).map_err(|error| FromError::Path { text: shown(whole), error })?;
    Ok(From::Server { server, path, scope })
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
    use crate::address::ServerAddress;
    use crate::remote::Remote;

    fn server(host: &str, port: u16, path: &[u8], scope: Scope) -> Result<From, FromError> {
        let server = ServerAddress { host: host.to_owned(), port, key: None };
        Ok(From::Server { server, path: RelPath::new(path).expect("valid"), scope })
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
            assert!(matches!(parse(text), Err(FromError::Address { .. })), "{text}");
        }
        assert!(matches!(parse("fcp://h/../x"), Err(FromError::Path { .. })));
    }

    #[test]
    fn places_that_a_shell_leads_to() {
        for (text, login, port, path) in [
            ("user@host:/path", "user@host", None, "/path"),
            ("host:path/", "host", None, "path/"),
            ("host:", "host", None, ""),
            ("host:~/a", "host", None, "a"),
            ("host:~//a", "host", None, "a"),
            ("host:~", "host", None, ""),
            ("ssh://user@host:22/path", "user@host", Some(22), "/path"),
            ("ssh://host/", "host", None, "/"),
            ("user@[::1]:/path", "user@::1", None, "/path"),
            ("[fe80::1%eth0]:path", "fe80::1%eth0", None, "path"),
        ] {
            let remote = Remote { login: login.to_owned(), port, path: path.as_bytes().to_vec() };
            assert_eq!(parse(text), Ok(From::Shell(remote)), "{text}");
        }
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
        assert_eq!(parse("./odd://name"), local("./odd://", b"name", Scope::Itself));
        assert_eq!(parse(""), Err(FromError::Empty));
    }

    #[test]
    fn other_addresses_are_told_what_to_type_instead() {
        for (text, message) in [
            ("-oProxyCommand=x:/path", "expected [USER@]HOST:PATH"),
            ("host:~other/path", "another user"),
            (":path", "expected [USER@]HOST:PATH"),
            ("[]:path", "expected [USER@]HOST:PATH"),
            ("[-x]:path", "expected [USER@]HOST:PATH"),
            ("host::module", "rsync daemon"),
            ("rsync://host/module", "rsync daemon"),
            ("http://host/path", "http:// is not supported; expected fcp://"),
            ("HTTPS://host", "https:// is not supported"),
            ("ftp://host", "ftp:// is not supported"),
            ("sftp://host/path", "sftp:// is not supported"),
            ("file:///a/b", "write the path alone: \"/a/b\""),
            ("fcp://user@host/path", "takes no user name"),
            ("fcp://host:0", "a number from 1"),
            ("127.0.0.1:5999/", "did you mean \"fcp://127.0.0.1:5999/\"?"),
            ("host:5999/a/b", "did you mean \"fcp://host:5999/a/b\"?"),
            ("[::1]:5999", "did you mean \"fcp://[::1]:5999\"?"),
            ("fcp://9999", "a number alone is a port"),
        ] {
            let error = parse(text).expect_err("not a source").to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
        assert_eq!(parse("FCP://host"), server("host", 9999, b"", Scope::Contents));
    }
}
