//! Journals as `docs/journal.md` has them, read and written by the tests' own code: what a killed run claims to
//! have, and journals that no run would write.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A range that a journal claims, with the CRC-32 of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) start: u64,
    pub(crate) len: u64,
    pub(crate) crc: u32,
}

/// The end of a run that came to an end by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) boot: u128,
    pub(crate) ctime: (i64, u32),
}

/// One record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Record {
    Range(Claim),
    Mark(Mark),
}

/// What the head says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) file_bytes: u64,
    pub(crate) mtime: (i64, u32),
    pub(crate) chunk_kb: u32,
    pub(crate) inode: u64,
    pub(crate) path: Vec<u8>,
}

/// A whole journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Journal {
    pub(crate) head: Head,
    pub(crate) records: Vec<Record>,
}

impl Head {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = b"FCPJRNL1".to_vec();
        bytes.extend(self.file_bytes.to_be_bytes());
        bytes.extend(self.mtime.0.to_be_bytes());
        bytes.extend(self.mtime.1.to_be_bytes());
        bytes.extend(self.chunk_kb.to_be_bytes());
        bytes.extend(self.inode.to_be_bytes());
        bytes.extend(u16::try_from(self.path.len()).expect("short").to_be_bytes());
        bytes.extend(&self.path);
        summed(bytes)
    }
}

impl Record {
    pub(crate) fn encode(&self) -> Vec<u8> {
        summed(match self {
            Self::Range(Claim { start, len, crc }) => {
                [&[1][..], &start.to_be_bytes(), &len.to_be_bytes(), &crc.to_be_bytes()].concat()
            }
            Self::Mark(Mark { boot, ctime }) => {
                [&[2][..], &boot.to_be_bytes(), &ctime.0.to_be_bytes(), &ctime.1.to_be_bytes()].concat()
            }
        })
    }
}

impl Journal {
    pub(crate) fn encode(&self) -> Vec<u8> {
        self.records.iter().fold(self.head.encode(), |bytes, record| [bytes, record.encode()].concat())
    }

    /// Where the head ends, and each record after it.
    pub(crate) fn borders(&self) -> Vec<usize> {
        let mut borders = vec![self.head.encode().len()];
        for record in &self.records {
            borders.push(borders.last().expect("the head") + record.encode().len());
        }
        borders
    }

    /// Reads a journal up to what is torn; `None` where not even the head is whole.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let path_bytes = usize::from(u16::from_be_bytes([*bytes.get(40)?, *bytes.get(41)?]));
        let mut at = 8;
        let head = Head {
            file_bytes: number(bytes, &mut at, 8),
            mtime: time(bytes, &mut at),
            chunk_kb: number(bytes, &mut at, 4) as u32,
            inode: number(bytes, &mut at, 8),
            path: bytes.get(42..42 + path_bytes)?.to_vec(),
        };
        at = head.encode().len();
        if !bytes.starts_with(&head.encode()) {
            return None;
        }
        let mut journal = Self { head, records: Vec::new() };
        while let Some(record) = decode_record(&bytes[at..]) {
            at += record.encode().len();
            journal.records.push(record);
        }
        Some(journal)
    }

    pub(crate) fn claims(&self) -> Vec<Claim> {
        let claim = |record: &Record| match record {
            Record::Range(claim) => Some(*claim),
            Record::Mark(_) => None,
        };
        self.records.iter().filter_map(claim).collect()
    }

    pub(crate) fn claimed_bytes(&self) -> u64 {
        self.claims().iter().map(|claim| claim.len).sum()
    }

    /// The mark that it ends with.
    pub(crate) fn mark(&self) -> Option<Mark> {
        match self.records.last() {
            Some(Record::Mark(mark)) => Some(*mark),
            _ => None,
        }
    }
}

fn decode_record(bytes: &[u8]) -> Option<Record> {
    let mut at = 1;
    let record = match bytes.first()? {
        1 if bytes.len() >= 25 => Record::Range(Claim {
            start: number(bytes, &mut at, 8),
            len: number(bytes, &mut at, 8),
            crc: number(bytes, &mut at, 4) as u32,
        }),
        2 if bytes.len() >= 33 => {
            let boot = u128::from_be_bytes(take(bytes, &mut at, 16)?.try_into().ok()?);
            Record::Mark(Mark { boot, ctime: time(bytes, &mut at) })
        }
        _ => return None,
    };
    bytes.starts_with(&record.encode()).then_some(record)
}

