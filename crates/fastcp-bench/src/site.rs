//! Places, and how commands are started there.
//!
//! A place is what was asked for, a site is it being there: the directory for destinations and the
//! means to make two ends. Tools are started through [`Ends`] and so know nothing of namespaces.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use crate::error::BenchError;
use crate::ext4::{Ext4, Room};
use crate::link::{DirectionCounters, Link, LinkSettings, Namespace};
use crate::programs::{is_root, missing};

const WARM_BUFFER_BYTES: usize = 1 << 20;

/// What `--on` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PlaceKind {
    /// tmpfs to tmpfs over loopback.
    Tmpfs,
    /// tmpfs to ext4 over loopback.
    Ext4,
    /// tmpfs to tmpfs over each of the links.
    Link,
}

impl PlaceKind {
    pub(crate) const ALL: [Self; 3] = [Self::Tmpfs, Self::Ext4, Self::Link];
}

/// A name that is no place's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no place; expected tmpfs, ext4 or link")]
pub(crate) struct PlaceError(String);

impl FromStr for PlaceKind {
    type Err = PlaceError;

    fn from_str(name: &str) -> Result<Self, PlaceError> {
        match name {
            "tmpfs" => Ok(Self::Tmpfs),
            "ext4" => Ok(Self::Ext4),
            "link" => Ok(Self::Link),
            _ => Err(PlaceError(name.to_owned())),
        }
    }
}

/// Where a copy goes, and over what.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Place {
    Tmpfs,
    Ext4,
    Link(LinkSettings),
}

impl Place {
    /// Whether there is a link between the ends.
    pub(crate) fn is_link(&self) -> bool {
        matches!(self, Self::Link(_))
    }

    /// Of the link, where there is one with a limit.
    pub(crate) fn rate_bits(&self) -> Option<u64> {
        match self {
            Self::Link(settings) => Some(settings.rate_bits).filter(|&bits| bits > 0),
            _ => None,
        }
    }

    /// Why it cannot be had here; `None` where it can.
    pub(crate) fn obstacle(&self) -> Option<String> {
        let needed: &[&str] = match self {
            Self::Tmpfs => return None,
            Self::Ext4 => &["mkfs.ext4", "mount"],
            Self::Link(_) => &["ip"],
        };
        if is_root() { missing(needed) } else { Some("only root can set it up".to_owned()) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tmpfs => out.write_str("tmpfs"),
            Self::Ext4 => out.write_str("ext4"),
            Self::Link(settings) => write!(out, "link {settings}"),
        }
    }
}

/// A place that is set up; taken down when dropped.
#[derive(Debug)]
pub(crate) struct Site {
    /// For destinations.
    pub(crate) dir: PathBuf,
    link: Option<LinkSettings>,
    ext4: Option<Ext4>,
}

impl Site {
    /// Sets it up, its directory being `scratch/copies`.
    pub(crate) fn up(place: &Place, scratch: &Path, room: Room) -> Result<Self, BenchError> {
        let dir = scratch.join("copies");
        fs::create_dir_all(&dir).map_err(BenchError::file("make", &dir))?;
        let mut site = Self { dir, link: None, ext4: None };
        match place {
            Place::Tmpfs => {}
            Place::Ext4 => site.ext4 = Some(Ext4::mount(scratch, &site.dir, room)?),
            Place::Link(settings) => {
                // Whether there can be one shows here, and not in the first run.
                drop(Link::up(settings)?);
                site.link = Some(*settings);
            }
        }
        Ok(site)
    }

    /// Writes and removes as many bytes as a copy has. Where a virtual machine gives idle memory back
    /// to its host, the first to touch it again waits for it, and that would be the first tool.
    pub(crate) fn warm(&self, bytes: u64) -> Result<(), BenchError> {
        let path = self.dir.join("warm");
        let file = File::create(&path).map_err(BenchError::file("create", &path))?;
        io::copy(&mut io::repeat(1).take(bytes), &mut BufWriter::with_capacity(WARM_BUFFER_BYTES, &file))
            .map_err(BenchError::file("write", &path))?;
        if self.has_disk() {
            file.sync_all().map_err(BenchError::file("sync", &path))?;
        }
        fs::remove_file(&path).map_err(BenchError::file("remove", &path))
    }

    /// Whether a copy is complete only when it is synced.
    pub(crate) fn has_disk(&self) -> bool {
        self.ext4.is_some()
    }

    /// The two ends for a run.
    pub(crate) fn ends(&self) -> Result<Ends, BenchError> {
        Ok(match &self.link {
            None => Ends::Loopback,
            Some(settings) => Ends::Link(Link::up(settings)?),
        })
    }

    /// Removes what is left of destinations, but for what is mounted.
    pub(crate) fn clear(scratch: &Path) -> Result<(), BenchError> {
        let dir = scratch.join("copies");
        if dir.exists() {
            fs::remove_dir_all(&dir).map_err(BenchError::file("remove", &dir))?;
        }
        Ok(())
    }
}

/// One end of a copy. A tool has its server at the one and its client at the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Where the tree is.
    Source,
    /// Where the copy goes.
    Destination,
}

impl End {
    /// The other one.
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Source => Self::Destination,
            Self::Destination => Self::Source,
        }
    }
}

/// Where a run's server and client are. The tree is at a link's far end and the copy at its near one, whichever has the
/// server, so that the bytes of all tools go the same way. A link is made anew for each run: it loses the same packets of
/// each then, and no tool profits from what the kernel learnt of the link from another.
#[derive(Debug)]
pub(crate) enum Ends {
    /// Both here.
    Loopback,
    /// At the ends of a link.
    Link(Link),
}

impl Ends {
    /// Where a server at this end listens.
    pub(crate) fn ip(&self, end: End) -> Ipv4Addr {
        self.namespace(end).map_or(Ipv4Addr::LOCALHOST, Namespace::address)
    }

    /// A command at this end.
    pub(crate) fn command(&self, end: End, program: impl AsRef<OsStr>) -> Command {
        match self.namespace(end) {
            None => Command::new(program),
            Some(namespace) => namespace.command(program),
        }
    }

    fn namespace(&self, end: End) -> Option<&Namespace> {
        match (self, end) {
            (Self::Loopback, _) => None,
            (Self::Link(link), End::Source) => Some(link.far()),
            (Self::Link(link), End::Destination) => Some(link.near()),
        }
    }

    /// What the link saw, from the destination to the source and back.
    pub(crate) fn counters(&self) -> Option<[DirectionCounters; 2]> {
        match self {
            Self::Loopback => None,
            Self::Link(link) => Some(link.counters()),
        }
    }
}
