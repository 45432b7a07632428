//! What a copy is made of: a path of a server, or one or more places on this machine.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use fastcp_engine::Source;
use fastcp_model::{Name, RelPath};
use fastcp_wire::limits::{HELLO_BYTES_MAX, PLACES_MAX};
use fastcp_wire::offer::{Place, Scope};

use crate::address::ServerAddress;
use crate::args::options::{ShellOptions, TrustOptions};
use crate::exit_code::{self, Failure};
use crate::from::From;
use crate::reach::{Reached, Unprotected};
use crate::remote::Remote;
use crate::setup::{embedded, open_source};
use crate::shell::{self, Shell};
use crate::wording::shown;

/// The most bytes of several paths, so that they fit into a greeting.
const BYTES_MAX: usize = HELLO_BYTES_MAX - 16 - 3 * PLACES_MAX;

/// What is to be copied.
#[derive(Debug)]
pub(crate) enum Sources {
    /// One or more paths of a server, merged in the same way.
    Server { server: ServerAddress, places: Vec<Place> },
    /// The same of a place that a remote shell leads to: one, or several of one host.
    Shell(Vec<Remote>),
    /// Places on this machine, which are merged: of what several have under one path, the first counts.
    Here(Vec<LocalPlace>),
}

/// A place on this machine.
#[derive(Debug)]
pub(crate) struct LocalPlace {
    root: PathBuf,
    path: RelPath,
    scope: Scope,
}

impl Sources {
    /// Parses what was typed.
    pub(crate) fn parse(words: &[OsString]) -> Result<Self, Failure> {
        let usage = |message: String| Failure::new(exit_code::USAGE, message);
        let mut sources = None;
        for word in words {
            let from = From::parse(word).map_err(|error| usage(error.to_string()))?;
            match (&mut sources, from) {
                (None, From::Local { root, path, scope }) => {
                    sources = Some(Self::Here(vec![LocalPlace { root, path, scope }]));
                }
                (None, From::Server { server, path, scope }) => {
                    sources = Some(Self::Server { server, places: vec![Place { path, scope }] });
                }
                (None, From::Shell(remote)) => sources = Some(Self::Shell(vec![remote])),
                (Some(Self::Shell(others)), From::Shell(remote))
                    if others[0].login == remote.login && others[0].port == remote.port =>
                {
                    others.push(remote);
                }
                (Some(Self::Here(places)), From::Local { root, path, scope }) => {
                    places.push(LocalPlace { root, path, scope });
                }
                (Some(Self::Server { server, places }), From::Server { server: other, path, scope })
                    if is_same(server, &other) =>
                {
                    server.key = server.key.or(other.key);
                    places.push(Place { path, scope });
                }
                _ => {
                    let message = "several sources have to be of one server, or all on this machine; run one command for each \
                        (servers of the same tree are named with --also)";
                    return Err(usage(message.to_owned()));
                }
            }
        }
        let sources = sources.ok_or_else(|| usage("no source is given".to_owned()))?;
        let (count, bytes) = sources.asked_of_a_server();
        if count > PLACES_MAX {
            return Err(usage(format!("at most {PLACES_MAX} paths of a server can be copied in one run")));
        }
        if bytes > BYTES_MAX {
            return Err(usage("the paths are too long together to be copied in one run".to_owned()));
        }
        Ok(sources)
    }

    /// How many paths a server is asked for, and how many bytes they have.
    fn asked_of_a_server(&self) -> (usize, usize) {
        match self {
            Self::Server { places, .. } => (places.len(), places.iter().map(|place| place.path.as_bytes().len()).sum()),
            Self::Shell(remotes) => (remotes.len(), remotes.iter().map(|remote| remote.path.len()).sum()),
            Self::Here(_) => (0, 0),
        }
    }
}

/// Whether two addresses are of one server. Its key need be written but once.
fn is_same(one: &ServerAddress, other: &ServerAddress) -> bool {
    let is_same_key = one.key.zip(other.key).is_none_or(|(key, other)| key == other);
    one.host == other.host && one.port == other.port && is_same_key
}

impl LocalPlace {
    /// The path that was typed.
    pub(crate) fn typed(&self) -> PathBuf {
        if self.path.is_root() { self.root.clone() } else { self.root.join(OsStr::from_bytes(self.path.as_bytes())) }
    }

    /// The name that it has at the destination; `None` where only what is in it is copied.
    pub(crate) fn name(&self) -> Option<&OsStr> {
        (!self.path.is_root()).then(|| OsStr::from_bytes(self.path.as_bytes()))
    }

    /// Whether it is copied as a single file, or whatever else has no names in it.
    pub(crate) fn is_no_directory(&self) -> bool {
        self.scope == Scope::Itself && fs::symlink_metadata(self.typed()).is_ok_and(|metadata| !metadata.is_dir())
    }

    fn offer(&self) -> Place {
        Place { path: self.path.clone(), scope: self.scope }
    }

    /// Opens it, so that nothing beside it is given away.
    fn open(&self) -> Result<Source, Failure> {
        let source = open_source(&self.root)?;
        if self.path.is_root() {
            return Ok(source);
        }
        let typed = self.typed();
        fs::symlink_metadata(&typed).map_err(|error| {
            let code = exit_code::of_io_error(&error, exit_code::NOTHING_USABLE);
            Failure::new(code, format!("cannot open the source \"{}\": {error}", shown(&typed)))
        })?;
        Ok(source.only(&self.path))
    }
}

/// Reaches the one place that is looked at, and answers what is to be asked there; with the shell that leads to it, where
/// there is one.
pub(crate) fn reach(
    from: From,
    trust: &TrustOptions,
    options: &ShellOptions,
) -> Result<(Reached, Place, Option<Shell>), Failure> {
    Ok(match from {
        From::Shell(remote) => {
            let (reached, shell, mut places) = shell::source(&[remote], options)?;
            (reached, places.remove(0), Some(shell))
        }
        From::Server { server, path, scope } => {
            (Reached::server(&server, trust, Unprotected::Refused)?, Place { path, scope }, None)
        }
        From::Local { root, path, scope } => (embedded(open_source(&root)?, None).into(), Place { path, scope }, None),
    })
}

/// Opens all places as one source; answers what is to be asked of it, too. `new_name` is for a single file.
pub(crate) fn open_places(places: &[LocalPlace], new_name: Option<&Name>) -> Result<(Source, Place), Failure> {
    let mut opened = places.iter().map(LocalPlace::open).collect::<Result<Vec<_>, _>>()?.into_iter();
    let first = opened.next().ok_or_else(|| Failure::new(exit_code::USAGE, "no source is given"))?;
    match (places, new_name) {
        ([only], Some(name)) => Ok((first.also_called(name), only.offer())),
        ([only], None) => Ok((first, only.offer())),
        _ => Ok((first.merged(opened), Place { path: RelPath::root(), scope: Scope::Contents })),
    }
}
