//! Where records of what was committed go: to a file here, or to the sender, who keeps the manifest.

use super::{ManifestWriter, Record};
use crate::error::ManifestError;
use crate::report::{Event, Report};
use crate::settings::{ManifestHash, Recording};

pub(crate) enum Recorder<'a> {
    File(ManifestWriter),
    Told(ManifestHash, &'a Report),
}

impl<'a> Recorder<'a> {
    /// # Errors
    /// As [`ManifestWriter::open`].
    pub(crate) fn open(recording: &Recording, report: &'a Report) -> Result<Self, ManifestError> {
        match recording {
            Recording::File(file) => ManifestWriter::open(file).map(Self::File),
            Recording::Told(hash) => Ok(Self::Told(*hash, report)),
        }
    }

    /// The hash of the records.
    pub(crate) fn hash(&self) -> ManifestHash {
        match self {
            Self::File(writer) => writer.hash(),
            Self::Told(hash, _) => *hash,
        }
    }

    /// Takes a record of a file that has its name.
    pub(crate) fn put(&self, record: &Record) -> Result<(), ManifestError> {
        match self {
            Self::File(writer) => writer.put(record),
            Self::Told(_, report) => {
                let mut line = Vec::new();
                record.put(&mut line);
                report.tell(Event::Recorded(line));
                Ok(())
            }
        }
    }

    /// As [`ManifestWriter::flush`].
    pub(crate) fn flush(&self) -> Result<(), ManifestError> {
        match self {
            Self::File(writer) => writer.flush(),
            Self::Told(..) => Ok(()),
        }
    }

    /// As [`ManifestWriter::finish`].
    pub(crate) fn finish(&self) -> Result<(), ManifestError> {
        match self {
            Self::File(writer) => writer.finish(),
            Self::Told(..) => Ok(()),
        }
    }
}
