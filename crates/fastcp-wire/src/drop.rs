//! The header-batched drop: a file that a script of three lines can hand to a server.
//!
//! `name_len u32 | file_size u64 | name`, then the bytes. The server answers with 12 bytes, which a script need not
//! read. Names are short, so the first two bytes are 0 and choose the dialect.

use fastcp_model::Status;

use crate::WireError;
use crate::limits::DROP_NAME_BYTES_MAX;
use crate::reader::{Reader, within};

/// What comes before the name.
pub const DROP_HEADER_BYTES: usize = 12;
/// The length of a [`DropReply`].
pub const DROP_REPLY_BYTES: usize = 12;
/// `FTD1` in ASCII.
pub const DROP_REPLY_MAGIC: u32 = 0x4654_4431;

/// What is known of a drop before its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DropHeader {
    /// How long the name is.
    pub name_bytes: usize,
    /// How many bytes follow the name.
    pub file_bytes: u64,
}

impl DropHeader {
    /// The header and the name.
    ///
    /// # Errors
    /// A name over its limit.
    pub fn encode(name: &[u8], file_bytes: u64) -> Result<Vec<u8>, WireError> {
        within("name_len", name.len(), DROP_NAME_BYTES_MAX)?;
        let mut out = (name.len() as u32).to_be_bytes().to_vec();
        out.extend(file_bytes.to_be_bytes());
        out.extend(name);
        Ok(out)
    }

    /// Decodes what comes before the name.
    ///
    /// # Errors
    /// A name over its limit.
    pub fn decode(bytes: &[u8; DROP_HEADER_BYTES]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let name_bytes = reader.u32()? as usize;
        within("name_len", name_bytes, DROP_NAME_BYTES_MAX)?;
        Ok(Self { name_bytes, file_bytes: reader.u64()? })
    }
}

/// What has become of a drop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DropReply {
    /// [`Status::Ok`]: the file has its name, and is safe on the disk.
    pub status: Status,
    /// The CRC-32 of what was received; 0 where nothing was kept.
    pub crc32: u32,
}

impl DropReply {
    /// The 12 bytes.
    pub fn encode(&self) -> [u8; DROP_REPLY_BYTES] {
        let mut out = [0; DROP_REPLY_BYTES];
        out[..4].copy_from_slice(&DROP_REPLY_MAGIC.to_be_bytes());
        out[4..6].copy_from_slice(&self.status.code().to_be_bytes());
        out[8..].copy_from_slice(&self.crc32.to_be_bytes());
        out
    }

    /// Decodes them. The reserved bytes are not looked at.
    ///
    /// # Errors
    /// Another magic, or an unknown status.
    pub fn decode(bytes: &[u8; DROP_REPLY_BYTES]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        match reader.u32()? {
            DROP_REPLY_MAGIC => {}
            other => return Err(WireError::Magic(other)),
        }
        let code = reader.u16()?;
        let status = Status::from_code(code).ok_or(WireError::Value { field: "status", value: code.into() })?;
        reader.u16()?;
        Ok(Self { status, crc32: reader.u32()? })
    }
}

#[cfg(test)]
mod tests {
    use fastcp_model::Status;

    use super::{DropHeader, DropReply};
    use crate::WireError;

    #[test]
    fn a_header_is_what_scripts_send() {
        let bytes = DropHeader::encode(b"a.txt", 0x0102_0304_0506_0708).expect("short");
        assert_eq!(bytes, b"\x00\x00\x00\x05\x01\x02\x03\x04\x05\x06\x07\x08a.txt");
        let header = DropHeader::decode(bytes[..12].try_into().expect("12 bytes")).expect("lawful");
        assert_eq!((header.name_bytes, header.file_bytes), (5, 0x0102_0304_0506_0708));
    }

    #[test]
    fn the_longest_name_is_bounded() {
        let long = [b'x'; 4097];
        assert!(DropHeader::encode(&long[..4096], 0).is_ok());
        let error = DropHeader::encode(&long, 0).expect_err("too long");
        assert_eq!(error, WireError::TooLong { field: "name_len", value: 4097, max: 4096 });
        assert_eq!(DropHeader::decode(b"\x00\x00\x10\x01\0\0\0\0\0\0\0\0").expect_err("too long"), error);
    }

    #[test]
    fn a_reply_has_twelve_bytes() {
        let reply = DropReply { status: Status::NameTooLong, crc32: 0x0102_0304 };
        assert_eq!(&reply.encode(), b"FTD1\x00\x10\x00\x00\x01\x02\x03\x04");
        assert_eq!(DropReply::decode(b"FTD1\x00\x10\xff\xff\x01\x02\x03\x04"), Ok(reply));
        assert_eq!(DropReply::decode(b"FTR1\x00\x10\x00\x00\x01\x02\x03\x04"), Err(WireError::Magic(0x4654_5231)));
        assert!(DropReply::decode(b"FTD1\xff\xff\x00\x00\x00\x00\x00\x00").is_err());
    }
}
