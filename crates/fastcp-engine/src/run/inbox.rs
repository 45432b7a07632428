//! A directory that scripts hand files to: the receiving end of the header-batched drop.
//!
//! A file is written without a name, or under one that nobody can foresee where the file system knows no files without.
//! It gets its own, `RECV_` and the last component of what was said, when all of it is there and on the disk; what
//! has the name already keeps it. Whatever goes wrong before, nothing is left behind. It has the mode of a new file from
//! the start: whoever may read it half written may read it then, too.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use crc32fast::Hasher;
use fastcp_model::{Escaped, NAME_BYTES_MAX, Name, RelPath, Status};
use fastcp_net::{Connection, NetError};
use fastcp_sys::{Dir, Root};
use fastcp_wire::drop::{DROP_HEADER_BYTES, DropHeader, DropReply};

use crate::sender::source::status_of;
use crate::target::naming::unforeseen_name;

/// What a file's name begins with.
const PREFIX: &[u8] = b"RECV_";
/// A name that is taken gets a number; so many are tried.
const NUMBERS_MAX: u32 = 10_000;
/// A peer that says nothing for so long is gone.
const IDLE_MAX: Duration = Duration::from_secs(60);
const BUFFER_BYTES: usize = 256 << 10;
/// The mode of a new file, as far as the umask lets it.
const MODE: u16 = 0o666;

/// Where drops go.
#[derive(Debug)]
pub struct Inbox {
    root: Root,
    file_bytes_max: u64,
}

/// Why a drop was not kept.
enum Refusal {
    /// To be answered.
    Status(Status, String),
    /// The connection is of no use.
    Net(NetError),
}

impl From<NetError> for Refusal {
    fn from(error: NetError) -> Self {
        Self::Net(error)
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Status(status_of(&error), error.to_string())
    }
}

impl Inbox {
    /// Opens the directory, for files of at most so many bytes.
    ///
    /// # Errors
    /// As `open(2)`.
    pub fn open(path: &Path, file_bytes_max: u64) -> io::Result<Self> {
        Ok(Self { root: Root::open(path)?, file_bytes_max })
    }

    /// Takes one file off the connection, of whose header these bytes were read, and answers what has become of it.
    pub(super) fn take(&self, connection: &Connection, first: [u8; 4]) -> Result<(), NetError> {
        connection.set_timeouts(Some(IDLE_MAX), Some(IDLE_MAX))?;
        let mut bytes = [0; DROP_HEADER_BYTES];
        bytes[..4].copy_from_slice(&first);
        let deadline = Instant::now() + IDLE_MAX;
        connection.read_exact_by(&mut bytes[4..], deadline)?;
        let header = match DropHeader::decode(&bytes) {
            Ok(header) => header,
            Err(error) => {
                tracing::warn!(%error, "file not taken");
                return self.refuse(connection, Status::NameTooLong);
            }
        };
        let mut name = vec![0; header.name_bytes];
        connection.read_exact_by(&mut name, deadline)?;
        connection.set_timeouts(Some(IDLE_MAX), Some(IDLE_MAX))?;
        match self.keep(connection, &name, header.file_bytes) {
            Ok((kept, crc32)) => {
                tracing::info!(name = %Escaped(kept.as_bytes()), bytes = header.file_bytes, "took a file");
                // A script need not wait for it.
                let _ = connection.write_all(&DropReply { status: Status::Ok, crc32 }.encode());
                Ok(())
            }
            Err(Refusal::Status(status, why)) => {
                tracing::warn!(name = %Escaped(&name), bytes = header.file_bytes, "file not taken: {why}");
                self.refuse(connection, status)
            }
            Err(Refusal::Net(error)) => {
                tracing::warn!(name = %Escaped(&name), bytes = header.file_bytes, %error, "file not taken");
                Ok(())
            }
        }
    }

    fn keep(&self, connection: &Connection, said: &[u8], file_bytes: u64) -> Result<(Name, u32), Refusal> {
        let name = name_of(said)?;
        if file_bytes > self.file_bytes_max {
            let why = format!("over --inbox-max, which is {} bytes", self.file_bytes_max);
            return Err(Refusal::Status(Status::TooLarge, why));
        }
        let dir = self.root.dir(&RelPath::root())?;
        let room = dir.room_bytes()?;
        if file_bytes > room {
            return Err(Refusal::Status(Status::TooLarge, format!("there is room for {room} bytes")));
        }
        let part = Part::make(&dir)?;
        let crc = part.fill(connection, file_bytes)?;
        part.file.sync_all()?;
        let kept = part.name(&name)?;
        dir.sync_handle()?.sync_dir()?;
        Ok((kept, crc))
    }

    /// Tells the peer; what it still sends must not make the kernel take the answer back.
    fn refuse(&self, connection: &Connection, status: Status) -> Result<(), NetError> {
        connection.set_timeouts(Some(IDLE_MAX), Some(IDLE_MAX))?;
        connection.write_all(&DropReply { status, crc32: 0 }.encode())?;
        connection.end_sending();
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut heard = 0u64;
        while heard < HEARD_OUT_BYTES_MAX
            && let Ok(count @ 1..) = connection.read_some(&mut buffer)
        {
            heard += count as u64;
        }
        Ok(())
    }
}

