//! The keys of servers that were proven before, as ssh keeps those of hosts: `known_servers` in the configuration directory.
//!
//! A line has the server's address and its key: `host:port sha256:...`. Lines that begin with `#` are comments. People may
//! edit it; whoever connects for the first time with a key in the address, or with a token that the server proves, adds a
//! line.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use fastcp_net::Fingerprint;

use crate::exit_code::{self, Failure};
use crate::wording::shown;

const FILE_NAME: &str = "known_servers";

/// Where a user's own files of fastcp are; `None` where there is no home.
pub(crate) fn config_dir() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let config = variable("XDG_CONFIG_HOME").or_else(|| variable("HOME").map(|home| home.join(".config")));
    config.map(|config| config.join("fastcp"))
}

/// Makes that directory, for its user alone.
pub(crate) fn make_config_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// The key that is known of a server, and where it says so.
pub(crate) fn find(server: &str) -> Result<Option<(Fingerprint, String)>, Failure> {
    let Some(path) = config_dir().map(|dir| dir.join(FILE_NAME)) else { return Ok(None) };
    let unreadable = |error| Failure::new(exit_code::FILE_IO, format!("cannot read \"{}\": {error}", shown(&path)));
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let Some((nth, key)) = text.lines().enumerate().find_map(|(nth, line)| Some((nth, key_of(line, server)?))) else {
        return Ok(None);
    };
    let place = format!("line {} of {}", nth + 1, shown(&path));
    match key.parse() {
        Ok(key) => Ok(Some((key, place))),
        Err(error) => Err(Failure::new(exit_code::USAGE, format!("{place}: {error}"))),
    }
}

/// Keeps a key in place of any that was known.
pub(crate) fn remember(server: &str, key: Fingerprint) -> io::Result<()> {
    let Some(dir) = config_dir() else { return Ok(()) };
    make_config_dir(&dir)?;
    let (path, part) = (dir.join(FILE_NAME), dir.join(format!("{FILE_NAME}.new")));
    // One at a time: of two runs that end together, neither loses what the other keeps.
    let lock = File::open(&dir)?;
    lock.lock()?;
    let before = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        read => read?,
    };
    let mut text = String::new();
    for line in before.lines().filter(|line| key_of(line, server).is_none()) {
        text.push_str(line);
        text.push('\n');
    }
    text.push_str(&format!("{server} {key}\n"));
    // Never through something that another one has put there.
    match fs::remove_file(&part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(part, path)
}

/// The key that a line has for a server.
fn key_of<'a>(line: &'a str, server: &str) -> Option<&'a str> {
    let (name, key) = line.trim().split_once(char::is_whitespace)?;
    name.eq_ignore_ascii_case(server).then(|| key.trim())
}

#[cfg(test)]
mod tests {
    use super::key_of;

    #[test]
    fn lines() {
        assert_eq!(key_of("host:9999  sha256:00 ", "host:9999"), Some("sha256:00"));
        assert_eq!(key_of("HOST:9999 sha256:00", "host:9999"), Some("sha256:00"));
        for line in ["# host:9999 sha256:00", "", "host:9999", "host:999 sha256:00", "[::1]:9999 sha256:00"] {
            assert_eq!(key_of(line, "host:9999"), None, "{line}");
        }
    }
}
