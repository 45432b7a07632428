//! What a login prints before a program speaks: passed over, line by line.
//!
//! It is read byte by byte, so that nothing is taken of what stands behind the line that is looked for.

use std::io::{self, Read};

/// What a login may print.
const CHATTER_BYTES_MAX: usize = 1 << 20;

/// How much of it there may still be.
pub(crate) struct Chatter {
    left: usize,
}

impl Default for Chatter {
    fn default() -> Self {
        Self { left: CHATTER_BYTES_MAX }
    }
}

impl Chatter {
    /// Reads until a line comes that `of` finds something in.
    ///
    /// # Errors
    /// The end of the input; [`io::ErrorKind::InvalidData`] where too much comes before it.
    pub(crate) fn find<T>(&mut self, input: &mut impl Read, mut of: impl FnMut(&[u8]) -> Option<T>) -> io::Result<T> {
        loop {
            if let Some(found) = of(&self.line(input)?) {
                return Ok(found);
            }
        }
    }

    fn line(&mut self, input: &mut impl Read) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        loop {
            self.left = self.left.checked_sub(1).ok_or(io::ErrorKind::InvalidData)?;
            let mut byte = [0];
            input.read_exact(&mut byte)?;
            match byte {
                [b'\n'] => return Ok(line),
                [byte] => line.push(byte),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read};

    use super::Chatter;

    #[test]
    fn nothing_behind_the_line_is_taken() {
        let mut input = &b"Welcome\n\nthis one\r\nthis one\nand more"[..];
        let is_it = |line: &[u8]| (line == b"this one").then_some(());
        assert!(Chatter::default().find(&mut input, is_it).is_ok());
        assert_eq!(input, b"and more");
        assert_eq!(Chatter::default().find(&mut input, is_it).unwrap_err().kind(), ErrorKind::UnexpectedEof);
        let too_much = Chatter::default().find(&mut std::io::repeat(b'x').take(1 << 30), is_it);
        assert_eq!(too_much.unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
