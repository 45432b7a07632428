//! Names that may be deleted, kept until the offer is known to be complete.
//!
//! Each directory that has any is held open with [`DirState::expect`], so that its own time is set after
//! they are gone. Names are records of a length byte and the name; many of them go to a file without a
//! name, so that memory grows with the directories concerned and not with the names.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::sync::Arc;

use fastcp_model::{NAME_BYTES_MAX, Name};
use fastcp_sys::Dir;

use crate::target::dirs::DirState;
use crate::target::protection::Protection;

/// Names kept in memory.
const NAMES_IN_MEMORY: u64 = 65_536;

/// Candidates of all directories.
#[derive(Debug, Default)]
pub(crate) struct Candidates {
    pub(crate) dirs: Vec<Held>,
    memory: Vec<u8>,
    spilled: Option<BufWriter<File>>,
    bytes: u64,
    count: u64,
}

/// A directory that has candidates.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) state: Arc<DirState>,
    /// The rules that stand in it.
    pub(crate) protection: Protection,
    offset: u64,
    count: u64,
}

impl Candidates {
    /// Keeps the names of one directory, in a file from `make_file` once they are many.
    pub(crate) fn add(
        &mut self,
        state: &Arc<DirState>,
        protection: Protection,
        names: &[Name],
        make_file: impl FnOnce() -> io::Result<File>,
    ) -> io::Result<()> {
        let count = names.len() as u64;
        if self.spilled.is_none() && self.count + count > NAMES_IN_MEMORY {
            let mut file = BufWriter::new(make_file()?);
            file.write_all(&std::mem::take(&mut self.memory))?;
            self.spilled = Some(file);
        }
        let offset = self.bytes;
        for name in names {
            let bytes = name.as_bytes();
            let length = u8::try_from(bytes.len()).map_err(io::Error::other)?;
            match &mut self.spilled {
                Some(file) => put(file, length, bytes)?,
                None => put(&mut self.memory, length, bytes)?,
            }
            self.bytes += 1 + u64::from(length);
        }
        self.count += count;
        state.expect(1);
        self.dirs.push(Held { state: Arc::clone(state), protection, offset, count });
        Ok(())
    }

    /// Nothing more will be added.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.spilled.as_mut().map_or(Ok(()), Write::flush)
    }

    /// The names of one directory, in the order they were added.
    pub(crate) fn names_of(&self, held: &Held) -> Names<'_> {
        let source = match &self.spilled {
            Some(file) => Source::File { file: file.get_ref(), offset: held.offset },
            None => Source::Memory(self.memory.get(held.offset as usize..).unwrap_or_default()),
        };
        Names { source: BufReader::new(source), left: held.count }
    }
}

/// A file in `dir` that is gone with the process.
pub(crate) fn nameless_file(dir: &Dir) -> io::Result<File> {
    // Not every file system has files that never had a name.
    dir.create_unnamed(0o600).or_else(|_| {
        let name = Name::new(format!(".fastcp-names-{}", std::process::id()).as_bytes()).map_err(io::Error::other)?;
        let file = dir.create_file(&name)?;
        dir.remove_file(&name)?;
        Ok(file)
    })
}

fn put(to: &mut impl Write, length: u8, bytes: &[u8]) -> io::Result<()> {
    to.write_all(&[length])?;
    to.write_all(bytes)
}

/// The names of one directory.
pub(crate) struct Names<'a> {
    source: BufReader<Source<'a>>,
    left: u64,
}

impl Iterator for Names<'_> {
    type Item = io::Result<Name>;

    fn next(&mut self) -> Option<io::Result<Name>> {
        self.left = self.left.checked_sub(1)?;
        let mut length = [0];
        let mut bytes = [0; NAME_BYTES_MAX];
        let read = self.source.read_exact(&mut length).and_then(|()| {
            let name = &mut bytes[..usize::from(length[0])];
            self.source.read_exact(name)?;
            Name::new(name).map_err(io::Error::other)
        });
        Some(read)
    }
}

enum Source<'a> {
    Memory(&'a [u8]),
    File { file: &'a File, offset: u64 },
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Memory(bytes) => bytes.read(buffer),
            Self::File { file, offset } => {
                let read = fastcp_sys::file::read_at(file, buffer, *offset)?;
                *offset += read as u64;
                Ok(read)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use fastcp_model::{Name, RelPath};

    use super::{Candidates, NAMES_IN_MEMORY};
    use crate::target::dirs::{Age, DirState};
    use crate::target::protection::Protection;

    fn names(count: u64, seed: u64) -> Vec<Name> {
        let name = |nth| Name::new(format!("{seed}-{nth}-{}", "x".repeat((nth % 200) as usize)).as_bytes());
        (0..count).map(|nth| name(nth).expect("lawful")).collect()
    }

    #[test]
    fn names_come_back_from_memory_and_from_a_file() {
        let sizes = [3, 0, NAMES_IN_MEMORY - 3, 1, 70_000, 2];
        let mut candidates = Candidates::default();
        let mut files = 0;
        for (seed, &size) in sizes.iter().enumerate() {
            let state = DirState::new(RelPath::root(), Age::Old, None, None);
            let make_file = || {
                files += 1;
                tempfile::tempfile()
            };
            candidates.add(&state, Protection::default(), &names(size, seed as u64), make_file).expect("add");
            assert_eq!(files, i32::from(seed >= 3), "a file only once names are many");
        }
        candidates.finish().expect("flush");
        for (seed, (held, &size)) in candidates.dirs.iter().zip(&sizes).enumerate() {
            let got: Vec<Name> = candidates.names_of(held).collect::<io::Result<_>>().expect("read");
            assert_eq!(got, names(size, seed as u64));
        }
    }
}
