//! What each role is told to do. The command line fills these in; nothing below reads arguments.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fastcp_model::Capabilities;
use fastcp_model::rules::FilterRule;
use fastcp_net::{ConnectionLimits, HANDSHAKE_TIMEOUT, IDLE_MAX};
use fastcp_wire::limits::CONNECTIONS_MAX;

use crate::budget::Limits;

pub(crate) mod orders;

/// What listings for all clients may take in memory where nobody says so.
pub const OFFER_BYTES_DEFAULT: usize = 256 << 20;
/// Long checksums that are computed at a time where nobody says so.
pub const SUMS_MAX: usize = 2;

/// How the sender answers ranges that may be compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Never.
    Off,
    /// At this zstd level, where a sample shrinks.
    Level(i32),
    /// At the level that makes answers leave fastest, which may be none.
    Adaptive,
}

/// What a serving side is told.
#[derive(Debug, Clone, Copy)]
pub struct ServerSettings {
    /// The capabilities that it advertises.
    pub capabilities: Capabilities,
    /// The most data connections of one session.
    pub connections: u16,
    /// The most connections of all sessions together, and of those of one address.
    pub limits: ConnectionLimits,
    /// Sessions that have used nothing for so long make room for others.
    pub idle_timeout: Duration,
    /// The most bytes of listings that are held for all clients.
    pub offer_bytes_max: usize,
    /// The most long checksums that are computed at a time.
    pub sums_max: usize,
    /// Its chunk size in KiB, where the client names none.
    pub chunk_kb: Option<u32>,
    /// Compression of ranges.
    pub compression: Compression,
    /// What clients may do to what is served.
    pub writes: Writes,
    /// Whether what clients send may run with the rights of its owner.
    pub setuid: SetUid,
    /// Answer plain requests with a CRC of 0, for programs that compute theirs wrongly.
    pub plain_crc: PlainCrc,
    /// How long a peer may take to say who it is.
    pub handshake_timeout: Duration,
}

impl Default for ServerSettings {
    /// A server in this process: the client knows what there is for both, and there is no link that fewer bytes could
    /// be faster on.
    fn default() -> Self {
        Self {
            capabilities: Capabilities::SUPPORTED,
            connections: CONNECTIONS_MAX,
            limits: ConnectionLimits::NONE,
            idle_timeout: IDLE_MAX,
            offer_bytes_max: OFFER_BYTES_DEFAULT,
            sums_max: SUMS_MAX,
            chunk_kb: None,
            compression: Compression::Off,
            writes: Writes::Refused,
            setuid: SetUid::Dropped,
            plain_crc: PlainCrc::Given,
            handshake_timeout: HANDSHAKE_TIMEOUT,
        }
    }
}

/// What clients may do to what is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// Read it.
    Refused,
    /// Add to it, and replace files.
    Allowed,
    /// Delete from it as well.
    DeletionAllowed,
}

/// What becomes of the setuid and setgid bits of files. A directory's setgid bit gives nobody rights, and is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetUid {
    /// They are kept, as all of the mode is.
    Kept,
    /// They are dropped, and each file that had them is reported.
    Dropped,
}

/// Whether plain replies carry the CRC that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlainCrc {
    /// They do.
    Given,
    /// They carry 0.
    Withheld,
}

/// How bytes get from the socket into a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum ReceivePath {
    /// What measures best: see `docs/performance.md`.
    Auto,
    /// `recv` into a buffer, CRC while it is hot, `pwrite`.
    Copy,
    /// `splice` through a pipe; the CRC is taken by reading back.
    Splice,
}

/// Which hash a manifest has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum ManifestHash {
    /// BLAKE3, all 32 bytes.
    Blake3,
    /// XXH3-128.
    Xxh3,
    /// SHA-256.
    Sha256,
}

impl ManifestHash {
    pub(crate) const ALL: [Self; 3] = [Self::Blake3, Self::Xxh3, Self::Sha256];

    /// Its name in the first line of a manifest.
    pub fn name(self) -> &'static str {
        match self {
            Self::Blake3 => "blake3",
            Self::Xxh3 => "xxh3-128",
            Self::Sha256 => "sha256",
        }
    }

    pub(crate) fn from_name(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|hash| hash.name().as_bytes() == name)
    }
}

/// The file that a manifest is appended to.
#[derive(Debug, Clone)]
pub struct ManifestFile {
    /// Where it is, or is made.
    pub path: PathBuf,
    /// The hash of its records.
    pub hash: ManifestHash,
}

/// Where what was committed is recorded.
#[derive(Debug, Clone)]
pub enum Recording {
    /// In a file here.
    File(ManifestFile),
    /// By whoever hears the report, with this hash: [`crate::Event::Recorded`].
    Told(ManifestHash),
}

impl Recording {
    /// The hash of its records.
    pub fn hash(&self) -> ManifestHash {
        match self {
            Self::File(file) => file.hash,
            Self::Told(hash) => *hash,
        }
    }
}

/// What survives a power cut at the moment a run says that it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Durability {
    /// Whatever the kernel has written by then. A name may stand for a file whose bytes are lost.
    None,
    /// Everything: files are synced in groups before they get their names.
    Batch,
    /// Everything, and each file by itself as soon as it is there.
    File,
}

