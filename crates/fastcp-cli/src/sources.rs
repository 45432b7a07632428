//! What a copy is made of: a path of a server, or one or more places on this machine.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use fastcp_engine::Source;
use fastcp_model::{Name, RelPath};
use fastcp_wire::offer::{OfferRequest, Scope};

use crate::exit_code::{self, Failure};
use crate::from::From;
use crate::setup::open_source;
use crate::wording::shown;

/// What is to be copied.
#[derive(Debug)]
pub(crate) enum Sources {
    /// A path of a server.
    Server { host: String, port: u16, offer: OfferRequest },
    /// Places on this machine, which are merged: of what several have under one path, the first counts.
    Here(Vec<Place>),
}

/// A place on this machine.
#[derive(Debug)]
pub(crate) struct Place {
    root: PathBuf,
    path: RelPath,
    scope: Scope,
}

impl Sources {
    /// Parses what was typed.
    pub(crate) fn parse(words: &[OsString]) -> Result<Self, Failure> {
        let parse = |word: &OsString| From::parse(word).map_err(|error| Failure::new(exit_code::USAGE, error));
        let mut places = Vec::new();
        for word in words {
            match parse(word)? {
                From::Local { root, path, scope } => places.push(Place { root, path, scope }),
                From::Server { host, port, path, scope } if words.len() == 1 => {
                    return Ok(Self::Server { host, port, offer: OfferRequest { path, scope } });
                }
                From::Server { .. } => {
                    let message = "several sources have to be on this machine; copy from a server one path at a time";
                    return Err(Failure::new(exit_code::USAGE, message));
                }
            }
        }
        Ok(Self::Here(places))
    }
}

impl Place {
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

    fn offer(&self) -> OfferRequest {
        OfferRequest { path: self.path.clone(), scope: self.scope }
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

/// Opens all places as one source; answers what is to be asked of it, too. `new_name` is for a single file.
pub(crate) fn open_places(places: &[Place], new_name: Option<&Name>) -> Result<(Source, OfferRequest), Failure> {
    let mut opened = places.iter().map(Place::open).collect::<Result<Vec<_>, _>>()?.into_iter();
    let first = opened.next().ok_or_else(|| Failure::new(exit_code::USAGE, "no source is given"))?;
    match (places, new_name) {
        ([only], Some(name)) => Ok((first.also_called(name), only.offer())),
        ([only], None) => Ok((first, only.offer())),
        _ => Ok((first.merged(opened), OfferRequest { path: RelPath::root(), scope: Scope::Contents })),
    }
}
