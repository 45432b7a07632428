//! One vocabulary of outcomes: the status of a reply on the wire, and the cause of a failed entry.

use std::fmt;

/// How a request ended. The numbers are on the wire (`docs/protocol.md`) and never change meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u16)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// No such entry, or no longer.
    NotFound = 1,
    /// The sender may not read it.
    PermissionDenied = 2,
    /// A directory was asked for as a file.
    IsADirectory = 3,
    /// Not a regular file: a link, a pipe, a socket or a device.
    NotARegularFile = 4,
    /// The path is not lawful: it is absolute, holds `..`, `.`, NUL or an empty part.
    BadPath = 5,
    /// The path leads through a link or out of the root.
    OutsideRoot = 6,
    /// The request itself is malformed.
    BadRequest = 7,
    /// The range is not within the file.
    BadRange = 8,
    /// The file changed while it was read.
    Changed = 9,
    /// Reading failed.
    InputOutput = 10,
    /// The sender has no descriptors, memory or connections left.
    Busy = 11,
    /// Only authorised peers may ask.
    Unauthorised = 12,
    /// The two sides share no protocol version.
    BadVersion = 13,
    /// The ticket belongs to no session here.
    UnknownTicket = 14,
    /// More data connections than the session may open.
    TooManyConnections = 15,
    /// A name or path is longer than the limits.
    NameTooLong = 16,
    /// A part of the path is not a directory.
    NotADirectory = 17,
    /// The peer was silent for too long.
    TimedOut = 18,
    /// Another program keeps a lease on the file.
    InUse = 19,
    /// The file is longer than what is taken, or than there is room for.
    TooLarge = 20,
    /// A file of filter rules in it cannot be read, or says what is no rule.
    FilterRules = 21,
}

impl Status {
    const ALL: [Self; 22] = [
        Self::Ok,
        Self::NotFound,
        Self::PermissionDenied,
        Self::IsADirectory,
        Self::NotARegularFile,
        Self::BadPath,
        Self::OutsideRoot,
        Self::BadRequest,
        Self::BadRange,
        Self::Changed,
        Self::InputOutput,
        Self::Busy,
        Self::Unauthorised,
        Self::BadVersion,
        Self::UnknownTicket,
        Self::TooManyConnections,
        Self::NameTooLong,
        Self::NotADirectory,
        Self::TimedOut,
        Self::InUse,
        Self::TooLarge,
        Self::FilterRules,
    ];

    /// The number on the wire.
    pub fn code(self) -> u16 {
        self as u16
    }

    /// The status with this number, if it is known.
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.code() == code)
    }

    /// Every status, in the order of the numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter()
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::NotFound => "no such file or directory",
            Self::PermissionDenied => "permission denied",
            Self::IsADirectory => "is a directory",
            Self::NotARegularFile => "not a regular file",
            Self::BadPath => "invalid path",
            Self::OutsideRoot => "leads through a symbolic link or out of the served directory",
            Self::BadRequest => "malformed request",
            Self::BadRange => "range is not within the file",
            Self::Changed => "changed while it was read",
            Self::InputOutput => "input/output error",
            Self::Busy => "out of file descriptors, memory or connections",
            Self::Unauthorised => "not authorised",
            Self::BadVersion => "no common protocol version",
            Self::UnknownTicket => "unknown session ticket",
            Self::TooManyConnections => "too many data connections",
            Self::NameTooLong => "name or path too long",
            Self::NotADirectory => "not a directory",
            Self::TimedOut => "timed out",
            Self::InUse => "in use: another program holds a lease on it",
            Self::TooLarge => "too large, or no room for it",
            Self::FilterRules => "its file of filter rules cannot be used",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Status;

    #[test]
    fn codes_are_dense_and_round_trip() {
        for (code, status) in (0u16..).zip(Status::all()) {
            assert_eq!(status.code(), code);
            assert_eq!(Status::from_code(code), Some(status));
        }
        assert_eq!(Status::from_code(Status::all().count() as u16), None);
    }
}
