//! Capability bits: what a side can do, and after the handshake what both do.

bitflags::bitflags! {
    /// What a side advertises in HELLO. The agreed set is the intersection; the numbers of the first
    /// seven are fixed by existing practice (`docs/protocol.md` has the table).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct Capabilities: u32 {
        /// Ranges may be answered as zstd.
        const COMPRESS = 0x0001;
        /// A plain FTQ1 request's offset is honoured, so a whole file can be resumed.
        const RESUME = 0x0002;
        /// Many small files of one directory are asked for in one request.
        const BUNDLE = 0x0004;
        /// Signatures and hashes of ranges are answered, so that only what a receiver lacks is wanted.
        const DELTA = 0x0008;
        /// Large files are cut so that all connections finish together, whatever the sizes of files and
        /// chunks.
        const VIRTUAL_ARCHIVE = 0x0010;
        /// Chunks that arrived are journaled, so that a rerun fetches the others only.
        const CHUNK_RESUME = 0x0020;
        /// Offers stream while ranges are fetched.
        const PIPELINE_SYNC = 0x0040;
        /// Batches of an offer that the receiver has from an earlier one are not sent again.
        const TREE_CACHE = 0x0080;
        /// Offers are zstd batches.
        const COMPRESSED_TREE = 0x0100;
    }
}

impl Capabilities {
    /// Everything that this version can do.
    pub const SUPPORTED: Self = Self::all();

    /// Splits a peer's bits into those known here and the rest, which are dropped and logged.
    pub fn from_peer(bits: u32) -> (Self, u32) {
        (Self::from_bits_truncate(bits), bits & !Self::all().bits())
    }
}

#[cfg(test)]
mod tests {
    use super::Capabilities;

    #[test]
    fn unknown_bits_are_dropped_and_reported() {
        let (known, unknown) = Capabilities::from_peer(0x8000_0101);
        assert_eq!(known, Capabilities::COMPRESS | Capabilities::COMPRESSED_TREE);
        assert_eq!(unknown, 0x8000_0000);
    }
}