/// What a refused peer may still send before it is hung up on.
const HEARD_OUT_BYTES_MAX: u64 = 16 << 20;

/// The name that a file gets: the last component of what was said.
fn name_of(said: &[u8]) -> Result<Name, Refusal> {
    let refused = |why: &str| Refusal::Status(Status::BadPath, why.to_owned());
    let last = said.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    if matches!(last, b"" | b"." | b"..") {
        return Err(refused("the name has no last component"));
    }
    if PREFIX.len() + last.len() > NAME_BYTES_MAX {
        return Err(Refusal::Status(Status::NameTooLong, "the name is too long".to_owned()));
    }
    Name::new(&[PREFIX, last].concat()).map_err(|_| refused("the name has a NUL byte"))
}

/// The name with a number before its extension.
fn numbered(name: &Name, number: u32) -> Option<Name> {
    let bytes = name.as_bytes();
    let after_prefix = PREFIX.len();
    // A dot in the first place hides a file, and begins no extension.
    let dot = bytes.iter().rposition(|&byte| byte == b'.').filter(|&at| at > after_prefix);
    let (stem, extension) = bytes.split_at(dot.unwrap_or(bytes.len()));
    Name::new(&[stem, format!(" ({number})").as_bytes(), extension].concat()).ok()
}

/// A file that is not complete.
struct Part<'a> {
    dir: &'a Dir,
    file: File,
    /// Where the file system has no files without a name.
    named: Option<Name>,
}

impl<'a> Part<'a> {
    fn make(dir: &'a Dir) -> io::Result<Self> {
        if dir.can_link_unnamed()
            && let Ok(file) = dir.create_unnamed(MODE)
        {
            return Ok(Self { dir, file, named: None });
        }
        let name = unforeseen_name()?;
        Ok(Self { dir, file: dir.create_open_file(&name, MODE)?, named: Some(name) })
    }

    /// Receives the bytes; answers their CRC-32.
    fn fill(&self, connection: &Connection, file_bytes: u64) -> Result<u32, Refusal> {
        let mut buffer = vec![0; BUFFER_BYTES.min(usize::try_from(file_bytes).unwrap_or(BUFFER_BYTES)).max(1)];
        let (mut left, mut crc) = (file_bytes, Hasher::new());
        while left > 0 {
            let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = match connection.read_some(&mut buffer[..wanted])? {
                0 => return Err(Refusal::Net(NetError::Closed)),
                count => count,
            };
            crc.update(&buffer[..count]);
            (&self.file).write_all(&buffer[..count])?;
            left -= count as u64;
        }
        Ok(crc.finalize())
    }

    /// Gives the file the first name that is free.
    fn name(&self, name: &Name) -> Result<Name, Refusal> {
        for number in 1..=NUMBERS_MAX {
            let free = if number == 1 { Some(name.clone()) } else { numbered(name, number) };
            let Some(free) = free else {
                return Err(Refusal::Status(
                    Status::NameTooLong,
                    "the name is taken, and too long for a number".to_owned(),
                ));
            };
            let linked = match &self.named {
                None => self.dir.link_unnamed(&self.file, &free),
                Some(named) => self.dir.link(named, self.dir, &free),
            };
            match linked {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                result => return Ok(result.map(|()| free)?),
            }
        }
        Err(Refusal::Status(Status::InputOutput, format!("{NUMBERS_MAX} files have this name")))
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        if let Some(named) = &self.named
            && let Err(error) = self.dir.remove_file(named)
        {
            tracing::debug!(%error, "cannot remove the name of a part file");
        }
    }
}

#[cfg(test)]
mod tests {
    use fastcp_model::Name;

    use super::{Refusal, name_of, numbered};

    fn kept(said: &[u8]) -> Option<Vec<u8>> {
        name_of(said).map(|name| name.as_bytes().to_vec()).ok()
    }

    #[test]
    fn a_name_is_the_last_component() {
        for (said, name) in [
            (&b"x"[..], Some(&b"RECV_x"[..])),
            (b"../x", Some(b"RECV_x")),
            (b"a/b", Some(b"RECV_b")),
            (b"/a/b", Some(b"RECV_b")),
            (b"..x", Some(b"RECV_..x")),
            (b"..", None),
            (b"a/..", None),
            (b".", None),
            (b"", None),
            (b"a/", None),
            (b"a\0b", None),
            (&[b'x'; 250], Some(&[&b"RECV_"[..], &[b'x'; 250]].concat())),
            (&[b'x'; 251], None),
        ] {
            assert_eq!(kept(said).as_deref(), name, "{said:?}");
        }
        assert!(matches!(name_of(b".."), Err(Refusal::Status(..))));
    }

    #[test]
    fn a_number_stands_before_the_extension() {
        for (name, second) in [
            (&b"RECV_a.txt"[..], &b"RECV_a (2).txt"[..]),
            (b"RECV_a.tar.gz", b"RECV_a.tar (2).gz"),
            (b"RECV_a", b"RECV_a (2)"),
            (b"RECV_.profile", b"RECV_.profile (2)"),
        ] {
            let name = Name::new(name).expect("lawful");
            assert_eq!(numbered(&name, 2).expect("short").as_bytes(), second);
        }
        assert!(numbered(&Name::new(&[b'x'; 254]).expect("lawful"), 2).is_none());
    }
}
