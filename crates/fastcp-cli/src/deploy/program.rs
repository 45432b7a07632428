//! The program that is sent: what it is known by, and what it is for.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ChildStdin;
use std::thread::JoinHandle;

use sha2::{Digest, Sha256};

use crate::exit_code::{self, Failure};
use crate::wording::shown;

/// This program, whatever has become of its name.
const OWN: &str = "/proc/self/exe";
/// One beside it that is there to be sent: linked statically, where this one is not.
const BESIDE: &str = "fastcp-deploy";
/// The program's header, and the table behind it.
const HEADERS_BYTES: usize = 4096;
const BUFFER_BYTES: usize = 64 << 10;

/// Numbers of `elf.h` for kinds of processors, and how what `uname -m` calls them begins.
const PROCESSORS: [(u16, &[&str]); 8] = [
    (3, &["i386", "i486", "i586", "i686", "x86_64"]),
    (21, &["ppc64"]),
    (22, &["s390"]),
    (40, &["arm"]),
    (62, &["x86_64", "amd64"]),
    (183, &["aarch64", "arm64"]),
    (243, &["riscv"]),
    (258, &["loongarch"]),
];

/// A file that is a program.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    /// Its SHA-256, in hexadecimal digits.
    pub(super) hash: String,
    pub(super) linking: Linking,
    processor: u16,
    file: File,
}

/// Whether a program needs libraries of the system that it runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Linking {
    Static,
    Dynamic,
}

impl Program {
    /// The program at `named`, or the one to send where none is named.
    pub(super) fn open(named: Option<&Path>) -> Result<Self, Failure> {
        let path = named.map_or_else(to_send, Path::to_owned);
        let unreadable = |error: io::Error| {
            let code = exit_code::of_io_error(&error, exit_code::FILE_IO);
            Failure::new(code, format!("cannot read \"{}\", which is to be sent: {error}", shown(&path)))
        };
        let mut file = File::open(&path).map_err(unreadable)?;
        let (bytes, hash) = sum_of(&mut file).map_err(unreadable)?;
        let mut headers = vec![0; HEADERS_BYTES];
        let count = file.read_at(&mut headers, 0).map_err(unreadable)?;
        let Some((processor, linking)) = look(&headers[..count]) else {
            let message = format!("\"{}\", which is to be sent, is no program", shown(&path));
            return Err(Failure::new(exit_code::USAGE, message));
        };
        Ok(Self { path, bytes, hash, linking, processor, file })
    }

    /// Whether it is for the processor that `uname -m` calls so. Of one that is not known here the host itself will tell.
    pub(super) fn is_for(&self, machine: &str) -> bool {
        let names = PROCESSORS.iter().find(|(number, _)| *number == self.processor).map(|(_, names)| *names);
        names.is_none_or(|names| names.iter().any(|name| machine.starts_with(name)))
    }

    /// Sends as many bytes as were announced, on a thread of its own, which gives the output back.
    ///
    /// # Errors
    /// The file cannot be read again, or there is no thread.
    pub(super) fn send(&self, mut output: ChildStdin) -> io::Result<JoinHandle<io::Result<ChildStdin>>> {
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(0))?;
        let mut left = self.bytes;
        std::thread::Builder::new().name("deploy".to_owned()).spawn(move || {
            let mut buffer = vec![0; BUFFER_BYTES];
            while left > 0 {
                let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                file.read_exact(&mut buffer[..wanted])?;
                output.write_all(&buffer[..wanted])?;
                left -= wanted as u64;
            }
            Ok(output)
        })
    }
}

/// How long a file is, and its SHA-256.
fn sum_of(file: &mut File) -> io::Result<(u64, String)> {
    let (mut bytes, mut hash) = (0, Sha256::new());
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((bytes, hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())),
            Ok(count) => {
                bytes += count as u64;
                hash.update(&buffer[..count]);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn to_send() -> PathBuf {
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name(BESIDE)).filter(|path| path.is_file());
    beside.unwrap_or_else(|| PathBuf::from(OWN))
}

/// The processor that a program is for, and how it is linked: the ELF header and the table of segments, of 32 and of 64 bits.
/// `None` for what is no program.
fn look(bytes: &[u8]) -> Option<(u16, Linking)> {
    const ASKS_FOR_LOADER: u64 = 3;
    const KINDS: [u64; 2] = [2, 3];
    let is_long = match bytes.strip_prefix(b"\x7fELF")?.first()? {
        1 => false,
        2 => true,
        _ => return None,
    };
    let is_little = *bytes.get(5)? == 1;
    let number = |at: usize, len: usize| {
        let field = bytes.get(at..at.checked_add(len)?)?.iter();
        let add = |sum: u64, &byte: &u8| sum << 8 | u64::from(byte);
        Some(if is_little { field.rev().fold(0, add) } else { field.fold(0, add) })
    };
    let (table, size, count) = if is_long { ((32, 8), 54, 56) } else { ((28, 4), 42, 44) };
    let (table, size, count) = (number(table.0, table.1)?, number(size, 2)?, number(count, 2)?);
    if !KINDS.contains(&number(16, 2)?) || count == 0 {
        return None;
    }
    let mut linking = Linking::Static;
    for nth in 0..count {
        let at = table.checked_add(nth * size)?;
        if number(usize::try_from(at).ok()?, 4)? == ASKS_FOR_LOADER {
            linking = Linking::Dynamic;
        }
    }
    Some((u16::try_from(number(18, 2)?).ok()?, linking))
}

#[cfg(test)]
mod tests {
    use super::{Linking, Program, look};

    #[test]
    fn programs_are_told_from_other_files() {
        let own = Program::open(Some("/proc/self/exe".as_ref())).ok().expect("this is a program");
        let linking = if cfg!(target_feature = "crt-static") { Linking::Static } else { Linking::Dynamic };
        assert_eq!((own.linking, own.is_for(std::env::consts::ARCH)), (linking, true));
        assert!(!own.is_for("vax") && own.hash.len() == 64);
        let bytes = std::fs::read("/proc/self/exe").expect("read");
        assert!((0..64).all(|count| look(&bytes[..count]).is_none()));
        assert!(look(b"#!/bin/sh\nexec something\n").is_none());
    }

    /// A header of 32 bits, the other way round, with two segments.
    #[test]
    fn programs_for_other_processors() {
        let mut bytes = vec![0; 52 + 2 * 32];
        bytes[..6].copy_from_slice(b"\x7fELF\x01\x02");
        for (at, value) in [(17, 2), (19, 40), (31, 52), (43, 32), (45, 2), (55, 1)] {
            bytes[at] = value;
        }
        assert_eq!(look(&bytes), Some((40, Linking::Static)));
        bytes[52 + 32 + 3] = 3;
        assert_eq!(look(&bytes), Some((40, Linking::Dynamic)));
        bytes[31] = 0xff;
        assert_eq!(look(&bytes), None);
    }
}