fn take<'a>(bytes: &'a [u8], at: &mut usize, count: usize) -> Option<&'a [u8]> {
    let taken = bytes.get(*at..*at + count);
    *at += count;
    taken
}

fn number(bytes: &[u8], at: &mut usize, count: usize) -> u64 {
    let taken = take(bytes, at, count).expect("long enough");
    taken.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn time(bytes: &[u8], at: &mut usize) -> (i64, u32) {
    (number(bytes, at, 8).cast_signed(), number(bytes, at, 4) as u32)
}

fn summed(bytes: Vec<u8>) -> Vec<u8> {
    let sum = crc32fast::hash(&bytes).to_be_bytes();
    [bytes, sum.to_vec()].concat()
}

/// The part file of a destination and its journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leftover {
    pub(crate) part: PathBuf,
    pub(crate) journal: PathBuf,
}

impl Leftover {
    /// Those of a target whose part file is called `name`, in this destination.
    pub(crate) fn named(dst: &Path, name: &Path) -> Self {
        let part = parts_dir(dst).join(name);
        let journal = part.with_extension("journal");
        Self { part, journal }
    }

    /// All of a destination. Part files without a journal are passed over.
    pub(crate) fn all(dst: &Path) -> Vec<Self> {
        let mut names = names_in_parts(dst);
        names.retain(|name| !name.as_os_str().as_bytes().ends_with(b".journal"));
        let found = names.iter().map(|name| Self::named(dst, name));
        found.filter(|leftover| leftover.journal.exists()).collect()
    }

    /// The only one of a destination.
    pub(crate) fn only(dst: &Path) -> Self {
        let mut all = Self::all(dst);
        assert_eq!(all.len(), 1, "{:?}", names_in_parts(dst));
        all.remove(0)
    }

    /// The one whose journal claims most, where there may be others.
    pub(crate) fn fullest(dst: &Path) -> Self {
        Self::all(dst).into_iter().max_by_key(Self::claimed_bytes).expect("a leftover")
    }

    pub(crate) fn read(&self) -> Journal {
        self.read_if_whole().expect("a journal with a whole head")
    }

    fn read_if_whole(&self) -> Option<Journal> {
        Journal::decode(&fs::read(&self.journal).ok()?)
    }

    /// How much the journal claims, where it is there and has a whole head by now.
    pub(crate) fn claimed_bytes(&self) -> u64 {
        self.read_if_whole().map_or(0, |journal| journal.claimed_bytes())
    }

    /// The ctime of the part file, as a mark has it.
    pub(crate) fn ctime(&self) -> (i64, u32) {
        let stat = fs::metadata(&self.part).expect("examine the part file");
        (stat.ctime(), u32::try_from(stat.ctime_nsec()).expect("below a second"))
    }

    /// The claims that are true of the part file as it is.
    pub(crate) fn standing_bytes(&self) -> u64 {
        let (Some(journal), Ok(part)) = (self.read_if_whole(), fs::read(&self.part)) else { return 0 };
        let bytes_of = |claim: &Claim| part.get(claim.start as usize..(claim.start + claim.len) as usize);
        let stands = |claim: &Claim| bytes_of(claim).is_some_and(|bytes| crc32fast::hash(bytes) == claim.crc);
        journal.claims().iter().filter(|claim| stands(claim)).map(|claim| claim.len).sum()
    }
}

/// What lies among the part files.
pub(crate) fn names_in_parts(dst: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parts_dir(dst)) else { return Vec::new() };
    let mut names: Vec<PathBuf> = entries.map(|entry| entry.expect("read a directory").file_name().into()).collect();
    names.sort();
    names
}

pub(crate) fn parts_dir(dst: &Path) -> PathBuf {
    dst.join(".fastcp/parts")
}

/// The id of this boot, as a mark has it.
pub(crate) fn boot_id() -> u128 {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("read the boot id");
    u128::from_str_radix(&text.trim().replace('-', ""), 16).expect("a hexadecimal number")
}
