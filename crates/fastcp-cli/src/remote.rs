//! Places that a remote shell leads to, as they are typed: `[USER@]HOST:PATH`.

use fastcp_model::{PathError, RelPath};
use fastcp_wire::offer::{Place, Scope};

/// Where a remote shell leads, and to which path there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remote {
    /// `[user@]host`.
    pub(crate) login: String,
    pub(crate) port: Option<u16>,
    /// As it was typed, relative to the home directory.
    pub(crate) path: Vec<u8>,
}

impl Remote {
    /// What is to be served there, and what of it is meant: as with a local path.
    pub(crate) fn source(&self) -> Result<(Vec<u8>, RelPath, Scope), PathError> {
        let bare = match self.path.iter().rposition(|&byte| byte != b'/') {
            Some(last) => &self.path[..=last],
            None => &self.path[..self.path.len().min(1)],
        };
        let last = bare.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        if bare.len() < self.path.len() || matches!(last, b"" | b"." | b"..") {
            return Ok((self.path.clone(), RelPath::root(), Scope::Contents));
        }
        Ok((bare[..bare.len() - last.len()].to_vec(), RelPath::new(last)?, Scope::Itself))
    }

    pub(crate) fn shown(&self) -> String {
        self.login.clone()
    }

    /// What is to be served there for several of them, and which places of it they are: all below the root, or all below the
    /// home directory.
    pub(crate) fn several(remotes: &[Self]) -> Result<(Vec<u8>, Vec<Place>), String> {
        let is_absolute = |remote: &Self| remote.path.starts_with(b"/");
        let first = is_absolute(&remotes[0]);
        if remotes.iter().any(|remote| is_absolute(remote) != first) {
            return Err("write either all paths from the root or all from the home directory".to_owned());
        }
        let places = remotes.iter().map(|remote| {
            let (dir, path, scope) = remote.source().map_err(|error| error.to_string())?;
            let whole = [dir.as_slice(), path.as_bytes()].concat();
            let relative: Vec<_> =
                whole.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
            let path = RelPath::new(&relative.join(&b'/')).map_err(|error| error.to_string())?;
            Ok(Place { path, scope })
        });
        let root = if first { &b"/"[..] } else { b"." };
        Ok((root.to_vec(), places.collect::<Result<_, String>>()?))
    }
}

#[cfg(test)]
mod tests {
    use fastcp_wire::offer::Scope;

    use super::Remote;

    #[test]
    fn remote_paths_mean_what_local_ones_do() {
        for (typed, root, path, scope) in [
            ("/a/b", "/a/", "b", Scope::Itself),
            ("/a/b/", "/a/b/", "", Scope::Contents),
            ("b", "", "b", Scope::Itself),
            ("", "", "", Scope::Contents),
            ("/", "/", "", Scope::Contents),
            ("a/..", "a/..", "", Scope::Contents),
        ] {
            let remote = Remote { login: "host".to_owned(), port: None, path: typed.as_bytes().to_vec() };
            let (served, of, scoped) = remote.source().expect("lawful");
            assert_eq!(
                (served.as_slice(), of.as_bytes(), scoped),
                (root.as_bytes(), path.as_bytes(), scope),
                "{typed}"
            );
        }
    }
}