/// What the checksum of a whole file is taken over before the file gets its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum VerifyOver {
    /// The bytes as they were received and handed to the kernel.
    Received,
    /// The bytes that the part file reads as: a second pass, mostly through the page cache.
    Written,
    /// The bytes that the disk has: the part file is synced, let go of and read. Where a file system lives in
    /// memory, or ignores the hint to let go, this is as [`VerifyOver::Written`].
    Disk,
}

/// How many data connections a receiver uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connections {
    /// This many.
    Fixed(u16),
    /// As many as throughput says, up to what the server allows.
    Auto,
}

/// Whether other versions of a file are looked through before it is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delta {
    /// They are: only what they lack is fetched.
    Used,
    /// Whole files are fetched.
    Unused,
}

/// Where a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// Into a part file, which gets the final name when it is proven.
    PartFile,
    /// Into the target itself. A run that does not end well leaves it neither old nor new.
    InPlace,
}

/// What is done with entries that the source does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deletion {
    /// More than this, and nothing is deleted at all.
    pub max: Option<MaxDelete>,
    /// An empty source.
    pub empty_source: EmptySource,
}

/// How much may be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxDelete {
    /// So many entries.
    Entries(u64),
    /// So many in a hundred of the entries that the destination had: of those that would go and those
    /// that were offered and there already.
    Percent(u8),
}

impl std::fmt::Display for MaxDelete {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Entries(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// Whether a source without a single entry empties the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmptySource {
    /// It is taken for a mistake: nothing is deleted.
    Refused,
    /// It does.
    Deletes,
}

/// How large files are that are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SizeLimits {
    /// At least so many bytes.
    pub min: Option<u64>,
    /// At most so many bytes.
    pub max: Option<u64>,
}

impl SizeLimits {
    /// Whether a file of this size is copied.
    pub fn admit(&self, size_bytes: u64) -> bool {
        self.min.is_none_or(|min| size_bytes >= min) && self.max.is_none_or(|max| size_bytes <= max)
    }
}

/// Whether each change is told, in rsync's letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Itemize {
    /// Only what fails is.
    No,
    /// As an event.
    Changes,
}

/// What the receiver of a copy is told: how files are compared, written and proven, and what else is done at the
/// destination.
#[derive(Debug, Clone)]
pub struct ReceiverSettings {
    /// What survives a power cut.
    pub durability: Durability,
    /// Whether other versions of a file are made use of.
    pub delta: Delta,
    /// Where files are written.
    pub placement: Placement,
    /// What the checksum of a whole file is taken over.
    pub verify: VerifyOver,
    /// Where to record what was committed.
    pub manifest: Option<Recording>,
    /// Deletion of what the source does not have; `None` keeps all of it.
    pub deletion: Option<Deletion>,
    /// What of the destination takes part: what its rules exclude at the receiver is not deleted.
    pub filter: Arc<[FilterRule]>,
    /// Files of other sizes are left as they are.
    pub sizes: SizeLimits,
    /// Where entries go that are deleted or replaced; a relative path starts at the destination.
    pub backup_dir: Option<PathBuf>,
    /// What becomes of setuid and setgid bits.
    pub setuid: SetUid,
    /// Whether each change is told.
    pub itemize: Itemize,
    /// Whether each file is told that has its name.
    pub tell_committed: bool,
}

impl Default for ReceiverSettings {
    /// What the client does without options: nothing is deleted.
    fn default() -> Self {
        Self {
            durability: Durability::Batch,
            delta: Delta::Used,
            placement: Placement::PartFile,
            verify: VerifyOver::Received,
            manifest: None,
            deletion: None,
            filter: Arc::default(),
            sizes: SizeLimits::default(),
            backup_dir: None,
            setuid: SetUid::Kept,
            itemize: Itemize::No,
            tell_committed: false,
        }
    }
}

/// What whoever asks for a session is told: how it is made, and for how long it is tried.
#[derive(Debug, Clone, Copy)]
pub struct LinkSettings {
    /// The capabilities that are advertised.
    pub capabilities: Capabilities,
    /// Data connections wanted.
    pub connections: Connections,
    /// Chunk size wanted in KiB.
    pub chunk_kb: Option<u32>,
    /// How long to keep trying while nothing answers.
    pub retry: Duration,
}

impl Default for LinkSettings {
    /// What the client does without options.
    fn default() -> Self {
        Self {
            capabilities: Capabilities::SUPPORTED,
            connections: Connections::Fixed(CONNECTIONS_DEFAULT),
            chunk_kb: None,
            retry: RETRY_DEFAULT,
        }
    }
}

/// Data connections where nobody says how many.
pub const CONNECTIONS_DEFAULT: u16 = 4;
/// How long to keep trying where nobody says so.
pub const RETRY_DEFAULT: Duration = Duration::from_secs(30);

/// What a run is told of the process that it is in.
#[derive(Debug, Clone, Copy)]
pub struct ProcessSettings {
    /// What the system allows: a run divides it over all that it holds open.
    pub limits: Limits,
    /// How bodies are received.
    pub receive_path: ReceivePath,
}

impl Default for ProcessSettings {
    /// What the process has left.
    fn default() -> Self {
        Self { limits: Limits::of_process(), receive_path: ReceivePath::Auto }
    }
}
