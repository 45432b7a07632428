//! What each role is told to do. The command line fills these in; nothing below reads arguments.

use std::sync::Arc;
use std::time::Duration;

use fastcp_model::Capabilities;

use crate::manifest::ManifestWriter;

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
    /// Its chunk size in KiB, where the client names none.
    pub chunk_kb: Option<u32>,
    /// Compression of ranges.
    pub compression: Compression,
    /// Answer plain requests with a CRC of 0, for programs that compute theirs wrongly.
    pub plain_crc: PlainCrc,
    /// How long a peer may take to say who it is.
    pub handshake_timeout: Duration,
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
pub enum ReceivePath {
    /// What measures best: see `docs/performance.md`.
    Auto,
    /// `recv` into a buffer, CRC while it is hot, `pwrite`.
    Copy,
    /// `splice` through a pipe; the CRC is taken by reading back.
    Splice,
}

/// What survives a power cut at the moment a run says that it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

/// What a receiving side is told.
#[derive(Debug, Clone)]
pub struct ReceiverSettings {
    /// The capabilities that it advertises.
    pub capabilities: Capabilities,
    /// Data connections wanted.
    pub connections: Connections,
    /// Chunk size wanted in KiB.
    pub chunk_kb: Option<u32>,
    /// How long to keep trying while nothing answers.
    pub retry: Duration,
    /// How bodies are received.
    pub receive_path: ReceivePath,
    /// What survives a power cut.
    pub durability: Durability,
    /// What the checksum of a whole file is taken over.
    pub verify: VerifyOver,
    /// Where to record what was committed.
    pub manifest: Option<Arc<ManifestWriter>>,
    /// How many descriptors the process may open; a quarter of them serves files that wait for a sync.
    pub descriptors_max: usize,
}
